"""From raw text to numbers (course 11-3, 11-4): cleaning, segmentation, stop words, vocabulary.

    python text.py "回复@小明:今天[哈哈]心情不错!!!!! http://t.cn/x"    # what each step makes of it

The course's list of preprocessing steps is for English. Chinese has no accents to drop, no contractions, no stems; what it has
instead is words without spaces between them.
"""

import hashlib
import html
import logging
import os
import re
import tempfile
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import regex

import utils

EMOTICON = re.compile(r"\[[^\[\]\s]{1,8}\]")  # weibo writes a picture as its name: [哈哈], [泪], [good]
TAGS = "a|abbr|b|big|blockquote|body|br|center|code|div|em|font|h[1-6]|head|hr|html|i|img|input|li|link|meta|ol|p|pre|s"
TAGS += "|script|small|span|strike|strong|style|sub|sup|table|tbody|td|th|thead|title|tr|tt|u|ul"
ATTRIBUTE = r"""\s+[a-z:_-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+)"""
TAG = re.compile(
    rf"</?(?:{TAGS})(?:{ATTRIBUTE})*\s*/?>|<[a-z][a-z0-9:_-]*(?:{ATTRIBUTE})+\s*/?>"
)  # not in: a<b and c>d
LINK = re.compile(r"(?:https?://|www\.)[a-z0-9./?=&%#_~:+-]+")
# A name ends at a blank or a colon, or with its Latin letters. Where neither follows, Chinese goes on without a gap:
# @商家服务太差了 is a mention and a sentence, and what is a name in it nobody can see.
MENTION = re.compile(r"@(?:[\w·-]{1,30}(?=[\s:@]|//)|[a-z0-9_-]{1,30}(?![\w·-]))")
RUN = re.compile(r"([^\d\s])\1{3,}")  # 哈哈哈哈哈哈 -> 哈哈哈; but 100000 is not 1000
INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064"  # control, zero width, direction
    "\ud800-\udfff\ufe00-\ufe0f\ufeff\ufffe\uffff]"  # half characters, variants, byte-order marks
)
KEY_NOISE = (re.compile(r"</?[a-z][^<>]*>"), LINK, re.compile(r"@[\w·-]{1,30}"), EMOTICON)  # of split_key() alone
SMALL = re.compile("([ª²³¹º¼-¾\u2070-\u209c\u2150-\u215f\u2460-\u24ff]+)")  # x² is not x2, ½ not 1/2
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
LETTERS = rf"(?:(?![{UNSPACED}])\p{{L}}\p{{M}}*)+"
PIECE = regex.compile(rf"{LETTERS}(?:'{LETTERS})?|\d+|\S\p{{M}}*")  # --tokenizer char: a word of letters stays whole

TOKENIZERS = ("jieba", "char")
EMOTICONS = ("keep", "strip")
PAD, UNK = 0, 1
CLAUSE_ENDS = "。!?;,~"  # have fixed numbers in every vocabulary, so that a network can see where a clause ends
SPECIAL = ("<pad>", "<unk>", *CLAUSE_ENDS)


def one_form(text: str) -> str:
    """One form of each character: full-width letters and marks become usual ones (NFKC), small ones stay as they are."""
    parts = SMALL.split(text)
    return "".join(part if i % 2 else unicodedata.normalize("NFKC", part) for i, part in enumerate(parts))


def emoticon_share(texts: list[str]) -> float:
    """Which share of the texts has an emoticon in square brackets."""
    return sum(bool(EMOTICON.search(text)) for text in texts) / max(1, len(texts))


def clean(text: str, emoticons: str = "keep") -> str:
    """One form for what means the same: Unicode compatibility forms (！ becomes !), case, HTML, links, names, long repetitions.

    A mention becomes a bare @, so that a network can learn nothing about persons. `strip` removes weibo's emoticons."""
    text = one_form(html.unescape(INVISIBLE.sub("", text))).lower().strip()
    text = MENTION.sub("@", LINK.sub(" ", TAG.sub(" ", text)))
    if emoticons == "strip":
        text = EMOTICON.sub(" ", text)
    return " ".join(RUN.sub(r"\1\1\1", text).split())


def split_key(text: str) -> str:
    """What decides which split a text is in: its letters alone, without emoticons, so that texts that differ in nothing else
    stay together, and a row is in the same split whether its emoticons are kept or not.

    The rules are its own, and never change: what clean() learns to do better must not move a text that was tested."""
    plain = unicodedata.normalize("NFKC", html.unescape(INVISIBLE.sub("", text))).lower()
    for noise in KEY_NOISE:
        plain = noise.sub(" ", plain)
    letters = re.sub(r"(.)\1{3,}", r"\1\1\1", " ".join(plain.split()))
    return re.sub(r"\W+", "", letters) or clean(text)


def split_of(text: str) -> str:
    """-> train (8 in 10), val or test, from a hash of the text: the same in every file that has it, and for ever."""
    digest = hashlib.blake2b(split_key(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return {0: "test", 1: "val"}.get(int.from_bytes(digest, "big") % 10, "train")


# ---- segmentation -----------------------------------------------------------------------------------------------------


def load_jieba(cache: str | Path):
    """-> jieba's segmenter, silent, with its dictionary cached in `cache`, or nowhere if nobody may write there.

    By itself jieba logs to stderr and keeps its cache, which it reads with marshal, where any user can write: in /tmp."""
    with warnings.catch_warnings():  # jieba 0.42.1 is of 2020: Python says so of its string escapes
        warnings.simplefilter("ignore")
        import jieba
    logging.getLogger("jieba").setLevel(logging.CRITICAL)
    if not jieba.dt.initialized:
        with tempfile.TemporaryDirectory() as own:  # which only this user can read and write
            try:
                Path(cache).mkdir(parents=True, exist_ok=True)
                jieba.dt.tmp_dir = os.path.abspath(cache if os.access(cache, os.W_OK) else own)
            except OSError:
                jieba.dt.tmp_dir = own
            jieba.dt.initialize()
    return jieba.dt


def segment(text: str, tokenizer: str, cache: str | Path) -> list[str]:
    """Cleaned text -> its tokens: words (jieba) or characters (char). An emoticon is one token in both."""
    cut = load_jieba(cache).cut if tokenizer == "jieba" else PIECE.findall
    tokens, start = [], 0
    for match in EMOTICON.finditer(text):
        tokens += [*cut(text[start : match.start()]), match.group()]
        start = match.end()
    return [token for token in (*tokens, *cut(text[start:])) if not token.isspace()]


# ---- vocabulary -------------------------------------------------------------------------------------------------------


def build_vocabulary(counts: Counter, max_size: int, min_count: int) -> list[str]:
    """Token counts of the training texts -> tokens by number: the special ones, then the commonest first."""
    common = sorted((-count, token) for token, count in counts.items() if count >= min_count and token not in SPECIAL)
    return [*SPECIAL, *(token for _, token in common[: max_size - len(SPECIAL)])]


def numbers_of(vocabulary: list[str], tokens: Iterable[str], stop_words: Iterable[str] = ()) -> list[int]:
    """The number of each token; 1 where the vocabulary has none; -1 where it is a stop word."""
    number = {token: i for i, token in enumerate(vocabulary)} | dict.fromkeys(stop_words, -1)
    return [number.get(token, UNK) for token in tokens]


def main() -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("text")
    parser.add_argument("--cache", default="data/cache", metavar="DIR", help="jieba's cache (default: %(default)s)")
    args = parser.parse_args()
    print(f"raw        {args.text}")
    for emoticons in EMOTICONS:
        text = clean(args.text, emoticons)
        print(f"{emoticons:<11}{text}")
        for tokenizer in TOKENIZERS:
            print(f"  {tokenizer:<9}{' | '.join(segment(text, tokenizer, args.cache))}")
    print(f"split      {split_of(args.text)}")


if __name__ == "__main__":
    utils.start(main)
