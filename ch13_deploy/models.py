"""The networks of the chapter, each whole in one place, and build(arch, num_classes) over one dict of names.

    python models.py              # arch and parameters of each

resnet10 is the chapter's own, tiny is the student it teaches (compress.py). mobilenet and fastnet are chapter 6's,
layer for layer, so that its weights can be deployed from here: --weights ../ch06_cifar10/weights/mobilenet.safetensors
"""

import difflib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import utils
from utils import fail


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """(N, in, H, W) -> (N, out, H/stride, W/stride)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Classifier(nn.Module):
    """(N, 3, H, W) -> (N, K) logits: features, pooling, head. The shape that all networks here share."""

    def __init__(self, features: nn.Module, head: nn.Module):
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them (He et al. 2015, "Deep Residual Learning for Image Recognition").
    (N, in, H, W) -> (N, channels, H/stride, W/stride). Only `inner` channels lie between the two: what pruning narrows."""

    def __init__(self, in_channels: int, channels: int, stride: int, inner: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet10(Classifier):
    """A 3x3 stem and four residual blocks, 32 to 256 channels wide, 32x32 -> 4x4; 1.22 M parameters, 25 M multiplications."""

    WIDTHS = (32, 64, 128, 256)

    def __init__(self, num_classes: int = 10, inner: tuple[int, ...] = WIDTHS):
        blocks, channels = [conv_bn_relu(3, 16, 3)], 16
        for width, between, stride in zip(self.WIDTHS, inner, (2, 2, 2, 1), strict=True):
            blocks.append(Block(channels, width, stride, between))
            channels = width
        super().__init__(nn.Sequential(*blocks), nn.Linear(channels, num_classes))


class Tiny(Classifier):
    """Four plain convolutions: what a small device has room for; 0.06 M parameters."""

    def __init__(self, num_classes: int = 10):
        widths = ((3, 16, 1), (16, 32, 2), (32, 48, 2), (48, 96, 2))
        layers = [conv_bn_relu(before, after, 3, stride) for before, after, stride in widths]
        super().__init__(nn.Sequential(*layers), nn.Linear(96, num_classes))


class MobileNet(Classifier):
    """Chapter 6's MobileNet v1 (Howard et al. 2017, "MobileNets"): a stem and eight depthwise separable convolutions."""

    def __init__(self, num_classes: int = 10):
        layers, channels = [conv_bn_relu(3, 32, 3)], 32
        for width, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)):
            layers += [conv_bn_relu(channels, channels, 3, stride, groups=channels), conv_bn_relu(channels, width, 1)]
            channels = width
        super().__init__(nn.Sequential(*layers), nn.Linear(channels, num_classes))


class FastNet(Classifier):
    """Chapter 6's speed-run network (after Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"), to be run here
    and not trained: its first layer's filters come with the weights."""

    def __init__(self, num_classes: int = 10):
        layers, channels = [nn.Conv2d(3, 24, 2), nn.GELU()], 24
        for width in (64, 256, 256):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.MaxPool2d(2)]
            layers += [nn.BatchNorm2d(width), nn.GELU(), nn.Conv2d(width, width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.GELU()]
            channels = width
        super().__init__(nn.Sequential(*layers), nn.Linear(channels, num_classes, bias=False))
        self.pool = nn.AdaptiveMaxPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1)) / 9


class Deployable(nn.Module):
    """A network with its preprocessing inside: (N, 3, S, S) uint8 pixels -> (N, K) logits.

    What is in the graph cannot be forgotten by who calls it: the mean and the standard deviation travel with the weights.
    """

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]):
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network((pixels.float() - self.mean) / self.std)


MODELS = {"resnet10": ResNet10, "tiny": Tiny, "mobilenet": MobileNet, "fastnet": FastNet}
NEEDED = {"arch", "classes", "data", "mean", "std", "image_size"}  # what a file of weights says of itself


def build(arch: str, num_classes: int = 10, **options) -> nn.Module:
    """-> the network named `arch`, with fresh weights. A wrong name ends the program with the right ones."""
    if arch not in MODELS:
        close = difflib.get_close_matches(arch, MODELS, 1)
        hint = f" did you mean {close[0]}?" if close else ""
        fail(f"no architecture {arch!r};{hint} there are: {', '.join(MODELS)}")
    return MODELS[arch](num_classes=num_classes, **options)


def load(path) -> tuple[Deployable, dict]:
    """A file of weights (.safetensors) or a checkpoint (.pt) -> the network in eval mode, and what the file says of it."""
    if str(path).endswith(".safetensors"):
        state, meta = utils.load_weights(path)
    else:
        saved = utils.load_checkpoint(path)
        state, meta = (saved.get("model"), saved.get("meta")) if isinstance(saved, dict) else (None, None)
    if not isinstance(state, dict) or not isinstance(meta, dict) or NEEDED - meta.keys():
        fail(f"{path}: holds no network of this chapter or of chapter 6 ({', '.join(sorted(NEEDED))} are needed)")
    options = {"inner": meta["inner"]} if "inner" in meta else {}
    network = build(meta["arch"], len(meta["classes"]), **options)
    utils.load_state(network, state, path, meta["arch"])
    return Deployable(network, meta["mean"], meta["std"]).eval(), meta


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    for arch in MODELS:
        print(f"{arch:<10}{count_parameters(build(arch)):>12,}")
