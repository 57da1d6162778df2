"""How exact is a resumed run on this device? In a chapter's folder: python resume.py RUN FLAGS OF TRAIN.PY...

Trains three times with the same flags: whole, whole again, and stopped after the first epoch and resumed. Prints the largest
difference between the weights in the end, as a share of the largest weight: of the two whole runs (the device's own noise),
and of the resumed one. On a CPU both are 0. On a GPU sums are taken in any order: the second should be as small as the first.
"""

import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, os.getcwd())
sys.argv[0] = "train.py"

import train  # noqa: E402


def train_whole(words: list[str], run: str) -> dict:
    train.main([*words, "--run", run])
    return weights(run)


def train_in_two(words: list[str], run: str) -> dict:
    """Stops as Ctrl-C does, after the first epoch was saved, and goes on."""
    save = train.save

    def save_and_stop(*args, **options):
        save(*args, **options)
        raise KeyboardInterrupt

    train.save = save_and_stop
    try:
        train.main([*words, "--run", run])
    except KeyboardInterrupt:
        train.save = save
    train.main(["--resume", run])
    return weights(run)


def weights(run: str) -> dict:
    return torch.load(Path(run) / "last.pt", map_location="cpu", weights_only=True)["model"]


def difference(a: dict, b: dict) -> float:
    pairs = [(a[name].float(), b[name].float()) for name in a if a[name].is_floating_point()]
    return max(float((x - y).abs().max()) for x, y in pairs) / max(float(x.abs().max()) for x, _ in pairs)


def main() -> None:
    run, *words = sys.argv[1:]
    first, again = train_whole(words, f"{run}/whole"), train_whole(words, f"{run}/again")
    resumed = train_in_two(words, f"{run}/resumed")
    found = {"difference_of_two_runs": difference(first, again), "difference_after_resume": difference(first, resumed)}
    print(json.dumps({name: float(f"{value:.3g}") for name, value in found.items()}))


if __name__ == "__main__":
    main()
