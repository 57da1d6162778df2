import torch

NAME = "masks"
TITLE = {"en": "The two masks of attention", "zh": "注意力的两种掩码"}
TEXT = {
    "en": """
A Transformer that translates needs two masks. The decoder looks at the source, but not at its padding. And it looks
at its own words, but not at later ones: in training all words of the right translation are there, and without a mask
the network copies the next word instead of learning to say it. Write `masks(source, length)`: source is (N, S) token
numbers with 0 for padding. It returns the padding mask (N, 1, S) and the causal mask (1, T, T) with T = length. True
means: must not look there.
""",
    "zh": """
用于翻译的 Transformer 需要两种掩码。解码器看源句，但不看其中的填充；它也看自己的词，但不看后面的词：训练时正确译文的
所有词都在，没有掩码，网络就会照抄下一个词，而不学习怎样说出它。写出 `masks(source, length)`：source 是 (N, S) 的词元
编号，0 表示填充。返回填充掩码 (N, 1, S) 和因果掩码 (1, T, T)，其中 T = length。True 表示不能看。
""",
}
HINTS = {
    "en": [
        "The padding mask is a comparison; indexing with None adds a dimension of size 1.",
        "Row i of the causal mask is the place that looks, column j the place looked at: closed where j > i. Tensor.triu(1).",
    ],
    "zh": [
        "填充掩码就是一次比较；用 None 索引可以增加一个大小为 1 的维度。",
        "因果掩码的第 i 行是正在看的位置，第 j 列是被看的位置：j > i 处不能看。用 Tensor.triu(1)。",
    ],
}


def check(function) -> tuple[str, str] | None:
    source = torch.tensor([[4, 5, 6, 2], [7, 2, 0, 0]])
    padding, causal = function(source, 3)
    right = torch.tensor([[False, True, True], [False, False, True], [False, False, False]])[None]
    shapes = tuple(padding.shape), tuple(causal.shape)
    if shapes != ((2, 1, 4), (1, 3, 3)):
        return f"shapes {shapes}, wanted ((2, 1, 4), (1, 3, 3))", f"形状是 {shapes}，应为 ((2, 1, 4), (1, 3, 3))"
    if padding.dtype != torch.bool or causal.dtype != torch.bool:
        return "the masks must be bool", "掩码的类型必须是 bool"
    if torch.equal(padding, (source != 0)[:, None]) or torch.equal(causal, ~right):
        return (
            "upside down: True means must not look there, and words are closed here",
            "反了：True 表示不能看，而这里关闭的是词",
        )
    if not torch.equal(padding, (source == 0)[:, None]):
        return "the padding mask is not True exactly where source is 0", "填充掩码应当恰好在 source 为 0 处为 True"
    if causal[0, 0].all():
        return (
            "the first word may look nowhere, not even at itself: its softmax is nan; keep the diagonal open",
            "第一个词哪里也不能看，连自己也不能：它的 softmax 是 nan；对角线要开放",
        )
    if torch.equal(causal, right.transpose(1, 2)):
        return (
            "the causal mask is turned over: word 0 sees words 1 and 2, which come later",
            "因果掩码转置了：第 0 个词看到了后面的第 1、2 个词",
        )
    if not torch.equal(causal, right):
        seen = int((~causal[0]).triu(1).sum())
        return f"{seen} later words can be seen, or earlier ones cannot", f"能看到 {seen} 个后面的词，或看不到前面的词"
    return None


def made(padding=lambda x: x == 0, causal=lambda ones: ones.triu(1)):
    return lambda source, length: (
        padding(source)[:, None],
        causal(torch.ones(length, length, dtype=torch.bool))[None],
    )


MISTAKES = {
    "upside down": made(padding=lambda x: x != 0),
    "closes the diagonal": made(causal=lambda ones: ones.triu()),
    "turned over": made(causal=lambda ones: ones.tril(-1)),
    "no causal mask": made(causal=lambda ones: ~ones),
}
