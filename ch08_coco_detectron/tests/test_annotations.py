"""Annotation files as tools write them, and as they break: what is read is right, and nothing ends in a traceback."""

import copy
import json
import random

import pytest
from conftest import thing

import annotations
import datasets
import evaluate
import masks
import read_coco

ANYTHING = [
    None, True, False, 0, -1, 1, 7, 2**70, -(2**70), 1.5, 1e10, 1e300, float("nan"), float("inf"), "", "0", "7", "x", "é\ud800",
    "../../x", "a\0b", [], [1], [None], [[]], [[1, 2, 3, 4, 5, 6]], [[1, 1, 1e10, 5, 3, 9]], {}, {"a": 1}, {"size": [30, 40]},
    {"size": [30, 40], "counts": "x"}, {"size": [30, 40], "counts": [1200]}, {"size": [30, 40], "counts": "\x00"}, [1, 2, 3, 4],
    [0, 0, 0, 0], [5, 5, "a", 5], [float("nan")] * 4, [-1e9, 0, 1e9, 5],
]  # fmt: skip


def some(count=4):
    """Four pictures with two objects each, one of them packed, one a crowd with run lengths."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(1, count + 1)]
    rows = [
        thing(2 * i - j, i, category_id=(3, 7)[j], box=(5 + 12 * j, 5, 10, 8))
        for i in range(1, count + 1)
        for j in (0, 1)
    ]
    mask = masks.to_mask(rows[2]["segmentation"], 30, 40)
    rows[2]["segmentation"] = masks.to_rle(mask)
    rows[3] |= {"segmentation": {"size": [30, 40], "counts": masks.run_lengths(mask)}, "iscrowd": 1}
    return {"images": images, "annotations": rows}


def places(node, path=()):
    """Every place in a structure: the keys that lead there."""
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
    """One line and an end, or a result: anything else is an error."""
    try:
        return function(*words)
    except SystemExit as why:
        assert "\n" not in str(why.code)


def test_two_thousand_changes_of_one_field_end_without_a_traceback(coco_file, capsys):
    path, rng = coco_file(**some()), random.Random(0)
    whole = json.loads(path.read_text())
    where = [place for place in places(whole) if place]
    for number in range(2000):
        place = where[number % len(where)] if number < len(where) else rng.choice(where)
        path.write_text(json.dumps(change(whole, place, rng.choice([*ANYTHING, KeyError]))))
        attempt(datasets.read_annotations, path)
        if number % 2:
            for line in attempt(datasets.check, path) or ():
                line.encode()
        elif number % 40:
            attempt(read_coco.main, [str(path)])
        else:
            attempt(read_coco.main, [str(path), "--draw", "all", "--out", str(path.parent / "out.png")])
    capsys.readouterr()


def test_predictions_with_a_changed_field_are_measured_or_refused_in_one_line(coco_file, tmp_path, capsys):
    path, rng = coco_file(**some(2)), random.Random(0)
    truth = annotations.read(path).truth()
    rows = [{key: row[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.9}
            for row in truth["annotations"]]  # fmt: skip
    where = [place for place in places(rows) if place]
    for place in where:
        (tmp_path / "found.json").write_text(json.dumps(change(rows, place, rng.choice([*ANYTHING, KeyError]))))
        attempt(evaluate.main, [str(path), str(tmp_path / "found.json")])
    capsys.readouterr()


@pytest.mark.parametrize("score", [None, float("nan"), float("inf"), "high", [0.5], True])
def test_a_score_that_is_no_number_is_refused(coco_file, tmp_path, score):
    path = coco_file(**some(2))
    row = {
        "image_id": 1,
        "category_id": 3,
        "bbox": [5, 5, 10, 8],
        "segmentation": [[5, 5, 15, 5, 15, 13]],
        "score": score,
    }
    (tmp_path / "found.json").write_text(json.dumps([row]))
    with pytest.raises(SystemExit, match="found.json: record 0: score: "):
        evaluate.main([str(path), str(tmp_path / "found.json")])


@pytest.mark.parametrize(
    "box", [[float("nan")] * 4, [5, 5, float("nan"), 8], [5, 5, float("inf"), 8], [5, None, 10, 8]]
)
def test_a_box_that_is_no_number_is_a_fault_and_no_object(coco_file, capsys, box):
    rows = some()
    rows["annotations"][0]["bbox"] = box
    path = coco_file(**rows)
    _, split = datasets.read_annotations(path)
    assert [len(split.objects[i]) for i in (1, 2)] == [1, 2]
    assert "left out 1 of 8 objects (1 x bbox); see --check" in capsys.readouterr().out
    assert len(datasets.check(path)) == 1 and datasets.check(path)[0].startswith("annotations[0]: bbox")


@pytest.mark.parametrize("ids", [range(8), [5] * 8, [None] * 8, range(8, 0, -1)])
def test_perfect_predictions_score_one_whatever_the_annotations_ids(coco_file, tmp_path, ids, capsys):
    content = some()
    for row, number in zip(content["annotations"], ids, strict=True):
        row["id"] = number
    path = coco_file(**content)
    rows = annotations.read(path).truth()["annotations"]
    found = [{key: row[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.9}
             for row in rows if not row["iscrowd"]]  # fmt: skip
    (tmp_path / "found.json").write_text(json.dumps(found))
    evaluate.main([str(path), str(tmp_path / "found.json"), "--out", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["box"]["AP"] == pytest.approx(1) and figures["mask"]["AP"] == pytest.approx(1) and figures["PQ"] == 1
    found = annotations.read_results(tmp_path / "found.json", annotations.read(path).truth())
    result, _ = evaluate.measure(json.loads(path.read_text()), found)  # as a library, with the file's own ids
    assert result["mask"]["AP"] == pytest.approx(1)


def test_truth_numbers_objects_from_one(coco_file):
    rows = annotations.read(coco_file(**some())).truth()["annotations"]
    assert [row["id"] for row in rows] == list(range(1, 9))


def test_boxes_are_clipped_on_all_four_sides():
    image = {"width": 40, "height": 30}
    assert annotations.clipped([-3, -2, 100, 90], image) == (0, 0, 40, 30)
    assert annotations.clipped([5, 6, 7, 8], image) == (5, 6, 12, 14)


def test_numbers_as_text_and_windows_paths_are_read(coco_file):
    content = some()
    for row in content["annotations"]:
        row |= {"iscrowd": "0", "image_id": str(row["image_id"]), "category_id": str(row["category_id"])}
    path = coco_file(**content)
    changed = json.loads(path.read_text())
    for image in changed["images"]:
        image["file_name"] = ".\\" + image["file_name"]
    path.write_text(json.dumps(changed), "utf-8-sig")  # with a byte-order mark, as Notepad writes it
    _, split = datasets.read_annotations(path)
    rows = [row for rows in split.objects.values() for row in rows]
    assert (
        len(rows) == 8
        and not any(row["iscrowd"] for row in rows)
        and all(split.path(i).is_file() for i in split.images)
    )


def test_crowds_alone_are_refused(coco_file):
    content = some()
    for row in content["annotations"]:
        row["iscrowd"] = 1
    with pytest.raises(SystemExit, match="all 8 objects are crowds"):
        datasets.read_annotations(coco_file(**content))


def test_a_missing_area_is_that_of_the_mask(coco_file):
    content = some()
    for row in content["annotations"][:2]:
        row["area"] = None
    del content["annotations"][4]["area"]
    rows = annotations.read(coco_file(**content)).objects
    assert [rows[i]["area"] for i in (0, 1, 4)] == [80, 80, 80]


def test_two_categories_of_one_name(coco_file):
    categories = [{"id": 0, "name": "cat"}, {"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    content = annotations.read(coco_file(**some(), categories=categories))  # Roboflow's first one has no objects
    assert sorted(content.categories) == [3, 7]
    categories[2]["name"] = "cat"
    with pytest.raises(SystemExit, match="two categories are called 'cat'"):
        annotations.read(coco_file(**some(), categories=categories))


def test_json_nested_without_end_is_refused(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(SystemExit, match="not JSON that can be read"):
        annotations.read(tmp_path / "deep.json")
