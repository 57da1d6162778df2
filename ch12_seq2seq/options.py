"""The command line of train.py, and the recipes: what --epochs, --lr and the others default to for each architecture.

A recipe is laid out in steps: few pairs are trained for more epochs, in smaller batches, than the recipe says.
"""

import argparse
import math

import models
import utils
from datasets import TokenBatches, add_data_flags
from utils import Number, fail

COLUMNS = ("epochs", "batch_size", "lr", "weight_decay", "warmup", "label_smoothing")
RECURRENT = (12, 2000, 2e-3, 0.01, 0.05, 0.1)
RECIPES = dict.fromkeys(models.MODELS, RECURRENT) | {"transformer": (24, 2000, 1.5e-3, 0.01, 0.1, 0.1)}
SIZES = ("width", "hidden", "layers", "decoder_layers", "heads", "feedforward", "dropout")  # what MODELS may say
SAMPLE = {"width": 128, "hidden": 256, "heads": 4, "layers": 2, "decoder_layers": 2, "feedforward": 256, "dropout": 0.1}
LEAST_STEPS = 600  # of a training, whatever the number of pairs
SAMPLE_EPOCHS = 5  # of small networks: its sentences are short and its words few


def parse(doc: str, argv=None) -> argparse.Namespace:
    """The command line of train.py, whose docstring `doc` heads its --help."""
    parser = utils.Parser(description=doc)
    add_data_group(parser)
    network = parser.add_argument_group("network (sizes default to those in models.py, on the sample to smaller ones)")
    network.add_argument("--arch", default="general", help=f"{', '.join(models.MODELS)} (default: %(default)s)")
    for name in SIZES:
        kind = Number(float, 0, 0.99) if name == "dropout" else Number(int, 1)
        network.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help="size")
    add_recipe_group(parser)
    utils.add_common_flags(parser)
    parser.add_argument("--bench", action="store_true", help="measure the speed instead; prints one line of JSON")
    args = utils.parse_args(parser, argv)
    args.data = args.data[0] if isinstance(args.data, list) and len(args.data) == 1 else args.data
    check(args)
    if args.quick and args.resume is None:
        args.data, args.limit = ("sample" if args.data == "auto" else args.data), args.limit or 300
        args.epochs = args.epochs or 1
    return args


def add_data_group(parser: argparse.ArgumentParser) -> None:
    data, count = parser.add_argument_group("data"), Number(int, 1)
    add_data_flags(data)
    data.add_argument(
        "--chinese", choices=("chars", "jieba"), default="chars", help="its tokens (default: %(default)s)"
    )
    data.add_argument("--script", choices=("simplified", "as-is"), default="simplified", help="default: %(default)s")
    pieces = (
        "pieces that SentencePiece cuts both sides into; two numbers: source and target, 0 for words (default: words)"
    )
    data.add_argument("--subwords", type=Number(int, 0), nargs="+", metavar="N", help=pieces)
    data.add_argument("--min-count", type=count, default=2, help="rarer words are <unk> (default: %(default)s)")
    data.add_argument("--max-length", type=count, default=50, help="longer pairs do not train (default: %(default)s)")
    data.add_argument("--limit", type=count, metavar="N", help="use only N training pairs")


def add_recipe_group(parser: argparse.ArgumentParser) -> None:
    recipe = parser.add_argument_group("recipe (defaults: the architecture's row of RECIPES in options.py)")
    count, share, positive = Number(int, 1), Number(float, 0, 0.99), Number(float, 0, above=True)
    recipe.add_argument("--epochs", type=count, help=f"default: of few pairs as many as make {LEAST_STEPS} steps")
    recipe.add_argument("--batch-size", type=count, help="target tokens a step, over all processes together")
    recipe.add_argument("--lr", type=positive, help="the highest learning rate of the schedule")
    recipe.add_argument("--weight-decay", type=Number(float, 0), help="pulls matrices to zero (L2)")
    rise = "share of the training in which the rate rises; then it falls to 0"
    recipe.add_argument("--warmup", type=share, help=rise)
    recipe.add_argument("--label-smoothing", type=share, help="share of the truth that all words get alike")
    norm = "largest norm of the gradient (default: %(default)s)"
    recipe.add_argument("--clip", type=positive, default=1.0, help=norm)
    forced = (
        "share of the batches that are given the right tokens, the others go on from the network's own; a second number is "
        "the share at the end (default: 1)"
    )
    shares = Number(float, 0, 1)
    recipe.add_argument("--teacher-forcing", type=shares, nargs="+", default=[1.0], metavar="SHARE", help=forced)


def check(args: argparse.Namespace) -> None:
    """Ends the program with one line if a flag's value makes no sense."""
    if args.arch not in models.MODELS:
        models.build(args.arch, 9, 9)  # says which names there are
    if isinstance(args.data, list) and len(args.data) > 2:
        fail("--data: a name, a file of pairs, or two files, as in `--data pairs.en pairs.fr`")
    if args.subwords and len(args.subwords) > 2:
        fail("--subwords: one number, or two, of the source and the target")
    if args.subwords and any(0 < n < 10 for n in args.subwords):
        fail("--subwords: 10 pieces or more (0: words)")
    if len(args.teacher_forcing) > 2:
        fail("--teacher-forcing: one or two shares from 0 to 1, as in `--teacher-forcing 1 0.5`")
    sizes = models.MODELS[args.arch][1]
    for name in SIZES:
        if getattr(args, name) is not None and name not in sizes:
            fail(f"--{name.replace('_', '-')}: a {args.arch} has no such size; it has {', '.join(sizes)}")
    if args.hidden and args.hidden % 2:
        fail(f"--hidden {args.hidden}: must be even, half of it for each direction of the encoder")
    if (heads := args.heads or sizes.get("heads")) and args.width and (args.width % heads or args.width % 2):
        fail(f"--width {args.width}: must be even and a multiple of the {heads} heads")


def subwords_of(args: argparse.Namespace) -> tuple[int | None, int | None]:
    """-> pieces of the source and of the target; None: words."""
    both = args.subwords or [0]
    return both[0] or None, both[-1] or None


def fill_in_recipe(args: argparse.Namespace, data_name: str, batches: TokenBatches) -> None:
    """Gives every flag of the recipe that was not set its value, for so many training pairs; names the data of `auto`."""
    recipe = dict(zip(COLUMNS, RECIPES[args.arch], strict=True))
    sizes = {name: size for name, size in models.MODELS[args.arch][1].items() if name in SIZES}
    tokens = int(batches.lengths[:, 1].sum())
    recipe["batch_size"] = min(recipe["batch_size"], max(1, tokens // 8))
    if data_name == "sample":
        recipe |= {"epochs": SAMPLE_EPOCHS, "lr": 2e-3, "label_smoothing": 0.0}
        sizes |= {name: SAMPLE[name] for name in sizes}
    else:
        steps = max(1, tokens // (args.batch_size or recipe["batch_size"]))
        recipe["epochs"] = max(recipe["epochs"], math.ceil(LEAST_STEPS / steps))
    for name, value in (recipe | sizes).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.data == "auto":
        args.data = data_name
    batches.batch_size = args.batch_size
