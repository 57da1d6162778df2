"""Tells the runs of several seeds apart from luck: mean and spread of their test scores, a row a network.

    for seed in 0 1 2; do python train.py denoise --arch deep --seed $seed --run runs/deep-$seed; done
    for seed in 0 1 2; do python test.py denoise --run runs/deep-$seed; done
    python compare.py runs/deep-* runs/deep_skip-*

Expect: a line such as "denoise  deep   mnist   3 runs   psnr 20.123 ± 0.045   (20.071 20.145 20.153)", and compare.png: the
validation curves of all runs (not of boston, which has folds).
"""

import csv
import sys
from pathlib import Path
from statistics import mean, stdev

import utils
from utils import fail, read_json

SCORES = {"boston": ("rmse", "mae", "r2"), "mnist": ("accuracy",), "denoise": ("psnr_before", "psnr")}


def collect(folders: list[str]) -> dict[tuple, list[dict]]:
    """Run folders -> their results by (task, arch, training data, test data, split or noise): only like is compared."""
    groups: dict[tuple, list[dict]] = {}
    for folder in map(Path, folders):
        path = folder / "test.json"
        if not path.is_file():
            fail(f"{folder}: no test.json there; first python test.py TASK --run {utils.quoted(folder)}")
        result = read_json(path)
        keys = ("task", "arch", "data", "tested_on", "split", "noise")
        groups.setdefault(tuple(str(result.get(key, "")) for key in keys), []).append(result)
    return groups


def line(group: tuple, results: list[dict]) -> str:
    parts = [f"{group[0]:<9}{group[1]:<14}{group[2]:<9}{len(results)} run{'s' * (len(results) > 1)}"]
    for name in SCORES[group[0]]:
        values = [result[name] for result in results]
        digits = 4 if name == "accuracy" else 3
        spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        each = " ".join(f"{value:.{digits}f}" for value in values)
        parts.append(f"{name} {mean(values):.{digits}f}{spread} ({each})")
    return "   ".join(parts)


def draw(folders: list[str], path: Path) -> None:
    """The validation scores of all runs over their epochs, a panel for each; boston's folds have no such curve."""
    histories = {}
    for folder in folders:
        rows = list(csv.DictReader((Path(folder) / "metrics.csv").read_text("utf-8").splitlines()))
        histories[folder] = {name: [float(row[name]) for row in rows] for name in rows[0]}
    names = sorted(
        {name for history in histories.values() if "epoch" in history for name in history if name[:4] == "val_"}
    )
    figure = utils.new_figure(5.2 * max(1, len(names)), 3.8, "".join(folders))
    for axis, name in zip(figure.subplots(1, max(1, len(names)), squeeze=False)[0], names, strict=False):
        for folder, history in histories.items():
            if name in history and "epoch" in history:
                axis.plot(history["epoch"], history[name], marker=".", label=folder)
        axis.set(title=name, xlabel="epoch")
        axis.grid(alpha=0.3)
        if len(folders) <= 20:  # more would cover the curves
            axis.legend(fontsize=7)
    utils.save_figure(figure, path)


def main(argv=None) -> None:
    folders = sys.argv[1:] if argv is None else argv
    if not folders or folders[0].startswith("-"):
        print(__doc__)
        raise SystemExit(2 if not folders else 0)
    groups = collect(folders)
    for group, results in sorted(groups.items()):
        print(line(group, results))
    if any(group[0] != "boston" for group in groups):
        path = utils.free_name("compare.png")
        draw(folders, path)
        print(f"wrote {path}: their curves")


if __name__ == "__main__":
    utils.start(main)
