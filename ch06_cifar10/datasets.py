"""Real data, your own pictures, or the built-in sample -> train / val / test.

    python datasets.py                       # gets CIFAR-10 ready (or the sample), describes it, saves preview.png
    python datasets.py --export pictures     # writes it as pictures/TRAIN/<class>/<name>.png, VAL and TEST (course 6-3, 6-4)

Two ways to feed a network, the same to the training loop:
  TensorLoader   the whole split as one uint8 tensor on the device, augmented a batch at a time (the default)
  ImageFolder    the course's Dataset over picture files, in a DataLoader with worker processes (6-5)
"""

import argparse
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.utils import check_integrity
from torchvision.transforms import v2
from torchvision.utils import make_grid
from tqdm import tqdm

import sample
from augment import Augment
from utils import fail, rank, say, warn, world

VAL_IMAGES = 5000  # of CIFAR-10's 50,000 training pictures; the other 45,000 train
SPLIT_SEED = 2009  # which pictures are validation never depends on --seed, or runs could not be compared
SAMPLE_SIZES = {"train": 4000, "val": 500, "test": 1000}
DATA_HELP = "auto (default): cifar10 if it can be had, else sample; cifar10; sample; or a folder of class folders"
IMAGE_TYPES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"}
PART_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass
class Split:
    """Pictures (N, 3, H, W) uint8 RGB and their class numbers (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __add__(self, other: "Split") -> "Split":
        return Split(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]))


@dataclass
class Data:
    """A data set: its name, class names, and the splits that were asked for. `files`: the picture files of a split, if any."""

    name: str
    classes: list[str]
    splits: dict[str, Split]
    files: dict[str, list[tuple[Path, int]]] = field(default_factory=dict)


def select(split: Split | list, indices: Tensor) -> Split | list:
    """The chosen pictures of a split, or the chosen names of a list of files."""
    if isinstance(split, list):
        return [split[i] for i in indices.tolist()]
    return Split(split.images[indices], split.labels[indices])


def statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """(N, 3, H, W) uint8 -> mean and standard deviation of the pixels, a number a channel, pixels from 0 to 1."""
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    levels = torch.linspace(0, 1, 256, dtype=torch.float64)
    share = counts / counts.sum(1, keepdim=True).double()
    mean = share @ levels
    std = (share @ levels**2 - mean**2).clamp(min=1e-6).sqrt()  # a channel of one value must not divide by zero
    return mean.tolist(), std.tolist()


def load(
    name: str,
    root: str = "data",
    image_size: int | None = None,
    parts: tuple = ("train", "val"),
    files_only: bool = False,
    limit: int | None = None,
) -> Data:
    """Loads the parts asked for ("train", "val", "test") of `name`: auto, cifar10, sample, or the path of a folder.

    auto is CIFAR-10 if it is in `root` or can be downloaded, else the sample, with a warning. `image_size` is the side
    in pixels (default: 32; 64 for your own folder); of the sample, `limit` pictures a part will do. Errors end the
    program with one line.
    """
    if name == "auto":
        try:
            return load_cifar10(root, image_size, parts)
        except SystemExit as why:
            warn(
                f"CIFAR-10 is not to be had, so this run uses the built-in SAMPLE of drawn pictures.\n"
                f"{why}\nA score on the sample says nothing about CIFAR-10."
            )
            return load_sample(image_size, parts, limit)
    if name == "cifar10":
        return load_cifar10(root, image_size, parts)
    if name == "sample":
        return load_sample(image_size, parts, limit)
    if Path(name).is_dir():
        return load_folder(Path(name), image_size or 64, parts, files_only)
    fail(f"--data {name}: not cifar10, sample or auto, and there is no folder of that name")


# ---- CIFAR-10 ---------------------------------------------------------------------------------------------------------


def load_cifar10(root: str, image_size: int | None, parts: tuple) -> Data:
    """The 60,000 pictures of Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", 32x32."""
    prepare_cifar10(Path(root))
    classes, splits = None, {}
    if "train" in parts or "val" in parts:
        whole = torchvision.datasets.CIFAR10(root, train=True)
        order = torch.randperm(len(whole.data), generator=torch.Generator().manual_seed(SPLIT_SEED))
        chosen = {"val": order[:VAL_IMAGES], "train": order[VAL_IMAGES:]}
        images, labels, classes = to_tensor(whole.data), torch.tensor(whole.targets), whole.classes
        splits = {part: Split(images[chosen[part]], labels[chosen[part]]) for part in parts if part != "test"}
    if "test" in parts:
        whole = torchvision.datasets.CIFAR10(root, train=False)
        splits["test"] = Split(to_tensor(whole.data), torch.tensor(whole.targets))
        classes = whole.classes
    return resized(Data("cifar10", classes, splits), image_size)


def prepare_cifar10(root: Path):
    """Makes sure that CIFAR-10 lies in `root` with the right hashes; downloads it if it does not."""
    cifar = torchvision.datasets.CIFAR10
    hashes = dict(cifar.train_list + cifar.test_list + [[cifar.meta["filename"], cifar.meta["md5"]]])
    folder = root / cifar.base_folder
    bad = [folder / name for name, md5 in hashes.items() if not check_integrity(folder / name, md5)]
    if not bad:
        return
    if any(path.exists() for path in bad):
        broken = next(path for path in bad if path.exists())
        fail(f"{broken}: damaged (not the MD5 it should have); delete it to have it downloaded again")
    if world() > 1:  # not one process downloading while the others go without
        fail(f"CIFAR-10 is not in {root}; get it with `python datasets.py` before torchrun")
    say(f"Downloading CIFAR-10 (170 MB) into {root} ...")
    waited = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds without an answer; torchvision itself would wait for ever
    try:
        cifar(root, download=True)  # torchvision checks the archive's MD5 before it unpacks it
    except (OSError, RuntimeError) as error:
        (root / cifar.filename).unlink(missing_ok=True)  # half an archive
        fail(
            f"could not download {cifar.url} ({error}); put {cifar.filename} into {root} by hand (MD5 {cifar.tgz_md5})"
        )
    finally:
        socket.setdefaulttimeout(waited)


# ---- the built-in sample ----------------------------------------------------------------------------------------------


def load_sample(image_size: int | None, parts: tuple, limit: int | None = None) -> Data:
    """Drawn anew each time, in seconds; with `limit`, no more than that a part."""
    splits = {}
    for seed, (part, count) in enumerate(SAMPLE_SIZES.items()):
        if part in parts:
            images, labels = sample.make(min(count, limit or count), seed)
            splits[part] = Split(to_tensor(images), torch.from_numpy(labels))
    return resized(Data("sample", list(sample.CLASSES), splits), image_size)


# ---- your own folder --------------------------------------------------------------------------------------------------


def load_folder(path: Path, image_size: int, parts: tuple, files_only: bool) -> Data:
    """A folder of class folders, `path`/<class>/*.png, or the same below train/, val/ and test/ (TRAIN, TEST too).

    Without val/, every tenth picture of a class validates; without train/ and test/, every tenth tests as well: drawn with a
    fixed seed from the sorted names. With `files_only` the pictures are listed and not read.
    """
    folders = {
        part: next((p for p in sorted(path.iterdir()) if p.is_dir() and p.name.lower() in names), None)
        for part, names in PART_NAMES.items()
    }
    top = folders["train"] or path
    classes = sorted(p.name for p in top.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        fail(
            f"{top}: {'only one' if classes else 'no'} class folder; "
            f"expected {top}/<class>/<picture>.png for two classes or more"
        )
    files = {part: list_files(folders[part], classes) for part in PART_NAMES if folders[part]}
    if folders["train"] is None:
        files["train"], files["test"] = split_files(list_files(path, classes))
    if "val" not in files:
        files["train"], files["val"] = split_files(files["train"])
    if "test" not in files:
        if "test" in parts:
            fail(f"{path}: has train/ but no test/ to test on")
        files["test"] = []
    chosen = {part: files[part] for part in parts}
    splits = {} if files_only else {part: read_files(part, chosen[part], image_size) for part in parts}
    return Data(path.name, classes, splits, chosen)


def list_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """-> (file, class number) of each picture in folder/<class>/, sorted by name."""
    unknown = sorted(
        {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")} - set(classes) - {"__pycache__"}
    )
    if unknown:
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


def read_image(path: Path, image_size: int) -> Tensor:
    """-> (3, image_size, image_size) uint8 RGB: the shorter side scaled, the middle cut out. OSError if it is no picture."""
    try:
        with Image.open(path) as picture:
            picture = ImageOps.exif_transpose(picture).convert("RGB")  # cameras store which way is up beside the pixels
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:  # what Pillow raises for odd files
        raise OSError(error) from error
    scale = image_size / min(picture.size)
    if scale != 1:
        picture = picture.resize([max(image_size, round(side * scale)) for side in picture.size], Image.BICUBIC)
    left, top = ((side - image_size) // 2 for side in picture.size)
    return torch.from_numpy(np.array(picture.crop((left, top, left + image_size, top + image_size)))).permute(2, 0, 1)


def read_files(part: str, files: list[tuple[Path, int]], image_size: int) -> Split:
    """Reads all pictures of a split into memory; names and counts the unreadable ones, and goes on without them."""
    images, labels, bad = [], [], []
    for path, label in tqdm(files, desc=f"reading {part}", disable=None if rank() == 0 else True, leave=False):
        try:
            images.append(read_image(path, image_size))
            labels.append(label)
        except OSError:
            bad.append(path)
            say(f"skipped {path}: not a picture that can be read")
    if bad:
        say(f"skipped {len(bad)} of {len(files)} {part} pictures")
    if not images:
        fail(f"none of the {len(files)} {part} pictures can be read, the first being {files[0][0]}")
    return Split(torch.stack(images), torch.tensor(labels))


# ---- to the network ---------------------------------------------------------------------------------------------------


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 array -> (N, 3, H, W) uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))


def resized(data: Data, image_size: int | None) -> Data:
    for split in data.splits.values():
        if image_size and split.images.shape[-1] != image_size:
            split.images = v2.functional.resize(split.images, [image_size, image_size], antialias=True)
    return data


class Normalize(torch.nn.Module):
    """uint8 or float pixels (N, 3, H, W), 0 to 255 -> floats of mean 0 and variance 1 a channel, channels_last."""

    def __init__(self, mean: list[float], std: list[float]):
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return ((pixels.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class TensorLoader:
    """Batches (pixels (n, 3, H, W) uint8, labels (n,)) of a split that lies on the device as one tensor.

    32x32 pictures are small: CIFAR-10's training part is 138 MB. So nothing is read, decoded or copied while training,
    and the augmentation is a few tensor operations a batch instead of a few Python calls a picture. With `augment` the
    order is drawn anew from (seed, epoch), the same in all processes, and each takes its share; an incomplete last batch
    is left out.
    """

    def __init__(
        self, split: Split, batch_size: int, device: torch.device, augment: Augment | None = None, seed: int = 0
    ):
        self.images, self.labels = split.images.to(device), split.labels.to(device)
        self.batch_size, self.augment, self.seed, self.epoch = batch_size, augment, seed, 0
        self.pictures, self.image_size = len(self.labels), self.images.shape[-1]
        if augment:
            self.batch_size = min(batch_size, self.pictures)

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size if self.augment else -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self.labels))
        if self.augment:
            order = torch.randperm(
                len(self.labels), generator=torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
            )
        for batch in order.to(self.labels.device).split(self.batch_size)[: len(self)]:
            mine = batch[rank() :: world()]
            images = self.images[mine]
            yield (self.augment(images, mine, self.epoch) if self.augment else images), self.labels[mine]


class ImageFolder(Dataset):
    """The course's Dataset (6-5): one picture file at a time -> ((3, S, S) uint8, class number)."""

    def __init__(self, files: list[tuple[Path, int]], image_size: int, transform=None):
        self.files, self.image_size, self.transform = files, image_size, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        try:
            image = read_image(path, self.image_size)
        except OSError:
            raise OSError(f"{path}: not a picture that can be read") from None
        return (self.transform(image) if self.transform else image), label


class FileLoader:
    """Batches like TensorLoader's, read from picture files by worker processes: for data that does not fit into memory."""

    def __init__(
        self,
        files,
        image_size: int,
        batch_size: int,
        device: torch.device,
        train: bool,
        workers: int = 0,
        seed: int = 0,
    ):
        crop = v2.Compose(
            [v2.RandomCrop(image_size, padding=image_size // 8, padding_mode="reflect"), v2.RandomHorizontalFlip()]
        )
        self.data = ImageFolder(files, image_size, crop if train else None)
        self.batch_size, self.device, self.train, self.workers = min(batch_size, len(files)), device, train, workers
        self.seed, self.epoch, self.pictures, self.image_size = seed, 0, len(files), image_size

    def __len__(self) -> int:
        return len(self.data) // self.batch_size if self.train else -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.data), generator=generator) if self.train else torch.arange(len(self.data))
        batches = [batch[rank() :: world()].tolist() for batch in order.split(self.batch_size)[: len(self)]]
        pin = self.device.type == "cuda"
        try:
            loader = DataLoader(
                self.data, batch_sampler=batches, num_workers=self.workers, generator=generator, pin_memory=pin
            )
            for images, labels in loader:
                yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        except OSError as error:
            fail(str(error).strip().splitlines()[-1].removeprefix("OSError: "))


# ---- python datasets.py -----------------------------------------------------------------------------------------------


def export(data: Data, folder: Path, verbose: bool = True):
    """Writes folder/TRAIN/<class>/<number>.png, VAL and TEST, in true colours.

    Pillow takes RGB. The course's script hands RGB arrays to OpenCV's imwrite, which takes BGR, so its red is blue.
    """
    for part, split in data.splits.items():
        for name in data.classes:
            (folder / part.upper() / name).mkdir(parents=True, exist_ok=True)
        pairs = zip(split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist(), strict=True)
        for number, (image, label) in enumerate(
            tqdm(pairs, desc=part, total=len(split), disable=None if verbose else True)
        ):
            Image.fromarray(image).save(folder / part.upper() / data.classes[label] / f"{number:05d}.png")
        if verbose:
            print(f"wrote {len(split):,} pictures to {folder / part.upper()}")


def describe(data: Data):
    """Prints the splits, the pictures a class, and the pixel statistics."""
    size = "x".join(map(str, data.splits["train"].images.shape[-2:]))
    print(
        f"{data.name}: {len(data.classes)} classes, {size} pixels, "
        + ", ".join(f"{len(s):,} {part}" for part, s in data.splits.items())
    )
    counts = {
        part: torch.bincount(split.labels, minlength=len(data.classes)).tolist() for part, split in data.splits.items()
    }
    print(f"{'class':<14}" + "".join(f"{part:>8}" for part in counts))
    for label, name in enumerate(data.classes):
        print(f"{name:<14}" + "".join(f"{count[label]:>8,}" for count in counts.values()))
    mean, std = statistics(data.splits["train"].images)
    print(
        "mean of the training pixels, 0 to 1: "
        + " ".join(f"{m:.4f}" for m in mean)
        + "; standard deviation: "
        + " ".join(f"{s:.4f}" for s in std)
    )


def preview(data: Data, path: str):
    """Saves a picture with eight training pictures a class, a class a row."""
    split = data.splits["train"]
    rows = [split.images[(split.labels == label).nonzero()[:8, 0]] for label in range(len(data.classes))]
    grid = make_grid(
        torch.cat([torch.cat([row, row.new_zeros(8 - len(row), *row.shape[1:])]) for row in rows]), nrow=8, padding=1
    )
    picture = Image.fromarray(grid.permute(1, 2, 0).numpy())
    picture.resize((2 * picture.width, 2 * picture.height), Image.NEAREST).save(path)
    print(f"wrote {path}: a row each of {', '.join(data.classes)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="auto", help=DATA_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where CIFAR-10 lies (default: %(default)s)")
    parser.add_argument("--image-size", type=int, metavar="N", help="side in pixels (default: 32; your own folder: 64)")
    parser.add_argument("--export", metavar="DIR", help="write DIR/TRAIN/<class>/<name>.png, VAL and TEST")
    args = parser.parse_args()
    data = load(args.data, args.data_root, args.image_size, ("train", "val", "test"))
    describe(data)
    if args.export:
        export(data, Path(args.export))
    else:
        preview(data, "preview.png")


if __name__ == "__main__":
    main()
