"""Trains a GAN that translates pictures: CycleGAN (from unpaired pictures), pix2pix (from pairs), or DCGAN (from noise).

    python train.py                                    # apple2orange, or the sample without internet access
    python train.py --data sample                      # apples into oranges in a few minutes on two CPU cores
    python train.py --data horse2zebra --precision auto --compile
    python train.py --mode pix2pix --data facades
    torchrun --nproc-per-node 2 -- train.py --data sample   # the same on two processes

Writes a run folder (runs/MODE-ARCH-DATA): args.json, metrics.csv, curves.png, TensorBoard events, samples/, last.pt, best.pt.
`python test.py` then translates the test pictures. The README says what to expect.
"""

import io
import math
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import bench
import datasets
import models
import utils
from gans import MODES, Gan
from grid import draw_rows
from options import fill_in_recipe, parse
from utils import fail, rank, say, warn, world

PANELS = {
    "adversarial": "gan",
    "discriminator": "disc",
    "cycle": "cycle",
    "identity": "identity",
    "L1": "l1",
    "rate": "lr",
}


def learning_rate(args: Namespace, epoch: int) -> float:
    """Constant for the first half of the epochs, then in a straight line to nothing, as Zhu et al. 2017 have it."""
    return args.lr * min(1.0, 2 * (1 - epoch / args.epochs))


def train_one_epoch(gan: Gan, loader: datasets.PairLoader, args: Namespace) -> dict[str, float]:
    """-> the epoch's mean losses by name. Ends the program if one stops being a number."""
    gan.train()
    sums: dict[str, Tensor] = {}  # on the device, so that no step waits
    progress = tqdm(loader, desc=f"epoch {loader.epoch + 1}", leave=False, disable=None if rank() == 0 else True)
    for step, (real_a, real_b) in enumerate(progress):
        for name, loss in gan.step(real_a, real_b).items():
            sums[name] = sums.get(name, 0) + loss.detach()
        looked_at = step % 50 == 49 or step == len(loader) - 1  # looking at a number makes the device wait
        if looked_at and not math.isfinite(sum(sums.values()).item()):
            fail(
                f"a loss is not finite in epoch {loader.epoch + 1}, step {step + 1}: try an --lr below {args.lr:g}. "
                f"What the run folder has of earlier epochs is untouched"
            )
    means = torch.stack(list(sums.values())) / len(loader)
    if world() > 1:
        dist.all_reduce(means)
    return dict(zip(sums, (means / world()).tolist(), strict=True))


@torch.no_grad()
def draw_samples(gan: Gan, data: datasets.Data, path: Path) -> None:
    """Saves what the networks make of the first eight pictures of each domain: a row each of real A, fake B, back to A, ..."""
    gan.train(False)
    rows = gan.rows(*(datasets.to_network(first_eight(domain, data)).to(gan.device) for domain in (data.a, data.b)))
    buffer = io.BytesIO()
    draw_rows({name: datasets.to_pixels(row) for name, row in rows.items()}).save(buffer, "png")
    utils.write_atomic(path, buffer.getvalue())


def first_eight(domain: Tensor, data: datasets.Data) -> Tensor:
    """The middle of the first eight training pictures, without the margin that is there to be cropped."""
    margin = (domain.shape[-1] - data.image_size) // 2
    return domain[:8, :, margin:, margin:][..., : data.image_size, : data.image_size]


def draw_curves(history: list[dict], path: Path) -> None:
    """A panel for each kind of loss, both directions in it."""
    groups = {title: [n for n in history[0] if n.split("_")[0] == kind] for title, kind in PANELS.items()}
    groups = {title: names for title, names in groups.items() if names}
    figure = utils.new_figure(3.6 * len(groups), 3.2)
    for axis, (title, names) in zip(figure.subplots(1, len(groups)), groups.items(), strict=True):
        for name in names:
            axis.plot([row["epoch"] for row in history], [row[name] for row in history], label=name, marker=".")
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend()
    utils.save_figure(figure, path)


def restore(saved: dict | None, run: Path, args: Namespace, gan: Gan) -> dict:
    """-> what last.pt says of the run so far, with its states put back; of a run that saved nothing yet, the start."""
    if saved is None:
        return {"epoch": 0, "history": [], "seconds": 0.0}
    for name in ("mode", "arch", "width", "patch", "upsample", "image_size"):
        if saved["meta"][name] != getattr(args, name):
            fail(f"{run / 'last.pt'} has {name} {saved['meta'][name]}, not {getattr(args, name)}")
    gan.load_state(saved, run / "last.pt")
    return {name: saved[name] for name in ("epoch", "history", "seconds")}


def save(run: Path, args: Namespace, progress: dict, meta: dict, gan: Gan) -> None:
    """Writes the run's files. last.pt comes last: a kill before it means this epoch is done again, to the same result.

    No loss of a GAN says which epoch is the best. best.pt holds the newest generators: what test.py reads, and what one shares.
    """
    state = gan.state()  # all processes take part in it
    if rank() == 0:
        generators = gan.weights(only="g")
        utils.save_checkpoint(run / "best.pt", {"meta": meta, "model": generators, "epoch": progress["epoch"]})
        utils.write_metrics(progress["history"], run / "metrics.csv")
        utils.save_arguments(run, args)
        utils.save_checkpoint(run / "last.pt", {"meta": meta} | state | progress)


class Events(utils.Events):
    """An epoch's numbers, and its sample grid, read from its file if that is still there."""

    def add(self, row: dict, **more: float) -> None:
        super().add(row, **more)
        path = sample_path(self.run, row["epoch"])
        if self.writer and path.exists():
            with Image.open(path) as picture:
                self.writer.add_image("samples", np.array(picture), row["epoch"], dataformats="HWC")


def sample_path(run: Path, epoch: int) -> Path:
    return run / "samples" / f"epoch_{epoch:04d}.png"


def report(row: dict, args: Namespace, seconds: float, pictures: int) -> None:
    """One aligned line an epoch."""
    numbers = "  ".join(f"{name} {value:.3f}" for name, value in row.items() if name not in ("epoch", "lr"))
    speed = f"{seconds:.1f} s  {pictures / seconds:,.1f} pairs/s"
    say(f"epoch {row['epoch']:>3}/{args.epochs}  {numbers}  lr {row['lr']:.6f}  {speed}")


def load_data(args: Namespace) -> tuple[datasets.Data, dict]:
    """-> the training pictures, and which samples train and which are for the test (split.json)."""
    data = datasets.load(args.data, args.data_root, "train", args.mode, args.image_size, args.limit, args.workers)
    split = {"data": args.data if data.own else data.name, "own": data.own, "train": data.samples, "test": data.others}
    return data, split


def make_gan(args: Namespace, device: torch.device) -> Gan:
    """The networks of --mode with their first weights, drawn from --seed, or with those of --weights."""
    utils.seed_everything(args.seed)
    gan = MODES[args.mode](args, device)
    if args.weights:
        start_from(gan, args)
    return gan


def introduce(run: Path, args: Namespace, data: datasets.Data, gan: Gan, steps: int) -> None:
    """What trains here, in three lines."""
    counts = ", ".join(f"{name} {models.count_parameters(net):,}" for name, net in gan.networks.items())
    domains = f"{len(data.a):,} pictures in A, {len(data.b):,} in B, {args.image_size} pixels a side"
    processes = f"{world()} process{'es' * (world() > 1)}"
    say(f"{args.mode} on {data.name}: {domains}; {args.epochs} epochs of {steps} steps")
    say(f"{args.arch}, width {args.width}; parameters: {counts}")
    say(f"{gan.device}, {args.precision}, {processes}; torch {torch.__version__}; run {run}")
    if gan.device.type == "cpu" and args.image_size >= 128:
        warn("Pictures of this size take a CPU days. `--data sample` or `--image-size 64` shows the same in minutes.")


def train(args: Namespace, device: torch.device) -> Path:
    """Trains as `args` say -> the run folder."""
    data, split = load_data(args)
    fill_in_recipe(args, data.name, data.image_size, data.own)
    loader = datasets.PairLoader(data, args.batch_size, device, args.seed, args.mode == "pix2pix", not args.no_flip)
    gan = make_gan(args, device)
    run = utils.open_run(args, f"{args.mode}-{args.arch}-{data.name}", split)
    progress = restore(utils.last_checkpoint(run, args), run, args, gan)
    if utils.is_finished(run, args, progress["epoch"]):
        return run
    meta = {name: getattr(args, name) for name in ("mode", "arch", "width", "patch", "upsample", "image_size")}
    meta |= {"data": data.name, "own": data.own}
    introduce(run, args, data, gan, len(loader))
    events = Events(run, progress["history"])

    for epoch in range(progress["epoch"], args.epochs):
        utils.seed_everything(args.seed, epoch)
        loader.epoch, rate = epoch, learning_rate(args, epoch)
        gan.set_lr(rate)
        start = time.perf_counter()
        row = {"epoch": epoch + 1, "lr": rate} | train_one_epoch(gan, loader, args)
        seconds = time.perf_counter() - start
        progress["history"].append(row)
        progress |= {"epoch": epoch + 1, "seconds": progress["seconds"] + seconds}
        if rank() == 0:
            (run / "samples").mkdir(exist_ok=True)
            draw_samples(gan, data, sample_path(run, epoch + 1))
        save(run, args, progress, meta, gan)
        report(row, args, seconds, len(loader) * loader.batch_size)
        events.add(row)

    events.close()
    if rank() == 0:
        finish(run, args, data, progress)
    return run


def finish(run: Path, args: Namespace, data: datasets.Data, progress: dict) -> None:
    """The run's curves, and where to go on, in three lines."""
    draw_curves(progress["history"], run / "curves.png")
    say(f"{args.mode} on {data.name}: {args.epochs} epochs; {progress['seconds']:.0f} s of training")
    say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
    say(f"now: python test.py --run {utils.quoted(run)}")


def start_from(gan: Gan, args: Namespace) -> None:
    """The networks with the weights of a file: generators (shared weights, a run's best.pt), or all of them (last.pt)."""
    state, meta = utils.load_weights(args.weights)
    found = 0
    for name, net in gan.networks.items():
        keys = {key.removeprefix(f"{name}."): t for key, t in state.items() if key.startswith(f"{name}.")}
        if keys:
            try:
                utils.unwrap(net).load_state_dict({key: t.float() for key, t in keys.items()})
            except RuntimeError:
                fail(
                    f"{args.weights} holds a {meta.get('arch')} of width {meta.get('width')}, not {args.arch}, {args.width}"
                )
            found += 1
    if not found:
        fail(f"{args.weights}: no networks of a {args.mode} in it")


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
