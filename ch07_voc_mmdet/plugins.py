"""What MMDetection is given by this chapter, through its registries: a reader of pictures, a data set, a metric, three hooks.

A configuration names them by `type`, and imports this file by `custom_imports`; so they work with any of mmdet's models.
"""

# ruff: noqa: E402 (operators.provide() comes before the import of mmdet)

import logging
import math
import os
import random
import time
from pathlib import Path

import numpy as np
import torch

import operators

operators.provide()  # before mmdet is imported

from mmcv.transforms import BaseTransform
from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS, HOOKS, METRICS, TRANSFORMS
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import FUNCTIONS
from tqdm import tqdm

import datasets
import evaluate
import pictures
import utils
from utils import fail, rank, say


def read_pixels(path: str | Path) -> np.ndarray:
    """-> (H, W, 3) uint8 BGR as mmdet wants it, read as everywhere here (pictures.py). OSError if it is no picture."""
    return np.ascontiguousarray(np.asarray(pictures.read_picture(path))[..., ::-1])


@TRANSFORMS.register_module(name="LoadImageFromFile", force=True)
class ReadPicture(BaseTransform):
    """Takes the place of mmcv's reader, under its name, so that mmdet's own tools know it. A picture that cannot be read is
    named; mmengine then takes another one by chance."""

    def __init__(self, to_float32: bool = False, **others):
        self.to_float32, self.bad = to_float32, set()

    def transform(self, results: dict) -> dict | None:
        path = results["img_path"]
        try:
            pixels = read_pixels(path)
        except OSError as error:
            if path not in self.bad:
                self.bad.add(path)
                print(utils.translated(f"skipped {path}: {error}"), flush=True)  # from any process
            return None
        results["img"] = pixels.astype(np.float32) if self.to_float32 else pixels
        results["img_shape"] = results["ori_shape"] = pixels.shape[:2]
        return results


@DATASETS.register_module()
class VocFolder(BaseDetDataset):
    """`part` of the data set `data` (a name or a path, as --data takes it). mmdet's own VOCDataset wants .jpg, two
    years' folder names, and calls the classes by VOC's names in its tables whatever they are."""

    def __init__(self, data: str, root: str = "data", part: str = "train", limit=None, only=None, **kwargs):
        self.source = data, root, part, limit, only
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """-> a dict a picture in the form that mmdet's transforms take. Difficult things are not trained on."""
        data, root, *which = self.source
        number = {name: i for i, name in enumerate(self.metainfo["classes"])}
        rows = []
        for annotation in datasets.load(data, root, classes=self.metainfo["classes"]).annotations(
            *which, training=not self.test_mode
        ):
            instances = [
                {"bbox": list(thing.box), "bbox_label": number[thing.name], "ignore_flag": int(thing.difficult)}
                for thing in annotation.things
            ]
            size = {"height": annotation.height, "width": annotation.width}
            rows.append({"img_path": str(annotation.image), "img_id": annotation.id, "instances": instances} | size)
        return rows

    def prepare_data(self, idx: int):
        data = super().prepare_data(idx)
        if data is None and self.test_mode:  # in training, the next one is taken
            fail(f"{self.get_data_info(idx)['img_path']}: not a picture that can be read")
        return data


@METRICS.register_module()
class DetectionMetric(BaseMetric):
    """mAP50 as VOC counts it (area) and mAP as COCO does, by evaluate.py; a table of all classes goes to the log."""

    def __init__(self, data: str, root: str = "data", part: str = "val", limit=None, only=None, classes=None, **kwargs):
        super().__init__(collect_device="gpu", **kwargs)  # by messages between processes; "cpu" leaves a folder behind
        loaded = datasets.load(data, root, classes=classes)
        self.classes, self.annotations = loaded.classes, list(loaded.annotations(part, limit, only))
        self.detections: evaluate.Detections = {}

    def process(self, data_batch, data_samples) -> None:
        for sample in data_samples:
            found = (sample["pred_instances"][name].cpu().numpy() for name in ("bboxes", "scores", "labels"))
            self.results.append((sample["img_id"], *found))

    def compute_metrics(self, results: list) -> dict:
        self.detections = {image_id: tuple(arrays) for image_id, *arrays in results}
        figures = evaluate.voc_figures(self.annotations, self.detections, self.classes)
        for name, row in figures["classes"].items():
            log(f"AP50 {row['area']:.4f}  {name} ({row['things']} things)")
        coco = evaluate.coco_figures(self.annotations, self.detections, self.classes)
        return {"mAP50": figures["mAP50_area"], "mAP": coco["AP"]}


def log(message: str) -> None:
    logging.getLogger("mmengine").info(message)


@FUNCTIONS.register_module()
def seed_worker(worker: int) -> None:
    """Seeds a process of the data loader from torch's generator, which SeedEpoch has set. mmengine's own seeds every
    epoch alike, so that each epoch would draw the same flips."""
    mixed = torch.initial_seed() % 2**32
    np.random.seed(mixed)
    random.seed(mixed)


@HOOKS.register_module()
class SeedEpoch(Hook):
    """Makes an epoch's randomness a function of (seed, epoch, rank): a resumed run draws what the uninterrupted one draws."""

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner) -> None:
        utils.seed_everything(runner.seed, runner.epoch)


@HOOKS.register_module()
class PlainCheckpoint(Hook):
    """Keeps mmengine's checkpoints loadable by torch.load(weights_only=True), the safe way and torch's default.

    mmengine saves its smoothed losses as objects (HistoryBuffer), which need code to be run to be read. Here they are
    saved as lists of numbers, and made into those objects again when a run goes on. Only the last ones: the windows that
    smooth a loss are shorter.
    """

    KEPT = 1000

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        for name in ("meta", "message_hub", "param_schedulers"):
            if name in checkpoint:
                checkpoint[name] = self.plain(checkpoint[name])

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        hub = checkpoint.get("message_hub", {})
        planned = hub.get("runtime_info", {}).get("planned")
        if planned and planned != runner.max_epochs:
            checkpoint.pop("param_schedulers", None)  # of another length: RunFolder brings the new one to this step
        for name, buffer in hub.get("log_scalars", {}).items():
            if isinstance(buffer, dict):
                hub["log_scalars"][name] = HistoryBuffer(buffer["values"], buffer["counts"])

    def plain(self, value):
        """`value` with nothing in it but tensors, numbers, strings, lists and dicts."""
        if isinstance(value, HistoryBuffer):
            values, counts = (part[-self.KEPT :].tolist() for part in value.data)
            return {"values": values, "counts": counts}
        if isinstance(value, dict):
            return {key: self.plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(item) for item in value]
        if isinstance(value, (np.generic, np.ndarray)):
            return value.tolist()
        return value if value is None or isinstance(value, (str, int, float, torch.Tensor)) else str(value)


def is_enough(history: list[dict], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought nothing better than the best before them."""
    scores = [row.get("val_mAP50", -1.0) for row in history]
    return bool(patience and scores) and len(scores) - 1 - scores.index(max(scores)) >= patience


def bring_schedules_to(runner) -> None:
    """Steps fresh schedules through what a longer run has behind it: each rate follows from the one before."""
    for scheduler in runner.param_schedulers:
        for group in scheduler.optimizer.param_groups:
            group[scheduler.param_name] = group[f"initial_{scheduler.param_name}"]
    for scheduler in runner.param_schedulers:  # as they are built: the first values
        scheduler.last_step, scheduler._global_step = -1, -1
    steps = len(runner.train_dataloader)
    for step in range(runner.iter + 1):
        for scheduler in runner.param_schedulers:
            if not scheduler.by_epoch or step % steps == 0:
                scheduler.step()


@HOOKS.register_module()
class RunFolder(Hook):
    """Keeps the run's files: metrics.csv, last.pth, best.pth (by validation mAP50); one line an epoch on the terminal.

    mmengine's own CheckpointHook deletes the old checkpoint before it writes the new one, writes it in place, and saves
    before it validates; a kill at the wrong moment loses the run, or the epoch's score. This one saves once, after the
    validation, under a temporary name that replaces the old file when all is written.
    """

    priority = "VERY_LOW"  # after everything else that happens in an epoch
    arguments = None  # train.py's; args.json has them when the first new epoch is done

    def before_train(self, runner) -> None:
        info = runner.message_hub.runtime_info
        self.history, self.best = list(info.get("history", [])), info.get("best", -1.0)
        self.validates = runner.val_loop is not None
        if info.get("planned", runner.max_epochs) != runner.max_epochs:
            bring_schedules_to(runner)
        runner.message_hub.update_info("planned", runner.max_epochs)

    def before_train_epoch(self, runner) -> None:
        self.row = {"epoch": runner.epoch + 1, "lr": runner.optim_wrapper.get_lr()["lr"][0]}
        self.start, batches = time.perf_counter(), len(runner.train_dataloader)
        hidden = None if rank() == 0 else True
        self.finite = torch.ones((), dtype=torch.bool)
        self.bar = tqdm(total=batches, desc=f"epoch {runner.epoch + 1}", leave=False, disable=hidden)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.bar.update()
        loss = outputs["loss"].detach()
        self.finite = self.finite.to(loss.device) & torch.isfinite(loss)  # of every step, but read only now and then
        last = batch_idx == len(runner.train_dataloader) - 1
        if (batch_idx % 50 == 49 or last) and not self.finite:
            epoch = runner.epoch + 1
            fail(f"the loss is not finite in epoch {epoch}: try a smaller --lr. What was saved before is untouched")

    def after_train_epoch(self, runner) -> None:
        self.bar.close()
        self.seconds, batches = time.perf_counter() - self.start, len(runner.train_dataloader)
        for name, buffer in runner.message_hub.log_scalars.items():
            if name.startswith("train/loss"):
                self.row[name.replace("/", "_")] = float(buffer.mean(batches))
        if not self.validates:
            self.finish(runner, runner.epoch + 1)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.row |= {f"val_{name}": float(value) for name, value in metrics.items()}
        self.finish(runner, runner.epoch)

    def finish(self, runner, epoch: int) -> None:
        """Saves the state after `epoch` epochs, and says how it stands."""
        self.history.append(self.row)
        score = self.row.get("val_mAP50", float(epoch))  # without validation, the newest is the one to keep
        is_best, self.best = score > self.best, max(score, self.best)
        runner.message_hub.update_info("history", self.history)
        runner.message_hub.update_info("best", self.best)
        run = Path(runner.work_dir)
        if self.arguments and is_enough(self.history, self.arguments.patience):
            runner.train_loop.stop_training = True
        if self.arguments and rank() == 0:
            utils.save_arguments(run, self.arguments)
        names = dict.fromkeys(name for row in self.history for name in row)  # a loss may begin late, as in YOLOX
        if rank() == 0:
            rows = [{name: row.get(name, math.nan) for name in names} for row in self.history]
            utils.write_metrics(rows, run / "metrics.csv")
        if is_best:
            self.save(runner, run / "best.pth", epoch, save_optimizer=False, save_param_scheduler=False)
        self.save(runner, run / "last.pth", epoch)
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in self.row.items() if name not in ("epoch", "lr"))
        speed = len(runner.train_dataloader.dataset) / self.seconds
        of = f"epoch {epoch:>3}/{runner.max_epochs}"
        say(f"{of}  {numbers}  lr {self.row['lr']:.5f}  {self.seconds:6.1f} s  {speed:>6,.1f} pictures/s")

    def save(self, runner, path: Path, epoch: int, **what) -> None:
        beside = path.with_name(f".{path.name}.tmp")
        try:
            runner.save_checkpoint(str(path.parent), beside.name, meta={"epoch": epoch, "iter": runner.iter}, **what)
            if rank() == 0:
                os.replace(beside, path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            fail(f"cannot write {path}: {error.strerror}; what was there before is untouched")
