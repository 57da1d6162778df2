import torch

from exercises.comparing import compare

NAME = "picked"
TITLE = {"en": "One value of each row", "zh": "从每一行取一个值"}
TEXT = {
    "en": """
Cross-entropy needs one number of each row: the score of the right class. Write `picked(scores, labels)`: scores is
(N, K), labels (N,) holds class numbers, the result is (N,). No loop.
""",
    "zh": """
交叉熵需要每一行中的一个数：正确类别的得分。写出 `picked(scores, labels)`：scores 的形状是 (N, K)，labels (N,) 是类别
编号，结果是 (N,)。不用循环。
""",
}
HINTS = {
    "en": [
        "scores[:, labels] is (N, N): it takes the same columns of all rows.",
        "scores.gather(1, index) with an index of shape (N, 1); then drop the last dimension.",
    ],
    "zh": [
        "scores[:, labels] 的形状是 (N, N)：它从所有行取相同的列。",
        "scores.gather(1, index)，index 的形状是 (N, 1)；然后去掉最后一维。",
    ],
}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


EXAMPLES = [(draw(4, 4), torch.tensor([2, 0, 3, 1])), (draw(3, 5), torch.tensor([4, 4, 0]))]


def right(scores, labels):
    return scores[torch.arange(len(labels)), labels]


def all_columns(scores, labels):
    return scores[:, labels]


def from_rows(scores, labels):
    return scores.T[torch.arange(len(labels)), labels]


def largest(scores, labels):
    return scores.amax(1)


REASONS = {
    all_columns: ("(N, N): these columns are taken of every row", "(N, N)：每一行都取了这些列"),
    from_rows: (
        "labels choose rows here; they are columns: gather along dimension 1",
        "这里 labels 选的是行；它们是列：沿第 1 维 gather",
    ),
    largest: ("these are the largest scores, not those of the labels", "这是最大的得分，不是标签的得分"),
}

MISTAKES = {function.__name__: function for function in REASONS}


def check(function) -> tuple[str, str] | None:
    return compare(function, right, EXAMPLES, REASONS)
