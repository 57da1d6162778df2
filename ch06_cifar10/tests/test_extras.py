"""Mixup, the vision Transformer and Grad-CAM: against numbers worked out by hand, and against what must be so."""

import random
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import augment
import datasets
import gradcam
import models
import train
import utils

CPU = torch.device("cpu")


# ---- mixup -----------------------------------------------------------------------------------------------------------


def test_mixup_lays_two_pictures_over_each_other():
    random.seed(0)
    torch.manual_seed(0)
    images = torch.randn(5, 3, 4, 4)
    mixed, other, share = augment.mixup(images, 1.0)
    assert 0.5 <= share < 1 and sorted(other.tolist()) == list(range(5))
    torch.testing.assert_close(mixed, share * images + (1 - share) * images[other])


@pytest.mark.parametrize(("alpha", "mean"), [(0.2, 0.899), (1.0, 0.75)])
def test_a_small_alpha_mixes_little(alpha, mean):
    """The mean of max(b, 1 - b) for b of Beta(alpha, alpha); for alpha 1, of a number between 1/2 and 1."""
    random.seed(0)
    shares = [augment.mixup(torch.zeros(2, 3, 1, 1), alpha)[2] for _ in range(2000)]
    assert sum(shares) / 2000 == pytest.approx(mean, abs=0.02)


def test_the_loss_is_mixed_as_the_pictures_are(monkeypatch):
    """Pictures of class 0 and 1, share 3/4, and in both the second one is the other: 3/4 of the own loss, 1/4 of class 1's."""
    monkeypatch.setattr(train, "mixup", lambda images, alpha: (images * 0 + 1.0, torch.tensor([1, 1]), 0.75))

    class Pixel(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, 0.0]))

        def forward(self, x):
            return x[:, 0, 0, :1] * self.weight

    class Loader(list):
        epoch = 0

    model, loader = Pixel(), Loader([(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]))])
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    args = Namespace(mixup=0.2, precision="fp32", label_smoothing=0.0, lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    normalize = datasets.Normalize([0.0] * 3, [1 / 255] * 3)
    row = train.train_one_epoch(model, normalize, loader, optimizer, schedule, args, None, None)
    logits = torch.tensor([[1.0, 0], [1, 0]])
    own, others = (float(F.cross_entropy(logits, torch.tensor(labels))) for labels in ([0, 1], [1, 1]))
    assert row["train_loss"] == pytest.approx(0.75 * own + 0.25 * others)


# ---- the vision Transformer -------------------------------------------------------------------------------------------


def test_a_block_is_torchs_with_the_same_weights():
    torch.manual_seed(0)
    block, x = models.Block(16, 4).eval(), torch.randn(2, 9, 16)
    layer = nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    names = {"ask": "self_attn.in_proj_", "answer": "self_attn.out_proj.", "think.0": "linear1.", "think.2": "linear2."}
    names |= {"norm1": "norm1.", "norm2": "norm2."}
    state = {f"{names[name.rpartition('.')[0]]}{name.rpartition('.')[2]}": p for name, p in block.state_dict().items()}
    layer.load_state_dict(state)
    torch.testing.assert_close(block(x), layer(x), rtol=1e-5, atol=1e-5)


def test_the_transformer_knows_where_a_patch_is():
    """Without places, swapped patches would give the same logits."""
    torch.manual_seed(0)
    model, x = models.build("vit").eval(), torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        moved = model(x.roll(4, dims=3))
        assert (model(x) - moved).abs().max() > 1e-3
    table = models.places(3, 5, 16, CPU)
    assert table.shape == (15, 16) and len(table.unique(dim=0)) == 15
    assert torch.equal(table[0, :8], table[4, :8]) and torch.equal(table[0, 8:], table[10, 8:])  # a row's, a column's


def test_the_transformer_sees_the_whole_picture():
    field, stride = models.receptive_field(models.build("vit").features)
    assert field == float("inf") and stride == 4 and models.depth(models.build("vit")) == 26


# ---- Grad-CAM ---------------------------------------------------------------------------------------------------------


def bright_or_dark() -> models.Classifier:
    """Class 0 where a place is bright, class 1 where one is dark: in its map, channel 0 and 1."""
    features = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU())
    model = models.Classifier(features, 1, nn.Linear(2, 2, bias=False)).eval()
    with torch.no_grad():
        features[0].weight.copy_(torch.tensor([[1.0, 0, 0], [-1, 0, 0]])[..., None, None])
        model.head.weight.copy_(torch.eye(2))
    return model


def test_heat_is_where_the_class_is_seen():
    images = torch.zeros(2, 3, 8, 8)
    images[:, 0, 1, 2], images[:, 0, 6, 5] = 3.0, -2.0
    heat = gradcam.heat_maps(bright_or_dark(), images, torch.tensor([0, 1]))
    assert heat.shape == (2, 8, 8) and heat.sum().item() == pytest.approx(2)
    assert heat[0, 1, 2] == heat[1, 6, 5] == 1, "another class, another place"


def test_what_speaks_against_the_class_is_cold():
    model = bright_or_dark()
    model.head.weight.data[0, 1] = -5.0
    images = torch.zeros(1, 3, 8, 8)
    images[:, 0, 1, 2], images[:, 0, 6, 5] = 3.0, -2.0
    heat = gradcam.heat_maps(model, images, torch.tensor([0]))
    assert heat[0, 1, 2] == 1 and heat[0, 6, 5] == 0


@pytest.mark.parametrize("arch", models.MODELS)
def test_every_network_has_heat_maps(arch):
    torch.manual_seed(0)
    model = models.build(arch).eval()
    heat = gradcam.heat_maps(model, torch.randn(2, 3, 32, 32), torch.tensor([1, 2]))
    assert heat.shape == (2, 32, 32) and heat.min() >= 0 and heat.max() <= 1
    assert all(p.grad is None for p in model.parameters()), "looking changes nothing"


def test_a_quarter_is_hidden_the_hottest_or_the_coldest():
    heat = torch.arange(16.0).view(1, 4, 4)
    images = torch.ones(1, 3, 4, 4)
    for hottest, rows in ((True, [3]), (False, [0])):
        left = gradcam.hide(images, heat, hottest)
        assert [y for y in range(4) if left[0, 0, y].sum() == 0] == rows and left.sum() == 36


@pytest.fixture
def weights(tmp_path):
    meta = {"arch": "lenet5", "classes": ["cat", "dog", "frog"], "data": "toy", "mean": [0.5] * 3, "std": [0.25] * 3}
    utils.save_weights(tmp_path / "a.safetensors", models.build("lenet5", 3), **meta, image_size=32)
    return str(tmp_path / "a.safetensors")


def test_the_command_line_draws_and_refuses(weights, tmp_path, capsys):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    words = ["--weights", weights, "--device", "cpu", "--out", str(tmp_path / "out")]
    gradcam.main([str(tmp_path / "red.png"), "--class", "dog", *words])
    gradcam.main([str(tmp_path / "red.png"), *words])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gradcam-2.png", "gradcam.png"]
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit, match="1 of 2 files could not be read"):
        gradcam.main([str(tmp_path / "red.png"), str(tmp_path / "bad.png"), *words])
    assert (tmp_path / "out" / "gradcam-3.png").exists()
    with pytest.raises(SystemExit, match="1 of 1 files could not be read"):
        gradcam.main([str(tmp_path / "bad.png"), *words])
    with pytest.raises(SystemExit, match="--class cow: the network knows cat, dog, frog"):
        gradcam.main([str(tmp_path / "red.png"), "--class", "cow", *words])
    for wrong in (words, [str(tmp_path / "red.png"), "--check", *words]):
        with pytest.raises(SystemExit, match="give pictures to draw, or --check"):
            gradcam.main(wrong)


def test_hiding_what_is_hot_costs_more_than_hiding_what_is_cold(capsys):
    """The shipped network on the sample's drawings; --check says the same of photographs."""
    path = datasets.Path(gradcam.__file__).parent / "weights" / "mobilenet.safetensors"
    gradcam.main(["--check", "--weights", str(path), "--data", "sample", "--device", "cpu"])
    whole, hot, cold = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines())
    assert hot < cold - 0.02 and cold <= whole + 0.1
