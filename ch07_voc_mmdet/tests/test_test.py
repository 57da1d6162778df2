"""test.py: it measures what it says, draws on pictures and videos, and refuses what it cannot use."""

import json
import shlex
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import datasets
import evaluate
import models
import test as tester
import train
import utils


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    """A run of two epochs on a few scenes; rtmdet, since it keeps boxes of the lowest scores: it always finds some."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["--data", str(scenes), "--arch", "rtmdet", "--size", "tiny", "--image-size", "96", "--epochs", "2"]
    train.main([*words, "--device", "cpu", "--lr", "0.002", "--batch-size", "4", "--limit", "12", "--run", str(folder)])
    return folder


def test_figures_are_those_of_the_stored_detections(run, scenes, capsys):
    tester.main(["--run", str(run), "--device", "cpu"])
    assert f"wrote {run}: test.json" in capsys.readouterr().out
    result = json.loads((run / "test.json").read_text("utf-8"))
    assert result["pictures"] == 12 and result["part"] == "test" and result["tested_on"] == str(scenes)
    assert result["trained_on"] == str(scenes) and result["speed"]["pictures_per_second"] > 0.1
    data = datasets.load(str(scenes))
    annotations = list(data.annotations("test"))
    stored = evaluate.from_coco_results(annotations, json.loads((run / "detections.json").read_text("utf-8")))
    again = evaluate.figures(annotations, stored, data.classes)
    assert again["mAP50_area"] == pytest.approx(result["mAP50_area"], abs=1e-4)
    assert list(result["classes"]) == [name for name in data.classes if name in result["classes"]]
    assert sum(row["detections"] for row in result["classes"].values()) > 12
    assert again["coco"] == pytest.approx(result["coco"], abs=1e-4)
    confusion = np.array(result["confusion"])
    assert confusion[:-1].sum() == sum(row["things"] for row in result["classes"].values()) and confusion.shape == (
        6,
        6,
    )
    for name in ("pr_curves.png", "detections.jpg", "confusion.png", "errors.jpg"):
        assert (run / name).stat().st_size > 10_000


def test_the_speed_of_a_single_picture_is_a_number(scenes, monkeypatch):
    """The warm-up takes the same picture once more; what is measured is never empty."""
    seen = []
    monkeypatch.setattr(tester, "find", lambda network, pipeline, picture: seen.append(picture))
    one = list(datasets.load(str(scenes)).annotations("test"))[:1]
    result = tester.measure_speed(None, None, one, torch.device("cpu"))
    assert len(seen) == 2 and 0 < result["seconds_a_picture"] < 10 and result["pictures_per_second"] > 0.1


def test_exported_weights_score_the_same(run, scenes, tmp_path):
    file = tmp_path / "rtmdet-tiny.safetensors"
    tester.main(["--run", str(run), "--export", str(file), "--device", "cpu"])
    _, meta = utils.load_weights(file)
    assert meta["classes"] == ["balloon", "boat", "car", "house", "tree"] and meta["image_size"] == 96
    assert meta["command"] == utils.command_of(utils.read_arguments(run), train.parse([]))
    tester.main(["--weights", str(file), "--device", "cpu", "--out", str(tmp_path / "out")])
    one, two = (json.loads((p / "test.json").read_text("utf-8")) for p in (run, tmp_path / "out"))
    assert one["classes"] == two["classes"] and one["coco"] == two["coco"]
    assert meta["score"]["mAP50_area"] == two["mAP50_area"]


@pytest.mark.parametrize(("size", "overlap"), [((100, 230), 0.2), ((64, 64), 0.2), ((65, 300), 0.5), ((30, 500), 0)])
def test_tiles_cover_the_picture_and_overlap(size, overlap):
    tiles = tester.tiles_of(*size, 64, overlap)
    covered = np.zeros(size, int)
    for left, top, right, bottom in tiles:
        assert right - left == min(64, size[1]) and bottom - top == min(64, size[0])
        covered[top:bottom, left:right] += 1
    assert covered.min() == 1 and (len(tiles) == 1) == (max(size) <= 64)
    for axis in (0, 1):
        starts = sorted({tile[axis] for tile in tiles})
        assert all(b - a <= 64 * (1 - overlap) + 1 for a, b in zip(starts, starts[1:], strict=False))


def test_each_thing_is_found_once_in_tiles():
    """A detector that sees white rectangles, but none in a picture as large as the whole."""
    picture = np.zeros((100, 230, 3), np.uint8)
    truth = [(5, 5, 25, 25), (58, 30, 78, 50), (150, 60, 175, 85)]
    for left, top, right, bottom in truth:
        picture[top:bottom, left:right] = 255

    def find_in(piece):
        count, _, stats, _ = cv2.connectedComponentsWithStats((piece[..., 0] > 0).astype(np.uint8))
        boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:]], np.float32).reshape(-1, 4)
        if piece.shape[1] == 230:
            boxes = boxes[:0]
        return boxes, np.linspace(0.9, 0.5, len(boxes), dtype=np.float32), np.zeros(len(boxes), int)

    boxes, scores, labels = tester.find_in_tiles(find_in, picture, 64, 0.5)
    assert sorted(map(tuple, boxes.tolist())) == sorted(truth) and len(labels) == 3 and (np.diff(scores) <= 0).all()


def test_other_classes_in_one_place_stay():
    boxes = np.array([(0, 0, 10, 10), (0, 0, 10, 10), (1, 0, 10, 10)], float)
    kept = tester.once(boxes, np.array([0.5, 0.6, 0.7]), np.array([0, 1, 0]), np.zeros(3, bool))
    assert kept[1].tolist() == [0.7, 0.6] and kept[2].tolist() == [0, 1]


def test_a_test_in_tiles_measures_the_same_pictures(run, tmp_path):
    tester.main(["--run", str(run), "--device", "cpu", "--tiles", "128", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "test.json").read_text("utf-8"))
    assert result["pictures"] == 12 and result["tiles"] == 128 and 0 <= result["coco"]["AP"] <= 1


def boxes_of(run, picture):
    """What the network finds on one picture, by the very classes that test.py is made of."""
    words = tester.parse(["--run", str(run)])
    config, state, meta, path = tester.load_detector(words)
    network = tester.fill(models.make_network(config), state, path, torch.device("cpu"))
    return tester.find(network, tester.make_pipeline(config), picture), meta["classes"]


def test_draws_on_files_and_folders(run, scenes, tmp_path, capsys):
    """The boxes of a picture that score best are listed, and drawn in its own pixels."""
    pictures = sorted((scenes / "JPEGImages").glob("test*.jpg"))[:3]
    (tmp_path / "album").mkdir()
    for picture in pictures[1:]:
        (tmp_path / "album" / picture.name).write_bytes(picture.read_bytes())
    (boxes, scores, labels), classes = boxes_of(run, tester.read_pixels(pictures[0]))
    gaps = scores[:9] - scores[1:10]
    count = int(gaps.argmax()) + 1  # where scores are far apart: a rounding must not let one more in
    score = float((scores[count - 1] + scores[count]) / 2)
    words = [str(pictures[0]), str(tmp_path / "album"), "--run", str(run), "--score", str(score)]
    tester.main([*words, "--out", str(tmp_path / "out"), "--device", "cpu"])
    results = json.loads((tmp_path / "out" / "predictions" / "predictions.json").read_text("utf-8"))
    assert len(results) == 3
    rows = results[str(pictures[0])]
    assert [row["class"] for row in rows] == [classes[label] for label in labels[:count]]
    assert [row["box"] for row in rows] == [pytest.approx(box, abs=0.06) for box in boxes[:count].tolist()]
    before, after = (np.asarray(Image.open(path), int) for path in
                     (pictures[0], tmp_path / "out" / "predictions" / f"0001-{pictures[0].stem}.jpg"))  # fmt: skip
    changed = np.abs(before - after).max(2) > 60
    assert changed.any() and not changed.all()


def test_draws_on_a_video_frame_by_frame(run, scenes, tmp_path, capsys):
    clip = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"mp4v"), 10, (160, 128))
    for picture in sorted((scenes / "JPEGImages").glob("test*.jpg"))[:5]:
        writer.write(cv2.imread(str(picture)))
    writer.release()
    words = ["--run", str(run), "--score", "0.05", "--out", str(tmp_path), "--device", "cpu"]
    tester.main([str(clip), "--frames", "4", *words])
    frames = json.loads((tmp_path / "predictions" / "predictions.json").read_text("utf-8"))[str(clip)]
    drawn = list(tester.read_frames(tmp_path / "predictions" / "0001-clip-detections.mp4", None))
    assert len(frames) == len(drawn) == 4 and drawn[0][0].shape == (128, 160, 3) and drawn[0][1] == 10
    (tmp_path / "fake.mp4").write_text("no video")
    (tmp_path / "other").mkdir()
    shutil.copy(clip, tmp_path / "other" / "clip.mp4")
    capsys.readouterr()
    with pytest.raises(SystemExit, match="1 of 3 files could not be read, the first being .*fake.mp4"):
        tester.main(
            [str(clip), str(tmp_path / "fake.mp4"), str(tmp_path / "other" / "clip.mp4"), "--frames", "1", *words]
        )
    assert "fake.mp4: not a video that can be read" in capsys.readouterr().out
    answers = json.loads((tmp_path / "predictions" / "predictions.json").read_text("utf-8"))
    assert len(answers) == 2 and (tmp_path / "predictions" / "0002-clip-detections.mp4").exists()
    with pytest.raises(SystemExit, match="camera 97: cannot be opened"):
        tester.main(["--camera", "97", *words])


def test_a_file_that_is_no_picture_is_named_and_the_others_are_answered(run, tmp_path, capsys):
    (tmp_path / "letter.png").write_text("dear reader")
    (tmp_path / "empty.png").write_text("")
    Image.new("L", (40, 30)).save(tmp_path / "grey.png")
    words = ["--run", str(run), "--out", str(tmp_path), "--device", "cpu"]
    names = [str(tmp_path / f"{name}.png") for name in ("letter", "empty", "grey")]
    with pytest.raises(SystemExit, match="2 of 3 files could not be read, the first being .*letter.png"):
        tester.main([*names, *words])
    assert "grey.png: nothing" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no such file"):
        tester.main([str(tmp_path / "gone.png"), *words])


def test_weights_that_do_not_fit_are_refused(run, scenes, tmp_path):
    state = utils.load_checkpoint(run / "best.pth")["state_dict"]
    network = models.make_network(tester.train.read_config(str(run / "config.py")))
    network.load_state_dict(state)
    meta = {"arch": "fcos", "size": "tiny", "classes": ["a", "b"], "data": str(scenes), "image_size": 96}
    utils.save_weights(tmp_path / "wrong.safetensors", tester.unshared(network), **meta)
    utils.save_weights(tmp_path / "bare.safetensors", tester.unshared(network), arch="fcos")
    (tmp_path / "cut.pth").write_bytes((run / "best.pth").read_bytes()[:1000])
    torch.save({"state": {}}, tmp_path / "other.pth")
    config = ["--config", str(run / "config.py")]
    for name, more, message in (
        ("wrong.safetensors", ["--data", str(scenes)], "knows the classes a, b; .*scenes has balloon, boat"),
        ("bare.safetensors", [], "not of a run of this chapter"),
        ("cut.pth", config, "not a checkpoint that can be read"),
        ("cut.pth", [], "no config.py beside it"),
        ("other.pth", config, "not a checkpoint of mmengine"),
        ("gone.pth", config, "no such checkpoint"),
    ):
        with pytest.raises(SystemExit, match=message):
            tester.main(["--weights", str(tmp_path / name), *more, "--device", "cpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="wrong.safetensors: the weights in it are not those of the FCOS"):
        tester.main(["--weights", str(tmp_path / "wrong.safetensors"), str(scenes), "--out", str(tmp_path)])


def test_shipped_weights_load_and_state_their_score(tmp_path):
    """They were trained on the sample; on scenes drawn here, from other seeds, they find most things."""
    _, meta = utils.load_weights(tester.WEIGHTS)
    assert meta["data"] == meta["score"]["tested_on"] == "sample" and meta["score"]["mAP50_area"] >= 0.7
    assert meta["command"].startswith("python train.py --arch fcos --size tiny --data sample")
    datasets.write_sample(tmp_path / "unseen", {"unused": 1, "train": 1, "val": 1, "test": 30})
    words = ["--weights", str(tester.WEIGHTS), "--data", str(tmp_path / "unseen"), "--out", str(tmp_path)]
    tester.main([*words, "--device", "cpu"])
    assert json.loads((tmp_path / "test.json").read_text("utf-8"))["mAP50_area"] > 0.6


def test_the_command_in_exported_weights_repeats_the_run():
    every = """--data shop --limit 9 --classes cat,dog --no-val --arch rtmdet --size tiny --config my.py
        --weights none --epochs 2 --batch-size 3 --lr 0.01 --image-size 96 --seed 3 --precision bf16"""
    args, usual = train.parse(every.split()), train.parse([])
    elsewhere = dict.fromkeys(utils.ON_THIS_MACHINE)  # where it was trained, and on what, does not matter
    not_tried = [name for name in vars(args) if vars(args)[name] == vars(usual)[name] and name not in elsewhere]
    assert not_tried == ["patience", "quick"]  # --no-val takes no --patience
    command = utils.command_of(json.loads(json.dumps(vars(args))), usual)
    again = train.parse(shlex.split(command)[2:])
    assert vars(again) | elsewhere == vars(args) | elsewhere
