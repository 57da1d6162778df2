"""Training on one process and on two: it survives the death of a worker with nothing lost, and it refuses nonsense."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import CHAPTER

import test as tester
import train
import utils

SMALL = ("--arch", "tiny", "--limit", "320", "--device", "cpu")


def torchrun(*words) -> subprocess.Popen:
    flags = "-m torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 3 -- train.py"
    command = [sys.executable, *flags.split(), *SMALL, *map(str, words)]
    return subprocess.Popen(command, cwd=CHAPTER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(process: subprocess.Popen) -> None:
    """Ends torchrun, if it still runs; asked politely it ends its workers too."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def finish(process: subprocess.Popen) -> str:
    try:
        output, _ = process.communicate(timeout=240)
    finally:
        end(process)
    assert process.returncode == 0, output
    return output


def workers_of(process: subprocess.Popen) -> list[int]:
    """The training processes that torchrun started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


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


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers in /proc, which only Linux has")
@pytest.mark.parametrize("flags", [(), ("--shard",)], ids=["ddp", "fsdp2"])
def test_a_worker_killed_in_mid_epoch_changes_nothing(tmp_path, flags):
    """With two of six epochs behind it, one of two workers is killed; torchrun starts both again, and they end with the
    weights, moments and metrics of a run that nobody touched."""
    words = ("--epochs", "6", *flags, "--run")
    finish(torchrun(*words, tmp_path / "whole"))
    process = torchrun(*words, tmp_path / "killed")
    deadline = time.time() + 200
    while process.poll() is None and len(metrics(tmp_path / "killed")) < 3 and time.time() < deadline:
        time.sleep(0.005)
    if process.poll() is None:
        os.kill(workers_of(process)[1], signal.SIGKILL)
    assert len(metrics(tmp_path / "killed")) < 7, "it was over before the kill"
    assert "all start again, and go on with" in finish(process)
    assert not (tmp_path / "killed-2").exists()
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


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
    train.main(["--arch", "tiny", "--limit", "3000", "--epochs", "6", "--device", device, "--run", run])
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
