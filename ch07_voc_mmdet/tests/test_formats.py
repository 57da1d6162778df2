"""formats.py: folders as tools write them are read as they are meant, and what is written can be read again."""

import json
import shutil

import pytest
from PIL import Image

import datasets
import formats
import voc
from voc import Thing


def picture(path, shade=0, size=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 9, 9)).save(path)
    return path


def things_of(data):
    """{ID: things} over all parts."""
    return {a.id: a.things for part in data.parts for a in data.annotations(part)}


def pictures_with(top, text, names, suffix=".txt", place=lambda path: path):
    for shade, name in enumerate(names):
        path = place(picture(top / name, 9 * shade)).with_suffix(suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8-sig")  # with a byte-order mark, as Windows writes it


YAMLS = {
    "list": "names: [cat, 狗]\ntrain: images/train\nval: images/val\n",
    "dict": "path: ../datasets/x\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: 狗\n",
    "roboflow": "train: ../images/train\nval: ../images/val\nnc: 2\nnames: ['cat', '狗']\n",
    "windows": "train: C:\\\\data\\\\images\\\\train\nval: C:\\\\data\\\\images\\\\val\nnames: [cat, 狗]\n",
}


@pytest.mark.parametrize("kind", YAMLS)
def test_yolo_with_its_yaml(tmp_path, kind, capsys):
    text = "1 0.5 0.5 0.25 0.5\n0 0.25 0.25 0.5 0.25 0.5 0.75\n\n7 0.5 0.5 0.1 0.1\n0 nan 0.5 0.1 0.1\n0 0.5\n"
    names = [f"images/{part}/{i}.png" for part, count in (("train", 4), ("val", 2)) for i in range(count)]
    pictures_with(tmp_path, text, names, place=formats.label_file_of)
    (tmp_path / "images" / "train" / "3.png").rename(tmp_path / "images" / "train" / "empty.png")  # no labels to it
    (tmp_path / "data.yaml").write_text(YAMLS[kind].replace("\\\\", "\\"), "utf-8")
    data = datasets.load(str(tmp_path))
    assert data.classes == ("cat", "狗") and [len(data.parts[part]) for part in ("train", "val")] == [4, 2]
    found = things_of(data)
    assert found["images/train/0"] == [Thing("狗", (15, 5, 25, 15)), Thing("cat", (10, 5, 20, 15))]
    assert found["images/train/empty"] == [] and len(data.faults) == 5 * 3
    assert "left out 15 annotations that cannot be used, the first being" in capsys.readouterr().out
    assert any("0.txt, line 4: not a class (0 to 1) and a box: 7 0.5" in fault for fault in datasets.check(data))


FLAT, BY_PART = ["a.jpg", "b.jpg", "c.JPG"], ["train/images/a.jpg", "valid/images/b.jpg", "test/images/c.jpg"]


@pytest.mark.parametrize(("names", "place"), [(FLAT, lambda path: path), (BY_PART, formats.label_file_of)])
def test_yolo_as_labelimg_and_roboflow_lay_it_out(tmp_path, names, place):
    pictures_with(tmp_path, "0 0.5 0.5 1 1\n", names, place=place)
    (tmp_path / "classes.txt").write_text("cat\r\n")
    data = datasets.load(str(tmp_path))
    assert sorted(data.parts) == ["test", "train", "val"] and all(len(items) == 1 for items in data.parts.values())
    found = things_of(data)
    assert all(things == [Thing("cat", (0, 0, 40, 20))] for things in found.values())
    assert set(found) == {name.rsplit(".")[0] for name in names}
    if names == BY_PART:
        assert [data.part(part)[0][1] for part in datasets.PARTS] == [name.rsplit(".")[0] for name in names]


def labelme(**changes):
    shapes = [
        {"label": "cat", "points": [[20, 10], [5, 2]], "shape_type": "rectangle", "flags": {}},
        {"label": "狗", "points": [[1, 1], [9, 3], [4, 8]], "shape_type": "polygon", "flags": {"difficult": True}},
        {"label": "狗", "points": [[10, 10], [13, 14]], "shape_type": "circle"},
        {"label": "cat", "points": [[10, 10]], "shape_type": "point"},
        {"label": None, "points": None},
    ]
    return json.dumps(
        {"version": "5.0", "shapes": shapes, "imagePath": "..\\\\x\\\\a.png", "imageData": None} | changes
    )


def test_labelme(tmp_path):
    pictures_with(tmp_path, labelme(), [f"{i}.png" for i in range(6)], ".json")
    (tmp_path / "5.png").rename(tmp_path / "a.png")  # named by imagePath alone
    (tmp_path / "other.json").write_text("[1]")
    data = datasets.load(str(tmp_path))
    assert data.classes == ("cat", "狗") and sum(map(len, data.parts.values())) == 6 and "test" in data.parts
    expected = [Thing("cat", (5, 2, 20, 10)), Thing("狗", (1, 1, 9, 8), True), Thing("狗", (5, 5, 15, 15))]
    assert all(things == expected for things in things_of(data).values()) and "a" in things_of(data)
    assert len(data.faults) == 12 and "shapes[3]: no box can be made of it (a point)" in data.faults[0]


def test_coco_as_roboflow_writes_it(tmp_path):
    for number, part in enumerate(("train", "valid", "test")):
        images = [{"id": i, "file_name": f".\\\\{i}.png", "width": 1, "height": 1} for i in range(3)]
        for image in images[:2]:
            picture(tmp_path / part / f"{image['id']}.png", 30 * number + image["id"])
        rows = [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [2, 3, 4, 5], "iscrowd": 0, "segmentation": []}]
        rows += [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, None, 4, 5]},
            {"id": 2, "image_id": 1, "category_id": 9},
        ]
        kinds = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "pets"}]
        text = json.dumps({"images": images, "annotations": rows, "categories": kinds}).replace("\\\\\\\\", "\\\\")
        (tmp_path / part / "_annotations.coco.json").write_text(text, "utf-8-sig")
    data = datasets.load(str(tmp_path))
    assert data.classes == ("cat",) and [len(data.parts[part]) for part in datasets.PARTS] == [2, 2, 2]
    assert things_of(data)["train/0"] == [Thing("cat", (2, 3, 6, 8))] and len(data.faults) == 9


def test_xml_beside_the_pictures(own_scenes, tmp_path):
    flat = tmp_path / "flat"
    shutil.copytree(own_scenes / "JPEGImages", flat)
    for path in (own_scenes / "Annotations").iterdir():
        shutil.copy(path, flat)
    (flat / "broken.xml").write_text("<annotation><object>")
    picture(flat / "broken.jpg")
    data = datasets.load(str(flat))
    before = things_of(datasets.load(str(own_scenes)))
    after = things_of(data)
    assert {name: after[name] for name in before} == before and "not well-formed XML" in data.faults[0]


@pytest.mark.parametrize("kind", ["voc", "coco", "yolo"])
def test_what_is_written_is_read_as_it_was(own_scenes, tmp_path, kind, capsys):
    before = datasets.load(str(own_scenes))
    datasets.main(["--data", str(own_scenes), "--to", kind, "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    after = datasets.load(str(tmp_path / "out"))
    assert after.classes == before.classes and after.faults == () and datasets.check(after) == []
    for part in datasets.PARTS:
        for one, two in zip(before.annotations(part), after.annotations(part), strict=True):
            assert one.image.read_bytes() == two.image.read_bytes() and one.id == two.id.rsplit("/", 1)[-1]
            kept = one.things if kind != "yolo" else [Thing(thing.name, thing.box) for thing in one.things]
            assert two.things == kept
    assert ("what yolo cannot hold is lost: " in said and "things that are truncated" in said) == (kind == "yolo")
    with pytest.raises(SystemExit, match="this folder is not empty"):
        datasets.main(["--data", str(own_scenes), "--to", kind, "--out", str(tmp_path / "out")])


def test_boxes_survive_the_way_through_all_formats(own_scenes, tmp_path):
    odd = [Thing("car", (0.5, 1.25, 33.375, 77.0625)), Thing("boat", (1 / 3, 2 / 3, 100, 101))]
    voc.write_picture(own_scenes, "odd", Image.new("RGB", (157, 113)), odd)
    voc.write_list(own_scenes, "train", ["odd", "train0001"])
    source = own_scenes
    for kind in ("coco", "yolo", "voc"):
        datasets.main(["--data", str(source), "--to", kind, "--out", str(tmp_path / kind)])
        source = tmp_path / kind
    found = next(
        annotation for annotation in datasets.load(str(source)).annotations("train") if annotation.id.endswith("odd")
    )
    for before, after in zip(odd, found.things, strict=True):
        assert before.name == after.name and after.box == pytest.approx(before.box, abs=1e-3)


def test_a_folder_of_nothing_known_is_refused(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("buy milk\n")
    with pytest.raises(SystemExit, match="no folder Annotations/ in it"):
        datasets.load(str(tmp_path))


def test_a_part_of_the_classes(own_scenes):
    whole = datasets.load(str(own_scenes))
    part = whole.of(["tree", "car"])
    assert part.classes == ("tree", "car")
    for name in datasets.PARTS:
        before = {a.id: [thing for thing in a.things if thing.name in ("tree", "car")] for a in whole.annotations(name)}
        after = {a.id: a.things for a in part.annotations(name, training=name == "train")}
        empty = {a.id for a in whole.annotations(name) if not a.things}
        kept = {key for key, things in before.items() if things or key in empty or name != "train"}
        assert after == {key: before[key] for key in before if key in kept}
    assert len(list(part.annotations("train+val+test"))) == 12, "what is tested is all there is"
    with pytest.raises(SystemExit, match="has no class cow; it has: balloon, boat, car"):
        datasets.load(str(own_scenes), classes=["car", "cow"])
