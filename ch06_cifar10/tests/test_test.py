"""test.py: its figures equal counting by hand, it classifies files, and it refuses what it cannot use."""

import json
import os
import shlex

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import datasets
import models
import options
import test as tester
import utils

CLASSES = ["cat", "dog", "frog"]


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "lenet5.safetensors"
    meta = {"arch": "lenet5", "classes": CLASSES, "data": "toy", "mean": [0.5] * 3, "std": [0.25] * 3, "image_size": 32}
    utils.save_weights(path, models.build("lenet5", 3), **meta)
    return path


def test_figures_equal_counting_by_hand():
    torch.manual_seed(0)
    probabilities, labels = torch.rand(200, 3).softmax(1), torch.randint(0, 3, (200,))
    result = tester.measure(probabilities, labels, CLASSES)
    guess = probabilities.argmax(1)
    assert result["accuracy"] == pytest.approx((guess == labels).double().mean().item())
    for i, name in enumerate(CLASSES):
        row = result["classes"][name]
        counts = [((guess == i) == g)[(labels == i) == t].sum().item() for g, t in ((1, 1), (1, 0), (0, 1), (0, 0))]
        assert [row["tp"], row["fp"], row["fn"], row["tn"]] == counts
        ours, others = probabilities[labels == i, i], probabilities[labels != i, i]
        assert row["auroc"] == pytest.approx((ours[:, None] > others).double().mean().item(), abs=1e-6)
    assert torch.tensor(result["confusion"]).sum() == 200


def test_classifies_files_and_folders(weights, tmp_path, capsys):
    images = datasets.load("sample", parts=("val",)).splits["val"].images[:3]
    (tmp_path / "album").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "album" / f"{i}.png")
    tester.main(["--weights", str(weights), str(tmp_path / "album"), "--out", str(tmp_path / "out"), "--device", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    model, meta, _ = tester.load_model(tester.parse(["--weights", str(weights)]), torch.device("cpu"))
    expected = tester.predict(model, meta, images, torch.device("cpu"))
    assert len(lines) == 4 and (tmp_path / "out" / "predictions.png").exists()
    for line, row in zip(lines, expected, strict=False):
        shown = dict(part.rsplit(" ", 1) for part in line.split(": ")[1].split(", "))
        assert {name: f"{p:.3f}" for name, p in zip(CLASSES, row.tolist(), strict=True)} == shown


def test_a_file_that_is_no_picture_is_named_and_the_others_are_answered(weights, tmp_path, capsys):
    (tmp_path / "letter.png").write_text("dear reader")
    Image.new("L", (4, 4)).save(tmp_path / "tiny.png")
    words = ["--weights", str(weights), "--out", str(tmp_path), "--device", "cpu"]
    with pytest.raises(SystemExit, match="1 of 2 files could not be read, the first being .*letter.png"):
        tester.main([str(tmp_path / "letter.png"), str(tmp_path / "tiny.png"), *words])
    assert "tiny.png: " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no such file"):
        tester.main([str(tmp_path / "gone.png"), *words])


def test_six_views_of_a_network_that_ignores_place_are_one():
    class Colour(torch.nn.Module):
        def forward(self, x):
            return x.amax((2, 3))

    x = torch.randn(2, 3, 8, 8)
    x[..., 3:5, 3:5] = 9.0  # the brightest spot lies in every view
    torch.testing.assert_close(tester.six_views(Colour(), x), Colour()(x))


def test_weights_that_do_not_fit_are_refused(weights, tmp_path):
    state, meta = utils.load_weights(weights)
    utils.save_weights(tmp_path / "wrong.safetensors", models.build("lenet5", 3), **(meta | {"arch": "vgg"}))
    save_file(state, tmp_path / "bare.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    for name, message in (
        ("wrong", "says vgg, but the weights in it are of another network"),
        ("bare", "not of a run of this chapter"),
        ("cut", "not a safetensors file that can be read"),
        ("gone", "no such weights"),
    ):
        with pytest.raises(SystemExit, match=message):
            tester.main(["--weights", str(tmp_path / f"{name}.safetensors"), "--device", "cpu"])


def test_other_classes_than_the_networks_are_refused(weights, tmp_path):
    with pytest.raises(SystemExit, match="knows the classes cat, dog, frog; sample has airplane"):
        tester.main(["--weights", str(weights), "--data", "sample", "--out", str(tmp_path), "--device", "cpu"])


def test_the_command_in_exported_weights_repeats_the_run():
    every = """--data cifar100 --image-size 48 --loader files --limit 300 --no-val --arch torchvision_resnet18
        --weights w.pt --pretrained --epochs 7 --batch-size 64 --optimizer sgd --lr 0.05 --weight-decay 0.1
        --schedule cosine --label-smoothing 0.3 --balance --crop 3 --cutout 5 --colour 0.1 --mixup 0.2
        --small-first --no-flip --seed 3 --precision bf16 --compile"""
    args, usual = options.parse("", every.split()), options.parse("", [])
    elsewhere = dict.fromkeys(utils.ON_THIS_MACHINE)  # where it was trained, and on what, does not matter
    not_tried = [name for name in vars(args) if vars(args)[name] == vars(usual)[name] and name not in elsewhere]
    assert not_tried == ["patience", "quick"]  # --no-val takes no --patience
    command = utils.command_of(json.loads(json.dumps(vars(args))), usual)
    again = options.parse("", shlex.split(command)[2:])
    assert vars(again) | elsewhere == vars(args) | elsewhere


def test_the_command_in_exported_weights_does_not_say_where_things_lay(tmp_path):
    args = options.parse("", ["--data", str(tmp_path / "my shop"), "--data-root", "/secret", "--run", "x"])
    command = utils.command_of(vars(args), options.parse("", []))
    assert command == "python train.py --arch resnet --data 'my shop' --seed 0 --precision fp32" or os.name == "nt"


@pytest.mark.parametrize(("arch", "at_least"), [("mobilenet", 0.87), ("mobilenet_all", 0.90), ("fastnet", 0.94)])
def test_shipped_weights_load_and_state_their_score(arch, at_least, tmp_path, capsys):
    """They were trained on photographs; on the sample's drawings they are measured to be far better than chance."""
    path = tester.WEIGHTS.with_name(f"{arch}.safetensors")
    _, meta = utils.load_weights(path)
    assert meta["data"] == meta["score"]["tested_on"] == "cifar10" and meta["score"]["accuracy"] >= at_least
    assert meta["command"].startswith(f"python train.py --arch {meta['arch']} --data cifar10")
    tester.main(["--weights", str(path), "--data", "sample", "--out", str(tmp_path), "--device", "cpu"])
    assert json.loads((tmp_path / "test.json").read_text("utf-8"))["accuracy"] > 0.25
