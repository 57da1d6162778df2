"""Picture files: which are in a folder, how one is read, and how a result is saved beside what is already there.

This file is the same, byte for byte, in every chapter that reads pictures (`nox -s lint` checks that).
"""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from utils import deal, fail, fingerprint, free_name, held_out, is_left_behind, rank, say, write_atomic

IMAGE_TYPES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
IMAGE_TYPES |= {".ppm", ".pgm", ".pbm", ".pnm"}
MOST_PIXELS = 178_000_000  # more would fill gigabytes of memory once decoded
MOST_STRETCHED = 100  # times as long as wide: longer ones are damaged files or no pictures
TURNS = {  # EXIF orientation -> what brings the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(path: str | Path | io.BytesIO, mode: str = "RGB") -> Image.Image:
    """-> the picture, upright, 8 bits a channel, in `mode` "RGB" or "L" (grey). OSError says why it cannot be read.

    Transparent parts become white. 16-bit values are divided by 257. 32-bit and float values count as 0 to 1, 0 to 255 or
    0 to 65535, whichever holds them all; others go from their lowest, black, to their highest, white. Of an animated file,
    the first frame.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS or max(width, height) > MOST_STRETCHED * min(width, height):
                raise OSError(f"{width} x {height} pixels: too large, or too long and thin")
            picture.load()
            return on_white(eight_bits(upright(picture))).convert(mode)
    except OSError:
        raise
    except Exception as error:  # Pillow raises nearly every kind for a damaged file
        raise OSError(f"damaged ({type(error).__name__})") from error


def upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says: cameras store which way is up beside the pixels. An odd tag is ignored."""
    try:
        turn = TURNS.get(picture.getexif().get(0x112))
    except Exception:  # tags that do not follow the standard
        return picture
    return picture if turn is None else picture.transpose(turn)


def eight_bits(picture: Image.Image) -> Image.Image:
    """Values of 16 and 32 bits scaled to 0 to 255. Pillow's own conversion would cut off all above 255."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise OSError("it has pixels that are not finite numbers")
    low, high = (0.0, 65535.0) if picture.mode.startswith("I;16") else (values.min(), values.max())
    if low >= 0:
        ranges = (1.0, 255.0, 65535.0) if picture.mode == "F" else (255.0, 65535.0)
        low, high = 0.0, next((top for top in ranges if high <= top), high)
    values = (values - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(values.round().astype(np.uint8))


def on_white(picture: Image.Image) -> Image.Image:
    """What cannot be seen has colours too: they are replaced by white."""
    if not {"A", "a"} & set(picture.getbands()) and "transparency" not in picture.info:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)


def list_pictures(folder: Path, deep: bool = False) -> list[Path]:
    """-> the picture files in a folder (`deep`: and in the folders in it), sorted. Says how many other files it left out."""
    found = [p for p in sorted(folder.rglob("*") if deep else folder.iterdir()) if not is_left_behind(p, folder)]
    pictures = [p for p in found if p.suffix.lower() in IMAGE_TYPES and p.is_file()]
    others = [p for p in found if p not in set(pictures) and not (deep and p.is_dir())]
    if others:
        kind = "folders and files" if any(p.is_dir() for p in others) else "files"
        say(f"{folder}: {len(others)} {kind} left out that are no pictures, the first being {others[0].name}")
    return pictures


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Saves under `path`, or with -2, -3, ... in its name if there is such a file -> the path. OSError or ValueError if the
    picture cannot be written as its name's suffix says."""
    path, buffer = free_name(path), io.BytesIO()
    options = {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif", ".webp") else {}
    picture.save(buffer, Image.registered_extensions().get(path.suffix.lower(), "PNG"), **options)
    write_atomic(path, buffer.getvalue())
    return path


# ---- folders of classes -----------------------------------------------------------------------------------------------

PART_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


class Item(NamedTuple):
    """A picture file, the number of its class, its name below the data folder, and (once read) its fingerprint."""

    path: Path
    label: int
    name: str
    mark: str = ""


def class_folders(folder: Path, wanted: tuple = ("train", "val", "test")) -> tuple[list[str], dict[str, list[Item]]]:
    """A folder of class folders, or the same below train/, val/ and test/ (any case; Training, Valid, ...) -> classes, files.

    Without val/, a tenth of the training pictures validates; without train/ and test/, a tenth tests as well: drawn by their
    names, so that further pictures move none of these. A fault in a part that is not `wanted` does not matter.
    """
    inside = folders_in(folder)
    tops = {part: [p for p in inside if p.name.lower() in names] for part, names in PART_NAMES.items()}
    base = next((p for p in tops["train"] if folders_in(p)), folder)  # a folder `train` of pictures is a class
    classes = [p.name for p in (inside if base is folder else folders_in(base))]
    if len(classes) < 2:
        number = "only one" if classes else "no"
        fail(f"{base}: {number} class folder; expected {base}/<class>/<picture>.png for two classes or more")
    files = {"train": list_classes(base, folder, classes)}
    for part in ("val", "test") if base is not folder else ():
        if tops[part]:
            files[part] = list_classes(tops[part][0], folder, classes, is_training=False, strict=part in wanted)
    if base is folder:
        files["train"], files["test"] = split_off(files["train"], folder, "test")
    if "val" not in files:
        files["train"], files["val"] = split_off(files["train"], base, "val")
    if "test" in wanted and "test" not in files:
        fail(f"{folder}: has {base.name}/ but no test/ to test on")
    return classes, {part: files.get(part, []) for part in PART_NAMES}


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without those that systems leave."""
    found = [p for p in sorted(folder.iterdir()) if p.is_dir()]
    ignored = [p.name for p in found if is_left_behind(p, folder)]
    if ignored:
        say(f"{folder}: ignored {', '.join(ignored)}")
    return [p for p in found if p.name not in ignored]


def list_classes(
    top: Path, folder: Path, classes: list[str], is_training: bool = True, strict: bool = True
) -> list[Item]:
    """The picture files of each class folder in `top`, also those in folders within it."""
    unknown = sorted({p.name for p in folders_in(top)} - set(classes))
    if unknown and strict:
        fail(f"{top / unknown[0]}: no class of that name in the training data; there are: {', '.join(classes)}")
    items = []
    for label, name in enumerate(classes):
        paths = list_pictures(top / name, deep=True) if (top / name).is_dir() else []
        if is_training and not paths:
            fail(f"{top / name}: no pictures in this class folder")
        items += [Item(path, label, path.relative_to(folder).as_posix()) for path in paths]
    if strict and not items:
        fail(f"{top}: no pictures in class folders; expected {top}/<class>/<picture>.png")
    return items


def split_off(items: list[Item], base: Path, purpose: str) -> tuple[list[Item], list[Item]]:
    """-> nine tenths and one tenth of each class, at least one picture each."""
    taken = set()
    for label in sorted({item.label for item in items}):
        names = [item.path.relative_to(base).as_posix() for item in items if item.label == label]
        if len(names) < 2:
            path = next(item.path for item in items if item.label == label)
            fail(f"{path.parent}: only one picture; at least two are needed to split off a part")
        taken |= deal(names, purpose)
    is_taken = [item.path.relative_to(base).as_posix() in taken for item in items]
    large, small = ([item for item, t in zip(items, is_taken, strict=True) if t is side] for side in (False, True))
    return large, small


def read_all(items: list[Item], read: Callable, what: str, workers: int = 0) -> tuple[list, list[Item]]:
    """-> what `read` makes of each file (as BytesIO), and the items with their fingerprints. Unreadable ones are named,
    counted and left out."""

    def read_one(item: Item):
        try:
            content = item.path.read_bytes()
            return read(io.BytesIO(content)), item._replace(mark=fingerprint(content))
        except OSError as error:
            return error, item

    with ThreadPoolExecutor(max(1, workers)) as pool:  # threads do: Pillow decodes without Python's lock
        progress = tqdm(items, desc=f"reading {what}", disable=None if rank() == 0 else True, leave=False)
        results = list(pool.map(read_one, progress))
    bad = [(item, result) for result, item in results if isinstance(result, OSError)]
    for item, why in bad:
        say(f"skipped {item.path}: not a picture that can be read ({why.strerror or why})")
    if bad:
        say(f"skipped {len(bad)} of {len(items)} {what} pictures")
    if items and len(bad) == len(items):
        fail(f"none of the {len(items)} {what} pictures can be read, the first being {items[0].path}")
    good = [(result, item) for result, item in results if not isinstance(result, OSError)]
    return [result for result, _ in good], [item for _, item in good]


def marked(items: list[Item]) -> list[Item]:
    """The items with their fingerprints; files that cannot be read are left out."""
    result = []
    for item in items:
        try:
            result.append(item._replace(mark=fingerprint(item.path.read_bytes())))
        except OSError:
            continue
    return result


def samples(items: list[Item]) -> dict[str, str]:
    """A part as split.json has it: {fingerprint: name}."""
    return {item.mark: item.name for item in items}


def still_held_out(files: dict[str, list[Item]], split: dict, same_data: bool) -> list[Item]:
    """-> of all files that are there now, those that a run with this `split` may be tested on: see utils.held_out."""
    if "train" not in split:  # shared weights: what trained is not known
        return files["test"]
    files = {part: marked(items) for part, items in files.items()}
    everything = [item for items in files.values() for item in items]
    chosen = held_out(split, samples(everything), {item.mark for item in files["test"]}, same_data=same_data)
    return [item for item in everything if item.mark in chosen] or fail("no picture is left that did not train")
