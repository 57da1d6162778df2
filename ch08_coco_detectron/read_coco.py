"""Looks into an annotation file in COCO's format: what is in it, and how it looks (course 8-6).

    python read_coco.py data/sample/annotations/instances_val.json                     # a table of the categories
    python read_coco.py data/coco/annotations/instances_val2017.json --draw person,dog # annotations.png
    python read_coco.py FILE --draw all --image 139 --out dog.png                      # one picture, by its id

The course fetches each picture from its URL; here they are read from the folder beside the annotations (or --images DIR).
"""

from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

import annotations
import datasets
import draw
import evaluate
import utils
from utils import fail, say


def open_coco(path: Path) -> COCO:
    """pycocotools' index of an annotation file, without what cannot be used."""
    content = annotations.read(path)
    if words := content.left_out():
        print(f"{path}: {words}")
    return evaluate.coco_api(content.truth())


def form_of(segmentation: list | dict) -> str:
    """How the mask is written."""
    if isinstance(segmentation, dict):
        return "RLE, lengths" if isinstance(segmentation["counts"], list) else "RLE, packed"
    return "polygons" if segmentation else "no mask"


def describe(coco: COCO) -> None:
    """Prints pictures, objects, their forms and crowds, then for each category its counts and areas."""
    rows, images = list(coco.anns.values()), list(coco.imgs.values())
    busy = {row["image_id"] for row in rows}
    forms = [form_of(row.get("segmentation") or []) for row in rows]
    say(f"{len(images):,} pictures, {len(images) - len(busy & set(coco.imgs)):,} of them without any object")
    counts = ", ".join(f"{forms.count(form):,} {form}" for form in sorted(set(forms)))
    say(f"{len(rows):,} objects: {counts}")
    print(f"{'id':>4} {'category':<18}{'objects':>9}{'crowds':>8}{'pictures':>10}{'median area':>13}{'small':>8}")
    for category in coco.loadCats(sorted(coco.getCatIds())):
        ours = coco.loadAnns(coco.getAnnIds(catIds=[category["id"]]))
        areas = [row["area"] for row in ours if not row["iscrowd"]]
        middle = f"{np.median(areas):,.0f}" if areas else "-"
        small = f"{np.mean(np.array(areas) < 32**2):.0%}" if areas else "-"  # COCO's limit of a small object
        counts = f"{len(ours):>9,}{sum(row['iscrowd'] for row in ours):>8,}{len({r['image_id'] for r in ours}):>10,}"
        print(f"{category['id']:>4} {category['name']:<18}{counts}{middle:>13}{small:>8}")


def choose(coco: COCO, names: list[str], image_id: int | None, count: int) -> list[int]:
    """-> ids of the pictures to draw: that one, or the first that have an object of all the named categories."""
    if image_id is not None:
        if image_id not in coco.imgs:
            fail(f"--image {image_id}: the file lists no picture of that id")
        return [image_id]
    unknown = [name for name in names if not coco.getCatIds(catNms=[name])]
    if unknown:
        known = ", ".join(category["name"] for category in coco.loadCats(coco.getCatIds()))
        fail(f"--draw: no category {', '.join(unknown)}; there are: {known}")
    # getImgIds of several categories asks for pictures that have all of them
    found = sorted(coco.getImgIds(catIds=coco.getCatIds(catNms=names))) if names else sorted(coco.imgToAnns)
    if not found:
        fail(f"no picture has all of {', '.join(names)}")
    return found[:count]


def draw_images(coco: COCO, ids: list[int], names: list[str], folder: Path, out: Path) -> None:
    """Draws the pictures with their objects of the chosen categories on one sheet."""
    categories = coco.loadCats(sorted(coco.getCatIds()))
    chosen, pictures = coco.getCatIds(catNms=names) if names else [], []
    for image in coco.loadImgs(ids):
        try:
            picture = datasets.read_scene(datasets.Split(folder, [], {}), image)
        except OSError as error:
            fail(f"{folder / image['file_name']}: cannot be read ({error})")
        rows = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]], catIds=chosen, iscrowd=None))
        title = f"{image['file_name']}: {len(rows)} objects"
        print(title)
        pictures.append(draw.annotate(picture, rows, categories, title))
    draw.save(draw.sheet(pictures, columns=4) if len(pictures) > 1 else pictures[0], out)
    say(f"wrote {out}")


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("file", help="annotations, in COCO's format")
    parser.add_argument("--draw", metavar="NAMES", help="draw pictures with these categories: person,dog, or all")
    parser.add_argument("--image", type=int, metavar="ID", help="draw this picture")
    parser.add_argument(
        "--images", metavar="DIR", help="where the pictures are (default: found beside the annotations)"
    )
    parser.add_argument("--count", type=int, default=8, help="pictures to draw (default: %(default)s)")
    parser.add_argument("--out", default="annotations.png", metavar="FILE", help="default: %(default)s")
    args = parser.parse_args(argv)
    path = Path(args.file)
    coco = open_coco(path)
    if not args.draw and args.image is None:
        describe(coco)
        return
    names = [] if args.draw in (None, "all") else [name.strip() for name in args.draw.split(",")]
    folder = Path(args.images) if args.images else datasets.find_pictures(path, list(coco.imgs.values()))
    draw_images(coco, choose(coco, names, args.image, args.count), names, folder, Path(args.out))


if __name__ == "__main__":
    utils.start(main)
