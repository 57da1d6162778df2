"""From the bytes of a picture file to the network's input: the one way, taken by training, test, and every service.

A picture is read as pictures.read_picture reads it (upright by EXIF, 16 and 32 bits scaled by their range, transparency on
white, of an animation the first frame), and then cut and scaled. The rules stand here once more, as pictures.py imports torch,
which a model server need not have: Pillow and NumPy are enough here. tests/test_picture.py holds both to the same pixels.

Whatever runs the network is given what `decode` returns, and the network's own first layer does the rest (models.Deployable),
so that the same file gets the same answer everywhere.
"""

import io
import warnings

import numpy as np
from PIL import Image

MAX_PIXELS = 16_000_000  # decoded they take 64 MB; a file of a few KB may unfold to billions
MOST_STRETCHED = 100  # times as long as wide: longer ones are no pictures
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # by content, whatever the name or the header says
TURNS = {  # EXIF orientation -> what brings the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ON_ITS_SIDE = (5, 6, 7, 8)


class Refused(Exception):
    """A request that gets no answer but this reason: `status` is the HTTP status that goes with it."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def decode(data: bytes, side: int, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture file's bytes -> (3, side, side) uint8 RGB, and the upright picture's (width, height). Raises Refused."""
    return pixels_of(open_header(data, max_pixels), side)


def open_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The bytes of a picture file -> the picture, of which only the header is read yet. Refuses what is none, has too many
    pixels, or is too long and thin."""
    if not data:
        raise Refused(400, "the body is empty; send the bytes of a picture file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit only warns, and far above ours
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = picture.size
    except Image.DecompressionBombError:
        raise Refused(413, f"far more pixels than the {max_pixels:,} that are taken") from None
    except Image.UnidentifiedImageError:
        raise Refused(415, f"not a picture; taken are {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow raises nearly every kind for a damaged file
        raise Refused(422, f"a damaged picture ({type(error).__name__})") from None
    if width * height > max_pixels:
        raise Refused(413, f"{width} x {height} pixels; at most {max_pixels:,} are taken")
    if max(width, height) > MOST_STRETCHED * min(width, height):
        raise Refused(413, f"{width} x {height} pixels: too long and thin; at most {MOST_STRETCHED} to 1 is taken")
    return picture


def pixels_of(picture: Image.Image, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """An opened picture -> (3, side, side) uint8 RGB: the largest square in its middle, scaled to `side`; and the upright
    picture's (width, height). Raises Refused if the file is damaged."""
    try:
        width, height = picture.size
        picture.draft(None, (4 * side, 4 * side))  # a large JPEG is decoded smaller: ten times faster
        picture.load()
        turn = orientation(picture)
        if turn in ON_ITS_SIDE:
            width, height = height, width
        picture = eight_bits(picture.transpose(TURNS[turn]) if turn else picture)
        edge = min(picture.size)
        left, top = (picture.width - edge) / 2, (picture.height - edge) / 2
        picture = on_white(picture).convert("RGB")
        square = picture.resize((side, side), Image.BICUBIC, box=(left, top, left + edge, top + edge))
    except Refused:
        raise
    except MemoryError:
        raise Refused(503, "there is no memory for this picture now; try again later") from None
    except Exception as error:
        raise Refused(422, f"a damaged picture ({type(error).__name__})") from None
    return np.asarray(square).transpose(2, 0, 1), (width, height)


def orientation(picture: Image.Image) -> int | None:
    """-> the number of the turn that brings the picture upright; None if there is none to make, or the tag is odd."""
    try:
        turn = picture.getexif().get(0x112)  # cameras note beside the pixels which way is up
        return turn if turn in TURNS else None
    except Exception:  # tags that do not follow the standard
        return None


def eight_bits(picture: Image.Image) -> Image.Image:
    """Values of 16 and 32 bits scaled to 0 to 255; Pillow's own conversion would cut off all above 255. 16 bits count to 65535;
    32 bits and floats to the first of 1 (floats), 255 and 65535 that holds them all, or else from their lowest to highest."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise Refused(422, "a picture with pixels that are not finite numbers")
    if picture.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    elif low >= 0:
        ranges = (1.0, 255.0, 65535.0) if picture.mode == "F" else (255.0, 65535.0)
        low, high = 0.0, next((top for top in ranges if high <= top), high)
    scaled = np.empty(values.shape, np.uint8)
    for row, target in zip(
        values, scaled, strict=True
    ):  # row by row: as float64 all of them would take eight times the memory
        target[:] = ((row.astype(np.float64) - low) * (255 / max(high - low, 1e-12))).round()
    return Image.fromarray(scaled)


def on_white(picture: Image.Image) -> Image.Image:
    """What cannot be seen has colours too: they are replaced by white."""
    if not {"A", "a"} & set(picture.getbands()) and "transparency" not in picture.info:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
