"""Measures what a run of train.py learned on data it never saw, or uses it on the files you name.

    python test.py boston                          # the newest run of the task: RMSE, MAE, R2, next to scikit-learn's models
    python test.py mnist photo.jpg                 # reads a digit from a photo, with the newest run or the shipped weights
    python test.py denoise --run runs/deep-mnist   # PSNR before and after

Only this script reads the test data, and it changes nothing by it. Expect: the README's tables.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import nn

import boston
import denoise
import mnist
import models
import options
import utils
from utils import fail, say

WEIGHTS = Path(__file__).parent / "weights"
SHIPPED = {"mnist": WEIGHTS / "convnet.safetensors"}
NEEDED = {
    "mnist": {"task", "arch", "classes", "data", "mean", "std", "image_size"},
    "denoise": {"task", "arch", "data", "noise", "image_size"},
}


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("task", help=f"one of {', '.join(models.MODELS)}")
    parser.add_argument(
        "files", nargs="*", help="use the network on these instead of testing it: pictures, or CSV files"
    )
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the task's newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file or a run's best.pt (mnist, denoise)")
    parser.add_argument("--data", help="what to test on (mnist, denoise; default: the data of the training)")
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where data lies (default: %(default)s)")
    utils.add_mirror_flag(parser)
    parser.add_argument("--out", metavar="DIR", help="where results go (default: the run folder, or runs/test-ARCH)")
    parser.add_argument("--export", metavar="FILE", help="save the tested weights and their score as .safetensors")
    utils.add_device_flag(parser)
    args = parser.parse_intermixed_args(argv)
    if args.task not in models.MODELS:
        fail(f"no task {args.task!r}; there are: {', '.join(models.MODELS)}, as the first word: python test.py mnist")
    if args.task == "boston" and (args.weights or args.export or args.data):
        fail("boston is tested on the folds of its own run: --run is the only choice")
    return args


def find_run(args: argparse.Namespace) -> Path | None:
    """-> the run folder named, or the task's newest in runs/, or None."""
    if args.run is not None:
        if utils.read_arguments(args.run).get("task") != args.task:
            fail(f"--run {args.run}: no run of {args.task} (its args.json would say so)")
        return Path(args.run)
    return utils.newest_run(lambda arguments: arguments.get("task") == args.task, "last.pt")


def load_model(args: argparse.Namespace, run: Path | None, device: torch.device) -> tuple[nn.Module, dict, Path]:
    """-> the network in eval mode, what its file says of it, and the file."""
    path = Path(args.weights) if args.weights else run / "best.pt" if run else SHIPPED.get(args.task)
    if path is None:
        fail(f"no run of {args.task} in runs/ yet; first python train.py {args.task}")
    state, meta = utils.load_weights(path)
    if NEEDED[args.task] - meta.keys():
        needed = ", ".join(sorted(NEEDED[args.task]))
        fail(f"{path}: holds weights, but not of a run of {args.task} ({needed} are needed)")
    if meta["task"] != args.task:
        fail(f"{path}: weights of {meta['task']}, not of {args.task}")
    sizes = (len(meta["classes"]), meta["image_size"]) if args.task == "mnist" else ()
    model = models.build(args.task, meta["arch"], *sizes)
    utils.load_state(model, state, path, meta["arch"])
    utils.say_weights(path, meta)
    return model.to(device).eval(), meta, path


def output_folder(args: argparse.Namespace, run: Path | None, arch: str) -> Path:
    return utils.output_folder(args.out or (run if run and not args.weights else Path("runs") / f"test-{arch}"))


def test_boston(args: argparse.Namespace, run: Path | None) -> None:
    if run is None:
        fail("no run of boston in runs/ yet; first python train.py boston")
    arguments = utils.read_arguments(run)
    utils.say_weights(run, arguments)
    out = output_folder(args, run, arguments["arch"])
    if args.files:
        boston.predict_files(run, args.files, out)
    else:
        about = {name: arguments[name] for name in ("task", "arch", "data", "seed", "split")}
        write(out, boston.test(run), about)


def test_pictures(args: argparse.Namespace, run: Path | None, device: torch.device) -> None:
    task = {"mnist": mnist, "denoise": denoise}[args.task]
    model, meta, path = load_model(args, run, device)
    out = output_folder(args, run, meta["arch"])
    if args.files:
        use = {"mnist": mnist.classify, "denoise": denoise.clean_files}[args.task]
        use(args, model, meta, out, device)
        return
    saved = {} if args.weights or run is None else utils.read_arguments(run)
    args.split = {"data": meta["data"], "own": meta.get("own", False)}
    if (path.parent / "split.json").exists():  # which samples trained, and where they were
        args.split = utils.read_json(path.parent / "split.json")
    args.data = args.data or args.split["data"]
    result = task.test(args, model, meta, path, out, device)
    about = {
        "task": args.task,
        "arch": meta["arch"],
        "data": meta["data"],
        "seed": saved.get("seed"),
        "weights": str(path),
    }
    write(out, result, about)
    if args.export:
        export(args, model, meta, saved, result)


def write(out: Path, result: dict, about: dict) -> None:
    utils.write_atomic(out / "test.json", json.dumps(about | {"torch": torch.__version__} | result, indent=1))
    pictures = sorted(path.name for path in out.glob("*.png") if path.name != "curves.png")
    say(f"wrote {out}: {', '.join(['test.json', *pictures])}")


def export(args: argparse.Namespace, model: nn.Module, meta: dict, saved: dict, result: dict) -> None:
    """Saves the weights to share, with how they were made and what they score."""
    if not saved:
        fail("--export saves the weights of a run: name it with --run")
    command = utils.command_of(saved, options.parse("", [args.task]), f"python train.py {args.task}")
    score = {name: value for name, value in result.items() if isinstance(value, (int, float, str))}
    target = utils.free_name(args.export)
    utils.save_weights(target, model, **meta, command=command, score=score | {"torch": torch.__version__})
    say(f"wrote {target}: {target.stat().st_size / 1e6:.1f} MB")


def main(argv=None) -> None:
    if not (sys.argv[1:] if argv is None else argv):
        fail(f"which task? python test.py {' | '.join(models.MODELS)}")
    args = parse(argv)
    device = utils.pick_device(args.device)
    run = None if args.weights else find_run(args)
    if args.task == "boston":
        test_boston(args, run)
    else:
        test_pictures(args, run, device)


if __name__ == "__main__":
    utils.start(main)
