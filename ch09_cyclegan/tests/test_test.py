"""test.py: any picture in, its translation out, and figures that mean what they say."""

import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import datasets
import models
import options
import sample
import test as tester
import utils
from grid import draw_rows

META = {"mode": "cyclegan", "arch": "resnet3", "width": 4, "patch": 16, "upsample": "transpose", "image_size": 32}


class Same(nn.Module):
    """A generator that changes nothing."""

    multiple = 4

    def forward(self, x):
        return x


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    nets = nn.ModuleDict({name: models.build("resnet3", 32, 4) for name in ("g_ab", "g_ba")})
    utils.save_weights(tmp_path / "small.safetensors", nets, **META, data="sample")
    return tmp_path / "small.safetensors"


def run(*words):
    tester.main([*map(str, words), "--device", "cpu"])


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 16), (33, 100)])
def test_any_size_goes_in_and_comes_out(size):
    pixels = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    assert torch.equal(tester.translate(Same(), pixels, torch.device("cpu")), pixels)
    for arch in ("resnet3", "unet"):
        out = tester.translate(models.build(arch, 32, 4).eval(), pixels, torch.device("cpu"))
        assert out.shape == pixels.shape and out.dtype == torch.uint8


def test_files_keep_their_names_sizes_and_types(weights, tmp_path, capsys):
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, mode, size in (
        ("a.png", "RGB", (37, 21)),
        ("b.jpg", "L", (20, 50)),
        ("below/c.png", "RGBA", (9, 9)),
        ("huge.jpg", "RGB", (1500, 750)),
    ):
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        noise.convert(mode).resize(size).save(source / name)
    out = tmp_path / "out"
    run(source, "--weights", weights, "--out", out, "--max-side", "500", "--direction", "BtoA")
    sizes = {p.relative_to(out).as_posix(): Image.open(p).size for p in out.rglob("*.*") if p.name != "grid.png"}
    assert sizes == {"a.png": (37, 21), "b.jpg": (20, 50), "below/c.png": (9, 9), "huge.jpg": (1500, 750)}
    grey = Image.open(out / "b.jpg")
    assert grey.format == "JPEG" and grey.mode == "L" and (out / "grid.png").stat().st_size > 1000
    said = capsys.readouterr().out
    assert said.startswith("BtoA by ") and "trained on sample" in said and "1500 x 750 in tiles" in said


def test_bad_files_are_named_and_the_rest_is_translated(weights, tmp_path):
    (tmp_path / "letter.png").write_text("dear reader")
    Image.new("RGB", (20, 20)).save(tmp_path / "good.png")
    words = ("--weights", weights, "--out", tmp_path / "out")
    with pytest.raises(SystemExit, match="1 of 2 files could not be read, the first being .*letter.png"):
        run(tmp_path / "letter.png", tmp_path / "good.png", *words)
    assert (tmp_path / "out" / "good.png").exists()
    with pytest.raises(SystemExit, match="no such file"):
        run(tmp_path / "gone.png", *words)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="empty: no pictures in this folder"):
        run(tmp_path / "empty", *words)
    before = (tmp_path / "good.png").read_bytes()
    run(tmp_path / "good.png", "--weights", weights, "--out", tmp_path)
    assert (tmp_path / "good.png").read_bytes() == before and (tmp_path / "good-2.png").exists()


def test_the_test_split_of_a_folder(weights, domains, tmp_path, capsys):
    out = tmp_path / "out"
    run("--weights", weights, "--data", domains(testA=3, testB=2), "--data-root", tmp_path, "--out", out)
    result = json.loads((out / "test.json").read_text("utf-8"))
    assert result["trained_on"] == "sample" and result["tested_on"] == "domains"
    assert (result["AtoB"]["pictures"], result["BtoA"]["pictures"]) == (3, 2)
    assert 0 < result["AtoB"]["cycle_error"] < 1 and "fid" not in result["AtoB"]
    assert sorted(p.name for p in (out / "AtoB").iterdir()) == ["0.png", "1.png", "2.png"]
    width, height = Image.open(
        out / "AtoB.png"
    ).size  # the sources, their translations, and back; at the left their names
    assert height == 3 * 34 + 2 and 3 * 34 + 2 + 20 < width < 3 * 34 + 2 + 100
    assert "FID and KID: not computed, since weights-inception" in capsys.readouterr().out


def test_networks_that_change_nothing_have_no_cycle_error_and_convince_no_judge():
    data = datasets.load("sample", part="test", limit=5, image_size=32)
    nets, meta = nn.ModuleDict({"g_ab": Same(), "g_ba": Same()}), {"mode": "cyclegan"}
    result, rows = tester.measure("AtoB", nets, data, meta, None, torch.device("cpu"))
    assert result == {"pictures": 5, "cycle_error": 0.0, "called_orange": 0.0} and torch.equal(rows["fake B"], data.a)


class MeanColour(nn.Module):
    """In Inception's place: the three mean colours of a picture."""

    num_features = 3

    def forward(self, pixels):
        return pixels.float().mean((2, 3)) / 255


def test_fid_and_kid_against_their_formulas():
    """FID of features with diagonal covariances has a closed form; pictures of the same heap are at no distance."""
    torch.manual_seed(0)
    real = torch.randint(0, 200, (60, 3, 1, 1), dtype=torch.uint8).expand(-1, -1, 8, 8)
    shifted = real + 50
    same = tester.distances(MeanColour(), real, real, torch.device("cpu"))
    apart = tester.distances(MeanColour(), real, shifted, torch.device("cpu"))
    assert abs(same["fid"]) < 1e-4 and same["kid"] < 0.01 < apart["kid"]
    assert apart["fid"] == pytest.approx(3 * (50 / 255) ** 2, rel=1e-3)  # the same covariance: only the means differ
    f, g = (MeanColour()(p).double() for p in (real, shifted))
    xx, yy, xy = ((u @ v.T / 3 + 1) ** 3 for u, v in ((f, f), (g, g), (f, g)))
    off = 1 - torch.eye(60, dtype=torch.double)
    assert apart["kid"] == pytest.approx(((xx + yy) * off).sum().item() / (60 * 59) - 2 * xy.mean().item(), rel=1e-3)


def test_inceptions_weights_are_checked(weights, domains, tmp_path, monkeypatch):
    (tmp_path / tester.INCEPTION).write_bytes(b"not these")
    words = ("--weights", weights, "--data", domains(testA=1, testB=1), "--data-root", tmp_path, "--out", tmp_path)
    with pytest.raises(SystemExit, match="damaged .its SHA-256 does not begin with 6726825d"):
        run(*words)
    (tmp_path / tester.INCEPTION).unlink()
    monkeypatch.setattr(tester, "INCEPTION_URL", "http://127.0.0.1:1/weights")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(SystemExit, match="could not download weights-inception.*127.0.0.1:1/weights.*by hand"):
        run(*words, "--fid")


def test_weights_that_do_not_fit_are_refused(weights, tmp_path):
    state, meta = utils.load_weights(weights)
    utils.save_weights(tmp_path / "wrong.safetensors", nn.ModuleDict({"g_ab": models.build("unet", 32, 4)}), **meta)
    save_file(state, tmp_path / "bare.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    for name, message in (
        ("wrong", "says resnet3 of width 4, but the weights in it are of another network"),
        ("bare", "not of a run of this chapter"),
        ("cut", "not a safetensors file that can be read"),
        ("gone", "no such weights"),
    ):
        with pytest.raises(SystemExit, match=message):
            run("--weights", tmp_path / f"{name}.safetensors")


def test_shipped_weights_turn_apples_orange_and_say_where_they_are_from(tmp_path):
    _, meta = utils.load_weights(tester.WEIGHTS)
    assert meta["data"] == "sample" and meta["command"].startswith("python train.py --data sample")
    assert tester.WEIGHTS.stat().st_size < 1.3e6
    run("--weights", tester.WEIGHTS, "--out", tmp_path)
    result = json.loads((tmp_path / "test.json").read_text("utf-8"))
    for direction, share in (("AtoB", "called_orange"), ("BtoA", "called_apple")):
        assert result[direction][share] >= 0.95 and result[direction]["cycle_error"] < 0.1
        assert result[direction][share] == pytest.approx(meta["score"][direction][share], abs=0.02)


def test_an_exported_file_is_what_was_tested(tmp_path):
    import train

    words = ["--data", "sample", "--image-size", "32", "--width", "4", "--limit", "4", "--epochs", "1"]
    train.main([*words, "--device", "cpu", "--run", str(tmp_path / "run")])
    run("--run", tmp_path / "run", "--limit", "4", "--export", tmp_path / "out.safetensors")
    tested = json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))
    state, meta = utils.load_weights(tmp_path / "out.safetensors")
    assert all(weight.dtype == torch.float16 for weight in state.values())
    assert meta["score"]["AtoB"] == tested["AtoB"]
    assert meta["command"] == utils.command_of(utils.read_arguments(tmp_path / "run"), options.parse("", []))
    run("--weights", tmp_path / "out.safetensors", "--limit", "4", "--out", tmp_path / "again")
    again = json.loads((tmp_path / "again" / "test.json").read_text("utf-8"))
    assert again["AtoB"] == tested["AtoB"] and again["BtoA"] == tested["BtoA"]
    assert (sample.judge(datasets.load("sample", part="test", limit=4, image_size=32).a) == 0).all()


def test_tiles_fade_into_each_other_and_cover_everything():
    pixels = torch.randint(0, 256, (3, 150, 333), dtype=torch.uint8)
    assert torch.equal(tester.translate_tiles(Same(), pixels, torch.device("cpu"), 64), pixels)
    for length, side, overlap in ((150, 64, 16), (65, 64, 16), (1000, 64, 16), (64, 64, 16)):
        parts = tester.stretches(length, side, overlap)
        assert parts[0][0] == 0 and parts[-1][1] == length and all(b - a <= side for a, b in parts)
        assert all(left[1] - right[0] >= overlap for left, right in zip(parts, parts[1:], strict=False))


def test_same_names_are_numbered_and_a_picture_called_grid_survives(weights, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / folder / "grid.png")
    run(tmp_path / "x", tmp_path / "y", "--weights", weights, "--out", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["grid-2.png", "grid-3.png", "grid.png"]
    assert (
        Image.open(tmp_path / "out" / "grid.png").size == Image.open(tmp_path / "out" / "grid-2.png").size == (20, 20)
    )


def test_rows_of_a_grid_have_their_names_beside_them():
    """The names stand in a white margin, so that no picture loses a pixel; a short row ends in black."""
    black, white = (torch.full((2, 3, 32, 32), value, dtype=torch.uint8) for value in (0, 255))
    whole = torch.from_numpy(np.array(draw_rows({"real A": white, "fake B": black[:1], "none": black[:0]})))
    plain = torch.from_numpy(np.array(draw_rows({"": black})))
    assert plain.shape == (36, 70, 3) and whole.shape[0] == 70
    margin = whole[:, : whole.shape[1] - 70].float().mean(2)
    rows = [(margin[top : top + 32] < 128).sum() for top in (2, 36)]
    assert min(rows) > 20 and margin.mean() > 200, "a name in each of the two rows, dark on white"
    assert (
        (whole[2:34, -68:-36] == 255).all() and (whole[36:68, -68:-36] == 0).all() and (whole[36:68, -34:-2] == 0).all()
    )


def test_the_command_in_exported_weights_repeats_the_run():
    every = """--mode pix2pix --data shop --image-size 64 --weights w.pt --limit 9 --no-flip --arch unet --width 8
        --patch 16 --upsample resize --epochs 2 --batch-size 3 --lr 0.01 --weight-decay 0.1 --lambda-cycle 9
        --lambda-identity 2 --lambda-l1 50 --pool 7 --seed 3 --precision bf16 --compile"""
    args, usual = options.parse("", every.split()), options.parse("", [])
    elsewhere = dict.fromkeys(utils.ON_THIS_MACHINE)  # where it was trained, and on what, does not matter
    not_tried = [name for name in vars(args) if vars(args)[name] == vars(usual)[name] and name not in elsewhere]
    assert not_tried == ["quick"]
    command = utils.command_of(json.loads(json.dumps(vars(args))), usual)
    again = options.parse("", shlex.split(command)[2:])
    assert vars(again) | elsewhere == vars(args) | elsewhere
