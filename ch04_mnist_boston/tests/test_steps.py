"""Single steps of the three tasks against numbers worked out by hand, so that no part of them can be left out unnoticed."""

import json
import math
import struct
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import on_two_processes
from sklearn.dummy import DummyRegressor
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import boston
import compare
import datasets
import denoise
import loop
import mnist
import models
import options
import tables
import test as tester
import train
import utils
from augment import random_affine

TINY = ("--data", "sample", "--limit", "32", "--batch-size", "16", "--device", "cpu")


def arguments(**changes) -> Namespace:
    plain = {"batch_size": 4, "seed": 0, "precision": "fp32", "augment": 0.0, "noise": 0.0, "lr": 1.0}
    return Namespace(**plain | {"weight_decay": 0.0} | changes)


def constant(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def numbered(count: int) -> datasets.Split:
    """Picture i has the value i everywhere, and is of class i."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return datasets.Split(images, torch.arange(count))


# ---- the order of an epoch, the optimizer, the schedule ----------------------------------------------------------------


def test_each_epoch_has_an_order_of_its_own_and_shows_each_picture_once():
    orders = [torch.cat([y for _, y in loop.batches(numbered(40), 10, 1, epoch)]).tolist() for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40)) and orders[0] == orders[2] != orders[1]
    assert torch.cat([y for _, y in loop.batches(numbered(40), 10)]).tolist() == list(range(40))
    assert [len(y) for _, y in loop.batches(numbered(43), 10, 1)] == [10] * 4  # the rest is left out
    assert [len(y) for _, y in loop.batches(numbered(7), 10, 1)] == [7]


def test_two_processes_share_each_batch_evenly(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        for count, size in ((40, 10), (41, 10), (7, 10)):
            sizes = [len(y) for _, y in loop.batches(numbered(count), size, 1)]
            assert sizes == ([3] if count == 7 else [5] * 4)
        seen += torch.cat([y for _, y in loop.batches(numbered(40), 10, 1)]).tolist()
    assert sorted(seen) == list(range(40))
    with pytest.raises(SystemExit, match="--batch-size 5 cannot be shared evenly by 2 processes"):
        options.fill_in_recipe(options.parse(None, ["mnist", "--batch-size", "5"]), "mnist")
    args = options.parse(None, ["mnist"])
    options.fill_in_recipe(args, "mine", own=True, count=90)
    assert args.batch_size == 10  # an eighth is 11


def test_only_matrices_decay_and_by_the_rate_times_the_decay():
    """With gradients of zero nothing but the decay moves a weight: AdamW takes lr * decay of it away."""
    for model in (models.build("mnist", "cnn"), models.build("boston", "silu", 3, members=2, width=4)):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = loop.make_optimizer(model, arguments(lr=0.1, weight_decay=0.5))
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        for name, p in model.named_parameters():
            is_matrix = name.endswith("weight") and p.ndim > 1
            torch.testing.assert_close(p.detach(), before[name] * (0.95 if is_matrix else 1.0))


@pytest.mark.parametrize("task", ["mnist", "denoise"])
def test_the_rate_goes_up_in_a_fifth_of_the_steps_and_down_to_nothing(task, tmp_path):
    """Of ten steps in all, five an epoch: in step 0 a 25th, in step 1 the highest, and from there a cosine."""
    arch = {"mnist": "cnn", "denoise": "shallow"}[task]
    words = [task, "--arch", arch, "--data", "sample", "--limit", "40", "--batch-size", "8", "--device", "cpu"]
    train.main([*words, "--epochs", "2", "--lr", "0.01", "--run", str(tmp_path / "run")])
    rates = [row["lr"] for row in utils.load_checkpoint(tmp_path / "run" / "last.pt")["history"]]
    later = 0.01 * (1 + math.cos(math.pi * (5 - 1.02) / (9 - 1.02))) / 2
    assert rates == pytest.approx([0.01 / 25, later], rel=0.02)


@pytest.mark.parametrize(("task", "score"), [("mnist", "val_accuracy"), ("denoise", "val_psnr")])
def test_the_best_epoch_is_kept_and_patience_counts_from_it(task, score, tmp_path, monkeypatch):
    module = {"mnist": mnist, "denoise": denoise}[task]
    scores = iter([0.5, 0.9, 0.9, 0.7, 0.8, 0.95])
    monkeypatch.setattr(module, "evaluate", lambda *words: {"val_loss": 1.0, score: next(scores)})
    arch = {"mnist": "cnn", "denoise": "shallow"}[task]
    run = tmp_path / "run"
    train.main([task, "--arch", arch, *TINY, "--epochs", "9", "--patience", "3", "--run", str(run)])
    best, last = (utils.load_checkpoint(run / f"{name}.pt") for name in ("best", "last"))
    assert best["epoch"] == 2 and last["epoch"] == 5 and last["waited"] == 3
    first = next(name for name in best["model"] if name.endswith("weight"))
    saved = last["average" if task == "mnist" else "model"]
    assert not torch.equal(best["model"][first], saved[first])


def test_of_epochs_that_score_alike_the_one_with_the_lower_loss_is_the_best():
    progress = {"epoch": 0, "history": [], "seconds": 0.0, "waited": 0}
    rows = [{"epoch": i, "val_accuracy": 0.9, "val_loss": loss} for i, loss in enumerate((1.0, 1.0, 0.8, 0.9), 1)]
    assert [loop.note(progress, row, "val_accuracy", 1.0) for row in rows] == [True, False, True, False]


def test_a_resumed_run_knows_all_its_states(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    optimizer, average = loop.make_optimizer(model, arguments()), loop.Average(model, 0.5)
    for step in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        average.update(model, step)
    parts = {"model": model, "average": average.model, "optimizer": optimizer}
    progress = {"epoch": 2, "history": [{"epoch": 1}, {"epoch": 2}], "seconds": 3.0, "waited": 1}
    saved = {"meta": {"arch": "x"}} | {name: part.state_dict() for name, part in parts.items()} | progress
    other = nn.Linear(2, 2)
    optimizer_2, average_2 = loop.make_optimizer(other, arguments()), loop.Average(other, 0.5)
    again = {"model": other, "average": average_2.model, "optimizer": optimizer_2}
    assert loop.restore(saved, tmp_path, Namespace(arch="x"), again) == progress
    assert torch.equal(other.weight, model.weight) and torch.equal(average_2.model.weight, average.model.weight)
    states = [[v["exp_avg"] for v in o.state_dict()["state"].values()] for o in (optimizer, optimizer_2)]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True)) and len(states[0]) == 2


def test_a_run_of_another_network_ends_in_one_line(tmp_path):
    """As after a change of models.py, or of the optimizer's groups, between two parts of a run."""
    layer, wider = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    optimizer, other = torch.optim.SGD(layer.parameters(), 0.1), torch.optim.SGD([layer.weight], 0.1)
    for saved, states in ((wider, optimizer), (layer, other)):
        last = {"meta": {"arch": "x"}, "model": saved.state_dict(), "optimizer": states.state_dict()}
        with pytest.raises(SystemExit, match="last.pt: says x, but the weights in it are of another network"):
            loop.restore(last, tmp_path, Namespace(arch="x"), {"model": layer, "optimizer": optimizer})


def batch_norm_and_share(folder):
    """What share_buffers does, and what DistributedDataParallel does to gradients, in one of two processes."""
    model = nn.BatchNorm1d(1)
    model.running_mean.fill_(float(utils.rank()))
    loop.share_buffers(model)
    (folder / f"mean {utils.rank()}").write_text(str(model.running_mean.item()))
    line = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(line.weight)
    wrapped = loop.wrap(line, Namespace(compile=False), torch.device("cpu"))
    assert isinstance(wrapped, DistributedDataParallel)
    wrapped(torch.full((1, 1), 1.0 + 2 * utils.rank())).sum().backward()
    (folder / f"gradient {utils.rank()}").write_text(str(line.weight.grad.item()))
    sums = torch.tensor([6.0, 1.0, 2.0]) if utils.rank() == 0 else torch.tensor([0.0, 2.0, 1.0])
    (folder / f"means {utils.rank()}").write_text(json.dumps(loop.means(sums, "loss", "accuracy")))


def test_two_processes_average_gradients_share_buffers_and_add_up_sums(tmp_path):
    on_two_processes(batch_norm_and_share, tmp_path)
    for rank in range(2):
        assert (tmp_path / f"mean {rank}").read_text() == "0.0"  # the first one's
        assert (tmp_path / f"gradient {rank}").read_text() == "2.0"  # of 1 and 3
        assert json.loads((tmp_path / f"means {rank}").read_text()) == {"loss": 2.0, "accuracy": 1.0}


# ---- mnist -------------------------------------------------------------------------------------------------------------


class Logits(nn.Module):
    """A network whose logits are a parameter: its gradient is the loss's own formula."""

    def __init__(self):
        super().__init__()
        self.logits, self.drop = nn.Parameter(torch.tensor([0.5, -0.2, 0.1])), nn.Dropout(0.5)

    def forward(self, x):
        return (1 * self.drop(self.logits)).expand(len(x), -1)


@pytest.mark.parametrize("weights", [None, [1.0, 4.0, 2.0]])
def test_a_step_goes_down_the_weighted_cross_entropy(weights):
    model = Logits()
    model.drop.p = 0.0
    before, labels = model.logits.detach().clone().numpy(), [0, 1, 1, 2]
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    split = datasets.Split(torch.zeros(4, 1, 4, 4, dtype=torch.uint8), torch.tensor(labels))
    meta, w = {"mean": 0.0, "std": 1.0, "image_size": 4}, None if weights is None else torch.tensor(weights)
    row = mnist.train_one_epoch(
        model, loop.Average(model, 0.0), split, optimizer, constant(optimizer), meta, arguments(), 0, w
    )
    share = np.ones(3) if weights is None else np.array(weights)
    p = np.exp(before) / np.exp(before).sum()
    gradient = (share[labels][:, None] * (p - np.eye(3)[labels])).sum(0) / share[labels].sum()
    assert before - model.logits.detach().numpy() == pytest.approx(gradient, abs=1e-5)
    loss = -(share[labels] * np.log(p[labels])).sum() / share[labels].sum()
    assert row == {"train_loss": pytest.approx(loss, abs=1e-5), "train_accuracy": 0.25}


def test_gradients_of_the_step_before_are_forgotten_and_dropout_is_on():
    """Two steps of one picture each; with dropout of one half, logits are doubled or zero."""
    torch.manual_seed(0)
    model, seen = Logits(), []
    model.drop.register_forward_hook(lambda module, inputs, output: seen.append(output.detach() / inputs[0].detach()))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    split = datasets.Split(torch.zeros(40, 1, 4, 4, dtype=torch.uint8), torch.zeros(40, dtype=torch.long))
    meta = {"mean": 0.0, "std": 1.0, "image_size": 4}
    mnist.train_one_epoch(
        model.eval(),
        loop.Average(model, 0.0),
        split,
        optimizer,
        constant(optimizer),
        meta,
        arguments(batch_size=1),
        0,
        None,
    )
    assert set(torch.cat(seen).tolist()) == {0.0, 2.0}
    logits = model.logits.detach() * seen[-1]
    expected = (logits.softmax(0) - torch.tensor([1.0, 0.0, 0.0])) * seen[-1]
    torch.testing.assert_close(model.logits.grad, expected)  # of the last step alone


def test_validation_is_without_dropout_and_of_the_average():
    model = Logits().train()
    average = loop.Average(model, 0.9)
    split = datasets.Split(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 2]))
    meta = {"mean": 0.0, "std": 1.0, "image_size": 4}
    rows = [mnist.evaluate(average.model, split, meta) for _ in range(8)]
    expected = -torch.log_softmax(model.logits.detach(), 0).mean().item()
    assert all(row == {"val_loss": pytest.approx(expected), "val_accuracy": pytest.approx(1 / 3)} for row in rows)


@pytest.mark.parametrize("arch", ["mlp", "convnet"])
def test_dropout_drops_in_training_alone(arch):
    torch.manual_seed(0)
    model, x = models.build("mnist", arch), torch.randn(2, 1, 28, 28)
    assert not torch.equal(model.train()(x), model(x)) and torch.equal(model.eval()(x), model(x))


def test_dropout_stands_where_the_networks_say():
    shares = {
        arch: [m.p for m in models.build("mnist", arch).modules() if isinstance(m, nn.Dropout)]
        for arch in ("mlp", "convnet")
    }
    assert shares == {"mlp": [0.2, 0.2], "convnet": [0.3]}


def test_the_average_of_the_weights_is_what_is_kept(tmp_path):
    words = ["mnist", "--arch", "mlp", *TINY, "--epochs", "1", "--average", "0.9", "--run", str(tmp_path / "run")]
    train.main(words)
    best, last = (utils.load_checkpoint(tmp_path / "run" / f"{name}.pt") for name in ("best", "last"))
    assert all(torch.equal(best["model"][name], last["average"][name]) for name in best["model"])
    assert not torch.equal(last["average"]["1.weight"], last["model"]["1.weight"])


def test_tested_weights_are_in_evaluation_mode(tmp_path):
    torch.manual_seed(0)
    meta = {"task": "mnist", "arch": "mlp", "classes": list("0123456789"), "data": "sample", "mean": 0.2, "std": 0.3}
    utils.save_weights(tmp_path / "mlp.safetensors", models.build("mnist", "mlp"), **meta, image_size=28)
    args = tester.parse(["mnist", "--weights", str(tmp_path / "mlp.safetensors")])
    model, meta, _ = tester.load_model(args, None, torch.device("cpu"))
    images = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
    first, second = (mnist.predict(model, meta, images, torch.device("cpu")) for _ in range(2))
    assert torch.equal(first, second)
    expected = model((images.float() / 255 - 0.2) / 0.3).softmax(1).detach()
    torch.testing.assert_close(first, expected)


def test_pixels_are_scaled_to_mean_0_and_deviation_1():
    images = datasets.load("sample", parts=("val",)).splits["val"].images
    mean, std = datasets.statistics(images)
    pixels = images.double() / 255
    assert (mean, std) == (pytest.approx(pixels.mean().item()), pytest.approx(pixels.std(correction=0).item()))
    shown = mnist.normalize(images, {"mean": mean, "std": std, "image_size": 28})
    assert shown.mean().item() == pytest.approx(0, abs=1e-3) and shown.std().item() == pytest.approx(1, abs=1e-3)


def test_a_shear_moves_each_row_in_proportion_to_its_height():
    """By up to 0.2 pixels a pixel: a vertical line becomes a slanted one, and its middle stays."""
    torch.manual_seed(0)
    line = torch.zeros(200, 1, 28, 28)
    line[..., 13:15] = 255.0
    out = random_affine(line, 0, 0, 0, shear=0.2)[:, 0]
    centre = (out @ torch.arange(28.0)) / out.sum(2)  # (200, 28): where each row has it
    slope = (centre[:, 23] - centre[:, 4]) / 19
    assert slope.abs().max() < 0.21 and slope.max() > 0.15 and slope.min() < -0.15
    middle = centre[:, 4] + slope * 9.5
    assert (middle - 13.5).abs().max() < 0.1
    assert (centre[:, 9] - centre[:, 4] - 5 * slope).abs().max() < 0.1  # a straight line


def test_augmented_pictures_are_turned_moved_scaled_and_sheared(monkeypatch):
    seen = []
    monkeypatch.setattr(mnist, "random_affine", lambda pixels, **options: seen.append(options) or pixels)
    pixels = torch.zeros(2, 1, 56, 56, dtype=torch.uint8)
    mnist.augmented(pixels, 0.5)
    assert seen == [{"degrees": 6.0, "shift": 2.0, "scale": pytest.approx(0.06), "shear": pytest.approx(0.1)}]
    assert mnist.augmented(pixels, 0.0).dtype == torch.float32 and len(seen) == 1


# ---- which pictures train ----------------------------------------------------------------------------------------------


@pytest.fixture
def few_of_mnist(tmp_path, monkeypatch):
    """MNIST's four files with 60 and 20 pictures, of which 15 validate."""
    rng, raw = np.random.default_rng(0), tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 60), ("t10k", 20)):
        pixels, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    monkeypatch.setattr(datasets, "VAL_IMAGES", 15)
    return tmp_path


def contents(split) -> set:
    return {image.numpy().tobytes() for image in split.images}


def test_no_picture_of_mnist_is_in_two_parts_and_the_parts_depend_on_no_seed(few_of_mnist):
    parts = datasets.load("mnist", str(few_of_mnist), parts=("train", "val", "test")).splits
    assert [len(parts[name]) for name in ("train", "val", "test")] == [45, 15, 20]
    assert len(contents(parts["train"]) | contents(parts["val"]) | contents(parts["test"])) == 80
    torch.manual_seed(1234)
    again = datasets.load("mnist", str(few_of_mnist)).splits
    assert torch.equal(parts["val"].images, again["val"].images)


def test_no_picture_of_the_sample_is_in_two_parts():
    parts = datasets.load("sample", parts=("train", "val", "test")).splits.values()
    names = [name for split in parts for _, name in split.samples]
    assert len(names) == len(set(names)) == 1797


def test_no_picture_of_a_folder_is_in_two_parts(picture_folder):
    parts = datasets.load(str(picture_folder(cat=60, dog=60)), parts=("train", "val", "test")).splits
    counts = {name: len(split) for name, split in parts.items()}
    assert len(set.union(*map(contents, parts.values()))) == sum(counts.values()) == 120
    assert 4 <= counts["val"] <= 24 and 4 <= counts["test"] <= 24


@pytest.mark.parametrize("task", ["mnist", "denoise"])
def test_training_shows_training_pictures_and_validation_the_others(task, tmp_path, monkeypatch):
    module, seen = {"mnist": mnist, "denoise": denoise}[task], {}
    real_train, real_evaluate = module.train_one_epoch, module.evaluate
    at = {"mnist": 2, "denoise": 1}[task]

    def train_one_epoch(*words):
        seen["train"] = words[at]
        return real_train(*words)

    def evaluate(model, split, *words):
        seen["val"] = split
        return real_evaluate(model, split, *words)

    monkeypatch.setattr(module, "train_one_epoch", train_one_epoch)
    monkeypatch.setattr(module, "evaluate", evaluate)
    arch = {"mnist": "cnn", "denoise": "shallow"}[task]
    train.main([task, "--arch", arch, *TINY, "--epochs", "1", "--run", str(tmp_path / "run")])
    parts = datasets.load("sample", parts=("train", "val")).splits
    assert len(seen["train"]) == 32 and contents(seen["train"]) <= contents(parts["train"])
    assert contents(seen["val"]) == contents(parts["val"]) and len(seen["val"]) == 200


# ---- denoise -----------------------------------------------------------------------------------------------------------


class Times(nn.Module):
    """Each pixel times w."""

    def __init__(self, w: float):
        super().__init__()
        self.w, self.drop = nn.Parameter(torch.tensor(w)), nn.Dropout(0.0)

    def forward(self, x):
        return self.drop(self.w * x)


def white(count: int = 4) -> datasets.Split:
    images = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    images[..., :2] = 255
    return datasets.Split(images, torch.zeros(count, dtype=torch.long))


def test_a_step_goes_down_the_mean_square_and_psnr_is_of_pixels_in_range():
    """Half of the pixels are 1: from w = 1.5 the error there is 0.5, the loss 0.125, its gradient 0.5. Cut off at white, as
    pictures are, the answer is perfect."""
    model = Times(1.5)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    row = denoise.train_one_epoch(model, white(), optimizer, constant(optimizer), arguments(), 0)
    assert model.w.item() == pytest.approx(1.0)
    assert row == {"train_loss": pytest.approx(0.125), "train_psnr": pytest.approx(100.0)}
    model = Times(0.5)
    row = denoise.evaluate(model, white(), 0.0)
    assert row == {"val_loss": pytest.approx(0.125), "val_psnr": pytest.approx(-10 * math.log10(0.125))}
    assert denoise.evaluate(Times(1.5), white(), 0.0) == {"val_loss": pytest.approx(0.125), "val_psnr": 100.0}


def test_training_noise_is_new_each_time_and_validation_noise_is_not():
    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.seen = nn.Parameter(torch.zeros(())), []

        def forward(self, x):
            self.seen.append(x.clone())
            return x * (1 + self.w)

    model = Watch()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    for epoch in range(2):
        denoise.train_one_epoch(model, white(), optimizer, constant(optimizer), arguments(noise=0.5), epoch)
    rows = [denoise.evaluate(model, white(), 0.5) for _ in range(2)]
    assert not torch.equal(model.seen[0], model.seen[1])
    assert torch.equal(model.seen[2], model.seen[3]) and rows[0] == rows[1]
    assert (model.seen[2] - white().images.float() / 255).abs().max() > 0.2


def test_denoising_is_validated_without_dropout():
    model = Times(1.0).train()
    model.drop.p = 0.9
    assert denoise.evaluate(model, white(), 0.0)["val_loss"] == 0


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_without_a_share_of_the_last_batch_adds_nothing(rank, monkeypatch):
    """501 validation pictures are two batches, 500 and 1: of the last, the second process has none."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(loop.dist, "all_reduce", lambda sums: None)
    row = denoise.evaluate(Times(0.5), white(501), 0.0)
    assert row["val_loss"] == pytest.approx(0.125)


# ---- boston ------------------------------------------------------------------------------------------------------------


def test_dropout_silences_units_of_the_ensemble_in_training_alone():
    torch.manual_seed(0)
    ensemble, x = models.build("boston", "silu", 3, members=2, width=16, dropout=0.5), torch.randn(2, 5, 3)
    assert not torch.equal(ensemble.train()(x), ensemble(x)) and torch.equal(ensemble.eval()(x), ensemble(x))
    y, rows = torch.zeros(5), torch.arange(5).expand(2, 5)
    first, second = (boston.evaluate(ensemble.train(), x[0], y, rows) for _ in range(2))
    assert torch.equal(first, second)


def test_flags_of_the_recipe_reach_the_networks(monkeypatch):
    seen, real = [], models.build
    monkeypatch.setattr(boston.models, "build", lambda *words: seen.append(words) or real(*words))
    args = arguments(
        arch="course", members=2, width=7, dropout=0.25, patience=0, epochs=1, batch_size=4, huber=0.0, l1=0.0
    )
    boston.train_fold(torch.randn(8, 3), torch.randn(8), args, 0)
    assert seen == [("boston", "course", 3, 2, 7, 0.25)]


def test_the_rows_that_validate_early_stopping_do_not_train():
    torch.manual_seed(0)
    train_rows, val_rows = boston.inner_split(50, 3, patience=5)
    assert train_rows.shape == (3, 45) and val_rows.shape == (3, 5)
    for one, other in zip(train_rows.tolist(), val_rows.tolist(), strict=True):
        assert sorted(one + other) == list(range(50))
    assert not torch.equal(val_rows[0], val_rows[1]) and boston.inner_split(50, 3, patience=0)[1].shape == (3, 0)


@pytest.fixture
def folds(tmp_path, csv_file):
    """A run of two folds of three networks."""
    words = ["--data", str(csv_file(40)), "--folds", "2", "--shuffles", "1", "--members", "3", "--epochs", "3"]
    train.main(["boston", "--arch", "silu", *words, "--device", "cpu", "--run", str(tmp_path / "run")])
    return tmp_path / "run"


def test_a_prediction_is_the_mean_of_the_folds_networks_in_the_targets_unit(folds):
    args = Namespace(**utils.read_arguments(folds))
    saved = utils.load_checkpoint(boston.fold_file(folds, 0))
    ensemble = models.build("boston", "silu", saved["inputs"], 3, args.width, args.dropout).eval()
    ensemble.load_state_dict(saved["model"])
    x = tables.load_table(args.data).x[:5]
    shown = tables.Features.from_state_dict(saved["features"])(x)
    with torch.inference_mode():
        each = ensemble(shown.expand(3, -1, -1))  # (3, 5)
    expected = each.double().mean(0) * saved["target"]["std"] + saved["target"]["mean"]
    assert each.std(0).min() > 0
    np.testing.assert_allclose(boston.load_fold(folds, args, 0)(x), expected, rtol=1e-5)
    args.width += 1  # as after a change of models.py
    with pytest.raises(SystemExit, match="001.pt: says silu, but the weights in it are of another network"):
        boston.load_fold(folds, args, 0)


def test_the_models_to_compare_with_are_fitted_to_a_folds_training_rows(folds, monkeypatch):
    fitted = []

    class Watch(DummyRegressor):
        def fit(self, x, y):
            fitted.append(x)
            return super().fit(x, y)

    monkeypatch.setattr(boston, "baselines", lambda seed: {"mean": Watch()})
    result = boston.test(folds)
    args, table, each = boston.reopen(folds)
    assert len(fitted) == len(each) == 2
    for x, (_, rows, test_rows) in zip(fitted, each, strict=True):
        assert np.array_equal(x, table.x[rows]) and not set(rows) & set(test_rows) and len(rows) + len(test_rows) == 40
    truth = [table.y[test_rows] for _, _, test_rows in each]
    means = [table.y[rows].mean() for _, rows, _ in each]
    errors = [math.sqrt(((t - m) ** 2).mean()) for t, m in zip(truth, means, strict=True)]
    assert result["models"]["mean"]["rmse"] == pytest.approx(np.mean(errors))


def test_scales_are_mean_0_and_deviation_1_of_the_rows_they_are_fitted_to():
    scaler = tables.Scaler(np.array([[1.0], [3.0], [8.0]]))  # mean 4, variance 26 / 3
    assert scaler(np.array([[4.0], [8.0]])).flatten().tolist() == pytest.approx([0, 4 / math.sqrt(26 / 3)])
    assert scaler.invert(torch.tensor([[1.0]])).item() == pytest.approx(4 + math.sqrt(26 / 3))


def test_a_fold_learns_by_its_mean_squared_error_one_step_of_adamw_a_batch(monkeypatch):
    """By SGD, to see the gradient: one network of one weight and one bias, y = w x + b from 0, on (1, 2) and (3, 4)."""

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.zeros(1, 1)), nn.Parameter(torch.zeros(1, 1))

        def forward(self, x):  # (1, n, 1) -> (1, n)
            return x[..., 0] * self.weight + self.bias

    model = Line()
    monkeypatch.setattr(boston.models, "build", lambda *words: model)
    monkeypatch.setattr(boston.loop, "make_optimizer", lambda model, args: torch.optim.SGD(model.parameters(), 0.1))
    monkeypatch.setattr(boston.loop, "make_schedule", lambda optimizer, steps: constant(optimizer))
    args = arguments(arch="x", members=1, width=1, dropout=0.0, patience=0, epochs=2, batch_size=2, huber=0.0, l1=0.0)
    _, history = boston.train_fold(torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, 4.0]), args, 0)
    # errors -2, -4: gradients -(2 + 12) and -6, so w = 1.4, b = 0.6; then errors 0 and 0.8: gradients 2.4 and 0.8
    assert model.weight.item() == pytest.approx(1.4 - 0.24) and model.bias.item() == pytest.approx(0.6 - 0.08)
    assert [row["train_loss"] for row in history] == pytest.approx([10.0, 0.32])


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_layers_compute_in_the_precision_asked_for(precision, dtype):
    with loop.autocast(arguments(precision=precision), torch.device("cpu")):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


# ---- recipes, starting weights, comparisons --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name", "own", "count", "epochs", "batch_size"),
    [
        (["mnist"], "mnist", False, 55_000, 12, 128),
        (["mnist"], "mine", True, 200, 38, 25),  # an eighth of the pictures, 8 steps an epoch, 300 steps
        (["mnist"], "mine", True, 20, 150, 8),
        (["mnist"], "sample", False, 1297, 30, 64),
        (["mnist", "--epochs", "3", "--batch-size", "50"], "mine", True, 200, 3, 50),
        (["denoise"], "mine", True, 800, 38, 64),  # 12 steps an epoch: more than five epochs
        (["boston"], "mine", True, 50_000, 200, 32),
    ],
)
def test_few_pictures_get_small_batches_and_enough_steps(words, name, own, count, epochs, batch_size):
    args = options.parse(None, words)
    options.fill_in_recipe(args, name, own, count)
    wanted = -(-300 // (count // batch_size)) if words == ["denoise"] else epochs
    assert (args.epochs, args.batch_size) == (wanted, batch_size)


def test_a_run_starts_from_other_weights_and_keeps_its_own_last_layer_for_other_classes(tmp_path):
    torch.manual_seed(0)
    source, fresh = models.build("mnist", "cnn", 3), models.build("mnist", "cnn", 10)
    source.surplus = torch.nn.Linear(2, 2)  # a layer that only helped in training
    utils.save_weights(tmp_path / "three.safetensors", source, arch="cnn")
    before = fresh.fc.weight.detach().clone()
    started = loop.start_from(fresh, str(tmp_path / "three.safetensors"), "cnn")
    assert torch.equal(started.conv[0].weight, source.conv[0].weight) and torch.equal(started.fc.weight, before)
    same = loop.start_from(models.build("mnist", "cnn", 3), str(tmp_path / "three.safetensors"), "cnn")
    assert torch.equal(same.fc.weight, source.fc.weight)
    with pytest.raises(SystemExit, match="holds a cnn, not a lenet5"):
        loop.start_from(models.build("mnist", "lenet5", 3), str(tmp_path / "three.safetensors"), "lenet5")
    utils.save_weights(tmp_path / "older.safetensors", torch.nn.Linear(2, 2), arch="cnn")
    with pytest.raises(SystemExit, match="older.safetensors: says cnn, but the weights in it are of another network"):
        loop.start_from(models.build("mnist", "cnn", 3), str(tmp_path / "older.safetensors"), "cnn")


def test_rows_of_a_file_are_predicted_by_the_mean_of_all_folds(folds, csv_file, tmp_path):
    boston.predict_files(folds, [str(csv_file(40))], tmp_path)
    lines = (tmp_path / "houses-predicted.csv").read_text("utf-8").splitlines()[1:]
    args = Namespace(**utils.read_arguments(folds))
    x = tables.load_table(args.data).x
    each = [boston.load_fold(folds, args, fold)(x) for fold in range(2)]
    assert abs(each[0] - each[1]).max() > 1e-3
    assert [float(line.rsplit(",", 1)[1]) for line in lines] == pytest.approx((each[0] + each[1]) / 2, rel=1e-6)


def test_only_so_many_rows_of_a_fold_train(csv_file, monkeypatch):
    seen = []
    monkeypatch.setattr(boston, "train_fold", lambda x, y, args, fold: seen.append(len(y)) or pytest.skip("seen"))
    args = options.parse(None, ["boston", "--limit", "7"])
    with pytest.raises(pytest.skip.Exception):
        boston.train_one(tables.load_table(str(csv_file(40))), np.arange(10), args, 0, torch.device("cpu"))
    assert seen == [7]


def test_seeds_are_compared_by_their_mean_and_standard_deviation():
    results = [{"accuracy": value} for value in (0.9, 0.94, 0.98)]
    words = compare.line(("mnist", "cnn", "sample", "sample", "", ""), results)
    assert "3 runs" in words and "accuracy 0.9400 ± 0.0400 (0.9000 0.9400 0.9800)" in words


def test_denoised_pictures_are_cut_off_and_measured_against_the_clean_ones(tmp_path):
    """A network that doubles: noise 0 before is perfect; after, grey is wrong and white is cut off."""
    images = torch.full((2, 1, 28, 28), 51, dtype=torch.uint8)
    images[1] = 255
    split = datasets.Split(images, torch.zeros(2, dtype=torch.long))
    data = datasets.Data("toy", ["x"], {"test": split})
    args, meta = (
        Namespace(data="toy", data_root="", split=None),
        {"arch": "x", "data": "toy", "image_size": 28, "noise": 0.0},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda *words, **more: data)
        result = denoise.test(args, Times(2.0), meta, tmp_path, tmp_path, torch.device("cpu"))
    assert result["psnr_before"] == 100
    assert result["psnr"] == pytest.approx((-20 * math.log10(0.2) + 100) / 2)  # 0.4 for 0.2; 1 for 1
