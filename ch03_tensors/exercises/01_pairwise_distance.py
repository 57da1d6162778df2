from torch import Tensor


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Points a (N, D) and b (M, D) -> their Euclidean distances (N, M)."""
    raise NotImplementedError
