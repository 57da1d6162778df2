from torch import Tensor


def masks(source: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Source token numbers (N, S), 0 for padding, and a target's length T -> which places attention must not look at: of the
    source (N, 1, S), of the target (1, T, T). True means: not allowed."""
    raise NotImplementedError
