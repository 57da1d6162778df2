import numpy as np


def run_lengths(mask: np.ndarray) -> list[int]:
    """A mask (H, W) of 0 and 1 -> the lengths of its runs down the columns, 0 and 1 in turn, beginning with 0."""
    raise NotImplementedError
