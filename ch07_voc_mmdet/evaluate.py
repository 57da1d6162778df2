"""Measures detections: AP as Pascal VOC and as COCO count it, precision-recall curves, and what kind of errors there are.

    python evaluate.py detections.json --data voc2007     # the figures of stored detections, without any network

No network and no framework is needed here: the input is the truth, as annotations (voc.py), and detections as a dict
  image id -> (boxes (n, 4) left, top, right, bottom; scores (n,); labels (n,))
"""

import contextlib
import io
import json
import math
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import datasets
import utils
import voc
from utils import fail, say
from voc import Annotation

Detections = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
ERRORS = ("class", "localisation", "duplicate", "background")


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, 4) and (m, 4) -> (n, m): intersection over union."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    size = (np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner).clip(0)
    both = size.prod(2)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others))
    return both / np.maximum(areas[:, None] + other_areas[None] - both, 1e-9)


def truth_of(annotation: Annotation, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> boxes (n, 4), labels (n,), and which are difficult (n,)."""
    boxes = np.array([thing.box for thing in annotation.things], float).reshape(-1, 4)
    labels = np.array([classes.index(thing.name) for thing in annotation.things], int)
    return boxes, labels, np.array([thing.difficult for thing in annotation.things], bool)


def detected(detections: Detections, image_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What was found in an image, the surest first."""
    boxes, scores, labels = detections.get(image_id, (np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)))
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order], labels[order]


# ---- average precision as VOC counts it -------------------------------------------------------------------------------


def match(boxes: np.ndarray, truth: np.ndarray, difficult: np.ndarray, threshold: float) -> np.ndarray:
    """Detections of one class in one image, the surest first -> of each: 1 right, 0 wrong, -1 not counted.

    The rule of VOC's development kit: a detection belongs to the thing it overlaps most. It is right if they overlap by
    `threshold` and nothing surer has found that thing before; on a difficult thing it counts neither way.
    """
    verdicts, taken = np.zeros(len(boxes), int), np.zeros(len(truth), bool)
    overlaps = iou(boxes, truth)
    for i in range(len(boxes) if len(truth) else 0):
        best = overlaps[i].argmax()
        if overlaps[i, best] >= threshold:
            if difficult[best]:
                verdicts[i] = -1
            elif not taken[best]:
                verdicts[i], taken[best] = 1, True
    return verdicts


def precision_recall(annotations: list[Annotation], detections: Detections, classes, label: int, threshold=0.5):
    """-> precision (n,), recall (n,), scores (n,) down the list of detections of a class, and how many things there are."""
    scores, verdicts, count = [np.zeros(0)], [np.zeros(0, int)], 0
    for annotation in annotations:
        truth, names, difficult = truth_of(annotation, classes)
        boxes, confidence, labels = detected(detections, annotation.id)
        ours, theirs = names == label, labels == label
        count += int((ours & ~difficult).sum())
        scores.append(confidence[theirs])
        verdicts.append(match(boxes[theirs], truth[ours], difficult[ours], threshold))
    scores, verdicts = np.concatenate(scores), np.concatenate(verdicts)
    order = np.argsort(-scores, kind="stable")
    order = order[verdicts[order] >= 0]
    right = np.cumsum(verdicts[order] == 1)
    return right / np.arange(1, len(right) + 1), right / max(1, count), scores[order], count


def average_precision(precision: np.ndarray, recall: np.ndarray, mode: str = "area") -> float:
    """The precision-recall curve in one number.

    11points: the mean of the best precision at recall >= 0, 0.1, ... 1 (VOC until 2009). 101points: the same in
    hundredths (COCO). area: the area under the curve made monotone (VOC since 2010).
    """
    if mode in ("11points", "101points"):
        levels = np.linspace(0, 1, int(mode.removesuffix("points")))
        return float(np.mean([precision[recall >= level].max(initial=0) for level in levels]))
    recall = np.concatenate([[0], recall, [1]])
    envelope = np.maximum.accumulate(np.concatenate([[0], precision, [0]])[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))


def voc_figures(annotations: list[Annotation], detections: Detections, classes, threshold: float = 0.5) -> dict:
    """-> mAP by area and by 11 points, and of each class: both APs, the best F1, how many things. Classes of which there is
    none in these pictures have no AP and do not enter the mean."""
    rows = {}
    for label, name in enumerate(classes):
        precision, recall, scores, count = precision_recall(annotations, detections, classes, label, threshold)
        if count:
            row = {mode: average_precision(precision, recall, mode) for mode in ("area", "11points")}
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
            best = {"f1": float(f1.max(initial=0)), "at_score": float(scores[f1.argmax()]) if len(f1) else 1.0}
            rows[name] = row | best | {"things": count, "detections": len(scores)}
    means = {mode: float(np.mean([row[mode] for row in rows.values()] or [0])) for mode in ("area", "11points")}
    return {"mAP50_area": means["area"], "mAP50_11points": means["11points"], "classes": rows}


# ---- as COCO counts it ------------------------------------------------------------------------------------------------


def coco_figures(annotations: list[Annotation], detections: Detections, classes) -> dict:
    """-> AP averaged over overlaps of 0.50, 0.55, ... 0.95; AP50, AP75; AP by size; AR. -1 where there is nothing to count.

    By pycocotools (Lin et al. 2014, "Microsoft COCO"). Its matching differs from VOC's: a detection may take the
    second-best thing if the best is taken.
    """
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100")
    rows = to_coco_results(annotations, detections)
    if not rows:
        return {name: 0.0 for name in names}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = COCO()
        truth.dataset = voc.to_coco(classes, annotations)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(names, map(float, evaluation.stats[:9]), strict=True))


def to_coco_results(annotations: list[Annotation], detections: Detections) -> list[dict]:
    """-> the rows of COCO's results format, which other tools read. Images and categories count from 1 as in to_coco()."""
    rows = []
    for i, annotation in enumerate(annotations):
        for (left, top, right, bottom), score, label in zip(*detected(detections, annotation.id), strict=True):
            box = [round(float(v), 3) for v in (left, top, right - left, bottom - top)]
            rows.append({"image_id": i + 1, "category_id": int(label) + 1, "bbox": box, "score": float(score)})
    return rows


def from_coco_results(annotations: list[Annotation], rows: list[dict], count: int | None = None) -> Detections:
    """The reverse of to_coco_results(). ValueError if there are more than `count` categories, or what is no number."""
    found = {i + 1: [] for i in range(len(annotations))}
    for index, row in enumerate(rows):
        left, top, width, height = row["bbox"]
        if not all(map(math.isfinite, (left, top, width, height, row["score"]))):
            raise ValueError(f"record {index}: a bbox or score that is not finite")
        if count and row["category_id"] not in range(1, count + 1):
            raise ValueError(f"record {index}: the category {row['category_id']} is none of 1 to {count}")
        found[row["image_id"]].append((left, top, left + width, top + height, row["score"], row["category_id"] - 1))
    arrays = {i: np.array(rows, float).reshape(-1, 6) for i, rows in found.items()}
    items = ((annotation.id, arrays[i + 1]) for i, annotation in enumerate(annotations))
    return {name: (array[:, :4], array[:, 4], array[:, 5].astype(int)) for name, array in items}


# ---- what goes wrong --------------------------------------------------------------------------------------------------


@dataclass
class Mistake:
    """A wrong detection, or a thing that nothing found (score 0). `label`: of the class that was said, or missed."""

    kind: str
    annotation: Annotation
    box: np.ndarray
    label: int
    score: float = 0.0


def error_breakdown(annotations: list[Annotation], detections: Detections, classes, score: float = 0.3) -> dict:
    """Counts the detections of at least `score`: right, or wrong in one of four ways; and the things that were missed."""
    right, wrong = find_mistakes(annotations, detections, classes, score)
    kinds = [mistake.kind for mistake in wrong]
    return {"right": right} | {kind: kinds.count(kind) for kind in (*ERRORS, "missed")}


def find_mistakes(
    annotations: list[Annotation], detections: Detections, classes, score: float
) -> tuple[int, list[Mistake]]:
    """-> the number of right detections of at least `score`, and what is wrong.

    The kinds are those of Hoiem et al. 2012 and TIDE (Bolya et al. 2020), the first that fits: duplicate, of a thing that
    a surer detection has found; class, on a thing of another class (overlap 0.5 or more); localisation, beside a thing
    of its class (0.1 to 0.5); background, none of these. What lies on a difficult thing is not counted.
    """
    total, wrong = 0, []
    for annotation in annotations:
        truth, names, difficult = truth_of(annotation, classes)
        boxes, scores, labels = (array[detected(detections, annotation.id)[1] >= score] for array in
                                 detected(detections, annotation.id))  # fmt: skip
        found = np.zeros(len(truth), bool)
        overlaps = iou(boxes, truth)
        for label in range(len(classes)):
            ours, theirs = np.flatnonzero(names == label), np.flatnonzero(labels == label)
            verdicts = match(boxes[theirs], truth[ours], difficult[ours], 0.5)
            total += int((verdicts == 1).sum())
            for i in theirs[verdicts == 0]:
                if (overlaps[i, difficult] >= 0.5).any():
                    continue
                kind = kind_of_error(overlaps[i], names == label)
                wrong.append(Mistake(kind, annotation, boxes[i], label, float(scores[i])))
            right = theirs[verdicts == 1]
            if len(right):
                found[ours[overlaps[np.ix_(right, ours)].argmax(1)]] = True
        for t in np.flatnonzero(~found & ~difficult):
            wrong.append(Mistake("missed", annotation, truth[t], int(names[t])))
    return total, wrong


def confusion(annotations: list[Annotation], detections: Detections, classes, score: float = 0.3) -> np.ndarray:
    """(K + 1, K + 1) counts: rows the truth, columns what was said; the last row is background, the last column is missed.

    The detections of at least `score`, the surest first, each take the free thing that they overlap most, by half or more,
    whatever its class. Difficult things, and what takes them, are not counted.
    """
    counts = np.zeros((len(classes) + 1,) * 2, int)
    for annotation in annotations:
        truth, names, difficult = truth_of(annotation, classes)
        boxes, scores, labels = detected(detections, annotation.id)
        free = np.ones(len(truth), bool)
        for overlaps, label in zip(iou(boxes, truth)[scores >= score], labels[scores >= score], strict=True):
            overlaps = np.where(free | difficult, overlaps, 0)
            best = int(overlaps.argmax()) if len(truth) else -1
            if best < 0 or overlaps[best] < 0.5:
                counts[-1, label] += 1
            elif not difficult[best]:
                counts[names[best], label] += 1
                free[best] = False
        np.add.at(counts, (names[free & ~difficult], -1), 1)
    return counts


def kind_of_error(overlaps: np.ndarray, same_class: np.ndarray) -> str:
    """The kind of a wrong detection, from its overlap with every thing of the picture."""
    own, other = overlaps[same_class].max(initial=0), overlaps[~same_class].max(initial=0)
    if own >= 0.5:
        return "duplicate"
    if other >= 0.5:
        return "class"
    return "localisation" if own >= 0.1 else "background"


# ---- python evaluate.py -----------------------------------------------------------------------------------------------


def figures(annotations: list[Annotation], detections: Detections, classes, score: float = 0.3) -> dict:
    """All of the above in one dict."""
    result = voc_figures(annotations, detections, classes) | {"coco": coco_figures(annotations, detections, classes)}
    errors = error_breakdown(annotations, detections, classes, score)
    result["confusion"] = confusion(annotations, detections, classes, score).tolist()
    return result | {"errors": errors | {"score": score}, "pictures": len(annotations)}


def print_figures(result: dict) -> None:
    rows = [["class", "AP area", "AP 11pt", "best F1", "at score", "things", "detections"]]
    for name, row in result["classes"].items():
        shown = [f"{row[key]:.4f}" for key in ("area", "11points", "f1")] + [f"{row['at_score']:.2f}"]
        rows.append([utils.cut(name, 24), *shown, f"{row['things']:,}", f"{row['detections']:,}"])
    utils.print_table(rows)
    say(f"VOC   mAP50 {result['mAP50_area']:.4f} (area), {result['mAP50_11points']:.4f} (11 points)")
    figures = ", ".join(f"{name} {value:.4f}" for name, value in result["coco"].items())
    say(f"COCO  {figures}")
    errors = result["errors"]
    kinds = ", ".join(f"{name} {errors[name]:,}" for name in ERRORS)
    say(
        f"from score {errors['score']:g}: {errors['right']:,} right; wrong: {kinds}; {errors['missed']:,} things missed"
    )


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("detections", help="a file of detections in COCO's results format, as test.py writes it")
    parser.add_argument("--data", required=True, help=datasets.DATA_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where data lies (default: %(default)s)")
    parser.add_argument("--part", default="test", help="train, val or test (default: %(default)s)")
    parser.add_argument("--score", type=float, default=0.3, help="for the errors (default: %(default)s)")
    args = parser.parse_args(argv)
    data = datasets.load(args.data, args.data_root)
    annotations = list(data.annotations(args.part))
    try:
        detections = from_coco_results(annotations, json.loads(utils.read_text(args.detections)), len(data.classes))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        fail(f"{args.detections}: not detections in {args.part} of {data.name} ({type(error).__name__}: {error})")
    print_figures(figures(annotations, detections, data.classes, args.score))


if __name__ == "__main__":
    utils.start(main)
