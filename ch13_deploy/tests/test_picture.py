"""From a file's bytes to pixels: what is taken, what is refused, and the same answer whichever way a picture is stored."""

import io

import numpy as np
import pytest
from PIL import Image

import pictures
from service import picture
from service.load_generator import encoded, good_cases, odd_cases

ODD = odd_cases()
LEFT_TO_THE_SERVER = {"wrong content type", "too large a body"}  # what a body's bytes alone do not tell


@pytest.mark.parametrize("name", [name for name in ODD if name not in LEFT_TO_THE_SERVER])
def test_every_odd_body_gets_pixels_or_a_reason(name):
    case = ODD[name]
    if case.status == 200:
        pixels, _ = picture.decode(case.body, 32)
        assert pixels.shape == (3, 32, 32) and pixels.dtype == np.uint8
    else:
        with pytest.raises(picture.Refused) as refusal:
            picture.decode(case.body, 32)
        assert refusal.value.status == case.status and "\n" not in str(refusal.value)


# ---- the same reader as in the other chapters -------------------------------------------------------------------------


def stored() -> dict[str, bytes]:
    """One picture in many kinds of files."""
    rng = np.random.default_rng(0)
    base = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((48, 36), Image.BICUBIC)
    grey, ramp = np.asarray(base.convert("L")), Image.linear_gradient("L").resize(base.size)
    clear, clear_grey, keyed = base.convert("RGBA"), base.convert("LA"), base.convert("P")
    clear.putalpha(ramp)
    clear_grey.putalpha(ramp)
    files = {f"EXIF {turn}": encoded(base, "PNG", exif=exif(turn)) for turn in range(10)}
    files |= {f"{kind}": encoded(base, kind) for kind in picture.FORMATS}
    files |= {f"TIFF, EXIF {turn}": encoded(base, "TIFF", exif=exif(turn)) for turn in (3, 6)}
    files |= {
        "JPEG, EXIF 6": encoded(base, "JPEG", exif=exif(6)),
        "EXIF in words": ODD["EXIF in words"].body,
        "EXIF broken": encoded(base, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
        "RGBA": encoded(clear, "PNG"),
        "WebP with alpha": encoded(clear, "WEBP", lossless=True),
        "LA": encoded(clear_grey, "PNG"),
        "palette": encoded(keyed, "PNG"),
        "palette with a clear colour": encoded(keyed, "PNG", transparency=3),
        "GIF with a clear colour": encoded(keyed, "GIF", transparency=3),
        "RGB with a clear colour": encoded(base, "PNG", transparency=base.getpixel((0, 0))),
        "one bit": encoded(base.convert("1"), "PNG"),
        "CMYK": encoded(base.convert("CMYK"), "JPEG"),
        "16 bits": encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
        "16 bits, dark": encoded(Image.fromarray(grey.astype(np.uint16)), "PNG"),
        "16 bits, TIFF": encoded(Image.fromarray(grey.astype(np.uint16) * 200), "TIFF"),
        "16 bits, PGM": b"P5 2 2 65535\n" + bytes([0, 0, 100, 0, 200, 0, 255, 255]),
    }
    for name, values in (
        ("32 bits to 255", grey.astype(np.int32)),
        ("32 bits to 65535", grey.astype(np.int32) * 257),
        ("32 bits, more", grey.astype(np.int32) * 100_000),
        ("32 bits, below 0", grey.astype(np.int32) - 100),
        ("float to 1", grey.astype(np.float32) / 255),
        ("float to 255", grey.astype(np.float32)),
        ("float, below 0", grey.astype(np.float32) - 7.5),
        ("float, all the same", np.full(grey.shape, 1e6, np.float32)),
    ):
        files[name] = encoded(Image.fromarray(values), "TIFF")
    return files


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


STORED = stored()


@pytest.mark.parametrize("name", STORED)
def test_pixels_are_those_of_the_reader_of_all_chapters(name):
    expected = pictures.read_picture(io.BytesIO(STORED[name]))
    edge = min(expected.size)
    left, top = (expected.width - edge) / 2, (expected.height - edge) / 2
    square = expected.resize((16, 16), Image.BICUBIC, box=(left, top, left + edge, top + edge))
    pixels, size = picture.decode(STORED[name], 16)
    assert size == expected.size
    assert np.array_equal(pixels, np.asarray(square).transpose(2, 0, 1))


def test_values_that_are_no_numbers_are_refused_by_both():
    values = np.ones((4, 4), np.float32)
    values[1, 1] = np.nan
    file = encoded(Image.fromarray(values), "TIFF")
    with pytest.raises(OSError, match="not finite"):
        pictures.read_picture(io.BytesIO(file))
    with pytest.raises(picture.Refused, match="not finite"):
        picture.decode(file, 8)


def upright() -> Image.Image:
    """Bright above, dark below, and wider than high."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("orientation", "degrees"), [(3, 180), (6, 90), (8, -90)])
def test_a_camera_held_otherwise_gives_the_same_pixels(orientation, degrees):
    straight, size = picture.decode(encoded(upright(), "PNG"), 16)
    file = encoded(upright().rotate(degrees, expand=True), "PNG", exif=exif(orientation))
    turned, turned_size = picture.decode(file, 16)
    assert size == turned_size == (60, 40)
    assert np.array_equal(straight, turned)


def test_the_largest_square_in_the_middle_is_what_counts():
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    pixels, size = picture.decode(encoded(wide, "PNG"), 10)
    assert size == (300, 100) and (pixels[:, 5, 5] == (0, 0, 255)).all()


def test_a_large_photo_decoded_small_has_the_pixels_of_one_decoded_whole():
    x = np.linspace(0, 6, 1600)
    pixels = (127 + 120 * np.sin(x[:, None, None] + np.array([0, 1, 2])) * np.cos(x[None, :, None])).astype(np.uint8)
    photo = Image.fromarray(pixels)
    opened = picture.open_header(encoded(photo, "JPEG", quality=95))
    small = picture.pixels_of(opened, 32)[0].astype(int)
    whole = picture.decode(encoded(photo, "PNG"), 32)[0].astype(int)
    assert small.shape == whole.shape and np.abs(small - whole).max() <= 6
    assert opened.size == (200, 200), "an eighth of each side: all that 32 pixels need"


# ---- bounds -----------------------------------------------------------------------------------------------------------


def test_the_limits_are_read_from_the_header_before_any_pixel(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", None)  # what would decode
    bomb = b"P4 30000 30000\n"  # 900 million pixels
    with pytest.raises(picture.Refused, match="pixels") as refusal:
        picture.decode(bomb, 32)
    assert refusal.value.status == 413
    for size, most, message in (
        ((100, 100), 9_999, "100 x 100 pixels; at most 9,999"),
        ((4001, 4000), picture.MAX_PIXELS, "at most 16,000,000"),
        ((101, 1), 9_999, "101 x 1 pixels: too long and thin"),
        ((1, 101), 9_999, "1 x 101 pixels: too long and thin"),
    ):
        with pytest.raises(picture.Refused, match=message) as refusal:
            picture.decode(b"P5 %d %d 255\n" % size, 32, most)
        assert refusal.value.status == 413


def test_a_picture_as_thin_as_may_be_is_taken():
    assert picture.decode(encoded(Image.new("L", (100, 1), 200), "PNG"), 32)[0].mean() == 200


def test_a_lack_of_memory_is_no_damage(monkeypatch):
    def short(self):
        raise MemoryError

    opened = picture.open_header(encoded(upright(), "PNG"))
    monkeypatch.setattr(type(opened), "load", short)
    with pytest.raises(picture.Refused, match="no memory") as refusal:
        picture.pixels_of(opened, 8)
    assert refusal.value.status == 503


def test_damage_anywhere_is_a_refusal_or_a_picture_and_never_another_error():
    rng = np.random.default_rng(0)
    for body in [
        *(case.body for case in good_cases(8)),
        *(STORED[name] for name in ("TIFF", "WEBP", "GIF", "16 bits")),
    ]:
        for _ in range(40):
            damaged = bytearray(body)
            for place in rng.integers(0, len(damaged), 5):
                damaged[place] = rng.integers(0, 256)
            try:
                assert picture.decode(bytes(damaged), 32)[0].shape == (3, 32, 32)
            except picture.Refused as why:
                assert 400 <= why.status < 500


def test_formats_that_start_other_programs_are_not_opened():
    file = io.BytesIO()
    upright().save(file, "EPS")
    with pytest.raises(picture.Refused, match="not a picture"):
        picture.decode(file.getvalue(), 32)
