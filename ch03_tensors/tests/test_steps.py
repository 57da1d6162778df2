"""Single steps of train.py and test.py against numbers worked out by hand, so that none can be left out unnoticed."""

import importlib.util
import json
import math
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn

import compare
import datasets
import models
import optimizers
import surface
import train
import utils
from lessons import initialisation
from lessons.activations_losses import mse_loss

SPLITS = ("train", "val", "test")


def numbers(inputs: dict, targets: dict) -> datasets.Data:
    """Data of one input column and a number as target."""
    columns = [{split: torch.tensor(v)[:, None] for split, v in part.items()} for part in (inputs, targets)]
    return datasets.Data("t", ("x", "y"), [], *columns)


def two_classes() -> datasets.Data:
    return datasets.Data("t", ("x", "class"), ["A", "B"], {}, {})


def arguments(**changes) -> Namespace:
    return Namespace(**{"batch_size": 2, "seed": 0, "precision": "fp32"} | changes)


class Weight(nn.Module):
    """y = w x."""

    def __init__(self, w: float):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x):
        return self.w * x


# ---- scales ----------------------------------------------------------------------------------------------------------


def test_scales_are_those_of_the_training_part_and_raw_leaves_all_alone():
    data = numbers({"train": [1.0, 3.0, 5.0], "val": [100.0, 300.0]}, {"train": [10.0, 20.0, 60.0], "val": [0.0, 1.0]})
    meta = train.scales_of(data, raw=False)
    assert meta == {"x_mean": [3.0], "x_std": [2.0], "y_mean": [30.0], "y_std": [pytest.approx(math.sqrt(700))]}
    x, y = train.normalised(data, meta, "val")
    assert x.flatten().tolist() == [48.5, 148.5]
    assert y.flatten().tolist() == pytest.approx([-30 / math.sqrt(700), -29 / math.sqrt(700)])
    assert train.scales_of(data, raw=True) == {"x_mean": [0.0], "x_std": [1.0], "y_mean": [0.0], "y_std": [1.0]}


def test_labels_have_no_scale_and_a_single_sample_has_the_scale_1(recwarn):
    data = two_classes()
    data.inputs["train"], data.targets["train"] = torch.tensor([[2.0], [4.0]]), torch.tensor([0, 1])
    assert set(train.scales_of(data, raw=False)) == {"x_mean", "x_std"}
    one = numbers({"train": [7.0]}, {"train": [5.0]})
    assert train.scales_of(one, raw=False) == {"x_mean": [7.0], "x_std": [1.0], "y_mean": [5.0], "y_std": [1.0]}
    assert not recwarn.list


# ---- an epoch --------------------------------------------------------------------------------------------------------


def test_an_epoch_is_one_step_of_gradient_descent_a_batch():
    """y = w x from w = 1 on the samples (1, 3) and (2, 2), one at a time, rate 0.1: the gradient is 2 x (w x - y)."""
    x, y, orders = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]]), {}
    for epoch in range(6):
        model = Weight(1.0)
        optimizer = optimizers.make_optimizer("sgd", model.parameters(), 0.1, 0.0)
        loss = train.train_one_epoch(model, numbers({}, {}), x, y, optimizer, arguments(batch_size=1), epoch)
        orders[epoch] = (round(model.w.item(), 4), round(loss, 4))
    first_then_second = (1.08, 2.32)  # w 1 -> 1.4 -> 1.08; losses 4 and (2.8 - 2)^2 = 0.64
    second_then_first = (1.4, 2.0)  # w 1 -> 1 -> 1.4; losses 0 and 4
    assert set(orders.values()) == {first_then_second, second_then_first}, "epochs have an order of their own"


def test_the_mean_loss_counts_each_sample_once_also_in_a_short_last_batch():
    x, y = torch.tensor([[0.0], [0.0], [0.0]]), torch.tensor([[3.0], [3.0], [3.0]])
    y[2] = 0.0  # losses 9, 9, 0, whatever the order
    model = Weight(1.0)
    optimizer = optimizers.make_optimizer("sgd", model.parameters(), 0.1, 0.0)
    loss = train.train_one_epoch(model, numbers({}, {}), x, y, optimizer, arguments(), 0)
    assert loss == pytest.approx(6)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("name, factors", [("sgd", (1.0, 1.0)), ("momentum", (1.0, 1.9)), ("nesterov", (1.9, 2.71))])
def test_two_steps_of_each_kind_of_gradient_descent(name, factors, decay):
    """The gradient is 1 each time: the velocity 1, then 0.9 + 1; Nesterov looks a step ahead."""
    p = nn.Parameter(torch.tensor([2.0]))
    optimizer = optimizers.make_optimizer(name, [p], 0.1, decay)
    for factor in factors:
        before = p.item()
        p.grad = torch.tensor([1.0 - decay * before])  # with the decay, a gradient of 1
        optimizer.step()
        assert before - p.item() == pytest.approx(0.1 * factor, rel=1e-5)


ADAPTIVE = {
    "rmsprop": (1.0, 0.1 * 0.5 / math.sqrt(0.0124)),
    "adam": (0.1, 0.1 * (0.14 / 0.19) / math.sqrt(0.001249 / 0.001999)),
}


@pytest.mark.parametrize("name", ADAPTIVE)
def test_two_steps_of_the_optimizers_that_divide_by_the_size_of_the_gradient(name):
    """Gradients 1 and 0.5, rate 0.1. RMSprop: v = 0.01, then 0.99 * 0.01 + 0.01 * 0.25 = 0.0124.
    Adam: m = 0.1, v = 0.001, both corrected to 1; then m = 0.14 / 0.19, v = 0.001249 / 0.001999."""
    p = nn.Parameter(torch.tensor([0.0]))
    optimizer = optimizers.make_optimizer(name, [p], 0.1, 0.0)
    for gradient, step in zip((1.0, 0.5), ADAPTIVE[name], strict=True):
        before = p.item()
        p.grad = torch.tensor([gradient])
        optimizer.step()
        assert before - p.item() == pytest.approx(step, rel=1e-4)


def test_schedules_at_known_epochs():
    rate = optimizers.learning_rate
    assert [rate("constant", 0.1, epoch, 8) for epoch in (0, 7)] == [0.1, 0.1]
    assert [rate("step", 0.1, epoch, 8) for epoch in (1, 2, 4, 7)] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    assert [rate("cosine", 0.1, epoch, 8) for epoch in (0, 4, 8)] == pytest.approx([0.1, 0.05, 0.0])
    assert rate("cosine", 0.1, 2, 8) == pytest.approx(0.1 * (1 + math.sqrt(0.5)) / 2)


class Noisy(nn.Module):
    """The input in evaluation, 0 in training: as dropout of everything."""

    def forward(self, x):
        return 0 * x if self.training else x


def test_evaluation_is_in_evaluation_mode_and_in_the_targets_own_unit():
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]])
    row = train.evaluate(Noisy().train(), numbers({}, {}), x, y, {"y_std": [10.0]}, arguments())
    assert row == {"val_loss": 2.5, "val_rmse": pytest.approx(10 * math.sqrt(2.5))}  # errors 1 and -2
    logits, labels = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 1])
    row = train.evaluate(Noisy().train(), two_classes(), logits, labels, {}, arguments())
    assert row["val_accuracy"] == pytest.approx(2 / 3)
    assert row["val_loss"] == pytest.approx((2 * math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 3)


def test_training_is_in_training_mode():
    model = nn.Sequential(Weight(1.0), Noisy()).eval()
    optimizer = optimizers.make_optimizer("sgd", model.parameters(), 0.1, 0.0)
    x, y = torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [3.0]])
    assert train.train_one_epoch(model, numbers({}, {}), x, y, optimizer, arguments(), 0) == 9  # 4 in evaluation


# ---- the best epoch, and what a resumed run knows --------------------------------------------------------------------


def test_the_best_epoch_is_the_lowest_so_far_and_the_first_of_equals():
    progress = {"epoch": 0, "history": [], "best": math.inf, "path": []}
    losses = [3.0, 2.0, 2.5, 2.2, 2.0, 1.0]
    rows = [{"epoch": i, "train_loss": 9 - i, "val_loss": loss} for i, loss in enumerate(losses, 1)]
    best = [train.note(progress, row, torch.zeros(1)) for row in rows]
    assert best == [True, True, False, False, False, True]
    assert progress["best"] == 1.0 and progress["epoch"] == 6 and len(progress["path"]) == len(progress["history"]) == 6


def test_a_resumed_run_knows_weights_optimizer_history_path_and_best(tmp_path):
    args = Namespace(problem="line", arch="line", optimizer="momentum")
    model = models.build("line", 1, 1)
    optimizer = optimizers.make_optimizer("momentum", model.parameters(), 0.1, 0.0)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    saved = {"meta": vars(args), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    saved |= {"epoch": 1, "history": [{"epoch": 1}], "best": 0.25, "path": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    other = models.build("line", 1, 1)
    again = optimizers.make_optimizer("momentum", other.parameters(), 0.1, 0.0)
    progress = train.restore(saved, tmp_path, args, other, again)
    assert progress["epoch"] == 1 and progress["best"] == 0.25 and progress["history"] == [{"epoch": 1}]
    assert torch.equal(torch.stack(progress["path"]), saved["path"])
    assert torch.equal(other.out.weight, model.out.weight)
    assert torch.equal(again.state[0]["velocity"], optimizer.state[0]["velocity"])


def test_a_validation_loss_that_is_no_number_stops_the_run():
    for row in ({"train_loss": math.nan, "val_loss": 1.0}, {"train_loss": 1.0, "val_loss": math.inf}):
        with pytest.raises(SystemExit, match="not finite in epoch 4"):
            train.check_finite(row | {"epoch": 4}, Namespace(lr=0.1), Path("run"))
    train.check_finite({"train_loss": 1.0, "val_loss": 2.0, "epoch": 4}, Namespace(lr=0.1), Path("run"))


def test_limit_leaves_so_many_training_rows_and_says_which():
    args = Namespace(problem="curve", data="sample", limit=30)
    data, split = train.load_data(args)
    assert len(data.inputs["train"]) == len(data.targets["train"]) == len(split["train"]) == 30
    assert len(data.inputs["val"]) == 200 and len(split["unused"]) == 370


# ---- initial weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "init, variance",
    [("small", 1e-4), ("large", 1.0), ("he", 2 / 300), ("xavier", 2 / (300 + 500)), ("torch", 1 / (3 * 300))],
)
def test_initial_weights_have_the_variance_of_their_papers(init, variance):
    torch.manual_seed(0)
    layer = nn.Linear(300, 500)
    models.initialise(layer, init)
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.03)
    normal = init in ("small", "large", "he")
    assert (layer.weight.abs() > 2 * layer.weight.std()).float().mean() == pytest.approx(
        0.0455 if normal else 0, abs=0.004
    )
    assert (layer.bias == 0).all() == (init != "torch")


def test_the_two_papers_bounds():
    generator = torch.Generator().manual_seed(0)
    assert initialisation.xavier_uniform((200, 100), generator).abs().max() == pytest.approx(math.sqrt(0.02), rel=1e-3)
    assert initialisation.he_normal((200, 100), generator).std() == pytest.approx(math.sqrt(0.02), rel=0.02)


def test_models_are_what_they_say():
    x = torch.tensor([[-1.0, 2.0]])
    for name, activation in (("mlp", torch.tanh), ("relu_mlp", torch.relu)):
        torch.manual_seed(0)
        model = models.build(name, 2, 3)
        hidden = activation(model.second(activation(model.first(x))))
        torch.testing.assert_close(model(x), hidden @ model.out.weight.T + model.out.bias)


# ---- test.py ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tester():
    """test.py, loaded by its path: the name `test` may be taken by the standard library's package."""
    spec = importlib.util.spec_from_file_location("chapter_test", Path(train.__file__).parent / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_in_the_targets_own_unit(tester):
    """Predictions 10 x + 5 for x = (v - 1) / 2, against the truth: errors 0, 0 and 3, variance 32 / 3 around 11."""
    meta = {"x_mean": [1.0], "x_std": [2.0], "y_mean": [5.0], "y_std": [10.0], "classes": []}
    data = numbers({"test": [1.0, 3.0, 2.0]}, {"test": [5.0, 15.0, 13.0]})
    result = tester.measure(Weight(1.0), meta, data)
    truth = torch.tensor([5.0, 15.0, 13.0])
    assert result["test_rmse"] == pytest.approx(math.sqrt(9 / 3))  # 10 is predicted where 13 is true
    assert result["test_r2"] == pytest.approx(1 - 3 / truth.var(correction=0).item())
    assert result["test_loss"] == pytest.approx(0.09 / 3)  # in units of the deviation
    line = tester.line_of(Weight(1.0), meta)
    assert line == {"slope": pytest.approx(5.0), "intercept": pytest.approx(0.0)}


def test_accuracy_counts_right_classes(tester):
    data = two_classes()
    data.inputs["test"], data.targets["test"] = (
        torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0]]),
        torch.tensor([0, 1, 1]),
    )
    meta = {"x_mean": [0.0, 0.0], "x_std": [1.0, 1.0], "classes": ["A", "B"]}
    assert tester.measure(Weight(1.0), meta, data)["test_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.usefixtures("undrawn")
def test_the_best_epochs_weights_are_tested(tester, empty_folder):
    """Of a run that diverges after its first epochs, not the last weights."""
    words = ["--problem", "curve", "--optimizer", "sgd", "--lr", "1", "--epochs", "12", "--limit", "10"]
    train.main([*words, "--device", "cpu", "--run", "r"])
    tester.main(["--run", "r"])
    best, last = (utils.load_checkpoint(f"r/{name}.pt") for name in ("best", "last"))
    result = utils.read_json(Path("r/test.json"))
    assert result["epoch"] == best["epoch"] < last["epoch"] == 12
    data = datasets.load("curve", "sample", ("test",))
    x, y = train.normalised(data, best["meta"], "test")
    losses = []
    for saved in (best, last):
        model = models.build("mlp", 1, 1)
        model.load_state_dict(saved["model"])
        losses.append(mse_loss(model(x), y).item())
    assert result["test_loss"] == pytest.approx(losses[0]) and losses[0] < losses[1]


# ---- data ------------------------------------------------------------------------------------------------------------


def test_the_parts_share_no_row_and_have_their_shares():
    marks = [utils.fingerprint(str(i).encode()) for i in range(2000)]
    rows = datasets.deal_rows(marks)
    assert sorted(sum(rows.values(), [])) == list(range(2000))  # each row in one part, none in two
    assert [len(rows[split]) / 2000 for split in SPLITS] == pytest.approx([0.6, 0.2, 0.2], abs=0.03)


def test_classes_are_known_by_their_name_and_not_by_the_rows(tmp_path):
    rows = ["a,b,kind", *(f"{i},{i % 7},{'warm ' if i % 3 else 'cold'}" for i in range(1, 61))]  # warm first
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    data = datasets.load("spirals", str(tmp_path / "a.csv"), SPLITS)
    assert data.classes == ["cold", "warm"]
    for split in SPLITS:
        for (a, _), label in zip(data.inputs[split].tolist(), data.targets[split].tolist(), strict=True):
            assert label == int(a % 3 != 0)


# ---- comparisons and the surface -------------------------------------------------------------------------------------


def test_a_comparison_shows_each_runs_best_epoch(empty_folder):
    rows = [{"epoch": i, "lr": 0.1, "val_loss": loss} for i, loss in enumerate((3.0, 1.0, 2.0), 1)]
    args = Namespace(run="c", problem="line", optimizer="sgd", init="he", resume=None)
    compare.compare(args, lambda one: rows)
    (row,) = json.loads(Path("c/compare.json").read_text())
    assert row["epoch"] == 2 and row["val_loss"] == 1.0


def test_the_plane_of_the_surface_holds_the_longest_directions_of_the_path():
    """A path that runs 3 steps along one axis, 2 along another and hardly along a third."""
    path = torch.tensor([[3.0, 0.0, 0.1, 0.0], [0.0, 2.0, 0.0, 0.0], [-3.0, 0.0, -0.1, 0.0], [0.0, -2.0, 0.0, 0.0]])
    _, axes, _ = surface.plane_of(path)
    assert axes.abs()[0].tolist() == pytest.approx([1, 0, 0.033, 0], abs=0.02)
    assert axes.abs()[1].tolist() == pytest.approx([0, 1, 0, 0], abs=0.02)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_layers_compute_in_the_precision_asked_for(precision, dtype):
    with train.autocast(arguments(precision=precision), torch.device("cpu")):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
