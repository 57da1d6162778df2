"""The command line of train.py, and the recipes: what --epochs, --lr and the others default to for each architecture."""

import argparse
import difflib
import math
from collections.abc import Callable

import utils
from datasets import DATA_HELP
from utils import fail

ENGINES = ("torchvision", "detectron2")
COLUMNS = ("epochs", "batch_size", "lr", "weight_decay", "schedule", "min_size", "max_size")
RECIPES = {
    "mini": (10, 8, 0.08, 1e-4, "cosine", [128], 256),
    "mask_rcnn_r50_fpn": (12, 16, 0.02, 1e-4, "step", [640, 672, 704, 736, 768, 800], 1333),  # Detectron2's 1x
}
MAX_NORM = 10.0  # gradients longer than this are shortened: from random weights, single steps would blow up
WARMUP = 1000  # steps at most, of all a tenth, in which the rate climbs from a thousandth to its full height


def parse(doc: str, argv=None) -> argparse.Namespace:
    """The command line of train.py, whose docstring `doc` heads its --help."""
    parser = utils.Parser(description=doc)
    whole, rate = utils.Number(int, 1), utils.Number(float, 0, above=True)
    data = parser.add_argument_group("data and network")
    data.add_argument("--engine", choices=("auto", *ENGINES), default="auto", help="auto: detectron2 where it imports")
    data.add_argument("--data", default="auto", help=DATA_HELP)
    data.add_argument("--data-root", default="data", metavar="DIR", help="where coco/ lies (default: %(default)s)")
    data.add_argument("--categories", metavar="NAMES", help="only these, with commas between: dog,cat")
    data.add_argument("--limit", type=whole, metavar="N", help="use only N training pictures, a fifth of N to validate")
    data.add_argument("--arch", default="mini", help=f"one of {', '.join(RECIPES)} (default: %(default)s)")
    what = (
        "start from: coco, the engine's own COCO weights; none; a .safetensors file; auto (default): coco for the R50"
    )
    data.add_argument("--weights", default="auto", metavar="NAME", help=f"{what} where it can be had, else none")
    recipe = parser.add_argument_group("recipe (defaults: the architecture's row of RECIPES in options.py)")
    recipe.add_argument("--epochs", type=whole)
    recipe.add_argument("--patience", type=whole, metavar="N", help="stop after N epochs without a better one")
    recipe.add_argument("--batch-size", type=whole, help="pictures a step, over all processes together")
    recipe.add_argument("--lr", type=rate, help="the highest rate for batches of 16; scaled with the batch size")
    recipe.add_argument("--weight-decay", type=utils.Number(float, 0))
    recipe.add_argument("--schedule", choices=("step", "cosine"))
    side = utils.Number(int, 32)
    recipe.add_argument("--min-size", type=side, nargs="+", metavar="N", help="shorter side; of several, one by chance")
    recipe.add_argument("--max-size", type=side, metavar="N", help="longest side in pixels")
    recipe.add_argument("--no-flip", action="store_true", help="do not mirror pictures: letters, traffic signs")
    utils.add_common_flags(parser)
    parser.add_argument("--num-gpus", type=whole, default=1, metavar="N", help="detectron2 starts N processes itself")
    args = utils.parse_args(parser, argv)
    refuse_nonsense(args)
    if args.quick and not args.resume:
        args.data, args.limit = ("sample" if args.data == "auto" else args.data), args.limit or 32
        args.epochs, args.batch_size = args.epochs or 1, args.batch_size or 8
    return args


def refuse_nonsense(args: argparse.Namespace) -> None:
    if args.arch not in RECIPES:
        close = difflib.get_close_matches(args.arch, RECIPES, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(RECIPES)}"
        fail(f"no architecture {args.arch!r}; {hint}")
    if args.compile:
        fail("--compile: a detector's shapes change with every picture, so each step would be compiled anew")
    if args.batch_size and args.batch_size % utils.world():
        fail(f"--batch-size {args.batch_size}: cannot be shared by {utils.world()} processes")


def fill_in_recipe(args: argparse.Namespace, data_name: str) -> None:
    """Gives every flag of the recipe that was not set its value from RECIPES, and names the data that `auto` found."""
    for name, value in zip(COLUMNS, RECIPES[args.arch], strict=True):
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.data == "auto":
        args.data = data_name


def rate_factor(schedule: str, steps: int) -> Callable[[int], float]:
    """-> the share of the highest rate at each step. `step`: a tenth after 2/3 and again after 8/9 of all; `cosine`: down to
    0. The same as Detectron2's schedules, warmup included (a test compares them)."""
    warmup = min(WARMUP, steps // 10)

    def plain(step: float) -> float:
        if schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * step / steps))
        return 0.1 ** sum(step >= steps * share for share in (2 / 3, 8 / 9))

    def factor(step: int) -> float:
        if step >= warmup:
            return plain(step)
        return 0.001 + (plain(warmup) - 0.001) * step / warmup

    return factor
