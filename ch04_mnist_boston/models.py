"""The networks of the three tasks, each whole in one place, and build(task, arch, ...) over one dict of names a task.

    python models.py                  # task, arch, parameters, MACs of each
    python models.py mnist convnet    # that one, layer by layer

boston   (M, n, F) -> (M, n)              M networks at once, each with its own batch
mnist    (N, 1, S, S) -> (N, K) logits    no softmax at the end: cross_entropy takes logits
denoise  (N, 1, S, S) -> (N, 1, S, S)     the noisy picture in, the clean one out

Expect: convnet has 361,770 parameters, and the course's cnn 63,626.
"""

import difflib
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import utils
from utils import fail

# ---- boston: networks for a row of numbers ----------------------------------------------------------------------------


class MemberLinear(nn.Module):
    """A linear layer each for `members` networks: (M, n, in) -> (M, n, out), in one batched matrix product."""

    def __init__(self, members: int, in_features: int, out_features: int):
        super().__init__()
        bound = in_features**-0.5  # nn.Linear's own start
        self.weight = nn.Parameter(torch.empty(members, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Ensemble(nn.Module):
    """`members` networks of one shape, which share nothing but the call. (M, n, F) -> (M, n).

    Averaging networks that started differently takes away the part of their errors that is luck (Hansen and Salamon
    1990, "Neural Network Ensembles"). Ten small ones cost little more than one, as they share each matrix product.
    """

    def __init__(self, features: int, members: int, hidden: tuple[int, ...], activation: nn.Module, dropout: float):
        super().__init__()
        layers, width = [], features
        for wider in hidden:
            layers += [MemberLinear(members, width, wider), activation, nn.Dropout(dropout)]
            width = wider
        self.layers = nn.Sequential(*layers, MemberLinear(members, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[..., 0]


def course(features: int, members: int = 1, width: int = 100, dropout: float = 0.0) -> Ensemble:
    """The course's 13-100-1: one hidden layer of 100 ReLU units."""
    return Ensemble(features, members, (width,), nn.ReLU(), dropout)


def silu(features: int, members: int = 1, width: int = 128, dropout: float = 0.0) -> Ensemble:
    """Two hidden layers of smooth units, x * sigmoid(x) (Elfwing et al. 2017): prices have no kinks either."""
    return Ensemble(features, members, (width, width), nn.SiLU(), dropout)


# ---- mnist: networks that classify a picture --------------------------------------------------------------------------


class MLP(nn.Sequential):
    """Fully connected, as the perceptrons of lessons 4-1 and 4-2: knows nothing of which pixels are neighbours."""

    def __init__(self, num_classes: int = 10, image_size: int = 28):
        super().__init__(
            nn.Flatten(),
            nn.Linear(image_size**2, 256), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(256, num_classes),
        )  # fmt: skip


class CNN(nn.Module):
    """The course's network: one convolution, batch normalisation, pooling, one linear layer."""

    def __init__(self, num_classes: int = 10, image_size: int = 28):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2))
        self.fc = nn.Linear(32 * (image_size // 2) ** 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)  # (N, 32, S/2, S/2)
        return self.fc(x.flatten(1))


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x/3), LeCun's choice: it passes through (1, 1) and (-1, -1), so that it is not saturated at the targets."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class LeNet5(nn.Module):
    """LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition": scaled tanh and average pooling.

    Left out of 1998: S2 and S4's trained coefficient and bias, C3's table of connections (each map saw some of S2's), and
    the output's distance to drawn characters, for which there is a linear layer.
    """

    def __init__(self, num_classes: int = 10, image_size: int = 28):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), ScaledTanh(), nn.AvgPool2d(2),  # C1, S2: (N, 6, 14, 14)
            nn.Conv2d(6, 16, 5), ScaledTanh(), nn.AvgPool2d(2),  # C3, S4: (N, 16, 5, 5)
        )  # fmt: skip
        side = (image_size // 2 - 4) // 2
        self.head = nn.Sequential(
            nn.Linear(16 * side**2, 120), ScaledTanh(),  # C5, a convolution over all of its 5x5 input
            nn.Linear(120, 84), ScaledTanh(),  # F6
            nn.Linear(84, num_classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class AlexNet(nn.Module):
    """Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", for grey pictures.

    One column instead of two GPUs', no local response normalisation. Sizes are those at 224x224; smaller pictures
    (from 63x63) come out of the features as less than 6x6 and are pooled to it.
    """

    def __init__(self, num_classes: int = 10, image_size: int = 224):
        super().__init__()
        if image_size < 63:
            fail(f"--image-size {image_size}: alexnet needs 63 pixels or more")
        self.features = nn.Sequential(
            nn.Conv2d(1, 96, 11, 4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),  # (N, 96, 27, 27)
            nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),  # (N, 256, 13, 13)
            nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),  # (N, 256, 6, 6)
            nn.AdaptiveAvgPool2d(6),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(4096, num_classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """(N, in, H, W) -> (N, out, H/stride, W/stride). No bias: the batch normalisation that follows has one."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class ConvNet(nn.Module):
    """The chapter's own: five convolutions with batch normalisation (Ioffe and Szegedy 2015), one linear layer.

    Strides halve the picture early, so that little is computed at 28x28, where it costs most. The 7x7 map goes to the
    linear layer as it is: where a stroke lies tells digits apart.
    """

    def __init__(self, num_classes: int = 10, image_size: int = 28):
        super().__init__()
        self.features = nn.Sequential(
            conv_bn_relu(1, 32, 3),  # (N, 32, 28, 28)
            conv_bn_relu(32, 32, 5, stride=2),  # (N, 32, 14, 14)
            conv_bn_relu(32, 64, 5, stride=2),  # (N, 64, 7, 7)
            conv_bn_relu(64, 128, 3),
            conv_bn_relu(128, 128, 3),  # (N, 128, 7, 7)
        )
        side = -(-image_size // 4)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * side**2, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x.contiguous(memory_format=torch.channels_last)))


# ---- denoise: networks that return a picture --------------------------------------------------------------------------


class Autoencoder(nn.Module):
    """A denoising encoder-decoder: (N, 1, S, S) noisy -> (N, 1, S, S), with or without skip connections.

    Each level of the encoder halves the picture by a convolution of stride 2; the decoder doubles it again by transposed
    convolutions. A skip connection adds the encoder's map to the decoder's of the same size, before the activation (Mao et
    al. 2016, "Image Restoration Using Very Deep Convolutional Encoder-Decoder Networks with Symmetric Skip Connections").
    The sum needs no weights, so nets with and without have the same number of them.
    """

    def __init__(self, widths: tuple[int, ...], skip: bool):
        super().__init__()
        sizes = (widths[0], *widths)
        self.skip = skip
        self.first = nn.Conv2d(1, widths[0], 3, padding=1)  # (N, C, S, S)
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 3, stride=2, padding=1) for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.last = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [F.relu(self.first(x))]
        for layer in self.down:
            maps.append(F.relu(layer(maps[-1])))  # 28 -> 14 -> 7 -> 4 pixels
        h = maps.pop()
        for layer in reversed(self.up):
            mate = maps.pop()
            # 13 and 14 both halve to 7: the size of the encoder's map tells which it was
            h = layer(h, output_size=mate.shape[-2:])
            h = F.relu(h + mate if self.skip else h)
        return self.last(h)


def shallow(skip: bool = False) -> Autoencoder:
    """28 -> 14 -> 28 pixels."""
    return Autoencoder((16,), skip)


def deep(skip: bool = False) -> Autoencoder:
    """28 -> 14 -> 7 -> 4 -> 7 -> 14 -> 28 pixels."""
    return Autoencoder((16, 32, 48), skip)


MODELS = {
    "boston": {"course": course, "silu": silu},
    "mnist": {"cnn": CNN, "lenet5": LeNet5, "alexnet": AlexNet, "mlp": MLP, "convnet": ConvNet},
    "denoise": {
        "shallow": lambda: shallow(),
        "shallow_skip": lambda: shallow(skip=True),
        "deep": lambda: deep(),
        "deep_skip": lambda: deep(skip=True),
    },
}


def build(task: str, arch: str, *sizes, **options) -> nn.Module:
    """-> the network `arch` of `task`, with fresh weights. A wrong name ends the program with the right ones."""
    if arch not in MODELS[task]:
        close = difflib.get_close_matches(arch, MODELS[task], 1)
        hint = f" did you mean {close[0]}?" if close else ""
        fail(f"no architecture {arch!r} for {task};{hint} there are: {', '.join(MODELS[task])}")
    return MODELS[task][arch](*sizes, **options)


def balanced(labels: Tensor, num_classes: int) -> Tensor:
    """Class numbers (N,) -> weights (K,) for the loss, N / (K * the class's count): each class weighs as much as any other."""
    counts = labels.bincount(minlength=num_classes).clamp(min=1)
    return len(labels) / (num_classes * counts.float())


# ---- python models.py -------------------------------------------------------------------------------------------------


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def count_macs(model: nn.Module, x: Tensor) -> int:
    """Multiply-accumulates of a forward pass of x, by torch's counter of FLOPs, which counts two a MAC."""
    with FlopCounterMode(display=False) as counter:
        model.eval()(x)
    return counter.get_total_flops() // 2


def example(task: str, arch: str) -> tuple[nn.Module, Tensor]:
    """-> that network at its usual size, and one input for it."""
    if task == "boston":
        return build(task, arch, 13), torch.zeros(1, 1, 13)
    size = 224 if arch == "alexnet" else 28
    return (build(task, arch, 10, size) if task == "mnist" else build(task, arch)), torch.zeros(1, 1, size, size)


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] in MODELS:
        build(*sys.argv[1:]) if sys.argv[2] not in MODELS[sys.argv[1]] else print(example(*sys.argv[1:])[0])
        return
    print(f"{'task':<9}{'arch':<14}{'parameters':>12}{'MACs':>16}   input")
    for task, archs in MODELS.items():
        for arch in archs:
            model, x = example(task, arch)
            size = "x".join(map(str, x.shape[1:]))
            print(f"{task:<9}{arch:<14}{count_parameters(model):>12,}{count_macs(model, x):>16,}   {size}")


if __name__ == "__main__":
    utils.start(main)
