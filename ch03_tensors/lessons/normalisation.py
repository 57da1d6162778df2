"""Five normalisations by hand. They differ in one thing: over which dimensions mean and variance are taken.

python -m lessons normalisation
python -m lessons initialisation           (the next one)

                over            of (N, C, H, W)     good for
BatchNorm       N, H, W         each channel        large batches
LayerNorm       C, H, W         each sample         any batch size; in a Transformer: each token's features alone
InstanceNorm    H, W            each channel of each sample     style transfer
GroupNorm       C / G, H, W     each group of each sample       small batches
SwitchableNorm  a learned mixture of Batch, Layer and Instance
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TITLE = "Normalisation"
TITLE_ZH = "归一化层"
LESSONS = {"3-34": "Pytorch与nn库", "5-7": "激活层-BN层-FC层-损失层"}
FORMULAS = {
    "normalise": r"\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}",
}


def normalise(x: Tensor, dims: tuple[int, ...], eps: float = 1e-5) -> Tensor:
    """Layers learn faster if their inputs stay near mean 0 and variance 1. (3-34)

    (x - mean) / sqrt(variance + eps) over `dims`; the variance divides by the count.

    >>> x = torch.tensor([[1.0, 3.0], [10.0, 30.0]])
    >>> normalise(x, (1,)).round(decimals=3)
    tensor([[-1.,  1.],
            [-1.,  1.]])
    >>> normalise(x, (0,)).round(decimals=3)
    tensor([[-1., -1.],
            [ 1.,  1.]])
    """
    mean = x.mean(dims, keepdim=True)
    variance = x.var(dims, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps)


class Affine(nn.Module):
    """A layer may need another scale than 1: let it learn scale and shift back. (3-34)

    Scale and shift of each channel, learned, after a normalisation. `(N, C, ..) -> (N, C, ..)`.

    >>> Affine(2)(torch.ones(1, 2, 1)).flatten().tolist()
    [1.0, 1.0]
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.dim() - 2)
        return x * self.weight.view(shape) + self.bias.view(shape)


class BatchNorm(Affine):
    """Deep networks for images train faster with it, and bear larger learning rates. (3-34, 5-7)

    Normalises each channel over the batch; `(N, C, ..) -> (N, C, ..)`. Ioffe and Szegedy, 2015.

    In training it uses the batch's own mean and variance and keeps running ones; in evaluation it uses those, so that
    a sample's result does not depend on its neighbours.

    >>> layer, reference = BatchNorm(3), nn.BatchNorm2d(3)
    >>> x = torch.randn(4, 3, 5, 5) * 7 + 100
    >>> torch.allclose(layer(x), reference(x), atol=1e-4)
    True
    >>> torch.allclose(layer.eval()(x), reference.eval()(x), atol=1e-4)
    True
    >>> torch.allclose(layer.running_var, reference.running_var)
    True

    The one-dimensional form is the same on `(N, C)` or `(N, C, L)`:

    >>> rows = torch.randn(8, 3)
    >>> torch.allclose(BatchNorm(3)(rows), torch.nn.BatchNorm1d(3)(rows), atol=1e-5)
    True
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__(channels)
        self.eps, self.momentum = eps, momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        dims = (0, *range(2, x.dim()))
        if self.training:
            with torch.no_grad():
                # the running variance divides by count - 1, the one that normalises by count: so does torch
                self.running_mean.lerp_(x.mean(dims), self.momentum)
                self.running_var.lerp_(x.var(dims), self.momentum)
            return super().forward(normalise(x, dims, self.eps))
        shape = (-1,) + (1,) * (x.dim() - 2)
        mean, variance = self.running_mean.view(shape), self.running_var.view(shape)
        return super().forward((x - mean) / torch.sqrt(variance + self.eps))


class LayerNorm(nn.Module):
    """Sentences differ in length and batches may be tiny: normalise each token alone. (3-34)

    Normalises each sample over its last dimensions, `(.., *shape) -> (.., *shape)`. Ba et al., 2016.

    Scale and shift have that whole shape, not one number a channel.

    >>> x = torch.randn(4, 3, 5, 5)
    >>> torch.allclose(LayerNorm((3, 5, 5))(x), nn.LayerNorm((3, 5, 5))(x), atol=1e-5)
    True

    A Transformer normalises the features of each token, `LayerNorm((D,))` on `(N, T, D)`: one mean and one variance for
    each token of each sequence, and no token changes what another becomes.

    >>> tokens = torch.randn(2, 7, 16) * 5 + 3
    >>> out = LayerNorm((16,))(tokens)
    >>> torch.allclose(out.mean(2), torch.zeros(2, 7), atol=1e-5), torch.allclose(out, nn.LayerNorm(16)(tokens), atol=1e-5)
    (True, True)
    >>> torch.allclose(LayerNorm((16,))(tokens[:, :1]), out[:, :1], atol=1e-5)
    True
    """

    def __init__(self, shape: tuple[int, ...], eps: float = 1e-5):
        super().__init__()
        self.shape, self.eps = tuple(shape), eps
        self.weight = nn.Parameter(torch.ones(self.shape))
        self.bias = nn.Parameter(torch.zeros(self.shape))

    def forward(self, x: Tensor) -> Tensor:
        dims = tuple(range(-len(self.shape), 0))
        return normalise(x, dims, self.eps) * self.weight + self.bias


class InstanceNorm(Affine):
    """A picture's contrast is its style: take it away, and another style can be put on. (3-34)

    Normalises each channel of each sample, `(N, C, H, W) -> (N, C, H, W)`. Ulyanov et al., 2016.

    torch's has no scale and shift unless `affine=True`; this one has.

    >>> x = torch.randn(4, 3, 5, 5)
    >>> torch.allclose(InstanceNorm(3)(x), nn.InstanceNorm2d(3, affine=True)(x), atol=1e-5)
    True
    >>> torch.allclose(InstanceNorm(3)(x[:, :, 0]), torch.nn.InstanceNorm1d(3)(x[:, :, 0]), atol=1e-5)
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(normalise(x, tuple(range(2, x.dim()))))


class GroupNorm(Affine):
    """Detection and segmentation have two images a batch: too few for BatchNorm's means. (3-34)

    Normalises groups of channels of each sample, `(N, C, H, W) -> (N, C, H, W)`. Wu and He, 2018.

    One group is LayerNorm over C, H, W, as many groups as channels is InstanceNorm.

    >>> x = torch.randn(4, 6, 5, 5)
    >>> torch.allclose(GroupNorm(3, 6)(x), nn.GroupNorm(3, 6)(x), atol=1e-5)
    True
    >>> torch.allclose(GroupNorm(6, 6)(x), InstanceNorm(6)(x), atol=1e-6)
    True
    """

    def __init__(self, groups: int, channels: int):
        super().__init__(channels)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, channels = x.shape[:2]
        grouped = x.reshape(n, self.groups, channels // self.groups, *x.shape[2:])
        return super().forward(normalise(grouped, tuple(range(2, grouped.dim()))).reshape(x.shape))


class SwitchableNorm(Affine):
    """Which normalisation suits a layer? Let it learn the mixture. (3-34)

    Mixes the statistics of Instance-, Layer- and BatchNorm with learned weights. Luo et al., 2019.

    `(N, C, H, W) -> (N, C, H, W)`. Means and variances have mixtures (softmax) of their own. Layer and batch
    statistics follow from the instances': the variance of a union is the mean of the variances plus the variance of
    the means. torch has no such layer; with all weight on one of the three it must equal that one.

    >>> x = torch.randn(4, 3, 5, 5)
    >>> layer = SwitchableNorm(3)
    >>> references = (InstanceNorm(3), LayerNorm((3, 5, 5)), BatchNorm(3))
    >>> for logits, reference in zip(torch.eye(3).log(), references):
    ...     layer.mean_logits.data, layer.var_logits.data = logits, logits
    ...     print(torch.allclose(layer(x), reference(x), atol=1e-5))
    True
    True
    True
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__(channels)
        self.eps, self.momentum = eps, momentum
        self.mean_logits = nn.Parameter(torch.zeros(3))
        self.var_logits = nn.Parameter(torch.zeros(3))
        self.register_buffer("running_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("running_var", torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean_in, var_in = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)  # (N, C, 1, 1)
        square = var_in + mean_in**2  # E[x^2], which may be averaged where a variance may not
        mean_ln = mean_in.mean(1, keepdim=True)
        var_ln = square.mean(1, keepdim=True) - mean_ln**2
        if self.training:
            mean_bn = mean_in.mean(0, keepdim=True)
            var_bn = square.mean(0, keepdim=True) - mean_bn**2
            with torch.no_grad():
                self.running_mean.lerp_(mean_bn, self.momentum)
                self.running_var.lerp_(var_bn, self.momentum)
        else:
            mean_bn, var_bn = self.running_mean, self.running_var
        a, b = F.softmax(self.mean_logits, dim=0), F.softmax(self.var_logits, dim=0)
        mean = a[0] * mean_in + a[1] * mean_ln + a[2] * mean_bn
        variance = b[0] * var_in + b[1] * var_ln + b[2] * var_bn
        return super().forward((x - mean) / torch.sqrt(variance + self.eps))
