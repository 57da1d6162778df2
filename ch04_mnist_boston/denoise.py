"""Denoising: a picture with noise in, the picture without out; with and without skip connections, deep and shallow.

    python train.py denoise --arch deep_skip     # on MNIST, or on the sample without internet access
    python test.py denoise                       # PSNR before and after, and a picture of it: denoised.png

Expect: the README's table; whether skip connections help is measured there, not repeated from the papers.
"""

import time
from argparse import Namespace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid
from tqdm import tqdm

import datasets
import loop
import models
import photo
import pictures
import utils
from mnist import find_pictures
from options import fill_in_recipe
from utils import fail, new_figure, rank, save_figure, say

NOISE_SEED = 2006  # of validation and test noise: all networks see the same

# ---- training ---------------------------------------------------------------------------------------------------------


def add_noise(clean: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
    """Pixels from 0 to 1 -> the same with normal noise of standard deviation `noise`, cut off at 0 and 1 as a camera does."""
    drawn = torch.randn(clean.shape, generator=generator, device=generator.device if generator else clean.device)
    return (clean + noise * drawn.to(clean.device)).clamp(0, 1)


def psnr(pictures: Tensor, clean: Tensor) -> Tensor:
    """(N, 1, S, S) each, 0 to 1 -> (N,) peak signal-to-noise ratio in decibels: 20 dB is an error of a tenth of white."""
    return -10 * torch.log10((pictures - clean).square().mean((1, 2, 3)).clamp(min=1e-10))


def train_one_epoch(model, split, optimizer, scheduler, args: Namespace, epoch: int) -> dict:
    """-> the epoch's mean loss, and the PSNR of its pictures, their pixels cut off at black and white. The clean picture is
    the label, so nobody had to label anything."""
    model.train()
    steps = loop.steps_per_epoch(split, args.batch_size)
    sums = torch.zeros(3, device=split.labels.device)  # loss, PSNR, pictures: on the device, so that no step waits
    data = loop.batches(split, args.batch_size, args.seed, epoch)
    bar = tqdm(data, desc=f"epoch {epoch + 1}", total=steps, leave=False, disable=None if rank() == 0 else True)
    for step, (pixels, labels) in enumerate(bar):
        clean = pixels.float() / 255
        with loop.autocast(args, clean.device):
            denoised = model(add_noise(clean, args.noise))  # new noise each time
        loss = F.mse_loss(denoised.float(), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        n = torch.full_like(loss, len(labels)).detach()
        sums += torch.stack([loss.detach() * n, psnr(denoised.detach().float().clamp(0, 1), clean).sum(), n])
        if step % 50 == 49 or step == steps - 1:  # looking at a number makes the device wait
            loop.check_loss(sums[0], args, f"epoch {epoch + 1}, step {step + 1}")
    return loop.means(sums, "train_loss", "train_psnr")


@torch.no_grad()
def evaluate(model: nn.Module, split: datasets.Split, noise: float) -> dict:
    """-> mean loss and PSNR (of pixels cut off at black and white) on validation data, with the same noise each time."""
    model.eval()
    sums = torch.zeros(3, device=split.labels.device)
    generator = torch.Generator().manual_seed(NOISE_SEED)
    for pixels, labels in loop.batches(split, 500):
        clean = pixels.float() / 255
        denoised = model(add_noise(clean, noise, generator))
        errors = (denoised - clean).square().mean((1, 2, 3))  # (n,); none where this process has no share of the batch
        sums += torch.stack(
            [errors.sum(), psnr(denoised.clamp(0, 1), clean).sum(), torch.full_like(sums[0], len(labels))]
        )
    return loop.means(sums, "val_loss", "val_psnr")


def load_data(args: Namespace, device: torch.device) -> tuple[datasets.Split, datasets.Split, dict, dict]:
    """-> the training and validation parts on the device; what split.json will say; and what a checkpoint says of the task."""
    data = datasets.load(args.data, args.data_root, workers=args.workers)
    train_split, split = datasets.choose_training(data, args.limit, args.seed, args.data)
    fill_in_recipe(args, data.name, data.own, len(train_split))
    meta = {"task": "denoise", "arch": args.arch, "data": data.name, "own": data.own, "noise": args.noise}
    return train_split.to(device), data.splits["val"].to(device), split, meta | {"image_size": 28}


def train(args: Namespace, device: torch.device) -> Path:
    """Trains as `args` say -> the run folder."""
    train_split, val_split, split, meta = load_data(args, device)
    utils.seed_everything(args.seed)
    model = loop.start_from(models.build("denoise", args.arch), args.weights, args.arch).to(device)
    steps = loop.steps_per_epoch(train_split, args.batch_size)
    optimizer = loop.make_optimizer(model, args)
    parts = {"model": model, "optimizer": optimizer}
    run = utils.open_run(args, f"{args.arch}-{meta['data']}", split)
    progress = loop.restore(utils.last_checkpoint(run, args), run, args, parts)
    if utils.is_finished(run, args, progress["epoch"], loop.has_waited(progress, args)):
        return run
    scheduler = loop.make_schedule(optimizer, args.epochs * steps, progress["epoch"] * steps)
    pairs = f"{len(train_split):,} training, {len(val_split):,} validation pictures, noise {args.noise:g}"
    loop.introduce(model, args, device, run, f"{meta['data']}: {pairs}; {args.epochs} epochs of {steps} steps")
    wrapped = loop.wrap(model, args, device)
    events = utils.Events(run, progress["history"])

    for epoch in range(progress["epoch"], args.epochs):
        utils.seed_everything(args.seed, epoch)
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        start = time.perf_counter()
        row |= train_one_epoch(wrapped, train_split, optimizer, scheduler, args, epoch)
        seconds = time.perf_counter() - start
        row |= evaluate(model, val_split, args.noise)

        is_best = loop.note(progress, row, "val_psnr", seconds)
        loop.save(run, args, progress, meta, parts, model if is_best else None)
        loop.report(row, args.epochs, f"{seconds:6.1f} s  {len(train_split) / seconds:>7,.0f} pictures/s", events)
        if loop.has_waited(progress, args):
            say(f"stopped: no better epoch in {args.patience}")
            break

    loop.finish(run, args, progress, "val_psnr", events)
    return run


# ---- testing ----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def denoised(model: nn.Module, noisy: Tensor, device: torch.device) -> Tensor:
    """(N, 1, S, S), 0 to 1 -> the same, cleaned, on the CPU."""
    return torch.cat([model(batch.to(device)).float().clamp(0, 1).cpu() for batch in noisy.split(500)])


def test(args: Namespace, model: nn.Module, meta: dict, path: Path, out: Path, device: torch.device) -> dict:
    """Measures PSNR on the test split before and after -> the figures; draws clean, noisy and denoised pictures."""
    data = datasets.load(args.data, args.data_root, meta["image_size"], ("test",), run=args.split)
    clean = data.splits["test"].images.float() / 255
    noisy = add_noise(clean, meta["noise"], torch.Generator().manual_seed(NOISE_SEED))
    cleaned = denoised(model, noisy, device)
    before, after = psnr(noisy, clean).mean().item(), psnr(cleaned, clean).mean().item()
    draw_grid([clean, noisy, cleaned], out / "denoised.png")
    say(f"{meta['arch']}, trained on {meta['data']}: PSNR {before:.2f} dB before, {after:.2f} dB after, noise "
          f"{meta['noise']:g}, on {data.name} ({len(clean):,} pictures, {device})")  # fmt: skip
    return {
        "psnr_before": before,
        "psnr": after,
        "noise": meta["noise"],
        "pictures": len(clean),
        "tested_on": data.name,
    }


def draw_grid(rows: list[Tensor], path: Path) -> None:
    """A row each of clean, noisy and denoised pictures."""
    grid = make_grid(torch.cat([row[:12] for row in rows]), nrow=min(12, len(rows[0])), padding=1, pad_value=0.5)
    figure = new_figure(12, 1 + len(rows))
    axis = figure.subplots()
    axis.imshow(grid[0].numpy(), cmap="gray", vmin=0, vmax=1)
    axis.axis("off")
    axis.set_title(("clean, noisy, denoised" if len(rows) == 3 else "as it is, denoised") + ", from the top")
    save_figure(figure, path)


def clean_files(args: Namespace, model: nn.Module, meta: dict, out: Path, device: torch.device) -> None:
    """Writes a denoised 28x28 copy of each picture named. Exit status 1 if one cannot be read."""
    files, bad = find_pictures(args.files), []
    for file in files:
        try:
            noisy = photo.read_grey(file, meta["image_size"])[None].float() / 255
        except OSError as error:
            bad.append(file)
            say(f"{file}: not a picture that can be read ({error.strerror or error})")
            continue
        picture = Image.fromarray((255 * denoised(model, noisy, device)[0, 0]).round().byte().numpy())
        say(f"wrote {pictures.save_picture(picture, out / f'{file.stem}-denoised.png')}")
    if bad:
        fail(f"{len(bad)} of {len(files)} files could not be used, the first being {bad[0]}")
