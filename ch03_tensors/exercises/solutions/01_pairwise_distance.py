from torch import Tensor


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Points a (N, D) and b (M, D) -> their Euclidean distances (N, M)."""
    # (N, 1, D) - (1, M, D): each dimension of size 1 is repeated, as if all pairs had been written out. (a - b alone would pair
    # row i with row i, and fail if N is not M.)
    difference = a[:, None] - b[None]  # (N, M, D)
    return (difference**2).sum(2).sqrt()
