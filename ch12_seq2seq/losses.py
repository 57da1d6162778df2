"""What a wrong token costs (course 12-8)."""

import torch.nn.functional as F
from torch import Tensor

from text import PAD


def masked_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """(N, T, V) and (N, T) -> the sum over the tokens that are not padding of -log p(right token), the course's loss (12-8).

    F.cross_entropy(..., ignore_index=PAD, reduction="sum") is the same (see the tests), in one operation and with label
    smoothing; so that is what trains, and this is what the course's loop in bench.py uses.
    """
    right = logits.float().log_softmax(2).gather(2, targets[..., None]).squeeze(2)
    return -(right * (targets != PAD)).sum()


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The sum of -log p over the tokens that are not padding."""
    flat = logits.float().flatten(0, 1), targets.flatten()
    return F.cross_entropy(*flat, ignore_index=PAD, reduction="sum", label_smoothing=label_smoothing)
