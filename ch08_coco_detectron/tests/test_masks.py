"""Bitmaps, polygons and RLE: the ways between them lose nothing and agree with pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

import masks


def random_masks():
    rng = np.random.default_rng(0)
    for _ in range(150):
        height, width = rng.integers(1, 13, 2)
        yield (rng.random((height, width)) < rng.choice([0.1, 0.5, 0.9])).astype(np.uint8)


def test_run_lengths_are_those_of_pycocotools():
    for mask in random_masks():
        height, width = map(int, mask.shape)
        lengths = masks.run_lengths(mask)
        assert (masks.from_run_lengths(lengths, height, width) == mask).all()
        packed = coco_mask.frPyObjects({"size": [height, width], "counts": lengths}, height, width)
        assert packed["counts"].decode() == masks.to_rle(mask)["counts"]


def test_every_way_there_and_back_gives_the_same_bitmap():
    """Polygons as drawn by pycocotools, lists of run lengths, and packed ones."""
    for mask in random_masks():
        height, width = map(int, mask.shape)
        forms = [masks.to_rle(mask), {"size": [height, width], "counts": masks.run_lengths(mask)}]
        if mask.any():
            forms.append(masks.to_polygons(mask))
        for form in forms:
            assert (masks.to_mask(form, height, width) == mask).all()
            assert coco_mask.area(masks.as_rle(form, height, width)) == mask.sum()
            box = coco_mask.toBbox(masks.as_rle(form, height, width)) if mask.any() else np.zeros(4)
            assert masks.box_of(mask) == box.tolist()


def test_a_ring_becomes_two_polygons_and_a_pixel_a_square():
    ring = np.ones((5, 5), np.uint8)
    ring[2, 2] = 0
    assert len(masks.to_polygons(ring)) == 2
    pixel = np.zeros((4, 6), np.uint8)
    pixel[2, 3] = 1
    assert masks.to_polygons(pixel) == [[3, 2, 4, 2, 4, 3, 3, 3]]
    touching = np.eye(3, dtype=np.uint8)
    assert len(masks.to_polygons(touching)) == 3


@pytest.mark.parametrize(
    ("segmentation", "fault"),
    [
        ([], "no mask"),
        (None, "no mask"),
        ([[]], "empty polygon"),
        ([[1, 1, 5, 5]], "open polygon"),
        ([[1, 1, 5, 5, 3]], "open polygon"),
        ([[1, 1, 5, 5, 3, float("nan")]], "no number"),
        ([[1, 1, 5, 5, 3, "x"]], "no number"),
        ([[1, 1, 5, 5, 3, 1e10]], "far outside"),
        ([[1, 1, 5, 5, -9, 3]], "far outside"),
        ([[True, 1, 5, 5, 3, 3]], "no number"),
        ([1, 1, 5, 5], "open polygon"),
        ("polygon", "no mask"),
        ({"size": [4, 5], "counts": [20]}, "RLE of another size"),
        ({"size": [5, 4], "counts": [-1, 21]}, "do not add up"),
        ({"size": [5, 4], "counts": [10.0, 10.0]}, "do not add up"),
        ({"size": [5, 4], "counts": ["20"]}, "do not add up"),
        ({"size": [5, 4], "counts": {"0": 20}}, "without counts"),
        ({"size": [5, 4], "counts": ""}, "without counts"),
        ({"size": [5, 4], "counts": "4"}, "do not add up"),
        ({"size": [5, 4], "counts": "d"}, "cut off"),
        ({"size": [5, 4], "counts": "oooooooooo"}, "does not belong there"),
        ({"size": [5, 4], "counts": "\u00e9"}, "does not belong there"),
        ({"size": None, "counts": "d0"}, "RLE of another size"),
        ({"size": [5, 4], "counts": [19]}, "do not add up"),
        ({"size": [5, 4]}, "without counts"),
    ],
)
def test_a_mask_that_cannot_be_drawn_is_refused_in_words(segmentation, fault):
    good, said = masks.clean(segmentation, 5, 4)
    assert good is None and fault in said


def test_packed_counts_are_unpacked_as_pycocotools_packs_them():
    for mask in random_masks():
        packed = masks.to_rle(mask)["counts"]
        assert masks.unpack(packed) == masks.run_lengths(mask)
        assert masks.clean({"size": list(mask.shape), "counts": packed}, *mask.shape)[1] is None
        for end in range(len(packed)):
            assert masks.clean({"size": list(mask.shape), "counts": packed[:end]}, *mask.shape)[0] is None
    wide = np.zeros((700, 900), np.uint8)
    wide[3:600, 5:800:7] = 1
    assert masks.unpack(masks.to_rle(wide)["counts"]) == masks.run_lengths(wide)


def test_polygons_that_enclose_nothing_are_left_out_and_a_flat_list_is_one_polygon():
    square = [1, 1, 3, 1, 3, 3, 1, 3]
    good, fault = masks.clean([[2, 2, 3, 3], square, []], 5, 4)
    assert good == [square] and "open polygon" in fault
    assert masks.clean(square, 5, 4) == ([square], None)
