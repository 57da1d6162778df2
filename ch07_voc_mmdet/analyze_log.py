"""Reads the logs that mmengine left in run folders: curves of the losses, scores, learning rate and time, and a table (7-11).

    python analyze_log.py                                 # all runs in runs/
    python analyze_log.py runs/fcos-tiny-sample runs/yolox-tiny-sample --out compared.png

Each start of a run, also by --resume, has a folder named by its time. In its vis_data/scalars.json are JSON lines: one every
ten steps of training (loss, loss_..., lr, time and data_time in seconds a step, epoch, iter, step), one each validation
(scores; `step` is the epoch). Any run of mmengine can be read. (mmdet's own log tools need seaborn and one file at a time.)
"""

import json
import math
from pathlib import Path

import utils
from utils import fail, say

NO_SCORES = {"time", "data_time", "step", "iter", "epoch", "memory"}
COLUMNS = (
    "run",
    "epochs",
    "steps",
    "loss",
    "s/step",
    "data %",
    "best epoch",
)  # of the table; behind them are the scores


def read_run(run: Path) -> tuple[list[dict], list[dict]]:
    """-> the rows of training and of validation, in order. What a resumed run did again counts once, as done last."""
    files = sorted(run.glob("*/vis_data/scalars.json"))
    if not files:
        fail(f"{run}: no */vis_data/scalars.json there, so this is not a run of mmengine")
    train, val = {}, {}
    for file in files:
        for number, line in enumerate(file.read_text("utf-8", errors="replace").split("\n"), 1):
            if not line.strip("\0 \r"):
                continue
            row = read_row(line)
            if row is None:
                say(f"skipped {file}, line {number}: not a row of a log")
            else:
                (train if "lr" in row else val)[row["step"]] = row
    if not train:
        fail(f"{run}: nothing of training in its logs yet")
    return [train[step] for step in sorted(train)], [val[step] for step in sorted(val)]


def read_row(line: str) -> dict | None:
    """The numbers in a line of a log; None if it is none (a kill can cut the last line short)."""
    try:
        row = json.loads(line)
        row = {name: value for name, value in row.items() if type(value) in (int, float) and abs(value) < 2**63}
        row["step"] = int(row["step"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return row  # without what is NaN or infinite: there is no point of a curve, and no best epoch


def columns(rows: list[dict], keep) -> list[str]:
    """The names of numbers in rows for which keep(name) holds, in order of appearance."""
    return [name for name in dict.fromkeys(name for row in rows for name in row) if keep(name)]


def is_score(name: str) -> bool:
    return name not in NO_SCORES


def summary(name: str, train: list[dict], val: list[dict], key: str | None) -> dict:
    """One row of the table. `key` is the score that decides which epoch is best; by default the first that was measured."""
    row = {"run": name, "epochs": int(train[-1].get("epoch", 0)), "steps": train[-1]["step"]}
    row["loss"] = float(train[-1].get("loss", math.nan))
    times = [entry["time"] for entry in train if "time" in entry]
    row["s/step"] = sum(times) / max(1, len(times))
    row["data %"] = 100 * sum(entry.get("data_time", 0) for entry in train) / max(1e-9, sum(times))
    scores = columns(val, is_score)
    if key and key not in scores:
        fail(f"{name}: no score {key!r} in its log; there are: {', '.join(scores) or 'none'}")
    if scores:
        key = key or scores[0]
        best = max((entry for entry in val if key in entry), key=lambda entry: entry[key])
        row |= {"best epoch": best["step"]} | {score: best[score] for score in scores if score in best}
    return row


def print_table(rows: list[dict]) -> None:
    """The rows as aligned text, the best first."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names] + [[shown(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        first, *others = zip(line, widths, strict=True)
        print("  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]))


def shown(value) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def draw(runs: dict[str, tuple[list[dict], list[dict]]], path: Path) -> None:
    """A panel for each loss, each score, the learning rate and the time; a line a run."""
    train = [row for rows, _ in runs.values() for row in rows]
    val = [row for _, rows in runs.values() for row in rows]
    panels = [(name, 0) for name in columns(train, lambda name: "loss" in name)]
    panels += [(name, 1) for name in columns(val, is_score)]
    panels += [(name, 0) for name in ("lr", "time", "data_time")]
    across = 3
    down = -(-len(panels) // across)
    figure = utils.new_figure(5 * across, 3 * down, "".join(runs))
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for axis, (name, which) in zip(axes, panels, strict=False):
        for run, rows in runs.items():
            points = [(row["step"], row[name]) for row in rows[which] if name in row]
            if points:
                axis.plot(*zip(*points, strict=True), label=run, marker="." if which else None)
        axis.set(title={"time": "seconds a step", "data_time": "of these, waiting for data"}.get(name, name))
        axis.set_xlabel("epoch" if which else "step")
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    lines = list({line.get_label(): line for axis in axes for line in axis.lines}.values())
    figure.legend(handles=lines, loc="outside upper center", ncols=min(4, len(lines)))
    utils.save_figure(figure, path)


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("runs", nargs="*", help="run folders (default: all in runs/)")
    parser.add_argument("--key", help="the score by which an epoch is best (default: the first in the log)")
    parser.add_argument("--out", metavar="PNG", help="(default: analysis.png in the run folder; of several, in runs/)")
    args = parser.parse_args(argv)
    folders = [Path(run) for run in args.runs] or sorted(
        {file.parents[2] for file in Path("runs").glob("*/*/vis_data/scalars.json")}
    )
    if not folders:
        fail("no runs in runs/; name a run folder")
    runs = {str(folder): read_run(folder) for folder in folders}
    rows = [summary(name, *parts, args.key) for name, parts in runs.items()]
    key = args.key or next((name for row in rows for name in row if name not in COLUMNS), "loss")
    print_table(sorted(rows, key=lambda row: -row.get(key, 0)))
    out = Path(args.out) if args.out else (folders[0] if len(folders) == 1 else Path("runs")) / "analysis.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(runs, out)
    say(f"wrote {out}")


if __name__ == "__main__":
    utils.start(main)
