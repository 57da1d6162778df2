"""Single updates and single figures against numbers worked out by hand, so that no part can be left out unnoticed.

The updates are made by plain gradient descent in Adam's place: Adam does not notice a factor on a loss, SGD does.
"""

import copy
import json
import runpy
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import CHAPTER, on_two_processes
from PIL import Image
from torch import nn

import datasets
import gans
import models
import options
import test as tester
import train
import utils

CPU = torch.device("cpu")
ARGS = {"arch": "resnet3", "width": 4, "patch": 16, "image_size": 32, "upsample": "transpose", "lr": 0.01, "seed": 0}
ARGS |= {"weight_decay": 0.5, "precision": "fp32", "compile": False, "pool": 50}
ARGS |= {"lambda_cycle": 7.0, "lambda_identity": 3.0, "lambda_l1": 20.0}


def use_sgd(monkeypatch):
    made = []

    def sgd(parameters, lr, betas, weight_decay, fused):
        made.append(betas)
        return torch.optim.SGD(parameters, lr, weight_decay=weight_decay)

    monkeypatch.setattr(torch.optim, "Adam", sgd)
    return made


def make(kind, **changes):
    torch.manual_seed(0)
    return kind(Namespace(**ARGS | changes), CPU)


def pair(count=2, size=32):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(count, 3, size, size, generator=generator) * 2 - 1 for _ in "AB"]


def expected_step(networks, loss, lr=0.01, decay=0.5):
    """-> the networks' parameters after a step of gradient descent down `loss`, with decay."""
    parameters = [p for net in networks for p in net.parameters()]
    gradients = torch.autograd.grad(loss, parameters)
    return [(p - lr * (g + decay * p)).detach() for p, g in zip(parameters, gradients, strict=True)]


def assert_stepped(networks, expected):
    for p, e in zip([p for net in networks for p in net.parameters()], expected, strict=True):
        torch.testing.assert_close(p.detach(), e, rtol=1e-4, atol=1e-6)


# ---- one update ----------------------------------------------------------------------------------------------------------


def test_a_cyclegan_update_is_gradient_descent_down_the_papers_losses(monkeypatch):
    assert use_sgd(monkeypatch) == []
    gan, (a, b) = make(gans.CycleGAN), pair()
    g_ab, g_ba, d_a, d_b = (copy.deepcopy(gan.networks[name]) for name in ("g_ab", "g_ba", "d_a", "d_b"))
    fake_b, fake_a = g_ab(a), g_ba(b)
    wanted = ((d_b(fake_b) - 1) ** 2).mean() + ((d_a(fake_a) - 1) ** 2).mean()
    wanted = wanted + 7 * ((g_ba(fake_b) - a).abs().mean() + (g_ab(fake_a) - b).abs().mean())
    wanted = wanted + 3 * ((g_ab(b) - b).abs().mean() + (g_ba(a) - a).abs().mean())
    generators = expected_step((g_ab, g_ba), wanted)
    told = [
        ((d(real) - 1) ** 2).mean() / 2 + (d(fake.detach()) ** 2).mean() / 2
        for d, real, fake in ((d_a, a, fake_a), (d_b, b, fake_b))
    ]
    discriminators = expected_step((d_a, d_b), told[0] + told[1])
    gan.step(a, b)
    assert_stepped((gan.networks["g_ab"], gan.networks["g_ba"]), generators)
    assert_stepped((gan.networks["d_a"], gan.networks["d_b"]), discriminators)


def test_a_pix2pix_update_is_gradient_descent_down_the_papers_losses(monkeypatch):
    """The discriminator sees the input beside the output, and learns first."""
    use_sgd(monkeypatch)
    gan, (a, b) = make(gans.Pix2Pix), pair()
    g, d = copy.deepcopy(gan.networks["g_ab"]), copy.deepcopy(gan.networks["d_b"])
    fake = g(a)
    of_real, of_fake = d(torch.cat([a, b], 1)), d(torch.cat([a, fake.detach()], 1))
    told = (F.softplus(-of_real).mean() + F.softplus(of_fake).mean()) / 2  # -log sigmoid(x), -log(1 - sigmoid(x))
    discriminator = expected_step((d,), told)
    with torch.no_grad():
        for p, new in zip(d.parameters(), discriminator, strict=True):
            p.copy_(new)
    passed, l1 = F.softplus(-d(torch.cat([a, fake], 1))).mean(), (fake - b).abs().mean()
    generator = expected_step((g,), passed + 20 * l1)
    losses = gan.step(a, b)
    assert {n: loss.item() for n, loss in losses.items()} == pytest.approx(
        {"disc_b": told.item(), "gan_ab": passed.item(), "l1": l1.item()}, rel=1e-4
    )
    assert_stepped((gan.networks["d_b"],), discriminator)
    assert_stepped((gan.networks["g_ab"],), generator)


def test_a_dcgan_update_is_gradient_descent_down_the_papers_losses(monkeypatch):
    use_sgd(monkeypatch)
    gan, (_, b) = make(gans.Dcgan, arch="dcgan"), pair()
    g, d = copy.deepcopy(gan.networks["g"]), copy.deepcopy(gan.networks["d"])
    torch.manual_seed(7)
    fake = g(torch.randn(2, 100, 1, 1))
    told = (F.softplus(-d(b)).mean() + F.softplus(d(fake.detach())).mean()) / 2
    discriminator = expected_step((d,), told)
    with torch.no_grad():
        for p, new in zip(d.parameters(), discriminator, strict=True):
            p.copy_(new)
    generator = expected_step((g,), F.softplus(-d(fake)).mean())
    torch.manual_seed(7)
    gan.step(None, b)
    assert_stepped((gan.networks["d"],), discriminator)
    assert_stepped((gan.networks["g"],), generator)


def test_a_wgan_gp_update_is_the_papers_losses_and_five_steps_of_the_critic(monkeypatch):
    """One critic step worked out by hand; the penalty from the slope that autograd gives at the same places."""
    use_sgd(monkeypatch)
    monkeypatch.setattr(gans.WganGp, "critic_steps", 1)
    gan, (_, b) = make(gans.WganGp, arch="dcgan"), pair()
    g, d = copy.deepcopy(gan.networks["g"]), copy.deepcopy(gan.networks["d"])
    torch.manual_seed(7)
    with torch.no_grad():
        fake = g(torch.randn(2, 100, 1, 1))
    share = torch.rand(2, 1, 1, 1)
    between = (share * b + (1 - share) * fake).requires_grad_()
    slopes = [torch.autograd.grad(d(between)[i].sum(), between, create_graph=True)[0][i].norm() for i in range(2)]
    penalty = sum((slope - 1) ** 2 for slope in slopes) / 2
    critic = expected_step((d,), d(fake).mean() - d(b).mean() + 10 * penalty)
    distance = d(b).mean() - d(fake).mean()
    with torch.no_grad():
        for p, new in zip(d.parameters(), critic, strict=True):
            p.copy_(new)
    generator = expected_step((g,), -d(g(torch.randn(2, 100, 1, 1))).mean())
    torch.manual_seed(7)
    losses = gan.step(None, b)
    assert losses["disc_distance"].item() == pytest.approx(distance.item(), rel=1e-3)
    assert losses["disc_slope"].item() == pytest.approx(penalty.item(), rel=1e-3)
    assert_stepped((gan.networks["d"],), critic)
    assert_stepped((gan.networks["g"],), generator)

    monkeypatch.setattr(gans.WganGp, "critic_steps", 5)
    gan, updates = make(gans.WganGp, arch="dcgan"), []
    monkeypatch.setattr(gan, "update", lambda part, loss: updates.append(part))
    gan.step(None, b)
    assert updates == ["discriminators"] * 5 + ["generators"]


def test_the_critic_judges_each_picture_by_itself():
    """Batch norm would let the others into its slope."""
    gan, (a, b) = make(gans.WganGp, arch="dcgan"), pair()
    gan.train()
    alone, together = gan.run("d", a[:1]), gan.run("d", torch.cat([a[:1], b]))[:1]
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_adam_has_the_papers_betas_and_the_asked_for_rate_and_decay(monkeypatch):
    for kind, changes in ((gans.CycleGAN, {}), (gans.Pix2Pix, {}), (gans.Dcgan, {"arch": "dcgan"})):
        gan = make(kind, **changes)
        gan.set_lr(0.25)
        for optimizer in gan.optimizers.values():
            (group,) = optimizer.param_groups
            assert (group["betas"], group["lr"], group["weight_decay"]) == ((0.5, 0.999), 0.25, 0.5)
    for optimizer in make(gans.WganGp, arch="dcgan").optimizers.values():
        assert optimizer.param_groups[0]["betas"] == (0.0, 0.9)


def test_with_adam_a_factor_on_the_loss_changes_no_step():
    """What the README says of the halved loss of the discriminators."""
    moved = []
    for factor in (1.0, 0.5, 0.01):
        torch.manual_seed(0)
        d = models.initialise(models.PatchDiscriminator(16, 4))
        optimizer, before = (
            torch.optim.Adam(d.parameters(), 1e-3, (0.5, 0.999)),
            [p.detach().clone() for p in d.parameters()],
        )
        for picture in pair():
            optimizer.zero_grad()
            (factor * gans.least_squares(d(picture), 1)).backward()
            optimizer.step()
        weights = [(p.detach() - b).abs().mean() for p, b in zip(d.parameters(), before, strict=True) if p.ndim > 1]
        moved.append(sum(weights).item())
    assert moved[1:] == pytest.approx([moved[0]] * 2, rel=0.01)


class Watch(nn.Module):
    """A network that changes nothing, and notes whether it trains."""

    def __init__(self):
        super().__init__()
        self.w, self.seen = nn.Parameter(torch.ones(())), []

    def forward(self, x):
        self.seen.append(self.training)
        return x * self.w


def test_updates_are_in_training_mode_and_samples_in_evaluation_mode(tmp_path):
    gan = make(gans.CycleGAN)
    for name in ("g_ab", "g_ba"):
        gan.networks[name] = Watch().eval()
    gan.optimizers["generators"] = torch.optim.SGD([gan.networks[n].w for n in ("g_ab", "g_ba")], 0.0)
    pictures = torch.randint(0, 256, (4, 3, 36, 36), dtype=torch.uint8)
    data = datasets.Data("x", pictures, pictures.flip(0), [], [], 32)
    train.train_one_epoch(gan, datasets.PairLoader(data, 2, CPU), Namespace(lr=1.0))
    assert set(gan.networks["g_ab"].seen) == {True}
    gan.networks["g_ab"].seen.clear()
    train.draw_samples(gan, data, tmp_path / "grid.png")
    assert set(gan.networks["g_ab"].seen) == {False}


def test_an_epochs_losses_are_the_means_of_its_steps():
    class Fixed:
        device = CPU

        def __init__(self):
            self.steps = iter([1.0, 3.0])

        def train(self):
            pass

        def step(self, a, b):
            return {"x": torch.tensor(next(self.steps)), "y": torch.tensor(2.0)}

    pictures = torch.zeros(4, 3, 36, 36, dtype=torch.uint8)
    loader = datasets.PairLoader(datasets.Data("x", pictures, pictures, [], [], 32), 2, CPU)
    assert train.train_one_epoch(Fixed(), loader, Namespace(lr=1.0)) == {"x": 2.0, "y": 2.0}


def test_the_pool_exchanges_pictures_without_their_gradients():
    pool = gans.ImagePool(2)
    fakes = torch.zeros(3, 3, 2, 2, requires_grad=True)
    assert not pool.exchange(fakes).requires_grad and len(pool.pictures) == 2
    fakes.data.fill_(5.0)
    assert all((picture == 0).all() for picture in pool.pictures)  # copies, not views


# ---- the run -------------------------------------------------------------------------------------------------------------


def test_a_resumed_run_knows_networks_optimizers_and_pools():
    gan, other = make(gans.CycleGAN), make(gans.CycleGAN, seed=1)
    gan.step(*pair())
    saved = copy.deepcopy(gan.state())
    other.load_state(saved | {"meta": {"arch": "resnet3"}}, "last.pt")
    for name, weight in gan.weights().items():
        assert torch.equal(weight, other.weights()[name]), name
    for part in ("generators", "discriminators"):
        states = [list(g.optimizers[part].state_dict()["state"].values()) for g in (gan, other)]
        assert len(states[0]) > 5 and all(torch.equal(a["exp_avg"], b["exp_avg"]) for a, b in zip(*states, strict=True))
    assert all(len(pool.pictures) == 2 for pool in other.pools.values())
    for name, pool in gan.pools.items():
        assert all(torch.equal(a, b) for a, b in zip(pool.pictures, other.pools[name].pictures, strict=True))


def test_a_run_of_another_network_ends_in_one_line():
    """As after a change of models.py, or of the optimizers' groups, between two parts of a run."""
    gan = make(gans.CycleGAN)
    for part, name in (("model", list(gan.weights())[0]), ("optimizers", "generators")):
        saved = copy.deepcopy(gan.state()) | {"meta": {"arch": "resnet3"}}
        saved[part][name] = torch.zeros(7) if part == "model" else {"state": {}, "param_groups": []}
        with pytest.raises(SystemExit, match="last.pt: says resnet3, but the weights in it are of another network"):
            gan.load_state(saved, "last.pt")


def test_best_pt_holds_the_newest_generators_and_no_discriminator(tmp_path):
    words = ["--data", "sample", "--image-size", "32", "--width", "4", "--patch", "16", "--limit", "4", "--epochs", "2"]
    train.main([*words, "--weight-decay", "0.25", "--device", "cpu", "--run", str(tmp_path / "run")])
    best, last = (utils.load_checkpoint(tmp_path / "run" / f"{name}.pt") for name in ("best", "last"))
    assert best["epoch"] == 2 and {name.split(".")[0] for name in best["model"]} == {"g_ab", "g_ba"}
    assert all(torch.equal(weight, last["model"][name]) for name, weight in best["model"].items())
    groups = [group for o in last["optimizers"].values() for group in o["param_groups"]]
    assert [group["weight_decay"] for group in groups] == [0.25] * 2
    assert [row["lr"] for row in last["history"]] == pytest.approx([1e-3, 1e-3])
    assert [group["lr"] for group in groups] == pytest.approx([1e-3] * 2)


def test_batches_must_fit_the_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="--batch-size 5 cannot be shared evenly by 2 processes"):
        options.fill_in_recipe(options.parse(None, ["--batch-size", "5"]), "sample", 64)


def average_of_two(folder):
    gan = make(gans.CycleGAN, weight_decay=0.0)
    first = {name: weight.clone() for name, weight in gan.weights().items()}
    for part in gan.optimizers:
        gan.optimizers[part] = torch.optim.SGD(gan.optimizers[part].param_groups[0]["params"], 1.0)
    one, other = (sum(p.sum() for p in gan.networks[name].parameters()) for name in ("g_ab", "g_ba"))
    gan.update("generators", (1 + 2 * utils.rank()) * one + 0 * other)
    moved = (first["g_ab.1.weight"] - gan.weights()["g_ab.1.weight"]).mean().item()
    torch.manual_seed(utils.rank())
    other = gans.CycleGAN(Namespace(**ARGS), CPU)  # each process draws weights of its own
    drawn = sum(weight.double().sum().item() for weight in other.weights().values())
    loader = datasets.PairLoader(datasets.load("sample", limit=8, image_size=32), 4, CPU)
    seen = [round(a.double().sum().item(), 3) for a, _ in loader]
    (folder / f"{utils.rank()}.json").write_text(json.dumps({"moved": moved, "drawn": drawn, "seen": seen}))


def test_two_processes_start_alike_average_gradients_and_share_batches(tmp_path):
    on_two_processes(average_of_two, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["moved"] == pytest.approx(2.0, abs=1e-4) and second["moved"] == first["moved"]  # the mean of 1 and 3
    assert first["drawn"] == second["drawn"] and first["seen"] != second["seen"]


def test_each_epoch_has_an_order_crops_and_mirrorings_of_its_own():
    data = datasets.load("sample", limit=12, image_size=32)
    loader = datasets.PairLoader(data, 4, CPU, seed=3)
    epochs = []
    for epoch in (0, 1, 0):
        loader.epoch = epoch
        epochs.append(torch.cat([a for a, _ in loader]))
    assert torch.equal(epochs[0], epochs[2]) and not torch.equal(epochs[0], epochs[1])
    plans = [loader.plan(loader.a, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert [row[0] for row in plans[0]] != [row[0] for row in plans[1]]
    assert sorted(row[0] for row in plans[0]) == list(range(12))
    assert {row[3] for plan in plans for row in plan} == {0, 1} and len({(y, x) for _, y, x, _ in plans[0]}) > 4


def test_the_scripts_run_as_programs(monkeypatch, capsys):
    for name in ("train.py", "test.py"):
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(CHAPTER / name), run_name="__main__")
        assert end.value.code == 0 and "--run" in capsys.readouterr().out


# ---- networks ------------------------------------------------------------------------------------------------------------


def test_a_residual_block_adds_and_mirrors_the_border():
    block = models.ResidualBlock(3)
    x = torch.randn(1, 3, 8, 8)
    for p in block.parameters():
        nn.init.zeros_(p)
    torch.testing.assert_close(block(x), x)
    ones = torch.ones(1, 3, 8, 8)
    nn.init.constant_(block.f[1].weight, 0.1)
    assert block.f[1](block.f[0](ones)).std() < 1e-6  # with zeros around it, the border would be darker


def test_a_picture_is_translated_alike_whatever_is_beside_it():
    """Instance norm: statistics of one picture alone."""
    torch.manual_seed(0)
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    for arch in ("resnet3", "unet"):
        model = models.build(arch, 32, 4).train()
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-3, atol=1e-4)


def test_first_weights_are_drawn_with_a_deviation_of_a_fiftieth():
    torch.manual_seed(0)
    model = models.build("resnet3", 32, 16)
    weights = torch.cat([m.weight.flatten() for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02) and abs(weights.mean().item()) < 2e-4
    assert all((m.bias == 0).all() for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)))
    scales = torch.cat([m.weight for m in models.build("dcgan", 32, 64).modules() if isinstance(m, nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.01) and scales.std().item() == pytest.approx(0.02, rel=0.2)


def test_pix2pix_drops_out_in_training_alone():
    gan, (a, _) = make(gans.Pix2Pix, arch="unet"), pair()
    net = gan.networks["g_ab"]
    shares = [m.p for m in net.modules() if isinstance(m, nn.Dropout)]
    assert shares == [0.5] * 3  # the paper's three layers after the middle of the U
    assert not torch.equal(net.train()(a), net(a)) and torch.equal(net.eval()(a), net(a))
    assert not any(isinstance(m, nn.Dropout) for m in make(gans.CycleGAN, arch="unet").networks["g_ab"].modules())


def test_discriminators_leak_a_fifth_of_what_is_negative():
    for net in (models.PatchDiscriminator(16, 4), models.DcganDiscriminator(32, 4)):
        slopes = {m.negative_slope for m in net.modules() if isinstance(m, nn.LeakyReLU)}
        assert slopes == {0.2}
    assert models.PatchDiscriminator(16, 4, in_channels=6)[0].in_channels == 6


# ---- test.py -------------------------------------------------------------------------------------------------------------


class Brighter(nn.Module):
    """Adds a share of the range of -1..1 to each pixel."""

    multiple = 4

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x):
        return x + 2 * self.share


def grey_pictures(count: int, value: int) -> torch.Tensor:
    return torch.full((count, 3, 32, 32), value, dtype=torch.uint8)


def test_the_cycle_error_is_a_share_of_the_range():
    data = datasets.Data("mine", grey_pictures(2, 51), grey_pictures(3, 102), [], [], 32, own=True)
    nets = nn.ModuleDict({"g_ab": Brighter(0.2), "g_ba": Brighter(-0.1)})
    for direction, count, values in (("AtoB", 2, (51, 102, 76.5)), ("BtoA", 3, (102, 76.5, 127.5))):
        result, rows = tester.measure(direction, nets, data, {"mode": "cyclegan"}, None, CPU)
        assert result == {"pictures": count, "cycle_error": pytest.approx(0.1, abs=0.003)}
        assert [row.float().mean().item() for row in rows.values()] == pytest.approx(values, abs=0.6)


def test_the_pair_error_is_the_difference_from_the_true_picture():
    data = datasets.Data("mine", grey_pictures(2, 51), grey_pictures(2, 204), [], [], 32, own=True)
    nets = nn.ModuleDict({"g_ab": Brighter(0.2)})
    result, rows = tester.measure("AtoB", nets, data, {"mode": "pix2pix"}, None, CPU)
    assert result == {"pictures": 2, "pair_error": pytest.approx(0.4, abs=0.003)}  # 102 for 204
    assert torch.equal(rows["real B"], data.b) and list(rows) == ["real A", "fake B", "real B"]


def test_tested_generators_are_in_evaluation_mode(tmp_path):
    torch.manual_seed(0)
    meta = {"mode": "dcgan", "arch": "dcgan", "width": 4, "patch": None, "upsample": "transpose", "image_size": 32}
    utils.save_weights(tmp_path / "g.safetensors", nn.ModuleDict({"g": models.build("dcgan", 32, 4)}), **meta, data="x")
    nets, _, _ = tester.load_generators(tester.parse(["--weights", str(tmp_path / "g.safetensors")]), CPU)
    noise = gans.noise(4, CPU)
    torch.testing.assert_close(nets["g"](noise)[:1], nets["g"](noise[:1]))  # batch norm by its running statistics


def test_figures_on_apples_hardware_are_computed_on_the_cpu():
    """FID sums in float64, which MPS does not have."""

    class Mean(nn.Module):
        num_features = 3

        def forward(self, pixels):
            return pixels.float().mean((2, 3)) / 255

    torch.manual_seed(0)
    real, fake = (torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8) for _ in range(2))
    there, here = (tester.distances(Mean(), real, fake, torch.device(kind)) for kind in ("mps", "cpu"))
    assert there == here


def test_a_picture_of_odd_size_is_padded_by_its_border_and_cropped_back():
    seen = []

    class See(nn.Module):
        multiple = 4

        def forward(self, x):
            seen.append(x)
            return x

    pixels = torch.arange(20 * 33, dtype=torch.uint8).view(1, 1, 20, 33).expand(1, 3, -1, -1).contiguous()
    assert torch.equal(tester.translate(See(), pixels, CPU), pixels)
    assert seen[0].shape == (1, 3, 32, 48) and torch.equal(
        seen[0][..., 20:, :33], seen[0][..., 19:20, :33].expand(-1, -1, 12, -1)
    )


def test_only_pictures_of_the_test_folders_are_tested_and_only_those_of_the_training_folders_train(domains):
    folder = domains(trainA=4, trainB=3, testA=2, testB=5)
    for i, path in enumerate(sorted(Path(folder).rglob("*.png"))):
        Image.fromarray(np.full((32, 32, 3), 10 * i, np.uint8)).save(path)
    parts = {part: datasets.load(str(folder), part=part, image_size=32) for part in ("train", "test")}
    assert [len(x) for part in parts.values() for x in (part.a, part.b)] == [4, 3, 2, 5]
    values = [{int(v) for x in (part.a, part.b) for v in x.flatten(1)[:, 0]} for part in parts.values()]
    assert len(values[0] | values[1]) == 14 and not values[0] & values[1]
    assert set(parts["train"].samples) & set(parts["test"].samples) == set()
    assert parts["train"].others == parts["test"].samples


def test_fakes_are_compared_with_pictures_of_their_own_domain(monkeypatch):
    seen = []
    monkeypatch.setattr(
        tester, "distances", lambda inception, real, fake, device: seen.append((real, fake)) or {"fid": 1.0}
    )
    data = datasets.Data("mine", grey_pictures(2, 51), grey_pictures(3, 153), [], [], 32, own=True)
    nets = nn.ModuleDict({"g_ab": Brighter(0.2)})
    result, rows = tester.measure("AtoB", nets, data, {"mode": "cyclegan"}, "an Inception", CPU)
    assert result["fid"] == 1.0 and torch.equal(seen[0][0], data.b) and torch.equal(seen[0][1], rows["fake B"])


def test_pixels_out_of_range_are_cut_off():
    assert datasets.to_pixels(torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5])).tolist() == [0, 0, 128, 255, 255]


def test_a_generator_draws_in_range_whatever_its_weights():
    torch.manual_seed(0)
    for arch in ("resnet3", "unet", "dcgan"):
        model = models.build(arch, 32, 4)
        for p in model.parameters():
            p.data.mul_(100)
        x = torch.randn(2, 100, 1, 1) if arch == "dcgan" else torch.rand(2, 3, 32, 32) * 2 - 1
        assert 0.9 < model(x).abs().max() <= 1


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_networks_run_in_the_precision_asked_for(precision, dtype):
    gan, seen = make(gans.CycleGAN, precision=precision), []
    gan.networks["g_ab"][1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    assert gan.run("g_ab", pair()[0]).dtype == torch.float32 and seen == [dtype]


@pytest.mark.parametrize(
    ("name", "size", "own", "kind"),
    [
        ("apple2orange", 256, False, ""),
        ("mine", 64, True, " small"),
        ("sample", 64, False, " sample"),
        ("sample", 64, True, " small"),
    ],
)
@pytest.mark.parametrize("mode", gans.MODES)
def test_each_size_of_picture_has_its_recipe_and_flags_go_before_it(mode, name, size, own, kind):
    args = options.parse(None, ["--mode", mode, "--width", "5"])
    options.fill_in_recipe(args, name, size, own)
    arch, _, patch, *rest = options.RECIPES[mode + kind]
    assert (args.arch, args.width, args.patch, args.epochs, args.batch_size, args.lr) == (arch, 5, patch, *rest)
    assert args.image_size == size


def test_the_middle_of_a_picture_is_what_is_read():
    picture = Image.new("RGB", (80, 40), (255, 0, 0))
    picture.paste((90, 90, 90), (20, 0, 60, 40))
    square = np.asarray(datasets.squared(picture, 20))
    assert square.shape == (20, 20, 3) and (square[:, 2:-2] == 90).all()


def test_variety_is_the_mean_difference_of_two_pictures():
    pixels = torch.stack([torch.full((3, 4, 4), value, dtype=torch.uint8) for value in (0, 255, 255)])
    assert tester.variety(pixels) == pytest.approx(2 / 3) and tester.variety(pixels[1:]) == 0
