"""Denoising: the measure, the noise, the networks with and without skip connections, and that they learn."""

import json

import pytest
import torch
from conftest import assert_same_run, metrics, run_and_kill
from PIL import Image
from torchmetrics.functional.image import peak_signal_noise_ratio

import denoise
import models
import sample
import test as tester
import train

SMALL = ("denoise", "--data", "sample", "--limit", "320", "--epochs", "3", "--device", "cpu")


def test_psnr_is_torchmetrics():
    torch.manual_seed(0)
    clean, other = torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    for i, value in enumerate(denoise.psnr(other, clean)):
        torch.testing.assert_close(value, peak_signal_noise_ratio(other[i], clean[i], data_range=1.0))
    assert denoise.psnr(clean + 0.1, clean).mean() == pytest.approx(20, abs=1e-3)


def test_noise_is_as_strong_as_asked_and_the_same_from_the_same_seed():
    grey = torch.full((50, 1, 28, 28), 0.5)
    one, two = (denoise.add_noise(grey, 0.1, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two) and (one - grey).std() == pytest.approx(0.1, rel=0.03)
    loud = denoise.add_noise(grey, 5.0)
    assert loud.min() == 0 and loud.max() == 1


@pytest.mark.parametrize("arch", [*models.MODELS["denoise"]])
def test_every_network_keeps_the_size_and_every_weight_learns(arch):
    torch.manual_seed(0)
    model = models.build("denoise", arch)
    for height, width in ((28, 28), (13, 21)):
        assert model(torch.rand(2, 1, height, width)).shape == (2, 1, height, width)
    model(torch.rand(2, 1, 28, 28)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_skip_connections_take_no_weights_and_carry_the_picture():
    """With the innermost layers dead, only a network with skip connections still answers to its input."""
    for arch, answers in (("deep", False), ("deep_skip", True)):
        torch.manual_seed(0)
        model = models.build("denoise", arch)
        assert models.count_parameters(model) == models.count_parameters(models.build("denoise", "deep"))
        for p in model.down[-1].parameters():
            torch.nn.init.zeros_(p)
        with torch.inference_mode():
            one, two = model(torch.rand(1, 1, 28, 28)), model(torch.rand(1, 1, 28, 28))
        assert (not torch.equal(one, two)) == answers


def test_learns_to_denoise_the_sample(tmp_path, device):
    run = tmp_path / "run"
    train.main(["denoise", "--data", "sample", "--epochs", "6", "--device", device, "--run", str(run)])
    tester.main(["denoise", "--run", str(run), "--device", device])
    result = json.loads((run / "test.json").read_text("utf-8"))
    assert result["psnr"] > result["psnr_before"] + 5 and result["pictures"] == 300 and result["noise"] == 0.5
    assert (run / "denoised.png").stat().st_size > 1000
    images, _ = sample.make_digits()
    clean = images[-1:].float() / 255
    noisy = denoise.add_noise(clean, 0.5, torch.Generator().manual_seed(1))
    Image.fromarray((255 * noisy[0, 0]).byte().numpy()).save(tmp_path / "noisy.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(SystemExit, match="1 of 2 files could not be used"):
        files = [str(tmp_path / name) for name in ("noisy.png", "text.png")]
        tester.main(["denoise", *files, "--run", str(run), "--out", str(tmp_path), "--device", device])
    with Image.open(tmp_path / "noisy-denoised.png") as picture:
        cleaned = torch.tensor(list(picture.tobytes())).view(1, 1, 28, 28) / 255
    assert denoise.psnr(cleaned, clean) > denoise.psnr(noisy, clean) + 3


def test_killed_and_resumed_equals_never_killed(tmp_path):
    train.main([*SMALL, "--run", str(tmp_path / "whole")])
    run_and_kill(SMALL, tmp_path / "killed", rows=1)
    assert len(metrics(tmp_path / "killed")) < 1 + 3, "it was over before the kill"
    train.main(["--resume", str(tmp_path / "killed")])
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
