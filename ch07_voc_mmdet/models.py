"""The detectors of the chapter as configurations for MMDetection, built in Python over mmdet's own.

    python models.py              # arch, size, family, parameters of each
    python models.py fcos tiny    # that one's whole configuration

build(arch, size, ...) takes mmdet's configuration file for `arch`, puts the data, the classes and this chapter's hooks
(plugins.py) in, and for size "tiny" makes the network small enough to train on a CPU. The families (course 7-1):
  faster_rcnn   two stages, anchors     Ren et al. 2015, "Faster R-CNN"; a first network proposes regions, a second names them
  retinanet     one stage, anchors      Lin et al. 2017, "Focal Loss for Dense Object Detection"
  atss          one stage, anchors      Zhang et al. 2020, "Bridging the Gap ..."; statistics choose the anchors of each thing
  fcos          one stage, no anchors   Tian et al. 2019, "FCOS"; each place inside a thing tells the distances to its sides
  yolox         one stage, no anchors   Ge et al. 2021, "YOLOX"; who learns from which thing is decided by cost (SimOTA)
  rtmdet        one stage, no anchors   Lyu et al. 2022, "RTMDet"; large kernels, soft labels in that decision
  centernet     one stage, keypoints    Zhou et al. 2019, "Objects as Points"; peaks of a map are centres; no NMS
  dino          transformer, queries    Zhang et al. 2023, "DINO"; each query finds a thing or nothing (as DETR); no NMS
"""

# ruff: noqa: E402 (operators.provide() comes before the import of mmdet)

import copy
import difflib
import functools
import warnings
from pathlib import Path

import operators

operators.provide()  # before mmdet is imported

import mmengine.config.config
import torch
import yaml
from mmdet.registry import MODELS
from mmdet.utils import get_test_pipeline_cfg
from mmengine import Config, ConfigDict
from mmengine.registry import init_default_scope

from utils import Parser, fail, load_checkpoint, say, warn, world

FAMILIES = {
    "faster_rcnn": "two stages, anchors",
    "retinanet": "one stage, anchors",
    "atss": "one stage, anchors",
    "fcos": "one stage, no anchors",
    "yolox": "one stage, no anchors",
    "rtmdet": "one stage, no anchors",
    "centernet": "one stage, keypoints",
    "dino": "transformer, queries",
}
FILES = {  # mmdet's configuration, and the one whose weights, trained on COCO, it can start from
    "faster_rcnn": ("pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py", "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"),
    "retinanet": ("pascal_voc/retinanet_r50_fpn_1x_voc0712.py", "retinanet/retinanet_r50_fpn_1x_coco.py"),
    "atss": ("atss/atss_r50_fpn_1x_coco.py",) * 2,
    "fcos": ("fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",) * 2,
    "yolox": ("yolox/yolox_s_8xb8-300e_coco.py",) * 2,
    "rtmdet": ("rtmdet/rtmdet_s_8xb32-300e_coco.py",) * 2,
    "centernet": ("centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco.py",) * 2,
    "dino": ("dino/dino-4scale_r50_8xb2-12e_coco.py",) * 2,
}
SIZES = ("full", "tiny")
BACKBONES = {  # mmdet's short names, which it would look up in torchvision
    "torchvision://resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "torchvision://resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "open-mmlab://detectron/resnet50_caffe": (
        "https://download.openmmlab.com/pretrain/third_party/resnet50_msra-5891d200.pth"
    ),
}
TINY_EPOCHS = {"sample": 24}  # else 60
TINY_SIDES = {"sample": 160}  # the longer side of a picture in pixels; else 320


def config_folder() -> Path:
    """Where mmdet keeps its configuration files. ("mmdet::" before a name would do, but needs pkg_resources.)"""
    import mmdet

    return Path(mmdet.__file__).parent / ".mim" / "configs"


def build(arch: str, size: str, classes: tuple[str, ...], data: str, root: str = "data", **options) -> Config:
    """-> the configuration of `arch` in `size` for the data set `data`, whose lists lie in `root`.

    Options: epochs, batch_size, lr, image_size (the tiny ones), workers, limit, no_val, seed, weights; see train.py --help.
    """
    if arch not in FILES:
        close = [f" did you mean {name}?" for name in difflib.get_close_matches(arch, FILES, 1)]
        fail(f"no architecture {arch!r};{''.join(close)} there are: {', '.join(FILES)}")
    config = Config.fromfile(config_folder() / FILES[arch][0])
    if size == "tiny":
        TINY[arch](config.model)
        simple_recipe(config, TINY_EPOCHS.get(data, 60), options.get("image_size") or TINY_SIDES.get(data, 320))
        if arch == "centernet":
            pad_test_pictures(config)
        if arch == "dino":  # Transformers want smaller steps
            config.optim_wrapper.optimizer.lr = 5e-4
    return adapt(config, classes, data, root, **options)


# ---- the small ones ---------------------------------------------------------------------------------------------------


def small_resnet(model: ConfigDict, channels: int = 64, stages: int = 4) -> None:
    """ResNet-18 with a quarter of the channels, trained from scratch, under a feature pyramid with `channels`.

    The stages halve the map, from a quarter of the picture's side on; they have 16, 32, 64 and 128 channels.
    """
    norm = {"type": "BN", "requires_grad": True}
    model.backbone = {"type": "ResNet", "depth": 18, "base_channels": 16, "stem_channels": 16, "norm_cfg": norm}
    model.backbone |= {"norm_eval": False, "num_stages": stages, "out_indices": tuple(range(stages))}
    model.backbone |= {"strides": (1, 2, 2, 2)[:stages], "dilations": (1,) * stages}
    model.neck |= {"in_channels": [16, 32, 64, 128], "out_channels": channels}


def tiny_faster_rcnn(model: ConfigDict) -> None:
    small_resnet(model)
    model.rpn_head |= {"in_channels": 64, "feat_channels": 64}
    model.rpn_head.anchor_generator.scales = [4]  # anchors from 16 pixels
    model.roi_head.bbox_roi_extractor.out_channels = 64
    model.roi_head.bbox_head |= {"in_channels": 64, "fc_out_channels": 256}
    model.train_cfg.rpn.sampler.num = model.train_cfg.rcnn.sampler.num = 64  # regions a picture that the loss looks at
    for stage in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
        stage |= {"nms_pre": 200, "max_per_img": 100}


def tiny_retinanet(model: ConfigDict) -> None:
    small_resnet(model)
    model.neck.num_outs = 3
    model.bbox_head |= {"in_channels": 64, "feat_channels": 64, "stacked_convs": 2}
    model.bbox_head.anchor_generator |= {"strides": [8, 16, 32], "octave_base_scale": 2}  # anchors from 16 pixels


def tiny_atss(model: ConfigDict) -> None:
    small_resnet(model)
    model.neck.num_outs = 3
    model.bbox_head |= {"in_channels": 64, "feat_channels": 64, "stacked_convs": 2}
    model.bbox_head.anchor_generator |= {"strides": [8, 16, 32], "octave_base_scale": 4}  # anchors from 32 pixels


def tiny_fcos(model: ConfigDict) -> None:
    small_resnet(model)
    model.neck.num_outs = 3
    model.bbox_head |= {"in_channels": 64, "feat_channels": 64, "stacked_convs": 2, "strides": [8, 16, 32]}
    model.bbox_head.regress_ranges = ((-1, 32), (32, 64), (64, 1e8))  # which level answers for a thing of which size


def tiny_yolox(model: ConfigDict) -> None:
    model.data_preprocessor.pop("batch_augments", None)
    model.backbone |= {"deepen_factor": 0.33, "widen_factor": 0.25}
    model.neck |= {"in_channels": [64, 128, 256], "out_channels": 64}
    model.bbox_head |= {"in_channels": 64, "feat_channels": 64}


def tiny_rtmdet(model: ConfigDict) -> None:
    model.data_preprocessor.pad_size_divisor = 32  # in full, the transforms see to that
    model.backbone |= {"deepen_factor": 0.167, "widen_factor": 0.25, "init_cfg": None}
    model.neck |= {"in_channels": [64, 128, 256], "out_channels": 64, "num_csp_blocks": 1}
    model.bbox_head |= {"in_channels": 64, "feat_channels": 64, "exp_on_reg": False}
    for part in (model.backbone, model.neck, model.bbox_head):
        part.norm_cfg = {"type": "BN"}  # in place of SyncBN, which needs GPUs


def tiny_centernet(model: ConfigDict) -> None:
    neck = dict(model.neck)
    small_resnet(model, stages=3)
    model.backbone.out_indices = (2,)
    smaller = {"in_channels": 64, "num_deconv_filters": (64, 64), "num_deconv_kernels": (4, 4)}  # twice the size, twice
    model.neck = neck | smaller | {"use_dcn": False}  # deformable convolutions are slow on a CPU
    model.data_preprocessor.pad_size_divisor = 32


def tiny_dino(model: ConfigDict, levels: int = 2) -> None:
    """Fewer layers, levels and queries. The 256 channels stay: mmdet's decoder has that number in its code."""
    neck = dict(model.neck)
    small_resnet(model, stages=3)
    model.backbone.out_indices = (1, 2)
    model.neck = neck | {"in_channels": [32, 64], "num_outs": levels}
    model.data_preprocessor.pad_size_divisor = 32
    model |= {"num_queries": 60, "num_feature_levels": levels}
    model.test_cfg.max_per_img = 60  # with one class, there are no more
    model.dn_cfg.group_cfg.num_dn_queries = 20
    model.encoder.num_layers = model.decoder.num_layers = 2
    for part in (model.encoder, model.decoder):
        part.layer_cfg.ffn_cfg.feedforward_channels = 512
    model.encoder.layer_cfg.self_attn_cfg.num_levels = levels
    model.decoder.layer_cfg.cross_attn_cfg.num_levels = levels


TINY = {
    "faster_rcnn": tiny_faster_rcnn,
    "retinanet": tiny_retinanet,
    "atss": tiny_atss,
    "fcos": tiny_fcos,
    "yolox": tiny_yolox,
    "rtmdet": tiny_rtmdet,
    "centernet": tiny_centernet,
    "dino": tiny_dino,
}


def simple_recipe(config: Config, epochs: int, side: int) -> None:
    """The same recipe for all the small ones: AdamW, an epoch of warm-up, then a cosine; pictures flipped, nothing more."""
    load, boxes = {"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}
    resize = {"type": "Resize", "scale": (side, side), "keep_ratio": True}
    meta = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    train = [load, boxes, resize, {"type": "RandomFlip", "prob": 0.5}, {"type": "PackDetInputs"}]
    test = [load, resize, boxes, {"type": "PackDetInputs", "meta_keys": meta}]
    shared = {"num_workers": 0, "persistent_workers": False}
    for name, pipeline, shuffle in (("train", train, True), ("val", test, False), ("test", test, False)):
        sampler = {"type": "DefaultSampler", "shuffle": shuffle}
        config[f"{name}_dataloader"] = shared | {
            "batch_size": 16,
            "sampler": sampler,
            "dataset": {"pipeline": pipeline},
        }
    optimizer = {"type": "AdamW", "lr": 2e-3, "weight_decay": 0.02}
    config.optim_wrapper = {"type": "OptimWrapper", "optimizer": optimizer, "clip_grad": {"max_norm": 10}}
    by_step = {"by_epoch": True, "convert_to_iter_based": True}
    warmup = {"type": "LinearLR", "start_factor": 0.05, "begin": 0, "end": 1, **by_step}
    cosine = {"type": "CosineAnnealingLR", "eta_min": 0, "begin": 1, "end": epochs, "T_max": epochs - 1, **by_step}
    config.param_scheduler = [warmup, cosine]
    config.train_cfg = {"type": "EpochBasedTrainLoop", "max_epochs": epochs}
    config.val_cfg, config.test_cfg = {"type": "ValLoop"}, {"type": "TestLoop"}
    config.auto_scale_lr = {"base_batch_size": 16}
    config.custom_hooks = []


def pad_test_pictures(config: Config) -> None:
    """CenterNet's head wants test pictures in the middle of a black frame, and its width, to undo the shift."""
    pad = {"type": "RandomCenterCropPad", "ratios": None, "border": None, "test_mode": True}
    pad |= {"test_pad_mode": ["logical_or", 31], "test_pad_add_pix": 1}  # to the next multiple of 32
    pad |= {"mean": [0, 0, 0], "std": [1, 1, 1], "to_rgb": True}
    for name in ("val", "test"):
        load, resize, boxes, pack = config[f"{name}_dataloader"].dataset.pipeline
        as_float = load | {"to_float32": True}
        pack = pack | {"meta_keys": (*pack["meta_keys"], "border")}
        config[f"{name}_dataloader"].dataset.pipeline = [as_float, resize, pad, boxes, pack]


# ---- any configuration, for our data ----------------------------------------------------------------------------------


def adapt(config: Config, classes: tuple[str, ...], data: str, root: str = "data", **options) -> Config:
    """Puts a data set into any configuration of mmdet, with its classes, this chapter's hooks, and the options given."""
    if "max_epochs" not in config.train_cfg:
        fail("this configuration counts its training in steps; only those that count epochs are supported")
    if asks_for_masks(config.train_dataloader):
        fail("this configuration trains on masks too; the annotations here have boxes alone (chapter 8 is about masks)")
    if not config.val_dataloader:  # the configuration of a run with --no-val
        config.val_dataloader, config.val_cfg = copy.deepcopy(config.test_dataloader), {"type": "ValLoop"}
    set_num_classes(config.model, len(classes))
    limit = options.get("limit")
    set_part(config, "train", data, root, "train+val" if options.get("no_val") else "train", classes, limit)
    set_part(config, "val", data, root, "val", classes, limit)
    set_part(config, "test", data, root, "test", classes)
    for name in ("train", "val", "test"):
        set_workers(config[f"{name}_dataloader"], options.get("workers"))
    if options.get("no_val"):
        config.val_dataloader = config.val_evaluator = config.val_cfg = None
    set_recipe(config, options)
    set_runtime(config, options.get("seed", 0))
    set_start(config, options.get("weights") or "none", options.get("coco_file"))
    return config


def asks_for_masks(node) -> bool:
    """Whether a transform of the training pictures wants masks, or maps of classes."""
    if isinstance(node, dict):
        return any(node.get(name) for name in ("with_mask", "with_seg")) or any(map(asks_for_masks, node.values()))
    return isinstance(node, (list, tuple)) and any(map(asks_for_masks, node))


def set_part(config: Config, name: str, data: str, root: str, part: str, classes, limit=None, only=None) -> None:
    """Lets the loader `name` (train, val or test) read `part` of the data set `data` (the first `limit` pictures, or `only`
    those with these IDs); and the metric, if it has one."""
    source = {"data": data, "root": root, "part": part, "limit": limit, "only": only}
    leaf = {"type": "VocFolder", **source, "metainfo": {"classes": list(classes)}, "test_mode": name != "train"}
    loader = config[f"{name}_dataloader"]
    loader.dataset = with_leaf(loader.dataset, leaf)
    if name != "train":
        config[f"{name}_evaluator"] = {"type": "DetectionMetric", **source, "classes": list(classes)}


def set_num_classes(node, count: int) -> None:
    """Every head's num_classes, wherever in the model it stands."""
    if isinstance(node, dict):
        if "num_classes" in node:
            node["num_classes"] = count
        for child in node.values():
            set_num_classes(child, count)
    elif isinstance(node, (list, tuple)):
        for child in node:
            set_num_classes(child, count)


def with_leaf(dataset: ConfigDict, leaf: dict) -> dict:
    """`dataset` with its innermost data set replaced by `leaf`, under the same transforms. Wrappers that repeat it or mix
    pictures stay; one that joins several gives way, since `leaf` may hold several years already."""
    if "datasets" in dataset:
        return with_leaf(dataset["datasets"][0], leaf)
    if "dataset" in dataset:
        return dict(dataset) | {"dataset": with_leaf(dataset["dataset"], leaf)}
    return leaf | {"pipeline": dataset["pipeline"]}


def test_steps(config: Config) -> list:
    """The transforms of the test pictures, wherever in the configuration they stand."""
    return get_test_pipeline_cfg(config.copy())


def set_workers(loader: ConfigDict, workers: int | None) -> None:
    """`workers` processes; None leaves the configuration's. They are started anew each epoch, with that epoch's seed."""
    if workers is not None:
        loader.num_workers = workers
    loader |= {"persistent_workers": False, "worker_init_fn": {"type": "seed_worker"}}


def set_recipe(config: Config, options: dict) -> None:
    """Epochs, batch size and learning rate; the rate follows the batch size unless it is given (Goyal et al. 2017)."""
    config.custom_hooks = config.get("custom_hooks") or []
    if options.get("epochs"):
        set_epochs(config, options["epochs"])
    config.train_cfg.val_interval = 1
    config.train_cfg.pop("dynamic_intervals", None)
    if options.get("batch_size"):
        config.train_dataloader.batch_size = options["batch_size"]
    base = config.get("auto_scale_lr", {}).get("base_batch_size", 16)
    config.auto_scale_lr = {"enable": not options.get("lr"), "base_batch_size": base}
    if options.get("lr"):
        config.optim_wrapper.optimizer.lr = options["lr"]
    if options.get("precision") == "bf16":
        config.optim_wrapper |= {"type": "AmpOptimWrapper", "dtype": "bfloat16"}


def set_epochs(config: Config, epochs: int) -> None:
    """Stretches or shrinks the whole schedule to `epochs`: what happens at 8 of 12 epochs happens at 2/3 of them.

    Always from the recipe's own schedule, which is kept: a run that goes on with more epochs gets what a new one would have.
    """
    if "own_schedule" not in config:
        kept = {"epochs": config.train_cfg.max_epochs, "schedule": config.param_scheduler, "hooks": config.custom_hooks}
        config.own_schedule = copy.deepcopy(kept)
    own = copy.deepcopy(config.own_schedule)
    ratio = epochs / own.epochs
    config.train_cfg.max_epochs, config.param_scheduler = epochs, own.schedule
    for schedule in config.param_scheduler:
        if schedule.get("by_epoch", True):
            for key in ("begin", "end", "T_max"):
                if key in schedule:
                    schedule[key] = max(1, round(schedule[key] * ratio)) if schedule[key] else 0
            if "milestones" in schedule:
                schedule["milestones"] = [max(1, round(epoch * ratio)) for epoch in schedule["milestones"]]
    in_epochs = [s for s in config.param_scheduler if s.get("by_epoch", True) and s.get("begin", 0) < epochs]
    config.param_scheduler = [s for s in config.param_scheduler if not s.get("by_epoch", True)] + in_epochs
    for hook, before in zip(config.custom_hooks, own.hooks, strict=False):  # those of this chapter come behind
        for key in ("switch_epoch", "num_last_epochs"):
            if key in hook:
                hook[key] = round(before[key] * ratio)


def set_runtime(config: Config, seed: int) -> None:
    """The hooks of this chapter in place of mmengine's CheckpointHook, TensorBoard, a log line every ten steps."""
    config.custom_imports = {"imports": ["plugins"], "allow_failed_imports": False}
    config.default_scope = "mmdet"
    names = {"timer": "IterTimerHook", "param_scheduler": "ParamSchedulerHook", "sampler_seed": "DistSamplerSeedHook"}
    config.default_hooks = {name: {"type": kind} for name, kind in names.items()}
    config.default_hooks |= {"logger": {"type": "LoggerHook", "interval": 10}, "checkpoint": None}
    ours = [{"type": name} for name in ("SeedEpoch", "PlainCheckpoint", "RunFolder")]
    config.custom_hooks = [hook for hook in config.get("custom_hooks") or [] if hook not in ours] + ours
    backends = [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}]
    config.visualizer = {"type": "DetLocalVisualizer", "vis_backends": backends}
    config.log_processor = {"type": "LogProcessor", "window_size": 10, "by_epoch": True}
    config.env_cfg = {"mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0}, "dist_cfg": {"backend": "nccl"}}
    config.randomness = {"seed": seed}
    config.log_level, config.load_from, config.resume = "INFO", None, False


# ---- what training starts from ----------------------------------------------------------------------------------------


def set_start(config: Config, weights: str = "none", coco_file: str | None = None) -> None:
    """weights: none; imagenet (for the backbone); coco (for all but the head, which has other classes); auto: imagenet if
    the configuration has any; or the file of a checkpoint."""
    backbone = config.model.backbone
    start, backbone.init_cfg = backbone.get("init_cfg") or {}, None
    pretrained = start.get("checkpoint")
    if weights == "auto":
        weights = "imagenet" if pretrained else "none"
    if weights == "imagenet":
        if not pretrained:
            fail("--weights imagenet: mmdet has none for this network; coco, or a file, or none")
        url = BACKBONES.get(pretrained, pretrained)
        backbone.init_cfg = dict(start) | {"checkpoint": str(fetch(url)) if "://" in url else url}
    elif weights != "none":
        config.load_from = str(fetch(coco_weights(coco_file))) if weights == "coco" else weights
        refuse_another_network(config)
    elif backbone.type == "ResNet":  # what never learned must not be frozen
        backbone |= {"frozen_stages": -1, "norm_eval": False, "norm_cfg": {"type": "BN", "requires_grad": True}}


def refuse_another_network(config: Config) -> None:
    """Ends the program unless most of the checkpoint fits the network. mmengine would take what fits and go on."""
    saved = load_checkpoint(config.load_from).get("state_dict", {})
    own = make_network(config).state_dict()
    fits = sum(name in saved and saved[name].shape == tensor.shape for name, tensor in own.items())
    if 2 * fits < len(own):
        fail(
            f"{config.load_from}: of another network; {fits} of the {len(own)} tensors of this {config.model.type} fit"
        )


def coco_weights(file: str | None) -> str:
    """-> the address that mmdet's model list gives for the weights of its configuration `file`."""
    if file:
        listed = yaml.safe_load((config_folder() / file).with_name("metafile.yml").read_text("utf-8"))["Models"]
        for model in listed:
            if model["Config"] == f"configs/{file}" and "Weights" in model:
                return model["Weights"]
    fail(f"--weights coco: mmdet lists no weights for {file or 'this configuration'}")


def fetch(url: str) -> Path:
    """Downloads weights once; the hash that ends their name is checked. (cspnext-*.pth carry none.)"""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.exists() and world() > 1:  # not every process downloading
        fail(f"{path.name} is not in {path.parent}; begin once without torchrun to get it")
    if not path.exists():
        end = path.stem.rsplit("-", 1)[-1]
        hashed = end if len(end) == 8 and all(c in "0123456789abcdef" for c in end) else None
        path.parent.mkdir(parents=True, exist_ok=True)
        say(f"Downloading {url} into {path.parent} ...")
        if not hashed:
            warn(f"{path.name}: its name carries no hash, so what comes cannot be checked")
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=hashed)
        except (OSError, RuntimeError) as error:
            fail(f"could not download {url} ({error}); put {path.name} into {path.parent} by hand, or --weights none")
    return path


# ---- python models.py -------------------------------------------------------------------------------------------------


def quiet() -> None:
    """Keeps the libraries' warnings of their own old-fashioned calls from the terminal."""
    warnings.filterwarnings("ignore", module=r"mmengine|mmdet|mmcv|torch\.(functional|utils\.data)")


@functools.cache
def format_each_text_once() -> None:
    """mmengine lays out the text of a run's configuration anew for each checkpoint and log, which takes up to seconds: here
    each text is laid out once."""
    lay_out, known = mmengine.config.config.FormatCode, {}

    def remembered(text: str, **options):
        if text not in known:
            known[text] = lay_out(text, **options)
        return known[text]

    mmengine.config.config.FormatCode = remembered


def make_network(config: Config) -> torch.nn.Module:
    """-> the network that a configuration describes, with random weights."""
    quiet()
    init_default_scope("mmdet")
    return MODELS.build(config.model)


def count_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def main(argv=None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("arch", nargs="?", help="show this one's configuration")
    parser.add_argument("size", nargs="?", choices=SIZES, default="tiny")
    args = parser.parse_args(argv)
    classes = tuple(f"class{i}" for i in range(20))
    if args.arch:
        print(build(args.arch, args.size, classes, "voc2007").pretty_text)
        return
    print(f"{'arch':<13}{'size':<6}{'parameters':>12}  family      (20 classes)")
    for arch, family in FAMILIES.items():
        for size in SIZES:
            network = make_network(build(arch, size, classes, "voc2007"))
            print(f"{arch:<13}{size:<6}{count_parameters(network):>12,}  {family}")


if __name__ == "__main__":
    main()
