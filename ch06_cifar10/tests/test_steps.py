"""Single steps of the loop and of test.py against numbers worked out by hand, so that no part can be left out unnoticed."""

import json
import math
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from conftest import on_two_processes, train_on_two_processes
from PIL import Image
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import bench
import datasets
import models
import optimizers
import options
import test as tester
import train
import utils
from augment import Augment

CPU = torch.device("cpu")
TINY = ("--data", "sample", "--arch", "lenet5", "--limit", "40", "--batch-size", "8", "--device", "cpu")


def arguments(**changes) -> Namespace:
    return Namespace(**{"label_smoothing": 0.0, "precision": "fp32", "lr": 1.0, "mixup": 0.0} | changes)


def plain_pixels() -> datasets.Normalize:
    return datasets.Normalize([0.0] * 3, [1 / 255] * 3)


def constant(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


class Batches:
    """A loader of these batches (pixels, labels)."""

    epoch = 0

    def __init__(self, *batches):
        self.batches = [(torch.as_tensor(pixels), torch.as_tensor(labels)) for pixels, labels in batches]

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class Logits(nn.Module):
    """A network whose logits are a parameter."""

    def __init__(self):
        super().__init__()
        self.logits, self.drop = nn.Parameter(torch.zeros(2)), nn.Dropout(0.5)
        self.seen = []

    def forward(self, x):
        self.seen.append((self.training, x.shape[-1]))
        return (1 * self.logits).expand(len(x), -1)


def pixels(count: int, side: int = 4) -> torch.Tensor:
    return torch.zeros(count, 3, side, side)


# ---- an epoch ----------------------------------------------------------------------------------------------------------


def test_an_epoch_is_one_step_down_the_loss_a_batch():
    """Logits 0, 0 and class 0: probabilities 1/2, gradient (-1/2, 1/2); then by hand again from (1/2, -1/2)."""
    model = Logits().eval()
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    loader = Batches((pixels(1), [0]), (pixels(3), [1, 1, 1]))
    row = train.train_one_epoch(model, plain_pixels(), loader, optimizer, constant(optimizer), arguments(), None, None)
    p = 1 / (1 + math.exp(-1.0))  # of class 0, after the first step
    assert model.logits.tolist() == pytest.approx([0.5 - p, -0.5 + p])
    assert row["train_loss"] == pytest.approx((math.log(2) + 3 * -math.log(1 - p)) / 4)
    assert row["train_accuracy"] == pytest.approx(1 / 4)
    assert model.seen == [(True, 4), (True, 4)]


def recipe(arch: str, small_first: bool = False) -> Namespace:
    return Namespace(arch=arch, epochs=10, small_first=small_first)


def test_pictures_are_made_smaller_where_the_recipe_says_so(monkeypatch):
    model = Logits()
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    loader = Batches((pixels(2, 32), [0, 1]))
    train.train_one_epoch(model, plain_pixels(), loader, optimizer, constant(optimizer), arguments(), 24, None)
    assert model.seen == [(True, 24)]
    sizes = [train.training_size(recipe("fastnet"), epoch, 32) for epoch in range(10)]
    assert sizes == [20] * 2 + [24] * 2 + [None] * 6
    monkeypatch.setitem(options.SIZES, "fastnet", ((0.3, 20 / 32), (0.6, 24 / 32), (0.7, 28 / 32)))
    sizes = [train.training_size(recipe("fastnet"), epoch, 32) for epoch in range(10)]
    assert sizes == [20] * 3 + [24] * 3 + [28] + [None] * 3
    assert train.training_size(recipe("fastnet"), 0, 64) == 40  # the same part of a larger picture
    assert train.training_size(recipe("fastnet"), 0, 31) is None  # there is little to leave out
    assert train.training_size(recipe("resnet"), 0, 32) is None
    for arch in ("resnet", "fastnet"):  # the flag counts more than the architecture's own sizes
        sizes = [train.training_size(recipe(arch, small_first=True), epoch, 32) for epoch in range(10)]
        assert sizes == [20] * 2 + [24] * 3 + [None] * 5


def test_a_run_says_its_operations_and_after_a_minute_the_peak(monkeypatch, capsys):
    """LeNet-5 takes 651,720 MACs for a picture of 32 pixels (README): two operations each, three passes, 30 pictures."""
    operations = bench.operations("lenet5", 10, [32, 32, 32], 10)
    assert operations == 651_720 * 2 * 3 * 30
    smaller = bench.operations("lenet5", 10, [16, 32, 32], 10)
    assert smaller < operations and smaller > operations * 2 / 3
    monkeypatch.setattr(bench, "matrix_product", lambda args, device: (lambda: None, 6e9))
    times = iter([0.4, 0.3, 0.35])  # the second is over with the third; a fourth would fail
    monkeypatch.setattr(bench, "seconds_of", lambda work, device: next(times))
    bench.report_work(arguments(), 5e12, 59.0, CPU)
    assert capsys.readouterr().out == "5.00e+12 operations, counted as three forward passes: 85 GFLOP/s\n"
    bench.report_work(arguments(), 5e12, 60.0, CPU)
    assert capsys.readouterr().out.endswith("peak: 20 GFLOP/s, a large matrix product in fp32\n")


@pytest.mark.parametrize("schedule", ["linear", "onecycle"])
def test_the_rate_of_a_run_follows_its_schedule(schedule, tmp_path):
    """Two epochs of five steps."""
    words = [*TINY, "--epochs", "2", "--optimizer", "sgd", "--lr", "0.01", "--schedule", schedule]
    train.main([*words, "--run", str(tmp_path / "run")])
    rates = [row["lr"] for row in utils.load_checkpoint(tmp_path / "run" / "last.pt")["history"]]
    later = 0.01 * (1 + math.cos(math.pi * (5 - 1.02) / (9 - 1.02))) / 2  # the highest in step 1, a fifth of the run
    assert rates == pytest.approx({"linear": [0.01, 0.005], "onecycle": [0.01 / 25, later]}[schedule], rel=0.02)


def test_validation_is_a_mean_over_pictures_in_evaluation_mode():
    model = Logits().train()
    model.logits.data = torch.tensor([1.0, 0.0])
    row = train.evaluate(model, plain_pixels(), Batches((pixels(1), [0]), (pixels(3), [1, 1, 0])), "fp32")
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert row == {"val_loss": pytest.approx((2 * right + 2 * wrong) / 4), "val_accuracy": 0.5}
    assert model.seen == [(False, 4), (False, 4)]


# ---- the best epoch, and what a resumed run knows ------------------------------------------------------------------------


def test_the_best_epoch_has_the_highest_accuracy_so_far_and_of_equals_the_lowest_loss():
    progress = {"epoch": 0, "history": [], "seconds": 0.0, "waited": 0}
    scores = [(0.5, 2.0), (0.9, 1.0), (0.9, 1.0), (0.9, 0.8), (0.7, 0.1), (0.9, 0.9)]
    rows = [{"epoch": i, "val_accuracy": s, "val_loss": loss} for i, (s, loss) in enumerate(scores, 1)]
    assert [train.note(progress, row, 2.0) for row in rows] == [True, True, False, True, False, False]
    assert progress["waited"] == 2 and progress["seconds"] == 12.0 and progress["epoch"] == 6
    assert max(rows, key=train.quality)["epoch"] == 4
    without = {"epoch": 0, "history": [], "seconds": 0.0, "waited": 0}
    assert all(train.note(without, {"epoch": i}, 1.0) for i in (1, 2, 3))  # the newest is kept


def test_the_best_epochs_weights_are_kept(tmp_path, monkeypatch):
    scores = iter([0.5, 0.9, 0.7])
    monkeypatch.setattr(train, "evaluate", lambda *words: {"val_loss": 1.0, "val_accuracy": next(scores)})
    train.main([*TINY, "--epochs", "3", "--run", str(tmp_path / "run")])
    best, last = (utils.load_checkpoint(tmp_path / "run" / f"{name}.pt") for name in ("best", "last"))
    assert best["epoch"] == 2 and not torch.equal(best["model"]["head.4.weight"], last["model"]["head.4.weight"])


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_a_resumed_run_knows_all_its_states(name, tmp_path):
    def make():
        model = models.FastNet(widths=(8, 8, 8))
        return model, optimizers.make_optimizer(model, name, 0.1, 0.0)

    torch.manual_seed(0)
    (model, optimizer), (other, again) = make(), make()
    model(torch.randn(2, 3, 12, 12)).sum().backward()
    optimizer.step()
    progress = {"epoch": 1, "history": [{"epoch": 1}], "seconds": 3.0, "waited": 2}
    saved = {"meta": {"arch": "fastnet"}, "model": model.state_dict(), "optimizer": optimizer.state_dict()} | progress
    assert train.restore(saved, tmp_path, Namespace(arch="fastnet"), other, again) == progress
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    states = [[t for s in o.state_dict()["state"].values() for t in s.values()] for o in (optimizer, again)]
    assert len(states[0]) >= 13 and all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_a_run_of_another_network_ends_in_one_line(tmp_path):
    """As after a change of models.py, or of the optimizer's groups, between two parts of a run."""
    layer, wider = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    optimizer, other = torch.optim.SGD(layer.parameters(), 0.1), torch.optim.SGD([layer.weight], 0.1)
    for saved, states in ((wider, optimizer), (layer, other)):
        last = {"meta": {"arch": "x"}, "model": saved.state_dict(), "optimizer": states.state_dict()}
        with pytest.raises(SystemExit, match="last.pt: says x, but the weights in it are of another network"):
            train.restore(last, tmp_path, Namespace(arch="x"), layer, optimizer)


# ---- which pictures train ------------------------------------------------------------------------------------------------


@pytest.fixture
def few_of_cifar10(monkeypatch):
    """CIFAR-10 with 60 and 20 pictures, of which 15 validate."""

    def cifar10(root, train):
        count, rng = (60, 1) if train else (20, 2), np.random.default_rng(train)
        images = rng.integers(0, 256, (count[0], 32, 32, 3), np.uint8)
        return SimpleNamespace(
            data=images, targets=[i % 10 for i in range(count[0])], classes=[f"c{i}" for i in range(10)]
        )

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", cifar10)
    monkeypatch.setattr(datasets, "prepare_cifar10", lambda root: None)
    monkeypatch.setattr(datasets, "VAL_IMAGES", 15)


def contents(images) -> set:
    return {image.numpy().tobytes() for image in images.contiguous()}


def shown_by(loader) -> set:
    return set.union(*(contents(images) for images, _ in loader))


@pytest.mark.parametrize("no_val", [False, True])
def test_what_trains_and_what_validates_of_cifar10(few_of_cifar10, no_val):
    words = ["--data", "cifar10", "--arch", "lenet5", "--no-flip", "--crop", "0", "--cutout", "0", "--batch-size", "5"]
    args = options.parse(None, [*words, *(["--no-val"] if no_val else [])])
    data, split = train.load_data(args)
    options.fill_in_recipe(args, data, 32, len(train.labels_of(data, args)))
    train_loader, val_loader, mean, _ = train.make_loaders(data, args, CPU)
    trained, validated = shown_by(train_loader), shown_by(val_loader)
    assert (len(trained), len(validated)) == (60 if no_val else 45, 15)
    assert len(trained & validated) == (15 if no_val else 0)
    assert len(split["train"]) == len(trained) and len(split["val"]) == (0 if no_val else 15)
    tested = datasets.load("cifar10", parts=("test",)).splits["test"]
    assert len(tested) == 20 and not contents(tested.images) & (trained | validated)
    torch.manual_seed(99)
    assert contents(train.load_data(options.parse(None, [*words, "--seed", "5"]))[0].splits["val"].images) == validated
    pixels = torch.stack([torch.frombuffer(bytearray(p), dtype=torch.uint8) for p in trained]).view(-1, 3, 1024)
    assert mean == pytest.approx((pixels.double() / 255).mean((0, 2)).tolist())  # of the training pictures alone


def test_labels_stay_with_their_pictures(few_of_cifar10):
    whole = torchvision.datasets.CIFAR10(".", train=True)
    label_of = {
        image.tobytes(): label for image, label in zip(whole.data.transpose(0, 3, 1, 2), whole.targets, strict=True)
    }
    for split in datasets.load("cifar10").splits.values():
        assert [label_of[image.numpy().tobytes()] for image in split.images] == split.labels.tolist()


@pytest.mark.parametrize("loader", ["tensor", "files"])
def test_training_pictures_are_augmented_as_asked_and_validation_pictures_never(loader, picture_folder):
    words = [
        "--data",
        str(picture_folder(cat=30, dog=30)),
        "--image-size",
        "16",
        "--arch",
        "lenet5",
        "--loader",
        loader,
    ]
    args = options.parse(
        None, [*words, "--crop", "3", "--cutout", "5", "--colour", "0.3", "--no-flip", "--batch-size", "8"]
    )
    data, _ = train.load_data(args)
    options.fill_in_recipe(args, data, 16, len(train.labels_of(data, args)))
    train_loader, val_loader, *_ = train.make_loaders(data, args, CPU)
    augment = train_loader.augment
    assert (augment.crop, augment.flip, augment.cutout, augment.colour) == (3, False, 5, 0.3)
    assert val_loader.augment is None and train_loader.batch_size == 8
    files = {part: [datasets.read_image(item.path, 16) for item in data.files[part]] for part in ("train", "val")}
    assert shown_by(val_loader) == contents(torch.stack(files["val"]))
    assert not shown_by(train_loader) & contents(torch.stack(files["train"]))


def numbered(count: int) -> datasets.Split:
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    return datasets.Split(images, torch.arange(count))


@pytest.mark.parametrize("kind", ["tensor", "files"])
def test_each_epoch_has_an_order_of_its_own(kind, tmp_path):
    if kind == "tensor":
        loader = datasets.TensorLoader(numbered(40), 10, CPU, Augment(), seed=1)
    else:
        items = []
        for i in range(40):
            Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
            items.append(datasets.Item(tmp_path / f"{i}.png", i, f"{i}.png"))
        loader = datasets.FileLoader(items, 8, 10, CPU, Augment(), seed=1)
    orders = []
    for epoch in (0, 1, 0):
        loader.epoch = epoch
        orders.append(torch.cat([labels for _, labels in loader]).tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40)) and orders[0] == orders[2] != orders[1]
    loader.seed = 2
    loader.epoch = 0
    assert torch.cat([labels for _, labels in loader]).tolist() != orders[0]


def test_the_middle_of_a_picture_is_what_is_read(tmp_path):
    """80 x 40 pixels, of which the middle 40 are grey; scaled to 20."""
    picture = Image.new("RGB", (80, 40), (255, 0, 0))
    picture.paste((90, 90, 90), (20, 0, 60, 40))
    picture.save(tmp_path / "wide.png")
    image = datasets.read_image(tmp_path / "wide.png", 20)
    assert image.shape == (3, 20, 20) and (image[:, :, 2:-2] == 90).all()


def test_normalised_pixels_have_mean_0_and_deviation_1():
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    out = datasets.Normalize(*datasets.statistics(images))(images)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


# ---- two processes -------------------------------------------------------------------------------------------------------


def test_batches_must_fit_the_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    args = options.parse(None, ["--batch-size", "5"])
    with pytest.raises(SystemExit, match="--batch-size 5 cannot be shared evenly by 2 processes"):
        options.fill_in_recipe(args)
    args = options.parse(None, [])
    options.fill_in_recipe(args, None, 64, 90)
    assert args.batch_size == 10  # an eighth is 11
    assert datasets.TensorLoader(numbered(7), 10, CPU, Augment()).batch_size == 6


def gradient_and_validation(folder):
    line = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(line.weight)
    wrapped = train.wrap(line, False, CPU)
    assert isinstance(wrapped, DistributedDataParallel)
    wrapped(torch.full((1, 1), 1.0 + 2 * utils.rank())).sum().backward()
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2))
    model[0].running_mean.fill_(float(utils.rank()))
    wrapped = train.wrap(model, False, CPU)
    model[0].running_mean.fill_(float(5 * utils.rank()))  # as after a step
    batches = [(pixels(2) + 3, [0, 1]), (pixels(1), [1])][: 2 - utils.rank()]  # the second has no share of the last
    row = train.evaluate(wrapped, plain_pixels(), Batches(*batches), "fp32")
    facts = {"gradient": line.weight.grad.item(), "mean": model[0].running_mean.tolist(), "row": row}
    (folder / f"{utils.rank()}.json").write_text(json.dumps(facts))


def test_two_processes_average_gradients_and_validate_the_first_ones_network(tmp_path):
    on_two_processes(gradient_and_validation, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second and first["gradient"] == 2.0 and first["mean"] == [0.0] * 3  # the mean of 1 and 3
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2))
    batches = ((pixels(2) + 3, [0, 1]), (pixels(1), [1]), (pixels(2) + 3, [0, 1]))
    assert first["row"] == pytest.approx(train.evaluate(model, plain_pixels(), Batches(*batches), "fp32"), rel=1e-5)


@pytest.mark.parametrize("count", [1, 5])
def test_files_that_cannot_be_shared_evenly_validate_on_two_processes(count, picture_folder, tmp_path):
    """Of five files in batches of two the second process has none of the last batch; of one file it has none at all."""
    for part, dogs in (("train", 4), ("val", count // 2), ("test", 1)):
        picture_folder(
            f"set/{part}", cat=max(1, count - dogs if part == "val" else 4), **({"dog": dogs} if dogs else {})
        )
    words = [
        "--data",
        tmp_path / "set",
        "--loader",
        "files",
        "--image-size",
        "32",
        "--batch-size",
        "2",
        "--epochs",
        "1",
    ]
    words += ["--arch", "mobilenet", "--device", "cpu", "--run", tmp_path / "run"]
    train_on_two_processes(words, tmp_path / "output.txt")
    (row,) = utils.load_checkpoint(tmp_path / "run" / "last.pt")["history"]
    assert math.isfinite(row["val_loss"])
    assert row["val_accuracy"] * count == pytest.approx(round(row["val_accuracy"] * count), abs=1e-4)


# ---- test.py -------------------------------------------------------------------------------------------------------------


def test_recall_precision_f1_and_areas_by_hand():
    """Six pictures. Class a: two of three found, one false; its scores in order: a, a, b, a, ..."""
    guesses = ["a", "a", "b", "a", "b", "c"]
    truth = torch.tensor([0, 0, 0, 1, 1, 2])
    certain = [0.9, 0.8, 0.5, 0.7, 0.6, 0.9]
    probabilities = torch.full((6, 3), 0.0)
    for i, (guess, p) in enumerate(zip(guesses, certain, strict=True)):
        probabilities[i] = (1 - p) / 2
        probabilities[i, "abc".index(guess)] = p
    probabilities[2] = torch.tensor([0.4, 0.5, 0.1])
    result = tester.measure(probabilities, truth, ["a", "b", "c"])
    a, b, c = result["classes"].values()
    assert (a["tp"], a["fp"], a["fn"], a["tn"]) == (2, 1, 1, 2)
    assert (b["tp"], b["fp"], b["fn"], b["tn"]) == (1, 1, 1, 3)
    assert (a["recall"], a["precision"], a["f1"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (b["recall"], b["precision"], b["f1"]) == pytest.approx((1 / 2, 1 / 2, 1 / 2))
    assert (c["recall"], c["precision"], c["f1"]) == (1, 1, 1)
    assert a["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)  # found in places 1, 2 and 4
    assert a["auroc"] == pytest.approx(8 / 9)  # of nine pairs, one is the wrong way
    assert result["accuracy"] == pytest.approx(4 / 6) and result["top3_accuracy"] == 1
    assert result["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]  # a row is the truth


def test_recall_is_of_the_truth_and_precision_of_the_answers(capsys):
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
    result = tester.measure(probabilities, torch.tensor([0, 1, 1, 1]), ["cat", "dog"])
    cat, dog = result["classes"].values()
    assert (cat["recall"], cat["precision"]) == pytest.approx((1, 1 / 3))
    assert (dog["recall"], dog["precision"]) == pytest.approx((1 / 3, 1))
    assert cat["f1"] == dog["f1"] == pytest.approx(1 / 2)
    tester.print_table(result)
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["class", "recall", "precision", "F1"]
    assert rows[0].split()[:4] == ["cat", "1.0000", "0.3333", "0.5000"]


def test_top_five_counts_a_picture_whose_class_is_among_five():
    probabilities = torch.tensor([[6.0, 5, 4, 3, 2, 1]]).repeat(3, 1).softmax(1)
    result = tester.measure(probabilities, torch.tensor([0, 4, 5]), list("abcdef"))
    assert result["accuracy"] == pytest.approx(1 / 3) and result["top5_accuracy"] == pytest.approx(2 / 3)


def test_tested_weights_are_in_evaluation_mode(tmp_path):
    torch.manual_seed(0)
    meta = {
        "arch": "alexnet",
        "classes": ["a", "b"],
        "data": "toy",
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "image_size": 32,
    }
    utils.save_weights(tmp_path / "a.safetensors", models.build("alexnet", 2), **meta)
    model, meta, _ = tester.load_model(tester.parse(["--weights", str(tmp_path / "a.safetensors")]), CPU)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    first, second = (tester.predict(model, meta, images, CPU) for _ in range(2))
    assert torch.equal(first, second)
    expected = model((images.float() / 255 - 0.5) / 0.25).softmax(1).detach()
    torch.testing.assert_close(first, expected)


# ---- networks --------------------------------------------------------------------------------------------------------------


def test_networks_pool_by_the_mean_and_inceptions_fourth_way_by_the_largest():
    x = torch.randn(2, 5, 6, 6)
    torch.testing.assert_close(models.Classifier(nn.Identity(), 1, nn.Identity())(x), x.mean((2, 3)))
    assert all(isinstance(models.build(arch).pool, nn.AdaptiveAvgPool2d) for arch in models.MODELS if arch != "fastnet")
    fourth = models.Inception(5, 2, reduced=2).branch4[0]
    torch.testing.assert_close(fourth(x)[:, :, 1, 1], x[:, :, :3, :3].amax((2, 3)))


@pytest.mark.parametrize("arch", ["alexnet"])
def test_dropout_drops_in_training_alone(arch):
    torch.manual_seed(0)
    model, x = models.build(arch), torch.randn(2, 3, 32, 32)
    assert not torch.equal(model.train()(x), model(x)) and torch.equal(model.eval()(x), model(x))
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


def test_newton_schulz_brings_single_singular_values_where_the_docstring_says():
    """A matrix of norm 1 with two singular values: the small one, and nearly 1."""
    for small, expected in ((0.001, 0.14), (0.005, 0.66), (0.05, None), (0.5, None)):
        matrix = torch.diag(torch.tensor([small, math.sqrt(1 - small**2)]))
        found = optimizers.orthogonalize(matrix)[0, 0].item()
        assert found == pytest.approx(expected, abs=0.02) if expected else 0.67 < found < 1.22


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_layers_compute_in_the_precision_asked_for(precision, dtype):
    with train.autocast(precision, CPU):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


# ---- recipes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "epochs", "batch_size", "lr"),
    [(50_000, 10, 1000, 0.2), (400, 50, 50, 0.01), (20, 200, 8, 0.2 * 8 / 1000)],
)
def test_few_pictures_get_smaller_batches_at_a_lower_rate_and_enough_steps(count, epochs, batch_size, lr):
    """Fastnet's 10 epochs in batches of 1000 at 0.2; an eighth of the pictures at most, 400 steps at least."""
    args = options.parse(None, ["--arch", "fastnet"])
    options.fill_in_recipe(args, None, 64, count)
    assert (args.epochs, args.batch_size, args.lr) == (epochs, batch_size, pytest.approx(lr))


def test_flags_go_before_the_recipe_and_crops_fit_the_picture():
    args = options.parse(None, ["--arch", "resnet", "--lr", "0.3", "--epochs", "2", "--label-smoothing", "0.25"])
    options.fill_in_recipe(args, None, 8, 50_000)
    assert (args.lr, args.epochs, args.label_smoothing, args.weight_decay) == (0.3, 2, 0.25, 5e-4)
    assert args.crop == 2  # a quarter of the side, where the recipe says 4
    sample = datasets.Data("sample", [], {})
    args = options.parse(None, ["--arch", "lenet5"])
    options.fill_in_recipe(args, sample, 32, 4000)
    assert (args.epochs, args.batch_size, args.lr) == (14, 64, pytest.approx(3e-3 / 2))
