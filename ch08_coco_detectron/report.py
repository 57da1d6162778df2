"""What both engines say about an epoch and a run."""

import json
from argparse import Namespace
from pathlib import Path

import utils
from utils import rank, say


def save_arguments(run: Path, args: Namespace) -> None:
    """Once a run has begun or its resume was accepted: a refused one leaves the saved arguments as they are."""
    if rank() == 0:
        utils.write_atomic(run / "args.json", json.dumps(vars(args) | {"resume": None}, indent=1))


def report(row: dict, epochs: int, seconds: float, pictures: int, writer=None) -> None:
    """One aligned line an epoch, and the same numbers to TensorBoard."""
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "lr"))
    speed = f"{seconds:6.1f} s  {pictures / seconds:>6,.1f} pictures/s"
    say(f"epoch {row['epoch']:>3}/{epochs}  {numbers}  lr {row['lr']:.5f}  {speed}")
    if writer:
        for name, value in (row | {"pictures_per_second": pictures / seconds}).items():
            writer.add_scalar(name, value, row["epoch"])


def finish(run: Path, args: Namespace, history: list[dict]) -> None:
    """The run's curves, and its result in two lines."""
    utils.draw_curves(history, run / "curves.png")
    best = max(history, key=lambda row: row["val_mask_ap"])
    scores = f"val mask AP {best['val_mask_ap']:.4f}, AP50 {best['val_mask_ap50']:.4f}"
    say(f"{args.arch} on {args.data} with {args.engine}: {scores} in epoch {best['epoch']}")
    say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
    say(f"now: python test.py --run {run}")
