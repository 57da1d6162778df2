"""Trains an image classifier: CIFAR-10, your own folder of pictures, or the built-in sample.

    python train.py --arch mobilenet                         # CIFAR-10, or the sample without internet access
    python train.py --arch resnet18 --data cifar10 --precision auto
    torchrun --nproc-per-node 2 -- train.py --arch resnet    # the same on two processes

Writes a run folder (runs/ARCH-DATA): args.json, metrics.csv, curves.png, TensorBoard events, last.pt, best.pt.
`python test.py` then measures the newest run on the test split. The README says what to expect.
"""

import copy
import math
import time
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.utils import make_grid
from tqdm import tqdm

import bench
import datasets
import models
import utils
from augment import Augment, mixup
from optimizers import make_optimizer, make_scheduler
from options import SIZES, SMALL_FIRST, fill_in_recipe, parse
from utils import fail, rank, say, world


def autocast(precision: str, device: torch.device):
    """bfloat16 for the operations that bear it; the weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def train_one_epoch(model, normalize, loader, optimizer, scheduler, args, size: int | None, class_weights) -> dict:
    """-> the epoch's mean loss and accuracy. Ends the program if the loss stops being a number."""
    model.train()
    sums = torch.zeros(3, device=normalize.mean.device)  # loss, correct, pictures: on the device, so that no step waits
    progress = tqdm(loader, desc=f"epoch {loader.epoch + 1}", leave=False, disable=None if rank() == 0 else True)
    for step, (pixels, labels) in enumerate(progress):
        images = normalize(pixels)
        if size:
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        if args.mixup:
            images, other, share = mixup(images, args.mixup)
        with autocast(args.precision, images.device):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels, class_weights, label_smoothing=args.label_smoothing)
        if args.mixup:
            of_other = F.cross_entropy(
                logits.float(), labels[other], class_weights, label_smoothing=args.label_smoothing
            )
            loss = share * loss + (1 - share) * of_other
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        correct = (logits.argmax(1) == labels).sum()
        sums += torch.stack([loss.detach() * len(labels), correct, torch.full_like(loss, len(labels)).detach()])
        looked_at = step % 50 == 49 or step == len(loader) - 1  # looking at a number makes the device wait
        if looked_at and not math.isfinite(sums[0].item()):
            fail(
                f"the loss is not finite in epoch {loader.epoch + 1}, step {step + 1}: try an --lr below {args.lr:g}. "
                f"What the run folder has of earlier epochs is untouched"
            )
    return mean_over_processes(sums, "train")


@torch.no_grad()
def evaluate(model, normalize, loader, precision: str) -> dict:
    """-> mean loss and accuracy on validation data."""
    if world() > 1:
        # DistributedDataParallel gives all processes the first one's batch-norm statistics before each training step; each then
        # adds its own share of the batch. The first one's are saved, so all validate with those; and without the wrapper, whose
        # exchange would wait for a process that has no validation picture.
        model = utils.unwrap(model)
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
    model.eval()
    sums = torch.zeros(3, device=normalize.mean.device)
    for pixels, labels in loader:
        with autocast(precision, pixels.device):
            logits = model(normalize(pixels)).float()
        correct = (logits.argmax(1) == labels).sum()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([loss, correct, torch.full_like(loss, len(labels))])
    return mean_over_processes(sums, "val")


def mean_over_processes(sums: Tensor, part: str) -> dict:
    if world() > 1:
        dist.all_reduce(sums)
    loss, correct, count = sums.tolist()
    return {f"{part}_loss": loss / count, f"{part}_accuracy": correct / count}


def load_data(args: Namespace) -> tuple[datasets.Data, dict]:
    """The training and the validation data, as --no-val and --limit want them, and which samples they are (split.json)."""
    data = datasets.load(
        args.data, args.data_root, args.image_size, files_only=args.loader == "files", limit=args.limit
    )
    if args.loader == "files" and not data.files:
        fail(f"--loader files reads a folder of pictures; `datasets.py --data {data.name} --export DIR` makes one")
    parts = data.files if args.loader == "files" else data.splits
    split = {
        "data": args.data if data.own else data.name,
        "own": data.own,
        "test": datasets.samples_of(data.files.get("test", [])),
    }
    if args.no_val:
        parts["train"] = parts["train"] + parts["val"]
    if args.limit and args.limit < len(parts["train"]):
        order = torch.randperm(len(parts["train"]), generator=torch.Generator().manual_seed(args.seed))
        split["unused"] = datasets.samples_of(datasets.select(parts["train"], order[args.limit :]))
        parts["train"] = datasets.select(parts["train"], order[: args.limit])
    split["train"] = datasets.samples_of(parts["train"])
    split["val"] = {} if args.no_val else datasets.samples_of(parts["val"])
    return data, split


def labels_of(data: datasets.Data, args: Namespace) -> Tensor:
    """The class numbers of the training pictures (N,)."""
    if args.loader == "files":
        return torch.tensor([item.label for item in data.files["train"]])
    return data.splits["train"].labels


def make_loaders(data: datasets.Data, args: Namespace, device: torch.device) -> tuple:
    """-> the training and the validation loader, and the mean and standard deviation of the training pixels."""
    augment = Augment(args.crop, not args.no_flip, args.cutout, args.colour)
    if args.loader == "files":
        size, files = args.image_size or 64, data.files
        train = datasets.FileLoader(files["train"], size, args.batch_size, device, augment, args.workers, args.seed)
        val = datasets.FileLoader(files["val"], size, args.batch_size, device, None, args.workers)
        images, _ = datasets.read_files("train", files["train"][:: max(1, len(files["train"]) // 1000)], size)
        return train, val, *datasets.statistics(torch.stack(images))
    train = datasets.TensorLoader(data.splits["train"], args.batch_size, device, augment, args.seed)
    val = datasets.TensorLoader(data.splits["val"], 500, device)
    return train, val, *datasets.statistics(data.splits["train"].images)


def make_model(args: Namespace, num_classes: int, device: torch.device) -> nn.Module:
    """A fresh network, or one that starts from --weights, on the device. Channels last is how fast convolutions want it."""
    model = models.build(args.arch, num_classes, **({"pretrained": True} if args.pretrained else {}))
    if args.weights:
        state, meta = utils.load_weights(args.weights)
        own = model.state_dict()
        fits = {name: name in state and state[name].shape == own[name].shape for name in own}
        if meta.get("arch") != args.arch and not all(fit or name.startswith("head") for name, fit in fits.items()):
            fail(f"{args.weights} holds a {meta.get('arch', 'network of another kind')}, not a {args.arch}")
        state = {name: state[name] for name in own if name in state}  # tensors that it does not have are left out
        new = {name: own[name] for name, fit in fits.items() if not fit and name.startswith("head")}
        utils.load_state(model, state | new, args.weights, args.arch)
    return model.to(device, memory_format=torch.channels_last)


@torch.no_grad()
def try_out(model: nn.Module, images: Tensor, args: Namespace) -> None:
    """Ends the program with one line if the network cannot take pictures of this size, or as few of them."""
    try:
        copy.deepcopy(model).train()(images)
    except (RuntimeError, ValueError) as error:
        size = f"{images.shape[-1]} pixels in batches of {args.batch_size}"
        fail(f"--arch {args.arch} cannot take pictures of {size} ({str(error).splitlines()[0][:150]})")


def describe_classes(classes: list[str], labels: Tensor) -> str:
    """How many pictures each class has, and the accuracy of always answering the largest: the score to beat."""
    counts = labels.bincount(minlength=len(classes)).tolist()
    order = sorted(range(len(classes)), key=lambda i: -counts[i])
    named = utils.shortened([f"{classes[i]} {counts[i]:,}" for i in order], 12)
    always = f"always answering {classes[order[0]]} would be right {max(counts) / sum(counts):.1%} of the time"
    return f"{len(classes)} classes: {named}; {always}"


def wrap(model: nn.Module, compiled: bool, device: torch.device) -> nn.Module:
    if world() > 1:
        model = DistributedDataParallel(model, [device] if device.type == "cuda" else None)
    return torch.compile(model) if compiled else model


def restore(saved: dict | None, run: Path, args: Namespace, model, optimizer) -> dict:
    """-> what last.pt says of the run so far, with its states put back; of a run that saved nothing yet, the start."""
    if saved is None:
        return {"epoch": 0, "history": [], "seconds": 0.0, "waited": 0}
    if saved["meta"]["arch"] != args.arch:
        fail(f"{run / 'last.pt'} holds a {saved['meta']['arch']}, not a {args.arch}")
    utils.load_state(model, saved["model"], run / "last.pt", args.arch)
    utils.load_state(optimizer, saved["optimizer"], run / "last.pt", args.arch)
    return {name: saved[name] for name in ("epoch", "history", "seconds", "waited")}


def save(run: Path, args: Namespace, progress: dict, meta: dict, model, optimizer, is_best: bool) -> None:
    """Writes the run's files. last.pt comes last: a kill before it means this epoch is done again, to the same result."""
    if rank() > 0:
        return
    weights = {name: tensor.contiguous() for name, tensor in utils.unwrap(model).state_dict().items()}
    if is_best:
        utils.save_checkpoint(run / "best.pt", {"meta": meta, "model": weights, "epoch": progress["epoch"]})
    utils.write_metrics(progress["history"], run / "metrics.csv")
    utils.save_arguments(run, args)
    state = {"meta": meta, "model": weights, "optimizer": optimizer.state_dict()}
    utils.save_checkpoint(run / "last.pt", state | progress)


def report(row: dict, epochs: int, seconds: float, pictures: int, events: utils.Events) -> None:
    """One aligned line an epoch, and the same numbers to TensorBoard."""
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "lr"))
    speed = f"{seconds:6.1f} s  {pictures / seconds:>7,.0f} pictures/s"
    say(f"epoch {row['epoch']:>3}/{epochs}  {numbers}  lr {row['lr']:.5f}  {speed}")
    events.add(row, pictures_per_second=pictures / seconds)


def finish(run: Path, args: Namespace, progress: dict) -> None:
    """The run's curves, and its result in two lines."""
    if rank() > 0:
        return
    utils.draw_curves(progress["history"], run / "curves.png")
    part = "train_accuracy" if args.no_val else "val_accuracy"
    row = max(progress["history"], key=quality)
    seconds = progress["seconds"]
    say(f"{args.arch} on {args.data}: {part} {row[part]:.4f} in epoch {row['epoch']}; {seconds:.0f} s of training")
    say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
    say(f"now: python test.py --run {utils.quoted(run)}")


def first_model(args: Namespace, data: datasets.Data, loader, normalize, device: torch.device) -> nn.Module:
    """The network with its first weights, drawn from --seed; ends the program if it cannot take these pictures."""
    utils.seed_everything(args.seed)
    model = make_model(args, len(data.classes), device)
    first = normalize(next(iter(loader))[0])
    try_out(model, first[:2], args)
    if args.arch == "fastnet" and not args.weights:
        model.whiten(first)
    return model


def introduce(run: Path, args: Namespace, data: datasets.Data, labels: Tensor, model, train_loader, val_loader) -> None:
    """What trains here, in three lines."""
    counts = f"{train_loader.pictures:,} training, {0 if args.no_val else val_loader.pictures:,} validation pictures"
    device = train_loader.device
    say(f"{args.arch} ({models.count_parameters(model):,} parameters) on {data.name}: {counts}")
    say(f"{describe_classes(data.classes, labels)}; {args.epochs} epochs of {len(train_loader)} steps")
    say(f"{device}, {args.precision}, {world()} process{'es' * (world() > 1)}; torch {torch.__version__}; run {run}")


def quality(row: dict) -> tuple[float, float]:
    """Of two epochs the better one has the higher accuracy, or the same (on few pictures often) and the lower loss. Without
    validation, the newest is the best."""
    return (row["val_accuracy"], -row["val_loss"]) if "val_accuracy" in row else (row["epoch"], 0.0)


def note(progress: dict, row: dict, seconds: float) -> bool:
    """Adds an epoch to what is known of the run -> whether it is the best so far."""
    is_best = all(quality(row) > quality(earlier) for earlier in progress["history"])
    progress["history"].append(row)
    progress |= {"epoch": row["epoch"], "seconds": progress["seconds"] + seconds}
    progress["waited"] = 0 if is_best else progress["waited"] + 1
    return is_best


def train(args: Namespace, device: torch.device) -> Path:
    """Trains as `args` say -> the run folder."""
    data, split = load_data(args)
    labels = labels_of(data, args)
    fill_in_recipe(args, data, args.image_size or (64 if data.own else 32), len(labels))
    train_loader, val_loader, mean, std = make_loaders(data, args, device)
    normalize = datasets.Normalize(mean, std).to(device)
    model = first_model(args, data, train_loader, normalize, device)
    optimizer = make_optimizer(model, args.optimizer, args.lr, args.weight_decay, args.precision)
    class_weights = models.balanced(labels, len(data.classes)).to(device) if args.balance else None
    run = utils.open_run(args, f"{args.arch}-{data.name}", split)
    progress = restore(utils.last_checkpoint(run, args), run, args, model, optimizer)
    if utils.is_finished(run, args, progress["epoch"], stopped=has_waited(progress, args)):
        return run
    scheduler = make_scheduler(optimizer, args.schedule, args.epochs, len(train_loader), progress["epoch"])
    meta = {"arch": args.arch, "classes": data.classes, "data": data.name, "mean": mean, "std": std}
    meta |= {"image_size": train_loader.image_size, "own": data.own}
    introduce(run, args, data, labels, model, train_loader, val_loader)
    model = wrap(model, args.compile, device)
    events = start_events(run, progress, train_loader)

    for epoch in range(progress["epoch"], args.epochs):
        utils.seed_everything(args.seed, epoch)
        train_loader.epoch, size = epoch, training_size(args, epoch, train_loader.image_size)
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        start = time.perf_counter()
        row |= train_one_epoch(model, normalize, train_loader, optimizer, scheduler, args, size, class_weights)
        seconds = time.perf_counter() - start
        if not args.no_val:
            row |= evaluate(model, normalize, val_loader, args.precision)
        is_best = note(progress, row, seconds)
        save(run, args, progress, meta, model, optimizer, is_best)
        report(row, args.epochs, seconds, len(train_loader) * train_loader.batch_size, events)
        if has_waited(progress, args):
            say(f"stopped: no better epoch in {args.patience}")
            break

    events.close()
    if rank() == 0:
        side, pictures = train_loader.image_size, len(train_loader) * train_loader.batch_size
        sizes = [training_size(args, epoch, side) or side for epoch in range(progress["epoch"])]
        operations = bench.operations(args.arch, len(data.classes), sizes, pictures)
        bench.report_work(args, operations, progress["seconds"], device)
    finish(run, args, progress)
    return run


def training_size(args: Namespace, epoch: int, image_size: int) -> int | None:
    """The side to which the pictures of this epoch are made smaller, or None: as they are, as are all below 32 pixels."""
    schedule = SMALL_FIRST if args.small_first else SIZES.get(args.arch, ())
    parts = [part for until, part in schedule if epoch < round(until * args.epochs)]
    return round(parts[0] * image_size) if parts and image_size >= 32 else None


def start_events(run: Path, progress: dict, loader) -> utils.Events:
    """TensorBoard's file; of a new run, with some training pictures as the network sees them."""
    events = utils.Events(run, progress["history"])
    if rank() == 0 and progress["epoch"] == 0:
        pixels = next(iter(loader))[0][:64].cpu()
        events.open().add_image("augmented_training_pictures", make_grid(pixels), 0)
    return events


def has_waited(progress: dict, args: Namespace) -> bool:
    return bool(args.patience) and progress["waited"] >= args.patience


def main(argv=None) -> None:
    with utils.processes():
        args = parse(__doc__, argv)
        device = utils.pick_device(args.device, same_sizes=True)
        args.precision = utils.pick_precision(args.precision, device)
        utils.keep_freed_memory()
        if args.bench:
            bench.run(args, device)
        else:
            train(args, device)


if __name__ == "__main__":
    utils.start(main, "stopped; `python train.py --resume RUN` goes on after the last finished epoch")
