from torch import Tensor, nn


def cycle_loss(g_ab: nn.Module, g_ba: nn.Module, real_a: Tensor, real_b: Tensor) -> Tensor:
    """Pictures of A and of B -> how far each is, after there and back again, from itself: the sum of two mean absolute
    differences."""
    raise NotImplementedError
