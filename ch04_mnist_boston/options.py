"""The command line of train.py, and the recipes: what --epochs, --lr and the others default to for each task and network."""

import argparse
import sys
from pathlib import Path

import datasets
import models
import tables
import utils
from utils import Number, fail, say, world

TASKS = tuple(models.MODELS)
COLUMNS = {
    "boston": ("members", "width", "features", "epochs", "batch_size", "lr", "weight_decay", "huber", "l1", "dropout"),
    "mnist": ("epochs", "batch_size", "lr", "weight_decay", "augment", "average"),
    "denoise": ("epochs", "batch_size", "lr", "weight_decay"),
}
RECIPES = {
    "boston": {
        "course": (1, 100, "plain", 200, 32, 3e-3, 1e-2, 0.0, 0.0, 0.0),
        "silu": (10, 128, "quantile", 200, 32, 3e-3, 1e-2, 0.2, 0.0, 0.1),
    },
    "mnist": {
        "cnn": (8, 128, 3e-3, 1e-2, 0.0, 0.0),
        "lenet5": (10, 128, 3e-3, 1e-2, 0.0, 0.0),
        "alexnet": (10, 128, 3e-4, 1e-2, 0.0, 0.0),
        "mlp": (15, 128, 2e-3, 1e-2, 0.0, 0.0),
        "convnet": (12, 128, 4e-3, 5e-2, 1.0, 0.998),
    },
    "denoise": {arch: (5, 64, 3e-3, 1e-4) for arch in models.MODELS["denoise"]},
}
COUNT, POSITIVE, SHARE = Number(int, 1), Number(float, 0, above=True), Number(float, 0, 1)
FEWEST_STEPS = 300  # of a run on few pictures: the recipes' epochs are for tens of thousands
SAMPLE_EPOCHS = {"mnist": 30, "denoise": 10}  # the sample has few pictures: more rounds of them
QUICK = {
    "boston": {"data": "sample", "folds": 3, "shuffles": 1, "members": 2, "epochs": 3},
    "mnist": {"data": "sample", "limit": 256, "epochs": 1, "batch_size": 64},
    "denoise": {"data": "sample", "limit": 256, "epochs": 1, "batch_size": 64},
}
DEFAULT_ARCH = {"boston": "silu", "mnist": "convnet", "denoise": "deep_skip"}


def parse(doc: str, argv=None) -> argparse.Namespace:
    """The command line of train.py, whose docstring `doc` heads its --help: the task, then that task's flags."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        say(f"{doc}\n`python train.py TASK --help` lists the flags of a task: {', '.join(TASKS)}")
        raise SystemExit(0 if words else 2)
    task = words.pop(0) if not words[0].startswith("-") else task_of_run(words)
    if task not in TASKS:
        fail(f"no task {task!r}; there are: {', '.join(TASKS)}, as the first word: python train.py mnist")
    parser = utils.Parser(f"train.py {task}", description=doc)
    parser.set_defaults(task=task)
    add_flags(parser, task)
    utils.add_common_flags(parser)
    args = utils.parse_args(parser, words)
    if args.task != task:
        fail(f"--resume {args.resume}: that is a run of {args.task}, not of {task}")
    if args.quick:
        for name, value in QUICK[task].items():
            if getattr(args, name) in (None, parser.get_default(name)) and not args.resume:
                setattr(args, name, value)
    check(args)
    return args


def task_of_run(words: list[str]) -> str | None:
    """The task of the run that `--resume DIR` names, so that it needs no other word."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--resume")
    path = Path(first.parse_known_args(words)[0].resume or "") / "args.json"
    if path.is_file():
        return utils.read_json(path).get("task")
    if any(word.startswith("--resume") for word in words):
        fail(f"--resume {path.parent}: no args.json there, so this is not a run folder")
    return None


def add_flags(parser: argparse.ArgumentParser, task: str) -> None:
    data = parser.add_argument_group("data and network")
    data.add_argument("--data", default="auto", help=tables.TABLE_HELP if task == "boston" else datasets.DATA_HELP)
    data.add_argument("--data-root", default="data", metavar="DIR", help="where data lies (default: %(default)s)")
    utils.add_mirror_flag(data)
    data.add_argument("--limit", type=COUNT, metavar="N", help="use only N training samples (boston: of each fold)")
    names = ", ".join(models.MODELS[task])
    data.add_argument("--arch", default=DEFAULT_ARCH[task], help=f"one of {names} (default: %(default)s)")
    recipe = parser.add_argument_group("recipe (defaults: the network's row of RECIPES in options.py)")
    recipe.add_argument("--epochs", type=COUNT, help="rounds of all training samples")
    recipe.add_argument("--batch-size", type=COUNT, help="samples a step, over all processes together")
    recipe.add_argument("--lr", type=POSITIVE, help="the highest learning rate of the one-cycle schedule")
    recipe.add_argument(
        "--weight-decay", type=Number(float, 0), help="pulls weights to zero (L2; AdamW's, apart from the loss)"
    )
    {"boston": add_boston_flags, "mnist": add_mnist_flags, "denoise": add_denoise_flags}[task](data, recipe)


def add_boston_flags(data, recipe) -> None:
    data.add_argument("--target", metavar="NAME", help="the column of your CSV to predict (default: its last)")
    data.add_argument("--drop", nargs="+", default=[], metavar="NAME", help="columns to leave out, such as B")
    data.add_argument("--split", choices=tables.SPLITS, default="kfold", help="default: %(default)s")
    data.add_argument(
        "--folds", type=Number(int, 2), default=10, metavar="K", help="of --split kfold (default: %(default)s)"
    )
    data.add_argument("--shuffles", type=COUNT, default=3, help="times the rows are split (default: %(default)s)")
    data.add_argument("--members", type=COUNT, help="networks that are averaged")
    data.add_argument("--width", type=COUNT, help="units of a hidden layer")
    data.add_argument("--features", choices=("plain", "quantile"), help="quantile: each column a second time, by rank")
    zero = Number(float, 0)
    huber_help = "errors beyond SIZE standard deviations of the target count by their size, not squared; 0: all squared"
    recipe.add_argument("--huber", type=zero, metavar="SIZE", help=huber_help)
    recipe.add_argument("--l1", type=zero, help="times the sum of the weights' absolute values, added to the loss")
    recipe.add_argument("--dropout", type=Number(float, 0, 0.99), help="share of hidden units silenced in a step")
    recipe.add_argument(
        "--patience", type=Number(int, 0), default=0, metavar="N",
        help="early stopping: a tenth of a fold's training rows validates, each network keeps its best epoch, and the fold "
        "ends after N epochs without a better one (default: 0, no early stopping: all rows train, to the last epoch)",
    )  # fmt: skip


def add_mnist_flags(data, recipe) -> None:
    size_help = "side in pixels (default: 28; alexnet: 224)"
    data.add_argument("--image-size", type=Number(int, 12, 1024), metavar="N", help=size_help)
    recipe.add_argument("--augment", type=Number(float, 0, 5), help="strength of random turns, shifts, scales; 0: none")
    recipe.add_argument(
        "--average", type=Number(float, 0, 0.999999), help="decay of the weights' running average; 0: none"
    )
    recipe.add_argument(
        "--balance", action="store_true", help="rare classes count as much as frequent ones in the loss"
    )
    add_picture_flags(data, recipe)


def add_denoise_flags(data, recipe) -> None:
    noise_help = "its standard deviation; white is 1 (default: %(default)s)"
    data.add_argument("--noise", type=Number(float, 0, 10), default=0.5, help=noise_help)
    add_picture_flags(data, recipe)


def add_picture_flags(data, recipe) -> None:
    data.add_argument("--weights", metavar="FILE", help="start from these: a .safetensors file, or a run's best.pt")
    recipe.add_argument("--patience", type=COUNT, metavar="N", help="stop after N epochs without a better validation")


def check(args: argparse.Namespace) -> None:
    """Refuses what would only fail later, or be ignored in silence."""
    if args.arch not in RECIPES[args.task]:
        models.build(args.task, args.arch)  # says which names there are
    if args.task == "boston" and (world() > 1 or args.compile or args.precision != "fp32"):
        fail("boston's networks are tiny: it has no use for torchrun, --compile or --precision bf16")
    if args.task == "mnist" and args.image_size is None:
        args.image_size = 224 if args.arch == "alexnet" else 28


def fill_in_recipe(args: argparse.Namespace, data_name: str, own: bool = False, count: int = 50_000) -> None:
    """Gives every flag of the recipe that was not set its value from RECIPES, and names the data that `auto` found.

    `count` training pictures: few of them get smaller batches, and as many epochs as make FEWEST_STEPS.
    """
    recipe = dict(zip(COLUMNS[args.task], RECIPES[args.task][args.arch], strict=True))
    if data_name == "sample" and not own and args.task in SAMPLE_EPOCHS:
        recipe |= {"epochs": SAMPLE_EPOCHS[args.task], "batch_size": 64}
    elif args.task != "boston":
        recipe["batch_size"] = min(recipe["batch_size"], max(8, count // 8))
        batch = min(args.batch_size or recipe["batch_size"], count)
        recipe["epochs"] = max(recipe["epochs"], -(-FEWEST_STEPS // (count // batch)))
    if args.task != "boston":  # which trains on one process
        recipe["batch_size"] = max(1, recipe["batch_size"] // world()) * world()
    for name, value in recipe.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.batch_size % world():
        fail(f"--batch-size {args.batch_size} cannot be shared evenly by {world()} processes")
    if count < world():
        fail(f"{count} training pictures are too few for {world()} processes")
    if args.data == "auto":
        args.data = data_name
