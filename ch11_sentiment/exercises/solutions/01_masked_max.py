import torch
from torch import Tensor


def masked_max(x: Tensor, ids: Tensor) -> Tensor:
    """Features x (N, L, C) and word numbers ids (N, L), 0 for padding -> (N, C): the largest value over a text's own words."""
    # Padding must never win, whatever the values are. Zero would win wherever all of a text's own values are negative; minus
    # infinity never does. [..., None] makes the mask (N, L, 1), so that it counts for all C channels.
    return x.masked_fill((ids == 0)[..., None], -torch.inf).amax(1)
