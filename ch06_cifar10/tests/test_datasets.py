"""The three sources of data, the two loaders, and what they say of bad input."""

import multiprocessing
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

import datasets
import sample
from augment import Augment


def test_sample_is_drawn_from_its_seed_and_its_parts_differ():
    first = datasets.load("sample", parts=("val",))
    sample.make.cache_clear()  # it is kept for all tests: see conftest.py
    again = datasets.load("sample", parts=("val", "test"))
    assert torch.equal(first.splits["val"].images, again.splits["val"].images)
    assert first.splits["val"].labels.bincount().tolist() == [50] * 10
    assert not torch.equal(again.splits["test"].images[:500], again.splits["val"].images)


def test_without_network_auto_is_the_sample_and_says_so(tmp_path, monkeypatch, capsys):
    def refuse(*words, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    data = datasets.load("auto", str(tmp_path), parts=("val",))
    assert data.name == "sample"
    said = capsys.readouterr().err
    assert (
        "SAMPLE" in said and "no route to host" in said and "cifar-10-python.tar.gz" in said and str(tmp_path) in said
    )
    with pytest.raises(SystemExit, match="cifar-10-python.tar.gz.*by hand"):
        datasets.load("cifar10", str(tmp_path))


def test_a_damaged_batch_is_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_3").write_bytes(b"half a file")
    with pytest.raises(SystemExit, match="data_batch_3: damaged"):
        datasets.load("cifar10", str(tmp_path))


def test_a_folder_of_classes_is_split_the_same_way_each_time(picture_folder):
    folder = picture_folder(cat=20, dog=30)
    first, again = (datasets.load(str(folder), parts=("train", "val", "test")) for _ in range(2))
    assert first.classes == ["cat", "dog"] and first.splits["train"].images.shape[1:] == (3, 64, 64)
    assert first.files == again.files
    names = [item.name for part in first.files.values() for item in part]
    assert len(names) == len(set(names)) == 50
    counts = {part: len(files) for part, files in first.files.items()}
    assert 3 <= counts["test"] <= 9 and 2 <= counts["val"] <= 9


def test_the_courses_capital_folders_and_validation_names(picture_folder, tmp_path):
    for part in ("TRAIN", "Valid", "TEST"):
        picture_folder(f"set/{part}", cat=2, dog=3)
    data = datasets.load(str(tmp_path / "set"), parts=("train", "val", "test"))
    assert [len(split) for split in data.splits.values()] == [5, 5, 5]


def test_export_keeps_the_colours_and_loads_again(tmp_path):
    """Red stays red. (An RGB array written by OpenCV, which expects BGR, comes out blue.)"""
    red, random = np.zeros((32, 32, 3), np.uint8), np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    red[..., 0] = 255
    split = datasets.Split(datasets.to_tensor(np.stack([red, random])), torch.tensor([0, 1]))
    datasets.export(datasets.Data("two", ["red", "random"], {"train": split, "val": split, "test": split}), tmp_path)
    with Image.open(tmp_path / "TRAIN" / "red" / "00000.png") as picture:
        assert picture.getpixel((5, 5)) == (255, 0, 0)
    again = datasets.load(str(tmp_path), image_size=32, parts=("test",))
    assert again.classes == ["random", "red"]  # by name
    assert torch.equal(again.splits["test"].images, split.images.flip(0))


def test_bad_pictures_are_skipped_named_and_counted(picture_folder, capsys):
    folder = picture_folder(cat=36, dog=36)
    for part in ("cat", "dog"):
        for path in list((folder / part).glob("*.png"))[:6]:
            path.write_text("no picture at all")
    data = datasets.load(str(folder), parts=("train", "val", "test"))
    assert sum(len(split) for split in data.splits.values()) == 60
    said = capsys.readouterr().out
    assert said.count("not a picture that can be read") == 12 and "skipped" in said


@pytest.mark.parametrize(
    ("counts", "message"),
    [({}, "no class folder"), ({"cat": 3}, "only one class folder"), ({"cat": 3, "dog": 0}, "dog: no pictures")],
)
def test_a_useless_folder_is_refused_by_name(picture_folder, tmp_path, counts, message):
    (tmp_path / "pictures").mkdir(exist_ok=not counts)
    folder = picture_folder("pictures", **counts) if not counts else picture_folder("other", **counts)
    with pytest.raises(SystemExit, match=message):
        datasets.load(str(folder))


def test_a_class_that_training_does_not_know_is_refused(picture_folder, tmp_path):
    picture_folder("set/train", cat=3, dog=3)
    picture_folder("set/test", cat=3, horse=3)
    with pytest.raises(SystemExit, match="horse: no class of that name"):
        datasets.load(str(tmp_path / "set"), parts=("test",))


def test_turned_pictures_are_read_upright(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255  # bright above
    turned = Image.fromarray(pixels).rotate(90)
    exif = Image.Exif()
    exif[0x0112] = 6  # as a camera held upright says: turn me by 90 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    image = datasets.read_image(tmp_path / "turned.png", 16)
    assert image[:, 0].float().mean() > image[:, -1].float().mean()


def test_statistics_are_the_pixels_mean_and_deviation():
    images = datasets.load("sample", parts=("val",)).splits["val"].images
    mean, std = datasets.statistics(images)
    pixels = images.double() / 255
    torch.testing.assert_close(torch.tensor(mean), pixels.mean((0, 2, 3)).float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.tensor(std), pixels.std((0, 2, 3), correction=0).float(), atol=1e-5, rtol=0)


# ---- loaders ----------------------------------------------------------------------------------------------------------


def numbered(count):
    """A split whose picture i is i everywhere."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    return datasets.Split(images, torch.arange(count))


def test_an_epoch_shows_each_picture_once_in_an_order_of_its_own():
    loader = datasets.TensorLoader(numbered(40), 10, torch.device("cpu"), Augment(crop=2, flip=True), seed=1)
    orders = []
    for epoch in (0, 1, 0):
        loader.epoch = epoch
        orders.append([i for images, labels in loader for i in labels.tolist() if (images[labels == i] == i).all()])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))
    assert orders[0] == orders[2] != orders[1]


def test_two_processes_share_an_epoch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        loader = datasets.TensorLoader(numbered(40), 10, torch.device("cpu"), Augment(), seed=1)
        batches = [labels.tolist() for _, labels in loader]
        assert [len(batch) for batch in batches] == [5] * 4
        seen += sum(batches, [])
    assert sorted(seen) == list(range(40))


@pytest.mark.parametrize("side", [1, 2, 48])
def test_pictures_in_memory_are_scaled_to_any_size(side):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    split = datasets.Split(datasets.to_tensor(pixels), torch.zeros(3))
    datasets.resized(datasets.Data("toy", [], {"train": split}), side)
    wanted = [np.asarray(Image.fromarray(picture).resize((side, side), Image.BILINEAR)) for picture in pixels]
    assert (split.images.int() - datasets.to_tensor(np.stack(wanted)).int()).abs().max() <= 1


def test_both_loaders_give_the_same_validation_pictures(picture_folder):
    data = datasets.load(str(picture_folder(cat=30, dog=30)), image_size=16)
    from_memory = datasets.TensorLoader(data.splits["val"], 4, torch.device("cpu"))
    from_files = datasets.FileLoader(data.files["val"], 16, 4, torch.device("cpu"))
    for (images, labels), (file_images, file_labels) in zip(from_memory, from_files, strict=True):
        assert torch.equal(images, file_images) and torch.equal(labels, file_labels)


@pytest.fixture
def spawn():
    """Worker processes start anew, as on Windows and macOS, and get the data set by pickle."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_spawned_workers_read_what_the_main_process_reads(picture_folder, spawn):
    files = datasets.load(str(picture_folder(cat=10, dog=10)), files_only=True).files["train"]
    passes = []
    for workers in (0, 1):
        torch.manual_seed(0)
        loader = datasets.FileLoader(files, 16, 8, torch.device("cpu"), Augment(2, True), workers)
        passes.append(torch.cat([images for images, _ in loader]))
    assert len(passes[0]) == 16 and torch.equal(*passes)


def test_file_loader_repeats_an_epoch_exactly(picture_folder):
    files = datasets.load(str(picture_folder(cat=20, dog=20)), files_only=True).files["train"]
    loader = datasets.FileLoader(files, 16, 8, torch.device("cpu"), Augment(2, True), seed=3)
    passes = []
    for epoch in (0, 1, 0):
        loader.epoch = epoch
        torch.manual_seed(epoch)
        passes.append(torch.cat([images for images, _ in loader]))
    assert torch.equal(passes[0], passes[2]) and not torch.equal(passes[0], passes[1])


# ---- augmentation -----------------------------------------------------------------------------------------------------


def test_each_picture_is_mirrored_in_every_second_epoch():
    images, augment = datasets.load("sample", parts=("val",)).splits["val"].images[:64], Augment(flip=True)
    first, second = (augment(images, torch.arange(64), epoch) for epoch in (0, 1))
    mirrored = (first == images.flip(3)).flatten(1).all(1)
    assert 16 < mirrored.sum() < 48
    assert torch.equal(torch.where(mirrored.view(-1, 1, 1, 1), second, second.flip(3)), images)


def test_a_crop_is_a_window_of_the_padded_picture():
    images = datasets.load("sample", parts=("val",)).splits["val"].images[:40]
    out = Augment(crop=2)(images, torch.arange(40), 0)
    padded = torch.nn.functional.pad(images.float(), (2,) * 4, mode="reflect").to(torch.uint8)
    windows = torch.stack([padded[:, :, y : y + 32, x : x + 32] for y in range(5) for x in range(5)])
    matches = (windows == out).flatten(2).all(2)  # (25 shifts, pictures)
    assert matches.any(0).all()
    assert matches.any(1).sum() > 10  # many different shifts


def test_cutout_greys_a_square_at_most_and_colour_keeps_the_range():
    torch.manual_seed(0)
    images = torch.full((50, 3, 32, 32), 200, dtype=torch.uint8)
    cut = (Augment(cutout=8)(images, torch.arange(50), 0) == 128).all(1).flatten(1).sum(1)
    assert cut.max() == 64 and cut.min() >= 16
    coloured = Augment(colour=0.5)(images, torch.arange(50), 0)
    assert coloured.dtype == torch.uint8 and coloured.float().mean((1, 2, 3)).std() > 20
