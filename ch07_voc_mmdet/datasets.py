"""Pascal VOC, your own folder in its format, or the built-in sample -> lists of annotated pictures for train / val / test.

    python datasets.py                                    # gets VOC2007 ready (or the sample), describes it, draws preview.png
    python datasets.py --data my_folder --check           # names every fault in the annotations
    python datasets.py --data my_folder --to-coco coco    # coco/train.json ...; --from-coco FILE does the reverse

What a VOC folder looks like, and how boxes are counted, stands in voc.py.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

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
SPLIT_SEED = 2007  # which pictures of your folder validate never depends on --seed
SAMPLE_SIZES = {"train": 480, "val": 80, "test": 160}
DATA_HELP = "auto (default): voc2007 if it can be had, else sample; voc2007; voc2012; voc0712; sample; or a VOC folder"


@dataclass
class Data:
    """A data set: its name, class names, and for each part a list of (VOC folder, ID of a picture)."""

    name: str
    classes: tuple[str, ...]
    parts: dict[str, list[tuple[Path, str]]]

    def part(self, name: str) -> list[tuple[Path, str]]:
        """The pictures of "train", "val" or "test", or of several together: "train+val"."""
        missing = [part for part in name.split("+") if part not in self.parts]
        if missing:
            why = " (the annotations of VOC2012's are not public; test on voc2007)" if self.name == "voc2012" else ""
            fail(f"{self.name} has no {missing[0]} part{why}; it has: {', '.join(self.parts)}")
        return [item for part in name.split("+") for item in self.parts[part]]

    def annotations(self, name: str) -> Iterator[Annotation]:
        """The annotations of a part, without boxes that have no part in their picture. An annotation that cannot be read ends
        the program: `--check` then names all of them."""
        lost = 0
        for folder, image_id in self.part(name):
            try:
                annotation = voc.read_annotation(folder, image_id)
                unknown = {thing.name for thing in annotation.things} - set(self.classes)
                if unknown:
                    raise ValueError(f"{voc.xml_path(folder, image_id)}: {min(unknown)!r} is none of the classes")
            except ValueError as fault:
                fail(f"{fault}; `python datasets.py --data {self.name} --check` names every fault")
            usable = [thing for thing in annotation.things if voc.is_usable(thing, annotation)]
            lost += len(annotation.things) - len(usable)
            annotation.things = usable
            yield annotation
        if lost:
            say(f"{self.name}: left out {lost} boxes of {name} that are empty or outside their picture; see --check")


def load(name: str, root: str = "data") -> Data:
    """The data set `name`: auto, voc2007, voc2012, voc0712, sample, or the path of a VOC folder.

    auto is VOC2007 if it is in `root` or can be downloaded, else the sample, with a warning. Errors end the program
    with one line.
    """
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
        return load_folder(Path(name))
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


def load_folder(folder: Path) -> Data:
    """Your own VOC folder. The classes are the lines of classes.txt, or else all names in the annotations, sorted.

    Without lists in ImageSets/Main a tenth of the pictures validates and a tenth tests, drawn with a fixed seed.
    """
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
        order = np.random.default_rng(SPLIT_SEED).permutation(len(ids))
        tenth = max(1, len(ids) // 10)
        chosen = {"val": order[:tenth], "test": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
        parts = {part: [(folder, ids[i]) for i in sorted(chosen[part])] for part in PARTS}
    for part in ("train", "val"):
        if not parts.get(part):
            fail(f"{lists}: no {part}.txt there with an ID in it; with no lists at all, the split is drawn for you")
    return Data(str(folder), read_classes(folder, parts), parts)


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
    faults = []
    for part, items in data.parts.items():
        twice = [image_id for (_, image_id), count in Counter(items).items() if count > 1]
        faults += [f"{part}: {image_id} is listed more than once" for image_id in twice]
        for folder, image_id in tqdm(items, desc=f"checking {part}", disable=None, leave=False):
            try:
                faults += voc.faults_of(
                    voc.read_annotation(folder, image_id), voc.xml_path(folder, image_id), data.classes
                )
            except ValueError as fault:
                faults.append(str(fault))
    seen = Counter(item for items in data.parts.values() for item in set(items))
    return faults + [f"{image_id} is in more than one part" for (_, image_id), count in seen.items() if count > 1]


# ---- python datasets.py -----------------------------------------------------------------------------------------------


def describe(data: Data) -> None:
    for part in data.parts:
        annotations = list(data.annotations(part))
        things = [thing for annotation in annotations for thing in annotation.things]
        flags = {flag: sum(getattr(thing, flag) for thing in things) for flag in ("difficult", "truncated")}
        empty = sum(not annotation.things for annotation in annotations)
        print(f"{part:<6}{len(annotations):>7,} pictures ({empty} empty), {len(things):,} things, {flags}")
        counts = Counter(thing.name for thing in things)
        print("      " + ", ".join(f"{name} {counts[name]:,}" for name in data.classes))


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="auto", help=DATA_HELP)
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where data lies (default: %(default)s)")
    utils.add_mirror_flag(parser)
    parser.add_argument("--check", action="store_true", help="name every fault; exit status 1 if there is one")
    parser.add_argument("--preview", metavar="PNG", default="preview.png", help="drawn boxes (default: %(default)s)")
    parser.add_argument("--to-coco", metavar="DIR", help="write PART.json of each part into DIR")
    parser.add_argument("--from-coco", metavar="JSON", help="make a VOC folder (--out) of a COCO file and --images")
    parser.add_argument("--images", metavar="DIR", help="with --from-coco: where the pictures lie")
    parser.add_argument("--out", metavar="DIR", help="with --from-coco: the VOC folder to write")
    parser.add_argument("--part", choices=PARTS, default="train", help="with --from-coco: (default: %(default)s)")
    return parser.parse_args(argv)


def convert_from_coco(args: argparse.Namespace) -> None:
    if not (args.images and args.out):
        fail("--from-coco needs --images DIR (where the pictures lie) and --out DIR (the folder to write)")
    try:
        coco = json.loads(Path(args.from_coco).read_text("utf-8"))
        count = voc.from_coco(coco, Path(args.images), Path(args.out), args.part)
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f"{args.from_coco}: not a COCO file of boxes ({type(error).__name__}: {error})")
    print(f"wrote {count:,} pictures as {args.part} of {args.out}")


def main(argv=None) -> None:
    args = parse(argv)
    if args.from_coco:
        convert_from_coco(args)
        return
    data = load(args.data, args.data_root)
    if args.check:
        faults = check(data)
        print("\n".join(faults))
        if faults:
            fail(f"{len(faults)} faults in {data.name}")
        print(f"{data.name}: no faults in {sum(map(len, data.parts.values())):,} pictures")
    elif args.to_coco:
        Path(args.to_coco).mkdir(parents=True, exist_ok=True)
        for part in data.parts:
            coco = voc.to_coco(data.classes, list(data.annotations(part)))
            write_atomic(Path(args.to_coco) / f"{part}.json", json.dumps(coco))
            print(f"wrote {Path(args.to_coco) / part}.json: {len(coco['annotations']):,} boxes")
    else:
        describe(data)
        shown = list(data.annotations("train"))[:12]
        voc.save_picture(voc.contact_sheet([voc.draw_truth(item, data.classes) for item in shown]), Path(args.preview))
        print(f"wrote {args.preview}")


if __name__ == "__main__":
    utils.start(main)
