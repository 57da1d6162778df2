"""Pictures for mnist and denoise: MNIST, Fashion-MNIST, your own folder, or the built-in sample -> train / val / test.

    python datasets.py                        # gets Boston and MNIST ready (or the samples), describes them, saves preview.png
    python datasets.py --data fashion

Expect: "mnist: 10 classes, 28x28 pixels, 55,000 train, 5,000 val, 10,000 test". Tables of numbers are in tables.py.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.datasets.utils import check_integrity
from torchvision.utils import make_grid

import pictures
import sample
import tables
import utils
from photo import read_grey
from utils import fail, fingerprint, say, warn, world

VAL_IMAGES = 5000  # of the 60,000 training pictures; the other 55,000 train
SPLIT_SEED = 1998  # which pictures are validation never depends on --seed, or runs could not be compared
SAMPLE_PARTS = {"train": slice(0, 1297), "val": slice(1297, 1497), "test": slice(1497, None)}
DATA_HELP = "auto (default): mnist if it can be had, else sample; mnist; fashion; sample; or a folder of class folders"
SETS = {"mnist": torchvision.datasets.MNIST, "fashion": torchvision.datasets.FashionMNIST}
MIRRORS = {"mnist": "https://dataset.bj.bcebos.com/mnist/", "fashion": "https://dataset.bj.bcebos.com/fashion_mnist/"}


@dataclass
class Split:
    """Pictures (N, 1, S, S) uint8 grey, their class numbers (N,) int64, and which samples they are (fingerprint, name)."""

    images: Tensor
    labels: Tensor
    samples: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> "Split":
        samples = [self.samples[i] for i in indices.tolist()] if self.samples else []
        return Split(self.images[indices], self.labels[indices], samples)

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device), self.samples)


@dataclass
class Data:
    """A data set: its name, class names, and the splits that were asked for. Of your `own` pictures also the test files."""

    name: str
    classes: list[str]
    splits: dict[str, Split]
    own: bool = False
    test_files: list[pictures.Item] = field(default_factory=list)


def load(
    name: str,
    root: str = "data",
    image_size: int | None = None,
    parts: tuple = ("train", "val"),
    workers: int = 0,
    run: dict | None = None,
) -> Data:
    """Loads the parts asked for ("train", "val", "test") of `name`: auto, mnist, fashion, sample, or a folder's path.

    auto is MNIST if it is in `root` or can be downloaded, else the sample, with a warning. A name that is the path of a folder
    is that folder. `image_size` is the side in pixels of your own pictures (default: 28); the others have 28. `run`: the
    split.json of a run, which says what may be tested. Errors end the program with one line.
    """
    is_own = run["own"] if run and run["data"] == name else Path(name).exists()
    if name == "auto":
        try:
            return load_set("mnist", root, parts)
        except SystemExit as why:
            warn(
                f"MNIST is not to be had, so this run uses the built-in SAMPLE of 1,797 small digits.\n"
                f"{why}\nA score on the sample says nothing about MNIST."
            )
            return load_sample(parts)
    if name in SETS and not is_own:
        return load_set(name, root, parts)
    if name == "sample" and not is_own:
        return load_sample(parts)
    if Path(name).is_dir():
        return load_folder(Path(name), image_size or 28, parts, workers, run)
    fail(f"--data {name}: not mnist, fashion, sample or auto, and there is no folder of that name")


def choose_training(data: Data, limit: int | None, seed: int, source: str) -> tuple[Split, dict]:
    """-> the training pictures that --limit leaves, and which samples train, validate and test (split.json)."""
    train, split = data.splits["train"], {"data": source if data.own else data.name, "own": data.own}
    if limit and limit < len(train):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        train, left = train[order[:limit]], train[order[limit:]]
        split["unused"] = dict(left.samples)
    split |= {"train": dict(train.samples), "val": dict(data.splits["val"].samples)}
    return train, split | {"test": pictures.samples(data.test_files)}


def describe_classes(classes: list[str], labels: Tensor) -> str:
    """How many pictures each class has, and the accuracy of always answering the largest: the score to beat."""
    counts = labels.bincount(minlength=len(classes)).tolist()
    order = sorted(range(len(classes)), key=lambda i: -counts[i])
    named = utils.shortened([f"{classes[i]} {counts[i]:,}" for i in order], 12)
    always = f"always answering {classes[order[0]]} would be right {max(counts) / sum(counts):.1%} of the time"
    return f"{len(classes)} classes: {named}; {always}"


# ---- MNIST and Fashion-MNIST ------------------------------------------------------------------------------------------


def load_set(name: str, root: str, parts: tuple) -> Data:
    """The 70,000 digits of LeCun, Cortes and Burges 1998, or the 70,000 garments of Xiao, Rasul and Vollgraf 2017, 28x28."""
    prepare(name, root)
    classes, splits = [], {}
    for train in {part != "test" for part in parts}:
        try:
            whole = SETS[name](root, train=train)
        except (RuntimeError, ValueError, OSError, AssertionError):  # what torchvision raises for half a file
            fail(f"{raw_folder(name, root)}: a damaged file in it; move this folder away to have it downloaded again")
        part = "train" if train else "test"
        marks = [(fingerprint(image.tobytes()), f"{part} {i}") for i, image in enumerate(whole.data.numpy())]
        split = Split(whole.data[:, None], whole.targets, marks)
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
    for archive, md5 in kind.resources:
        if (raw / archive).exists() and not check_integrity(raw / archive, md5):
            fail(f"{raw / archive}: damaged (its MD5 is not {md5}); move it away to have it downloaded again")
        if not (raw / archive).exists():
            utils.download([mirror + archive for mirror in (*kind.mirrors, MIRRORS[name])], raw / archive, f"md5:{md5}")
    if world() > 1:
        fail(f"{name} in {raw} is not unpacked yet; run `python datasets.py --data {name}` before torchrun")
    try:
        kind(root, download=True)  # finds the archives whose MD5 is right, and unpacks them
    except (OSError, RuntimeError, EOFError) as error:
        fail(f"{raw}: cannot be unpacked ({error})")


# ---- the built-in sample ----------------------------------------------------------------------------------------------


def load_sample(parts: tuple) -> Data:
    images, labels = sample.make_digits()
    whole = Split(
        images, labels, [(fingerprint(image.tobytes()), f"sample {i}") for i, image in enumerate(images.numpy())]
    )
    rows = torch.arange(len(whole))
    return Data("sample", list("0123456789"), {part: whole[rows[SAMPLE_PARTS[part]]] for part in parts})


# ---- your own folder --------------------------------------------------------------------------------------------------


def load_folder(path: Path, image_size: int, parts: tuple, workers: int = 0, run: dict | None = None) -> Data:
    """A folder of class folders, `path`/<class>/*.png, or the same below train/, val/ and test/: see pictures.class_folders.

    Pictures become grey and square: the shorter side scaled, the middle cut out. With the split.json of a `run`, what it
    held out tests.
    """
    classes, files = pictures.class_folders(path, parts)
    if "test" in parts and run:
        files["test"] = pictures.still_held_out(files, run, Path(run["data"]).resolve() == path.resolve())
    splits = {}
    for part in parts:
        images, items = pictures.read_all(files[part], lambda file: read_grey(file, image_size), part, workers)
        labels = torch.tensor([item.label for item in items])
        splits[part] = Split(torch.stack(images), labels, [(item.mark, item.name) for item in items])
    test_files = [] if "test" in parts else pictures.marked(files["test"])  # names and fingerprints, for split.json
    return Data(path.resolve().name, classes, splits, own=True, test_files=test_files)


# ---- to the network ---------------------------------------------------------------------------------------------------


def statistics(images: Tensor) -> tuple[float, float]:
    """(N, 1, S, S) uint8 -> mean and standard deviation of all pixels, as numbers from 0 to 1."""
    share = torch.bincount(images.flatten(), minlength=256).double() / images.numel()
    levels = torch.linspace(0, 1, 256, dtype=torch.float64)
    mean = (share @ levels).item()
    return mean, max(1e-6, (share @ levels**2).item() - mean**2) ** 0.5  # blank pictures must not divide by zero


# ---- python datasets.py -----------------------------------------------------------------------------------------------


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--data", default="auto", help=DATA_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where data lies (default: %(default)s)")
    utils.add_mirror_flag(parser)
    args = parser.parse_args(argv)
    if args.data == "auto":
        table = tables.load_table("auto", args.data_root)
        say(f"{table.name}: {len(table.y)} rows, {len(table.columns)} features, target {table.target}")
    data = load(args.data, args.data_root, parts=("train", "val", "test"))
    split, size = data.splits["train"], data.splits["train"].images.shape[-1]
    counts = ", ".join(f"{len(part):,} {name}" for name, part in data.splits.items())
    say(f"{data.name}: {len(data.classes)} classes, {size}x{size} pixels, {counts}")
    mean, std = statistics(split.images)
    say(f"mean of the training pixels, 0 to 1: {mean:.4f}; standard deviation: {std:.4f}")
    rows = [split.images[split.labels == label][:12] for label in range(len(data.classes))]
    rows = torch.cat([torch.cat([row, row.new_zeros(12 - len(row), *row.shape[1:])]) for row in rows])
    path = pictures.save_picture(Image.fromarray(make_grid(rows, nrow=12, padding=1)[0].numpy()), Path("preview.png"))
    say(f"wrote {path}: a row each of {utils.shortened(data.classes, 20)}")


if __name__ == "__main__":
    utils.start(main)
