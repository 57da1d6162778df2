"""Which pictures trained, validated and tested: a run remembers them, and goes on with the same ones."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import thing
from PIL import Image

import datasets
import report
import test as tester
import torchvision_engine
import train
import utils

NAMES = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}


def write(top, names, shade=0):
    """A folder in COCO's format: parts of pictures named by numbers, no two alike, with a square on each."""
    (top / "annotations").mkdir(parents=True, exist_ok=True)
    (top / "images").mkdir(exist_ok=True)
    for part, numbers in names.items():
        images = [{"id": i + 1, "file_name": f"{i}.png", "width": 64, "height": 64} for i in numbers]
        for i in numbers:
            if not (top / "images" / f"{i}.png").exists():
                Image.new("RGB", (64, 64), (20 * i, 90, shade)).save(top / "images" / f"{i}.png")
        rows = [thing(i + 1, i + 1, box=(10, 10, 30, 30)) for i in numbers]
        content = {
            "images": images,
            "annotations": rows,
            "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        }
        (top / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return top


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of two epochs, and its own data."""
    folder = tmp_path_factory.mktemp("split")
    data = write(folder / "own", NAMES)
    words = ["--engine", "torchvision", "--data", str(data), "--epochs", "2", "--limit", "5", "--batch-size", "2"]
    train.main([*words, "--min-size", "64", "--device", "cpu", "--run", str(folder / "run")])
    return folder / "run"


@pytest.fixture
def again(done, tmp_path):
    """The same, to be changed: a run and its data, which has the old name."""
    own = done.parent / "own"
    shutil.copytree(own, tmp_path / "kept")
    yield shutil.copytree(done, tmp_path / "run"), own
    shutil.rmtree(own)
    shutil.copytree(tmp_path / "kept", own)


def count_of(run, tmp_path, *more):
    """The number of pictures that test.py tests."""
    tester.main(["--run", str(run), "--device", "cpu", "--out", str(tmp_path / "out"), *more])
    return json.loads((tmp_path / "out" / "test.json").read_text("utf-8"))["pictures"]


def test_a_run_names_its_pictures_by_content(done):
    split = json.loads((done / "split.json").read_text("utf-8"))
    names = {part: set(split[part].values()) for part in ("train", "val", "test", "unused")}
    assert names["val"] == {f"images/{i}.png" for i in (6, 7, 8)} and names["test"] == {
        f"images/{i}.png" for i in (9, 10, 11)
    }
    assert len(names["train"]) == 5 and names["train"] | names["unused"] == {f"images/{i}.png" for i in range(6)}
    for mark, name in split["train"].items():
        assert mark == utils.fingerprint((done.parent / "own" / name).read_bytes())


def test_the_best_epoch_is_the_first_of_the_best(done, tmp_path, monkeypatch):
    scores = iter([0.2, 0.5, 0.5])
    names = ("val_mask_ap", "val_mask_ap50", "val_box_ap")
    monkeypatch.setattr(torchvision_engine, "validate", lambda *words: dict.fromkeys(names, next(scores)))
    words = ["--engine", "torchvision", "--data", str(done.parent / "own"), "--epochs", "3", "--limit", "2"]
    train.main([*words, "--batch-size", "2", "--min-size", "64", "--device", "cpu", "--run", str(tmp_path / "run")])
    assert utils.load_checkpoint(tmp_path / "run" / "best.pt")["epoch"] == 2


def test_what_trained_is_never_tested_under_whatever_name(again, tmp_path, capsys):
    run, own = again
    trained = min(json.loads((run / "split.json").read_text())["train"].values())
    shutil.copy(own / trained, own / "images" / "12.png")
    write(own, {"test": [9, 10, 12, 13]})
    test = datasets.load(str(own), parts=("train", "val", "test")).splits["test"]
    assert [image["file_name"] for image in test.images] == ["9.png", "10.png", "13.png"]
    assert count_of(run, tmp_path) == 3
    said = capsys.readouterr()
    assert "samples that came after the training (1 of them are tested): 1, images/13.png" in said.err
    assert (
        f"left out 1 test pictures that are in another part too, such as 12.png: {Path(trained).name} in train"
        in said.out
    )
    elsewhere = write(tmp_path / "elsewhere", {"test": [12, 14]})
    shutil.copy(own / trained, elsewhere / "images" / "12.png")
    assert count_of(run, tmp_path, "--data", str(elsewhere)) == 1
    (elsewhere / "images" / "14.png").unlink()
    with pytest.raises(SystemExit, match="no picture of the test part of elsewhere is left that did not train"):
        count_of(run, tmp_path, "--data", str(elsewhere))


def test_pictures_of_one_file_that_were_held_out_are_tested_wherever_they_fall_now(tmp_path):
    def split(number, part):
        return data(number).splits[part]

    def data(number):
        folder = write(tmp_path / "own", {"train": range(number)})
        return datasets.load(str(folder), parts=("train", "val", "test"))

    before = {part: split.samples() for part, split in data(8).splits.items()}
    later = data(12)
    chosen = tester.held_out(later, {"data": "own"} | before, same=True)
    names = {f"images/{image['file_name']}" for image in chosen.images}
    assert set(before["test"].values()) <= names
    assert not names & {*before["train"].values(), *before["val"].values()}


def test_a_resumed_run_goes_on_with_the_same_data(again):
    run, own = again
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def refused(match, *words):
        with pytest.raises(SystemExit, match=match) as why:
            train.main(["--resume", str(run), *words])
        assert "\n" not in str(why.value)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files

    refused("leave out --categories", "--categories", "cat")
    path = own / "annotations" / "instances_train.json"
    text = path.read_text()
    path.write_text(text.replace("[10, 10, 30, 30]", "[10, 10, 30, 29]"))
    refused("the data are not those of the run: annotations of the train part have changed", "--epochs", "3")
    for other in (own / "annotations").iterdir():
        other.write_text(
            text.replace('"dog"', '"cow"') if other == path else other.read_text().replace('"dog"', '"cow"')
        )
    refused("the data are not those of the run: other categories", "--epochs", "3")
    for other in (own / "annotations").iterdir():
        other.write_text(text if other == path else other.read_text().replace('"cow"', '"dog"'))
    trained = min(json.loads((run / "split.json").read_text())["train"].values())
    Image.new("RGB", (64, 64)).save(own / trained)
    refused(f"the data are not those of the run: 1 train samples changed, such as {trained}", "--epochs", "3")


def test_a_finished_run_trains_longer_with_the_schedule_of_the_longer_one(again, tmp_path, capsys):
    run, own = again
    train.main(["--resume", str(run)])
    assert "is finished: 2 epochs" in capsys.readouterr().out
    train.main(["--resume", str(run), "--epochs", "4"])
    assert "--epochs 2 -> 4: the schedule is laid out anew from epoch 3 to the new end" in capsys.readouterr().out
    words = ["--engine", "torchvision", "--data", str(own), "--epochs", "4", "--limit", "5", "--batch-size", "2"]
    train.main([*words, "--min-size", "64", "--device", "cpu", "--run", str(tmp_path / "whole")])
    rows = [(folder / "metrics.csv").read_text().splitlines()[1:] for folder in (run, tmp_path / "whole")]
    rates = [[row.split(",")[1] for row in part] for part in rows]
    assert len(rates[0]) == 4 and rates[0][2:] == rates[1][2:] and rates[0][1] != rates[1][1]
    assert json.loads((run / "args.json").read_text())["epochs"] == 4


def test_a_part_of_copies_alone_is_used_with_a_warning(tmp_path, capsys):
    data = datasets.load(str(write(tmp_path, {"train": range(4), "val": range(2), "test": [9]})))
    assert len(data.splits["val"]) == 2 and "All 2 pictures of val are in another part too" in capsys.readouterr().err


def test_patience_ends_after_so_many_epochs_without_a_better_one():
    def history(*scores):
        return [{"epoch": i, "val_mask_ap": score} for i, score in enumerate(scores, 1)]

    args = SimpleNamespace(patience=2)
    assert not report.is_enough([], args) and not report.is_enough(history(0.1, 0.2), args)
    assert not report.is_enough(history(0.3, 0.2), args) and report.is_enough(history(0.3, 0.2, 0.3), args)
    assert not report.is_enough(history(0.3, 0.2, 0.4), args)
    assert not report.is_enough(history(0.3, 0.2, 0.1), SimpleNamespace(patience=None))
