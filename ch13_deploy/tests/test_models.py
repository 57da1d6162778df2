"""The networks, the sample and the data: shapes, gradients, weights, and what is said of bad input."""

import numpy as np
import pytest
import torch
from conftest import CHAPTER
from torch import nn

import datasets
import models
import sample
import utils

CH06 = CHAPTER.parent / "ch06_cifar10" / "weights"


@pytest.mark.parametrize("arch", models.MODELS)
def test_gives_logits_and_every_weight_learns(arch):
    torch.manual_seed(0)
    model = models.build(arch, num_classes=7).train()
    logits = model(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert not [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0]


def test_the_preprocessing_is_in_the_network():
    torch.manual_seed(0)
    network = models.build("tiny").eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1)
    expected = network((pixels / 255 - mean) / std)
    given = models.Deployable(network, mean.flatten().tolist(), std.flatten().tolist())(pixels)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "at_least"), [("resnet10", 0.98), ("tiny", 0.93)])
def test_shipped_weights_score_what_they_say(name, at_least):
    model, meta = models.load(CHAPTER / "weights" / f"{name}.safetensors")
    assert meta["score"]["tested_on"] == "sample" and meta["score"]["accuracy"] >= at_least
    images, labels = sample.make(300, seed=77)  # drawn for this test alone
    with torch.inference_mode():
        guess = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).argmax(1)
    assert (guess.numpy() == labels).mean() > at_least - 0.03


@pytest.mark.skipif(not CH06.is_dir(), reason="the folder stands alone here: no chapter 6 beside it")
@pytest.mark.parametrize("arch", ["mobilenet", "fastnet"])
def test_chapter_6s_weights_load(arch):
    model, meta = models.load(CH06 / f"{arch}.safetensors")
    assert meta["data"] == "cifar10" and meta["image_size"] == 32
    assert model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 10)


def test_wrong_names_and_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"no architecture 'resnet11'; did you mean resnet10\? there are: resnet10, "):
        models.build("resnet11")
    meta = {"arch": "tiny", "classes": ["a", "b"], "data": "toy", "mean": [0.5] * 3, "std": [0.2] * 3, "image_size": 32}
    utils.save_weights(tmp_path / "wrong.safetensors", models.build("mobilenet", 2), **meta)
    utils.save_weights(tmp_path / "bare.safetensors", models.build("tiny", 2))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "wrong.safetensors").read_bytes()[:999])
    (tmp_path / "cut.pt").write_bytes(b"half")
    for name, message in (
        ("wrong.safetensors", "says tiny, but the weights in it are of another network"),
        ("bare.safetensors", "holds no network of this chapter"),
        ("cut.safetensors", "not a safetensors file that can be read"),
        ("cut.pt", "not a checkpoint that can be read"),
        ("gone.safetensors", "no such weights"),
    ):
        with pytest.raises(SystemExit, match=message) as refusal:
            models.load(tmp_path / name)
        assert "\n" not in str(refusal.value)


# ---- data -------------------------------------------------------------------------------------------------------------


def test_the_sample_is_drawn_from_its_seed_and_its_parts_differ():
    one, again = datasets.load("sample", limit=50), datasets.load("auto", parts=("val",), limit=50)
    assert torch.equal(one.splits["val"].images, again.splits["val"].images)
    assert one.splits["val"].labels.bincount().tolist() == [5] * 10
    assert not torch.equal(one.splits["train"].images, one.splits["val"].images)


def test_left_and_right_are_mirror_images_so_that_flipping_would_be_wrong():
    signs = (sample.flat_sign(sample.CLASSES.index(f"turn_{way}")) for way in ("left", "right"))
    left, right = (np.asarray(sign, int) for sign in signs)
    assert (np.abs(left[:, ::-1] - right) > 60).mean() < 0.02 < (np.abs(left - right) > 60).mean()


def test_a_folder_of_classes_is_split_the_same_way_each_time(picture_folder, capsys):
    folder = picture_folder(cat=20, dog=30)
    (folder / "cat" / "broken.png").write_text("no picture at all")
    first, again = (datasets.load(str(folder), parts=("train", "val", "test")) for _ in range(2))
    assert first.classes == ["cat", "dog"] and sum(len(split) for split in first.splits.values()) == 50
    assert all(torch.equal(first.splits[part].images, again.splits[part].images) for part in first.splits)
    assert "broken.png: not a picture" in capsys.readouterr().out


def test_the_folders_that_chapter_6_exports(picture_folder, tmp_path):
    for part in ("TRAIN", "VAL", "TEST"):
        picture_folder(f"set/{part}", cat=2, dog=3)
    data = datasets.load(str(tmp_path / "set"), parts=("train", "val", "test"))
    assert [len(split) for split in data.splits.values()] == [5, 5, 5]


def test_useless_folders_are_refused_by_name(picture_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    picture_folder("single", cat=3)
    picture_folder("set/train", cat=3, dog=3)
    picture_folder("set/val", cat=3, horse=3)
    for name, message in (
        ("empty", "no class folder"),
        ("single", "only one class folder"),
        ("set", "horse: no class of that name"),
        ("gone", "no folder of that name"),
    ):
        with pytest.raises(SystemExit, match=message):
            datasets.load(str(tmp_path / name))


def test_processes_share_each_batch(monkeypatch):
    split = datasets.Split(torch.zeros(40, 3, 8, 8, dtype=torch.uint8), torch.arange(40))
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        seen += [labels.tolist() for _, labels in datasets.Batches(split, 10, torch.device("cpu"), shuffle=True)]
    assert sorted(sum(seen, [])) == list(range(40)) and {len(part) for part in seen} == {5}
