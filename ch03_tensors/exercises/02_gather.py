from torch import Tensor


def picked(scores: Tensor, labels: Tensor) -> Tensor:
    """Scores (N, K) and class numbers (N,) -> (N,): of each row the score of its label."""
    raise NotImplementedError
