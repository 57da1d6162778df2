import numpy as np


def mask_iou(found: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Found masks (D, H, W) and true ones (G, H, W), of 0 and 1 in uint8; which true ones are crowds (G,), bool -> (D, G):
    intersection over union; for a crowd, intersection over the found mask's area. 0 where both are empty."""
    raise NotImplementedError
