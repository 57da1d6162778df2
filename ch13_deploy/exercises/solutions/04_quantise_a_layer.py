import numpy as np


def linear_in_int8(
    q: np.ndarray, scale: float, zero_point: int, weight: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Inputs q (N, I) int8, which stand for scale * (q - zero point); weight (O, I) and bias (O,), float -> the weight as int8
    (O, I), its scales (O,), the products' sums as int32 (N, O), and the layer's output, float (N, O)."""
    # A scale for each output: one for all would be that of the largest row, and small rows would become 0 or a few steps.
    # Symmetric, with 0 as 0: then the weights need no zero point, which would cost one more sum for each product.
    scales = np.abs(weight).max(1) / 127
    scales = np.where(scales == 0, 1.0, scales)
    q_weight = np.clip(np.round(weight / scales[:, None]), -127, 127).astype(np.int8)
    # The products of int8 numbers reach 16,129 and their sum more: int8 would wrap around, so they are added as int32.
    sums = q.astype(np.int32) @ q_weight.astype(np.int32).T
    # sum (q - z) w = sum q w - z sum w. The last sum is known before any input comes: a device stores it as an int32 bias.
    sums -= zero_point * q_weight.sum(1, dtype=np.int32)
    return q_weight, scales, sums, scale * scales * sums + bias  # back to float only here, once an output
