"""The built-in sample, or your own pictures -> train / val / test.

    python datasets.py                       # describes the sample and saves preview.png
    python datasets.py --data PATH           # the same of your own folder

Pictures are small here: a split is one uint8 tensor, and a batch is a slice of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

import pictures
import sample
import utils
from service import picture
from utils import Number, fail, fingerprint, rank, say, world

SAMPLE_SIZES = {"train": 6000, "val": 1000, "test": 2000}
DATA_HELP = "auto (default) and sample: the built-in traffic signs; or a folder of class folders"
IMAGE_SIZES = Number(int, 8, 1024)


@dataclass
class Split:
    """Pictures (N, 3, S, S) uint8 RGB, their class numbers (N,) int64, and which samples they are {fingerprint: name}."""

    images: Tensor
    labels: Tensor
    samples: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class Data:
    """A data set: its name, class names, and the splits that were asked for."""

    name: str
    classes: list[str]
    splits: dict[str, Split]
    own: bool = False
    test_samples: dict[str, str] = field(default_factory=dict)


def load(
    name: str,
    image_size: int | None = None,
    parts: tuple = ("train", "val"),
    limit: int | None = None,
    run: dict | None = None,
) -> Data:
    """Loads the parts asked for ("train", "val", "test") of `name`: auto, sample, or the path of a folder.

    A name that is the path of a folder is that folder. `limit` is the most pictures a part will have. `run`: the split.json of
    a run, which says what may be tested. Errors end the program with one line.
    """
    is_own = run["own"] if run and run["data"] == name else name != "auto" and Path(name).exists()
    if name in ("auto", "sample") and not is_own:
        return load_sample(image_size, parts, limit)
    if Path(name).is_dir():
        return load_folder(Path(name), image_size or sample.SIZE, parts, limit, run)
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
            samples = {fingerprint(image.tobytes()): f"{part} {i}" for i, image in enumerate(images.numpy())}
            splits[part] = Split(resized(images, image_size), torch.from_numpy(labels), samples)
    return Data("sample", list(sample.CLASSES), splits)


def resized(images: Tensor, image_size: int | None) -> Tensor:
    if image_size in (None, images.shape[-1]):
        return images
    size = (image_size, image_size)
    larger = torch.nn.functional.interpolate(images.float(), size, mode="bicubic", antialias=True)
    return larger.round().clamp(0, 255).byte()


# ---- your own folder --------------------------------------------------------------------------------------------------


def load_folder(path: Path, image_size: int, parts: tuple, limit: int | None, run: dict | None = None) -> Data:
    """A folder of class folders, `path`/<class>/*.png, or the same below train/, val/ and test/: see pictures.class_folders.

    Pictures are read as the services read them. With the split.json of a `run`, what it held out tests.
    """

    def read(file) -> Tensor:
        try:
            return torch.from_numpy(picture.decode(file.read(), image_size)[0].copy())
        except picture.Refused as why:
            raise OSError(str(why)) from None

    classes, files = pictures.class_folders(path, parts)
    if "test" in parts and run:
        files["test"] = pictures.still_held_out(files, run, Path(run["data"]).resolve() == path.resolve())
    splits = {}
    for part in parts:
        images, items = pictures.read_all(in_turn(files[part])[:limit], read, part)
        labels = torch.tensor([item.label for item in items])
        splits[part] = Split(torch.stack(images), labels, pictures.samples(items))
    test = {} if "test" in parts else pictures.samples(pictures.marked(files["test"]))
    return Data(path.resolve().name, classes, splits, own=True, test_samples=test)


def in_turn(items: list[pictures.Item]) -> list[pictures.Item]:
    """The classes in turn, so that the first N pictures are of all classes."""
    seen: dict[int, int] = {}
    numbered = []
    for item in items:
        seen[item.label] = seen.get(item.label, -1) + 1
        numbered.append((seen[item.label], item.label, item))
    return [item for _, _, item in sorted(numbered, key=lambda row: row[:2])]


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
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--data", default="auto", help=DATA_HELP)
    parser.add_argument("--image-size", type=IMAGE_SIZES, metavar="N", help="side in pixels (default: 32)")
    args = parser.parse_args()
    data = load(args.data, args.image_size, ("train", "val", "test"))
    print(f"{data.name}: " + ", ".join(f"{len(split):,} {part}" for part, split in data.splits.items()))
    for label, name in enumerate(data.classes):
        print(f"{name:<14}" + "".join(f"{int((s.labels == label).sum()):>8,}" for s in data.splits.values()))
    split = data.splits["train"]
    rows = [split.images[split.labels == label][:8] for label in range(len(data.classes))]
    rows = [torch.cat([row, row.new_zeros(8 - len(row), *row.shape[1:])]) for row in rows]
    grid = Image.fromarray(make_grid(torch.cat(rows), nrow=8, padding=1).permute(1, 2, 0).numpy())
    path = pictures.save_picture(grid.resize((2 * grid.width, 2 * grid.height), Image.NEAREST), Path("preview.png"))
    say(f"wrote {path}: a row each of {', '.join(data.classes)}")


if __name__ == "__main__":
    utils.start(main)
