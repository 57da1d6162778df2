import torch

import losses

NAME = "loss_per_token"
TITLE = {"en": "A loss that ignores padding", "zh": "忽略填充的损失"}
TEXT = {
    "en": """
In a batch of sentences much is padding. To say <pad> after the end is easy; a loss that counts it looks good and
teaches little. Write `loss_per_token(logits, targets)` without F.cross_entropy: logits (N, T, V), targets (N, T) with
0 for padding; the result is the mean of -log p(right token) over the real tokens. exp of it is the perplexity. It
must stand large logits.
""",
    "zh": """
一个批次的句子里有许多填充。在句尾之后说出 <pad> 很容易；把它计入的损失看起来很好，却教不了什么。不用
F.cross_entropy，写出 `loss_per_token(logits, targets)`：logits 的形状是 (N, T, V)，targets 是 (N, T)，0 表示填充；结
果是真实词元上 -log p（正确词元）的平均值。它的指数就是困惑度。logits 很大时也必须正确。
""",
}
HINTS = {
    "en": [
        "log_softmax over the last dimension, then gather the values of the right tokens: (N, T, V) and (N, T, 1).",
        "Multiply by (targets != 0), sum, and divide by the number of real tokens, not by N * T.",
    ],
    "zh": [
        "在最后一维上求 log_softmax，再用 gather 取出正确词元的值：(N, T, V) 和 (N, T, 1)。",
        "乘以 (targets != 0)，求和，再除以真实词元的个数，而不是 N * T。",
    ],
}


def batch():
    logits = torch.randn(3, 6, 9, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[3, 4, 5, 6, 7, 2], [8, 4, 2, 0, 0, 0], [5, 2, 0, 0, 0, 0]])
    logits[targets == 0, 0] += 4  # padding is easy
    return logits.requires_grad_(), targets


def check(function) -> tuple[str, str] | None:
    logits, targets = batch()
    right, found = losses.cross_entropy(logits, targets) / (targets != 0).sum(), function(logits, targets)
    if found.ndim != 0:
        return f"the shape is {tuple(found.shape)}, not that of one number", f"形状是 {tuple(found.shape)}，应为一个数"
    value = f"{float(found.detach()):.4f}", f"{float(right.detach()):.4f}"
    if torch.isclose(found, everything(logits, targets), atol=1e-5):
        return (
            f"{value[0]} counts padding, which is easy here; the real tokens alone give {value[1]}",
            f"{value[0]} 计入了很容易的填充；只算真实词元得 {value[1]}",
        )
    if torch.isclose(found, right * 11 / 18, atol=1e-5):
        return (
            f"{value[0]} is divided by all 18 places; there are 11 real tokens: {value[1]}",
            f"{value[0]} 除以了全部 18 个位置；真实词元有 11 个：{value[1]}",
        )
    if torch.isclose(found, right * 11, atol=1e-4):
        return f"{value[0]} is the sum; the mean is {value[1]}", f"{value[0]} 是总和；平均值是 {value[1]}"
    if not torch.isclose(found, right, atol=1e-5):
        return f"{value[0]}, not {value[1]}", f"得到 {value[0]}，应为 {value[1]}"
    large = function(logits.detach() * 1000, targets)
    if not large.isfinite():
        return (
            f"with logits in the thousands the loss is {float(large)}: use log_softmax, not softmax and log",
            f"logits 上千时损失是 {float(large)}：用 log_softmax，不要先 softmax 再 log",
        )
    found.backward()
    if logits.grad[targets == 0].any():
        return "padding has a gradient", "填充处有梯度"
    return None


def chosen(logits, targets):
    return -logits.log_softmax(2).gather(2, targets[..., None]).squeeze(2)


def everything(logits, targets):
    return chosen(logits, targets).mean()


MISTAKES = {
    "counts padding": everything,
    "divides by all": lambda logits, targets: (chosen(logits, targets) * (targets != 0)).mean(),
    "sum": lambda logits, targets: (chosen(logits, targets) * (targets != 0)).sum(),
    "softmax, then log": lambda logits, targets: (
        -logits.softmax(2).log().gather(2, targets[..., None])[targets != 0].mean()
    ),
}
