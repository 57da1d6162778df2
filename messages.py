"""Keeps the catalogues of the programs' messages: one a chapter, locale/zh_CN/LC_MESSAGES/messages.po.

    nox -s messages                                # the usual way: all chapters
    python messages.py ch06_cifar10                # one; needs polib
    python messages.py ch06_cifar10 --missing      # prints what has no translation yet

What is collected: the words of fail(), warn(), say() and of exceptions, of a program's --help (flags, groups, the docstring's
paragraphs), and the few below. A value in an f-string becomes {0}, {1} ...; the comment above an entry tells what they are. A
message that changes loses its translation: the old one is kept beside the new message, marked `fuzzy`, and is not used until
somebody has mended it and taken that mark away. language.py, in each chapter, reads the catalogues.
"""

import argparse
import ast
import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import polib

ROOT = Path(__file__).parent
SPEAKING = {"fail", "warn", "say", "message", "translated", "introduce"}
NOTES = {"notes", "faults", "left_out", "fault", "where"}  # variables whose words are said later
HELP = {"help", "description", "epilog", "stopped"}
BY_HAND = (  # argparse's own, and what the chapters put together from parts
    "usage: ",
    "error: ",
    "options",
    "positional arguments",
    "show this help message and exit",
    "{0} (--help lists the flags)",
    "unrecognized arguments: {0}",
    "the following arguments are required: {0}",
    "argument {0}: {1}",
    "expected one argument",
    "expected at least one argument",
    "invalid choice: {0} (choose from {1})",
    "invalid int value: {0}",
    "not allowed with argument {0}",
    "a whole number",
    "a number",
    "{0} above {1}",
    "{0} above {1}, {2} at most",
    "{0}, {1} or more",
    "{0} from {1} to {2}",
    "{0}: must be {1}",
)

BY_HAND_OF = {  # of one chapter: a library's words, and parts that are put together
    "ch08_coco_detectron": (
        "object missing required field {0}",
        "expected {0}, got {1}",
        "expected {0} >= {1}",
        "expected {0} <= {1}",
        "expected {0} of length {1}",
        "a box outside the image or without area",
        "a box that reaches far outside the image",
        "an image that the file does not list",
        "an unknown category",
        "an RLE of another size",
    ),
    "ch11_sentiment": (
        "left out {0} rows {1}",
        "with nothing left after cleaning",
        "whose text carries more than one label",
        "that repeat another",
        "accuracy {0}, macro-F1 {1}",
        "all labels right {0}, micro-F1 {1}, macro-F1 {2}",
    ),
    "ch12_seq2seq": (
        "with nothing left after normalising",
        "double after normalising",
        "without a tab",
        "with an empty side",
        "longer than {0} tokens",
        "of the training pairs, longer than {0} tokens",
        "(none: written by sample.py)",
    ),
}


def template(node: ast.AST) -> tuple[str, list[str]] | None:
    """A string as it stands in the code -> its text with {0}, {1} ... for the values, and the code of the values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value, []
    if not isinstance(node, ast.JoinedStr):
        return None
    text, values = "", []
    for piece in node.values:
        if isinstance(piece, ast.Constant):
            text += piece.value
        else:
            text += f"{{{len(values)}}}"
            values.append(ast.unparse(piece.value))
    return text, values


def strings(node: ast.AST) -> Iterator[ast.AST]:
    """The strings that an argument may be: itself, both ends of `a if b else c`, both sides of `a or b`."""
    if isinstance(node, ast.IfExp):
        yield from (*strings(node.body), *strings(node.orelse))
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from strings(value)
    else:
        yield node
        for piece in node.values if isinstance(node, ast.JoinedStr) else []:
            if isinstance(piece, ast.FormattedValue) and isinstance(piece.value, ast.IfExp):
                yield from strings(piece.value)


def name_of(node: ast.AST | None) -> str:
    """a.b.c -> c"""
    return getattr(node, "id", getattr(node, "attr", ""))


def texts_in(value: ast.AST) -> list[ast.AST]:
    """The texts of more than a word in a value: itself, in a list or tuple, made one by one, added."""
    if isinstance(value, ast.List | ast.Tuple):
        return [text for each in value.elts for text in texts_in(each)]
    if isinstance(value, ast.ListComp):
        return texts_in(value.elt)
    if isinstance(value, ast.IfExp):
        return [*texts_in(value.body), *texts_in(value.orelse)]
    if isinstance(value, ast.BinOp):
        return [*texts_in(value.left), *texts_in(value.right)]
    return [each for each in strings(value) if (made := template(each)) and " " in made[0]]


def said(node: ast.AST) -> list[ast.AST]:
    """What a call says: its words, the texts of a --help, and notes that are collected to be said later; and what is raised."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return list(node.exc.args)
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return texts_in(node.value) if any(name_of(target) in NOTES for target in targets) else []
    if isinstance(node, ast.FunctionDef) and re.search("fault|describe", node.name + (ast.get_docstring(node) or "")):
        returned = [each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value]
        return [text for value in returned for text in texts_in(value)]
    if not isinstance(node, ast.Call):
        return []
    name = name_of(node.func)
    words = list(node.args) if name in SPEAKING else node.args[:1] if name == "add_argument_group" else []
    if name == "append" and name_of(getattr(node.func, "value", None)) in NOTES:
        words = [text for argument in node.args for text in texts_in(argument)]
    return [*words, *(keyword.value for keyword in node.keywords if keyword.arg in HELP)]


def in_parts(argument: ast.AST, named: dict[str, list[ast.AST]], depth: int = 3) -> Iterator[ast.AST]:
    """An argument, and the strings that the variables in it stand for."""
    yield argument
    for node in ast.walk(argument) if depth else []:
        for value in named.get(node.id, []) if isinstance(node, ast.Name) else []:
            texts = [made[0] for each in strings(value) if (made := template(each))]
            if any(" " in text for text in texts):  # others are names: fp32, train
                yield from in_parts(value, named, depth - 1)


def messages_of(path: Path) -> Iterator[tuple[str, list[str], int]]:
    """(message, the code of its values, line) of a file, in its order."""
    tree = ast.parse(path.read_text("utf-8"))
    if (text := ast.get_docstring(tree)) and re.search(r"^(if __name__|def main)", path.read_text("utf-8"), re.M):
        yield from ((paragraph, [], 1) for paragraph in text.split("\n\n") if not paragraph.startswith("    "))
    named, found = {}, []  # the strings that a variable may be: words = "..." just before it is used
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named.setdefault(node.targets[0].id, []).append(node.value)
    for node in ast.walk(tree):
        for argument in said(node):
            for choice in in_parts(argument, named):
                found += [(*made, node.lineno) for each in strings(choice) if (made := template(each))]
    yield from sorted(found, key=lambda item: item[2])


def programs(chapter: Path) -> list[Path]:
    """The files whose messages are translated."""
    others = ("tests", "lessons", "book", "exercises")
    return [path for path in sorted(chapter.rglob("*.py")) if path.relative_to(chapter).parts[0] not in others]


def sums(chapter: Path) -> list[str]:
    """Where a program says two strings added: the whole is no message of the catalogue, so it would stay English."""
    found = []
    for path in programs(chapter):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            words = node.args[:1] if isinstance(node, ast.Call) and name_of(node.func) in SPEAKING else []
            if any(isinstance(word, ast.BinOp) and texts_in(word) for word in words):
                found.append(f"{path.relative_to(chapter.parent)}, line {node.lineno}: make one f-string of this sum")
    return found


def collect(chapter: Path) -> dict[str, polib.POEntry]:
    """message -> its entry, not translated yet."""
    result = {text: polib.POEntry(msgid=text) for text in (*BY_HAND, *BY_HAND_OF.get(chapter.name, ()))}
    for path in programs(chapter):
        inside = path.relative_to(chapter)
        for text, values, _ in messages_of(path):
            if not re.search("[A-Za-z]{2}", re.sub(r"\{\d+\}", "", text)):
                continue
            entry = result.setdefault(text, polib.POEntry(msgid=text))
            if (inside.as_posix(), "") not in entry.occurrences:
                entry.occurrences.append((inside.as_posix(), ""))
            entry.comment = "\n".join(f"{{{i}}} {value}" for i, value in enumerate(values))
    return result


def catalogue(chapter: Path) -> Path:
    return chapter / "locale" / "zh_CN" / "LC_MESSAGES" / "messages.po"


def renewed(chapter: Path) -> polib.POFile:
    """The chapter's catalogue with its present messages and the translations that still fit."""
    path, new = catalogue(chapter), polib.POFile(wrapwidth=0)
    old = {entry.msgid: entry for entry in (polib.pofile(str(path), wrapwidth=0) if path.exists() else [])}
    new.metadata = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Transfer-Encoding": "8bit",
        "Language": "zh_CN",
    }
    wanted = collect(chapter)
    gone = [text for text, entry in old.items() if text not in wanted and entry.msgstr and not entry.obsolete]
    for text, entry in wanted.items():
        before = old.get(text)
        if before is None and (near := difflib.get_close_matches(text, gone, n=1, cutoff=0.7)):
            before, entry.flags = old[near[0]], ["fuzzy"]
        if before is not None:
            entry.msgstr, entry.flags = before.msgstr, entry.flags or list(before.flags)
        new.append(entry)
    return new


def missing(chapter: Path) -> list[str]:
    """The messages without a translation that is used."""
    return [entry.msgid for entry in renewed(chapter) if not entry.msgstr or entry.fuzzy]


def faults(chapter: Path) -> list[str]:
    """What is wrong: a catalogue that is not up to date, a translation with other values than its message, a sum of strings."""
    new, path = renewed(chapter), catalogue(chapter)
    found = sums(chapter)
    there = polib.pofile(str(path)) if path.exists() else []
    if [entry.msgid for entry in there if not entry.obsolete] != [entry.msgid for entry in new]:
        found.append(f"{path.relative_to(ROOT)} is not up to date: `nox -s messages`")
    for entry in new:
        plural = {place for place in re.findall(r"(\{\d+\}) '\w*' \*", entry.comment)}  # Chinese has none
        values = [set(re.findall(r"\{\d+\}|%\(\w+\)s", text)) - plural for text in (entry.msgid, entry.msgstr)]
        if entry.msgstr and values[0] != values[1]:
            found.append(f"{path.relative_to(ROOT)}: {entry.msgid!r} and its translation have other values")
    return found


def text_of(file: polib.POFile) -> str:
    return f"{file}".rstrip("\n") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="default: all")
    parser.add_argument("--missing", action="store_true", help="print what has no translation yet; write nothing")
    args = parser.parse_args()
    for name in args.chapters or sorted(path.parent.name for path in ROOT.glob("ch*_*/language.py")):
        chapter = ROOT / name
        new = renewed(chapter)
        if args.missing:
            print("\n".join(f"{text!r}" for text in missing(chapter)))
            continue
        catalogue(chapter).parent.mkdir(parents=True, exist_ok=True)
        catalogue(chapter).write_text(text_of(new), "utf-8")
        done = sum(bool(entry.msgstr) and not entry.fuzzy for entry in new)
        print(
            f"{name}: {done} of {len(new)} messages translated, {sum(entry.fuzzy for entry in new)} to be looked at again"
        )


if __name__ == "__main__":
    sys.exit(main())
