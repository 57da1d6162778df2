"""Real data, your own pictures, or the built-in sample -> train / val / test.

    python datasets.py                       # gets CIFAR-10 ready (or the sample), describes it, saves preview.png
    python datasets.py --export pictures     # writes it as pictures/TRAIN/<class>/<name>.png, VAL and TEST (course 6-3, 6-4)

Two ways to feed a network, the same to the training loop:
  TensorLoader   the whole split as one uint8 tensor on the device, augmented a batch at a time (the default)
  ImageFolder    the course's Dataset over picture files, in a DataLoader with worker processes (6-5)
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.utils import check_integrity
from torchvision.transforms import v2
from torchvision.utils import make_grid
from tqdm import tqdm

import pictures
import sample
import utils
from augment import Augment
from pictures import Item
from utils import Number, fail, fingerprint, rank, say, warn, world

VAL_IMAGES = 5000  # of CIFAR-10's 50,000 training pictures; the other 45,000 train
SPLIT_SEED = 2009  # which pictures are validation never depends on --seed, or runs could not be compared
CIFAR_MIRROR = "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz"
SAMPLE_SIZES = {"train": 4000, "val": 500, "test": 1000}
DATA_HELP = "auto (default): cifar10 if it can be had, else sample; cifar10; sample; or a folder of class folders"
IMAGE_SIZES = Number(int, 1, 4096)


@dataclass
class Split:
    """Pictures (N, 3, H, W) uint8 RGB, their class numbers (N,) int64, and which samples they are (fingerprint, name)."""

    images: Tensor
    labels: Tensor
    samples: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def __add__(self, other: "Split") -> "Split":
        images, labels = torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels])
        return Split(images, labels, self.samples + other.samples)


@dataclass
class Data:
    """A data set: its name, class names, and the splits that were asked for. Of your `own` pictures also the `files`."""

    name: str
    classes: list[str]
    splits: dict[str, Split]
    files: dict[str, list[Item]] = field(default_factory=dict)
    own: bool = False


def select(split: Split | list, indices: Tensor) -> Split | list:
    """The chosen pictures of a split, or the chosen ones of a list of files."""
    if isinstance(split, list):
        return [split[i] for i in indices.tolist()]
    samples = [split.samples[i] for i in indices.tolist()] if split.samples else []
    return Split(split.images[indices], split.labels[indices], samples)


def samples_of(part: Split | list) -> dict[str, str]:
    """{fingerprint: name} of a split or a list of files, as split.json has it."""
    return pictures.samples(part) if isinstance(part, list) else dict(part.samples)


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
    run: dict | None = None,
) -> Data:
    """Loads the parts asked for ("train", "val", "test") of `name`: auto, cifar10, sample, or the path of a folder.

    auto is CIFAR-10 if it is in `root` or can be downloaded, else the sample, with a warning. A name that is the path of a
    folder is that folder. `image_size` is the side in pixels (default: 32; 64 for your own folder); of the sample, `limit`
    pictures a part will do. `run`: the split.json of a run, which says what may be tested. Errors end the
    program with one line.
    """
    is_own = run["own"] if run and run["data"] == name else Path(name).exists()
    if name == "auto":
        try:
            return load_cifar10(root, image_size, parts)
        except SystemExit as why:
            warn(
                f"CIFAR-10 is not to be had, so this run uses the built-in SAMPLE of drawn pictures.\n"
                f"{why}\nA score on the sample says nothing about CIFAR-10."
            )
            return load_sample(image_size, parts, limit)
    if name == "cifar10" and not is_own:
        return load_cifar10(root, image_size, parts)
    if name == "sample" and not is_own:
        return load_sample(image_size, parts, limit)
    if Path(name).is_dir():
        return load_folder(Path(name), image_size or 64, parts, files_only, run)
    fail(f"--data {name}: not cifar10, sample or auto, and there is no folder of that name")


def numbered(images: Tensor, part: str) -> list[tuple[str, str]]:
    """(fingerprint, name) of pictures that have no file."""
    return [(fingerprint(image.tobytes()), f"{part} {i}") for i, image in enumerate(images.numpy())]


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
        everything = Split(images, labels, numbered(images, "train"))
        splits = {part: select(everything, chosen[part]) for part in parts if part != "test"}
    if "test" in parts:
        whole = torchvision.datasets.CIFAR10(root, train=False)
        images = to_tensor(whole.data)
        splits["test"] = Split(images, torch.tensor(whole.targets), numbered(images, "test"))
        classes = whole.classes
    return resized(Data("cifar10", classes, splits), image_size)


def prepare_cifar10(root: Path):
    """Makes sure that CIFAR-10 lies in `root` with the right hashes; downloads it if it does not."""
    cifar = torchvision.datasets.CIFAR10
    hashes = dict(cifar.train_list + cifar.test_list + [[cifar.meta["filename"], cifar.meta["md5"]]])
    folder, archive = root / cifar.base_folder, root / cifar.filename
    bad = [folder / name for name, md5 in hashes.items() if not check_integrity(folder / name, md5)]
    if not bad:
        return
    if any(path.exists() for path in bad):
        broken = next(path for path in bad if path.exists())
        fail(f"{broken}: damaged (not the MD5 it should have); move it away to have it downloaded again")
    if archive.exists() and not check_integrity(archive, cifar.tgz_md5):
        fail(f"{archive}: damaged (its MD5 is not {cifar.tgz_md5}); move it away to have it downloaded again")
    if not archive.exists():
        utils.download([cifar.url, CIFAR_MIRROR], archive, f"md5:{cifar.tgz_md5}")
    if world() > 1:
        fail(f"{archive} is not unpacked yet; run `python datasets.py` before torchrun")
    try:
        cifar(root, download=True)  # finds the archive whose MD5 is right, and unpacks it
    except (OSError, RuntimeError) as error:
        fail(f"{archive}: cannot be unpacked ({error})")


def course_names(root: str) -> dict[str, list[str]]:
    """-> the file names that CIFAR-10's pictures have in its batches, such as domestic_cat_s_000907.png, by "train", "test".

    They are looked for in the bytes: a pickled text is the letter U, its length in one byte, and the text.
    """
    cifar, names = torchvision.datasets.CIFAR10, {}
    for part, batches in (("train", cifar.train_list), ("test", cifar.test_list)):
        content = b"".join((Path(root) / cifar.base_folder / name).read_bytes() for name, _ in batches)
        found = re.finditer(rb"U(.)([ -~]{1,80}?_s_\d{6}\.png)", content, re.DOTALL)
        names[part] = [match[2].decode() for match in found if match[1][0] == len(match[2])]
    return names


# ---- the built-in sample ----------------------------------------------------------------------------------------------


def load_sample(image_size: int | None, parts: tuple, limit: int | None = None) -> Data:
    """Drawn anew each time, in seconds; with `limit`, no more than that a part."""
    splits = {}
    for seed, (part, count) in enumerate(SAMPLE_SIZES.items()):
        if part in parts:
            images, labels = sample.make(min(count, limit or count), seed)
            images = to_tensor(images)
            splits[part] = Split(images, torch.from_numpy(labels), numbered(images, part))
    return resized(Data("sample", list(sample.CLASSES), splits), image_size)


# ---- your own folder --------------------------------------------------------------------------------------------------


def load_folder(path: Path, image_size: int, parts: tuple, files_only: bool, run: dict | None = None) -> Data:
    """A folder of class folders, `path`/<class>/*.png, or the same below train/, val/ and test/: see pictures.class_folders.

    With `files_only` the pictures are checked, and not kept in memory. With the split.json of a `run`, what it held out tests.
    """
    classes, files = pictures.class_folders(path, parts)
    if "test" in parts and run:
        files["test"] = pictures.still_held_out(files, run, Path(run["data"]).resolve() == path.resolve())
    splits = {}
    for part in parts:
        images, files[part] = read_files(part, files[part], image_size, keep=not files_only)
        if images:
            labels = torch.tensor([item.label for item in files[part]])
            splits[part] = Split(torch.stack(images), labels, [(item.mark, item.name) for item in files[part]])
    if "test" not in parts:  # only their names and fingerprints, for split.json
        files["test"] = pictures.marked(files["test"])
    return Data(path.resolve().name, classes, splits, files, own=True)


def read_files(part: str, files: list[Item], image_size: int, keep: bool = True) -> tuple[list[Tensor], list[Item]]:
    """-> the readable pictures and their items; without `keep`, only the items. Of the others says names and number."""

    def read(file) -> Tensor | None:
        image = read_image(file, image_size)
        return image if keep else None

    images, items = pictures.read_all(files, read, part)
    return (images if keep else []), items


def read_image(path: Path, image_size: int) -> Tensor:
    """-> (3, image_size, image_size) uint8 RGB: the shorter side scaled, the middle cut out. OSError if it is no picture."""
    picture = pictures.read_picture(path)
    scale = image_size / min(picture.size)
    if scale != 1:
        picture = picture.resize([max(image_size, round(side * scale)) for side in picture.size], Image.BICUBIC)
    left, top = ((side - image_size) // 2 for side in picture.size)
    return torch.from_numpy(np.array(picture.crop((left, top, left + image_size, top + image_size)))).permute(2, 0, 1)


# ---- to the network ---------------------------------------------------------------------------------------------------


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 array -> (N, 3, H, W) uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))


def resized(data: Data, image_size: int | None) -> Data:
    for split in data.splits.values():
        if image_size and split.images.shape[-1] != image_size:
            # Channels last: else a side of one pixel fails in PyTorch.
            images = split.images.contiguous(memory_format=torch.channels_last)
            split.images = v2.functional.resize(images, [image_size, image_size], antialias=True).contiguous()
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
        self.images, self.labels, self.device = split.images.to(device), split.labels.to(device), device
        self.batch_size, self.augment, self.seed, self.epoch = batch_size, augment, seed, 0
        self.pictures, self.image_size = len(self.labels), self.images.shape[-1]
        if augment:
            self.batch_size = min(batch_size, self.pictures // world() * world())

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

    def __init__(self, files: list[Item], image_size: int):
        self.files, self.image_size = files, image_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        item = self.files[index]
        try:
            return read_image(item.path, self.image_size), item.label
        except OSError as error:
            raise OSError(f"{item.path}: could be read at the start of the run, and now it cannot ({error})") from None


class FileLoader:
    """Batches like TensorLoader's, with the same augmentation, read from picture files by worker processes: for data that
    does not fit into memory."""

    def __init__(
        self,
        files: list[Item],
        image_size: int,
        batch_size: int,
        device: torch.device,
        augment: Augment | None = None,
        workers: int = 0,
        seed: int = 0,
    ):
        self.data, self.augment, self.workers, self.device = ImageFolder(files, image_size), augment, workers, device
        self.batch_size = min(batch_size, len(files) // world() * world()) if augment else batch_size
        self.seed, self.epoch, self.pictures, self.image_size = seed, 0, len(files), image_size

    def __len__(self) -> int:
        return len(self.data) // self.batch_size if self.augment else -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.data), generator=generator) if self.augment else torch.arange(len(self.data))
        batches = [batch[rank() :: world()] for batch in order.split(self.batch_size)[: len(self)]]
        batches = [batch for batch in batches if len(batch)]  # the last of validation may be too small to share
        pin = self.device.type == "cuda"
        try:
            lists = [batch.tolist() for batch in batches]
            loader = DataLoader(
                self.data, batch_sampler=lists, num_workers=self.workers, generator=generator, pin_memory=pin
            )
            for mine, (images, labels) in zip(batches, loader, strict=True):
                images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
                mine = mine.to(self.device, non_blocking=True)
                yield (self.augment(images, mine, self.epoch) if self.augment else images), labels
        except OSError as error:
            fail(str(error).strip().splitlines()[-1].removeprefix("OSError: "))


# ---- python datasets.py -----------------------------------------------------------------------------------------------


def export(data: Data, folder: Path, verbose: bool = True, names: dict[str, list[str]] | None = None):
    """Writes folder/TRAIN/<class>/<name>.png, VAL and TEST, in true colours. `names`: CIFAR-10's own, else they are numbers.

    Pillow takes RGB. The course's script hands RGB arrays to OpenCV's imwrite, which takes BGR, so its red is blue.
    """
    for part, split in data.splits.items():
        top = folder / part.upper()
        if top.exists():
            fail(f"{top} is there already; name a new folder")
        for name in data.classes:
            utils.output_folder(top / name)
        pairs = zip(split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist(), strict=True)
        for number, (image, label) in enumerate(
            tqdm(pairs, desc=part, total=len(split), disable=None if verbose else True)
        ):
            name = f"{number:05d}.png"
            if names:
                source, at = split.samples[number][1].split()
                name = names[source][int(at)]
            Image.fromarray(image).save(top / data.classes[label] / name)
        if verbose:
            say(f"wrote {len(split):,} pictures to {top}")


def describe(data: Data):
    """Prints the splits, the pictures a class, and the pixel statistics."""
    size = "x".join(map(str, data.splits["train"].images.shape[-2:]))
    parts = ", ".join(f"{len(s):,} {part}" for part, s in data.splits.items())
    say(f"{data.name}: {len(data.classes)} classes, {size} pixels, {parts}")
    counts = {
        part: torch.bincount(split.labels, minlength=len(data.classes)).tolist() for part, split in data.splits.items()
    }
    rows = [[name, *(f"{count[label]:,}" for count in counts.values())] for label, name in enumerate(data.classes)]
    utils.print_table([["class", *counts], *rows])
    mean, std = (" ".join(f"{x:.4f}" for x in part) for part in statistics(data.splits["train"].images))
    say(f"mean of the training pixels, 0 to 1: {mean}; standard deviation: {std}")


def preview(data: Data, path: str):
    """Saves a picture with eight training pictures a class, a class a row."""
    split = data.splits["train"]
    rows = [split.images[(split.labels == label).nonzero()[:8, 0]] for label in range(len(data.classes))]
    grid = make_grid(
        torch.cat([torch.cat([row, row.new_zeros(8 - len(row), *row.shape[1:])]) for row in rows]), nrow=8, padding=1
    )
    picture = Image.fromarray(grid.permute(1, 2, 0).numpy())
    written = pictures.save_picture(picture.resize((2 * picture.width, 2 * picture.height), Image.NEAREST), Path(path))
    say(f"wrote {written}: a row each of {utils.shortened(data.classes, 20)}")


def main(argv=None):
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--data", default="auto", help=DATA_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where CIFAR-10 lies (default: %(default)s)")
    utils.add_mirror_flag(parser)
    size_help = "side in pixels (default: 32; your own folder: 64)"
    parser.add_argument("--image-size", type=IMAGE_SIZES, metavar="N", help=size_help)
    parser.add_argument("--export", metavar="DIR", help="write DIR/TRAIN/<class>/<name>.png, VAL and TEST")
    args = parser.parse_args(argv)
    data = load(args.data, args.data_root, args.image_size, ("train", "val", "test"))
    describe(data)
    if args.export:
        export(
            data,
            Path(args.export),
            names=course_names(args.data_root) if data.name == "cifar10" and not data.own else None,
        )
    else:
        preview(data, "preview.png")


if __name__ == "__main__":
    utils.start(main)
