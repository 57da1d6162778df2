"""formats.py: folders as tools write them are read as they are meant, and what is written can be read again."""

import json
import random

import numpy as np
import pytest
from PIL import Image
from test_annotations import ANYTHING, attempt, change, places

import datasets
import formats
import masks

ALL = ("train", "val", "test")


def picture(path, shade=0, size=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 9, 9)).save(path)
    return path


def load(folder, parts=ALL):
    return datasets.load(str(folder), parts=parts)


def objects_of(data):
    """{name of a picture: [(category, polygons)]} over all parts."""
    names = {category["id"]: category["name"] for category in data.categories}
    return {
        image["file_name"]: [(names[row["category_id"]], row["segmentation"]) for row in split.objects[image["id"]]]
        for split in data.splits.values()
        for image in split.images
    }


POLYGON, BOX = [10, 5, 20, 5, 20, 15], [15, 5, 25, 5, 25, 15, 15, 15]


@pytest.mark.parametrize("layout", ["yaml", "roboflow", "flat"])
def test_yolo(tmp_path, layout, capsys):
    text = "1 0.25 0.25 0.5 0.25 0.5 0.75\r\n0 0.5 0.5 0.25 0.5\n7 0.5 0.5 0.1 0.1\n0 nan 0.5 0.1 0.1\n0 1 2 3\n"
    places = {
        "yaml": [f"images/{part}/{i}.png" for part in ("train", "val") for i in range(4)],
        "roboflow": [f"{part}/images/{i}.png" for part in ("train", "valid") for i in range(4)],
        "flat": [f"{i}.png" for i in range(8)],
    }[layout]
    for shade, name in enumerate(places):
        label = (tmp_path / name.replace("images", "labels")).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        picture(tmp_path / name, 9 * shade)
        label.write_text(text, "utf-8-sig")
    if layout == "flat":
        (tmp_path / "classes.txt").write_bytes("cat\r\n狗\r\n".encode("gbk"))
    else:
        places = ("images/train", "images/val") if layout == "yaml" else ("../train/images", "..\\valid\\images")
        (tmp_path / "data.yaml").write_text(f"train: {places[0]}\nval: {places[1]}\nnames: [cat, 狗]\n", "utf-8")
    data = load(tmp_path)
    assert [category["name"] for category in data.categories] == ["cat", "狗"]
    assert sum(map(len, data.splits.values())) == 8
    assert all(rows == [("狗", [POLYGON]), ("cat", [BOX])] for rows in objects_of(data).values())
    said = capsys.readouterr().out
    assert "8 of 16 objects are boxes; each box is taken for the object's mask" in said
    assert "left out 24 annotations" in said and "0.txt, line 3: not a class (0 to 1)" in said


def test_labelme(tmp_path, capsys):
    shapes = [
        {"label": "狗", "points": [[10, 5], [20, 5], [20, 15]], "shape_type": "polygon", "group_id": 1},
        {"label": "狗", "points": [[1, 1], [4, 1], [4, 4]], "group_id": 1},
        {"label": "cat", "points": [[15, 5], [25, 15]], "shape_type": "rectangle", "group_id": None},
        {"label": "cat", "points": [[20, 10], [20, 15]], "shape_type": "circle"},
        {"label": "cat", "points": [[1, 1], [2, 2]], "shape_type": "line"},
        {"label": None, "points": [[1, 1]]}, 5,
    ]  # fmt: skip
    text = json.dumps({"version": "5.4", "flags": {}, "shapes": shapes, "imagePath": "..\\x\\a.png", "imageData": None})
    for part, shade in (("train", 0), ("valid", 30), ("test", 60)):
        for i in range(2):
            picture(tmp_path / part / f"{i}.png", shade + i)
            (tmp_path / part / f"{i}.json").write_text(text)
    data = load(tmp_path)
    assert [len(data.splits[part]) for part in ALL] == [2, 2, 2]
    for rows in objects_of(data).values():
        assert rows[:2] == [("狗", [POLYGON, [1, 1, 4, 1, 4, 4]]), ("cat", [BOX])] and len(rows) == 3
        circle = masks.to_mask(rows[2][1], 20, 40)
        assert circle.sum() == pytest.approx(np.pi * 25, rel=0.1) and circle[10, 20]
    faults = datasets.check(tmp_path)
    assert len(faults) == 18 and any(
        "0.json, shapes[4]: no area can be made of it (a line)" in fault for fault in faults
    )


@pytest.mark.parametrize("beside", [True, False])
def test_voc(tmp_path, beside):
    body = (
        "<object><name>汽车</name><bndbox><xmin>16</xmin><ymin>6</ymin><xmax>25</xmax><ymax>15</ymax></bndbox></object>"
    )
    text = f'<?xml version="1.0" encoding="GBK"?><annotation xmlns="http://x.org"><filename>a.png</filename>{body}{body[:40]}</annotation>'
    text = text.replace(body[:40] + "</annotation>", "<object><name>x</name></object></annotation>")
    for i in range(6):
        picture(tmp_path / ("" if beside else "JPEGImages") / f"{i}.png", i)
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / ("" if beside else "Annotations") / f"{i}.xml").write_bytes(text.encode("gbk"))
    if not beside:
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        for part, ids in (("train", "012"), ("val", "34"), ("test", "5")):
            (tmp_path / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(ids))
    data = load(tmp_path)
    assert beside or [len(data.splits[part]) for part in ALL] == [3, 2, 1]
    assert len(objects_of(data)) == 6 and all(rows == [("汽车", [BOX])] for rows in objects_of(data).values())
    assert len(datasets.check(tmp_path)) == 6


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_what_is_written_is_read_as_it_was(scenes, tmp_path, kind, capsys):
    """On all scenes of the sample: rings with holes, crowds, empty scenes."""
    before = load(scenes)
    datasets.main(["--data", str(scenes), "--to", kind, "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    after = load(tmp_path / "out")
    assert [c["name"] for c in after.categories] == [c["name"] for c in before.categories]
    for part in ALL:
        one, two = before.splits[part], after.splits[part]
        assert len(one) == len(two)
        for a in one.images:
            stem = a["file_name"].split(".")[0]
            b = next(image for image in two.images if image["file_name"].rsplit("/")[-1].split(".")[0].endswith(stem))
            rows = [row for row in one.objects[a["id"]] if kind != "yolo" or not row["iscrowd"]]
            assert one.path(a).read_bytes() == two.path(b).read_bytes() and len(rows) == len(two.objects[b["id"]])
            for first, second in zip(rows, two.objects[b["id"]], strict=True):
                assert first["bbox"] == pytest.approx(second["bbox"])
                if kind != "voc":
                    same = masks.to_mask(first["segmentation"], 128, 128) == masks.to_mask(
                        second["segmentation"], 128, 128
                    )
                    assert same.all()
    assert (
        ("3 crowds, " in said and "holes" in said) if kind == "yolo" else ("the box is kept" in said) == (kind == "voc")
    )
    with pytest.raises(SystemExit, match="this folder is not empty"):
        datasets.main(["--data", str(scenes), "--to", kind, "--out", str(tmp_path / "out")])


def test_labelme_files_with_a_changed_field_end_without_a_traceback(tmp_path, capsys):
    shapes = [{"label": "cat", "points": [[20, 10], [5, 2]], "shape_type": "rectangle", "group_id": None},
              {"label": "dog", "points": [[1, 1], [9, 3], [4, 8]], "shape_type": "polygon", "group_id": 1}]  # fmt: skip
    content, rng = {"shapes": shapes, "imagePath": "a.png", "imageData": None}, random.Random(0)
    for i in range(3):
        picture(tmp_path / f"{i}.png", 9 * i)
        (tmp_path / f"{i}.json").write_text(json.dumps(content))
    for place in list(places(content))[1:]:
        for value in rng.sample([*ANYTHING, KeyError], 8):
            (tmp_path / "0.json").write_text(json.dumps(change(content, place, value)))
            for line in attempt(datasets.check, tmp_path) or ():
                line.encode()
            attempt(load, tmp_path)
    capsys.readouterr()


def test_several_pieces_become_one_outline_that_encloses_the_same():
    pieces = [[2, 2, 9, 2, 9, 9], [12, 3, 18, 3, 18, 8, 12, 8], [25.5, 11, 33, 11, 30, 19], [1, 12, 4, 12, 4, 18]]
    for count in range(1, 5):
        one = masks.to_mask([formats.joined(pieces[:count])], 20, 40)
        assert (one == masks.to_mask(pieces[:count], 20, 40)).all()


def test_a_folder_of_nothing_known_is_refused(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("buy milk\n")
    with pytest.raises(SystemExit, match="no annotation file of a name with train, val or test"):
        load(tmp_path)
    with pytest.raises(SystemExit, match="in no format that is known"):
        datasets.main(["--check", str(tmp_path)])
