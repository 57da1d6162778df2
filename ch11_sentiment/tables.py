"""Reads tables of texts that people have: .csv, .tsv, .jsonl and .json, with the encodings, quotes and labels they come with.

    rows, notes = read(Path("my.csv"))      # rows: (line, text, label)

A table that cannot be what it is taken for ends the program with one line. The notes say what was skipped, and how labels
were read.
"""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import utils
from text import one_form
from utils import fail

TEXT_COLUMNS = ("review", "text", "content", "sentence", "comment", "评论", "文本", "内容", "句子")
LABEL_COLUMNS = ("label", "labels", "sentiment", "class", "category", "标签", "情感", "类别")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
LONGEST_ROW = 1000  # lines
BETWEEN = "|"  # the labels of a text that has several

Record = tuple[int, list]  # the line it begins in, and its cells


def read(path: Path, text_column: str | None = None, label_column: str | None = None, labelled: bool = True):
    """-> rows (line, text, label), and notes of what was skipped. Without `labelled`, any label is "" and needs no column."""
    notes: Counter = Counter()
    first: dict[str, int] = {}
    records = records_of(path, notes, first)
    _, names = next(records, (0, None))
    if not names:
        fail(f"{path}: empty; expected a header with a text and a label column")
    text_at = column(path, names, text_column, TEXT_COLUMNS, "text")
    label_at = column(path, names, label_column, LABEL_COLUMNS, "label") if labelled else None
    if text_at == label_at:
        fail(f"{path}: the column {names[text_at]!r} cannot be both the text and the label; name them by flags")
    rows = []
    for line, values in records:
        whole = len(values) == len(names)
        text = text_cell(path, line, values[text_at]) if whole else ""
        label = label_cell(path, line, values[label_at]) if whole and labelled else ""
        if (whole and not labelled) or (text.strip() and label and label.lower() != "nan"):
            rows.append((line, text, label))  # without labels an answer for each row, also for an empty one
        else:
            why = "skipped {:,} rows without a text, a label or all columns, the first in line {:,}"
            first.setdefault(why, line)
            notes[why] += 1
    if (skipped := sum(n for why, n in notes.items() if "skipped" in why)) > max(5, len(rows) // 100):
        utils.warn(f"{path}: {skipped:,} rows were skipped, {len(rows):,} are used")
    return rows, [why.format(count, first[why]) for why, count in notes.items()]


def column(path: Path, names: list[str], wanted: str | None, usual: tuple, kind: str) -> int:
    """Where the text or the label column is: the one asked for, or the first that bears a usual name."""
    plain = [one_form(name).strip().lower() for name in names]
    found = [plain.index(name.lower()) for name in ((wanted,) if wanted else usual) if name.lower() in plain]
    if not found:
        what = f"no column {wanted!r}" if wanted else f"no {kind} column"
        fail(f"{path}: {what}, only {', '.join(names)[:200]}; name it with --{kind}-column")
    return found[0]


def records_of(path: Path, notes: Counter, first: dict[str, int]) -> Iterator[Record]:
    text = utils.read_text(path)
    if path.suffix.lower() in (".jsonl", ".json"):
        return json_records(path, text)
    return csv_records(path, text, notes, first)


# ---- CSV --------------------------------------------------------------------------------------------------------------


def csv_records(path: Path, text: str, notes: Counter, first: dict[str, int]) -> Iterator[Record]:
    """Line numbers and cells, the header first. The separator is a tab, comma or semicolon: what the header has.

    A quotation mark at the beginning of a cell opens a text that may hold separators and line ends, up to the mark that
    closes it. A mark that no other closes, or that would swallow whole rows, is a character like any other.
    """
    lines = text.split("\n")
    header = next((line for line in lines if line.strip()), "")
    separator = "\t" if path.suffix.lower() == ".tsv" else next((s for s in "\t,;" if s in header), ",")
    csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters is for spreadsheets
    start, columns = 0, 0
    while start < len(lines):
        cells, count = lines[start].split(separator), 1
        if '"' in lines[start]:
            quoted, count = quoted_record(lines, start, separator, columns)
            if quoted is None:
                why = "read {:,} rows with a quotation mark that does not close as they are, the first in line {:,}"
                first.setdefault(why, start + 1)
                notes[why] += 1
            cells = quoted or cells
        if any(cell.strip() for cell in cells):
            columns = columns or len(cells)
            yield start + 1, cells
        start += count


def quoted_record(lines: list[str], start: int, separator: str, columns: int) -> tuple[list[str] | None, int]:
    """-> the cells of the row that begins in line `start` and how many lines it has; None and 1 if its quotes do not close."""
    several = (line + "\n" for line in lines[start : start + LONGEST_ROW])
    reader = csv.reader(several, delimiter=separator, strict=True)
    try:
        cells = next(reader)
    except (csv.Error, StopIteration):
        return None, 1
    count = reader.line_num
    if cells:
        cells[-1] = cells[-1].removesuffix("\n")
    inside = lines[start + 1 : start + count]
    whole_rows = sum(len(line.split(separator)) == columns for line in inside)
    swallowed = count > 1 and (len(cells) != columns or (columns > 1 and whole_rows > max(2, 0.8 * len(inside))))
    return (None, 1) if swallowed and columns else (cells, count)


# ---- JSON -------------------------------------------------------------------------------------------------------------


def json_records(path: Path, text: str) -> Iterator[Record]:
    """The same of JSON lines, or of a list of objects: the first object has the names of the columns."""
    names = None
    for line, row in json_objects(path, text):
        if names is None:
            names = list(row)
            yield line, names
        yield line, [row.get(name) for name in names]


def json_objects(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    try:
        whole = json.loads(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        whole = None  # lines, each of which is a list: named below
    parts = enumerate(text.split("\n") if whole is None else whole, 1)
    for line, part in parts:
        if isinstance(part, str) and whole is None:
            if not part.strip():
                continue
            try:
                part = json.loads(part)
            except (ValueError, RecursionError):
                part = None
        if not isinstance(part, dict):
            fail(f"{path}, {'line' if whole is None else 'element'} {line}: not a JSON object")
        yield line, {str(name): value for name, value in part.items()}


def text_cell(path: Path, line: int, value) -> str:
    if isinstance(value, (list, dict, bool)):
        fail(f"{path}, line {line}: {type(value).__name__} {utils.cut(str(value), 40)} where a text should be")
    return "" if value is None else str(value)


def label_cell(path: Path, line: int, value) -> str:
    """A text, a number, true or false, nothing; of a list (several labels), its parts with | between them."""
    if isinstance(value, list) and not any(isinstance(part, (list, dict)) for part in value):
        return BETWEEN.join(label_cell(path, line, part) for part in value)
    if isinstance(value, (list, dict)):
        fail(f"{path}, line {line}: {utils.cut(str(value), 40)} where a label or a list of labels should be")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


# ---- labels -----------------------------------------------------------------------------------------------------------


def plain_label(label: str) -> str:
    """` １ ` and `1.0` are `1`. Of several labels (a|b) each, in the order of the alphabet."""
    parts = {" ".join(one_form(part).split()) for part in one_form(label).split(BETWEEN)} - {""}
    return BETWEEN.join(sorted(re.sub(r"^([+-]?\d+)\.0+$", r"\1", part) for part in parts))


def same_labels(rows: list, notes: list[str]) -> tuple[list, list[str]]:
    """Gives labels that differ in capitals, width or blanks alone one spelling, the most usual of them; notes which."""
    spellings: dict[str, Counter] = {}
    for _, _, label in rows:
        for part in plain_label(label).split(BETWEEN):
            spellings.setdefault(part.casefold(), Counter())[part] += 1
    chosen = {key: min(counts, key=lambda name: (-counts[name], name)) for key, counts in spellings.items()}
    merged = sorted({label for _, _, label in rows if label.strip() not in chosen.values() and BETWEEN not in label})
    rows = [(line, text, BETWEEN.join(chosen[p.casefold()] for p in plain_label(label).split(BETWEEN)))
            for line, text, label in rows]  # fmt: skip
    if not merged:
        return rows, notes
    pairs = [f"{name!r} as {chosen[plain_label(name).casefold()]!r}" for name in merged]
    return rows, [*notes, f"labels read as the same: {utils.shortened(pairs)}"]


def classes_of(labels: tuple[str, ...], name: str) -> tuple[list[str], np.ndarray, list[str]]:
    """-> the classes, the number of each label (of several labels a text: a row of 0 and 1), and a note on them."""
    several = any(BETWEEN in label for label in labels)
    parts = [label.split(BETWEEN) for label in labels] if several else [[label] for label in labels]
    classes = sorted({part for row in parts for part in row})
    if len(classes) < 2:
        fail(f"--data {name}: all {len(labels):,} rows have the label {classes[0]!r}; there is nothing to tell apart")
    refuse_no_classes(classes, len(labels), name)
    number = {label: i for i, label in enumerate(classes)}
    if not several:
        return classes, np.array([number[label] for label in labels]), []
    table = np.zeros((len(labels), len(classes)), np.int64)
    for i, row in enumerate(parts):
        table[i, [number[part] for part in row]] = 1
    return classes, table, [f"several labels a text, separated by {BETWEEN}: {len(classes)} labels, each by itself"]


def refuse_no_classes(classes: list[str], rows: int, name: str) -> None:
    """Ends the program if the label column holds prices, identifiers or texts."""
    numbers = [label for label in classes if re.fullmatch(r"[+-]?\d*\.?\d+(e[+-]?\d+)?", label)]
    fractions = sum("." in label or "e" in label for label in numbers)
    if len(numbers) == len(classes) and (fractions > 10 or (len(classes) > 50 and rows < 10 * len(classes))):
        fail(f"--data {name}: the label column has {len(classes):,} different numbers in {rows:,} rows, so they are no "
             f"classes; name the right one with --label-column")  # fmt: skip
    if len(classes) > 20 and rows < 2 * len(classes):
        fail(f"--data {name}: the label column has {len(classes):,} different values in {rows:,} rows, such as "
             f"{utils.cut(classes[0], 40)!r}; name the right one with --label-column")  # fmt: skip
