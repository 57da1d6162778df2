from torch import Tensor


def picked(scores: Tensor, labels: Tensor) -> Tensor:
    """Scores (N, K) and class numbers (N,) -> (N,): of each row the score of its label."""
    # gather wants an index with as many dimensions as the scores: (N, 1), one column to take in each row. scores[:, labels]
    # would take N columns of every row instead.
    return scores.gather(1, labels[:, None]).squeeze(1)
