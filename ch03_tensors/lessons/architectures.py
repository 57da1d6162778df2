"""The building blocks of the classic networks: serial, skip, light, many-branched, with attention.

    python -m lessons architectures
    python -m lessons optimisation             (the next one)

Whole networks are trained in the chapters on image classification; here stands one block of each kind.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TITLE = "Building blocks of convolutional networks"
TITLE_ZH = "经典、轻量、多分支与 attention 的网络结构"
LESSONS = {
    "5-8": "经典卷积神经网络结构",
    "5-9": "轻量型网络结构",
    "5-10": "多分支网络结构",
    "5-11": "attention的网络结构",
}


def conv_bn(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Nearly all networks for images repeat these three layers: give them a name. (5-8)

    Convolution, BatchNorm, ReLU: the usual order. No bias, for BatchNorm takes the mean away.

    >>> conv_bn(3, 8, stride=2)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 8, 16, 16])
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


class LeNet5(nn.Module):
    """The first convolutional network in daily use (it read bank cheques) has all the parts of today's. (5-8)

    In series (串联): LeNet-5, LeCun et al., 1998. `(N, 1, 32, 32) -> (N, 10)`.

    Six maps, pooling, sixteen maps, pooling, 120, 84, 10; today's tanh-and-pooling form of it.

    >>> model = LeNet5()
    >>> model(torch.zeros(2, 1, 32, 32)).shape, sum(p.numel() for p in model.parameters())
    (torch.Size([2, 10]), 61706)
    """

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5),  # (N, 6, 28, 28)
            nn.Tanh(),
            nn.AvgPool2d(2),  # (N, 6, 14, 14)
            nn.Conv2d(6, 16, 5),  # (N, 16, 10, 10)
            nn.Tanh(),
            nn.AvgPool2d(2),  # (N, 16, 5, 5)
            nn.Conv2d(16, 120, 5),  # (N, 120, 1, 1)
            nn.Tanh(),
        )
        self.classifier = nn.Sequential(nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class ResidualBlock(nn.Module):
    """Past some depth more plain layers made networks worse, even in training: skips end that. (5-8)

    With a skip (跳连): the block learns what to add to its input. He et al., 2015.

    `(N, C, H, W) -> (N, K, H / stride, W / stride)`.

    >>> ResidualBlock(8, 16, stride=2)(torch.zeros(2, 8, 16, 16)).shape
    torch.Size([2, 16, 8, 8])

    The sum gives the gradient a way past the block. With the block's last scale at 0 it is the identity, and the
    gradient of the input is whole:

    >>> block = ResidualBlock(4, 4)
    >>> _ = nn.init.zeros_(block.second[1].weight)
    >>> x = torch.rand(2, 4, 5, 5, requires_grad=True)
    >>> block(x).sum().backward()
    >>> torch.equal(x.grad, torch.ones_like(x))
    True
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.first = conv_bn(in_channels, out_channels, stride=stride)
        self.second = conv_bn(out_channels, out_channels)[:2]  # ReLU only after the sum
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(in_channels, out_channels, 1, stride)[:2]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


def mobile_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """A phone must do with a small part of a graphics card's power and memory. (5-9)

    MobileNet v1: depthwise 3 x 3, then pointwise 1 x 1. Howard et al., 2017.

    `(N, C, H, W) -> (N, K, H / stride, W / stride)`.

    >>> light, heavy = mobile_block(64, 128), conv_bn(64, 128)
    >>> [sum(p.numel() for p in model.parameters()) for model in (light, heavy)]
    [9152, 73984]
    >>> light(torch.zeros(1, 64, 8, 8)).shape
    torch.Size([1, 128, 8, 8])
    """
    depthwise = conv_bn(in_channels, in_channels, 3, stride, groups=in_channels)
    return nn.Sequential(depthwise, conv_bn(in_channels, out_channels, 1))


class InvertedResidual(nn.Module):
    """Light layers lose information in few channels: keep the wide part cheap, the narrow part linear. (5-9)

    MobileNet v2: narrow, wide, narrow, and no ReLU at the end. Sandler et al., 2018.

    `(N, C, H, W) -> (N, K, H / stride, W / stride)`. A residual block is wide outside and narrow inside; this one the
    other way round, for its depthwise middle is cheap. A ReLU on few channels would lose what the wide middle found.
    v3 adds the SE block below, and h-swish.

    >>> block = InvertedResidual(8, 8)
    >>> block(torch.zeros(2, 8, 6, 6)).shape, InvertedResidual(8, 16, stride=2)(torch.zeros(2, 8, 6, 6)).shape
    (torch.Size([2, 8, 6, 6]), torch.Size([2, 16, 3, 3]))
    >>> [tuple(p.shape) for name, p in block.named_parameters() if p.dim() == 4]
    [(48, 8, 1, 1), (48, 1, 3, 3), (8, 48, 1, 1)]
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, expansion: int = 6):
        super().__init__()
        wide = in_channels * expansion
        self.block = nn.Sequential(
            conv_bn(in_channels, wide, 1),
            conv_bn(wide, wide, 3, stride, groups=wide),
            conv_bn(wide, out_channels, 1)[:2],
        )
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.has_skip else self.block(x)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Grouped convolutions are cheap, and their groups never meet: mix the channels between two of them. (5-9)

    ShuffleNet's step (Zhang et al., 2018): the channels are dealt out like cards, one of each group in turn.
    `(N, C, H, W) -> (N, C, H, W)`; no weights, no arithmetic.

    >>> channel_shuffle(torch.arange(6.0).view(1, 6, 1, 1), groups=2).flatten()
    tensor([0., 3., 1., 4., 2., 5.])
    >>> x = torch.randn(2, 12, 5, 5)
    >>> torch.equal(channel_shuffle(x, 3), nn.ChannelShuffle(3)(x))
    True
    """
    n, channels, height, width = x.shape
    return x.view(n, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


class ShuffleBlock(nn.Module):
    """In a MobileNet nearly all work is in the 1 x 1 convolutions: make those grouped too. (5-9)

    ShuffleNet v1: grouped 1 x 1, shuffle, depthwise 3 x 3, grouped 1 x 1, and the skip. `(N, C, H, W) -> (N, C, H, W)`.

    >>> block = ShuffleBlock(64, groups=4)
    >>> block(torch.zeros(1, 64, 8, 8)).shape
    torch.Size([1, 64, 8, 8])

    The same block without groups has three times the weights:

    >>> [sum(p.numel() for p in ShuffleBlock(64, groups).parameters()) for groups in (1, 4)]
    [9152, 3008]

    Every output depends on every group of the input, which without the shuffle it would not:

    >>> x = torch.randn(1, 64, 3, 3, requires_grad=True)
    >>> ShuffleBlock(64, groups=4).eval().branch(x)[0, 0].sum().backward()
    >>> [bool(part.any()) for part in x.grad.chunk(4, dim=1)]
    [True, True, True, True]
    """

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.groups = groups
        self.first = conv_bn(channels, channels, 1, groups=groups)
        self.depthwise = conv_bn(channels, channels, 3, groups=channels)[:2]
        self.last = conv_bn(channels, channels, 1, groups=groups)[:2]

    def branch(self, x: Tensor) -> Tensor:
        """What is added to the input."""
        return self.last(self.depthwise(channel_shuffle(self.first(x), self.groups)))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.branch(x))


class InceptionBlock(nn.Module):
    """An object may be large or small in the picture: look with several kernels at once. (5-10)

    Many branches (多分支): several kernel sizes side by side. Szegedy et al., 2014.

    `(N, C, H, W) -> (N, 4 K, H, W)`. 1 x 1 convolutions make the input thin before the costly kernels.

    >>> InceptionBlock(32, 8)(torch.zeros(2, 32, 7, 7)).shape
    torch.Size([2, 32, 7, 7])
    """

    def __init__(self, in_channels: int, branch_channels: int):
        super().__init__()
        thin = branch_channels // 2
        self.branches = nn.ModuleList(
            [
                conv_bn(in_channels, branch_channels, 1),
                nn.Sequential(conv_bn(in_channels, thin, 1), conv_bn(thin, branch_channels, 3)),
                nn.Sequential(conv_bn(in_channels, thin, 1), conv_bn(thin, branch_channels, 5)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_bn(in_channels, branch_channels, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class SqueezeExcitation(nn.Module):
    """Not every channel matters for every image: let the image decide. (5-11)

    Channel attention: which channels matter? Hu et al., 2018. `(N, C, H, W) -> (N, C, H, W)`.

    Squeeze: each channel's mean. Excite: two small layers make a weight between 0 and 1 of it. Scale.

    >>> block, x = SqueezeExcitation(8, 2), torch.randn(2, 8, 5, 5)
    >>> block.weights(x).shape, block(x).shape
    (torch.Size([2, 8, 1, 1]), torch.Size([2, 8, 5, 5]))
    >>> from torchvision.ops import SqueezeExcitation as Reference
    >>> reference = Reference(8, 2)
    >>> reference.load_state_dict(block.state_dict())
    <All keys matched successfully>
    >>> torch.allclose(block(x), reference(x))
    True
    """

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def weights(self, x: Tensor) -> Tensor:
        """`(N, C, H, W) -> (N, C, 1, 1)`, in (0, 1)."""
        return torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights(x)


class SpatialAttention(nn.Module):
    """The background fills most of a picture: say which places count. (5-11)

    Spatial attention: which places matter? CBAM, Woo et al., 2018. `(N, C, H, W) -> (N, C, H, W)`.

    Mean and maximum over the channels, as two images, and a 7 x 7 convolution over them.

    >>> block, x = SpatialAttention(), torch.randn(2, 8, 9, 9)
    >>> block.weights(x).shape, block(x).shape
    (torch.Size([2, 1, 9, 9]), torch.Size([2, 8, 9, 9]))
    >>> bool(((block.weights(x) > 0) & (block.weights(x) < 1)).all())
    True
    """

    def __init__(self, kernel: int = 7):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def weights(self, x: Tensor) -> Tensor:
        """`(N, C, H, W) -> (N, 1, H, W)`, in (0, 1)."""
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(summary))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights(x)
