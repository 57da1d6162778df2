"""Measures predictions against annotations: the same code for both engines, on files that anyone can measure again.

    python evaluate.py runs/mini-sample/truth.json runs/mini-sample/predictions.json

Predictions are COCO's results format, a list of {"image_id", "category_id", "bbox", "score", "segmentation" (RLE)}.
  box and mask AP     pycocotools' own figures (Lin et al. 2014): all twelve, and AP for each category
  mIoU, accuracy      of the semantic map: each pixel has the category of its surest object, or is background; the mean
                      counts the background as one class more (course 8-3)
  PQ = SQ x RQ        panoptic quality (Kirillov et al. 2019) of a simple merge: surest first, no pixel twice (course 8-2)
"""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from numpy import ndarray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import annotations
import masks
import utils
from datasets import Split, read_scene
from utils import fail, say, write_atomic

FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
RECALLS = ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")
KINDS = {"box": "bbox", "mask": "segm"}
SURE = 0.5  # predictions below this score are in no map and on no picture


def collect(predict: Callable, split: Split, categories: list[dict], batch: int = 8) -> list[dict]:
    """Predicts a whole split -> COCO results. `predict` takes a list of (H, W, 3) uint8 pictures."""
    rows, bad = [], 0
    for start in range(0, len(split), batch):
        images, pictures = [], []
        for image in split.images[start : start + batch]:
            try:
                pictures.append(read_scene(split, image))
                images.append(image)
            except OSError as error:
                bad += 1
                say(f"skipped {split.path(image)}: {error}")
        for image, found in zip(images, predict(pictures) if pictures else [], strict=True):
            rows += to_results(found, image["id"], categories)
    if bad:
        say(f"skipped {bad} of {len(split)} pictures")
    return rows


def to_results(found: dict, image_id: int, categories: list[dict]) -> list[dict]:
    """What an engine found on one picture (boxes (n, 4) as corners, scores, labels from 0, masks (n, H, W)) -> COCO results."""
    rows = []
    for box, score, label, mask in zip(found["boxes"], found["scores"], found["labels"], found["masks"], strict=True):
        x1, y1, x2, y2 = (round(float(n), 2) for n in box)
        row = {"image_id": image_id, "category_id": categories[int(label)]["id"], "score": round(float(score), 5)}
        rows.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": masks.to_rle(mask)})
    return rows


# ---- average precision ------------------------------------------------------------------------------------------------


def coco_api(content: dict) -> COCO:
    with redirect_stdout(io.StringIO()):  # pycocotools talks
        api = COCO()
        api.dataset = content
        api.createIndex()
    return api


def coco_eval(truth: dict, results: list[dict], kind: str) -> COCOeval:
    """pycocotools' evaluation of "box" or "mask", finished."""
    rows = [
        row | {"id": number} for number, row in enumerate(truth["annotations"], 1)
    ]  # it takes the id 0 for `no match`
    truth = truth | {"annotations": rows}  # copies, as pycocotools writes into them
    api, rows = coco_api(truth), [dict(row) for row in results]
    if kind == "mask":  # with a box there, pycocotools would sort masks into small and large by the area of their boxes
        rows = [{key: value for key, value in row.items() if key != "bbox"} for row in rows]
    with redirect_stdout(io.StringIO()):
        found = api.loadRes(rows) if rows else coco_api(truth | {"annotations": []})
        evaluation = COCOeval(api, found, KINDS[kind])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def known(value: float) -> float | None:
    """pycocotools' -1 means that there was nothing to find."""
    return None if value <= -1 else float(value)


def average_precision(evaluation: COCOeval) -> dict:
    return dict(zip(FIGURES + RECALLS, map(known, evaluation.stats), strict=True))


def of_categories(evaluation: COCOeval, categories: list[dict]) -> dict[str, tuple]:
    """-> (AP, AP50) of each category, in all sizes and with up to 100 objects a picture."""
    precision, rows = evaluation.eval["precision"], {}  # IoU threshold, recall, category, size, objects a picture
    for category in categories:
        curve = precision[:, :, evaluation.params.catIds.index(category["id"]), 0, 2]
        rows[category["name"]] = tuple(known(c[c > -1].mean()) if (c > -1).any() else None for c in (curve, curve[:1]))
    return rows


def validate(predict: Callable, split: Split, categories: list[dict]) -> dict:
    """-> the validation figures of an epoch's row."""
    return validation_row(collect(predict, split, categories), split, categories)


def validation_row(results: list[dict], split: Split, categories: list[dict]) -> dict:
    truth = split.truth(categories)
    mask, box = (average_precision(coco_eval(truth, results, kind)) for kind in ("mask", "box"))
    named = {"val_mask_ap": mask["AP"], "val_mask_ap50": mask["AP50"], "val_box_ap": box["AP"]}
    return {name: value or 0.0 for name, value in named.items()}


# ---- maps of a picture ------------------------------------------------------------------------------------------------


def paint(rows: list[dict], labels: dict[int, int], height: int, width: int) -> tuple[ndarray, list[int]]:
    """Objects, the last one on top -> map (H, W) of 1 + an object's index, 0 for none; and the labels, [0] for none."""
    painted = np.zeros((height, width), np.int64)
    for i, row in enumerate(rows, 1):
        painted[masks.to_mask(row["segmentation"], height, width) > 0] = i
    return painted, [0] + [labels[row["category_id"]] for row in rows]


def by_size(rows: list[dict]) -> list[dict]:
    """Annotated objects from large to small: where two overlap, the smaller one is taken to be in front."""
    return sorted(rows, key=lambda row: -row["area"])


def merge(rows: list[dict], labels: dict[int, int], height: int, width: int) -> tuple[ndarray, list[int]]:
    """Predicted objects -> a map like paint's. The surest one takes its pixels first; an object that would keep no more
    than half of its own is dropped (Kirillov et al. 2019, section 7)."""
    painted, kept = np.zeros((height, width), np.int64), [0]
    for row in sorted(rows, key=lambda row: -row["score"]):
        mask = masks.to_mask(row["segmentation"], height, width) > 0
        free = mask & (painted == 0)
        if 2 * free.sum() > mask.sum():
            painted[free] = len(kept)
            kept.append(labels[row["category_id"]])
    return painted, kept


def iou_table(confusion: ndarray) -> tuple[list, float, float]:
    """(K + 1, K + 1) pixel counts, rows the truth -> IoU of each class (None: not there), their mean, pixel accuracy."""
    both, either = confusion.diagonal(), confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    ious = [float(b / e) if e else None for b, e in zip(both, either, strict=True)]
    return ious, float(np.mean([iou for iou in ious if iou is not None])), float(both.sum() / confusion.sum())


def match(truth: tuple, found: tuple, crowds: int, counts: ndarray) -> None:
    """Adds one picture to `counts` (K + 1, 4): true positives, false positives, false negatives, sum of the IoUs.

    A found and a true object of one category match if their IoU is above 0.5; then no other can, as neither map counts a
    pixel twice. The first `crowds` true objects are crowds: what lies mostly in those of its category is neither right nor
    wrong. A pixel that a thing covers is no longer the crowd's, and of several crowds of a category the last counts (the rules
    of panopticapi, the official evaluation).
    """
    (true_map, true_labels), (found_map, found_labels) = truth, found
    true_area, found_area = (np.bincount(m.ravel(), minlength=len(k)) for m, k in (truth, found))
    shared = np.bincount((true_map * len(found_labels) + found_map).ravel(), minlength=true_area.size * found_area.size)
    shared = shared.reshape(true_area.size, found_area.size)
    matched_true, matched_found = set(), set()
    crowd_of = {true_labels[t]: t for t in range(1, 1 + crowds)}
    for t, f in np.argwhere(shared[1 + crowds :, 1:]) + (1 + crowds, 1):
        iou = shared[t, f] / (true_area[t] + found_area[f] - shared[t, f])
        if true_labels[t] == found_labels[f] and iou > 0.5:
            counts[true_labels[t]] += (1, 0, 0, iou)
            matched_true.add(t)
            matched_found.add(f)
    for t in range(1 + crowds, len(true_labels)):
        if t not in matched_true and true_area[t]:  # one that others hide completely cannot be found
            counts[true_labels[t], 2] += 1
    for f in range(1, len(found_labels)):
        if f not in matched_found:
            crowd = crowd_of.get(found_labels[f])
            in_crowd = shared[crowd, f] if crowd else 0
            counts[found_labels[f], 1] += 2 * in_crowd <= found_area[f]


def quality(counts: ndarray) -> dict:
    """(K + 1, 4) of match -> PQ of each category (None: neither there nor found), and the means of PQ, SQ and RQ."""
    tp, fp, fn, iou = counts[1:].T
    seen = tp + fp + fn > 0
    sq, rq = iou / np.maximum(tp, 1), tp / np.maximum(tp + fp / 2 + fn / 2, 0.5)
    means = {"PQ": sq * rq, "SQ": sq, "RQ": rq}
    means = {name: float(values[seen].mean()) if seen.any() else None for name, values in means.items()}
    return means | {"categories": [float(p) if s else None for p, s in zip(sq * rq, seen, strict=True)]}


def maps(truth: dict, results: list[dict], sure: float = SURE) -> tuple[dict, dict]:
    """-> figures of the semantic map, and of the panoptic merge."""
    labels = {category["id"]: i for i, category in enumerate(truth["categories"], 1)}
    confusion = np.zeros((len(labels) + 1,) * 2, np.int64)
    counts = np.zeros((len(labels) + 1, 4))
    true_rows: dict = {image["id"]: [] for image in truth["images"]}
    found_rows: dict = {image["id"]: [] for image in truth["images"]}
    for row in truth["annotations"]:
        true_rows[row["image_id"]].append(row)
    for row in results:
        if row["score"] >= sure and row["category_id"] in labels:
            found_rows[row["image_id"]].append(row)
    for image in truth["images"]:
        h, w, rows, found = image["height"], image["width"], true_rows[image["id"]], found_rows[image["id"]]
        crowd_rows = [row for row in rows if row.get("iscrowd")]
        things = by_size([row for row in rows if not row.get("iscrowd")])
        true_map, true_labels = truth_map = paint(crowd_rows + things, labels, h, w)
        found_map, found_labels = paint(sorted(found, key=lambda row: row["score"]), labels, h, w)
        pairs = np.array(true_labels)[true_map] * len(confusion) + np.array(found_labels)[found_map]
        confusion += np.bincount(pairs.ravel(), minlength=confusion.size).reshape(confusion.shape)
        match(truth_map, merge(found, labels, h, w), len(crowd_rows), counts)
    ious, mean, accuracy = iou_table(confusion)
    return {"mIoU": mean, "pixel_accuracy": accuracy, "background": ious[0], "categories": ious[1:]}, quality(counts)


# ---- what goes wrong --------------------------------------------------------------------------------------------------

ERRORS = ("class", "localisation", "duplicate", "background", "missed")


def overlaps_of(rows: list[dict], others: list[dict], image: dict) -> ndarray:
    """(n, m) IoU of masks; with a crowd, the share of the object that lies in it."""
    if not rows or not others:
        return np.zeros((len(rows), len(others)))
    first, second = (
        [masks.as_rle(r["segmentation"], image["height"], image["width"]) for r in part] for part in (rows, others)
    )
    return coco_mask.iou(first, second, [bool(row.get("iscrowd")) for row in others])


def by_picture(truth: dict, results: list[dict], sure: float) -> list[tuple[dict, list[dict], list[dict], ndarray]]:
    """-> of each picture: its record, its objects, the predictions from `sure` up, the surest first, and their IoUs."""
    known = {category["id"] for category in truth["categories"]}
    true_rows, found_rows = ({image["id"]: [] for image in truth["images"]} for _ in range(2))
    for row in truth["annotations"]:
        true_rows[row["image_id"]].append(row)
    for row in sorted(results, key=lambda row: -row["score"]):
        if row["score"] >= sure and row["category_id"] in known:
            found_rows[row["image_id"]].append(row)
    parts = ((image, true_rows[image["id"]], found_rows[image["id"]]) for image in truth["images"])
    return [(image, rows, found, overlaps_of(found, rows, image)) for image, rows, found in parts]


def find_mistakes(truth: dict, results: list[dict], sure: float = SURE) -> list[tuple[str, dict, dict]]:
    """-> (kind, image, row) of each wrong prediction and each object that nothing found.

    The kinds are those of Hoiem et al. 2012 and TIDE (Bolya et al. 2020), the first that fits: duplicate, of an object that a
    surer one has found; class, on an object of another category (mask IoU 0.5 or more); localisation, beside an object of
    its category (0.1 to 0.5); background. What lies in a crowd is not counted.
    """
    wrong = []
    for image, rows, found, overlaps in by_picture(truth, results, sure):
        crowd = np.array([bool(row.get("iscrowd")) for row in rows], bool)
        kinds, taken = np.array([row["category_id"] for row in rows], int), np.zeros(len(rows), bool)
        for row, shares in zip(found, overlaps, strict=True):
            own, other = kinds == row["category_id"], kinds != row["category_id"]
            free = np.where(own & ~crowd & ~taken, shares, 0)
            if free.max(initial=0) >= 0.5:
                taken[free.argmax()] = True
            elif shares[crowd].max(initial=0) < 0.5:
                best, others = shares[own & ~crowd].max(initial=0), shares[other & ~crowd].max(initial=0)
                wrong.append((kind_of_error(best, others), image, row))
        wrong += [("missed", image, rows[t]) for t in np.flatnonzero(~taken & ~crowd)]
    return wrong


def kind_of_error(own: float, other: float) -> str:
    """From the best IoU with an object of its category, and of any other."""
    if own >= 0.5:
        return "duplicate"
    if other >= 0.5:
        return "class"
    return "localisation" if own >= 0.1 else "background"


def confusion(truth: dict, results: list[dict], sure: float = SURE) -> ndarray:
    """(K + 1, K + 1) counts: rows the truth, columns what was said; the last row is background, the last column is missed.

    The predictions from `sure` up, the surest first, each take the free object that they overlap most, by half or more,
    whatever its category. Crowds, and what lies in them, are not counted.
    """
    labels = {category["id"]: i for i, category in enumerate(truth["categories"])}
    counts = np.zeros((len(labels) + 1,) * 2, int)
    for _, rows, found, overlaps in by_picture(truth, results, sure):
        crowd = np.array([bool(row.get("iscrowd")) for row in rows], bool)
        kinds, free = np.array([labels[row["category_id"]] for row in rows], int), ~crowd
        for row, shares in zip(found, overlaps, strict=True):
            shares = np.where(free | crowd, shares, 0)
            best = int(shares.argmax()) if len(rows) else -1
            if best < 0 or shares[best] < 0.5:
                counts[-1, labels[row["category_id"]]] += 1
            elif not crowd[best]:
                counts[kinds[best], labels[row["category_id"]]] += 1
                free[best] = False
        np.add.at(counts, (kinds[free], -1), 1)
    return counts


# ---- all of it --------------------------------------------------------------------------------------------------------


def measure(truth: dict, results: list[dict], sure: float = SURE) -> tuple[dict, COCOeval]:
    """-> every figure, and pycocotools' evaluation of the masks (for its precision-recall curves)."""
    images = {image["id"] for image in truth["images"]}
    if strange := next((row["image_id"] for row in results if row["image_id"] not in images), None):
        fail(f"the predictions speak of image {strange}, which the annotations do not have")
    box, mask = coco_eval(truth, results, "box"), coco_eval(truth, results, "mask")
    semantic, panoptic = maps(truth, results, sure)
    result = {"mask": average_precision(mask), "box": average_precision(box), "score_threshold": sure}
    result |= {name: semantic[name] for name in ("mIoU", "pixel_accuracy")}
    result |= {name: panoptic[name] for name in ("PQ", "SQ", "RQ")}
    result |= {"pictures": len(images), "objects": len(truth["annotations"]), "predictions": len(results)}
    mask_ap, box_ap = (of_categories(evaluation, truth["categories"]) for evaluation in (mask, box))
    rows = {}
    for i, category in enumerate(truth["categories"]):
        name = category["name"]
        rows[name] = {"objects": sum(row["category_id"] == category["id"] for row in truth["annotations"])}
        rows[name] |= {"mask_AP": mask_ap[name][0], "mask_AP50": mask_ap[name][1], "box_AP": box_ap[name][0]}
        rows[name] |= {"IoU": semantic["categories"][i], "PQ": panoptic["categories"][i]}
    kinds = [kind for kind, _, _ in find_mistakes(truth, results, sure)]
    result |= {"errors": {kind: kinds.count(kind) for kind in ERRORS}}
    return result | {"categories": rows, "confusion": confusion(truth, results, sure).tolist()}, mask


def show(value: float | None, width: int = 9) -> str:
    return f"{'-' if value is None else format(value, '.4f'):>{width}}"


def print_table(result: dict) -> None:
    """A row a category that is there or was found, then the figures of the whole."""
    columns = ("mask_AP", "mask_AP50", "box_AP", "IoU", "PQ")
    rows = [["category", "objects", *columns]]
    for name, row in result["categories"].items():
        if row["objects"] or row["IoU"] is not None:
            rows.append([utils.cut(name, 24), f"{row['objects']:,}", *(show(row[column], 0) for column in columns)])
    utils.print_table(rows)
    for kind in KINDS:
        print(f"{kind:<5}" + " ".join(f"{name} {show(result[kind][name], 0)}" for name in FIGURES))
    figures = "  ".join(f"{name} {show(result[name], 0)}" for name in ("mIoU", "pixel_accuracy", "PQ", "SQ", "RQ"))
    say(f"{figures}  (mIoU: with the background)")
    errors = ", ".join(f"{kind} {result['errors'][kind]:,}" for kind in ERRORS)
    say(f"wrong, from score {result['score_threshold']:g}: {errors}")


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("truth", help="annotations, in COCO's format")
    parser.add_argument("results", help="predictions, in COCO's results format")
    parser.add_argument("--score", type=float, default=SURE, help="least score of an object in the maps (%(default)s)")
    parser.add_argument("--out", metavar="FILE", help="write the figures there as JSON")
    args = parser.parse_args(argv)
    content = annotations.read(Path(args.truth))
    if words := content.left_out():
        say(f"{args.truth}: {words}")
    truth = content.truth()
    results = annotations.read_results(Path(args.results), truth)
    result, _ = measure(truth, results, args.score)
    print_table(result)
    if args.out:
        write_atomic(args.out, json.dumps(result, indent=1))


if __name__ == "__main__":
    utils.start(main)
