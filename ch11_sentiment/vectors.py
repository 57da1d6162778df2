"""Word vectors that others trained: word2vec or GloVe as text, fastText's .vec (course 11-4: embeddings).

    python train.py --data my.csv --tokenizer jieba --vectors sgns.weibo.word     # then they are trained on

A line has a word and its numbers, separated by blanks; word2vec and fastText have a first line of two numbers, how many words
and how many numbers each. Words of the training texts that the file lacks keep the vectors that were drawn.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from text import SPECIAL, one_form
from utils import fail, rank, say, shortened


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, one at a time, as such files may have gigabytes."""
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        fail(f"--vectors {path}: cannot be read ({error.strerror})")
    except UnicodeDecodeError:
        fail(f"--vectors {path}: not UTF-8 text; a binary file of word2vec or fastText has to be written as text first")


def cells_of(line: str) -> list[str]:
    return line.rstrip().split(" ")


def dimension(path: Path) -> int:
    """-> how many numbers a vector has: those of the first line that is no header."""
    for number, line in lines_of(path):
        cells = cells_of(line)
        if number > 1 or len(cells) > 2:
            return len(cells) - 1
    fail(f"--vectors {path}: no vectors in it")


def read(path: Path, vocabulary: list[str], dim: int) -> dict[int, Tensor]:
    """-> number of a word in `vocabulary`: its vector, scaled so that they are as long as those that are drawn. Says which
    words are not in the file. Of spellings that are the same in lower case, the first counts."""
    if (there := dimension(path)) != dim:
        fail(f"--vectors {path}: vectors of {there} numbers, but --dim {dim}")
    number = {word: i for i, word in enumerate(vocabulary)}
    found: dict[int, Tensor] = {}
    for line_number, line in lines_of(path):
        cells = cells_of(line)
        place = number.get(one_form(cells[0]).lower())
        if place is None or place in found or (line_number == 1 and len(cells) == 2):
            continue
        try:
            values = [float(cell) for cell in cells[1:]]
        except ValueError:
            values = []
        if len(values) != dim or not all(map(math.isfinite, values)):
            fail(f"--vectors {path}, line {line_number}: {dim} numbers expected after the word")
        found[place] = torch.tensor(values)
    report(path, vocabulary, found)
    if not found:
        return found
    size = torch.stack(list(found.values())).norm(dim=1).mean().clamp(min=1e-9)
    return {place: vector / size for place, vector in found.items()}


def report(path: Path, vocabulary: list[str], found: dict) -> None:
    missing = [word for i, word in enumerate(vocabulary) if i not in found and word not in SPECIAL[:2]]
    say(f"vectors: {len(found):,} of {len(vocabulary) - 2:,} words are in {path}; not there: {shortened(missing, 10)}")
    if not found and rank() == 0:
        fail(f"--vectors {path}: has none of the words of the training texts; another language or --tokenizer?")
