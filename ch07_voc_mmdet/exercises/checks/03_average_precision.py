import numpy as np

import evaluate

NAME = "average_precision"
TITLE = {"en": "Average precision of one class", "zh": "一个类别的平均精度"}
TEXT = {
    "en": """
mAP is the mean of the classes' average precisions. You write one: `average_precision(scores, right, objects)`. scores
(N,) are those of all detections of a class in all pictures, in any order; right (N,) says which of them match a true
object (found at IoU 0.5, and no surer one took it); objects counts the true ones. Go down the list from the surest.
After each detection there is a precision (right so far / detections so far) and a recall (right so far / objects).
Make the precision monotone: at each recall the best one there or at a higher recall. AP is the area below.
""",
    "zh": """
mAP 是各类别平均精度的平均。请写出其中一个：`average_precision(scores, right, objects)`。scores (N,) 是一个类别在所有
图片中的全部检测结果的得分，不一定有序；right (N,) 表示哪些与真实目标匹配（IoU 达到 0.5，且没有被更确定的结果占用）；
objects 是真实目标的个数。从最确定的开始往下走。每个检测结果之后都有一个精确率（至此正确的 / 至此的检测结果）和一个召
回率（至此正确的 / 真实目标）。使精确率单调：在每个召回率处，取该处或更高召回率处最好的精确率。AP 就是下面的面积。
""",
}
HINTS = {
    "en": [
        "Sort by score, then np.cumsum of right gives the hits after each detection.",
        "np.maximum.accumulate on the reversed precision, and reversed again; then widths of recall times heights.",
    ],
    "zh": [
        "按得分排序，再用 np.cumsum 求出每个检测结果之后的正确个数。",
        "对倒序的精确率用 np.maximum.accumulate，再倒回来；然后是召回率的宽度乘以高度。",
    ],
}


def ap(scores, right, objects, order=True, envelope=True, of_all=True):
    right = right[np.argsort(-scores, kind="stable")] if order else right
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    recall = hits / (objects if of_all else max(1, hits[-1]))
    if envelope:
        return evaluate.average_precision(precision, recall)
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def check(function) -> tuple[str, str] | None:
    scores = np.array([0.3, 0.95, 0.8, 0.9, 0.6, 0.5])
    right = np.array([True, True, True, False, False, True])
    found, wanted = float(function(scores.copy(), right.copy(), 5)), ap(scores, right, 5)
    if abs(found - wanted) > 1e-9:
        slips = (
            ({"order": False}, "go down the list from the surest: sort by score", "从最确定的开始：按得分排序"),
            ({"envelope": False}, "make the precision monotone first, from the right", "先从右边起使精确率单调"),
            (
                {"of_all": False},
                "recall is of all 5 true objects, also of those not found",
                "召回率的分母是全部 5 个真实目标",
            ),
        )
        for slip, english, chinese in slips:
            if abs(found - ap(scores, right, 5, **slip)) < 1e-9:
                return f"{found:.4f}, not {wanted:.4f}: {english}", f"得到 {found:.4f}，应为 {wanted:.4f}：{chinese}"
        return f"{found:.4f}, not {wanted:.4f}", f"得到 {found:.4f}，应为 {wanted:.4f}"
    rng = np.random.default_rng(0)
    for count in (1, 30, 200):
        scores, right = rng.random(count), rng.random(count) < 0.6
        found, wanted = float(function(scores, right, count)), ap(scores, right, count)
        if abs(found - wanted) > 1e-9:
            return (
                f"{count} detections: {found:.4f}, not {wanted:.4f}",
                f"{count} 个检测结果：得到 {found:.4f}，应为 {wanted:.4f}",
            )
    return None


MISTAKES = {
    "not sorted": lambda scores, right, objects: ap(scores, right, objects, order=False),
    "no envelope": lambda scores, right, objects: ap(scores, right, objects, envelope=False),
    "recall of those found": lambda scores, right, objects: ap(scores, right, objects, of_all=False),
}
