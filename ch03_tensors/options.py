"""The command line of train.py: its flags, their defaults by problem, and what is said of a wrong one.

python train.py --help
python train.py --problem spirals --init best      # says which initialisations there are
"""

import argparse

import datasets
import models
import utils
from optimizers import OPTIMIZERS, SCHEDULES
from utils import Number, fail

# What --arch, --epochs and --batch-size default to.
RECIPES = {"line": ("line", 40, 40), "curve": ("mlp", 300, 40), "spirals": ("mlp", 300, 40)}


def parse(description: str, argv: list[str] | None = None) -> argparse.Namespace:
    """-> all arguments of train.py, checked and filled in; of a resumed run, the saved ones under those given now."""
    parser = utils.Parser(description=description)
    count, positive = Number(int, 1), Number(float, 0, above=True)
    data = parser.add_argument_group("problem and model")
    data.add_argument("--problem", default="line", help=f"one of {', '.join(datasets.PROBLEMS)} (default: %(default)s)")
    data.add_argument("--data", default="auto", help=datasets.DATA_HELP)
    data.add_argument("--limit", type=count, metavar="N", help="use only N training samples")
    data.add_argument("--raw", action="store_true", help="do not bring inputs and targets to mean 0, deviation 1")
    data.add_argument("--arch", help=f"one of {', '.join(models.MODELS)} (default: line for the line, else mlp)")
    data.add_argument("--init", default="torch", help=f"one of {', '.join(models.INITS)} (default: %(default)s)")
    recipe = parser.add_argument_group("recipe (defaults by problem: RECIPES here, RATES in optimizers.py)")
    recipe.add_argument("--optimizer", default="adam", help=f"one of {', '.join(OPTIMIZERS)} (default: %(default)s)")
    recipe.add_argument("--epochs", type=count, help="rounds of all training samples")
    recipe.add_argument(
        "--batch-size", type=Number(int, 0), metavar="N", help="0: all samples at once; 1: one at a time"
    )
    recipe.add_argument("--lr", type=positive, help="the learning rate at the start")
    recipe.add_argument(
        "--weight-decay", type=Number(float, 0), default=0.0, help="L2 regularisation (default: %(default)s)"
    )
    recipe.add_argument("--schedule", choices=SCHEDULES, default="constant", help="default: %(default)s")
    recipe.add_argument(
        "--visdom",
        nargs="?",
        const="http://127.0.0.1:8097",
        metavar="ADDRESS",
        help="draw to a Visdom server too (without ADDRESS: %(const)s)",
    )
    utils.add_common_flags(parser)
    args = utils.parse_args(parser, argv)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Ends the program at the first wrong argument, before anything is written; fills in the problem's recipe."""
    if args.problem not in RECIPES:
        fail(f"no problem is called {args.problem!r}; there are: {', '.join(RECIPES)}")
    for optimizer in args.optimizer.split(","):
        if optimizer not in OPTIMIZERS:
            fail(f"no optimizer is called {optimizer!r}; there are: {', '.join(OPTIMIZERS)}")
    for init in args.init.split(","):
        if init not in models.INITS:
            fail(f"no initialisation is called {init!r}; there are: {', '.join(models.INITS)}")
    arch, epochs, batch_size = RECIPES[args.problem]
    args.arch = args.arch or arch
    models.build(args.arch, 1, 1)  # says which names there are
    defaults = {"epochs": 1 if args.quick else epochs, "batch_size": batch_size, "limit": 80 if args.quick else None}
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.resume and "," in args.optimizer + args.init:
        fail("--resume goes on with one run; give it one of the folders inside a comparison")
