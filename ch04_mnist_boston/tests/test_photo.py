"""Reading digits from photos: each kind of picture that hinders it, several digits, answers that are unsure. Offline: the
digits are a font's, or scikit-learn's handwriting; the network is the shipped one."""

import io
import time

import numpy as np
import photo_kinds
import pytest
import torch
from PIL import Image, ImageDraw

import photo
import sample
import test as tester


@pytest.fixture(scope="module")
def predict():
    return photo_kinds.load_network()


def as_file(pixels) -> io.BytesIO:
    """(H, W) grey values, or a picture -> a file in memory."""
    picture = (
        pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels).clip(0, 255).astype(np.uint8))
    )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer


def read(pixels, predict) -> list[int]:
    """-> the answers, from left to right."""
    return [int(predict(image[None])[0].argmax()) for image in photo.read_digits(as_file(pixels))]


def font_digit(label: int, side: int = 20) -> np.ndarray:
    """(28, 28) uint8, white on black, as photo_kinds takes it."""
    drawn = photo_kinds.draw_font(label, side, np.random.default_rng(0))
    page = np.zeros((28, 28), np.uint8)
    page[4 : 4 + drawn.shape[0], 4 : 4 + drawn.shape[1]] = 255 * drawn.clip(0, 1)
    return page


def seven(paper=255.0, ink=0.0, width=16, gap=0) -> np.ndarray:
    """(200, 200): a hard-edged 7, as a paint program draws it; with a `gap`, its bar does not touch its stem."""
    picture = Image.new("F", (200, 200), paper)
    ImageDraw.Draw(picture).line([(60, 40), (140, 40), (90, 160)], ink, width)
    pixels = np.array(picture)
    if gap:
        pixels[50 : 50 + gap] = paper
    return pixels


# ---- each kind ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in photo_kinds.KINDS if kind != "several"])
def test_digits_are_read_in_pictures_of_each_kind(kind, predict):
    """Of the ten digits of a font at most one is misread: wrong boxes or polarity cost far more."""
    size, right = 400 if kind == "page" else 200, 0
    for label in range(10):
        picture = photo_kinds.make(kind, [(font_digit(label), label)], size, 50 + label)
        right += read(picture, predict) == [label]
    assert right >= 9, f"{right} of 10"


def test_other_hands_are_read_in_grain_and_shadow(predict):
    images, labels = sample.make_digits()
    right = 0
    for i in range(40):
        kind = ("shadow", "table", "grain 30", "pencil")[i % 4]
        picture = photo_kinds.make(kind, [(images[i, 0].numpy(), int(labels[i]))], 200, i)
        right += read(picture, predict) == [int(labels[i])]
    assert right >= 34  # 8x8 pixels, not of MNIST


def test_hard_edges_and_a_grainy_pencil_are_no_blank_page(predict):
    assert read(seven(), predict) == [7]
    assert read(Image.fromarray(seven() > 128), predict) == [7]  # a scan of one bit a pixel
    grain = np.random.default_rng(0).normal(0, 10, (400, 400))
    pencil = np.kron(seven(226, 150), np.ones((2, 2)))
    assert read(pencil + grain, predict) == [7]


def test_any_size_is_read_and_in_time(predict):
    tiny = Image.fromarray(seven().astype(np.uint8)).resize((28, 28), Image.Resampling.BOX)
    assert read(tiny, predict) == [7]
    large = as_file(np.kron(seven(), np.ones((15, 15))))  # 3,000 pixels a side
    start = time.process_time()
    found = photo.read_digits(large)
    assert time.process_time() - start < 1  # 0.2 s on an idle core
    assert apart(found[0], digit_of(seven())) < 3


# ---- each step ----------------------------------------------------------------------------------------------------------


def apart(one, other) -> float:
    """Mean difference of two digits, in grey levels."""
    return float((one.float() - other.float()).abs().mean())


def digit_of(pixels) -> torch.Tensor:
    (found,) = photo.read_digits(as_file(pixels))
    return found


def test_a_shadow_changes_nothing_and_its_edge_is_no_ink():
    light = np.where(np.add.outer(np.arange(200), np.arange(200)) < 190, 1, 0.5)  # its edge crosses the digit
    page = seven(230, 40)
    assert apart(digit_of(page * light), digit_of(page)) < 5
    with pytest.raises(photo.NotADigit):
        photo.read_digits(as_file(230 * light))


@pytest.mark.parametrize("brightness", [0, 90])
@pytest.mark.parametrize("side", range(4))
def test_a_table_beside_the_paper_is_left_out(side, brightness):
    page = np.full((200, 200), 230.0)
    page[:, :30] = brightness
    page = np.rot90(page, side)
    with pytest.raises(photo.NotADigit):
        photo.read_digits(as_file(page))
    assert (
        apart(
            digit_of(np.minimum(page, seven(230, 40)) if brightness == 0 else np.where(seven() == 0, 40, page)),
            digit_of(seven(230, 40)),
        )
        < 3
    )


def test_light_on_dark_is_the_same_digit():
    assert apart(digit_of(255 - seven()), digit_of(seven())) < 2
    ring = Image.new("L", (200, 200), 235)  # a small 0 with thin strokes: more paper in it than ink
    ImageDraw.Draw(ring).ellipse((90, 85, 114, 121), outline=30, width=4)
    found = digit_of(ring)
    assert found[0, 13:15, 13:15].max() < 30 and found[0, 13].max() > 150


def test_grain_leaves_neither_specks_nor_holes():
    noise = np.random.default_rng(1).normal(0, 1, (200, 200))
    for paper, ink, grain in ((230, 40, 30), (200, 140, 10)):
        assert apart(digit_of(seven(paper, ink) + grain * noise), digit_of(seven())) < 6
    with pytest.raises(photo.NotADigit):
        photo.read_digits(as_file(200 + 30 * noise))
    left = photo.smooth((200 + 30 * noise).astype(np.float32)).std()
    assert left < 8 and photo.smooth(seven().astype(np.float32)).std() > 0.99 * seven().std()  # no grain, no blur


def test_a_digit_that_fills_the_picture_is_read():
    rows, columns = (np.flatnonzero((seven() == 0).any(axis)) for axis in (1, 0))
    tight = seven()[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert apart(digit_of(tight), digit_of(seven())) < 3


def test_what_reaches_in_from_the_border_is_left_out():
    page = Image.fromarray(seven())
    ImageDraw.Draw(page).line([(-10, 60), (30, 110), (-10, 150)], 0, 8)  # as high as a digit
    assert apart(digit_of(np.array(page)), digit_of(seven())) < 1


@pytest.mark.parametrize(
    "sides, first", [("right", 0), ("right", 35), ("bottom", 0), ("top bottom", 0), ("right bottom", 0)]
)
def test_a_table_is_left_out_where_the_digit_touches_the_border_too(sides, first):
    page = np.asarray(
        Image.fromarray(seven(230, 40)).crop((54, 10, 184, 190)), dtype=float
    )  # its bar begins at the left
    page[:, :3] = page[:, 3:6] = np.where(np.abs(np.arange(180) - 30) < 8, 40, 230)[:, None]
    alone = digit_of(page)
    for side in sides.split():
        strip = {"right": np.s_[first:, -6:], "bottom": np.s_[-6:], "top": np.s_[:6]}[side]
        page[strip] = 60
    assert apart(digit_of(page), alone) < 3


@pytest.mark.parametrize("shape", ["ellipse", "rectangle", "polygon"])
@pytest.mark.parametrize("side", [40, 80, 160])
def test_a_filled_shape_is_no_digit(shape, side):
    page, (near, far) = Image.new("L", (200, 200), 250), (100 - side // 2, 100 + side // 2)
    places = [(100, near), (far, 100), (100, far), (near, 100)] if shape == "polygon" else (near, near, far, far)
    getattr(ImageDraw.Draw(page), shape)(places, fill=30)
    for picture in (page, page.resize((100, 100))):
        with pytest.raises(photo.NotADigit):
            photo.read_digits(as_file(picture))


def test_dirt_is_no_part_of_the_digit():
    dirty = seven()
    dirty[176:192, 10:26] = 0  # far from it
    dirty[20:30, 180:190] = 0  # as near as a piece of it might be, but too small
    assert apart(digit_of(dirty), digit_of(seven())) < 1
    dot = np.full((200, 200), 255.0)
    dot[100:104, 100:104] = 0
    with pytest.raises(photo.NotADigit):
        photo.read_digits(as_file(dot))


def test_a_smudge_is_no_digit_and_joins_none():
    beside = seven()
    beside[50:150, 165:180] = 130  # half as dark, and as high as a digit
    assert apart(digit_of(beside), digit_of(seven())) < 1
    two = np.concatenate([seven(), seven()], 1)
    two[90:110, 60:360] = np.minimum(two[90:110, 60:360], 190)
    assert len(photo.read_digits(as_file(two))) == 2


def test_a_broken_digit_is_one(predict):
    assert read(seven(gap=6), predict) == [7]
    five = Image.new("L", (200, 200), 255)
    draw = ImageDraw.Draw(five)
    draw.line([(80, 50), (76, 95)], 0, 12)
    draw.arc((60, 85, 130, 160), 240, 510, 0, 12)
    draw.line([(94, 48), (135, 46)], 0, 12)  # the bar, right of the rest
    assert read(five, predict) == [5]


def test_several_digits_are_read_from_left_to_right(predict):
    row = np.full((200, 600), 235.0)
    for i, label in enumerate((3, 1, 4)):
        drawn = photo_kinds.draw_font(label, 100, np.random.default_rng(i))
        y, x = (60, 20, 90)[i], 60 + 180 * i  # not in one line, and numbered otherwise than they stand
        row[y : y + drawn.shape[0], x : x + drawn.shape[1]] -= 200 * drawn.clip(0, 1)
    assert read(row, predict) == [3, 1, 4]
    small, large = np.full((200, 200), 255.0), seven(width=24)
    small[40:180, 40:180] = np.asarray(Image.fromarray(seven()).resize((140, 140)))
    file = as_file(np.concatenate([small, large], 1))
    assert torch.equal(photo.read_digit(file), photo.read_digits(file)[1])  # the one with the most ink
    dots = np.full((300, 300), 255.0)
    for y in range(7):
        dots[20 + 40 * y : 40 + 40 * y, [20 + 40 * x + i for x in range(7) for i in range(8)]] = 0
    with pytest.raises(photo.NotADigit, match="49 marks"):
        photo.read_digits(as_file(dots))


def test_strokes_are_as_thick_as_those_of_mnist_and_the_digit_as_large():
    ink = [float(digit_of(seven(width=width)).sum()) / 255 for width in (3, 8, 16, 36)]
    assert ink[0] > 50 and ink[3] < 150, ink  # a line of 3 of 200 pixels would be 15, the fattest 190
    digit = digit_of(seven())[0].float()
    rows, columns = ((digit > 76).any(axis).nonzero()[:, 0] for axis in (1, 0))
    assert 19 <= rows[-1] - rows[0] + 1 <= 21
    assert all(abs(digit.sum(axis) @ torch.arange(28.0) / digit.sum() - 13.5) < 0.2 for axis in (0, 1))
    assert len(digit[(digit > 20) & (digit < 235)]) > 20  # smooth edges


@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_fine_pen_on_a_large_page_is_read(width, predict):
    page = Image.new("L", (1500, 1500), 255)
    ImageDraw.Draw(page).line([(375, 150), (1125, 150), (675, 1350)], 0, width)
    assert read(page, predict) == [7]


def test_views_are_the_digit_turned_about_the_middle():
    digit = digit_of(seven())
    views = photo.views(digit)
    assert views.shape == (6, 1, 28, 28) and views.dtype == torch.uint8
    small, large = views[2].float().sum(), views[3].float().sum()
    assert 0.75 < small / digit.sum() < 0.87 and 1.12 < large / digit.sum() < 1.28  # 0.9 and 1.1 squared
    for view in views.float():
        assert all(abs(view[0].sum(axis) @ torch.arange(28.0) / view.sum() - 13.5) < 0.4 for axis in (0, 1))
    assert apart(views[0], views[4]) > 10


# ---- the commands --------------------------------------------------------------------------------------------------------


def test_answers_name_several_digits_unsure_ones_and_bad_files(tmp_path, capsys):
    one = photo_kinds.make("plain", [(font_digit(3), 3)], 200, 0)
    three = photo_kinds.make("plain", [(font_digit(label), label) for label in (3, 2, 4)], 400, 0)
    for name, picture in (("one", one), ("three", three)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    photo_kinds.make_no_digit("scribble", 0).save(tmp_path / "scribble.png")
    (tmp_path / "bad.png").write_text("no picture")
    files = [str(tmp_path / f"{name}.png") for name in ("bad", "one", "three", "scribble")]
    with pytest.raises(SystemExit, match="1 of 4 files could not be used"):
        tester.main(
            ["mnist", *files, "--weights", str(tester.SHIPPED["mnist"]), "--out", str(tmp_path), "--device", "cpu"]
        )
    bad, first, second, third = capsys.readouterr().out.splitlines()[:4]
    assert "bad.png: not a picture that can be read" in bad
    assert [words.split()[0] for words in second.split(": ")[1].split(", ")] == ["3", "2", "4"]
    assert first.split(": ")[1].startswith("3 ") and first.count(",") == 2  # the three likeliest
    assert "(unsure)" in third and "(unsure)" not in first
    assert (tmp_path / "predictions.png").exists()


def test_scribbles_are_mostly_called_unsure_and_digits_are_not(predict):
    def unsure(image) -> bool:
        return bool(predict(photo.views(image)).mean(0).max() < photo.SURE)

    scribbles = [photo.read_digit(as_file(photo_kinds.make_no_digit("scribble", seed))) for seed in range(20)]
    digits = [digit_of(photo_kinds.make("plain", [(font_digit(i), i)], 200, i)) for i in range(10)]
    assert sum(map(unsure, scribbles)) >= 12 and sum(map(unsure, digits)) <= 1


def test_what_the_network_is_shown_is_saved_beside_and_overwrites_nothing(tmp_path, monkeypatch, capsys):
    Image.fromarray(photo_kinds.make("plain", [(font_digit(i), i) for i in (3, 4)], 300, 0)).save(tmp_path / "a.png")
    (tmp_path / "a-as-mnist.png").write_text("mine")
    monkeypatch.setattr("sys.argv", ["photo.py", str(tmp_path / "a.png")])
    photo.main()
    assert (tmp_path / "a-as-mnist.png").read_text() == "mine"
    assert Image.open(tmp_path / "a-as-mnist-2.png").size == (56, 28)
    assert "a-as-mnist-2.png" in capsys.readouterr().out
