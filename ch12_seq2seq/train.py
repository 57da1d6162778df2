"""Trains a translator: the English-Chinese pairs of the Tatoeba project, your own pairs, or the built-in sample.

    python train.py                                    # cmn-eng, or the sample without internet access
    python train.py --arch transformer --data cmn-eng  # another network than the course's
    torchrun --nproc-per-node 2 -- train.py            # the same on two processes

Writes a run folder (runs/ARCH-DATA): args.json, metrics.csv, curves.png, TensorBoard events, last.pt, best.pt.
`python test.py` then measures the newest run on the test split. The README says what to expect.
"""

import math
import time
from argparse import Namespace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import bench
import datasets
import models
import utils
from datasets import Codec, TokenBatches
from losses import cross_entropy, smoothed
from metrics import bleu, exact
from options import fill_in_recipe, parse
from prepare import autocast, load_data, make_model, make_optimizer, sizes_of
from search import as_text, translate
from text import PAD
from utils import fail, rank, say, world


def free_running(model: nn.Module, source: Tensor, tokens: Tensor) -> Tensor:
    """Logits (N, T, V) as when translating: after the first token, each input is the network's own last answer."""
    state, token, logits = model.encode(source), tokens[:, :1], []
    for _ in range(tokens.shape[1]):
        step, state = model.decode(token, state)
        logits.append(step)
        token = step.argmax(2).detach()
    return torch.cat(logits, 1)


class Learner(nn.Module):
    """What DistributedDataParallel wraps: (source, tokens, teacher) -> logits, so that both ways go through its forward."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, source: Tensor, tokens: Tensor, teacher: bool = True) -> Tensor:
        return self.model(source, tokens) if teacher else free_running(self.model, source, tokens)


def learning_rate(args: Namespace, progress: float) -> float:
    """The rate when the share `progress` of the training is done: up in a line to --lr, then down in a line to 0."""
    return args.lr * min(progress / args.warmup if args.warmup else 1.0, (1 - progress) / (1 - args.warmup))


def train_one_epoch(learner: nn.Module, batches: TokenBatches, optimizer, args: Namespace) -> dict:
    """-> the epoch's mean loss a token. Ends the program if the loss stops being a number."""
    learner.train()
    device = batches.source.device
    sums = torch.zeros(2, device=device)  # loss, tokens: on the device, so that no step waits for a number
    begin, end = args.teacher_forcing[0], args.teacher_forcing[-1]
    forced = begin + (end - begin) * batches.epoch / max(1, args.epochs - 1)
    coins = torch.Generator().manual_seed(args.seed * 100_003 + batches.epoch)  # the same in all processes
    progress = tqdm(batches, desc=f"epoch {batches.epoch + 1}", leave=False, disable=None if rank() == 0 else True)
    for step, (source, target, tokens) in enumerate(progress):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args, (batches.epoch + (step + 1) / (len(batches.batches) + 1)) / args.epochs)
        teacher = bool(torch.rand((), generator=coins) < forced)
        with autocast(args, device):
            logits = learner(source, target[:, :-1], teacher)
        loss, shown = smoothed(logits, target[:, 1:], args.label_smoothing)
        optimizer.zero_grad()
        (loss * (world() / tokens)).backward()  # a mean over the tokens of all processes, whose gradients are averaged
        nn.utils.clip_grad_norm_(learner.parameters(), args.clip)
        optimizer.step()
        sums += torch.stack([shown, (target[:, 1:] != PAD).sum()])
        looked_at = step % 50 == 49 or step == len(batches.batches) - 1  # looking at a number makes the device wait
        if looked_at and not math.isfinite(sums[0].item()):
            fail(
                f"the loss is not finite in epoch {batches.epoch + 1}, step {step + 1}: try an --lr below {args.lr:g}. "
                f"What the run folder has of earlier epochs is untouched"
            )
    if world() > 1:
        dist.all_reduce(sums)
    loss, tokens = sums.tolist()
    return {"train_loss": loss / tokens, "tokens": int(tokens)}


@torch.no_grad()
def evaluate(model: nn.Module, batches: TokenBatches, codec: Codec, pairs: list, args: Namespace) -> dict:
    """-> loss and perplexity a token on validation pairs, the greedy translations' BLEU, and the share that is exactly right.

    The perplexity is that of the right sentence, without label smoothing; BLEU is over all translations of a source.
    """
    model.eval()
    device = batches.source.device
    sums = torch.zeros(2, device=device)  # loss, tokens
    for source, target, _ in batches:
        with autocast(args, device):
            logits = model(source, target[:, :-1])
        sums += torch.stack([cross_entropy(logits, target[:, 1:]), (target[:, 1:] != PAD).sum()])
    if world() > 1:
        dist.all_reduce(sums)
    loss = float(sums[0] / sums[1])
    references = datasets.by_source(pairs)
    answers = as_text(codec, translate(model, codec, list(references), device))
    scores = {
        "val_bleu": bleu(answers, list(references.values()), codec.target.rules.language)[0],
        "val_exact": exact(answers, list(references.values())),
    }
    return {"val_loss": loss, "val_perplexity": math.exp(min(loss, 80.0))} | scores


def restore(saved: dict | None, run: Path, meta: dict, model, optimizer) -> dict:
    """-> what last.pt says of the run so far, with its states put back; of a run that saved nothing yet, the start."""
    if saved is None:
        return {"epoch": 0, "history": [], "best": [-1.0, 0.0], "seconds": 0.0}
    for name, what in (("arch", "{}"), ("sizes", "network of sizes {}")):
        if saved["meta"][name] != meta[name]:
            fail(f"{run / 'last.pt'} holds a {what.format(saved['meta'][name])}, not a {what.format(meta[name])}")
    if any(saved["meta"][name] != meta[name] for name in ("source", "target")):
        fail(f"{run / 'last.pt'} was trained with another vocabulary; has the data changed?")
    utils.load_state(model, saved["model"], run / "last.pt", meta["arch"])
    utils.load_state(optimizer, saved["optimizer"], run / "last.pt", meta["arch"])
    return {name: saved[name] for name in ("epoch", "history", "best", "seconds")}


def save(run: Path, args: Namespace, progress: dict, meta: dict, model, optimizer, is_best: bool) -> None:
    """Writes the run's files. last.pt comes last: a kill before it means this epoch is done again, to the same result."""
    if rank() > 0:
        return
    weights = model.state_dict()
    if is_best:
        utils.save_checkpoint(run / "best.pt", {"meta": meta, "model": weights, "epoch": progress["epoch"]})
    utils.write_metrics(progress["history"], run / "metrics.csv")
    utils.save_arguments(run, args)
    utils.save_checkpoint(
        run / "last.pt", {"meta": meta, "model": weights, "optimizer": optimizer.state_dict()} | progress
    )


def announce(
    args: Namespace, data: datasets.Data, codec: Codec, model: nn.Module, run: Path, batches: TokenBatches
) -> None:
    """What will be trained on what, in a few lines."""
    pairs = f"{len(data.splits['train']):,} training pairs, {len(data.splits['val']):,} validation pairs"
    words = f"a vocabulary of {len(codec.source):,} source and {len(codec.target):,} target tokens"
    say(f"{args.arch} ({models.count_parameters(model):,} parameters) on {data.name}: {pairs}; {words}")
    for why, count in data.left_out.items():
        say(f"left out {count:,} pairs or lines: {why}")
    steps = len(batches.composition())
    say(
        f"{args.epochs} epochs of {steps} steps, about {args.batch_size:,} target tokens each: {args.epochs * steps:,} steps"
    )
    where = f"{batches.source.device}, {args.precision}, {world()} process{'es' * (world() > 1)}"
    say(f"{where}; torch {torch.__version__}; run {run}")


def finish(run: Path, args: Namespace, progress: dict) -> None:
    """The run's curves, and its result in three lines."""
    utils.draw_curves(progress["history"], run / "curves.png")
    row = progress["history"][utils.load_checkpoint(run / "best.pt")["epoch"] - 1]
    say(
        f"{args.arch} on {args.data}: val_bleu {row['val_bleu']:.2f} (greedy), val_perplexity {row['val_perplexity']:.2f} "
        f"in epoch {row['epoch']}; {progress['seconds']:.0f} s of training"
    )
    say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
    say(f"now: python test.py --run {utils.quoted(run)}")


def note(progress: dict, row: dict, seconds: float, args: Namespace) -> bool:
    """Adds a finished epoch to the run's progress -> whether it is the best so far."""
    if not math.isfinite(row["val_loss"]):
        fail(f"the validation loss is not finite in epoch {row['epoch']}: try an --lr below {args.lr:g}")
    score = [row["val_bleu"], -row["val_loss"]]  # of two epochs that score alike, the surer one
    is_best = score > progress["best"]
    progress["history"].append(row)
    best = max(score, progress["best"])
    progress |= {"epoch": row["epoch"], "best": best, "seconds": progress["seconds"] + seconds}
    return is_best


def report(row: dict, args: Namespace, seconds: float, tokens: int, events: utils.Events) -> None:
    """One aligned line an epoch, and the same numbers to TensorBoard."""
    numbers = "  ".join(f"{name} {row[name]:.3f}" for name in row if name not in ("epoch", "lr", "val_loss"))
    speed = f"{seconds:6.1f} s  {tokens / seconds:>7,.0f} tokens/s"
    say(f"epoch {row['epoch']:>3}/{args.epochs}  {numbers}  lr {row['lr']:.5f}  {speed}")
    events.add(row, tokens_per_second=tokens / seconds)


def train(args: Namespace, device: torch.device) -> Path:
    """Trains as `args` say -> the run folder."""
    data, codec = load_data(args)
    batches = TokenBatches(data.splits["train"], codec, 0, device, args.seed)
    fill_in_recipe(args, data.name, batches)
    val = data.splits["val"]
    val_batches = TokenBatches(val, codec, args.batch_size, device)
    meta = {"arch": args.arch, "sizes": sizes_of(args), "data": data.name, "reverse": args.reverse}
    meta |= {"sha256": data.sha256, "split": args.split} | codec.metadata()

    utils.seed_everything(args.seed)
    model = make_model(args, codec, device)
    optimizer = make_optimizer(model, args)
    run = utils.open_run(args, f"{args.arch}-{data.name}", datasets.describe_split(data, args.data))
    progress = restore(utils.last_checkpoint(run, args), run, meta, model, optimizer)
    if utils.is_finished(run, args, progress["epoch"]):
        return run

    announce(args, data, codec, model, run, batches)
    learner = Learner(model)
    learner = DistributedDataParallel(learner, [device] if device.type == "cuda" else None) if world() > 1 else learner
    learner = torch.compile(learner, dynamic=True) if args.compile else learner
    events = utils.Events(run, progress["history"])

    for epoch in range(progress["epoch"], args.epochs):
        utils.seed_everything(args.seed, epoch)
        batches.epoch = epoch
        start = time.perf_counter()
        row = {"epoch": epoch + 1} | train_one_epoch(learner, batches, optimizer, args)
        seconds, tokens = time.perf_counter() - start, row.pop("tokens")
        row |= {"lr": optimizer.param_groups[0]["lr"]} | evaluate(model, val_batches, codec, val, args)
        is_best = note(progress, row, seconds, args)
        save(run, args, progress, meta, model, optimizer, is_best)
        report(row, args, seconds, tokens, events)

    events.close()
    if rank() == 0:
        finish(run, args, progress)
    return run


def main(argv=None) -> None:
    with utils.processes():
        args = parse(__doc__, argv)
        device = utils.pick_device(args.device)
        args.precision = utils.pick_precision(args.precision, device)
        utils.keep_freed_memory()
        if args.bench:
            bench.run(args, device)
        else:
            train(args, device)


if __name__ == "__main__":
    utils.start(main, "stopped; `python train.py --resume RUN` goes on after the last finished epoch")
