"""Training as a whole: it learns, it resumes exactly after a kill, it refuses nonsense in one line."""

import json
import os
import time
from argparse import Namespace

import pytest
import torch
from conftest import end, fork, fork_two, kill
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import bench
import datasets
import models
import options
import scores
import test as tester
import train
import utils

SMALL = ("--data", "sample", "--arch", "bilstm", "--batch-size", "64", "--dim", "8", "--hidden", "8", "--limit", "900")
SMALL += ("--epochs", "4")


def metrics(run):
    return (run / "metrics.csv").read_text("utf-8").splitlines()


def assert_same_run(one, other):
    """The same metrics.csv, byte for byte, and the same weights and optimizer state, bit for bit."""
    assert metrics(one) == metrics(other)
    for name in ("last.pt", "best.pt"):
        first, second = (utils.load_checkpoint(run / name) for run in (one, other))
        assert first["epoch"] == second["epoch"] and first["meta"] == second["meta"]
        assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    states = [utils.load_checkpoint(run / "last.pt")["optimizer"]["state"] for run in (one, other)]
    assert all(torch.equal(a, states[1][i][key]) for i in states[0] for key, a in states[0][i].items())


def start(words, run, epochs, fork=fork):
    """Starts train.py and kills it with signal 9, and all its processes, once last.pt has `epochs` epochs or more."""
    output = run.with_name(f"{run.name}.txt")
    started = fork([*words, "--run", run], output)
    processes = started if isinstance(started, list) else [started]
    deadline = time.time() + 300
    while not (run / "last.pt").exists() or utils.load_checkpoint(run / "last.pt")["epoch"] < epochs:
        assert all(process.is_alive() for process in processes), output.read_text()
        assert time.time() < deadline
        time.sleep(0.01)
    kill(processes)
    assert utils.load_checkpoint(run / "last.pt")["epoch"] >= epochs  # what the resumed run starts from


def test_killed_and_resumed_equals_never_killed(tmp_path, cache):
    words = [*SMALL[:-1], "8", "--device", "cpu", "--cache", str(cache)]
    train.main([*words, "--run", str(tmp_path / "whole")])
    killed = tmp_path / "killed"
    start(words, killed, epochs=2)
    assert len(metrics(killed)) < 1 + 8, "it was over before the kill"
    train.main(["--resume", str(killed)])
    assert_same_run(tmp_path / "whole", killed)


def test_killed_and_resumed_on_two_processes(tmp_path, table, cache):
    """A table, so that the second process reads what the first one cached."""
    path = table([(f"第{i}次来,{'真好' if i % 2 else '太差'}", i % 2) for i in range(1200)])
    words, said = ["--data", path, *SMALL[2:-1], "8", "--device", "cpu"], tmp_path / "said.txt"
    both = fork_two([*words, "--cache", tmp_path / "cache", "--run", tmp_path / "whole"], said)
    assert end(both) == [0, 0], said.read_text()
    killed = tmp_path / "killed"
    start([*words, "--cache", cache], killed, epochs=2, fork=fork_two)
    assert len(metrics(killed)) < 1 + 8, "it was over before the kill"
    assert end(fork_two(["--resume", killed], said)) == [0, 0], said.read_text()
    assert_same_run(tmp_path / "whole", killed)


def test_learns_the_sample(tmp_path, device, cache):
    """An LSTM in both directions passes 90 % on the sample's test split, where counting words stays below 70 %."""
    run = str(tmp_path / "run")
    words = ["--data", "sample", "--arch", "bilstm", "--tokenizer", "jieba", "--hidden", "32", "--epochs", "6"]
    train.main([*words, "--cache", str(cache), "--device", device, "--run", run])
    tester.main(["--run", run, "--cache", str(cache), "--device", device])
    result = json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))
    assert result["accuracy"] > 0.90 and result["tested_on"] == "sample" and result["texts"] > 500
    files = ("args.json", "metrics.csv", "curves.png", "last.pt", "best.pt")
    for name in (*files, "confusion.png", "calibration.png", "words.svg"):
        assert (tmp_path / "run" / name).stat().st_size > 100
    assert (tmp_path / "run" / "mistakes.txt").exists()  # in which nothing stands if there were none


def test_quick_run_as_a_user_runs_it(tmp_path, run_script, device, cache):
    run = tmp_path / "quick"
    words = ("--arch", "fasttext", "--quick", "--device", device, "--cache", cache, "--run", run)
    done = run_script("train.py", *words)
    assert done.returncode == 0, done.stderr
    assert "val_accuracy" in done.stdout and f"now: python test.py --run {run}" in done.stdout
    assert done.stderr == ""  # no progress bar where the output is no terminal, nothing from jieba
    assert json.loads((run / "args.json").read_text("utf-8"))["data"] == "sample"
    assert "val_accuracy" in EventAccumulator(str(run)).Reload().Tags()["scalars"]


@pytest.mark.parametrize("arch", options.RECIPES)
def test_every_recipe_runs_and_a_run_never_overwrites_another(arch, tmp_path, cache):
    words = ["--data", "sample", "--arch", arch, "--quick", "--limit", "64", "--dim", "16", "--hidden", "16"]
    words += ["--device", "cpu", "--cache", str(cache), "--run", str(tmp_path / "run")]
    train.main(words)
    before = (tmp_path / "run" / "last.pt").read_bytes()
    train.main([*words, "--seed", "1", "--precision", "bf16"])
    assert utils.load_checkpoint(tmp_path / "run-2" / "last.pt")["epoch"] == 1
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_the_bench_prints_its_line(capsys, cache):
    words = ["--data", "sample", "--arch", "textcnn", "--limit", "300", "--dim", "8", "--hidden", "8", "--bench"]
    train.main([*words, "--device", "cpu", "--cache", str(cache)])
    line = json.loads(capsys.readouterr().out)
    assert line["texts_per_s"] > line["course_texts_per_s"] > 0 and line["padding"]["ours"] < line["padding"]["course"]
    assert 0 < line["utilisation"] < 1 and line["step_gflops"] > 0
    assert bench.ROUNDS >= 3


def test_the_network_to_begin_with_suits_the_data(tmp_path):
    utils.save_weights(tmp_path / "w.safetensors", models.build("bilstm", 30, 3, dim=8, hidden=4), arch="bilstm")
    wanted = {"sample": "textcnn", "auto": "textcnn", "my.csv": "fasttext", "my.csv --vectors v.vec": "textcnn"}
    wanted |= {"my.csv --arch lstm": "lstm", f"my.csv --weights {tmp_path / 'w.safetensors'}": "bilstm"}
    assert {words: options.parse("", ["--data", *words.split()]).arch for words in wanted} == wanted


@pytest.mark.parametrize(("words", "warned"), [("", True), ("--emoticons strip", False), ("--arch textcnn", False)])
def test_a_table_full_of_emoticons_is_no_table_for_fasttext(words, warned, table, cache, capsys):
    path = table([(f"今天第{i}次{'[泪][哈哈]'[i % 2 * 3 : 3 + i % 2]}啊", "好坏"[i % 2]) for i in range(60)])
    train.load_data(
        options.parse("", ["--data", str(path), "--tokenizer", "char", "--cache", str(cache), *words.split()])
    )
    assert ("which --arch textcnn learns better" in capsys.readouterr().err) is warned


def test_shared_weights_start_another_run_with_their_own_vocabulary(tmp_path, table, cache):
    words = ["--arch", "textcnn", "--dim", "8", "--hidden", "8", "--quick", "--device", "cpu", "--cache", str(cache)]
    train.main([*words, "--data", "sample", "--run", str(tmp_path / "run")])
    shared = str(tmp_path / "shared.safetensors")
    tester.main(["--run", str(tmp_path / "run"), "--cache", str(cache), "--export", shared, "--device", "cpu"])
    own = table([(f"第{i}个{'甲乙丙'[i % 3]}", "甲乙丙"[i % 3]) for i in range(300)])
    train.main([*words, "--data", str(own), "--weights", shared, "--run", str(tmp_path / "own")])
    saved, meta = utils.load_checkpoint(tmp_path / "own" / "best.pt"), utils.load_weights(shared)[1]
    assert meta["command"] == utils.command_of(utils.read_arguments(tmp_path / "run"), options.parse("", []))
    assert saved["meta"]["vocabulary"] == meta["vocabulary"] and saved["meta"]["classes"] == ["丙", "乙", "甲"]
    assert saved["model"]["head.bias"].shape == (3,)
    with pytest.raises(SystemExit, match="holds a textcnn, not a lstm"):
        train.main([*words[2:], "--arch", "lstm", "--data", str(own), "--weights", shared])


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(tmp_path, monkeypatch, cache):
    real, run = scores.F.cross_entropy, tmp_path / "run"
    calls = []

    def overflow(logits, *words, **kwargs):
        calls.append(logits.requires_grad)
        return real(logits, *words, **kwargs) * (torch.inf if calls.count(True) > 2 * 14 + 3 else 1)

    monkeypatch.setattr(scores.F, "cross_entropy", overflow)
    with pytest.raises(SystemExit, match="loss is not finite in epoch 3"):
        train.main([*SMALL, "--device", "cpu", "--cache", str(cache), "--run", str(run)])
    saved = utils.load_checkpoint(run / "last.pt")
    assert saved["epoch"] == 2 and len(metrics(run)) == 3
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    torch.save({"model": Trap()}, tmp_path / "last.pt")
    with pytest.raises(SystemExit, match="not a checkpoint that can be read"):
        utils.load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arch", "bilstn"], "no architecture 'bilstn'; did you mean bilstm?"),
        (["--data", "nowhere"], "--data nowhere: not weibo, sample or auto"),
        (["--resume", "nowhere"], "no args.json there"),
        (["--data", "sample", "--stop-words", "nowhere"], "--stop-words nowhere: not none or hit"),
        (["--dropout", "1"], "argument --dropout: '1': must be a number from 0 to 0.99"),
        (["--max-length", "0"], "argument --max-length: '0': must be a whole number, 1 or more"),
        (["--arch", "transformer", "--dim", "30", "--data", "sample"], "--dim 30: transformer takes multiples of 4"),
    ],
)
def test_nonsense_is_refused_in_one_line(words, message, cache):
    with pytest.raises(SystemExit) as refusal:
        train.main(["--device", "cpu", "--cache", str(cache), *words])
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU, so asking for one is no error")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(SystemExit, match="--device cuda: this PyTorch .* sees no such device"):
        train.main(["--device", "cuda"])


def test_a_run_of_another_network_ends_in_one_line(tmp_path):
    """As after a change of models.py, or of the optimizer's groups, between two parts of a run."""
    layer, wider = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    optimizer, other = torch.optim.SGD(layer.parameters(), 0.1), torch.optim.SGD([layer.weight], 0.1)
    for saved, states in ((wider, optimizer), (layer, other)):
        last = {"meta": {"arch": "x"}, "model": saved.state_dict(), "optimizer": states.state_dict()}
        with pytest.raises(SystemExit, match="last.pt: says x, but the weights in it are of another network"):
            train.restore(last, tmp_path, Namespace(arch="x"), {}, layer, optimizer)


def test_resuming_is_refused_with_another_arch_and_after_the_data_changed(tmp_path, table, cache):
    run, path = str(tmp_path / "run"), table([(f"第{i}条{'好' if i % 2 else '坏'}", i % 2) for i in range(300)])
    words = ["--data", str(path), "--arch", "textcnn", "--quick", "--device", "cpu", "--cache", str(cache)]
    train.main([*words, "--run", run])
    before = (tmp_path / "run" / "args.json").read_bytes()
    with pytest.raises(SystemExit, match="leave out --arch"):
        train.main(["--resume", run, "--arch", "lstm"])
    table([(f"第{i}天{'好' if i % 2 else '坏'}", i % 2) for i in range(300)])
    with pytest.raises(SystemExit, match="the data are not those of the run: .* train samples gone"):
        train.main(["--resume", run])
    assert (tmp_path / "run" / "args.json").read_bytes() == before
    assert datasets.PARTS == ("train", "val", "test")
