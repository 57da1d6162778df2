"""Training as a whole: it learns, it resumes exactly after a kill, it refuses nonsense in one line."""

import copy
import json
import os
import resource
import time

import pytest
import torch
import torch.nn.functional as F
from conftest import as_a_program, exit_codes, fork, train_on_two_processes, two_ranks
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import datasets
import models
import optimizers
import options
import test as tester
import train
import utils

SMALL = ("--data", "sample", "--arch", "lenet5", "--limit", "512", "--epochs", "4")


def metrics(run):
    return (run / "metrics.csv").read_text("utf-8").splitlines()


def assert_same_run(one, other):
    """The same metrics.csv, byte for byte, and the same weights and optimizer state, bit for bit."""
    assert metrics(one) == metrics(other)
    for name in ("last.pt", "best.pt"):
        first, second = (utils.load_checkpoint(run / name) for run in (one, other))
        assert first["epoch"] == second["epoch"]
        assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    states = [utils.load_checkpoint(run / "last.pt")["optimizer"]["state"] for run in (one, other)]
    assert all(torch.equal(a, states[1][i][key]) for i in states[0] for key, a in states[0][i].items())


def start_and_kill(words, run, epochs, environments=({},)):
    """Starts train.py once for each environment, and kills it with signal 9 once `epochs` epochs are in `run`."""
    output = run.with_name(f"{run.name}.txt")
    programs = [fork(as_a_program, [*words, "--run", run], output, environment) for environment in environments]
    deadline = time.monotonic() + 100
    while not (run / "metrics.csv").exists() or len(metrics(run)) < 1 + epochs:
        assert all(program.is_alive() for program in programs), output.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for program in programs:
        program.kill()
        program.join()
    assert len(metrics(run)) < 1 + 4, "it was over before the kill"


def test_killed_and_resumed_equals_never_killed(tmp_path):
    train.main([*SMALL, "--device", "cpu", "--run", str(tmp_path / "whole")])
    killed = tmp_path / "killed"
    start_and_kill([*SMALL, "--device", "cpu"], killed, epochs=2)
    train.main(["--resume", str(killed)])
    assert_same_run(tmp_path / "whole", killed)


def test_killed_and_resumed_on_two_processes(tmp_path):
    words, killed = [*SMALL, "--device", "cpu"], tmp_path / "killed"
    train_on_two_processes([*words, "--run", tmp_path / "whole"], tmp_path / "whole.txt")
    start_and_kill(words, killed, 2, two_ranks())
    train_on_two_processes(["--resume", killed], tmp_path / "resumed.txt")
    assert_same_run(tmp_path / "whole", killed)


def test_learns_the_sample(tmp_path, device):
    """A small convolutional network passes 70 % on the sample's test split in a few epochs on half of the training pictures,
    where a linear model on all of them stays below 60 %."""
    run, words = str(tmp_path / "run"), ["--limit", "2000", "--epochs", "10"]
    train.main(["--data", "sample", "--arch", "lenet5", *words, "--device", device, "--run", run])
    tester.main(["--run", run, "--device", device])
    result = json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))
    assert result["accuracy"] > 0.70 and result["tested_on"] == "sample" and result["pictures"] == 1000
    for name in (
        "args.json",
        "metrics.csv",
        "curves.png",
        "last.pt",
        "best.pt",
        "confusion.png",
        "pr_roc.png",
        "mistakes.png",
    ):
        assert (tmp_path / "run" / name).stat().st_size > 100


def test_a_linear_model_fails_on_the_sample():
    """Ridge regression on the pixels, the best of several penalties as if we had peeked at the test split. On the means of
    two by two pixels: 0.48, where all of them give 0.50 and take ten times as long."""
    data = datasets.load("sample", parts=("train", "test"))
    halved = {name: F.avg_pool2d(part.images / 255, 2).flatten(1) for name, part in data.splits.items()}
    (x, y), (test_x, test_y) = ((halved[name], part.labels) for name, part in data.splits.items())
    mean = x.mean(0)
    x, test_x, targets = x - mean, test_x - mean, torch.nn.functional.one_hot(y) - 0.1
    gram, product = x.T @ x, x.T @ targets
    best = 0.0
    for penalty in (10, 100, 1000):
        weights = torch.linalg.solve(gram + penalty * torch.eye(len(gram)), product)
        best = max(best, ((test_x @ weights).argmax(1) == test_y).float().mean().item())
    assert 0.4 < best < 0.6


def test_quick_run_as_a_user_runs_it(tmp_path):
    run, output = tmp_path / "quick", tmp_path / "output.txt"
    words = ["--arch", "mobilenet", "--quick", "--device", "cpu", "--run", run]
    assert exit_codes([fork(as_a_program, words, output, {})]) == [0], output.read_text()
    said = output.read_text()
    assert "val_accuracy" in said and f"now: python test.py --run {run}" in said
    assert "epoch 1:" not in said  # no progress bar where the output is no terminal
    assert json.loads((run / "args.json").read_text("utf-8"))["data"] == "sample"
    events = EventAccumulator(str(run)).Reload().Tags()
    assert "val_accuracy" in events["scalars"] and "augmented_training_pictures" in events["images"]


def test_a_run_never_overwrites_another(tmp_path):
    words = ["--data", "sample", "--arch", "lenet5", "--quick", "--device", "cpu", "--run", str(tmp_path / "run")]
    train.main(words)
    before = (tmp_path / "run" / "last.pt").read_bytes()
    train.main([*words, "--seed", "1"])
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    assert utils.load_checkpoint(tmp_path / "run-2" / "last.pt")["epoch"] == 1


@pytest.mark.parametrize(
    "flags", [("--loader", "files"), ("--no-val",), ("--precision", "bf16", "--colour", "0.2", "--cutout", "8")]
)
def test_own_folder(picture_folder, tmp_path, flags):
    words = ["--data", str(picture_folder(cat=30, dog=30)), "--image-size", "32", "--arch", "lenet5", "--epochs", "2"]
    train.main([*words, "--batch-size", "16", "--device", "cpu", "--run", str(tmp_path / "run"), *flags])
    saved = utils.load_checkpoint(tmp_path / "run" / "best.pt")
    assert saved["meta"]["classes"] == ["cat", "dog"] and saved["model"]["head.4.bias"].shape == (2,)
    tester.main(["--run", str(tmp_path / "run"), "--device", "cpu"])
    held = json.loads((tmp_path / "run" / "split.json").read_text("utf-8"))["test"]
    assert json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))["pictures"] == len(held) > 1


def test_shared_weights_start_another_run(tmp_path):
    words = ["--data", "sample", "--quick", "--device", "cpu", "--arch", "lenet5"]
    model = models.build("lenet5", num_classes=3)
    model.surplus = torch.nn.Linear(2, 2)  # a layer that only helped in training
    utils.save_weights(tmp_path / "three.safetensors", model, arch="lenet5")
    args = options.parse(None, [*words, "--weights", str(tmp_path / "three.safetensors")])
    started = train.make_model(args, 10, torch.device("cpu"))
    assert torch.equal(started.features[0].weight, model.features[0].weight)
    assert started.head[4].weight.shape == (10, 84)
    with pytest.raises(SystemExit, match="holds a lenet5, not a vgg"):
        train.main([*words[:-1], "vgg", "--weights", str(tmp_path / "three.safetensors")])


def test_weights_of_an_older_network_are_refused_in_one_line(tmp_path):
    older = models.build("fastnet", 10)
    del older.features[0].bias  # as before the first layer had one
    utils.save_weights(tmp_path / "older.safetensors", older, arch="fastnet")
    words = ["--data", "sample", "--quick", "--device", "cpu", "--arch", "fastnet"]
    args = options.parse(None, [*words, "--weights", str(tmp_path / "older.safetensors")])
    with pytest.raises(
        SystemExit, match="says fastnet, but .* of another network, or of an older version of this code"
    ):
        train.make_model(args, 10, torch.device("cpu"))


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(tmp_path, monkeypatch):
    real = datasets.Augment.__call__
    run = tmp_path / "run"

    def overflow(self, images, indices, epoch):
        return real(self, images, indices, epoch).float() * (torch.inf if epoch == 2 else 1)

    monkeypatch.setattr(datasets.Augment, "__call__", overflow)
    with pytest.raises(SystemExit, match="loss is not finite in epoch 3"):
        train.main([*SMALL, "--device", "cpu", "--run", str(run)])
    saved = utils.load_checkpoint(run / "last.pt")
    assert saved["epoch"] == 2 and len(metrics(run)) == 3
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


def test_a_full_disk_leaves_the_last_good_file(tmp_path):
    """The system refuses to write past a size limit, as it does on a full disk."""
    path = tmp_path / "last.pt"
    utils.save_checkpoint(path, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(SystemExit, match=r"cannot write .*last.pt: .*; what was there before is untouched"):
            utils.save_checkpoint(path, {"epoch": 2, "model": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert utils.load_checkpoint(path) == {"epoch": 1} and os.listdir(tmp_path) == ["last.pt"]


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
        (["--arch", "vgg99"], "no architecture 'vgg99'; did you mean vgg?"),
        (["--data", "nowhere"], "--data nowhere: not cifar10, sample or auto"),
        (["--resume", "nowhere"], "no args.json there"),
        (["--arch", "vgg", "--pretrained"], "ImageNet weights for torchvision_resnet18 only"),
        (["--data", "sample", "--loader", "files"], "--loader files reads a folder of pictures"),
    ],
)
def test_nonsense_is_refused_in_one_line(words, message):
    with pytest.raises(SystemExit) as refusal:
        train.main(["--device", "cpu", *words])
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU, so asking for one is no error")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(SystemExit, match="--device cuda: this PyTorch .* sees no such device"):
        train.main(["--device", "cuda"])


def test_resuming_with_another_arch_is_refused(tmp_path):
    run = str(tmp_path / "run")
    train.main(["--data", "sample", "--arch", "lenet5", "--quick", "--device", "cpu", "--run", run])
    before = (tmp_path / "run" / "args.json").read_bytes()
    with pytest.raises(SystemExit, match="goes on with the run's own data and recipe; leave out --arch"):
        train.main(["--resume", run, "--arch", "vgg"])
    assert (tmp_path / "run" / "args.json").read_bytes() == before


# ---- optimizers -------------------------------------------------------------------------------------------------------


def test_orthogonalize_brings_all_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((16, 144), (144, 16)):
        matrix = torch.randn(shape)
        result = optimizers.orthogonalize(matrix, steps=6)
        values = torch.linalg.svdvals(result)
        assert values.min() > 0.5 and values.max() < 1.4
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        nearest = left @ right
        assert (result * nearest).sum() / (result.norm() * nearest.norm()) > 0.95


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_muon_multiplies_in_the_precision_of_the_run(precision, dtype, monkeypatch):
    seen, model = [], torch.nn.Conv2d(3, 4, 3)
    monkeypatch.setattr(optimizers, "orthogonalize", lambda matrix: seen.append(matrix.dtype) or matrix)
    optimizer = optimizers.make_optimizer(model, "muon", 0.1, 0.0, precision)
    model(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    assert seen == [dtype] and model.weight.dtype == torch.float32


def test_muon_moves_filters_head_and_biases_alike():
    """A rate for a summed loss, used with a mean one, would leave the biases where they are."""
    torch.manual_seed(0)
    model = models.FastNet(widths=(32, 64, 64))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = optimizers.make_optimizer(model, "muon", 0.12, 0.0)
    images, labels = torch.randn(32, 3, 12, 12), torch.arange(32) % 10
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters() if p.requires_grad}
    assert len(moved) == 14 and all(0.02 < distance < 5 for distance in moved.values()), moved


@pytest.mark.parametrize("steps", range(1, 12))
def test_every_schedule_stands_any_number_of_steps_and_can_be_taken_up_anywhere(steps):
    """The rates of a schedule that starts at step `done` are those of the whole one from there on, bit for bit."""
    for name in optimizers.SCHEDULES:
        seen, states = {}, {}
        for done in range(steps):
            optimizer = optimizers.make_optimizer(models.build("lenet5"), "sgd", 1.0, 0.0)
            if done:  # as restored from a checkpoint
                optimizer.load_state_dict(states[done])
            scheduler = optimizers.make_scheduler(optimizer, name, epochs=steps, steps=1, done=done)
            seen[done] = []
            for step in range(done, steps):
                seen[done].append(optimizer.param_groups[0]["lr"])
                if not done:
                    states[step] = copy.deepcopy(optimizer.state_dict())
                optimizer.step()
                scheduler.step()
            assert seen[done] == seen[0][done:] and all(0 <= rate <= 1 for rate in seen[done])


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("cosine", {0: 1.0, 50: 0.5, 100: 0.0}),
        ("linear", {0: 1.0, 50: 0.5, 100: 0.0}),
        ("step", {0: 1.0, 49: 1.0, 50: 0.9, 100: 0.81}),
    ],
)
def test_schedules_pass_the_stated_rates(name, rates):
    """Ten epochs of ten steps."""
    optimizer = optimizers.make_optimizer(models.build("lenet5"), "sgd", 1.0, 0.0)
    scheduler = optimizers.make_scheduler(optimizer, name, epochs=10, steps=10)
    seen = [optimizer.param_groups[0]["lr"]]
    for _ in range(100):
        optimizer.step()
        scheduler.step()
        seen.append(optimizer.param_groups[0]["lr"])
    assert {step: pytest.approx(seen[step], abs=1e-6) for step in rates} == rates


def test_only_matrices_decay():
    model = models.build("mobilenet")
    decayed, rest = optimizers.make_optimizer(model, "adamw", 1e-3, 0.1).param_groups
    assert {p.ndim for p in decayed["params"]} == {2, 4} and {p.ndim for p in rest["params"]} == {1}
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
