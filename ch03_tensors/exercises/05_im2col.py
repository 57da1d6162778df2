from torch import Tensor


def conv2d(x: Tensor, w: Tensor, padding: int) -> Tensor:
    """Pictures x (N, C, H, W) and kernels w (O, C, k, k) -> (N, O, H + 2 padding - k + 1, W + 2 padding - k + 1), as F.conv2d
    with stride 1."""
    raise NotImplementedError
