from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Queries (N, T, D), keys (N, S, D), values (N, S, E); mask (N, S), True where a key is padding -> (N, T, E)."""
    raise NotImplementedError
