"""Training on one process and on two: it survives the death of a worker with nothing lost, and it refuses nonsense."""

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from two_processes import compare_weights, die_in_the_second_epoch, make, train_by_torchrun, train_on_two, write_curves

import datasets
import export
import models
import sample
import test as tester
import train
import utils

SMALL = ("--arch", "tiny", "--limit", "128", "--device", "cpu")
DRAW_CURVES = utils.draw_curves
pytestmark = pytest.mark.usefixtures("few_drawings")


@pytest.fixture(scope="module")
def few_drawings():
    """The sample is drawn once, and curves are not: both take longer than training here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "make", make)
        patch.setattr(utils, "draw_curves", write_curves)
        yield patch


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


FORKS = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks processes, and looks into /proc")


@FORKS
@pytest.mark.parametrize("flags", [(), ("--shard",)], ids=["ddp", "fsdp2"])
def test_a_process_killed_in_mid_epoch_changes_nothing(tmp_path, flags):
    """With one of three epochs behind it, one of two processes is killed; the other ends; both are started again, and end with
    the weights, moments and metrics of a run that nobody touched, though a later launch's run lies beside theirs."""
    words = (*SMALL, "--arch", "small", "--limit", "128", "--epochs", "3", *flags)
    train_on_two(words, tmp_path / "whole")
    train_on_two(words, tmp_path / "killed", hook=die_in_the_second_epoch, may_fail=True)
    assert len(metrics(tmp_path / "killed")) == 2
    shutil.copytree(tmp_path / "whole", tmp_path / "later")
    os.utime(tmp_path / "later" / "args.json", (time.time() + 9, time.time() + 9))
    said = train_on_two(words, tmp_path / "killed", restarts=1)
    assert f"all start again, and go on with {tmp_path / 'killed'}" in said
    assert not (tmp_path / "killed-2").exists()
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@FORKS
def test_torchrun_starts_again_without_a_name_and_finds_its_own_run(tmp_path):
    """torchrun that was given no --rdzv-id calls all its launches "none". Its worker is killed, and started again by it."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "args.json").write_text(json.dumps({"launch": "none", "epochs": 9}))
    os.utime(other / "args.json", (time.time() + 99, time.time() + 99))
    words = (*SMALL, "--arch", "small", "--limit", "64", "--epochs", "2")
    said = train_by_torchrun(words, tmp_path / "mine", die_in_the_second_epoch)
    assert f"go on with {tmp_path / 'mine'}" in said and len(metrics(tmp_path / "mine")) == 3
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

    train_on_two(
        (*SMALL, "--arch", "small", "--limit", "93", "--epochs", "1", "--batch-size", "31"),
        tmp_path / "run",
        hook=compare_weights,
    )
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
    for words in (
        ["--run", "runs/own"],
        *(["--weights", f"runs/own/{n}"] for n in ("last.pt", "export/tiny.export.pt2")),
    ):
        tester.main([*words, "--out", "out"])
        assert (
            set(read[-1].splits["test"].samples) == held_out and f"({len(held_out)} pictures" in capsys.readouterr().out
        )


# ---- the loop ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_epochs(tmp_path_factory, few_drawings):
    """A run whose second epoch is made to look the best."""
    run, scores = tmp_path_factory.mktemp("three") / "run", iter((0.2, 0.9, 0.5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "evaluate", lambda *_: {"val_loss": 1.0, "val_accuracy": next(scores)})
        train.main([*SMALL, "--epochs", "3", "--weight-decay", "0.3", "--run", str(run)])
    return run


def test_of_epochs_that_score_alike_the_one_with_the_lower_loss_is_the_best():
    rows = [{"epoch": i, "val_accuracy": 0.9, "val_loss": loss} for i, loss in enumerate((1.0, 0.8, 0.9), 1)]
    assert max(rows, key=train.quality)["epoch"] == 2


def test_the_best_epoch_is_kept_not_the_last(three_epochs):
    best, last = (utils.load_checkpoint(three_epochs / name) for name in ("best.pt", "last.pt"))
    assert best["epoch"] == 2 and last["epoch"] == 3
    assert not torch.equal(best["model"]["head.weight"], last["model"]["head.weight"])


def test_the_rate_rises_and_falls(three_epochs):
    rates = [row["lr"] for row in utils.load_checkpoint(three_epochs / "last.pt")["history"]]
    assert rates[0] < rates[1] > rates[2] > 0


def test_weight_decay_has_an_effect(three_epochs):
    groups = utils.load_checkpoint(three_epochs / "last.pt")["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.3}


def test_validation_changes_nothing():
    torch.manual_seed(0)
    model = models.build("tiny").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    split = datasets.Split(torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8), torch.arange(12) % 10)
    args = argparse.Namespace(precision="fp32")
    results = []
    for size in (12, 5):  # nor does it matter in what batches
        loader = datasets.Batches(split, size, torch.device("cpu"))
        results.append(train.evaluate(model, lambda pixels: pixels / 255, loader, args))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert results[0] == pytest.approx(results[1], rel=1e-4)


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


def test_a_run_of_another_network_ends_in_one_line(tmp_path):
    """As after a change of models.py between two parts of a run."""
    layer, wider = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    optimizers = [torch.optim.Adam(model.parameters()) for model in (layer, wider)]
    weights, moments = train.get_state_dict(wider, optimizers[1], options=train.WHOLE)
    last = {"meta": {"arch": "x"}, "model": weights, "optimizer": moments}
    with pytest.raises(SystemExit, match="last.pt: says x, but the weights in it are of another network"):
        train.restore(last, tmp_path, argparse.Namespace(arch="x"), layer, optimizers[0])


def test_learns_the_sample_and_is_tested_once(tmp_path, device, monkeypatch):
    monkeypatch.setattr(datasets, "SAMPLE_SIZES", {"train": 600, "val": 100, "test": 300})
    monkeypatch.setattr(utils, "draw_curves", DRAW_CURVES)
    run = str(tmp_path / "run")
    train.main(["--arch", "tiny", "--epochs", "6", "--lr", "0.01", "--device", device, "--run", run])
    for name in ("args.json", "metrics.csv", "curves.png", "last.pt", "best.pt"):
        assert (tmp_path / "run" / name).stat().st_size > 100
    tester.main(["--run", run, "--export", str(tmp_path / "mine.safetensors")])
    _, meta = utils.load_weights(tmp_path / "mine.safetensors")
    assert meta["command"] == utils.command_of(utils.read_arguments(run), train.parse([]))
    result = json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))
    assert result["accuracy"] > 0.5 and result["pictures"] == 300 and result["tested_on"] == "sample"


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(tmp_path, monkeypatch):
    real = train.F.cross_entropy
    calls = []

    def overflow(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs) * (torch.inf if len(calls) > 4 else 1)  # an epoch has 2 steps and a validation

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


def test_the_command_in_exported_weights_repeats_the_run():
    every = """--data shop --image-size 48 --limit 9 --arch tiny --epochs 2 --batch-size 8 --lr 0.01
        --weight-decay 0.1 --seed 3 --precision bf16 --compile"""
    args, usual = train.parse(every.split()), train.parse([])
    elsewhere = dict.fromkeys(utils.ON_THIS_MACHINE)  # where it was trained, and on what, does not matter
    not_tried = [name for name in vars(args) if vars(args)[name] == vars(usual)[name] and name not in elsewhere]
    assert not_tried == ["quick"]
    command = utils.command_of(json.loads(json.dumps(vars(args))), usual)
    again = train.parse(shlex.split(command)[2:])
    assert vars(again) | elsewhere == vars(args) | elsewhere
