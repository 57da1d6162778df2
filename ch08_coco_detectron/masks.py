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


def unpack(text: str) -> list[int]:
    """Packed counts -> the lengths of the runs. ValueError if the text is none that pycocotools could have written.

    A number is written five bits a character, low bits first, from "0" on; the sixth bit says that more come. From the
    fourth number on, it is the difference to the number two before. pycocotools itself does not look where the text ends.
    """
    lengths, number, bits = [], 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or bits > 30:
            raise ValueError("packed counts with a character that does not belong there")
        number |= (code & 31) << bits
        bits += 5
        if code & 32:
            continue
        if code & 16:  # negative
            number -= 1 << bits
        lengths.append(number + lengths[-2] if len(lengths) > 2 else number)
        number = bits = 0
    if bits:
        raise ValueError("packed counts that are cut off")
    return lengths


def clean(segmentation, height: int, width: int) -> tuple[list | dict | None, str | None]:
    """Whatever stands in a file -> polygons or RLE that can be drawn, or None; and its fault, in words, or None.

    One flat list is taken as one polygon. Polygons that enclose nothing are left out; the others remain.
    """
    if isinstance(segmentation, dict):
        fault = fault_of_rle(segmentation, height, width)
        return (None, fault) if fault else ({"size": [height, width], "counts": segmentation["counts"]}, None)
    if not isinstance(segmentation, list) or not segmentation:
        return None, "no mask"
    if all(is_number(item) for item in segmentation):
        segmentation = [segmentation]
    faults = [fault_of_polygon(polygon, height, width) for polygon in segmentation]
    good = [polygon for polygon, fault in zip(segmentation, faults, strict=True) if not fault]
    return good or None, next((fault for fault in faults if fault), None)


def is_number(value) -> bool:
    return isinstance(value, NUMBER) and not isinstance(value, bool)


def fault_of_polygon(polygon, height: int, width: int) -> str | None:
    if not isinstance(polygon, list) or not polygon:
        return "an empty polygon"
    if not all(is_number(number) and math.isfinite(number) for number in polygon):
        return "a polygon with a coordinate that is no number"
    if len(polygon) < 6 or len(polygon) % 2:
        return "an open polygon: less than three points, or an x without its y"
    far = max(height, width)  # pycocotools needs memory for every pixel of an outline, wherever it runs
    if min(polygon) < -far or max(polygon) > 2 * far:
        return "a polygon that reaches far outside the image"
    return None


def fault_of_rle(rle: dict, height: int, width: int) -> str | None:
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width] or not all(isinstance(side, int) for side in size):
        return f"an RLE of another size: {str(size)[:40]} for an image of {[height, width]}"
    if isinstance(counts, str):
        try:
            counts = unpack(counts)
        except ValueError as error:
            return f"an RLE with {error}"
    if not isinstance(counts, list) or not counts:
        return "an RLE without counts"
    lengths = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts)
    if not lengths or sum(counts) != height * width:
        return "an RLE whose runs do not add up to the image"
    return None


def as_rle(segmentation: list | dict, height: int, width: int) -> dict:
    """What clean() lets through -> compressed RLE, its counts as a text that JSON can hold."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return segmentation
    rle = coco_mask.frPyObjects(segmentation, height, width)
    rle = coco_mask.merge(rle) if isinstance(segmentation, list) else rle
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


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
