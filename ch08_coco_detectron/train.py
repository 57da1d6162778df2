"""Trains Mask R-CNN, with Detectron2 or with torchvision: on COCO, your own folder in its format, or the built-in sample.

    python train.py                                            # mini on COCO if it is in data/coco, else on the sample
    python train.py --data coco --arch mask_rcnn_r50_fpn       # from COCO weights where they can be had
    torchrun --nproc-per-node 2 -- train.py --engine torchvision
    python train.py --engine detectron2 --num-gpus 2 --arch mask_rcnn_r50_fpn --data coco

The loop is in torchvision_engine.py; Detectron2 brings its own, which detectron2_engine.py sets up.
Writes a run folder (runs/ARCH-DATA): args.json, metrics.csv, curves.png, TensorBoard events, best.pt, and the engine's
last checkpoint. `python test.py` then measures the newest run on the test split. The README says what to expect.
"""

from argparse import Namespace
from pathlib import Path
from types import ModuleType

import torch

import datasets
import utils
from options import fill_in_recipe, parse
from report import finish
from utils import fail, say, warn, world


def pick_engine(name: str) -> tuple[str, ModuleType]:
    """-> the engine's name and module. `auto` is Detectron2 where it imports, else torchvision."""
    if name != "torchvision":
        try:
            import detectron2_engine

            return "detectron2", detectron2_engine
        except ImportError as why:
            if name == "detectron2":
                fail(f"--engine detectron2: it does not import here ({why}); see the README, or --engine torchvision")
    import torchvision_engine

    return "torchvision", torchvision_engine


def describe(args: Namespace, data: datasets.Data, state: dict | None) -> dict:
    """-> what the network's files say of it, enough to build it again: see the engines' build()."""
    meta = {"engine": args.engine, "arch": args.arch, "categories": data.categories, "data": data.name}
    mean, std = datasets.statistics(data.splits["train"])
    meta |= {"mean": mean, "std": std, "min_size": args.min_size, "max_size": args.max_size, "frozen": False}
    return meta | {"subset": {"categories": args.categories, "limit": args.limit}} | (state or {}).get("meta", {})


def starting_weights(args: Namespace, engine: ModuleType) -> dict | None:
    """-> {"model": weights, "meta": how their network is built} for --weights, or None to start from random weights."""
    wanted, kept = args.weights, ("mean", "std", "frozen")
    if wanted == "none" or (wanted == "auto" and args.arch == "mini"):
        return None
    if wanted in ("auto", "coco"):
        if args.arch == "mini":
            fail("--weights coco: there are COCO weights for mask_rcnn_r50_fpn only")
        if world() > 1 and not engine.coco_file().exists():  # no process downloads while the others go without
            fail(f"{engine.coco_file()} is not there: start one process first, which gets it, or say --weights none")
        model = engine.coco_state()
        if model is None:
            (fail if wanted == "coco" else warn)(
                "COCO weights cannot be had, so there is only training from random weights"
            )
            return None
        return {"model": model, "meta": {name: engine.coco_meta()[name] for name in kept}}
    model, meta = utils.load_weights(wanted)
    if (meta.get("engine"), meta.get("arch")) != (args.engine, args.arch):
        fail(f"{wanted} holds a {meta.get('arch')} of {meta.get('engine')}, not a {args.arch} of {args.engine}")
    return {"model": model, "meta": {name: meta[name] for name in kept}}


def prepare(args: Namespace, engine: ModuleType) -> tuple[datasets.Data, dict, dict | None, Path]:
    """-> the data, the network's description, the weights to start from, and the run folder."""
    data = load_data(args)
    split = make_split(args, data)
    fill_in_recipe(args, data.name)
    begun = args.resume and any((Path(args.resume) / name).exists() for name in ("last.pt", "last_checkpoint"))
    if begun:
        start, meta = None, utils.load_checkpoint(Path(args.resume) / "best.pt")["meta"]
        if (meta["engine"], meta["arch"]) != (args.engine, args.arch):
            fail(f"{args.resume} holds a {meta['arch']} of {meta['engine']}, not a {args.arch} of {args.engine}")
        if meta["categories"] != data.categories:
            fail(f"--resume {args.resume}: the data are not those of the run: other categories")
    else:
        start = starting_weights(args, engine)
        meta = describe(args, data, start)
    default = f"{args.arch}-{data.name}" + "-detectron2" * (args.engine == "detectron2")
    run = utils.open_run(args, default, split)
    if args.resume:
        refuse_other_labels(run, split)
    return data, meta, start and start["model"], run


def load_data(args: Namespace) -> datasets.Data:
    """What trains and validates; of your own data also what is for the test, of which only the names are noted."""
    published = args.data in ("auto", "coco")
    parts = ("train", "val") if published else ("train", "val", "test")
    return datasets.load(args.data, args.data_root, parts, args.categories, args.limit)


def make_split(args: Namespace, data: datasets.Data) -> dict:
    """Which pictures train, validate and test, by content and by name: split.json."""
    split = {"data": args.data if data.own else data.name, "own": data.own}
    split |= {part: pictures.samples() for part, pictures in data.splits.items()}
    used = {mark for part in data.splits for mark in split[part]}
    left = {mark: name for rest in data.unused for mark, name in rest.existing().samples().items()}
    split["unused"] = {mark: name for mark, name in left.items() if mark not in used}
    data.splits.pop("test", None)
    return split | {"labels": {part: pictures.labels() for part, pictures in data.splits.items()}}


def refuse_other_labels(run: Path, split: dict) -> None:
    """utils.open_run compares the pictures of a resumed run; this compares what is annotated on them."""
    path = run / "split.json"
    before = utils.read_json(path).get("labels", {}) if path.exists() else {}
    for part, mark in before.items():
        if mark != split["labels"].get(part):
            fail(f"--resume {run}: the data are not those of the run: annotations of the {part} part have changed")


def train(args: Namespace) -> Path:
    """Trains as `args` say -> the run folder. One process of --num-gpus or of torchrun, or the only one."""
    device = utils.pick_device(args.device)
    wanted, (args.engine, engine) = args.engine, pick_engine(args.engine)
    if args.precision == "auto" and args.engine == "detectron2" and device.type != "cuda":
        args.precision = "fp32"  # its mixed precision needs CUDA
    args.precision = utils.pick_precision(args.precision, device)
    missing = wanted == "auto" and args.engine == "torchvision"
    say(f"engine: {args.engine}{', as Detectron2 does not import here' if missing else ''}")
    data, meta, state, run = prepare(args, engine)
    parts = ", ".join(f"{len(split):,} {part}" for part, split in data.splits.items())
    say(f"{args.arch} on {data.name}: {len(data.categories)} categories, {parts} pictures; run {run}")
    say(f"{device}, {args.precision}, {world()} process{'es' * (world() > 1)}; torch {torch.__version__}")
    history = engine.train(args, data, meta, run, state, device)
    if utils.rank() == 0:
        finish(run, args, history)
    return run


def main(argv=None) -> None:
    args = parse(__doc__, argv)
    utils.keep_freed_memory()
    if args.num_gpus > 1:
        args.engine, engine = pick_engine(args.engine)
        if args.engine == "torchvision":
            fail("--num-gpus is Detectron2's; for torchvision: torchrun --nproc-per-node N -- train.py ...")
        engine.launch(train, args)
    else:
        with utils.processes(utils.pick_device(args.device)):
            train(args)


if __name__ == "__main__":
    utils.start(main, "stopped; `python train.py --resume RUN` goes on after the last finished epoch")
