from torch import Tensor


def loss_per_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits (N, T, V) and right tokens (N, T), 0 for padding -> the mean of -log p(right token) over the tokens that are not
    padding, a scalar with a gradient."""
    # log_softmax, not softmax and then log: p may round to 0, and log 0 is minus infinity.
    right = logits.log_softmax(2).gather(2, targets[..., None]).squeeze(2)  # (N, T): log p of the right tokens
    real = targets != 0
    # Divided by the number of real tokens, not by N * T: else a batch with much padding would have a small loss, whatever
    # the network knows, and a small gradient.
    return -(right * real).sum() / real.sum()
