from torch import Tensor, nn


def cycle_loss(g_ab: nn.Module, g_ba: nn.Module, real_a: Tensor, real_b: Tensor) -> Tensor:
    """Pictures of A and of B -> how far each is, after there and back again, from itself: the sum of two mean absolute
    differences."""
    # A to B and back to A must be the picture that it was. Without this, any picture of B would do as a translation.
    back_a, back_b = g_ba(g_ab(real_a)), g_ab(g_ba(real_b))
    # Absolute differences, not squares: the best answer in doubt is then the median, not the mean, and is less blurred.
    # Nothing is detached: both generators must learn from both ways.
    return (back_a - real_a).abs().mean() + (back_b - real_b).abs().mean()
