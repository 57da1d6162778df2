"""Writes the built-in sample: made-up Chinese reviews of hotels, food, books and phones, from a grammar and a seed.

    python sample.py        # prints some

What a review says of its subject is in how words stand together, not in which words there are. Praise and blame turn
round under a negation (房间不干净) and back under two (房间没有不干净), a contrast lets the second half decide
(虽然房间很干净,但是服务不热情), and half of a review is filler that says nothing. So words of praise stand in many negative
reviews too: a model that counts words learns little of it, one that counts pairs of words a part.
"""

import random

SUBJECTS = {
    "房间": ("干净 安静 舒服 宽敞 明亮", "肮脏 吵闹 潮湿 狭小 昏暗"),
    "服务": ("热情 周到 贴心 专业", "冷淡 敷衍 糟糕 拖拉"),
    "味道": ("鲜美 地道 可口 诱人", "难吃 油腻 古怪 寡淡"),
    "情节": ("精彩 感人 有趣 紧凑", "无聊 老套 混乱 拖沓"),
    "屏幕": ("清晰 细腻 鲜艳 流畅", "模糊 发黄 卡顿 刺眼"),
    "包装": ("精致 结实 整齐 漂亮", "破损 粗糙 简陋 难看"),
}
DEGREES = ("很", "非常", "挺", "相当", "特别", "真的")
NEGATIONS = ("不", "并不", "一点也不", "根本不", "算不上", "谈不上")
DOUBLE = ("没有不", "绝不是不", "不能说不")
CONTRASTS = (("虽然", ",但是"), ("尽管", ",可是"), ("", ",不过"), ("", ",然而"))
FILLERS = (
    "上周三和朋友一起去的", "位置在地铁站旁边", "是同事推荐给我的", "下单以后第二天就到了", "这是我第二次来",
    "一共住了两个晚上", "周末带着孩子去的", "之前在网上看过介绍", "门口有一家超市", "颜色选的是蓝色",
    "老板姓王", "全书一共三百页", "我们点了四个菜",
)  # fmt: skip


def opinion(rng: random.Random, positive: bool, subject: str) -> str:
    """What praises (or blames) the subject; in one case of three by an adjective that says the opposite, negated."""
    praise, blame = (words.split() for words in SUBJECTS[subject])
    turned = rng.random() < 1 / 3
    adjective = rng.choice(praise if positive != turned else blame)
    if turned:
        return subject + rng.choice(NEGATIONS) + adjective
    return subject + rng.choice(DOUBLE if rng.random() < 0.2 else DEGREES) + adjective


def review(rng: random.Random, positive: bool) -> str:
    """One or two opinions, of which the last counts, and up to three fillers around them."""
    first, second = rng.sample(list(SUBJECTS), 2)
    said = opinion(rng, positive, first)
    if rng.random() < 0.5:
        although, but = rng.choice(CONTRASTS)
        said = although + opinion(rng, not positive, second) + but + said
    fillers = rng.sample(FILLERS, rng.randint(0, 3))
    place = rng.randint(0, len(fillers))
    return ",".join([*fillers[:place], said, *fillers[place:]]) + "。"


def make(count: int = 6000, seed: int = 0) -> list[tuple[str, str]]:
    """-> (text, label) pairs, label "0" (negative) or "1" (positive) in turn; the same seed gives the same reviews."""
    rng = random.Random(seed)
    return [(review(rng, positive=i % 2 == 1), str(i % 2)) for i in range(count)]


if __name__ == "__main__":
    for text, label in make(12):
        print(label, text)
