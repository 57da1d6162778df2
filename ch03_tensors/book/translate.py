"""The lessons' texts in Chinese: a gettext catalogue, locale/zh_CN/LC_MESSAGES/lessons.po, read as it is.

    python -m lessons --catalogue      brings it up to date with the lessons, and says what is translated

The English paragraph is the key. One that changes finds no translation any more and is shown in English; --catalogue keeps
the old translation beside the new paragraph, marked `fuzzy`, until somebody has looked at it and taken the mark away.
"""

import difflib
import functools
import re
from pathlib import Path

import polib

from book.pieces import Lesson, read
from lessons import MODULES

LANGUAGES = {"en": "English", "zh": "中文"}
CATALOGUE = Path(__file__).parent.parent / "locale" / "zh_CN" / "LC_MESSAGES" / "lessons.po"
# what the notebooks and pages say themselves
WORDS = (
    "Play it in a terminal: `python -m lessons {name}`.",
    "Needed below, explained further down:",
    "A helper",
    "PyTorch, chapter by chapter",
    "Search",
    "Search: name, torch name, number, title",
    "nothing found",
    "Dark or light",
    "Lessons that run: every output on these pages was computed when the page was made. Each lesson is also a notebook.",
    "The chapters and other pages",
    "Download the notebook",
    "What the examples import",
    "PyTorch basics",
    "First networks",
    "Convolutional networks",
    "Image classification",
    "Generative networks",
    "Sequences and language",
)
HEAD = {
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Transfer-Encoding": "8bit",
    "Language": "zh_CN",
}


def translate(paragraph: str, language: str) -> str:
    """The paragraph in that language, or as it is where there is no translation (or one that nobody has looked at).

    >>> translate("Creating tensors", "zh"), translate("Not in any lesson.", "zh"), translate("Creating tensors", "en")
    ('Tensor 的创建', 'Not in any lesson.', 'Creating tensors')
    """
    return translations().get(paragraph, paragraph) if language == "zh" else paragraph


@functools.cache
def translations() -> dict[str, str]:
    """English paragraph -> Chinese: the titles that the lessons carry, then the catalogue."""
    titles = {lesson.title: lesson.title_zh for lesson in map(read, MODULES)}
    return titles | {entry.msgid: entry.msgstr for entry in catalogue() if is_good(entry)}


def is_good(entry: polib.POEntry) -> bool:
    return bool(entry.msgstr) and not entry.fuzzy and not entry.obsolete


def catalogue() -> polib.POFile:
    return (
        polib.pofile(str(CATALOGUE), encoding="utf-8", wrapwidth=0) if CATALOGUE.exists() else polib.POFile(wrapwidth=0)
    )


def paragraphs(lesson: Lesson) -> list[str]:
    """What is to be translated of a lesson, in reading order, each once. A paragraph of code alone needs no translation."""
    pieces = [piece for section in lesson.sections for piece in section.pieces]
    texts = [piece.text for piece in pieces if piece.kind in ("text", "fixed", "figure")]
    return [text for text in dict.fromkeys(texts) if re.search(r"[a-z]{2}", re.sub(r"`[^`]*`", "", text))]


# ---- keeping it up to date -----------------------------------------------------------------------------------------


def renewed(old: polib.POFile, texts: dict[str, list[str]]) -> polib.POFile:
    """The catalogue of these texts (lesson -> paragraphs), with the translations of `old`.

    A new paragraph takes over the translation of a similar one that is gone, marked fuzzy.
    """
    new, known = polib.POFile(wrapwidth=0), {entry.msgid: entry for entry in old if not entry.obsolete}
    new.metadata = HEAD
    wanted = {paragraph for group in texts.values() for paragraph in group}
    gone = [msgid for msgid, entry in known.items() if msgid not in wanted and entry.msgstr]
    for paragraph, places in places_of(texts).items():
        entry = polib.POEntry(msgid=paragraph, occurrences=[(place(name), "") for name in places])
        before = known.get(paragraph)
        if before is None and (near := difflib.get_close_matches(paragraph, gone, n=1, cutoff=0.6)):
            before = known[near[0]]
            entry.flags, entry.previous_msgid = ["fuzzy"], before.msgid
        if before is not None:
            entry.msgstr = before.msgstr
            entry.flags = entry.flags or list(before.flags)
        new.append(entry)
    return new


def place(name: str) -> str:
    return f"lessons/{name}.py" if name else "book/translate.py"


def places_of(texts: dict[str, list[str]]) -> dict[str, list[str]]:
    """paragraph -> the lessons in which it stands."""
    places: dict[str, list[str]] = {}
    for name, group in texts.items():
        for paragraph in group:
            places.setdefault(paragraph, []).append(name)
    return places


def all_texts() -> dict[str, list[str]]:
    return {"": list(WORDS)} | {name: paragraphs(read(name)) for name in MODULES}


def update() -> None:
    """Writes the catalogue anew, and says for each lesson how much of it is translated."""
    from utils import write_atomic  # here, because torch comes with it

    new = renewed(catalogue(), all_texts())
    CATALOGUE.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(CATALOGUE, f"{new}\n".rstrip("\n") + "\n")
    translations.cache_clear()
    for name, (done, total) in state().items():
        print(f"{name or 'pages':<19} {done:>3} of {total:>3} paragraphs")
    print(f"{sum(entry.fuzzy for entry in new)} to be looked at again (fuzzy)")


def state() -> dict[str, tuple[int, int]]:
    """lesson -> (paragraphs translated, all)."""
    return {name: (sum(text in translations() for text in texts), len(texts)) for name, texts in all_texts().items()}
