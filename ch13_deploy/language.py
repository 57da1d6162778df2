"""What the programs say, in Chinese, if --lang zh or the system's language asks for it.

    python train.py --lang zh --help
    LANG=zh_CN.UTF-8 python train.py

The code of a chapter holds its messages in English only. `translated` looks a finished message up in the chapter's
catalogue, locale/zh_CN/LC_MESSAGES/messages.po (gettext's format; `nox -s messages` keeps it up to date). There, {0},
{1} ... stand for the values in a message. What is not found there stays English.

This file is the same, byte for byte, in every chapter (`nox -s lint` checks that).
"""

import argparse
import ast
import ctypes
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

LANGUAGES = {"en": "", "zh": "zh_CN"}
LOCALE = Path(__file__).parent / "locale"
VALUE = re.compile(r"\{(\d+)\}")


def current() -> str:
    """The language to speak, zh or en: by the variables that gettext reads; on Windows by the system's setting."""
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    if sys.platform == "win32" and ctypes.windll.kernel32.GetUserDefaultUILanguage() & 0x3FF == 4:
        return "zh"
    return "en"


def choose(words: list[str]) -> None:
    """Takes --lang from a command line before anything is said, and sets LANGUAGE, which started processes inherit."""
    for i, word in enumerate(words):
        value = words[i + 1] if word == "--lang" and i + 1 < len(words) else word.removeprefix("--lang=")
        if word.startswith("--lang") and value in LANGUAGES:
            os.environ["LANGUAGE"] = LANGUAGES[value] or "en"


def entries(path: Path) -> Iterator[tuple[str, str]]:
    """The messages and their translations in a .po file; without those that are empty or marked as doubtful (fuzzy)."""
    for block in path.read_text("utf-8").split("\n\n") if path.exists() else []:
        parts, key = {"msgid": "", "msgstr": ""}, ""
        for line in block.splitlines():
            word, _, rest = line.partition(" ")
            if word in parts:
                key, line = word, rest
            if key and line.startswith('"'):
                parts[key] += ast.literal_eval(line)
        if parts["msgid"] and parts["msgstr"] and "#, fuzzy" not in block:
            yield parts["msgid"], parts["msgstr"]


@cache
def catalogue(path: Path) -> tuple[dict[str, str], list[tuple[re.Pattern, str]]]:
    """-> the messages without values, and patterns of those with values, the longest first."""
    plain, patterns = {}, []
    for message, words in entries(path):
        if VALUE.search(message):
            pieces = VALUE.split(message)[::2]  # what stands between the values
            patterns.append((sum(map(len, pieces)), "(.*?)".join(map(re.escape, pieces)), words))
        else:
            plain[message] = words
    patterns.sort(key=lambda item: -item[0])
    return plain, [(re.compile(pattern, re.S), words) for _, pattern, words in patterns]


def translated(text: str, depth: int = 6) -> str:
    """A message in the current language. Values in it that are messages themselves are translated too, but not single words:
    a folder may be called data, and a class no."""
    if current() == "en" or depth == 0 or not re.search("[A-Za-z]", text):
        return text
    plain, patterns = catalogue(LOCALE / LANGUAGES[current()] / "LC_MESSAGES" / "messages.po")
    if text in plain:
        return plain[text]
    name, colon, rest = text.partition(": ")  # a file, or an object in it, and what is wrong with it
    place, words = (translated(name, depth - 1) if " " in name else name), translated(rest, depth - 1)
    matches = [(found.groups(), said) for pattern, said in patterns if (found := pattern.fullmatch(text))]
    # a value with a colon in it is likely to be a part of another message
    matches.sort(key=lambda match: any(re.search("[:;] ", value) for value in match[0]))
    if matches and not (place != name and words != rest and any(": " in value for value in matches[0][0])):
        values = [translated(value, depth - 1) if " " in value else value for value in matches[0][0]]
        return VALUE.sub(lambda number: values[int(number[1])], matches[0][1])
    return text if words == rest else f"{place}：{words}"


def paragraphs(text: str) -> str:
    """A text of several paragraphs in the current language, each looked up by itself."""
    return "\n\n".join(translated(part) for part in text.strip().split("\n\n"))


class Help(argparse.RawDescriptionHelpFormatter):
    """argparse's --help in the current language."""

    def add_usage(self, usage, actions, groups, prefix=None):
        super().add_usage(usage, actions, groups, translated("usage: ") if prefix is None else prefix)

    def start_section(self, heading):
        super().start_section(heading and translated(heading))

    def add_text(self, text):
        super().add_text(text if not isinstance(text, str) else paragraphs(text))

    def _get_help_string(self, action: argparse.Action) -> str:
        return translated(action.help or "")


class Language(argparse.Action):
    """--lang: `choose` has taken it already."""

    def __call__(self, parser, namespace, value, option_string=None):
        pass


def add_language_flag(parser: argparse.ArgumentParser) -> None:
    words = "the language of what is said (default: the system's)"
    parser.add_argument("--lang", choices=LANGUAGES, action=Language, default=argparse.SUPPRESS, dest=argparse.SUPPRESS,
                        metavar="en|zh", help=words)  # fmt: skip
