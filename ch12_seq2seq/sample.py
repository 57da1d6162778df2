"""Writes the built-in sample: English and Chinese sentences from one small grammar. No download, no binary in git.

    python sample.py              # prints ten pairs

The grammar is synchronous: each choice (who, when, where, how, what) writes its words on both sides at once. So every
English sentence has exactly one right translation, also those combinations that training never showed, and a network
has to learn what a translator does: other word order (time and place move before the verb), words with no counterpart
(a measure word for each noun), and one word that several become ("did not buy": 没买).
"""

import random

# fmt: off
WHO = [
    ("I", "我"), ("you", "你"), ("he", "他"), ("she", "她"), ("we", "我们"), ("they", "他们"), ("Tom", "汤姆"),
    ("Mary", "玛丽"), ("the teacher", "老师"), ("the doctor", "医生"), ("my brother", "我弟弟"), ("her friend", "她的朋友"),
]
PLURAL = {"I", "you", "we", "they"}  # want, not wants
WHERE = [
    ("", ""), ("", ""), ("at school", "在学校"), ("at home", "在家"), ("in the park", "在公园"), ("in Beijing", "在北京"),
    ("at the station", "在车站"), ("on the train", "在火车上"),
]
ANY_TIME = [("", ""), ("", ""), ("today", "今天")]
WHEN = {
    "past": [*ANY_TIME, ("yesterday", "昨天"), ("last week", "上个星期"), ("this morning", "今天早上")],
    "future": [*ANY_TIME, ("tomorrow", "明天"), ("next month", "下个月"), ("tonight", "今晚")],
}
VERBS = [
    ("buy", "bought", "买"), ("find", "found", "找到"), ("draw", "drew", "画"), ("sell", "sold", "卖"),
    ("see", "saw", "看见"), ("lose", "lost", "丢"), ("choose", "chose", "选"),
]
NUMBERS = [("a", "一"), ("two", "两"), ("three", "三"), ("five", "五"), ("ten", "十")]
LOOKS = [
    ("", ""), ("", ""), ("red", "红色的"), ("black", "黑色的"), ("small", "小"), ("new", "新"), ("cheap", "便宜的"),
    ("beautiful", "漂亮的"),
]
THINGS = [
    ("book", "本", "书"), ("dictionary", "本", "词典"), ("cat", "只", "猫"), ("bird", "只", "鸟"), ("dog", "条", "狗"),
    ("fish", "条", "鱼"), ("skirt", "条", "裙子"), ("car", "辆", "汽车"), ("bicycle", "辆", "自行车"), ("map", "张", "地图"),
    ("table", "张", "桌子"), ("chair", "把", "椅子"), ("umbrella", "把", "雨伞"), ("shirt", "件", "衬衫"),
    ("hat", "顶", "帽子"), ("flower", "朵", "花"), ("cup", "个", "杯子"), ("watch", "块", "手表"),
]
# fmt: on
PLURALS = {"dictionary": "dictionaries", "fish": "fish", "watch": "watches"}


def noun_phrase(rng: random.Random) -> tuple[str, str]:
    """("two red books", "两本红色的书")"""
    (number, zh_number), (look, zh_look) = rng.choice(NUMBERS), rng.choice(LOOKS)
    thing, measure, zh_thing = rng.choice(THINGS)
    if number == "a":
        number = "an" if (look or thing)[0] in "aeiou" else "a"
    else:
        thing = PLURALS.get(thing, thing + "s")
    return " ".join(filter(None, (number, look, thing))), zh_number + measure + zh_look + zh_thing


def verb_phrase(rng: random.Random, who: str) -> tuple[str, str, str, str]:
    """("did not buy", "没", "买", "past"): English; the Chinese modal word and verb; the tense that the time must have."""
    base, past, zh = rng.choice(VERBS)
    wants = "want" if who in PLURAL else "wants"
    does = "do" if who in PLURAL else "does"
    return rng.choice((
        (past, "", zh + "了", "past"), (past, "", zh + "了", "past"), (f"did not {base}", "没", zh, "past"),
        (f"will {base}", "会", zh, "future"), (f"will not {base}", "不会", zh, "future"),
        (f"{wants} to {base}", "想", zh, "future"), (f"{does} not want to {base}", "不想", zh, "future"),
        (f"can {base}", "能", zh, "future"),
    ))  # fmt: skip


def pair(rng: random.Random) -> tuple[str, str]:
    """("We did not buy a map at school today.", "我们今天没在学校买一张地图。")"""
    who, zh_who = rng.choice(WHO)
    verb, zh_modal, zh_verb, tense = verb_phrase(rng, who)
    what, zh_what = noun_phrase(rng)
    where, zh_where = rng.choice(WHERE)
    when, zh_when = rng.choice(WHEN[tense])
    english = " ".join(filter(None, (who, verb, what, where, when)))
    return english[0].upper() + english[1:] + ".", zh_who + zh_when + zh_modal + zh_where + zh_verb + zh_what + "。"


def make(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """-> `count` pairs, no English sentence twice. The same for the same seed."""
    rng, pairs = random.Random(seed), {}
    while len(pairs) < count:
        english, chinese = pair(rng)
        pairs[english] = chinese
    return list(pairs.items())


if __name__ == "__main__":
    for english, chinese in make(10):
        print(f"{english}\t{chinese}")
