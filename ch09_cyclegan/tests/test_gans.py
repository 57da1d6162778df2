"""One update at a time: the pool, the losses, what learns when, and the shortcuts against the plain way."""

import copy
from argparse import Namespace

import pytest
import torch

import bench
import datasets
import gans
import train

ARGS = {"arch": "resnet3", "width": 4, "patch": 16, "image_size": 32, "upsample": "transpose", "lr": 1e-3, "seed": 0}
ARGS |= {"weight_decay": 0.0, "precision": "fp32", "compile": False, "pool": 50}
ARGS |= {"lambda_cycle": 10.0, "lambda_identity": 5.0, "lambda_l1": 100.0, "epochs": 10}


def make(kind, **changes):
    torch.manual_seed(0)
    return kind(Namespace(**ARGS | changes), torch.device("cpu"))


def pair(seed=1, count=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, 3, 32, 32, generator=generator) * 2 - 1 for _ in "AB"]


def test_the_pool_gives_each_fake_back_until_full_then_an_older_one_half_of_the_time():
    pool = gans.ImagePool(50)
    fakes = torch.arange(1050.0).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    assert torch.equal(pool.exchange(fakes[:50]), fakes[:50]) and len(pool.pictures) == 50
    given = pool.exchange(fakes[50:])[:, 0, 0, 0]
    new = given == fakes[50:, 0, 0, 0]
    assert 0.45 < new.float().mean() < 0.55 and (given[~new] < fakes[50:, 0, 0, 0][~new]).all()
    stay = {p[0, 0, 0].item() for p in pool.pictures}
    assert len(stay) == 50 and not stay & set(
        given[~new].tolist()
    )  # what was given away is gone, so nothing comes twice
    assert torch.equal(gans.ImagePool(0).exchange(fakes[:9]), fakes[:9])


def test_the_batched_update_is_the_plain_one():
    """Two pictures in a pass, channels last, one fused kernel for Adam: the same losses, and the same weights after it."""
    ours, plain = make(gans.CycleGAN), make(bench.PlainCycleGAN)
    start = {name: weight.clone() for name, weight in ours.weights().items() if weight.ndim == 4}
    for seed in range(3):
        one, other = ours.step(*pair(seed)), plain.step(*pair(seed))
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)
    for name, weight in start.items():  # on average, since Adam makes a whole step of a gradient that is nearly nothing
        moved, apart = ours.weights()[name] - weight, ours.weights()[name] - plain.weights()[name]
        assert apart.abs().mean() < 0.1 * moved.abs().mean()


@pytest.mark.parametrize("mode", gans.MODES)
def test_each_update_moves_its_own_side_only(mode, monkeypatch):
    """While the generators learn, the discriminators judge: no gradient reaches their weights, and the other way round."""
    gan = make(gans.MODES[mode], **({"arch": "dcgan"} if mode in datasets.FROM_NOISE else {}))
    before = {name: weight.clone() for name, weight in gan.weights().items()}
    update, moved = gan.update, []

    def watched(part, loss):
        for net in gan.networks.values():
            for p in net.parameters():
                p.grad = None
        update(part, loss)
        with_gradient = {n for n, net in gan.networks.items() if any(p.grad is not None for p in net.parameters())}
        moved.append((part, with_gradient))

    monkeypatch.setattr(gan, "update", watched)
    gan.step(*pair())
    assert {part for part, _ in moved} == {"generators", "discriminators"}
    for part, names in moved:
        assert names == {name for name in gan.networks if name[0] == part[0]}
    weights = {name for name in before if name.endswith("weight")}
    assert all(not torch.equal(before[name], gan.weights()[name]) for name in weights)


def test_losses_of_known_scores():
    scores = torch.tensor([1.0, 0.0, 3.0])
    assert gans.least_squares(scores, 1).item() == pytest.approx(5 / 3)
    assert gans.least_squares(scores, 0).item() == pytest.approx(10 / 3)
    assert gans.log_loss(torch.zeros(4), 1).item() == pytest.approx(0.6931, abs=1e-4)


def test_the_rate_is_constant_and_then_falls_in_a_line():
    rates = [train.learning_rate(Namespace(lr=2e-4, epochs=200), epoch) for epoch in (0, 99, 100, 150, 199, 200)]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-4, 1e-4, 2e-6, 0])


def test_bfloat16_stays_near_float32():
    one, other = (make(gans.CycleGAN, precision=p).step(*pair()) for p in ("fp32", "bf16"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0.05, atol=0.02)
        assert other[name].dtype == torch.float32


def test_a_cyclegan_step_is_the_papers_losses():
    """Recomputed one by one, with the weights that the step starts from."""
    gan, (a, b) = make(gans.CycleGAN), pair()
    g_ab, g_ba, d_a, d_b = (copy.deepcopy(gan.networks[name]) for name in ("g_ab", "g_ba", "d_a", "d_b"))
    with torch.no_grad():
        fake_b, fake_a = g_ab(a), g_ba(b)
        expected = {
            "gan_ab": ((d_b(fake_b) - 1) ** 2).mean(),
            "gan_ba": ((d_a(fake_a) - 1) ** 2).mean(),
            "cycle_a": (g_ba(fake_b) - a).abs().mean(),
            "cycle_b": (g_ab(fake_a) - b).abs().mean(),
            "identity_a": (g_ba(a) - a).abs().mean(),
            "identity_b": (g_ab(b) - b).abs().mean(),
            "disc_a": ((d_a(a) - 1) ** 2).mean() / 2 + (d_a(fake_a) ** 2).mean() / 2,
            "disc_b": ((d_b(b) - 1) ** 2).mean() / 2 + (d_b(fake_b) ** 2).mean() / 2,
        }
    losses = gan.step(a, b)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4), name
