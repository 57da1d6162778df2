"""Pictures with what is on them: masks in colour, boxes, names and scores. The same for annotations and predictions."""

import colorsys
import io
from functools import cache
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

import masks
import utils
from utils import write_atomic

SMALLEST = 480  # smaller pictures are drawn larger, by a whole number, so that names can be read


def colour(label: int) -> tuple[int, int, int]:
    """A colour for each category: neighbours in number are far apart in hue."""
    hue = (label * 0.61803) % 1
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.75, 1.0))


def label_font(text: str, size: int = 14) -> ImageFont.FreeTypeFont:
    """Pillow's own font, or an installed one that has all characters of `text`."""
    path = None if text.isascii() else utils.find_font("".join(sorted(set(text))))
    if path is None and not text.isascii():
        warn_of_boxes()
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


@cache
def warn_of_boxes() -> None:
    utils.warn("No installed font has all characters of the category names: some are drawn as boxes.\n"
               "A free one with Chinese: Noto Sans CJK (Debian and Ubuntu: apt install fonts-noto-cjk).")  # fmt: skip


def annotate(picture: ndarray, rows: list[dict], categories: list[dict], title: str = "") -> ndarray:
    """(H, W, 3) uint8 and COCO annotations or results -> the picture, enlarged if small, with them drawn in."""
    height, width = picture.shape[:2]
    scale = max(1, SMALLEST // min(height, width))
    names = {category["id"]: (i, category["name"]) for i, category in enumerate(categories)}
    rows = [row for row in rows if row["category_id"] in names]
    pixels = picture.astype(float)
    for row in rows:
        inside = masks.to_mask(row["segmentation"], height, width) > 0
        pixels[inside] = 0.5 * pixels[inside] + 0.5 * np.array(colour(names[row["category_id"]][0]))
    image = Image.fromarray(pixels.astype(np.uint8)).resize((scale * width, scale * height), Image.NEAREST)
    used = "".join(names[row["category_id"]][1] for row in rows) + title
    pen, font = ImageDraw.Draw(image), label_font(used)
    for row in rows:
        label, name = names[row["category_id"]]
        x, y, w, h = (scale * n for n in row["bbox"])
        pen.rectangle((x, y, max(x, x + w - 1), max(y, y + h - 1)), outline=colour(label), width=2)
        text = name + (f" {row['score']:.2f}" if "score" in row else " (crowd)" * bool(row.get("iscrowd")))
        place = (min(x + 2, image.width - pen.textlength(text, font) - 2), max(0, y - 17))
        pen.text(place, text, fill=colour(label), font=font, stroke_width=2, stroke_fill=(0, 0, 0))
    if title:
        pen.text((4, image.height - 20), title, fill=(255, 255, 255), font=font, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(image)


def sheet(pictures: list[ndarray], columns: int, largest: int = 480) -> ndarray:
    """Pictures of any size, scaled to fit and put beside and below each other, row by row."""
    images = [Image.fromarray(picture) for picture in pictures]
    for image in images:
        image.thumbnail((largest, largest))
    width, height = max(im.width for im in images) + 4, max(im.height for im in images) + 4
    canvas = Image.new("RGB", (width * min(columns, len(images)), height * -(-len(images) // columns)), (255, 255, 255))
    for i, image in enumerate(images):
        canvas.paste(image, (i % columns * width, i // columns * height))
    return np.asarray(canvas)


def save(picture: ndarray, path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG" if path.suffix == ".jpg" else "PNG")
    write_atomic(path, buffer.getvalue())


def draw_confusion(counts: list[list[int]], categories: list[dict], path: Path) -> None:
    """Rows the truth, columns what was said; numbers are written while they can be read."""
    shown, names = np.array(counts), [utils.cut(category["name"], 16) for category in categories]
    size = min(24, 3 + 0.42 * len(shown))
    figure = utils.new_figure(size + 1, size, "".join(names))
    axis = figure.subplots()
    axis.imshow(shown / shown.sum(1, keepdims=True).clip(1), cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(shown)), [*names, "(missed)"], rotation=90, fontsize=8)
    axis.set_yticks(range(len(shown)), [*names, "(background)"], fontsize=8)
    axis.set(xlabel="said", ylabel="is", title="Of the objects of each category, the shares")
    for (row, column), count in np.ndenumerate(shown):
        if count and len(shown) <= 30:
            axis.text(column, row, f"{count:,}", ha="center", va="center", fontsize=7)
    utils.save_figure(figure, path)


def draw_precision_recall(evaluation, categories: list[dict], path: Path) -> None:
    """Precision over recall of the masks, a curve a category, where an IoU of 0.5 and of 0.75 counts as found."""
    figure = utils.new_figure(10, 4.2, "".join(category["name"] for category in categories))
    parameters = evaluation.params
    for axis, threshold in zip(figure.subplots(1, 2), (0.5, 0.75), strict=True):
        i = int(np.argmin(abs(parameters.iouThrs - threshold)))
        for label, category in enumerate(categories):
            curve = evaluation.eval["precision"][i, :, parameters.catIds.index(category["id"]), 0, 2]
            if curve.max() > 0:
                paint = tuple(c / 255 for c in colour(label))
                axis.plot(parameters.recThrs, curve, label=utils.cut(category["name"], 24), color=paint)
        axis.set(xlabel="recall", ylabel="precision", title=f"masks, IoU {threshold}", xlim=(0, 1), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
        if 0 < len(axis.lines) <= 20:
            axis.legend(fontsize=8)
    utils.save_figure(figure, path)
