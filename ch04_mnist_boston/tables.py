"""Tables of numbers for the boston task: the Boston housing data, your own CSV file, or the built-in sample, and their folds.

    python datasets.py                                    # gets the data of all three tasks ready and describes it
    python train.py boston --data houses.csv --target price

A table's rows are split by hold-out, K-fold or leave-one-out (course 4-4). Every scale is fitted inside the fold.
"""

import csv
import difflib
import hashlib
import io
import math
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import KFold, LeaveOneOut, ShuffleSplit
from torch import Tensor
from tqdm import tqdm

import sample
from utils import fail, rank, say, warn

BOSTON_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/housing/housing.data"
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
    """Features x (N, F) and target y (N,), float64, and what they are called."""

    name: str
    columns: list[str]
    target: str
    x: np.ndarray
    y: np.ndarray


def load_table(name: str, root: str = "data", target: str | None = None, drop: tuple = ()) -> Table:
    """`name`: auto, boston, sample, or a CSV file with `target` (default: its last column), less the columns in `drop`."""
    if name == "auto":
        try:
            table = load_boston(root)
        except SystemExit as why:
            warn(
                f"The Boston housing data is not to be had, so this run uses the built-in SAMPLE of made-up houses.\n"
                f"{why}\nA score on the sample says nothing about real houses."
            )
            table = load_houses()
    elif name in ("boston", "sample"):
        table = load_boston(root) if name == "boston" else load_houses()
    elif Path(name).is_file():
        table = load_csv(Path(name), target)
    else:
        fail(f"--data {name}: not boston, sample or auto, and there is no file of that name")
    if target and target != table.target:
        fail(f"--target {target}: {table.name} has the target {table.target}; --target is for a CSV file")
    return drop_columns(table, drop)


def drop_columns(table: Table, drop: tuple) -> Table:
    for name in drop:
        if name not in table.columns:
            fail(f"--drop {name}: {no_column(name, table.columns)}")
    kept = [i for i, name in enumerate(table.columns) if name not in drop]
    if not kept:
        fail("--drop: no column left to predict from")
    return Table(table.name, [table.columns[i] for i in kept], table.target, table.x[:, kept], table.y)


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
        download(BOSTON_URL, path, BOSTON_MD5)
    data = path.read_bytes()
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != BOSTON_MD5:
        fail(f"{path}: damaged (its MD5 is not {BOSTON_MD5}); delete it to have it downloaded again")
    rows = np.loadtxt(io.BytesIO(data))
    return Table("boston", BOSTON_COLUMNS[:-1], BOSTON_COLUMNS[-1], rows[:, :-1], rows[:, -1])


def download(url: str, path: Path, md5: str, timeout: float = 20.0) -> None:
    """Downloads `url` to `path` under a temporary name, checks the MD5, and only then gives it its name."""
    say(f"Downloading {url} ...")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=timeout) as answer, open(beside, "wb") as file:
            total = int(answer.headers.get("Content-Length") or 0) or None
            with tqdm(total=total, unit="B", unit_scale=True, disable=None if rank() == 0 else True) as progress:
                while block := answer.read(1 << 16):
                    file.write(block)
                    progress.update(len(block))
        if hashlib.md5(beside.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            raise OSError("what came has the wrong MD5")
        os.replace(beside, path)
    except (OSError, ValueError) as error:  # ValueError: an address that is none
        fail(f"could not download {url} ({error}); put {path.name} into {path.parent} by hand (MD5 {md5})")
    finally:
        beside.unlink(missing_ok=True)


# ---- CSV --------------------------------------------------------------------------------------------------------------


def load_csv(path: Path, target: str | None) -> Table:
    """A CSV file whose first row names the columns, all other cells numbers. `target`: its column (default: the last)."""
    columns, values = read_csv(path)
    target = target or columns[-1]
    if target not in columns:
        fail(f"--target {target}: {path} has {no_column(target, columns)}")
    if len(columns) < 2:
        fail(f"{path}: only one column; at least a feature and the target are needed")
    if len(values) < FEWEST_ROWS:
        fail(f"{path}: {len(values)} rows of numbers; at least {FEWEST_ROWS} are needed")
    at = columns.index(target)
    for name, column in zip(columns, values.T, strict=True):
        if column.min() == column.max():
            if name == target:
                fail(f"{path}: column {name!r}, the target, has the same value {column[0]:g} in every row")
            say(f"{path}: column {name!r} is constant, so nothing can be learned from it; it counts as 0")
    return Table(path.stem, columns[:at] + columns[at + 1 :], target, np.delete(values, at, 1), values[:, at])


def read_csv(path: Path) -> tuple[list[str], np.ndarray]:
    """-> the column names and the numbers (N, C). Ends the program with the first cell that is not a finite number."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path}: no CSV file that can be read ({type(error).__name__})")
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(text), delimiter=delimiter)
    columns = [name.strip() for name in next(lines, [])]
    if not columns or any(is_number(name) or not name for name in columns):
        fail(f"{path}: row 1 must name the columns, and reads: {first.strip()[:60]}")
    if len(set(columns)) < len(columns):
        fail(f"{path}: row 1 names a column twice: {next(name for name in columns if columns.count(name) > 1)!r}")
    try:
        rows = [read_row(path, lines.line_num, cells, columns) for cells in lines if any(map(str.strip, cells))]
    except csv.Error as error:
        fail(f"{path}, row {lines.line_num}: {error}")
    return columns, np.array(rows, dtype=float).reshape(len(rows), len(columns))


def read_row(path: Path, number: int, cells: list[str], columns: list[str]) -> list[float]:
    if len(cells) != len(columns):
        fail(f"{path}, row {number}: {len(cells)} cells, where row 1 names {len(columns)} columns")
    for name, cell in zip(columns, cells, strict=True):
        if not cell.strip():
            fail(f"{path}, row {number}, column {name!r}: the cell is empty")
        if not is_number(cell):
            fail(f"{path}, row {number}, column {name!r}: {cell.strip()[:40]!r} is not a number")
        if not math.isfinite(float(cell)):
            fail(f"{path}, row {number}, column {name!r}: {cell.strip()!r} is not a finite number")
    return [float(cell) for cell in cells]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# ---- folds and features -------------------------------------------------------------------------------------------------


def make_folds(rows: int, split: str, folds: int = 10, shuffles: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """-> (training rows, test rows) of every fold (course 4-4). They never depend on --seed, or runs could not be compared.

    holdout  a fifth of the rows tests, drawn anew in each shuffle
    kfold    the rows are shuffled and cut into `folds` parts; each part tests once, the others train
    loo      leave-one-out: K-fold with as many folds as rows; there is but one way to do it, so no shuffles
    """
    if split == "loo":
        return list(LeaveOneOut().split(np.empty(rows)))
    if split == "kfold" and not 2 <= folds <= rows:
        fail(f"--folds {folds}: {rows} rows can be cut into 2 to {rows} folds")
    result = []
    for shuffle in range(shuffles):
        kfold, holdout = (
            KFold(folds, shuffle=True, random_state=shuffle),
            ShuffleSplit(1, test_size=0.2, random_state=shuffle),
        )
        result += (kfold if split == "kfold" else holdout).split(np.empty(rows))
    return result


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
        mean, std = x.mean(0), x.std(0)
        std = np.where(std > 1e-12 * np.maximum(1, abs(mean)), std, 1.0)
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
