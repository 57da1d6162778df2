"""Trains the classifier, on one process or on many, and goes on by itself when one of them dies.

    python train.py                                                       # the built-in sample: 97 % and more
    torchrun --standalone --nproc-per-node 2 --max-restarts 3 -- train.py            # DDP: a whole model a process
    torchrun --standalone --nproc-per-node 2 --max-restarts 3 -- train.py --shard    # FSDP2: a share of it a process

Writes a run folder (runs/ARCH-DATA): args.json, metrics.csv, curves.png, TensorBoard events, last.pt, best.pt. When a process
dies, torchrun ends the others and starts all again; they find the run that they had begun and go on after its last finished
epoch, to the same result, bit for bit. `python test.py` then measures the newest run on the test split.
"""

import argparse
import json
import math
import os
import time
from argparse import Namespace
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from tensorboardX import SummaryWriter
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import datasets
import models
import utils
from utils import fail, rank, say, world

# checkpoints hold whole tensors, however the processes share them
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def parse(argv=None) -> Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group("data and network")
    data.add_argument("--data", default="auto", help=datasets.DATA_HELP)
    data.add_argument("--image-size", type=int, metavar="N", help="side in pixels (default: 32)")
    data.add_argument("--limit", type=int, metavar="N", help="use only N training pictures")
    data.add_argument("--arch", default="resnet10", help=f"one of {', '.join(models.MODELS)} (default: %(default)s)")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--epochs", type=int, default=12, help="default: %(default)s")
    recipe.add_argument("--batch-size", type=int, default=64, help="of all processes together (default: %(default)s)")
    recipe.add_argument("--lr", type=float, default=3e-3, help="the highest of the schedule (default: %(default)s)")
    recipe.add_argument("--weight-decay", type=float, default=0.02, help="default: %(default)s")
    utils.add_common_flags(parser)
    parser.add_argument("--shard", action="store_true", help="FSDP2: each process keeps a share of every weight")
    args = utils.parse_args(parser, argv)
    for name in ("epochs", "batch_size", "lr", "limit", "image_size"):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            fail(f"--{name.replace('_', '-')} {getattr(args, name)}: must be above 0")
    if args.shard and world() == 1:
        fail("--shard divides the weights among processes: start them with torchrun --nproc-per-node 2 -- train.py ...")
    if args.quick:
        args.limit, args.epochs = args.limit or 256, min(args.epochs, 1)
    return args


def continue_after_restart(args: Namespace) -> None:
    """When torchrun has started all processes again because one died: go on with the run that this launch had begun."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) and not args.resume:
        runs = Path(args.run).parent if args.run else Path("runs")
        for path in sorted(runs.glob("*/args.json"), key=lambda path: path.stat().st_mtime, reverse=True):
            if json.loads(path.read_text("utf-8")).get("launch") == os.environ.get("TORCHELASTIC_RUN_ID"):
                args.run = args.resume = str(path.parent)
                return say(f"a process died: all start again, and go on with {args.run}")


@contextmanager
def processes(device: torch.device):
    """Joins the processes that torchrun started (NCCL on CUDA, else gloo), each start of them under names of its own: its store
    of addresses outlives them, and after a restart they might look for each other where those that died had been."""
    if world() == 1:
        yield
        return
    store, number, count = next(rendezvous("env://"))
    store = dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()


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
    """-> the epoch's mean loss and accuracy. Ends the program if the loss stops being a number."""
    model.train()
    sums = torch.zeros(3, device=loader.images.device)  # loss, correct, pictures: on the device, so that no step waits
    progress = tqdm(loader, desc=f"epoch {loader.epoch + 1}", leave=False, disable=None if rank() == 0 else True)
    for pixels, labels in progress:
        with autocast(args, pixels.device):
            logits = model(prepare(pixels))
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
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


def restore(run: Path, args: Namespace, model, optimizer, scheduler) -> dict:
    """-> what last.pt says of the run so far, with its states put back; of a run that saved nothing yet, the start."""
    if not args.resume or not (run / "last.pt").exists():
        return {"epoch": 0, "history": [], "best": -1.0}
    saved = utils.load_checkpoint(run / "last.pt")
    if saved["meta"]["arch"] != args.arch:
        fail(f"{run / 'last.pt'} holds a {saved['meta']['arch']}, not a {args.arch}")
    set_state_dict(
        model, optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"], options=WHOLE
    )
    scheduler.load_state_dict(saved["scheduler"])
    return {name: saved[name] for name in ("epoch", "history", "best")}


def save(run: Path, progress: dict, meta: dict, model, optimizer, scheduler, is_best: bool) -> None:
    """Writes the run's files. last.pt comes last: a kill before it means this epoch is done again, to the same result."""
    weights, moments = get_state_dict(model, optimizer, options=WHOLE)  # all processes take part: each has a share
    if rank() > 0:
        return
    if is_best:
        utils.save_checkpoint(run / "best.pt", {"meta": meta, "model": weights, "epoch": progress["epoch"]})
    utils.write_metrics(progress["history"], run / "metrics.csv")
    state = {"meta": meta, "model": weights, "optimizer": moments, "scheduler": scheduler.state_dict()}
    utils.save_checkpoint(run / "last.pt", state | progress)


def report(row: dict, args: Namespace, seconds: float, pictures: int, writer: SummaryWriter | None) -> None:
    """One aligned line an epoch, and the same numbers to TensorBoard."""
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "lr"))
    speed = f"{seconds:6.1f} s  {pictures / seconds:>7,.0f} pictures/s"
    say(f"epoch {row['epoch']:>3}/{args.epochs}  {numbers}  lr {row['lr']:.5f}  {speed}")
    for name, value in row.items() if writer else ():
        writer.add_scalar(name, value, row["epoch"])


def start_writer(run: Path, args: Namespace, history: list[dict]) -> SummaryWriter | None:
    """The first process keeps the arguments and writes TensorBoard events; those lost by a kill are written again."""
    if rank() > 0:
        return None
    launch = os.environ.get("TORCHELASTIC_RUN_ID")
    utils.write_atomic(run / "args.json", json.dumps(vars(args) | {"resume": None, "launch": launch}, indent=1))
    writer = SummaryWriter(str(run), purge_step=1 if history else None)
    for row in history:
        for name, value in row.items():
            writer.add_scalar(name, value, row["epoch"])
    return writer


def train(args: Namespace, device: torch.device) -> Path:
    """Trains as `args` say -> the run folder."""
    continue_after_restart(args)
    data = datasets.load(args.data, args.image_size, limit=args.limit)
    args.data = data.name if args.data == "auto" else args.data
    train_split, val_split = data.splits["train"], data.splits["val"]
    train_loader = datasets.Batches(train_split, args.batch_size, device, shuffle=True, seed=args.seed)
    val_loader = datasets.Batches(val_split, 500, device)
    run = Path(args.run) if args.resume else utils.new_run(args.run, f"{args.arch}-{data.name}")
    utils.seed_everything(args.seed)
    mean, std = datasets.statistics(train_split.images)
    meta = {"arch": args.arch, "classes": data.classes, "data": data.name, "mean": mean, "std": std}
    meta["image_size"] = train_split.images.shape[-1]

    layout = torch.contiguous_format if args.shard else torch.channels_last  # the faster one, which FSDP2 does not take
    model = models.build(args.arch, len(data.classes)).to(device, memory_format=layout)
    prepare = models.Deployable(nn.Identity(), mean, std).to(device)  # the preprocessing alone
    parameters = models.count_parameters(model)
    model = distribute(model, args, device) if world() > 1 else model
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=args.weight_decay)
    steps = args.epochs * len(train_loader)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, steps, cycle_momentum=False)
    progress = restore(run, args, model, optimizer, scheduler)
    writer = start_writer(run, args, progress["history"])  # after restore(), which may refuse: then args.json stays
    say(f"{args.arch} ({parameters:,} parameters) on {data.name}: {len(train_split):,} training pictures")
    how = "alone" if world() == 1 else f"{world()} processes, {'FSDP2' if args.shard else 'DDP'}"
    say(f"{device}, {args.precision}, {how}; torch {torch.__version__}; run {run}")
    compiled = torch.compile(model) if args.compile else model

    for epoch in range(progress["epoch"], args.epochs):
        utils.seed_everything(args.seed, epoch)
        train_loader.epoch = epoch
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        start = time.perf_counter()
        row |= train_one_epoch(compiled, prepare, train_loader, optimizer, scheduler, args)
        seconds = time.perf_counter() - start
        row |= evaluate(compiled, prepare, val_loader, args)

        is_best = row["val_accuracy"] > progress["best"]
        progress["history"].append(row)
        progress |= {"epoch": epoch + 1, "best": max(row["val_accuracy"], progress["best"])}
        save(run, progress, meta, model, optimizer, scheduler, is_best)
        report(row, args, seconds, len(train_loader) * train_loader.batch_size, writer)

    if writer:
        writer.close()
        utils.draw_curves(progress["history"], run / "curves.png")
        best = max(progress["history"], key=lambda row: row["val_accuracy"])
        say(f"{args.arch} on {data.name}: val_accuracy {best['val_accuracy']:.4f} in epoch {best['epoch']}")
        say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
        say(f"now: python test.py --run {run}")
    return run


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    utils.keep_freed_memory()
    with processes(device):
        train(args, device)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("stopped; `python train.py --resume RUN` goes on after the last finished epoch")
