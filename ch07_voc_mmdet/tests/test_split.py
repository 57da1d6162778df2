"""Which pictures trained, validated and tested: a run remembers them, and goes on with the same ones."""

import json
import shutil

import pytest
import torch
from PIL import Image

import datasets
import plugins
import test as tester
import train
import utils
import voc


@pytest.fixture(scope="module")
def done(few_scenes, tmp_path_factory):
    """A run of two epochs, and its own data."""
    folder = tmp_path_factory.mktemp("split")
    data = shutil.copytree(few_scenes, folder / "own")
    words = ["--data", str(data), "--arch", "fcos", "--size", "tiny", "--image-size", "64", "--epochs", "2"]
    train.main([*words, "--limit", "5", "--batch-size", "2", "--device", "cpu", "--run", str(folder / "run")])
    return folder / "run"


@pytest.fixture
def again(done, tmp_path):
    """The same, to be changed: a run and its data, which has the old name."""
    run = shutil.copytree(done, tmp_path / "run")
    own = done.parent / "own"
    shutil.copytree(own, tmp_path / "kept")
    yield run, own
    shutil.rmtree(own)
    shutil.copytree(tmp_path / "kept", own)


def split_of(run):
    return json.loads((run / "split.json").read_text("utf-8"))


def count_of(run, tmp_path, *more):
    """The number of pictures that test.py tests."""
    tester.main(["--run", str(run), "--device", "cpu", "--out", str(tmp_path / "out"), *more])
    return json.loads((tmp_path / "out" / "test.json").read_text("utf-8"))["pictures"]


def test_a_run_names_its_pictures_by_content(done):
    split = split_of(done)
    names = {part: sorted(split[part].values()) for part in ("train", "val", "test", "unused")}
    assert names == {
        "train": [f"train000{i}" for i in range(5)],
        "val": [f"val000{i}" for i in range(3)],
        "test": [f"test000{i}" for i in range(3)],
        "unused": ["train0005"],
    }
    for mark, name in split["train"].items():
        picture = done.parent / "own" / "JPEGImages" / f"{name}.jpg"
        assert mark == utils.fingerprint(picture.read_bytes())


def test_the_best_epoch_is_the_first_of_the_best(done):
    rows = [line.split(",") for line in (done / "metrics.csv").read_text("utf-8").splitlines()]
    scores = [float(row[rows[0].index("val_mAP50")]) for row in rows[1:]]
    assert utils.load_checkpoint(done / "best.pth")["meta"]["epoch"] == 1 + scores.index(max(scores))


def test_what_trained_is_never_tested_under_whatever_name(again, tmp_path, capsys):
    run, own = again
    for target, source in (("other", "train0001"), ("later", None), ("test0002", "val0000")):
        for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
            path = own / folder / f"{source or 'test0000'}{suffix}"
            shutil.copy(path, own / folder / f"{target}{suffix}")
    Image.new("RGB", (160, 128), "red").save(own / "JPEGImages" / "later.jpg")
    voc.write_list(own, "test", ["test0000", "test0001", "test0002", "other", "later"])
    assert [image_id for _, image_id in datasets.load(str(own)).part("test")] == ["test0000", "test0001", "later"]
    assert count_of(run, tmp_path) == 3
    said = capsys.readouterr()
    assert "samples that came after the training (1 of them are tested): 1, later" in said.err
    assert "left out 2 pictures of test that are in another part too: test0002, in val" in said.out
    datasets.main(["--data", str(own), "--check"])
    said = capsys.readouterr().out
    assert (
        "note: test: other is the same picture as train0001 of train, and is left out" in said and "no faults" in said
    )
    voc.write_list(own, "test", ["other"])
    voc.write_list(own, "train", ["train0000"])  # now no list says that train0001 trained
    (own / "JPEGImages" / "train0001.jpg").unlink()
    assert count_of(run, tmp_path, "--part", "val") == 3
    with pytest.raises(SystemExit, match="that did not train"):
        count_of(run, tmp_path, "--data", str(shutil.copytree(own, tmp_path / "elsewhere")))


def test_a_resumed_run_goes_on_with_the_same_data(again):
    run, own = again
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def refused(match):
        with pytest.raises(SystemExit, match=match) as why:
            train.main(["--resume", str(run), "--device", "cpu", "--epochs", "3"])
        assert "\n" not in str(why.value)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files

    annotation = own / "Annotations" / "train0001.xml"
    text = annotation.read_text()
    annotation.write_text(text.replace("<xmax>", "<xmax>1"))
    refused("the data are not those of the run: annotations of the train part have changed")
    annotation.write_text(text)
    Image.new("RGB", (160, 128)).save(own / "JPEGImages" / "train0002.jpg")
    refused("the data are not those of the run: 1 train samples changed, such as train0002")
    (run / "last.pth").write_bytes(b"half")
    files[run / "last.pth"] = b"half"
    shutil.copy(own / "JPEGImages" / "train0005.jpg", own / "JPEGImages" / "train0002.jpg")
    refused("the data are not those of the run")


def test_a_damaged_checkpoint_gives_one_line(again):
    run, _ = again
    (run / "last.pth").write_bytes((run / "last.pth").read_bytes()[:5000])
    with pytest.raises(SystemExit, match="last.pth: not a checkpoint that can be read"):
        train.main(["--resume", str(run), "--device", "cpu", "--epochs", "3"])


def test_weights_of_another_network_are_not_taken_in_part(again):
    """mmengine would take the tensors that fit and go on with the others as they were drawn."""
    run, _ = again
    saved = utils.load_checkpoint(run / "last.pth")
    name = next(name for name in saved["state_dict"] if name.endswith("conv_cls.weight"))
    saved["state_dict"][name] = saved["state_dict"][name][:-1]
    torch.save(saved, run / "last.pth")
    with pytest.raises(SystemExit, match="last.pth: says FCOS, but the weights in it are of another network"):
        train.main(["--resume", str(run), "--device", "cpu", "--epochs", "3"])


def test_a_finished_run_trains_longer_with_the_schedule_of_the_longer_one(again, tmp_path, capsys):
    run, own = again
    train.main(["--resume", str(run), "--device", "cpu"])
    assert "is finished: 2 epochs" in capsys.readouterr().out
    train.main(["--resume", str(run), "--device", "cpu", "--epochs", "4"])
    assert "--epochs 2 -> 4: the schedule is laid out anew from epoch 3 to the new end" in capsys.readouterr().out
    words = ["--data", str(own), "--arch", "fcos", "--size", "tiny", "--image-size", "64", "--epochs", "4"]
    train.main([*words, "--limit", "5", "--batch-size", "2", "--device", "cpu", "--run", str(tmp_path / "whole")])
    rates = {}
    for folder in (run, tmp_path / "whole"):
        rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
        rates[folder.name] = [float(row[1]) for row in rows]
    assert len(rates["run"]) == 4 and rates["run"][2:] == pytest.approx(rates["whole"][2:], rel=1e-4)
    assert json.loads((run / "args.json").read_text())["epochs"] == 4
    with pytest.raises(SystemExit, match="--epochs 3: .*run has done 4 already"):
        train.main(["--resume", str(run), "--device", "cpu", "--epochs", "3"])
    with pytest.raises(SystemExit, match="leave out --lr"):
        train.main(["--resume", str(run), "--lr", "0.1"])


def test_patience_ends_after_so_many_epochs_without_a_better_one(few_scenes, tmp_path, capsys):
    def history(*scores):
        return [{"epoch": i, "val_mAP50": score} for i, score in enumerate(scores, 1)]

    assert not plugins.is_enough([], 2) and not plugins.is_enough(history(0.1, 0.2), 2)
    assert not plugins.is_enough(history(0.3, 0.2), 2) and plugins.is_enough(history(0.3, 0.2, 0.3), 2)
    assert not plugins.is_enough(history(0.3, 0.2, 0.4), 2) and not plugins.is_enough(history(0.3, 0.2, 0.1), None)
    words = ["--data", str(few_scenes), "--arch", "fcos", "--size", "tiny", "--image-size", "64", "--epochs", "5"]
    words += ["--lr", "1e-9", "--patience", "1", "--device", "cpu", "--run", str(tmp_path / "run")]
    train.main(words)  # nothing is learned, so that the second epoch is no better than the first
    assert "(stopped: 1 epochs without a better one)" in capsys.readouterr().out
    train.main(["--resume", str(tmp_path / "run"), "--device", "cpu"])
    assert "is finished: 2 epochs" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--patience needs the validation that --no-val leaves out"):
        train.main([*words, "--no-val"])


def test_a_list_of_copies_alone_is_used_with_a_warning(own_scenes, capsys):
    voc.write_list(own_scenes, "val", ["train0000", "train0001"])
    data = datasets.load(str(own_scenes))
    assert [image_id for _, image_id in data.part("val")] == ["train0000", "train0001"]
    assert "all 2 pictures of val are in another part too" in capsys.readouterr().err


def test_pictures_that_come_later_move_none_of_the_others(own_scenes):
    for part in datasets.PARTS:
        (own_scenes / "ImageSets" / "Main" / f"{part}.txt").unlink()
    before = datasets.load(str(own_scenes)).parts
    for number in range(8):
        voc.write_picture(own_scenes, f"a{number}", Image.new("RGB", (160, 128), (9 * number, 0, 0)), [])
    after = datasets.load(str(own_scenes)).parts
    assert sum(map(len, after.values())) == 20
    assert all(set(before[part]) <= set(after[part]) for part in ("val", "test") if len(before[part]) > 1)


def test_a_picture_that_cannot_be_read_is_skipped_and_counted(own_scenes, tmp_path, capsys):
    path = own_scenes / "JPEGImages" / "train0002.jpg"
    path.write_bytes(path.read_bytes()[:900])
    (own_scenes / "JPEGImages" / "val0001.jpg").write_bytes(b"no picture")
    words = ["--data", str(own_scenes), "--arch", "fcos", "--size", "tiny", "--image-size", "64", "--epochs", "1"]
    train.main([*words, "--batch-size", "2", "--device", "cpu", "--run", str(tmp_path / "run")])
    out = capsys.readouterr().out
    assert out.count("skipped 1 pictures of train that cannot be read, the first being") == 1
    assert out.count("skipped 1 pictures of val that cannot be read") == 1 and "train0002.jpg (" in out
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 2
