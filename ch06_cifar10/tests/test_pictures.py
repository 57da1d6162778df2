"""Pictures as people have them: each kind of file gives the right pixels, or one line that says why not."""

import io
import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image

import datasets
import pictures
import train
from augment import Augment

RAMP = np.linspace(0, 1, 64)[None].repeat(48, 0)


def saved(tmp_path, picture, name, **options):
    picture.save(tmp_path / name, **options)
    return np.asarray(pictures.read_picture(tmp_path / name, "L")).astype(int)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ((RAMP * 65535).astype(np.uint16), "a.png"),
        ((RAMP * 65535).astype(np.uint16), "a.tif"),
        ((RAMP * 65535).astype(np.int32), "a.tif"),
        ((RAMP * 255).astype(np.int32), "a.tif"),
        ((RAMP * 1e6).astype(np.int32), "a.tif"),
        ((RAMP * 2000 - 1000).astype(np.int32), "a.tif"),
        (RAMP.astype(np.float32), "a.tif"),
        ((RAMP * 255).astype(np.float32), "a.tif"),
        ((RAMP * 9 - 4).astype(np.float32), "a.tif"),
    ],
)
def test_deep_pictures_keep_their_greys(tmp_path, values, name):
    read = saved(tmp_path, Image.fromarray(values), name)
    assert abs(read - RAMP * 255).max() <= 1


def test_what_is_not_a_number_is_refused(tmp_path):
    values = RAMP.astype(np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(OSError, match="not finite"):
        pictures.read_picture(tmp_path / "a.tif")


def test_hidden_colours_are_white(tmp_path):
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (10, 10, 30, 30))
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (10, 10, 30, 30))
    grey = Image.new("LA", (40, 40), (0, 0))
    clear.save(tmp_path / "rgba.png")
    clear.save(tmp_path / "rgba.webp", lossless=True)
    palette.save(tmp_path / "p.png", transparency=0)
    palette.save(tmp_path / "p.gif", transparency=0)
    grey.save(tmp_path / "la.png")
    for path in tmp_path.iterdir():
        picture = pictures.read_picture(path)
        assert picture.getpixel((2, 2)) == (255, 255, 255), path
        assert path.name == "la.png" or picture.getpixel((20, 20)) == (0, 0, 255), path


def test_print_colours_and_first_frames(tmp_path):
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    red = np.asarray(pictures.read_picture(tmp_path / "cmyk.jpg")).mean((0, 1))
    assert red[0] > 230 and red[1:].max() < 30
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert pictures.read_picture(tmp_path / name).getpixel((9, 9))[0] > 250, name


def with_exif(orientation: int, odd: bool) -> bytes:
    """A JPEG, white above and black below, whose EXIF says how to turn it; `odd`: with a resolution that is text."""
    half = Image.new("L", (40, 40))
    half.paste(255, (0, 0, 40, 20))
    plain, buffer = io.BytesIO(), io.BytesIO()
    half.save(plain, "JPEG")
    tags = struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0) + odd * struct.pack(">HHI4s", 0x11A, 2, 4, b"abc\0")
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 1 + odd) + tags + struct.pack(">I", 0)
    data = plain.getvalue()
    buffer.write(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    return buffer.getvalue()


@pytest.mark.parametrize("odd", [False, True])
def test_every_orientation_is_upright(odd):
    """Where the white half comes to lie: by the EXIF standard, tag 0x112 names the side of row 0 and of column 0."""
    sides = {1: "top", 2: "top", 3: "bottom", 4: "bottom", 5: "left", 6: "right", 7: "right", 8: "left"}
    for orientation, side in sides.items():
        pixels = np.asarray(pictures.read_picture(io.BytesIO(with_exif(orientation, odd)), "L")).astype(int)
        means = {"top": pixels[:15], "bottom": pixels[25:], "left": pixels[:, :15], "right": pixels[:, 25:]}
        assert max(means, key=lambda name: means[name].mean()) == side, orientation
    assert np.asarray(pictures.read_picture(io.BytesIO(with_exif(77, odd)), "L"))[5, 5] > 200  # no such orientation


def test_pictures_of_absurd_size_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    Image.new("L", (2, 30000)).save(tmp_path / "sliver.png")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="2 x 30000 pixels"):
        patch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
        pictures.read_picture(tmp_path / "sliver.png")
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\0\0\0\0")
    with pytest.raises(OSError):
        pictures.read_picture(tmp_path / "bomb.png")


def test_damaged_files_of_every_type_are_refused_and_none_crashes(tmp_path):
    rng = np.random.default_rng(0)
    whole = Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8))
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        buffer = io.BytesIO()
        whole.save(buffer, kind)
        data = bytearray(buffer.getvalue())
        for cut in (0, 10, len(data) // 3):
            with pytest.raises(OSError):
                pictures.read_picture(io.BytesIO(bytes(data[:cut])))
        for _ in range(30):  # bits that a disk has turned
            spoilt = bytearray(data)
            for place in rng.integers(0, min(len(data), 400), 4):
                spoilt[place] ^= 1 << int(rng.integers(8))
            try:
                pictures.read_picture(io.BytesIO(bytes(spoilt)))
            except OSError:
                continue


# ---- folders ----------------------------------------------------------------------------------------------------------


def test_what_systems_leave_is_neither_a_class_nor_a_picture(picture_folder, capsys):
    folder = picture_folder(cat=6, dog=6)
    for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
        (folder / name / "cat").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(folder / name / "cat" / "1.png")
    for name in (".DS_Store", "Thumbs.db", "._0.png"):
        (folder / "cat" / name).write_bytes(b"junk")
    classes, files = pictures.class_folders(folder)
    assert classes == ["cat", "dog"] and sum(map(len, files.values())) == 12
    assert "ignored" in (said := capsys.readouterr().out) and "__MACOSX" in said and "left out" not in said


def test_sub_folders_and_rare_suffixes_count_and_other_files_are_counted(picture_folder, capsys):
    folder = picture_folder(cat=6, dog=6)
    (folder / "cat" / "2024").mkdir()
    (folder / "cat" / "0.png").rename(folder / "cat" / "2024" / "0.PNG")
    picture = Image.open(folder / "cat" / "1.png")
    picture.save(folder / "cat" / "7.jfif", "JPEG")
    picture.save(folder / "cat" / "8.gif")
    (folder / "cat" / "notes.txt").write_text("mine")
    (folder / "cat" / "photo.heic").write_bytes(b"x")
    _, files = pictures.class_folders(folder)
    assert sum(map(len, files.values())) == 14
    assert "2 files left out that are no pictures, the first being notes.txt" in capsys.readouterr().out


@pytest.mark.parametrize("names", [("Training", "Testing"), ("TRAIN", "Test"), ("train", "test")])
def test_parts_by_their_usual_names_and_a_test_part_that_is_flat_or_incomplete(picture_folder, tmp_path, names):
    for name in names:
        picture_folder(f"set/{name}", cat=4, dog=4)
    folder = tmp_path / "set"
    classes, files = pictures.class_folders(folder, ("train", "val"))
    assert classes == ["cat", "dog"] and len(files["test"]) == 8
    for path in (folder / names[1] / "dog").iterdir():
        path.unlink()
    assert len(pictures.class_folders(folder)[1]["test"]) == 4  # incomplete: the other class is tested
    for path in (folder / names[1] / "cat").iterdir():
        path.rename(folder / names[1] / path.name)
    assert len(pictures.class_folders(folder, ("train", "val"))[1]["train"]) == 6  # flat: training does not mind
    with pytest.raises(SystemExit, match="no pictures in class folders"):
        pictures.class_folders(folder)


def test_the_current_folder_is_a_data_folder(picture_folder, monkeypatch):
    monkeypatch.chdir(picture_folder(cat=6, dog=6))
    data = datasets.load(".")
    assert data.name == "pictures" and data.classes == ["cat", "dog"]


# ---- the two loaders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [Augment(2, True, 4, 0.2), Augment(0, True), Augment(3)])
def test_both_loaders_augment_alike(picture_folder, augment):
    data = datasets.load(str(picture_folder(cat=20, dog=20)), image_size=16)
    loaders = (
        datasets.TensorLoader(data.splits["train"], 8, torch.device("cpu"), augment, seed=3),
        datasets.FileLoader(data.files["train"], 16, 8, torch.device("cpu"), augment, seed=3),
    )
    batches = []
    for loader in loaders:
        torch.manual_seed(5)
        loader.epoch = 1
        batches.append(list(loader))
    for (one, labels), (other, other_labels) in zip(*batches, strict=True):
        assert torch.equal(one, other) and torch.equal(labels, other_labels)


def test_without_flips_no_picture_is_mirrored_whatever_the_loader(picture_folder, tmp_path):
    folder = picture_folder(cat=20, dog=20)
    words = [
        "--data",
        str(folder),
        "--arch",
        "lenet5",
        "--image-size",
        "16",
        "--no-flip",
        "--crop",
        "0",
        "--device",
        "cpu",
    ]
    for loader in ("tensor", "files"):
        args = train.parse(None, [*words, "--loader", loader, "--batch-size", "8"])
        data, _ = train.load_data(args)
        train.fill_in_recipe(args, data, 16, 36)
        batches, *_ = train.make_loaders(data, args, torch.device("cpu"))
        originals = {datasets.read_image(p, 16).numpy().tobytes() for p in folder.rglob("*.png")}
        seen = [image.numpy().tobytes() for images, _ in batches for image in images.contiguous()]
        assert seen and set(seen) <= originals


def test_a_broken_file_does_not_stop_a_run_that_reads_files(picture_folder, capsys):
    folder = picture_folder(cat=20, dog=20)
    for i in range(3):
        (folder / "dog" / f"{i}.png").write_bytes(b"broken")
    data = datasets.load(str(folder), files_only=True)
    assert "skipped" in capsys.readouterr().out
    total = sum(len(images) for part in ("train", "val")
                for images, _ in datasets.FileLoader(data.files[part], 16, 8, torch.device("cpu")))  # fmt: skip
    assert total == len(data.files["train"]) + len(data.files["val"])


# ---- CIFAR-10's own names ---------------------------------------------------------------------------------------------


def test_exported_pictures_bear_the_courses_names(tmp_path, monkeypatch):
    """The batches hold them as pickled texts: U, the length in one byte, the text."""
    names = {"data_batch_1": ["domestic_cat_s_000907.png", "0_bus_s_000001.png"], "test_batch": ["frog_s_000003.png"]}
    root = tmp_path / "data" / "cifar-10-batches-py"
    root.mkdir(parents=True)
    for i in range(2, 6):
        (root / f"data_batch_{i}").write_bytes(b"")
    for name, texts in names.items():
        pickled = b"".join(b"U" + bytes([len(t)]) + t.encode() + b"q\x01" for t in texts)
        (root / name).write_bytes(os.urandom(50) + pickled)
    found = datasets.course_names(str(tmp_path / "data"))
    assert found == {"train": names["data_batch_1"], "test": names["test_batch"]}
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    split = datasets.Split(images, torch.tensor([0, 1]), [("a", "train 1"), ("b", "train 0")])
    data = datasets.Data("cifar10", ["bus", "cat"], {"train": split})
    datasets.export(data, tmp_path / "out", verbose=False, names=found)
    assert (tmp_path / "out/TRAIN/cat/domestic_cat_s_000907.png").exists()
    assert (tmp_path / "out/TRAIN/bus/0_bus_s_000001.png").exists()
    with pytest.raises(SystemExit, match="TRAIN is there already"):
        datasets.export(data, tmp_path / "out", verbose=False, names=found)
