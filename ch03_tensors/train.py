"""Fits a small problem by gradient descent, with the optimizers, losses and initialisations of the lessons.

    python train.py                                                           # the line of father and son
    python train.py --problem spirals --optimizer sgd,momentum,adam --init torch,zeros    # compares all six
    python train.py --problem curve --optimizer momentum --schedule cosine --visdom

Writes a run folder (runs/ARCH-PROBLEM-DATA): args.json, metrics.csv, curves.png, path.png (the path on the loss
surface), TensorBoard events, last.pt, best.pt. `python test.py` then measures the newest run on the test split.
"""

import argparse
import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from tqdm import tqdm

import datasets
import models
import surface
import utils
from compare import compare
from lessons.activations_losses import cross_entropy, mse_loss
from optimizers import RATES, learning_rate, make_optimizer
from options import parse
from utils import fail, rank, say, world

# ---- data and loss -----------------------------------------------------------------------------------------------------


def scales_of(data: datasets.Data, raw: bool) -> dict[str, list[float]]:
    """Mean and deviation of the training inputs and targets (labels are left alone): what the model sees is
    (value - mean) / deviation. One learning rate then suits all directions; see for yourself with --raw."""
    x, y = data.inputs["train"], data.targets["train"]
    parts = {"x": x} if data.classes else {"x": x, "y": y}
    scales = {}
    for name, part in parts.items():
        plain = torch.zeros(part.shape[1]), torch.ones(part.shape[1])
        mean, deviation = plain if raw else (part.mean(0), part.std(0, correction=min(1, len(part) - 1)))
        deviation = torch.where((part == part[:1]).all(0), 1.0, deviation)  # a constant column has no scale
        scales[f"{name}_mean"], scales[f"{name}_std"] = mean.tolist(), deviation.tolist()
    return scales


def normalised(data: datasets.Data, meta: dict, split: str) -> tuple[Tensor, Tensor]:
    """A split as the model sees it: inputs (N, D) and targets (N, 1), or labels (N,)."""
    x, y = data.inputs[split], data.targets[split]
    return scaled(x, meta, "x"), y if data.classes else scaled(y, meta, "y")


def scaled(values: Tensor, meta: dict, part: str) -> Tensor:
    """(value - mean) / deviation, (N, D) float32. The subtraction is done in the values' own precision."""
    mean, deviation = (torch.tensor(meta[f"{part}_{name}"], dtype=values.dtype) for name in ("mean", "std"))
    return ((values - mean) / deviation).float()


def make_loss(data: datasets.Data, x: Tensor, y: Tensor) -> Callable:
    """-> a function of the model (or of anything that maps x to outputs): its loss on these samples."""
    loss = cross_entropy if data.classes else mse_loss
    return lambda model: loss(model(x).float(), y)


# ---- one epoch -------------------------------------------------------------------------------------------------------


def train_one_epoch(model, data, x, y, optimizer, args, epoch: int) -> float:
    """-> the mean loss of the epoch's batches. Under torchrun each process takes its share of every batch."""
    model.train()
    # The order must be the same in all processes, so it comes from a generator that knows no rank.
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(args.seed * 1_000_003 + epoch))
    total, count = torch.zeros((), device=x.device), 0
    for batch in order.split(args.batch_size or len(x)):
        batch = batch[: len(batch) // world() * world()][rank() :: world()].to(x.device)
        if len(batch) == 0:  # fewer samples than processes are left
            continue
        with autocast(args, x.device):
            loss = make_loss(data, x[batch], y[batch])(model)
        optimizer.zero_grad()
        loss.backward()
        average_over_processes([p.grad for p in model.parameters()])
        optimizer.step()
        total += loss.detach() * len(batch)
        count += len(batch)
    if world() > 1:
        dist.all_reduce(total)
    return total.item() / max(1, count * world())


@torch.no_grad()
def average_over_processes(tensors: list[Tensor]) -> None:
    """Under torchrun: every process goes on with the mean of all. This is what DistributedDataParallel does, in bulk."""
    for tensor in tensors if world() > 1 else []:
        dist.all_reduce(tensor)
        tensor /= world()


@torch.no_grad()
def evaluate(model, data, x, y, meta, args) -> dict:
    """-> the loss, and a number a human understands: accuracy, or the error in the target's own unit (RMSE)."""
    model.eval()
    with autocast(args, x.device):
        outputs = model(x).float()
    row = {"val_loss": make_loss(data, x, y)(lambda _: outputs).item()}
    if data.classes:
        return row | {"val_accuracy": (outputs.argmax(1) == y).float().mean().item()}
    return row | {"val_rmse": ((outputs - y).square().mean().sqrt() * meta["y_std"][0]).item()}


def autocast(args: argparse.Namespace, device: torch.device):
    """bfloat16 for the operations that bear it; the weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if args.precision == "bf16" else nullcontext()


# ---- a run -----------------------------------------------------------------------------------------------------------


def restore(saved: dict | None, run: Path, args: argparse.Namespace, model, optimizer) -> dict:
    """-> what last.pt says of the run so far, with its states put back; of a run that saved nothing yet, the start."""
    if saved is None:
        return {"epoch": 0, "history": [], "best": math.inf, "path": [weights_of(model)]}
    try:
        for name in ("problem", "arch", "optimizer"):
            if saved["meta"][name] != getattr(args, name):
                fail(f"{run / 'last.pt'} was made with --{name} {saved['meta'][name]}, not {getattr(args, name)}")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        return {name: saved[name] for name in ("epoch", "history", "best")} | {"path": list(saved["path"])}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        fail(f"{run / 'last.pt'} does not fit this model and data ({str(error).splitlines()[0]})")


def weights_of(model: nn.Module) -> Tensor:
    """All parameters as one vector (P,) on the CPU: one point of the path."""
    return parameters_to_vector(model.parameters()).detach().cpu().clone()


def save(run: Path, args: argparse.Namespace, progress: dict, meta: dict, model, optimizer, is_best: bool) -> None:
    """The run folder's files. last.pt comes last: after a kill, the epoch is done again with the same result."""
    if rank() > 0:
        return
    weights = utils.unwrap(model).state_dict()
    if is_best:
        utils.save_checkpoint(run / "best.pt", {"meta": meta, "model": weights, "epoch": progress["epoch"]})
    utils.write_metrics(progress["history"], run / "metrics.csv")
    utils.save_arguments(run, args)
    state = {"meta": meta, "model": weights, "optimizer": optimizer.state_dict()}
    utils.save_checkpoint(run / "last.pt", state | progress | {"path": torch.stack(progress["path"])})


def load_data(args: argparse.Namespace) -> tuple[datasets.Data, dict]:
    """-> the data, of which --limit training samples are left, and which rows train, validate and test (split.json)."""
    data = datasets.load(args.problem, args.data)
    split = describe(data, args)
    for part in (data.inputs, data.targets):
        part["train"] = part["train"][: args.limit]
    if args.data == "auto":
        args.data = data.name
    return data, split


def make_model(args: argparse.Namespace, data: datasets.Data, device: torch.device) -> nn.Module:
    """A model with the weights of --init, drawn from --seed; the same in all processes."""
    utils.seed_everything(args.seed)
    model = models.build(args.arch, data.inputs["train"].shape[1], len(data.classes) or 1).to(device)
    models.initialise(model, args.init)
    for p in model.parameters() if world() > 1 else ():  # each process drew weights of its own: take the first one's
        dist.broadcast(p.data, 0)
    return model


def note(progress: dict, row: dict, weights: Tensor) -> bool:
    """Adds an epoch to what is known of the run -> whether it is the best so far, by the validation loss."""
    is_best = row["val_loss"] < progress["best"]
    progress |= {"epoch": row["epoch"], "best": min(row["val_loss"], progress["best"])}
    progress["history"].append(row)
    progress["path"].append(weights)
    return is_best


def train(args: argparse.Namespace, device: torch.device) -> tuple[Path, list[dict]]:
    """Trains as `args` say -> the run folder and its history."""
    args.lr = RATES[args.problem][args.optimizer] if args.lr is None else args.lr
    data, split = load_data(args)
    plot = connect(args)
    meta = {"problem": args.problem, "arch": args.arch, "optimizer": args.optimizer}
    meta |= {"data": data.name, "classes": data.classes, "columns": list(data.columns), **scales_of(data, args.raw)}
    x, y = (tensor.to(device) for tensor in normalised(data, meta, "train"))
    val_x, val_y = (tensor.to(device) for tensor in normalised(data, meta, "val"))
    model = make_model(args, data, device)
    optimizer = make_optimizer(args.optimizer, model.parameters(), args.lr, args.weight_decay)
    run = utils.open_run(args, f"{args.arch}-{args.problem}-{data.name}", split)
    progress = restore(utils.last_checkpoint(run, args), run, args, model, optimizer)
    if utils.is_finished(run, args, progress["epoch"]):
        return run, progress["history"]
    wrapped = torch.compile(model) if args.compile else model
    say(f"{args.problem}: {args.arch} ({len(progress['path'][0]):,} parameters, init {args.init}), {args.optimizer}")
    say(f"data: {data.name}, {len(x)} training and {len(val_x)} validation samples; {device}; run {run}")
    events = utils.Events(run, progress["history"])

    for epoch in tqdm(range(progress["epoch"], args.epochs), leave=False, disable=None if rank() == 0 else True):
        utils.seed_everything(args.seed, epoch)
        start = time.perf_counter()
        optimizer.lr = learning_rate(args.schedule, args.lr, epoch, args.epochs)
        row = {"epoch": epoch + 1, "lr": optimizer.lr}
        row["train_loss"] = train_one_epoch(wrapped, data, x, y, optimizer, args, epoch)
        row |= evaluate(wrapped, data, val_x, val_y, meta, args)
        check_finite(row, args, run)
        is_best = note(progress, row, weights_of(model))
        save(run, args, progress, meta, model, optimizer, is_best)
        report(row, args, time.perf_counter() - start, len(x), events, plot)

    events.close()
    if rank() == 0:
        finish(run, args, data, meta, model, progress)
    return run, progress["history"]


def check_finite(row: dict, args: argparse.Namespace, run: Path) -> None:
    """Ends the program if a loss stopped being a number."""
    if not math.isfinite(row["train_loss"] + row["val_loss"]):
        hint = f"try an --lr below {args.lr:g}"
        fail(f"the loss is not finite in epoch {row['epoch']}: {hint}. What {run} has is untouched")


def describe(data: datasets.Data, args: argparse.Namespace) -> dict:
    """What split.json holds: which rows train, validate and test."""
    marks = list(data.samples["train"].items())
    split = data.samples | {"data": args.data if data.own else data.name, "own": data.own}
    return split | {"train": dict(marks[: args.limit]), "unused": dict(marks[args.limit or len(marks) :])}


def connect(args: argparse.Namespace):
    """-> a lessons.tools.VisdomPlot for --visdom, or None; ends the program if no server answers."""
    if not args.visdom or rank() > 0:
        return None
    from lessons.tools import VisdomPlot  # here, because torchvision comes with it and takes seconds to import

    try:
        return VisdomPlot(args.visdom, env=f"{args.problem}-{args.optimizer}-{args.init}")
    except ConnectionError as error:
        fail(f"--visdom: {error}")


def report(row: dict, args, seconds: float, samples: int, events: utils.Events, plot) -> None:
    """One aligned line an epoch (of a long run, every tenth), and the same numbers to TensorBoard and Visdom."""
    numbers = {name: value for name, value in row.items() if name not in ("epoch", "lr")}
    if row["epoch"] % max(1, args.epochs // 10) == 0 or row["epoch"] in (1, args.epochs):
        text = "  ".join(f"{name} {value:9.4f}" for name, value in numbers.items())
        speed = f"{seconds:5.2f} s  {samples / seconds:>9,.0f} samples/s"
        say(f"epoch {row['epoch']:>4}/{args.epochs}  {text}  lr {row['lr']:.5f}  {speed}")
    events.add(row)
    if plot:
        plot.add(row["epoch"], numbers)


def finish(run: Path, args: argparse.Namespace, data: datasets.Data, meta: dict, model, progress: dict) -> None:
    """The run's curves, the path on the loss surface, and its result in three lines."""
    utils.draw_curves(progress["history"], run / "curves.png")
    whole = make_loss(data, *normalised(data, meta, "train"))
    surface.draw(copy.deepcopy(model).cpu(), whole, torch.stack(progress["path"]), run / "path.png")
    best = min(progress["history"], key=lambda row: row["val_loss"])
    score = "val_accuracy" if data.classes else "val_rmse"
    say(f"{args.arch} on {args.problem} ({data.name}): {score} {best[score]:.4f} in epoch {best['epoch']}")
    say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
    say(f"now: python test.py --run {utils.quoted(run)}")


def main(argv: list[str] | None = None) -> None:
    with utils.processes():
        args = parse(__doc__, argv)
        device = utils.pick_device(args.device)
        args.precision = utils.pick_precision(args.precision, device)
        if "," in args.optimizer + args.init:
            compare(args, lambda one: train(one, device)[1])
        else:
            train(args, device)


if __name__ == "__main__":
    utils.start(main, "stopped; `python train.py --resume RUN` goes on after the last finished epoch")
