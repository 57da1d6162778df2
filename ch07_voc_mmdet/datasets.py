"""Pascal VOC, your own folder, or the built-in sample -> lists of annotated pictures for train / val / test.

    python datasets.py                                    # gets VOC2007 ready (or the sample), describes it, draws preview.png
    python datasets.py --data my_folder --check           # names every fault in the annotations
    python datasets.py --data my_folder --to yolo --out DIR    # writes it as voc, coco or yolo, with its pictures

What a VOC folder looks like, and how boxes are counted, stands in voc.py; what other folders are read, in formats.py.
"""

import argparse
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tqdm import tqdm

import formats
import pictures
import sample
import utils
import voc
from utils import fail, say, warn, write_atomic
from voc import Annotation, Thing

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
SITE = "http://host.robots.ox.ac.uk/pascal/VOC"  # plain http, so the MD5 of each archive is checked
ARCHIVES = {  # the list file that an archive brings: its address, MD5 and size
    "VOC2007/ImageSets/Main/trainval.txt": (
        f"{SITE}/voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64", "439 MB"),
    "VOC2007/ImageSets/Main/test.txt": (
        f"{SITE}/voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f", "430 MB"),
    "VOC2012/ImageSets/Main/trainval.txt": (
        f"{SITE}/voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd", "1.9 GB"),
}  # fmt: skip
MIRRORS = {"VOCtrainval_11-May-2012.tar": ["https://dataset.bj.bcebos.com/voc/VOCtrainval_11-May-2012.tar"]}
YEARS = {"voc2007": ("2007",), "voc2012": ("2012",), "voc0712": ("2007", "2012")}
PARTS = ("train", "val", "test")
SAMPLE_SIZES = {"train": 480, "val": 80, "test": 160}
DATA_HELP = "auto (default): voc2007 if it can be had, else sample; voc2007; voc2012; voc0712; sample; or a VOC folder"


@dataclass
class Data:
    """A data set: its name, class names, and for each part a list of (VOC folder or formats.Collection, ID of a picture)."""

    name: str
    classes: tuple[str, ...]
    parts: dict[str, list[tuple]]
    own: bool = False  # your own: its pictures are looked at before they are used
    others: tuple[str, ...] = ()  # classes that are there but not wanted
    faults: tuple[str, ...] = ()  # what was left out when the folder was read

    def of(self, wanted: list[str] | tuple[str, ...]) -> "Data":
        """The same with a part of the classes, in the order `wanted`; things of other classes are left out."""
        if unknown := set(wanted) - set(self.classes):
            fail(f"{self.name} has no class {', '.join(sorted(unknown))}; it has: {', '.join(self.classes)}")
        others = tuple(name for name in self.classes if name not in wanted)
        return replace(self, classes=tuple(dict.fromkeys(wanted)), others=self.others + others)

    def part(self, name: str) -> list[tuple[Path, str]]:
        """The pictures of "train", "val" or "test", or of several together: "train+val"."""
        missing = [part for part in name.split("+") if part not in self.parts]
        if missing:
            why = " (the annotations of VOC2012's are not public; test on voc2007)" if self.name == "voc2012" else ""
            fail(f"{self.name} has no {missing[0]} part{why}; it has: {', '.join(self.parts)}")
        return [item for part in name.split("+") for item in self.parts[part]]

    def annotations(
        self, name: str, limit: int | None = None, only: list | None = None, training: bool = False
    ) -> Iterator[Annotation]:
        """The annotations of a part (the first `limit`, `only` these IDs; for `training`, without those that have things of
        classes that are not wanted, and no others), without boxes that have no part in their picture,
        and without pictures that cannot be read: both are counted. An annotation that cannot be read ends the program:
        `--check` then names all of them."""
        lost, bad, wanted = 0, [], only and set(only)
        items = [item for item in self.part(name)[:limit] if not wanted or item[1] in wanted]
        for folder, image_id in items:
            try:
                annotation = read_annotation(folder, image_id)
                unknown = {thing.name for thing in annotation.things} - {*self.classes, *self.others}
                if unknown:
                    raise ValueError(f"{source_of(folder, image_id)}: {min(unknown)!r} is none of the classes")
            except ValueError as fault:
                fail(f"{fault}; `python datasets.py --data {self.name} --check` names every fault")
            if self.own and (fault := fault_of(annotation.image)):
                bad.append(f"{annotation.image} ({fault})")
                continue
            wanted_things = [thing for thing in annotation.things if thing.name in self.classes]
            if training and annotation.things and not wanted_things:
                continue
            annotation.things = [thing for thing in wanted_things if voc.is_usable(thing, annotation)]
            lost += len(wanted_things) - len(annotation.things)
            yield annotation
        if lost:
            say_once(
                f"{self.name}: left out {lost} boxes of {name} that are empty or outside their picture; see --check"
            )
        if bad:
            say_once(
                f"{self.name}: skipped {len(bad)} pictures of {name} that cannot be read, the first being {bad[0]}"
            )
            if len(bad) == len(items):
                fail(f"{self.name}: none of the {len(bad)} pictures of {name} can be read")


@cache
def say_once(message: str) -> None:
    """A data set is read by the training and by the measuring part of a run; what there is to say is said once."""
    say(message)


@cache
def warn_once(message: str) -> None:
    warn(message)


# ---- pictures ---------------------------------------------------------------------------------------------------------


def state_of(path: Path) -> tuple[Path, int, int]:
    """What changes with a file."""
    about = path.stat()
    return path, about.st_size, about.st_mtime_ns


@cache
def look_at(path: Path, size: int, modified: int) -> str:
    """Why a picture cannot be read; "" if it can. A file is decoded once, unless it changes."""
    try:
        pictures.read_picture(path)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def fault_of(path: Path) -> str:
    try:
        return look_at(*state_of(path))
    except OSError as error:
        return error.strerror


@cache
def content_of(path: Path, size: int, modified: int) -> str:
    return utils.fingerprint(path.read_bytes())


def read_annotation(folder, image_id: str) -> Annotation:
    """Of a VOC folder, or of a formats.Collection. ValueError if it cannot be understood."""
    if isinstance(folder, formats.Collection):
        return replace(folder.annotations[image_id])
    return voc.read_annotation(folder, image_id)


def source_of(folder, image_id: str) -> Path:
    """The file that an annotation comes from."""
    return folder.sources[image_id] if isinstance(folder, formats.Collection) else voc.xml_path(folder, image_id)


def mark_of(folder, image_id: str) -> str:
    """The fingerprint of a picture's content; "" if there is no such file."""
    ready = isinstance(folder, formats.Collection)
    path = folder.annotations[image_id].image if ready else voc.find_image(folder, image_id)
    return content_of(*state_of(path)) if path else ""


def samples_of(items: list[tuple]) -> dict[str, str]:
    """A part as split.json has it: {fingerprint of the picture: ID}."""
    marks = ((mark_of(*item), item[1]) for item in tqdm(items, desc="pictures", disable=None, leave=False))
    return {mark: image_id for mark, image_id in marks if mark}


def labels_of(items: list[tuple]) -> str:
    """A fingerprint of the annotations of a part."""
    rows = []
    for folder, image_id in items:
        ready = isinstance(folder, formats.Collection)
        rows.append(
            f"{image_id} {folder.annotations[image_id].things if ready else voc.read_quietly(folder, image_id)}"
        )
    return utils.fingerprint("\n".join(sorted(rows)).encode())


def without_copies(name: str, parts: dict) -> dict:
    """`parts` with each picture in one part, by its content: what trains neither validates nor tests. A part of copies alone
    stays as it is, with a warning."""
    seen: dict[str, str] = {}
    result = {}
    for part, items in parts.items():
        marks = [mark_of(*item) for item in items]
        copies = [(item[1], seen[mark]) for item, mark in zip(items, marks, strict=True) if mark in seen]
        result[part] = [item for item, mark in zip(items, marks, strict=True) if mark not in seen]
        seen |= {mark: part for mark in marks if mark}
        if copies and not result[part]:
            result[part] = items
            warn_once(
                f"{name}: all {len(items)} pictures of {part} are in another part too. A score on them says nothing."
            )
        elif copies:
            (image_id, other), count = copies[0], len(copies)
            say_once(
                f"{name}: left out {count} pictures of {part} that are in another part too: {image_id}, in {other}"
            )
    return result


def load(name: str, root: str = "data", as_listed: bool = False, classes: list | tuple | None = None) -> Data:
    """The data set `name`: auto, voc2007, voc2012, voc0712, sample, or the path of your own folder.

    Of your own folder, no picture is in two parts, unless it is wanted `as_listed`. `classes`: only these, in this order.

    auto is VOC2007 if it is in `root` or can be downloaded, else the sample, with a warning. Errors end the program
    with one line.
    """
    if classes:
        return load(name, root, as_listed).of(classes)
    if name == "auto":
        try:
            return load_voc("voc2007", Path(root))
        except SystemExit as why:
            warn(
                f"VOC2007 is not to be had, so this run uses the built-in SAMPLE of drawn scenes.\n"
                f"{why}\nA score on the sample says nothing about Pascal VOC."
            )
            return load_sample(Path(root))
    if name in YEARS:
        return load_voc(name, Path(root))
    if name == "sample":
        return load_sample(Path(root))
    if Path(name).is_dir():
        return load_folder(Path(name), as_listed)
    fail(f"--data {name}: not {', '.join(YEARS)}, sample or auto, and there is no folder of that name")


# ---- Pascal VOC -------------------------------------------------------------------------------------------------------


def load_voc(name: str, root: Path) -> Data:
    """VOC2007, VOC2012, or both together. 07+12 is tested on VOC2007's test part, as in the literature."""
    folders = [root / "VOCdevkit" / f"VOC{year}" for year in YEARS[name]]
    for listed, (url, md5, size) in ARCHIVES.items():
        if listed[3:7] in YEARS[name] and not (root / "VOCdevkit" / listed).exists():
            get_archive(root, url, md5, size)
    parts = {part: [item for folder in folders for item in voc.read_list(folder, part)] for part in ("train", "val")}
    tests = [item for folder in folders if has_test(folder) for item in voc.read_list(folder, "test")]
    return Data(name, VOC_CLASSES, parts | ({"test": tests} if tests else {}))


def has_test(folder: Path) -> bool:
    """Whether there is a test list with annotations to it: VOC2012's own are not public."""
    path = folder / "ImageSets" / "Main" / "test.txt"
    return path.exists() and (folder / "Annotations" / f"{path.read_text('utf-8').split()[0]}.xml").exists()


def get_archive(root: Path, url: str, md5: str, size: str) -> None:
    """Downloads an archive of VOC into `root`, checks its MD5 and unpacks it."""
    path = root / url.rsplit("/", 1)[1]
    if not path.exists():
        say(f"{path.name}: {size}, to {root}")
        if path.name not in MIRRORS:
            say("mirrors of VOC2007 in China: search for VOC2007 on https://opendatalab.com or https://modelscope.cn")
        utils.download([url, *MIRRORS.get(path.name, [])], path, f"md5:{md5}")
    elif utils.hash_of(path, "md5") != md5:
        fail(f"{path}: damaged (not the MD5 {md5}); move it away to have it downloaded again")
    unpack(path, root)


def unpack(archive: Path, root: Path) -> None:
    """Unpacks beside, then moves file by file into `root`, the lists last: who finds a list finds all that it names."""
    beside = Path(tempfile.mkdtemp(prefix=".unpack-", dir=root))
    try:
        with tarfile.open(archive) as tar:
            for member in tqdm(tar, desc=f"unpacking {archive.name}", disable=None, leave=False):
                if not (beside / member.name).resolve().is_relative_to(beside.resolve()):
                    fail(f"{archive}: {member.name} would land outside of {root}; nothing was unpacked")
                if member.isfile():  # no links, no devices
                    target = beside / member.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open(target, "wb") as file:
                        shutil.copyfileobj(tar.extractfile(member), file)
        files = [path for path in beside.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: "ImageSets" in path.parts):
            target = root / path.relative_to(beside)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    except (tarfile.TarError, EOFError, OSError) as error:
        fail(f"{archive}: cannot be unpacked ({error})")
    finally:
        shutil.rmtree(beside, ignore_errors=True)


# ---- the built-in sample ----------------------------------------------------------------------------------------------


def load_sample(root: Path) -> Data:
    """Drawn once, in half a minute, into `root`/sample-XXXXXXXX; the name changes with sample.py, so it is never stale."""
    source = Path(sample.__file__).read_bytes() + repr(SAMPLE_SIZES).encode()
    folder = root / f"sample-{hashlib.sha256(source).hexdigest()[:8]}"
    if not folder.exists():
        say(f"Drawing {sum(SAMPLE_SIZES.values())} scenes into {folder} ...")
        root.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".sample-", dir=root))
        write_sample(beside, SAMPLE_SIZES)
        try:
            beside.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(beside)
    return Data("sample", sample.CLASSES, load_folder(folder).parts)


def write_sample(folder: Path, sizes: dict[str, int]) -> None:
    """Writes so many scenes of each part as a VOC folder."""
    for seed, (part, count) in enumerate(sizes.items()):
        ids = [f"{part}{i:04d}" for i in range(count)]
        for image_id, (picture, things) in zip(ids, sample.make(count, seed), strict=True):
            voc.write_picture(folder, image_id, picture, [Thing(**thing) for thing in things])
        voc.write_list(folder, part, ids)


# ---- a VOC folder -----------------------------------------------------------------------------------------------------


def load_folder(folder: Path, as_listed: bool = False) -> Data:
    """Your own folder, in VOC's format or one of formats.py. The classes of a VOC folder are the lines of classes.txt, or else
    all names in the annotations, sorted.

    Without lists in ImageSets/Main a tenth of the pictures validates and a tenth tests, each drawn by its name, so that
    pictures that come later move none of these.
    """
    if not ((folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()):
        found = formats.read(folder)
        if found:
            return load_found(folder, found, as_listed)
    for name in ("Annotations", "JPEGImages"):
        if not (folder / name).is_dir():
            fail(f"{folder}: no folder {name}/ in it; the README's section on your own data says what belongs there")
    lists = folder / "ImageSets" / "Main"
    parts = {part: voc.read_list(folder, part) for part in PARTS if (lists / f"{part}.txt").exists()}
    if not parts:
        ids = sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))
        if len(ids) < 3:
            fail(
                f"{folder / 'Annotations'}: only {len(ids)} .xml files; three are the least to train, validate and test"
            )
        parts = {part: [(folder, image_id) for image_id in ids] for part, ids in share_out(ids).items()}
    for part in ("train", "val"):
        if not parts.get(part):
            fail(f"{lists}: no {part}.txt there with an ID in it; with no lists at all, the split is drawn for you")
    if not as_listed:
        parts = without_copies(str(folder), parts)
    return Data(str(folder), read_classes(folder, parts), parts, own=True)


def load_found(folder: Path, found: formats.Found, as_listed: bool) -> Data:
    """What formats.py read. What has no part of its own trains, and a part of it validates if nothing else does."""
    parts = dict(found.parts)
    whole = parts.pop("all", [])
    if not parts and len(whole) < 3:
        fail(f"{folder}: only {len(whole)} pictures with annotations; three are the least to train, validate and test")
    parts = parts or share_out(whole)
    parts["train"] = parts.get("train") or whole
    if not parts.get("val") and len(parts["train"]) > 1:
        parts["val"] = sorted(utils.deal(parts["train"], "val"))
        parts["train"] = [image_id for image_id in parts["train"] if image_id not in set(parts["val"])]
    if not (parts["train"] and parts.get("val")):
        fail(f"{folder}: no pictures to train with, or none to validate; --check says what was left out")
    if found.collection.faults:
        count, first = len(found.collection.faults), found.collection.faults[0]
        say_once(f"{folder}: left out {count} annotations that cannot be used, the first being {first}; see --check")
    items = {part: [(found.collection, image_id) for image_id in parts[part]] for part in PARTS if parts.get(part)}
    if not as_listed:
        items = without_copies(str(folder), items)
    if not found.classes:
        fail(f"{folder}: no object in any annotation")
    return Data(str(folder), found.classes, items, own=True, faults=tuple(found.collection.faults))


def share_out(names: list[str]) -> dict[str, list[str]]:
    """Three names or more -> train, val, test: see utils.deal."""
    test = utils.deal(names, "test")
    val = utils.deal(set(names) - test, "val")
    held = {"test": test, "val": val, "train": set(names) - test - val}
    return {part: [name for name in names if name in held[part]] for part in PARTS}


def read_classes(folder: Path, parts: dict) -> tuple[str, ...]:
    listed = folder / "classes.txt"
    if listed.exists():
        names = [line.strip() for line in utils.read_text(listed).split("\n") if line.strip()]
    else:
        pictures = [item for part in parts.values() for item in part]
        names = sorted({name for _, image_id in pictures for name in voc.names_in(folder, image_id)})
    if not names:
        fail(f"{folder}: no object in any annotation, and no classes.txt")
    return tuple(names)


# ---- check ------------------------------------------------------------------------------------------------------------


def check(data: Data) -> list[str]:
    """-> every fault of a data set, a line each."""
    faults = list(data.faults)
    for part, items in data.parts.items():
        twice = [image_id for (_, image_id), count in Counter(items).items() if count > 1]
        faults += [f"{part}: {image_id} is listed more than once" for image_id in twice]
        for folder, image_id in tqdm(items, desc=f"checking {part}", disable=None, leave=False):
            try:
                faults += voc.faults_of(read_annotation(folder, image_id), source_of(folder, image_id), data.classes)
            except ValueError as fault:
                faults.append(str(fault))
    seen = Counter(item for items in data.parts.values() for item in set(items))
    return faults + [f"{image_id} is in more than one part" for (_, image_id), count in seen.items() if count > 1]


def copies_in(data: Data) -> list[str]:
    """Pictures of one content under two names, in two parts. No fault in the annotations: without_copies() leaves them out."""
    notes, seen = [], {}
    for part, items in data.parts.items():
        marks = {image_id: mark_of(folder, image_id) or image_id for folder, image_id in items}
        for image_id, mark in marks.items():
            if mark in seen and seen[mark][1] != image_id:
                other, there = seen[mark]
                notes.append(f"note: {part}: {image_id} is the same picture as {there} of {other}, and is left out")
        seen |= {mark: (part, image_id) for image_id, mark in marks.items()}
    return notes


# ---- python datasets.py -----------------------------------------------------------------------------------------------


def describe(data: Data) -> None:
    for part in data.parts:
        annotations = list(data.annotations(part))
        things = [thing for annotation in annotations for thing in annotation.things]
        flags = {flag: sum(getattr(thing, flag) for thing in things) for flag in ("difficult", "truncated")}
        empty = sum(not annotation.things for annotation in annotations)
        say(f"{part:<6}{len(annotations):>7,} pictures ({empty} empty), {len(things):,} things, {flags}")
        counts = Counter(thing.name for thing in things)
        print("      " + ", ".join(f"{name} {counts[name]:,}" for name in data.classes))


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--data", default="auto", help=DATA_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where data lies (default: %(default)s)")
    utils.add_mirror_flag(parser)
    parser.add_argument("--check", action="store_true", help="name every fault; exit status 1 if there is one")
    parser.add_argument("--preview", metavar="PNG", default="preview.png", help="drawn boxes (default: %(default)s)")
    parser.add_argument("--classes", metavar="NAMES", help="only these, with commas between: cat,dog")
    parser.add_argument("--to", choices=("voc", "coco", "yolo"), help="write the data set in this format to --out")
    parser.add_argument("--to-coco", metavar="DIR", help="write PART.json of each part into DIR, without the pictures")
    parser.add_argument("--from-coco", metavar="JSON", help="make a VOC folder (--out) of a COCO file and --images")
    parser.add_argument("--images", metavar="DIR", help="with --from-coco: where the pictures lie")
    parser.add_argument("--out", metavar="DIR", help="with --to and --from-coco: the folder to write")
    parser.add_argument("--part", choices=PARTS, default="train", help="with --from-coco: (default: %(default)s)")
    return parser.parse_args(argv)


def names_in(words: str | None) -> list[str] | None:
    """ "cat, dog" -> ["cat", "dog"]"""
    return [name.strip() for name in words.split(",") if name.strip()] if words else None


def convert(data: Data, args: argparse.Namespace) -> None:
    if not args.out:
        fail("--to needs --out DIR, the folder to write")
    parts = {part: list(data.annotations(part)) for part in data.parts}
    lost = formats.write(args.to, Path(args.out), data.classes, parts)
    counts = ", ".join(f"{len(annotations):,} {part}" for part, annotations in parts.items())
    say(f"wrote {args.out} in the format {args.to}: {counts} pictures")
    if lost:
        say(f"what {args.to} cannot hold is lost: {', '.join(lost)}")


def convert_from_coco(args: argparse.Namespace) -> None:
    if not (args.images and args.out):
        fail("--from-coco needs --images DIR (where the pictures lie) and --out DIR (the folder to write)")
    try:
        coco = json.loads(utils.read_text(args.from_coco))
        count = voc.from_coco(coco, Path(args.images), Path(args.out), args.part)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        fail(f"{args.from_coco}: not a COCO file of boxes ({type(error).__name__}: {error})")
    say(f"wrote {count:,} pictures as {args.part} of {args.out}")


def main(argv=None) -> None:
    args = parse(argv)
    if args.from_coco:
        convert_from_coco(args)
        return
    data = load(args.data, args.data_root, args.check, names_in(args.classes))
    if args.to:
        convert(data, args)
    elif args.check:
        faults = check(data)
        for line in [*copies_in(data), *faults]:
            say(line)
        if faults:
            fail(f"{len(faults)} faults in {data.name}")
        say(f"{data.name}: no faults in {sum(map(len, data.parts.values())):,} pictures")
    elif args.to_coco:
        Path(args.to_coco).mkdir(parents=True, exist_ok=True)
        for part in data.parts:
            coco = voc.to_coco(data.classes, list(data.annotations(part)))
            write_atomic(Path(args.to_coco) / f"{part}.json", json.dumps(coco))
            say(f"wrote {Path(args.to_coco) / part}.json: {len(coco['annotations']):,} boxes")
    else:
        describe(data)
        shown = list(data.annotations("train"))[:12]
        voc.save_picture(voc.contact_sheet([voc.draw_truth(item, data.classes) for item in shown]), Path(args.preview))
        say(f"wrote {args.preview}")


if __name__ == "__main__":
    utils.start(main)
