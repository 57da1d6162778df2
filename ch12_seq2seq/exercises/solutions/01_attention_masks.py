import torch
from torch import Tensor


def masks(source: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Source token numbers (N, S), 0 for padding, and a target's length T -> which places attention must not look at: of the
    source (N, 1, S), of the target (1, T, T). True means: not allowed."""
    # Padding is a matter of the source alone: every target place may look at the same source places. So the middle dimension
    # is 1 and broadcasts over the T queries.
    padding = (source == 0)[:, None, :]
    # Row i is the query at place i. It may see itself and what is before: the diagonal stays open (a row without any open place
    # would be a softmax over nothing: nan), and what lies above it is closed.
    causal = torch.ones(length, length, dtype=torch.bool, device=source.device).triu(1)[None]
    return padding, causal
