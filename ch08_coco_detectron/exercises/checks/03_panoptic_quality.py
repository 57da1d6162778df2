import math

import numpy as np

import evaluate

NAME = "panoptic_quality"
TITLE = {"en": "Panoptic quality", "zh": "全景分割质量"}
TEXT = {
    "en": """
Panoptic segmentation gives each pixel one segment; its measure needs neither scores nor thresholds on them. Write
`panoptic_quality(found, true)` for one category: two maps (H, W) with the number of each pixel's segment, 0 for none;
the numbers of the two maps have nothing to do with each other. A pair matches if its IoU is above 0.5. PQ is the sum
of the matched pairs' IoUs over TP + FP / 2 + FN / 2. If there are no segments in either map, it is nan: the category
does not count.
""",
    "zh": """
全景分割给每个像素一个分割区域；它的指标既不需要得分，也不需要得分的阈值。对一个类别写出
`panoptic_quality(found, true)`：两张图 (H, W)，每个像素的值是它所属区域的编号，0 表示没有；两张图的编号彼此无关。IoU
大于 0.5 的一对算匹配。PQ 是匹配各对的 IoU 之和除以 TP + FP / 2 + FN / 2。如果两张图都没有区域，结果是 nan：这个类别不
参与平均。
""",
}
HINTS = {
    "en": [
        "Above 0.5 a segment can match one other at most (why?): so look at all pairs, without any assignment.",
        "TP pairs matched; FP found segments are left over, FN true ones. Divide the sum of IoUs once.",
    ],
    "zh": [
        "IoU 大于 0.5 时，一个区域最多与一个区域匹配（为什么？）：因此只要看所有的对，不需要分配算法。",
        "TP 是匹配的对数；FP 是剩下的检测区域，FN 是剩下的真实区域。IoU 之和只除一次。",
    ],
}


def examples():
    true, found = np.zeros((20, 20), int), np.zeros((20, 20), int)
    true[:8, :8], true[10:18, :8], true[:6, 12:18], true[12:16, 12:20] = 1, 2, 3, 4
    found[:8, 1:9], found[10:18, :8], found[:6, 15:20], found[9:11, 15:19] = 7, 3, 1, 9
    return found, true


def pairs(found, true):
    numbers = [np.unique(x[x > 0]) for x in (found, true)]
    each = [((found == f) & (true == t), (found == f) | (true == t)) for t in numbers[1] for f in numbers[0]]
    return [both.sum() / either.sum() for both, either in each], *map(len, numbers)


def course(found, true):
    """The chapter's own."""
    counts = np.zeros((2, 4))
    maps = [
        (np.unique(x, return_inverse=True)[1].reshape(x.shape), [0] + [1] * (len(np.unique(x)) - 1))
        for x in (true, found)
    ]
    evaluate.match(*maps, 0, counts)
    return evaluate.quality(counts)["PQ"]


def any_overlap(found, true):
    ious, f, t = pairs(found, true)
    ious = [iou for iou in ious if iou > 0.1]
    return sum(ious) / (len(ious) + (f - len(ious)) / 2 + (t - len(ious)) / 2)


def mean_iou(found, true):
    ious = [iou for iou in pairs(found, true)[0] if iou > 0.5]
    return float(np.mean(ious)) if ious else 0.0


def not_halved(found, true):
    ious, f, t = pairs(found, true)
    ious = [iou for iou in ious if iou > 0.5]
    return sum(ious) / (f + t - len(ious))


def by_number(found, true):
    ious = [((found == n) & (true == n)).sum() / max(1, ((found == n) | (true == n)).sum()) for n in range(1, 10)]
    ious, (_, f, t) = [iou for iou in ious if iou > 0.5], pairs(found, true)
    return sum(ious) / (len(ious) + (f - len(ious)) / 2 + (t - len(ious)) / 2)


MISTAKES = {"IoU above 0.1": any_overlap, "mean IoU": mean_iou, "not halved": not_halved, "by number": by_number}
WHY = {
    any_overlap: ("a pair with an IoU of 0.375 does not match", "IoU 为 0.375 的一对不算匹配"),
    mean_iou: (
        "this is the mean IoU of the pairs; what is missed or too much must cost",
        "这只是各对 IoU 的平均；漏检和误检也要扣分",
    ),
    not_halved: ("FP and FN count half", "FP 和 FN 只算一半"),
    by_number: ("numbers mean nothing across the two maps: look at all pairs", "两张图的编号彼此无关：要看所有的对"),
}


def check(function) -> tuple[str, str] | None:
    found, true = examples()
    answer, right = function(found.copy(), true.copy()), course(found, true)
    if not math.isclose(answer, right, abs_tol=1e-9):
        slips = (words for slip, words in WHY.items() if math.isclose(answer, slip(found, true), abs_tol=1e-9))
        english, chinese = next(slips, ("2 pairs match, 2 found and 2 true segments are left over",
                                        "有 2 对匹配，剩下 2 个检测区域和 2 个真实区域"))  # fmt: skip
        return f"{answer:.4f}, not {right:.4f}: {english}", f"得到 {answer:.4f}，应为 {right:.4f}：{chinese}"
    half = np.array([[1, 1, 0]]), np.array([[1, 0, 0]])
    if function(*half) != 0:
        return "an IoU of exactly 0.5 is not above 0.5", "恰好 0.5 的 IoU 不算大于 0.5"
    nothing = np.zeros((2, 2), int)
    if not math.isnan(function(nothing, nothing)):
        return "two empty maps: nan, the category does not count", "两张空图应为 nan：这个类别不参与平均"
    return None
