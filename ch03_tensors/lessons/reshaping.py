"""Joining, cutting, changing shape, padding, and the Fourier transform.

python -m lessons reshaping
python -m lessons techniques       (the next one)
"""

import math  # noqa: F401 (for the examples)

import torch
import torch.nn.functional as F  # noqa: F401 (for the examples)
from torch import Tensor, nn  # noqa: F401 (for the examples)

TITLE = "Joining, slicing, reshaping, padding, Fourier transform"
TITLE_ZH = "组合与拼接、切片、变形、填充与傅里叶变换"
LESSONS = {
    "3-22": "Pytorch与张量组合与拼接",
    "3-23": "Pytorch与张量切片",
    "3-24": "Pytorch与张量变形",
    "3-25": "Pytorch与张量填充&傅里叶变换",
}
FORMULAS = {
    "low_pass": r"X_k = \sum_{n=0}^{N-1} x_n \, e^{-2 \pi i k n / N}",
}


def batch_of(samples: list[Tensor]) -> Tensor:
    """Single samples become a batch, and the branches of a network become one tensor again. (3-22)

    `stack` makes a new dimension, `cat` lengthens one that is there. N x `(D,) -> (N, D)`.

    >>> a, b = torch.zeros(2, 3), torch.ones(2, 3)
    >>> torch.cat((a, b), dim=0)
    tensor([[0., 0., 0.],
            [0., 0., 0.],
            [1., 1., 1.],
            [1., 1., 1.]])
    >>> torch.cat((a, b), dim=1).shape, torch.stack((a, b), dim=0).shape, torch.stack((a, b), dim=2).shape
    (torch.Size([2, 6]), torch.Size([2, 2, 3]), torch.Size([2, 3, 2]))
    >>> a = torch.linspace(1, 6, 6).view(2, 3)
    >>> torch.stack((a, a + 6), dim=1)
    tensor([[[ 1.,  2.,  3.],
             [ 7.,  8.,  9.]],
    <BLANKLINE>
            [[ 4.,  5.,  6.],
             [10., 11., 12.]]])
    >>> batch_of([torch.tensor([1, 2]), torch.tensor([3, 4])])
    tensor([[1, 2],
            [3, 4]])
    """
    return torch.cat([sample.unsqueeze(0) for sample in samples], dim=0)  # which is what torch.stack does


def minibatches(data: Tensor, size: int) -> list[Tensor]:
    """A data set is too large for one step, and several attention heads share one tensor: cut it. (3-23)

    `split` cuts pieces of a given size, `chunk` a given number of pieces. `(N, ..) -> (size, ..), ...`.

    >>> a = torch.arange(20).view(10, 2)
    >>> [tuple(piece.shape) for piece in torch.chunk(a, 2, dim=0)], [tuple(p.shape) for p in torch.chunk(a, 2, dim=1)]
    ([(5, 2), (5, 2)], [(10, 1), (10, 1)])
    >>> [len(piece) for piece in torch.split(a, 3, dim=0)], [len(piece) for piece in torch.split(a, [1, 3, 6], dim=0)]
    ([3, 3, 3, 1], [1, 3, 6])
    >>> minibatches(torch.arange(5), 2)
    [tensor([0, 1]), tensor([2, 3]), tensor([4])]

    The pieces are views: to write into one is to write into the whole.

    >>> torch.split(a, 3)[0].zero_().sum(), a[:4].tolist()
    (tensor(0), [[0, 0], [0, 0], [0, 0], [6, 7]])
    """
    return [data[start : start + size] for start in range(0, len(data), size)]


def to_channels_first(images: Tensor) -> Tensor:
    """OpenCV and torch put colour in different places, and a wrong repair scrambles the image silently. (3-24)

    Images as OpenCV has them to images as torch wants them, `(N, H, W, C) -> (N, C, H, W)`.

    `reshape` reads the elements in the same order into another shape; `transpose` and `permute` change the order of
    the dimensions. To reshape where one should permute gives the right shape and a scrambled image.

    >>> image = torch.arange(12).view(1, 2, 2, 3)
    >>> to_channels_first(image)
    tensor([[[[ 0,  3],
              [ 6,  9]],
    <BLANKLINE>
             [[ 1,  4],
              [ 7, 10]],
    <BLANKLINE>
             [[ 2,  5],
              [ 8, 11]]]])
    >>> torch.equal(image.reshape(1, 3, 2, 2), to_channels_first(image))
    False

    >>> a = torch.arange(6).reshape(2, 3)
    >>> torch.t(a), torch.transpose(a, 0, 1).shape
    (tensor([[0, 3],
            [1, 4],
            [2, 5]]), torch.Size([3, 2]))
    >>> a.reshape(3, -1), a.view(-1)
    (tensor([[0, 1],
            [2, 3],
            [4, 5]]), tensor([0, 1, 2, 3, 4, 5]))

    `view` never copies, and refuses where it would have to; `reshape` copies then.

    >>> try:
    ...     a.t().view(6)
    ... except RuntimeError as error:
    ...     print(str(error)[:67])
    view size is not compatible with input tensor's size and stride (at
    >>> a.t().reshape(6)
    tensor([0, 3, 1, 4, 2, 5])
    """
    return images.permute(0, 3, 1, 2)


def drop_and_add_dimensions(a: Tensor) -> dict[str, tuple[int, ...]]:
    """A layer wants a batch and gets one image, a loss wants (N,) and gets (N, 1): add or drop a dimension. (3-24)

    `squeeze` drops dimensions of size 1, `unsqueeze` adds one, `unbind` makes a tuple along one.

    >>> a = torch.arange(6).view(1, 2, 3)
    >>> drop_and_add_dimensions(a)
    {'squeeze': (2, 3), 'unsqueeze': (1, 2, 3, 1), 'transpose': (2, 1, 3), 'flatten': (6,), 'expand': (5, 2, 3)}
    >>> torch.squeeze(a).shape, torch.unsqueeze(a, 0).shape
    (torch.Size([2, 3]), torch.Size([1, 1, 2, 3]))
    >>> torch.unbind(a, dim=1)
    (tensor([[0, 1, 2]]), tensor([[3, 4, 5]]))
    """
    return {
        "squeeze": tuple(torch.squeeze(a).shape),
        "unsqueeze": tuple(torch.unsqueeze(a, -1).shape),
        "transpose": tuple(torch.transpose(a, 1, 0).shape),
        "flatten": tuple(torch.flatten(a).shape),
        "expand": tuple(a.expand(5, -1, -1).shape),  # a view: no element is copied
    }


def eight_views(image: Tensor) -> Tensor:
    """A leaf or a satellite image means the same turned or mirrored: eight training images for one. (3-24)

    The eight turned and mirrored copies of a square image, `(H, H) -> (8, H, H)`.

    >>> a = torch.tensor([[1, 2], [3, 4]])
    >>> torch.flip(a, dims=[1]), torch.flip(a, dims=[0, 1])
    (tensor([[2, 1],
            [4, 3]]), tensor([[4, 3],
            [2, 1]]))

    `rot90` turns against the clock; a negative count with it.

    >>> torch.rot90(a), torch.rot90(a, 2), torch.rot90(a, -1)
    (tensor([[2, 4],
            [1, 3]]), tensor([[4, 3],
            [2, 1]]), tensor([[3, 1],
            [4, 2]]))
    >>> len({tuple(view.flatten().tolist()) for view in eight_views(a)})
    8
    """
    turns = [torch.rot90(image, k) for k in range(4)]
    return torch.stack(turns + [torch.flip(turn, dims=[1]) for turn in turns])


def pad_to(sequences: list[list[int]], padding: int = 0) -> Tensor:
    """Sentences have different lengths, and a convolution eats the border: fill up before you go on. (3-25)

    Sequences of different lengths as one matrix, `N lists -> (N, longest)`.

    >>> torch.full((2, 3), 10)
    tensor([[10, 10, 10],
            [10, 10, 10]])
    >>> pad_to([[5, 6, 7], [8], [9, 9]])
    tensor([[5, 6, 7],
            [8, 0, 0],
            [9, 9, 0]])

    Around an image, `F.pad` counts from the last dimension: left, right, top, bottom. What stands there is a value,
    or the border again, or a mirror.

    >>> image = torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> F.pad(image, (1, 2), value=9.0)
    tensor([[[9., 1., 2., 3., 9., 9.]]])
    >>> F.pad(image, (1, 2), mode="replicate"), F.pad(image, (1, 2), mode="reflect")
    (tensor([[[1., 1., 2., 3., 3., 3.]]]), tensor([[[2., 1., 2., 3., 2., 1.]]]))

    As a layer of a network it is `nn.ReflectionPad2d`, here one pixel on all four sides (`(N, C, H, W)` only):

    >>> nn.ReflectionPad2d(1)(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[[[4., 3., 4., 3.],
              [2., 1., 2., 1.],
              [4., 3., 4., 3.],
              [2., 1., 2., 1.]]]])
    """
    table = torch.full((len(sequences), max(map(len, sequences))), padding)
    for row, sequence in zip(table, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    return table


def low_pass(signal: Tensor, keep: int) -> Tensor:
    """Noise is fast and the signal slow: in frequencies the two can be told apart. (3-25)

    The Fourier transform (傅里叶变换) writes a signal as a sum of waves; here only the slowest `keep` stay.

    `(N,) -> (N,)`. A wave of 2 turns and a weaker one of 20 turns, over 64 points, are two peaks in the spectrum:

    >>> time = torch.arange(64) / 64
    >>> slow, fast = torch.sin(2 * math.pi * 2 * time), 0.5 * torch.sin(2 * math.pi * 20 * time)
    >>> spectrum = torch.fft.rfft(slow + fast)
    >>> spectrum.abs().topk(2).indices, spectrum.abs().topk(2).values
    (tensor([ 2, 20]), tensor([32.0000, 16.0000]))
    >>> torch.allclose(low_pass(slow + fast, keep=10), slow, atol=1e-5)
    True

    A convolution of signals is a product of spectra:

    >>> a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0])
    >>> torch.fft.irfft(torch.fft.rfft(a, 4) * torch.fft.rfft(b, 4), 4).round(decimals=4)
    tensor([1., 3., 5., 3.])
    >>> F.conv1d(a.view(1, 1, 3), b.flip(0).view(1, 1, 2), padding=1)
    tensor([[[1., 3., 5., 3.]]])
    """
    spectrum = torch.fft.rfft(signal)
    spectrum[keep:] = 0
    return torch.fft.irfft(spectrum, len(signal))
