"""The three ways in which COCO writes a mask, and the ways between them (course 8-6).

bitmap     (H, W) array, 1 inside
polygons   [[x, y, x, y, ...], ...]: one outline a piece. Good for people, but a hole cannot be said
RLE        {"size": [H, W], "counts": ...}: lengths of the runs of 0, 1, 0, 1, ... down the columns.
           "counts" is a list of numbers (COCO's crowds) or a text that packs them (results, pycocotools)
"""

import math

import numpy as np
from numpy import ndarray
from pycocotools import mask as coco_mask

RIGHT, DOWN, LEFT, UP = range(4)  # directions along the edges of pixels, each a right turn from the one before
STEP = ((1, 0), (0, 1), (-1, 0), (0, -1))
NUMBER = (int, float)


def run_lengths(mask: ndarray) -> list[int]:
    """(H, W) bitmap -> the lengths of its runs down the columns, beginning with a run of 0, which may be empty."""
    pixels = mask.astype(bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels)) + 1
    lengths = np.diff([0, *changes, pixels.size]).tolist()
    return [0, *lengths] if pixels.size and pixels[0] else lengths


def from_run_lengths(counts: list[int], height: int, width: int) -> ndarray:
    """The reverse of run_lengths."""
    values = np.arange(len(counts)) % 2
    return np.repeat(values, counts).astype(np.uint8).reshape((height, width), order="F")


def to_rle(mask: ndarray) -> dict:
    """(H, W) bitmap -> RLE with its counts as a text that JSON can hold."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def fault_of(segmentation: list | dict, height: int, width: int) -> str | None:
    """What is wrong with an annotation's mask, in words, or None: a quick look at its form that draws nothing."""
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        if list(segmentation.get("size", ())) != [height, width]:
            return f"an RLE of size {segmentation.get('size')} for an image of {[height, width]}"
        if isinstance(counts, list) and (sum(counts) != height * width or min(counts) < 0):
            return "an RLE whose runs do not add up to the image"
        return None if counts and isinstance(counts, list | str | bytes) else "an RLE without counts"
    if not isinstance(segmentation, list) or not segmentation:
        return "no mask"
    for polygon in segmentation:
        if not isinstance(polygon, list) or not polygon:
            return "an empty polygon"
        if len(polygon) < 6 or len(polygon) % 2:
            return "an open polygon: less than three points, or an x without its y"
        if not all(isinstance(number, NUMBER) and math.isfinite(number) for number in polygon):
            return "a polygon with a coordinate that is no number"
    return None


def as_rle(segmentation: list | dict, height: int, width: int) -> dict:
    """Whatever a COCO annotation has -> compressed RLE. ValueError if it is none of the three forms or does not fit."""
    if fault := fault_of(segmentation, height, width):
        raise ValueError(fault)
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def to_mask(segmentation: list | dict, height: int, width: int) -> ndarray:
    """Polygons or RLE -> (H, W) uint8 bitmap."""
    return coco_mask.decode(as_rle(segmentation, height, width))


def box_of(mask: ndarray) -> list[float]:
    """(H, W) bitmap -> COCO's box around it, [x, y, width, height]; zeros if the bitmap is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0.0] * 4
    x, y = columns[0], rows[0]
    return [float(n) for n in (x, y, columns[-1] + 1 - x, rows[-1] + 1 - y)]


def to_polygons(mask: ndarray) -> list[list[float]]:
    """(H, W) bitmap -> polygons along the edges of its pixels. Nothing is lost: to_mask gives the same bitmap back.

    A hole cannot be said with polygons, so a mask with one is cut in two at the hole's left edge, as often as it takes.
    """
    loops = outlines(mask)
    hole = next((loop for loop in loops if signed_area(loop) < 0), None)
    if hole is None:
        return [[float(n) for point in loop for n in point] for loop in loops]
    cut = min(x for x, _ in hole)
    left, right = np.array(mask), np.array(mask)
    left[:, cut:], right[:, :cut] = 0, 0
    return to_polygons(left) + to_polygons(right)


def outlines(mask: ndarray) -> list[list[tuple[int, int]]]:
    """(H, W) bitmap -> the closed loops between inside and outside, as corners (x, y): clockwise around a piece,
    anticlockwise around a hole. Pixels that touch at a corner alone are two pieces."""
    exits = edges(mask)
    loops = []
    while exits:
        start = point = next(iter(exits))
        direction, loop = exits[start][0], []
        while True:
            ways = exits[point]
            # at a corner where two pieces touch, two edges go on: the right turn stays with the piece we follow
            turn = next(d for d in ((direction + 1) % 4, direction, (direction + 3) % 4) if d in ways)
            ways.remove(turn)
            if not ways:
                del exits[point]
            if turn != direction or not loop:
                loop.append(point)
            point, direction = (point[0] + STEP[turn][0], point[1] + STEP[turn][1]), turn
            if point == start and (point not in exits or (direction + 1) % 4 not in exits[point]):
                break
        loops.append(loop)
    return loops


def edges(mask: ndarray) -> dict[tuple[int, int], list[int]]:
    """(H, W) bitmap -> the directions in which its edge leaves each corner (x, y), the inside on the right-hand side."""
    inside = np.pad(mask.astype(bool), 1)
    middle = inside[1:-1, 1:-1]
    # direction: (is the neighbour across the edge outside?, where the edge begins, from the pixel's upper left corner)
    sides = {
        RIGHT: (inside[:-2, 1:-1], (0, 0)),
        DOWN: (inside[1:-1, 2:], (1, 0)),
        LEFT: (inside[2:, 1:-1], (1, 1)),
        UP: (inside[1:-1, :-2], (0, 1)),
    }
    exits: dict[tuple[int, int], list[int]] = {}
    for direction, (neighbour, (dx, dy)) in sides.items():
        for y, x in np.argwhere(middle & ~neighbour).tolist():
            exits.setdefault((x + dx, y + dy), []).append(direction)
    return exits


def signed_area(loop: list[tuple[int, int]]) -> float:
    """The area inside a loop of corners: positive if it runs clockwise (y points down), else negative."""
    x, y = np.array(loop, float).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)
