"""What a wrong token costs (course 12-8)."""

import torch.nn.functional as F
from torch import Tensor

from text import PAD


def masked_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """(N, T, V) and (N, T) -> the sum over the tokens that are not padding of -log p(right token), the course's loss (12-8).

    cross_entropy() is the same, in one operation of the library (see the tests). The course's loop in bench.py uses this one.
    """
    right = logits.float().log_softmax(2).gather(2, targets[..., None]).squeeze(2)
    return -(right * (targets != PAD)).sum()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(N, T, V) and (N, T) -> the sum of -log p(right token) over the tokens that are not padding."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="sum")


def smoothed(logits: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """-> the loss to train with, and cross_entropy() to show. Both are sums over the tokens that are not padding.

    Label smoothing (Szegedy et al. 2016, "Rethinking the Inception Architecture"): `share` of the truth is spread evenly over
    all V words, so that no answer is ever sure. Both losses need log p, of thousands of words: it is computed once.
    """
    log_p, targets = logits.float().flatten(0, 1).log_softmax(1), targets.flatten()
    plain = F.nll_loss(log_p, targets, ignore_index=PAD, reduction="sum")
    even = -(log_p.mean(1) * (targets != PAD)).sum()
    return (1 - share) * plain + share * even, plain.detach()
