"""Every network: shapes, gradients, the sizes the papers state, and the same answers as torchvision's."""

import pytest
import torch
import torchvision
from torch import nn

import models


@pytest.mark.parametrize("arch", models.MODELS)
def test_gives_logits_and_every_weight_learns(arch):
    torch.manual_seed(0)
    model = models.build(arch, num_classes=7).train()
    logits = model(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    still = [name for name, p in model.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert not still


@pytest.mark.parametrize("arch", models.MODELS)
def test_takes_other_sizes(arch):
    assert models.build(arch).eval()(torch.randn(1, 3, 64, 48)).shape == (1, 10)


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [("lenet5", 62_006), ("mobilenet", 280_618), ("resnet18", 11_173_962), ("resnet50", 23_520_842)],
)
def test_has_the_stated_parameters(arch, parameters):
    assert models.count_parameters(models.build(arch)) == parameters


@pytest.mark.parametrize("arch", models.MODELS)
def test_the_formula_counts_what_torch_counts(arch):
    model = models.build(arch)
    assert 2 * models.count_macs(model) == models.count_flops(model)


@pytest.mark.parametrize(
    ("arch", "depth"), [("lenet5", 5), ("alexnet", 8), ("resnet18", 18), ("resnet50", 50), ("torchvision_resnet18", 18)]
)
def test_is_as_deep_as_its_name(arch, depth):
    assert models.depth(models.build(arch)) == depth


@pytest.mark.parametrize("arch", ["lenet5", "mobilenet", "inception", "fastnet"])
def test_receptive_field_is_what_a_nan_reaches(arch):
    """A NaN spreads through every layer that touches it, so the rows from which it reaches a unit are the field."""
    features = models.build(arch).features.double().eval()
    height = 144
    pictures = torch.zeros(height, 3, height, 16, dtype=torch.float64)
    pictures[torch.arange(height), :, torch.arange(height)] = torch.nan  # in picture i, row i
    with torch.inference_mode():
        maps = torch.cat([features(batch) for batch in pictures.split(20)])
    reached = maps[:, :, maps.shape[2] // 2].isnan().flatten(1).any(1)
    assert int(reached.sum()) == models.receptive_field(features)[0]


@pytest.mark.parametrize(("arch", "reference"), [("resnet18", "resnet18"), ("resnet50", "resnet50")])
def test_answers_as_torchvisions_with_the_same_weights(arch, reference):
    """torchvision's ResNet with the CIFAR stem put in, both from the same weights: the same logits."""
    torch.manual_seed(0)
    ours, theirs = models.build(arch).eval(), getattr(torchvision.models, reference)(num_classes=10).eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    values = list(ours.state_dict().values())
    names = list(theirs.state_dict())
    assert [v.shape for v in values] == [theirs.state_dict()[n].shape for n in names]
    theirs.load_state_dict(dict(zip(names, values, strict=True)))
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_whitening_decorrelates_patches():
    torch.manual_seed(0)
    smooth = nn.functional.avg_pool2d(torch.randn(200, 3, 34, 34), 3, 1)
    model = models.build("fastnet")
    model.whiten(smooth)
    out = model.features[0](smooth)[:, :12].transpose(0, 1).flatten(1)
    covariance = out @ out.T / out.shape[1]
    off_diagonal = covariance - covariance.diag().diag()
    assert off_diagonal.abs().max() < 1e-3
    assert covariance.diag().max() <= 1.0


def test_a_wrong_name_is_answered_with_the_right_ones():
    with pytest.raises(SystemExit, match=r"no architecture 'vgg99'; did you mean vgg\? there are: lenet5, .*fastnet"):
        models.build("vgg99")
