"""Two domains of pictures, A and B: a set by name, your own folders, or the built-in sample.

    python datasets.py                         # gets apple2orange ready (or the sample), counts it, saves preview.png
    python datasets.py --data horse2zebra      # another set of Zhu et al. 2017

Your own pictures lie in PATH/trainA, trainB, testA, testB, as in the paper's sets, or in PATH/train/A, train/B, test/A,
test/B, as in the course. The domains may differ in number, and the pictures in size.
  PictureFiles   a Dataset over picture files, read by worker processes (lesson 9-3)
  PairLoader     both domains as uint8 tensors on the device; crops, mirrors and pairs them, a batch at a time
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import pictures
import sample
import utils
from pictures import list_pictures, read_picture
from utils import Number, fail, fingerprint, rank, say, warn, world

# SHA-256 of NAME.zip, as TensorFlow Datasets lists them (url_checksums/cycle_gan.txt)
SETS = {
    "apple2orange": "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8",
    "horse2zebra": "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1",
    "summer2winter_yosemite": "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9",
    "monet2photo": "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04",
    "cezanne2photo": "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff",
    "ukiyoe2photo": "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08",
    "vangogh2photo": "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff",
    "iphone2dslr_flower": "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113",
    "maps": "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e",
    "facades": "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0",
}
MIRRORS = (
    "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets/",
    "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/",
    "https://people.eecs.berkeley.edu/~taesung_park/CycleGAN/datasets/",
    "https://web.archive.org/web/2020id_/https://people.eecs.berkeley.edu/~taesung_park/CycleGAN/datasets/",
)
TIMEOUT = 20  # seconds without an answer, then the next mirror
DEFAULT_SET = {"cyclegan": "apple2orange", "pix2pix": "facades", "dcgan": "apple2orange", "wgan_gp": "apple2orange"}
FROM_NOISE = ("dcgan", "wgan_gp")  # these learn from pictures of one domain alone
SAMPLE_SIZES = {"train": (320, 280), "test": (100, 100)}  # unequal, as real domains are
DATA_HELP = (
    "auto (default): apple2orange (pix2pix: facades) if it can be had, else sample; sample; a folder of yours; "
    + "or a set: "
    + ", ".join(SETS)
)
IMAGE_SIZES = Number(int, 16, 4096)


@dataclass
class Data:
    """Pictures of both domains, (N, 3, S, S) uint8 RGB, and their files' names; for pix2pix, the i-th of a and b are a pair.

    `own`: from a folder of yours. `samples`: {fingerprint: name} of these pictures, `others` of those of the other part.
    """

    name: str
    a: Tensor
    b: Tensor
    names_a: list[str]
    names_b: list[str]
    image_size: int
    own: bool = False
    samples: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)


def load(
    name: str, root="data", part="train", mode="cyclegan", image_size=None, limit=None, workers=0, run=None
) -> Data:
    """The "train" or "test" part of `name`: auto, sample, a set of SETS, or the path of a folder.

    A name that is the path of a folder is that folder. `image_size` is what the networks see (default: 256; the sample and
    dcgan: 64). Training pictures are read an eighth larger, to be cropped at random. Of each domain, `limit` pictures at most.
    `run`: the split.json of a run, which says what may be tested. Errors end the program with one line.
    """
    is_own = run["own"] if run and run["data"] == name else Path(name).exists()
    if name == "auto":
        try:
            name = str(prepare(DEFAULT_SET[mode], Path(root)))
        except SystemExit as why:
            warn(
                f"{DEFAULT_SET[mode]} is not to be had, so this run uses the built-in SAMPLE of drawn fruit.\n"
                f"{why}\nWhat a network makes of the sample says nothing about photographs."
            )
            name = "sample"
    is_sample = name == "sample" and not is_own
    size = image_size or (64 if is_sample or mode in FROM_NOISE else 256)
    read_size = size * 9 // 8 if part == "train" else size
    if is_sample:
        return load_sample(part, mode, size, read_size, limit)
    if name in SETS and not is_own:
        name = str(prepare(name, Path(root)))
    if not Path(name).is_dir():
        fail(f"--data {name}: not auto, sample or one of {', '.join(SETS)}, and there is no folder of that name")
    return load_folder(Path(name), part, mode, size, read_size, limit, workers, is_own, run)


def load_sample(part: str, mode: str, size: int, read_size: int, limit: int | None) -> Data:
    """Drawn anew each time, in seconds. For pix2pix: label maps and the pictures that belong to them."""
    counts = [min(count, limit or count) for count in SAMPLE_SIZES[part]]
    seed = list(SAMPLE_SIZES).index(part)
    if mode == "pix2pix":
        a, b = sample.make_pairs(counts[0], read_size, seed)
    else:
        a, b = (sample.make(kind, count, read_size, seed) for kind, count in zip(sample.KINDS, counts, strict=True))
    names = [[f"{i:04d}.png" for i in range(len(domain))] for domain in (a, b)]
    marks = {
        fingerprint(x.numpy().tobytes()): f"{part}{d} {i}"
        for d, xs in zip("AB", (a, b), strict=True)
        for i, x in enumerate(xs)
    }
    return Data("sample", a, b, *names, size, samples=marks)


# ---- the sets of the paper --------------------------------------------------------------------------------------------


def prepare(name: str, root: Path) -> Path:
    """-> the folder root/name of that set, downloaded and unpacked if it is not there yet."""
    folder, archive = root / name, root / f"{name}.zip"
    if folder.is_dir():
        return folder
    if archive.exists() and utils.hash_of(archive) != SETS[name]:
        fail(f"{archive}: damaged (not the SHA-256 it should have); move it away to have it downloaded again")
    if not archive.exists():
        say(
            f"mirrors in China: search for {name} on https://opendatalab.com or https://modelscope.cn; it goes into {root}"
        )
        utils.download([f"{mirror}{name}.zip" for mirror in MIRRORS], archive, f"sha256:{SETS[name]}", timeout=TIMEOUT)
    if world() > 1:  # not one process unpacking while the others look for the folder
        fail(f"{archive} is not unpacked yet; run `python datasets.py --data {name}` before torchrun")
    try:
        unpack(archive, folder)
    except OSError as error:
        fail(f"cannot write to {root}: {error.strerror or error}")
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks the archive's own top folder as `folder`: all of it or nothing, and no member outside it."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        top = Path(beside).resolve()
        try:
            with zipfile.ZipFile(archive) as file:
                for member in file.infolist():
                    if not (top / member.filename).resolve().is_relative_to(top):
                        fail(f"{archive}: refused, since {member.filename} would land outside the folder")
                file.extractall(top)
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            fail(f"{archive}: not an archive that can be read ({error})")
        inside = top / folder.name
        shutil.move(inside if inside.is_dir() else top, folder)
        top.mkdir(exist_ok=True)  # TemporaryDirectory wants something to remove


# ---- your own folder --------------------------------------------------------------------------------------------------


def load_folder(path: Path, part: str, mode: str, size: int, read_size: int, limit, workers, is_own, run) -> Data:
    """The two domains of a folder; for pix2pix, pairs of the same name, or pictures that hold both halves side by side."""
    files_a, files_b, halves = find_files(path, part, mode)
    other = "test" if part == "train" else "train"
    others = (
        marks_of([f for files in find_files(path, other, mode, needed=False)[:2] for f in files], path)
        if is_own
        else {}
    )
    if is_own and run and "train" in run:
        here = marks_of([*files_a, *files_b], path)
        chosen = {
            here[mark]
            for mark in utils.held_out(
                run, others | here, set(here), same_data=Path(run["data"]).resolve() == path.resolve()
            )
            if mark in here
        }
        files_a, files_b = ([p for p in files if name_of(p, path) in chosen] for files in (files_a, files_b))
        if not files_a and not files_b:
            fail(f"{path}: no picture is left to test that did not train")
    files_a, files_b = files_a[:limit], files_b[:limit]
    a, kept_a = read_files(files_a, read_size, workers, halves[0])
    b, kept_b = read_files(files_b, read_size, workers, halves[1])
    if mode == "pix2pix" and (len(a), len(b)) != (len(files_a), len(files_b)):
        fail(f"{path}: pix2pix needs both pictures of every pair; take out the pairs of the pictures named above")
    names_a, names_b = ([p.name for p in kept] for kept in (kept_a, kept_b))
    marks = marks_of([*kept_a, *kept_b], path)
    return Data(path.resolve().name, a, b, names_a, names_b, size, is_own, marks, others)


def find_files(path: Path, part: str, mode: str, needed: bool = True) -> tuple[list[Path], list[Path], tuple]:
    """-> the picture files of both domains of a part, and which half of each picture belongs to it (None: all of it)."""
    plain = path / part
    folders = [find_domain(path, part, domain) for domain in "AB"]
    has_domains = all(folders)
    if mode == "pix2pix" and not has_domains and plain.is_dir() and list_pictures(plain):
        return list_pictures(plain), list_pictures(plain), ("left", "right")
    if mode in FROM_NOISE and not folders[1] and list_pictures(path):  # one domain, just a folder of pictures
        return [], list_pictures(path) if part == "train" else [], (None, None)
    if not needed:
        return *([] if folder is None else list_pictures(folder) for folder in folders), (None, None)
    for folder, domain in zip(folders, "AB", strict=True):
        if folder is None:
            fail(f"{path}: expected the folders {part}A and {part}B in it, or {part}/A and {part}/B; "
                 f"there is no {part}{domain}")  # fmt: skip
    files_a, files_b = (some_pictures(folder) for folder in folders)
    return *(matched(files_a, files_b) if mode == "pix2pix" else (files_a, files_b)), (None, None)


def find_domain(path: Path, part: str, domain: str) -> Path | None:
    """-> path/trainA, as in the paper's sets, or path/train/A, as in the course."""
    return next((p for p in (path / f"{part}{domain}", path / part / domain) if p.is_dir()), None)


def some_pictures(folder: Path) -> list[Path]:
    types = ", ".join(sorted(pictures.IMAGE_TYPES))
    return list_pictures(folder) or fail(f"{folder}: no pictures in this folder ({types})")


def name_of(file: Path, path: Path) -> str:
    return file.relative_to(path).as_posix()


def marks_of(files: list[Path], path: Path) -> dict[str, str]:
    """{fingerprint: name} of picture files, as split.json has it; those that cannot be read are left out."""
    return pictures.samples(pictures.marked([pictures.Item(p, 0, name_of(p, path)) for p in files]))


def matched(files_a: list[Path], files_b: list[Path]) -> tuple[list[Path], list[Path]]:
    """Pairs by name: 7.png and 7.jpg, or 7_A.jpg and 7_B.jpg as in the paper's maps and facades."""
    by_key: list[dict[str, Path]] = [{}, {}]
    for files, domain, found in zip((files_a, files_b), "AB", by_key, strict=True):
        for p in files:
            other = found.setdefault(p.stem.removesuffix(f"_{domain}"), p)
            if other != p:
                fail(f"{p}: {other.name} has the same name, so the partner of neither is known")
    alone = sorted(by_key[0].keys() ^ by_key[1].keys())
    if alone:
        there = by_key[0].get(alone[0]) or by_key[1].get(alone[0])
        fail(f"{there}: has no partner of the same name in the other domain ({len(alone)} such pictures)")
    return [by_key[0][key] for key in sorted(by_key[0])], [by_key[1][key] for key in sorted(by_key[0])]


def squared(picture: Image.Image, side: int) -> Image.Image:
    """The shorter side scaled to `side`, the middle cut out."""
    scale = side / min(picture.size)
    if scale != 1:
        picture = picture.resize([max(side, round(length * scale)) for length in picture.size], Image.BICUBIC)
    left, top = ((length - side) // 2 for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


def pixels_of(picture: Image.Image) -> Tensor:
    """-> (3, H, W) uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


class PictureFiles(Dataset):
    """The course's Dataset (9-3), a domain at a time: -> (3, S, S) uint8, or, of a file that is no picture, why."""

    def __init__(self, files: list[Path], side: int, half: str | None = None):
        self.files, self.side, self.half = files, side, half

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            picture = read_picture(self.files[index])
        except OSError as error:
            return error.strerror or str(error)
        if self.half:
            middle = picture.width // 2
            left = 0 if self.half == "left" else middle
            picture = picture.crop((left, 0, left + middle, picture.height))
        return pixels_of(squared(picture, self.side))


def read_files(files: list[Path], side: int, workers: int, half: str | None) -> tuple[Tensor, list[Path]]:
    """Reads them into memory; names and counts the unreadable ones and goes on without them."""
    if not files:
        return torch.empty(0, 3, side, side, dtype=torch.uint8), []
    loader = DataLoader(PictureFiles(files, side, half), batch_size=None, num_workers=workers)
    name = files[0].parent.name
    results = list(tqdm(loader, desc=f"reading {name}", disable=None if rank() == 0 else True, leave=False))
    bad = {path: why for path, why in zip(files, results, strict=True) if isinstance(why, str)}
    for path, why in bad.items():
        say(f"skipped {path}: not a picture that can be read ({why})")
    if len(bad) == len(files):
        fail(f"none of the {len(files)} pictures in {files[0].parent} can be read, the first being {files[0]}")
    if bad:
        say(f"skipped {len(bad)} of {len(files)} pictures in {files[0].parent}")
    return torch.stack([p for p in results if not isinstance(p, str)]), [path for path in files if path not in bad]


# ---- to the networks --------------------------------------------------------------------------------------------------


def to_network(pixels: Tensor) -> Tensor:
    """uint8, 0 to 255 -> floats from -1 to 1, which is what tanh gives back."""
    return (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def to_pixels(x: Tensor) -> Tensor:
    """Floats from -1 to 1 -> uint8, on the CPU."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)


class PairLoader:
    """Batches (a, b) of (N, 3, S, S) floats, a random crop of each picture, mirrored or not.

    An epoch is as long as the larger domain; the smaller one begins again, in another order. Orders, crops and mirrorings are
    drawn from (seed, epoch), the same in all processes, and each takes its share of every batch. In pairs (pix2pix) both
    pictures are cropped and mirrored alike. An incomplete last batch is left out.
    """

    def __init__(self, data: Data, batch_size: int, device: torch.device, seed=0, paired=False, flip=True):
        self.a, self.b = (domain.to(device) for domain in (data.a, data.b))
        self.size, self.device, self.seed, self.paired, self.flip = data.image_size, device, seed, paired, flip
        self.pictures, self.epoch = max(len(self.a), len(self.b)), 0
        self.batch_size = min(batch_size, self.pictures // world() * world())
        if not self.batch_size:
            fail(f"{self.pictures} pictures are too few for {world()} processes")

    def __len__(self) -> int:
        return self.pictures // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        plan_a = self.plan(self.a, generator)
        plan_b = plan_a if self.paired else self.plan(self.b, generator)
        for step in range(len(self)):
            mine = slice(step * self.batch_size + rank(), (step + 1) * self.batch_size, world())
            yield self.cut(self.a, plan_a[mine]), self.cut(self.b, plan_b[mine])

    def plan(self, domain: Tensor, generator: torch.Generator) -> list[list[int]]:
        """For each picture of the epoch: its index, where its crop begins (y, x), and whether it is mirrored."""
        count, room = self.pictures, domain.shape[-1] - self.size + 1
        rounds = -(-count // len(domain)) if len(domain) else 0
        order = [torch.randperm(len(domain), generator=generator) for _ in range(rounds)]
        corner = torch.randint(room, (2, count), generator=generator)
        mirror = torch.randint(2 if self.flip else 1, (count,), generator=generator)
        return torch.stack([torch.cat(order)[:count], *corner, mirror], 1).tolist() if order else []

    def cut(self, domain: Tensor, plan: list[list[int]]) -> Tensor:
        crops = [domain[i, :, y : y + self.size, x : x + self.size] for i, y, x, _ in plan]
        crops = [crop.flip(2) if mirror else crop for crop, (*_, mirror) in zip(crops, plan, strict=True)]
        return to_network(torch.stack(crops)) if crops else domain[:0].float()


# ---- python datasets.py -----------------------------------------------------------------------------------------------


def main() -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--data", default="auto", help=DATA_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where the sets lie (default: %(default)s)")
    size_help = "side in pixels (default: 256; the sample: 64)"
    parser.add_argument("--image-size", type=IMAGE_SIZES, metavar="N", help=size_help)
    parser.add_argument("--mode", choices=DEFAULT_SET, default="cyclegan")
    parser.add_argument("--limit", type=Number(int, 1), metavar="N", help="use only N pictures a domain")
    args = parser.parse_args()
    data = load(args.data, args.data_root, "train", args.mode, args.image_size, args.limit)
    say(f"{data.name}: {len(data.a):,} training pictures in A, {len(data.b):,} in B, {data.a.shape[-1]} pixels a side")
    batch = next(iter(PairLoader(data, 8, torch.device("cpu"), paired=args.mode == "pix2pix")))
    rows = [to_pixels(domain).permute(2, 0, 3, 1).flatten(1, 2) for domain in batch if len(domain)]
    path = pictures.save_picture(Image.fromarray(torch.cat(rows).numpy()), Path("preview.png"))
    say(f"wrote {path}: a row of A and a row of B, cropped and mirrored as in training")


if __name__ == "__main__":
    utils.start(main)
