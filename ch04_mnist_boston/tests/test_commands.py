"""The command lines: the three tasks as a user types them, and nonsense refused in one line."""

import json
import shlex
import subprocess
import sys

import pytest
import torch
from conftest import CHAPTER, as_a_program, fork, wait_for

import compare
import options
import test as tester
import train
import utils

COMMON = "--data mine --limit 9 --epochs 2 --batch-size 3 --lr 0.01 --weight-decay 0.3 --seed 3"
PICTURES = f"{COMMON} --weights w.pt --patience 3 --precision bf16 --compile"
EVERY = [
    (
        "boston",
        f"{COMMON} --arch course --target price --drop B CHAS --split loo --folds 3 --shuffles 2 --members 2 --width 8 "
        "--features plain --huber 0.3 --l1 0.1 --dropout 0.4 --patience 2",
    ),
    ("mnist", f"{PICTURES} --arch alexnet --image-size 64 --augment 2 --average 0.9 --balance"),
    ("denoise", f"{PICTURES} --arch deep --noise 0.3"),
]


def test_the_three_tasks_run_quickly_offline(tmp_path, monkeypatch, capsys):
    """train and test with no flag but --quick; a quick run is tested only if it is named."""
    monkeypatch.chdir(tmp_path)
    for task in ("boston", "mnist", "denoise"):
        train.main([task, "--quick", "--device", "cpu", "--run", f"runs/{task}"])
    for task, score in (("boston", "rmse"), ("mnist", "accuracy"), ("denoise", "psnr")):
        assert tester.find_run(tester.parse([task])) is None
        run = tmp_path / "runs" / task
        tester.main([task, "--device", "cpu", "--run", str(run)])
        result = json.loads((run / "test.json").read_text("utf-8"))
        assert result["task"] == task and result["data"] == "sample" and result[score] > 0
        assert json.loads((run / "args.json").read_text("utf-8"))["data"] == "sample"
        assert {"last.pt", "metrics.csv", "curves.png"} <= {path.name for path in run.iterdir()}
    capsys.readouterr()
    compare.main([str(path.parent) for path in (tmp_path / "runs").glob("*/test.json")])
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["boston", "denoise", "mnist", "wrote"] and (tmp_path / "compare.png").stat().st_size > 1000


def test_as_a_program_it_prints_no_progress_bar_and_no_traceback(tmp_path):
    output = tmp_path / "output.txt"
    words = ["denoise", "--arch", "shallow", "--quick", "--device", "cpu", "--run", tmp_path / "run"]
    assert wait_for([fork(as_a_program, words, output, {})]) == [0], output.read_text()
    assert "val_psnr" in output.read_text() and "epoch 1:" not in output.read_text()
    done = subprocess.run(
        [sys.executable, "test.py", "minst"], cwd=CHAPTER, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1 and done.stderr.startswith("error: no task 'minst'") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["minst"], "no task 'minst'; there are: boston, mnist, denoise"),
        (["--quick"], "there are: boston, mnist, denoise, as the first word"),
        (["mnist", "--arch", "lenet"], "no architecture 'lenet' for mnist; did you mean lenet5?"),
        (["boston", "--arch", "cnn"], "no architecture 'cnn' for boston; there are: course, silu"),
        (["mnist", "--data", "nowhere"], "--data nowhere: not mnist, fashion, sample or auto"),
        (
            ["mnist", "--arch", "alexnet", "--image-size", "32", "--data", "sample", "--run", "RUN"],
            "alexnet",
        ),
        (["mnist", "--image-size", "4", "--data", "sample"], "'4': must be a whole number from 12 to 1024"),
        (["boston", "--data", "sample", "--target", "rooms"], "--target is for a CSV file"),
        (["boston", "--precision", "bf16"], "it has no use for torchrun, --compile or --precision bf16"),
        (["denoise", "--epochs", "0"], "argument --epochs: '0': must be a whole number, 1 or more"),
        (["--resume", "nowhere"], "--resume nowhere: no args.json there"),
    ],
)
def test_nonsense_is_refused_in_one_line(words, message, tmp_path):
    words = [str(tmp_path / "run") if word == "RUN" else word for word in words]
    with pytest.raises(SystemExit) as refusal:
        train.main([*words, "--device", "cpu"] if len(words) > 1 else words)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU, so asking for one is no error")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(SystemExit, match="--device cuda: this PyTorch .* sees no such device"):
        train.main(["mnist", "--device", "cuda"])


def test_runs_are_never_overwritten_nor_mixed_up(tmp_path):
    words = ["mnist", "--arch", "lenet5", "--quick", "--device", "cpu", "--run", str(tmp_path / "run")]
    train.main(words)
    before = (tmp_path / "run" / "last.pt").read_bytes()
    train.main([*words, "--seed", "1"])
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    assert utils.load_checkpoint(tmp_path / "run-2" / "last.pt")["epoch"] == 1
    words = (tmp_path / "run" / "args.json").read_bytes()
    with pytest.raises(SystemExit, match="leave out --arch"):
        train.main(["--resume", str(tmp_path / "run"), "--arch", "cnn"])
    assert (tmp_path / "run" / "args.json").read_bytes() == words, "a refused resume changed the saved arguments"
    with pytest.raises(SystemExit, match="that is a run of mnist, not of denoise"):
        train.main(["denoise", "--resume", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match="no run of denoise"):
        tester.main(["denoise", "--run", str(tmp_path / "run")])


@pytest.mark.parametrize(("task", "every"), EVERY, ids=[task for task, _ in EVERY])
def test_the_command_in_exported_weights_repeats_the_run(task, every):
    args, usual = options.parse("", [task, *every.split()]), options.parse("", [task])
    elsewhere = dict.fromkeys(utils.ON_THIS_MACHINE)  # where it was trained, and on what, does not matter
    not_tried = [name for name in vars(args) if vars(args)[name] == vars(usual)[name] and name not in elsewhere]
    assert set(not_tried) <= {"quick", "task", "precision", "compile"}  # boston has no use for the last two
    command = utils.command_of(json.loads(json.dumps(vars(args))), usual, f"python train.py {task}")
    again = options.parse("", shlex.split(command)[2:])
    assert vars(again) | elsewhere == vars(args) | elsewhere
