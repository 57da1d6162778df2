"""Classification: which digit, garment or thing of yours is on a picture. The training loop, and what test.py measures.

    python train.py mnist                     # convnet on MNIST, or on the sample without internet access
    python test.py mnist photo.jpg            # reads a digit from a photo, with the newest run or the shipped weights

Expect: see the README's table. The first 8 lines of `train` are the parts, the loop below them is the whole training.
"""

import time
from argparse import Namespace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_confusion_matrix
from tqdm import tqdm

import datasets
import loop
import models
import photo
import pictures
import utils
from augment import random_affine
from options import fill_in_recipe
from utils import fail, new_figure, rank, save_figure, say

DIGITS = ("mnist", "sample")  # trained on these, a network wants a photo's digit cut out and centred as theirs are

# ---- training ---------------------------------------------------------------------------------------------------------


def augmented(pixels: Tensor, strength: float) -> Tensor:
    """(n, 1, S, S) uint8 -> floats, 0 to 255, moved about as much as another hand would."""
    pixels, share = pixels.float(), pixels.shape[-1] / 28
    if not strength:
        return pixels
    return random_affine(
        pixels, degrees=12 * strength, shift=2 * share * strength, scale=0.12 * strength, shear=0.2 * strength
    )


def normalize(pixels: Tensor, meta: dict) -> Tensor:
    """(n, 1, s, s), 0 to 255 -> (n, 1, S, S) of mean 0 and variance 1 over the training pixels, enlarged to the network's S.

    Enlarged a batch at a time: all of MNIST at AlexNet's 224 pixels would be three gigabytes.
    """
    images, size = (pixels.float() / 255 - meta["mean"]) / meta["std"], meta["image_size"]
    return images if images.shape[-1] == size else F.interpolate(images, size=(size, size), mode="bilinear")


def train_one_epoch(
    model, average, split, optimizer, scheduler, meta, args: Namespace, epoch: int, class_weights
) -> dict:
    """-> the epoch's mean loss and accuracy. `class_weights` (K,), or None: all classes alike."""
    model.train()
    steps = loop.steps_per_epoch(split, args.batch_size)
    sums = torch.zeros(3, device=split.labels.device)  # loss, correct, pictures: on the device, so that no step waits
    data = loop.batches(split, args.batch_size, args.seed, epoch)
    bar = tqdm(data, desc=f"epoch {epoch + 1}", total=steps, leave=False, disable=None if rank() == 0 else True)
    for step, (pixels, labels) in enumerate(bar):
        images = normalize(augmented(pixels, args.augment), meta)
        with loop.autocast(args, images.device):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels, class_weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        average.update(utils.unwrap(model), epoch * steps + step)
        correct = (logits.argmax(1) == labels).sum()
        sums += torch.stack([loss.detach() * len(labels), correct, torch.full_like(loss, len(labels)).detach()])
        if step % 50 == 49 or step == steps - 1:  # looking at a number makes the device wait
            loop.check_loss(sums[0], args, f"epoch {epoch + 1}, step {step + 1}")
    return loop.means(sums, "train_loss", "train_accuracy")


@torch.no_grad()
def evaluate(model: nn.Module, split: datasets.Split, meta: dict) -> dict:
    """-> mean loss and accuracy on validation data."""
    sums = torch.zeros(3, device=split.labels.device)
    for pixels, labels in loop.batches(split, 500):
        logits = model(normalize(pixels, meta)).float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([loss, (logits.argmax(1) == labels).sum(), torch.full_like(loss, len(labels))])
    return loop.means(sums, "val_loss", "val_accuracy")


def load_data(args: Namespace, device: torch.device) -> tuple[datasets.Split, datasets.Split, dict, dict]:
    """-> the training and validation parts on the device; what split.json will say; and what a checkpoint says of the data."""
    data = datasets.load(args.data, args.data_root, args.image_size, workers=args.workers)
    train_split, split = datasets.choose_training(data, args.limit, args.seed, args.data)
    fill_in_recipe(args, data.name, data.own, len(train_split))
    mean, std = datasets.statistics(data.splits["train"].images)
    meta = {"task": "mnist", "arch": args.arch, "classes": data.classes, "data": data.name, "own": data.own}
    meta |= {"mean": mean, "std": std, "image_size": args.image_size}
    return train_split.to(device), data.splits["val"].to(device), split, meta


def make_model(args: Namespace, meta: dict, images: Tensor) -> nn.Module:
    """A fresh network, or one that starts from --weights, on the device of the pictures, which it has been tried on."""
    model = models.build("mnist", args.arch, len(meta["classes"]), args.image_size)
    model = loop.start_from(model, args.weights, args.arch)
    model = model.to(images.device, memory_format=torch.channels_last)  # how fast convolutions want their filters
    loop.try_out(model, normalize(images[:2], meta)[: args.batch_size], args)
    return model


def train(args: Namespace, device: torch.device) -> Path:
    """Trains as `args` say -> the run folder."""
    train_split, val_split, split, meta = load_data(args, device)
    class_weights = models.balanced(train_split.labels, len(meta["classes"])) if args.balance else None
    utils.seed_everything(args.seed)
    model = make_model(args, meta, train_split.images)
    steps = loop.steps_per_epoch(train_split, args.batch_size)
    optimizer = loop.make_optimizer(model, args)
    average = loop.Average(model, args.average)
    parts = {"model": model, "average": average.model, "optimizer": optimizer}
    run = utils.open_run(args, f"{args.arch}-{meta['data']}", split)
    progress = loop.restore(utils.last_checkpoint(run, args), run, args, parts)
    if utils.is_finished(run, args, progress["epoch"], loop.has_waited(progress, args)):
        return run
    scheduler = loop.make_schedule(optimizer, args.epochs * steps, progress["epoch"] * steps)
    loop.introduce(
        model, args, device, run, f"{meta['data']}: {len(train_split):,} training, {len(val_split):,} validation pictures",
        f"{datasets.describe_classes(meta['classes'], train_split.labels)}; {args.epochs} epochs of {steps} steps",
    )  # fmt: skip
    wrapped = loop.wrap(model, args, device)
    events = utils.Events(run, progress["history"])

    for epoch in range(progress["epoch"], args.epochs):
        utils.seed_everything(args.seed, epoch)
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        start = time.perf_counter()
        row |= train_one_epoch(wrapped, average, train_split, optimizer, scheduler, meta, args, epoch, class_weights)
        seconds = time.perf_counter() - start
        loop.share_buffers(average.model)
        row |= evaluate(average.model, val_split, meta)

        is_best = loop.note(progress, row, "val_accuracy", seconds)
        loop.save(run, args, progress, meta, parts, average.model if is_best else None)
        loop.report(row, args.epochs, f"{seconds:6.1f} s  {len(train_split) / seconds:>7,.0f} pictures/s", events)
        if loop.has_waited(progress, args):
            say(f"stopped: no better epoch in {args.patience}")
            break

    loop.finish(run, args, progress, "val_accuracy", events)
    return run


# ---- testing ----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def predict(model: nn.Module, meta: dict, images: Tensor, device: torch.device) -> Tensor:
    """(N, 1, S, S) uint8 -> (N, K) probabilities, on the CPU."""
    batches = images.split(500)
    return torch.cat([model(normalize(batch.to(device), meta)).float().softmax(1).cpu() for batch in batches])


def test(args: Namespace, model: nn.Module, meta: dict, path: Path, out: Path, device: torch.device) -> dict:
    """Measures on the test split -> the figures, which are in test.json; draws the confusion and the worst mistakes."""
    data = datasets.load(args.data, args.data_root, meta["image_size"], ("test",), run=args.split)
    if data.classes != meta["classes"]:
        fail(f"{path} knows the classes {', '.join(meta['classes'])}; {data.name} has {', '.join(data.classes)}")
    split = data.splits["test"]
    start = time.perf_counter()
    probabilities = predict(model, meta, split.images, device)
    seconds = time.perf_counter() - start
    right = probabilities.argmax(1) == split.labels
    confusion = multiclass_confusion_matrix(probabilities, split.labels, len(data.classes))  # (K, K): row is the truth
    result = {"accuracy": right.double().mean().item(), "wrong": int((~right).sum()), "pictures": len(split)}
    result |= {"tested_on": data.name, "confusion": confusion.tolist()}
    draw_confusion(confusion, data.classes, out / "confusion.png")
    draw_mistakes(split, probabilities, data.classes, out / "mistakes.png")
    rows = [["class", "recall", "pictures"]]
    taken = []
    for row, name in zip(confusion, data.classes, strict=True):
        total, counts = row.sum().clamp(min=1), zip(row.tolist(), data.classes, strict=True)
        others = sorted(((n, other) for n, other in counts if n and other != name), reverse=True)
        mistaken = ", ".join(f"{other} ({n})" for n, other in others[:5])
        rows.append([name, f"{row[data.classes.index(name)] / total:.4f}", f"{int(row.sum()):,}"])
        taken.append(mistaken)
    utils.print_table(rows, ["taken for (times)", *taken])
    say(f"{meta['arch']}, trained on {meta['data']}: test accuracy {result['accuracy']:.4f} on {data.name} "
          f"({len(split):,} pictures, {result['wrong']} wrong, {seconds:.1f} s on {device})")  # fmt: skip
    return result


def draw_confusion(confusion: Tensor, classes: list[str], path: Path) -> None:
    share = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    figure = new_figure(7, 6.4, "".join(classes))
    axis = figure.subplots()
    axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    shown = range(0, len(classes), -(-len(classes) // 50))  # of many classes, every second name or fewer
    names = [utils.cut(classes[i], 24) for i in shown]
    axis.set_xticks(shown, names, rotation=45 if len(classes) <= 25 else 90, ha="right", fontsize=8)
    axis.set_yticks(shown, names, fontsize=8)
    axis.set(xlabel="predicted", ylabel="true", title=f"Confusion, accuracy {confusion.trace() / confusion.sum():.4f}")
    if len(classes) <= 25:
        for i, j in torch.cartesian_prod(torch.arange(len(classes)), torch.arange(len(classes))).tolist():
            colour = "white" if share[i, j] > 0.5 else "black"
            axis.text(j, i, int(confusion[i, j]), ha="center", va="center", fontsize=8, color=colour)
    save_figure(figure, path)


def draw_mistakes(split: datasets.Split, probabilities: Tensor, classes: list[str], path: Path) -> None:
    """The wrong answers that the network was surest of."""
    confidence, guess = probabilities.max(1)
    wrong = (guess != split.labels).nonzero()[:, 0]
    worst = wrong[confidence[wrong].argsort(descending=True)][:32]
    figure = new_figure(12, 7, "".join(classes))
    figure.suptitle(f"{len(wrong):,} of {len(guess):,} wrong; the surest of them")
    for axis in (grid := figure.subplots(4, 8)).flat:
        axis.axis("off")
    for axis, i in zip(grid.flat, worst.tolist(), strict=False):
        axis.imshow(split.images[i, 0].numpy(), cmap="gray", vmin=0, vmax=255)
        true, said = (utils.cut(classes[k], 20) for k in (split.labels[i], guess[i]))
        axis.set_title(f"{true}, not {said} ({confidence[i]:.2f})", fontsize=8)
    save_figure(figure, path)


# ---- your pictures ----------------------------------------------------------------------------------------------------


def find_pictures(names: list[str]) -> list[Path]:
    """The files named, and those in the folders named."""
    files = []
    for path in map(Path, names):
        if not path.exists():
            fail(f"{path}: no such file or folder")
        inside = pictures.list_pictures(path, deep=True) if path.is_dir() else [path]
        if not inside:
            fail(f"{path}: no pictures in this folder")
        files += inside
    return files


def classify(args: Namespace, model: nn.Module, meta: dict, out: Path, device: torch.device) -> None:
    """Prints the likeliest classes of each picture named, or the digits on it from left to right, and draws what the network
    saw. Exit status 1 if one is useless."""
    size, classes, is_digit = meta["image_size"], meta["classes"], meta["data"] in DIGITS and not meta.get("own")
    files, answers, bad = find_pictures(args.files), [], []
    for file in files:
        try:
            images = photo.read_digits(file, size) if is_digit else [photo.read_grey(file, size)]
        except OSError as error:
            bad.append(file)
            is_empty = isinstance(error, photo.NotADigit)
            say(f"{file}: {error if is_empty else f'not a picture that can be read ({error.strerror or error})'}")
            continue
        words, most = [], min(3, len(classes)) if len(images) == 1 else 1
        for image in images:
            views = photo.views(image) if is_digit else image[None]
            top = predict(model, meta, views, device).mean(0).topk(most)
            pairs = [f"{classes[i]} {p:.3f}" for p, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)]
            if is_digit and top.values[0] < photo.SURE:
                pairs[0] += " (unsure)"
            words += pairs
            answers.append((file, image, pairs[0]))
        print(f"{file}: {', '.join(words)}")
    if answers:
        path = utils.free_name(out / "predictions.png")
        draw_answers(answers[:32], path)
        say(f"wrote {path}")
    if bad:
        fail(f"{len(bad)} of {len(files)} files could not be used, the first being {bad[0]}")


def draw_answers(answers: list, path: Path) -> None:
    """[(file, image (1, S, S), words)]: eight in a row, one for each digit."""
    rows = -(-len(answers) // 8)
    figure = new_figure(12, 1.9 * rows, "".join(file.name + words for file, _, words in answers))
    for axis in (grid := figure.subplots(rows, 8, squeeze=False)).flat:
        axis.axis("off")
    for axis, (file, image, words) in zip(grid.flat, answers, strict=False):
        axis.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{file.name}\n{words}", fontsize=8)
    save_figure(figure, path)
