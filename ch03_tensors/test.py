"""Measures a run on the test split and draws its fit; or predicts for the rows of your own CSV files.

    python test.py                          # the newest run
    python test.py --run runs/mlp-spirals-sample
    python test.py --run runs/line-line-sample fathers.csv

Writes test.json and fit.png into the run folder. This is the only program here that reads the test split.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

import datasets
import models
import utils
from train import make_loss, normalised, scaled
from utils import fail


def newest_run() -> Path:
    """The run whose best.pt is youngest, also inside a comparison; --quick runs do not count."""
    return utils.newest_run() or fail("no run with a best.pt below runs/; train one first: python train.py")


def load_run(run: str | Path, name: str, splits: tuple[str, ...]) -> tuple[Path, dict, datasets.Data, nn.Module]:
    """-> the run folder, the checkpoint `name` in it, the run's data, and the model with its weights."""
    run = Path(run)
    if not run.is_dir():
        fail(f"{run}: no such run folder")
    saved = utils.load_checkpoint(run / name)
    split = utils.read_json(run / "split.json") if (run / "split.json").exists() else None
    args = utils.read_arguments(run)
    try:
        meta = saved["meta"]
        model = models.build(meta["arch"], len(meta["x_mean"]), len(meta["classes"]) or 1)
        model.load_state_dict(saved["model"])
        data = datasets.load(meta["problem"], args["data"], splits, split)
    except (KeyError, RuntimeError, ValueError) as error:
        fail(f"{run / name}: not a checkpoint of this chapter ({str(error).splitlines()[0]})")
    if tuple(data.columns) != tuple(meta["columns"]):
        fail(f"{args['data']} has other columns ({', '.join(data.columns)}) than when the run was trained")
    utils.say_weights(run / name, meta)
    return run, saved, data, model.eval()


@torch.no_grad()
def predict(model: nn.Module, meta: dict, x: Tensor) -> Tensor:
    """Raw inputs (N, D) -> predictions in the target's own unit (N, 1), or class numbers (N,)."""
    outputs = model(scaled(x, meta, "x"))
    if meta["classes"]:
        return outputs.argmax(1)
    return outputs.to(x.dtype) * torch.tensor(meta["y_std"], dtype=x.dtype) + torch.tensor(
        meta["y_mean"], dtype=x.dtype
    )


def measure(model: nn.Module, meta: dict, data: datasets.Data) -> dict[str, float]:
    """-> loss and accuracy on the test split; or loss, RMSE (the target's unit), and R^2, the variance explained."""
    with torch.no_grad():
        loss = make_loss(data, *normalised(data, meta, "test"))(model).item()
    answers, truth = predict(model, meta, data.inputs["test"]), data.targets["test"]
    if data.classes:
        return {"test_loss": loss, "test_accuracy": (answers == truth).double().mean().item()}
    error = (answers - truth).double().square().mean().item()
    variance = truth.double().var(correction=0).item()
    return {"test_loss": loss, "test_rmse": error**0.5, "test_r2": 1 - error / variance}


def line_of(model: nn.Module, meta: dict) -> dict[str, float]:
    """Slope and intercept of a line in the data's own units, from two of its points."""
    at_0, at_1 = predict(model, meta, torch.tensor([[0.0], [1.0]])).double().flatten().tolist()
    return {"slope": at_1 - at_0, "intercept": at_0}


def draw_fit(model: nn.Module, meta: dict, data: datasets.Data, path: Path) -> None:
    """The test samples, and what the model says between them. For one or two inputs; more cannot be drawn."""
    x, y = data.inputs["test"], data.targets["test"]
    if x.shape[1] > 2:
        return
    figure = utils.new_figure(6, 4.5, "".join(map(str, meta["columns"])))
    axis = figure.subplots()
    low, high = x.amin(0), x.amax(0)
    margin = 0.1 * (high - low)
    if x.shape[1] == 1:
        grid = torch.linspace((low - margin).item(), (high + margin).item(), 400).unsqueeze(1)
        answers = predict(model, meta, grid).flatten()
        axis.plot(grid[:, 0], answers, color="crimson", label=meta["arch"])
        axis.scatter(x[:, 0], y.flatten(), s=9, label="test samples")
        axis.legend()
        axis.set(ylabel=meta["columns"][1])
    else:
        across, up = (torch.linspace(*(low - margin)[k : k + 1], *(high + margin)[k : k + 1], 200) for k in (0, 1))
        mesh = torch.stack(torch.meshgrid(across, up, indexing="xy"), dim=-1)
        answers = predict(model, meta, mesh.flatten(0, 1)).view(200, 200)
        axis.contourf(across, up, answers, alpha=0.35, cmap="coolwarm")
        axis.scatter(*x.T, c=y.flatten(), s=9, cmap="coolwarm")
        axis.set(ylabel=meta["columns"][1])
    axis.set(xlabel=meta["columns"][0], title=f"{meta['arch']} on {meta['problem']} ({data.name}), test split")
    utils.save_figure(figure, path)


def predict_files(model: nn.Module, meta: dict, files: list[str]) -> None:
    """Prints a line for each row of each file; the file's first columns are the model's inputs, others are ignored."""
    for name in files:
        if not Path(name).is_file():
            fail(f"{name}: no such file")
        _, inputs, _ = datasets.read_csv(Path(name), is_class=False, num_inputs=len(meta["x_mean"]))
        answers = predict(model, meta, torch.tensor(inputs, dtype=torch.float64)).flatten().tolist()
        for row, answer in zip(inputs, answers, strict=True):
            text = meta["classes"][answer] if meta["classes"] else f"{answer:.4f}"
            print(f"{name}  {', '.join(f'{value:g}' for value in row)} -> {meta['columns'][-1]} {text}")


def main(argv: list[str] | None = None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help="CSV files to predict for, instead of measuring")
    parser.add_argument("--run", metavar="DIR", help="run folder (default: the newest below runs/)")
    args = parser.parse_args(argv)
    run, saved, data, model = load_run(args.run or newest_run(), "best.pt", ("test",))
    meta = saved["meta"]
    if args.files:
        predict_files(model, meta, args.files)
        return
    result = {"problem": meta["problem"], "arch": meta["arch"], "data": meta["data"], "epoch": saved["epoch"]}
    result |= {"samples": len(data.inputs["test"]), **measure(model, meta, data)}
    if meta["arch"] == "line" and len(meta["x_mean"]) == 1 and not meta["classes"]:
        result |= line_of(model, meta)
    utils.write_atomic(run / "test.json", json.dumps(result, indent=1))
    draw_fit(model, meta, data, run / "fit.png")
    for name, value in result.items():
        print(f"{name:<14} {value:.4f}" if isinstance(value, float) else f"{name:<14} {value}")
    print(f"wrote {run}: test.json, fit.png")


if __name__ == "__main__":
    utils.start(main)
