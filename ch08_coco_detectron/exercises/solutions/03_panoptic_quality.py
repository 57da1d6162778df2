import numpy as np


def panoptic_quality(found: np.ndarray, true: np.ndarray) -> float:
    """Two maps (H, W) of one category: each pixel holds the number of its segment, 0 for none -> PQ: the sum of the IoUs of the
    pairs that match, over TP + FP / 2 + FN / 2. A found and a true segment match if their IoU is above 0.5."""
    found_numbers, true_numbers = (np.unique(x[x > 0]) for x in (found, true))
    ious = []
    for t in true_numbers:
        for f in found_numbers:
            both = ((true == t) & (found == f)).sum()
            iou = both / ((true == t) | (found == f)).sum()
            # Above one half, no second pair with either segment is possible: each would need more than half of the same pixels.
            # So no assignment must be searched for, and no scores are needed.
            if iou > 0.5:
                ious.append(iou)
    tp = len(ious)
    fp, fn = len(found_numbers) - tp, len(true_numbers) - tp
    if tp + fp + fn == 0:
        return float("nan")  # nothing there and nothing found: the category does not count
    # = (mean IoU of the pairs) * (F1 of finding): how well segments are drawn, times how well they are found.
    return float(sum(ious) / (tp + fp / 2 + fn / 2))
