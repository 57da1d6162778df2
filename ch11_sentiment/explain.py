"""Why a network answered as it did: which words drove it, and where its attention was. Used by test.py.

A word's influence is measured by leaving it out (occlusion; Zeiler and Fergus 2014, Li et al. 2016): how far do the log-odds of
the answer fall? That works for every network, and asks it a question it can answer: what would you say without this word?
Attention is where the network looked, which need not be why it answered (Jain and Wallace 2019).
"""

import html
import json
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, groupby
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import text
import utils
from scores import probabilities_of

Word = tuple[str, int, int]  # as it is shown, and which of the text's tokens it is made of: from, up to
GREEN, RED, BLUE = (40, 160, 70), (215, 60, 60), (60, 110, 220)


class Reader:
    """Turns raw texts into a network's numbers, as `meta` of its checkpoint says, and keeps the words they stand for."""

    def __init__(self, meta: dict, cache: str | Path):
        self.meta, self.cache = meta, cache
        self.number = {token: i for i, token in enumerate(meta["vocabulary"])} | dict.fromkeys(meta["stop_words"], -1)

    def __call__(self, raw: str) -> tuple[list[int], list[Word]]:
        """-> numbers (one <unk> if all are stop words, none if the text is empty) and words. Single characters say little,
        so those of a network that reads characters are put together as jieba would cut the text."""
        tokenizer, longest = self.meta["tokenizer"], self.meta["max_length"]
        cleaned = text.clean(raw[: 100 * longest], self.meta["emoticons"])  # what is far beyond will not be read anyway
        tokens = text.segment(cleaned, tokenizer, self.cache)
        numbers = [self.number.get(token, text.UNK) for token in tokens]
        kept = [i for i, number in enumerate(numbers) if number >= 0][:longest]
        if not kept:
            return [text.UNK] * bool(tokens), [(cleaned, 0, 1)] * bool(tokens)
        whole = tokens if tokenizer == "jieba" else text.segment(cleaned, "jieba", self.cache)
        ends = list(accumulate(map(len, whole)))
        places = [0, *accumulate(map(len, tokens))]
        words = []
        for _, group in groupby(range(len(kept)), key=lambda i: bisect_right(ends, places[kept[i]])):
            group = list(group)
            words.append(("".join(tokens[kept[i]] for i in group), group[0], group[-1] + 1))
        return [numbers[i] for i in kept], words


@torch.inference_mode()
def influence(model: nn.Module, ids: Tensor, words: list[Word], answer: int, several: bool = False) -> list[float]:
    """(L,) -> how much each word adds to the log-odds of class `answer`: those of the text, less those without the word."""
    without = [torch.cat([ids[:start], ids[end:]]) for _, start, end in words]
    texts = [t if len(t) else ids.new_tensor([text.UNK]) for t in (ids, *without)]
    batches = (pad_sequence(texts[i : i + 128], True, text.PAD) for i in range(0, len(texts), 128))
    logits = torch.cat([model(batch).float() for batch in batches])
    others = logits.index_fill(1, torch.tensor([answer], device=ids.device), -torch.inf)
    log_odds = logits[:, answer] - (0 if several else others.logsumexp(1))  # of a sigmoid, the logit itself
    return (log_odds[0] - log_odds[1:]).tolist()


@torch.inference_mode()
def attention(model: nn.Module, ids: Tensor, words: list[Word]) -> list[float] | None:
    """(L,) -> each word's share of the attention; None of a network without."""
    if not hasattr(model, "attend"):
        return None
    share = model.attend(ids[None])[1][0]
    return [float(share[start:end].sum()) for _, start, end in words]


def judge(model: nn.Module, reader: Reader, raw: list[str], device: torch.device, words: bool) -> Iterator[dict]:
    """-> for each text the answer and, if asked for, each word's influence on it and its share of the attention."""
    read, several = [reader(one) for one in raw], reader.meta.get("several", False)
    ids = [torch.tensor(numbers or [text.UNK], device=device) for numbers, _ in read]
    with torch.inference_mode():
        probabilities = probabilities_of(model(pad_sequence(ids, True, text.PAD)), several)
    classes = reader.meta["classes"]
    for one, (numbers, parts), own, row in zip(raw, read, ids, probabilities.tolist(), strict=True):
        if not numbers:
            yield {"text": one, "label": None, "why": "nothing is left of it after cleaning"}
            continue
        answer = max(range(len(row)), key=row.__getitem__)
        said = {"text": one, "label": classes[answer], "probability": round(row[answer], 4)}
        if several:  # the words are those that drove the surest of the labels
            said["labels"] = [name for name, p in zip(classes, row, strict=True) if p > 0.5]
        said["probabilities"] = {name: round(p, 4) for name, p in zip(classes, row, strict=True)}
        if words:
            said["parts"] = parts
            said["influence"] = influence(model, own, parts, answer, several)
            said["attention"] = attention(model, own, parts)
        yield said


def print_json(said: dict) -> None:
    print(to_json(said), flush=True)


def to_json(said: dict) -> str:
    """One line: the answer, and the words that did most for it or against it."""
    if "influence" in said:
        parts, values = said.pop("parts"), said.pop("influence")
        said["words"] = [[word, round(value, 3)] for word, value in strongest(parts, values)]
        if (shares := said.pop("attention")) is not None:
            said["attention"] = [[word, round(share, 3)] for word, share in strongest(parts, shares)]
    return json.dumps(said, ensure_ascii=False)


# ---- in the terminal --------------------------------------------------------------------------------------------------


def shade(value: float, largest: float, up: tuple, down: tuple = RED) -> tuple[int, int, int]:
    """A colour between white (0) and `up` (largest) or `down` (-largest)."""
    strength = min(1.0, abs(value) / largest) if largest else 0.0
    return tuple(round(255 + (channel - 255) * strength) for channel in (up if value >= 0 else down))


def paint(words: list[Word], values: list[float], up: tuple = GREEN) -> str:
    """The text with each word on a background that shows its value."""
    largest = max(map(abs, values), default=0.0)
    parts = []
    for (word, _, _), value in zip(words, values, strict=True):
        red, green, blue = shade(value, largest, up)
        parts.append(f"\x1b[48;2;{red};{green};{blue}m\x1b[30m{word}\x1b[0m")
    return "".join(parts)


def strongest(words: list[Word], values: list[float], count: int = 5) -> list[tuple[str, float]]:
    """The words with the largest values, whatever their sign."""
    order = sorted(range(len(words)), key=lambda i: -abs(values[i]))[:count]
    return [(words[i][0], values[i]) for i in order]


def show(said: dict) -> None:
    """The answer, and the words for and against it: coloured in a terminal, in figures anywhere."""
    if said["label"] is None:
        print(f"{said['text']!r}: {said['why']}")
        return
    if "labels" in said:
        utils.say(f"{'|'.join(said['labels']) or '(none)'}; the surest:")
    print(f"{said['label']} {said['probability']:.3f}: {said['text']}")
    if "influence" not in said:
        return
    terminal = sys.stdout.isatty()
    shown = (("drove it", said["influence"], GREEN), ("attention", said["attention"], BLUE))
    for title, values, colour in shown:
        if values is not None:
            best = "  ".join(f"{word} {value:+.2f}" for word, value in strongest(said["parts"], values))
            print(f"  {title:<10}{best}")
            if terminal:
                print(f"  {'':<10}{paint(said['parts'], values, colour)}")


# ---- as a picture -----------------------------------------------------------------------------------------------------


def draw(path: str | Path, rows: list[tuple[str, list[Word], list[float], tuple]], columns: int = 84) -> None:
    """Saves rows (title, words, values, colour) as an SVG picture. SVG because a browser has fonts for Chinese, and
    Matplotlib's own has none."""
    parts, y = [], 24
    for title, words, values, colour in rows:
        parts.append(f'<text x="10" y="{y}" font-size="13" fill="#555">{html.escape(title)}</text>')
        largest, x, y = max(map(abs, values), default=0.0), 0, y + 24
        for (word, _, _), value in zip(words, values, strict=True):
            width = sum(2 if unicodedata.east_asian_width(c) in "WFA" else 1 for c in word)
            if x and x + width > columns:
                x, y = 0, y + 26
            fill = "rgb({},{},{})".format(*shade(value, largest, colour))
            parts.append(f'<rect x="{10 + 9 * x}" y="{y - 17}" width="{9 * width}" height="23" fill="{fill}"/>')
            size = f'textLength="{9 * width - 2}" lengthAdjust="spacingAndGlyphs" font-size="17"'
            parts.append(f'<text x="{11 + 9 * x}" y="{y}" {size}>{html.escape(word)}</text>')
            x += width
        y += 34
    width, height = 20 + 9 * columns, y
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    fonts = "Noto Sans CJK SC, PingFang SC, Microsoft YaHei, WenQuanYi Micro Hei, sans-serif"
    paper = '<rect width="100%" height="100%" fill="white"/>'
    page = "\n".join([head, paper, f'<g font-family="{fonts}">', *parts, "</g></svg>\n"])
    utils.write_atomic(path, page.encode("utf-8", "replace"))


def rows_of(said: dict, title: str) -> list[tuple]:
    """What draw() shows of an answer."""
    rows = [(f"{title}; green: words for it, red: against", said["parts"], said["influence"], GREEN)]
    if said["attention"] is not None:
        rows.append(("attention", said["parts"], said["attention"], BLUE))
    return rows
