import torch

from exercises.comparing import compare

NAME = "attention"
TITLE = {"en": "Attention with a mask", "zh": "带掩码的注意力"}
TEXT = {
    "en": """
Attention is a weighted mean: each query compares itself with all keys, and takes that much of their values. Write
`attention(q, k, v, mask)`: q (N, T, D), k (N, S, D), v (N, S, E); mask (N, S) is True where a key is padding, which
must have the weight 0. Scale by the root of D. The result is (N, T, E). Without F.scaled_dot_product_attention.
""",
    "zh": """
注意力是加权平均：每个查询与所有键比较，并按结果取它们的值。写出 `attention(q, k, v, mask)`：q (N, T, D)，k (N, S,
D)，v (N, S, E)；mask (N, S) 在键为填充处是 True，那里的权重必须是 0。用 D 的平方根缩放。结果的形状是 (N, T, E)。不用
F.scaled_dot_product_attention。
""",
}
HINTS = {
    "en": [
        "The weights are (N, T, S): one row for each query, and each row sums to 1.",
        "Padding gets the score minus infinity, before softmax: mask[:, None] is (N, 1, S).",
    ],
    "zh": [
        "权重的形状是 (N, T, S)：每个查询一行，每行之和为 1。",
        "填充的得分在 softmax 之前设为负无穷：mask[:, None] 的形状是 (N, 1, S)。",
    ],
}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


MASK = torch.tensor([[False, False, False, False], [False, False, True, True]])
EXAMPLES = [
    (2 * draw(2, 4, 3), draw(2, 4, 3), draw(2, 4, 3) + 1, MASK),
    (draw(2, 5, 3), draw(2, 4, 3), draw(2, 4, 6), MASK),
]


def weights(q, k, mask, scale=True, dim=2):
    scores = q @ k.transpose(1, 2) / (q.shape[2] ** 0.5 if scale else 1)
    return scores.masked_fill(mask[:, None], -torch.inf).softmax(dim).nan_to_num(0)


def right(q, k, v, mask):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=~mask[:, None])


def not_scaled(q, k, v, mask):
    return weights(q, k, mask, scale=False) @ v


def no_mask(q, k, v, mask):
    return weights(q, k, mask & False) @ v


def masked_after(q, k, v, mask):
    return (weights(q, k, mask & False) * ~mask[:, None]) @ v


def over_queries(q, k, v, mask):
    return weights(q, k, mask, dim=1) @ v


REASONS = {
    not_scaled: ("the scores are not divided by the root of D", "得分没有除以 D 的平方根"),
    no_mask: ("padding is looked at", "看到了填充"),
    masked_after: (
        "weights were set to 0 after softmax: the rest no longer sums to 1",
        "softmax 之后才把权重设为 0：其余的和不再是 1",
    ),
    over_queries: (
        "softmax is over the queries; each query shares out its attention over the keys",
        "softmax 沿查询计算了；应由每个查询在各个键上分配注意力",
    ),
}

MISTAKES = {function.__name__: function for function in REASONS}


def check(function) -> tuple[str, str] | None:
    return compare(function, right, EXAMPLES, REASONS)
