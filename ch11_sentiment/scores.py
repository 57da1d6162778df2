"""What a wrong answer costs, and how good answers are: for one label a text (N,), and for several (N, K) of 0 and 1.

One label: a softmax over the classes, and cross-entropy. Several: a sigmoid for each label, and the cross-entropy of each yes
or no. F1 of a class is 2 * right / (said + true): of its texts found and its answers right, the harmonic mean. Macro-F1 is the
mean over the classes, however rare; micro-F1 is that of all labels together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def loss_of(logits: Tensor, labels: Tensor, smoothing: float = 0.0, weight: Tensor | None = None) -> Tensor:
    """-> the sum over the texts. `weight` (K,) is that of each class; of several labels, that of each yes."""
    logits = logits.float()
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, weight, reduction="sum", label_smoothing=smoothing)
    wanted = labels * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight, reduction="sum") / labels.shape[1]


def balance(counts: list[int], texts: int, several: bool) -> Tensor:
    """-> (K,) weights with which all classes count alike in the loss; the mean over the texts is 1. Of several labels, what a
    yes weighs so that all yes weigh as much as all no (at most 100 times)."""
    count = torch.tensor(counts, dtype=torch.float32).clamp(min=1)
    return ((texts - count) / count).clamp(0.01, 100) if several else texts / (len(counts) * count)


def probabilities_of(logits: Tensor, several: bool) -> Tensor:
    return logits.float().sigmoid() if several else logits.float().softmax(1)


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """-> (1 + 3 K,): texts that are all right; and of each class right answers, answers, and texts."""
    said, true = logits > 0, labels > 0
    if labels.ndim == 1:
        classes = torch.arange(logits.shape[1], device=logits.device)
        said, true = (one[:, None] == classes for one in (logits.argmax(1), labels))
    right = (said == true).all(1).sum()
    return torch.cat([right[None], (said & true).sum(0), said.sum(0), true.sum(0)]).float()


def scores_of(counts: Tensor, texts: float, several: bool) -> dict[str, float]:
    """The sum of hits() -> accuracy, macro-F1 over the classes that are there, and of several labels micro-F1."""
    right, (found, said, true) = counts[0], counts[1:].double().view(3, -1)
    there = said + true > 0
    scores = {"accuracy": float(right) / texts, "macro_f1": float((2 * found / (said + true))[there].mean())}
    return scores | ({"micro_f1": float(2 * found.sum() / (said + true).sum())} if several else {})
