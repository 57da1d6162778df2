from torch import Tensor


def loss_per_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits (N, T, V) and right tokens (N, T), 0 for padding -> the mean of -log p(right token) over the tokens that are not
    padding, a scalar with a gradient."""
    raise NotImplementedError
