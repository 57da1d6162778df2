import numpy as np


def average_precision(scores: np.ndarray, right: np.ndarray, objects: int) -> float:
    """Of one class: the scores (N,) of detections, which of them are right (N,), bool, and how many true objects there are ->
    the area under the precision-recall curve, as VOC takes it since 2010."""
    right = right[np.argsort(-scores, kind="stable")]  # the surest first: the list is cut at every place in turn
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    recall = hits / objects  # of all true objects, also those that nobody found: what is never found costs area
    # The envelope: at each recall the best precision that can be had there or further on. So read from the right.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # The area of rectangles: each new right answer makes recall wider by 1 / objects.
    return float(np.sum(np.diff(recall, prepend=0) * envelope))
