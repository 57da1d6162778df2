"""Regression: the price of a house from a row of numbers. Cross-validation, and what test.py measures on the held-out rows.

    python train.py boston                    # ten networks for each of 3 x 10 folds
    python test.py boston                     # their RMSE, MAE and R2, next to scikit-learn's models on the same folds

Expect: the README's table. `train` never looks at a fold's test rows; `test` never fits anything to them.
"""

import csv
import io
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from torch import Tensor
from tqdm import tqdm

import loop
import models
import tables
import utils
from options import fill_in_recipe
from utils import fail, new_figure, say

# ---- training ---------------------------------------------------------------------------------------------------------


def inner_split(rows: int, members: int, patience: int) -> tuple[Tensor, Tensor]:
    """-> (M, n) rows that train and (M, v) rows that validate, drawn for each member; without early stopping v is 0."""
    order = torch.rand(members, rows).argsort(1)
    held = max(1, rows // 10) if patience else 0
    return order[:, held:], order[:, :held]


def train_fold(x: Tensor, y: Tensor, args: Namespace, fold: int) -> tuple[models.Ensemble, list[dict]]:
    """Trains args.members networks at once on a fold's training rows: x (n, F) and y (n,), both standardised.

    -> the networks, and the history: each epoch's mean loss, and val_mse in variances of the target.
    """
    ensemble = models.build("boston", args.arch, x.shape[1], args.members, args.width, args.dropout).to(x.device)
    train_rows, val_rows = (rows.to(x.device) for rows in inner_split(len(y), args.members, args.patience))
    n = train_rows.shape[1]
    size = min(args.batch_size, n)
    optimizer = loop.make_optimizer(ensemble, args)
    scheduler = loop.make_schedule(optimizer, args.epochs * (n // size))
    best = torch.full((args.members,), torch.inf, device=x.device)
    kept = {name: p.detach().clone() for name, p in ensemble.named_parameters()}
    history, waited = [], 0
    for epoch in range(args.epochs):
        ensemble.train()
        order = torch.rand(train_rows.shape).argsort(1).to(x.device)  # each member has its own order
        total = torch.zeros((), device=x.device)
        for rows in train_rows.gather(1, order).split(size, 1)[: n // size]:  # (M, size)
            errors = penalty(ensemble(x[rows]), y[rows], args.huber).mean(1)  # (M,)
            loss = errors.sum() + args.l1 * lasso(ensemble)  # a sum, as the members share no weight
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += errors.detach().mean()
        loop.check_loss(total, args, f"fold {fold + 1}, epoch {epoch + 1}")
        history.append({"epoch": epoch + 1, "train_loss": total.item() / (n // size)})
        if args.patience:
            val = evaluate(ensemble, x, y, val_rows)
            history[-1]["val_mse"] = val.mean().item()
            better = val < best
            keep(ensemble, kept, better)
            best, waited = torch.minimum(val, best), 0 if better.any() else waited + 1
            if waited >= args.patience:
                break
    if args.patience:
        ensemble.load_state_dict(kept)
    return ensemble.eval(), history


def lasso(ensemble: models.Ensemble) -> Tensor:
    """The sum of all weights' sizes, biases left out (Tibshirani 1996): with it many weights become nearly nothing."""
    return sum(p.abs().sum() for p in ensemble.parameters() if p.shape[1] > 1)


def penalty(predicted: Tensor, y: Tensor, huber: float) -> Tensor:
    """(M, n), (M, n) -> (M, n) squared errors; with `huber`, those beyond it count by their size alone (Huber 1964,
    "Robust estimation of a location parameter"), so that a few odd houses do not bend the fit for all the others."""
    return F.smooth_l1_loss(predicted, y, reduction="none", beta=huber) if huber else (predicted - y).square()


@torch.no_grad()
def evaluate(ensemble: models.Ensemble, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    """-> (M,) mean squared error of each member on its own rows (M, v)."""
    ensemble.eval()
    return (ensemble(x[rows]) - y[rows]).square().mean(1)


@torch.no_grad()
def keep(ensemble: models.Ensemble, kept: dict[str, Tensor], better: Tensor) -> None:
    """Copies the weights of the members that are better (M,) into `kept`."""
    for name, p in ensemble.named_parameters():
        kept[name][better] = p[better]


def train(args: Namespace, device: torch.device) -> Path:
    """Trains the networks of every fold -> the run folder. Progress is kept by fold: one takes a second or two."""
    table = tables.load_table(args.data, args.data_root, args.target, args.drop)
    fill_in_recipe(args, table.name, table.own)
    marks = table.marks()
    tests = tables.make_folds(marks, args.split, args.folds, args.shuffles)
    run = utils.open_run(args, f"{args.arch}-{table.name}", describe(table, args, marks, tests))
    progress = loop.restore(utils.last_checkpoint(run, args), run, args, {})
    if progress["epoch"] and args.epochs != utils.read_arguments(run)["epochs"]:
        fail("--epochs: the folds are trained one after the other, and all for as long; start a new run")
    if progress["epoch"] == len(tests):
        say(f"{run} is finished: all {len(tests)} folds are trained")
        return run
    meta = {"task": "boston", "arch": args.arch, "data": table.name, "columns": table.columns, "target": table.target}
    (run / "folds").mkdir(exist_ok=True)
    say(f"{args.arch} on {table.name}: {len(table.y)} rows, {len(table.columns)} features, target {table.target}; "
        f"{len(tests)} folds ({args.split}) x {args.members} networks")  # fmt: skip
    say(f"{device}; torch {torch.__version__}; run {run}")
    events = utils.Events(run, progress["history"])
    for fold in tqdm(range(progress["epoch"], len(tests)), desc="folds", leave=False, disable=None):
        utils.seed_everything(args.seed, fold)
        start = time.perf_counter()
        state, history = train_one(table, tests[fold], args, fold, device)
        seconds = time.perf_counter() - start

        row = {"fold": fold + 1, "epochs": len(history)} | {name: history[-1][name] for name in list(history[-1])[1:]}
        progress["history"].append(row)
        progress |= {"epoch": fold + 1, "seconds": progress["seconds"] + seconds}
        utils.save_checkpoint(fold_file(run, fold), state)
        loop.save(run, args, progress, meta, {}, None)
        loop.report(row, str(len(tests)), f"{seconds:5.1f} s", events)
    events.close()
    finish(run, args, progress, len(tests))
    return run


def train_one(
    table: tables.Table, test_rows: np.ndarray, args: Namespace, fold: int, device
) -> tuple[dict, list[dict]]:
    """Trains a fold's networks on all rows but its test rows, which are for test.py -> what its file holds, and the history."""
    rows = training_rows(len(table.y), test_rows)[: args.limit]
    features = tables.Features(table.x[rows], args.features == "quantile")
    target = tables.Scaler(table.y[rows, None])
    x, y = features(table.x[rows]).to(device), target(table.y[rows, None])[:, 0].to(device)
    ensemble, history = train_fold(x, y, args, fold)
    state = {"features": features.state_dict(), "target": target.state_dict(), "epochs": history}
    return state | {"model": ensemble.state_dict(), "inputs": x.shape[1]}, history


def training_rows(rows: int, test_rows: np.ndarray) -> np.ndarray:
    """-> all other rows."""
    return np.setdiff1d(np.arange(rows), test_rows)


def describe(table: tables.Table, args: Namespace, marks: list[str], tests: list[np.ndarray]) -> dict:
    """What split.json holds: the rows, by fingerprint in the order of the training, and which of them each fold tests."""
    split = {"data": args.data if table.own else table.name, "own": table.own, "columns": table.columns}
    split |= {"target": table.target, "tests": [test.tolist() for test in tests], "rows": marks}
    return split | {"train": {mark: f"row {row}" for row, mark in enumerate(marks, 1)}}


def fold_file(run: Path, fold: int) -> Path:
    return run / "folds" / f"{fold + 1:03d}.pt"


def finish(run: Path, args: Namespace, progress: dict, folds: int) -> None:
    """The mean learning curves of the folds, and where to go on."""
    histories = [utils.load_checkpoint(fold_file(run, fold))["epochs"] for fold in range(min(folds, 30))]
    shortest = min(map(len, histories))  # with early stopping, not all are equally long
    names = list(histories[0][0])
    curves = [{name: float(np.mean([h[i][name] for h in histories])) for name in names} for i in range(shortest)]
    utils.draw_curves(curves, run / "curves.png")
    say(f"{args.arch} on {args.data}: {folds} folds in {progress['seconds']:.0f} s of training")
    say(f"wrote {run}: {', '.join(sorted(path.name for path in run.iterdir()))}")
    say(f"now: python test.py boston --run {utils.quoted(run)}")


# ---- testing ----------------------------------------------------------------------------------------------------------


def load_fold(run: Path, args: Namespace, fold: int):
    """-> a function from features (n, F) to predictions (n,) in the target's units: the mean of the fold's networks."""
    saved = utils.load_checkpoint(fold_file(run, fold))
    ensemble = models.build("boston", args.arch, saved["inputs"], args.members, args.width, args.dropout)
    utils.load_state(ensemble, saved["model"], fold_file(run, fold), args.arch)
    ensemble.eval()
    features = tables.Features.from_state_dict(saved["features"])
    target = tables.Scaler.from_state_dict(saved["target"])

    @torch.inference_mode()
    def predict(x: np.ndarray) -> np.ndarray:
        shown = features(x).expand(args.members, -1, -1)  # (M, n, F)
        return target.invert(ensemble(shown).mean(0)).numpy()

    return predict


def baselines(seed: int) -> dict:
    """scikit-learn's models with its own defaults (extra trees: 300 of them), and the mean of the training rows."""
    return {
        "mean": DummyRegressor(),
        "linear regression": LinearRegression(),
        "gradient boosting": GradientBoostingRegressor(random_state=seed),
        "extra trees": ExtraTreesRegressor(300, random_state=seed),
    }


def test(run: Path) -> dict:
    """Predicts each fold's test rows by networks that never saw them, and by models fitted to the same training rows.

    -> for each: RMSE, MAE and R2, mean and standard deviation over the folds, and over all predictions at once.
    """
    args, table, folds = reopen(run)
    names = ["networks", *baselines(0)]
    predictions = {name: [] for name in names}
    for fold, rows, test_rows in tqdm(folds, desc="folds", leave=False, disable=None):
        predictions["networks"].append(load_fold(run, args, fold)(table.x[test_rows]))
        for name, model in baselines(fold).items():
            predictions[name].append(model.fit(table.x[rows], table.y[rows]).predict(table.x[test_rows]))
    truth = [table.y[test_rows] for _, _, test_rows in folds]
    result = {name: measure(predicted, truth) for name, predicted in predictions.items()}
    print_table(result)
    draw_predictions(np.concatenate(predictions["networks"]), np.concatenate(truth), table, run / "predictions.png")
    ours = result["networks"]
    say(f"{args.arch} ({args.members} networks), {len(folds)} folds ({args.split}) of {table.name}: RMSE {ours['rmse']:.3f}, "
          f"MAE {ours['mae']:.3f}, R2 {ours['r2']:.3f}, in units of {table.target}")  # fmt: skip
    return {"rmse": ours["rmse"], "mae": ours["mae"], "r2": ours["r2"], "folds": len(folds), "models": result}


def reopen(run: Path) -> tuple[Namespace, tables.Table, list[tuple[int, np.ndarray, np.ndarray]]]:
    """-> the run's arguments, its data as they are now, and (fold, training rows, test rows) of all its folds.

    Rows are known by their content. In which order the file has them now means nothing; rows that came later are in no fold.
    """
    args, split = Namespace(**utils.read_arguments(run)), utils.read_json(run / "split.json")
    check_folds(run, len(split["tests"]))
    now = tables.load_table(args.data, args.data_root, args.target, args.drop, split["own"])
    for name in split["columns"]:
        if name not in now.columns:
            fail(f"{args.data}: {tables.no_column(name, now.columns)}")
    x = now.x[:, [now.columns.index(name) for name in split["columns"]]]
    table = tables.Table(now.name, split["columns"], now.target, x, now.y, now.own)
    at = {mark: row for row, mark in enumerate(table.marks())}  # of equal rows, any will do
    rows = [at.get(mark, -1) for mark in split["rows"]]
    gone = [f"row {number}" for number, row in enumerate(rows, 1) if row < 0]
    later = at.keys() - set(split["rows"])
    if gone:
        say(f"{len(gone)} rows of the training are gone or changed: {utils.shortened(gone)}", file=sys.stderr)
    if later:
        say(f"{len(later)} rows came after the training and are in no fold", file=sys.stderr)
    rows, folds = np.array(rows), []
    for fold, test_rows in enumerate(split["tests"]):
        train = rows[training_rows(len(rows), np.array(test_rows, dtype=int))[: args.limit]]
        test_rows = rows[np.array(test_rows, dtype=int)]
        if (test_rows >= 0).any() and (train >= 0).any():
            folds.append((fold, train[train >= 0], test_rows[test_rows >= 0]))
    return args, table, folds or fail(f"{args.data}: none of the rows that {run} held out is in it")


def check_folds(run: Path, folds: int) -> None:
    done = sum(fold_file(run, fold).exists() for fold in range(folds))
    if done < folds:
        fail(f"{run}: {done} of {folds} folds are trained; first python train.py --resume {utils.quoted(run)}")


def measure(predictions: list[np.ndarray], truth: list[np.ndarray]) -> dict:
    """Predictions and truth a fold -> RMSE, MAE, R2. A fold of one row (leave-one-out) has no R2, and no RMSE but the MAE:
    there, RMSE and R2 are of all predictions at once."""
    errors = [p - t for p, t in zip(predictions, truth, strict=True)]
    all_errors, all_truth = np.concatenate(errors), np.concatenate(truth)
    pooled = {"rmse": np.sqrt((all_errors**2).mean()), "mae": abs(all_errors).mean()}
    pooled["r2"] = 1 - (all_errors**2).sum() / ((all_truth - all_truth.mean()) ** 2).sum()
    rows = {"mae": [abs(e).mean() for e in errors]}
    if min(map(len, truth)) > 1:
        rows["rmse"] = [np.sqrt((e**2).mean()) for e in errors]
        rows["r2"] = [1 - (e**2).sum() / ((t - t.mean()) ** 2).sum() for e, t in zip(errors, truth, strict=True)]
    result = {}
    for name in ("rmse", "mae", "r2"):
        result[name] = float(np.mean(rows[name]) if name in rows else pooled[name])
        result[f"{name}_std"] = float(np.std(rows[name])) if name in rows else None
        result[f"{name}_pooled"] = float(pooled[name])
    return result


def print_table(result: dict) -> None:
    """Mean and standard deviation over the folds, and the RMSE of all predictions at once."""
    rows = [["model", "RMSE", "MAE", "R2", "RMSE, pooled"]]
    for name, row in result.items():
        cells = [f"{row[key]:.3f}" for key in ("rmse", "mae", "r2")]
        spreads = [row[f"{key}_std"] for key in ("rmse", "mae", "r2")]
        cells = [c if s is None else f"{c} ± {s:.3f}" for c, s in zip(cells, spreads, strict=True)]
        rows.append([name, *cells, f"{row['rmse_pooled']:.3f}"])
    utils.print_table(rows)


def draw_predictions(predicted: np.ndarray, truth: np.ndarray, table: tables.Table, path: Path) -> None:
    figure = new_figure(5.5, 5, table.target + table.name)
    axis = figure.subplots()
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    axis.plot(ends, ends, color="gray", linewidth=1)
    axis.scatter(truth, predicted, s=8, alpha=0.4)
    axis.set(xlabel=f"true {table.target}", ylabel="predicted, by networks that never saw the row", title=table.name)
    axis.grid(alpha=0.3)
    utils.save_figure(figure, path)


def predict_files(run: Path, files: list[str], out: Path) -> None:
    """Writes each CSV file again, its cells as they are, with a column of predictions: the mean of all folds' networks."""
    args, split = Namespace(**utils.read_arguments(run)), utils.read_json(run / "split.json")
    folds = len(split["tests"])
    check_folds(run, folds)
    for path in map(Path, files):
        cells = tables.read_csv(path)
        for name in split["columns"]:
            if name not in cells.columns:
                fail(f"{path}: {tables.no_column(name, cells.columns)}")
        if not cells.rows:
            fail(f"{path}: no rows below the column names")
        x = cells.numbers(split["columns"])
        predicted = np.mean([load_fold(run, args, fold)(x) for fold in range(folds)], 0)
        text = io.StringIO()
        writer = csv.writer(text, delimiter=cells.delimiter, lineterminator="\n")
        writer.writerow([*cells.columns, f"predicted {split['target']}"])
        writer.writerows([*row, f"{p:.10g}"] for row, p in zip(cells.rows, predicted, strict=True))
        target = utils.free_name(out / f"{path.stem}-predicted.csv")
        utils.write_atomic(target, text.getvalue())
        say(f"wrote {target}: {len(x)} rows, mean prediction {predicted.mean():.3f}")
