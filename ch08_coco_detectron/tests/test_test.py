"""test.py: its files agree with each other, it searches pictures, it refuses what it cannot use. And read_coco.py."""

import json
import shlex

import numpy as np
import pytest
import torch
from conftest import thing
from PIL import Image
from safetensors.torch import save_file

import datasets
import draw
import evaluate
import masks
import models
import options
import read_coco
import sample
import test as tester
import tiles
import train
import utils


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["--engine", "torchvision", "--data", str(scenes), "--epochs", "1", "--device", "cpu"]
    train.main([*words, "--run", str(folder)])
    return folder


def test_a_test_writes_files_that_agree(run, capsys):
    tester.main(["--run", str(run), "--device", "cpu", "--score", "0.05", "--export", str(run / "mini.safetensors")])
    result = json.loads((run / "test.json").read_text("utf-8"))
    assert result["tested_on"] == "scenes" and result["pictures"] == 6 and result["engine"] == "torchvision"
    evaluate.main(
        [str(run / "truth.json"), str(run / "predictions.json"), "--score", "0.05", "--out", str(run / "again.json")]
    )
    again = json.loads((run / "again.json").read_text("utf-8"))
    assert {name: result[name] for name in again} == again
    for row in json.loads((run / "predictions.json").read_text("utf-8")):
        assert set(row) == {"image_id", "category_id", "score", "bbox", "segmentation"}
        assert row["segmentation"]["size"] == [128, 128] and isinstance(row["segmentation"]["counts"], str)
    names = (
        "args.json",
        "metrics.csv",
        "curves.png",
        "last.pt",
        "best.pt",
        "truth.json",
        "scenes.png",
        "precision_recall.png",
        "confusion.png",
        "errors.jpg",
        "split.json",
    )
    assert all((run / name).stat().st_size > 50 for name in names)
    _, meta = utils.load_weights(run / "mini.safetensors")
    assert meta["score"]["mask_AP"] == result["mask"]["AP"]
    assert meta["command"] == utils.command_of(utils.read_arguments(run), options.parse("", []))
    source = json.loads((run / "args.json").read_text("utf-8"))["data"]
    words = ["--weights", str(run / "mini.safetensors"), "--data", source]
    tester.main([*words, "--out", str(run / "out"), "--device", "cpu"])
    assert json.loads((run / "out" / "test.json").read_text("utf-8"))["mask"] == result["mask"]


def test_pictures_and_folders_are_searched(run, scenes, tmp_path, capsys):
    (tmp_path / "album").mkdir()
    Image.fromarray(np.arange(6000, dtype=np.uint16).reshape(60, 100)).save(tmp_path / "album" / "deep.png")
    Image.new("L", (300, 200)).save(tmp_path / "album" / "grey.jpg")
    words = ["--run", str(run), "--out", str(tmp_path / "out"), "--device", "cpu", "--score", "0.01"]
    tester.main([str(tmp_path / "album"), str(scenes / "test" / "000002.png"), *words])
    out = tmp_path / "out" / "predictions"
    assert sorted(path.name for path in out.iterdir()) == [
        "0001-deep.png", "0002-grey.png", "0003-000002.png", "predictions.json",
    ]  # fmt: skip
    rows = json.loads((out / "predictions.json").read_text("utf-8"))
    assert {row["file_name"] for row in rows} <= set(
        map(str, [*(tmp_path / "album").iterdir(), scenes / "test" / "000002.png"])
    )
    assert all(row["segmentation"]["size"] == [128, 128] for row in rows if row["image_id"] == 3)
    (tmp_path / "letter.png").write_text("dear reader")
    with pytest.raises(SystemExit, match="1 of 2 files could not be read, the first being .*letter.png"):
        tester.main([str(tmp_path / "letter.png"), str(scenes / "test" / "000002.png"), *words])
    with pytest.raises(SystemExit, match="no such file or folder"):
        tester.main([str(tmp_path / "gone.png"), *words])


def test_weights_that_do_not_fit_are_refused(run, tmp_path):
    saved = utils.load_checkpoint(run / "best.pt")
    wrong = saved["meta"] | {"categories": saved["meta"]["categories"][:2]}
    utils.save_weights(tmp_path / "wrong.safetensors", models.build("mini", 6), **wrong)
    save_file({"weight": torch.zeros(3)}, tmp_path / "bare.safetensors")
    for name, message in (
        ("wrong", "says mini, but the weights in it are of another network"),
        ("bare", "not of a run of this chapter"),
        ("gone", "no such weights"),
    ):
        with pytest.raises(SystemExit, match=message):
            tester.main(["--weights", str(tmp_path / f"{name}.safetensors"), "--device", "cpu"])
    with pytest.raises(SystemExit, match="trained with torchvision, whose weights detectron2 cannot use"):
        tester.main(["--run", str(run), "--engine", "detectron2", "--device", "cpu"])


def test_other_categories_than_the_networks_are_refused(run, coco_file, tmp_path):
    path = coco_file(annotations=[thing()], name="instances_test")
    with pytest.raises(SystemExit, match="does not know cat, dog"):
        tester.main(["--run", str(run), "--data", str(path.parents[1]), "--out", str(tmp_path), "--device", "cpu"])


def test_shipped_weights_find_most_masks_on_unseen_scenes(tmp_path, device):
    """The claim of the README, on all 200 scenes of the sample's test split."""
    _, meta = utils.load_weights(tester.WEIGHTS)
    sample.write(tmp_path / "sample", {"train": 1, "val": 1, "test": 200})
    words = ["--weights", str(tester.WEIGHTS), "--data", str(tmp_path / "sample")]
    tester.main([*words, "--out", str(tmp_path), "--device", device])
    result = json.loads((tmp_path / "test.json").read_text("utf-8"))
    assert result["mask"]["AP50"] >= 0.6 and result["pictures"] == 200
    assert result["mask"]["AP50"] == pytest.approx(meta["score"]["mask_AP50"], abs=0.01)


def test_names_that_the_usual_font_lacks_are_drawn_with_one_that_has_them(monkeypatch):
    asked = []
    monkeypatch.setattr(utils, "find_font", lambda text: asked.append(text) or utils.font_files()[0])
    blank = np.zeros((500, 500, 3), np.uint8)
    drawn = [draw.annotate(blank, [thing()], [{"id": 3, "name": name}]) for name in ("狗", "дом", "$x$ dog")]
    assert asked == ["狗", "дмо"] and not (drawn[0] == drawn[1]).all()


@pytest.mark.parametrize(("size", "overlap"), [((100, 230), 0.2), ((64, 64), 0.2), ((65, 300), 0.5), ((30, 500), 0)])
def test_tiles_cover_the_picture_and_overlap(size, overlap):
    places = tiles.tiles_of(*size, 64, overlap)
    covered = np.zeros(size, int)
    for left, top, right, bottom in places:
        assert right - left == min(64, size[1]) and bottom - top == min(64, size[0])
        covered[top:bottom, left:right] += 1
    assert covered.min() == 1 and (len(places) == 1) == (max(size) <= 64)
    for axis in (0, 1):
        starts = sorted({place[axis] for place in places})
        assert all(b - a <= 64 * (1 - overlap) + 1 for a, b in zip(starts, starts[1:], strict=False))


def test_each_object_is_found_once_in_tiles():
    """A network that sees one white rectangle a picture, the first, and none in a picture as large as the whole."""
    picture = np.zeros((100, 230, 3), np.uint8)
    truth = [(5, 5, 25, 25), (100, 30, 120, 50), (190, 60, 215, 85)]
    for left, top, right, bottom in truth:
        picture[top:bottom, left:right] = 255

    def predict(pieces):
        found = []
        for piece in pieces:
            mask = piece[..., 0] > 0
            rows = [masks.box_of(mask)] if mask.any() and piece.shape[1] < 230 else []
            boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32).reshape(-1, 4)
            about = {"scores": np.full(len(rows), 0.9, np.float32), "labels": np.zeros(len(rows), int)}
            found.append(about | {"boxes": boxes, "masks": np.array([mask] * len(rows), bool).reshape(-1, *mask.shape)})
        return found

    (found,) = tiles.in_tiles(predict, 64, 0.5)([picture])
    assert sorted(map(tuple, found["boxes"].tolist())) == sorted(truth) and found["masks"].shape == (3, 100, 230)
    assert (found["masks"].any(0) == (picture[..., 0] > 0)).all()


def test_a_search_in_tiles_finds_what_is_in_them(run, scenes, tmp_path):
    words = ["--run", str(run), "--out", str(tmp_path / "out"), "--device", "cpu", "--score", "0.01", "--tiles", "64"]
    tester.main([str(scenes / "test" / "000002.png"), *words])
    rows = json.loads((tmp_path / "out" / "predictions" / "predictions.json").read_text("utf-8"))
    assert rows and all(row["segmentation"]["size"] == [128, 128] for row in rows)


# ---- read_coco.py -----------------------------------------------------------------------------------------------------


def test_the_table_counts_what_is_there(scenes, capsys):
    path = scenes / "annotations" / "instances_train.json"
    read_coco.main([str(path)])
    lines = capsys.readouterr().out.splitlines()
    content = json.loads(path.read_text("utf-8"))
    assert lines[0].startswith("16 pictures, 1 of them") and lines[1].startswith(
        f"{len(content['annotations'])} objects: "
    )
    rings = [row for row in content["annotations"] if row["category_id"] == 5]
    row = next(line.split() for line in lines if " ring " in line)
    pictures = {ring["image_id"] for ring in rings}
    assert row[:5] == ["5", "ring", str(len(rings)), "0", str(len(pictures))]
    assert int(row[5].replace(",", "")) == round(float(np.median([ring["area"] for ring in rings])))


def test_pictures_are_drawn_with_the_chosen_categories(scenes, tmp_path, capsys):
    path, out = scenes / "annotations" / "instances_train.json", tmp_path / "out.png"
    read_coco.main([str(path), "--draw", "ring", "--count", "2", "--out", str(out)])
    said = capsys.readouterr().out
    assert said.count(": ") >= 2 and Image.open(out).size[0] > 700
    read_coco.main([str(path), "--image", "1", "--out", str(out)])
    plain = np.asarray(Image.open(out).convert("RGB"))
    picture = datasets.read_image(scenes / "train" / "000000.png")
    assert plain.shape[0] == 3 * 128 and (plain[: 3 * 100 : 3, ::3] == picture[:100]).all(), (
        "an empty scene is drawn as it is"
    )
    for words, message in (
        (["--draw", "horse"], "no category horse; there are: disc"),
        (["--image", "99"], "lists no picture of that id"),
    ):
        with pytest.raises(SystemExit, match=message):
            read_coco.main([str(path), *words])


def test_a_mask_is_drawn_where_it_is(scenes, tmp_path):
    """On a drawing of one object, the pixels that change in the middle of it are those of its mask."""
    from draw import annotate

    picture = np.zeros((480, 480, 3), np.uint8)
    row = thing(box=(100, 100, 200, 200), segmentation=[[150, 150, 250, 150, 250, 250, 150, 250]])
    drawn = annotate(picture, [row], [{"id": 3, "name": "cat"}])
    assert (drawn[140:260, 140:260].any(2) == np.pad(np.ones((100, 100), bool), ((10, 10), (10, 10)))).all()


def test_a_truncated_file_is_refused_in_one_line(tmp_path, run_script):
    (tmp_path / "instances_val.json").write_text('{"images": [{"id": 1')
    process = run_script("read_coco.py", tmp_path / "instances_val.json")
    assert process.returncode == 1 and "cut off" in process.stderr and process.stderr.count("\n") == 1


def test_the_command_in_exported_weights_repeats_the_run():
    every = """--engine torchvision --data shop --categories cat,dog --limit 9 --arch mask_rcnn_r50_fpn --weights none
        --epochs 2 --patience 3 --batch-size 4 --lr 0.01 --weight-decay 0.1 --schedule step --min-size 90 100
        --max-size 200 --no-flip --seed 3 --precision bf16"""
    args, usual = options.parse("", every.split()), options.parse("", [])
    elsewhere = dict.fromkeys(utils.ON_THIS_MACHINE)  # where it was trained, and on what, does not matter
    not_tried = [name for name in vars(args) if vars(args)[name] == vars(usual)[name] and name not in elsewhere]
    assert not_tried == ["quick", "compile"]
    command = utils.command_of(json.loads(json.dumps(vars(args))), usual)
    again = options.parse("", shlex.split(command)[2:])
    assert vars(again) | elsewhere == vars(args) | elsewhere
