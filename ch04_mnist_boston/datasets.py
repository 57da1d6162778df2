"""Pictures for mnist and denoise: MNIST, Fashion-MNIST, your own folder, or the built-in sample -> train / val / test.

    python datasets.py                        # gets Boston and MNIST ready (or the samples), describes them, saves preview.png
    python datasets.py --data fashion

Expect: "mnist: 10 classes, 28x28 pixels, 55,000 train, 5,000 val, 10,000 test". Tables of numbers are in tables.py.
"""

import argparse
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

import sample
import tables
from photo import IMAGE_TYPES, read_grey
from utils import fail, rank, say, warn, world

VAL_IMAGES = 5000  # of the 60,000 training pictures; the other 55,000 train
SPLIT_SEED = 1998  # which pictures are validation never depends on --seed, or runs could not be compared
SAMPLE_PARTS = {"train": slice(0, 1297), "val": slice(1297, 1497), "test": slice(1497, None)}
DATA_HELP = "auto (default): mnist if it can be had, else sample; mnist; fashion; sample; or a folder of class folders"
SETS = {"mnist": torchvision.datasets.MNIST, "fashion": torchvision.datasets.FashionMNIST}
PART_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass
class Split:
    """Pictures (N, 1, S, S) uint8 grey and their class numbers (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor | slice) -> "Split":
        return Split(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


@dataclass
class Data:
    """A data set: its name, class names, and the splits that were asked for."""

    name: str
    classes: list[str]
    splits: dict[str, Split]


def load(
    name: str, root: str = "data", image_size: int | None = None, parts: tuple = ("train", "val"), workers=0
) -> Data:
    """Loads the parts asked for ("train", "val", "test") of `name`: auto, mnist, fashion, sample, or a folder's path.

    auto is MNIST if it is in `root` or can be downloaded, else the sample, with a warning. `image_size` is the side in pixels
    of your own pictures (default: 28); the others have 28. Errors end the program with one line.
    """
    if name == "auto":
        try:
            return load_set("mnist", root, parts)
        except SystemExit as why:
            warn(
                f"MNIST is not to be had, so this run uses the built-in SAMPLE of 1,797 small digits.\n"
                f"{why}\nA score on the sample says nothing about MNIST."
            )
            return load_sample(parts)
    if name in SETS:
        return load_set(name, root, parts)
    if name == "sample":
        return load_sample(parts)
    if Path(name).is_dir():
        return load_folder(Path(name), image_size or 28, parts, workers)
    fail(f"--data {name}: not mnist, fashion, sample or auto, and there is no folder of that name")


# ---- MNIST and Fashion-MNIST ------------------------------------------------------------------------------------------


def load_set(name: str, root: str, parts: tuple) -> Data:
    """The 70,000 digits of LeCun, Cortes and Burges 1998, or the 70,000 garments of Xiao, Rasul and Vollgraf 2017, 28x28."""
    prepare(name, root)
    classes, splits = [], {}
    for train in {part != "test" for part in parts}:
        try:
            whole = SETS[name](root, train=train)
        except (RuntimeError, ValueError, OSError, AssertionError):  # what torchvision raises for half a file
            fail(f"{raw_folder(name, root)}: a damaged file in it; delete this folder to have it downloaded again")
        split = Split(whole.data[:, None], whole.targets)
        classes = [label.split(" - ")[0] for label in whole.classes]  # MNIST's are "0 - zero", ...
        if train:
            order = torch.randperm(len(split), generator=torch.Generator().manual_seed(SPLIT_SEED))
            splits |= {"val": split[order[:VAL_IMAGES]], "train": split[order[VAL_IMAGES:]]}
        else:
            splits["test"] = split
    return Data(name, classes, {part: splits[part] for part in parts})


def raw_folder(name: str, root: str) -> Path:
    return Path(root) / SETS[name].__name__ / "raw"


def prepare(name: str, root: str) -> None:
    """Makes sure that the four files lie in `root`; downloads them if not. torchvision checks the MD5 of what it gets."""
    kind, raw = SETS[name], raw_folder(name, root)
    archives = [archive for archive, _ in kind.resources]
    if all((raw / archive.removesuffix(".gz")).exists() for archive in archives):
        return
    if world() > 1 and rank() > 0:
        fail(f"{name} is not in {root}; get it with `python datasets.py --data {name}` before torchrun")
    say(f"Downloading {name} into {raw} ...")
    waited = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds without an answer; torchvision itself would wait for ever
    try:
        kind(root, download=True)
    except (OSError, RuntimeError, EOFError) as error:
        why = " ".join(str(error).split())
        hashes = ", ".join(f"{archive} (MD5 {md5})" for archive, md5 in kind.resources)
        fail(f"could not download {name} from {kind.mirrors[-1]} ({why}); put {hashes} into {raw} by hand")
    finally:
        socket.setdefaulttimeout(waited)


# ---- the built-in sample ----------------------------------------------------------------------------------------------


def load_sample(parts: tuple) -> Data:
    whole = Split(*sample.make_digits())
    return Data("sample", list("0123456789"), {part: whole[SAMPLE_PARTS[part]] for part in parts})


# ---- your own folder --------------------------------------------------------------------------------------------------


def load_folder(path: Path, image_size: int, parts: tuple, workers: int = 0) -> Data:
    """A folder of class folders, `path`/<class>/*.png, or the same below train/, val/ and test/.

    Without val/, every tenth picture of a class validates; without train/ and test/, every tenth tests as well: drawn with a
    fixed seed from the sorted names. Pictures become grey and square: the shorter side scaled, the middle cut out.
    """
    folders = {
        part: next((p for p in sorted(path.iterdir()) if p.is_dir() and p.name.lower() in names), None)
        for part, names in PART_NAMES.items()
    }
    top = folders["train"] or path
    classes = sorted(p.name for p in top.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        number = "only one" if classes else "no"
        fail(f"{top}: {number} class folder; expected {top}/<class>/<picture>.png for two classes or more")
    files = {part: list_files(folders[part], classes) for part in PART_NAMES if folders[part]}
    if folders["train"] is None:
        files["train"], files["test"] = split_files(list_files(path, classes))
    if "val" not in files:
        files["train"], files["val"] = split_files(files["train"])
    if "test" in parts and "test" not in files:
        fail(f"{path}: has train/ but no test/ to test on")
    return Data(path.name, classes, {part: read_files(part, files[part], image_size, workers) for part in parts})


def list_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """-> (file, class number) of each picture in folder/<class>/, sorted by name."""
    names = {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")}
    if unknown := sorted(names - set(classes)):
        fail(f"{folder / unknown[0]}: no class of that name in the training data; there are: {', '.join(classes)}")
    files = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (folder / name).glob("*") if p.suffix.lower() in IMAGE_TYPES)
        if not found:
            fail(f"{folder / name}: no pictures in this class folder")
        files += [(p, label) for p in found]
    return files


def split_files(files: list[tuple[Path, int]]) -> tuple[list, list]:
    """-> nine tenths and one tenth of each class, at least one picture each."""
    rng, large, small = np.random.default_rng(SPLIT_SEED), [], []
    for label in sorted({label for _, label in files}):
        ours = [item for item in files if item[1] == label]
        if len(ours) < 2:
            fail(f"{ours[0][0].parent}: only one picture; at least two are needed to split off a part")
        order = rng.permutation(len(ours))
        cut = max(1, len(ours) // 10)
        small += [ours[i] for i in sorted(order[:cut])]
        large += [ours[i] for i in sorted(order[cut:])]
    return large, small


def read_files(part: str, files: list[tuple[Path, int]], image_size: int, workers: int = 0) -> Split:
    """Reads all pictures of a split into memory; names and counts the unreadable ones, and goes on without them."""

    def read(path: Path) -> Tensor | None:
        try:
            return read_grey(path, image_size)
        except OSError:
            return None

    with ThreadPoolExecutor(max(1, workers)) as pool:  # threads do: Pillow decodes without Python's lock
        progress = tqdm(files, desc=f"reading {part}", disable=None if rank() == 0 else True, leave=False)
        images = list(pool.map(read, (path for path, _ in progress)))
    bad = [path for (path, _), image in zip(files, images, strict=True) if image is None]
    for path in bad:
        say(f"skipped {path}: not a picture that can be read")
    if bad:
        say(f"skipped {len(bad)} of {len(files)} {part} pictures")
    if len(bad) == len(files):
        fail(f"none of the {len(files)} {part} pictures can be read, the first being {files[0][0]}")
    good = [(image, label) for (_, label), image in zip(files, images, strict=True) if image is not None]
    return Split(torch.stack([image for image, _ in good]), torch.tensor([label for _, label in good]))


# ---- to the network ---------------------------------------------------------------------------------------------------


def statistics(images: Tensor) -> tuple[float, float]:
    """(N, 1, S, S) uint8 -> mean and standard deviation of all pixels, as numbers from 0 to 1."""
    share = torch.bincount(images.flatten(), minlength=256).double() / images.numel()
    levels = torch.linspace(0, 1, 256, dtype=torch.float64)
    mean = (share @ levels).item()
    return mean, max(1e-6, (share @ levels**2).item() - mean**2) ** 0.5  # blank pictures must not divide by zero


# ---- python datasets.py -----------------------------------------------------------------------------------------------


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="auto", help=DATA_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where data lies (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.data == "auto":
        table = tables.load_table("auto", args.data_root)
        print(f"{table.name}: {len(table.y)} rows, {len(table.columns)} features, target {table.target}")
    data = load(args.data, args.data_root, parts=("train", "val", "test"))
    split, size = data.splits["train"], data.splits["train"].images.shape[-1]
    counts = ", ".join(f"{len(part):,} {name}" for name, part in data.splits.items())
    print(f"{data.name}: {len(data.classes)} classes, {size}x{size} pixels, {counts}")
    mean, std = statistics(split.images)
    print(f"mean of the training pixels, 0 to 1: {mean:.4f}; standard deviation: {std:.4f}")
    rows = [split.images[split.labels == label][:12] for label in range(len(data.classes))]
    rows = torch.cat([torch.cat([row, row.new_zeros(12 - len(row), *row.shape[1:])]) for row in rows])
    Image.fromarray(make_grid(rows, nrow=12, padding=1)[0].numpy()).save("preview.png")
    print(f"wrote preview.png: a row each of {', '.join(data.classes)}")


if __name__ == "__main__":
    main()
