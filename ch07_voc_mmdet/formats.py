"""Annotations as other tools write them -> those of this chapter, and the way back.

    python datasets.py --data my_folder --check            # any of these folders, recognised by what is in it
    python datasets.py --data my_folder --to yolo --out DIR

  YOLO     data.yaml (names, train, val, test), or classes.txt; beside each picture, or in labels/ instead of images/, ID.txt
           with lines "class x y width height": the box's middle and size in shares of the picture (of a polygon: its box)
  COCO     annotations/*train*.json, *val*.json, *test*.json; or train/_annotations.coco.json, valid/..., as Roboflow writes it
  labelme  ID.json beside each picture, with shapes; rectangles, polygons, circles and masks become boxes
  VOC      ID.xml beside each picture, where there are no folders Annotations/ and JPEGImages/

Parts are folders called train, val (valid, validation) and test, or lists; without any, a tenth validates and a tenth tests.
What cannot be used is left out, and named by --check.
"""

import itertools
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from tqdm import tqdm

import utils
import voc
from pictures import IMAGE_TYPES, PART_NAMES, list_pictures, read_picture
from utils import fail, is_left_behind, write_atomic
from voc import Annotation, Thing

PARTS = ("train", "val", "test")


@dataclass(eq=False)
class Collection:
    """Annotations in memory, by ID: the picture's path below the folder, without its suffix."""

    folder: Path
    annotations: dict[str, Annotation] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)  # the file that each comes from
    faults: list[str] = field(default_factory=list)

    def add(self, picture: Path, source: Path, make: Callable[[tuple[int, int]], list[Thing]]) -> str | None:
        """Reads what `make` gives for a picture of this size -> its ID; None, and a fault, if the picture cannot be read."""
        try:
            size = read_picture(picture).size
        except OSError as error:
            self.faults.append(f"{picture}: not a picture that can be read ({error.strerror or error})")
            return None
        name = os.path.relpath(picture, self.folder)
        image_id = os.path.splitext(name)[0]
        if image_id in self.annotations:  # a.jpg and a.png
            image_id = name
        self.annotations[image_id] = Annotation(image_id.replace(os.sep, "/"), picture, *size, make(size))
        self.sources[image_id] = source
        return image_id


@dataclass
class Found:
    """What a folder holds: its classes, and the IDs of each part (of "all", if there are no parts)."""

    collection: Collection
    classes: tuple[str, ...]
    parts: dict[str, list[str]]


def read(folder: Path) -> Found | None:
    """Reads a folder in one of the formats above; None if it is in none of them."""
    for find in (read_yolo, read_coco, read_labelme, read_xml):
        found = find(folder)
        if found:
            return found
    return None


def part_of(path: Path, folder: Path) -> str:
    """The part that a folder's name speaks of, wherever above the file: train/images/1.jpg -> train. Else "all"."""
    words = [word.lower() for word in path.relative_to(folder).parts[:-1]]
    return next((part for part, names in PART_NAMES.items() for word in words if word in names), "all")


def files_in(folder: Path, suffix: str) -> list[Path]:
    return [p for p in sorted(folder.rglob(f"*{suffix}")) if p.is_file() and not is_left_behind(p, folder)]


def picture_beside(path: Path, named: str = "") -> Path | None:
    """The picture of an annotation file: that of its own name, or the one it names (tools write paths of other machines)."""
    name = named.replace("\\", "/").rsplit("/", 1)[-1]
    places = [path.with_suffix(end) for suffix in sorted(IMAGE_TYPES) for end in (suffix, suffix.upper())]
    places += [path.with_name(name)] if name else []
    return next((place for place in places if place.is_file() and place.suffix.lower() in IMAGE_TYPES), None)


# ---- YOLO -------------------------------------------------------------------------------------------------------------


def read_yolo(folder: Path) -> Found | None:
    about = next(
        (p for p in sorted(folder.glob("*.y*ml")) if isinstance(settings_of(p).get("names"), (list, dict))), None
    )
    lists = [p for p in files_in(folder, ".txt") if p.name in ("classes.txt", "obj.names", "_darknet.labels")]
    lists += files_in(folder, ".names")
    if about is None and (not lists or not any(is_yolo(p) for p in files_in(folder, ".txt"))):
        return None
    if about:
        names = settings_of(about)["names"]
        names = [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names
    else:
        names = [line.strip() for line in utils.read_text(lists[0]).split("\n") if line.strip()]
    names = [str(name) for name in names]
    result, parts = Collection(folder), {}
    for part, paths in yolo_pictures(folder, settings_of(about) if about else {}).items():
        for picture in tqdm(paths, desc=f"reading {part}", disable=None, leave=False):
            source = label_file(picture)
            image_id = result.add(picture, source, lambda size, s=source: yolo_things(s, size, names, result.faults))
            parts.setdefault(part, []).extend([image_id] if image_id else [])
    return Found(result, tuple(names), parts)


def settings_of(path: Path) -> dict:
    try:
        content = yaml.safe_load(utils.read_text(path))
    except (yaml.YAMLError, SystemExit):
        return {}
    return content if isinstance(content, dict) else {}


def is_yolo(path: Path) -> bool:
    """Whether the first line of a text file is one of numbers, as YOLO has them."""
    try:
        words = utils.read_text(path).split("\n")[0].split()
        return len(words) >= 5 and all(math.isfinite(float(word)) for word in words) and words[0].isdigit()
    except (SystemExit, ValueError):
        return False


def yolo_pictures(folder: Path, settings: dict) -> dict[str, list[Path]]:
    """-> the pictures of each part: as the yaml says, which may speak of folders, of lists, or of another machine; else by
    the names of the folders."""
    found = {}
    for part in PARTS:
        wanted = settings.get(part) or (settings.get("valid") if part == "val" else None)
        for name in [wanted] if isinstance(wanted, str) else wanted or []:
            found.setdefault(part, []).extend(pictures_at(folder, str(settings.get("path") or ""), str(name)))
    found = {part: paths for part, paths in found.items() if paths}
    if not found:
        for picture in list_pictures(folder, deep=True):
            found.setdefault(part_of(picture, folder), []).append(picture)
    return found


def pictures_at(folder: Path, base: str, name: str) -> list[Path]:
    words = [word for word in name.replace("\\", "/").split("/") if word not in (".", "..", "")]
    ends = [
        "/".join(words[i:]) for i in range(len(words))
    ]  # of an absolute path of another machine, what is here of it
    place = next((p for p in (folder / base / name, *(folder / end for end in ends)) if p.exists()), None)
    if place is None:
        return []
    if place.is_dir():
        return list_pictures(place, deep=True)
    lines = [line.strip() for line in utils.read_text(place).split("\n") if line.strip()]
    return [path for line in lines for path in pictures_at(folder, base, line)] if place.suffix == ".txt" else [place]


def label_file(picture: Path) -> Path:
    """labels/train/1.txt for images/train/1.jpg; or beside the picture."""
    other = label_file_of(picture)
    return other if other.parent.is_dir() else picture.with_suffix(".txt")


def label_file_of(picture: Path) -> Path:
    parts = list(picture.parts)
    last = max((i for i, part in enumerate(parts) if part == "images"), default=None)
    if last is not None:
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def yolo_things(path: Path, size: tuple[int, int], names: list[str], faults: list[str]) -> list[Thing]:
    """No file: nothing on the picture."""
    things = []
    lines = utils.read_text(path).split("\n") if path.is_file() else []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            label, *values = (float(word) for word in words)
            name = names[int(label)] if label == int(label) and label >= 0 else None
            if name is None or len(values) < 4 or not all(map(math.isfinite, values)):
                raise ValueError
        except (ValueError, IndexError, OverflowError):
            faults.append(f"{path}, line {number}: not a class (0 to {len(names) - 1}) and a box: {line.strip()[:60]}")
            continue
        things.append(Thing(name, yolo_box(values, size)))
    return things


def yolo_box(values: list[float], size: tuple[int, int]) -> tuple:
    """x, y, width, height (a sixth number is a score), or a polygon's x, y, x, y, ... in shares -> the box in pixels."""
    if len(values) >= 6:
        x, y = values[0::2], values[1::2]
        sides = (min(x), min(y), max(x), max(y))
    else:
        x, y, width, height = values[:4]
        sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return tuple(round(side * size[i % 2], 4) for i, side in enumerate(sides))


# ---- COCO -------------------------------------------------------------------------------------------------------------


def read_coco(folder: Path) -> Found | None:
    files = {}
    for path in [
        *sorted((folder / "annotations").glob("*.json")),
        *sorted(folder.glob("*.json")),
        *sorted(folder.glob("*/*.json")),
    ]:
        words = {*"".join(c if c.isalpha() else " " for c in path.stem.lower()).split(), path.parent.name.lower()}
        part = next((part for part, names in PART_NAMES.items() if words & set(names)), "all")
        if part not in files and is_coco(path):
            files[part] = path
    if not files:
        return None
    result, parts, classes = Collection(folder), {}, {}
    for part, path in files.items():
        content = json.loads(utils.read_text(path))
        parts[part] = [image_id for image_id in coco_pictures(result, path, content, classes) if image_id]
    return Found(result, tuple(classes), parts)


def is_coco(path: Path) -> bool:
    try:
        content = json.loads(utils.read_text(path))
    except (ValueError, RecursionError, SystemExit):
        return False
    kinds = ("images", "annotations", "categories")
    return isinstance(content, dict) and all(isinstance(content.get(kind), list) for kind in kinds)


def coco_pictures(result: Collection, path: Path, content: dict, classes: dict) -> list[str | None]:
    """Adds the pictures of a file -> their IDs. `classes` gets the names of the categories."""
    names, things = coco_names(result, path, content), {}
    classes.update(dict.fromkeys(names.values()))
    for number, row in enumerate(content["annotations"]):
        try:
            things.setdefault(key_of(row["image_id"]), []).append(coco_thing(row, names))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            why = f"{type(error).__name__}: {error}"
            result.faults.append(f"{path}: annotations[{number}]: not an object with a box ({why})")
    ids = []
    for number, row in enumerate(content["images"]):
        try:
            name, key = str(row["file_name"]).replace("\\", "/"), key_of(row["id"])
            picture = find_coco_picture(path, name)
        except (ValueError, KeyError, TypeError, AttributeError):
            name, picture = str(row)[:60], None
        if picture is None:
            result.faults.append(f"{path}: images[{number}]: there is no picture {name!r}")
            continue
        ids.append(result.add(picture, path, lambda size, key=key: things.get(key, [])))
    return ids


def key_of(value) -> str:
    """An id: a number, or a text that can be written. 7 and "7" are the same."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{value!r} is no id")
    return str(value).encode().decode()


def coco_names(result: Collection, path: Path, content: dict) -> dict[str, str]:
    """The categories by their ids, without one that is only the name of a group of them, as Roboflow writes it."""
    used = {str(row.get("category_id")) for row in content["annotations"] if isinstance(row, dict)}
    groups = {str(row.get("supercategory")) for row in content["categories"] if isinstance(row, dict)}
    names = {}
    for number, row in enumerate(content["categories"]):
        try:
            key, name = key_of(row["id"]), key_of(row["name"]).strip()
        except (ValueError, KeyError, TypeError):
            key = name = ""
        if not name:
            result.faults.append(f"{path}: categories[{number}]: no id, or no name")
        elif key in used or name not in groups:
            names[key] = name
    return names


def coco_thing(row: dict, names: dict[str, str]) -> Thing:
    left, top, width, height = (float(value) for value in row["bbox"])
    if not all(map(math.isfinite, (left, top, width, height))):
        raise ValueError("a bbox that is not finite")
    flags = {flag: str(row.get(flag, 0)) in ("1", "True") for flag in ("truncated", "occluded")}
    difficult = str(row.get("iscrowd", 0)) in ("1", "True")
    return Thing(names[key_of(row["category_id"])], (left, top, left + width, top + height), difficult, **flags)


def find_coco_picture(path: Path, name: str) -> Path | None:
    """The pictures lie beside the file, in a folder of its name's last word (train2017), or in images/."""
    near, end = path.parent, path.stem.split("_")[-1]
    top = near.parent if near.name == "annotations" else near
    for place in (near, top / end, top / "images" / end, top / "images", top):
        target = Path(os.path.normpath(place / name))
        if name and target.is_relative_to(os.path.normpath(top)) and target.is_file():
            return target
    return None


# ---- labelme, and XML beside the pictures -----------------------------------------------------------------------------


def read_labelme(folder: Path) -> Found | None:
    files = files_in(folder, ".json")
    contents = {path: content for path in files if (content := labelme_content(path))}
    return read_beside(folder, contents, labelme_things, lambda content: str(content.get("imagePath") or ""))


def labelme_content(path: Path) -> dict | None:
    try:
        content = json.loads(utils.read_text(path))
    except (ValueError, RecursionError, SystemExit):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("shapes"), list) else None


def labelme_things(path: Path, content: dict, faults: list[str]) -> list[Thing]:
    things = []
    for number, shape in enumerate(content["shapes"]):
        try:
            name, kind, flags = key_of(shape["label"]).strip(), shape.get("shape_type") or "polygon", shape.get("flags")
            points = [(float(x), float(y)) for x, y in shape["points"]]
            if kind == "circle":  # its centre, and a point on its edge
                (x, y), edge = points
                radius = math.dist((x, y), edge)
                points = [(x - radius, y - radius), (x + radius, y + radius)]
            box = (*map(min, zip(*points, strict=True)), *map(max, zip(*points, strict=True)))
            if not name or kind in ("point", "line", "linestrip", "points") or not all(map(math.isfinite, box)):
                raise ValueError(f"a {utils.cut(str(kind), 40)}")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            faults.append(f"{path}: shapes[{number}]: no box can be made of it ({error})")
            continue
        things.append(Thing(name, box, difficult=isinstance(flags, dict) and flags.get("difficult") is True))
    return things


def read_xml(folder: Path) -> Found | None:
    contents = {}
    for path in files_in(folder, ".xml"):
        try:
            root = voc.parse(path)
        except ValueError as fault:
            contents[path] = str(fault)
            continue
        if root.tag == "annotation":
            contents[path] = root
    if not any(not isinstance(content, str) for content in contents.values()):
        return None
    return read_beside(
        folder, contents, xml_things, lambda root: "" if isinstance(root, str) else root.findtext("filename", "")
    )


def xml_things(path: Path, root, faults: list[str]) -> list[Thing]:
    if isinstance(root, str):  # it cannot be read
        faults.append(root)
        return []
    things = []
    for node in root.iter("object"):
        try:
            things.append(voc.read_thing(path, node))
        except ValueError as fault:
            faults.append(str(fault))
    return things


def read_beside(folder: Path, contents: dict, things_of: Callable, name_in: Callable) -> Found | None:
    """Annotation files that lie beside their pictures."""
    if not contents:
        return None
    result, parts = Collection(folder), {}
    for path, content in tqdm(contents.items(), desc="reading", disable=None, leave=False):
        picture = picture_beside(path, name_in(content))
        if picture is None:
            result.faults.append(f"{path}: its picture is missing")
            continue
        image_id = result.add(picture, path, lambda size, p=path, c=content: things_of(p, c, result.faults))
        parts.setdefault(part_of(picture, folder), []).extend([image_id] if image_id else [])
    listed = folder / "classes.txt"
    if listed.exists():
        classes = [line.strip() for line in utils.read_text(listed).split("\n") if line.strip()]
    else:
        classes = sorted({thing.name for annotation in result.annotations.values() for thing in annotation.things})
    return Found(result, tuple(classes), parts)


# ---- writing ----------------------------------------------------------------------------------------------------------


def write(kind: str, folder: Path, classes: tuple[str, ...], parts: dict[str, list[Annotation]]) -> list[str]:
    """Writes a data set as voc, coco or yolo into a new folder -> in words, what that format cannot hold of it."""
    if folder.exists() and any(folder.iterdir()):
        fail(f"--out {folder}: this folder is not empty; give the name of a new one")
    {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}[kind](folder, classes, parts)
    things = [thing for annotations in parts.values() for annotation in annotations for thing in annotation.things]
    kept = {
        "voc": {"difficult", "truncated", "occluded"},
        "coco": {"difficult", "truncated", "occluded"},
        "yolo": set(),
    }[kind]
    counts = {flag: sum(getattr(thing, flag) for thing in things) for flag in ("difficult", "truncated", "occluded")}
    return [f"{count} things that are {flag}" for flag, count in counts.items() if count and flag not in kept]


def write_voc(folder: Path, classes: tuple[str, ...], parts: dict) -> None:
    taken: set[str] = set()
    for part, annotations in parts.items():
        ids = []
        for annotation in annotations:
            ids.append(voc.free_id(folder, annotation.image, taken))
            taken.add(ids[-1])
            voc.write_picture(folder, ids[-1], annotation.image, annotation.things)
        voc.write_list(folder, part, ids)
    write_atomic(folder / "classes.txt", "".join(f"{name}\n" for name in classes))


def write_coco(folder: Path, classes: tuple[str, ...], parts: dict) -> None:
    for part, annotations in parts.items():
        content, taken = voc.to_coco(classes, annotations), set()
        for image, annotation in zip(content["images"], annotations, strict=True):
            image["file_name"] = copy_picture(annotation.image, folder / part, taken)
        (folder / "annotations").mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "annotations" / f"instances_{part}.json", json.dumps(content))


def write_yolo(folder: Path, classes: tuple[str, ...], parts: dict) -> None:
    for part, annotations in parts.items():
        taken: set[str] = set()
        for annotation in annotations:
            name = copy_picture(annotation.image, folder / "images" / part, taken)
            lines = [yolo_line(thing, classes, annotation.width, annotation.height) for thing in annotation.things]
            target = folder / "labels" / part / Path(name).with_suffix(".txt").name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, "".join(f"{line}\n" for line in lines))
    places = {part: f"images/{part}" for part in parts}
    about = {"path": ".", **places, "nc": len(classes), "names": dict(enumerate(classes))}
    write_atomic(folder / "data.yaml", yaml.safe_dump(about, allow_unicode=True, sort_keys=False))


def yolo_line(thing: Thing, classes: tuple[str, ...], width: int, height: int) -> str:
    left, top, right, bottom = thing.box
    values = ((left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height)
    return " ".join([str(classes.index(thing.name)), *(f"{value:.12g}" for value in values)])


def copy_picture(picture: Path, folder: Path, taken: set[str]) -> str:
    """Copies a picture, under another name if one with this stem is there -> its name there. `taken`: the stems so far."""
    folder.mkdir(parents=True, exist_ok=True)
    stems = (picture.stem if n == 1 else f"{picture.stem}-{n}" for n in itertools.count(1))
    stem = next(stem for stem in stems if stem not in taken)
    taken.add(stem)
    shutil.copyfile(picture, folder / f"{stem}{picture.suffix}")
    return f"{stem}{picture.suffix}"
