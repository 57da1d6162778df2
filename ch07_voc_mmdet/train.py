"""Trains an object detector with MMDetection: Pascal VOC, your own folder, or the built-in sample (course 7-5, 7-7 to 7-9).

    python train.py                                            # VOC2007, or the sample where there is no network
    python train.py --arch fcos --size tiny --data sample      # mAP50 above 0.7 on two CPU cores in under five minutes
    torchrun --nproc-per-node 2 -- train.py --data voc0712     # the same on two processes

Writes a run folder (runs/ARCH-SIZE-DATA): args.json, config.py, metrics.csv, last.pth, best.pth, and a folder for each start
with mmengine's log, its numbers as JSON lines, and TensorBoard events. `python test.py` then measures the newest run on the
test split; `python analyze_log.py` draws its curves.
"""

import argparse
import contextlib
import io
import json
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
import plugins  # noqa: F401 (it registers the data set, the metric and the hooks)
import utils
from utils import fail, rank, say, world

ANYWAY = ("resume", "device", "workers")  # flags that a resumed run takes anew; all others are the run's own


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group("data and network")
    data.add_argument("--data", default="auto", help=datasets.DATA_HELP)
    data.add_argument("--data-root", default="data", metavar="DIR", help="where data lies (default: %(default)s)")
    utils.add_mirror_flag(data)
    data.add_argument("--limit", type=int, metavar="N", help="use only the first N pictures of train and of val")
    data.add_argument("--no-val", action="store_true", help="train on the validation part too and keep the last epoch")
    data.add_argument("--arch", default="fcos", help=f"one of {', '.join(models.FILES)} (default: %(default)s)")
    data.add_argument("--size", choices=("auto", *models.SIZES), default="auto", help="auto: full on a GPU, else tiny")
    data.add_argument("--config", metavar="FILE", help="a config.py of a run, or any of mmdet's, in place of --arch")
    data.add_argument("--weights", default="auto", help="none, imagenet, coco, or a file (auto: imagenet if full)")
    recipe = parser.add_argument_group("recipe (defaults: the configuration's own)")
    recipe.add_argument("--epochs", type=int, help="the schedule is stretched to them")
    recipe.add_argument("--batch-size", type=int, help="pictures a step and process; the learning rate follows it")
    recipe.add_argument("--lr", type=float, help="learning rate, as it is")
    recipe.add_argument("--image-size", type=int, metavar="N", help="tiny: the longer side (320; 160 on the sample)")
    run = parser.add_argument_group("run")
    run.add_argument("--run", metavar="DIR", help="run folder (default: runs/ARCH-SIZE-DATA, numbered if taken)")
    run.add_argument("--resume", metavar="DIR", help="go on with the run in DIR, by its own config.py")
    run.add_argument("--quick", action="store_true", help="smoke run of seconds: 16 pictures, one epoch")
    run.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: %(default)s"
    )
    machine.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast, on a GPU")
    machine.add_argument("--workers", type=int, help="processes that read pictures (tiny: 0, full: 2 to 10)")
    return parser


def parse(argv=None) -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.resume:
        given = [name for name, value in vars(args).items() if value != parser.get_default(name) and name not in ANYWAY]
        if given:
            fail(f"--resume goes on with the run's own settings; leave out --{given[0].replace('_', '-')}")
        for name in ("args.json", "config.py"):
            if not (Path(args.resume) / name).is_file():
                fail(f"--resume {args.resume}: no {name} there, so this is not a run folder")
    for name in ("limit", "epochs", "batch_size", "lr", "image_size"):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            fail(f"--{name.replace('_', '-')} {getattr(args, name)}: must be above 0")
    if args.quick:
        args.data, args.limit = ("sample" if args.data == "auto" else args.data), args.limit or 16
        args.epochs, args.batch_size = args.epochs or 1, args.batch_size or 8
    return args


def make_config(args: argparse.Namespace, device: torch.device) -> Config:
    """-> the configuration that the flags ask for; `args` is completed with what `auto` came to."""
    if args.precision == "bf16" and device.type != "cuda":
        fail("--precision bf16: mmengine has mixed precision for GPUs only; leave it out here")
    if args.config and args.data == "auto":
        found = read_config(args.config).test_dataloader.dataset
        args.data, args.data_root = found.get("data", args.data), found.get("root", args.data_root)
    data = datasets.load(args.data, args.data_root)
    args.data = data.name
    args.size = ("full" if device.type == "cuda" else "tiny") if args.size == "auto" else args.size
    names = ("limit", "no_val", "weights", "epochs", "batch_size", "lr", "image_size", "seed", "precision", "workers")
    options = {name: getattr(args, name) for name in names}
    if args.config:
        config = models.adapt(read_config(args.config), data.classes, args.data, args.data_root, **options)
    else:
        options["coco_file"] = models.FILES.get(args.arch, (None, None))[1] if args.size == "full" else None
        config = models.build(args.arch, args.size, data.classes, args.data, args.data_root, **options)
    return config


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
    with contextlib.redirect_stdout(io.StringIO()):  # its hundreds of lines are for its log file, here and later
        runner = Runner.from_cfg(Config(config.to_dict()))
    for handler in runner.logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)
    (run / f"{runner.timestamp}.py").unlink(missing_ok=True)  # the same lies in vis_data/config.py
    return runner


def train(args: argparse.Namespace, device: torch.device) -> Path:
    """Trains as `args` say -> the run folder."""
    if args.resume:
        run = Path(args.resume)
        config = read_config(str(run / "config.py"))
        for name in ("train", "val", "test"):
            if config[f"{name}_dataloader"]:
                models.set_workers(config[f"{name}_dataloader"], args.workers)
        if (run / "last.pth").exists():
            config.load_from, config.resume = str(run / "last.pth"), True
    else:
        config = make_config(args, device)
        run = utils.new_run(args.run, name_of(args))
        if rank() == 0:
            utils.write_atomic(run / "args.json", json.dumps(vars(args), indent=1))
            utils.write_atomic(run / "config.py", config.pretty_text)
    runner = make_runner(config, run, device)
    count = models.count_parameters(utils.unwrap(runner.model))
    say(f"{config.model.type} ({count:,} parameters), {config.train_cfg.max_epochs} epochs; run {run}")
    say(f"{device}, {world()} process{'es' * (world() > 1)}; torch {torch.__version__}, mmdet {version('mmdet')}")
    runner.train()
    finish(run)
    return run


def finish(run: Path) -> None:
    if rank() == 0:
        rows = [line.split(",") for line in (run / "metrics.csv").read_text("utf-8").splitlines()]
        history = [dict(zip(rows[0], map(float, row), strict=True)) for row in rows[1:]]
        best = max(history, key=lambda row: row.get("val_mAP50", row["epoch"]))
        names = ("val_mAP50", "val_mAP") if "val_mAP50" in best else ("train_loss",)
        say(f"{run.name}: {', '.join(f'{name} {best[name]:.4f}' for name in names)} in epoch {best['epoch']:.0f}")
        say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
        say(f"now: python test.py --run {run}; python analyze_log.py {run}")


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    with utils.processes(device):
        train(args, device)


if __name__ == "__main__":
    utils.start(main, "stopped; `python train.py --resume RUN` goes on after the last finished epoch")
