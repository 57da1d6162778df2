"""The built-in sample, or your own pictures -> train / val / test.

    python datasets.py                       # describes the sample and saves preview.png
    python datasets.py --data PATH           # the same of your own folder

Pictures are small here: a split is one uint8 tensor, and a batch is a slice of it.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

import picture
import sample
from utils import fail, rank, say, world

SPLIT_SEED = 2013  # which pictures are validation never depends on --seed, or runs could not be compared
SAMPLE_SIZES = {"train": 6000, "val": 1000, "test": 2000}
DATA_HELP = "auto (default) and sample: the built-in traffic signs; or a folder of class folders"
PART_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass
class Split:
    """Pictures (N, 3, S, S) uint8 RGB and their class numbers (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class Data:
    """A data set: its name, class names, and the splits that were asked for."""

    name: str
    classes: list[str]
    splits: dict[str, Split]


def load(name: str, image_size: int | None = None, parts: tuple = ("train", "val"), limit: int | None = None) -> Data:
    """Loads the parts asked for ("train", "val", "test") of `name`: auto, sample, or the path of a folder.

    `limit` is the most pictures a part will have. Errors end the program with one line.
    """
    if name in ("auto", "sample"):
        return load_sample(image_size, parts, limit)
    if Path(name).is_dir():
        return load_folder(Path(name), image_size or sample.SIZE, parts, limit)
    fail(f"--data {name}: not sample or auto, and there is no folder of that name")


def statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """(N, 3, S, S) uint8 -> mean and standard deviation of the pixels, a number a channel, pixels from 0 to 1."""
    pixels = images.transpose(0, 1).flatten(1).double() / 255
    std = pixels.std(1).clamp(min=1e-3)  # a channel of one value must not divide by zero
    return pixels.mean(1).tolist(), std.tolist()


# ---- the built-in sample ----------------------------------------------------------------------------------------------


def load_sample(image_size: int | None, parts: tuple, limit: int | None = None) -> Data:
    """Drawn anew each time, in seconds."""
    splits = {}
    for seed, (part, count) in enumerate(SAMPLE_SIZES.items()):
        if part in parts:
            images, labels = sample.make(min(count, limit or count), seed)
            images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
            splits[part] = Split(resized(images, image_size), torch.from_numpy(labels))
    return Data("sample", list(sample.CLASSES), splits)


def resized(images: Tensor, image_size: int | None) -> Tensor:
    if image_size in (None, images.shape[-1]):
        return images
    size = (image_size, image_size)
    larger = torch.nn.functional.interpolate(images.float(), size, mode="bicubic", antialias=True)
    return larger.round().clamp(0, 255).byte()


# ---- your own folder --------------------------------------------------------------------------------------------------


def load_folder(path: Path, image_size: int, parts: tuple, limit: int | None) -> Data:
    """A folder of class folders, `path`/<class>/*.png, or the same below train/, val/ and test/ (TRAIN, TEST too).

    Without val/, every tenth picture of a class validates; without train/ and test/, every tenth tests as well: drawn with a
    fixed seed from the sorted names.
    """
    folders = {
        part: next((p for p in sorted(path.iterdir()) if p.is_dir() and p.name.lower() in names), None)
        for part, names in PART_NAMES.items()
    }
    top = folders["train"] or path
    classes = sorted(p.name for p in top.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))
    if len(classes) < 2:
        fail(f"{top}: {len(classes)} class folders; expected {top}/<class>/<picture>.png for two classes or more")
    files = {part: list_files(folders[part], classes) for part in PART_NAMES if folders[part]}
    if folders["train"] is None:
        files["train"], files["test"] = split_files(list_files(path, classes))
    if "val" not in files:
        files["train"], files["val"] = split_files(files["train"])
    if "test" in parts and "test" not in files:
        fail(f"{path}: has train/ but no test/ to test on")
    return Data(path.name, classes, {part: read_files(part, files[part][:limit], image_size) for part in parts})


def list_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """-> (file, class number) of each picture in folder/<class>/, the classes in turn."""
    unknown = {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))} - set(classes)
    if unknown:
        fail(f"{folder / min(unknown)}: no class of that name in the training data; there are: {', '.join(classes)}")
    files = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (folder / name).glob("*") if p.suffix.lower() in picture.IMAGE_TYPES)
        if not found:
            fail(f"{folder / name}: no pictures in this class folder")
        files += [(i, label, p) for i, p in enumerate(found)]
    return [(path, label) for _, label, path in sorted(files)]


def split_files(files: list[tuple[Path, int]]) -> tuple[list, list]:
    """-> nine tenths and one tenth of each class, at least one picture each."""
    rng, large, small = np.random.default_rng(SPLIT_SEED), [], []
    for label in sorted({label for _, label in files}):
        ours = [item for item in files if item[1] == label]
        if len(ours) < 2:
            fail(f"{ours[0][0].parent}: only one picture; at least two are needed to split off a part")
        cut = max(1, len(ours) // 10)
        chosen = set(rng.permutation(len(ours))[:cut].tolist())
        small += [item for i, item in enumerate(ours) if i in chosen]
        large += [item for i, item in enumerate(ours) if i not in chosen]
    return large, small


def read_files(part: str, files: list[tuple[Path, int]], image_size: int) -> Split:
    """Reads all pictures of a split into memory; names and counts the unreadable ones, and goes on without them."""
    images, labels, bad = [], [], []
    for path, label in tqdm(files, desc=f"reading {part}", disable=None if rank() == 0 else True, leave=False):
        try:
            images.append(torch.from_numpy(picture.decode(path.read_bytes(), image_size)[0].copy()))
            labels.append(label)
        except (picture.Refused, OSError) as why:
            bad.append(path)
            say(f"skipped {path}: {why}")
    if bad:
        say(f"skipped {len(bad)} of {len(files)} {part} pictures")
    if not images:
        fail(f"none of the {len(files)} {part} pictures can be read, the first being {files[0][0]}")
    return Split(torch.stack(images), torch.tensor(labels))


# ---- to the network ---------------------------------------------------------------------------------------------------


class Batches:
    """Batches (pixels (n, 3, S, S) uint8, labels (n,)) of a split that lies on the device as one tensor.

    With `shuffle` the order is drawn from (seed, epoch), the same in all processes, and an incomplete last batch is left out.
    Of each batch a process takes its share: the batches are the same whatever the number of processes.
    """

    def __init__(self, split: Split, batch_size: int, device: torch.device, shuffle: bool = False, seed: int = 0):
        self.images, self.labels = split.images.to(device), split.labels.to(device)
        self.batch_size, self.shuffle, self.seed, self.epoch = batch_size, shuffle, seed, 0
        if shuffle:
            self.batch_size = min(batch_size, len(split))

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size if self.shuffle else -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self.labels))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
            order = torch.randperm(len(self.labels), generator=generator)
        for batch in order.to(self.labels.device).split(self.batch_size)[: len(self)]:
            mine = batch[rank() :: world()]
            yield self.images[mine], self.labels[mine]


# ---- python datasets.py -----------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="auto", help=DATA_HELP)
    parser.add_argument("--image-size", type=int, metavar="N", help="side in pixels (default: 32)")
    args = parser.parse_args()
    data = load(args.data, args.image_size, ("train", "val", "test"))
    print(f"{data.name}: " + ", ".join(f"{len(split):,} {part}" for part, split in data.splits.items()))
    for label, name in enumerate(data.classes):
        print(f"{name:<14}" + "".join(f"{int((s.labels == label).sum()):>8,}" for s in data.splits.values()))
    split = data.splits["train"]
    rows = [split.images[split.labels == label][:8] for label in range(len(data.classes))]
    rows = [torch.cat([row, row.new_zeros(8 - len(row), *row.shape[1:])]) for row in rows]
    grid = Image.fromarray(make_grid(torch.cat(rows), nrow=8, padding=1).permute(1, 2, 0).numpy())
    grid.resize((2 * grid.width, 2 * grid.height), Image.NEAREST).save("preview.png")
    print(f"wrote preview.png: a row each of {', '.join(data.classes)}")


if __name__ == "__main__":
    main()
