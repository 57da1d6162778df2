import torch
import torch.nn.functional as F

from exercises.comparing import compare

NAME = "conv2d"
TITLE = {"en": "Convolution as a matrix product", "zh": "把卷积写成矩阵乘法"}
TEXT = {
    "en": """
A convolution is a matrix product in disguise. Write `conv2d(x, w, padding)` with F.unfold and @, without F.conv2d: x
is (N, C, H, W), w is (O, C, k, k), stride 1. F.unfold(x, k, padding=padding) gives (N, C k k, places): one column for
each place.
""",
    "zh": """
卷积其实就是矩阵乘法。用 F.unfold 和 @ 写出 `conv2d(x, w, padding)`，不用 F.conv2d：x 的形状是 (N, C, H, W)，w 是 (O,
C, k, k)，步幅为 1。F.unfold(x, k, padding=padding) 得到 (N, C k k, places)：每个位置一列。
""",
}
HINTS = {
    "en": [
        "Make w a matrix: (O, C k k).",
        "w.view(O, -1) @ columns is (N, O, places); view that as a picture.",
    ],
    "zh": [
        "把 w 变成矩阵：(O, C k k)。",
        "w.view(O, -1) @ columns 的形状是 (N, O, places)；再变形为图片。",
    ],
}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


EXAMPLES = [(draw(2, 3, 6, 5), draw(4, 3, 3, 3), 1), (draw(1, 2, 5, 5), draw(2, 2, 2, 2), 0)]


def right(x, w, padding):
    return F.conv2d(x, w, padding=padding)


def turned_over(x, w, padding):
    return F.conv2d(x, w.flip(2, 3), padding=padding)


def no_padding(x, w, padding):
    return F.conv2d(x, w)


def mixed_up(x, w, padding):
    y = F.conv2d(x, w, padding=padding)
    return y.flatten(2).transpose(1, 2).reshape(y.shape)


REASONS = {
    turned_over: (
        "the kernel is turned over, as in mathematics; in networks it is not",
        "卷积核翻转了，这是数学中的定义；神经网络中不翻转",
    ),
    no_padding: ("padding is missing: give it to F.unfold", "缺少填充：把 padding 传给 F.unfold"),
    mixed_up: (
        "channels and places are mixed up: view (N, O, places), not (N, places, O)",
        "通道和位置混在一起了：变形的应是 (N, O, places)，而不是 (N, places, O)",
    ),
}

MISTAKES = {function.__name__: function for function in REASONS}


def check(function) -> tuple[str, str] | None:
    return compare(function, right, EXAMPLES, REASONS)
