"""Draws the built-in sample: small pictures of ten traffic signs, from a seed. No download, no binary in git.

    python sample.py              # writes sample.png, eight pictures of each sign

Each sign is drawn flat, then seen from an angle, in some light, before clutter, a little out of focus and sometimes behind a
branch; 32 x 32 RGB. A score on these drawings says that the code works, and nothing about signs on a road.
"""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CLASSES = (
    "stop", "yield", "no_entry", "speed_30", "speed_60", "priority", "crossing", "turn_left", "turn_right", "roundabout"
)  # fmt: skip
SIZE = 32  # pixels of a side
FLAT, SCENE = 128, 64  # sides of the flat sign, and of the scene before it is scaled down: smooth edges
WHITE, BLACK, RED, BLUE, YELLOW = (245, 245, 245), (20, 20, 20), (190, 25, 35), (20, 80, 170), (250, 195, 20)


def ring(corners: int, radius: float, degrees: float = 0.0) -> list[tuple[float, float]]:
    """The corners of a regular polygon around the middle of the flat sign."""
    turns = math.radians(degrees) + 2 * math.pi * np.arange(corners) / corners
    return [(FLAT / 2 + radius * math.cos(t), FLAT / 2 + radius * math.sin(t)) for t in turns]


def stop(pen):
    pen.polygon(ring(8, 62, 22.5), WHITE)
    pen.polygon(ring(8, 56, 22.5), RED)
    pen.text((64, 64), "STOP", WHITE, ImageFont.load_default(40), anchor="mm")


def give_way(pen):
    pen.polygon(ring(3, 66, 90), RED)
    pen.polygon(ring(3, 38, 90), WHITE)


def no_entry(pen):
    pen.polygon(ring(40, 60), RED)
    pen.rectangle([22, 52, 106, 76], WHITE)


def speed(number):
    def draw_it(pen):
        pen.polygon(ring(40, 60), RED)
        pen.polygon(ring(40, 46), WHITE)
        pen.text((64, 64), number, BLACK, ImageFont.load_default(62), anchor="mm")

    return draw_it


def priority(pen):
    pen.polygon(ring(4, 63), WHITE)
    pen.polygon(ring(4, 44), YELLOW)


def crossing(pen):
    pen.polygon(ring(4, 78, 45), BLUE)
    pen.polygon([(64, 18), (112, 106), (16, 106)], WHITE)
    for x in (40, 56, 72, 88):
        pen.polygon([(x, 100), (x + 7, 100), (60 + (x - 60) * 0.7, 82), (54 + (x - 54) * 0.7, 82)], BLACK)
    pen.ellipse([58, 36, 70, 48], BLACK)
    pen.line([(64, 46), (62, 64), (54, 80)], BLACK, 7)
    pen.line([(62, 64), (72, 80)], BLACK, 7)


def turn(way):
    def draw_it(pen):
        pen.polygon(ring(40, 60), BLUE)
        mirrored = [(64 + way * x, y) for x, y in ((-30, 64), (0, 34), (0, 54), (34, 54), (34, 74), (0, 74), (0, 94))]
        pen.polygon(mirrored, WHITE)

    return draw_it


def roundabout(pen):
    pen.polygon(ring(40, 60), BLUE)
    for start in (0, 120, 240):
        pen.arc([30, 30, 98, 98], start + 15, start + 90, WHITE, 12)
        (x, y), angle = ring(1, 28, start + 92)[0], start + 182
        pen.regular_polygon((x, y, 15), 3, angle + 90, WHITE)


SIGNS = (stop, give_way, no_entry, speed("30"), speed("60"), priority, crossing, turn(1), turn(-1), roundabout)


def flat_sign(label: int) -> Image.Image:
    """The sign as the rule book shows it, on nothing (RGBA)."""
    colours, shape = Image.new("RGB", (FLAT, FLAT)), Image.new("RGB", (FLAT, FLAT))
    SIGNS[label](ImageDraw.Draw(colours))
    SIGNS[label](ImageDraw.Draw(shape))
    covered = np.asarray(shape).any(2)  # none of the colours is pure black
    return Image.fromarray(np.dstack([np.asarray(colours), (255 * covered).astype(np.uint8)]))


def view(rng: np.random.Generator) -> list[float]:
    """The eight numbers of Pillow's perspective transform that puts the sign's corners at random places of the scene."""
    side, tilt = rng.uniform(0.55, 0.95) * SCENE, math.radians(rng.uniform(-14, 14))
    middle = SCENE / 2 + rng.uniform(-0.12, 0.12, 2) * SCENE
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    turned = square @ np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    seen = turned * side * (1, rng.uniform(0.85, 1.15)) + middle + rng.normal(0, 0.04 * side, (4, 2))
    rows, targets = [], []
    for (x, y), (u, v) in zip(seen, (square + 0.5) * FLAT, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        targets += [u, v]
    return np.linalg.solve(rows, targets).tolist()


def colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(rng.integers(20, 236, 3).tolist())


def scene(rng: np.random.Generator) -> Image.Image:
    """What is behind a sign: two layers of blotches, and up to four things."""
    coarse, fine = (Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)) for n in (2, 9))
    layers = (layer.resize((SCENE, SCENE), Image.BICUBIC) for layer in (coarse, fine))
    picture = Image.blend(*layers, rng.uniform(0, 0.7))
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 5)):
        x, y, w, h = (rng.uniform((-0.1, -0.1, 0.05, 0.05), (1, 1, 0.4, 0.4)) * SCENE).tolist()
        shape = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        shape([x, y, x + w, y + h], colour(rng))
    return picture


def draw(flat: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """-> (32, 32, 3) uint8 RGB, the flat sign somewhere in the world."""
    picture = scene(rng)
    sign = flat.transform((SCENE, SCENE), Image.PERSPECTIVE, view(rng), Image.BILINEAR)
    picture.paste(sign, (0, 0), sign)
    if rng.random() < 0.3:  # a branch in front of it
        ends = (rng.uniform(-0.1, 1.1, (2, 2)) * SCENE).tolist()
        ImageDraw.Draw(picture).line([tuple(end) for end in ends], colour(rng), int(rng.integers(3, 11)))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2.3)))
    small = np.asarray(picture.reduce(SCENE // SIZE), float)
    light, haze, noise = rng.uniform(0.35, 1.2, 3), rng.uniform(0, 0.5), rng.uniform(2, 16)
    seen = small * light.mean() * (0.85 + 0.15 * light / light.mean()) * (1 - haze) + 180 * haze
    return (seen + rng.normal(0, noise, small.shape)).clip(0, 255).astype(np.uint8)


def make(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """-> pictures (count, 32, 32, 3) uint8 RGB and labels (count,) int64, the signs in turn. The same for the same seed."""
    rng = np.random.default_rng(seed)
    flat = [flat_sign(label) for label in range(len(CLASSES))]
    labels = np.arange(count) % len(CLASSES)
    return np.stack([draw(flat[label], rng) for label in labels]), labels


if __name__ == "__main__":
    pictures, _ = make(8 * len(CLASSES))
    rows = [np.concatenate(list(pictures[label :: len(CLASSES)]), axis=1) for label in range(len(CLASSES))]
    Image.fromarray(np.concatenate(rows)).resize((8 * 64, 64 * len(CLASSES)), Image.NEAREST).save("sample.png")
    print("sample.png:", ", ".join(CLASSES), "from the top")
