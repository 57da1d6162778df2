"""Training on one process and on two: it survives the death of a worker with nothing lost, and it refuses nonsense."""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
from conftest import CHAPTER

import datasets
import export
import test as tester
import train
import utils

SMALL = ("--arch", "tiny", "--limit", "320", "--device", "cpu")


def start(words, run: Path, number: int, port: int, restarts: int = 0, hook=None) -> int:
    """One of two training processes, as torchrun would start it, forked from this one, which has imported torch -> its number."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        here = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        here |= {"TORCHELASTIC_RESTART_COUNT": restarts, "TORCHELASTIC_RUN_ID": f"launch of {run.name}"}
        os.environ.update({name: str(value) for name, value in here.items()})
        output = os.open(run.with_suffix(f".{number}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1), os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        signal.alarm(120)
        if hook:
            hook(number)
        train.main([*SMALL, *map(str, words), "--run", str(run)])
        code = 0
    except SystemExit as why:
        print(why, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def train_on_two(words, run: Path, restarts: int = 0, hook=None) -> str:
    """-> what the first process said. Both must end well, unless a `hook` is there to see that they do not."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pids = [start(words, run, number, port, restarts, hook) for number in range(2)]
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    said = run.with_suffix(".0.log").read_text()
    assert hook or ends == [0, 0], said
    return said


def metrics(run: Path) -> list[str]:
    path = run / "metrics.csv"
    return path.read_text("utf-8").splitlines() if path.exists() else []


def assert_same_run(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    first, second = (utils.load_checkpoint(run / "last.pt") for run in (one, other))
    assert first["epoch"] == second["epoch"]
    assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    states = first["optimizer"]["state"], second["optimizer"]["state"]
    assert all(torch.equal(value, states[1][name][key]) for name in states[0] for key, value in states[0][name].items())


FORKS = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks processes that have imported torch")


def die_in_the_third_epoch(number: int) -> None:
    real = train.train_one_epoch

    def train_or_die(*words):
        if number == 1 and words[2].epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words)

    train.train_one_epoch = train_or_die


@FORKS
@pytest.mark.parametrize("flags", [(), ("--shard",)], ids=["ddp", "fsdp2"])
def test_a_process_killed_in_mid_epoch_changes_nothing(tmp_path, flags):
    """With two of four epochs behind it, one of two processes is killed; the other ends; both are started again, and end with
    the weights, moments and metrics of a run that nobody touched, though a later launch's run lies beside theirs."""
    words = ("--epochs", "4", *flags)
    train_on_two(words, tmp_path / "whole")
    train_on_two(words, tmp_path / "killed", hook=die_in_the_third_epoch)
    assert len(metrics(tmp_path / "killed")) == 3
    shutil.copytree(tmp_path / "whole", tmp_path / "later")
    os.utime(tmp_path / "later" / "args.json", (time.time() + 9, time.time() + 9))
    said = train_on_two(words, tmp_path / "killed", restarts=1)
    assert f"all start again, and go on with {tmp_path / 'killed'}" in said
    assert not (tmp_path / "killed-2").exists()
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@FORKS
def test_torchrun_starts_again_without_a_name_and_finds_its_own_run(tmp_path):
    """A real torchrun, that was given no --rdzv-id, so that all its launches are called "none"."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "args.json").write_text(json.dumps({"launch": "none", "epochs": 9}))
    os.utime(other / "args.json", (time.time() + 99, time.time() + 99))
    stub = (
        "import os, signal, train, utils\n"
        "real = train.train_one_epoch\n"
        "def one(*words):\n"
        "    if utils.rank() and words[2].epoch == 1 and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*words)\n"
        "train.train_one_epoch = one\n"
        "train.main()\n"
    )
    (tmp_path / "dying.py").write_text(stub)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = f"-m torch.distributed.run --nproc-per-node 2 --max-restarts 1 --master-port {port} --".split()
    words = [tmp_path / "dying.py", *SMALL, "--epochs", 2, "--run", tmp_path / "mine"]
    command, environment = [sys.executable, *flags, *words], os.environ | {"PYTHONPATH": str(CHAPTER)}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"go on with {tmp_path / 'mine'}" in done.stdout and len(metrics(tmp_path / "mine")) == 3
    assert "none" not in utils.read_arguments(tmp_path / "mine")["launch"]


def test_a_launch_without_a_name_is_told_by_its_process_and_when_that_began(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert train.launch_id() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job 7")
    assert train.launch_id() == "job 7"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    mine = train.launch_id()
    assert mine == train.launch_id() and str(os.getppid()) in mine.split()
    monkeypatch.setattr(os, "getppid", os.getpid)
    assert train.launch_id() != mine


# ---- shares of a batch ------------------------------------------------------------------------------------------------


def step_of(rank: int, world: int, monkeypatch) -> torch.Tensor:
    """How one step of train_one_epoch moves the weights, on the share of process `rank` of a batch of seven."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))
    monkeypatch.setattr(train, "mean_over_processes", lambda sums, part: {"train_loss": 0.0})
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    before = model[1].weight.detach().clone()
    split = datasets.Split(torch.randint(0, 256, (7, 3, 2, 2), dtype=torch.uint8), torch.arange(7) % 3)
    loader = datasets.Batches(split, 7, torch.device("cpu"), shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    args = argparse.Namespace(precision="fp32", lr=1.0)
    train.train_one_epoch(model, lambda pixels: pixels / 255, loader, optimizer, schedule, args)
    return model[1].weight.detach() - before


def test_unequal_shares_of_a_batch_count_by_their_size(monkeypatch):
    """The mean over three processes, as DDP and FSDP2 make it, is the step of one process on the whole batch."""
    whole = step_of(0, 1, monkeypatch)
    shares = [step_of(rank, 3, monkeypatch) for rank in range(3)]
    torch.testing.assert_close(sum(shares) / 3, whole)


@FORKS
def test_the_processes_average_their_gradients(tmp_path):
    """Without that their weights would differ from the first step on, and nobody would notice."""

    def compare(number: int) -> None:
        real = train.report

        def check(*words):
            weights = torch.cat([p.detach().flatten() for p in check.model.parameters()])
            both = [torch.empty_like(weights) for _ in range(2)]
            torch.distributed.all_gather(both, weights)
            assert torch.equal(*both), "the weights differ"
            return real(*words)

        distribute = train.distribute

        def keep(model, *words):
            check.model = distribute(model, *words)
            return check.model

        train.report, train.distribute = check, keep

    train_on_two(("--epochs", "1", "--batch-size", "31"), tmp_path / "run", hook=compare)
    assert len(metrics(tmp_path / "run")) == 2 and (tmp_path / "run" / "curves.png").exists()


def test_a_batch_too_small_to_share_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    args = argparse.Namespace(data="sample", image_size=None, limit=20, batch_size=1, seed=0, arch="tiny")
    with pytest.raises(SystemExit, match="a batch of 1 for 2 processes: each needs a picture or more"):
        train.read_data(args, torch.device("cpu"))


def test_what_a_run_held_out_is_what_is_tested(tmp_path, picture_folder, monkeypatch, capsys):
    """Also of its other files: last.pt, and what was exported from it."""
    folder = picture_folder("pictures", cat=20, dog=30)
    monkeypatch.chdir(tmp_path)
    train.main(["--arch", "tiny", "--data", str(folder), "--epochs", "1", "--device", "cpu", "--run", "runs/own"])
    held_out = set(utils.read_json(Path("runs/own/split.json"))["test"])
    export.main(["--to", "export", "--run", "runs/own"])
    read = []
    real = datasets.load
    monkeypatch.setattr(datasets, "load", lambda *words, **more: read.append(real(*words, **more)) or read[-1])
    for words in (["--run", "runs/own"], *(["--weights", f"runs/own/{n}"] for n in ("last.pt", "export/tiny.export.pt2"))):
        tester.main([*words, "--out", "out"])
        assert set(read[-1].splits["test"].samples) == held_out and f"({len(held_out)} pictures" in capsys.readouterr().out


# ---- the loop ---------------------------------------------------------------------------------------------------------


def test_resumed_equals_never_stopped(tmp_path, monkeypatch):
    words = [*SMALL, "--epochs", "3", "--run"]
    train.main([*words, str(tmp_path / "whole")])
    real = train.save

    def save_and_die(run, args, progress, *rest):
        real(run, args, progress, *rest)
        if progress["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train.main([*words, str(tmp_path / "stopped")])
    monkeypatch.undo()
    train.main(["--resume", str(tmp_path / "stopped")])
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_learns_the_sample_and_is_tested_once(tmp_path, device):
    run = str(tmp_path / "run")
    train.main(["--arch", "tiny", "--limit", "1500", "--epochs", "6", "--device", device, "--run", run])
    for name in ("args.json", "metrics.csv", "curves.png", "last.pt", "best.pt"):
        assert (tmp_path / "run" / name).stat().st_size > 100
    tester.main(["--run", run])
    result = json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))
    assert result["accuracy"] > 0.5 and result["pictures"] == 2000 and result["tested_on"] == "sample"


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(tmp_path, monkeypatch):
    real = train.F.cross_entropy
    calls = []

    def overflow(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs) * (torch.inf if len(calls) > 8 else 1)  # an epoch has 5 steps and a validation

    monkeypatch.setattr(train.F, "cross_entropy", overflow)
    with pytest.raises(SystemExit, match="loss is not finite in epoch 2"):
        train.main([*SMALL, "--epochs", "3", "--run", str(tmp_path / "run")])
    saved = utils.load_checkpoint(tmp_path / "run" / "last.pt")
    assert saved["epoch"] == 1 and all(tensor.isfinite().all() for tensor in saved["model"].values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arch", "resnet11"], "no architecture 'resnet11'"),
        (["--data", "nowhere"], "--data nowhere: not sample or auto"),
        (["--resume", "nowhere"], "no args.json there"),
        (["--shard"], "start them with torchrun"),
        (["--epochs", "0"], "argument --epochs: '0': must be a whole number, 1 or more"),
    ],
)
def test_nonsense_is_refused_in_one_line(words, message):
    with pytest.raises(SystemExit) as refusal:
        train.main(["--device", "cpu", "--limit", "50", *words])
    assert message in str(refusal.value) and "\n" not in str(refusal.value)
