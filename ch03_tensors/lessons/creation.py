"""Making tensors: from values, filled, in sequence, at random.

python -m lessons creation
python -m lessons attributes       (the next one)
"""

import torch
from torch import Tensor

TITLE = "Creating tensors"
TITLE_ZH = "Tensor 的创建"
LESSONS = {"3-4": "Tensor创建编程实例"}


def from_values(values: list) -> Tensor:
    """Small tensors for trying things out, and labels or settings, are typed in by hand. (3-4)

    `torch.tensor` copies values and takes the type from them; `torch.Tensor` always makes float32.

    >>> from_values([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    >>> torch.Tensor([[1, 2], [3, 4]])
    tensor([[1., 2.],
            [3., 4.]])
    >>> torch.FloatTensor([1, 2]).dtype, torch.DoubleTensor([1, 2]).type()
    (torch.float32, 'torch.DoubleTensor')

    Beware: with sizes in place of values, `torch.Tensor(2, 3)` is a block of memory that nobody has filled. What
    stands in it is whatever stood there before; `torch.empty` says that plainly.

    >>> torch.Tensor(2, 3).shape, torch.empty(2, 3).shape == torch.Size([2, 3])
    (torch.Size([2, 3]), True)
    """
    return torch.tensor(values)


def filled(rows: int, columns: int) -> dict[str, Tensor]:
    """Sums start at zero, masks and biases at zeros or ones, and a transformation at the identity. (3-4)

    Constants: zeros, ones, one value, the identity; and `_like`, with the shape and type of another.

    >>> for name, tensor in filled(2, 3).items():
    ...     print(f"{name:<10} {tensor.tolist()}")
    zeros      [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    ones       [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    full       [[7, 7, 7], [7, 7, 7]]
    eye        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    zeros_like [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    ones_like  [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    >>> a = torch.rand(2, 3, dtype=torch.float64)
    >>> torch.zeros_like(a).dtype, torch.ones_like(a).shape
    (torch.float64, torch.Size([2, 3]))
    >>> torch.diag(torch.tensor([1, 2, 3]))
    tensor([[1, 0, 0],
            [0, 2, 0],
            [0, 0, 3]])
    """
    return {
        "zeros": torch.zeros(rows, columns),
        "ones": torch.ones(rows, columns),
        "full": torch.full((rows, columns), 7),
        "eye": torch.eye(rows, columns),
        "zeros_like": torch.zeros_like(torch.ones(rows, columns)),
        "ones_like": torch.ones_like(torch.zeros(rows, columns)),
    }


def checkerboard(size: int) -> Tensor:
    """Positions, time steps, pixel coordinates and axes of plots are numbers in a row. (3-4)

    Sequences: steps (`arange`, end left out) or points (`linspace`, end included); here for a board.

    >>> torch.arange(0, 10, 3)
    tensor([0, 3, 6, 9])
    >>> torch.linspace(2, 10, 4)
    tensor([ 2.0000,  4.6667,  7.3333, 10.0000])
    >>> torch.logspace(-3, 0, 4)
    tensor([0.0010, 0.0100, 0.1000, 1.0000])
    >>> checkerboard(4)
    tensor([[0, 1, 0, 1],
            [1, 0, 1, 0],
            [0, 1, 0, 1],
            [1, 0, 1, 0]])
    """
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (row + column) % 2


def random_tensors(seed: int) -> dict[str, Tensor]:
    """Weights start at random, data is shuffled and augmented: random tensors are everywhere. (3-4)

    Random values, each kind from the same seed.

    `rand` is uniform on [0, 1), `randn` standard normal, `normal` has a mean and a standard deviation for each
    element, `randint` whole numbers below the end, `randperm` an order (to shuffle data), `uniform_` fills in place.

    >>> for name, tensor in random_tensors(seed=0).items():
    ...     print(f"{name:<9} {tuple(tensor.shape)} from {tensor.min():.2f} to {tensor.max():.2f}")
    rand      (1000,) from 0.00 to 1.00
    randn     (1000,) from -3.47 to 2.81
    normal    (1000,) from 41.81 to 57.07
    randint   (1000,) from 0.00 to 9.00
    randperm  (10,) from 0.00 to 9.00
    uniform_  (1000,) from -1.00 to 1.00
    >>> torch.randperm(10).sort().values
    tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    >>> torch.Tensor(2, 2).uniform_(-1, 1).abs().max() <= 1
    tensor(True)
    >>> torch.normal(mean=torch.rand(5), std=torch.rand(5)).shape
    torch.Size([5])
    >>> torch.randint(0, 10, [10]).dtype
    torch.int64

    The order of `means` below survives the noise, because the deviations are small:

    >>> means = torch.arange(5.0) * 100
    >>> torch.normal(mean=means, std=torch.ones(5)).argsort()
    tensor([0, 1, 2, 3, 4])
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        "rand": torch.rand(1000, generator=generator),
        "randn": torch.randn(1000, generator=generator),
        "normal": torch.normal(mean=50.0, std=2.0, size=(1000,), generator=generator),
        "randint": torch.randint(0, 10, (1000,), generator=generator),
        "randperm": torch.randperm(10, generator=generator),
        "uniform_": torch.empty(1000).uniform_(-1, 1, generator=generator),
    }
