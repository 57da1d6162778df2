"""The command line of train.py, and the recipes: what --epochs, --lr and the others default to for each architecture."""

import argparse

import models
import utils
from datasets import DATA_HELP
from optimizers import OPTIMIZERS, SCHEDULES
from utils import fail

COLUMNS = ("epochs", "batch_size", "optimizer", "lr", "weight_decay", "schedule", "label_smoothing", "crop", "cutout")
RECIPES = {
    "lenet5": (40, 128, "adamw", 3e-3, 1e-2, "onecycle", 0.0, 2, 0),
    "alexnet": (40, 128, "adamw", 1e-3, 5e-2, "onecycle", 0.1, 4, 8),
    "vgg": (60, 256, "sgd", 0.1, 5e-4, "onecycle", 0.1, 4, 8),
    "resnet": (60, 256, "sgd", 0.1, 5e-4, "onecycle", 0.1, 4, 8),
    "mobilenet": (36, 128, "sgd", 0.2, 5e-4, "onecycle", 0.0, 4, 0),
    "inception": (60, 128, "sgd", 0.1, 5e-4, "onecycle", 0.1, 4, 8),
    "resnet18": (100, 512, "sgd", 0.4, 5e-4, "onecycle", 0.1, 4, 8),
    "resnet50": (100, 512, "sgd", 0.4, 5e-4, "onecycle", 0.1, 4, 8),
    "torchvision_resnet18": (60, 256, "sgd", 0.1, 5e-4, "onecycle", 0.1, 4, 8),
    "fastnet": (10, 1000, "muon", 0.12, 0.0, "linear", 0.2, 2, 0),
}
SMALL_FIRST = {"fastnet": (24, 0.3)}  # pictures of 24 pixels for the first 3 of 10 epochs: half the work each
SAMPLE_EPOCHS = 14  # enough for the sample's simple pictures


def parse(doc: str, argv=None) -> argparse.Namespace:
    """The command line of train.py, whose docstring `doc` heads its --help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group("data and network")
    data.add_argument("--data", default="auto", help=DATA_HELP)
    data.add_argument("--data-root", default="data", metavar="DIR", help="where CIFAR-10 lies (default: %(default)s)")
    data.add_argument("--image-size", type=int, metavar="N", help="side in pixels (default: 32; your own folder: 64)")
    data.add_argument("--loader", choices=("tensor", "files"), default="tensor", help="files: for data beyond memory")
    data.add_argument("--limit", type=int, metavar="N", help="use only N training pictures")
    data.add_argument("--no-val", action="store_true", help="train on the validation part too and keep the last epoch")
    data.add_argument("--arch", default="resnet", help=f"one of {', '.join(models.MODELS)} (default: %(default)s)")
    data.add_argument("--weights", metavar="FILE", help="start from these (a head of other classes: afresh)")
    data.add_argument("--pretrained", action="store_true", help="torchvision_resnet18: start from ImageNet weights")
    recipe = parser.add_argument_group("recipe (defaults: the architecture's row of RECIPES in options.py)")
    recipe.add_argument("--epochs", type=int, help=f"on the sample the default is {SAMPLE_EPOCHS}")
    recipe.add_argument("--batch-size", type=int, help="pictures a step, over all processes together")
    recipe.add_argument("--optimizer", choices=OPTIMIZERS)
    recipe.add_argument("--lr", type=float, help="the highest learning rate of the schedule")
    recipe.add_argument("--weight-decay", type=float)
    recipe.add_argument("--schedule", choices=SCHEDULES)
    recipe.add_argument("--label-smoothing", type=float)
    recipe.add_argument("--crop", type=int, help="random shifts by up to so many pixels")
    recipe.add_argument("--cutout", type=int, help="side of a square that is blanked")
    recipe.add_argument("--colour", type=float, default=0.0, help="random change of brightness and contrast, 0 to 1")
    recipe.add_argument("--no-flip", action="store_true", help="do not mirror pictures: digits, letters, traffic signs")
    utils.add_common_flags(parser)
    parser.add_argument("--bench", action="store_true", help="measure the speed instead; prints one line of JSON")
    args = utils.parse_args(parser, argv)
    if args.arch not in RECIPES:
        models.build(args.arch)  # says which names there are
    if args.pretrained and args.arch != "torchvision_resnet18":
        fail(f"--pretrained: there are ImageNet weights for torchvision_resnet18 only, not for {args.arch}")
    for name in ("epochs", "batch_size", "lr", "limit", "image_size"):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            fail(f"--{name.replace('_', '-')} {getattr(args, name)}: must be above 0")
    if args.quick:
        args.data, args.limit = ("sample" if args.data == "auto" else args.data), args.limit or 256
        args.epochs, args.batch_size = args.epochs or 1, args.batch_size or 64
    return args


def fill_in_recipe(args: argparse.Namespace, data_name: str) -> None:
    """Gives every flag of the recipe that was not set its value from RECIPES, and names the data that `auto` found."""
    recipe = dict(zip(COLUMNS, RECIPES[args.arch], strict=True))
    if data_name == "sample":  # few and simple pictures: fewer epochs of smaller batches, at the rate that suits those
        share = min(1.0, 64 / recipe["batch_size"])
        recipe |= {"epochs": SAMPLE_EPOCHS, "lr": share * recipe["lr"]}
        recipe["batch_size"] = round(share * recipe["batch_size"])
    for name, value in recipe.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.data == "auto":
        args.data = data_name
