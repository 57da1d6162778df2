"""The sample, folders in COCO's format, faulty files, odd pictures, and downloads from a server on loopback."""

import hashlib
import http.server
import io
import json
import shutil
import threading
import zipfile
from functools import partial

import numpy as np
import pytest
from conftest import thing
from PIL import Image

import datasets
import masks
import sample

# ---- the sample -------------------------------------------------------------------------------------------------------


def test_the_sample_is_the_same_for_the_same_seed_and_differs_between_parts(scenes, tmp_path):
    sample.write(tmp_path / "again", {"train": 2, "val": 2, "test": 6})
    for part in ("train", "val"):
        assert (tmp_path / "again" / part / "000001.png").read_bytes() == (scenes / part / "000001.png").read_bytes()
    assert (scenes / "train" / "000001.png").read_bytes() != (scenes / "val" / "000001.png").read_bytes()


def test_the_sample_has_every_kind_of_mask_a_crowd_and_an_empty_scene(scenes):
    content = json.loads((scenes / "annotations" / "instances_train.json").read_text("utf-8"))
    rows = content["annotations"]
    assert {type(row["segmentation"]) for row in rows} == {list, dict}
    assert [row["iscrowd"] for row in rows].count(1) == 1
    assert {image["id"] for image in content["images"]} - {row["image_id"] for row in rows} == {1}
    covered = [np.zeros((128, 128), int) for _ in content["images"]]
    for row in rows:
        mask = masks.to_mask(row["segmentation"], 128, 128)
        assert mask.sum() == row["area"] and masks.box_of(mask) == row["bbox"]
        covered[row["image_id"] - 1] += mask
    assert max(c.max() for c in covered) == 1, "only what is seen is annotated, so nothing overlaps"
    assert datasets.check(scenes / "annotations" / "instances_train.json") == []


def test_the_sample_is_drawn_once_and_anew_when_its_code_changes(tmp_path, monkeypatch, capsys):
    sizes = {"train": 3, "val": 2, "test": 2}
    monkeypatch.setattr(sample, "SIZES", sizes)
    monkeypatch.setattr(sample, "write", partial(sample.write, sizes=sizes))
    drawn = []
    for version in ("one", "one", "two"):
        monkeypatch.setattr(sample, "version", lambda version=version: version)
        data = datasets.load("sample", tmp_path, ("train", "val", "test"))
        drawn.append("drawing the sample" in capsys.readouterr().out)
    assert drawn == [True, False, True]
    assert [len(data.splits[part]) for part in sizes] == [3, 2, 2]
    assert [category["name"] for category in data.categories] == list(sample.CATEGORIES)


# ---- folders ----------------------------------------------------------------------------------------------------------


def many(count, **more):
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(1, count + 1)]
    rows = [thing(i, i, category_id=3 if i % 2 else 7) for i in range(1, count + 1)]
    return {"images": images, "annotations": rows} | more


def test_what_there_is_no_file_for_is_held_out(coco_file):
    path = coco_file(**many(30))
    parts = ("train", "val", "test")
    alone = datasets.load(str(path.parents[1]), parts=parts)
    ids = [{image["id"] for image in alone.splits[part].images} for part in parts]
    assert (
        sum(map(len, ids)) == 30
        and len(set.union(*ids)) == 30
        and 1 <= min(map(len, ids)) <= max(map(len, ids[1:])) < 8
    )
    assert alone.categories == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    again = datasets.load(str(path), parts=("val",))
    assert {image["id"] for image in again.splits["val"].images} == ids[1], "the same whether asked for alone or not"
    coco_file(**many(5), name="instances_val")
    two = datasets.load(str(path.parents[1]), parts=parts)
    assert len(two.splits["test"]) == 5, "val tests, and a tenth of train validates"
    assert len(two.splits["train"]) + len(two.splits["val"]) == 30 and 1 <= len(two.splits["val"]) < 8
    coco_file(**many(4), name="instances_test")
    three = datasets.load(str(path.parents[1]), parts=parts)
    assert [len(three.splits[part]) for part in parts] == [30, 5, 4]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["instances_train2017", "instances_val2017", "captions_train2017"], {"train": 0, "val": 1}),
        (["latest_train", "contest_val"], {"train": 0, "val": 1}),
        (["voc07_trainval", "voc07_test"], {"test": 1}),
        (["Train", "Valid", "holdout"], {"train": 0, "val": 1}),
        (["my-validation-set"], {"val": 0}),
        (["train_and_test"], "speaks of more than one part"),
        (["a_train", "b_train"], "more than one file for train"),
        (["trainval", "retrain", "approval"], "no annotation file of a name with"),
    ],
)
def test_parts_are_found_by_whole_words(tmp_path, names, found):
    for name in names:
        (tmp_path / f"{name}.json").touch()
    if isinstance(found, str):
        with pytest.raises(SystemExit, match=found):
            datasets.find_annotations(tmp_path)
    else:
        paths = {part: tmp_path / f"{names[index]}.json" for part, index in found.items()}
        assert datasets.find_annotations(tmp_path) == paths


def test_folders_as_roboflow_writes_them(coco_file, tmp_path):
    path = coco_file(**many(30))
    for part in ("train", "valid", "test"):
        place = shutil.copytree(path.parents[1] / "train", tmp_path / "export" / part)
        shutil.copy(path, place / "_annotations.coco.json")
    data = datasets.load(str(tmp_path / "export"), parts=("train", "val"))
    assert [len(split) for split in data.splits.values()] == [30, 30]


def test_categories_and_limit(coco_file):
    coco_file(**many(40))
    path = coco_file(**many(40), name="instances_val")
    data = datasets.load(str(path.parents[1]), parts=("train", "test"), categories="dog", limit=6)
    assert data.categories == [{"id": 7, "name": "dog"}]
    assert len(data.splits["train"]) == 6 and len(data.splits["test"]) == 20
    assert {row["category_id"] for rows in data.splits["train"].objects.values() for row in rows} == {7}
    with pytest.raises(SystemExit, match="no category horse; there are: cat, dog"):
        datasets.load(str(path.parents[1]), categories="dog,horse")


def test_objects_and_pictures_that_cannot_be_used_are_counted(coco_file, capsys):
    content = many(30)
    content["images"][4]["absent"] = True
    content["annotations"] += [thing(50, 2, segmentation=[]), thing(51, 99), thing(52, 2, box=(60, 5, 4, 4))]
    content["annotations"].append(thing(53, 2, category_id=5))
    path = coco_file(**content)
    data = datasets.load(str(path), parts=("train", "val", "test"))
    assert sum(map(len, data.splits.values())) == 29
    said = capsys.readouterr().out
    for words in (
        "left out 4 of 34 objects",
        "1 x an unknown category",
        "pictures that are not there, such as",
        "5.png",
    ):
        assert words in said


def test_boxes_without_masks_are_refused(coco_file):
    path = coco_file(annotations=[thing(segmentation=[])])
    with pytest.raises(SystemExit, match="no object with a box and a mask is left"):
        datasets.load(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [{"id": 1, "file_na', "not JSON that can be read, or cut off"),
        ("[]", "not a COCO instances file"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "not in COCO's format"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(SystemExit, match=message) as refusal:
        datasets.load(str(tmp_path))
    assert "\n" not in str(refusal.value)


def test_check_names_every_fault(coco_file, capsys):
    images = [
        {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
        {"id": 2, "file_name": "gone.png", "width": 40, "height": 30, "absent": True},
        {"id": 3, "file_name": "b.png", "width": 40, "height": 30},
        {"id": 3, "file_name": "b.png", "width": 40, "height": 30},
    ]
    rows = [
        thing(1, category_id=4), thing(2, 9), thing(3, box=(35, 5, 20, 5)), thing(4, segmentation=[[]]),
        thing(5, segmentation=[[1, 1, 5, 5]]), thing(6), thing(6), thing(7, box=(50, 50, 5, 5)),
        thing(8, box=(1, 1, 0, 4)), thing(9, segmentation={"size": [30, 40], "counts": [7]}), thing(10),
        thing(11, bbox=[1, 2]),
    ]  # fmt: skip
    path = coco_file(images, rows)
    Image.new("RGB", (41, 30)).save(path.parents[1] / "train" / "a.png")
    with pytest.raises(SystemExit, match="faults"):
        datasets.main(["--check", str(path)])
    said = capsys.readouterr().out
    for words in (
        "images[3]: the id 3 is there more than once", "annotations: the id 6 is there more than once", "gone.png is missing",
        "a.png has (41, 30) pixels, the file says (40, 30)", "object 1: an unknown category: 4",
        "object 2: an image that the file does not list: 9",
        "object 3 on a.png: the box [35.0, 5.0, 20.0, 5.0] reaches outside", "object 4 on a.png: an empty polygon",
        "object 5 on a.png: an open polygon", "object 7 on a.png: a box outside the image", "object 8 on a.png: a box",
        "object 9 on a.png: an RLE whose runs", "annotations[11]: bbox: expected `array`",
    ):  # fmt: skip
        assert words in said, words
    assert "object 10" not in said
    second = {"id": 2, "file_name": "d.png", "width": 5, "height": 5}
    path = coco_file([{"file_name": "c.png", "width": 5, "height": 5}, second])
    assert datasets.check(path) == ["images[0]: record: object missing required field `id`"]


def test_16_bit_grey_and_palette_pictures_are_read_as_colour(tmp_path):
    grey = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert (datasets.read_image(tmp_path / "deep.png") == (grey / 257).round()[..., None]).all()
    for mode in ("L", "P", "RGBA", "1"):
        Image.new("RGB", (7, 5), (200, 200, 200)).convert(mode).save(tmp_path / f"{mode}.png")
        assert datasets.read_image(tmp_path / f"{mode}.png").shape == (5, 7, 3)
    (tmp_path / "letter.png").write_text("dear reader")
    with pytest.raises(OSError):
        datasets.read_image(tmp_path / "letter.png")


def test_auto_without_coco_is_the_sample_and_says_so(tmp_path, monkeypatch, scenes, capsys):
    monkeypatch.setattr(datasets, "draw_sample", lambda root: scenes)
    assert datasets.load("auto", tmp_path).name == "sample"
    assert "built-in SAMPLE" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="--data nowhere: not coco, sample or auto"):
        datasets.load("nowhere")


# ---- downloads --------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """A folder, and the URL under which a server on loopback shows it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    (tmp_path / "www").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield tmp_path / "www", f"http://127.0.0.1:{web.server_port}/"
        web.shutdown()


def serve_coco(server, monkeypatch, scenes):
    """The sample, dressed up as COCO 2017 on the server."""
    www, url = server
    files = {}
    for name, made in (("annotations/a.zip", "annotations"), ("zips/v.zip", "val2017"), ("zips/t.zip", "train2017")):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as content:
            source = scenes / made.removesuffix("2017")
            for path in sorted(source.iterdir()):
                inside = path.name.replace(".json", "2017.json") if made == "annotations" else path.name
                if "test" not in inside:
                    content.write(path, f"{made}/{inside}")
        (www / name).parent.mkdir(exist_ok=True)
        (www / name).write_bytes(buffer.getvalue())
        files[name] = (hashlib.md5(buffer.getvalue()).hexdigest(), made)
        if made != "annotations":
            (www / made).symlink_to(source)
    monkeypatch.setattr(datasets, "COCO_URL", url)
    monkeypatch.setattr(datasets, "COCO_FILES", files)


def test_coco_is_downloaded_whole(server, monkeypatch, scenes, tmp_path, capsys):
    serve_coco(server, monkeypatch, scenes)
    data = datasets.load("coco", tmp_path, ("train", "val", "test"))
    assert f"modelscope.cn; archives go into {tmp_path / 'coco'}" in capsys.readouterr().out
    assert sum(len(data.splits[part]) for part in ("train", "val")) == 16 and len(data.splits["test"]) == 4


def test_a_part_of_coco_is_downloaded_picture_by_picture(server, monkeypatch, scenes, tmp_path):
    serve_coco(server, monkeypatch, scenes)
    data = datasets.load("coco", tmp_path, ("train",), "ring,star", limit=3)
    there = sorted(path.name for path in (tmp_path / "coco" / "some_train2017").iterdir())
    assert there == [image["file_name"] for image in data.splits["train"].images] and len(there) == 3
    assert not (tmp_path / "coco" / "val2017").exists()
    whole = datasets.load("coco", tmp_path, ("train",))
    assert len(whole.splits["train"]) > 10, "the part is not taken for the whole"


def test_a_download_of_another_hash_is_refused_and_kept_beside(server, monkeypatch, scenes, tmp_path):
    serve_coco(server, monkeypatch, scenes)
    (server[0] / "annotations" / "a.zip").write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"could not download a.zip \(.*its MD5 is not .*\); put it into .* by hand"):
        datasets.load("coco", tmp_path)
    assert [path.name for path in (tmp_path / "coco").iterdir()] == ["a.zip.damaged"]


def test_what_comes_in_place_of_a_picture_is_refused(server, monkeypatch, scenes, tmp_path):
    serve_coco(server, monkeypatch, scenes)
    (server[0] / "train2017").unlink()
    shutil.copytree(scenes / "train", server[0] / "train2017")
    for path in (server[0] / "train2017").iterdir():
        path.write_bytes(b"<html>not found</html>")
    with pytest.raises(SystemExit, match="could not download .*png .*not the file expected"):
        datasets.load("coco", tmp_path, ("train",), "ring", limit=3)


def test_no_member_of_an_archive_leaves_its_folder(tmp_path):
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("../outside.txt", "x")
    with pytest.raises(SystemExit, match="would leave"):
        datasets.extract(archive, tmp_path / "in", hashlib.md5(archive.read_bytes()).hexdigest())
    assert not (tmp_path / "outside.txt").exists()
    with pytest.raises(SystemExit, match="damaged"):
        datasets.extract(archive, tmp_path / "in", "0" * 32)
