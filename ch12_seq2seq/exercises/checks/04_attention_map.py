import torch
import torch.nn.functional as F

NAME = "attention_maps"
TITLE = {"en": "Why is the attention map black and white?", "zh": "为什么注意力图非黑即白？"}
TEXT = {
    "en": """
Somebody wrote a Transformer and draws where it looks. The map is black and white: every word looks at one other word,
even before training, when it knows nothing. And the network hardly learns. Draw the scores of random queries and keys
of width 4, 64 and 512 to see why. Then write `attention_maps(queries, keys, padding, heads)`: queries (N, T, D), keys
(N, S, D), padding (N, S), True where there is no word. The result is (N, heads, T, S): each head takes its own D /
heads of the width, and its rows are neither black and white nor all grey, however wide the network is. Padding has
the weight 0. The chapter draws such maps: python test.py "I love you." --attention map.png
""",
    "zh": """
有人写了一个 Transformer，并画出它在看哪里。图非黑即白：每个词只看一个别的词，即使在训练之前、什么都不知道的时候也是这
样。而且网络几乎学不动。画出宽度为 4、64 和 512 的随机查询与键的得分，看看为什么。然后写出 `attention_maps(queries,
keys, padding, heads)`：queries 是 (N, T, D)，keys 是 (N, S, D)，padding 是 (N, S)，没有词的地方是 True。结果的形状是
(N, heads, T, S)：每个头取宽度中自己的 D / heads 部分；无论网络多宽，每一行既不非黑即白，也不全是灰色。填充的权重是 0。
本章会画这样的图：python test.py "I love you." --attention map.png
""",
}
HINTS = {
    "en": [
        "A score is a sum of D / heads products of random numbers. What is its standard deviation? What does softmax make "
        "of 20, 0 and -20?",
        "Divide the scores, before softmax, by the root of the width of one head. unflatten(2, (heads, -1)).transpose(1, 2) "
        "gives each head its part.",
    ],
    "zh": [
        "一个得分是 D / heads 个随机数乘积之和。它的标准差是多少？softmax 会把 20、0 和 -20 变成什么？",
        "在 softmax 之前，把得分除以一个头的宽度的平方根。unflatten(2, (heads, -1)).transpose(1, 2) 把各自的部分分给每个头。",
    ],
}
HEADS, WIDTH = 4, 512


def batch():
    generator = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(2, length, WIDTH, generator=generator) for length in (6, 5))
    return queries, keys, torch.tensor([[False] * 5, [False] * 3 + [True] * 2])


def split(x):
    return x.unflatten(2, (HEADS, -1)).transpose(1, 2)


def reference(queries, keys, padding):
    """torch's own weights: its attention over values that are the unit vectors."""
    values = torch.eye(keys.shape[1]).expand(len(keys), HEADS, -1, -1)
    return F.scaled_dot_product_attention(split(queries), split(keys), values, ~padding[:, None, None])


def slope(weights) -> float:
    """How much softmax answers to its scores, p (1 - p) on average: 0 where each weight is 0 or 1. The network learns by it."""
    return float((weights * (1 - weights)).mean())


def check(function) -> tuple[str, str] | None:
    queries, keys, padding = batch()
    found, right = function(queries, keys, padding, HEADS), reference(queries, keys, padding)
    if found.shape != right.shape:
        return f"the shape is {tuple(found.shape)}, not {tuple(right.shape)}", (
            f"形状是 {tuple(found.shape)}，应为 {tuple(right.shape)}"
        )
    if torch.allclose(found, right, atol=1e-5):
        return None
    if found[1, ..., 3:].any():
        return "padding has a weight", "填充有权重"
    if not torch.allclose(found.sum(3), torch.ones(2, HEADS, 6), atol=1e-4):
        return (
            f"a row sums to {float(found[1].sum(2).mean()):.2f}, not 1: close padding before softmax",
            f"一行之和是 {float(found[1].sum(2).mean()):.2f}，不是 1：在 softmax 之前去掉填充",
        )
    return about_contrast(found[0], right[0])


def about_contrast(found, right) -> tuple[str, str]:
    """Too much of it, too little, or other weights of the right contrast."""
    largest, wanted = (float(x.amax(2).mean()) for x in (found, right))
    if largest > 1.5 * wanted:
        return (
            f"black and white: of random words, a row's largest weight is {largest:.2f} on average, and the slope of softmax "
            f"{slope(found):.3f}, not {slope(right):.3f}",
            f"非黑即白：对于随机的词，一行中最大的权重平均是 {largest:.2f}，softmax 的斜率平均是 {slope(found):.3f}，应为 "
            f"{slope(right):.3f}",
        )
    if largest < 0.9 * wanted:
        return (
            f"grey: a row's largest weight is {largest:.2f} on average, not {wanted:.2f}: a head has the width "
            f"{WIDTH // HEADS}, and its scores the standard deviation {(WIDTH // HEADS) ** 0.5:.1f}",
            f"太灰：一行中最大的权重平均是 {largest:.2f}，应为 {wanted:.2f}：一个头的宽度是 {WIDTH // HEADS}，得分的标准差是 "
            f"{(WIDTH // HEADS) ** 0.5:.1f}",
        )
    return (
        "the contrast is right, the weights are not: does each head have its own part of the width?",
        "对比度是对的，权重不对：每个头取的是自己那部分宽度吗？",
    )


def made(power=0.5, whole=False, late=False, masked=True, mixed=False):
    def attention_maps(queries, keys, padding, heads):
        q, k = split(queries), split(keys)
        if mixed:
            q, k = (x.reshape(len(x), heads, -1, WIDTH // heads) for x in (queries, keys))
        scores = q @ k.transpose(2, 3) / (WIDTH if whole else WIDTH // heads) ** power
        if late:
            return scores.softmax(3) * ~padding[:, None, None]
        return (scores.masked_fill(padding[:, None, None], float("-inf")) if masked else scores).softmax(3)

    return attention_maps


MISTAKES = {
    "not scaled": made(power=0),
    "scaled by the width": made(power=1),
    "scaled by the root of the whole width": made(whole=True),
    "padding cut after softmax": made(late=True),
    "padding forgotten": made(masked=False),
    "heads mixed up": made(mixed=True),
}
