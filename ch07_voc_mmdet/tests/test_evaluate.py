"""evaluate.py: its figures equal published ones, pycocotools' and mmdet's, on detections that are kept here or drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import datasets
import evaluate
import operators
import voc
from voc import Annotation, Thing

# Seven pictures with 15 things of one class, and 24 detections: the worked example of Padilla et al. 2020, "A Survey on
# Performance Metrics for Object-Detection Algorithms" (github.com/rafaelpadilla/Object-Detection-Metrics). Left, top, width,
# height; the detections have their score (in hundredths) first. The published figures, at an overlap of 0.3, are
# AP 24.57 % by area (its results.txt; its text has 24.56, from rounded steps) and 26.84 % by 11 points.
THINGS = [
    [(25, 16, 38, 56), (129, 123, 41, 62)],
    [(123, 11, 43, 55), (38, 132, 59, 45)],
    [(16, 14, 35, 48), (123, 30, 49, 44), (99, 139, 47, 47)],
    [(53, 42, 40, 52), (154, 43, 31, 34)],
    [(59, 31, 44, 51), (48, 128, 34, 52)],
    [(36, 89, 52, 76), (62, 58, 44, 67)],
    [(28, 31, 55, 63), (58, 67, 50, 58)],
]
FOUND = [
    [(88, 5, 67, 31, 48), (70, 119, 111, 40, 67), (80, 124, 9, 49, 67)],
    [(71, 64, 111, 64, 58), (54, 26, 140, 60, 47), (74, 19, 18, 43, 35)],
    [(18, 109, 15, 77, 39), (67, 86, 63, 46, 45), (38, 160, 62, 36, 53), (91, 105, 131, 47, 47), (44, 18, 148, 40, 44)],
    [(35, 83, 28, 28, 26), (78, 28, 68, 42, 67), (45, 87, 89, 25, 39), (14, 10, 155, 60, 26)],
    [(62, 50, 38, 28, 46), (44, 95, 11, 53, 28), (95, 29, 131, 72, 29), (23, 29, 163, 72, 29)],
    [(45, 43, 48, 74, 38), (84, 17, 155, 29, 35), (43, 95, 110, 25, 42)],
    [(48, 16, 20, 101, 88), (95, 33, 116, 37, 49)],
]


def corners(left, top, width, height):
    """That evaluator's boxes reach from left to left + width, both pixels included; in continuous coordinates one more."""
    return left, top, left + width + 1, top + height + 1


def published_example():
    annotations = [
        Annotation(str(i), Path(f"{i}.jpg"), 200, 200, [Thing("object", corners(*box)) for box in boxes])
        for i, boxes in enumerate(THINGS)
    ]
    detections = {}
    for i, rows in enumerate(FOUND):
        boxes = np.array([corners(*row[1:]) for row in rows], float)
        detections[str(i)] = boxes, np.array([row[0] / 100 for row in rows]), np.zeros(len(rows), int)
    return annotations, detections


@pytest.mark.parametrize(("mode", "published"), [("area", 24.57), ("11points", 26.84)])
def test_the_published_figures_of_a_stored_example(mode, published):
    precision, recall, scores, count = evaluate.precision_recall(*published_example(), ("object",), 0, threshold=0.3)
    assert (count, len(scores)) == (15, 24) and recall[-1] == pytest.approx(7 / 15)
    assert round(100 * evaluate.average_precision(precision, recall, mode), 2) == published


@pytest.fixture(scope="module")
def noisy(scenes):
    """The truth of the 12 test scenes, and detections made from it: shaken, doubled, mistaken, missing, invented."""
    data = datasets.load(str(scenes))
    annotations, rng, detections = list(data.annotations("test")), np.random.default_rng(0), {}
    for annotation in annotations:
        boxes, labels, _ = evaluate.truth_of(annotation, data.classes)
        kept = rng.random(len(boxes)) < 0.85
        boxes, labels = boxes[kept], labels[kept]
        twice = rng.random(len(boxes)) < 0.3
        boxes = np.concatenate([boxes, boxes[twice], rng.uniform(0, 60, (3, 2)).repeat(2, 1).reshape(3, 4)])
        boxes[-3:, 2:] += 25
        boxes = boxes + rng.normal(0, 2.5, boxes.shape)
        boxes[:, [0, 2]], boxes[:, [1, 3]] = np.sort(boxes[:, [0, 2]], 1), np.sort(boxes[:, [1, 3]], 1)
        labels = np.concatenate([labels, labels[twice], rng.integers(0, 5, 3)])
        wrong = rng.random(len(labels)) < 0.1
        labels[wrong] = (labels[wrong] + 1) % 5
        detections[annotation.id] = boxes, rng.permutation(len(labels)) / 100 + rng.random() / 1000, labels
    return data.classes, annotations, detections


def test_coco_figures_equal_pycocotools_on_the_exported_files(noisy, tmp_path):
    """Truth by the converter, detections as test.py stores them, both read from files by pycocotools itself."""
    classes, annotations, detections = noisy
    (tmp_path / "truth.json").write_text(json.dumps(voc.to_coco(classes, annotations)))
    (tmp_path / "found.json").write_text(json.dumps(evaluate.to_coco_results(annotations, detections)))
    truth = COCO(str(tmp_path / "truth.json"))
    reference = COCOeval(truth, truth.loadRes(str(tmp_path / "found.json")), "bbox")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    figures = evaluate.coco_figures(annotations, detections, classes)
    assert list(figures.values()) == pytest.approx(reference.stats[:9].tolist(), abs=1e-12)
    assert 0.2 < figures["AP"] < figures["AP50"] < 0.9


def test_our_own_ap_at_101_points_equals_pycocotools(noisy):
    """The two rules of matching agree where no things overlap: one thing a picture, none of them difficult."""
    classes, annotations, detections = noisy
    single = [a for a in annotations if a.things and not a.things[0].difficult]
    single = [Annotation(a.id, a.image, a.width, a.height, a.things[:1]) for a in single]
    mine = []
    for label in range(len(classes)):
        precision, recall, _, count = evaluate.precision_recall(single, detections, classes, label)
        mine += [evaluate.average_precision(precision, recall, "101points")] if count else []
    assert len(single) > 5 and 0.1 < np.mean(mine) < 0.9
    assert np.mean(mine) == pytest.approx(evaluate.coco_figures(single, detections, classes)["AP50"], abs=1e-9)


@pytest.mark.parametrize("mode", ["area", "11points"])
def test_voc_figures_equal_those_of_mmdet(noisy, mode):
    operators.provide()
    from mmdet.evaluation import eval_map

    classes, annotations, detections = noisy
    truth, found = [], []
    for annotation in annotations:
        boxes, labels, difficult = evaluate.truth_of(annotation, classes)
        easy = {"bboxes": boxes[~difficult], "labels": labels[~difficult]}
        truth.append(easy | {"bboxes_ignore": boxes[difficult], "labels_ignore": labels[difficult]})
        boxes, scores, labels = detections[annotation.id]
        rows = np.concatenate([boxes, scores[:, None]], 1)
        found.append([rows[labels == label] for label in range(len(classes))])
    reference, rows = eval_map(found, truth, iou_thr=0.5, eval_mode=mode, logger="silent", nproc=1)
    figures = evaluate.voc_figures(annotations, detections, classes)
    assert figures[f"mAP50_{mode}"] == pytest.approx(reference, abs=1e-6)
    assert [row[mode] for row in figures["classes"].values()] == pytest.approx([row["ap"] for row in rows], abs=1e-6)


def test_the_confusion_matrix_counts_each_thing_and_each_detection_once():
    things = [voc.Thing("cat", (0, 0, 10, 10)), voc.Thing("dog", (20, 0, 30, 10)), voc.Thing("dog", (40, 0, 50, 10), True),
              voc.Thing("cat", (60, 0, 70, 10))]  # fmt: skip
    picture = voc.Annotation("1", Path("1.jpg"), 100, 50, things)
    boxes = np.array(
        [(0, 0, 10, 9), (0, 0, 10, 10), (20, 0, 30, 9), (40, 0, 50, 10), (80, 0, 90, 10), (60, 0, 70, 10)], float
    )
    scores, labels = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.2]), np.array([0, 1, 0, 0, 1, 0])
    counts = evaluate.confusion([picture], {"1": (boxes, scores, labels)}, ("cat", "dog"))
    assert counts.tolist() == [[1, 0, 1], [1, 0, 0], [0, 2, 0]]  # cat, dog, background: a second answer is background's


def test_difficult_things_count_neither_way():
    thing = Thing("cat", (10, 10, 50, 50), difficult=True)
    other = Thing("cat", (60, 60, 90, 90))
    annotations = [Annotation("a", Path("a.jpg"), 100, 100, [thing, other])]
    boxes = np.array([[10, 10, 50, 50], [11, 11, 50, 50], [60, 60, 90, 90]], float)
    detections = {"a": (boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, int))}
    figures = evaluate.figures(annotations, detections, ("cat",))
    assert figures["mAP50_area"] == figures["mAP50_11points"] == 1 and figures["coco"]["AP"] == pytest.approx(1)
    errors = figures["errors"]
    assert errors["right"] == 1 and not any(errors[kind] for kind in (*evaluate.ERRORS, "missed"))


def test_each_kind_of_error_is_called_by_its_name():
    things = [Thing("cat", (0, 0, 40, 40)), Thing("dog", (60, 60, 100, 100)), Thing("dog", (0, 60, 30, 90))]
    annotations = [Annotation("a", Path("a.jpg"), 100, 100, things)]
    rows = [
        ((0, 0, 40, 40), 0.9, 0),  # right
        ((1, 0, 40, 40), 0.8, 0),  # the same cat again
        ((60, 60, 99, 100), 0.7, 0),  # the dog, called a cat
        ((0, 20, 40, 60), 0.6, 0),  # beside the cat: overlap 1/3
        ((45, 0, 59, 15), 0.5, 1),  # nothing there
        ((60, 60, 100, 100), 0.1, 1),  # right, but below the score that is asked for
    ]
    boxes, scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    errors = evaluate.error_breakdown(annotations, {"a": (boxes.astype(float), scores, labels)}, ("cat", "dog"), 0.3)
    expected = {"right": 1, "duplicate": 1, "class": 1, "localisation": 1, "background": 1, "missed": 2}
    assert errors == expected


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_detections_that_are_no_numbers_are_refused(noisy, number, tmp_path):
    _, annotations, _ = noisy
    row = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    for bad in (row | {"score": number}, row | {"bbox": [1, 2, number, 4]}):
        with pytest.raises(ValueError, match="record 1: a bbox or score that is not finite"):
            evaluate.from_coco_results(annotations, [row, bad])


def test_what_lies_on_a_difficult_thing_of_another_class_is_no_error():
    image = Annotation("a", Path("a.jpg"), 100, 100, [Thing("cat", (10, 10, 50, 50), difficult=True)])
    found = {"a": (np.array([[10.0, 10, 50, 50], [60, 60, 90, 90]]), np.array([0.9, 0.8]), np.array([1, 1]))}
    counts = evaluate.error_breakdown([image], found, ("cat", "dog"))
    assert counts == {"right": 0, "class": 0, "localisation": 0, "duplicate": 0, "background": 1, "missed": 0}


def test_nothing_found_is_zero_and_stored_detections_come_back(noisy):
    classes, annotations, detections = noisy
    nothing = evaluate.figures(annotations, {}, classes)
    assert nothing["mAP50_area"] == nothing["coco"]["AP"] == 0 and nothing["errors"]["missed"] > 10
    rows = json.loads(json.dumps(evaluate.to_coco_results(annotations, detections)))
    again = evaluate.from_coco_results(annotations, rows)
    before, after = (evaluate.voc_figures(annotations, d, classes) for d in (detections, again))
    assert after["mAP50_area"] == pytest.approx(before["mAP50_area"], abs=1e-9)


def test_stored_detections_are_measured_from_the_command_line(noisy, scenes, tmp_path, capsys):
    classes, annotations, detections = noisy
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(evaluate.to_coco_results(annotations, detections)))
    evaluate.main([str(path), "--data", str(scenes)])
    mean = evaluate.voc_figures(annotations, detections, classes)["mAP50_area"]
    out = capsys.readouterr().out
    assert f"mAP50 {mean:.4f} (area)" in out and all(out.count(f"\n{name} ") for name in classes)
    path.write_text('[{"image_id": 99, "bbox": [0, 0, 1, 1], "score": 1, "category_id": 1}]')
    with pytest.raises(SystemExit, match=r"detections.json: not detections in test of .*scenes"):
        evaluate.main([str(path), "--data", str(scenes)])
