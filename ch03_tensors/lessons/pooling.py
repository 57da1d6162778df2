"""Pooling: five ways to make one value of a window, and the way back up.

    python -m lessons pooling
    python -m lessons architectures            (the next one)

A pooling layer has no weights, and works on each channel alone: it changes the size, never the number of channels.
"""

import torch
import torch.nn.functional as F  # noqa: F401 (for the examples)
from torch import Tensor, nn  # noqa: F401 (for the examples)

TITLE = "Pooling"
TITLE_ZH = "pooling 层"
LESSONS = {"5-6": "pooling层"}


def windows(x: Tensor, size: int, stride: int | None = None) -> Tensor:
    """All kinds of pooling start from the same cut into windows. (5-6)

    All windows, `(N, C, H, W) -> (N, C, H', W', size * size)`.

    >>> windows(torch.arange(16.0).view(1, 1, 4, 4), 2)[0, 0, 0]
    tensor([[0., 1., 4., 5.],
            [2., 3., 6., 7.]])
    """
    stride = stride or size
    return x.unfold(2, size, stride).unfold(3, size, stride).flatten(-2)


def max_pool(x: Tensor, size: int, stride: int | None = None) -> Tensor:
    """A cat moved by a pixel is still a cat: ask whether a feature is near, not where exactly. (5-6)

    The largest value of each window: is the feature there at all? `(N, C, H, W) -> (N, C, H', W')`.

    >>> x = torch.tensor([[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]).view(1, 1, 4, 4)
    >>> max_pool(x, 2)[0, 0]
    tensor([[6., 8.],
            [3., 4.]])
    >>> y = torch.randn(2, 3, 50, 32)
    >>> torch.equal(max_pool(y, 3, stride=2), nn.MaxPool2d(3, stride=2)(y))
    True
    >>> nn.MaxPool2d((3, 2), stride=(2, 1))(y).shape
    torch.Size([2, 3, 24, 31])

    ceil_mode rounds the output's size up, so that the last window reaches beyond the border:

    >>> [nn.MaxPool2d(3, stride=2, ceil_mode=up)(torch.zeros(1, 1, 6, 6)).shape[2] for up in (False, True)]
    [2, 3]
    """
    return windows(x, size, stride).max(dim=-1).values  # amax would share the gradient between equal values


def average_pool(x: Tensor, size: int, stride: int | None = None) -> Tensor:
    """The end of a classifier needs one number a channel, for images of any size. (5-6)

    The mean of each window. `(N, C, H, W) -> (N, C, H', W')`.

    >>> x = torch.tensor([[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]).view(1, 1, 4, 4)
    >>> average_pool(x, 2)[0, 0], F.avg_pool2d(x, 2)[0, 0]
    (tensor([[3.2500, 5.2500],
            [2.0000, 2.0000]]), tensor([[3.2500, 5.2500],
            [2.0000, 2.0000]]))

    Over the whole image (global average pooling) it takes the place of the first full connection:

    >>> F.adaptive_avg_pool2d(x, 1).item(), x.mean().item()
    (3.125, 3.125)
    """
    return windows(x, size, stride).mean(dim=-1)


def stochastic_pool(x: Tensor, size: int, generator: torch.Generator | None = None, training: bool = True) -> Tensor:
    """The maximum always trains the same units: a draw trains the others too. (5-6)

    Draws one value of each window, a large one more likely. Zeiler and Fergus, 2013.

    `(N, C, H, W) -> (N, C, H', W')`, x not negative. The probability of a value is its share of the window's sum (so
    it stands after a ReLU). In evaluation it gives the mean with these probabilities.

    >>> x = torch.tensor([[0.0, 1.0], [3.0, 0.0]]).view(1, 1, 2, 2)
    >>> stochastic_pool(x, 2, training=False).item(), (1 * 1 + 3 * 3) / 4
    (2.5, 2.5)
    >>> many = stochastic_pool(x.repeat(10_000, 1, 1, 1), 2, torch.Generator().manual_seed(0))
    >>> many.unique(), round(many.mean().item(), 1)
    (tensor([1., 3.]), 2.5)
    """
    values = windows(x, size)
    total = values.sum(dim=-1, keepdim=True)
    share = torch.where(total > 0, values / total.clamp(min=1e-12), torch.full_like(values, 1 / values.shape[-1]))
    if not training:
        return (share * values).sum(dim=-1)
    index = torch.multinomial(share.reshape(-1, share.shape[-1]), 1, generator=generator)
    return values.gather(-1, index.view(*values.shape[:-1], 1)).squeeze(-1)


def mixed_pool(x: Tensor, size: int, mixture: float | Tensor) -> Tensor:
    """Maximum or mean? Let the network find out. (5-6)

    mixture * max + (1 - mixture) * mean; the mixture drawn or learned. Yu et al., 2014. `(N, C, H, W)`.

    >>> x = torch.tensor([[0.0, 1.0], [3.0, 0.0]]).view(1, 1, 2, 2)
    >>> [mixed_pool(x, 2, mixture).item() for mixture in (0.0, 0.5, 1.0)]
    [1.0, 2.0, 3.0]

    As a number that learns: its gradient is the maximum minus the mean.

    >>> mixture = torch.tensor(0.5, requires_grad=True)
    >>> mixed_pool(x, 2, mixture).sum().backward()
    >>> mixture.grad
    tensor(2.)
    """
    return mixture * max_pool(x, size) + (1 - mixture) * average_pool(x, size)


def power_pool(x: Tensor, size: int, p: float) -> Tensor:
    """Sum, length and maximum are one family, with one number to turn. (5-6)

    Lp pooling: (sum x^p)^(1/p); p = 1 is the sum, and for p to infinity it becomes the maximum.

    `(N, C, H, W) -> (N, C, H', W')`.

    >>> x = torch.tensor([[0.0, 1.0], [3.0, 2.0]]).view(1, 1, 2, 2)
    >>> [round(power_pool(x, 2, p).item(), 3) for p in (1, 2, 10, 50)]
    [6.0, 3.742, 3.005, 3.0]
    >>> torch.allclose(power_pool(x, 2, 2.0), F.lp_pool2d(x, 2.0, 2))
    True
    """
    return windows(x, size).pow(p).sum(dim=-1).pow(1 / p)


def upsample_nearest(x: Tensor, factor: int) -> Tensor:
    """A segmentation must answer for each pixel: grow the small map again. (5-6)

    The way back up (上采样): repeat each value. `(N, C, H, W) -> (N, C, fH, fW)`.

    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    >>> upsample_nearest(x, 2)[0, 0]
    tensor([[1., 1., 2., 2.],
            [1., 1., 2., 2.],
            [3., 3., 4., 4.],
            [3., 3., 4., 4.]])
    >>> torch.equal(upsample_nearest(x, 2), F.interpolate(x, scale_factor=2, mode="nearest"))
    True

    Unpooling puts each maximum back where it came from, which `return_indices` remembers:

    >>> y = torch.tensor([[1.0, 9.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    >>> pooled, places = F.max_pool2d(y, 2, return_indices=True)
    >>> F.max_unpool2d(pooled, places, 2)[0, 0]
    tensor([[0., 9.],
            [0., 0.]])
    """
    return x.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
