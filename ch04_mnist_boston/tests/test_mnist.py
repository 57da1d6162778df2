"""MNIST: the data's sources, the augmentation, the loop, and reading digits from photos."""

import json
import urllib.request

import numpy as np
import pytest
import torch
import torchvision
from conftest import START, assert_same_run, metrics, run_and_kill, train_on_two_processes
from PIL import Image
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import datasets
import loop
import mnist
import models
import options
import photo
import sample
import test as tester
import train
import utils
from augment import random_affine

SMALL = ("mnist", "--data", "sample", "--arch", "lenet5", "--limit", "640", "--epochs", "4")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "lenet5.safetensors"
    meta = {"task": "mnist", "arch": "lenet5", "classes": list("0123456789"), "data": "sample", "mean": 0.2, "std": 0.3}
    utils.save_weights(path, models.build("mnist", "lenet5"), **meta, image_size=28)
    return path


# ---- data -------------------------------------------------------------------------------------------------------------


def test_sample_parts_are_apart_and_always_the_same():
    first, again = (datasets.load("sample", parts=("train", "val", "test")) for _ in range(2))
    assert [len(split) for split in first.splits.values()] == [1297, 200, 300]
    assert all(torch.equal(first.splits[part].images, again.splits[part].images) for part in first.splits)
    assert first.splits["test"].labels.bincount().min() > 20  # of every digit
    images = first.splits["train"].images
    assert images.shape[1:] == (1, 28, 28) and images[:, :, :4].sum() == 0 and images.max() == 255


def test_without_network_auto_is_the_sample_and_says_so(tmp_path, monkeypatch, capsys):
    def refuse(*words, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert datasets.load("auto", str(tmp_path), parts=("val",)).name == "sample"
    said = capsys.readouterr().err
    assert (
        "SAMPLE" in said
        and "train-images-idx3-ubyte.gz" in said
        and "MD5" in said
        and str(tmp_path / "MNIST" / "raw") in said
    )
    with pytest.raises(SystemExit, match="could not download train-images.*Fashion.*by hand") as refusal:
        datasets.load("fashion", str(tmp_path))
    assert "\n" not in str(refusal.value)


def test_half_a_file_is_named(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive, _ in torchvision.datasets.MNIST.resources:
        (raw / archive.removesuffix(".gz")).write_bytes(b"\x00\x00\x08\x03half")
    with pytest.raises(SystemExit, match="raw: a damaged file in it"):
        datasets.load("mnist", str(tmp_path))


def test_own_folder_trains_tests_and_names_bad_pictures(picture_folder, tmp_path, capsys):
    folder = picture_folder(cat=30, dog=30)
    (folder / "cat" / "5.png").write_text("no picture at all")
    words = ["mnist", "--data", str(folder), "--arch", "cnn", "--epochs", "1", "--batch-size", "16", "--device", "cpu"]
    train.main([*words, "--workers", "2", "--run", str(tmp_path / "run")])
    tester.main(["mnist", "--run", str(tmp_path / "run"), "--device", "cpu"])
    result = json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))
    held = json.loads((tmp_path / "run" / "split.json").read_text("utf-8"))["test"]
    readable = set(held.values()) - {"cat/5.png"}
    assert result["pictures"] == len(readable) > 1 and np.array(result["confusion"]).shape == (2, 2)
    said = capsys.readouterr().out
    assert "5.png: not a picture that can be read" in said and "skipped 1 of" in said


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cat": 3}, "only one class folder"),
        ({"cat": 3, "dog": 0}, "dog: no pictures"),
        ({"cat": 1, "dog": 2}, "cat: only one picture"),
    ],
)
def test_a_useless_folder_is_refused_by_name(picture_folder, counts, message):
    with pytest.raises(SystemExit, match=message):
        datasets.load(str(picture_folder(**counts)))


def test_other_classes_in_val_are_refused(picture_folder, tmp_path):
    picture_folder("set/train", cat=3, dog=3)
    picture_folder("set/val", cat=3, bird=3)
    with pytest.raises(SystemExit, match="bird: no class of that name in the training data; there are: cat, dog"):
        datasets.load(str(tmp_path / "set"))


# ---- augmentation -----------------------------------------------------------------------------------------------------


def test_affine_of_nothing_is_the_picture_and_a_shift_is_no_longer_than_asked():
    images = datasets.load("sample", parts=("val",)).splits["val"].images.float()
    torch.testing.assert_close(random_affine(images, 0, 0, 0, 0), images, atol=1e-2, rtol=0)
    torch.manual_seed(0)
    moved = random_affine(images, 0, shift=2, scale=0, shear=0)
    axis = torch.arange(28.0)

    def centre(x):
        return torch.stack([(x.sum(d) @ axis) / x.sum((2, 3)) for d in (2, 3)])

    distance = (centre(moved) - centre(images)).abs()
    assert distance.max() < 2.05 and 0.8 < distance.mean() < 1.2  # uniform up to 2: 1 on average


def test_a_turn_keeps_a_disc_and_a_scale_keeps_its_bounds():
    y, x = torch.meshgrid(torch.arange(28.0) - 13.5, torch.arange(28.0) - 13.5, indexing="ij")
    disc = 255 * ((x**2 + y**2) < 64).float().expand(100, 1, 28, 28)
    torch.manual_seed(0)
    turned = random_affine(disc, 90, 0, 0, 0)
    assert (turned - disc).abs().mean() < 0.15 * disc.mean()  # only its edge is drawn anew
    area = random_affine(disc, 0, 0, 0.2, 0).sum((1, 2, 3)) / disc[0].sum()
    assert 1 / 1.5 < area.min() < 0.9 and 1.1 < area.max() < 1.5


def test_pictures_are_enlarged_to_what_the_network_takes():
    meta = {"mean": 0.5, "std": 0.25, "image_size": 64}
    images = mnist.normalize(torch.full((2, 1, 28, 28), 255, dtype=torch.uint8), meta)
    torch.testing.assert_close(images, torch.full((2, 1, 64, 64), 2.0))


def test_running_average_forgets_the_start_and_decay_zero_is_the_network():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    average, copy = loop.Average(model, 0.9), loop.Average(model, 0.0)
    torch.nn.init.constant_(model.weight, 5.0)
    for step in range(100):
        average.update(model, step)
        copy.update(model, step)
    assert torch.equal(copy.model.weight, model.weight)
    torch.testing.assert_close(average.model.weight, model.weight, atol=1e-3, rtol=0)


# ---- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", [*models.MODELS["mnist"]])
def test_every_network_classifies_and_every_weight_learns(arch):
    torch.manual_seed(0)
    size = 64 if arch == "alexnet" else 28
    model = models.build("mnist", arch, 7, size)
    logits = model(torch.randn(4, 1, size, size))
    assert logits.shape == (4, 7)
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_networks_are_the_size_the_papers_say():
    """LeNet-5's 61,706 weights without S2, S4 and C3's table; the course's 62,720 + 10 + 832 + 64."""
    count = {arch: models.count_parameters(models.build("mnist", arch)) for arch in ("lenet5", "cnn")}
    assert count == {"lenet5": 61_706, "cnn": 63_626}
    torch.testing.assert_close(
        models.ScaledTanh()(torch.tensor([1.0, -1.0])), torch.tensor([1.0, -1.0]), atol=1e-4, rtol=0
    )


def test_learns_the_sample(tmp_path, device):
    run = tmp_path / "run"
    words = ["mnist", "--data", "sample", "--arch", "cnn", "--augment", "0.5", "--average", "0.9", "--epochs", "14"]
    train.main([*words, "--device", device, "--run", str(run)])
    tester.main(["mnist", "--run", str(run), "--device", device, "--export", str(tmp_path / "mine.safetensors")])
    _, meta = utils.load_weights(tmp_path / "mine.safetensors")
    usual = options.parse("", ["mnist"])
    assert meta["command"] == utils.command_of(utils.read_arguments(run), usual, "python train.py mnist")
    result = json.loads((run / "test.json").read_text("utf-8"))
    assert result["accuracy"] > 0.95 and result["pictures"] == 300 and result["tested_on"] == "sample"
    confusion = np.array(result["confusion"])
    assert confusion.sum() == 300 and confusion.trace() == 300 - result["wrong"] == round(300 * result["accuracy"])
    for name in ("curves.png", "confusion.png", "mistakes.png"):
        assert (run / name).stat().st_size > 1000


def test_killed_and_resumed_equals_never_killed(tmp_path):
    """With batch normalisation, augmentation and the running average: convnet has them all."""
    words = ["mnist", "--data", "sample", "--limit", "128", "--batch-size", "32", "--epochs", "4", "--device", "cpu"]
    train.main([*words, "--run", str(tmp_path / "whole")])
    run_and_kill(words, tmp_path / "killed", rows=2)
    assert len(metrics(tmp_path / "killed")) < 1 + 4, "it was over before the kill"
    train.main(["--resume", str(tmp_path / "killed")])
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    scalars = EventAccumulator(str(tmp_path / "killed")).Reload().Scalars("val_accuracy")
    assert [event.step for event in scalars] == [1, 2, 3, 4], "TensorBoard shows each epoch once, kill or not"


@pytest.mark.skipif(START != "fork", reason="its processes must inherit what this test has replaced")
def test_two_processes_train_what_one_does(tmp_path, monkeypatch):
    """With SGD: AdamW does not notice gradients that are too large by a factor."""
    monkeypatch.setattr(loop, "make_optimizer", lambda model, args: torch.optim.SGD(model.parameters(), args.lr))
    words = [*SMALL[:-1], "1", "--lr", "0.3", "--device", "cpu", "--run"]
    train.main([*words, str(tmp_path / "one")])
    assert "2 processes" in train_on_two_processes([*words, tmp_path / "two"], tmp_path / "output.txt")
    one, two = (utils.load_checkpoint(tmp_path / name / "best.pt")["model"] for name in ("one", "two"))
    assert one.keys() == two.keys()  # no "module." in them
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-3, rtol=0.02)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(tmp_path, monkeypatch):
    real, calls = mnist.augmented, []

    def overflow(pixels, strength):
        calls.append(1)
        return real(pixels, strength) * (torch.inf if len(calls) > 20 else 1)  # ten steps an epoch

    monkeypatch.setattr(mnist, "augmented", overflow)
    with pytest.raises(SystemExit, match="loss is not finite in epoch 3"):
        train.main([*SMALL, "--batch-size", "64", "--device", "cpu", "--run", str(tmp_path / "run")])
    saved = utils.load_checkpoint(tmp_path / "run" / "last.pt")
    assert saved["epoch"] == 2 and all(tensor.isfinite().all() for tensor in saved["model"].values())


# ---- photos -----------------------------------------------------------------------------------------------------------


def make_photo(digit, path, paper=(225, 215, 190), ink=(40, 45, 90), size=300, seed=0):
    """A digit (28, 28) drawn with coloured ink on shaded, grainy paper, a little off the middle."""
    rng = np.random.default_rng(seed)
    large = Image.fromarray(digit).resize((size, size), Image.BICUBIC)
    share = np.asarray(large, dtype=float)[..., None] / 255
    share = np.roll(share, rng.integers(-size // 20, size // 20, 2), (0, 1))
    light = np.linspace(0.75, 1.05, size)[None, :, None] * np.linspace(1, 0.9, size)[:, None, None]
    pixels = (share * np.array(ink) + (1 - share) * np.array(paper)) * light + rng.normal(0, 4, (size, size, 1))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def test_a_photo_becomes_what_mnist_would_have_made_of_it(tmp_path):
    images, _ = sample.make_digits()
    for i in range(10):
        dark = photo.read_digit(make_photo(images[i, 0].numpy(), tmp_path / "dark.png", seed=i)).float()
        light = make_photo(images[i, 0].numpy(), tmp_path / "light.png", (20, 40, 30), (250, 250, 240), seed=i)
        assert (photo.read_digit(light).float() - dark).abs().mean() < 12  # chalk on a board or ink on paper
        rows, columns = ((dark[0] > 76).any(axis).nonzero()[:, 0] for axis in (1, 0))
        assert 17 <= max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 <= 21
        mass = [(dark[0].sum(axis) @ torch.arange(28.0)) / dark.sum() for axis in (1, 0)]
        assert all(abs(at - 13.5) < 1.1 for at in mass)
        assert dark[0, :2].mean() < 12  # paper is black


def test_shipped_weights_state_their_score_and_read_photos(tmp_path, capsys):
    path = tester.SHIPPED["mnist"]
    _, meta = utils.load_weights(path)
    assert meta["data"] == meta["score"]["tested_on"] == "mnist" and meta["score"]["accuracy"] >= 0.97
    assert meta["command"].startswith("python train.py mnist --arch convnet --data mnist") and path.stat().st_size < 2e6
    tester.main(["mnist", "--weights", str(path), "--data", "sample", "--out", str(tmp_path), "--device", "cpu"])
    assert json.loads((tmp_path / "test.json").read_text("utf-8"))["accuracy"] > 0.8  # other hands, 8x8 pixels
    capsys.readouterr()
    images, labels = sample.make_digits()
    files = [str(make_photo(images[i, 0].numpy(), tmp_path / f"{i}.png", seed=i)) for i in range(30)]
    tester.main(["mnist", *files, "--weights", str(path), "--out", str(tmp_path), "--device", "cpu"])
    answers = [line.split(": ")[1][0] for line in capsys.readouterr().out.splitlines()[:30]]
    assert sum(int(a) == label for a, label in zip(answers, labels[:30].tolist(), strict=True)) >= 24


def test_what_holds_no_digit_is_named_and_the_others_are_answered(weights, tmp_path, capsys):
    images, _ = sample.make_digits()
    good = make_photo(images[0, 0].numpy(), tmp_path / "photo.jpg")
    Image.new("L", (4, 4), 255).save(tmp_path / "tiny.png")
    Image.new("RGB", (90, 90), (200, 180, 30)).save(tmp_path / "blank.png")
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj\n%%EOF\n")
    words = ["--weights", str(weights), "--out", str(tmp_path), "--device", "cpu"]
    names = ["tiny.png", "blank.png", "letter.pdf"]
    with pytest.raises(SystemExit, match="3 of 4 files could not be used, the first being .*tiny.png"):
        tester.main(["mnist", str(good), *[str(tmp_path / name) for name in names], *words])
    said = capsys.readouterr().out
    assert "tiny.png: 4x4 pixels are too few" in said and "blank.png: no digit found" in said
    assert "letter.pdf: not a picture that can be read" in said and "photo.jpg: " in said
    with pytest.raises(SystemExit, match="no such file"):
        tester.main(["mnist", str(tmp_path / "gone.png"), *words])


def test_transparent_and_sixteen_bit_scans_are_read(tmp_path):
    images, _ = sample.make_digits()
    digit = np.kron(images[3, 0].numpy(), np.ones((4, 4), np.uint8))
    black = np.zeros_like(digit)
    Image.fromarray(np.stack([black, black, black, digit], 2)).save(tmp_path / "clear.png")  # black ink on nothing
    Image.fromarray((255 - digit).astype(np.uint16) * 256).save(tmp_path / "deep.png")
    Image.fromarray(255 - digit).save(tmp_path / "plain.png")
    plain = photo.read_digit(tmp_path / "plain.png").float()
    for name in ("clear.png", "deep.png"):
        assert (photo.read_digit(tmp_path / name).float() - plain).abs().mean() < 3


def test_weights_that_do_not_fit_are_refused(weights, tmp_path):
    state, meta = utils.load_weights(weights)
    utils.save_weights(tmp_path / "wrong.safetensors", models.build("mnist", "lenet5"), **(meta | {"arch": "cnn"}))
    utils.save_weights(tmp_path / "other.safetensors", models.build("mnist", "lenet5"), **(meta | {"task": "denoise"}))
    save_file(state, tmp_path / "bare.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    for name, message in (
        ("wrong", "says cnn, but the weights in it are of another network"),
        ("other", "weights of denoise, not of mnist"),
        ("bare", "not of a run of mnist"),
        ("cut", "not a safetensors file that can be read"),
        ("gone", "no such weights"),
    ):
        with pytest.raises(SystemExit, match=message):
            tester.main(["mnist", "--weights", str(tmp_path / f"{name}.safetensors"), "--device", "cpu"])
    utils.save_weights(
        tmp_path / "two.safetensors", models.build("mnist", "lenet5", 2), **(meta | {"classes": ["a", "b"]})
    )
    with pytest.raises(SystemExit, match="knows the classes a, b; sample has 0, 1"):
        tester.main(
            ["mnist", "--weights", str(tmp_path / "two.safetensors"), "--out", str(tmp_path), "--device", "cpu"]
        )
