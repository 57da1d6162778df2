import torch

import models

NAME = "masked_max"
TITLE = {"en": "Max-pooling that ignores padding", "zh": "忽略填充的最大池化"}
TEXT = {
    "en": """
Texts of a batch have different lengths; the shorter ones are filled with 0, the number of <pad>. TextCNN takes the
largest value of each channel over the words. If padding takes part, the answer to a text depends on what else is in
its batch. Write `masked_max(x, ids)`: x is (N, L, C), ids is (N, L), and the result is (N, C). Do not change x.
""",
    "zh": """
一个批次中的文本长短不一；较短的用 0（<pad> 的编号）填充。TextCNN 对每个通道取所有词上的最大值。如果填充也参与，一段文
本的结果就取决于同一批次里还有什么。写出 `masked_max(x, ids)`：x 的形状是 (N, L, C)，ids 是 (N, L)，结果是 (N, C)。不
要改动 x。
""",
}
HINTS = {
    "en": [
        "Before the maximum, give padded places a value that can never be the largest.",
        "Zero is larger than every negative value. Tensor.masked_fill with -torch.inf; the mask needs a third dimension.",
    ],
    "zh": [
        "取最大值之前，给填充的位置一个永远不会最大的值。",
        "0 大于一切负数。用 Tensor.masked_fill 和 -torch.inf；掩码需要第三个维度。",
    ],
}


def check(function) -> tuple[str, str] | None:
    ids = torch.tensor([[5, 3, 2, 4], [7, 2, 0, 0], [9, 0, 0, 0]])
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0)) - 1
    x[1, 2:] = x[2, 1:] = 3.0  # what an embedding gives for padding may be anything
    before, right = x.clone(), models.masked_max(x, ids)
    found = function(x, ids)
    if found.shape != right.shape:
        return (
            f"the shape is {tuple(found.shape)}, not (N, C) = (3, 6)",
            f"形状是 {tuple(found.shape)}，而不是 (N, C) = (3, 6)",
        )
    if not torch.equal(x, before):
        return "x was changed: use masked_fill, not masked_fill_", "x 被改动了：用 masked_fill，不用 masked_fill_"
    if torch.equal(found, x.amax(1)):
        return "padding won: its value 3 stands in the result", "填充取胜了：它的值 3 出现在结果里"
    if torch.equal(found, (x * (ids != 0)[..., None]).amax(1)):
        worst = right[1].min()
        return (
            f"a channel whose own values are at most {worst:.2f} gives 0: padding set to 0 is larger than negative values",
            f"某通道自己的值最大为 {worst:.2f}，结果却是 0：设为 0 的填充大于负数",
        )
    if not torch.equal(found, right):
        wrong = int((found != right).sum())
        return f"{wrong} of 18 values differ from models.masked_max", f"18 个值中有 {wrong} 个与 models.masked_max 不同"
    return None


def in_place(x, ids):
    return x.masked_fill_((ids == 0)[..., None], -torch.inf).amax(1)


MISTAKES = {
    "no mask": lambda x, ids: x.amax(1),
    "zero": lambda x, ids: (x * (ids != 0)[..., None]).amax(1),
    "in place": in_place,
    "over the channels": lambda x, ids: x.masked_fill((ids == 0)[..., None], -torch.inf).amax(2),
}
