"""Files with one changed field: they are read or refused in one line, and nothing ends in a traceback."""

import copy
import json
import random

import pytest
from PIL import Image

import datasets
import evaluate
import voc

ANYTHING = [
    None, True, 0, -1, 7, 2**70, -(2**70), 1.5, 1e300, float("nan"), float("inf"), "", "0", "x", "é\ud800", "../../x", "a\0b",
    [], [1], [None], {}, {"a": 1}, [1, 2, 3, 4], [5, 5, "a", 5], [float("nan")] * 4, [-1e9, 0, 1e9, 5], KeyError,
]  # fmt: skip


def places(node, path=()):
    """Every place in a structure: the keys that lead there."""
    if path:
        yield path
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield from places(node[key], (*path, key))


def change(node, path, value):
    node = copy.deepcopy(node)
    inner = node
    for key in path[:-1]:
        inner = inner[key]
    if value is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return node


def attempt(function, *words):
    try:
        function(*words)
    except SystemExit as why:
        assert "\n" not in str(why.code)


def coco_of(own_scenes):
    annotations = list(datasets.load(str(own_scenes)).annotations("test"))[:2]
    content = voc.to_coco(("balloon", "boat", "car", "house", "tree"), annotations)
    return content | {"annotations": content["annotations"][:3], "categories": content["categories"][:5]}


@pytest.mark.parametrize("use", ["folder", "--from-coco"])
def test_a_coco_file_with_a_changed_field(own_scenes, tmp_path, use, capsys):
    content, rng = coco_of(own_scenes), random.Random(0)
    (tmp_path / "in" / "annotations").mkdir(parents=True)
    (tmp_path / "in" / "images").mkdir()
    for image in content["images"]:
        (tmp_path / "in" / "images" / image["file_name"]).write_bytes(
            (own_scenes / "JPEGImages" / image["file_name"]).read_bytes()
        )
    path = tmp_path / "in" / "annotations" / "instances_train.json"
    for place in places(content):
        for value in rng.sample(ANYTHING, 3):
            path.write_text(json.dumps(change(content, place, value)))
            if use == "folder":
                attempt(datasets.main, ["--data", str(tmp_path / "in"), "--check"])
            else:
                words = ["--images", str(tmp_path / "in" / "images"), "--out", str(tmp_path / "out")]
                attempt(datasets.main, ["--from-coco", str(path), *words])
    capsys.readouterr()


def test_detections_with_a_changed_field(few_scenes, tmp_path, capsys):
    rng = random.Random(0)
    rows = [{"image_id": i, "category_id": i, "bbox": [5, 6, 30.5, 40], "score": 0.5} for i in (1, 2, 3)]
    for place in places(rows):
        for value in rng.sample(ANYTHING, 3):
            (tmp_path / "found.json").write_text(json.dumps(change(rows, place, value)))
            attempt(evaluate.main, [str(tmp_path / "found.json"), "--data", str(few_scenes)])
    (tmp_path / "found.json").write_text("[" * 100_000)
    attempt(evaluate.main, [str(tmp_path / "found.json"), "--data", str(few_scenes)])
    capsys.readouterr()


def test_a_labelme_file_with_a_changed_field(tmp_path, capsys):
    shapes = [{"label": "cat", "points": [[20, 10], [5, 2]], "shape_type": "rectangle", "flags": {}, "group_id": 1},
              {"label": "dog", "points": [[1, 1], [9, 3], [4, 8]], "shape_type": "polygon", "flags": None}]  # fmt: skip
    content, rng = {"shapes": shapes, "imagePath": "a.png", "imageData": None}, random.Random(0)
    for i in range(3):
        Image.new("RGB", (40, 20), (9 * i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.json").write_text(json.dumps(content))
    for place in places(content):
        for value in rng.sample(ANYTHING, 8):
            (tmp_path / "0.json").write_text(json.dumps(change(content, place, value)))
            attempt(datasets.main, ["--data", str(tmp_path), "--check"])
    capsys.readouterr()
