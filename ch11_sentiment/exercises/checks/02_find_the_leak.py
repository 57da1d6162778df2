NAME = "leaks"
TITLE = {"en": "Find the leak", "zh": "找出标签泄漏"}
TEXT = {
    "en": """
Many sets of microblogs were labelled by the emoticons in the texts. A network that keeps the emoticons then reads the
label off the text, has 98 % accuracy, and knows nothing about sentiment. Look for that before you train. Write
`leaks(texts, labels, purity=0.95, least=5)`: the emoticons, such as [泪] (in square brackets, 1 to 8 characters
without blanks), that stand in at least `least` texts, of which at least the share `purity` has one and the same
label. The one that stands in most texts comes first; ties by name.
""",
    "zh": """
许多微博数据集是按文本中的表情标注的。保留表情的网络只是从文本里读出标签，准确率达到 98 %，对情感却一无所知。训练之前
就要检查。写出 `leaks(texts, labels, purity=0.95, least=5)`：找出形如 [泪] 的表情（方括号内 1 到 8 个非空白字符），它
至少出现在 `least` 段文本中，并且这些文本中至少有 `purity` 的比例属于同一个标签。出现在最多文本中的排在最前；数量相同
时按名称排序。
""",
}
HINTS = {
    "en": [
        "For each emoticon, count the texts of each label: a dict of Counters. Each text counts once.",
        "The share is the largest count over the sum of the counts; compare the sum with `least` as well.",
    ],
    "zh": [
        "对每个表情，按标签统计文本数：一个值为 Counter 的字典。每段文本只计一次。",
        "比例是最大的计数除以计数之和；这个和还要与 `least` 比较。",
    ],
}
TABLE = (
    [("又堵车了[泪]", 0)] * 20
    + [("真好[哈哈]", 1)] * 11
    + [("[哈哈]才怪", 0)]  # 11 of 12: not pure enough
    + [("[鼓掌]赢了", 1)] * 6
    + [("[围观]看看", 1)] * 5
    + [("[围观]走开", 0)] * 5
    + [("[月亮]", 1)] * 2  # always the same label, but in two texts only
    + [("[蜡烛]" * 9, 0)]  # often, but in one text
    + [("没有表情", 1), ("[]", 0), ("[a b]", 0)] * 6
)
RIGHT = ["[泪]", "[鼓掌]"]


def check(function) -> tuple[str, str] | None:
    texts, labels = map(list, zip(*TABLE, strict=True))
    found = list(function(texts, labels))
    reasons = {
        "[月亮]": (
            "it stands in 2 texts only, so that its purity may be chance",
            "它只出现在 2 段文本中，纯度可能是偶然",
        ),
        "[蜡烛]": ("9 times in one text is one text", "在一段文本里出现 9 次只算一段文本"),
        "[哈哈]": (
            "11 of its 12 texts have one label: 0.92 is below 0.95",
            "12 段文本中 11 段是同一标签：0.92 小于 0.95",
        ),
        "[围观]": ("its texts are 5 and 5: it tells nothing", "它的文本是 5 对 5：什么也说明不了"),
    }
    for name in found:
        if name in reasons:
            english, chinese = reasons[name]
            return f"{name} is no leak: {english}", f"{name} 不是泄漏：{chinese}"
    if missing := [name for name in RIGHT if name not in found]:
        return (
            f"{missing[0]} is missing: all of its {sum(missing[0] in text for text in texts)} texts have one label",
            f"缺少 {missing[0]}：它的 {sum(missing[0] in text for text in texts)} 段文本都是同一个标签",
        )
    if found != RIGHT:
        return f"{found}; wanted, by number of texts: {RIGHT}", f"得到 {found}；按文本数排列应为 {RIGHT}"
    if function(texts, labels, 0.9, 2)[1:2] != ["[哈哈]"]:
        return "purity=0.9, least=2: [哈哈] must be second", "purity=0.9, least=2 时，[哈哈] 应排在第二"
    return None


def counted(texts, labels, purity=0.95, least=5, each_text_once=True):
    names = [f"[{name}]" for name in ("鼓掌", "泪", "哈哈", "围观", "月亮", "蜡烛")]
    found = {}
    for name in names:
        seen = [
            y
            for t, y in zip(texts, labels, strict=True)
            for _ in range(min(t.count(name), 1 if each_text_once else 99))
        ]
        if len(seen) >= least and max(seen.count(0), seen.count(1)) >= purity * len(seen):
            found[name] = len(seen)
    return sorted(found, key=lambda name: (-found[name], name))


MISTAKES = {
    "no least": lambda texts, labels, purity=0.95, least=5: counted(texts, labels, purity, 1),
    "no purity": lambda texts, labels, purity=0.95, least=5: counted(texts, labels, 0, least),
    "counts each time": lambda texts, labels, purity=0.95, least=5: counted(texts, labels, purity, least, False),
    "not sorted": lambda texts, labels, purity=0.95, least=5: counted(texts, labels, purity, least)[::-1],
}
