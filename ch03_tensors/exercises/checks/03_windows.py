import torch

from exercises.comparing import compare

NAME = "windows"
TITLE = {"en": "Strides: windows without a copy", "zh": "步幅：不复制数据的滑动窗口"}
TEXT = {
    "en": """
A series of a million values in windows of a hundred would take a hundred times the memory, if each window were
copied. Write `windows(x, size, step)`: x is (L,), contiguous; the result is (n, size), window i beginning at place i
* step, only whole windows. It must be a view of the memory of x. Use Tensor.as_strided, not Tensor.unfold.
""",
    "zh": """
一百万个值的序列，按一百个值的窗口复制，需要一百倍的内存。写出 `windows(x, size, step)`：x 的形状是 (L,)，在内存中连
续；结果是 (n, size)，窗口 i 从位置 i * step 开始，只要完整的窗口。它必须是 x 的内存的视图。用 Tensor.as_strided，不用
Tensor.unfold。
""",
}
HINTS = {
    "en": [
        "Element [i, j] of the result is x[i * step + j]: so what are the two strides?",
        "n = (L - size) // step + 1; x.as_strided((n, size), (step, 1)).",
    ],
    "zh": [
        "结果的元素 [i, j] 是 x[i * step + j]：那么两个步幅各是多少？",
        "n = (L - size) // step + 1；x.as_strided((n, size), (step, 1))。",
    ],
}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


EXAMPLES = [(torch.arange(10.0), 4, 2), (torch.arange(11.0), 3, 3), (torch.arange(5.0), 5, 1)]


def right(x, size, step):
    return x.unfold(0, size, step)


def step_1(x, size, step):
    return x.unfold(0, size, 1)


def one_less(x, size, step):
    return x.unfold(0, size, step)[:-1]


def next_to_each_other(x, size, step):
    return x[: len(x) // size * size].view(-1, size)


def copies(x, size, step):
    return right(x, size, step).clone()


REASONS = {
    step_1: ("a window begins at every place: stride 0 is step", "每个位置都有一个窗口：第 0 维的步幅应为 step"),
    one_less: (
        "the last whole window is missing: n = (L - size) // step + 1",
        "缺少最后一个完整的窗口：n = (L - size) // step + 1",
    ),
    next_to_each_other: (
        "the windows do not overlap: window i begins at i * step",
        "窗口没有重叠：窗口 i 从 i * step 开始",
    ),
}

MISTAKES = {function.__name__: function for function in REASONS}
MISTAKES["copies"] = copies


def check(function) -> tuple[str, str] | None:
    if found := compare(function, right, EXAMPLES, REASONS):
        return found
    x = torch.arange(10.0)
    function(x, 4, 2)[0, 3] = -1
    if x[3] != -1:
        return (
            "the values are right, but they are copies: writing into a window must change x",
            "数值正确，但是副本：写入窗口必须改变 x",
        )
    return None
