"""The command line of train.py, and the recipes: what --epochs, --lr and the others default to for each architecture."""

import argparse

import models
import utils
from datasets import add_data_flags
from text import TOKENIZERS
from utils import Number, fail

COLUMNS = ("tokenizer", "epochs", "batch_size", "lr", "weight_decay", "dim", "hidden", "dropout", "word_dropout")
RECIPES = {
    "fasttext": ("char", 4, 256, 3e-3, 0.0, 2, 650_000, 0.0, 0.6),
    "textcnn": ("char", 5, 128, 2e-3, 1e-2, 64, 64, 0.5, 0.1),
    "lstm": ("jieba", 5, 128, 2e-3, 1e-2, 64, 64, 0.5, 0.1),
    "bilstm": ("char", 5, 128, 2e-3, 1e-2, 64, 64, 0.5, 0.1),
    "rcnn": ("char", 5, 128, 2e-3, 1e-2, 64, 64, 0.5, 0.1),
    "han": ("jieba", 5, 128, 2e-3, 1e-2, 64, 32, 0.5, 0.1),
    "transformer": ("char", 8, 128, 1e-3, 1e-2, 64, 128, 0.1, 0.1),
}
SAMPLE = {"epochs": 10, "batch_size": 32, "dropout": 0.1, "word_dropout": 0.0}  # few short texts, each word counts


def parse(doc: str, argv=None) -> argparse.Namespace:
    """The command line of train.py, whose docstring `doc` heads its --help."""
    parser = utils.Parser(description=doc)
    count, share = Number(int, 1), Number(float, 0, 0.99)
    data = parser.add_argument_group("data and network")
    add_data_flags(data)
    data.add_argument("--tokenizer", choices=TOKENIZERS, help="default: the architecture's, in RECIPES in options.py")
    data.add_argument(
        "--stop-words", default="none", metavar="none|hit|FILE", help="words to leave out (default: none)"
    )
    data.add_argument(
        "--max-words", type=Number(int, 100), default=20_000, help="size of the vocabulary (default: %(default)s)"
    )
    data.add_argument("--min-count", type=count, default=2, help="rarer words are <unk> (default: %(default)s)")
    data.add_argument(
        "--max-length", type=count, default=128, help="tokens of a text that are read (default: %(default)s)"
    )
    data.add_argument("--limit", type=count, metavar="N", help="use only N training texts")
    data.add_argument("--arch", default="textcnn", help=f"one of {', '.join(models.MODELS)} (default: %(default)s)")
    data.add_argument("--weights", metavar="FILE", help="start from these, with their vocabulary and tokenizer")
    recipe = parser.add_argument_group("recipe (defaults: the architecture's row of RECIPES in options.py)")
    recipe.add_argument("--epochs", type=count, help=f"on the sample the default is {SAMPLE['epochs']}")
    recipe.add_argument("--batch-size", type=count, help="texts a step, over all processes together")
    recipe.add_argument(
        "--lr", type=Number(float, 0, above=True), help="the highest learning rate of the one-cycle schedule"
    )
    recipe.add_argument("--weight-decay", type=Number(float, 0), help="pulls weights to zero (L2)")
    recipe.add_argument("--dim", type=count, help="numbers an embedding")
    recipe.add_argument("--hidden", type=count, help="units, filters; of fasttext, runs of tokens that are known")
    recipe.add_argument("--longest", type=count, default=5, help="fasttext: tokens of the longest runs (default: 5)")
    recipe.add_argument("--dropout", type=share, help="share of units silenced in a step")
    recipe.add_argument("--word-dropout", type=share, help="chance of a training token to be hidden")
    recipe.add_argument("--label-smoothing", type=share, default=0.0, help="default: %(default)s")
    utils.add_common_flags(parser)
    parser.add_argument("--bench", action="store_true", help="measure the speed instead; prints one line of JSON")
    args = utils.parse_args(parser, argv)
    if args.arch not in RECIPES:
        models.build(args.arch)  # says which names there are
    check(args)
    if args.quick:
        args.data, args.limit = ("sample" if args.data == "auto" else args.data), args.limit or 512
        args.epochs, args.batch_size = args.epochs or 1, args.batch_size or 64
    return args


def check(args: argparse.Namespace) -> None:
    if args.arch == "transformer" and args.dim and args.dim % 4:
        fail(f"--dim {args.dim}: transformer takes multiples of 4, one part for each of its heads")


def fill_in_recipe(args: argparse.Namespace, data_name: str | None = None, num_classes: int = 2) -> None:
    """Gives every flag of the recipe that was not set its value from RECIPES, and names the data that `auto` found."""
    recipe = dict(zip(COLUMNS, RECIPES[args.arch], strict=True))
    recipe["dim"] = max(recipe["dim"], num_classes)  # fasttext, being linear, needs a dimension for each class
    if data_name == "sample":
        recipe |= SAMPLE
    for name, value in recipe.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.data == "auto" and data_name:
        args.data = data_name
