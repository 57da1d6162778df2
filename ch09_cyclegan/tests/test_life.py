"""Folders that people bring, and a run that goes on: what is left out is said, what trained is not tested."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import compare
import datasets
import options
import test as tester
import train
import utils

TINY = ("--image-size", "32", "--width", "4", "--patch", "16", "--epochs", "1", "--batch-size", "2", "--device", "cpu")


def draw(path, seed: int, mode: str = "RGB") -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path):
    for k, name in enumerate(("trainA", "trainB", "testA", "testB")):
        for i in range(4):
            draw(tmp_path / "mine" / name / f"{i}.png", 10 * k + i)
    return tmp_path / "mine"


@pytest.fixture
def run(folder, tmp_path):
    train.main(["--data", str(folder), *TINY, "--run", str(tmp_path / "run")])
    return tmp_path / "run"


def test_split_json_and_a_test_picture_that_trained(folder, run, capsys):
    split = json.loads((run / "split.json").read_text("utf-8"))
    assert sorted(split["train"].values())[0] == "trainA/0.png" and len(split["train"]) == len(split["test"]) == 8
    shutil.copy(folder / "trainA" / "2.png", folder / "testA" / "copied.png")
    (folder / "testB" / "3.png").unlink()
    draw(folder / "testB" / "later.png", 99)
    tester.main(["--run", str(run), "--device", "cpu"])
    said = capsys.readouterr().err
    result = json.loads((run / "test.json").read_text("utf-8"))
    assert result["AtoB"]["pictures"] == 4 and result["BtoA"]["pictures"] == 4
    assert "that trained or validated, and are not tested: 1, testA/copied.png" in said
    assert "that came after the training (1 of them are tested): 1, testB/later.png" in said
    assert "of the training that are gone: 1, testB/3.png" in said


def test_resuming_longer_with_other_flags_and_with_other_data(folder, run, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    train.main(["--resume", str(run)])
    assert "is finished: 1 epochs" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="leave out --lr$"):
        train.main(["--resume", str(run), "--epochs", "2", "--lr", "1"])
    draw(folder / "trainA" / "new.png", 77)
    with pytest.raises(
        SystemExit, match="the data are not those of the run: 1 train samples new, such as trainA/new.png"
    ):
        train.main(["--resume", str(run), "--epochs", "2"])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (folder / "trainA" / "new.png").unlink()
    train.main(["--resume", str(run), "--epochs", "2"])
    assert utils.load_checkpoint(run / "last.pt")["epoch"] == 2


def test_a_run_starts_from_a_runs_own_weights(folder, run, tmp_path):
    for name in ("best.pt", "last.pt"):
        args = options.parse(None, ["--data", str(folder), *TINY, "--weights", str(run / name), "--arch", "resnet6"])
        args.lr, args.arch = 1e-3, utils.load_checkpoint(run / name)["meta"]["arch"]
        gan = train.MODES["cyclegan"](args, torch.device("cpu"))
        train.start_from(gan, args)
        saved = utils.load_checkpoint(run / name)["model"]
        assert all(torch.equal(gan.weights()[key], tensor) for key, tensor in saved.items())


def test_a_stray_file_hides_no_domain_and_others_are_counted(folder, tmp_path, capsys):
    (folder / "train").mkdir()
    for domain in "AB":
        (folder / f"train{domain}").rename(folder / "train" / domain)
    draw(folder / "train" / "stray.png", 5)
    draw(folder / "stray.png", 6)
    (folder / "train" / "A" / "notes.txt").write_text("mine")
    (folder / "train" / "A" / ".DS_Store").write_bytes(b"junk")
    for mode in ("cyclegan", "pix2pix", "dcgan", "wgan_gp"):
        data = datasets.load(str(folder), mode=mode, image_size=32)
        assert (len(data.a), len(data.b)) == (4, 4)
    assert "A: 1 files left out that are no pictures, the first being notes.txt" in capsys.readouterr().out


def test_every_type_is_read_and_two_partners_of_one_name_are_refused(folder):
    picture = Image.open(folder / "trainA" / "0.png")
    picture.save(folder / "trainA" / "9.jfif", "JPEG")
    picture.save(folder / "trainA" / "8.gif")
    assert len(datasets.load(str(folder), image_size=32).a) == 6
    for name in ("9.jfif", "8.gif"):
        (folder / "trainA" / name).unlink()
    picture.save(folder / "trainA" / "1.jpg")
    with pytest.raises(SystemExit, match="1.png: 1.jpg has the same name, so the partner of neither is known"):
        datasets.load(str(folder), mode="pix2pix", image_size=32)


def test_a_folder_called_sample_is_the_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder.rename("sample")
    data = datasets.load("sample", image_size=32)
    assert data.own and len(data.a) == 4
    args = options.parse(None, ["--data", "sample"])
    options.fill_in_recipe(args, data.name, 64, data.own)
    assert args.epochs == options.RECIPES["cyclegan small"][3]


@pytest.mark.parametrize(
    "words", ["--pool -1", "--lr nan", "--lambda-cycle -1", "--width 0", "--image-size 8", "--limit 0"]
)
def test_every_number_has_its_range(words):
    with pytest.raises(SystemExit, match=f"argument {words.split()[0]}: '.*': must be a "):
        options.parse(None, words.split())


def test_grey_deep_and_clear_pictures(folder, run, tmp_path):
    """A grey picture stays grey; a 16-bit one is not white; what cannot be seen does not show."""
    source, out = tmp_path / "source", tmp_path / "out"
    draw(source / "grey.png", 1, "L")
    ramp = (np.linspace(0, 1, 40)[None].repeat(40, 0) * 65535).astype(np.uint16)
    Image.fromarray(ramp).save(source / "deep.png")
    assert np.asarray(datasets.read_picture(source / "deep.png"))[5].std() > 60
    tester.main([str(source), "--run", str(run), "--device", "cpu", "--out", str(out)])
    assert Image.open(out / "grey.png").mode == "L" and Image.open(out / "deep.png").mode == "L"
    draw(source / "colour.png", 2)
    tester.main([str(source / "colour.png"), "--run", str(run), "--device", "cpu", "--out", str(out)])
    assert Image.open(out / "colour.png").mode == "RGB"


def test_runs_are_compared(run, tmp_path, capsys):
    capsys.readouterr()
    compare.main([str(run), "--out", str(tmp_path / "curves.png")])
    header, row, _ = capsys.readouterr().out.splitlines()
    assert "cycle_a" in header and "mine" in row
