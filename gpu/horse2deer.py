"""CIFAR-10's horses and deer as the two domains of chapter 9. In chapter 6's folder: python horse2deer.py DATA DATA_ROOT FOLDER

Writes FOLDER/trainA, trainB, testA and testB, PNG files; a set without horses (the sample) gives its first two classes.
"""

import json
import os
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, os.getcwd())

import datasets  # noqa: E402


def main() -> None:
    name, root, folder = sys.argv[1:4]
    data = datasets.load(name, root, None, ("train", "val", "test"))
    wanted = ("horse", "deer") if "horse" in data.classes else data.classes[:2]
    data.splits["train"] = data.splits["train"] + data.splits.pop("val")
    counts = {}
    for part, split in data.splits.items():
        for domain, kind in zip("AB", wanted, strict=True):
            target = Path(folder) / f"{part}{domain}"
            target.mkdir(parents=True, exist_ok=True)
            chosen = split.images[split.labels == data.classes.index(kind)].permute(0, 2, 3, 1).numpy()
            for number, pixels in enumerate(chosen):
                Image.fromarray(pixels).save(target / f"{number:05d}.png")
            counts[target.name] = len(chosen)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
