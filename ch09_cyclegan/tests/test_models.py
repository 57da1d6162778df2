"""Shapes, gradients and the papers' numbers of every network."""

import pytest
import torch
from torch import nn

import models


def millions(model):
    return round(models.count_parameters(model) / 1e6, 3)


def test_the_papers_parameter_counts():
    assert millions(models.build("resnet9", 256)) == 11.378
    assert millions(models.build("resnet6", 256)) == 7.838
    assert millions(models.PatchDiscriminator(70)) == 2.765
    assert millions(models.PatchDiscriminator(70, in_channels=6)) == 2.768  # pix2pix's
    assert round(millions(models.build("unet", 256)), 1) == 54.4


@pytest.mark.parametrize("upsample", models.UPSAMPLE)
@pytest.mark.parametrize("arch", models.MODELS)
def test_every_generator_draws_in_range_and_every_weight_learns(arch, upsample):
    torch.manual_seed(0)
    model = models.build(arch, 32, width=4, upsample=upsample)
    x = torch.randn(2, 100, 1, 1) if arch == "dcgan" else torch.rand(2, 3, 32, 32) * 2 - 1
    y = model(x)
    assert y.shape == (2, 3, 32, 32) and y.abs().max() <= 1
    (y - torch.rand_like(y)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.ndim > 1)


@pytest.mark.parametrize("arch", ["resnet3", "unet", "unet_plain"])
def test_generators_take_any_multiple_of_their_size(arch):
    model = models.build(arch, 32, width=4).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 2 * model.multiple, 3 * model.multiple)).shape[2:] == (
            2 * model.multiple,
            3 * model.multiple,
        )


@pytest.mark.parametrize("patch", models.PATCHES)
def test_a_score_depends_on_its_patch_and_nothing_else(patch):
    """Without instance norm, whose statistics are of the whole picture: the pixels with a gradient are the patch."""
    model = models.PatchDiscriminator(patch, width=2).double()
    for i, layer in enumerate(model):
        if isinstance(layer, nn.InstanceNorm2d):
            model[i] = nn.Identity()
    x = torch.randn(1, 3, 3 * patch // 8 * 8 + 64, patch + 64, dtype=torch.double, requires_grad=True)
    scores = model(x)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    rows = x.grad.abs().amax((0, 1, 3)).nonzero()[:, 0]
    assert rows.max() - rows.min() + 1 == models.receptive_field(model) == patch


@pytest.mark.parametrize(("arch", "sees"), [("unet", True), ("unet_add", True), ("unet_plain", False)])
def test_skips_carry_what_the_middle_loses(arch, sees):
    """With the middle of the U blotted out, only a skip can still tell one picture from another."""
    torch.manual_seed(0)
    model = models.build(arch, 32, width=4).eval()
    model.encoder[-1].register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    with torch.inference_mode():
        one, other = (model(torch.rand(1, 3, 32, 32) * 2 - 1) for _ in range(2))
    assert torch.equal(one, other) is not sees


def test_resizing_leaves_no_checkerboard():
    """A flat picture through flat filters: the transposed convolution makes a checkerboard of it, resizing does not."""
    flat = {}
    for how in models.UPSAMPLE:
        layers = nn.Sequential(*models.upsample_by_2(3, 2, how, 3))
        for p in layers.parameters():
            nn.init.constant_(p, 0.1)
        with torch.inference_mode():
            inside = layers(torch.ones(1, 3, 8, 8))[..., 2:-2, 2:-2]
        assert inside.shape[2:] == (12, 12)
        flat[how] = (inside.max() - inside.min()).item() < 1e-6
    assert flat == {"transpose": False, "resize": True}


def test_discriminators_want_no_fixed_size():
    with torch.inference_mode():
        assert models.PatchDiscriminator(70, 4)(torch.zeros(1, 3, 256, 256)).shape == (
            1,
            1,
            30,
            30,
        )  # the paper's 30x30
        assert models.PatchDiscriminator(34, 4)(torch.zeros(2, 3, 64, 96)).shape == (2, 1, 14, 22)
        assert models.DcganDiscriminator(64, 4)(torch.zeros(2, 3, 64, 64)).shape == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("arch", "size", "message"),
    [
        ("resnet99", 64, r"no architecture 'resnet99'; did you mean resnet9\? there are: resnet9, .*dcgan"),
        ("unet", 50, "--image-size 50: a U-Net halves the size"),
        ("resnet3", 50, "--image-size 50: a ResNet generator halves the size twice"),
        ("dcgan", 48, "--image-size 48: DCGAN doubles 4 pixels"),
    ],
)
def test_what_cannot_be_built_is_refused(arch, size, message):
    with pytest.raises(SystemExit, match=message):
        models.build(arch, size)
