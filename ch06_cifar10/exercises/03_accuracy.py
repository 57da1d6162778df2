from collections.abc import Iterable

from torch import Tensor


def accuracy(batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Batches of logits (N, K) and labels (N,), where the last N may be smaller -> the share of right answers, 0 to 1. nan if
    there are no batches."""
    raise NotImplementedError
