"""From the bytes of a picture file to the network's input: the one way, taken by training, test, and every service.

Whatever runs the network is given what `decode` returns, and the network's own first layer does the rest (models.Deployable),
so that the same file gets the same answer everywhere. Pillow and NumPy alone: a model server need not import torch.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 50_000_000  # a telephone's camera has up to so many; a bomb of a few KB may unfold to billions
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # by content, whatever the name or the header says
IMAGE_TYPES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}


class Refused(Exception):
    """A request that gets no answer but this reason: `status` is the HTTP status that goes with it."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def decode(data: bytes, side: int, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture file's bytes -> (3, side, side) uint8 RGB, and the upright picture's (width, height). Raises Refused.

    The largest square in the middle, upright, scaled to `side`; of an animation, the first frame.
    """
    if not data:
        raise Refused(400, "the body is empty; send the bytes of a picture file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit only warns, and far above ours
            picture = Image.open(io.BytesIO(data), formats=FORMATS)  # reads the header, no pixels yet
        width, height = picture.size
        if width * height > max_pixels:
            raise Refused(413, f"{width} x {height} pixels; at most {max_pixels:,} are taken")
        if picture.getexif().get(0x0112, 1) >= 5:  # lies on its side
            width, height = height, width
        picture.draft("RGB", (4 * side, 4 * side))  # a large JPEG is decoded smaller: ten times faster
        picture = ImageOps.exif_transpose(picture).convert("RGB")  # cameras note beside the pixels which way is up
    except Refused:
        raise
    except Image.DecompressionBombError:
        raise Refused(413, f"far more pixels than the {max_pixels:,} that are taken") from None
    except Image.UnidentifiedImageError:
        raise Refused(415, f"not a picture; taken are {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow raises nearly every kind for a damaged file
        raise Refused(422, f"a damaged picture ({type(error).__name__})") from None
    edge = min(picture.size)
    left, top = (picture.width - edge) / 2, (picture.height - edge) / 2
    square = picture.resize((side, side), Image.BICUBIC, box=(left, top, left + edge, top + edge))
    return np.asarray(square).transpose(2, 0, 1), (width, height)
