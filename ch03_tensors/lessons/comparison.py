"""Comparing, sorting, finding nan; trigonometric and other functions of one number.

python -m lessons comparison
python -m lessons statistics       (the next one)
"""

import math  # noqa: F401 (for the examples)

import torch
from torch import Tensor

TITLE = "Comparison, sorting, validity, trigonometry, other functions"
TITLE_ZH = "比较、排序、数据合法性、三角函数、其他数学函数"
LESSONS = {
    "3-11": "比较运算-排序-topk-kthvalue-数据合法性校验",
    "3-12": "三角函数",
    "3-13": "其他数学函数",
}
FORMULAS = {
    "cosine_similarity": r"\cos(a, b) = \frac{a \cdot b}{\|a\| \, \|b\|}",
}


def comparisons(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Accuracy, masks and tests all begin with a question to each element. (3-11)

    Comparisons give a bool for each element; only `torch.equal` gives one answer for all.

    >>> a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 5.0, 0.0])
    >>> for name, result in comparisons(a, b).items():
    ...     print(name, result.tolist())
    eq [True, False, False]
    ne [False, True, True]
    ge [True, False, True]
    gt [False, False, True]
    le [True, True, False]
    lt [False, True, False]
    >>> torch.equal(a, b), torch.equal(a, a.clone())
    (False, True)
    >>> torch.equal(a == b, torch.eq(a, b)) and torch.equal(a > b, torch.gt(a, b))
    True
    >>> torch.ne(a, b), torch.ge(a, b)
    (tensor([False,  True,  True]), tensor([ True, False,  True]))
    >>> torch.le(a, b), torch.lt(a, b)
    (tensor([ True,  True, False]), tensor([False,  True, False]))

    Fractions are seldom equal to the last bit. `allclose` allows for a difference:

    >>> x = torch.tensor(0.1, dtype=torch.float64) * 3
    >>> (x == 0.3).item(), torch.allclose(x, torch.tensor(0.3, dtype=torch.float64))
    (False, True)
    """
    return {
        "eq": torch.eq(a, b),
        "ne": torch.ne(a, b),
        "ge": torch.ge(a, b),
        "gt": torch.gt(a, b),
        "le": torch.le(a, b),
        "lt": torch.lt(a, b),
    }


def ranking(scores: Tensor) -> Tensor:
    """Who came first, and which answer did the model find most likely? Both need an order. (3-11)

    Sort gives values and where they stood; `argsort` of that gives the rank of each. `(N,) -> (N,)`, best 0.

    >>> ranking(torch.tensor([70.0, 95.0, 80.0]))
    tensor([2, 0, 1])
    >>> a = torch.tensor([[1, 4, 4, 3, 5], [1, 4, 4, 10, 5]])
    >>> torch.sort(a, stable=True)
    torch.return_types.sort(
    values=tensor([[ 1,  3,  4,  4,  5],
            [ 1,  4,  4,  5, 10]]),
    indices=tensor([[0, 3, 1, 2, 4],
            [0, 1, 2, 4, 3]]))
    >>> torch.sort(a, descending=True, dim=1).values
    tensor([[ 5,  4,  4,  3,  1],
            [10,  5,  4,  4,  1]])
    >>> torch.sort(a, descending=True, dim=0).values
    tensor([[ 1,  4,  4, 10,  5],
            [ 1,  4,  4,  3,  5]])
    >>> isinstance(torch.sort(a), torch.return_types.sort)
    True
    """
    return torch.argsort(torch.argsort(scores, descending=True))


def top_k_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """With a thousand classes the right one is often second: count it as found among the best k. (3-11)

    The share of rows whose right class is among the k largest. `(N, K), (N,) -> float`.

    >>> logits = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.3, 0.4, 0.3001]])
    >>> labels = torch.tensor([1, 1, 0])
    >>> [round(top_k_accuracy(logits, labels, k), 2) for k in (1, 2, 3)]
    [0.33, 0.67, 1.0]

    `topk` gives the k largest, `kthvalue` the k-th smallest; neither sorts the rest.

    >>> a = torch.tensor([[1, 3, 5, 7, 9], [2, 4, 6, 8, 10]])
    >>> torch.topk(a, k=2, dim=1)
    torch.return_types.topk(
    values=tensor([[ 9,  7],
            [10,  8]]),
    indices=tensor([[4, 3],
            [4, 3]]))
    >>> torch.topk(a, k=1, dim=0).values
    tensor([[ 2,  4,  6,  8, 10]])
    >>> torch.kthvalue(a, k=2, dim=1)
    torch.return_types.kthvalue(
    values=tensor([3, 4]),
    indices=tensor([1, 1]))
    >>> isinstance(torch.kthvalue(a, 2), torch.return_types.kthvalue), type(torch.topk(a, 2)) is torch.return_types.topk
    (True, True)
    """
    best = logits.topk(k, dim=1).indices
    return (best == labels.unsqueeze(1)).any(dim=1).float().mean().item()


def count_invalid(a: Tensor) -> dict[str, int]:
    """One nan spoils a whole training without a word: look for it in data and in losses. (3-11)

    Is the data finite (有界), infinite (无界), or not a number? Worth asking of every loss.

    >>> a = torch.tensor([0.0, 1.0, -1.0])
    >>> a / 0
    tensor([nan, inf, -inf])
    >>> torch.isfinite(a / 0), torch.isinf(a / 0), torch.isnan(a / 0)
    (tensor([False, False, False]), tensor([False,  True,  True]), tensor([ True, False, False]))
    >>> count_invalid(torch.tensor([1.0, 2.0, float("nan"), float("inf")]))
    {'inf': 1, 'nan': 1}

    nan is not even equal to itself, and one of them spoils every sum:

    >>> nan = torch.tensor([1.0, 2.0, torch.nan])
    >>> nan == nan, nan.sum(), nan.nansum()
    (tensor([ True,  True, False]), tensor(nan), tensor(3.))
    >>> torch.nan_to_num(nan, nan=0.0)
    tensor([1., 2., 0.])
    """
    return {name: int(test(a).sum()) for name, test in (("inf", torch.isinf), ("nan", torch.isnan))}


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Faces and words are compared by the angle of their vectors, so that length does not count. (3-12)

    The cosine of the angle between two vectors: 1 same direction, 0 right angle. `(.., D), (.., D) -> (..)`.

    >>> angles = torch.tensor([0.0, math.pi / 6, math.pi / 2])
    >>> torch.cos(angles).round(decimals=4).abs()
    tensor([1.0000, 0.8660, 0.0000])
    >>> torch.sin(angles).round(decimals=4), torch.acos(torch.tensor([1.0, 0.0])).rad2deg()
    (tensor([0.0000, 0.5000, 1.0000]), tensor([ 0., 90.]))
    >>> a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> b = torch.tensor([[9.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    >>> cosine_similarity(a, b)
    tensor([1.0000, 0.0000, 0.7071])

    The Euclidean distance (欧式距离) of the same pairs tells another story:

    >>> torch.linalg.vector_norm(a - b, dim=1)
    tensor([8.0000, 2.2361, 1.0000])
    """
    return (a * b).sum(-1) / (torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1))


def signed_square(a: Tensor) -> Tensor:
    """To work on sizes and put the sign back afterwards (clipping, quantising), take the two apart. (3-13)

    `abs` and `sign` take a number apart, `signed_square` puts it together again; then other functions of one number.

    >>> a = torch.tensor([-2.0, 0.0, 3.0])
    >>> torch.abs(a), torch.sign(a), torch.neg(a)
    (tensor([2., 0., 3.]), tensor([-1.,  0.,  1.]), tensor([ 2., -0., -3.]))
    >>> torch.sigmoid(a)
    tensor([0.1192, 0.5000, 0.9526])
    >>> signed_square(a)
    tensor([-4.,  0.,  9.])

    sigmoid and its inverse, logit; erf, the integral below the bell curve; reciprocal and inverse square root:

    >>> torch.logit(torch.sigmoid(torch.tensor([-2.0, 3.0])))
    tensor([-2.0000,  3.0000])
    >>> torch.erf(torch.tensor(1 / math.sqrt(2)))
    tensor(0.6827)
    >>> torch.reciprocal(torch.tensor([4.0])), torch.rsqrt(torch.tensor([4.0]))
    (tensor([0.2500]), tensor([0.5000]))

    The mean of `abs` of the differences is the L1 loss:

    >>> torch.abs(a - torch.tensor([0.0, 0.0, 0.0])).mean()
    tensor(1.6667)
    """
    return torch.sign(a) * a.square()
