"""The command line of train.py, and the recipes: what --epochs, --lr and the others default to for each architecture.

A recipe is laid out in steps: a small table is trained for more epochs, of smaller batches, than the recipe says. Otherwise 800
texts in batches of 256 would be three steps an epoch, and a network that has learned nothing.
"""

import argparse
import math

import numpy as np

import models
import utils
from datasets import Corpus, add_data_flags
from text import TOKENIZERS
from utils import Number, fail

COLUMNS = ("tokenizer", "epochs", "batch_size", "lr", "weight_decay", "dim", "hidden", "dropout", "word_dropout")
RECIPES = {
    "fasttext": ("char", 4, 256, 3e-3, 0.0, 2, 650_000, 0.0, 0.4),
    "textcnn": ("jieba", 3, 128, 2e-3, 1e-2, 64, 64, 0.5, 0.1),
    "lstm": ("jieba", 5, 128, 2e-3, 1e-2, 64, 64, 0.5, 0.1),
    "bilstm": ("char", 5, 128, 2e-3, 1e-2, 64, 64, 0.5, 0.1),
    "rcnn": ("char", 5, 128, 2e-3, 1e-2, 64, 64, 0.5, 0.1),
    "han": ("jieba", 5, 128, 2e-3, 1e-2, 64, 32, 0.5, 0.1),
    "transformer": ("char", 8, 128, 1e-3, 1e-2, 64, 128, 0.1, 0.1),
}
BUILT_IN = ("auto", "weibo", "weibo_senti_100k", "sample")
LEAST_STEPS = 600  # of a training, whatever the number of texts
SMALLEST_BATCH = 16
LONGEST_TEXT = 512  # tokens that are read by default, if many texts have so many
SAMPLE = {"epochs": 10, "batch_size": 32, "dropout": 0.1, "word_dropout": 0.0}  # few short texts, each word counts


def parse(doc: str, argv=None) -> argparse.Namespace:
    """The command line of train.py, whose docstring `doc` heads its --help."""
    parser = utils.Parser(description=doc)
    data = parser.add_argument_group("data and network")
    add_data_flags(data)
    add_network_flags(data)
    add_recipe_flags(parser.add_argument_group("recipe (defaults: the architecture's row of RECIPES in options.py)"))
    utils.add_common_flags(parser)
    parser.add_argument("--bench", action="store_true", help="measure the speed instead; prints one line of JSON")
    args = utils.parse_args(parser, argv)
    args.arch = args.arch or usual_arch(args)
    if args.arch not in RECIPES:
        models.build(args.arch)  # says which names there are
    check(args)
    if args.quick:
        args.data, args.limit = ("sample" if args.data == "auto" else args.data), args.limit or 512
        args.epochs, args.batch_size = args.epochs or 1, args.batch_size or 64
    return args


def add_network_flags(data: argparse._ArgumentGroup) -> None:
    count = Number(int, 1)
    data.add_argument("--tokenizer", choices=TOKENIZERS, help="default: the architecture's, in RECIPES in options.py")
    data.add_argument(
        "--stop-words", default="none", metavar="none|hit|FILE", help="words to leave out (default: none)"
    )
    data.add_argument(
        "--max-words", type=Number(int, 100), default=20_000, help="size of the vocabulary (default: %(default)s)"
    )
    data.add_argument("--min-count", type=count, default=2, help="rarer words are <unk> (default: %(default)s)")
    data.add_argument(
        "--max-length", type=count, help="tokens of a text that are read (default: 128, for long texts more)"
    )
    data.add_argument("--limit", type=count, metavar="N", help="use only N training texts")
    data.add_argument(
        "--arch", help=f"one of {', '.join(models.MODELS)} (default: fasttext for your table, else textcnn)"
    )
    data.add_argument("--weights", metavar="FILE", help="start from these, with their vocabulary and tokenizer")
    data.add_argument("--vectors", metavar="FILE", help="start from word vectors: word2vec, GloVe or fastText, as text")


def add_recipe_flags(recipe: argparse._ArgumentGroup) -> None:
    count, share = Number(int, 1), Number(float, 0, 0.99)
    recipe.add_argument("--epochs", type=count, help=f"default: of a small table as many as make {LEAST_STEPS} steps")
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
    recipe.add_argument("--balance", action="store_true", help="all classes count alike; best epoch by macro-F1")


def usual_arch(args: argparse.Namespace) -> str:
    """Which network to begin with: that of --weights; fasttext, the best on small tables; textcnn for the built-in data and
    where word vectors are given."""
    if args.weights:
        return utils.load_weights(args.weights)[1].get("arch", "textcnn")
    return "textcnn" if args.vectors or args.data in BUILT_IN else "fasttext"


def check(args: argparse.Namespace) -> None:
    if args.arch == "transformer" and args.dim and args.dim % 4:
        fail(f"--dim {args.dim}: transformer takes multiples of 4, one part for each of its heads")
    if args.batch_size and args.batch_size < utils.world():
        fail(f"--batch-size {args.batch_size}: less than a text for each of the {utils.world()} processes")
    if args.vectors and args.weights:
        fail("--vectors and --weights: either the one or the other says what words mean at the start")


def recipe_of(args: argparse.Namespace, texts: int, lengths: np.ndarray, num_classes: int, is_sample: bool) -> dict:
    """What the flags of the recipe default to, for so many training texts of these lengths (in tokens)."""
    recipe = dict(zip(COLUMNS, RECIPES[args.arch], strict=True)) | (SAMPLE if is_sample else {})
    recipe["dim"] = max(recipe["dim"], num_classes)  # fasttext, being linear, needs a dimension for each class
    if args.arch == "fasttext":  # of this many runs none can be twice in the texts
        recipe["hidden"] = min(recipe["hidden"], max(100, 2 * int(lengths.sum())))
    recipe["max_length"] = min(LONGEST_TEXT, max(128, int(np.quantile(lengths, 0.95))))
    smaller = max(SMALLEST_BATCH, texts // 64)
    recipe["batch_size"] = max(utils.world(), min(recipe["batch_size"], smaller, max(1, texts // 8)))
    steps = max(1, texts // (args.batch_size or recipe["batch_size"]))  # an epoch; what is left over waits for the next
    recipe["epochs"] = max(recipe["epochs"], math.ceil(LEAST_STEPS / steps))
    return recipe


def fill_in_recipe(args: argparse.Namespace, corpus: Corpus) -> None:
    """Gives every flag of the recipe that was not set its value, and names the data that `auto` found."""
    rows = corpus.rows("train")
    if not len(rows):
        fail(f"--data {corpus.name}: its {len(corpus.labels):,} rows are too few, none fell to the train part")
    lengths = np.diff(corpus.starts)[rows]
    recipe = recipe_of(args, len(rows), lengths, len(corpus.classes), corpus.name == "sample")
    for name, value in recipe.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.data == "auto":
        args.data = corpus.name
