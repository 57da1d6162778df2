"""Makes the three built-in problems from a seed: no download, no data in git.

    python sample.py                  # writes line.csv, curve.csv and spirals.csv, the form your own data must have
    python train.py --data line.csv --problem line

line      Father and son: a score of the father and one of his son, mean 100, standard deviation 15. Made up by a random
          generator; what is true about it is regression to the mean (Galton 1886): a father 10 above the mean has a
          son 5 above it on average, so the line is son = 50 + 0.5 * father. The root mean square of its errors is 13, and
          no line has less in the long run; on 200 pairs chance makes it a point more or less.
curve     y = sin(2 x) + 0.3 x, plus noise of standard deviation 0.1.
spirals   Two spirals, one for each class, which no straight line separates (Lang and Witbrock 1988).
"""

import math
from pathlib import Path

import torch
from torch import Tensor

import utils

COLUMNS = {"line": ("father", "son"), "curve": ("x", "y"), "spirals": ("x1", "x2", "class")}
NOISE = {
    "line": 13.0,
    "curve": 0.1,
    "spirals": 0.04,
}  # standard deviation: the error of the best model, in the long run


def make_line(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """-> father (N, 1), son (N, 1). 13 = 15 * sqrt(1 - 0.5^2) keeps the sons as far apart as the fathers.

    >>> father, son = make_line(10_000, torch.Generator().manual_seed(0))
    >>> print(f"{father.mean():.0f} {father.std():.0f} {son.mean():.0f} {son.std():.0f}")
    100 15 100 15
    """
    father = 100 + 15 * torch.randn(count, 1, generator=generator)
    return father, 100 + 0.5 * (father - 100) + NOISE["line"] * torch.randn(count, 1, generator=generator)


def make_curve(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """-> x (N, 1) from -3 to 3, y (N, 1).

    >>> x, y = make_curve(1000, torch.Generator().manual_seed(0))
    >>> print(f"{(y - torch.sin(2 * x) - 0.3 * x).std():.2f}")
    0.10
    """
    x = torch.rand(count, 1, generator=generator) * 6 - 3
    return x, torch.sin(2 * x) + 0.3 * x + NOISE["curve"] * torch.randn(count, 1, generator=generator)


def make_spirals(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """-> points (N, 2), class (N,) 0 or 1: one turn and a half, the second spiral half a turn behind the first.

    >>> x, y = make_spirals(1000, torch.Generator().manual_seed(0))
    >>> x.shape, y.bincount()
    (torch.Size([1000, 2]), tensor([500, 500]))
    """
    label = torch.arange(count) % 2
    radius = torch.rand(count, generator=generator).sqrt() * 0.9 + 0.1  # the root: as many points for each bit of arc
    angle = radius * 3 * math.pi + label * math.pi
    points = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    return points + NOISE["spirals"] * torch.randn(count, 2, generator=generator), label


def make(problem: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`count` samples of a problem, the same for the same seed: inputs (N, D) float32, targets (N, 1) or labels (N,).

    >>> x, y = make("line", 3, seed=0)
    >>> torch.equal(x, make("line", 3, seed=0)[0]), torch.equal(x, make("line", 3, seed=1)[0])
    (True, False)
    """
    makers = {"line": make_line, "curve": make_curve, "spirals": make_spirals}
    return makers[problem](count, torch.Generator().manual_seed(seed))


def write_csv(problem: str, path: Path, count: int, seed: int) -> None:
    """Writes samples as CSV: a header, then a row a sample; the last column is the target."""
    x, y = make(problem, count, seed)
    rows = [",".join(COLUMNS[problem])]
    for inputs, target in zip(x.tolist(), y.tolist(), strict=True):
        answer = "AB"[target] if problem == "spirals" else f"{target[0]:.4f}"
        rows.append(",".join([*(f"{value:.4f}" for value in inputs), answer]))
    utils.write_atomic(path, "\n".join(rows) + "\n")


def main(argv: list[str] | None = None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--count", type=utils.Number(int, 1), default=300, help="rows a file (default: %(default)s)")
    parser.add_argument("--seed", type=utils.Number(int, 0, 2**32 - 1), default=0, help="default: %(default)s")
    parser.add_argument("--out", default=".", metavar="DIR", help="where to (default: here)")
    args = parser.parse_args(argv)
    for problem in COLUMNS:
        path = utils.free_name(utils.output_folder(args.out) / f"{problem}.csv")
        write_csv(problem, path, args.count, args.seed)
        print(f"{path}: {args.count} rows of {', '.join(COLUMNS[problem])}")


if __name__ == "__main__":
    utils.start(main)
