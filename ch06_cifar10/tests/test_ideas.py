"""ideas.py: an idea is compared fairly, and each one is what it is called."""

from argparse import Namespace

import pytest
import torch
from torch import nn

import datasets
import ideas
import models
import train
import utils

CPU = torch.device("cpu")


@pytest.fixture
def toy():
    """80 grey pictures, the brighter ones of class 1."""
    labels = torch.arange(80) % 2
    images = (
        (60 + 100 * labels + torch.arange(80) % 7).to(torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32).clone()
    )
    split = datasets.Split(images, labels)
    return datasets.Data("toy", ["dark", "bright"], {"train": split, "val": datasets.select(split, torch.arange(20))})


@pytest.fixture
def args():
    return Namespace(lr=0.12, crop=2, mixup=0.0, precision="fp32")


def test_all_ideas_do_about_the_same_work(toy, args, monkeypatch):
    """Otherwise the one that works longest would win."""
    monkeypatch.setattr(train, "train_one_epoch", lambda *_: None)
    work = {name: ideas.run_trial(idea, args, toy, 0, CPU)["operations"] for name, idea in ideas.IDEAS.items()}
    flops = {size: models.count_flops(models.build("fastnet", 2, widths=ideas.WIDTHS), size) for size in (24, 32)}
    assert work["plain"] == 3 * 80 * (3 * flops[24] + 5 * flops[32])
    assert work["harder"] == 3 * 80 * (3 * flops[24] + 3 * flops[32]) + 80 * flops[32] + 3 * 3 * 40 * flops[32]
    assert all(0.95 < operations / work["plain"] < 1.03 for operations in work.values())


def test_what_an_idea_says_is_what_is_trained(toy, args, monkeypatch):
    seen = []

    def look(model, normalize, loader, optimizer, scheduler, args, size, class_weights):
        kinds = {type(layer) for layer in model.features}
        rates = [group["initial_lr"] for group in optimizer.param_groups]
        trained = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        row = (
            loader.batch_size,
            loader.augment.colour,
            args.label_smoothing,
            nn.SiLU in kinds,
            trained,
            type(scheduler),
        )
        seen.append((*row, rates))

    monkeypatch.setattr(train, "train_one_epoch", look)

    def unlike(name: str) -> set[int]:
        rows = []
        for idea in ("plain", name):
            seen.clear()
            ideas.run_trial(ideas.IDEAS[idea], args, toy, 0, CPU)
            rows.append(seen[-1])
        return {i for i, (a, b) in enumerate(zip(*rows, strict=True)) if a != b}

    expected = {
        "batch": {0},
        "colour": {1},
        "smoothing": {2},
        "silu": {3},
        "bias": {4},
        "lookahead": {5},
        "average": {5},
        "rates": {6},
    }
    assert {name: unlike(name) for name in expected} == expected
    counts = []
    for name in ("plain", "bias"):
        ideas.run_trial(ideas.IDEAS[name], args, toy, 0, CPU)
        counts.append(seen[-1][4])
    assert counts[1] - counts[0] == 24  # the idea has the bias, the plain recipe has none


def test_a_trial_repeats_itself_and_sees_the_validation_pictures_only(toy, args):
    short = ideas.Idea(help="", sizes=(24, 32))
    one, two = (ideas.run_trial(short, args, toy, 0, CPU)["accuracy"] for _ in range(2))
    assert one == two and one * 20 == round(one * 20)


def test_the_first_weights_follow_from_the_seed_alone(toy, args, monkeypatch):
    """The table in README.md was made so: another order of the random numbers gives other figures."""
    seen = []
    monkeypatch.setattr(train, "train_one_epoch", lambda model, *_: seen.append(model.head.weight.detach().clone()))
    ideas.run_trial(ideas.IDEAS["plain"], args, toy, 3, CPU)
    utils.seed_everything(3)
    assert torch.equal(seen[0], models.build("fastnet", 2, widths=ideas.WIDTHS).head.weight)


def test_the_harder_half_is_what_the_network_is_least_sure_of(toy):
    class Brightness(nn.Module):
        def forward(self, x):
            level = x.mean(dim=(1, 2, 3))
            return torch.stack([-level, level], 1)

    normalize = datasets.Normalize([0.43] * 3, [0.2] * 3)
    loader = datasets.TensorLoader(toy.splits["train"], 8, CPU)
    half = ideas.harder_half(Brightness(), normalize, loader, "fp32")
    level = normalize(toy.splits["train"].images).mean(dim=(1, 2, 3)) * (2 * toy.splits["train"].labels - 1)
    chosen = normalize(half.images).mean(dim=(1, 2, 3)) * (2 * half.labels - 1)
    assert len(half) == 40 and torch.equal(chosen.sort()[0], level.sort()[0][:40])


class Steps:
    """A schedule that moves the only weight by one."""

    def __init__(self, model):
        self.model = model

    @torch.no_grad()
    def step(self):
        self.model.weight.add_(1)


def test_lookahead_goes_half_the_way_back_every_five_steps():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ahead, seen = ideas.Lookahead(Steps(model), model), []
    for _ in range(11):
        ahead.step()
        seen.append(model.weight.item())
    assert seen == [1, 2, 3, 4, 2.5, 3.5, 4.5, 5.5, 6.5, 5, 6]


def test_the_average_is_of_the_last_quarter():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = ideas.Average(Steps(model), model, 12)
    for _ in range(12):
        average.step()
    expected = 0.98 * (0.98 * 10 + 0.02 * 11) + 0.02 * 12
    assert average.average.module.weight.item() == pytest.approx(expected) and model.weight.item() == 12


def test_differences_are_taken_seed_by_seed():
    plain = [{"accuracy": a, "operations": 1e9, "seconds": 5.0} for a in (0.50, 0.60, 0.70)]
    better = [{"accuracy": a, "operations": 2e9, "seconds": s} for a, s in ((0.51, 3.0), (0.62, 9.0), (0.73, 4.0))]
    row = ideas.row_of("idea", better, plain)
    assert row == ["idea", "2.00e+09", "4", "51.00 62.00 73.00", "62.00", "+2.00 ± 0.58"]
    assert ideas.row_of("plain", plain, plain)[-1] == "" and ideas.row_of("idea", better[:1], plain[:1])[-1] == "+1.00"


def test_the_command_line_lists_refuses_and_compares(toy, monkeypatch, capsys):
    ideas.main([])
    listed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in listed] == list(ideas.IDEAS)
    with pytest.raises(SystemExit, match="no idea 'colours'; there are: plain, small"):
        ideas.main(["colours"])
    done = []

    def trial(idea, args, data, seed, device):
        done.append((idea.colour, seed))
        return {"accuracy": 0.75 if idea.colour else 0.5, "operations": 1e9, "seconds": 1.0}

    monkeypatch.setattr(ideas, "run_trial", trial)
    ideas.main(
        ["colour", "--seeds", "2", "--data", "sample", "--limit", "80", "--precision", "fp32", "--device", "cpu"]
    )
    assert done == [(0, 0), (0.14, 0), (0, 1), (0.14, 1)]
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        "colour",
        "1.00e+09",
        "1",
        "75.00",
        "75.00",
        "75.00",
        "+25.00",
        "±",
        "0.00",
    ]


def test_too_few_pictures_are_refused(toy, monkeypatch):
    toy.splits["train"] = datasets.select(toy.splits["train"], torch.arange(79))
    monkeypatch.setattr(train, "load_data", lambda args: (toy, {}))
    with pytest.raises(SystemExit, match="--data mine: 79 training pictures are too few for a comparison"):
        ideas.main(["colour", "--data", "mine", "--precision", "fp32", "--device", "cpu"])
