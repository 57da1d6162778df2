"""The data of a problem, from the built-in sample or from your CSV file, as train, val and test.

    python datasets.py --problem spirals               # says what there is
    python datasets.py --problem line --data line.csv

Your own data is a CSV file: a header, then a row a sample; the columns before the last are the inputs, the last is the
target: a number for `line` and `curve`, the name of a class for `spirals`. `python sample.py` writes three examples.
"""

import csv
import io
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import sample
import utils
from utils import fail, fingerprint, warn

PROBLEMS = ("line", "curve", "spirals")
SPLITS = {"train": 0.6, "val": 0.2, "test": 0.2}
SAMPLE_SIZES = {"train": 400, "val": 200, "test": 200}
DATA_HELP = "`sample` (built in), or a CSV file of your own; `auto` is the sample, for this chapter has no real data"


@dataclass
class Data:
    """Inputs (N, D) and targets (N, 1) floats, or labels (N,) int64, by split. `samples`: {fingerprint: row} of each split."""

    name: str
    columns: tuple[str, ...]
    classes: list[str]  # empty for a number as target
    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    samples: dict[str, dict[str, str]] = field(default_factory=dict)
    own: bool = False


def load(problem: str, data: str, splits: tuple[str, ...] = ("train", "val"), run: dict | None = None) -> Data:
    """The data of a problem; only the splits asked for are in it. `run`: the split.json of a run, which says what may be
    tested. A name that is the path of a file is that file.

    >>> data = load("spirals", "sample")
    >>> {split: tuple(x.shape) for split, x in data.inputs.items()}, data.classes
    ({'train': (400, 2), 'val': (200, 2)}, ['A', 'B'])
    """
    if problem not in PROBLEMS:
        fail(f"no problem is called {problem!r}; there are: {', '.join(PROBLEMS)}")
    is_own = run["own"] if run else data != "auto" and Path(data).exists()
    if data in ("auto", "sample") and not is_own:
        return load_sample(problem, splits)
    if not Path(data).is_file():
        fail(f"--data {data}: no such file; give `sample` or a CSV file (`python sample.py` writes examples)")
    return load_csv(problem, Path(data), splits, run)


def load_sample(problem: str, splits: tuple[str, ...]) -> Data:
    """Each split has a seed of its own, so that none depends on another's size."""
    made = {split: sample.make(problem, SAMPLE_SIZES[split], seed=list(SPLITS).index(split)) for split in splits}
    classes = ["A", "B"] if problem == "spirals" else []
    inputs, targets = ({split: pair[k] for split, pair in made.items()} for k in (0, 1))
    marks = {split: marks_of(x.tolist(), y.flatten().tolist()) for split, (x, y) in made.items()}
    samples = {split: {mark: f"row {i}" for i, mark in enumerate(m, 1)} for split, m in marks.items()}
    return Data("sample", sample.COLUMNS[problem], classes, inputs, targets, samples)


def marks_of(inputs: list[list[float]], answers: list) -> list[str]:
    """A fingerprint of each row's numbers and its answer."""
    rows = zip(inputs, answers, strict=True)
    return [
        fingerprint(struct.pack(f"<{len(row)}d", *(v + 0.0 for v in row)) + str(answer).encode())
        for row, answer in rows
    ]


def deal_rows(marks: list[str]) -> dict[str, list[int]]:
    """The rows of each split: three, one and one in five. A row is drawn by its content, so the order of the file means
    nothing, rows that are added move none of these, and equal rows stay together."""
    test = utils.deal(set(marks), "test", SPLITS["test"])
    val = utils.deal(set(marks) - test, "val", SPLITS["val"] / (1 - SPLITS["test"]))
    parts = {"test": test, "val": val, "train": set(marks) - test - val}
    return {split: [row for row, mark in enumerate(marks) if mark in parts[split]] for split in SPLITS}


def load_csv(problem: str, path: Path, splits: tuple[str, ...], run: dict | None) -> Data:
    """Reads a file and deals its rows into splits; ends the program with one line if that cannot be done."""
    columns, inputs, answers = read_csv(path, is_class=problem == "spirals")
    if problem == "line" and len(columns) != 2:
        fail(f"{path}: a line has one input and one target, this file has {len(columns)} columns")
    if len(inputs) < 10:
        fail(f"{path}: {len(inputs)} usable rows are too few to split; 10 are the least")
    classes = sorted(set(answers)) if problem == "spirals" else []
    if problem == "spirals" and len(classes) < 2:
        fail(f"{path}: the last column names one class only ({classes[0]})")
    x = torch.tensor(inputs, dtype=torch.float64)  # which holds large numbers that differ little
    y = torch.tensor([classes.index(a) for a in answers]) if classes else torch.tensor(answers, dtype=x.dtype)[:, None]
    marks = marks_of(inputs, answers)
    rows = deal_rows(marks)
    if run and "test" in splits:
        named = {mark: f"row {i}" for i, mark in enumerate(marks, 2)}
        chosen = utils.held_out(run, named, {marks[row] for row in rows["test"]}, names_stay=False)
        rows["test"] = [row for row, mark in enumerate(marks) if mark in chosen]
        if not rows["test"]:
            fail(f"{path}: none of the rows that the run held out is in it")
    samples = {split: {marks[row]: f"row {row + 2}" for row in rows[split]} for split in rows}
    parts = {split: rows[split] for split in splits}
    x, y = ({split: values[part] for split, part in parts.items()} for values in (x, y))
    return Data(path.stem, columns, classes, x, y, samples, own=True)


def read_csv(path: Path, is_class: bool, num_inputs: int | None = None) -> tuple[tuple[str, ...], list, list]:
    """-> the column names, the inputs of each row, the last column of each row. Bad rows are left out, with a warning.

    With `num_inputs`, only so many columns are read, and there need be no target (for predictions).
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(utils.read_text(path))) if any(map(str.strip, row))]
    except csv.Error as error:
        fail(f"{path}: not a CSV file that can be read ({error})")
    if not rows or len(rows[0]) < (num_inputs or 2):
        fail(f"{path}: needs a header and at least {num_inputs or 2} columns")
    columns, inputs, answers, bad = tuple(rows[0]), [], [], []
    for number, row in enumerate(rows[1:], start=2):
        try:
            values = parse_row(row, len(columns), is_class, num_inputs)
        except ValueError as error:
            bad.append(f"{path}:{number}: {error}")
            continue
        inputs.append(values[0])
        answers.append(values[1])
    if bad:
        warn("\n".join([f"{len(bad)} of {len(rows) - 1} rows left out:", *bad[:5], *(["..."] if len(bad) > 5 else [])]))
    if not inputs:
        fail(f"{path}: no usable row")
    return columns, inputs, answers


def parse_row(row: list[str], width: int, is_class: bool, num_inputs: int | None) -> tuple[list[float], str | float]:
    """-> (inputs, target) of one row; ValueError says what is wrong with it.

    >>> parse_row(["1", " 2.5", "A "], 3, is_class=True, num_inputs=None)
    ([1.0, 2.5], 'A')
    >>> parse_row(["1", "nan"], 2, is_class=False, num_inputs=None)
    Traceback (most recent call last):
        ...
    ValueError: 'nan' is no finite number
    """
    if len(row) != width:
        raise ValueError(f"{len(row)} columns, the header has {width}")
    numbers = []
    for text in row[: num_inputs or (width - 1 if is_class else width)]:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{text!r} is no number") from None
        if not math.isfinite(value):
            raise ValueError(f"{text!r} is no finite number")
        numbers.append(value)
    if num_inputs:
        return numbers, ""
    if not is_class:
        return numbers[:-1], numbers[-1]
    if not row[-1].strip():
        raise ValueError("no class")
    return numbers, row[-1].strip()


def main() -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--problem", default="line", choices=PROBLEMS, help="default: %(default)s")
    parser.add_argument("--data", default="sample", help=DATA_HELP)
    args = parser.parse_args()
    data = load(args.problem, args.data, tuple(SPLITS))
    print(f"{args.problem} from {data.name}: {', '.join(data.columns[:-1])} -> {data.columns[-1]}")
    for split, x in data.inputs.items():
        y = data.targets[split].float()
        print(f"{split:<5} {len(x):>4} rows, inputs from {x.min():.2f} to {x.max():.2f}, target mean {y.mean():.2f}")


if __name__ == "__main__":
    utils.start(main)
