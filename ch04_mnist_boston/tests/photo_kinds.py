"""Makes test pictures of handwritten digits: photos with grain, shadows, table edges and more, from digits and a seed.

    python tests/photo_kinds.py data                     # a table: the shipped network's accuracy on each kind and size
    python tests/photo_kinds.py data --kinds shadow --sizes 300 --number 1000
    python tests/photo_kinds.py data --show kinds.png    # a picture of each kind: look at them

`data` is where MNIST is (data/MNIST/raw); only its test digits are used. Expect: 95 % or more for each kind, see the README.
"""

import argparse
import io
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_sample_images

CHAPTER = Path(__file__).parents[1]
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FONT_NAMES = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral")

# What is added to the digit: the range of a value, or nothing.
PLAIN = {"paper": (200, 250), "ink": (15, 80)}
KINDS = {
    "plain": {},
    "hard": {"hard": True, "paper": (255, 255), "ink": (0, 0)},
    "font": {"font": True},
    "grain 15": {"grain": 15},
    "grain 30": {"grain": 30},
    "pencil": {"contrast": (0.2, 0.35)},
    "shadow": {"shadow": (0.45, 0.75)},
    "table": {"table": (0.05, 0.3)},
    "chalk": {"paper": (20, 60), "ink": (200, 250)},
    "shading": {"shading": 0.5},
    "page": {"fill": (0.08, 0.2)},
    "several": {"several": (2, 5)},
    "pencil, grain 15": {"contrast": (0.2, 0.35), "grain": 15},
    "pencil, grain 30": {"contrast": (0.2, 0.35), "grain": 30},
    "shadow, grain 15": {"shadow": (0.45, 0.75), "grain": 15},
    "shadow, grain 30": {"shadow": (0.45, 0.75), "grain": 30},
    "table, shadow": {"table": (0.05, 0.3), "shadow": (0.45, 0.75)},
}
SMALLEST = {"page": 300, "several": 100}  # pixels a side: below, there is not enough of each digit


def enlarge(digit: np.ndarray, side: int) -> np.ndarray:
    """A digit (28, 28) uint8 -> (side', side) of 0 to 1, cut out tightly, its longer side `side`."""
    rows, columns = (np.flatnonzero((digit > 50).any(axis)) for axis in (1, 0))
    tight = Image.fromarray(digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = side / max(tight.size)
    size = [max(1, round(length * scale)) for length in tight.size]
    return np.asarray(tight.resize(size, Image.BICUBIC), dtype=np.float64) / 255


def draw_font(label: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """-> (side, width) of 0 to 1: the digit in one of matplotlib's fonts."""
    font = ImageFont.truetype(str(FONTS / f"{rng.choice(FONT_NAMES)}.ttf"), side)
    left, top, right, bottom = font.getbbox(str(label))
    picture = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(picture).text((-left, -top), str(label), fill=255, font=font)
    scale = side / max(picture.size)
    size = [max(1, round(length * scale)) for length in picture.size]
    return np.asarray(picture.resize(size, Image.BICUBIC), dtype=np.float64) / 255


def change_strokes(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strokes up to a tenth of MNIST's box (20 pixels) thicker or thinner: another pen."""
    width = int(round(max(digit.shape) / 20 * rng.uniform(0, 1)))
    if width < 2 or max(digit.shape) > 500:
        return digit
    picture = Image.fromarray((255 * np.pad(digit, width)).astype(np.uint8))
    change = ImageFilter.MaxFilter if rng.random() < 0.6 else ImageFilter.MinFilter
    changed = np.asarray(picture.filter(change(width // 2 * 2 + 1)), dtype=np.float64) / 255
    return changed if (changed > 0.5).sum() > 0.6 * (digit > 0.5).sum() else digit


def place(digits: list, size: int, kind: dict, rng: np.random.Generator, free: tuple) -> np.ndarray:
    """-> (size, size), 0 paper to 1 ink: the digits left to right in the `free` part (left, top, right, bottom)."""
    left, top, right, bottom = (at * size for at in free)
    low, high = kind.get("fill", (0.45, 0.72))
    cell = (right - left) / len(digits)
    ink = np.zeros((size, size))
    side = rng.uniform(low, high) * min(size, bottom - top)
    side = max(6, int(min(side, 0.8 * cell)))
    middle = rng.uniform(top + 0.55 * side, bottom - 0.55 * side)
    for i, (digit, label) in enumerate(digits):
        drawn = draw_font(label, side, rng) if kind.get("font") else change_strokes(enlarge(digit, side), rng)
        height, width = drawn.shape
        y = int(np.clip(middle - height / 2 + rng.uniform(-0.05, 0.05) * side, top, bottom - height))
        x = int(left + i * cell + rng.uniform(0.05, 0.95) * max(0.0, cell - width))
        part = ink[max(0, y) : y + height, max(0, x) : x + width]
        np.maximum(part, drawn[: part.shape[0], : part.shape[1]], out=part)
    return ink


def half_plane(size: int, rng: np.random.Generator, blur: float = 0.0) -> np.ndarray:
    """-> (size, size), 0 on one side of a straight line through the middle part of the picture, 1 on the other."""
    angle, (y, x) = rng.uniform(0, 2 * np.pi), np.mgrid[0:size, 0:size] / size
    through = rng.uniform(0.25, 0.75, 2)
    distance = ((x - through[1]) * np.cos(angle) + (y - through[0]) * np.sin(angle)) * size
    return np.clip(distance / (1 + blur * size) + 0.5, 0, 1)


def lay_on_table(pixels: np.ndarray, kind: dict, rng: np.random.Generator) -> tuple[np.ndarray, tuple]:
    """-> the empty page with a dark table along one or two sides, and what is left of it (left, top, right, bottom)."""
    size, share = len(pixels), rng.uniform(*kind["table"])
    sides = rng.choice(4, rng.integers(1, 3), replace=False)
    free, tilt = [0.0, 0.0, 1.0, 1.0], rng.uniform(-0.06, 0.06)
    y, x = np.mgrid[0:size, 0:size] / size
    for side in sides:
        depth = share / len(sides)
        away = (x, y, 1 - x, 1 - y)[side] + tilt * ((y, x, y, x)[side] - 0.5)
        pixels = np.where(away < depth, rng.uniform(10, 110), pixels)
        edge = depth + abs(tilt) / 2 + 0.04
        free[side] = edge if side < 2 else 1 - edge
    return pixels, tuple(free)


def make(kind: str, digits: list, size: int, seed: int) -> np.ndarray:
    """[(digit (28, 28) uint8 white on black, label)] -> a picture (size, size) uint8 with them, of one of KINDS."""
    rng, wanted = np.random.default_rng(seed), PLAIN | KINDS[kind]
    page, free = np.full((size, size), rng.uniform(*wanted["paper"])), (0.03, 0.03, 0.97, 0.97)
    ink = rng.uniform(*wanted["ink"])
    if "table" in wanted:
        page, free = lay_on_table(page, wanted, rng)
    share = place(digits, size, wanted, rng, free)
    if wanted.get("hard"):
        share = (share > 0.5).astype(float)
    dark = page * (1 - rng.uniform(*wanted["contrast"])) if "contrast" in wanted else ink
    pixels = page + share * (dark - page)
    if "shadow" in wanted:
        blur = rng.choice([0, 0, 0.01])
        pixels *= 1 - (1 - rng.uniform(*wanted["shadow"])) * half_plane(size, rng, blur)
    if "shading" in wanted:
        pixels *= 1 - wanted["shading"] * half_plane(size, rng, rng.uniform(0.8, 1.5))
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if wanted.get("hard"):
        return np.asarray(picture)
    if size >= 100 and rng.random() < 0.5:  # a lens that is not quite sharp
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.006 * size)))
    if "grain" in wanted:
        noisy = np.asarray(picture) + rng.normal(0, wanted["grain"], (size, size))
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(60, 96)))
        picture = Image.open(buffer).convert("L")
    return np.asarray(picture)


def make_no_digit(kind: str, seed: int) -> Image.Image:
    """A "scribble", a "letter", or a part of a "photograph" that scikit-learn brings along: to be called unsure."""
    rng, page = np.random.default_rng(seed), Image.new("L", (300, 300), 235)
    if kind == "photograph":
        whole = Image.fromarray(load_sample_images().images[seed % 2]).convert("L")
        side = int(rng.integers(80, 420))
        x, y = int(rng.integers(0, whole.width - side)), int(rng.integers(0, whole.height - side))
        return whole.crop((x, y, x + side, y + side))
    if kind == "letter":
        font = ImageFont.truetype(str(FONTS / "DejaVuSans.ttf"), 200)
        ImageDraw.Draw(page).text((60, 30), str(rng.choice(list("ACDEFGHJKMNPQRTUVWXY?&#@"))), fill=30, font=font)
        return page
    angle = np.cumsum(rng.normal(0, 0.35, 120) + rng.normal(0, 0.08))
    line = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], 1), 0)
    line = 50 + 200 * (line - line.min(0)) / np.ptp(line, 0).max()
    ImageDraw.Draw(page).line([tuple(point) for point in line], fill=30, width=int(rng.integers(6, 20)), joint="curve")
    return page


# ---- by hand: the numbers of the README ---------------------------------------------------------------------------------


def load_network():
    """-> a function (N, 1, 28, 28) uint8 -> (N, 10) probabilities of the shipped network."""
    import torch

    import mnist
    import models
    import utils

    torch.set_num_threads(1)
    state, meta = utils.load_weights(CHAPTER / "weights" / "convnet.safetensors")
    model = models.build("mnist", meta["arch"], len(meta["classes"]), meta["image_size"])
    model.load_state_dict(state)
    return lambda images: mnist.predict(model.eval(), meta, images, torch.device("cpu"))


def pick(images, labels, kind: str, n: int, rng: np.random.Generator) -> list:
    """-> n lists of digits, one each, or more where the kind is "several"."""
    counts = [int(rng.integers(*KINDS[kind].get("several", (1, 2)))) for _ in range(n)]
    chosen = [rng.integers(0, len(images), count) for count in counts]
    return [[(images[i, 0].numpy(), int(labels[i])) for i in row] for row in chosen]


def measure(kind: str, size: int, picked: list, seed: int, predict) -> tuple[float, np.ndarray, np.ndarray, float]:
    """-> the share of pictures read without a fault, the sureness and rightness of each answer, seconds a picture."""
    import photo

    right, sure, correct, seconds = 0, [], [], 0.0
    for i, digits in enumerate(picked):
        buffer = io.BytesIO()
        Image.fromarray(make(kind, digits, size, seed * 100_000 + i)).save(buffer, "BMP")
        start = time.perf_counter()
        try:
            found = photo.read_digits(buffer)
        except OSError:
            found = []
        seconds += time.perf_counter() - start
        answers, truth = [], [label for _, label in digits]
        for image in found:
            confidence, answer = predict(photo.views(image)).mean(0).max(0)  # as mnist.classify does
            answers.append(int(answer))
            sure.append(float(confidence))
            correct.append(len(found) == len(truth) and int(answer) == truth[len(answers) - 1])
        right += answers == truth
    return right / len(picked), np.array(sure), np.array(correct, dtype=bool), seconds / len(picked)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", help="where MNIST is")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="KIND")
    parser.add_argument("--sizes", nargs="+", type=int, default=[28, 100, 300, 1000, 3000])
    parser.add_argument("--number", type=int, default=200, help="pictures a kind and size (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", metavar="FILE", help="draw a picture of each kind into this file and stop")
    args = parser.parse_args(argv)
    import datasets

    split = datasets.load("mnist", args.data_root, parts=("test",)).splits["test"]
    if args.show:
        rng = np.random.default_rng(args.seed)
        rows = [
            [make(k, pick(split.images, split.labels, k, 1, rng)[0], 300, args.seed + j) for k in args.kinds]
            for j in range(4)
        ]
        Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])).save(args.show)
        return
    predict = load_network()
    print_table(args, split.images, split.labels, predict)
    print_no_digits(args.number, predict)


def print_table(args: argparse.Namespace, images, labels, predict) -> None:
    """Accuracy of each kind and size; then what share of the right and of the wrong answers is called unsure."""
    import photo

    print(f"{'kind':<20}" + "".join(f"{size:>9,}" for size in args.sizes) + "    s a picture of the largest size")
    sure, correct = [], []
    for kind in args.kinds:
        print(f"{kind:<20}", end="")
        for size in args.sizes:
            if size < SMALLEST.get(kind, 0):
                print(f"{'-':>9}", end="")
                continue
            number = args.number if size < 2000 else -(-args.number // 5)  # large ones take long to make
            picked = pick(images, labels, kind, number, np.random.default_rng(args.seed))
            score, s, c, seconds = measure(kind, size, picked, args.seed, predict)
            sure.append(s), correct.append(c)
            print(f"{score:>9.3f}", end="", flush=True)
        print(f"{seconds:>8.2f}")
    sure, correct = np.concatenate(sure), np.concatenate(correct)
    for name, of in (("right", correct), ("wrong", ~correct)):
        print(f"{(sure[of] < photo.SURE).mean():.3f} of {of.sum():,} {name} answers are called unsure")


def print_no_digits(number: int, predict) -> None:
    """What share of the pictures without a digit is refused, or has no answer that is sure."""
    import photo

    for kind in ("scribble", "letter", "photograph"):
        unsure = refused = 0
        for seed in range(number):
            buffer = io.BytesIO()
            make_no_digit(kind, seed).save(buffer, "BMP")
            try:
                found = photo.read_digits(buffer)
            except OSError:
                refused += 1
                continue
            unsure += all(predict(photo.views(image)).mean(0).max() < photo.SURE for image in found)
        print(f"{kind}: {refused / number:.3f} of {number} refused, {unsure / number:.3f} answered as unsure")


if __name__ == "__main__":
    sys.path.insert(0, str(CHAPTER))
    main()
