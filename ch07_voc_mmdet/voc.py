"""The annotations of Pascal VOC: read, checked, written, drawn, and turned into COCO's and back (course 7-3).

A VOC folder (Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge"):
  JPEGImages/ID.jpg            the pictures (.png and .bmp do as well)
  Annotations/ID.xml           size, and of each object: name, difficult, truncated, bndbox (xmin, ymin, xmax, ymax)
  ImageSets/Main/train.txt     the IDs that train, one a line; val.txt and test.txt likewise

VOC counts pixels from 1 and its boxes include the last one. Here a box is (left, top, right, bottom) in continuous
coordinates, the picture going from 0 to its width: left = xmin - 1, right = xmax. So its width is right - left.
"""

import filecmp
import io
import itertools
import math
import os
import re
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

import utils
from pictures import read_picture
from utils import fail, write_atomic

IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
IMAGE_TYPES += tuple(suffix.upper() for suffix in IMAGE_TYPES)


@dataclass
class Thing:
    """An object of a picture. `box`: left, top, right, bottom in continuous pixel coordinates."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False


@dataclass
class Annotation:
    """A picture and what is in it."""

    id: str
    image: Path
    width: int
    height: int
    things: list[Thing] = field(default_factory=list)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_list(folder: Path, part: str) -> list[tuple[Path, str]]:
    """-> (folder, ID) for each line of ImageSets/Main/`part`.txt."""
    path = folder / "ImageSets" / "Main" / f"{part}.txt"
    if not path.is_file():
        fail(f"{path}: no such list")
    lines = [line.strip() for line in utils.read_text(path).split("\n") if line.strip()]
    # an ID may have blanks in it; VOC's lists of one class have a second column
    return [(folder, line if xml_path(folder, line).exists() else line.split()[0]) for line in lines]


def names_in(folder: Path, image_id: str) -> list[str]:
    """The class names in an annotation; none if it is broken, which reading it in earnest will report."""
    try:
        return [name.text.strip() for name in parse(xml_path(folder, image_id)).findall("object/name")]
    except (ValueError, AttributeError):
        return []


def read_quietly(folder: Path, image_id: str) -> bytes:
    """The bytes of an annotation; none if it is not there."""
    path = xml_path(folder, image_id)
    return path.read_bytes() if path.is_file() else b""


def xml_path(folder: Path, image_id: str) -> Path:
    return folder / "Annotations" / f"{image_id}.xml"


def parse(path: Path) -> ElementTree.Element:
    """-> the root of an XML file, its names without a namespace. ValueError, in one line, if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: listed, but there is no such file") from error
    try:
        root = ElementTree.fromstring(data)
    except (ValueError, LookupError, ElementTree.ParseError) as error:  # it does not know GBK, among others
        try:
            root = ElementTree.fromstring(re.sub(r"^\s*<\?xml.*?\?>", "", utils.read_text(path), count=1))
        except (SystemExit, ValueError, ElementTree.ParseError):
            raise ValueError(f"{path}: not well-formed XML ({error})") from error
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    return root


def read_annotation(folder: Path, image_id: str) -> Annotation:
    """-> what ID.xml says. Raises ValueError, with the file and the fault in one line, if it cannot be understood."""
    path = xml_path(folder, image_id)
    root = parse(path)
    image = find_image(folder, image_id)
    if image is None:
        raise ValueError(f"{path}: its picture {folder / 'JPEGImages' / image_id}.jpg is missing")
    try:
        width, height = (int(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
    except ValueError:
        width, height = 0, 0
    if min(width, height) < 1:  # some tools leave it out or write 0
        try:
            width, height = read_picture(image).size
        except OSError as error:
            raise ValueError(f"{image}: not a picture that can be read") from error
    return Annotation(image_id, image, width, height, [read_thing(path, node) for node in root.iter("object")])


def read_thing(path: Path, node: ElementTree.Element) -> Thing:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"{path}: an object without a name")
    try:
        xmin, ymin, xmax, ymax = (
            float(node.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
        )
        if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
            raise ValueError("not finite")
    except ValueError as error:
        raise ValueError(f"{path}: the {name} has no bndbox of four numbers") from error
    flags = {flag: node.findtext(flag, "0").strip() == "1" for flag in ("difficult", "truncated", "occluded")}
    return Thing(name, (xmin - 1, ymin - 1, xmax, ymax), **flags)


def is_usable(thing: Thing, annotation: Annotation) -> bool:
    """Whether a part of its box lies in the picture; an empty box, or one that lies outside, can neither train nor be found."""
    left, top, right, bottom = thing.box
    return min(right, annotation.width) > max(left, 0) and min(bottom, annotation.height) > max(top, 0)


def find_image(folder: Path, image_id: str) -> Path | None:
    paths = (folder / "JPEGImages" / f"{image_id}{suffix}" for suffix in IMAGE_TYPES)
    return next((path for path in paths if path.exists()), None)


def faults_of(annotation: Annotation, path: Path, classes: tuple[str, ...]) -> list[str]:
    """What is wrong with an annotation that can be read: its picture, its classes, its boxes."""
    faults = []
    try:
        size = read_picture(annotation.image).size
    except OSError:
        return [f"{annotation.image}: not a picture that can be read"]
    if size != (annotation.width, annotation.height):
        stated = f"{annotation.width} x {annotation.height}"
        faults.append(f"{path}: says {stated}, but the picture is {size[0]} x {size[1]}")
    for thing in annotation.things:
        left, top, right, bottom = thing.box
        shown = f"({left + 1:g}, {top + 1:g}, {right:g}, {bottom:g})"
        if thing.name not in classes:
            faults.append(f"{path}: {thing.name!r} is none of the classes: {', '.join(classes)}")
        if not (right > left and bottom > top):
            faults.append(f"{path}: the box {shown} of the {thing.name} is empty")
        elif left < 0 or top < 0 or right > size[0] or bottom > size[1]:
            faults.append(
                f"{path}: the box {shown} of the {thing.name} reaches out of the {size[0]} x {size[1]} picture"
            )
    return faults


# ---- writing, and VOC <-> COCO ----------------------------------------------------------------------------------------


def write_picture(folder: Path, image_id: str, picture: Image.Image | Path, things: list[Thing]) -> None:
    """Adds a picture (or a file, which is copied) with its annotation to a VOC folder."""
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if isinstance(picture, Path):
        target = folder / "JPEGImages" / f"{image_id}{picture.suffix}"
        if not (target.exists() and target.samefile(picture)):  # it may be in its place already
            shutil.copyfile(picture, target)
        size = read_picture(picture).size
    else:
        target = folder / "JPEGImages" / f"{image_id}.jpg"
        picture.save(target, quality=92)
        size = picture.size
    write_atomic(xml_path(folder, image_id), to_xml(target.name, size, things))


def to_xml(file_name: str, size: tuple[int, int], things: list[Thing]) -> str:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file_name
    node = ElementTree.SubElement(root, "size")
    for side, value in zip(("width", "height", "depth"), (*size, 3), strict=True):
        ElementTree.SubElement(node, side).text = str(value)
    for thing in things:
        node = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(node, "name").text = thing.name
        for flag in ("truncated", "occluded", "difficult"):
            ElementTree.SubElement(node, flag).text = str(int(getattr(thing, flag)))
        box = ElementTree.SubElement(node, "bndbox")
        left, top, right, bottom = thing.box
        for side, value in zip(("xmin", "ymin", "xmax", "ymax"), (left + 1, top + 1, right, bottom), strict=True):
            ElementTree.SubElement(box, side).text = f"{value:g}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def write_list(folder: Path, part: str, ids: list[str]) -> None:
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "ImageSets" / "Main" / f"{part}.txt", "".join(f"{image_id}\n" for image_id in ids))


def to_coco(classes: tuple[str, ...], annotations: list[Annotation]) -> dict:
    """VOC -> the dict of a COCO file. A difficult thing becomes a crowd: COCO too neither demands nor punishes those."""
    number = {name: i + 1 for i, name in enumerate(classes)}  # COCO counts categories from 1
    images, things = [], []
    for i, annotation in enumerate(annotations):
        image = {
            "id": i + 1,
            "file_name": annotation.image.name,
            "width": annotation.width,
            "height": annotation.height,
        }
        images.append(image | {"voc_id": annotation.id})
        for thing in annotation.things:
            left, top, right, bottom = thing.box
            row = {"id": len(things) + 1, "image_id": i + 1, "category_id": number[thing.name]}
            row |= {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            row |= {"iscrowd": int(thing.difficult), "truncated": int(thing.truncated), "occluded": int(thing.occluded)}
            things.append(row)
    categories = [{"id": i, "name": name, "supercategory": "none"} for name, i in number.items()]
    return {"images": images, "annotations": things, "categories": categories}


def from_coco(coco: dict, images: Path, folder: Path, part: str) -> int:
    """A COCO file's dict, whose pictures lie in `images` -> that part of the VOC folder `folder`. -> pictures written."""
    names = {category["id"]: category["name"] for category in coco["categories"]}
    things = {image["id"]: [] for image in coco["images"]}
    for row in coco["annotations"]:
        left, top, width, height = map(float, row["bbox"])
        if not all(map(math.isfinite, (left, top, width, height))):
            raise ValueError(f"the object {row.get('id')} has a bbox that is not finite")
        flags = {flag: bool(row.get(flag, 0)) for flag in ("truncated", "occluded")}
        thing = Thing(
            names[row["category_id"]], (left, top, left + width, top + height), bool(row.get("iscrowd", 0)), **flags
        )
        things[row["image_id"]].append(thing)
    ids = []
    others = [path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt") if path.stem != part]
    taken = {image_id for other in others for _, image_id in read_list(folder, other)}
    for image in tqdm(coco["images"], desc=f"writing {part}", disable=None, leave=False):
        path = Path(os.path.normpath(images / image["file_name"].replace("\\", "/")))
        if not path.is_relative_to(os.path.normpath(images)) or not path.is_file():
            fail(f"{path}: named in the COCO file, but there is no such picture")
        if path.suffix not in IMAGE_TYPES:
            fail(
                f"{path}: pictures of this kind are not read; there are: {', '.join(IMAGE_TYPES[: len(IMAGE_TYPES) // 2])}"
            )
        ids.append(free_id(folder, path, taken))
        taken.add(ids[-1])
        write_picture(folder, ids[-1], path, things[image["id"]])
    write_list(folder, part, ids)
    listed = folder / "classes.txt"
    known = [line.strip() for line in utils.read_text(listed).split("\n") if line.strip()] if listed.exists() else []
    write_atomic(listed, "".join(f"{name}\n" for name in dict.fromkeys([*known, *(names[i] for i in sorted(names))])))
    return len(ids)


def free_id(folder: Path, picture: Path, taken: set[str]) -> str:
    """An ID for a picture that no other one in `folder` has: its name without the suffix, or that with -2, -3, ...

    A picture that is there already (by its content) keeps its ID, unless that is `taken`.
    """
    for number in itertools.count(1):
        image_id = picture.stem if number == 1 else f"{picture.stem}-{number}"
        there = find_image(folder, image_id)
        if image_id not in taken and (there is None or filecmp.cmp(there, picture, shallow=False)):
            return image_id


# ---- pictures with boxes ----------------------------------------------------------------------------------------------


def colour_of(number: int) -> tuple[int, int, int]:
    """A colour for a class: neighbouring numbers lie far apart on the colour circle."""
    return tuple(Image.new("HSV", (1, 1), (int(number * 0.618 * 255) % 256, 220, 255)).convert("RGB").getpixel((0, 0)))


def draw_boxes(picture: Image.Image, boxes: list, words: list[str], colours: list) -> Image.Image:
    """-> a copy of `picture` with each box and its words drawn on it."""
    picture = picture.convert("RGB")
    draw, font = ImageDraw.Draw(picture), label_font("".join(words))
    line = max(1, round(min(picture.size) / 250))
    for (left, top, right, bottom), text, colour in zip(boxes, words, colours, strict=True):
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        corner = max(0, min(left + line, picture.width - draw.textlength(text, font))), max(0, top - 11)  # inside it
        draw.rectangle(draw.textbbox(corner, text, font), fill=colour)
        draw.text(corner, text, fill="black", font=font)
    return picture


def label_font(text: str, size: int = 11) -> ImageFont.FreeTypeFont:
    """Pillow's own font, or an installed one that has all characters of `text`."""
    path = None if text.isascii() else utils.find_font("".join(sorted(set(text))))
    if path is None and not text.isascii():
        warn_of_boxes()
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


@cache
def warn_of_boxes() -> None:
    utils.warn("No installed font has all characters of the class names: some are drawn as boxes.\n"
               "A free one with Chinese: Noto Sans CJK (Debian and Ubuntu: apt install fonts-noto-cjk).")  # fmt: skip


def draw_truth(annotation: Annotation, classes: tuple[str, ...]) -> Image.Image:
    """The picture with its ground truth; (d) marks what is difficult, (t) what is truncated."""
    marks = [("(d)" * thing.difficult) + ("(t)" * thing.truncated) for thing in annotation.things]
    words = [f"{thing.name}{mark}" for thing, mark in zip(annotation.things, marks, strict=True)]
    colours = [colour_of(classes.index(thing.name)) for thing in annotation.things]
    return draw_boxes(read_picture(annotation.image), [thing.box for thing in annotation.things], words, colours)


def contact_sheet(pictures: list[Image.Image], columns: int = 4, width: int = 320) -> Image.Image:
    """The pictures, scaled to one width, in rows."""
    scaled = [picture.resize((width, round(width * picture.height / picture.width))) for picture in pictures]
    rows = [scaled[i : i + columns] for i in range(0, len(scaled), columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    sheet = Image.new("RGB", (columns * width, sum(heights)), "white")
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            sheet.paste(picture, (j * width, sum(heights[:i])))
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG" if path.suffix == ".png" else "JPEG", quality=92)
    write_atomic(path, buffer.getvalue())
