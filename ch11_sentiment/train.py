"""Trains a sentiment classifier: weibo_senti_100k, your own table of texts, or the built-in sample.

    python train.py --arch textcnn                          # weibo_senti_100k, or the sample where there is no network
    python train.py --arch fasttext --emoticons strip       # without the emoticons that give the label away
    python train.py --data my.csv --tokenizer char          # any CSV, TSV or JSON lines with a text and a label column
    torchrun --nproc-per-node 2 -- train.py --arch bilstm   # on two processes

Writes a run folder (runs/ARCH-DATA): args.json, metrics.csv, curves.png, TensorBoard events, last.pt, best.pt.
`python test.py` then measures the newest run on the test split. The README says what to expect.
"""

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
from tqdm import tqdm

import bench
import datasets
import models
import text
import utils
from options import RECIPES, fill_in_recipe, parse
from utils import fail, rank, say, world


def autocast(args: Namespace, device: torch.device):
    """bfloat16 for the operations that bear it; the weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if args.precision == "bf16" else nullcontext()


def train_one_epoch(model, loader, optimizer, scheduler, args) -> dict:
    """-> the epoch's mean loss and accuracy. Ends the program if the loss stops being a number."""
    model.train()
    sums = torch.zeros(3, device=loader.device)  # loss, correct, texts: on the device, so that no step waits
    progress = tqdm(loader, desc=f"epoch {loader.epoch + 1}", leave=False, disable=None if rank() == 0 else True)
    for step, (ids, labels) in enumerate(progress):
        with autocast(args, loader.device):
            logits = model(ids)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=args.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # one odd text must not throw a recurrent network off
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
def evaluate(model, loader, args) -> dict:
    """-> mean loss and accuracy on validation texts."""
    model = utils.unwrap(model).eval()  # each process at its own pace
    sums = torch.zeros(3, device=loader.device)
    for ids, labels in loader:
        with autocast(args, loader.device):
            logits = model(ids).float()
        correct = (logits.argmax(1) == labels).sum()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([loss, correct, torch.full_like(loss, len(labels))])
    return mean_over_processes(sums, "val")


def mean_over_processes(sums: Tensor, part: str) -> dict:
    if world() > 1:
        dist.all_reduce(sums)
    loss, correct, count = sums.tolist()
    return {f"{part}_loss": loss / count, f"{part}_accuracy": correct / count}


def load_data(args: Namespace) -> tuple[datasets.Corpus, dict]:
    """-> the corpus, and what a checkpoint has to say of how texts become numbers: with --weights, as those have it."""
    meta = {"tokenizer": args.tokenizer or RECIPES[args.arch][0], "emoticons": args.emoticons}
    shared = utils.load_weights(args.weights)[1] if args.weights else {}
    if shared and shared.get("arch") != args.arch:
        fail(f"{args.weights} holds a {shared.get('arch', 'network of another kind')}, not a {args.arch}")
    meta |= {name: shared[name] for name in meta if shared}
    columns = {"text_column": args.text_column, "label_column": args.label_column}
    corpus = datasets.load(args.data, args.data_root, **meta, cache=args.cache, workers=args.workers, **columns)
    fill_in_recipe(args, corpus.name, len(corpus.classes))
    datasets.limit_training(corpus, args.limit, args.seed)
    meta |= {"arch": args.arch, "data": corpus.name, "classes": corpus.classes, "max_length": args.max_length}
    meta["sizes"] = {"dim": args.dim, "hidden": args.hidden}
    if args.arch == "fasttext":
        meta["sizes"]["longest"] = args.longest
    if shared:
        return corpus, meta | {name: shared[name] for name in ("vocabulary", "stop_words", "sizes", "max_length")}
    stop_words = datasets.load_stop_words(args.stop_words, args.data_root)
    counts = datasets.count_tokens(corpus, stop_words)
    vocabulary = text.build_vocabulary(counts, args.max_words, args.min_count)
    return corpus, meta | {"vocabulary": vocabulary, "stop_words": stop_words}


def make_model(args: Namespace, meta: dict, device: torch.device) -> nn.Module:
    """A fresh network, or one that starts from --weights (its head afresh, if the classes are others), on the device."""
    dropouts = {"dropout": args.dropout, "word_dropout": args.word_dropout}
    model = models.build(args.arch, len(meta["vocabulary"]), len(meta["classes"]), **meta["sizes"], **dropouts)
    if args.weights:
        own, (state, shared) = model.state_dict(), utils.load_weights(args.weights)
        keep_head = shared["classes"] == meta["classes"]
        state = {name: state[name] for name in own if name in state and (keep_head or not name.startswith("head"))}
        try:
            model.load_state_dict(own | state)
        except RuntimeError:
            fail(f"{args.weights}: says {args.arch}, but the weights in it are of another network")
    return model.to(device)


def wrap(model: nn.Module, args: Namespace, device: torch.device) -> nn.Module:
    if world() > 1:
        model = DistributedDataParallel(model, [device] if device.type == "cuda" else None)
    return torch.compile(model, dynamic=True) if args.compile else model


def restore(saved: dict | None, run: Path, args: Namespace, meta: dict, model, optimizer) -> dict:
    """-> what last.pt says of the run so far, with its states put back; of a run that saved nothing yet, the start."""
    if saved is None:
        return {"epoch": 0, "history": [], "best": -1.0, "seconds": 0.0}
    if saved["meta"]["arch"] != args.arch:
        fail(f"{run / 'last.pt'} holds a {saved['meta']['arch']}, not a {args.arch}")
    changed = [name for name in meta if saved["meta"].get(name) != meta[name]]
    if changed:  # its numbers would stand for other words now
        fail(
            f"{run / 'last.pt'}: {', '.join(changed)} differ from what {args.data} gives now; the data or flags changed"
        )
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return {name: saved[name] for name in ("epoch", "history", "best", "seconds")}


def save(run: Path, args: Namespace, progress: dict, meta: dict, model, optimizer, is_best: bool) -> None:
    """Writes the run's files. last.pt comes last: a kill before it means this epoch is done again, to the same result."""
    if rank() > 0:
        return
    weights = utils.unwrap(model).state_dict()
    if is_best:
        utils.save_checkpoint(run / "best.pt", {"meta": meta, "model": weights, "epoch": progress["epoch"]})
    utils.write_metrics(progress["history"], run / "metrics.csv")
    utils.save_arguments(run, args)
    state = {"meta": meta, "model": weights, "optimizer": optimizer.state_dict()}
    utils.save_checkpoint(run / "last.pt", state | progress)


def report(row: dict, args: Namespace, seconds: float, count: int, events: utils.Events) -> None:
    """One aligned line an epoch, and the same numbers to TensorBoard."""
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "lr"))
    speed = f"{seconds:6.1f} s  {count / seconds:>7,.0f} texts/s"
    say(f"epoch {row['epoch']:>3}/{args.epochs}  {numbers}  lr {row['lr']:.5f}  {speed}")
    events.add(row, texts_per_second=count / seconds)


def finish(run: Path, args: Namespace, progress: dict) -> None:
    """The run's curves, and its result in two lines."""
    utils.draw_curves(progress["history"], run / "curves.png")
    row, seconds = max(progress["history"], key=lambda row: row["val_accuracy"]), progress["seconds"]
    best = f"val_accuracy {row['val_accuracy']:.4f} in epoch {row['epoch']}"
    say(f"{args.arch} on {args.data}: {best}; {seconds:.0f} s of training")
    say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
    say(f"now: python test.py --run {run}")


def train(args: Namespace, device: torch.device) -> Path:
    """Trains as `args` say -> the run folder."""
    corpus, meta = load_data(args)
    numbering = (meta["vocabulary"], meta["max_length"], meta["stop_words"])
    training, validation = (datasets.encode(corpus, part, *numbering) for part in ("train", "val"))
    train_loader = datasets.BucketLoader(training, args.batch_size, device, train=True, seed=args.seed)
    val_loader = datasets.BucketLoader(validation, 500, device)
    default = f"{args.arch}-{corpus.name}" + "-strip" * (meta["emoticons"] == "strip")
    utils.seed_everything(args.seed)
    model = make_model(args, meta, device)
    if args.arch == "fasttext" and not args.weights:
        model.learn_runs(datasets.BucketLoader(training, 500, device, share=False))
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=args.weight_decay, fused=True)
    run = utils.open_run(args, default, corpus.split(args.data))
    progress = restore(utils.last_checkpoint(run, args), run, args, meta, model, optimizer)
    if utils.is_finished(run, args, progress["epoch"]):
        return run
    steps = len(train_loader)
    scheduler = utils.one_cycle(optimizer, args.epochs * steps, progress["epoch"] * steps)

    for note in corpus.notes:
        say(note)
    counts = f"{train_loader.texts:,} training, {val_loader.texts:,} validation texts"
    say(f"{args.arch} ({models.count_parameters(model):,} parameters) on {corpus.name}: {counts}")
    say(f"{len(meta['vocabulary']):,} words by {meta['tokenizer']}, emoticons: {meta['emoticons']}")
    say(f"{device}, {args.precision}, {world()} process{'es' * (world() > 1)}; torch {torch.__version__}; run {run}")
    model = wrap(model, args, device)
    events = utils.Events(run, progress["history"])

    for epoch in range(progress["epoch"], args.epochs):
        utils.seed_everything(args.seed, epoch)
        train_loader.epoch = epoch
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        start = time.perf_counter()
        row |= train_one_epoch(model, train_loader, optimizer, scheduler, args)
        seconds = time.perf_counter() - start
        row |= evaluate(model, val_loader, args)

        is_best = row["val_accuracy"] > progress["best"]
        progress["history"].append(row)
        best = max(row["val_accuracy"], progress["best"])
        progress |= {"epoch": epoch + 1, "best": best, "seconds": progress["seconds"] + seconds}
        save(run, args, progress, meta, model, optimizer, is_best)
        report(row, args, seconds, len(train_loader) * train_loader.batch_size, events)

    events.close()
    if rank() == 0:
        finish(run, args, progress)
    return run


def main(argv=None) -> None:
    with utils.processes():
        args = parse(__doc__, argv)
        device = utils.pick_device(args.device)
        utils.keep_freed_memory()
        if args.bench:
            bench.run(args, device, load_data, make_model)
        else:
            train(args, device)


if __name__ == "__main__":
    utils.start(main, "stopped; `python train.py --resume RUN` goes on after the last finished epoch")
