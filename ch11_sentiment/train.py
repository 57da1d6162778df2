"""Trains a sentiment classifier: weibo_senti_100k, your own table of texts, or the built-in sample.

    python train.py --arch textcnn                          # weibo_senti_100k, or the sample without internet access
    python train.py --arch fasttext --emoticons strip       # without the emoticons that give the label away
    python train.py --data my.csv --tokenizer char          # any table with a text and a label column
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
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import bench
import datasets
import models
import text
import utils
import vectors
from options import RECIPES, fill_in_recipe, parse
from scores import balance, hits, loss_of, scores_of
from utils import fail, rank, say, warn, world

FEW_TEXTS = 500  # in the validation part


def autocast(args: Namespace, device: torch.device):
    """bfloat16 for the operations that bear it; the weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if args.precision == "bf16" else nullcontext()


def train_one_epoch(model, loader, optimizer, scheduler, args, weight: Tensor | None = None) -> dict:
    """-> the epoch's mean loss and scores, as evaluate() counts them. Ends the program if the loss stops being a number."""
    model.train()
    sums = 0.0  # loss, texts, hits: on the device, so that no step waits
    progress = tqdm(loader, desc=f"epoch {loader.epoch + 1}", leave=False, disable=None if rank() == 0 else True)
    for step, (ids, labels, texts) in enumerate(progress):
        with autocast(args, loader.device):
            logits = model(ids)
        loss = loss_of(logits, labels, args.label_smoothing, weight)
        optimizer.zero_grad()
        (loss * (world() / texts)).backward()  # a mean over the texts of all processes, whose gradients are averaged
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # one odd text must not throw a recurrent network off
        optimizer.step()
        scheduler.step()
        sums = sums + tally(logits.detach(), labels)
        looked_at = step % 50 == 49 or step == len(loader) - 1  # looking at a number makes the device wait
        if looked_at and not math.isfinite(sums[0].item()):
            fail(
                f"the loss is not finite in epoch {loader.epoch + 1}, step {step + 1}: try an --lr below {args.lr:g}. "
                f"What the run folder has of earlier epochs is untouched"
            )
    return over_processes(sums, "train", loader)


@torch.no_grad()
def evaluate(model, loader, args) -> dict:
    """-> mean loss and scores on validation texts."""
    model = utils.unwrap(model).eval()  # each process at its own pace
    sums = torch.zeros(3 + 3 * loader.classes, device=loader.device)
    for ids, labels, _ in loader:
        with autocast(args, loader.device):
            logits = model(ids)
        sums += tally(logits, labels)
    return over_processes(sums, "val", loader)


def tally(logits: Tensor, labels: Tensor) -> Tensor:
    """The sums over a batch: loss (without smoothing and weights, so that training and validation compare), texts, hits."""
    logits = logits.float()
    return torch.cat([loss_of(logits, labels)[None], logits.new_full((1,), len(labels)), hits(logits, labels)])


def over_processes(sums: Tensor, part: str, loader) -> dict:
    if world() > 1:
        dist.all_reduce(sums)
    loss, texts = sums[:2].tolist()
    several = loader.split.labels.ndim == 2
    scores = scores_of(sums[2:], texts, several)
    if part == "train":
        scores.pop("macro_f1")
    return {f"{part}_loss": loss / texts} | {f"{part}_{name}": value for name, value in scores.items()}


def load_data(args: Namespace) -> tuple[datasets.Corpus, dict]:
    """-> the corpus, and what a checkpoint has to say of how texts become numbers: with --weights, as those have it."""
    meta = {"tokenizer": args.tokenizer or RECIPES[args.arch][0], "emoticons": args.emoticons}
    shared = utils.load_weights(args.weights)[1] if args.weights else {}
    if shared and shared.get("arch") != args.arch:
        fail(f"{args.weights} holds a {shared.get('arch', 'network of another kind')}, not a {args.arch}")
    meta |= {name: shared[name] for name in meta if shared}
    columns = {"text_column": args.text_column, "label_column": args.label_column}
    corpus = datasets.load(args.data, args.data_root, **meta, cache=args.cache, workers=args.workers, **columns)
    datasets.limit_training(corpus, args.limit, args.seed)
    if args.vectors and args.dim is None:
        args.dim = vectors.dimension(Path(args.vectors))
    fill_in_recipe(args, corpus)
    share = text.emoticon_share(corpus.raw)
    if args.arch == "fasttext" and meta["emoticons"] == "keep" and share > 0.2:
        warn(f"{share:.0%} of the texts have emoticons such as [泪], which --arch textcnn learns better than fasttext")
    meta |= {"arch": args.arch, "data": corpus.name, "classes": corpus.classes, "max_length": args.max_length}
    meta |= {"several": corpus.labels.ndim == 2, "labels": corpus.labelled()}
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
        utils.load_state(model, own | state, args.weights, args.arch)
    elif args.vectors and not (args.resume and (Path(args.resume) / "last.pt").exists()):
        model.start_from(vectors.read(Path(args.vectors), meta["vocabulary"], args.dim))
    return model.to(device)


def wrap(model: nn.Module, args: Namespace, device: torch.device) -> nn.Module:
    if world() > 1:
        model = DistributedDataParallel(model, [device] if device.type == "cuda" else None)
    return torch.compile(model, dynamic=True) if args.compile else model


def restore(saved: dict | None, run: Path, args: Namespace, meta: dict, model, optimizer) -> dict:
    """-> what last.pt says of the run so far, with its states put back; of a run that saved nothing yet, the start."""
    if saved is None:
        return {"epoch": 0, "history": [], "best": [-1.0, 0.0], "seconds": 0.0}
    if saved["meta"]["arch"] != args.arch:
        fail(f"{run / 'last.pt'} holds a {saved['meta']['arch']}, not a {args.arch}")
    changed = [name for name in meta if saved["meta"].get(name, meta[name]) != meta[name]]
    if changed:  # its numbers would stand for other words now
        fail(
            f"{run / 'last.pt'}: {', '.join(changed)} differ from what {args.data} gives now; the data or flags changed"
        )
    utils.load_state(model, saved["model"], run / "last.pt", args.arch)
    utils.load_state(optimizer, saved["optimizer"], run / "last.pt", args.arch)
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


def best_name(args: Namespace, meta: dict) -> str:
    """What the best epoch has most of."""
    return "val_macro_f1" if args.balance else "val_micro_f1" if meta["several"] else "val_accuracy"


def chance(score: float, texts: int) -> float:
    """How far a score falls short by chance alone where validation texts are few: its standard error. Of epochs that differ by
    less, the last counts, as the rate falls to 0 (the rule of one standard error, Breiman et al. 1984). With many texts: 0."""
    return math.sqrt(score * (1 - score) / texts) if texts < FEW_TEXTS else 0.0


def finish(run: Path, args: Namespace, progress: dict, name: str) -> None:
    """The run's curves, and its result in two lines."""
    utils.draw_curves(progress["history"], run / "curves.png")
    epoch, seconds = utils.load_checkpoint(run / "best.pt")["epoch"], progress["seconds"]
    row = progress["history"][epoch - 1]
    say(f"{args.arch} on {args.data}: {name} {row[name]:.4f} in epoch {row['epoch']}; {seconds:.0f} s of training")
    say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
    say(f"now: python test.py --run {utils.quoted(run)}")


def announce(args: Namespace, corpus: datasets.Corpus, meta: dict, model: nn.Module, loaders: tuple, run: Path) -> None:
    """What will be trained on what, and the score to beat: that of who always says the commonest class."""
    training, validation = loaders
    for note in corpus.notes:
        say(note)
    counts = f"{training.texts:,} training, {validation.texts:,} validation texts"
    say(f"{args.arch} ({models.count_parameters(model):,} parameters) on {corpus.name}: {counts}")
    found = corpus.counts("train")
    order = sorted(range(len(found)), key=lambda i: -found[i])
    shown = [f"{utils.cut(corpus.classes[i], 30)} {found[i]:,} ({found[i] / training.texts:.1%})" for i in order]
    say(f"classes: {utils.shortened(shown, 20)}")
    if not meta["several"]:
        share = corpus.counts("val")[order[0]] / validation.texts
        say(f"always to say {utils.cut(corpus.classes[order[0]], 30)} scores {share:.4f} on the validation texts")
    if missing := [corpus.classes[i] for i in order if not found[i]]:
        utils.warn(f"no training text has the class {utils.shortened(missing)}")
    say(f"{len(meta['vocabulary']):,} words by {meta['tokenizer']}, emoticons: {meta['emoticons']}")
    steps = f"{args.epochs} epochs of {len(training)} steps of {training.batch_size} texts"
    say(f"{steps}: {args.epochs * len(training):,} steps, up to {args.max_length} tokens of a text")
    where = f"{training.device}, {args.precision}, {world()} process{'es' * (world() > 1)}"
    say(f"{where}; torch {torch.__version__}; run {run}")


def make_loaders(args: Namespace, corpus: datasets.Corpus, meta: dict, device: torch.device) -> tuple:
    numbering = (meta["vocabulary"], meta["max_length"], meta["stop_words"])
    training, validation = (datasets.encode(corpus, part, *numbering) for part in ("train", "val"))
    train_loader = datasets.BucketLoader(training, args.batch_size, device, train=True, seed=args.seed)
    return train_loader, datasets.BucketLoader(validation, 500, device)


def note(progress: dict, row: dict, name: str, texts: int, args: Namespace) -> bool:
    """Adds an epoch's numbers to `progress` -> whether its weights are to be kept as the best by the score `name`."""
    if not math.isfinite(row["val_loss"]):
        fail(f"the validation loss is not finite in epoch {row['epoch']}: try an --lr below {args.lr:g}")
    score = [row[name], -row["val_loss"]]  # of two epochs that score alike, the surer one
    least = progress["best"][0] - chance(row[name], texts)
    is_best = score > progress["best"] or least <= row[name] < progress["best"][0]
    progress["history"].append(row)
    progress["best"] = max(score, progress["best"])
    return is_best


def train(args: Namespace, device: torch.device) -> Path:
    """Trains as `args` say -> the run folder."""
    corpus, meta = load_data(args)
    train_loader, val_loader = make_loaders(args, corpus, meta, device)
    utils.seed_everything(args.seed)
    model = make_model(args, meta, device)
    if args.arch == "fasttext" and not args.weights:
        model.learn_runs(datasets.BucketLoader(train_loader.split, 500, device, share=False))
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=args.weight_decay, fused=True)
    default = f"{args.arch}-{corpus.name}" + "-strip" * (meta["emoticons"] == "strip")
    run = utils.open_run(args, default, corpus.split(args.data))
    progress = restore(utils.last_checkpoint(run, args), run, args, meta, model, optimizer)
    if utils.is_finished(run, args, progress["epoch"]):
        return run
    steps = len(train_loader)
    scheduler = utils.one_cycle(optimizer, args.epochs * steps, progress["epoch"] * steps)
    weight = balance(corpus.counts("train"), train_loader.texts, meta["several"]).to(device) if args.balance else None
    announce(args, corpus, meta, model, (train_loader, val_loader), run)
    model, name = wrap(model, args, device), best_name(args, meta)
    events = utils.Events(run, progress["history"])

    for epoch in range(progress["epoch"], args.epochs):
        utils.seed_everything(args.seed, epoch)
        train_loader.epoch = epoch
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        start = time.perf_counter()
        row |= train_one_epoch(model, train_loader, optimizer, scheduler, args, weight)
        seconds = time.perf_counter() - start
        row |= evaluate(model, val_loader, args)
        is_best = note(progress, row, name, val_loader.texts, args)
        progress |= {"epoch": epoch + 1, "seconds": progress["seconds"] + seconds}
        save(run, args, progress, meta, model, optimizer, is_best)
        report(row, args, seconds, steps * train_loader.batch_size, events)

    events.close()
    if rank() == 0:
        finish(run, args, progress, name)
    return run


def main(argv=None) -> None:
    with utils.processes():
        args = parse(__doc__, argv)
        device = utils.pick_device(args.device)
        args.precision = utils.pick_precision(args.precision, device)
        utils.keep_freed_memory()
        if args.bench:
            bench.run(args, device, load_data, make_model)
        else:
            train(args, device)


if __name__ == "__main__":
    utils.start(main, "stopped; `python train.py --resume RUN` goes on after the last finished epoch")
