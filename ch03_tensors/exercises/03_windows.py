from torch import Tensor


def windows(x: Tensor, size: int, step: int) -> Tensor:
    """A contiguous series (L,) -> its windows (n, size), one each `step` places, whole ones only, as a view: no value
    is copied."""
    raise NotImplementedError
