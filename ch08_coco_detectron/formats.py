"""Annotations as other tools write them -> COCO's, and the way back.

    python train.py --data my_folder                               # any of these folders, recognised by what is in it
    python datasets.py --data my_folder --to yolo --out DIR        # writes a data set as coco, yolo or voc

  YOLO     data.yaml (names, train, val, test), or classes.txt; beside each picture, or in labels/ instead of images/, ID.txt
           with lines "class x y x y x y ...": a polygon in shares of the picture ("class x y width height": a box)
  labelme  ID.json beside each picture, with shapes: polygons, rectangles, circles; shapes of one group are one object
  VOC      Annotations/ID.xml and JPEGImages/ID.jpg, or ID.xml beside each picture: boxes, whose masks are the boxes

Parts are folders called train, val (valid, validation) and test, or the yaml's. --check names what cannot be used.
A box has no mask of its own: the box is taken for it, and a line says so.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import yaml
from tqdm import tqdm

import masks
import utils
from pictures import IMAGE_TYPES, PART_NAMES, list_pictures, read_picture
from utils import fail, is_left_behind, say, write_atomic


class Shape(NamedTuple):
    """An object: its category's name, polygons in pixels, whether they are only a box, and whether it is a crowd."""

    name: str
    polygons: list[list[float]]
    is_box: bool
    crowd: bool = False


class Folder:
    """A folder of another format, as COCO's lists: one for each part, with pictures named by their path below it."""

    def __init__(self, folder: Path, names: list[str] | None = None):
        self.folder, self.names = folder, list(names or [])
        self.images: dict[str, list[dict]] = {}
        self.shapes: list[tuple[int, Shape]] = []
        self.faults: list[tuple[str, str]] = []

    def add(self, picture: Path, part: str, make: Callable[[tuple[int, int]], list[Shape]]) -> None:
        name = Path(os.path.relpath(picture, self.folder)).as_posix()
        try:
            width, height = read_picture(picture).size
        except OSError as error:
            self.faults.append((f"image {name}", f"no picture that can be read ({error.strerror or error})"))
            return
        number = 1 + sum(map(len, self.images.values()))
        row = {"id": number, "file_name": name, "width": width, "height": height}
        self.images.setdefault(part, []).append(row)
        self.shapes += [(number, shape) for shape in make((width, height))]

    def contents(self) -> dict[str, dict]:
        """-> {part: what a COCO file would hold}."""
        names = [*self.names, *sorted({shape.name for _, shape in self.shapes} - set(self.names))]
        categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
        number, rows = {name: i for i, name in enumerate(names, 1)}, []
        for image_id, shape in self.shapes:
            x, y = (np.concatenate([polygon[i::2] for polygon in shape.polygons]) for i in (0, 1))
            box = [float(v) for v in (x.min(), y.min(), np.ptp(x), np.ptp(y))]
            row = {"id": len(rows) + 1, "image_id": image_id, "category_id": number[shape.name], "bbox": box}
            rows.append(row | {"iscrowd": int(shape.crowd), "area": None, "segmentation": shape.polygons})
        boxes = sum(shape.is_box for _, shape in self.shapes)
        if boxes:
            say(
                f"{self.folder}: {boxes} of {len(self.shapes)} objects are boxes; each box is taken for the object's mask"
            )
        result = {}
        for part, images in self.images.items():
            ids = {image["id"] for image in images}
            ours = [row for row in rows if row["image_id"] in ids]
            result[part] = {"images": images, "annotations": ours, "categories": categories}
        return result


def read(folder: Path) -> Folder | None:
    """Reads a folder in one of the formats above; None if it is in none of them."""
    for find in (read_yolo, read_labelme, read_voc):
        found = find(folder)
        if found and found.images:
            return found
    return None


def part_of(path: Path, folder: Path) -> str:
    """The part that a folder's name speaks of, wherever above the file: train/images/1.jpg -> train. Else "all"."""
    words = [word.lower() for word in path.relative_to(folder).parts[:-1]]
    return next((part for part, names in PART_NAMES.items() for word in words if word in names), "all")


def files_in(folder: Path, suffix: str) -> list[Path]:
    return [p for p in sorted(folder.rglob(f"*{suffix}")) if p.is_file() and not is_left_behind(p, folder)]


def beside(path: Path, named: str = "") -> Path | None:
    """The picture of an annotation file: that of its own name, or the one it names (tools write paths of other machines)."""
    name = named.replace("\\", "/").rsplit("/", 1)[-1]
    places = [path.with_suffix(end) for suffix in sorted(IMAGE_TYPES) for end in (suffix, suffix.upper())]
    places += [path.with_name(name)] if name else []
    return next((place for place in places if place.is_file() and place.suffix.lower() in IMAGE_TYPES), None)


def box_shape(name: str, left: float, top: float, right: float, bottom: float, crowd: bool = False) -> Shape:
    return Shape(name, [[left, top, right, top, right, bottom, left, bottom]], True, crowd)


# ---- YOLO -------------------------------------------------------------------------------------------------------------


def read_yolo(folder: Path) -> Folder | None:
    about = next((c for p in sorted(folder.glob("*.y*ml")) if (c := settings_of(p)).get("names")), {})
    lists = [p for p in files_in(folder, ".txt") if p.name == "classes.txt"] + files_in(folder, ".names")
    if not about and not (lists and any(is_yolo(p) for p in files_in(folder, ".txt"))):
        return None
    names = about.get("names")
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    elif not isinstance(names, list):
        names = [line.strip() for line in utils.read_text(lists[0]).split("\n") if line.strip()]
    result = Folder(folder, [str(name) for name in names])
    for part, paths in yolo_pictures(folder, about).items():
        for picture in tqdm(paths, desc=f"reading {part}", disable=None, leave=False):
            source = label_file(picture)
            result.add(picture, part, lambda size, source=source: yolo_shapes(source, size, result))
    return result


def settings_of(path: Path) -> dict:
    try:
        content = yaml.safe_load(utils.read_text(path))
    except (yaml.YAMLError, SystemExit):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("names"), (list, dict)) else {}


def is_yolo(path: Path) -> bool:
    """Whether the first line of a text file is one of numbers, as YOLO has them."""
    try:
        words = utils.read_text(path).split("\n")[0].split()
        return len(words) >= 5 and words[0].isdigit() and all(math.isfinite(float(word)) for word in words)
    except (SystemExit, ValueError):
        return False


def yolo_pictures(folder: Path, about: dict) -> dict[str, list[Path]]:
    """-> the pictures of each part: as the yaml says, which may speak of folders, of lists, or of another machine; else by
    the names of the folders."""
    found: dict[str, list[Path]] = {}
    for part in ("train", "val", "test"):
        wanted = about.get(part) or (about.get("valid") if part == "val" else None)
        for name in [wanted] if isinstance(wanted, str) else wanted or []:
            found.setdefault(part, []).extend(pictures_at(folder, str(about.get("path") or ""), str(name)))
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
    if place.suffix != ".txt":
        return [place]
    lines = [line.strip() for line in utils.read_text(place).split("\n") if line.strip()]
    return [path for line in lines for path in pictures_at(folder, base, line)]


def label_file(picture: Path) -> Path:
    """labels/train/1.txt for images/train/1.jpg; or beside the picture."""
    parts = list(picture.parts)
    last = max((i for i, part in enumerate(parts) if part == "images"), default=None)
    if last is not None:
        other = Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
        if other.parent.is_dir():
            return other
    return picture.with_suffix(".txt")


def yolo_shapes(path: Path, size: tuple[int, int], result: Folder) -> list[Shape]:
    """No file: nothing on the picture."""
    shapes = []
    for number, line in enumerate(utils.read_text(path).split("\n") if path.is_file() else [], 1):
        words = line.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words[1:]]
            if not words[0].isdigit() or len(values) < 4 or not all(map(math.isfinite, values)):
                raise ValueError
            shapes.append(yolo_shape(result.names[int(words[0])], values, size))
        except (ValueError, IndexError):
            what = f"not a class (0 to {len(result.names) - 1}) and a box or polygon: {line.strip()[:60]}"
            result.faults.append((f"{path}, line {number}", what))
    return shapes


def yolo_shape(name: str, values: list[float], size: tuple[int, int]) -> Shape:
    """x, y, width, height (a fifth number is a score), or a polygon's x, y, x, y, ..., all in shares of the picture."""
    scaled = [round(value * size[i % 2], 4) for i, value in enumerate(values)]
    if len(values) >= 6:
        return Shape(name, [scaled[: len(scaled) // 2 * 2]], False)
    x, y, width, height = scaled[:4]
    return box_shape(name, x - width / 2, y - height / 2, x + width / 2, y + height / 2)


# ---- labelme ----------------------------------------------------------------------------------------------------------


def read_labelme(folder: Path) -> Folder | None:
    result = Folder(folder)
    for path in files_in(folder, ".json"):
        try:
            content = json.loads(utils.read_text(path))
        except (ValueError, RecursionError, SystemExit):
            continue
        if not (isinstance(content, dict) and isinstance(content.get("shapes"), list)):
            continue
        picture = beside(path, str(content.get("imagePath") or ""))
        if picture is None:
            result.faults.append((str(path), "its picture is missing"))
            continue
        result.add(picture, part_of(picture, folder), lambda size, p=path, c=content: labelme_shapes(p, c, result))
    return result


def labelme_shapes(path: Path, content: dict, result: Folder) -> list[Shape]:
    shapes, groups = [], {}
    for number, row in enumerate(content["shapes"]):
        try:
            name, polygon, is_box = labelme_shape(row)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            result.faults.append((f"{path}, shapes[{number}]", f"no area can be made of it ({error})"))
            continue
        key = (name, str(row.get("group_id")))
        if row.get("group_id") is not None and key in groups:  # another piece of the same object
            groups[key].polygons.append(polygon)
        else:
            shapes.append(Shape(name, [polygon], is_box))
            groups[key] = shapes[-1]
    return shapes


def labelme_shape(row: dict) -> tuple[str, list[float], bool]:
    name, kind = row["label"], row.get("shape_type") or "polygon"
    points = [(float(x), float(y)) for x, y in row["points"]]
    if not isinstance(name, str) or not name.strip() or kind not in ("polygon", "rectangle", "circle"):
        raise ValueError(f"a {utils.cut(str(kind), 40)}")
    name.encode()  # half a character is no name: a ValueError
    if kind == "circle":  # its centre, and a point on its edge
        (x, y), edge = points
        turns = np.linspace(0, 2 * math.pi, 64, endpoint=False)
        radius = math.dist((x, y), edge)
        points = list(zip(x + radius * np.cos(turns), y + radius * np.sin(turns), strict=True))
    if kind == "rectangle":
        (a, b), (c, d) = points
        points = [(a, b), (c, b), (c, d), (a, d)]
    flat = [float(value) for point in points for value in point]
    if len(points) < 3 or not all(map(math.isfinite, flat)):
        raise ValueError("fewer than three points, or one that is not finite")
    return name.strip(), flat, kind == "rectangle"


# ---- VOC --------------------------------------------------------------------------------------------------------------


def read_voc(folder: Path) -> Folder | None:
    order, lists = folder / "classes.txt", folder / "ImageSets" / "Main"
    names = utils.read_text(order).split("\n") if order.is_file() else []
    result, listed = Folder(folder, [name.strip() for name in names if name.strip()]), {}
    for part in ("train", "val", "test") if lists.is_dir() else ():
        if (lists / f"{part}.txt").is_file():
            lines = utils.read_text(lists / f"{part}.txt").split("\n")
            listed |= {line.strip(): part for line in lines if line.strip()}
    for path in files_in(folder, ".xml"):
        place = path if path.parent.name != "Annotations" else path.parents[1] / "JPEGImages" / path.name
        try:
            root = parse_xml(path)
        except ValueError as error:
            result.faults.append((str(path), f"not well-formed XML ({error})"))
            continue
        picture = beside(place, root.findtext("filename") or "")
        if root.tag != "annotation" or (listed and path.stem not in listed):
            continue
        if picture is None:
            result.faults.append((str(path), "its picture is missing"))
            continue
        part = listed.get(path.stem) or part_of(picture, folder)
        result.add(picture, part, lambda size, p=path, r=root: voc_shapes(p, r, result))
    return result


def parse_xml(path: Path) -> ElementTree.Element:
    """-> the root of an XML file, in whatever encoding, its names without a namespace."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (ValueError, LookupError, ElementTree.ParseError):  # it does not know GBK, among others
        try:
            root = ElementTree.fromstring(re.sub(r"^\s*<\?xml.*?\?>", "", utils.read_text(path), count=1))
        except (SystemExit, ElementTree.ParseError) as error:
            raise ValueError(error) from error
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    return root


def voc_shapes(path: Path, root: ElementTree.Element, result: Folder) -> list[Shape]:
    """VOC counts pixels from 1, and its boxes include the last one. What is difficult becomes a crowd: neither demands it."""
    shapes = []
    for number, node in enumerate(root.iter("object")):
        try:
            name = (node.findtext("name") or "").strip()
            sides = [float(node.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
            if not name or not all(map(math.isfinite, sides)):
                raise ValueError
        except ValueError:
            result.faults.append((f"{path}, object {number + 1}", "no name, or no bndbox of four numbers"))
            continue
        difficult = (node.findtext("difficult") or "").strip() == "1"
        shapes.append(box_shape(name, sides[0] - 1, sides[1] - 1, sides[2], sides[3], difficult))
    return shapes


# ---- writing ----------------------------------------------------------------------------------------------------------


def write(kind: str, folder: Path, categories: list[dict], splits: dict) -> list[str]:
    """Writes the splits of a data set as coco, yolo or voc into a new folder -> in words, what that format cannot hold."""
    if folder.exists() and any(folder.iterdir()):
        fail(f"--out {folder}: this folder is not empty; give the name of a new one")
    names = [category["name"] for category in categories]
    lost = {"crowds": 0, "masks, of which the box is kept": 0, "holes, whose masks are cut into pieces": 0}
    for part, split in splits.items():
        taken: set[str] = set()
        place = folder / {"coco": part, "yolo": f"images/{part}", "voc": "JPEGImages"}[kind]
        prefix = part if kind == "voc" else ""  # all parts lie in one folder
        new = [im | {"file_name": copy_picture(split.path(im), place, taken, prefix)} for im in split.images]
        if kind == "coco":
            truth = split.truth(categories) | {"images": new}
            write_text(folder / "annotations" / f"instances_{part}.json", json.dumps(truth))
        for image in new if kind != "coco" else ():
            rows = split.objects[image["id"]]
            labels = {category["id"]: i for i, category in enumerate(categories)}
            stem = Path(image["file_name"]).stem
            if kind == "yolo":
                write_text(folder / "labels" / part / f"{stem}.txt", yolo_lines(rows, labels, image, lost))
            else:
                write_text(folder / "Annotations" / f"{stem}.xml", voc_xml(rows, labels, names, image, lost))
        if kind == "voc":
            ids = "".join(f"{Path(image['file_name']).stem}\n" for image in new)
            write_text(folder / "ImageSets" / "Main" / f"{part}.txt", ids)
    if kind == "voc":
        write_text(folder / "classes.txt", "".join(f"{name}\n" for name in names))
    if kind == "yolo":
        about = {"path": "."} | {part: f"images/{part}" for part in splits}
        about |= {"nc": len(names), "names": dict(enumerate(names))}
        write_text(folder / "data.yaml", yaml.safe_dump(about, allow_unicode=True, sort_keys=False))
    return [f"{count} {what}" for what, count in lost.items() if count]


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)


def copy_picture(picture: Path, folder: Path, taken: set[str], prefix: str = "") -> str:
    """Copies a picture, under another name if one with this stem is there -> its name there."""
    folder.mkdir(parents=True, exist_ok=True)
    first = f"{prefix}_{picture.stem}" if prefix else picture.stem
    stem, number = first, 1
    while stem in taken:
        number += 1
        stem = f"{first}-{number}"
    taken.add(stem)
    shutil.copyfile(picture, folder / f"{stem}{picture.suffix}")
    return f"{stem}{picture.suffix}"


def yolo_lines(rows: list[dict], labels: dict[int, int], image: dict, lost: dict) -> str:
    """A line an object. Its pieces are joined to one polygon by lines there and back, as YOLO has one polygon an object."""
    lines = []
    for row in rows:
        lost["crowds"] += row["iscrowd"]
        if row["iscrowd"]:
            continue
        polygons = row["segmentation"]
        if isinstance(polygons, dict):
            mask = masks.to_mask(polygons, image["height"], image["width"])
            lost["holes, whose masks are cut into pieces"] += has_hole(mask)
            polygons = masks.to_polygons(mask)
        sizes = (image["width"], image["height"])
        values = " ".join(f"{value / sizes[i % 2]:.12g}" for i, value in enumerate(joined(polygons)))
        lines.append(f"{labels[row['category_id']]} {values}\n")
    return "".join(lines)


def has_hole(mask: np.ndarray) -> bool:
    return any(masks.signed_area(loop) < 0 for loop in masks.outlines(mask))


def joined(polygons: list[list[float]]) -> list[float]:
    """Several polygons -> one outline that runs round each and back between them on the same line, which encloses nothing."""
    if len(polygons) == 1:
        return polygons[0]
    there = [value for polygon in polygons for value in (*polygon, *polygon[:2])]
    return there + [value for polygon in reversed(polygons[1:-1]) for value in polygon[:2]]


def voc_xml(rows: list[dict], labels: dict[int, int], names: list[str], image: dict, lost: dict) -> str:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = image["file_name"]
    node = ElementTree.SubElement(root, "size")
    for side, value in (("width", image["width"]), ("height", image["height"]), ("depth", 3)):
        ElementTree.SubElement(node, side).text = str(value)
    for row in rows:
        lost["masks, of which the box is kept"] += 1
        node = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(node, "name").text = names[labels[row["category_id"]]]
        ElementTree.SubElement(node, "difficult").text = str(row["iscrowd"])
        box, (x, y, w, h) = ElementTree.SubElement(node, "bndbox"), row["bbox"]
        for side, value in (("xmin", x + 1), ("ymin", y + 1), ("xmax", x + w), ("ymax", y + h)):
            ElementTree.SubElement(box, side).text = f"{value:.12g}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"
