"""What test.py is given to translate: sentences, files of lines, and lines that come from a pipe.

An argument that looks like a file and is none ends the program: a mistyped name must not be translated as a sentence. A line
ends at a line feed, and at nothing else that Unicode calls a line end, so that each line of input has a line of output.
"""

import os
import queue
import re
import sys
import threading
from collections.abc import Iterator
from itertools import islice

import utils
from utils import fail

SOME = 256  # sentences that are translated together
FILE = re.compile(r"[^\s/\\]*\.(?:txt|csv|tsv|jsonl?|md|log|html?|docx?|xlsx?|pdf|zip|gz)$|[^\s:]+[/\\][^\s]*$", re.I)


def texts_of(words: list[str]) -> Iterator[list[str]]:
    """-> [a sentence], or some lines of a file or of the pipe, in the order given."""
    for word in words:  # before the first answer
        if word != "-" and not is_file(word) and looks_like_a_file(word):
            fail(f"{word}: there is no such file (a text that looks like a name: echo TEXT | python test.py -)")
    for word in words:
        if word == "-":
            yield from lines_of_pipe()
        elif is_file(word):
            lines = iter(utils.read_text(word).removesuffix("\n").split("\n"))
            yield from iter(lambda lines=lines: list(islice(lines, SOME)), [])
        else:
            yield [word]


def is_file(word: str) -> bool:
    """Pathlib fails at a name of 300 characters; os.path does not."""
    if os.path.isdir(word):
        fail(f"{word}: a folder; name the files in it")
    return os.path.exists(word)


def looks_like_a_file(word: str) -> bool:
    """A path, or a name with the suffix of a file."""
    return bool(FILE.search(word)) and "://" not in word


def lines_of_pipe() -> Iterator[list[str]]:
    """Lines as they come: those that are there already together, and the first without waiting for a second."""
    waiting: queue.Queue = queue.Queue(8 * SOME)
    threading.Thread(target=fill, args=(waiting,), daemon=True).start()
    number, ended = 0, False
    while not ended:
        some = [waiting.get()]
        while len(some) < SOME and some[-1] is not None and not waiting.empty():
            some.append(waiting.get())
        ended = some[-1] is None
        lines = [text_of(line, number + i) for i, line in enumerate(some[:-1] if ended else some, 1)]
        number += len(lines)
        if lines:
            yield lines


def fill(waiting: queue.Queue) -> None:
    """Puts the lines of standard input into the queue, and None when it ends."""
    while line := sys.stdin.buffer.readline():
        waiting.put(line)
    waiting.put(None)


def text_of(line: bytes, number: int) -> str:
    """A line in UTF-8, or else in GB18030 if that gives plausible Chinese."""
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    for encoding in ("utf-8-sig" if number == 1 else "utf-8", "gb18030"):
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "gb18030" or utils.is_chinese(text):
            return text
    fail(f"standard input, line {number}: neither UTF-8 nor GB18030 text")
