"""Text to numbers and back: normalising, cutting into tokens, the vocabulary (course 12-3).

    python text.py "我們不去，Tom 也不去 !"     # what the rules below make of a sentence

A token is a Chinese character (or a jieba word), a word, a digit or a mark; the space before a word belongs to it. So
`"".join(tokens)` is the text again, in every language, and a translation needs no rules to put its spaces right. What a letter
is, and which accents and vowel signs belong to it, is as Unicode has it. With --subwords, SentencePiece cuts instead.
"""

import base64
import io
import os
import re
import sys
import tempfile
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property

import opencc
import regex
import sentencepiece

from utils import fail

PAD, UNKNOWN, START, END = range(4)
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
HAN = r"\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # and kana
UNSPACED = (
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"  # languages without spaces between words: a letter, its marks
)
JOINED = r"\p{M}*(?:[\u200c\u200d]\p{M}*)*"  # belongs to the letter before it
LETTER = rf"(?:(?![{UNSPACED}])[^\W\d_{HAN}])"  # or a mark: both are \w
TOKEN = regex.compile(rf"[{HAN}]+| ?(?:\d|'?{LETTER}+|[{UNSPACED}]{JOINED}|[^\w\s]{JOINED}|_)")
SMALL = re.compile("([ª²³¹º¼-¾\u2070-\u209c\u2150-\u215f\u2460-\u24ff]+)")  # x² is not x2, ½ not 1/2
UNSEEN = "\xad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
KANA, HANGUL = re.compile("[\u3040-\u30ff\uff66-\uff9d]"), re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
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
    with tempfile.TemporaryDirectory() as own:  # for a folder where nobody may write
        try:
            os.makedirs("data/cache", exist_ok=True)
            jieba.dt.tmp_dir = os.path.abspath("data/cache") if os.access("data/cache", os.W_OK) else own
        except OSError:
            jieba.dt.tmp_dir = own
        jieba.initialize()
    return jieba


def language_of(sentences: Iterable[str]) -> str:
    """-> zh, ja, ko, th (any language that writes no spaces), or "" (any other): what most of the letters tell.

    Chinese has no kana; Japanese has some in nearly every sentence."""
    counts, with_kana, with_either = Counter(), 0, 0
    for text in sentences:
        unspaced = len(regex.findall(f"[{UNSPACED}]", text))
        han, kana, hangul = (len(kind.findall(text)) for kind in (IDEOGRAPH, KANA, HANGUL))
        others = sum(c.isalpha() for c in text) - unspaced - han - kana - hangul
        counts += Counter({"zh": han + kana, "ko": hangul, "th": unspaced, "": others})
        with_kana, with_either = with_kana + (kana > 0), with_either + (han + kana > 0)
    language = max(counts, key=lambda name: counts[name], default="")
    return "ja" if language == "zh" and with_kana > 0.3 * with_either else language


@dataclass(frozen=True)
class Rules:
    """How a text is normalised and cut; a model works only with the rules it was trained with, so they are saved with it."""

    chinese: str = "chars"  # or jieba
    script: str = "simplified"  # or as-is
    language: str = "zh"  # of this side; only Chinese is made simplified and cut by jieba

    def normalise(self, text: str) -> str:
        """One form of each character, mark and space; Chinese marks in Chinese text; traditional made simplified."""
        parts = (part if i % 2 else unicodedata.normalize("NFKC", part) for i, part in enumerate(SMALL.split(text)))
        text = "".join(map(visible, "".join(parts).translate(TO_PLAIN)))
        text = " ".join(text.split())
        if re.search(f"[{HAN}]", text):
            text = re.sub(r"\.(?=\"?$)", "。", LATIN_MARK.sub(lambda mark: TO_CHINESE[mark[0]], text))
            text = BESIDE_HAN.sub("", text)
            if self.script == "simplified" and self.language == "zh" and not KANA.search(text):
                text = simplifier().convert(text)
        return text

    def cut(self, text: str, lower: bool = False) -> list[str]:
        """A normalised text -> its tokens. A source is lowered: it need not be written again, and Cat is then cat."""
        text = text.lower() if lower else text
        if text and not regex.match(f"[{HAN}{UNSPACED}]", text):
            text = " " + text  # the first word looks like the others
        tokens = []
        for match in TOKEN.findall(text):
            if not re.match(f"[{HAN}]", match):
                tokens.append(match)
            else:
                tokens += segmenter().cut(match) if self.chinese == "jieba" and self.language == "zh" else match
        return tokens


def visible(c: str) -> str:
    """A character; a space for what stands for one; nothing for what only directs how others are shown."""
    kind = unicodedata.category(c)
    if kind == "Cf" and c not in "\u200c\u200d":  # which join letters, in Hindi and Persian
        return "" if c in UNSEEN else " "
    return c if kind[0] not in "CZ" or c in "\u200c\u200d" else " "


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


@dataclass
class Side:
    """One language of the pairs: its rules, its vocabulary, and how its texts become tokens and again texts.

    A source is lowered (`lower`): it need not be written again, and Cat is then cat. `pieces` is a model of SentencePiece
    (Kudo and Richardson 2018), in base64; without, tokens are cut by the rules.
    """

    rules: Rules
    vocabulary: Vocabulary
    lower: bool = False
    pieces: str | None = None

    @classmethod
    def of(cls, texts: list[str], rules: Rules, lower: bool, at_least: int, subwords: int | None) -> "Side":
        """Counted, or trained, on normalised `texts`: those of the training pairs, and no others."""
        if subwords is None:
            return cls(rules, Vocabulary.of((rules.cut(text, lower) for text in texts), at_least), lower)
        model = io.BytesIO()
        special = dict(zip(("pad_id", "unk_id", "bos_id", "eos_id"), range(4), strict=True))
        special |= dict(zip(("pad_piece", "unk_piece", "bos_piece", "eos_piece"), SPECIAL, strict=True))
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(text.lower() if lower else text for text in texts), model_writer=model,
                vocab_size=subwords, hard_vocab_limit=False, normalization_rule_name="identity", num_threads=1,
                character_coverage=0.9998, max_sentence_length=1 << 20, minloglevel=2, **special,
            )  # fmt: skip
        except RuntimeError as error:
            fail(f"--subwords {subwords}: {str(error).splitlines()[0][-150:]}")
        side = cls(rules, Vocabulary([]), lower, base64.b64encode(model.getvalue()).decode())
        return replace(side, vocabulary=Vocabulary([side.model.id_to_piece(i) for i in range(len(side.model))]))

    @cached_property
    def model(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=base64.b64decode(self.pieces))

    def __len__(self) -> int:
        return len(self.vocabulary)

    @property
    def words(self) -> list[str]:
        return self.vocabulary.words

    def cut(self, text: str, as_written: bool = False) -> list[str]:
        """A normalised text -> its tokens; `as_written`, with its capitals."""
        lower = self.lower and not as_written
        if self.pieces is None:
            return self.rules.cut(text, lower)
        tokens = self.model.encode(text.lower() if self.lower else text, out_type=str)
        return tokens if lower or not self.lower else as_in(text, tokens)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        return self.vocabulary.encode(tokens)

    def decode(self, numbers: Iterable[int]) -> list[str]:
        return self.vocabulary.decode(numbers)

    def unknown(self, text: str) -> list[tuple[int, str]]:
        """-> place and spelling of each token of a normalised text that the vocabulary lacks."""
        numbers = self.encode(self.cut(text))
        return [(i, word.strip(" ▁")) for i, word in enumerate(self.cut(text, True)) if numbers[i] == UNKNOWN]

    def join(self, tokens: Iterable[str]) -> str:
        if self.pieces is None:
            return join(tokens)
        return join(token.replace("▁", " ") for token in tokens)

    def metadata(self) -> dict:
        return {"rules": vars(self.rules), "words": self.words, "lower": self.lower, "pieces": self.pieces}

    @classmethod
    def from_metadata(cls, meta: dict) -> "Side":
        return cls(Rules(**meta["rules"]), Vocabulary(meta["words"]), meta["lower"], meta["pieces"])


def as_in(text: str, tokens: list[str]) -> list[str]:
    """Lowered pieces with the capitals of the text that they were cut from, if that is as long in lower case."""
    if len(text) != len(text.lower()):
        return tokens
    found, place = [], 0
    for token in tokens:
        bare = token.lstrip("▁")
        place = text.lower().find(bare, place) if bare else place
        if place < 0:
            return tokens
        found.append(token[: len(token) - len(bare)] + text[place : place + len(bare)])
        place += len(bare)
    return found


if __name__ == "__main__":
    for chinese in ("chars", "jieba"):
        rules = Rules(chinese)
        print(*(rules.cut(rules.normalise(text)) for text in sys.argv[1:] or ["我們不去，Tom 也不去 !"]))
