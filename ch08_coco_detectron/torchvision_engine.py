"""Mask R-CNN with torchvision: the training loop, on the page, and prediction.

The other engine, detectron2_engine.py, has the same three functions: train, make_predictor, coco_predictor.
"""

import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
from tqdm import tqdm

import annotations
import datasets
import evaluate
import masks
import models
import utils
from options import MAX_NORM, rate_factor
from report import LOSSES, is_enough, report
from utils import fail, rank, say, world

COCO = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}  # what COCO's weights were trained with


OURS = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")  # as in report.LOSSES


class Scenes(Dataset):
    """A split as torchvision's detectors want it: (3, H, W) floats from 0 to 1, and a dict of boxes, labels and masks.

    Crowds are no training objects. Whether a picture is mirrored follows from (seed, epoch, index) alone, so that neither a
    resumed run nor another number of workers changes it. A picture that cannot be read is named and the next one taken.
    """

    def __init__(self, split: datasets.Split, categories: list[dict], flip: bool, seed: int):
        self.split, self.flip, self.seed, self.epoch = split, flip, seed, 0
        self.labels = {category["id"]: i for i, category in enumerate(categories, 1)}

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        for i in range(index, index + len(self)):
            image = self.split.images[i % len(self)]
            try:
                picture = datasets.read_scene(self.split, image)
            except OSError as error:
                print(utils.translated(f"skipped {self.split.path(image)}: {error}"), flush=True)  # from any process
                continue
            pixels, target = torch.from_numpy(picture).permute(2, 0, 1).float() / 255, self.target(image)
            mirrored = np.random.default_rng((self.seed, self.epoch, index)).random() < 0.5
            return mirror(pixels, target) if self.flip and mirrored else (pixels, target)
        raise OSError(f"none of the pictures in {self.split.folder} can be read")

    def target(self, image: dict) -> dict:
        h, w = image["height"], image["width"]
        rows = [row for row in self.split.objects[image["id"]] if not row["iscrowd"]]
        bitmaps = [masks.to_mask(row["segmentation"], h, w) for row in rows]
        boxes = [annotations.clipped(row["bbox"], image) for row in rows]
        return {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([self.labels[row["category_id"]] for row in rows], dtype=torch.int64),
            "masks": torch.from_numpy(np.stack(bitmaps) if bitmaps else np.zeros((0, h, w), np.uint8)),
        }


def mirror(pixels: Tensor, target: dict) -> tuple[Tensor, dict]:
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    boxes = torch.stack([pixels.shape[2] - x2, y1, pixels.shape[2] - x1, y2], 1)
    return pixels.flip(2), target | {"boxes": boxes, "masks": target["masks"].flip(2)}


def batches(scenes: Scenes, args: Namespace, epoch: int, device: torch.device) -> DataLoader:
    """This process's share of an epoch: the order follows from (seed, epoch), an incomplete last batch is left out."""
    scenes.epoch = epoch
    order = torch.randperm(len(scenes), generator=torch.Generator().manual_seed(args.seed * 100_003 + epoch))
    whole = order.split(args.batch_size)[: len(scenes) // args.batch_size]
    mine = [batch[rank() :: world()].tolist() for batch in whole]
    pinned = device.type == "cuda"  # memory from which the GPU copies by itself
    return DataLoader(scenes, batch_sampler=mine, num_workers=args.workers, collate_fn=collate, pin_memory=pinned)


def collate(rows: list[tuple]) -> tuple[list[Tensor], list[dict]]:
    """Pictures differ in size and objects in number, so a batch is two lists and no tensor."""
    return [pixels for pixels, _ in rows], [target for _, target in rows]


def train_one_epoch(model, loader, optimizer, scheduler, args, device, epoch: int) -> dict:
    """-> the epoch's mean loss, and of it each of Mask R-CNN's five, over all processes. Ends the program if the loss stops
    being a number."""
    model.train()
    totals = torch.zeros(1 + len(OURS), device=device)
    progress = tqdm(loader, desc=f"epoch {epoch + 1}", leave=False, disable=None if rank() == 0 else True)
    for step, (images, targets) in enumerate(progress, 1):
        images = [image.to(device, non_blocking=True) for image in images]
        targets = [{name: t.to(device, non_blocking=True) for name, t in target.items()} for target in targets]
        bf16 = args.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            losses = model(images, targets)
            loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        scheduler.step()
        totals += torch.stack([torch.ones_like(loss), *(losses[name].detach() for name in OURS)])
        looked_at = step % 50 == 0 or step == len(loader)  # looking at a number makes the device wait
        if looked_at and not totals.isfinite().all():
            fail(
                f"the loss is not finite in epoch {epoch + 1}, step {step}: try an --lr below {args.lr:g}. "
                f"What the run folder has of earlier epochs is untouched"
            )
    if world() > 1:
        dist.all_reduce(totals)
    means = (totals[1:] / totals[0]).tolist()
    return {"train_loss": sum(means)} | dict(zip(LOSSES, means, strict=True))


def validate(model: nn.Module, split: datasets.Split, categories: list[dict], device: torch.device) -> dict:
    """COCO's figures on validation data; each process predicts its share of the pictures."""
    if world() > 1:  # each process has its own batch-norm statistics; the first one's are saved, so all use those
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
    share = split.take(split.images[rank() :: world()])
    results = evaluate.collect(predictor(model, device), share, categories)
    if world() > 1:
        parts: list = [None] * world()
        dist.all_gather_object(parts, results)
        results = [row for part in parts for row in part]
    return evaluate.validation_row(results, split, categories)


# ---- the network ------------------------------------------------------------------------------------------------------


def build(meta: dict) -> nn.Module:
    sizes = {"min_size": tuple(meta["min_size"]), "max_size": meta["max_size"]}
    pixels = {"image_mean": meta["mean"], "image_std": meta["std"]}
    return models.build(meta["arch"], len(meta["categories"]) + 1, meta["frozen"], **sizes, **pixels)


def start_from(model: nn.Module, state: dict, source: str) -> None:
    """Loads weights; the last layers of another number of categories stay as they are."""
    own = model.state_dict()
    differs = [name for name, tensor in own.items() if name not in state or state[name].shape != tensor.shape]
    if any("predictor" not in name and not name.endswith("num_batches_tracked") for name in differs):
        fail(f"{source}: the weights in it are of another network")
    model.load_state_dict(own | {name: state[name] for name in own if name not in differs})
    if differs:
        say(f"{source}: {len(differs)} tensors of the last layers do not fit these categories and start anew")


def coco_file() -> Path:
    """Where torchvision keeps its COCO weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(COCO.url).name


def coco_state() -> dict | None:
    """torchvision's weights, trained on COCO; downloaded once, checked against the hash in their name. None without them."""
    try:
        return COCO.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        say(f"{COCO.url} is not to be had ({error})")
        return None


def train(
    args: Namespace, data: datasets.Data, meta: dict, run: Path, state: dict | None, device: torch.device
) -> list[dict]:
    """Trains as `args` say, from `state` if there is one -> the row of each epoch."""
    scenes = Scenes(data.splits["train"], data.categories, not args.no_flip, args.seed)
    args.batch_size = min(args.batch_size, len(scenes))
    utils.seed_everything(args.seed)
    model = build(meta).to(device)
    if state:
        start_from(model, state, args.weights)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate = args.lr * args.batch_size / 16  # Goyal et al. 2017: as many times the rate as the batch is larger
    optimizer = torch.optim.SGD(trained, rate, momentum=0.9, weight_decay=args.weight_decay)
    history, best = restore(run, args, model, optimizer)
    if utils.is_finished(run, args, len(history), is_enough(history, args)):
        return history
    steps = len(scenes) // args.batch_size
    factor = rate_factor(args.schedule, args.epochs * steps)  # of the step alone: a longer run gets a new schedule
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor, len(history) * steps - 1)
    wrapped = DistributedDataParallel(model, [device] if device.type == "cuda" else None) if world() > 1 else model
    events = utils.Events(run, history)

    for epoch in range(len(history), args.epochs):
        utils.seed_everything(args.seed, epoch)
        start = time.perf_counter()
        row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        row |= train_one_epoch(wrapped, batches(scenes, args, epoch, device), optimizer, scheduler, args, device, epoch)
        seconds = time.perf_counter() - start
        row |= validate(model, data.splits["val"], data.categories, device)
        history.append(row)
        is_best, best = row["val_mask_ap"] > best, max(best, row["val_mask_ap"])
        if rank() == 0:
            save(run, args, meta, model, optimizer, history, best, is_best)
        report(row, args.epochs, seconds, len(scenes), events)
        if is_enough(history, args):
            break
    events.close()
    return history


def restore(run: Path, args: Namespace, model, optimizer) -> tuple[list[dict], float]:
    """-> rows so far and best score; the states are put back from last.pt if the run has one."""
    saved = utils.last_checkpoint(run, args)
    if saved is None:
        return [], -1.0
    utils.load_state(model, saved["model"], run / "last.pt", args.arch)
    utils.load_state(optimizer, saved["optimizer"], run / "last.pt", args.arch)
    return saved["history"], saved["best"]


def save(run: Path, args, meta: dict, model, optimizer, history: list[dict], best: float, is_best: bool) -> None:
    """Writes the run's files. last.pt comes last: a kill before it means this epoch is done again, to the same result."""
    weights, epoch = model.state_dict(), history[-1]["epoch"]
    if is_best:
        utils.save_checkpoint(run / "best.pt", {"meta": meta, "model": weights, "epoch": epoch})
    utils.write_metrics(history, run / "metrics.csv")
    utils.save_arguments(run, args)
    state = {"meta": meta, "model": weights, "optimizer": optimizer.state_dict()}
    utils.save_checkpoint(run / "last.pt", state | {"history": history, "best": best, "epoch": epoch})


# ---- prediction -------------------------------------------------------------------------------------------------------


def predictor(model: nn.Module, device: torch.device) -> Callable[[list[ndarray]], list[dict]]:
    """-> a function from pictures (H, W, 3) uint8 to what is on them, as evaluate.to_results takes it."""
    model.eval()

    @torch.inference_mode()
    def predict(pictures: list[ndarray]) -> list[dict]:
        found = model([torch.from_numpy(picture).permute(2, 0, 1).to(device).float() / 255 for picture in pictures])
        return [
            {"boxes": f["boxes"].cpu().numpy(), "scores": f["scores"].cpu().numpy(),
             "labels": f["labels"].cpu().numpy() - 1, "masks": (f["masks"][:, 0] >= 0.5).cpu().numpy()}
            for f in found
        ]  # fmt: skip

    return predict


def make_predictor(meta: dict, state: dict, device: torch.device, source: str) -> Callable:
    model = build(meta)
    utils.load_state(model, state, source, meta["arch"])
    return predictor(model.to(device), device)


def coco_meta() -> dict:
    """What torchvision's COCO weights know. Their class number is COCO's category id, with gaps."""
    names = COCO.meta["categories"][1:]
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    meta = {"engine": "torchvision", "arch": "mask_rcnn_r50_fpn", "categories": categories, "data": "coco"}
    return meta | IMAGENET | {"min_size": [800], "max_size": 1333, "frozen": True}
