"""Boston: many networks at once equal one by one, folds keep their test rows apart, and the networks beat a straight line."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import assert_same_run, metrics, run_and_kill
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

import boston
import models
import options
import sample
import tables
import test as tester
import train
import utils

SMALL = ("boston", "--data", "sample", "--folds", "4", "--shuffles", "1", "--members", "3", "--epochs", "20")


def run_small(tmp_path, name, *words):
    run = tmp_path / name
    train.main([*SMALL, "--device", "cpu", "--run", str(run), *map(str, words)])
    return run


def weights(run, fold=0):
    return utils.load_checkpoint(boston.fold_file(run, fold))["model"]


def test_an_ensemble_is_its_members_one_by_one():
    torch.manual_seed(0)
    ensemble = models.build("boston", "silu", 5, members=3, width=8)
    x = torch.randn(3, 7, 5)
    layers = [layer for layer in ensemble.layers if isinstance(layer, models.MemberLinear)]
    for m in range(3):
        h = x[m]
        for i, layer in enumerate(layers):
            h = torch.nn.functional.linear(h, layer.weight[m].T, layer.bias[m, 0])
            h = torch.nn.functional.silu(h) if i < 2 else h
        torch.testing.assert_close(ensemble(x)[m], h[:, 0])
    ensemble(x)[1].sum().backward()
    assert all(p.grad[1].abs().sum() > 0 and p.grad[[0, 2]].abs().sum() == 0 for p in ensemble.parameters())


def test_networks_come_near_the_noise_floor_and_beat_linear_regression(tmp_path, device):
    """The sample's noise is 2.0, which no model can get below; on the folds of 500 houses."""
    run = tmp_path / "run"
    train.main(
        ["boston", "--data", "sample", "--split", "holdout", "--shuffles", "1", "--device", device, "--run", str(run)]
    )
    tester.main(["boston", "--run", str(run), "--device", device])
    result = json.loads((run / "test.json").read_text("utf-8"))
    assert sample.HOUSING_NOISE * 0.9 < result["rmse"] < 2.7
    rmse = {name: row["rmse"] for name, row in result["models"].items()}
    assert rmse["networks"] < 0.8 * rmse["linear regression"] < 0.8 * rmse["mean"]
    assert (run / "predictions.png").stat().st_size > 1000 and (run / "curves.png").stat().st_size > 1000


def test_killed_and_resumed_equals_never_killed(tmp_path):
    whole, killed = run_small(tmp_path, "whole"), tmp_path / "killed"
    run_and_kill([*SMALL, "--device", "cpu"], killed, rows=2)
    done = len(metrics(killed)) - 1
    assert done < 4, "it was over before the kill"
    with pytest.raises(SystemExit, match=r"of 4 folds are trained; first python train.py --resume"):
        tester.main(["boston", "--run", str(killed), "--device", "cpu"])
    train.main(["--resume", str(killed)])
    assert_same_run(whole, killed)


def test_training_never_looks_at_a_folds_test_rows(tmp_path, csv_file):
    """Other values in the first fold's test rows leave its networks and its scales the same, bit for bit."""
    x, y = sample.make_houses(40)
    test_rows = np.arange(10)
    args = options.parse(None, [*SMALL, "--members", "2", "--epochs", "3"])
    options.fill_in_recipe(args, "sample")
    first, second = [], []
    for spoilt, results in ((False, first), (True, second)):
        x, y = x.copy(), y.copy()
        if spoilt:
            x[test_rows], y[test_rows] = 9999, 9999
        table = tables.Table("t", list(sample.HOUSING_COLUMNS), "price", x, y)
        for tests in (test_rows, test_rows + 10):
            utils.seed_everything(0)
            state, _ = boston.train_one(table, tests, args, 0, torch.device("cpu"))
            results.append(state)
    assert all(torch.equal(first[0]["model"][key], second[0]["model"][key]) for key in first[0]["model"])
    assert torch.equal(first[0]["features"]["levels"], second[0]["features"]["levels"])
    assert not torch.equal(first[1]["model"]["layers.0.weight"], second[1]["model"]["layers.0.weight"])


def test_penalties_shrink_weights_and_early_stopping_stops(tmp_path):
    plain = weights(run_small(tmp_path, "plain"))["layers.0.weight"]
    l1 = weights(run_small(tmp_path, "l1", "--l1", "0.01"))["layers.0.weight"]
    l2 = weights(run_small(tmp_path, "l2", "--weight-decay", "3"))["layers.0.weight"]
    assert l2.norm() < 0.9 * plain.norm()
    assert (l1.abs() < 0.01).float().mean() > 2 * (plain.abs() < 0.01).float().mean()
    run = run_small(tmp_path, "early", "--patience", "3", "--epochs", "200", "--lr", "0.02")
    assert max(int(line.split(",")[1].split(".")[0]) for line in metrics(run)[1:]) < 200


def test_huber_stops_counting_the_size_of_odd_errors_twice():
    far, near = torch.tensor([[3.0]]), torch.tensor([[0.1]])
    for error, slope in ((far, 1.0), (-far, -1.0), (near, 0.5)):
        error = error.clone().requires_grad_()
        boston.penalty(error, torch.zeros(1, 1), huber=0.2).sum().backward()
        assert error.grad.item() == pytest.approx(slope)  # beyond 0.2 the pull is the same for all
    assert boston.penalty(far, torch.zeros(1, 1), huber=0.0).item() == 9


def test_early_stopping_keeps_each_members_best_epoch():
    torch.manual_seed(0)
    x, y = torch.randn(60, 4), torch.randn(60)  # nothing to learn: validation soon gets worse
    args = Namespace(arch="course", members=3, width=64, dropout=0.0, huber=0.0, l1=0.0, weight_decay=0.0)
    args.epochs, args.batch_size, args.lr, args.patience = 60, 60, 0.02, 60
    torch.manual_seed(1)
    ensemble, history = boston.train_fold(x, y, args, 0)
    torch.manual_seed(1)
    models.build("boston", "course", 4, 3, 64, 0.0)  # draws what train_fold draws before its split
    _, val_rows = boston.inner_split(60, 3, 60)
    kept = boston.evaluate(ensemble, x, y, val_rows).mean().item()
    assert kept <= min(row["val_mse"] for row in history) + 1e-6 < history[-1]["val_mse"]


def test_leave_one_out_and_figures_equal_scikit_learns(tmp_path, csv_file):
    run = run_small(tmp_path, "loo", "--data", csv_file(24), "--split", "loo", "--members", "1", "--epochs", "2")
    tester.main(["boston", "--run", str(run), "--device", "cpu"])
    result = json.loads((run / "test.json").read_text("utf-8"))
    assert result["folds"] == 24 and result["models"]["networks"]["rmse_std"] is None
    rng = np.random.default_rng(0)
    truth = [rng.normal(size=n) for n in (9, 10, 11)]
    guess = [t + rng.normal(size=len(t)) for t in truth]
    ours = boston.measure(guess, truth)
    for name, score in (("rmse", root_mean_squared_error), ("mae", mean_absolute_error), ("r2", r2_score)):
        each = [score(t, g) for t, g in zip(truth, guess, strict=True)]
        assert ours[name] == pytest.approx(np.mean(each)) and ours[f"{name}_std"] == pytest.approx(np.std(each))
        assert ours[f"{name}_pooled"] == pytest.approx(score(np.concatenate(truth), np.concatenate(guess)))


def test_predicts_the_rows_of_a_file(tmp_path, csv_file, capsys):
    run = run_small(tmp_path, "run", "--data", csv_file(60), "--epochs", "60")

    def without_price(lines):
        lines[:] = [line.rsplit(",", 1)[0] for line in lines]

    tester.main(["boston", str(csv_file(60, without_price, "new.csv")), "--run", str(run), "--out", str(tmp_path)])
    lines = (tmp_path / "new-predicted.csv").read_text("utf-8").splitlines()
    assert lines[0].endswith("river,predicted price") and len(lines) == 61
    predicted = [float(line.rsplit(",", 1)[1]) for line in lines[1:]]
    assert np.corrcoef(predicted, sample.make_houses(60)[1])[0, 1] > 0.8
    with pytest.raises(SystemExit, match="other.csv: no column 'rooms'"):
        tester.main(["boston", str(csv_file(30, rename, "other.csv")), "--run", str(run), "--out", str(tmp_path)])


def rename(lines):
    lines[0] = lines[0].replace("rooms", "chambers")


def test_capacity_draws_underfitting_and_overfitting(tmp_path, monkeypatch, capsys):
    import capacity

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(capacity, "WIDTHS", (1, 16, 256))
    capacity.main(["--epochs", "200"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    (train_1, out_1), (_, out_16), (train_256, out_256) = ((float(row[1]), float(row[2])) for row in rows)
    assert train_256 < 0.2 * train_1  # more capacity always fits the training rows better
    assert out_16 < out_1 and out_16 < out_256 and out_256 > 5 * train_256
    assert (tmp_path / "capacity.png").stat().st_size > 1000
