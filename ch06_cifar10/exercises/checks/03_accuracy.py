import math

import torch

NAME = "accuracy"
TITLE = {"en": "Accuracy with an incomplete last batch", "zh": "最后一个批次不完整时的准确率"}
TEXT = {
    "en": """
10,000 test pictures in batches of 128 leave a last batch of 16. A mean over batches counts its pictures eight times.
The difference is small, but two networks often differ by less. Write `accuracy(batches)`: each batch is a pair of
logits (N, K) and labels (N,). Of no batches it is nan: nothing was measured.
""",
    "zh": """
10,000 张测试图片，每个批次 128 张，最后一个批次只剩 16 张。对各批次求平均时，这些图片每张要算八次。差别很小，但两个网
络的差别往往更小。写出 `accuracy(batches)`：每个批次是一对 logits（N, K）和标签（N,）。没有批次时返回 nan：什么也没有
测量。
""",
}
HINTS = {
    "en": [
        "Which two numbers can be added over batches of any size?",
        "Add right answers and pictures; divide once, at the end.",
    ],
    "zh": ["哪两个数可以在大小不同的批次之间相加？", "把答对的张数和图片的张数分别相加；最后只除一次。"],
}


def batches(sizes=(8, 8, 2), right=(4, 6, 2)):
    """Batches in which the first answers of each are right."""
    for size, good in zip(sizes, right, strict=True):
        labels = torch.arange(size) % 3
        said = torch.where(torch.arange(size) < good, labels, (labels + 1) % 3)
        yield torch.nn.functional.one_hot(said, 3).float() - 5, labels


def check(function) -> tuple[str, str] | None:
    found, right = function(batches()), 12 / 18
    if math.isclose(found, (4 / 8 + 6 / 8 + 2 / 2) / 3, abs_tol=1e-6):
        return (
            f"12 of 18 answers are right: {right:.4f}, not {found:.4f}, the mean of the three batches' shares",
            f"18 个答案中 12 个正确：{right:.4f}，而不是三个批次比例的平均值 {found:.4f}",
        )
    if math.isclose(found, 12 / 24, abs_tol=1e-6):
        return (
            f"12 of 18 answers are right: {right:.4f}, not {found:.4f}; the last batch has 2 pictures, not 8",
            f"18 个答案中 12 个正确：{right:.4f}，而不是 {found:.4f}；最后一个批次有 2 张图片，不是 8 张",
        )
    if not math.isclose(found, right, abs_tol=1e-6):
        return (
            f"12 of 18 answers are right: {right:.4f}, not {found:.4f}",
            f"18 个答案中 12 个正确：{right:.4f}，而不是 {found:.4f}",
        )
    nothing = function(iter(()))
    if not math.isnan(nothing):
        return f"of no batches: nan, not {nothing}", f"没有批次时应为 nan，而不是 {nothing}"
    return None


def shares(batches):
    each = [(logits.argmax(1) == labels).float().mean().item() for logits, labels in batches]
    return sum(each) / len(each)


def full(batches):
    each = list(batches)
    return sum((logits.argmax(1) == labels).sum().item() for logits, labels in each) / (len(each) * len(each[0][1]))


def zero(batches):
    each = [(logits.argmax(1) == labels) for logits, labels in batches]
    return torch.cat(each).float().mean().item() if each else 0.0


MISTAKES = {"mean of shares": shares, "counts a full last batch": full, "nothing is 0": zero}
