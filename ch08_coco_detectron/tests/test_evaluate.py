"""The figures: pycocotools' own, and maps and qualities that equal counting by hand."""

import copy
import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
from conftest import thing
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import datasets
import evaluate
import masks

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def truth_of(rows, images=1, height=30, width=40):
    records = [{"id": i, "file_name": f"{i}.png", "height": height, "width": width} for i in range(1, images + 1)]
    return {"info": {}, "images": records, "annotations": rows, "categories": CATEGORIES}


def found(box, score=0.9, image_id=1, category_id=3, height=30, width=40):
    x, y, w, h = box
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + h, x : x + w] = 1
    row = {"image_id": image_id, "category_id": category_id, "score": score, "bbox": list(map(float, box))}
    return row | {"segmentation": masks.to_rle(mask)}


def shaken(split, categories, seed=0):
    """Predictions that are more or less right: each object moved, some lost, some doubled, some of another category."""
    rng, rows = np.random.default_rng(seed), []
    for image in split.images:
        for row in split.objects[image["id"]]:
            for _ in range(rng.integers(0, 3)):
                mask = masks.to_mask(row["segmentation"], image["height"], image["width"])
                mask = np.roll(mask, rng.integers(-4, 5, 2), (0, 1))
                category = row["category_id"] if rng.random() < 0.8 else int(rng.choice([c["id"] for c in categories]))
                about = {"image_id": image["id"], "category_id": category, "score": float(rng.random())}
                rows.append(about | {"bbox": masks.box_of(mask), "segmentation": masks.to_rle(mask)})
    return rows


@pytest.fixture
def stored(scenes, tmp_path):
    """A split, its annotations as a file, and predictions as a file."""
    data = datasets.load(str(scenes), parts=("train",))
    truth, results = data.splits["train"].truth(data.categories), shaken(data.splits["train"], data.categories)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "predictions.json").write_text(json.dumps(results))
    return tmp_path / "truth.json", tmp_path / "predictions.json"


def test_figures_equal_pycocotools_on_the_stored_files(stored, capsys):
    truth, predictions = stored
    evaluate.main([str(truth), str(predictions), "--out", str(truth.with_name("test.json"))])
    result = json.loads(truth.with_name("test.json").read_text())
    for kind, name in (("mask", "segm"), ("box", "bbox")):
        with redirect_stdout(io.StringIO()):
            coco = COCO(str(truth))
            rows = json.loads(predictions.read_text())
            rows = [{key: value for key, value in row.items() if kind == "box" or key != "bbox"} for row in rows]
            evaluation = COCOeval(coco, coco.loadRes(rows), name)
            evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
        assert [-1 if v is None else v for v in result[kind].values()] == evaluation.stats.tolist()
        assert 0.05 < result[kind]["AP"] < 0.9
        for i, category in enumerate(coco.loadCats(coco.getCatIds())):
            precision = evaluation.eval["precision"][:, :, i, 0, 2]
            expected = precision[precision > -1].mean()
            assert result["categories"][category["name"]][f"{kind}_AP"] == pytest.approx(expected, abs=1e-12)
    assert "mask_AP50" in capsys.readouterr().out


def test_perfect_predictions_score_one_in_everything(scenes):
    data = datasets.load(str(scenes), parts=("val",))
    split = data.splits["val"]
    truth = split.truth(data.categories)
    results = [
        {"image_id": row["image_id"], "category_id": row["category_id"], "score": 0.9, "bbox": row["bbox"],
         "segmentation": masks.to_rle(masks.to_mask(row["segmentation"], 128, 128))}
        for row in truth["annotations"]
    ]  # fmt: skip
    result, _ = evaluate.measure(truth, results)
    assert result["mask"]["AP"] == result["box"]["AP"] == pytest.approx(1)
    assert result["mIoU"] == result["pixel_accuracy"] == result["PQ"] == result["SQ"] == result["RQ"] == 1


def test_semantic_map_and_panoptic_quality_by_hand():
    """A 30 x 40 picture: a cat found by half, a dog found as it is, a cat that is not there, a dog not found."""
    truth = truth_of(
        [
            thing(1, box=(0, 0, 10, 10)),
            thing(2, box=(20, 0, 10, 10), category_id=7),
            thing(3, box=(0, 20, 5, 5), category_id=7),
        ]
    )
    results = [
        found((0, 0, 10, 6), 0.9), found((20, 0, 10, 10), 0.8, category_id=7), found((30, 20, 4, 4), 0.7),
        found((0, 0, 10, 10), 0.4), found((0, 0, 10, 6), 0.6, category_id=7),
    ]  # fmt: skip
    result, _ = evaluate.measure(truth, results)
    cat, dog = result["categories"]["cat"], result["categories"]["dog"]
    assert cat["IoU"] == pytest.approx(60 / 116) and dog["IoU"] == pytest.approx(100 / 125)
    background = (1200 - 225 - 16) / (1200 - 225 - 16 + 40 + 25 + 16)
    assert result["mIoU"] == pytest.approx((60 / 116 + 100 / 125 + background) / 3)
    assert result["pixel_accuracy"] == pytest.approx((1200 - 225 - 16 + 160) / 1200)
    assert cat["PQ"] == pytest.approx(0.6 / (1 + 0.5)), (
        "one found with IoU 0.6, one too many; the hidden dog is dropped"
    )
    assert dog["PQ"] == pytest.approx(1 / (1 + 0.5))
    assert result["PQ"] == pytest.approx((0.4 + 2 / 3) / 2)
    assert result["SQ"] == pytest.approx(0.8) and result["RQ"] == pytest.approx(2 / 3)


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong():
    crowd = thing(2, box=(20, 10, 20, 20), iscrowd=1)
    crowd["segmentation"] = {
        "size": [30, 40],
        "counts": masks.run_lengths(masks.to_mask(crowd["segmentation"], 30, 40)),
    }
    truth = truth_of([thing(1, box=(0, 0, 10, 10)), crowd])
    right = [found((0, 0, 10, 10))]
    for extra in ([], [found((22, 12, 6, 6), 0.8)]):
        result, _ = evaluate.measure(truth, right + extra)
        assert result["PQ"] == 1 and result["mask"]["AP"] == pytest.approx(1)
    result, _ = evaluate.measure(truth, [*right, found((10, 12, 14, 6), 0.8)])
    assert result["PQ"] < 1, "most of this one lies beside the crowd"


def test_a_pixel_of_a_crowd_that_a_thing_covers_is_the_things():
    """By hand, as the official evaluation counts: 100 pixels found, 60 in the crowd's mask, 30 of them a thing's."""
    crowd = thing(2, box=(0, 0, 6, 10), iscrowd=1)
    crowd["segmentation"] = {
        "size": [30, 40],
        "counts": masks.run_lengths(masks.to_mask(crowd["segmentation"], 30, 40)),
    }
    dog = thing(1, box=(3, 0, 3, 10), category_id=7)
    extra = found((0, 0, 10, 10))
    alone, _ = evaluate.measure(truth_of([crowd]), [extra])
    covered, _ = evaluate.measure(truth_of([crowd, dog]), [extra])
    assert alone["categories"]["cat"]["PQ"] is None, "60 of 100 in the crowd: not counted"
    assert covered["categories"]["cat"]["PQ"] == 0, "30 of 100: an error"


def test_a_crowd_of_another_category_excuses_nothing():
    crowd = thing(2, box=(0, 0, 20, 20), category_id=7, iscrowd=1)
    crowd["segmentation"] = {
        "size": [30, 40],
        "counts": masks.run_lengths(masks.to_mask(crowd["segmentation"], 30, 40)),
    }
    result, _ = evaluate.measure(truth_of([crowd]), [found((0, 0, 10, 10))])
    assert result["categories"]["cat"]["PQ"] == 0


def test_an_object_that_keeps_no_more_than_half_of_its_pixels_is_dropped():
    labels, front = {3: 1, 7: 2}, found((0, 0, 10, 10), 0.9)
    for width, kept in ((21, [0, 1, 1]), (20, [0, 1])):  # 110 of 210 pixels are left, or 100 of 200
        assert evaluate.merge([found((0, 0, width, 10), 0.6), front], labels, 30, 40)[1] == kept


def test_an_object_of_another_category_is_not_found():
    result, _ = evaluate.measure(truth_of([thing(1, box=(5, 5, 10, 8))]), [found((5, 5, 10, 8), category_id=7)])
    assert result["PQ"] == 0 and result["mask"]["AP"] == 0


def test_each_mistake_is_called_by_its_name_and_the_confusion_counts_it_once():
    truth = truth_of(
        [thing(1, box=(0, 0, 10, 10)), thing(2, box=(20, 0, 10, 10), category_id=7), thing(3, box=(0, 20, 8, 8))]
    )
    results = [
        found((0, 0, 10, 9), 0.95), found((0, 0, 10, 10), 0.9), found((20, 0, 10, 10), 0.8), found((4, 20, 8, 8), 0.7),
        found((33, 22, 5, 5), 0.6, category_id=7), found((0, 20, 8, 8), 0.4),
    ]  # fmt: skip
    wrong = [(kind, row.get("score")) for kind, _, row in evaluate.find_mistakes(truth, results)]
    expected = [
        ("duplicate", 0.9),
        ("class", 0.8),
        ("localisation", 0.7),
        ("background", 0.6),
        ("missed", None),
        ("missed", None),
    ]
    assert wrong == expected
    assert evaluate.confusion(truth, results).tolist() == [[1, 0, 1], [1, 0, 0], [2, 1, 0]]  # cat, dog, background


def test_what_lies_in_a_crowd_is_no_mistake():
    crowd = thing(2, box=(20, 10, 20, 20), iscrowd=1)
    crowd["segmentation"] = {
        "size": [30, 40],
        "counts": masks.run_lengths(masks.to_mask(crowd["segmentation"], 30, 40)),
    }
    truth, inside = truth_of([crowd]), found((22, 12, 6, 6), 0.8)
    assert evaluate.find_mistakes(truth, [inside]) == [] and not evaluate.confusion(truth, [inside]).any()


def test_small_objects_lie_in_front():
    truth = truth_of([thing(1, box=(12, 12, 4, 4)), thing(2, category_id=7, box=(10, 10, 20, 15))])
    labels = {3: 1, 7: 2}
    painted, kinds = evaluate.paint(evaluate.by_size(truth["annotations"]), labels, 30, 40)
    assert kinds[painted[13, 13]] == 1 and kinds[painted[20, 25]] == 2


def test_a_one_pixel_object_can_be_found():
    truth = truth_of([thing(1, box=(7, 9, 1, 1))])
    result, _ = evaluate.measure(truth, [found((7, 9, 1, 1))])
    assert result["mask"]["AP"] == pytest.approx(1) and result["PQ"] == 1 and result["categories"]["cat"]["IoU"] == 1


def test_five_hundred_objects_on_a_picture():
    """COCO counts the hundred surest predictions of a picture; the maps count all."""
    boxes = [(2 * (i % 25), 2 * (i // 25), 1, 1) for i in range(500)]
    truth = truth_of([thing(i, box=box) for i, box in enumerate(boxes, 1)], height=60, width=60)
    result, _ = evaluate.measure(
        truth, [found(box, 0.6 + i / 2000, height=60, width=60) for i, box in enumerate(boxes)]
    )
    assert result["mask"]["AR100"] == pytest.approx(0.2) and result["PQ"] == 1 and result["predictions"] == 500


def test_nothing_found_and_nothing_there():
    result, _ = evaluate.measure(truth_of([thing(1)]), [])
    assert result["mask"]["AP"] == 0 and result["PQ"] == 0 and result["pixel_accuracy"] == (1200 - 80) / 1200
    result, _ = evaluate.measure(truth_of([]), [found((0, 0, 4, 4))])
    assert result["mask"]["AP"] is None and result["PQ"] == 0
    result, _ = evaluate.measure(truth_of([]), [])
    assert result["PQ"] is None and result["mIoU"] == 1
    evaluate.print_table(result)


def test_predictions_of_another_data_set_are_refused(stored, tmp_path):
    truth, predictions = stored
    (tmp_path / "strange.json").write_text(json.dumps([found((0, 0, 4, 4), image_id=999)]))
    with pytest.raises(SystemExit, match="the predictions speak of image 999"):
        evaluate.main([str(truth), str(tmp_path / "strange.json")])
    with pytest.raises(SystemExit, match="not COCO results"):
        evaluate.main([str(truth), str(truth)])
    predictions.write_text(predictions.read_text()[:200])
    with pytest.raises(SystemExit, match="cut off"):
        evaluate.main([str(truth), str(predictions)])


def test_measuring_changes_neither_annotations_nor_predictions(stored):
    truth, results = (json.loads(path.read_text()) for path in stored)
    before = copy.deepcopy((truth, results))
    evaluate.measure(truth, results)
    assert (truth, results) == before
