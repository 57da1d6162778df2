"""Sets runs side by side: a table of their best epochs and test scores, and one picture with all their curves.

    python compare.py runs/*                     # all runs
    python compare.py runs/a runs/b --out two.png

This file is the same, byte for byte, in every chapter that has it (`nox -s lint` checks that).
"""

import csv
import re
from pathlib import Path

import utils
from utils import fail, new_figure, read_arguments, read_json, save_figure, say

LOWER_IS_BETTER = re.compile("loss|error|rmse|mse|perplexity")
MOST_LINES = 20  # a legend of more would cover the curves


def read_history(folder: Path) -> list[dict[str, float]]:
    """-> the rows of a run's metrics.csv."""
    path = folder / "metrics.csv"
    try:
        rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
        return [{name: float(value) for name, value in row.items()} for row in rows] or fail(f"{path}: no epoch in it")
    except (OSError, ValueError, TypeError) as error:
        fail(f"{path}: cannot be read ({error})")


def columns_of(history: list[dict]) -> list[str]:
    """What is worth comparing: the validation scores, or, where nothing is validated, the losses."""
    names = [name for name in history[0] if name not in ("epoch", "lr")]
    return [name for name in names if name.startswith("val_")] or names


def best_of(history: list[dict], name: str) -> tuple[float, int]:
    """-> the best value of a column, and its epoch; of equal ones that with the lowest validation loss."""
    sign = 1 if LOWER_IS_BETTER.search(name) else -1
    row = min(history, key=lambda row: (sign * row[name], row.get("val_loss", 0.0)))
    return row[name], int(row["epoch"])


def test_scores(folder: Path) -> str:
    """What test.py wrote into the run folder: its first numbers."""
    path = folder / "test.json"
    scores = [(name, v) for name, v in read_json(path).items() if isinstance(v, float)] if path.exists() else []
    return ", ".join(f"{name} {value:.4g}" for name, value in scores[:3]) or "not tested"


def print_runs(histories: dict[str, list[dict]], columns: list[str]) -> None:
    rows = [["run", "arch", "data", "epochs", *columns, "best epoch", "test"]]
    for name, history in histories.items():
        about = read_arguments(name)
        values = [f"{best_of(history, column)[0]:.4f}" if column in history[0] else "-" for column in columns]
        first = next((column for column in reversed(columns) if column in history[0]), None)
        epoch = str(best_of(history, first)[1]) if first else "-"
        data = Path(str(about.get("data"))).name
        rows.append([name, str(about.get("arch")), data, str(len(history)), *values, epoch, test_scores(Path(name))])
    utils.print_table(rows)


def draw(histories: dict[str, list[dict]], columns: list[str], path: str) -> None:
    """A panel for each column, a line for each run."""
    figure = new_figure(5.2 * len(columns), 3.8, "".join(histories))
    for axis, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        for name, history in histories.items():
            if column in history[0]:
                axis.plot([row["epoch"] for row in history], [row[column] for row in history], marker=".", label=name)
        axis.set(title=column, xlabel="epoch")
        axis.grid(alpha=0.3)
        if len(histories) <= MOST_LINES:
            axis.legend(fontsize=7)
    save_figure(figure, path)


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders of train.py")
    parser.add_argument("--out", default="compare.png", metavar="FILE", help="the picture (default: %(default)s)")
    args = parser.parse_args(argv)
    folders = [name for name in args.runs if len(args.runs) == 1 or (Path(name) / "metrics.csv").exists()]
    if not folders:
        fail("none of these is the folder of a run that finished an epoch")
    histories = {name: read_history(Path(name)) for name in folders}
    columns = list(dict.fromkeys(name for history in histories.values() for name in columns_of(history)))[:6]
    print_runs(histories, columns)
    path = utils.free_name(args.out)
    draw(histories, columns, str(path))
    say(f"wrote {path}")


if __name__ == "__main__":
    utils.start(main)
