"""Trains every optimizer with every initialisation asked for, and sets the results side by side.

    python train.py --problem spirals --optimizer sgd,momentum,adam --init torch,zeros

train.py comes here when --optimizer or --init names more than one. Writes compare.json, compare.png, and below that
folder a run folder for each pair, which `test.py --run` and `train.py --resume` take like any other.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import utils
from utils import rank, say, warn


def compare(args: argparse.Namespace, train: Callable[[argparse.Namespace], list[dict]]) -> Path:
    """`train` takes the arguments of one run and returns its history -> the folder around all runs."""
    around = utils.new_run(args.run, f"compare-{args.problem}")
    if rank() == 0:
        utils.save_arguments(around, args)
    rows, histories = [], {}
    for optimizer in args.optimizer.split(","):
        for init in args.init.split(","):
            name = f"{optimizer}-{init}"
            one = argparse.Namespace(**vars(args) | {"optimizer": optimizer, "init": init, "run": str(around / name)})
            row = {"optimizer": optimizer, "init": init}
            try:
                histories[name] = train(one)
                row |= min(histories[name], key=lambda epoch: epoch["val_loss"])
            except SystemExit as error:  # one that diverges is a result too
                warn(f"{name}: {error}")
                row["failed"] = str(error)
            rows.append(row)
    if rank() == 0:
        print_table(rows)
        utils.write_atomic(around / "compare.json", json.dumps(rows, indent=1))
        if histories:
            draw(histories, around / "compare.png")
        say(f"wrote {around}: compare.json, compare.png, and a run folder for each")
    return around


def print_table(rows: list[dict]) -> None:
    """A line for each run: its best epoch on the validation split."""
    for row in rows:
        if "failed" in row:
            text = row["failed"]
        else:
            scores = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name.startswith("val_"))
            text = f"lr {row['lr']:<7g} {scores}  in epoch {row['epoch']}"
        say(f"{row['optimizer']:<9} init {row['init']:<7} {text}")


def draw(histories: dict[str, list[dict]], path: Path) -> None:
    """The validation losses of all runs over the epochs, on a logarithmic axis."""
    figure = utils.new_figure(7, 4.5)
    axis = figure.subplots()
    for name, history in histories.items():
        axis.plot([row["epoch"] for row in history], [row["val_loss"] for row in history], label=name)
    axis.set(xlabel="epoch", ylabel="validation loss", yscale="log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.legend()
    utils.save_figure(figure, path)
