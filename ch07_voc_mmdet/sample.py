"""Draws the built-in sample: scenes of five kinds of things, with the boxes and flags of Pascal VOC. Nothing to download.

    python sample.py              # writes sample.png, twelve scenes with their boxes

A scene is 160 x 128 pixels and holds up to six things before a background of hills and blotches. They differ in place, size,
tilt and colour, they stand in front of one another, and the edge cuts some off. The boxes are those of the visible part, as
in VOC; `truncated` says that the whole thing is larger than its box, `occluded` that something covers it, `difficult` that
too little of it is left to be fair. Every twelfth scene is empty. They are cartoons: a score on them says that the code
works, and nothing about photographs.
"""

import colorsys
import math

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("balloon", "boat", "car", "house", "tree")
WIDTH, HEIGHT = 160, 128
SCALE = 2  # drawn twice as large and averaged down: smooth edges
MARGIN = 40  # pixels around the scene, drawn and then cut off: so a thing's whole extent is known
EMPTY_EVERY = 12


class Pen:
    """Draws one thing, and its mask, in the thing's own coordinates: x and y from -1 to 1, y up."""

    def __init__(self, canvas: Image.Image, rng: np.random.Generator):
        self.mask = Image.new("1", canvas.size)
        self.draws = ImageDraw.Draw(canvas), ImageDraw.Draw(self.mask)
        angle, size = math.radians(rng.uniform(-12, 12)), rng.uniform(0.08, 0.24) * HEIGHT * SCALE
        cos, sin, mirror = math.cos(angle), math.sin(angle), rng.choice((-1, 1))
        self.matrix = size * np.array([[mirror * cos, sin], [mirror * sin, -cos]])
        self.centre = SCALE * (MARGIN + np.array([rng.uniform(0, WIDTH), rng.uniform(0.15, 1) * HEIGHT]))

    def polygon(self, colour, *points):
        corners = [tuple(p) for p in np.asarray(points, float) @ self.matrix.T + self.centre]
        for draw, fill in zip(self.draws, (colour, 1), strict=True):
            draw.polygon(corners, fill=fill)

    def oval(self, colour, x, y, rx, ry):
        turns = np.linspace(0, 2 * math.pi, 24, endpoint=False)
        self.polygon(colour, *zip(x + rx * np.cos(turns), y + ry * np.sin(turns), strict=True))

    def box(self, colour, left, bottom, right, top):
        self.polygon(colour, (left, bottom), (right, bottom), (right, top), (left, top))


def balloon(pen, body, dark):
    pen.oval(body, 0, 0.3, 0.62, 0.7)
    pen.oval(dark, 0, 0.3, 0.25, 0.7)
    pen.polygon(body, (-0.3, -0.3), (0.3, -0.3), (0.14, -0.7), (-0.14, -0.7))
    pen.box(dark, -0.2, -1, 0.2, -0.7)


def boat(pen, body, dark):
    pen.polygon(dark, (-1, -0.35), (1, -0.35), (0.65, -0.8), (-0.65, -0.8))
    pen.box(dark, -0.05, -0.35, 0.05, 0.95)
    pen.polygon(body, (0.1, -0.25), (0.1, 0.9), (0.85, -0.25))
    pen.polygon(body, (-0.1, -0.25), (-0.1, 0.6), (-0.6, -0.25))


def car(pen, body, dark):
    pen.box(body, -1, -0.4, 1, 0.02)
    pen.polygon(body, (-0.65, 0), (-0.4, 0.42), (0.35, 0.42), (0.65, 0))
    pen.polygon((215, 230, 240), (-0.45, 0.04), (-0.3, 0.32), (0.25, 0.32), (0.45, 0.04))
    for x in (-0.55, 0.55):
        pen.oval((25, 25, 28), x, -0.4, 0.24, 0.24)
        pen.oval((150, 150, 150), x, -0.4, 0.1, 0.1)


def house(pen, body, dark):
    pen.box(body, -0.75, -0.8, 0.75, 0.2)
    pen.polygon(dark, (-0.95, 0.2), (0.95, 0.2), (0, 0.9))
    pen.box(dark, -0.15, -0.8, 0.15, -0.25)
    for x in (-0.5, 0.5):
        pen.box((240, 235, 170), x - 0.14, -0.4, x + 0.14, -0.1)


def tree(pen, body, dark):
    pen.box(dark, -0.12, -1, 0.12, 0)
    for x, y, radius in ((-0.35, 0.1, 0.42), (0.35, 0.1, 0.42), (0, 0.5, 0.48)):
        pen.oval(body, x, y, radius, radius)


THINGS = {"balloon": balloon, "boat": boat, "car": car, "house": house, "tree": tree}


def colour(rng, value=(0.3, 1.0), saturation=(0.25, 0.95)) -> np.ndarray:
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array([int(255 * c) for c in rgb])


def background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Sky that runs into another colour, a hill or two, blotches and clutter."""
    ramp = np.linspace(0, 1, height)[:, None, None]
    sky = ramp * colour(rng, saturation=(0, 0.5)) + (1 - ramp) * colour(rng, saturation=(0, 0.5))
    blotches = Image.fromarray(rng.normal(128, 40, (7, 9)).clip(0, 255).astype(np.uint8)).resize((width, height))
    sky = np.broadcast_to(sky, (height, width, 3)) + 0.4 * (np.asarray(blotches, float)[..., None] - 128)
    picture = Image.fromarray(sky.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 3)):
        x, y, radius = rng.uniform(0, width), rng.uniform(0.5, 1.2) * height, rng.uniform(0.3, 0.8) * width
        hill = (x - radius, y, x + radius, y + 2 * radius)
        draw.ellipse(hill, fill=tuple(colour(rng, (0.3, 0.8), (0, 0.6)).tolist()))
    for _ in range(rng.integers(0, 5)):  # things of no class
        x, y, w, h = rng.uniform(0, width), rng.uniform(0, height), *rng.uniform(0.01, 0.08, 2) * width
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + w, y + h), fill=tuple(colour(rng).tolist()))
    return picture


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """-> left, top, right, bottom of the True pixels, the right and bottom ones exclusive."""
    columns, rows = mask.any(0).nonzero()[0], mask.any(1).nonzero()[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def label(name: str, whole: np.ndarray, visible: np.ndarray) -> dict | None:
    """What VOC would say of a thing, from the mask of all of it and of what is seen; None if next to nothing is."""
    inner = slice(SCALE * MARGIN, -SCALE * MARGIN)
    share = visible[inner, inner].sum() / whole.sum()
    if share < 0.12:
        return None
    box = [side / SCALE for side in extent(visible[inner, inner])]
    box = [math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])]
    size, full = (box[2] - box[0], box[3] - box[1]), extent(whole)
    if min(size) < 5:
        return None
    cut = size[0] < 0.9 * (full[2] - full[0]) / SCALE or size[1] < 0.9 * (full[3] - full[1]) / SCALE
    covered = visible.sum() < 0.95 * whole.sum()
    hard = share < 0.4 or min(size) < 9
    return {"name": name, "box": tuple(box), "truncated": cut, "occluded": bool(covered), "difficult": bool(hard)}


def draw_scene(rng: np.random.Generator, empty: bool = False) -> tuple[Image.Image, list[dict]]:
    """-> the picture, and of each thing in it: name, box (left, top, right, bottom in pixels from 0), and the three flags."""
    edge = SCALE * MARGIN
    canvas = Image.new("RGB", (SCALE * WIDTH + 2 * edge, SCALE * HEIGHT + 2 * edge))
    canvas.paste(background(rng, SCALE * WIDTH, SCALE * HEIGHT), (edge, edge))
    things = []
    for _ in range(0 if empty else rng.integers(1, 7)):
        name = str(rng.choice(CLASSES))
        pen, body = Pen(canvas, rng), colour(rng)
        THINGS[name](pen, tuple(body.tolist()), tuple((body * 6 // 10).tolist()))
        things.append((name, np.asarray(pen.mask)))
    labels, covered = [], np.zeros((canvas.height, canvas.width), bool)
    for name, mask in reversed(things):  # the last one drawn is in front of all
        labels.insert(0, label(name, mask, mask & ~covered))
        covered |= mask
    picture = canvas.crop((edge, edge, canvas.width - edge, canvas.height - edge)).resize((WIDTH, HEIGHT), Image.BOX)
    pixels = np.asarray(picture, float) * rng.uniform(0.7, 1.2) + rng.normal(0, rng.uniform(2, 8), (HEIGHT, WIDTH, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), [found for found in labels if found]


def make(count: int, seed: int = 0) -> list[tuple[Image.Image, list[dict]]]:
    """-> `count` scenes. The same for the same seed."""
    rng = np.random.default_rng(seed)
    return [draw_scene(rng, empty=i % EMPTY_EVERY == EMPTY_EVERY - 1) for i in range(count)]


if __name__ == "__main__":
    sheet = Image.new("RGB", (4 * WIDTH, 3 * HEIGHT))
    for i, (picture, things) in enumerate(make(12)):
        for thing in things:
            left, top, right, bottom = thing["box"]
            shade = "gray" if thing["difficult"] else "yellow"
            ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=shade)
        sheet.paste(picture, (i % 4 * WIDTH, i // 4 * HEIGHT))
    sheet.resize((8 * WIDTH, 6 * HEIGHT)).save("sample.png")
    print("sample.png: twelve scenes; grey boxes are the difficult ones")
