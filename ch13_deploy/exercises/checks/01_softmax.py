import numpy as np

from service import engine

NAME = "softmax"
TITLE = {"en": "A softmax that does not overflow", "zh": "不会溢出的 softmax"}
TEXT = {
    "en": """
A service answers with probabilities, but exported models often end with logits. A logit of 89 is enough for exp to
overflow in float32; then the answer is nan, which JSON does not even have. Write `softmax(logits)` in NumPy: logits
is (N, K) float32, so is the result. The pictures of a batch come from different clients: one must not change
another's answer.
""",
    "zh": """
服务返回概率，而导出的模型往往以 logits 结尾。logit 达到 89，float32 的 exp 就会溢出；结果是 nan，而 JSON 里根本没有
nan。用 NumPy 写出 `softmax(logits)`：logits 是 (N, K) 的 float32，结果也是。一个批次里的图片来自不同的客户端：一张图
片不能改变另一张的结果。
""",
}
HINTS = {
    "en": [
        "Subtracting one number from all logits of a row changes nothing. Which number makes exp safe?",
        "logits.max(1, keepdims=True): of each row, and with a second dimension so that it broadcasts.",
    ],
    "zh": [
        "同一行的所有 logits 减去同一个数，结果不变。减去哪个数，exp 才安全？",
        "logits.max(1, keepdims=True)：每一行的最大值，并保留第二维以便广播。",
    ],
}


def check(function) -> tuple[str, str] | None:
    small = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    with np.errstate(all="ignore"):
        found, right = function(small.copy()), engine.softmax(small)
        if found.shape != right.shape or not np.allclose(found.sum(1), 1, atol=1e-5):
            return (
                f"the first row sums to {found[0].sum():.4f}, not 1: softmax is over the classes of a row",
                f"第一行的和是 {found[0].sum():.4f}，应为 1：softmax 在一行的各类别上计算",
            )
        if not np.allclose(found, right, atol=1e-6):
            return (
                "the rows sum to 1, but are no softmax: exp(z) / sum(exp(z))",
                "各行之和为 1，但不是 softmax：exp(z) / sum(exp(z))",
            )
        large = np.float32([[1000, 999, 0], [-1000, -1001, -1000]])
        alone = np.stack([function(row[None].copy())[0] for row in large])
        if not np.isfinite(alone).all():
            return (
                f"logits of 1000 or -1000 give {alone.ravel()[~np.isfinite(alone.ravel())][0]}: subtract the largest first",
                "logits 为 1000 或 -1000 时结果不是有限数：先减去最大值",
            )
        together = function(large.copy())
    if not np.allclose(together, engine.softmax(large), atol=1e-6):
        return (
            "a row is right alone and wrong beside another: subtract each row's own largest, not the batch's",
            "一行单独计算时正确，与另一行一起时错误：应减去每行自己的最大值，而不是整个批次的",
        )
    return None


def plain(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def of_the_batch(logits):
    return plain(logits - logits.max())


def over_the_batch(logits):
    return np.exp(logits) / np.exp(logits).sum(0, keepdims=True)


MISTAKES = {"overflows": plain, "the batch's largest": of_the_batch, "over the batch": over_the_batch}
