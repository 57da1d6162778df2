import math

import torch

import scores

NAME = "macro_f1"
TITLE = {"en": "Macro-F1 by hand", "zh": "手写宏平均 F1"}
TEXT = {
    "en": """
90 of 100 texts are positive. Who always says "positive" has an accuracy of 0.90. Macro-F1 shows that: F1 of a class
is the harmonic mean of precision and recall, and macro-F1 is the mean over the classes, here (0.947 + 0) / 2 = 0.474.
Write `macro_f1(said, true, num_classes)`: said and true are (N,) class numbers. A class that was never said has F1 =
0; a class that is neither in said nor in true does not count.
""",
    "zh": """
100 段文本中有 90 段是正面的。总是回答“正面”，准确率就有 0.90。宏平均 F1 能看出问题：一个类别的 F1 是精确率与召回率
的调和平均，宏平均 F1 是各类别的平均，这里是 (0.947 + 0) / 2 = 0.474。写出 `macro_f1(said, true, num_classes)`：said
和 true 是类别编号 (N,)。从未回答过的类别 F1 = 0；既不在 said 中也不在 true 中的类别不参与平均。
""",
}
HINTS = {
    "en": [
        "For each class three counts: right answers, answers, labels.",
        "2PR / (P + R) = 2 * right / (answers + labels): this form divides by 0 only if the class is in neither.",
    ],
    "zh": [
        "每个类别需要三个计数：答对的、回答的、标签的。",
        "2PR / (P + R) = 2 * 答对 / (回答 + 标签)：只有两边都没有这个类别时，这个式子的分母才为 0。",
    ],
}


def course(said, true, num_classes):
    """The chapter's own."""
    counts = scores.hits(torch.nn.functional.one_hot(said, num_classes).float(), true)
    return scores.scores_of(counts, len(true), several=False)["macro_f1"]


def parts(said, true, num_classes):
    right, answers, labels = (
        torch.bincount(x, minlength=num_classes).double() for x in (said[said == true], said, true)
    )
    return right, answers, labels


def check(function) -> tuple[str, str] | None:
    true = torch.tensor([0] * 12 + [1] * 5 + [2] * 3)
    said = torch.tensor([0] * 10 + [1] * 2 + [1] * 3 + [0] * 2 + [0] * 3)  # 2 is never said
    found, right = function(said, true, 3), course(said, true, 3)
    if math.isnan(found):
        return "nan: class 2 was never said, so that its precision is 0 / 0", "nan：类别 2 从未回答过，精确率是 0 / 0"
    if math.isclose(found, micro(said, true, 3), abs_tol=1e-6):
        return (
            f"{found:.4f} is the accuracy (micro-F1): take each class's F1, then the mean: {right:.4f}",
            f"{found:.4f} 是准确率（微平均 F1）：应先求每个类别的 F1，再取平均：{right:.4f}",
        )
    if math.isclose(found, of_means(said, true, 3), abs_tol=1e-6):
        return (
            f"{found:.4f} is made of mean precision and mean recall; the mean of the classes' F1 is {right:.4f}",
            f"{found:.4f} 由平均精确率和平均召回率算出；各类别 F1 的平均是 {right:.4f}",
        )
    if math.isclose(found, weighted(said, true, 3), abs_tol=1e-6):
        return (
            f"{found:.4f} weighs classes by their texts; in macro-F1 all weigh the same: {right:.4f}",
            f"{found:.4f} 按文本数给类别加权；宏平均中各类别权重相同：{right:.4f}",
        )
    if not math.isclose(found, right, abs_tol=1e-6):
        return f"{found:.4f}, not {right:.4f}", f"得到 {found:.4f}，应为 {right:.4f}"
    found, right = function(said, true, 5), course(said, true, 5)
    if not math.isclose(found, right, abs_tol=1e-6):
        return (
            f"with two classes that are not there: {found:.4f}, not {right:.4f}; they do not count",
            f"多出两个不存在的类别时得到 {found:.4f}，应为 {right:.4f}；它们不参与平均",
        )
    return None


def micro(said, true, num_classes):
    return (said == true).double().mean().item()


def of_means(said, true, num_classes):
    right, answers, labels = parts(said, true, num_classes)
    precision, recall = (right / answers.clamp(min=1)).mean(), (right / labels.clamp(min=1)).mean()
    return (2 * precision * recall / (precision + recall)).item()


def weighted(said, true, num_classes):
    right, answers, labels = parts(said, true, num_classes)
    return (2 * right / (answers + labels).clamp(min=1) * labels).sum().item() / len(true)


def absent_is_zero(said, true, num_classes):
    right, answers, labels = parts(said, true, num_classes)
    return (2 * right / (answers + labels).clamp(min=1)).mean().item()


def nan(said, true, num_classes):
    right, answers, labels = parts(said, true, num_classes)
    precision, recall = right / answers, right / labels
    return (2 * precision * recall / (precision + recall)).mean().item()


MISTAKES = {
    "micro": micro,
    "of the means": of_means,
    "weighted": weighted,
    "absent classes are 0": absent_is_zero,
    "0 / 0": nan,
}
