"""Draws the built-in sample: apples and oranges, from a seed. No download, no binary in git.

    python sample.py              # writes sample.png: apples, oranges, and pairs of a label map and its picture

The fruits vary in shape, size, place, colour, light, shadow, leaves and background. No two apples and oranges belong
together, which is what CycleGAN is for; make_pairs() draws the pairs that pix2pix wants. They are drawings: a network that
turns these apples into oranges shows that the code works, and does not know what a photograph is.
"""

import colorsys
import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

KINDS = ("apple", "orange")
SCALE = 2  # drawn twice as large and averaged down: smooth edges
LABELS = {"wall": (200, 200, 210), "table": (120, 120, 130), "stem": (90, 60, 40), "leaf": (60, 160, 70)}
LABELS |= {"apple": (200, 30, 50), "orange": (250, 150, 20)}


def colour(rng, hue, saturation, value) -> np.ndarray:
    """A random RGB colour, 0 to 255, from three ranges; the hue in degrees."""
    parts = (rng.uniform(*hue) % 360 / 360, rng.uniform(*saturation), rng.uniform(*value))
    return 255 * np.array(colorsys.hsv_to_rgb(*parts))


def outline(kind: str, rng) -> np.ndarray:
    """-> (72, 2) points of the fruit's edge around (0, 0), y down: an orange is nearly round, an apple has two dents."""
    angle = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    x, y = np.cos(angle), np.sin(angle)
    if kind == "orange":
        return np.stack([x, y * rng.uniform(0.9, 1.0)], 1)

    def dent(centre, width):
        return np.exp(-((((angle - centre + math.pi) % (2 * math.pi) - math.pi) / width) ** 2))

    radius = 1 - rng.uniform(0.15, 0.3) * dent(1.5 * math.pi, 0.4) - rng.uniform(0.03, 0.12) * dent(0.5 * math.pi, 0.4)
    return np.stack([radius * x * (1 - rng.uniform(0.08, 0.18) * y), radius * y], 1)


def mask_of(side: int, points, width: int = 0) -> np.ndarray:
    """-> (side, side) bool: inside the polygon, or on the line of that width through the points."""
    image = Image.new("1", (side, side))
    pen, points = ImageDraw.Draw(image), [tuple(map(float, p)) for p in points]
    if width:
        pen.line(points, fill=1, width=width)
    else:
        pen.polygon(points, fill=1)
    return np.array(image)


def background(side: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """-> (side, side, 3) floats, a wall over a table in pale colours with blotches; and where the table is."""
    y, x = np.mgrid[0:side, 0:side] / side
    wall, table = colour(rng, (0, 360), (0, 0.4), (0.45, 1)), colour(rng, (0, 360), (0, 0.4), (0.3, 0.9))
    on_table = y + rng.uniform(-0.15, 0.15) * (x - 0.5) > rng.uniform(0.45, 0.8)
    picture = np.where(on_table[..., None], table, wall) * (0.85 + 0.3 * rng.uniform(-1, 1) * (x - 0.5))[..., None]
    blotches = Image.fromarray(rng.normal(128, 30, (5, 5)).clip(0, 255).astype(np.uint8))
    return picture + 0.5 * (np.asarray(blotches.resize((side, side), Image.BICUBIC), float) - 128)[..., None], on_table


def leaf_points(top, radius: float, rng) -> np.ndarray:
    """A pointed oval that starts at `top` and points up and to one side."""
    t = np.linspace(0, math.pi, 12)
    along = np.concatenate([1 - np.cos(t), 1 + np.cos(t)]) * rng.uniform(0.25, 0.4)
    across = np.concatenate([np.sin(t), -np.sin(t)]) * rng.uniform(0.12, 0.2)
    angle = rng.uniform(-0.9, 0.2) + (math.pi - 0.4 if rng.random() < 0.5 else 0)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.asarray(top) + radius * np.stack([along, across], 1) @ turn


def draw(kind: str, rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """-> a picture of one fruit and its label map, both (size, size, 3) uint8 RGB."""
    side = size * SCALE
    picture, on_table = background(side, rng)
    labels = np.where(on_table[..., None], LABELS["table"], LABELS["wall"])
    radius, centre = rng.uniform(0.25, 0.36) * side, rng.uniform(0.4, 0.6, 2) * side
    y, x = np.mgrid[0:side, 0:side]
    nx, ny = (x - centre[0]) / radius, (y - centre[1]) / radius  # the fruit's own coordinates

    sun = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.8, -0.3), 0.7])  # where the light comes from
    sun /= np.linalg.norm(sun)
    shadow = np.exp(-((nx + sun[0]) ** 2 + ((ny - 0.95) / 0.3) ** 2))
    picture *= 1 - 0.55 * shadow[..., None]

    body = mask_of(side, centre + radius * outline(kind, rng))
    skins = {"apple": ((343, 366), (0.75, 0.95), (0.6, 0.95)), "orange": ((23, 35), (0.8, 1), (0.85, 1))}
    skin = colour(rng, *skins[kind])
    bump = rng.normal(0, 0.06 if kind == "orange" else 0.015, (side, side))  # an orange's skin is rough
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.02, 1))
    facing = np.clip(nx * sun[0] + ny * sun[1] + nz * sun[2] + bump, 0, 1)
    gloss = 110 * facing ** (60 if kind == "apple" else 18) * (0.8 if kind == "apple" else 0.35)
    picture[body] = ((0.4 + 0.65 * facing)[..., None] * skin + gloss[..., None])[body]
    labels[body] = LABELS[kind]

    top = centre + radius * np.array([rng.uniform(-0.1, 0.1), -0.78 if kind == "apple" else -0.9])
    if kind == "apple":
        stem = mask_of(
            side, [top, top + radius * np.array([rng.uniform(-0.2, 0.2), -0.4])], max(2, round(0.09 * radius))
        )
        picture[stem], labels[stem] = colour(rng, (20, 35), (0.3, 0.5), (0.2, 0.4)), LABELS["stem"]
    if rng.random() < 0.6:
        leaf = mask_of(side, leaf_points(top, radius, rng))
        picture[leaf], labels[leaf] = colour(rng, (90, 130), (0.5, 0.8), (0.3, 0.65)), LABELS["leaf"]

    light, noise = rng.uniform(0.75, 1.1), rng.uniform(1, 5)
    pixels = picture.reshape(size, SCALE, size, SCALE, 3).mean((1, 3)) * light + rng.normal(0, noise, (size, size, 3))
    return pixels.clip(0, 255).astype(np.uint8), labels[::SCALE, ::SCALE].astype(np.uint8)


def to_tensor(pictures: list[np.ndarray]) -> Tensor:
    """A list of (S, S, 3) uint8 arrays -> (N, 3, S, S) uint8 tensor."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def make(kind: str, count: int, size: int = 64, seed: int = 0) -> Tensor:
    """-> (count, 3, size, size) uint8 pictures of apples or of oranges, the same for the same seed."""
    rng = np.random.default_rng((seed, KINDS.index(kind)))
    return to_tensor([draw(kind, rng, size)[0] for _ in range(count)])


def make_pairs(count: int, size: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """-> label maps and their pictures, apples and oranges in turn."""
    rng = np.random.default_rng((seed, len(KINDS)))
    pictures, labels = zip(*(draw(KINDS[i % 2], rng, size) for i in range(count)), strict=True)
    return to_tensor(labels), to_tensor(pictures)


def judge(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> (N,) what the colours say: 0 an apple, 1 an orange, 2 neither. It has learnt nothing.

    A hue of 15 to 45 degrees is orange, and the hues below are red. The one that is vivid in more pixels wins, if it fills
    8 % of the picture and is rarer by half along the border: a fruit lies in the middle, and a picture that an untrained
    network has tinted all over is no fruit.
    """
    red, green, blue = pictures.float().unbind(1)
    highest, lowest = pictures.float().amax(1), pictures.float().amin(1)
    vivid = (highest - lowest > 0.5 * highest) & (highest > 60) & (red == highest)
    hue = 60 * (green - blue) / (highest - lowest).clamp(min=1)  # in degrees, where red is the highest
    found = torch.stack([vivid & (low < hue) & (hue <= high) for low, high in ((-40, 15), (15, 45))]).float()
    margin = pictures.shape[-1] // 10
    inside = found[..., margin:-margin, margin:-margin]
    border = (found.sum((2, 3)) - inside.sum((2, 3))) / (found[0, 0].numel() - inside[0, 0].numel())
    share, kind = found.mean((2, 3)).max(0)
    return torch.where((share > 0.08) & (border.gather(0, kind[None])[0] < share / 2), kind, len(KINDS))


if __name__ == "__main__":
    labels, pictures = make_pairs(8)
    rows = torch.stack([make("apple", 8), make("orange", 8), labels, pictures])  # (4, 8, 3, 64, 64)
    sheet = rows.permute(0, 3, 1, 4, 2).reshape(4 * 64, 8 * 64, 3).numpy()
    Image.fromarray(sheet).resize((16 * 64, 8 * 64), Image.NEAREST).save("sample.png")
    print("sample.png: apples, oranges, label maps, and the pictures that belong to those")
