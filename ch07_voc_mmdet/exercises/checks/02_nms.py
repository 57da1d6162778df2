import numpy as np

from evaluate import iou

NAME = "nms"
TITLE = {"en": "Non-maximum suppression", "zh": "非极大值抑制"}
TEXT = {
    "en": """
A detector finds each object many times. Non-maximum suppression keeps the surest box and removes those that overlap
it. Write `nms(boxes, scores, threshold)` for one class, with NumPy alone: boxes (N, 4) are left, top, right, bottom;
scores (N,) in any order. A box is removed if its IoU with a surer box that stays is above the threshold. The result:
numbers of the boxes that stay, the surest first.
""",
    "zh": """
检测器会多次找到同一个目标。非极大值抑制保留最确定的框，去掉与它重叠的框。只用 NumPy，写出一个类别的
`nms(boxes, scores, threshold)`：boxes (N, 4) 是左、上、右、下；scores (N,) 不一定有序。如果一个框与某个保留下来的、更
确定的框的 IoU 大于阈值，就去掉它。返回保留的框的编号，最确定的在前。
""",
}
HINTS = {
    "en": [
        "Sort by score. Take the first, remove what overlaps it, take the next of what is left.",
        "Intersection: the larger of the lefts to the smaller of the rights, at least 0. Union: both areas minus it.",
    ],
    "zh": [
        "按得分排序。取第一个，去掉与它重叠的，再取剩下的第一个。",
        "交集：从较大的左边缘到较小的右边缘，至少为 0。并集：两个面积之和减去交集。",
    ],
}
CHAIN = np.array([[14.0, 0, 24, 10], [0, 0, 10, 10], [7, 0, 17, 10], [30, 30, 40, 40]])  # 2 overlaps 0 and 1 a little
INSIDE = np.array([[0.0, 0, 10, 10], [3, 3, 7, 7]])  # IoU 16 / 100
COPIES = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [100, 100, 110, 110]])


def kept(boxes, scores, threshold, measure=iou, chain=False, order=True):
    left = np.argsort(-scores, kind="stable") if order else np.arange(len(scores))
    stay, seen = [], []
    for i in left:
        others = seen if chain else stay
        if not others or (measure(boxes[[i]], boxes[others]) <= threshold).all():
            stay.append(int(i))
        seen.append(i)
    return stay


def check(function) -> tuple[str, str] | None:
    found = [int(i) for i in function(COPIES, np.array([0.4, 0.9, 0.6]), 0.5)]
    if found == [0, 2] or found == [0, 1, 2]:
        return (
            f"scores 0.4, 0.9, 0.6: {found}, not [1, 2]: box 1 is surer than box 0, which it overlaps by 0.82",
            f"得分为 0.4, 0.9, 0.6：得到 {found}，应为 [1, 2]：框 1 比与它重叠 0.82 的框 0 更确定",
        )
    if found != [1, 2]:
        return f"scores 0.4, 0.9, 0.6: {found}, not [1, 2]", f"得分为 0.4, 0.9, 0.6：得到 {found}，应为 [1, 2]"
    found = sorted(int(i) for i in function(CHAIN, np.array([0.7, 0.9, 0.8, 0.6]), 0.1))
    if found != [0, 1, 3]:
        return (
            f"of a chain of three, boxes {found} stay, not [0, 1, 3]: the middle box was removed, so it removes none",
            f"三个框连成一串，保留了 {found}，应为 [0, 1, 3]：中间的框已被去掉，不能再去掉别的框",
        )
    found = [int(i) for i in function(INSIDE, np.array([0.9, 0.8]), 0.5)]
    if found != [0, 1]:
        return (
            "a 4x4 box inside a 10x10 one was removed, but their IoU is 16 / 100: divide by the union, not by the smaller",
            "10x10 的框里 4x4 的框被去掉了，但它们的 IoU 是 16 / 100：应除以并集，而不是较小的面积",
        )
    rng = np.random.default_rng(0)
    corners, scores = rng.uniform(0, 60, (60, 2)), rng.random(60)
    boxes = np.c_[corners, corners + rng.uniform(5, 40, (60, 2))]
    found, right = [int(i) for i in function(boxes, scores, 0.4)], kept(boxes, scores, 0.4)
    if found != right:
        return (
            f"of 60 random boxes {len(found)} stay, not the right {len(right)}, or in another order: is no overlap below 0?",
            f"60 个随机框中保留了 {len(found)} 个，应为 {len(right)} 个，或顺序不同：交集是否至少为 0？",
        )
    return None


def of_the_smaller(boxes, others):
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    both = (np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner).clip(0).prod(2)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others)]
    return both / np.minimum(areas[0][:, None], areas[1][None])


def not_clipped(boxes, others):
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    both = (np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner).prod(2)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others)]
    return both / (areas[0][:, None] + areas[1][None] - both)


MISTAKES = {
    "not sorted": lambda boxes, scores, threshold: kept(boxes, scores, threshold, order=False),
    "removed boxes remove": lambda boxes, scores, threshold: kept(boxes, scores, threshold, chain=True),
    "divides by the smaller": lambda boxes, scores, threshold: kept(boxes, scores, threshold, of_the_smaller),
    "negative overlaps": lambda boxes, scores, threshold: kept(boxes, scores, threshold, not_clipped),
}
