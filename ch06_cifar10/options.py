"""The command line of train.py, and the recipes: what --epochs, --lr and the others default to for each architecture."""

import argparse

import models
import utils
from datasets import DATA_HELP, IMAGE_SIZES, Data
from optimizers import OPTIMIZERS, SCHEDULES
from utils import Number, fail, world

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
    "vit": (100, 256, "adamw", 1e-3, 5e-2, "onecycle", 0.1, 4, 8),
    "fastnet": (10, 1000, "muon", 0.2, 0.0, "linear", 0.2, 2, 0),
}
# (until, part): until that share of the run is over, pictures are made smaller, to that part of their side. At 20 of 32
# pixels an epoch costs a third, at 24 half.
SIZES = {"fastnet": ((0.25, 20 / 32), (0.375, 24 / 32))}
SMALL_FIRST = ((0.2, 20 / 32), (0.5, 24 / 32))  # of --small-first
SAMPLE_EPOCHS = 14  # enough for the sample's simple pictures
FEWEST_STEPS = 400  # of a run on few pictures: the recipes' epochs are for tens of thousands


def parse(doc: str, argv=None) -> argparse.Namespace:
    """The command line of train.py, whose docstring `doc` heads its --help."""
    parser = utils.Parser(description=doc)
    add_data_flags(parser.add_argument_group("data and network"))
    add_recipe_flags(parser.add_argument_group("recipe (defaults: the architecture's row of RECIPES in options.py)"))
    utils.add_common_flags(parser)
    parser.add_argument("--bench", action="store_true", help="measure the speed instead; prints one line of JSON")
    args = utils.parse_args(parser, argv)
    if args.arch not in RECIPES:
        models.build(args.arch)  # says which names there are
    if args.pretrained and args.arch != "torchvision_resnet18":
        fail(f"--pretrained: there are ImageNet weights for torchvision_resnet18 only, not for {args.arch}")
    if args.no_val and args.patience:
        fail("--patience looks at the validation part, which --no-val leaves out")
    if args.quick:
        args.data, args.limit = ("sample" if args.data == "auto" else args.data), args.limit or 256
        args.epochs, args.batch_size = args.epochs or 1, args.batch_size or 64
    return args


def add_data_flags(data: argparse._ArgumentGroup) -> None:
    data.add_argument("--data", default="auto", help=DATA_HELP)
    data.add_argument("--data-root", default="data", metavar="DIR", help="where CIFAR-10 lies (default: %(default)s)")
    utils.add_mirror_flag(data)
    size_help = "side in pixels (default: 32; your own folder: 64)"
    data.add_argument("--image-size", type=IMAGE_SIZES, metavar="N", help=size_help)
    data.add_argument("--loader", choices=("tensor", "files"), default="tensor", help="files: for data beyond memory")
    data.add_argument("--limit", type=Number(int, 1), metavar="N", help="use only N training pictures")
    data.add_argument("--no-val", action="store_true", help="train on the validation part too and keep the last epoch")
    data.add_argument("--arch", default="resnet", help=f"one of {', '.join(models.MODELS)} (default: %(default)s)")
    weights_help = "start from these: a .safetensors file, or a run's best.pt (a head of other classes: afresh)"
    data.add_argument("--weights", metavar="FILE", help=weights_help)
    data.add_argument("--pretrained", action="store_true", help="torchvision_resnet18: start from ImageNet weights")


def add_recipe_flags(recipe: argparse._ArgumentGroup) -> None:
    count, positive, share = Number(int, 1), Number(float, 0, above=True), Number(float, 0, 1)
    epochs_help = f"on the sample the default is {SAMPLE_EPOCHS}; on few pictures, what makes {FEWEST_STEPS} steps"
    recipe.add_argument("--epochs", type=count, help=epochs_help)
    recipe.add_argument("--batch-size", type=count, help="pictures a step, over all processes together")
    recipe.add_argument("--optimizer", choices=OPTIMIZERS)
    recipe.add_argument("--lr", type=positive, help="the highest learning rate of the schedule")
    recipe.add_argument("--weight-decay", type=Number(float, 0), help="pulls weights to zero (L2)")
    recipe.add_argument("--schedule", choices=SCHEDULES)
    recipe.add_argument("--label-smoothing", type=share, help="share of the truth that all classes get alike")
    recipe.add_argument(
        "--balance", action="store_true", help="rare classes count as much as frequent ones in the loss"
    )
    recipe.add_argument("--patience", type=count, metavar="N", help="stop after N epochs without a better validation")
    recipe.add_argument("--crop", type=Number(int, 0), help="random shifts by up to so many pixels")
    recipe.add_argument("--cutout", type=Number(int, 0), help="side of a square that is blanked")
    recipe.add_argument("--colour", type=share, default=0.0, help="random change of brightness and contrast")
    mixup_help = "lay pictures over each other, and their labels: 0 never, 0.2 a little, 1 much (default: %(default)s)"
    recipe.add_argument("--mixup", type=Number(float, 0), default=0.0, metavar="ALPHA", help=mixup_help)
    small_help = "make pictures smaller in the first half of the run, which saves work: 20 pixels of 32, then 24"
    recipe.add_argument("--small-first", action="store_true", help=small_help)
    recipe.add_argument("--no-flip", action="store_true", help="do not mirror pictures: digits, letters, traffic signs")


def fill_in_recipe(
    args: argparse.Namespace, data: Data | None = None, image_size: int = 32, count: int = 50_000
) -> None:
    """Gives every flag of the recipe that was not set its value from RECIPES, and names the data that `auto` found.

    `count` training pictures: few of them get a smaller batch, at a lower rate, and as many epochs as make FEWEST_STEPS.
    """
    recipe = dict(zip(COLUMNS, RECIPES[args.arch], strict=True))
    is_sample = data is not None and data.name == "sample" and not data.own
    largest = 64 if is_sample else max(8, count // 8)
    share = min(1.0, largest / recipe["batch_size"])
    recipe |= {"lr": share * recipe["lr"], "batch_size": round(share * recipe["batch_size"])}
    batch = min(args.batch_size or recipe["batch_size"], count)
    recipe["epochs"] = SAMPLE_EPOCHS if is_sample else max(recipe["epochs"], -(-FEWEST_STEPS // max(1, count // batch)))
    recipe["crop"] = min(recipe["crop"], image_size // 4)
    recipe["batch_size"] = max(1, recipe["batch_size"] // world()) * world()
    for name, value in recipe.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.batch_size % world():
        fail(f"--batch-size {args.batch_size} cannot be shared evenly by {world()} processes")
    if count < world():
        fail(f"{count} training pictures are too few for {world()} processes")
    if args.crop >= image_size:
        fail(f"--crop {args.crop}: must be less than the {image_size} pixels of a side")
    if args.data == "auto" and data:
        args.data = data.name
