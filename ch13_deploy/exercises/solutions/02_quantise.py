import numpy as np


def quantise(x: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Float values of any shape -> int8 values of that shape, a scale > 0 and a zero point from -128 to 127, so that x is about
    scale * (int8 - zero point), and 0 is exact."""
    # The range must hold 0: padding and relu make exact zeros, and an error there would be in every sum.
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / 255 or 1.0  # 256 values, 255 steps; of zeros alone any scale will do
    zero_point = round(-128 - low / scale)  # the whole number that stands for 0; low becomes -128
    # Rounded, not cut off: cutting off would move everything by half a step. Clipped, since int8 wraps around: 128 is -128.
    q = np.clip(np.round(x / scale) + zero_point, -128, 127).astype(np.int8)
    return q, scale, zero_point
