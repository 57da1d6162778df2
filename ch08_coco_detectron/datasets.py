"""COCO 2017, your own folder in COCO's format, or the built-in sample -> train / val / test.

    python datasets.py                                               # what is there: pictures, objects, sizes
    python datasets.py --data coco --categories dog,cat --limit 500  # downloads only these pictures of COCO
    python datasets.py --check annotations/instances_train.json      # names every fault in an annotation file or folder
    python datasets.py --data my_folder --to yolo --out DIR          # writes it as coco, yolo or voc, with its pictures

A folder in COCO's format: annotations/*train*.json, and if there are any *val*.json and *test*.json; the pictures in
train/ (or train2017/, as the annotation file's name ends), in images/, or beside the annotations. Other formats: formats.py.
"""

import argparse
import io
import json
import re
import shutil
import time
import zipfile
from collections import Counter
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch.distributed as dist
from numpy import ndarray
from tqdm import tqdm

import annotations
import formats
import masks
import pictures
import sample
import utils
from utils import fail, rank, say, warn, world

COCO_URL = "http://images.cocodataset.org/"
COCO_FILES = {  # archive: MD5, what it makes
    "annotations/annotations_trainval2017.zip": ("f4bbac642086de4f52a3fdda2de5fa2c", "annotations"),
    "zips/val2017.zip": ("442b8da7639aecaf257c1dceb8ba8c80", "val2017"),
    "zips/train2017.zip": ("cced6f7f71b7629ddf16f17bbcfab6b2", "train2017"),
}
MIRRORS = "https://opendatalab.com or https://modelscope.cn"
SPLIT_SEED = 2014  # which pictures --limit takes never depends on --seed, or runs could not be compared
HELD_OUT = 0.1  # the share of the pictures that validates, or tests, where there is no file for that
MOST_HELD_OUT = 500  # of COCO's 118,287
DATA_HELP = "auto (default): coco if it lies in the data root, else sample; coco; sample; a folder or a .json file"


@dataclass
class Split:
    """Pictures (COCO's image records, files below `folder`) and the objects on each, by the image's id."""

    folder: Path
    images: list[dict]
    objects: dict[int, list[dict]]

    def __len__(self) -> int:
        return len(self.images)

    def path(self, image: dict) -> Path:
        return self.folder / image["file_name"]

    def take(self, images: list[dict]) -> "Split":
        return Split(self.folder, images, {image["id"]: self.objects.get(image["id"], []) for image in images})

    def existing(self) -> "Split":
        return self.take([image for image in self.images if self.path(image).is_file()])

    def mark(self, image: dict) -> str:
        """The fingerprint of a picture's content."""
        about = self.path(image).stat()
        return content_of(self.path(image), about.st_size, about.st_mtime_ns)

    def samples(self) -> dict[str, str]:
        """As split.json has them: {fingerprint of the picture: its name}; each part's folder may have a picture 1.jpg."""
        progress = tqdm(self.images, desc="looking at the pictures", disable=None, leave=False)
        return {self.mark(image): f"{self.folder.name}/{image['file_name']}" for image in progress}

    def labels(self) -> str:
        """A fingerprint of what is annotated, whatever its order and its ids."""
        rows = [[self.named(image), sorted(map(comparable, self.objects[image["id"]]))] for image in self.images]
        return utils.fingerprint(json.dumps(sorted(rows)).encode())

    def named(self, image: dict) -> str:
        return f"{image['file_name']} {image['width']} {image['height']}"

    def truth(self, categories: list[dict]) -> dict:
        """The split in COCO's format. Objects are numbered from 1: pycocotools takes the id 0 for `no match`."""
        rows = [row for image in self.images for row in self.objects.get(image["id"], [])]
        rows = [row | {"id": number} for number, row in enumerate(rows, 1)]
        return {"info": {}, "images": self.images, "annotations": rows, "categories": categories}


def comparable(row: dict) -> str:
    return json.dumps({name: value for name, value in row.items() if name not in ("id", "image_id")}, sort_keys=True)


@cache
def content_of(path: Path, size: int, modified: int) -> str:
    """The fingerprint of a file; of one that did not change, computed once."""
    return utils.fingerprint(path.read_bytes())


@dataclass
class Data:
    """A data set: its name, its categories ({"id", "name"}, in the order of the network's classes), its splits, and the
    training pictures that --limit leaves out."""

    name: str
    categories: list[dict]
    splits: dict[str, Split]
    own: bool = False
    unused: list[Split] = field(default_factory=list)


def load(
    name: str,
    root: str = "data",
    parts: tuple = ("train", "val"),
    categories: str | None = None,
    limit: int | None = None,
) -> Data:
    """Loads the parts asked for ("train", "val", "test") of `name`: auto, coco, sample, a folder or a .json file.

    `categories` (names, with commas between) keeps the pictures that have one of them, and only those objects; `limit`
    keeps so many training pictures and a fifth of that to validate. With either, `coco` downloads no more pictures than
    these (and a fifth of them to test on). Errors end the program with one line.
    """
    chosen = [word.strip() for word in categories.split(",")] if categories else []
    coco = Path(root) / "coco"
    if name == "auto" and not (coco / "annotations").is_dir():
        warn(
            f"COCO is not in {coco}, so this is the built-in SAMPLE of drawn scenes. A score on it says nothing about\n"
            f"COCO. `--data coco` downloads COCO (19 GB), with `--categories dog,cat --limit 500` only a part of it."
        )
        name = "sample"
    if name == "sample":
        return load_files("sample", find_annotations(draw_sample(Path(root))), parts, chosen, limit)
    if name in ("auto", "coco"):
        if name == "coco":
            prepare_coco(coco, () if chosen or limit else parts)
        files = find_annotations(coco)
        return load_files("coco", files, parts, chosen, limit, by_file=name == "coco" and bool(chosen or limit))
    if not Path(name).exists():
        fail(f"--data {name}: not coco, sample or auto, and there is no folder or file of that name")
    path, contents = Path(name), {}
    if path.is_dir() and not annotation_files(path):
        contents = read_other(path)
    files = {part: place for place, (part, _) in contents.items()}
    files = files or ({"train": path} if path.is_file() else find_annotations(path))
    lists = {place: content for place, (_, content) in contents.items()}
    data = load_files(path.stem if path.is_file() else path.resolve().name, files, parts, chosen, limit, contents=lists)
    data.own, data.splits = True, without_copies(data.splits)
    return data


def without_copies(splits: dict[str, Split]) -> dict[str, Split]:
    """Each picture in one part, by its content: what trains neither validates nor tests. A part of copies alone stays as it
    is, with a warning."""
    seen: dict[str, tuple[str, str]] = {}
    for part in [part for part in ("train", "val", "test") if part in splits]:
        split = splits[part]
        marks = [split.mark(image) for image in split.images]
        copies = [i for i, mark in enumerate(marks) if mark in seen]
        if copies and len(copies) == len(split):
            warn(f"All {len(split)} pictures of {part} are in another part too. A score on them says nothing.")
        elif copies:
            name, (other, there) = split.images[copies[0]]["file_name"], seen[marks[copies[0]]]
            say(
                f"left out {len(copies)} {part} pictures that are in another part too, such as {name}: {there} in {other}"
            )
            splits[part] = split.take([image for i, image in enumerate(split.images) if i not in set(copies)])
        seen |= {mark: (part, image["file_name"]) for mark, image in zip(marks, split.images, strict=True)}
    return splits


def draw_sample(root: Path) -> Path:
    """-> the folder of the sample, drawn first if it is not there or an older sample.py drew it."""
    folder, made = root / "sample", None
    with suppress(SystemExit, KeyError, TypeError):  # not there, or damaged
        made = annotations.read_json(folder / "annotations" / "instances_test.json")["info"]
    if made != {"version": sample.version(), "sizes": sample.SIZES} and rank() == 0:
        say(f"drawing the sample into {folder} ...")
        sample.write(folder)
    if world() > 1 and dist.is_initialized():
        dist.barrier()
    return folder


PART_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def parts_in(name: str) -> set[str]:
    """The parts that a name speaks of, by whole words: "instances_train2017" -> train; "trainval" -> none."""
    return {PART_WORDS[word] for word in re.findall("[a-z]+", name.lower()) if word in PART_WORDS}


def read_other(folder: Path) -> dict[Path, tuple[str, dict]]:
    """-> {a name in `folder`: (part, COCO's lists)} of a folder in another format; empty if it is in none. Without parts, all
    is for training, of which a tenth each validates and tests."""
    found = formats.read(folder)
    contents = found.contents() if found else {}
    whole = contents.pop("all", None)
    if whole and "train" not in contents:
        contents["train"] = whole
    if found and found.faults:
        where, what = found.faults[0]
        say(f"{folder}: left out {len(found.faults)} annotations, the first being {where}: {what}; see --check")
    return {folder / part: (part, content) for part, content in contents.items()}


def is_labelme(path: Path) -> bool:
    """A file of one picture's shapes: no annotation file of a whole part."""
    with open(path, "rb") as file:
        return b'"shapes"' in file.read(4096)


def find_annotations(folder: Path) -> dict[str, Path]:
    """-> the annotation file of each part of a folder in COCO's format, or of one as Roboflow writes it."""
    if not folder.is_dir():
        fail(f"{folder}: no such folder")
    place = folder / "annotations" if (folder / "annotations").is_dir() else folder
    return annotation_files(folder) or fail(
        f"{place}: no annotation file of a name with train, val or test in it, such as instances_train.json"
    )


def annotation_files(folder: Path) -> dict[str, Path]:
    place = folder / "annotations" if (folder / "annotations").is_dir() else folder
    files = {path: parts_in(path.stem) for path in sorted(place.glob("*.json")) if not is_labelme(path)}
    if not any(files.values()):  # train/_annotations.coco.json, valid/...
        files = {path: parts_in(path.parent.name) for path in sorted(folder.glob("*/*.json")) if not is_labelme(path)}
    found = {}
    for part in ("train", "val", "test"):
        ours = [path for path, parts in files.items() if part in parts]
        if len(ours) > 1:  # COCO keeps captions and keypoints beside the instances
            ours = [path for path in ours if path.stem in (f"instances_{part}", f"instances_{part}2017")] or ours
        if len(ours) > 1:
            fail(f"{place}: more than one file for {part}; name one of them: --data {ours[-1]}")
        if ours and ours[0] in found.values():
            fail(f"{ours[0]}: its name speaks of more than one part; rename it")
        if ours:
            found[part] = ours[0]
    return found


def sources(files: dict[str, Path]) -> dict[str, str]:
    """Whose file each part is read from: a validation file alone is the test data, and the training file validates."""
    source = {"train": "train", "val": "val", "test": "test"}
    if "test" not in files:
        source |= {"test": "val", "val": "train"} if "val" in files else {"test": "train", "val": "train"}
    elif "val" not in files:
        source["val"] = "train"
    return source


def load_files(
    name: str,
    files: dict[str, Path],
    parts: tuple,
    chosen: list[str],
    limit: int | None,
    by_file: bool = False,
    contents: dict[Path, dict] | None = None,
) -> Data:
    """Reads the annotation files that the parts need, and holds out what there is no file for (`hold_out`). `contents`: what
    would be in the files, of a folder in another format."""
    source = sources(files)
    first = files.get("train", next(iter(files.values())))
    categories, share = None, HELD_OUT
    splits, unused, whole = {}, [], {}
    for part in parts:
        if source[part] not in files:
            fail(f"{first.parent}: no annotation file for {part}")
        path = files[source[part]]
        if path not in whole:
            whole[path] = read_annotations(path, chosen, (contents or {}).get(path))
        ours, everything = whole[path]
        categories = categories or ours
        if ours != categories:
            fail(f"{path}: other categories than in {first}")
        if name == "coco":
            share = min(HELD_OUT, MOST_HELD_OUT / len(everything))
        split = hold_out(everything, part, [p for p, s in source.items() if s == source[part]], share)
        counts = {"train": limit, "val": limit and max(20, limit // 5)}
        counts["test"] = counts["val"] if by_file else None
        splits[part], rest = select(split, counts[part])
        if by_file:
            download_pictures(splits[part])
        else:
            unused.append(rest)
        splits[part] = existing(splits[part], part)
    return Data(name, categories, splits, unused=unused)


def hold_out(split: Split, part: str, sharers: list[str], share: float = HELD_OUT) -> Split:
    """The pictures of one part in a split that several must share: about a tenth each validates and tests, drawn by their
    names, so that pictures that come later move none of these."""
    if "train" not in sharers or len(sharers) == 1:
        return split
    names = {image["file_name"] for image in split.images}
    if len(names) < len(sharers):
        what = " and ".join(other for other in sharers if other != "train")
        fail(f"{split.folder}: {len(names)} pictures are too few to hold some out for {what}")
    test = utils.deal(names, "test", share) if "test" in sharers else set()
    val = utils.deal(names - test, "val", share)
    chosen = {"test": test, "val": val, "train": names - test - val}[part]
    return split.take([image for image in split.images if image["file_name"] in chosen])


def select(split: Split, count: int | None) -> tuple[Split, Split]:
    """-> `count` pictures of the split, drawn with a fixed seed, and the rest; all of them if it has no more."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(split))
    chosen = set(order[: count or None].tolist())
    picked, rest = ([im for i, im in enumerate(split.images) if (i in chosen) is side] for side in (True, False))
    return split.take(picked), split.take(rest)


def existing(split: Split, part: str) -> Split:
    """The pictures of the split that are on the disk; names the first of those that are not, and counts them."""
    there = split.existing()
    if len(there) < len(split):
        gone = next(image for image in split.images if not split.path(image).is_file())
        lost = len(split) - len(there)
        say(f"left out {lost} of {len(split)} {part} pictures that are not there, such as {split.path(gone)}")
    if not len(there):
        fail(f"none of the {len(split)} {part} pictures is in {split.folder}")
    return there


# ---- annotation files -------------------------------------------------------------------------------------------------


def read_annotations(path: Path, chosen: list[str] = (), lists: dict | None = None) -> tuple[list[dict], Split]:
    """-> categories and pictures of an annotation file. What cannot be used is left out and counted."""
    content = annotations.read(path, lists)
    categories = [content.categories[key] for key in sorted(content.categories)]
    if unknown := set(chosen) - {c["name"] for c in categories}:
        fail(f"{path}: no category {', '.join(sorted(unknown))}; there are: {', '.join(c['name'] for c in categories)}")
    categories = [c for c in categories if not chosen or c["name"] in chosen]
    wanted = {c["id"] for c in categories}
    objects: dict[int, list[dict]] = {key: [] for key in content.images}
    for row in content.objects:
        if row["category_id"] in wanted:
            objects[row["image_id"]].append(row)
    if words := content.left_out():
        say(f"{path}: {words}")
    rows = [row for rows in objects.values() for row in rows]
    if not rows:
        fail(f"{path}: no object with a box and a mask is left, and a Mask R-CNN needs masks")
    if all(row["iscrowd"] for row in rows):
        fail(f"{path}: all {len(rows)} objects are crowds (iscrowd 1), which nothing can be trained or measured with")
    records = [image for key, image in sorted(content.images.items()) if objects[key] or not chosen]
    return categories, Split(path.parent if lists else find_pictures(path, records), records, objects)


def find_pictures(path: Path, records: list[dict]) -> Path:
    """-> the folder that holds the pictures of an annotation file."""
    top, end = path.resolve().parent.parent, path.stem.split("_")[-1]
    near = path.resolve().parent
    places = [top / end, top / "images" / end, top / "images", top, near / end, near / "images", near]
    some = [image.get("file_name") or "" for image in records[:20]]
    return next((place for place in places if any((place / name).is_file() for name in some)), places[0])


def check(path: Path) -> list[str]:
    """-> every fault of an annotation file, or of a folder in another format, each in a line that names the image, the object
    or the category, and the field."""
    if not path.is_dir():
        content = annotations.read(path)
        return faults_of(content, find_pictures(path, list(content.images.values())))
    found = formats.read(path)
    if found is None:
        fail(f"{path}: a folder in no format that is known here; --check wants an annotation file, or such a folder")
    faults = [f"{where}: {what}" for where, what in found.faults]
    for part, lists in found.contents().items():
        faults += faults_of(annotations.read(path / part, lists), path)
    return faults


def faults_of(content: annotations.Content, folder: Path) -> list[str]:
    faults = [f"{where}: {what}" for where, what in content.faults]
    for image in content.images.values():
        faults += faults_of_picture(image, folder)
    for index, row in enumerate(content.objects):
        image = content.images[row["image_id"]]
        name = index if row["id"] is None else row["id"]
        faults += faults_of_box(row, image, f"object {name} on {image['file_name']}")
    return faults


def faults_of_picture(image: dict, folder: Path) -> list[str]:
    name, size = image["file_name"], (image["width"], image["height"])
    try:
        real = pictures.read_picture(folder / name).size
    except FileNotFoundError:
        return [f"image {image['id']}: {folder / name} is missing"]
    except (OSError, ValueError):
        return [f"image {image['id']}: {folder / name} is no picture that can be read"]
    return [] if real == size else [f"image {image['id']}: {name} has {real} pixels, the file says {size}"]


def faults_of_box(row: dict, image: dict, where: str) -> list[str]:
    """A box that sticks out of the image, or a mask without a pixel."""
    x, y, w, h = row["bbox"]
    if x < -1 or y < -1 or x + w > image["width"] + 1 or y + h > image["height"] + 1:
        return [f"{where}: the box {row['bbox']} reaches outside the image"]
    if not masks.to_mask(row["segmentation"], image["height"], image["width"]).any():
        return [f"{where}: a mask without a pixel"]
    return []


# ---- pictures ---------------------------------------------------------------------------------------------------------


def read_image(path: Path) -> ndarray:
    """-> (H, W, 3) uint8 RGB, from colour, grey, palette and 16-bit files alike. OSError if it is no picture."""
    return np.array(pictures.read_picture(path))


def read_scene(split: Split, image: dict) -> ndarray:
    """-> (H, W, 3) uint8, of the size that the annotations speak of; else OSError."""
    picture = read_image(split.path(image))
    if picture.shape[:2] != (image["height"], image["width"]):
        size = f"{picture.shape[1]} x {picture.shape[0]}"
        raise OSError(f"has {size} pixels, but its annotations say {image['width']} x {image['height']}")
    return picture


def statistics(split: Split, most: int = 200) -> tuple[list[float], list[float]]:
    """-> mean and standard deviation of the pixels of some pictures, a number a channel, pixels from 0 to 1."""
    sums, pixels = np.zeros((2, 3)), 0
    for image in split.images[:: max(1, len(split) // most)]:
        try:
            values = read_image(split.path(image)).reshape(-1, 3) / 255
        except OSError:  # it will be named when it is trained on
            continue
        sums += values.sum(0), (values**2).sum(0)
        pixels += len(values)
    if not pixels:
        fail(f"none of the pictures in {split.folder} can be read")
    mean, square = sums / pixels
    return mean.tolist(), np.sqrt((square - mean**2).clip(1e-6)).tolist()


# ---- COCO 2017 --------------------------------------------------------------------------------------------------------


def prepare_coco(folder: Path, parts: tuple) -> None:
    """Downloads what is missing of COCO 2017: the annotations, and all pictures of the parts (val is held out of train2017)."""
    needed = {"annotations"} | {"val2017" if part == "test" else "train2017" for part in parts}
    for name, (md5, made) in COCO_FILES.items():
        if (folder / made).is_dir() or made not in needed:
            continue
        if world() > 1:  # not one process downloading while the others go without
            fail(f"{folder / made} is not there; get it with `python datasets.py --data coco` first")
        archive = folder / Path(name).name
        if not archive.exists():
            say(f"mirrors of COCO in China: search for COCO 2017 on {MIRRORS}; archives go into {folder}")
            utils.download([COCO_URL + name], archive, f"md5:{md5}")
        extract(archive, folder / made, md5)


def extract(archive: Path, folder: Path, md5: str) -> None:
    """Unpacks an archive whose hash is right and that holds one folder. `folder` appears when it is complete, and no member
    of the archive lands elsewhere."""
    if utils.hash_of(archive, "md5") != md5:
        fail(f"{archive}: damaged (not the MD5 it should have); move it away to have it downloaded again")
    with zipfile.ZipFile(archive) as content:
        beside = folder.with_name(f".{folder.name}.part")
        inside = beside.resolve()
        for member in content.infolist():
            if not (inside / member.filename).resolve().is_relative_to(inside):
                fail(f"{archive}: its member {member.filename} would leave {folder}; nothing was unpacked")
        content.extractall(beside)
    (beside / folder.name).replace(folder)
    shutil.rmtree(beside)


def download_pictures(split: Split) -> None:
    """Gets pictures of COCO one by one, into a folder of their own, so that nobody takes it for the whole. There are no hashes
    of single ones: each must open and have its size."""
    if split.folder.is_dir():  # the whole
        return
    source, split.folder = split.folder.name, split.folder.with_name(f"some_{split.folder.name}")
    missing = [image for image in split.images if not split.path(image).exists()]
    if missing and world() > 1:
        fail(
            f"{len(missing)} pictures are not in {split.folder}; get them with `python datasets.py` and the same words first"
        )
    for image in tqdm(missing, desc=f"{source}, one by one", disable=None):

        def check(part: Path, image: dict = image) -> None:
            try:
                read_scene(Split(part.parent, [], {}), image | {"file_name": part.name})
            except OSError as error:
                raise ValueError(error) from error

        with redirect_stderr(io.StringIO()):  # no line a picture: there is the bar
            utils.download([f"{COCO_URL}{source}/{image['file_name']}"], split.path(image), check=check)


# ---- python datasets.py -----------------------------------------------------------------------------------------------


def describe(data: Data) -> None:
    """Prints, for each category, the objects of each split."""
    parts = ", ".join(f"{len(split):,} {part}" for part, split in data.splits.items())
    say(f"{data.name}: {parts} pictures")
    counts = {}
    for part, split in data.splits.items():
        rows = [row for image in split.images for row in split.objects[image["id"]]]
        counts[part] = Counter(row["category_id"] for row in rows)
        crowds, empty = sum(row["iscrowd"] for row in rows), sum(not split.objects[im["id"]] for im in split.images)
        say(f"{part}: {len(rows):,} objects, {crowds} of them crowds; {empty} pictures without any")
    rows = [[utils.cut(c["name"], 24), *(f"{count[c['id']]:,}" for count in counts.values())] for c in data.categories]
    utils.print_table([["category", *counts], *rows])


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--data", default="auto", help=DATA_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR")
    parser.add_argument("--categories", metavar="NAMES", help="only these, with commas between")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only N training pictures, and a fifth of that to validate"
    )
    parser.add_argument("--check", metavar="FILE", help="name every fault in this annotation file, or folder")
    parser.add_argument("--to", choices=("coco", "yolo", "voc"), help="write the data set in this format to --out")
    parser.add_argument("--out", metavar="DIR", help="with --to: the folder to write")
    args = parser.parse_args(argv)
    if args.check:
        start = time.perf_counter()
        faults = check(Path(args.check))
        for fault in faults:
            say(fault)
        if faults:
            fail(f"{args.check}: {len(faults)} faults")
        say(f"{args.check}: no fault found ({time.perf_counter() - start:.1f} s)")
        return
    data = load(args.data, args.data_root, ("train", "val", "test"), args.categories, args.limit)
    if args.to:
        convert(data, args)
    else:
        describe(data)


def convert(data: Data, args: argparse.Namespace) -> None:
    if not args.out:
        fail("--to needs --out DIR, the folder to write")
    lost = formats.write(args.to, Path(args.out), data.categories, data.splits)
    counts = ", ".join(f"{len(split):,} {part}" for part, split in data.splits.items())
    say(f"wrote {args.out} in the format {args.to}: {counts} pictures")
    if lost:
        say(f"what {args.to} cannot hold is lost: {', '.join(lost)}")


if __name__ == "__main__":
    utils.start(main)
