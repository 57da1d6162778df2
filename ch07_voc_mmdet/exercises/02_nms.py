import numpy as np


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Boxes (N, 4) as left, top, right, bottom, and scores (N,), of one class -> the numbers of those that stay, the surest
    first: a box goes if its IoU with a surer one that stays is above `threshold`."""
    raise NotImplementedError
