from torch import Tensor


def masked_max(x: Tensor, ids: Tensor) -> Tensor:
    """Features x (N, L, C) and word numbers ids (N, L), 0 for padding -> (N, C): the largest value over a text's own words."""
    raise NotImplementedError
