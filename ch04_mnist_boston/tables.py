"""Tables of numbers for the boston task: the Boston housing data, your own CSV file, or the built-in sample, and their folds.

    python datasets.py                                    # gets the data of all three tasks ready and describes it
    python train.py boston --data houses.csv --target price

A table's rows are split by hold-out, K-fold or leave-one-out (course 4-4). Every scale is fitted inside the fold.
"""

import csv
import difflib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import sample
import utils
from utils import draw, fail, fingerprint, say, warn

BOSTON_URLS = (
    "https://archive.ics.uci.edu/ml/machine-learning-databases/housing/housing.data",
    "https://paddlemodels.bj.bcebos.com/uci_housing/housing.data",
)
BOSTON_MD5 = "d4accdce7a25600298819f8e28e8d593"
BOSTON_COLUMNS = [
    "CRIM",
    "ZN",
    "INDUS",
    "CHAS",
    "NOX",
    "RM",
    "AGE",
    "DIS",
    "RAD",
    "TAX",
    "PTRATIO",
    "B",
    "LSTAT",
    "MEDV",
]
TABLE_HELP = "auto (default): boston if it can be had, else sample; boston; sample; or a CSV file of numbers"
FEWEST_ROWS = 20
SPLITS = ("holdout", "kfold", "loo")


@dataclass
class Table:
    """Features x (N, F) and target y (N,), float64, and what they are called; `own`: from your own file."""

    name: str
    columns: list[str]
    target: str
    x: np.ndarray
    y: np.ndarray
    own: bool = False

    def marks(self) -> list[str]:
        """A fingerprint of each row's numbers, whatever the order of the rows and columns."""
        order = sorted(range(len(self.columns)), key=lambda i: self.columns[i])
        rows = np.column_stack([self.x[:, order], self.y]) + 0.0  # which makes -0 a 0
        return [fingerprint(row.tobytes()) for row in rows]


def load_table(
    name: str, root: str = "data", target: str | None = None, drop: Sequence = (), own: bool | None = None
) -> Table:
    """`name`: auto, boston, sample, or a CSV file with `target` (default: its last column), less the columns in `drop`.

    A name that is the path of a file is that file; `own` says whether it is one, where that is known already.
    """
    own = Path(name).exists() if own is None else own
    if name == "auto":
        try:
            table = load_boston(root)
        except SystemExit as why:
            warn(
                f"The Boston housing data is not to be had, so this run uses the built-in SAMPLE of made-up houses.\n"
                f"{why}\nA score on the sample says nothing about real houses."
            )
            table = load_houses()
    elif name in ("boston", "sample") and not own:
        table = load_boston(root) if name == "boston" else load_houses()
    elif Path(name).is_file():
        return load_csv(Path(name), target, drop)
    else:
        fail(f"--data {name}: not boston, sample or auto, and there is no file of that name")
    if target and target != table.target:
        fail(f"--target {target}: {table.name} has the target {table.target}; --target is for a CSV file")
    return drop_columns(table, drop)


def drop_columns(table: Table, drop: Sequence) -> Table:
    kept = [table.columns.index(name) for name in without(table.columns, drop)]
    return Table(table.name, [table.columns[i] for i in kept], table.target, table.x[:, kept], table.y)


def without(columns: list[str], drop: Sequence) -> list[str]:
    """The columns that are left."""
    for name in drop:
        if name not in columns:
            fail(f"--drop {name}: {no_column(name, columns)}")
    return [name for name in columns if name not in drop] or fail("--drop: no column left to predict from")


def no_column(name: str, columns: list[str]) -> str:
    close = difflib.get_close_matches(name, columns, 1)
    return f"no column {name!r};{f' did you mean {close[0]}?' if close else ''} there are: {', '.join(columns)}"


def load_houses() -> Table:
    return Table("sample", list(sample.HOUSING_COLUMNS), sample.HOUSING_TARGET, *sample.make_houses())


# ---- Boston -----------------------------------------------------------------------------------------------------------


def load_boston(root: str) -> Table:
    """The 506 districts of Harrison and Rubinfeld 1978, "Hedonic housing prices and the demand for clean air": 13 features,
    and MEDV, the median value of a home in thousand dollars of 1970, cut off at 50. See the README on column B."""
    path = Path(root) / "housing.data"
    if not path.exists():
        utils.download(BOSTON_URLS, path, f"md5:{BOSTON_MD5}")
    if utils.hash_of(path, "md5") != BOSTON_MD5:
        fail(f"{path}: damaged (its MD5 is not {BOSTON_MD5}); move it away to have it downloaded again")
    rows = np.loadtxt(path)
    return Table("boston", BOSTON_COLUMNS[:-1], BOSTON_COLUMNS[-1], rows[:, :-1], rows[:, -1])


# ---- CSV --------------------------------------------------------------------------------------------------------------


@dataclass
class Cells:
    """A CSV file as it is: its column names, its rows of text, the line each begins in, and the separator."""

    path: Path
    columns: list[str]
    rows: list[list[str]]
    lines: list[int]
    delimiter: str

    def numbers(self, names: list[str]) -> np.ndarray:
        """-> (N, len(names)) float64. Ends the program with the first cell of these columns that is not a finite number."""
        at = [self.columns.index(name) for name in names]
        values = [
            self.number(line, row[i], self.columns[i])
            for line, row in zip(self.lines, self.rows, strict=True)
            for i in at
        ]
        return np.array(values, dtype=float).reshape(len(self.rows), len(at))

    def number(self, line: int, cell: str, column: str) -> float:
        where = f"{self.path}, row {line}, column {column!r}"
        if not cell.strip():
            fail(f"{where}: the cell is empty")
        if not is_number(cell):
            fail(f"{where}: {cell.strip()[:40]!r} is not a number; --drop leaves a column out")
        if not math.isfinite(float(cell)):
            fail(f"{where}: {cell.strip()!r} is not a finite number")
        return float(cell)


def load_csv(path: Path, target: str | None, drop: Sequence = ()) -> Table:
    """A CSV file whose first row names the columns. `target`: its column (default: the last that is not dropped)."""
    cells = read_csv(path)
    if target and target not in cells.columns:
        fail(f"--target {target}: {path} has {no_column(target, cells.columns)}")
    columns = without(cells.columns, drop)
    target = target or columns[-1]
    if target not in columns:
        fail(f"--drop {target}: that is the target")
    columns.remove(target)
    if not columns:
        fail(f"{path}: only one column; at least a feature and the target are needed")
    if len(cells.rows) < FEWEST_ROWS:
        fail(f"{path}: {len(cells.rows)} rows of numbers; at least {FEWEST_ROWS} are needed")
    x, y = cells.numbers(columns), cells.numbers([target])[:, 0]
    if y.min() == y.max():
        fail(f"{path}: column {target!r}, the target, has the same value {y[0]:g} in every row")
    for name, column in zip(columns, x.T, strict=True):
        if column.min() == column.max():
            say(f"{path}: column {name!r} is constant, so nothing can be learned from it; it counts as 0")
    return Table(path.stem, columns, target, x, y, own=True)


def read_csv(path: Path) -> Cells:
    """-> the file's cells. The separator is a comma, semicolon or tab: whichever the first row has most."""
    text = utils.read_text(path)
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(text), delimiter=delimiter)
    columns = [name.strip() for name in next(lines, [])]
    if not columns or any(is_number(name) or not name for name in columns):
        fail(f"{path}: row 1 must name the columns, and reads: {first.strip()[:60]}")
    if len(set(columns)) < len(columns):
        fail(f"{path}: row 1 names a column twice: {next(name for name in columns if columns.count(name) > 1)!r}")
    cells = Cells(path, columns, [], [], delimiter)
    try:
        for row in lines:
            if any(map(str.strip, row)):
                if len(row) != len(columns):
                    fail(f"{path}, row {lines.line_num}: {len(row)} cells, where row 1 names {len(columns)} columns")
                cells.rows.append(row)
                cells.lines.append(lines.line_num)
    except csv.Error as error:
        fail(f"{path}, row {lines.line_num}: {error}")
    return cells


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# ---- folds and features -------------------------------------------------------------------------------------------------


def make_folds(marks: list[str], split: str, folds: int = 10, shuffles: int = 1) -> list[np.ndarray]:
    """`marks`: a fingerprint a row -> the test rows of every fold (course 4-4); all others train.

    holdout  a fifth of the rows tests, drawn anew in each shuffle
    kfold    the rows are shuffled and cut into `folds` parts; each part tests once, the others train
    loo      leave-one-out: K-fold with as many folds as rows; there is but one way to do it, so no shuffles

    Rows are drawn by their content: their order means nothing, and equal rows stay together, or one would train and its twin
    test. The folds never depend on --seed, or runs could not be compared.
    """
    distinct = sorted(set(marks))
    if split == "kfold" and not 2 <= folds <= len(distinct):
        fail(f"--folds {folds}: {len(distinct)} different rows can be cut into 2 to {len(distinct)} folds")
    tests = [[mark] for mark in distinct] if split == "loo" else []
    for shuffle in range(shuffles) if split != "loo" else ():
        order = sorted(distinct, key=lambda mark: draw(mark, f"shuffle {shuffle}"))
        cut = max(1, round(len(order) / 5))
        tests += [order[:cut]] if split == "holdout" else [list(part) for part in np.array_split(order, folds)]
    rows: dict[str, list[int]] = {}
    for row, mark in enumerate(marks):
        rows.setdefault(mark, []).append(row)
    return [np.array(sorted(row for mark in test for row in rows[mark])) for test in tests]


class Features:
    """Features (n, F) -> what the networks are shown, fitted to some rows only: (n, F) standardised, to mean 0 and variance 1.

    With `quantile`, (n, 2F): each column a second time, as the normal quantile of its rank. A column such as crime is mostly
    tiny with a few huge values; its ranks part the tiny ones, which the standardised column holds nearly equal.
    A constant column becomes 0: there is no scale to divide by.
    """

    def __init__(self, x: np.ndarray, quantile: bool = False):
        self.scaler, self.quantile = Scaler(x), quantile
        self.levels = np.quantile(x, np.linspace(0, 1, 101), axis=0)  # (101, F)

    def __call__(self, x: np.ndarray) -> Tensor:
        plain = self.scaler(x)
        if not self.quantile:
            return plain
        grid, columns = np.linspace(0, 1, 101), []
        for values, levels in zip(x.T, self.levels.T, strict=True):
            up = np.interp(values, levels, grid)
            down = 1 - np.interp(-values, -levels[::-1], grid)  # ties: the middle of their ranks, not an end
            columns.append((up + down) / 2 if levels[0] < levels[-1] else np.full(len(x), 0.5))
        ranks = torch.from_numpy(np.stack(columns, 1)).clamp(1e-3, 1 - 1e-3)
        return torch.cat([plain, torch.special.ndtri(ranks).float()], 1)

    def state_dict(self) -> dict:
        return {"scaler": self.scaler.state_dict(), "levels": torch.from_numpy(self.levels), "quantile": self.quantile}

    @staticmethod
    def from_state_dict(state: dict) -> "Features":
        features = Features.__new__(Features)
        features.scaler = Scaler.from_state_dict(state["scaler"])
        features.levels, features.quantile = state["levels"].numpy(), state["quantile"]
        return features


class Scaler:
    """Moves and scales columns to mean 0 and variance 1 on the rows x (n, C) it is fitted to; constant ones to 0."""

    def __init__(self, x: np.ndarray):
        largest = np.where(
            x.any(0), abs(x).max(0), 1.0
        )  # divided by it, no square is too small or too large for a float
        mean, std = x.mean(0), largest * (x / largest).std(0)
        std = np.where(std > 1e-12 * abs(mean), std, 1.0)  # below, it is rounding
        self.mean, self.std = torch.from_numpy(mean), torch.from_numpy(std)

    def __call__(self, x: np.ndarray) -> Tensor:
        """(n, C) -> (n, C) float32. The subtraction is done in float64: columns may be large and vary little."""
        return ((torch.from_numpy(x) - self.mean) / self.std).float()

    def invert(self, x: Tensor) -> Tensor:
        return x.double() * self.std + self.mean

    def state_dict(self) -> dict:
        return {"mean": self.mean, "std": self.std}

    @staticmethod
    def from_state_dict(state: dict) -> "Scaler":
        scaler = Scaler.__new__(Scaler)
        scaler.mean, scaler.std = state["mean"], state["std"]
        return scaler
