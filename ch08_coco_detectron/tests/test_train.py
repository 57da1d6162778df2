"""Training with torchvision as a whole: it learns, it resumes exactly after a kill, it bears odd data, it refuses nonsense."""

import sys
import time
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import START, end, fork, fork_two, kill, thing
from PIL import Image

import datasets
import models
import options
import torchvision_engine as engine
import train
import utils

SMALL = ["--engine", "torchvision", "--epochs", "3", "--batch-size", "8", "--min-size", "64", "--device", "cpu"]


def metrics(run):
    return (run / "metrics.csv").read_text("utf-8").splitlines()


def assert_same_run(one, other):
    """The same metrics.csv, byte for byte, and the same weights and optimizer state, bit for bit."""
    assert metrics(one) == metrics(other)
    for name in ("last.pt", "best.pt"):
        first, second = (utils.load_checkpoint(run / name) for run in (one, other))
        assert first["epoch"] == second["epoch"]
        assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    states = [utils.load_checkpoint(run / "last.pt")["optimizer"]["state"] for run in (one, other)]
    assert all(torch.equal(a, states[1][i][key]) for i in states[0] for key, a in states[0][i].items())


def start(words, run, epochs):
    """Starts train.py and kills it with signal 9 once `epochs` epochs are in `run`."""
    output = run.with_name(f"{run.name}.txt")
    process = fork([*words, "--run", run], output)
    deadline = time.time() + 300
    while not (run / "metrics.csv").exists() or len(metrics(run)) < 1 + epochs:
        assert process.is_alive(), output.read_text()
        assert time.time() < deadline
        time.sleep(0.005)
    kill([process])


def test_killed_and_resumed_equals_never_killed(scenes, tmp_path):
    words = [*SMALL, "--epochs", "4", "--data", str(scenes)]
    train.main([*words, "--run", str(tmp_path / "whole")])
    killed = tmp_path / "killed"
    start(words, killed, epochs=2)
    assert len(metrics(killed)) < 1 + 4, "it was over before the kill"
    assert (killed / "last.pt").exists(), "there is something to resume from"
    train.main(["--resume", str(killed)])
    assert_same_run(tmp_path / "whole", killed)


@pytest.mark.skipif(START != "fork", reason="its processes must inherit what this test has replaced")
def test_two_processes_train_one_network(scenes, tmp_path, monkeypatch):
    run, validate = tmp_path / "run", engine.validate

    def compare(model, *words):
        mine = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        both = [torch.zeros_like(mine), torch.zeros_like(mine)]
        dist.all_gather(both, mine)
        assert torch.equal(*both), "each process has trained a network of its own"
        return validate(model, *words)

    monkeypatch.setattr(engine, "validate", compare)
    said = tmp_path / "said.txt"
    codes = end(fork_two([*SMALL, "--epochs", "1", "--data", scenes, "--run", run], said))
    assert codes == [0, 0], said.read_text()
    assert len(metrics(run)) == 2 and not any(
        "module." in key for key in utils.load_checkpoint(run / "last.pt")["model"]
    )


def test_learns_the_scenes_it_sees(scenes, tmp_path, device):
    """Two scenes, seen eighty times: the loss falls below two thirds, and most of their masks are found."""
    run = tmp_path / "run"
    words = ["--engine", "torchvision", "--data", str(scenes), "--limit", "2", "--batch-size", "2", "--no-flip"]
    args = options.parse("", [*words, "--epochs", "5", "--lr", "0.1", "--device", device, "--run", str(run)])
    options.fill_in_recipe(args, "scenes")
    data = datasets.load(str(scenes), limit=2)
    two, data.splits["val"] = data.splits["train"], data.splits["train"].take([])  # measured once, below
    data.splits["train"] = two.take(two.images * 16)
    run.mkdir()
    history = engine.train(args, data, train.describe(args, data, None), run, None, torch.device(device))
    assert history[-1]["train_loss"] < 0.67 * history[0]["train_loss"]
    saved = utils.load_checkpoint(run / "last.pt")
    predict = engine.make_predictor(saved["meta"], saved["model"], torch.device(device), "last.pt")
    row = engine.evaluate.validate(predict, two, data.categories)
    assert row["val_mask_ap50"] > 0.3


def test_bf16(scenes, tmp_path):
    run = tmp_path / "run"
    train.main(
        [*SMALL, "--epochs", "1", "--limit", "8", "--precision", "bf16", "--data", str(scenes), "--run", str(run)]
    )
    assert utils.load_checkpoint(run / "last.pt")["model"]["backbone.stem.0.weight"].dtype == torch.float32


def test_each_of_the_five_losses_is_noted_under_its_name(monkeypatch):
    """The network's losses are told; and a second process has other ones."""

    class Told(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, images, targets):
            names = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
            return {name: self.weight * 0 + number for number, name in enumerate(names, 1)}

    def other_process(totals):  # which has done as many steps, with losses of 11 to 15
        totals += torch.tensor([totals[0], *(totals[0] * number for number in range(11, 16))])

    args = SimpleNamespace(precision="fp32", lr=0.1)
    model = Told()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1)
    words = (model, [([torch.zeros(3, 4, 4)], [{}])] * 3, optimizer, scheduler, args, torch.device("cpu"), 0)
    alone = {"class": 1, "box": 2, "mask": 3, "rpn_class": 4, "rpn_box": 5}
    assert engine.train_one_epoch(*words) == {"train_loss": 15} | alone
    monkeypatch.setattr(engine, "world", lambda: 2)
    monkeypatch.setattr(engine.dist, "all_reduce", other_process)
    assert engine.train_one_epoch(*words) == {"train_loss": 40} | {name: value + 5 for name, value in alone.items()}


def test_a_refused_resume_leaves_the_run_as_it_is(scenes, tmp_path):
    run = tmp_path / "run"
    words = [*SMALL, "--epochs", "1", "--data", str(scenes), "--limit", "8", "--run", str(run)]
    train.main(words)
    before = (run / "args.json").read_bytes()
    with pytest.raises(SystemExit, match="leave out --arch"):
        train.main(["--resume", str(run), "--arch", "mask_rcnn_r50_fpn"])
    assert (run / "args.json").read_bytes() == before
    train.main(words)
    assert (tmp_path / "run-2" / "last.pt").exists(), "a second run of the same name goes beside the first"


def test_a_run_of_another_network_ends_in_one_line(tmp_path):
    """As after a change of models.py, or of the optimizer's groups, between two parts of a run."""
    layer, wider = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    optimizer, other = torch.optim.SGD(layer.parameters(), 0.1), torch.optim.SGD([layer.weight], 0.1)
    for saved, states in ((wider, optimizer), (layer, other)):
        last = {"meta": {"arch": "x"}, "model": saved.state_dict(), "optimizer": states.state_dict()}
        utils.save_checkpoint(tmp_path / "last.pt", last)
        with pytest.raises(SystemExit, match="last.pt: says x, but the weights in it are of another network"):
            engine.restore(tmp_path, Namespace(arch="x", resume=str(tmp_path)), layer, optimizer)


# ---- odd data ---------------------------------------------------------------------------------------------------------


def step_on(split, categories, arch="mini", **sizes):
    """One step of training on all pictures of a split -> the loss."""
    meta = {"arch": arch, "categories": categories, "mean": [0.4] * 3, "std": [0.2] * 3, "frozen": False}
    model = engine.build(meta | {"min_size": [64], "max_size": 128} | sizes).train()
    scenes = engine.Scenes(split, categories, flip=True, seed=0)
    images, targets = engine.collate([scenes[i] for i in range(len(scenes))])
    loss = sum(model(images, targets).values())
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    return loss.item()


@pytest.mark.parametrize("kind", ["no objects", "one pixel", "500 objects", "16 bits", "grey", "crowd alone"])
def test_odd_pictures_are_trained_on(coco_file, kind):
    images = [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 90} for i in (1, 2)]
    rows = {
        "no objects": [], "one pixel": [thing(1, box=(7, 9, 1, 1))], "16 bits": [thing()], "grey": [thing()],
        "500 objects": [thing(i, box=(3 * (i % 30), 4 * (i // 30), 3, 4)) for i in range(1, 501)],
        "crowd alone": [thing(iscrowd=1, segmentation={"size": [90, 100], "counts": [200, 300, 8500]})],
    }[kind]  # fmt: skip
    path = coco_file(images, [*rows, thing(900, 2)])
    if kind in ("16 bits", "grey"):
        pixels = np.arange(9000, dtype=np.uint16 if kind == "16 bits" else np.uint8).reshape(90, 100)
        Image.fromarray(pixels).save(path.parents[1] / "train" / "1.png")
    categories, split = datasets.read_annotations(path)
    alone = split.take(split.images[:1])
    assert np.isfinite(step_on(alone, categories)) and np.isfinite(step_on(split, categories))


def test_crowds_are_no_training_objects(coco_file):
    _, split = datasets.read_annotations(coco_file(annotations=[thing(1), thing(2, box=(20, 5, 9, 9), iscrowd=1)]))
    _, target = engine.Scenes(split, [{"id": 3, "name": "cat"}], flip=False, seed=0)[0]
    assert (
        target["boxes"].tolist() == [[5, 5, 15, 13]] and target["labels"].tolist() == [1] and len(target["masks"]) == 1
    )


def test_a_mirrored_picture_keeps_its_masks_inside_its_boxes(scenes):
    data = datasets.load(str(scenes), parts=("train",))
    ours = engine.Scenes(data.splits["train"], data.categories, flip=True, seed=0)
    plain = engine.Scenes(data.splits["train"], data.categories, flip=False, seed=0)
    mirrored = 0
    for i in range(len(ours)):
        pixels, target = ours[i]
        mirrored += not torch.equal(pixels, plain[i][0])
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            y, x = mask.nonzero().unbind(1)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    assert 2 < mirrored < 14


def test_a_picture_that_cannot_be_read_is_named_and_the_run_goes_on(coco_file, tmp_path, capsys):
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(1, 21)]
    path = coco_file(images, [thing(i, i, box=(10, 10, 30, 30)) for i in range(1, 21)])
    (path.parents[1] / "train" / "7.png").write_bytes(b"no picture")
    Image.new("RGB", (64, 65)).save(path.parents[1] / "train" / "8.png")
    train.main([*SMALL, "--epochs", "1", "--data", str(path), "--run", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert (
        "7.png: cannot identify image" in said and "8.png: has 64 x 65 pixels, but its annotations say 64 x 64" in said
    )
    assert len(metrics(tmp_path / "run")) == 2


# ---- networks and weights ---------------------------------------------------------------------------------------------


def test_the_r50_trains_from_random_weights(scenes):
    data = datasets.load(str(scenes), parts=("train",), limit=2)
    assert np.isfinite(step_on(data.splits["train"], data.categories, "mask_rcnn_r50_fpn"))


def test_coco_weights_start_a_run_on_other_categories(scenes, monkeypatch, capsys):
    """Weights as torchvision's are shaped: 91 classes. All but the last layers are taken over, and statistics are fixed."""
    donor = models.build("mask_rcnn_r50_fpn", 91, frozen=True).state_dict()
    monkeypatch.setattr(engine, "coco_state", lambda: donor)
    args = options.parse("", ["--arch", "mask_rcnn_r50_fpn", "--engine", "torchvision", "--data", str(scenes)])
    options.fill_in_recipe(args, "scenes")
    data = datasets.load(str(scenes), limit=2)
    start_from = train.starting_weights(args, engine)
    meta = train.describe(args, data, start_from)
    assert meta["frozen"] and meta["mean"] == engine.IMAGENET["mean"]
    model = engine.build(meta)
    engine.start_from(model, start_from["model"], "coco")
    own = model.state_dict()
    assert own["roi_heads.box_predictor.cls_score.weight"].shape[0] == 6
    assert all(torch.equal(own[key], donor[key]) for key in own if "predictor" not in key)
    assert "tensors of the last layers do not fit" in capsys.readouterr().out
    assert len(engine.coco_meta()["categories"]) == 90 and engine.coco_meta()["categories"][17]["name"] == "dog"


def test_shared_weights_start_a_run_and_others_are_refused(tmp_path, scenes):
    model = models.build("mini", 3)
    meta = {"engine": "torchvision", "arch": "mini", "mean": [0.5] * 3, "std": [0.25] * 3, "frozen": False}
    utils.save_weights(tmp_path / "two.safetensors", model, **meta)
    args = options.parse("", ["--engine", "torchvision", "--weights", str(tmp_path / "two.safetensors")])
    state = train.starting_weights(args, engine)["model"]
    assert torch.equal(state["backbone.stem.0.weight"], model.backbone.stem[0].weight)
    args.arch = "mask_rcnn_r50_fpn"
    with pytest.raises(SystemExit, match="holds a mini of torchvision, not a mask_rcnn_r50_fpn of torchvision"):
        train.starting_weights(args, engine)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("step", {0: 0.001, 50: 0.5005, 100: 1.0, 599: 1.0, 667: 0.1, 889: 0.01}),
        ("cosine", {0: 0.001, 100: 0.97553, 500: 0.5, 1000: 0.0}),
    ],
)
def test_schedules_pass_the_stated_rates(schedule, shares):
    factor = options.rate_factor(schedule, 1000)
    assert {step: factor(step) for step in shares} == pytest.approx(shares, abs=1e-4)


def test_a_loss_that_is_no_number_stops_the_run(scenes, tmp_path, monkeypatch):
    real = engine.Scenes.__getitem__

    def overflow(self, index):
        pixels, target = real(self, index)
        return pixels * (torch.inf if self.epoch == 1 else 1), target

    monkeypatch.setattr(engine.Scenes, "__getitem__", overflow)
    with pytest.raises((SystemExit, AssertionError), match="not finite|NaN"):
        train.main([*SMALL, "--data", str(scenes), "--limit", "8", "--run", str(tmp_path / "run")])
    saved = utils.load_checkpoint(tmp_path / "run" / "last.pt")
    assert saved["epoch"] == 1 and all(t.isfinite().all() for t in saved["model"].values() if t.is_floating_point())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arch", "minni"], "no architecture 'minni'; did you mean mini?"),
        (["--data", "nowhere"], "--data nowhere: not coco, sample or auto"),
        (["--resume", "nowhere"], "no args.json there"),
        (["--patience", "0"], "argument --patience: '0': must be a whole number, 1 or more"),
        (["--weights", "coco"], "there are COCO weights for mask_rcnn_r50_fpn only"),
        (["--compile"], "--compile: a detector's shapes change"),
        (["--num-gpus", "2"], "--num-gpus is Detectron2's"),
        (["--batch-size", "0"], "argument --batch-size: '0': must be a whole number, 1 or more"),
        (["--min-size", "8"], "argument --min-size: '8': must be a whole number, 32 or more"),
    ],
)
def test_nonsense_is_refused_in_one_line(words, message, scenes):
    with pytest.raises(SystemExit) as refusal:
        train.main(["--engine", "torchvision", "--device", "cpu", "--data", str(scenes), *words])
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU, so asking for one is no error")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(SystemExit, match="--device cuda: this PyTorch .* sees no such device"):
        train.main(["--device", "cuda"])


def test_an_engine_that_does_not_import_is_refused_and_auto_takes_the_other(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2_engine", None)
    assert train.pick_engine("auto")[0] == "torchvision"
    with pytest.raises(SystemExit, match="--engine detectron2: it does not import here .* see the README"):
        train.pick_engine("detectron2")
