import numpy as np


def run_lengths(mask: np.ndarray) -> list[int]:
    """A mask (H, W) of 0 and 1 -> the lengths of its runs down the columns, 0 and 1 in turn, beginning with 0."""
    pixels = mask.ravel(
        order="F"
    )  # down the first column, then the second: Fortran's order, which COCO took from MATLAB
    counts, value, length = [], 0, 0
    for pixel in pixels:
        if (
            pixel != value
        ):  # a run ends. If the very first pixel is 1, that is a run of no 0: its length 0 must be there,
            counts.append(length)  # or the reader would take every 0 for a 1
            value, length = pixel, 0
        length += 1
    return [*counts, length]
