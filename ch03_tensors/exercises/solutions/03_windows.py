from torch import Tensor


def windows(x: Tensor, size: int, step: int) -> Tensor:
    """A contiguous series (L,) -> its windows (n, size), one each `step` places, whole ones only, as a view: no value
    is copied."""
    # A tensor is a piece of memory and a rule: element [i, j] lies at i * stride 0 + j * stride 1. Windows overlap; the same
    # memory is read several times, and nothing is copied.
    count = (len(x) - size) // step + 1  # the last one begins at (count - 1) * step, and must end within x
    return x.as_strided((count, size), (step, 1))
