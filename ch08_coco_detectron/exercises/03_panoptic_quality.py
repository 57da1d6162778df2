import numpy as np


def panoptic_quality(found: np.ndarray, true: np.ndarray) -> float:
    """Two maps (H, W) of one category: each pixel holds the number of its segment, 0 for none -> PQ: the sum of the IoUs of the
    pairs that match, over TP + FP / 2 + FN / 2. A found and a true segment match if their IoU is above 0.5."""
    raise NotImplementedError
