"""Trains the classifier, on one process or on many, and goes on by itself when one of them dies.

    python train.py                                                       # the built-in sample: 97 % and more
    torchrun --standalone --nproc-per-node 2 --max-restarts 3 -- train.py            # DDP: a whole model a process
    torchrun --standalone --nproc-per-node 2 --max-restarts 3 -- train.py --shard    # FSDP2: a share of it a process

Writes a run folder (runs/ARCH-DATA): args.json, metrics.csv, curves.png, TensorBoard events, last.pt, best.pt. When a process
dies, torchrun ends the others and starts all again; they find the run that they had begun and go on after its last finished
epoch, to the same result, bit for bit. `python test.py` then measures the newest run on the test split.
"""

import json
import math
import os
import platform
import time
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import datasets
import models
import utils
from utils import Number, fail, rank, say, world

# checkpoints hold whole tensors, however the processes share them
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def parse(argv=None) -> Namespace:
    parser = utils.Parser(description=__doc__)
    count, positive = Number(int, 1), Number(float, 0, above=True)
    data = parser.add_argument_group("data and network")
    data.add_argument("--data", default="auto", help=datasets.DATA_HELP)
    data.add_argument("--image-size", type=datasets.IMAGE_SIZES, metavar="N", help="side in pixels (default: 32)")
    data.add_argument("--limit", type=count, metavar="N", help="use only N training pictures")
    data.add_argument("--arch", default="resnet10", help=f"one of {', '.join(models.MODELS)} (default: %(default)s)")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--epochs", type=count, default=12, help="default: %(default)s")
    recipe.add_argument("--batch-size", type=count, default=64, help="of all processes together (default: %(default)s)")
    recipe.add_argument(
        "--lr",
        type=positive,
        default=3e-3,
        help="the highest of the schedule (default: %(default)s)",
    )
    recipe.add_argument("--weight-decay", type=Number(float, 0), default=0.02, help="default: %(default)s")
    utils.add_common_flags(parser)
    parser.add_argument("--shard", action="store_true", help="FSDP2: each process keeps a share of every weight")
    args = utils.parse_args(parser, argv)
    if args.shard and world() == 1:
        fail("--shard divides the weights among processes: start them with torchrun --nproc-per-node 2 -- train.py ...")
    if args.quick:
        args.limit, args.epochs = args.limit or 256, min(args.epochs, 1)
    args.launch = utils.from_first(launch_id)
    return args


def launch_id() -> str | None:
    """What a start of torchrun and its restarts have in common, and no other start has: the name that it was given, or else
    the first machine's torchrun process and when that began. None without torchrun."""
    given = os.environ.get("TORCHELASTIC_RUN_ID")
    if given != "none":
        return given
    parent = os.getppid()
    try:  # a number may be used again, but not with the same beginning (field 22 of proc(5))
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        began = "?"
    return f"{platform.node()} {parent} {began}"


def continue_after_restart(args: Namespace) -> None:
    """When torchrun has started all processes again because one died: go on with the run that this launch had begun."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) and args.resume is None:
        begun = utils.from_first(lambda: find_run(args))
        if begun:
            args.run = args.resume = begun
            say(f"a process died: all start again, and go on with {begun}")


def find_run(args: Namespace) -> str | None:
    """-> the newest run folder of this launch."""
    runs = Path(args.run).parent if args.run else Path("runs")
    for path in sorted(runs.glob("*/args.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            if json.loads(path.read_text("utf-8")).get("launch") == args.launch:
                return str(path.parent)
        except (OSError, ValueError):  # the folder was claimed, and the process died before it wrote the file
            continue
    return None


def distribute(model: nn.Module, args: Namespace, device: torch.device) -> nn.Module:
    """DDP keeps a whole model in each process and averages gradients (Li et al. 2020, "PyTorch Distributed"). FSDP2 keeps
    a share of every weight in each, and gathers a block's weights while that computes (Zhao et al. 2023, "PyTorch FSDP")."""
    if args.shard:
        mesh = init_device_mesh(device.type, (world(),))
        for block in model.features:
            fully_shard(block, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    return DistributedDataParallel(model, [device] if device.type == "cuda" else None)


def autocast(args: Namespace, device: torch.device):
    """bfloat16 for the operations that bear it; the weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if args.precision == "bf16" else nullcontext()


def train_one_epoch(model, prepare, loader, optimizer, scheduler, args) -> dict:
    """-> the epoch's mean loss and accuracy. Ends the program if the loss stops being a number.

    Gradients are averaged over the processes, whose shares of a batch may differ by a picture: each counts by its share.
    """
    model.train()
    sums = torch.zeros(3, device=loader.images.device)  # loss, correct, pictures: on the device, so that no step waits
    progress = tqdm(loader, desc=f"epoch {loader.epoch + 1}", leave=False, disable=None if rank() == 0 else True)
    for pixels, labels in progress:
        with autocast(args, pixels.device):
            logits = model(prepare(pixels))
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        (loss * (len(labels) * world() / loader.batch_size)).backward()
        optimizer.step()
        scheduler.step()
        correct = (logits.argmax(1) == labels).sum()
        sums += torch.stack([loss.detach() * len(labels), correct, torch.full_like(loss, len(labels)).detach()])
    result = mean_over_processes(sums, "train")
    if not math.isfinite(result["train_loss"]):
        where = f"in epoch {loader.epoch + 1}"
        fail(f"the loss is not finite {where}: try an --lr below {args.lr:g}. What is saved is untouched")
    return result


@torch.no_grad()
def evaluate(model, prepare, loader, args) -> dict:
    """-> mean loss and accuracy on validation data."""
    if world() > 1:  # each process has its own batch-norm statistics; the first one's are saved, so all use those
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
    model.eval()
    sums = torch.zeros(3, device=loader.images.device)
    for pixels, labels in loader:
        with autocast(args, pixels.device):
            logits = model(prepare(pixels)).float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([loss, (logits.argmax(1) == labels).sum(), torch.full_like(loss, len(labels))])
    return mean_over_processes(sums, "val")


def mean_over_processes(sums: Tensor, part: str) -> dict:
    if world() > 1:
        dist.all_reduce(sums)
    loss, correct, count = sums.tolist()
    return {f"{part}_loss": loss / count, f"{part}_accuracy": correct / count}


def restore(saved: dict | None, run: Path, args: Namespace, model, optimizer) -> dict:
    """-> what last.pt says of the run so far, with its states put back; of a run that saved nothing yet, the start."""
    if saved is None:
        return {"epoch": 0, "history": []}
    if saved["meta"]["arch"] != args.arch:
        fail(f"{run / 'last.pt'} holds a {saved['meta']['arch']}, not a {args.arch}")
    states = {"model_state_dict": saved["model"], "optim_state_dict": saved["optimizer"]}
    try:
        set_state_dict(model, optimizer, **states, options=WHOLE)
    except RuntimeError:
        fail(
            f"{run / 'last.pt'}: says {args.arch}, but the weights in it are of another network, "
            f"or of an older version of this code"
        )
    return {name: saved[name] for name in ("epoch", "history")}


def save(run: Path, args: Namespace, progress: dict, meta: dict, model, optimizer, is_best: bool) -> None:
    """Writes the run's files. last.pt comes last: a kill before it means this epoch is done again, to the same result."""
    weights, moments = get_state_dict(model, optimizer, options=WHOLE)  # all processes take part: each has a share
    if rank() > 0:
        return
    if is_best:
        utils.save_checkpoint(run / "best.pt", {"meta": meta, "model": weights, "epoch": progress["epoch"]})
    utils.write_metrics(progress["history"], run / "metrics.csv")
    utils.save_arguments(run, args)
    state = {"meta": meta, "model": weights, "optimizer": moments}
    utils.save_checkpoint(run / "last.pt", state | progress)


def report(row: dict, args: Namespace, seconds: float, pictures: int, events: utils.Events) -> None:
    """One aligned line an epoch, and the same numbers to TensorBoard."""
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "lr"))
    speed = f"{seconds:6.1f} s  {pictures / seconds:>7,.0f} pictures/s"
    say(f"epoch {row['epoch']:>3}/{args.epochs}  {numbers}  lr {row['lr']:.5f}  {speed}")
    events.add(row)


def read_data(args: Namespace, device: torch.device) -> tuple[datasets.Batches, datasets.Batches, dict, dict]:
    """-> batches to train and to validate on, which samples these are (split.json), and what a checkpoint says of itself."""
    data = datasets.load(args.data, args.image_size, limit=args.limit)
    args.data = data.name if args.data == "auto" else args.data
    train_split, val_split = data.splits["train"], data.splits["val"]
    train_loader = datasets.Batches(train_split, args.batch_size, device, shuffle=True, seed=args.seed)
    if train_loader.batch_size < world():
        fail(
            f"a batch of {train_loader.batch_size} for {world()} processes: each needs a picture or more of every batch"
        )
    split = {"data": args.data if data.own else data.name, "own": data.own, "test": data.test_samples}
    split |= {"train": train_split.samples, "val": val_split.samples}
    mean, std = datasets.statistics(train_split.images)
    meta = {"arch": args.arch, "classes": data.classes, "data": data.name, "mean": mean, "std": std}
    meta |= {"image_size": train_split.images.shape[-1], "own": data.own}
    return train_loader, datasets.Batches(val_split, 500, device), split, meta


def build(args: Namespace, meta: dict, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """-> the network, shared among the processes, and the preprocessing alone."""
    layout = torch.contiguous_format if args.shard else torch.channels_last  # the faster one, which FSDP2 does not take
    model = models.build(args.arch, len(meta["classes"])).to(device, memory_format=layout)
    prepare = models.Deployable(nn.Identity(), meta["mean"], meta["std"]).to(device)
    say(f"{args.arch}: {models.count_parameters(model):,} parameters, {len(meta['classes'])} classes of {meta['data']}")
    return distribute(model, args, device) if world() > 1 else model, prepare


def train(args: Namespace, device: torch.device) -> Path:
    """Trains as `args` say -> the run folder."""
    continue_after_restart(args)
    train_loader, val_loader, split, meta = read_data(args, device)
    utils.seed_everything(args.seed)
    model, prepare = build(args, meta, device)
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=args.weight_decay)
    steps, cycle = len(train_loader), {"pct_start": 0.3, "cycle_momentum": False}
    utils.one_cycle(
        optimizer, args.epochs * steps, **cycle
    )  # notes its rates in the optimizer: FSDP2 looks for them there
    run = utils.open_run(args, f"{args.arch}-{meta['data']}", split)
    progress = restore(utils.last_checkpoint(run, args), run, args, model, optimizer)
    if utils.is_finished(run, args, progress["epoch"]):
        return run
    scheduler = utils.one_cycle(optimizer, args.epochs * steps, progress["epoch"] * steps, **cycle)
    events = utils.Events(run, progress["history"])
    announce(run, args, device, len(train_loader.labels))
    compiled = torch.compile(model) if args.compile else model

    for epoch in range(progress["epoch"], args.epochs):
        utils.seed_everything(args.seed, epoch)
        train_loader.epoch = epoch
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        start = time.perf_counter()
        row |= train_one_epoch(compiled, prepare, train_loader, optimizer, scheduler, args)
        seconds = time.perf_counter() - start
        row |= evaluate(compiled, prepare, val_loader, args)

        is_best = all(quality(row) > quality(earlier) for earlier in progress["history"])
        progress["history"].append(row)
        progress["epoch"] = epoch + 1
        save(run, args, progress, meta, model, optimizer, is_best)
        report(row, args, seconds, len(train_loader) * train_loader.batch_size, events)

    events.close()
    conclude(run, progress["history"])
    return run


def announce(run: Path, args: Namespace, device: torch.device, pictures: int) -> None:
    how = "alone" if world() == 1 else f"{world()} processes, {'FSDP2' if args.shard else 'DDP'}"
    say(f"{pictures:,} training pictures; {device}, {args.precision}, {how}; torch {torch.__version__}; {run}")


def quality(row: dict) -> tuple[float, float]:
    """Of two epochs the better one has the higher accuracy, or the same (on few pictures often) and the lower loss."""
    return row["val_accuracy"], -row["val_loss"]


def conclude(run: Path, history: list[dict]) -> None:
    if rank() == 0:
        utils.draw_curves(history, run / "curves.png")
        best = max(history, key=quality)
        say(f"val_accuracy {best['val_accuracy']:.4f} in epoch {best['epoch']}")
        say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
        say(f"now: python test.py --run {utils.quoted(run)}")


def main(argv=None) -> None:
    with utils.processes():
        args = parse(argv)
        device = utils.pick_device(args.device)
        utils.keep_freed_memory()
        train(args, device)


if __name__ == "__main__":
    utils.start(main, "stopped; `python train.py --resume RUN` goes on after the last finished epoch")
