"""Reads handwritten digits from a photo or a scan into MNIST's form: white on black, 20 pixels large, centred by mass.

    python photo.py photo.jpg               # writes photo-as-mnist.png: what the network is shown
    python test.py mnist photo.jpg          # which digits they are

Expect: one digit, or several beside each other, darker or lighter than the paper. Shadows, the edge of a table, the grain
of a camera and pencil are no hindrance; squared paper is one. The steps:

1. find_ink: the paper's brightness at each pixel, and how much darker the pixel is.
2. find_marks: the connected parts that stand out.
3. group: which parts are a digit, from left to right.
4. normalize, centre: strokes of normal thickness, at MNIST's size and place.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy import ndimage
from torch import Tensor

from pictures import read_picture
from utils import fail, free_name, say, start

SMALLEST = 8  # pixels a side: scikit-learn's digits; fewer hold no digit
LARGEST = 600  # photos are shrunk to this side first: that is enough for a digit of 5 % of the side
WIDEST_STROKE = 0.3  # of the picture's height: what is wider is no stroke
FAINTEST = 0.06  # of the paper's brightness: fainter is no ink
DARKEST = 0.4  # of the paper's brightness: a wide part that is darker than this is a solid shape; a shadow is lighter
THICKEST = 0.65  # of a digit's longer side: a stroke that is thicker is a disc or a square; MNIST's stay below 0.6
STROKES = (2.2, 4.0)  # pixels: the usual thickness of MNIST's strokes in its box of 20 pixels
SURE = 0.95  # mean probability over `views`; below, an answer is unsure: 4 % of the right, 86 % of the wrong ones
MOST_DIGITS = 30  # more marks than this are no line of digits but a text or a photograph


class NotADigit(OSError):
    """The file is a picture, but there is no digit on it to be read."""


def read_grey(path: Path, image_size: int) -> Tensor:
    """-> (1, S, S) uint8: the shorter side scaled, the middle cut out."""
    return torch.from_numpy(np.array(ImageOps.fit(read_picture(path, "L"), (image_size, image_size), Image.BICUBIC)))[
        None
    ]


def read_digit(path: Path, image_size: int = 28) -> Tensor:
    """-> (1, S, S) uint8 in MNIST's form (LeCun et al. 1998): the digit's longer side 20/28 of S, its centre of mass in the
    middle. Of several digits, the one with the most ink. OSError and NotADigit as in `read_digits`."""
    return max(find_digits(path, image_size), key=lambda found: found[0])[1]


def read_digits(path: Path, image_size: int = 28) -> list[Tensor]:
    """-> each digit on the picture, (1, S, S) uint8 in MNIST's form, from left to right. OSError if the file is no picture,
    NotADigit if there is nothing to be read on it."""
    return [digit for _, digit in find_digits(path, image_size)]


def find_digits(path: Path, image_size: int) -> list[tuple[float, Tensor]]:
    """-> each digit's ink (a sum over its pixels) and its (1, S, S) uint8, from left to right."""
    picture = read_picture(path, "L")
    if min(picture.size) < SMALLEST:
        width, height = picture.size
        raise NotADigit(f"{width}x{height} pixels are too few; a digit takes {SMALLEST}x{SMALLEST} or more")
    picture.thumbnail((LARGEST, LARGEST), Image.BOX)
    grey = smooth(np.asarray(picture, dtype=np.float32))
    ink, parts = locate(255 - grey if is_light_on_dark(grey) else grey)
    digits = group(ndimage.find_objects(parts))
    if len(digits) > MOST_DIGITS:
        raise NotADigit(f"no digits found, but {len(digits)} marks: cut out the part with the digits")
    result = []
    for numbers in digits:
        own = np.where(np.isin(parts, numbers), ink, 0)
        if thickness(own) <= THICKEST:
            result.append((float(own.sum()), centre(normalize(own), image_size)))
    if not result:
        raise NotADigit("no digit found: only a filled shape")
    return result


def locate(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) grey values, dark on light -> ink and parts, both (H, W), as from `find_marks`.

    At first, what is dark along the border counts as a table. If that leaves no stroke, or strokes that touch the border, the
    picture may be cut out tightly. If it left none, it must be a digit from border to border, and no strip along one side:
    else it is an empty page with a shadow or a table.
    """
    ink, parts = find_marks(*find_ink(grey, "edge"))
    is_empty = not parts.any()
    top, bottom, left, right = borders(parts)
    if is_empty or any(border.any() for border in (top, bottom, left, right)):
        ink, parts = find_marks(*find_ink(grey, "constant"), is_tight=True)
        top, bottom, left, right = borders(parts)
    reaches = np.intersect1d(top, bottom).any() or np.intersect1d(left, right).any()
    is_strip = any((border > 0).mean() > 0.9 for border in (top, bottom, left, right))
    if not parts.any() or (is_empty and (is_strip or not reaches)):
        raise NotADigit("no digit found: the picture is blank, or has no strokes that stand out from the paper")
    return ink, parts


def borders(values: np.ndarray) -> tuple:
    return values[0], values[-1], values[:, 0], values[:, -1]


# ---- 1. ink and paper ---------------------------------------------------------------------------------------------------


def smooth(grey: np.ndarray) -> np.ndarray:
    """(H, W) -> (H, W): blurred as much as the grain asks for, but no more than a stroke bears; and always a little, since fine
    lines on a picture that was shrunk are brighter here and there.

    The grain is measured where neither edges nor shading count: on the second differences along both axes (Immerkaer 1996).
    A Gaussian of s pixels divides it by 2 * sqrt(pi) * s; about 3 grey levels may be left.
    """
    second = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    grain = np.median(np.abs(ndimage.convolve(grey, second))) / 0.6745 / 6  # of a deviation; of the mask
    longer = max(grey.shape)
    return ndimage.gaussian_filter(grey, np.clip(grain / 10, longer / 800, max(0.6, longer / 150)))


def is_light_on_dark(grey: np.ndarray) -> bool:
    """Chalk on a board? Closing (Serra 1982) removes dark strokes, opening removes light ones; a shadow or a table withstands
    both. Whichever leaves the flatter picture has removed the digit. Several sizes are tried, since the largest closes gaps
    between strokes as well."""
    small = grey[tuple(slice(None, None, max(1, length // 200)) for length in grey.shape)]
    closed = opened = 0.0
    for share in (0.2, 0.4, 0.7, 1):
        size = max(2, round(share * WIDEST_STROKE * len(small)))
        closed += variation(close(small, size, "edge"))
        opened += variation(close(-small, size, "edge"))
    return bool(opened < closed)


def variation(values: np.ndarray) -> float:
    return float(sum(np.abs(np.diff(values, axis=axis)).sum() for axis in (0, 1)))


def close(values: np.ndarray, size: int, beyond: str) -> np.ndarray:
    """(H, W) -> (H, W): dark parts narrower than `size` take the brightness around them; wider ones stay as they are, edges
    included. Beyond the border the picture goes on as at the border ("edge"), or is light ("constant")."""
    options = {"constant_values": values.max()} if beyond == "constant" else {}
    padded = np.pad(values, size, beyond, **options)
    return ndimage.grey_closing(padded, (size, size))[size:-size, size:-size]


def find_ink(grey: np.ndarray, beyond: str) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) grey values, dark on light -> ink, (H, W) from 0, paper, to 1, black; and solid, (H, W) bool: the inner part of a
    dark shape that is wider than a stroke, such as a disc.

    The paper is the picture with the strokes closed. Ink reflects a share of the light that falls on it, in a shadow too:
    so ink is measured as a share of the paper's brightness there.
    """
    paper = close(grey, round(WIDEST_STROKE * len(grey)), beyond)
    ink = paper - grey
    offset = np.percentile(ink, 50 if beyond == "edge" else 20)  # closing follows the lightest grains: bring paper to 0
    bright = np.percentile(paper, 95)
    shapes, _ = ndimage.label(paper < DARKEST * bright)
    solid = (shapes > 0) & ~np.isin(shapes, np.concatenate(borders(shapes)))  # at the border it is a table
    least = 0.45 * bright  # on a dark table, too, or its grain would be ink
    return (ink - offset) / np.maximum(paper - offset, least), solid


# ---- 2. marks -----------------------------------------------------------------------------------------------------------


def find_marks(ink: np.ndarray, solid: np.ndarray, is_tight: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) ink and solid -> (H, W) from 0 to 1, a stroke; and (H, W) the number of the connected part that a pixel belongs
    to, 0 for paper. Parts that are no strokes have been left out."""
    share, deviations = (20, 0.2533) if is_tight else (50, 0.6745)  # the lightest pixels: they are paper
    grain = np.percentile(np.abs(ink), share) / deviations
    likely = max(FAINTEST, 3 * grain)
    if (ink > likely).sum() < 4:
        return ink, np.zeros(ink.shape, dtype=int)
    level = np.median(ink[ink >= otsu(ink[ink > likely])])  # of a stroke; remains of a shadow's edge are fainter
    if level < 4.5 * grain:  # no darker than grains are now and then
        return ink, np.zeros(ink.shape, dtype=int)
    ink = np.clip(ink / level, 0, 1)
    parts, count = ndimage.label((ink > np.clip(likely / level, 0.4, 0.6)) | solid, np.ones((3, 3)))
    numbers = np.zeros(count + 1, dtype=int)
    kept = choose(ink, parts, is_tight) & ~np.isin(np.arange(1, count + 1), parts[solid])
    numbers[1:][kept] = np.arange(1, kept.sum() + 1)
    return ink, numbers[parts]


def choose(ink: np.ndarray, parts: np.ndarray, is_tight: bool) -> np.ndarray:
    """-> of each part, if it may be a stroke: dark somewhere (hysteresis, Canny 1986), and no speck. What touches the border is
    a table or a shadow, and is left out, unless it is more than all the rest. If digits may touch the border as well, only
    strips along it are left out, unless there is little else."""
    numbers, boxes = np.arange(1, parts.max() + 1), ndimage.find_objects(parts)
    amounts, darkest = ndimage.sum_labels(ink, parts, numbers), ndimage.maximum(ink, parts, numbers)
    lengths = np.array([max(length(rows), length(columns)) for rows, columns in boxes])
    kept = (darkest > 0.8) & (lengths >= max(4, 0.03 * min(ink.shape)))
    inner = kept & [all(s.start > 0 and s.stop < n for s, n in zip(box, ink.shape, strict=True)) for box in boxes]
    if is_tight:
        strips = np.array([is_strip(parts == i, box) for i, box in zip(numbers, boxes, strict=True)], dtype=bool)
        inner = kept & ~strips
    if amounts[inner].sum() > (0.2 if is_tight else 0.5) * amounts[kept].sum():
        kept = inner
    return kept & (amounts >= 0.04 * amounts[kept].max(initial=0))


def is_strip(part: np.ndarray, box: tuple) -> bool:
    """(H, W) bool -> if it lies along a side of the picture, flat and touching it nearly everywhere; or so along two sides."""
    along = [(border.sum(), length(box[side // 2 == 0])) for side, border in enumerate(borders(part))]
    whole = [touched >= 0.9 * extent for touched, extent in along]
    height, width = map(length, box)
    flat = (height <= 0.5 * width and any(whole[:2])) or (width <= 0.5 * height and any(whole[2:]))
    return bool(flat or (any(whole[:2]) and any(whole[2:])))


def length(side: slice) -> int:
    return side.stop - side.start


def otsu(values: np.ndarray) -> float:
    """The threshold that parts values from 0 to 1 into the two most different classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 256, (0, 1))
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * edges[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return float(edges[np.argmax(np.where(np.isfinite(between), between, 0)) + 1])


# ---- 3. which marks are a digit -------------------------------------------------------------------------------------------


def group(boxes: list) -> list[list[int]]:
    """[(rows, columns)] of the parts 1, 2, ... -> the parts of each digit, from left to right.

    Two parts are one digit if one lies above the other, or if one is lower than half of the highest (the bar of a 5), and
    they are near each other. What stays lower than half of the highest is dirt.
    """
    digits = [(box, [i + 1]) for i, box in enumerate(boxes)]
    while pair := next((pair for pair in combinations(digits, 2) if belong(*pair, highest(digits))), None):
        (one, names), (other, others) = pair
        both = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
        digits = [digit for digit in digits if digit not in pair] + [(both, names + others)]
    whole = [(box, names) for box, names in digits if length(box[0]) >= 0.5 * highest(digits)]
    return [names for box, names in sorted(whole, key=lambda digit: digit[0][1].start + digit[0][1].stop)]


def highest(digits: list) -> int:
    return max(length(rows) for (rows, _), _ in digits)


def belong(one: tuple, other: tuple, height: int) -> bool:
    (rows, columns), (other_rows, other_columns) = one[0], other[0]
    across = max(0, columns.start - other_columns.stop, other_columns.start - columns.stop)
    down = max(0, rows.start - other_rows.stop, other_rows.start - rows.stop)
    common = min(columns.stop, other_columns.stop) - max(columns.start, other_columns.start)
    above = common > 0.5 * min(length(columns), length(other_columns))
    low = min(length(rows), length(other_rows)) < 0.5 * height
    return (above or low) and np.hypot(across, down) < 0.25 * height


def thickness(ink: np.ndarray) -> float:
    """(H, W) a digit's ink, 0 elsewhere -> how thick its thickest stroke is, as a share of its longer side."""
    tight = np.pad(cut_out(ink, 0), 1)
    return float(2 * ndimage.distance_transform_edt(tight > 0.5 * tight.max()).max() / (max(tight.shape) - 2))


# ---- 4. MNIST's form ------------------------------------------------------------------------------------------------------


def normalize(ink: np.ndarray, unit: int = 4) -> np.ndarray:
    """(H, W) a digit's ink, 0 elsewhere -> (h, w) from 0 to 1, its longer side 20 * `unit`, its strokes as thick as MNIST's."""
    tight = cut_out(ink, 0)
    shrink = -(-max(tight.shape) // (20 * unit))  # a line thinner than this would be lost in a smaller picture
    scaled = enlarge(ndimage.grey_dilation(tight, (shrink, shrink)), 20 * unit)
    large = np.pad(scaled > 0.5 * scaled.max(), 2 * unit)
    inside, outside = ndimage.distance_transform_edt(large), ndimage.distance_transform_edt(~large)
    width = 4 * (inside[large].mean() - 0.5) / unit  # in a stroke of width w, the mean distance to the edge is w / 4
    grow = (np.clip(width, *STROKES) - width) / 2
    strokes = np.clip((inside - outside) / unit + grow + 0.5, 0, 1)
    return enlarge(cut_out(strokes, 0.5), 20 * unit)


def cut_out(values: np.ndarray, above: float) -> np.ndarray:
    rows, columns = (np.flatnonzero((values > above).any(axis)) for axis in (1, 0))
    return values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def enlarge(values: np.ndarray, side: int) -> np.ndarray:
    """-> the longer side scaled to `side`."""
    height, width = (max(1, round(size * side / max(values.shape))) for size in values.shape)
    picture = Image.fromarray(np.asarray(values, dtype=np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)


def centre(digit: np.ndarray, image_size: int) -> Tensor:
    """(h, w) from 0 to 1, the longer side 80 -> (1, S, S) uint8: its longer side 20/28 of S, its centre of mass in the middle.
    Put there at 112 x 112, so that shrinking makes smooth edges and places it more exactly than by whole pixels."""
    size = max(digit.shape) * 28 // 20
    page, place = np.zeros((size, size), dtype=np.float32), []
    for axis, extent in enumerate(digit.shape):
        mass_at = digit.sum(1 - axis) @ (np.arange(extent) + 0.5) / digit.sum()
        place.append(int(np.clip(round(size / 2 - mass_at), 0, size - extent)))
    page[place[0] : place[0] + digit.shape[0], place[1] : place[1] + digit.shape[1]] = 255 * digit
    small = Image.fromarray(page).resize((image_size, image_size), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small).round().astype(np.uint8))[None]


def views(digit: Tensor) -> Tensor:
    """(1, S, S) uint8 -> (6, 1, S, S): turned by -15, 0 and 15 degrees, 0.9 and 1.1 times as large. On a digit, a network
    gives one answer to all of them; on a scribble its answers often differ, and their mean is unsure."""
    picture, middle, result = Image.fromarray(digit[0].numpy()), digit.shape[-1] / 2, []
    for angle in np.deg2rad((-15, 0, 15)):
        for scale in (0.9, 1.1):
            c, s = np.cos(angle) / scale, np.sin(angle) / scale
            back = (c, s, middle * (1 - c - s), -s, c, middle * (1 + s - c))  # where a pixel comes from
            turned = picture.transform(picture.size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
            result.append(torch.from_numpy(np.array(turned))[None])
    return torch.stack(result)


def main() -> None:
    if len(sys.argv) < 2:
        fail("name a picture: python photo.py photo.jpg")
    for path in map(Path, sys.argv[1:]):
        try:
            digits = read_digits(path)
        except OSError as error:
            fail(f"{path}: {error if isinstance(error, NotADigit) else 'not a picture that can be read'}")
        out = free_name(path.with_name(f"{path.stem}-as-mnist.png"))
        Image.fromarray(torch.cat(digits, 2)[0].numpy()).save(out)
        say(f"wrote {out}")


if __name__ == "__main__":
    start(main)
