"""The command line of train.py, and the recipes: what --arch, --epochs, --lr and the others default to."""

import argparse

import models
import utils
from datasets import DATA_HELP, FROM_NOISE, IMAGE_SIZES
from gans import MODES
from utils import Number, fail, world

COLUMNS = ("arch", "width", "patch", "epochs", "batch_size", "lr")
RECIPES = {
    # the papers', for pictures of 128 pixels and more
    "cyclegan": ("resnet9", 64, 70, 200, 1, 2e-4),
    "pix2pix": ("unet", 64, 70, 200, 1, 2e-4),
    "dcgan": ("dcgan", 64, None, 100, 64, 2e-4),
    # below 128 pixels: fewer blocks, smaller patches, larger batches
    "cyclegan small": ("resnet6", 32, 34, 100, 8, 4e-4),
    "pix2pix small": ("unet", 32, 34, 100, 8, 4e-4),
    "dcgan small": ("dcgan", 64, None, 100, 64, 2e-4),
    "wgan_gp": ("dcgan", 64, None, 100, 64, 1e-4),
    "wgan_gp small": ("dcgan", 64, None, 100, 64, 1e-4),
    # the sample: minutes on two CPU cores
    "cyclegan sample": ("resnet3", 12, 34, 12, 4, 1e-3),
    "pix2pix sample": ("unet", 16, 34, 12, 4, 1e-3),
    "dcgan sample": ("dcgan", 16, None, 40, 16, 5e-4),
    "wgan_gp sample": ("dcgan", 16, None, 12, 16, 5e-4),
}


def parse(doc: str, argv=None) -> argparse.Namespace:
    """The command line of train.py, whose docstring `doc` heads its --help."""
    parser = utils.Parser(description=doc)
    add_data_flags(parser.add_argument_group("data and networks (defaults: the recipe's row of RECIPES in options.py)"))
    add_recipe_flags(parser.add_argument_group("recipe (defaults: the same row)"))
    utils.add_common_flags(parser)
    parser.add_argument("--bench", action="store_true", help="measure the speed instead; prints one line of JSON")
    args = utils.parse_args(parser, argv)
    if args.arch and args.arch not in models.MODELS:
        models.build(args.arch)  # says which names there are
    if args.arch and (args.arch == "dcgan") != (args.mode in FROM_NOISE):
        fail(
            f"--arch {args.arch} does not go with --mode {args.mode}: dcgan starts from noise, the others from pictures"
        )
    if args.compile and args.mode == "wgan_gp":
        fail("--compile: --mode wgan_gp needs the gradient of a gradient, which compiled networks do not have")
    if args.quick:
        args.data, args.limit = ("sample" if args.data == "auto" else args.data), args.limit or 16
        args.epochs, args.width = args.epochs or 1, args.width or 8
    return args


def add_data_flags(data: argparse._ArgumentGroup) -> None:
    count = Number(int, 1)
    data.add_argument("--mode", choices=MODES, default="cyclegan", help="what to train (default: %(default)s)")
    data.add_argument("--data", default="auto", help=DATA_HELP)
    data.add_argument("--data-root", default="data", metavar="DIR", help="where the sets lie (default: %(default)s)")
    size_help = "side in pixels (default: 256; sample and dcgan: 64)"
    data.add_argument("--image-size", type=IMAGE_SIZES, metavar="N", help=size_help)
    data.add_argument(
        "--weights", metavar="FILE", help="start from these: a .safetensors file, or a run's best.pt, last.pt"
    )
    data.add_argument("--limit", type=count, metavar="N", help="use only N training pictures of each domain")
    data.add_argument("--no-flip", action="store_true", help="do not mirror pictures: letters, traffic signs")
    data.add_argument("--arch", help=f"the generator, one of {', '.join(models.MODELS)}")
    data.add_argument("--width", type=count, metavar="N", help="channels of the first layers (the papers': 64)")
    data.add_argument("--patch", type=int, choices=models.PATCHES, help="pixels a side that the discriminator judges")
    data.add_argument("--upsample", choices=models.UPSAMPLE, default="transpose", help="resize: no checkerboards")


def add_recipe_flags(recipe: argparse._ArgumentGroup) -> None:
    count, weight = Number(int, 1), Number(float, 0)
    recipe.add_argument("--epochs", type=count, help="the learning rate falls to nothing over the second half of them")
    recipe.add_argument("--batch-size", type=count, help="pictures of each domain a step, over all processes together")
    recipe.add_argument("--lr", type=Number(float, 0, above=True), help="Adam's learning rate in the first half")
    recipe.add_argument("--weight-decay", type=weight, default=0.0, help="default: %(default)s")
    recipe.add_argument("--lambda-cycle", type=weight, default=10.0, help="weight of the cycle (default: %(default)s)")
    recipe.add_argument(
        "--lambda-identity", type=weight, default=5.0, help="of the identity loss (default: %(default)s)"
    )
    recipe.add_argument("--lambda-l1", type=weight, default=100.0, help="of pix2pix's L1 loss (default: %(default)s)")
    recipe.add_argument(
        "--pool", type=Number(int, 0), default=50, help="older fakes kept; 0: none (default: %(default)s)"
    )


def fill_in_recipe(args: argparse.Namespace, data_name: str, image_size: int, own: bool = False) -> None:
    """Gives every flag of the recipe that was not set its value from RECIPES, and names the data that `auto` found."""
    kind = " sample" if data_name == "sample" and not own else " small" if image_size < 128 else ""
    for name, value in zip(COLUMNS, RECIPES[args.mode + kind], strict=True):
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.image_size = image_size
    if args.data == "auto":
        args.data = data_name
    if args.patch and image_size < 3 * 2 ** models.PATCHES[args.patch]:
        fail(f"--patch {args.patch}: too large for pictures of {image_size} pixels; take a smaller one")
    if args.batch_size % world():
        fail(f"--batch-size {args.batch_size} cannot be shared evenly by {world()} processes")
