from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Queries (N, T, D), keys (N, S, D), values (N, S, E); mask (N, S), True where a key is padding -> (N, T, E)."""
    # Divided by sqrt(D): a dot product of D independent terms has a variance of D; else softmax of long vectors is
    # nearly 0 or 1, and its gradient nearly 0.
    scores = q @ k.transpose(1, 2) / q.shape[2] ** 0.5  # (N, T, S)
    # Before softmax, so that what is left sums to 1. (N, 1, S) broadcasts: padding is the same for all queries.
    scores = scores.masked_fill(mask[:, None], -float("inf"))
    return scores.softmax(2) @ v  # over the keys: each query shares out its attention
