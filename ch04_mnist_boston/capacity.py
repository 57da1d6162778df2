"""Draws under- and overfitting (course 4-3): the same few rows, and networks from too small to too large.

    python capacity.py                       # on the sample: capacity.png and a table, in seconds
    python capacity.py --data boston --rows 80

Expect: the error on the training rows falls with every unit; on rows left out it falls, and then rises again. Below it, the
four remedies at the largest width: L2 (weight decay), L1, dropout, early stopping.
"""

from argparse import Namespace
from pathlib import Path

import torch

import boston
import tables
import utils
from utils import Number, new_figure, save_figure, say

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PLAIN = {"weight_decay": 0.0, "huber": 0.0, "l1": 0.0, "dropout": 0.0, "patience": 0}
REMEDIES = {
    "none": {},
    "L2 (weight decay)": {"weight_decay": 1.0},
    "L1": {"l1": 2e-3},
    "dropout": {"dropout": 0.5},
    "early stopping": {"patience": 20},
}


def errors(table: tables.Table, rows: int, width: int, epochs: int, seed: int, **recipe) -> tuple[float, float]:
    """Trains five networks of `width` hidden units on `rows` rows -> RMSE on them and on the rows left out, the mean of the
    five networks' own, which are not averaged: averaging is a remedy too."""
    order = torch.randperm(len(table.y), generator=torch.Generator().manual_seed(seed)).numpy()
    train, left_out = order[:rows], order[rows:]
    features, target = tables.Features(table.x[train]), tables.Scaler(table.y[train, None])
    args = Namespace(arch="course", members=5, width=width, epochs=epochs, batch_size=rows, lr=0.02, **(PLAIN | recipe))
    utils.seed_everything(seed)
    ensemble, _ = boston.train_fold(features(table.x[train]), target(table.y[train, None])[:, 0], args, 0)
    result = []
    for part in (train, left_out):
        x = features(table.x[part]).expand(args.members, -1, -1)
        with torch.inference_mode():
            wrong = target.invert(ensemble(x)[..., None])[..., 0] - torch.from_numpy(table.y[part])
        result.append(wrong.square().mean(1).sqrt().mean().item())
    return result[0], result[1]


def draw(widths: list, remedies: dict, title: str, path: Path) -> None:
    figure = new_figure(11, 4, title)
    left, right = figure.subplots(1, 2)
    for label, column in (("training rows", 1), ("rows left out", 2)):
        left.plot([row[0] for row in widths], [row[column] for row in widths], marker=".", label=label)
        places = [i + 0.4 * (column - 1.5) for i in range(len(remedies))]
        right.bar(places, [pair[column - 1] for pair in remedies.values()], width=0.4, label=label)
    left.set(xscale="log", xlabel="hidden units", ylabel="RMSE", title=f"{title}: capacity")
    left.set_xticks([row[0] for row in widths], [str(row[0]) for row in widths])
    left.minorticks_off()  # their labels would be formulas
    right.set_xticks(range(len(remedies)), list(remedies), fontsize=8)
    right.set(ylabel="RMSE", title=f"remedies at {widths[-1][0]} units")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    save_figure(figure, path)


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--data", default="sample", help=tables.TABLE_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR")
    utils.add_mirror_flag(parser)
    parser.add_argument("--rows", type=Number(int, 20), default=60, help="rows that train (default: %(default)s)")
    parser.add_argument("--epochs", type=Number(int, 1), default=400, help="full-batch steps (default: %(default)s)")
    parser.add_argument("--seed", type=Number(int, 0, 2**32 - 1), default=0, help="default: %(default)s")
    args = parser.parse_args(argv)
    table = tables.load_table(args.data, args.data_root)
    if not 20 <= args.rows <= len(table.y) - 20:
        utils.fail(f"--rows {args.rows}: must be from 20 to {len(table.y) - 20}, so that 20 are left out")
    widths = [(width, *errors(table, args.rows, width, args.epochs, args.seed)) for width in WIDTHS]
    say(
        f"{'hidden units':<20}{'training rows':>15}{'rows left out':>15}   (RMSE, {table.name}, {args.rows} rows train)"
    )
    for width, train, left_out in widths:
        print(f"{width:<20}{train:>15.3f}{left_out:>15.3f}")
    remedies = {
        name: errors(table, args.rows, WIDTHS[-1], args.epochs, args.seed, **recipe)
        for name, recipe in REMEDIES.items()
    }
    for name, (train, left_out) in remedies.items():
        print(f"{f'{WIDTHS[-1]}, {name}':<28}{train:>7.3f}{left_out:>15.3f}")
    draw(widths, remedies, table.name, Path("capacity.png"))
    say("wrote capacity.png")


if __name__ == "__main__":
    utils.start(main)
