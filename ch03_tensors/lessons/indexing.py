"""Clamping values, and picking elements by position or by condition.

python -m lessons indexing
python -m lessons reshaping        (the next one)
"""

from pathlib import Path

import torch
from torch import Tensor

TITLE = "Indexing and selecting"
TITLE_ZH = "张量裁剪、索引与数据筛选"
LESSONS = {"3-20": "Pytorch与张量裁剪", "3-21": "Pytorch与张量的索引与数据筛选"}
FIGURES = {"gather_rows": "draw_arrows"}


def clamp_between(a: Tensor, low: float, high: float) -> Tensor:
    """A pixel beyond 255 or an exploding gradient must be brought back into its range. (3-20)

    Clamping (裁剪) moves values outside an interval to its nearer end.

    >>> a = torch.tensor([[2.4, 7.6, 0.2], [9.9, 4.8, 1.7]])
    >>> clamp_between(a, 2, 5)
    tensor([[2.4000, 5.0000, 2.0000],
            [5.0000, 4.8000, 2.0000]])
    >>> a.clamp(min=2), torch.clamp(a, max=5)
    (tensor([[2.4000, 7.6000, 2.0000],
            [9.9000, 4.8000, 2.0000]]), tensor([[2.4000, 5.0000, 0.2000],
            [5.0000, 4.8000, 1.7000]]))

    The same for a whole gradient: where its norm is too large, it is scaled down and keeps its direction.

    >>> p = torch.zeros(2, requires_grad=True)
    >>> (p * torch.tensor([30.0, 40.0])).sum().backward()
    >>> torch.nn.utils.clip_grad_norm_([p], max_norm=1.0), p.grad
    (tensor(50.), tensor([0.6000, 0.8000]))
    """
    return torch.minimum(torch.maximum(a, torch.tensor(low)), torch.tensor(high))


def scale_negative(a: Tensor, slope: float = 0.01) -> Tensor:
    """An `if` for each element, without a loop: ReLU, masks and repairs of bad values are written so. (3-21)

    `torch.where(condition, a, b)`: from a where the condition holds, from b elsewhere.

    >>> a = torch.tensor([[0.1, 0.7], [0.6, 0.2]])
    >>> b = torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    >>> torch.where(a > 0.5, a, b)
    tensor([[10.0000,  0.7000],
            [ 0.6000, 40.0000]])
    >>> scale_negative(torch.tensor([-2.0, 3.0]))
    tensor([-0.0200,  3.0000])
    """
    return torch.where(a > 0, a, slope * a)


def gather_rows(table: Tensor, index: Tensor) -> Tensor:
    """A loss needs from each row the score of the right class: another column in each row. (3-21)

    `torch.gather` takes one element for each element of `index`. `(N, K), (N,) -> (N,)`.

    Along dim 0, out[i][j] = a[index[i][j]][j]: the index replaces the row, the column stays.

    >>> a = torch.linspace(1, 16, 16).view(4, 4)
    >>> torch.gather(a, dim=0, index=torch.tensor([[0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 3, 3]]))
    tensor([[ 1.,  6.,  7.,  8.],
            [ 1.,  6., 11., 12.],
            [ 1.,  6., 15., 16.]])

    The everyday use is dim 1: from each row of logits, the one of the right class.

    >>> logits = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    >>> gather_rows(logits, torch.tensor([1, 0]))
    tensor([0.7000, 0.5000])

    `scatter` is the way back: values go to the places that the index names, as in one-hot coding.

    >>> torch.zeros(2, 3).scatter(1, torch.tensor([[1], [0]]), 1.0)
    tensor([[0., 1., 0.],
            [1., 0., 0.]])
    """
    return table.gather(dim=1, index=index.unsqueeze(1)).squeeze(1)


def draw_arrows(folder: Path) -> Path:
    """Where `gather` takes each element from. Along dim 1 an element stays in its row, along dim 0 in its column; the index
    says which column, or which row."""
    from matplotlib.figure import Figure

    from book.drawing import bare, blocks

    table = torch.arange(1, 17).view(4, 4)
    index = {1: torch.tensor([[2], [0], [3], [1]]), 0: torch.tensor([[3, 0, 1, 2]])}
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axis, dim in zip(figure.subplots(1, 2), (1, 0), strict=True):
        bare(axis, 8, 6.6)
        result, (x, y) = table.gather(dim, index[dim]), (6, 0) if dim == 1 else (0, 5.5)
        blocks(axis, table.tolist(), 0, 0, torch.zeros_like(table).scatter(dim, index[dim], 1).bool().tolist())
        blocks(axis, result.tolist(), x, y, colour="tab:orange")
        for i in range(result.shape[0]):
            for j in range(result.shape[1]):
                at = index[dim][i, j].item()
                start = (at + 1, i + 0.5) if dim == 1 else (j + 0.5, at + 1)  # the side of the square that was chosen
                end = (x, i + 0.5) if dim == 1 else (j + 0.5, y)
                axis.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "->", "color": "crimson"})
        axis.text(4.3, 5, f"gather({dim}, {index[dim].tolist()})", fontsize=9)
    figure.savefig(folder / "gather.png", dpi=110)
    return folder / "gather.png"


def pick_rows(a: Tensor, rows: Tensor) -> Tensor:
    """A shuffled mini-batch, or a few words' vectors out of a large table: whole rows in any order. (3-21)

    `torch.index_select` takes whole rows or columns, in the order asked for. `(N, D), (K,) -> (K, D)`.

    >>> a = torch.arange(16).view(4, 4)
    >>> torch.index_select(a, dim=0, index=torch.tensor([0, 3, 2]))
    tensor([[ 0,  1,  2,  3],
            [12, 13, 14, 15],
            [ 8,  9, 10, 11]])
    >>> torch.index_select(a, dim=1, index=torch.tensor([0, 3]))
    tensor([[ 0,  3],
            [ 4,  7],
            [ 8, 11],
            [12, 15]])
    >>> torch.equal(pick_rows(a, torch.tensor([3, 3])), a[[3, 3]])
    True

    A slice is a view of the same memory; an index tensor makes a copy.

    >>> view, copy = a[1:3], a[[1, 2]]
    >>> view.data_ptr() == a[1].data_ptr(), copy.data_ptr() == a[1].data_ptr()
    (True, False)
    """
    return a.index_select(0, rows)


def above(a: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Which boxes are sure enough, which pixels bright enough, and where are they? (3-21)

    What is above a threshold, and where: `masked_select` and `nonzero`. `(N, M) -> (K,), (K, 2)`.

    >>> a = torch.linspace(1, 16, 16).view(4, 4)
    >>> mask = torch.gt(a, 13)
    >>> torch.masked_select(a, mask), a[mask]
    (tensor([14., 15., 16.]), tensor([14., 15., 16.]))
    >>> above(a, 13)
    (tensor([14., 15., 16.]), tensor([[3, 1],
            [3, 2],
            [3, 3]]))
    >>> torch.nonzero(torch.tensor([[0, 1, 2, 0], [2, 3, 0, 1]]))
    tensor([[0, 1],
            [0, 2],
            [1, 0],
            [1, 1],
            [1, 3]])
    """
    mask = a > threshold
    return a.masked_select(mask), mask.nonzero()


def take_flat(a: Tensor, index: Tensor) -> Tensor:
    """`argmax` of a whole matrix answers with one number: this turns it back into the element. (3-21)

    `torch.take` counts through the tensor as if it were one long row.

    >>> a = torch.linspace(1, 16, 16).view(4, 4)
    >>> torch.take(a, index=torch.tensor([0, 15, 13, 10]))
    tensor([ 1., 16., 14., 11.])
    >>> take_flat(a, a.argmax())
    tensor(16.)
    """
    return a.reshape(-1)[index]
