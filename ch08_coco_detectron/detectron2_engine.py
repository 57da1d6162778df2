"""Mask R-CNN with Detectron2: its config, its Trainer, and two hooks of ours. Importing this needs Detectron2.

The other engine, torchvision_engine.py, has the same functions: train, make_predictor, coco_state, coco_meta. What is in
Detectron2's hands: the loop, the checkpoints (model_*.pth, last_checkpoint), the logs (log.txt, metrics.json, TensorBoard).
"""

import copy
import logging
import os
import pickle
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import detectron2
import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog, build_detection_train_loader, detection_utils
from detectron2.data import transforms as T
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.engine import launch as detectron2_launch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model
from detectron2.structures import BoxMode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import JSONWriter, TensorboardXWriter
from numpy import ndarray
from torch import Tensor, nn

import annotations
import datasets
import evaluate
import masks
import utils
from models import MiniBackbone
from options import MAX_NORM, WARMUP
from report import LOSSES, is_enough, report
from utils import fail, say

R50 = "model_zoo/configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
COCO_WEIGHTS = (
    "https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x/137260431/"
    "model_final_a54504.pkl"
)


# ---- the network ------------------------------------------------------------------------------------------------------


class MiniPyramid(Backbone):
    """models.MiniBackbone with the names and the shapes that Detectron2 asks a backbone for."""

    def __init__(self):
        super().__init__()
        self.body = MiniBackbone()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> {"p2": (N, 64, H/4, W/4), "p3": /8, "p4": /16}"""
        return {f"p{2 + int(name)}": features for name, features in self.body(x).items()}

    @property
    def size_divisibility(self) -> int:
        return 16

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {f"p{level}": ShapeSpec(channels=MiniBackbone.out_channels, stride=2**level) for level in (2, 3, 4)}


@BACKBONE_REGISTRY.register()
def build_mini_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    return MiniPyramid()


def configure_network(meta: dict, device: torch.device) -> CfgNode:
    """-> the config of the network that `meta` describes: Detectron2's own R50-FPN, or mini."""
    cfg = get_cfg()
    cfg.merge_from_file(str(Path(detectron2.__file__).parent / R50))
    if meta["arch"] == "mini":
        configure_mini(cfg)
    elif not meta["frozen"]:  # from random weights, fixed batch statistics would make training diverge
        cfg.MODEL.RESNETS.NORM, cfg.MODEL.FPN.NORM, cfg.MODEL.BACKBONE.FREEZE_AT = "BN", "GN", 0
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = device.type
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(meta["categories"])
    order = -1 if meta["frozen"] else 1  # the zoo's weights want BGR
    cfg.INPUT.FORMAT = "BGR" if meta["frozen"] else "RGB"
    cfg.MODEL.PIXEL_MEAN = [255 * n for n in meta["mean"][::order]]
    cfg.MODEL.PIXEL_STD = [255 * n for n in meta["std"][::order]]
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = tuple(meta["min_size"]), meta["max_size"]
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = meta["min_size"][-1], meta["max_size"]
    return cfg


def configure_mini(cfg: CfgNode) -> None:
    """The figures of models.mini, in Detectron2's words."""
    model, maps = cfg.MODEL, ["p2", "p3", "p4"]
    model.BACKBONE.NAME = "build_mini_backbone"
    model.ANCHOR_GENERATOR.SIZES = [[16], [32], [64]]
    model.RPN.IN_FEATURES, model.ROI_HEADS.IN_FEATURES = maps, maps
    model.RPN.PRE_NMS_TOPK_TRAIN, model.RPN.POST_NMS_TOPK_TRAIN = 200, 100
    model.RPN.PRE_NMS_TOPK_TEST, model.RPN.POST_NMS_TOPK_TEST = 200, 100
    model.RPN.BATCH_SIZE_PER_IMAGE, model.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 64, 32
    model.ROI_BOX_HEAD.FC_DIM, model.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = 256, 1
    model.ROI_MASK_HEAD.NUM_CONV, model.ROI_MASK_HEAD.CONV_DIM, model.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO = 2, 64, 1


def configure_training(cfg: CfgNode, args: Namespace, run: Path, steps: int) -> None:
    """The recipe in Detectron2's words, counted in steps; the rate scaled with the batch (Goyal et al. 2017)."""
    solver = cfg.SOLVER
    solver.IMS_PER_BATCH, solver.MAX_ITER = args.batch_size, steps
    solver.BASE_LR, solver.WEIGHT_DECAY = args.lr * args.batch_size / 16, args.weight_decay
    solver.LR_SCHEDULER_NAME = "WarmupCosineLR" if args.schedule == "cosine" else "WarmupMultiStepLR"
    solver.STEPS = tuple(-(-steps * share // 9) for share in (6, 8)) if args.schedule == "step" else ()
    solver.WARMUP_ITERS, solver.WARMUP_FACTOR = min(WARMUP, steps // 10), 0.001
    solver.CLIP_GRADIENTS.ENABLED, solver.CLIP_GRADIENTS.CLIP_TYPE = True, "norm"  # of each parameter by itself
    solver.CLIP_GRADIENTS.CLIP_VALUE = MAX_NORM
    solver.AMP.ENABLED = args.precision == "bf16"
    cfg.INPUT.MASK_FORMAT = "bitmask"  # an object may have an RLE, which the format "polygon" refuses
    cfg.INPUT.RANDOM_FLIP = "none" if args.no_flip else "horizontal"
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False  # pictures without objects teach what is none
    cfg.DATALOADER.NUM_WORKERS = args.workers
    cfg.OUTPUT_DIR, cfg.SEED = str(run), args.seed


# ---- the data ---------------------------------------------------------------------------------------------------------


def records(split: datasets.Split, categories: list[dict]) -> list[dict]:
    """A split in Detectron2's standard form: a dict a picture."""
    labels, rows = {category["id"]: i for i, category in enumerate(categories)}, []
    for image in split.images:
        size = {"height": image["height"], "width": image["width"]}
        objects = []
        for row in split.objects[image["id"]]:
            segmentation = row["segmentation"]
            if isinstance(segmentation, dict):
                segmentation = masks.as_rle(segmentation, **size)  # Detectron2 takes no list of run lengths
            box = {"bbox": list(annotations.clipped(row["bbox"], image)), "bbox_mode": BoxMode.XYXY_ABS}
            about = {"category_id": labels[row["category_id"]], "iscrowd": row["iscrowd"]}
            objects.append(box | about | {"segmentation": segmentation})
        rows.append(size | {"image": image, "image_id": image["id"], "annotations": objects})
    return rows


class Mapper:
    """A record -> what the network takes. Detectron2's DatasetMapper, but with our reader, which takes 16-bit pictures too.

    None for a picture that cannot be read: the loader then draws another.
    """

    def __init__(self, split: datasets.Split, cfg: CfgNode):
        self.split, self.order = split, -1 if cfg.INPUT.FORMAT == "BGR" else 1
        self.augmentations = T.AugmentationList(detection_utils.build_augmentation(cfg, is_train=True))

    def __call__(self, record: dict) -> dict | None:
        try:
            picture = datasets.read_scene(self.split, record["image"])
        except OSError as error:
            print(utils.translated(f"skipped {self.split.path(record['image'])}: {error}"), flush=True)
            return None
        augmented = T.AugInput(picture[..., :: self.order])
        transforms = self.augmentations(augmented)
        shape = augmented.image.shape[:2]
        objects = [
            detection_utils.transform_instance_annotations(copy.deepcopy(row), transforms, shape)
            for row in record["annotations"]
            if not row["iscrowd"]
        ]
        instances = detection_utils.annotations_to_instances(objects, shape, mask_format="bitmask")
        pixels = torch.from_numpy(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        return {"image": pixels, "instances": detection_utils.filter_empty_instances(instances)} | {
            name: record[name] for name in ("height", "width", "image_id")
        }


# ---- training ---------------------------------------------------------------------------------------------------------


OURS = (
    "loss_cls",
    "loss_box_reg",
    "loss_mask",
    "loss_rpn_cls",
    "loss_rpn_loc",
)  # the losses in the order of report.LOSSES


class Enough(BaseException):
    """Ends the training: --patience epochs without a better one."""


class Epochs(HookBase):
    """Every `steps` steps: measures on validation data, writes metrics.csv and best.pt, prints the epoch's line.

    Its rows are part of Detectron2's checkpoints (state_dict), so a resumed run goes on with them.
    """

    def __init__(self, args: Namespace, data: datasets.Data, meta: dict, run: Path, steps: int):
        self.args, self.data, self.meta, self.run, self.steps = args, data, meta, run, steps
        self.history: list[dict] = []
        self.losses: list[list[float]] = []
        self.start, self.rate, self.enough = 0.0, 0.0, False

    def state_dict(self) -> dict:
        return {"history": self.history}

    def load_state_dict(self, state: dict) -> None:
        self.history = state["history"]

    def before_step(self) -> None:
        if self.enough:
            raise Enough
        if self.trainer.iter % self.steps == 0:
            self.losses, self.start = [], time.perf_counter()
            self.rate = float(self.trainer.optimizer.param_groups[0]["lr"])

    def after_step(self) -> None:
        if comm.is_main_process():  # Detectron2 has averaged them over the processes
            latest = self.trainer.storage.latest()
            self.losses.append([float(latest[name][0]) for name in ("total_loss", *OURS)])
        if (self.trainer.iter + 1) % self.steps:
            return
        seconds = time.perf_counter() - self.start
        split, model = self.data.splits["val"], utils.unwrap(self.trainer.model)
        share = split.take(split.images[comm.get_rank() :: comm.get_world_size()])
        parts = comm.gather(evaluate.collect(predictor(model, self.trainer.cfg), share, self.data.categories))
        model.train()
        if comm.is_main_process():
            results = [row for part in parts for row in part]
            row = {"epoch": (self.trainer.iter + 1) // self.steps, "lr": self.rate}
            means = np.mean(self.losses, 0).tolist()
            row |= {"train_loss": means[0]} | dict(zip(LOSSES, means[1:], strict=True))
            row |= evaluate.validation_row(results, split, self.data.categories)
            self.write(row, seconds)
            self.enough = is_enough(self.history, self.args)
        self.enough = any(comm.all_gather(self.enough))

    def write(self, row: dict, seconds: float) -> None:
        best = max((past["val_mask_ap"] for past in self.history), default=-1.0)
        self.history.append(row)
        if row["val_mask_ap"] > best:
            weights = utils.unwrap(self.trainer.model).state_dict()
            utils.save_checkpoint(self.run / "best.pt", {"meta": self.meta, "model": weights, "epoch": row["epoch"]})
        utils.write_metrics(self.history, self.run / "metrics.csv")
        utils.save_arguments(self.run, self.args)
        self.trainer.storage.put_scalars(**{k: v for k, v in row.items() if k.startswith("val_")}, smoothing_hint=False)
        report(row, self.args.epochs, seconds, self.steps * self.args.batch_size)


class Trainer(DefaultTrainer):
    """Detectron2's Trainer with our loader and our Epochs in place of its evaluation."""

    def __init__(self, cfg: CfgNode, split: datasets.Split, categories: list[dict], epochs: Epochs):
        self.split, self.categories, self.epochs = split, categories, epochs
        super().__init__(cfg)

    def build_train_loader(self, cfg: CfgNode):
        return build_detection_train_loader(
            cfg, dataset=records(self.split, self.categories), mapper=Mapper(self.split, cfg)
        )

    def build_hooks(self) -> list[HookBase]:
        ours = [hooks.IterationTimer(), hooks.LRScheduler(), self.epochs]
        if comm.is_main_process():  # after Epochs, so that a checkpoint has the row of its epoch
            ours.append(hooks.PeriodicCheckpointer(self.checkpointer, self.epochs.steps, max_to_keep=1))
            ours.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return ours

    def build_writers(self) -> list:
        run = Path(self.cfg.OUTPUT_DIR)
        return [JSONWriter(str(run / "metrics.json")), TensorboardXWriter(str(run))]


def train(
    args: Namespace, data: datasets.Data, meta: dict, run: Path, state: dict | None, device: torch.device
) -> list[dict]:
    """Trains as `args` say, from `state` if there is one -> the row of each epoch."""
    if args.precision == "bf16" and device.type != "cuda":
        fail("--precision bf16: Detectron2's mixed precision needs CUDA; --engine torchvision has it on CPUs too")
    if utils.world() > 1 and args.num_gpus == 1:
        fail("Detectron2 starts its processes itself: --num-gpus N, without torchrun")
    log_to_file(run)
    split = data.splits["train"]
    args.batch_size = min(args.batch_size, len(split))
    steps = len(split) // args.batch_size
    cfg = configure_network(meta, device)
    configure_training(cfg, args, run, args.epochs * steps)
    cfg.freeze()
    seed_all_rng(args.seed + comm.get_rank())
    epochs = Epochs(args, data, meta, run, steps)
    trainer = Trainer(cfg, split, data.categories, epochs)
    if args.precision == "bf16":
        trainer._trainer.precision = torch.bfloat16  # the config knows float16 alone
    if state:
        start_from(utils.unwrap(trainer.model), state, args.weights)
    if args.resume and trainer.checkpointer.has_checkpoint():
        refuse_other_network(trainer, args)
    trainer.resume_or_load(resume=bool(args.resume))
    for group, rate in zip(trainer.optimizer.param_groups, trainer.scheduler.get_lr(), strict=True):
        group["lr"] = rate  # of this step in the schedule, which --epochs may have made longer
    if utils.is_finished(run, args, trainer.start_iter // steps, is_enough(epochs.history, args)):
        return epochs.history
    try:
        trainer.train()
    except Enough:
        pass
    except FloatingPointError:
        fail(
            f"the loss is not finite: try an --lr below {args.lr:g}. What the run folder has of earlier epochs is untouched"
        )
    return epochs.history


def refuse_other_network(trainer: Trainer, args: Namespace) -> None:
    """Ends the program if the checkpoint to go on from is of another network. Detectron2 would take the tensors that fit, and
    leave the others as they were drawn. A file that would run code is refused, too."""
    file = trainer.checkpointer.get_checkpoint_file()
    saved = utils.load_checkpoint(file)
    utils.load_state(utils.unwrap(trainer.model), saved["model"], file, args.arch)
    utils.load_state(trainer.optimizer, saved["trainer"]["_trainer"]["optimizer"], file, args.arch)


def log_to_file(run: Path) -> None:
    """Detectron2's own messages go to RUN/log.txt; the terminal has our line an epoch."""
    for name in ("detectron2", "fvcore"):
        logger = logging.getLogger(name)
        for old in list(logger.handlers):
            logger.removeHandler(old)
            old.close()
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(logging.FileHandler(run / "log.txt"))


def launch(function: Callable, args: Namespace) -> None:
    """Runs function(args) in args.num_gpus processes, by Detectron2's launcher."""
    if torch.cuda.device_count() < args.num_gpus:
        fail(f"--num-gpus {args.num_gpus}: this PyTorch sees {torch.cuda.device_count()}")
    detectron2_launch(run_as_rank, args.num_gpus, dist_url="auto", args=(function, args))


def run_as_rank(function: Callable, args: Namespace) -> None:
    """In each process that the launcher started: says in torchrun's words who it is, as utils.py wants it."""
    rank = str(comm.get_rank())
    os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=str(comm.get_world_size()))
    function(args)


def start_from(model: nn.Module, state: dict, source: str) -> None:
    """Loads weights; the last layers of another number of categories stay as they are."""
    own = model.state_dict()
    differs = [name for name, tensor in own.items() if name not in state or state[name].shape != tensor.shape]
    if any("predictor" not in name and not name.endswith("num_batches_tracked") for name in differs):
        fail(f"{source}: the weights in it are of another network")
    model.load_state_dict(own | {name: state[name] for name in own if name not in differs})
    last = [name for name in differs if "predictor" in name]
    if last:
        say(f"{source}: {len(last)} tensors of the last layers do not fit these categories and start anew")


class ArraysOnly(pickle.Unpickler):
    """Reads the model zoo's pickles, which hold arrays, and refuses anything else that a pickle could do."""

    allowed = {("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict")} | {
        (f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")
    }

    def find_class(self, module: str, name: str):
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is no array")
        return super().find_class(module, name)


def read_zoo(path: Path) -> dict[str, Tensor]:
    """-> the weights in a file of Detectron2's model zoo."""
    try:
        with open(path, "rb") as file:
            arrays = ArraysOnly(file, encoding="latin1").load()["model"]
        arrays = {
            name: array
            for name, array in arrays.items()
            if not name.startswith("pixel_") and "anchor_generator" not in name
        }
        return {
            name: torch.from_numpy(np.array(array)) for name, array in arrays.items()
        }  # what the config says stays out
    except (OSError, pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError) as error:
        fail(f"{path}: not a file of Detectron2's model zoo ({error})")


def coco_file() -> Path:
    """Where the COCO weights are kept."""
    return Path(torch.hub.get_dir()) / "checkpoints" / "detectron2_mask_rcnn_R_50_FPN_1x_a54504.pkl"


def coco_state() -> dict | None:
    """Detectron2's own weights, trained on COCO; downloaded once. None where they cannot be had."""
    try:
        if not coco_file().exists():
            utils.download([COCO_WEIGHTS], coco_file())
    except SystemExit as why:
        say(why)
        return None
    return read_zoo(coco_file())


def coco_meta() -> dict:
    """What Detectron2's COCO weights know, and how they want their pictures: mean in RGB, 0 to 1, as elsewhere here."""
    about = MetadataCatalog.get("coco_2017_val")
    ids = {label: key for key, label in about.thing_dataset_id_to_contiguous_id.items()}
    categories = [{"id": ids[label], "name": name} for label, name in enumerate(about.thing_classes)]
    meta = {"engine": "detectron2", "arch": "mask_rcnn_r50_fpn", "categories": categories, "data": "coco"}
    mean, std = [n / 255 for n in (123.675, 116.28, 103.53)], [1 / 255] * 3
    return meta | {"mean": mean, "std": std, "min_size": [800], "max_size": 1333, "frozen": True}


# ---- prediction -------------------------------------------------------------------------------------------------------


def predictor(model: nn.Module, cfg: CfgNode) -> Callable[[list[ndarray]], list[dict]]:
    """-> a function from pictures (H, W, 3) uint8 RGB to what is on them, as evaluate.to_results takes it."""
    resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    order = -1 if cfg.INPUT.FORMAT == "BGR" else 1
    model.eval()

    @torch.inference_mode()
    def predict(pictures: list[ndarray]) -> list[dict]:
        inputs = []
        for picture in pictures:
            scaled = resize.get_transform(picture).apply_image(picture[..., ::order])
            pixels = torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))
            inputs.append({"image": pixels, "height": picture.shape[0], "width": picture.shape[1]})
        found = [output["instances"].to("cpu") for output in model(inputs)]
        return [
            {"boxes": f.pred_boxes.tensor.numpy(), "scores": f.scores.numpy(), "labels": f.pred_classes.numpy(),
             "masks": f.pred_masks.numpy()}
            for f in found
        ]  # fmt: skip

    return predict


def make_predictor(meta: dict, state: dict, device: torch.device, source: str) -> Callable:
    logging.getLogger("detectron2").setLevel(logging.WARNING)
    cfg = configure_network(meta, device)
    model = build_model(cfg)
    utils.load_state(model, state, source, meta["arch"])
    return predictor(model, cfg)
