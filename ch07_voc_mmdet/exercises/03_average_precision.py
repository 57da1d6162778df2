import numpy as np


def average_precision(scores: np.ndarray, right: np.ndarray, objects: int) -> float:
    """Of one class: the scores (N,) of detections, which of them are right (N,), bool, and how many true objects there are ->
    the area under the precision-recall curve, as VOC takes it since 2010."""
    raise NotImplementedError
