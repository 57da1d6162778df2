"""Large pictures, a piece at a time: small objects are found that would vanish if the whole were made small.

python test.py --tiles 640 --overlap 0.2 --weights weights/mini.safetensors large.jpg
"""

import math
from collections.abc import Callable

import numpy as np
from numpy import ndarray


def tiles_of(height: int, width: int, side: int, overlap: float) -> list[tuple[int, int, int, int]]:
    """-> left, top, right, bottom of the pieces that cover a picture; neighbours share at least `overlap` of a side."""

    def starts(length: int) -> list[int]:
        count = 1 + max(0, math.ceil((length - side) / (side * (1 - overlap))))
        return [round(i * (length - side) / max(1, count - 1)) if count > 1 else 0 for i in range(count)]

    return [(x, y, min(x + side, width), min(y + side, height)) for y in starts(height) for x in starts(width)]


def in_tiles(predict: Callable, side: int, overlap: float) -> Callable:
    """-> a function like `predict` ((H, W, 3) pictures -> dicts of boxes, scores, labels, masks) that looks at pieces too."""

    def look(pictures: list[ndarray]) -> list[dict]:
        return [look_at(predict, picture, side, overlap) for picture in pictures]

    return look


def look_at(predict: Callable, picture: ndarray, side: int, overlap: float) -> dict:
    """What is found in each tile and in the whole, each object once, the surest first."""
    height, width = picture.shape[:2]
    tiles = tiles_of(height, width, side, overlap)
    found = [predict([picture])[0]]
    cut = [np.zeros(len(found[0]["scores"]), bool)]
    for left, top, right, bottom in tiles if len(tiles) > 1 else []:
        piece = predict([np.ascontiguousarray(picture[top:bottom, left:right])])[0]
        boxes = piece["boxes"] + np.array([left, top, left, top], np.float32)
        whole = np.zeros((len(boxes), height, width), bool)
        whole[:, top:bottom, left:right] = piece["masks"]
        inner = np.array([left > 0, top > 0, right < width, bottom < height])
        touches = np.abs(boxes - np.array([left, top, right, bottom])) < 2  # an object may go on behind that edge
        found.append(piece | {"boxes": boxes, "masks": whole})
        cut.append((touches & inner).any(1))
    joined = {name: np.concatenate([part[name] for part in found]) for name in ("boxes", "scores", "labels", "masks")}
    kept = once(joined["boxes"], joined["scores"], joined["labels"], np.concatenate(cut))
    return {name: values[kept] for name, values in joined.items()}


def once(boxes: ndarray, scores: ndarray, labels: ndarray, cut: ndarray) -> list[int]:
    """-> the indices to keep: of boxes of one label that overlap by half, the surest; of a box that a tile's edge cuts (`cut`)
    and that lies mostly in another one, the other."""
    kept: list[int] = []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for i in np.lexsort((-scores, cut)):  # what is whole first
        others = [k for k in kept if labels[k] == labels[i]]
        low, high = np.maximum(boxes[i, :2], boxes[others, :2]), np.minimum(boxes[i, 2:], boxes[others, 2:])
        shared = (high - low).clip(0).prod(1)
        same = shared > 0.5 * (areas[i] + areas[others] - shared)
        if not (same | (cut[i] & (shared > 0.7 * areas[i]))).any():
            kept.append(int(i))
    return sorted(kept, key=lambda k: -scores[k])
