"""Text to numbers and back: normalising, cutting into tokens, the vocabulary (course 12-3).

    python text.py "我們不去，Tom 也不去 !"     # what the rules below make of a sentence

A token is a Chinese character (or a jieba word), a word, a digit or a mark; the space before a word belongs to it. So
`"".join(tokens)` is the text again, in every language, and a translation needs no rules to put its spaces right.
"""

import os
import re
import sys
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import opencc

PAD, UNKNOWN, START, END = range(4)
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
HAN = r"\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # and kana
TOKEN = re.compile(rf"[{HAN}]+| ?(?:\d|'?[^\W\d_{HAN}]+|[^\w\s]|_)")
BESIDE_HAN = re.compile(rf" (?=[{HAN}，。？！：；、“”《》（）])|(?<=[{HAN}，。？！：；、“”《》（）]) ")
TO_PLAIN = str.maketrans("‘’“”「」『』＂‐‑–—−﹐•·", '\'\'"""""""-----,··')  # many signs for one thing
LATIN_MARK = re.compile(r"[?!;()]|[,:](?!\d)|(?<!\d)[,:]")  # but not those of 5,000 and 2:30
TO_CHINESE = dict(zip(",?!:;()", "，？！：；（）", strict=True))


@cache
def simplifier() -> opencc.OpenCC:
    return opencc.OpenCC("t2s")


@cache
def segmenter():
    """jieba, silent. Its cache, which it reads with marshal, lies in data/cache, not in /tmp, where all may write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its source, which is older than this Python
        import jieba  # here, as it takes a second to read its dictionary, and only --chinese jieba wants it
    jieba.setLogLevel("ERROR")
    os.makedirs("data/cache", exist_ok=True)
    jieba.dt.tmp_dir = os.path.abspath("data/cache")
    jieba.initialize()
    return jieba


@dataclass(frozen=True)
class Rules:
    """How a text is normalised and cut; a model works only with the rules it was trained with, so they are saved with it."""

    chinese: str = "chars"  # or jieba
    script: str = "simplified"  # or as-is

    def normalise(self, text: str) -> str:
        """One form of each character, mark and space; Chinese marks in Chinese text; traditional made simplified."""
        text = unicodedata.normalize("NFKC", text).translate(TO_PLAIN)
        text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text if c not in "\u200b\ufeff")
        text = " ".join(text.split())
        if re.search(f"[{HAN}]", text):
            text = re.sub(r"\.(?=\"?$)", "。", LATIN_MARK.sub(lambda mark: TO_CHINESE[mark[0]], text))
            text = BESIDE_HAN.sub("", text)
            if self.script == "simplified":
                text = simplifier().convert(text)
        return text

    def cut(self, text: str, lower: bool = False) -> list[str]:
        """A normalised text -> its tokens. A source is lowered: it need not be written again, and Cat is then cat."""
        text = text.lower() if lower else text
        if text and not re.match(f"[{HAN}]", text):
            text = " " + text  # the first word looks like the others
        tokens = []
        for match in TOKEN.findall(text):
            if not re.match(f"[{HAN}]", match):
                tokens.append(match)
            else:
                tokens += segmenter().cut(match) if self.chinese == "jieba" else match
        return tokens


def join(tokens: Iterable[str]) -> str:
    """The text of tokens. Only a word copied into Chinese brings a space that does not belong there."""
    return BESIDE_HAN.sub("", "".join(tokens)).strip()


class Vocabulary:
    """Numbers for the tokens of the training text that stand there `at_least` times; all others are <unk>."""

    def __init__(self, words: list[str]):
        self.words = words
        self.number = {word: i for i, word in enumerate(words)}

    @classmethod
    def of(cls, sentences: Iterable[list[str]], at_least: int) -> "Vocabulary":
        counts = Counter(token for tokens in sentences for token in tokens)
        kept = [word for word, count in counts.items() if count >= at_least]
        return cls(SPECIAL + sorted(kept, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        return [self.number.get(token, UNKNOWN) for token in tokens]

    def decode(self, numbers: Iterable[int]) -> list[str]:
        return [self.words[i] for i in numbers]


if __name__ == "__main__":
    for chinese in ("chars", "jieba"):
        rules = Rules(chinese)
        print(*(rules.cut(rules.normalise(text)) for text in sys.argv[1:] or ["我們不去，Tom 也不去 !"]))
