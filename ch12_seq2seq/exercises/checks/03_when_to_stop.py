import random

import search

NAME = "may_stop"
TITLE = {"en": "When beam search may stop", "zh": "束搜索何时可以停止"}
TEXT = {
    "en": """
Beam search keeps several translations; some have ended, others go on. To stop at the first that ends is too early; to
go on to the greatest length is a waste. Write `may_stop(unfinished, finished, limit, penalty)`: True if no unfinished
translation can beat the best finished one any more. A translation's rank is its log-probability / lp(length), lp(n) =
((5 + n) / 6) ** penalty. unfinished is a list of log-probabilities, finished a list of (log-probability, length).
What is the best that an unfinished one can still become? An equal rank does not beat. If nothing is unfinished, stop;
if nothing has finished, go on.
""",
    "zh": """
束搜索同时保留几个译文；有的已经结束，有的还在继续。第一个结束时就停止，太早；一直走到最大长度，浪费。写出
`may_stop(unfinished, finished, limit, penalty)`：如果没有任何未结束的译文还能超过最好的已结束译文，返回 True。译文的
得分是对数概率 / lp(长度)，lp(n) = ((5 + n) / 6) ** penalty。unfinished 是对数概率的列表，finished 是（对数概率，长
度）的列表。未结束的译文最好还能变成什么样？得分相等不算超过。没有未结束的就停止；没有已结束的就继续。
""",
}
HINTS = {
    "en": [
        "Each further token multiplies by a probability of at most 1: the log-probability never rises.",
        "Log-probabilities are negative: dividing by more makes them larger. The largest divisor is lp(limit).",
    ],
    "zh": [
        "每多一个词元就乘以一个不超过 1 的概率：对数概率只减不增。",
        "对数概率是负数：除数越大，结果越大。最大的除数是 lp(limit)。",
    ],
}


def rule(unfinished, finished, limit, penalty):
    """The chapter's, as in search.beam_search."""
    if not unfinished or not finished:
        return not unfinished
    best = max(score / search.lp(length, penalty) for score, length in finished)
    return max(unfinished) / search.lp(limit, penalty) <= best


CASES = (
    ([-2.1], [(-2.0, 3)], 20, 1.0, "it can still win: at length 20 its rank may be -2.1 / lp(20) = -0.50, above -1.50",
     "它还能赢：长度为 20 时得分可达 -2.1 / lp(20) = -0.50，高于 -1.50"),
    ([-9.0], [(-2.0, 3)], 20, 1.0, "it cannot win: at best -9.0 / lp(20) = -2.16, below -1.50",
     "它不能再赢：最好是 -9.0 / lp(20) = -2.16，低于 -1.50"),
    ([-4.5], [(-2.0, 1), (-2.2, 16)], 20, 1.0, "the best finished one by rank is the second: -2.2 / lp(16) = -0.63",
     "按得分，最好的已结束译文是第二个：-2.2 / lp(16) = -0.63"),
    ([-9.0, -2.1], [(-2.0, 3)], 20, 1.0, "the second unfinished one can still win", "第二个未结束的译文还能赢"),
    ([], [(-2.0, 3)], 20, 1.0, "nothing goes on", "没有未结束的译文"),
    ([-50.0], [], 20, 1.0, "nothing has ended yet", "还没有结束的译文"),
    ([-2.0], [(-2.0, 3)], 20, 0.0, "an equal rank does not beat", "得分相等不算超过"),
)  # fmt: skip


def check(function) -> tuple[str, str] | None:
    for *words, english, chinese in CASES:
        found = function(*words)
        if found != rule(*words):
            call = "may_stop(" + ", ".join(map(str, words)) + f") gives {found}"
            return f"{call}: {english}", f"{call}：{chinese}".replace(" gives ", " 返回 ")
    source = random.Random(0)
    for _ in range(300):
        unfinished = [-source.uniform(0.1, 9) for _ in range(3)]
        words = unfinished, [(-source.uniform(0.1, 9), source.randint(1, 12)) for _ in range(2)], 15, source.random()
        if function(*words) != rule(*words):
            return f"wrong for {words}", f"对 {words} 的结果不对"
    return None


def with_bound(bound, best=max):
    def may_stop(unfinished, finished, limit, penalty):
        if not unfinished or not finished:
            return not unfinished
        ranks = [score / search.lp(length, penalty) for score, length in finished]
        return bound(unfinished, limit, penalty) <= best(ranks)

    return may_stop


MISTAKES = {
    "stops at the first": lambda unfinished, finished, limit, penalty: bool(finished),
    "never stops early": lambda unfinished, finished, limit, penalty: not unfinished,
    "takes the first finished one": with_bound(lambda u, n, p: max(u) / search.lp(n, p), best=lambda ranks: ranks[0]),
    "looks at the first unfinished one": with_bound(lambda u, n, p: u[0] / search.lp(n, p)),
}
