"""models.py: every detector learns and detects, takes our classes, and any configuration of mmdet takes our data."""

import hashlib

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine import Config
from mmengine.structures import InstanceData

import models
import utils

CLASSES = ("cat", "dog", "cow")


def batch_of_two():
    """Two pictures of noise, the first with two things in it, the second empty. Their sides are no multiples of 32."""
    samples = []
    for boxes in ([[10.0, 10, 50, 60], [70, 20, 120, 88]], []):
        meta = {"img_shape": (90, 121), "ori_shape": (90, 121), "scale_factor": (1.0, 1.0), "border": (0, 90, 0, 121)}
        sample = DetDataSample(metainfo=meta)
        boxes = torch.tensor(boxes).reshape(-1, 4)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    return {
        "inputs": [torch.randint(0, 256, (3, 90, 121), dtype=torch.uint8) for _ in samples],
        "data_samples": samples,
    }


@pytest.mark.parametrize("arch", models.FILES)
def test_every_small_detector_learns_from_and_detects_with_our_classes(arch):
    torch.manual_seed(0)
    network = models.make_network(models.build(arch, "tiny", CLASSES, "sample"))
    network.init_weights()
    losses = network(**network.data_preprocessor(batch_of_two(), training=True), mode="loss")
    total = sum(value.sum() for name, value in network.parse_losses(losses)[1].items() if name.startswith("loss_"))
    assert torch.isfinite(total)
    network.parse_losses(losses)[0].backward()
    untouched = [name for name, p in network.named_parameters() if p.grad is None]
    assert not untouched, untouched
    for found in network.eval().test_step(batch_of_two()):
        assert set(found.pred_instances.labels.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("arch", "size", "parameters"),
    [
        # torchvision's documentation: 41,755,286 with 91 outputs and boxes, and its 53,120 of batch norm not counted
        ("faster_rcnn", "full", 41_755_286 + 53_120 - 5 * 91 * 1025 + (4 + 4 * 3) * 1025),
        ("retinanet", "full", 36_371_327),
        ("fcos", "tiny", 980_251),
    ],
)
def test_has_the_stated_parameters(arch, size, parameters):
    assert models.count_parameters(models.make_network(models.build(arch, size, CLASSES, "voc2007"))) == parameters


def types_in(node):
    """Every `type` in a configuration."""
    if isinstance(node, dict):
        return {node.get("type")} | {kind for child in node.values() for kind in types_in(child)}
    return {kind for child in node for kind in types_in(child)} if isinstance(node, (list, tuple)) else set()


@pytest.mark.parametrize("arch", models.FILES)
def test_the_full_size_is_mmdets_own_with_our_data(arch):
    theirs = Config.fromfile(models.config_folder() / models.FILES[arch][0])
    ours = models.build(arch, "full", CLASSES, "voc0712", "somewhere")
    assert types_in(ours.model) - {None} <= types_in(theirs.model) | {"BN"}
    assert ours.train_cfg.max_epochs == theirs.train_cfg.max_epochs
    for name, part in (("train", "train"), ("val", "val"), ("test", "test")):
        leaf = ours[f"{name}_dataloader"].dataset
        while "dataset" in leaf:
            leaf = leaf.dataset
        assert (leaf.type, leaf.data, leaf.root, leaf.part) == ("VocFolder", "voc0712", "somewhere", part)
        assert leaf.metainfo.classes == list(CLASSES) and leaf.pipeline[0].type == "LoadImageFromFile"
    assert types_in(ours.train_dataloader.dataset) >= types_in(theirs.train_dataloader.dataset) - {
        "VOCDataset",
        "CocoDataset",
        "ConcatDataset",
    }
    assert ours.model.backbone.get("init_cfg") is None  # --weights none


def test_the_voc_recipe_is_the_published_one():
    """Faster R-CNN R50-FPN, 07+12: the trainval parts three times an epoch, four epochs, rate 0.01 for 16 pictures a step."""
    config = models.build("faster_rcnn", "full", CLASSES, "voc0712", no_val=True)
    assert config.train_dataloader.dataset.type == "RepeatDataset" and config.train_dataloader.dataset.times == 3
    assert config.train_dataloader.dataset.dataset.part == "train+val" and config.val_dataloader is None
    assert config.train_cfg.max_epochs == 4 and config.param_scheduler[0].milestones == [3]
    assert config.optim_wrapper.optimizer.lr == 0.01
    assert config.auto_scale_lr.enable and config.auto_scale_lr.base_batch_size == 16


@pytest.mark.parametrize("epochs", [1, 2, 7, 24, 100])
@pytest.mark.parametrize("arch", ["fcos", "faster_rcnn", "yolox", "rtmdet"])
@pytest.mark.parametrize("size", models.SIZES)
def test_the_schedule_is_stretched_as_a_whole(arch, size, epochs):
    config = models.build(arch, size, CLASSES, "sample", epochs=epochs)
    assert config.train_cfg.max_epochs == epochs
    for schedule in config.param_scheduler:
        if schedule.get("by_epoch", True):
            assert 0 <= schedule.begin < schedule.end and schedule.begin < epochs
            assert all(0 < milestone <= epochs for milestone in schedule.get("milestones", []))
    for hook in config.custom_hooks:
        assert hook.get("switch_epoch", 0) <= epochs and hook.get("num_last_epochs", 0) <= epochs


def test_what_never_learned_is_not_frozen(tmp_path):
    scratch = models.build("retinanet", "full", CLASSES, "sample")
    state = models.make_network(scratch).state_dict()
    torch.save(
        {"state_dict": {name: t for name, t in state.items() if "retina_cls" not in name}}, tmp_path / "start.pth"
    )
    tuned = models.build("retinanet", "full", CLASSES, "sample", weights=str(tmp_path / "start.pth"))
    assert (scratch.model.backbone.frozen_stages, scratch.model.backbone.norm_eval) == (-1, False)
    assert (tuned.model.backbone.frozen_stages, tuned.model.backbone.norm_eval) == (1, True)
    assert tuned.load_from == str(tmp_path / "start.pth")
    with pytest.raises(
        SystemExit, match="start.pth: of another network; [0-9]+ of the [0-9]+ tensors of this FasterRCNN fit"
    ):
        models.build("faster_rcnn", "tiny", CLASSES, "sample", weights=str(tmp_path / "start.pth"))


def test_weights_are_fetched_once_and_their_hash_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    torch.save({"state_dict": {}}, tmp_path / "raw.pth")
    name = f"resnet50-{hashlib.sha256((tmp_path / 'raw.pth').read_bytes()).hexdigest()[:8]}.pth"
    (tmp_path / name).write_bytes((tmp_path / "raw.pth").read_bytes())
    monkeypatch.setitem(models.BACKBONES, "torchvision://resnet50", (tmp_path / name).as_uri())
    for _ in range(2):
        config = models.build("faster_rcnn", "full", CLASSES, "sample", weights="auto")
        assert config.model.backbone.init_cfg == {
            "type": "Pretrained",
            "checkpoint": str(tmp_path / "hub/checkpoints" / name),
        }
        (tmp_path / name).unlink(missing_ok=True)  # the second time it is not asked for
    (tmp_path / "wrong-01234567.pth").write_bytes(b"something else")
    with pytest.raises(SystemExit, match="could not download .*wrong-01234567.pth by hand|could not download"):
        models.fetch((tmp_path / "wrong-01234567.pth").as_uri())
    assert not (tmp_path / "hub" / "checkpoints" / "wrong-01234567.pth").exists()


def test_mmdets_list_knows_the_coco_weights_of_every_full_detector():
    for arch, (_, file) in models.FILES.items():
        url = models.coco_weights(file)
        assert url.startswith("https://download.openmmlab.com/mmdetection/") and url.endswith(".pth"), arch


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"arch": "fcoss"}, r"no architecture 'fcoss'; did you mean fcos\? there are: faster_rcnn, .*rtmdet"),
        ({"weights": "gone.pth"}, "gone.pth: no such checkpoint"),
        ({"weights": "imagenet"}, "mmdet has none for this network"),
        ({"weights": "coco"}, "mmdet lists no weights for this configuration"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(words, message):
    with pytest.raises(SystemExit, match=message):
        models.build(**({"arch": "fcos", "size": "tiny", "classes": CLASSES, "data": "sample"} | words))


def test_a_configuration_that_counts_steps_is_refused():
    config = Config.fromfile(models.config_folder() / "pascal_voc" / "faster-rcnn_r50-caffe-c4_ms-18k_voc0712.py")
    with pytest.raises(SystemExit, match="counts its training in steps"):
        models.adapt(config, CLASSES, "sample")


def test_a_configuration_that_wants_masks_is_refused():
    config = Config.fromfile(models.config_folder() / "mask_rcnn" / "mask-rcnn_r50_fpn_1x_coco.py")
    with pytest.raises(SystemExit, match="trains on masks too"):
        models.adapt(config, CLASSES, "sample")


def test_half_a_tensor_of_noise_changes_nothing_in_numpy():
    """The seeds of a data loader's processes come from torch's, so two epochs differ and the same epoch does not."""
    import plugins

    drawn = []
    for epoch in (0, 1, 0):
        utils.seed_everything(0, epoch)
        plugins.seed_worker(0)
        drawn.append(np.random.rand(3).tolist())
    assert drawn[0] == drawn[2] != drawn[1]
