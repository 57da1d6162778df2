"""Draws the built-in sample from a seed: scenes of overlapping shapes, in COCO's format. No download, no binary in git.

    python sample.py data/sample      # train/, val/, test/ and annotations/instances_*.json
    python read_coco.py data/sample/annotations/instances_val.json

Five kinds of thing, turned, scaled and coloured at random, hide parts of each other; what is annotated is what one sees.
Most objects have polygons; rings have a hole and so an RLE. Of every 25 scenes one is empty, and one has a crowd:
a swarm of small discs under one mask with iscrowd = 1. A score on it says that the code works, and nothing about COCO.
"""

import colorsys
import hashlib
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image

import masks
from utils import fail

CATEGORIES = ("disc", "square", "triangle", "star", "ring")
SIZES = {"train": 600, "val": 60, "test": 200}
SIDE = 128  # pixels
MOST_HIDDEN = 0.6  # no object has more than this share of it hidden


def shape(kind: str, x: ndarray, y: ndarray) -> ndarray:
    """Which points (x, y), in units of the thing's radius, lie inside it."""
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    if kind == "disc":
        return distance < 1
    if kind == "ring":
        return (distance < 1) & (distance > 0.5)
    if kind == "square":
        return np.maximum(abs(x), abs(y)) < 0.8
    if kind == "triangle":
        return np.max([x * math.cos(t) + y * math.sin(t) for t in (0, 2 * math.pi / 3, 4 * math.pi / 3)], 0) < 0.5
    fifth = 2 * math.pi / 5  # a star: five mirrored halves, each ending in a straight line from the tip to the notch
    folded = abs((angle + fifth / 2) % fifth - fifth / 2)
    return distance * (np.cos(folded) + 1.6 * np.sin(folded)) < 1


def colour(rng: np.random.Generator, low: float = 0.35) -> ndarray:
    """A random colour, (3,) floats, 0 to 255."""
    return 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(low, 1)))


def background(rng: np.random.Generator) -> ndarray:
    """(SIDE, SIDE, 3) floats: two dark colours that run into each other, and stripes that are no objects."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, SIDE),) * 2)
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    ramp = (0.5 + 0.35 * along)[..., None]
    stripes = np.sin(along * rng.uniform(5, 40))[..., None] * rng.uniform(0, 18)
    return (ramp * colour(rng, 0.1) + (1 - ramp) * colour(rng, 0.1)) * 0.6 + stripes


def place(rng: np.random.Generator, kind: str, radius: float, centre: ndarray) -> ndarray:
    """-> (SIDE, SIDE) bool: where a thing of that kind and size lies, turned at random."""
    x, y = np.meshgrid(*(np.arange(SIDE) + 0.5,) * 2)
    x, y, turn = (x - centre[0]) / radius, (y - centre[1]) / radius, rng.uniform(0, 2 * math.pi)
    return shape(kind, x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn))


def things(rng: np.random.Generator) -> list[tuple[str, ndarray, ndarray]]:
    """-> (kind, visible pixels, colour) of one to six things, from the back to the front."""
    scene: list[tuple[str, ndarray, ndarray]] = []
    whole: list[int] = []  # pixels of each thing before anything hid it
    for _ in range(rng.integers(1, 7)):
        kind, radius = str(rng.choice(CATEGORIES)), rng.uniform(10, 26)
        mask = place(rng, kind, radius, rng.uniform(0.5 * radius, SIDE - 0.5 * radius, 2))
        left = [seen & ~mask for _, seen, _ in scene]
        if all(seen.sum() > (1 - MOST_HIDDEN) * area for seen, area in zip(left, whole, strict=True)):
            scene = [(k, seen, c) for (k, _, c), seen in zip(scene, left, strict=True)] + [(kind, mask, colour(rng))]
            whole.append(int(mask.sum()))
    return scene


def swarm(rng: np.random.Generator) -> ndarray:
    """-> (SIDE, SIDE) bool: a crowd of small discs."""
    centre = rng.uniform(35, SIDE - 35, 2)
    return np.any([place(rng, "disc", 4, centre + rng.normal(0, 12, 2)) for _ in range(25)], axis=0)


def draw(number: int, rng: np.random.Generator) -> tuple[ndarray, list[dict]]:
    """-> scene `number`: the picture (SIDE, SIDE, 3) uint8, and its annotations (without ids)."""
    picture, objects = background(rng), []
    scene = [] if number % 25 == 0 else things(rng)
    if number % 25 == 1:
        crowd = swarm(rng) & ~np.any([seen for _, seen, _ in scene], axis=0)
        picture[crowd] = colour(rng)
        rle = {"size": [SIDE, SIDE], "counts": masks.run_lengths(crowd)}  # as COCO writes its crowds
        objects.append(annotation("disc", crowd, rle, iscrowd=1))
    for kind, seen, paint in scene:
        shade = 1 + 0.25 * np.linspace(-1, 1, SIDE)[:, None, None] * rng.choice((-1, 1))
        picture[seen] = (paint * shade * np.ones((SIDE, SIDE, 1)))[seen]
        objects.append(annotation(kind, seen, masks.to_rle(seen) if kind == "ring" else masks.to_polygons(seen)))
    return (picture + rng.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8), objects


def annotation(kind: str, mask: ndarray, segmentation: list | dict, iscrowd: int = 0) -> dict:
    row = {"category_id": CATEGORIES.index(kind) + 1, "bbox": masks.box_of(mask), "area": int(mask.sum())}
    return row | {"iscrowd": iscrowd, "segmentation": segmentation}


def version() -> str:
    """A name for what this file draws: it changes when the file does, and the sample is drawn anew."""
    code = Path(__file__).read_bytes() + Path(masks.__file__).read_bytes()
    return hashlib.sha256(code).hexdigest()[:12]


def write(folder: str | Path, sizes: dict[str, int] = SIZES) -> None:
    """Draws the sample into `folder`, which appears when it is complete and replaces an older one."""
    folder = Path(folder)
    if folder.exists() and not (folder / "annotations" / "instances_test.json").is_file():
        fail(f"{folder}: there already, and not a sample; move it away, or name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    (beside / "annotations").mkdir()
    for seed, (part, count) in enumerate(sizes.items()):
        rng, images, annotations = np.random.default_rng(seed), [], []
        (beside / part).mkdir()
        for number in range(count):
            picture, objects = draw(number, rng)
            name = f"{number:06d}.png"
            Image.fromarray(picture).save(beside / part / name, compress_level=1)  # noise does not compress
            images.append({"id": number + 1, "file_name": name, "width": SIDE, "height": SIDE})
            for row in objects:
                annotations.append({"id": len(annotations) + 1, "image_id": number + 1} | row)
        categories = [{"id": i + 1, "name": name, "supercategory": "shape"} for i, name in enumerate(CATEGORIES)]
        content = {"info": {"version": version(), "sizes": sizes}, "images": images, "annotations": annotations}
        text = json.dumps(content | {"categories": categories})
        (beside / "annotations" / f"instances_{part}.json").write_text(text, "utf-8")
    beside.chmod(0o755)
    if folder.exists():
        shutil.rmtree(folder)
    beside.replace(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        fail("usage: python sample.py FOLDER")
    write(sys.argv[1])
    print(f"{sys.argv[1]}: " + ", ".join(f"{count} {part}" for part, count in SIZES.items()) + " scenes")
