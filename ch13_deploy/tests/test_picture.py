"""From a file's bytes to pixels: what is taken, what is refused, and the same answer whichever way a picture is stored."""

import io

import numpy as np
import pytest
from PIL import Image

import picture
from load import encoded, good_cases, odd_cases

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


def upright() -> Image.Image:
    """Bright above, dark below, and wider than high."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("orientation", "degrees"), [(3, 180), (6, 90), (8, -90)])
def test_a_camera_held_otherwise_gives_the_same_pixels(orientation, degrees):
    exif = Image.Exif()
    exif[0x0112] = orientation
    straight, size = picture.decode(encoded(upright(), "PNG"), 16)
    turned, turned_size = picture.decode(encoded(upright().rotate(degrees, expand=True), "PNG", exif=exif), 16)
    assert size == turned_size == (60, 40)
    assert np.array_equal(straight, turned)


def test_the_largest_square_in_the_middle_is_what_counts():
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    pixels, size = picture.decode(encoded(wide, "PNG"), 10)
    assert size == (300, 100) and (pixels[:, 5, 5] == (0, 0, 255)).all()


def test_a_line_of_pixels_does_not_unfold_to_gigabytes():
    """Scaled by its shorter side it would have 640,000 columns."""
    assert picture.decode(encoded(Image.new("L", (20_000, 1), 200), "PNG"), 32)[0].mean() == 200


def test_a_large_photo_decoded_small_has_the_pixels_of_one_decoded_whole():
    x = np.linspace(0, 6, 1600)
    pixels = (127 + 120 * np.sin(x[:, None, None] + np.array([0, 1, 2])) * np.cos(x[None, :, None])).astype(np.uint8)
    photo = Image.fromarray(pixels)
    small = picture.decode(encoded(photo, "JPEG", quality=95), 32)[0].astype(int)
    whole = picture.decode(encoded(photo, "PNG"), 32)[0].astype(int)
    assert small.shape == whole.shape and np.abs(small - whole).max() <= 6


def test_the_limit_is_read_from_the_header_before_any_pixel():
    bomb = encoded(Image.new("1", (30_000, 30_000)), "PNG")  # 900 million pixels in 110 KB
    with pytest.raises(picture.Refused, match="pixels") as refusal:
        picture.decode(bomb, 32)
    assert refusal.value.status == 413
    with pytest.raises(picture.Refused, match="100 x 100 pixels; at most 9,999"):
        picture.decode(encoded(Image.new("L", (100, 100)), "PNG"), 32, max_pixels=9_999)


def test_damage_anywhere_is_a_refusal_or_a_picture_and_never_another_error():
    rng = np.random.default_rng(0)
    for case in good_cases(8):
        for _ in range(40):
            damaged = bytearray(case.body)
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
