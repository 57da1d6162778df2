"""Arithmetic: element by element, matrix products, powers and logarithms, in-place forms, broadcasting, rounding.

python -m lessons arithmetic
python -m lessons comparison       (the next one)
"""

from pathlib import Path

import torch
from torch import Tensor

TITLE = "Arithmetic, in-place, broadcasting, rounding"
TITLE_ZH = "算术运算、in-place、广播、取整"
LESSONS = {
    "3-7": "Tensor的算术运算",
    "3-8": "Tensor的算术运算编程实例",
    "3-9": "in-place的概念和广播机制",
    "3-10": "取整-余",
}
FIGURES = {"add_bias": "draw_blocks"}


def four_operations(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Every layer and every loss is made of these four, applied to all elements at once. (3-7)

    Each operation has three spellings that make a new tensor: operator, function, method.

    >>> a, b = torch.tensor([[6.0, 8.0]]), torch.tensor([[2.0, 4.0]])
    >>> for name, result in four_operations(a, b).items():
    ...     print(name, result.tolist())
    add [[8.0, 12.0]]
    sub [[4.0, 4.0]]
    mul [[12.0, 32.0]]
    div [[3.0, 2.0]]
    >>> torch.equal(a + b, torch.add(a, b)) and torch.equal(a + b, a.add(b))
    True
    >>> torch.equal(a - b, torch.sub(a, b)) and torch.equal(a * b, torch.mul(a, b))
    True
    >>> torch.equal(a / b, torch.div(a, b)) and torch.equal(a / b, a.div(b))
    True

    `*` multiplies element by element (the Hadamard product, 哈达玛积); `/` on whole numbers gives fractions, `//` the
    whole part.

    >>> torch.tensor([7, -7]) / 2, torch.tensor([7, -7]) // 2
    (tensor([ 3.5000, -3.5000]), tensor([ 3, -4]))
    """
    return {"add": a + b, "sub": a - b, "mul": a * b, "div": a / b}


def matrix_products(a: Tensor, b: Tensor) -> list[Tensor]:
    """A fully connected layer, an attention, a rotation: each is one matrix product. (3-7)

    The matrix product: `mm` for two matrices, `matmul` or `@` for any dimensions. `(.., N, K), (.., K, M)`.

    >>> matrix_products(torch.ones(2, 1), torch.ones(1, 2))
    [tensor([[1., 1.],
            [1., 1.]]), tensor([[1., 1.],
            [1., 1.]]), tensor([[1., 1.],
            [1., 1.]])]
    >>> torch.mm(torch.ones(2, 1), torch.ones(1, 2))
    tensor([[1., 1.],
            [1., 1.]])

    Beyond two dimensions only the last two multiply; those before them count off a batch of products.

    >>> torch.matmul(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 4, 3)).shape
    torch.Size([1, 2, 3, 3])
    >>> (torch.ones(5, 1, 3, 4) @ torch.ones(2, 4, 3)).shape
    torch.Size([5, 2, 3, 3])

    `einsum` writes the sum as a formula: the letter that is missing on the right is summed over.

    >>> a, b = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(3, 4)
    >>> torch.equal(torch.einsum("nk,km->nm", a, b), a @ b)
    True
    """
    return [torch.matmul(a, b), a @ b, a.matmul(b)]


def powers_and_logs(a: Tensor) -> dict[str, Tensor]:
    """Losses and probabilities live on a logarithmic scale; distances need squares and roots. (3-8)

    Powers, exponential, roots, logarithms.

    >>> for name, result in powers_and_logs(torch.tensor([1.0, 2.0, 10.0])).items():
    ...     print(f"{name:<6}", [round(value, 4) for value in result.tolist()])
    pow    [1.0, 4.0, 100.0]
    exp    [2.7183, 7.3891, 22026.4648]
    sqrt   [1.0, 1.4142, 3.1623]
    log2   [0.0, 1.0, 3.3219]
    log10  [0.0, 0.301, 1.0]
    log    [0.0, 0.6931, 2.3026]
    >>> torch.equal(torch.pow(torch.tensor([1, 2]), 3), torch.tensor([1, 2]) ** 3)
    True
    >>> torch.log2(torch.tensor(8.0)), torch.log10(torch.tensor(1000.0))
    (tensor(3.), tensor(3.))

    Outside its domain a function answers with nan or an infinity, not with an error:

    >>> torch.sqrt(torch.tensor([-1.0])), torch.log(torch.tensor([0.0]))
    (tensor([nan]), tensor([-inf]))

    exp overflows in every type: in float32 above 88.7, in float64 above 709.

    >>> torch.exp(torch.tensor([88.0, 89.0])), torch.exp(torch.tensor([89.0], dtype=torch.float64))
    (tensor([1.6516e+38,        inf]), tensor([4.4896e+38], dtype=torch.float64))
    """
    return {
        "pow": torch.pow(a, 2),
        "exp": torch.exp(a),
        "sqrt": torch.sqrt(a),
        "log2": torch.log2(a),
        "log10": torch.log10(a),
        "log": torch.log(a),  # base e
    }


def running_mean_(mean: Tensor, value: Tensor, momentum: float = 0.1) -> Tensor:
    """Large tensors should not be copied to change a few numbers: change them where they lie. (3-9)

    A name that ends in `_` works in place (原地): it changes the tensor it is called on.

    Moves `mean` a part of the way to `value`, as batch normalisation does, without a second tensor.

    >>> a, b = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
    >>> a.add(b), a
    (tensor([11., 22.]), tensor([1., 2.]))
    >>> a.add_(b), a
    (tensor([11., 22.]), tensor([11., 22.]))
    >>> a.sub_(b)
    tensor([1., 2.])
    >>> a.mul_(b)
    tensor([10., 40.])
    >>> a.div_(10)
    tensor([1., 4.])
    >>> a.pow_(2)
    tensor([ 1., 16.])
    >>> a.sqrt_()
    tensor([1., 4.])
    >>> torch.exp_(a)
    tensor([ 2.7183, 54.5981])
    >>> torch.log_(a)
    tensor([1., 4.])
    >>> mean = torch.zeros(2)
    >>> running_mean_(mean, b) is mean, mean
    (True, tensor([1., 2.]))

    autograd needs some values again for the backward pass, and notices when they were overwritten:

    >>> x = torch.ones(2, requires_grad=True)
    >>> y = x.exp()
    >>> _ = y.add_(1)
    >>> try:
    ...     y.sum().backward()
    ... except RuntimeError as error:
    ...     print(str(error)[:92])
    one of the variables needed for gradient computation has been modified by an inplace operati
    """
    return mean.mul_(1 - momentum).add_(value, alpha=momentum)


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """One bias for a whole batch, one mean for a whole image: small tensors meet large ones without a loop. (3-9)

    Broadcasting (广播): shapes are aligned on the right, and a size of 1 stretches. `(N, K) + (K,) -> (N, K)`.

    >>> add_bias(torch.zeros(2, 3), torch.tensor([1.0, 2.0, 3.0]))
    tensor([[1., 2., 3.],
            [1., 2., 3.]])
    >>> (torch.zeros(4, 1, 3) + torch.zeros(5, 1)).shape
    torch.Size([4, 5, 3])
    >>> torch.broadcast_shapes((4, 1, 3), (5, 1))
    torch.Size([4, 5, 3])

    A column plus a row is a table, with no loop:

    >>> torch.arange(3).unsqueeze(1) * 10 + torch.arange(4)
    tensor([[ 0,  1,  2,  3],
            [10, 11, 12, 13],
            [20, 21, 22, 23]])

    Sizes that differ and are not 1 do not fit:

    >>> torch.zeros(2, 3) + torch.zeros(2)
    Traceback (most recent call last):
        ...
    RuntimeError: The size of tensor a (3) must match the size of tensor b (2) at non-singleton dimension 1
    """
    return x + bias


def draw_blocks(folder: Path) -> Path:
    """A column and a row become a table: the solid blocks are in memory, the pale ones are the same numbers, seen again."""
    from matplotlib.figure import Figure

    from book.drawing import bare, blocks

    column, row = torch.arange(3).unsqueeze(1) * 10, torch.arange(4).unsqueeze(0)
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axis = figure.subplots()
    bare(axis, 15, 4)
    for left, part, colour in ((0, column, "tab:blue"), (5.2, row, "tab:orange"), (10.4, column + row, "tab:green")):
        solid = [[i < part.shape[0] and j < part.shape[1] for j in range(4)] for i in range(3)]
        blocks(axis, part.expand(3, 4).tolist(), left, 0, solid, colour)
        axis.text(left + 2, 3.5, f"{tuple(part.shape)}", ha="center", va="center")
    for left, sign in ((4.6, "+"), (9.8, "=")):
        axis.text(left, 1.5, sign, ha="center", va="center", fontsize=16)
    figure.savefig(folder / "broadcasting.png", dpi=110)
    return folder / "broadcasting.png"


def rounded(a: Tensor) -> dict[str, Tensor]:
    """Pixels, indices and quantised weights are whole numbers, so results must be rounded, and in the right way. (3-10)

    Down, up, nearest, towards zero, what is left, remainder.

    >>> for name, result in rounded(torch.tensor([2.4, 2.5, 3.5, -2.7])).items():
    ...     print(f"{name:<6}", [round(value, 2) for value in result.tolist()])
    floor  [2.0, 2.0, 3.0, -3.0]
    ceil   [3.0, 3.0, 4.0, -2.0]
    round  [2.0, 2.0, 4.0, -3.0]
    trunc  [2.0, 2.0, 3.0, -2.0]
    frac   [0.4, 0.5, 0.5, -0.7]
    % 2    [0.4, 0.5, 1.5, 1.3]
    fmod 2 [0.4, 0.5, 1.5, -0.7]

    >>> a = torch.tensor([5.2, -5.2])
    >>> torch.floor(a), torch.ceil(a), torch.trunc(a)
    (tensor([ 5., -6.]), tensor([ 6., -5.]), tensor([ 5., -5.]))

    Halves go to the even neighbour (2.5 -> 2, 3.5 -> 4), so that many roundings do not drift up. `%` takes the sign
    of the divisor, as Python's; `fmod` that of the number, as C's.

    >>> torch.tensor(-7) % 3, torch.fmod(torch.tensor(-7), 3)
    (tensor(2), tensor(-1))
    """
    return {
        "floor": torch.floor(a),
        "ceil": torch.ceil(a),
        "round": torch.round(a),
        "trunc": torch.trunc(a),
        "frac": a.frac(),
        "% 2": a % 2,
        "fmod 2": torch.fmod(a, 2),
    }
