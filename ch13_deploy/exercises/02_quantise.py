import numpy as np


def quantise(x: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Float values of any shape -> int8 values of that shape, a scale > 0 and a zero point from -128 to 127, so that x is about
    scale * (int8 - zero point), and 0 is exact."""
    raise NotImplementedError
