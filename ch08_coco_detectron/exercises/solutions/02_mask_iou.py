import numpy as np


def mask_iou(found: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Found masks (D, H, W) and true ones (G, H, W), of 0 and 1 in uint8; which true ones are crowds (G,), bool -> (D, G):
    intersection over union; for a crowd, intersection over the found mask's area. 0 where both are empty."""
    # uint8 holds 255 at most: a sum of products in it wraps around. As floats, the matrix product counts shared pixels.
    a, b = (masks.reshape(len(masks), -1).astype(np.float64) for masks in (found, true))
    both = a @ b.T  # (D, G)
    area, true_area = a.sum(1)[:, None], b.sum(1)[None, :]
    # A crowd is a region of many objects. A found object that lies in it is fine, however little of the crowd it covers: so
    # what counts is the share of the found mask.
    divisor = np.where(crowd[None, :], area, area + true_area - both)
    return both / np.maximum(divisor, 1)  # areas are whole numbers: 1 changes only 0 / 0
