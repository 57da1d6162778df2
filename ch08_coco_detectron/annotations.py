"""Annotation files in COCO's format: every record is checked when it is read, once and for all (course 8-4).

read() -> Content: pictures, categories and objects that can be used, each with all its fields, of the right types, and a list
of faults. What has a fault is left out. read_results() does the same for predictions, and refuses the file at the first fault.
What the rest of the chapter gets from here needs no further checks.
"""

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

import masks
import utils
from utils import fail

LARGEST = 200_000_000  # pixels of a picture
Number = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Word = Annotated[str, Meta(min_length=1, max_length=4096)]
Side = Annotated[int, Meta(ge=1, le=LARGEST)]
Box = Annotated[list[float], Meta(min_length=4, max_length=4)]  # x, y, width, height in pixels


class ImageRecord(msgspec.Struct):
    id: Number
    file_name: Word
    width: Side
    height: Side


class CategoryRecord(msgspec.Struct):
    id: Number
    name: Word


class ObjectRecord(msgspec.Struct):
    image_id: Number
    category_id: Number
    bbox: Box
    segmentation: Any = None
    iscrowd: Annotated[int, Meta(ge=0, le=1)] = 0
    area: float | None = None
    id: Number | None = None


class ResultRecord(msgspec.Struct):
    image_id: Number
    category_id: Number
    score: float
    segmentation: Any
    bbox: Box | None = None  # else the box around the mask


KINDS = {"images": ImageRecord, "categories": CategoryRecord, "annotations": ObjectRecord}


@dataclass
class Content:
    """What an annotation file holds, without what cannot be used; `faults` names that, each as (where, what)."""

    images: dict[int, dict] = field(default_factory=dict)
    categories: dict[int, dict] = field(default_factory=dict)
    objects: list[dict] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    total: int = 0

    def left_out(self) -> str:
        """The objects that cannot be used, counted by kind; empty if there are none."""
        bad = Counter(
            re.split(r"[:\[]", what)[0] for where, what in self.faults if where.startswith(("object", "annotations"))
        )
        lost = self.total - len(self.objects)
        why = ", ".join(f"{count} x {utils.translated(what)}" for what, count in bad.most_common(5))
        return f"left out {lost} of {self.total} objects ({why}); see --check" if lost else ""

    def truth(self) -> dict:
        """The same in COCO's format. Objects are numbered from 1: pycocotools takes the id 0 for `no match`."""
        rows = [row | {"id": number} for number, row in enumerate(self.objects, 1)]
        categories = [self.categories[key] for key in sorted(self.categories)]
        images = [self.images[key] for key in sorted(self.images)]
        return {"info": {}, "images": images, "annotations": rows, "categories": categories}


def read_json(path: Path) -> Any:
    text = utils.read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # cut off, not JSON at all, or nested without end
        fail(f"{path}: not JSON that can be read, or cut off ({error})")


def read_lists(path: Path) -> dict:
    """A JSON file that is, at first sight, one of COCO's instances files."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(kind), list) for kind in KINDS):
        fail(f"{path}: not a COCO instances file, which has the lists {', '.join(KINDS)}")
    return content


def read(path: Path, lists: dict | None = None) -> Content:
    """Reads the file `path`, or `lists`, which came from there in another format."""
    lists, content = lists or read_lists(path), Content()
    content.total = len(lists["annotations"])
    for kind in ("images", "categories"):
        place = getattr(content, kind)
        for index, row in enumerate(lists[kind]):
            record, fault = convert(row, KINDS[kind])
            if not fault and kind == "images" and record["width"] * record["height"] > LARGEST:
                fault = f"width: {record['width']} x {record['height']} is too large for a picture"
            if not fault and record["id"] in place:
                fault = f"the id {record['id']} is there more than once"
            if fault:
                content.faults.append((f"{kind}[{index}]", fault))
            else:
                place[record["id"]] = record
    refuse_equal_names(content, path, lists["annotations"])
    seen: Counter = Counter()
    for index, row in enumerate(lists["annotations"]):
        record, where, fault = read_object(row, index, content)
        if record and record["id"] is not None:
            seen[record["id"]] += 1
            if seen[record["id"]] == 2:
                content.faults.append(("annotations", f"the id {record['id']} is there more than once"))
        if fault:
            content.faults.append((where, fault))
        if record:
            content.objects.append(record)
    if not content.images and lists["images"]:
        where, what = content.faults[0]
        fail(f"{path}: not in COCO's format ({where}: {what}); `datasets.py --check` says more")
    return content


def convert(row: Any, kind: type) -> tuple[dict | None, str | None]:
    """-> the record with all its fields in their types ("3" becomes 3), or its fault, "field: words"."""
    try:
        record = msgspec.to_builtins(msgspec.convert(row, kind, strict=False))
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        words, _, place = str(error).partition(" - at `$.")
        return None, f"{place.rstrip('`') or 'record'}: {words[:1].lower()}{words[1:]}"
    for name, value in record.items():
        numbers = value if name == "bbox" else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            return None, f"{name}: {value} is not finite"
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:  # half a character: no file has such a name, no terminal can show it
                return None, f"{name}: {value!r} is not text"
    if "file_name" in record:
        record["file_name"] = record["file_name"].replace("\\", "/")  # as tools on Windows write it
    return record, None


def refuse_equal_names(content: Content, path: Path, rows: list) -> None:
    """Two categories of one name: the one without objects goes (Roboflow writes such a one), or the file is refused."""
    used = {row.get("category_id") for row in rows if isinstance(row, dict) and isinstance(row.get("category_id"), int)}
    by_name: dict[str, int] = {}
    for key, category in list(content.categories.items()):
        other = by_name.setdefault(category["name"], key)
        if other == key:
            continue
        empty = next((number for number in (other, key) if number not in used), None)
        if empty is None:
            fail(f"{path}: two categories are called {category['name']!r} (ids {other} and {key}); rename one")
        del content.categories[empty]
        by_name[category["name"]] = other + key - empty


def read_object(row: Any, index: int, content: Content) -> tuple[dict | None, str, str | None]:
    """-> the object or None, where it stands, and its fault or None. An object that lost a part of its mask has both."""
    record, fault = convert(row, ObjectRecord)
    if not record:
        return None, f"annotations[{index}]", fault
    name = index if record["id"] is None else record["id"]
    where = f"object {name}"
    if record["category_id"] not in content.categories:
        return None, where, f"an unknown category: {record['category_id']}"
    image = content.images.get(record["image_id"])
    if image is None:
        return None, where, f"an image that the file does not list: {record['image_id']}"
    where = f"object {name} on {image['file_name']}"
    if fault := fault_of_box(record["bbox"], image):
        return None, where, fault
    mask, fault = masks.clean(record["segmentation"], image["height"], image["width"])
    record["segmentation"] = mask
    if mask is None:
        return None, where, fault
    if record["area"] is None or record["area"] < 0:
        record["area"] = float(masks.to_mask(mask, image["height"], image["width"]).sum())
    return record, where, fault


def fault_of_box(box: list[float], image: dict) -> str | None:
    left, top, right, bottom = clipped(box, image)
    if not (left < right and top < bottom):
        return f"a box outside the image or without area: {box}"
    x, y, w, h = box
    far = 2 * max(image["width"], image["height"])
    if min(x, y) < -far or max(x + w, y + h) > 2 * far:
        return f"a box that reaches far outside the image: {box}"
    return None


def clipped(box: list[float], image: dict) -> tuple[float, float, float, float]:
    """COCO's [x, y, width, height] -> (left, top, right, bottom) inside the image."""
    x, y, w, h = box
    return max(0, x), max(0, y), min(image["width"], x + w), min(image["height"], y + h)


def read_results(path: Path, truth: dict) -> list[dict]:
    """Predictions in COCO's results format, for the images of `truth`. A fault ends the program and names record and field."""
    rows, images, good = read_json(path), {image["id"]: image for image in truth["images"]}, []
    known = {category["id"] for category in truth["categories"]}
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        fail(f"{path}: not COCO results, a list of objects with {', '.join(ResultRecord.__struct_fields__)}")
    for index, row in enumerate(rows):
        record, fault = convert(row, ResultRecord)
        if record and record["image_id"] not in images:
            fail(f"{path}: record {index}: the predictions speak of image {record['image_id']}, not in the annotations")
        if record and record["category_id"] not in known:
            fault = f"category_id: {record['category_id']} is none of the annotations' categories"
        if record and not fault:
            image = images[record["image_id"]]
            size = image["height"], image["width"]
            record["segmentation"], fault = masks.clean(record["segmentation"], *size)
            if not fault and record["bbox"] is None:
                record["bbox"] = masks.box_of(masks.to_mask(record["segmentation"], *size))
            if not fault:
                record["segmentation"] = masks.as_rle(record["segmentation"], *size)  # as pycocotools wants it
            if not fault and (max(map(abs, record["bbox"])) > 1e6 or min(record["bbox"][2:]) < 0):
                fault = f"bbox: {record['bbox']} is no box"
        if fault:
            fail(f"{path}: record {index}: {fault}")
        good.append(record)
    return good
