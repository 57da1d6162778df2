"""What both engines say about an epoch and a run."""

from argparse import Namespace
from pathlib import Path

import utils
from utils import say

LOSSES = ("class", "box", "mask", "rpn_class", "rpn_box")  # Mask R-CNN's five; train_loss is their sum


def is_enough(history: list[dict], args: Namespace) -> bool:
    """Whether the last --patience epochs brought nothing better than the best before them."""
    if not args.patience or not history:
        return False
    best = max(history, key=lambda row: row["val_mask_ap"])  # the first of equals
    return history[-1]["epoch"] - best["epoch"] >= args.patience


def report(row: dict, epochs: int, seconds: float, pictures: int, events=None) -> None:
    """One aligned line an epoch, and the same numbers to TensorBoard."""
    losses = ", ".join(f"{name} {row[name]:.3f}" for name in LOSSES)
    numbers = "  ".join(f"{name} {row[name]:.4f}" for name in row if name not in ("epoch", "lr", *LOSSES))
    numbers = numbers.replace("  val_", f" ({losses})  val_", 1)
    speed = f"{seconds:6.1f} s  {pictures / seconds:>6,.1f} pictures/s"
    say(f"epoch {row['epoch']:>3}/{epochs}  {numbers}  lr {row['lr']:.5f}  {speed}")
    if events:
        events.add(row, pictures_per_second=pictures / seconds)


def finish(run: Path, args: Namespace, history: list[dict]) -> None:
    """The run's curves, and its result in two lines."""
    shown = [{name: value for name, value in row.items() if name not in LOSSES} for row in history]
    utils.draw_curves(shown, run / "curves.png")
    best = max(history, key=lambda row: row["val_mask_ap"])
    scores = f"val mask AP {best['val_mask_ap']:.4f}, AP50 {best['val_mask_ap50']:.4f}"
    early = f" (stopped: {args.patience} epochs without a better one)" if is_enough(history, args) else ""
    say(f"{args.arch} on {args.data} with {args.engine}: {scores} in epoch {best['epoch']}{early}")
    say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
    say(f"now: python test.py --run {utils.quoted(run)}")
