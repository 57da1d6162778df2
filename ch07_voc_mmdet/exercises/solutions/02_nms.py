import numpy as np


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Boxes (N, 4) as left, top, right, bottom, and scores (N,), of one class -> the numbers of those that stay, the surest
    first: a box goes if its IoU with a surer one that stays is above `threshold`."""
    order = list(np.argsort(-scores, kind="stable"))
    kept = []
    while order:
        best = order.pop(0)
        kept.append(int(best))
        # Only a box that stays may remove others. One that was removed itself has no say: it may lie between two objects.
        order = [i for i in order if iou(boxes[best], boxes[i]) <= threshold]
    return kept


def iou(a: np.ndarray, b: np.ndarray) -> float:
    # Clipped at 0: of boxes that lie apart in both directions, the product of two negative numbers would be a positive area.
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
