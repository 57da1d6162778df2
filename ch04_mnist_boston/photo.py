"""Reads a handwritten digit from a photo or a scan into MNIST's form: white on black, 20 pixels large, centred by mass.

    python photo.py photo.jpg               # writes photo-as-mnist.png: what the network is shown
    python test.py mnist photo.jpg          # which digit it is

Expect: one digit filling a good part of the picture, dark on light or light on dark, on any even or softly shaded paper.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from utils import fail

IMAGE_TYPES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
SMALLEST = 8  # pixels a side: scikit-learn's digits; fewer hold no digit
LARGEST = 400  # photos are shrunk to this side first: a digit needs no more


class NotADigit(OSError):
    """The file is a picture, but there is no digit on it to be read."""


def open_grey(path: Path) -> Image.Image:
    """-> the picture in grey, the way up it was taken, transparent parts white. OSError if it is no picture."""
    try:
        with Image.open(path) as picture:
            picture = ImageOps.exif_transpose(picture)  # cameras store which way is up beside the pixels
            if picture.mode.startswith("I;16"):  # 16-bit scans: Pillow would clip them, not scale them
                picture = Image.fromarray((np.array(picture) >> 8).astype(np.uint8))
            if "A" in picture.getbands() or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return picture.convert("L")
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:  # what Pillow raises for odd files
        raise OSError(error) from error


def read_grey(path: Path, image_size: int) -> Tensor:
    """-> (1, S, S) uint8: the shorter side scaled, the middle cut out."""
    return torch.from_numpy(np.array(ImageOps.fit(open_grey(path), (image_size, image_size), Image.BICUBIC)))[None]


def read_digit(path: Path, image_size: int = 28) -> Tensor:
    """-> (1, S, S) uint8 in MNIST's form (LeCun et al. 1998): the digit's longer side 20/28 of S, its centre of mass in the
    middle. OSError if the file is no picture, NotADigit if there is nothing to be read on it."""
    picture = open_grey(path)
    if min(picture.size) < SMALLEST:
        width, height = picture.size
        raise NotADigit(f"{width}x{height} pixels are too few; a digit takes {SMALLEST}x{SMALLEST} or more")
    picture.thumbnail((LARGEST, LARGEST), Image.BOX)
    ink = find_ink(np.asarray(picture, dtype=np.float64))
    rows, columns = (np.flatnonzero((ink > 0.3).any(axis)) for axis in (1, 0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return centre(Image.fromarray((255 * ink).round().astype(np.uint8)).crop(box), image_size)


def find_ink(grey: np.ndarray) -> np.ndarray:
    """(H, W) grey values -> (H, W) from 0, paper, to 1, ink, whichever of them is darker.

    The paper's shade is a plane (light comes from one side), fitted to the pixels, then again to those that look like paper.
    """
    height, width = grey.shape
    y, x = np.mgrid[0:height, 0:width]
    terms = np.stack([np.ones(grey.size), x.ravel() / width, y.ravel() / height], 1)
    border = np.zeros(grey.shape, dtype=bool)
    margin = max(1, min(height, width) // 16)
    border[:margin], border[-margin:], border[:, :margin], border[:, -margin:] = True, True, True, True
    paper = border.ravel()  # the digit is in the middle, so the rim is paper
    for _ in range(4):
        plane = (terms @ np.linalg.lstsq(terms[paper], grey.ravel()[paper], rcond=None)[0]).reshape(grey.shape)
        away = np.abs(grey - plane)
        threshold = otsu(away)
        paper = (away < threshold).ravel()
    contrast = plane - grey
    if contrast[away >= threshold].sum() < 0:  # light strokes on something dark
        contrast = -contrast
    contrast = np.clip(contrast, 0, None)
    strokes = contrast[contrast >= threshold]
    if threshold < 12 or strokes.size < 4 or strokes.size > 0.6 * grey.size:
        raise NotADigit("no digit found: the picture is blank, or has no strokes that stand out from the paper")
    noise = contrast[contrast < threshold].std() * 2  # the grain of the paper
    return np.clip((contrast - noise) / max(1.0, np.median(strokes) - noise), 0, 1)


def otsu(values: np.ndarray) -> float:
    """The threshold that parts values from 0 to 255 into the two most different classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 256, (0, 256))
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * edges[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return float(edges[np.nanargmax(np.where(np.isfinite(between), between, -1)) + 1])


def centre(digit: Image.Image, image_size: int) -> Tensor:
    """A digit cut out tightly -> (1, S, S) uint8: scaled to 20/28 of S, its centre of mass in the middle."""
    side = round(image_size * 20 / 28)
    scale = side / max(digit.size)
    digit = digit.resize([max(1, round(length * scale)) for length in digit.size], Image.LANCZOS)
    pixels = np.asarray(digit, dtype=np.float64)
    height, width = pixels.shape
    mass = max(pixels.sum(), 1.0)
    top = image_size / 2 - (pixels.sum(1) @ (np.arange(height) + 0.5)) / mass
    left = image_size / 2 - (pixels.sum(0) @ (np.arange(width) + 0.5)) / mass
    top, left = (int(np.clip(round(at), 0, image_size - length)) for at, length in ((top, height), (left, width)))
    result = np.zeros((1, image_size, image_size), dtype=np.uint8)
    result[0, top : top + height, left : left + width] = pixels
    return torch.from_numpy(result)


def main() -> None:
    if len(sys.argv) < 2:
        fail("name a picture: python photo.py photo.jpg")
    for path in map(Path, sys.argv[1:]):
        try:
            digit = read_digit(path)
        except OSError as error:
            fail(f"{path}: {error if isinstance(error, NotADigit) else 'not a picture that can be read'}")
        out = path.with_name(f"{path.stem}-as-mnist.png")
        Image.fromarray(digit[0].numpy()).save(out)
        print(f"wrote {out}")


if __name__ == "__main__":
    main()
