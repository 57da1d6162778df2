"""Draws the built-in sample: small pictures of CIFAR-10's ten classes, from a seed. No download, no binary in git.

    python sample.py              # writes sample.png, eight pictures of each class

The pictures are 32 x 32 RGB and vary in pose, size, colour, light, background and noise, and things stand in the way;
so a linear model on the pixels fails (see tests/test_train.py) and a small convolutional network learns them in a minute.
They are cartoons: a score on them says that the code works, and nothing about CIFAR-10.
"""

import colorsys
import math

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZE = 32  # pixels of a side
SCALE = 4  # drawn four times larger and averaged down: smooth edges


class Pen:
    """Draws in the thing's own coordinates: x and y from -1 to 1, y up, then turned, scaled, mirrored and moved."""

    def __init__(self, image: Image.Image, rng: np.random.Generator, max_tilt: float):
        self.draw = ImageDraw.Draw(image)
        angle, size = math.radians(rng.uniform(-max_tilt, max_tilt)), rng.uniform(0.34, 0.46) * image.width
        mirror = rng.choice((-1, 1))
        self.centre = rng.uniform(0.42, 0.58, 2) * image.width
        self.matrix = size * np.array(
            [[mirror * math.cos(angle), math.sin(angle)], [mirror * math.sin(angle), -math.cos(angle)]]
        )
        self.size = size

    def at(self, points) -> list[tuple[float, float]]:
        return [tuple(p) for p in np.asarray(points, float) @ self.matrix.T + self.centre]

    def polygon(self, colour, *points):
        self.draw.polygon(self.at(points), fill=colour)

    def line(self, colour, width, *points):
        self.draw.line(self.at(points), fill=colour, width=max(1, round(width * self.size)), joint="curve")

    def oval(self, colour, x, y, rx, ry):
        turns = np.linspace(0, 2 * math.pi, 24, endpoint=False)
        self.polygon(colour, *zip(x + rx * np.cos(turns), y + ry * np.sin(turns), strict=True))


def airplane(pen, rng, body, dark, light):
    pen.oval(body, 0, 0, 1.0, 0.15)
    pen.polygon(dark, (0.25, 0.0), (-0.35, 0.75), (-0.55, 0.75), (-0.15, 0.0))
    pen.polygon(dark, (0.25, 0.0), (-0.35, -0.75), (-0.55, -0.75), (-0.15, 0.0))
    pen.polygon(body, (-0.75, 0.0), (-1.0, 0.45), (-0.85, 0.45), (-0.5, 0.0))
    pen.oval(light, 0.72, 0.05, 0.12, 0.05)


def automobile(pen, rng, body, dark, light):
    roof = rng.uniform(0.3, 0.5)
    pen.polygon(body, (-1, -0.35), (1, -0.35), (1, 0.0), (0.6, 0.1), (-0.95, 0.1))
    pen.polygon(body, (-0.65, 0.1), (-0.4, roof), (0.25, roof), (0.55, 0.1))
    pen.polygon(light, (-0.5, 0.12), (-0.33, roof - 0.08), (-0.08, roof - 0.08), (-0.08, 0.12))
    pen.polygon(light, (0.0, 0.12), (0.0, roof - 0.08), (0.2, roof - 0.08), (0.42, 0.12))
    wheels(pen, -0.55, 0.55)


def truck(pen, rng, body, dark, light):
    pen.polygon(body, (-1, -0.35), (0.4, -0.35), (0.4, 0.6), (-1, 0.6))
    pen.polygon(dark, (0.45, -0.35), (1, -0.35), (1, 0.05), (0.8, 0.3), (0.45, 0.3))
    pen.polygon(light, (0.6, 0.02), (0.95, 0.02), (0.77, 0.22), (0.6, 0.22))
    wheels(pen, -0.7, -0.3, 0.7)


def wheels(pen, *centres):
    for x in centres:
        pen.oval((25, 25, 28), x, -0.38, 0.22, 0.22)
        pen.oval((150, 150, 150), x, -0.38, 0.09, 0.09)


def ship(pen, rng, body, dark, light):
    pen.polygon(body, (-1, 0.0), (1, 0.05), (0.7, -0.45), (-0.75, -0.45))
    pen.polygon(light, (-0.55, 0.0), (0.3, 0.0), (0.3, 0.35), (-0.55, 0.35))
    pen.polygon(dark, (-0.3, 0.35), (-0.05, 0.35), (-0.05, 0.75), (-0.3, 0.75))
    pen.line(dark, 0.05, (0.45, 0.0), (0.45, 0.85))


def bird(pen, rng, body, dark, light):
    up = rng.uniform(-0.2, 0.9)
    pen.oval(body, 0, 0, 0.6, 0.32)
    pen.oval(body, 0.6, 0.32, 0.24, 0.22)
    pen.polygon((235, 160, 40), (0.8, 0.4), (1.12, 0.28), (0.8, 0.22))
    pen.polygon(body, (-0.5, 0.1), (-1.05, 0.3), (-1.05, -0.1))
    pen.polygon(dark, (0.25, 0.1), (-0.3, up), (-0.6, up), (-0.3, 0.0))
    pen.line((200, 130, 40), 0.06, (0.05, -0.3), (0.05, -0.7))
    pen.oval((15, 15, 15), 0.66, 0.38, 0.06, 0.06)


def four_legs(pen, colour, height, width, x=0.55):
    for leg in (-x, -x + 0.25, x - 0.25, x):
        pen.line(colour, width, (leg, 0.0), (leg, -height))


def cat(pen, rng, body, dark, light):
    four_legs(pen, dark, 0.55, 0.12, 0.42)
    pen.oval(body, -0.1, -0.08, 0.6, 0.3)
    pen.line(body, 0.11, (-0.6, 0.0), (-0.95, 0.25), (-0.85, 0.75))
    pen.oval(body, 0.5, 0.3, 0.36, 0.33)
    pen.polygon(dark, (0.2, 0.45), (0.22, 0.88), (0.45, 0.6))
    pen.polygon(dark, (0.8, 0.45), (0.8, 0.88), (0.55, 0.6))
    for x in (0.38, 0.64):
        pen.oval((120, 200, 60), x, 0.34, 0.08, 0.09)


def dog(pen, rng, body, dark, light):
    four_legs(pen, body, 0.65, 0.16)
    pen.oval(body, -0.05, -0.05, 0.7, 0.27)
    pen.line(body, 0.12, (-0.65, 0.1), (-0.95, 0.4))
    pen.oval(body, 0.62, 0.32, 0.28, 0.26)
    pen.oval(body, 0.9, 0.22, 0.24, 0.13)
    pen.oval((20, 20, 20), 1.1, 0.26, 0.07, 0.07)
    pen.oval(dark, 0.42, 0.2, 0.12, 0.3)
    pen.oval((20, 20, 20), 0.7, 0.4, 0.05, 0.05)


def deer(pen, rng, body, dark, light):
    four_legs(pen, body, 0.85, 0.08, 0.45)
    pen.oval(body, -0.05, 0.0, 0.58, 0.24)
    pen.line(body, 0.16, (0.4, 0.05), (0.6, 0.5))
    pen.oval(body, 0.7, 0.52, 0.22, 0.12)
    for x in (0.5, 0.66):
        pen.line(dark, 0.06, (x, 0.6), (x - 0.1, 0.85), (x + 0.05, 1.1))
        pen.line(dark, 0.06, (x - 0.1, 0.85), (x - 0.3, 1.0))
    pen.oval(light, -0.62, 0.1, 0.1, 0.1)


def horse(pen, rng, body, dark, light):
    four_legs(pen, body, 0.85, 0.13, 0.5)
    pen.oval(body, -0.05, 0.02, 0.68, 0.3)
    pen.polygon(body, (0.3, 0.05), (0.6, 0.75), (0.85, 0.65), (0.62, 0.0))
    pen.oval(body, 0.86, 0.62, 0.28, 0.13)
    pen.line(dark, 0.14, (0.3, 0.25), (0.56, 0.8))
    pen.line(dark, 0.13, (-0.68, 0.1), (-0.92, -0.1), (-0.9, -0.55))


def frog(pen, rng, body, dark, light):
    pen.oval(dark, -0.55, -0.3, 0.42, 0.24)
    pen.oval(dark, 0.55, -0.3, 0.42, 0.24)
    pen.oval(body, 0, -0.05, 0.68, 0.45)
    for x in (-0.33, 0.33):
        pen.oval(body, x, 0.4, 0.2, 0.2)
        pen.oval((240, 240, 190), x, 0.43, 0.11, 0.11)
        pen.oval((10, 10, 10), x, 0.43, 0.05, 0.08)
    pen.line((30, 40, 20), 0.05, (-0.4, -0.05), (0, -0.2), (0.4, -0.05))


TILT = {airplane: 40, bird: 25, ship: 10, automobile: 12, truck: 10, cat: 12, dog: 12, deer: 10, horse: 10, frog: 18}
THINGS = (airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck)


def colour(rng, value=(0.25, 1.0), saturation=(0.1, 0.9)):
    """A random (r, g, b), 0 to 255."""
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)))


def background(rng, size):
    """(size, size, 3) floats: two colours that run into each other in any direction, a horizon, blotches, clutter."""
    angle, (x, y) = rng.uniform(0, 2 * math.pi), np.meshgrid(*(np.linspace(-1, 1, size),) * 2)
    ramp = (0.5 + 0.35 * (x * math.cos(angle) + y * math.sin(angle)))[..., None]
    picture = ramp * colour(rng, saturation=(0, 0.6)) + (1 - ramp) * colour(rng, saturation=(0, 0.6))
    if rng.random() < 0.6:
        picture[y > rng.uniform(-0.1, 0.7)] *= rng.uniform(0.5, 0.95)  # ground, or water
    blotches = Image.fromarray(rng.normal(128, 40, (6, 6)).clip(0, 255).astype(np.uint8)).resize(
        (size, size), Image.BICUBIC
    )
    picture = Image.fromarray(
        (picture + np.asarray(blotches, float)[..., None] * 0.6 - 77).clip(0, 255).astype(np.uint8)
    )
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 3)):
        x, y, w, h = rng.uniform(-0.1, 1, 2).tolist() + rng.uniform(0.03, 0.25, 2).tolist()
        shape = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        shape([c * size for c in (x, y, x + w, y + h)], fill=colour(rng))
    return picture


def draw(label: int, rng: np.random.Generator) -> np.ndarray:
    """-> (32, 32, 3) uint8 RGB, one picture of class `label`."""
    picture = background(rng, SIZE * SCALE)
    body = np.array(colour(rng))
    thing = THINGS[label]
    thing(Pen(picture, rng, TILT[thing]), rng, tuple(body), tuple(body * 6 // 10), tuple((body + 2 * 235) // 3))
    if rng.random() < 0.15:  # something in front of it
        x, w = rng.uniform(0, 0.9), rng.uniform(0.04, 0.12)
        ImageDraw.Draw(picture).rectangle(
            [x * picture.width, 0, (x + w) * picture.width, picture.height], fill=colour(rng)
        )
    small = np.asarray(picture.resize((SIZE, SIZE), Image.BOX), float)
    light, noise = rng.uniform(0.6, 1.25), rng.uniform(2, 9)
    return (small * light + rng.normal(0, noise, small.shape)).clip(0, 255).astype(np.uint8)


def make(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """-> pictures (count, 32, 32, 3) uint8 RGB and labels (count,) int64, the classes in turn. The same for the same seed."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    return np.stack([draw(label, rng) for label in labels]), labels


if __name__ == "__main__":
    pictures, _ = make(8 * len(CLASSES))
    rows = [np.concatenate(list(pictures[label :: len(CLASSES)]), axis=1) for label in range(len(CLASSES))]
    Image.fromarray(np.concatenate(rows)).resize((8 * 64, 64 * len(CLASSES)), Image.NEAREST).save("sample.png")
    print("sample.png:", ", ".join(CLASSES), "from the top")
