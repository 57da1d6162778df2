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
        ({"size": [4, 5], "counts": [20]}, "RLE of size"),
        ({"size": [5, 4], "counts": [19]}, "do not add up"),
        ({"size": [5, 4]}, "without counts"),
    ],
)
def test_a_mask_that_cannot_be_drawn_is_refused_in_words(segmentation, fault):
    assert fault in masks.fault_of(segmentation, 5, 4)
    with pytest.raises(ValueError, match=fault):
        masks.to_mask(segmentation, 5, 4)
