"""The Detectron2 engine: the same data, figures and files as the other. Skipped, with the reason, where it is not installed."""

import copy
import json
import os
import pickle

import numpy as np
import pytest
import torch
from conftest import thing
from test_evaluate import shaken
from test_train import SMALL, metrics, start

import datasets
import evaluate
import models
import options
import test as tester
import torchvision_engine
import train
import utils

pytest.importorskip("detectron2", reason="Detectron2 is not installed; see the README")

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.solver import build_lr_scheduler

import detectron2_engine as engine

SMALL = ["--engine", "detectron2", *SMALL[2:]]


def arguments(*words):
    args = options.parse("", ["--engine", "detectron2", "--device", "cpu", *words])
    options.fill_in_recipe(args, "scenes")
    return args


def meta_of(data, **changes):
    meta = {"engine": "detectron2", "arch": "mini", "categories": data.categories, "data": data.name, "frozen": False}
    return meta | {"mean": [0.3] * 3, "std": [0.2] * 3, "min_size": [128], "max_size": 256} | changes


def test_auto_takes_it():
    assert train.pick_engine("auto") == ("detectron2", engine)


def test_it_trains_tests_and_writes_the_same_files_as_the_other_engine(scenes, tmp_path):
    runs = [tmp_path / name for name in options.ENGINES]
    for run in runs:
        words = ["--engine", run.name, "--data", str(scenes), "--epochs", "1", "--device", "cpu"]
        train.main([*words, "--run", str(run)])
        tester.main(["--run", str(run), "--device", "cpu", "--score", "0.01", "--export", str(run / "w.safetensors")])
    own = {"last.pt", "last_checkpoint", "log.txt", "metrics.json"}
    names = [{p.name for p in run.iterdir() if not p.name.startswith(("events", "model_"))} - own for run in runs]
    assert names[0] == names[1]
    assert metrics(runs[0])[0] == metrics(runs[1])[0]
    results = [json.loads((run / "test.json").read_text("utf-8")) for run in runs]
    assert results[0].keys() == results[1].keys() and results[0]["categories"].keys() == results[1]["categories"].keys()
    assert (runs[0] / "truth.json").read_bytes() == (runs[1] / "truth.json").read_bytes()
    rows = [json.loads((run / "predictions.json").read_text("utf-8")) for run in runs]
    assert all(
        {tuple(sorted(row)) for row in r} <= {("bbox", "category_id", "image_id", "score", "segmentation")}
        for r in rows
    )
    assert utils.load_checkpoint(runs[0] / "best.pt").keys() == utils.load_checkpoint(runs[1] / "best.pt").keys()


def test_killed_and_resumed_goes_on_where_it_was(scenes, tmp_path):
    """As Detectron2's own Trainer resumes: step, weights, optimizer, rate and our rows; the order of the data begins anew."""
    words = [*SMALL, "--data", str(scenes)]
    train.main([*words, "--run", str(tmp_path / "whole")])
    killed = tmp_path / "killed"
    start(words, killed, epochs=1)
    before = metrics(killed)
    assert len(before) < 1 + 3, "it was over before the kill"
    train.main(["--resume", str(killed)])
    whole, resumed = metrics(tmp_path / "whole"), metrics(killed)
    assert resumed[: len(before) - 1] == before[:-1], "at most the epoch of the kill is done again"
    assert [row.split(",")[:2] for row in whole] == [row.split(",")[:2] for row in resumed], "the same epochs and rates"
    assert (killed / "last_checkpoint").read_text() == "model_final.pth"
    train.main(["--resume", str(killed), "--epochs", "4"])  # longer: the rate is that of the new schedule
    rate = 0.08 * 8 / 16 * options.rate_factor("cosine", 4 * 2)(3 * 2)
    assert len(metrics(killed)) == 1 + 4 and float(metrics(killed)[4].split(",")[1]) == pytest.approx(rate, rel=1e-4)
    train.main([*words, "--epochs", "9", "--lr", "1e-9", "--patience", "1", "--run", str(tmp_path / "early")])
    assert len(metrics(tmp_path / "early")) == 1 + 2, "nothing is learned, so that the second epoch is no better"


def test_a_run_of_another_network_is_refused_of_which_detectron2_would_take_what_fits(scenes, tmp_path):
    run = tmp_path / "run"
    train.main([*SMALL, "--data", str(scenes), "--epochs", "1", "--run", str(run)])
    file = run / (run / "last_checkpoint").read_text()
    whole = torch.load(file, weights_only=True)
    name = next(name for name in whole["model"] if name.endswith("weight"))
    fewer = {key: value for key, value in whole["model"].items() if key != name}
    other = whole["model"] | {name: whole["model"][name][..., :1]}
    for changed in (whole | {"model": fewer}, whole | {"model": other}):
        torch.save(changed, file)
        with pytest.raises(SystemExit, match="says mini, but the weights in it are of another network"):
            train.main(["--resume", str(run), "--epochs", "2"])
    broken = copy.deepcopy(whole)
    broken["trainer"]["_trainer"]["optimizer"]["param_groups"].pop()
    torch.save(broken, file)
    with pytest.raises(SystemExit, match="says mini, but the weights in it are of another network"):
        train.main(["--resume", str(run), "--epochs", "2"])
    file.write_bytes(pickle.dumps({"model": os.mkdir}))
    with pytest.raises(SystemExit, match="not a checkpoint that can be read"):
        train.main(["--resume", str(run), "--epochs", "2"])
    torch.save(whole, file)
    train.main(["--resume", str(run), "--epochs", "2"])
    assert len(metrics(run)) == 1 + 2


def test_the_mini_is_the_same_network_in_both_engines(scenes):
    data = datasets.load(str(scenes), parts=("val",))
    ours = torchvision_engine.build(meta_of(data))
    theirs = engine.build_model(engine.configure_network(meta_of(data), torch.device("cpu")))
    bodies = [sum(p.numel() for p in body.parameters()) for body in (ours.backbone, theirs.backbone)]
    assert bodies[0] == bodies[1]
    extra = 256 * 4 + 4 + 64 + 1  # torchvision's heads have a box and a mask for the background too
    assert models.count_parameters(ours) - models.count_parameters(theirs) == extra


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_the_rates_of_both_engines_are_the_same(schedule, tmp_path, scenes):
    data = datasets.load(str(scenes), parts=("val",))
    args, steps = arguments("--schedule", schedule), 180
    cfg = engine.configure_network(meta_of(data), torch.device("cpu"))
    engine.configure_training(cfg, args, tmp_path, steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], cfg.SOLVER.BASE_LR)
    scheduler, rates = build_lr_scheduler(cfg, optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    factor = options.rate_factor(schedule, steps)
    assert rates == pytest.approx([args.lr * args.batch_size / 16 * factor(step) for step in range(steps)], rel=1e-6)


def test_the_mapper_bears_crowds_rle_empty_and_unreadable_pictures(scenes, tmp_path, coco_file):
    data = datasets.load(str(scenes), parts=("train",))
    split = data.splits["train"]
    cfg = engine.configure_network(meta_of(data), torch.device("cpu"))
    engine.configure_training(cfg, arguments("--no-flip"), tmp_path, 10)
    mapper = engine.Mapper(split, cfg)
    theirs = [mapper(record) for record in engine.records(split, data.categories)]
    ours = torchvision_engine.Scenes(split, data.categories, flip=False, seed=0)
    for i, record in enumerate(theirs):
        pixels, target = ours[i]
        assert torch.equal(record["image"], (255 * pixels).round().byte())
        assert torch.equal(record["instances"].gt_classes, target["labels"] - 1)
        assert torch.allclose(record["instances"].gt_boxes.tensor, target["boxes"])
        if len(target["labels"]):
            assert torch.equal(record["instances"].gt_masks.tensor, target["masks"].bool())
    assert len(theirs[0]["instances"]) == 0
    path = coco_file(annotations=[thing()])
    (path.parents[1] / "train" / "a.png").write_bytes(b"no picture")
    categories, bad = datasets.read_annotations(path)
    assert engine.Mapper(bad, cfg)(engine.records(bad, categories)[0]) is None


def test_figures_equal_detectron2s_own_evaluator(scenes, tmp_path):
    data = datasets.load(str(scenes), parts=("train",))
    truth = data.splits["train"].truth(data.categories)
    results = shaken(data.splits["train"], data.categories)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    name = f"figures-{tmp_path.name}"
    MetadataCatalog.get(name).set(
        json_file=str(tmp_path / "truth.json"),
        thing_classes=[category["name"] for category in data.categories],
        thing_dataset_id_to_contiguous_id={category["id"]: i for i, category in enumerate(data.categories)},
    )
    DatasetCatalog.register(name, list)
    evaluator = COCOEvaluator(name, ("bbox", "segm"), distributed=False, use_fast_impl=False)
    labels = MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id
    rows = [dict(row, category_id=labels[row["category_id"]]) for row in results]
    evaluator._predictions = [{"image_id": 1, "instances": rows}]
    theirs = evaluator.evaluate()
    ours, _ = evaluate.measure(truth, results)
    for kind, task in (("box", "bbox"), ("mask", "segm")):
        for figure, key in (("AP", "AP"), ("AP50", "AP50"), ("AP_small", "APs"), ("AP_large", "APl")):
            assert 100 * (ours[kind][figure] or 0) == pytest.approx(np.nan_to_num(theirs[task][key]), abs=1e-9)
        for category, row in ours["categories"].items():
            assert 100 * row[f"{kind}_AP"] == pytest.approx(theirs[task][f"AP-{category}"], abs=1e-9)


def test_the_r50_from_random_weights_and_from_the_zoo(scenes, tmp_path):
    data = datasets.load(str(scenes), parts=("val",))
    scratch = engine.configure_network(meta_of(data, arch="mask_rcnn_r50_fpn"), torch.device("cpu"))
    assert (scratch.MODEL.RESNETS.NORM, scratch.MODEL.FPN.NORM, scratch.MODEL.BACKBONE.FREEZE_AT) == ("BN", "GN", 0)
    assert scratch.INPUT.FORMAT == "RGB" and scratch.MODEL.PIXEL_STD == [51.0] * 3
    coco = engine.coco_meta()
    assert len(coco["categories"]) == 80 and coco["categories"][16] == {"id": 18, "name": "dog"}
    zoo = engine.configure_network(coco, torch.device("cpu"))
    assert zoo.MODEL.RESNETS.NORM == "FrozenBN" and zoo.INPUT.FORMAT == "BGR"
    assert np.allclose(zoo.MODEL.PIXEL_MEAN, [103.53, 116.28, 123.675]) and np.allclose(zoo.MODEL.PIXEL_STD, 1)
    donor = engine.build_model(zoo).state_dict()
    arrays = {key: value.numpy() for key, value in donor.items() if "pixel" not in key}
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "test"}, protocol=2))
    state = engine.read_zoo(path)
    assert all(torch.equal(state[key], donor[key]) for key in state)
    predict = engine.make_predictor(coco, state, torch.device("cpu"), "zoo")
    found = predict([np.zeros((60, 80, 3), np.uint8)])[0]
    assert found["masks"].shape[1:] == (60, 80)


def test_a_zoo_file_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return __import__("os").mkdir, (str(tmp_path / "trapped"),)

    (tmp_path / "trap.pkl").write_bytes(pickle.dumps({"model": Trap()}))
    with pytest.raises(SystemExit, match="not a file of Detectron2's model zoo"):
        engine.read_zoo(tmp_path / "trap.pkl")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "bf16"], "Detectron2's mixed precision needs CUDA"),
        (["--num-gpus", "99"], "--num-gpus 99: this PyTorch sees"),
        (["--lr", "1e9"], "the loss is not finite"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusals of a machine without CUDA")
def test_nonsense_is_refused_in_one_line(words, message, scenes, tmp_path):
    with pytest.raises(SystemExit, match=message):
        train.main([*SMALL, "--data", str(scenes), "--run", str(tmp_path / "run"), *words])
