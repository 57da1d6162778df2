import torch
from torch import nn

NAME = "receptive_field"
TITLE = {"en": "Derive the receptive field", "zh": "推导感受野"}
TEXT = {
    "en": """
A unit that sees 5 pixels cannot know a cat from a dog. `python models.py` prints the receptive field of each network;
here you derive it. Write `receptive_field(layers)`: layers is a list of (kernel size, stride), first layer first. Two
3x3 convolutions with stride 1 see 5 pixels; a 3x3 convolution, a 2x2 pooling with stride 2, and a 3x3 convolution see
8.
""",
    "zh": """
只看到 5 个像素的单元无法区分猫和狗。`python models.py` 会打印每个网络的感受野；这里由你来推导。写出
`receptive_field(layers)`：layers 是（卷积核大小，步幅）的列表，从第一层开始。两个步幅为 1 的 3x3 卷积看到 5 个像素；
一个 3x3 卷积、一个步幅为 2 的 2x2 池化、再一个 3x3 卷积看到 8 个像素。
""",
}
HINTS = {
    "en": [
        "Keep two numbers: the field so far, and how many pixels of the picture lie between two neighbouring units.",
        "A kernel of k adds (k - 1) times that distance to the field; then the stride multiplies the distance.",
    ],
    "zh": [
        "记住两个数：目前的感受野，以及相邻两个单元在图片上相距多少像素。",
        "大小为 k 的卷积核使感受野增加 (k - 1) 乘以这个距离；然后步幅再乘到这个距离上。",
    ],
}
CHAINS = (
    [],
    [(3, 1), (3, 1)],
    [(3, 1), (2, 2), (3, 1)],
    [(3, 2), (3, 2)],
    [(7, 2), (3, 2), (3, 1), (3, 2), (1, 1)],
)


def measured(layers: list[tuple[int, int]], size: int = 64) -> int:
    """How many pixels really have a gradient from the middle unit: what the formula must give."""
    x = torch.ones(1, 1, size, requires_grad=True)
    y = x * 1
    for kernel, stride in layers:
        layer = nn.Conv1d(1, 1, kernel, stride, bias=False)
        nn.init.ones_(layer.weight)
        y = layer(y)
    y[0, 0, y.shape[2] // 2].backward()
    return int((x.grad != 0).sum())


def check(function) -> tuple[str, str] | None:
    for layers in CHAINS:
        found, right = function(list(layers)), measured(layers)
        if found == right:
            continue
        if layers and found == 1 + sum(kernel - 1 for kernel, _ in layers):
            return (
                f"{layers}: {right} pixels have a gradient, not {found}: after a stride, a kernel's steps are wider",
                f"{layers}：有梯度的像素是 {right} 个，不是 {found} 个：经过步幅之后，卷积核的每一步更宽",
            )
        if layers and found == too_early(layers):
            return (
                f"{layers}: {right} pixels have a gradient, not {found}: a layer's stride counts for the layers after it",
                f"{layers}：有梯度的像素是 {right} 个，不是 {found} 个：一层的步幅只影响它之后的层",
            )
        return (
            f"{layers}: {right} pixels have a gradient, not {found}",
            f"{layers}：有梯度的像素是 {right} 个，不是 {found} 个",
        )
    return None


def too_early(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        field += (kernel - 1) * step
    return field


MISTAKES = {
    "forgets the strides": lambda layers: 1 + sum(kernel - 1 for kernel, _ in layers),
    "takes the stride before the kernel": too_early,
    "multiplies": lambda layers: max([1, *(kernel for kernel, _ in layers)]),
}
