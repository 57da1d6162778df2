"""Does an idea help? Trains a narrow fastnet with it and without it, for the same work and from the same seeds.

    python ideas.py                                 # lists the ideas
    python ideas.py colour silu --data cifar10      # each beside the plain recipe, with seeds 0, 1 and 2

A fair comparison changes one thing, does the same amount of work, and is repeated: two seeds of one recipe differ, too. The
network here is narrow, with 32, 96 and 96 channels: a fifth of fastnet's operations. The figures are accuracies with six views
on the validation pictures, after the last epoch. The test split has no part in it.
"""

import statistics
import time
from argparse import Namespace
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import datasets
import models
import options
import test as tester
import train
import utils
from augment import Augment
from optimizers import make_optimizer, make_scheduler
from utils import Number, fail, say

WIDTHS = (32, 96, 96)
RATES = (0.12, 0.67, 53.0)  # Muon's, of the filters, the last layer and the biases
SMALL, WHOLE = (24,), (32,)  # the side in pixels to which the pictures of an epoch are scaled


@dataclass(frozen=True)
class Idea:
    """A recipe. The defaults are the plain one: fastnet's older recipe, without the two ideas that won, and shortened."""

    help: str
    sizes: tuple = SMALL * 3 + WHOLE * 5
    larger: int = 1  # times the batch
    colour: float = 0.0
    label_smoothing: float = 0.2
    harder: int = 0  # so many of the last epochs see the harder half of the pictures
    rates: tuple = RATES
    silu: bool = False
    bias: bool = False
    lookahead: bool = False
    average: bool = False


IDEAS = {
    "plain": Idea(help="pictures of 24 pixels for three epochs, of 32 for five"),
    "small": Idea(help="seven epochs of 24 pixels, three of 32", sizes=SMALL * 7 + WHOLE * 3),
    "rising": Idea(
        help="three of 20, three of 24, one of 28, three of 32", sizes=(20,) * 3 + SMALL * 3 + (28,) + WHOLE * 3
    ),
    "batch": Idea(help="batches of twice the size", larger=2),
    "colour": Idea(help="brightness and contrast change by up to 14 %", colour=0.14),
    "smoothing": Idea(help="label smoothing of 0.1 in place of 0.2", label_smoothing=0.1),
    "harder": Idea(
        help="three epochs on the harder half in place of the last two", sizes=SMALL * 3 + WHOLE * 6, harder=3
    ),
    "rates": Idea(help="rates of 0.2, 0.54 and 57 in place of 0.12, 0.67 and 53", rates=(0.2, 0.54, 57.0)),
    "silu": Idea(help="SiLU in place of GELU", silu=True),
    "bias": Idea(help="a trained bias after the whitening", bias=True),
    "lookahead": Idea(help="every five steps the weights go half the way back", lookahead=True),
    "average": Idea(help="a running average of the last quarter's weights", average=True),
}


def make_model(idea: Idea, num_classes: int, loader, normalize) -> nn.Module:
    """A fresh, narrow fastnet, whitened by its first batch of pictures, with the idea in it."""
    model = models.build("fastnet", num_classes, widths=WIDTHS).to(loader.device, memory_format=torch.channels_last)
    model.whiten(normalize(next(iter(loader))[0]))
    for i, layer in enumerate(model.features):
        if idea.silu and isinstance(layer, nn.GELU):
            model.features[i] = nn.SiLU()
    if not idea.bias:
        model.features[0].bias = None
    return model.to(loader.device)


class Lookahead:
    """Takes the place of the schedule, and steps it. Every five steps the weights go back half the way they went (Zhang et
    al. 2019, "Lookahead Optimizer: k steps forward, 1 step back")."""

    def __init__(self, scheduler, model: nn.Module):
        self.scheduler, self.model, self.steps = scheduler, model, 0
        self.slow = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def step(self) -> None:
        self.scheduler.step()
        self.steps += 1
        if self.steps % 5 == 0:
            for slow, p in zip(self.slow, self.model.parameters(), strict=True):
                p.copy_(slow.lerp_(p, 0.5))


class Average:
    """Takes the place of the schedule, and steps it. In the last quarter of all `steps` it keeps a running average of the
    weights and of the batch norms' statistics; a new step counts one fiftieth."""

    def __init__(self, scheduler, model: nn.Module, steps: int):
        self.scheduler, self.model, self.left = scheduler, model, steps
        self.begin = steps // 4
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98), use_buffers=True)

    def step(self) -> None:
        self.scheduler.step()
        self.left -= 1
        if self.left < self.begin:
            self.average.update_parameters(self.model)


def harder_half(model: nn.Module, normalize, loader, precision: str) -> datasets.Split:
    """-> the half of the training pictures whose right class gets the lowest probability from the network."""
    split = datasets.Split(loader.images, loader.labels)
    right = answer(model, normalize, split, precision, views=False).softmax(1).gather(1, split.labels[:, None])[:, 0]
    return datasets.select(split, right.argsort()[: len(split) // 2])


@torch.no_grad()
def answer(model: nn.Module, normalize, split: datasets.Split, precision: str, views: bool) -> Tensor:
    """-> logits (N, K) for the pictures of a split, with six views of each or with one."""
    model.eval()
    look = tester.six_views if views else nn.Module.__call__
    with train.autocast(precision, split.images.device):
        return torch.cat([look(model, normalize(batch)).float() for batch in split.images.split(500)])


def make_loader(split: datasets.Split, args: Namespace, device: torch.device) -> datasets.TensorLoader:
    augment = Augment(args.crop, True, 0, args.colour)
    return datasets.TensorLoader(split, args.batch_size, device, augment, args.seed)


def run_trial(idea: Idea, args: Namespace, data: datasets.Data, seed: int, device: torch.device) -> dict:
    """Trains one network -> its accuracy (six views) on the validation pictures, its operations and its seconds."""
    args = Namespace(**vars(args) | {"seed": seed, "colour": idea.colour, "label_smoothing": idea.label_smoothing})
    count = len(data.splits["train"])
    args.batch_size = max(8, min(1000, count // 40)) * idea.larger
    loader, val = make_loader(data.splits["train"], args, device), data.splits["val"]
    normalize = datasets.Normalize(*datasets.statistics(data.splits["train"].images)).to(device)
    utils.seed_everything(seed)
    model = make_model(idea, len(data.classes), loader, normalize)
    flops = {size: models.count_flops(model, size) for size in {32, *idea.sizes}}
    optimizer = make_optimizer(model, "muon", RATES[0], 0.0, args.precision)
    for group, rate in zip(optimizer.param_groups, idea.rates, strict=True):
        group["lr"] = rate
    last = len(idea.sizes) - idea.harder  # from this epoch on, half of the pictures
    steps = [count // (1 if epoch < last else 2) // args.batch_size for epoch in range(len(idea.sizes))]
    schedule = make_scheduler(optimizer, "linear", 1, sum(steps))
    schedule = Lookahead(schedule, model) if idea.lookahead else schedule
    schedule = Average(schedule, model, sum(steps)) if idea.average else schedule
    operations, start = 0.0, time.perf_counter()
    for epoch, size in enumerate(idea.sizes):
        utils.seed_everything(seed, epoch)
        if epoch == last:
            loader = make_loader(harder_half(model, normalize, loader, args.precision), args, device)
            operations += flops[32] * count  # one forward pass
        loader.epoch = epoch
        train.train_one_epoch(model, normalize, loader, optimizer, schedule, args, size if size < 32 else None, None)
        operations += 3 * flops[size] * steps[epoch] * args.batch_size
    seconds = time.perf_counter() - start
    final = schedule.average.module if idea.average else model
    val = datasets.Split(val.images.to(device), val.labels.to(device))
    right = answer(final, normalize, val, args.precision, views=True).argmax(1) == val.labels
    return {"accuracy": right.float().mean().item(), "operations": operations, "seconds": seconds}


def row_of(name: str, trials: list[dict], plain: list[dict]) -> list[str]:
    """A line of the table: the accuracies, and by how much they are above those of the plain recipe, seed by seed."""
    scores = [100 * trial["accuracy"] for trial in trials]
    differences = [score - 100 * trial["accuracy"] for score, trial in zip(scores, plain, strict=True)]
    spread = f" ± {statistics.stdev(differences) / len(differences) ** 0.5:.2f}" if len(differences) > 1 else ""
    more = "" if name == "plain" else f"{statistics.mean(differences):+.2f}{spread}"
    each = " ".join(f"{score:.2f}" for score in scores)
    seconds = f"{statistics.median(t['seconds'] for t in trials):.0f}"
    return [name, f"{trials[0]['operations']:.2e}", seconds, each, f"{statistics.mean(scores):.2f}", more]


def parse(argv=None) -> Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("ideas", nargs="*", metavar="IDEA", help="one or more; none: list them; all: all of them")
    parser.add_argument(
        "--seeds", type=Number(int, 1), default=3, metavar="N", help="runs of each (default: %(default)s)"
    )
    parser.add_argument("--data", default="auto", help=datasets.DATA_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where CIFAR-10 lies (default: %(default)s)")
    parser.add_argument("--limit", type=Number(int, 80), metavar="N", help="use only N training pictures")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="default: %(default)s")
    utils.add_device_flag(parser)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    flags = parse(argv)
    names = list(IDEAS) if flags.ideas == ["all"] else list(dict.fromkeys(["plain", *flags.ideas]))
    if unknown := [name for name in names if name not in IDEAS]:
        fail(f"no idea {unknown[0]!r}; there are: {', '.join(IDEAS)}")
    if not flags.ideas:
        for name, idea in IDEAS.items():
            say(f"{name}: {idea.help}")
        return
    device = utils.pick_device(flags.device, same_sizes=True)
    words = ["--arch", "fastnet", "--data", flags.data, "--data-root", flags.data_root, "--image-size", "32"]
    args = options.parse("", words + (["--limit", str(flags.limit)] if flags.limit else []))
    args.precision = utils.pick_precision(flags.precision, device)
    data, _ = train.load_data(args)
    if (count := len(data.splits["train"])) < 80:
        fail(f"--data {flags.data}: {count} training pictures are too few for a comparison")
    options.fill_in_recipe(args, data)
    trials = {name: [] for name in names}
    for seed in range(flags.seeds):
        for name in names:
            trials[name].append(run_trial(IDEAS[name], args, data, seed, device))
            accuracy, operations, seconds = trials[name][-1].values()
            say(f"seed {seed}, {name}: {accuracy:.4f}, {operations:.2e} operations, {seconds:.0f} s")
    table = [["idea", "operations", "seconds", "accuracies", "mean", "above plain"]]
    utils.print_table(table + [row_of(name, trials[name], trials["plain"]) for name in names])


if __name__ == "__main__":
    utils.start(main)
