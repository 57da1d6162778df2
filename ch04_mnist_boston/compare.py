"""Tells the runs of several seeds apart from luck: mean and spread of their test scores, a row a network.

    for seed in 0 1 2; do python train.py denoise --arch deep --seed $seed --run runs/deep-$seed; done
    for seed in 0 1 2; do python test.py denoise --run runs/deep-$seed; done
    python compare.py runs/deep-* runs/deep_skip-*

Expect: a line such as "denoise  deep   mnist   3 runs   psnr 20.123 ± 0.045   (20.071 20.145 20.153)".
"""

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
            fail(f"{folder}: no test.json there; first python test.py TASK --run {folder}")
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


def main(argv=None) -> None:
    folders = sys.argv[1:] if argv is None else argv
    if not folders or folders[0].startswith("-"):
        print(__doc__)
        raise SystemExit(2 if not folders else 0)
    for group, results in sorted(collect(folders).items()):
        print(line(group, results))


if __name__ == "__main__":
    utils.start(main)
