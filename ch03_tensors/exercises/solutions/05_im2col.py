import torch.nn.functional as F
from torch import Tensor


def conv2d(x: Tensor, w: Tensor, padding: int) -> Tensor:
    """Pictures x (N, C, H, W) and kernels w (O, C, k, k) -> (N, O, H + 2 padding - k + 1, W + 2 padding - k + 1), as F.conv2d
    with stride 1."""
    (n, _, height, width), (o, _, k, _) = x.shape, w.shape
    # Each column is one place: the C * k * k values under the kernel there, in the order of w's last three dimensions. So the
    # whole convolution is one matrix product, which hardware does best. The kernel is not turned over.
    columns = F.unfold(x, k, padding=padding)  # (N, C k k, places)
    y = w.view(o, -1) @ columns  # (O, C k k) @ (N, C k k, places) -> (N, O, places)
    return y.view(n, o, height + 2 * padding - k + 1, width + 2 * padding - k + 1)
