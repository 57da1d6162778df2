import torch

from exercises.comparing import compare

NAME = "distances"
TITLE = {"en": "All pairs by broadcasting", "zh": "用广播计算所有点对"}
TEXT = {
    "en": """
Which training picture is nearest to this one? For that one needs all distances between two sets of points, without a
loop. Write `distances(a, b)`: a is (N, D), b is (M, D), the result (N, M) holds Euclidean distances. Use neither a
loop nor torch.cdist.
""",
    "zh": """
哪一张训练图片离这一张最近？为此需要两组点之间的所有距离，而且不用循环。写出 `distances(a, b)`：a 的形状是 (N, D)，b
是 (M, D)，结果 (N, M) 是欧几里得距离。不用循环，也不用 torch.cdist。
""",
}
HINTS = {
    "en": [
        "Which shapes must a and b have, so that a - b is (N, M, D)?",
        "a[:, None] is (N, 1, D), b[None] is (1, M, D); square, sum over the last dimension, root.",
    ],
    "zh": [
        "a 和 b 要是什么形状，a - b 才是 (N, M, D)？",
        "a[:, None] 是 (N, 1, D)，b[None] 是 (1, M, D)；平方，在最后一维求和，开方。",
    ],
}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


EXAMPLES = [(draw(4, 3), draw(5, 3)), (draw(1, 2), draw(6, 2))]


def right(a, b):
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def no_root(a, b):
    return ((a[:, None] - b[None]) ** 2).sum(2)


def absolute(a, b):
    return (a[:, None] - b[None]).abs().sum(2)


def turned_over(a, b):
    return right(b, a)


REASONS = {
    no_root: ("these are squared distances: take the root", "这是距离的平方：还要开方"),
    absolute: ("these are sums of absolute differences, not Euclidean distances", "这是绝对差之和，不是欧几里得距离"),
    turned_over: ("the result is (M, N): a belongs to the rows", "结果是 (M, N)：a 应对应行"),
}

MISTAKES = {function.__name__: function for function in REASONS}


def check(function) -> tuple[str, str] | None:
    return compare(function, right, EXAMPLES, REASONS)
