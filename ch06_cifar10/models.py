"""The networks of the chapter, each whole in one place, and build(arch, num_classes) over one dict of names.

    python models.py              # arch, parameters, MACs, receptive field, depth of each, at 32x32
    python models.py resnet18     # that one, layer by layer

Every network is `features` (convolutions, (N, 3, H, W) -> (N, C, h, w)), then a pooling that makes any image size
fit, then `head` (-> (N, K) logits). No softmax at the end: cross_entropy takes logits, and a log-softmax before it
(as the course's VGG has) is computed twice for nothing.
"""

import difflib
import math
import sys

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import utils
from utils import fail


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """(N, in, H, W) -> (N, out, H/stride, W/stride). No bias: the batch normalisation that follows has one."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Classifier(nn.Module):
    """(N, 3, H, W) -> (N, K) logits: features, pooling to `pool` x `pool`, head. The shape that all networks here share."""

    def __init__(self, features: nn.Module, pool: int, head: nn.Module):
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(pool)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))


class LeNet5(Classifier):
    """LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", for colour: C1 has three input
    channels. ReLU and max pooling in place of the scaled tanh and the trained average pooling of 1998."""

    def __init__(self, num_classes: int = 10):
        features = nn.Sequential(
            nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2),  # C1, S2: (N, 6, 14, 14)
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),  # C3, S4: (N, 16, 5, 5)
        )  # fmt: skip
        head = nn.Sequential(
            nn.Linear(16 * 5 * 5, 120), nn.ReLU(),  # C5, a convolution over all of its 5x5 input
            nn.Linear(120, 84), nn.ReLU(),  # F6
            nn.Linear(84, num_classes),
        )  # fmt: skip
        super().__init__(features, 5, head)


class AlexNet(Classifier):
    """Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", for 32x32: its five
    convolutions and three linear layers, but 3x3 kernels, a first stride of 1, and 1,024 hidden units for 4,096."""

    def __init__(self, num_classes: int = 10):
        features = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),  # (N, 64, 16, 16)
            nn.Conv2d(64, 192, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),  # (N, 192, 8, 8)
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),  # (N, 256, 4, 4)
        )  # fmt: skip
        head = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(256 * 4 * 4, 1024), nn.ReLU(inplace=True),
            nn.Dropout(0.5), nn.Linear(1024, 1024), nn.ReLU(inplace=True),
            nn.Linear(1024, num_classes),
        )  # fmt: skip
        super().__init__(features, 4, head)


class VGG(Classifier):
    """The course's VGG (6-6): seven 3x3 convolutions in four stages, each halved by max pooling, one linear layer.
    Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition", with batch norm."""

    def __init__(self, num_classes: int = 10):
        features = nn.Sequential(
            conv_bn_relu(3, 64, 3), nn.MaxPool2d(2),  # (N, 64, 16, 16)
            conv_bn_relu(64, 128, 3), conv_bn_relu(128, 128, 3), nn.MaxPool2d(2),  # (N, 128, 8, 8)
            conv_bn_relu(128, 256, 3), conv_bn_relu(256, 256, 3), nn.MaxPool2d(2),  # (N, 256, 4, 4)
            conv_bn_relu(256, 512, 3), conv_bn_relu(512, 512, 3), nn.MaxPool2d(2),  # (N, 512, 2, 2)
        )  # fmt: skip
        super().__init__(features, 2, nn.Linear(512 * 2 * 2, num_classes))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the identity beside them (He et al. 2015, "Deep Residual Learning for Image Recognition").
    (N, in, H, W) -> (N, channels, H/stride, W/stride); where the shapes differ, the shortcut is a 1x1 convolution."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))  # added before the last ReLU: the block can also lower a value


class Bottleneck(nn.Module):
    """1x1 down to `channels`, 3x3, 1x1 up to 4 x `channels` (He et al. 2015): three layers at about the cost of one BasicBlock.
    (N, in, H, W) -> (N, 4 * channels, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.shortcut = shortcut(in_channels, 4 * channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.shortcut(x))


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """The way around a block: nothing at all where the shapes agree, else a strided 1x1 convolution."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(Classifier):
    """A 3x3 stem and four stages of residual blocks; the first block of a stage has the stage's stride."""

    def __init__(self, block: type, depths: tuple, stem: int, strides: tuple, num_classes: int):
        layers, channels = [conv_bn_relu(3, stem, 3)], stem
        for width, depth, stride in zip((64, 128, 256, 512), depths, strides, strict=True):
            for i in range(depth):
                layers.append(block(channels, width, stride if i == 0 else 1))
                channels = width * block.expansion
        super().__init__(nn.Sequential(*layers), 1, nn.Linear(channels, num_classes))


def course_resnet(num_classes: int = 10) -> ResNet:
    """The course's ResNet (6-9): a stem of 32 channels and a stride of 2 in every stage, 32x32 -> 2x2: quick on a CPU."""
    return ResNet(BasicBlock, (2, 2, 2, 2), 32, (2, 2, 2, 2), num_classes)


def resnet18(num_classes: int = 10) -> ResNet:
    """ResNet-18 with the CIFAR stem (3x3, stride 1, no pooling), 32x32 -> 4x4: 11.17 M parameters for 10 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), 64, (1, 2, 2, 2), num_classes)


def resnet50(num_classes: int = 10) -> ResNet:
    """ResNet-50 with the CIFAR stem: 23.52 M parameters for 10 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), 64, (1, 2, 2, 2), num_classes)


class MobileNet(Classifier):
    """The course's MobileNet v1 (6-11), 0.28 M parameters: a 3x3 stem and eight depthwise separable convolutions
    (Howard et al. 2017, "MobileNets"): a 3x3 filter a channel, then a 1x1 convolution that mixes the channels."""

    def __init__(self, num_classes: int = 10):
        layers, channels = [conv_bn_relu(3, 32, 3)], 32
        for width, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)):
            layers += [conv_bn_relu(channels, channels, 3, stride, groups=channels), conv_bn_relu(channels, width, 1)]
            channels = width
        super().__init__(nn.Sequential(*layers), 1, nn.Linear(channels, num_classes))  # features: (N, 512, 2, 2)


class Inception(nn.Module):
    """Four ways to look at the same input, side by side (Szegedy et al. 2014, "Going Deeper with Convolutions"):
    1x1; 1x1 then 3x3; 1x1 then 5x5; pooling then 3x3 (the course's; 1x1 in the paper).
    (N, in, H, W) -> (N, 4 * width, H, W)."""

    def __init__(self, in_channels: int, width: int, reduced: int):
        super().__init__()
        self.branch1 = conv_bn_relu(in_channels, width, 1)
        self.branch2 = nn.Sequential(conv_bn_relu(in_channels, reduced, 1), conv_bn_relu(reduced, width, 3))
        self.branch3 = nn.Sequential(conv_bn_relu(in_channels, reduced, 1), conv_bn_relu(reduced, width, 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn_relu(in_channels, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class InceptionNet(Classifier):
    """The course's small Inception network (6-12, 6-13): a strided stem, then two Inception modules, each pooled."""

    def __init__(self, num_classes: int = 10):
        features = nn.Sequential(
            conv_bn_relu(3, 64, 7, stride=2),  # (N, 64, 16, 16); the course pads by 1, which loses the border
            conv_bn_relu(64, 128, 3, stride=2),  # (N, 128, 8, 8)
            Inception(128, 64, reduced=16), nn.MaxPool2d(3, 2, 1),  # (N, 256, 4, 4)
            Inception(256, 96, reduced=32), nn.MaxPool2d(3, 2, 1),  # (N, 384, 2, 2)
        )  # fmt: skip
        super().__init__(features, 1, nn.Linear(384, num_classes))


class TorchvisionResNet18(Classifier):
    """torchvision's ResNet-18 (6-14) with a new last layer, from random or (`pretrained`) from ImageNet weights.
    Its stem divides the size by 4 at once, made for 224 pixels: give it `--image-size 128` or more to shine."""

    def __init__(self, num_classes: int = 10, pretrained: bool = False):
        weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1 if pretrained else None
        try:
            net = torchvision.models.resnet18(weights=weights)
        except OSError as error:  # no network, or the download broke: torch.hub checks the hash
            fail(
                f"cannot download {weights.url} ({error}); "
                f"put the file into {torch.hub.get_dir()}/checkpoints, or leave out --pretrained"
            )
        super().__init__(nn.Sequential(*list(net.children())[:-2]), 1, nn.Linear(net.fc.in_features, num_classes))


class Block(nn.Module):
    """A Transformer block (Vaswani et al. 2017), norm first: every patch looks at every other, then each thinks for itself.
    (N, T, C) -> (N, T, C)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.answer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.think = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.ask(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # each (N, heads, T, C')
        x = x + self.answer(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.think(self.norm2(x))


class Encoder(nn.Module):
    """(N, 3, H, W) -> (N, C, H/4, W/4): patches of 4x4 pixels become vectors, and blocks of attention mix them."""

    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        h, w = x.shape[2:]
        x = x.flatten(2).transpose(1, 2) + places(h, w, x.shape[1], x.device)  # (N, h * w, C)
        return self.norm(self.blocks(x)).transpose(1, 2).unflatten(2, (h, w))


def places(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Where a patch is, (height * width, channels), for attention does not see it: a quarter of the channels each for sin and
    cos of its row and of its column, in waves of many lengths. Any picture size will do."""
    waves = 1000 ** -torch.linspace(0, 1, channels // 4, device=device)
    y, x = (torch.arange(n, device=device)[:, None] * waves for n in (height, width))  # (height, C / 4), (width, C / 4)
    rows, columns = (torch.cat([angle.sin(), angle.cos()], 1) for angle in (y, x))
    return torch.cat([rows[:, None].expand(-1, width, -1), columns.expand(height, -1, -1)], 2).flatten(0, 1)


class ViT(Classifier):
    """A small vision Transformer (Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words"; the mean over the patches in place
    of a class token and fixed places, after Beyer et al. 2022). No layer here knows that neighbouring patches belong together:
    it has to learn that from pictures, so that with few of them the convolutional networks are ahead."""

    def __init__(self, num_classes: int = 10, width: int = 128, depth: int = 6, heads: int = 4):
        super().__init__(Encoder(width, depth, heads), 1, nn.Linear(width, num_classes))


class FastNet(Classifier):
    """The speed run's network, 2.0 M parameters, after Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU".

    The first layer's filters are 2x2 pixels and decorrelate neighbours (`whiten` sets them); of this layer only the bias is
    trained. The others start as the identity, so that the first step's gradients reach the pixels; batch norm has no scale; max
    pooling, since a thing is there if it is seen anywhere. Needs 9 pixels or more."""

    def __init__(self, num_classes: int = 10, widths: tuple = (64, 256, 256)):
        whitening = nn.Conv2d(3, 24, 2, bias=False).requires_grad_(False)  # (N, 24, H-1, W-1)
        whitening.bias = nn.Parameter(torch.zeros(24))
        layers, channels = [whitening, nn.GELU()], 24
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.MaxPool2d(2)]
            layers += [nn.BatchNorm2d(width, momentum=0.4), nn.GELU()]
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width, momentum=0.4), nn.GELU()]
            channels = width
        super().__init__(nn.Sequential(*layers), 1, nn.Linear(channels, num_classes, bias=False))
        self.pool = nn.AdaptiveMaxPool2d(1)
        for layer in layers[1:]:
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight[: layer.in_channels])
            elif isinstance(layer, nn.BatchNorm2d):
                layer.weight.requires_grad_(False)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Sets the first layer from normalised pictures (N, 3, H, W): the eigenvectors of the covariance of their 2x2
        patches, each divided by its standard deviation; and their negatives, as GELU passes one sign."""
        patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 12)
        variance, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (variance + 5e-4).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
        self.features[0].weight.copy_(torch.cat([filters, -filters]))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 9  # keeps the first logits, and so the first gradients, small


MODELS = {
    "lenet5": LeNet5,
    "alexnet": AlexNet,
    "vgg": VGG,
    "resnet": course_resnet,
    "mobilenet": MobileNet,
    "inception": InceptionNet,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "torchvision_resnet18": TorchvisionResNet18,
    "vit": ViT,
    "fastnet": FastNet,
}


def build(arch: str, num_classes: int = 10, **options) -> nn.Module:
    """-> the network named `arch`, with fresh weights. A wrong name ends the program with the right ones."""
    if arch not in MODELS:
        close = difflib.get_close_matches(arch, MODELS, 1)
        hint = f" did you mean {close[0]}?" if close else ""
        fail(f"no architecture {arch!r};{hint} there are: {', '.join(MODELS)}")
    return MODELS[arch](num_classes=num_classes, **options)


def balanced(labels: Tensor, num_classes: int) -> Tensor:
    """Class numbers (N,) -> weights (K,) for the loss, N / (K * the class's count): each class weighs as much as any other."""
    counts = labels.bincount(minlength=num_classes).clamp(min=1)
    return len(labels) / (num_classes * counts.float())


# ---- python models.py -------------------------------------------------------------------------------------------------


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def count_macs(model: nn.Module, image_size: int = 32) -> int:
    """Multiply-accumulates of one picture's forward pass, by formula: a convolution multiplies each of its weights once
    an output pixel, a linear layer each weight once a vector; attention compares all vectors, and adds them up."""
    macs = 0

    def add(layer, inputs, output):
        nonlocal macs
        if isinstance(layer, Block):
            macs += 2 * len(output[0]) * output[0].numel()  # T x T x C, twice
        else:
            macs += layer.weight.numel() * output[0].numel() // len(layer.weight)

    hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear, Block))]
    model.eval()(torch.zeros(1, 3, image_size, image_size))
    for hook in hooks:
        hook.remove()
    return macs


@torch.no_grad()
def count_flops(model: nn.Module, image_size: int = 32) -> int:
    """FLOPs of one picture's forward pass by torch's counter: two a MAC. (A training step is counted as three forward
    passes: the counter overstates the backward pass of grouped convolutions about threefold.)"""
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):  # of the faster ones it counts nothing
        model.eval()(torch.zeros(1, 3, image_size, image_size))
    return counter.get_total_flops()


def receptive_field(module: nn.Module, field: float = 1, stride: int = 1) -> tuple[float, int]:
    """-> (side in pixels of what one output unit sees, pixels between neighbouring units), by the formula: a layer of
    kernel k adds (k - 1) x the stride so far. Along the longest way through; shortcuts see less, attention sees everything."""
    if isinstance(module, Encoder):
        return math.inf, module.patches.stride[0]
    if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
        kernel, step = (n if isinstance(n, int) else n[0] for n in (module.kernel_size, module.stride))
        return field + (kernel - 1) * stride, stride * step
    if isinstance(module, Inception):
        return max(receptive_field(branch, field, stride) for branch in module.children())
    for name, child in module.named_children():
        if name not in ("shortcut", "downsample"):
            field, stride = receptive_field(child, field, stride)
    return field, stride


def depth(module: nn.Module) -> int:
    """Convolutions and linear layers on the longest way through; shortcuts are not counted, as in the papers' names."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        return 1
    depths = [depth(child) for name, child in module.named_children() if name not in ("shortcut", "downsample")]
    return max(depths) if isinstance(module, Inception) else sum(depths)


def main():
    if len(sys.argv) > 1:
        print(build(sys.argv[1]))
        return
    print(f"{'arch':<21}{'parameters':>12}{'MACs':>15}{'field':>7}{'depth':>7}      (32x32 pixels, 10 classes)")
    for arch in MODELS:
        model = build(arch)
        macs = count_macs(model)
        assert 2 * macs == count_flops(model), (
            f"{arch}: the formulas give {macs:,} MACs, torch's counter {count_flops(model) // 2:,}"
        )
        print(
            f"{arch:<21}{count_parameters(model):>12,}{macs:>15,}{receptive_field(model.features)[0]:>7}{depth(model):>7}"
        )


if __name__ == "__main__":
    utils.start(main)
