"""Trains an object detector with MMDetection: Pascal VOC, your own folder, or the built-in sample (course 7-5, 7-7 to 7-9).

    python train.py                                            # VOC2007, or the sample without internet access
    python train.py --arch fcos --size tiny --data sample      # mAP50 above 0.7 on two CPU cores in under five minutes
    torchrun --nproc-per-node 2 -- train.py --data voc0712     # the same on two processes

Writes a run folder (runs/ARCH-SIZE-DATA): args.json, config.py, metrics.csv, last.pth, best.pth, and a folder for each start
with mmengine's log, its numbers as JSON lines, and TensorBoard events. `python test.py` then measures the newest run on the
test split; `python analyze_log.py` draws its curves.
"""

import argparse
import contextlib
import io
import logging
import time
from importlib.metadata import version
from pathlib import Path

import mmengine.device
import torch
from mmengine import Config
from mmengine.runner import Runner

import datasets
import models
import plugins
import utils
from utils import fail, rank, say, world


def make_parser() -> argparse.ArgumentParser:
    parser = utils.Parser(description=__doc__)
    whole, rate = utils.Number(int, 1), utils.Number(float, 0, above=True)
    data = parser.add_argument_group("data and network")
    data.add_argument("--data", default="auto", help=datasets.DATA_HELP)
    data.add_argument("--data-root", default="data", metavar="DIR", help="where data lies (default: %(default)s)")
    utils.add_mirror_flag(data)
    data.add_argument("--limit", type=whole, metavar="N", help="use only the first N pictures of train and of val")
    data.add_argument("--classes", metavar="NAMES", help="only these, with commas between: cat,dog")
    data.add_argument("--no-val", action="store_true", help="train on the validation part too and keep the last epoch")
    data.add_argument("--arch", default="fcos", help=f"one of {', '.join(models.FILES)} (default: %(default)s)")
    data.add_argument("--size", choices=("auto", *models.SIZES), default="auto", help="auto: full on a GPU, else tiny")
    data.add_argument("--config", metavar="FILE", help="a config.py of a run, or any of mmdet's, in place of --arch")
    data.add_argument("--weights", default="auto", help="none, imagenet, coco, or a file (auto: imagenet if full)")
    recipe = parser.add_argument_group("recipe (defaults: the configuration's own)")
    recipe.add_argument("--epochs", type=whole, help="the schedule is stretched to them")
    recipe.add_argument("--patience", type=whole, metavar="N", help="stop after N epochs without a better one")
    recipe.add_argument("--batch-size", type=whole, help="pictures a step and process; the learning rate follows it")
    recipe.add_argument("--lr", type=rate, help="learning rate, as it is")
    recipe.add_argument("--image-size", type=whole, metavar="N", help="tiny: the longer side (320; 160 on the sample)")
    run = parser.add_argument_group("run")
    run.add_argument("--run", metavar="DIR", help="run folder (default: runs/ARCH-SIZE-DATA, numbered if taken)")
    more = "go on with the run in DIR, by its own config.py; --epochs trains longer"
    run.add_argument("--resume", metavar="DIR", help=more)
    run.add_argument("--quick", action="store_true", help="smoke run of seconds: 16 pictures, one epoch")
    seeds = utils.Number(int, 0, 2**32 - 1)
    run.add_argument("--seed", type=seeds, default=0, help="seed of everything random (default: %(default)s)")
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: %(default)s"
    )
    machine.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast, on a GPU")
    machine.add_argument(
        "--workers", type=utils.Number(int, 0, 256), help="processes that read pictures (tiny: 0, full: 2 to 10)"
    )
    return parser


def parse(argv=None) -> argparse.Namespace:
    args = utils.parse_args(make_parser(), argv)
    if args.resume and not (Path(args.resume) / "config.py").is_file():
        fail(f"--resume {args.resume}: no config.py there, so this is not a run folder")
    if args.patience and args.no_val:
        fail("--patience needs the validation that --no-val leaves out")
    if args.quick and not args.resume:
        args.data, args.limit = ("sample" if args.data == "auto" else args.data), args.limit or 16
        args.epochs, args.batch_size = args.epochs or 1, args.batch_size or 8
    return args


def make_config(args: argparse.Namespace, device: torch.device) -> tuple[Config, datasets.Data]:
    """-> the configuration that the flags ask for, and its data; `args` is completed with what `auto` came to."""
    if args.precision == "bf16" and device.type != "cuda":
        fail("--precision bf16: mmengine has mixed precision for GPUs only; leave it out here")
    if args.config and args.data == "auto":
        found = read_config(args.config).test_dataloader.dataset
        args.data, args.data_root = found.get("data", args.data), found.get("root", args.data_root)
    data = load_data(args)
    args.data = data.name
    args.size = ("full" if device.type == "cuda" else "tiny") if args.size == "auto" else args.size
    names = ("limit", "no_val", "weights", "epochs", "batch_size", "lr", "image_size", "seed", "precision", "workers")
    options = {name: getattr(args, name) for name in names}
    if args.config:
        config = models.adapt(read_config(args.config), data.classes, args.data, args.data_root, **options)
    else:
        options["coco_file"] = models.FILES.get(args.arch, (None, None))[1] if args.size == "full" else None
        config = models.build(args.arch, args.size, data.classes, args.data, args.data_root, **options)
    args.epochs = config.train_cfg.max_epochs
    return config, data


def read_config(path: str) -> Config:
    try:
        config = Config.fromfile(path)
    except Exception as error:  # a configuration is Python, so anything can be wrong with it
        fail(f"--config {path}: cannot be read ({type(error).__name__}: {error})")
    if not {"model", "train_dataloader", "val_dataloader", "test_dataloader", "train_cfg", "optim_wrapper"} <= set(
        config
    ):
        fail(f"--config {path}: not the whole configuration of a detector (model, train_dataloader, train_cfg, ...)")
    return config


def name_of(args: argparse.Namespace) -> str:
    network = Path(args.config).stem if args.config else f"{args.arch}-{args.size}"
    return f"{network}-{Path(args.data).name}"


def make_runner(config: Config, run: Path, device: torch.device) -> Runner:
    """-> mmengine's Runner, which builds everything from the configuration and owns the loop."""
    config.work_dir = str(run)
    config.experiment_name = (
        f"{run.name}-{time.monotonic_ns()}"  # of one name, runs in one process would share their logs
    )
    mmengine.device.utils.DEVICE = device.type  # mmengine chooses at import and has no setting for it
    config.launcher = "pytorch" if world() > 1 else "none"
    if world() > 1 and device.type == "cpu":  # without this it would look for a GPU for each process
        config.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None}
    models.quiet()
    models.format_each_text_once()
    with contextlib.redirect_stdout(io.StringIO()):  # its hundreds of lines are for its log file, here and later
        runner = Runner.from_cfg(Config(config.to_dict()))
    for handler in runner.logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)
    (run / f"{runner.timestamp}.py").unlink(missing_ok=True)  # the same lies in vis_data/config.py
    return runner


def load_data(args: argparse.Namespace) -> datasets.Data:
    """The data set of --data, with --classes in the data's own order."""
    data, wanted = datasets.load(args.data, args.data_root), datasets.names_in(args.classes)
    if not wanted:
        return data
    return data.of(
        [name for name in data.classes if name in wanted] + [name for name in wanted if name not in data.classes]
    )


def make_split(data: datasets.Data, args: argparse.Namespace) -> dict:
    """Which pictures train, validate and test, by content and by name: split.json."""
    train, val = data.part("train+val" if args.no_val else "train"), [] if args.no_val else data.part("val")
    parts = {"train": train[: args.limit], "val": val[: args.limit], "test": data.parts.get("test", [])}
    split = {"data": data.name, "own": data.own} | {part: datasets.samples_of(items) for part, items in parts.items()}
    used = {*parts["train"], *parts["val"]}
    split["unused"] = datasets.samples_of([item for item in (*train, *val) if item not in used])
    return split | {"labels": {part: datasets.labels_of(parts[part]) for part in ("train", "val")}}


def refuse_other_labels(run: Path, split: dict) -> None:
    """utils.open_run compares the pictures of a resumed run; this compares what is said of them."""
    path = run / "split.json"
    before = utils.read_json(path).get("labels", {}) if path.exists() else {}
    for part, mark in before.items():
        if mark != split["labels"][part]:
            fail(f"--resume {run}: the data are not those of the run: annotations of the {part} part have changed")


def resumed_config(args: argparse.Namespace, run: Path) -> tuple[Config, bool]:
    """-> the configuration of a run that goes on, and whether there is nothing left to do."""
    config, done = read_config(str(run / "config.py")), 0
    args.epochs = args.epochs or config.train_cfg.max_epochs
    for name in ("train", "val", "test"):
        if config[f"{name}_dataloader"]:
            models.set_workers(config[f"{name}_dataloader"], args.workers)
    if (run / "last.pth").exists():
        done = utils.load_checkpoint(run / "last.pth")["meta"]["epoch"]
        config.load_from, config.resume = str(run / "last.pth"), True
    finished = utils.is_finished(run, args, done, stopped=plugins.is_enough(read_metrics(run), args.patience))
    if args.epochs != config.train_cfg.max_epochs:
        models.set_epochs(config, args.epochs)
    return config, finished


def read_metrics(run: Path) -> list[dict]:
    if not (run / "metrics.csv").exists():
        return []
    rows = [line.split(",") for line in (run / "metrics.csv").read_text("utf-8").splitlines()]
    return [dict(zip(rows[0], map(float, row), strict=True)) for row in rows[1:]]


def train(args: argparse.Namespace, device: torch.device) -> Path:
    """Trains as `args` say -> the run folder."""
    config, data = (None, load_data(args)) if args.resume else make_config(args, device)
    split = make_split(data, args)
    run = utils.open_run(args, name_of(args), split)
    if args.resume:
        refuse_other_labels(run, split)
        config, finished = resumed_config(args, run)
        if finished:
            return run
    elif rank() == 0:
        utils.write_atomic(run / "config.py", config.pretty_text)
    runner = make_runner(config, run, device)
    if config.resume:  # mmengine would take what fits and go on
        saved = utils.load_checkpoint(config.load_from)["state_dict"]
        utils.load_state(utils.unwrap(runner.model), saved, config.load_from, config.model.type)
    next(hook for hook in runner.hooks if isinstance(hook, plugins.RunFolder)).arguments = args
    count = models.count_parameters(utils.unwrap(runner.model))
    say(f"{config.model.type} ({count:,} parameters), {config.train_cfg.max_epochs} epochs; run {run}")
    say(f"{device}, {world()} process{'es' * (world() > 1)}; torch {torch.__version__}, mmdet {version('mmdet')}")
    runner.train()
    finish(run, args.patience)
    return run


def finish(run: Path, patience: int | None) -> None:
    if rank() == 0:
        history = read_metrics(run)
        best = max(history, key=lambda row: row.get("val_mAP50", row["epoch"]))
        names = ("val_mAP50", "val_mAP") if "val_mAP50" in best else ("train_loss",)
        early = f" (stopped: {patience} epochs without a better one)" if plugins.is_enough(history, patience) else ""
        say(
            f"{run.name}: {', '.join(f'{name} {best[name]:.4f}' for name in names)} in epoch {best['epoch']:.0f}{early}"
        )
        say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
        say(f"now: python test.py --run {utils.quoted(run)}; python analyze_log.py {utils.quoted(run)}")


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    with utils.processes(device):
        train(args, device)


if __name__ == "__main__":
    utils.start(main, "stopped; `python train.py --resume RUN` goes on after the last finished epoch")
