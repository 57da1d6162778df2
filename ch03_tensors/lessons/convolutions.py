"""Convolution: as a matrix, transposed, grouped, separable, dilated, deformable; its size, reach and cost.

    python -m lessons convolutions             (with a picture)
    python -m lessons pooling                  (the next one)

(5-5 stands in no title of the notes; what they say below 5-4 about the convolution layer is taken for it.)
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import deform_conv2d

TITLE = "Convolutions"
TITLE_ZH = "卷积神经网 CNN 与卷积层"
LESSONS = {
    "5-4": "卷积神经网CNN",
    "5-5": "卷积层(笔记里没有这一讲的标题)",
    "5-7": "激活层-BN层-FC层-损失层",
}
FORMULAS = {
    "slide": r"y_{ij} = \sum_{a,b} k_{ab} \, x_{i+a, j+b}",
    "output_size": r"\left\lfloor \frac{n + 2p - d(k-1) - 1}{s} \right\rfloor + 1",
    "receptive_field": r"r = 1 + \sum_l d_l (k_l - 1) \prod_{m < l} s_m",
}
FIGURES = {
    "transposed_convolution": "draw_matrices",
    "output_size": "draw_sliding",
    "receptive_field": "draw_fields",
}


def weights_full_and_local(image: int, hidden: int, window: int) -> tuple[int, int]:
    """A full connection to a photograph has more weights than any data can fix. (5-4)

    Why convolve: the weights of a full connection, and of one where each unit sees only a window.

    The notes' numbers, a 200 x 200 image and 10,000 hidden units, windows of 4 x 4:

    >>> weights_full_and_local(image=200, hidden=10_000, window=4)
    (400000000, 160000)

    Sharing the window's weights between all units leaves 16, or 16 for each kind of feature.
    """
    return image * image * hidden, window * window * hidden


def slide(image: Tensor, kernel: Tensor) -> Tensor:
    """The same small pattern (an edge, an eye) may be anywhere: look for it everywhere. (5-4)

    Lay the kernel on the image, multiply, add up, move on. `(H, W), (h, w) -> (H - h + 1, W - w + 1)`.

    (Mathematics would first turn the kernel round; the networks' convolution, a correlation, does not.)

    >>> image = torch.arange(16.0).view(4, 4)
    >>> kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 1]])
    >>> slide(image, kernel)
    tensor([[10., 11.],
            [14., 15.]])
    >>> F.conv2d(image.view(1, 1, 4, 4), kernel.view(1, 1, 3, 3))[0, 0]
    tensor([[10., 11.],
            [14., 15.]])
    """
    (height, width), (h, w) = image.shape, kernel.shape
    rows = [
        torch.stack([(image[y : y + h, x : x + w] * kernel).sum() for x in range(width - w + 1)])
        for y in range(height - h + 1)
    ]
    return torch.stack(rows)


def convolution_matrix(kernel: Tensor, height: int, width: int) -> Tensor:
    """Seen as a matrix, a convolution's gradient and its transpose are easy to understand. (5-4)

    The matrix C with which a convolution is y = C x, x the image row after row.

    `(h, w) -> ((H - h + 1) * (W - w + 1), H * W)`. Each row holds the kernel, at the place of one window, and zeros.

    >>> kernel = torch.arange(1.0, 10).view(3, 3)
    >>> c = convolution_matrix(kernel, 4, 4)
    >>> c.shape, c[0].tolist()
    (torch.Size([4, 16]), [1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 0.0, 7.0, 8.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    >>> image = torch.arange(16.0).view(4, 4)
    >>> torch.equal((c @ image.flatten()).view(2, 2), slide(image, kernel))
    True
    """
    h, w = kernel.shape
    rows = []
    for y in range(height - h + 1):
        for x in range(width - w + 1):
            row = torch.zeros(height, width, dtype=kernel.dtype)
            row[y : y + h, x : x + w] = kernel
            rows.append(row.flatten())
    return torch.stack(rows)


def transposed_convolution(y: Tensor, kernel: Tensor, height: int, width: int) -> Tensor:
    """A decoder, a segmentation and a generator need large images from small ones. (5-5)

    The transposed convolution (转置卷积, "deconvolution") is C^T y: from small to large.

    `(H - h + 1, W - w + 1) -> (H, W)`. It is what the backward pass of a convolution does to the gradient, and it
    gives back the shape, not the values: it is no inverse.

    >>> kernel, image = torch.arange(1.0, 10).view(3, 3), torch.arange(16.0).view(4, 4).requires_grad_()
    >>> y = slide(image, kernel)
    >>> up = transposed_convolution(y.detach(), kernel, 4, 4)
    >>> up.shape, torch.allclose(up, image.detach())
    (torch.Size([4, 4]), False)
    >>> torch.equal(up, F.conv_transpose2d(y.detach()[None, None], kernel[None, None])[0, 0])
    True
    >>> y.backward(y.detach())
    >>> torch.equal(image.grad, up)
    True

    With a stride of 2 it doubles an image, as in a decoder:

    >>> nn.ConvTranspose2d(8, 4, kernel_size=4, stride=2, padding=1)(torch.zeros(1, 8, 16, 16)).shape
    torch.Size([1, 4, 32, 32])
    """
    return (convolution_matrix(kernel, height, width).T @ y.flatten()).view(height, width)


def draw_matrices(folder: Path) -> Path:
    """The matrix of a convolution, and that of the transposed one."""
    from matplotlib.figure import Figure

    c = convolution_matrix(torch.arange(1.0, 10).view(3, 3), 6, 6)
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axis, (title, matrix) in zip(figure.subplots(1, 2), (("C", c), ("C transposed", c.T)), strict=True):
        axis.imshow(matrix.numpy(), cmap="magma")
        axis.set(title=f"{title}, {matrix.shape[0]} x {matrix.shape[1]}")
    figure.savefig(folder / "convolution_matrix.png", dpi=110)
    return folder / "convolution_matrix.png"


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """The error message `size mismatch` is answered by this formula. (5-5)

    (n + 2p - d(k - 1) - 1) / s + 1, rounded down; with d = 1 the notes' (n - f + 2p) / s + 1.

    >>> output_size(50, kernel=3, stride=2), output_size(7, 3, padding=1), output_size(32, 3, padding=2, dilation=2)
    (24, 7, 32)

    The notes' three layers, against torch:

    >>> x = torch.zeros(1, 16, 50, 100)
    >>> nn.Conv2d(16, 33, 3, stride=2)(x).shape[2:], output_size(50, 3, 2), output_size(100, 3, 2)
    (torch.Size([24, 49]), 24, 49)
    >>> layer = nn.Conv2d(16, 33, (3, 5), stride=(2, 1), padding=(4, 2), dilation=(3, 1))
    >>> layer(x).shape[2:], output_size(50, 3, 2, 4, 3), output_size(100, 5, 1, 2)
    (torch.Size([26, 100]), 26, 100)

    "same" keeps the size (padding k // 2 for an odd kernel), "valid" pads nothing.

    >>> nn.Conv2d(16, 8, 5, padding="same")(x).shape[2:], nn.Conv2d(16, 8, 5, padding="valid")(x).shape[2:]
    (torch.Size([50, 100]), torch.Size([46, 96]))
    """
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def draw_sliding(folder: Path) -> Path:
    """A kernel of 3 x 3 goes over an image of 5 x 5 with a border of zeros (padding 1), two squares at a time (stride 2): it
    fits three times in each direction."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from book.drawing import bare, blocks, save_animation

    image, kernel, stride, padding = torch.arange(1.0, 26).view(5, 5), torch.ones(3, 3), 2, 1
    padded, size = F.pad(image, [padding] * 4), output_size(5, 3, stride, padding)
    result = F.conv2d(padded[None, None], kernel[None, None], stride=stride)[0, 0]
    inside = F.pad(torch.ones(5, 5), [padding] * 4).bool().tolist()

    def frame(step: int) -> Figure:
        i, j = divmod(step, size)
        figure = Figure(figsize=(6.4, 3.9), layout="constrained")
        axis = figure.subplots()
        bare(axis, 11.6, 7.2)
        blocks(axis, padded.tolist(), 0, 0, inside)
        done = [[y * size + x <= step for x in range(size)] for y in range(size)]
        blocks(axis, result.tolist(), 8.4, 2, done, "tab:orange")
        for corner, side in (((j * stride, i * stride), 3), ((8.4 + j, 2 + i), 1)):
            axis.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="crimson", linewidth=2.5))
        return figure

    return save_animation([frame(step) for step in range(size**2)], folder / "convolution.gif")


def receptive_field(layers: list[tuple[int, int, int]]) -> int:
    """A unit cannot recognise what it does not see whole: how far does it look? (5-5)

    How many input pixels (along a side) one output sees; layers as (kernel, stride, dilation).

    The receptive field (感受野) grows with each layer by d (k - 1) times the product of the strides before it.

    >>> plain, strided, dilated = [(3, 1, 1)] * 3, [(3, 2, 1)] * 3, [(3, 1, 1), (3, 1, 2), (3, 1, 4)]
    >>> receptive_field(plain), receptive_field(strided), receptive_field(dilated)
    (7, 15, 15)

    autograd knows it too: it is where the gradient of one output is not zero.

    >>> gradient_reach(plain), gradient_reach(strided), gradient_reach(dilated)
    (7, 15, 15)
    """
    reach, jump = 1, 1
    for kernel, stride, dilation in layers:
        reach += dilation * (kernel - 1) * jump
        jump *= stride
    return reach


def draw_fields(folder: Path) -> Path:
    """Three layers with kernels of 3, and what one output sees: plain 7 pixels; with a stride of 2 in each layer, or a
    dilation of 1, 2, 4, it sees 15."""
    from matplotlib.figure import Figure

    chains = {
        "plain": [(3, 1, 1)] * 3,
        "stride 2": [(3, 2, 1)] * 3,
        "dilation 1, 2, 4": [(3, 1, 1), (3, 1, 2), (3, 1, 4)],
    }
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axis, (name, layers) in zip(figure.subplots(1, 3), chains.items(), strict=True):
        seen, at = [0], {0: 0.0}  # units of a layer, and where they stand; from the output down to the image
        for height in (3, 2, 1):
            kernel, stride, dilation = layers[height - 1]
            jump = torch.tensor([s for _, s, _ in layers[: height - 1]]).prod().item()  # pixels between two units below
            below = {}
            for unit in seen:
                for k in range(kernel):
                    place = at[unit] + (k - (kernel - 1) / 2) * dilation * jump
                    below[unit * stride + k * dilation] = place
                    axis.plot([at[unit], place], [height, height - 1], color="tab:blue", linewidth=0.8)
            axis.scatter(list(at.values()), [height] * len(at), color="tab:blue", zorder=3)
            seen, at = list(below), below
        axis.scatter(list(at.values()), [0] * len(at), color="crimson", zorder=3)
        axis.set(title=f"{name}: {receptive_field(layers)} pixels", xlim=(-8, 8), xticks=range(-7, 8, 7))
        axis.set_yticks(range(4), ["image", "1", "2", "3"])
    figure.savefig(folder / "receptive_fields.png", dpi=110)
    return folder / "receptive_fields.png"


def gradient_reach(layers: list[tuple[int, int, int]]) -> int:
    """The same, measured: how many inputs have a gradient from the output in the middle.

    >>> gradient_reach([(5, 1, 1)])
    5
    """
    x = torch.zeros(1, 1, 99, requires_grad=True)
    y = x
    for kernel, stride, dilation in layers:
        y = F.conv1d(y, torch.ones(1, 1, kernel), stride=stride, dilation=dilation)
    y[0, 0, y.shape[2] // 2].backward()
    return int((x.grad != 0).sum())


def grouped_convolution(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Half the weights, or a third, and the work on two devices: split the channels. (5-5)

    Grouped convolution (分组卷积): G small convolutions side by side.

    `(N, C, H, W), (K, C / G, h, w) -> (N, K, H', W')`. AlexNet's way (2012) onto two graphics cards; it has 1 / G of
    the weights and of the work.

    >>> x, weight = torch.randn(2, 6, 8, 8), torch.randn(9, 2, 3, 3)
    >>> torch.allclose(grouped_convolution(x, weight, 3), F.conv2d(x, weight, groups=3), atol=1e-5)
    True
    """
    pairs = zip(x.chunk(groups, dim=1), weight.chunk(groups, dim=0), strict=True)
    return torch.cat([F.conv2d(part, kernels) for part, kernels in pairs], dim=1)


def separable(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """A phone cannot afford full convolutions: split one into two cheap ones. (5-5)

    Depthwise separable (深度可分离): one kernel a channel, then 1 x 1 across channels.

    `(N, C, H, W) -> (N, K, H, W)`: as many groups as channels, then a mixture. Its cost is 1 / K + 1 / k^2 of the
    ordinary one: for 3 x 3, about a ninth.

    >>> ordinary, cheap = nn.Conv2d(64, 128, 3, padding=1, bias=False), separable(64, 128, 3)
    >>> x = torch.zeros(1, 64, 16, 16)
    >>> ordinary(x).shape == cheap(x).shape
    True
    >>> counts = count_parameters(ordinary), count_parameters(cheap)
    >>> counts, round(counts[0] / counts[1], 2)
    ((73728, 8768), 8.41)
    >>> count_flops(ordinary, x), count_flops(cheap, x)
    (37748736, 4489216)
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, kernel, padding=kernel // 2, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
    )


def spread_kernel(kernel: Tensor, dilation: int) -> Tensor:
    """See further without more weights and without losing resolution: segmentation wants that. (5-5)

    Dilated convolution (空洞卷积) is one with zeros between the weights: a larger view, no more weights.

    `(h, w) -> (d (h - 1) + 1, d (w - 1) + 1)`.

    >>> spread_kernel(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), dilation=2)
    tensor([[1., 0., 2.],
            [0., 0., 0.],
            [3., 0., 4.]])
    >>> x, kernel = torch.randn(1, 1, 9, 9), torch.randn(3, 3)
    >>> dilated = F.conv2d(x, kernel.view(1, 1, 3, 3), dilation=3)
    >>> torch.allclose(dilated, F.conv2d(x, spread_kernel(kernel, 3).view(1, 1, 7, 7)), atol=1e-5)
    True
    """
    h, w = kernel.shape
    spread = torch.zeros(dilation * (h - 1) + 1, dilation * (w - 1) + 1, dtype=kernel.dtype)
    spread[::dilation, ::dilation] = kernel
    return spread


class DeformableConv2d(nn.Module):
    """Objects are not square: let each place choose where to look. (5-5)

    Deformable convolution (可变形卷积): a small convolution says where each weight looks. Dai et al., 2017.

    `(N, C, H, W) -> (N, K, H, W)`. The offsets (two numbers, y and x in pixels, for each weight and place) start at
    zero, so that it starts as an ordinary convolution.

    >>> layer = DeformableConv2d(2, 4)
    >>> x = torch.randn(1, 2, 6, 6)
    >>> torch.allclose(layer(x), F.conv2d(x, layer.weight, padding=1), atol=1e-5)
    True

    Offsets of one pixel to the right for all weights shift the picture:

    >>> layer.offset.bias.data[1::2] = 1.0
    >>> torch.allclose(layer(x)[..., 1:-2], F.conv2d(x, layer.weight, padding=1)[..., 2:-1], atol=1e-5)
    True
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel) * 0.1)
        self.offset = nn.Conv2d(in_channels, 2 * kernel * kernel, kernel, padding=kernel // 2)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        return deform_conv2d(x, self.offset(x), self.weight, padding=self.weight.shape[-1] // 2)


def count_parameters(model: nn.Module) -> int:
    """Will it fit on the phone, and is it too large for the data? (5-5)

    Parameters (参数量): K_h K_w C_in C_out, and C_out biases, for a convolution.

    >>> count_parameters(nn.Conv2d(3, 8, 5)) == 5 * 5 * 3 * 8 + 8
    True

    Cheaper layers with the same 5 x 5 view: two 3 x 3, or 1 x 5 after 5 x 1; or fewer channels in between.

    >>> def c(i, o, *k):
    ...     return nn.Conv2d(i, o, k, bias=False)
    >>> for name, layers in {
    ...     "5x5": [c(64, 64, 5, 5)],
    ...     "3x3, 3x3": [c(64, 64, 3, 3), c(64, 64, 3, 3)],
    ...     "5x1, 1x5": [c(64, 64, 5, 1), c(64, 64, 1, 5)],
    ...     "1x1, 5x5, 1x1": [c(64, 16, 1, 1), c(16, 16, 5, 5), c(16, 64, 1, 1)],
    ... }.items():
    ...     print(f"{name:<14} {count_parameters(nn.Sequential(*layers)):>7,}")
    5x5            102,400
    3x3, 3x3        73,728
    5x1, 1x5        40,960
    1x1, 5x5, 1x1    8,448
    """
    return sum(p.numel() for p in model.parameters())


def count_flops(model: nn.Module, x: Tensor) -> int:
    """Will it be fast enough? The parameters alone do not say it. (5-5)

    FLOPs (计算量) of a forward pass; a multiplication and an addition are two. Not FLOPS, operations a second.

    The notes' formula K_h K_w C_in C_out H_out W_out counts the pairs (multiply-accumulates), so it is half of this.

    >>> layer, x = nn.Conv2d(3, 8, 5, padding=2), torch.zeros(1, 3, 10, 10)
    >>> count_flops(layer, x), 2 * (5 * 5 * 3 * 8 * 10 * 10)
    (120000, 120000)
    >>> count_flops(nn.Linear(100, 10), torch.zeros(1, 100)), 2 * (100 * 10)
    (2000, 2000)
    """
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops()


def linear_as_convolution(layer: nn.Linear, channels: int, size: int) -> nn.Conv2d:
    """A classifier for small images can then be slid over large ones. (5-7)

    A full connection (FC 层) after a convolution is a convolution with a kernel as large as the image.

    `(N, C, H, H) -> (N, K, 1, 1)`; and over vectors it is a 1 x 1 convolution. So a classifier can be slid over
    larger images.

    >>> fc = nn.Linear(8 * 5 * 5, 10)
    >>> conv, x = linear_as_convolution(fc, channels=8, size=5), torch.randn(2, 8, 5, 5)
    >>> torch.allclose(conv(x).flatten(1), fc(x.flatten(1)), atol=1e-5)
    True
    >>> conv(torch.randn(2, 8, 7, 9)).shape
    torch.Size([2, 10, 3, 5])
    """
    conv = nn.Conv2d(channels, layer.out_features, size)
    conv.load_state_dict({"weight": layer.weight.view(-1, channels, size, size), "bias": layer.bias})
    return conv
