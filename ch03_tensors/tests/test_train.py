"""train.py and test.py as a reader uses them: what they learn, write and say, and what a kill leaves."""

import importlib.util
import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from conftest import fork_train, torchrun

import compare
import optimizers
import options
import surface
import train
import utils
from lessons.tools import read_scalars

CHAPTER = Path(train.__file__).parent


@pytest.fixture(scope="module")
def measure():
    """The main() of test.py, loaded by its path: the name `test` may be taken by the standard library's package."""
    spec = importlib.util.spec_from_file_location("chapter_test", CHAPTER / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def refused(main, *words: str) -> str:
    """The one line with which a program ends, exit status 1."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    message = str(stop.value)
    assert message.startswith("error: ") and "\n" not in message
    return message


# What the model must reach on the test split. The noise of the sample sets the limit: 13 points, 0.1.
GOALS = {
    "line": (["--optimizer", "momentum"], lambda r: r["test_rmse"] < 13.5 and 0.3 < r["slope"] < 0.7),
    "curve": (["--epochs", "120"], lambda r: r["test_rmse"] < 0.13 and r["test_r2"] > 0.95),
    "spirals": (["--epochs", "120"], lambda r: r["test_accuracy"] > 0.95),
}


@pytest.mark.parametrize("problem", list(GOALS))
def test_learns_each_problem_and_writes_the_run_folder(problem, empty_folder, measure, device, capsys):
    words, good_enough = GOALS[problem]
    train.main(["--problem", problem, "--device", device, *words])
    (run,) = (empty_folder / "runs").iterdir()
    arch = "line" if problem == "line" else "mlp"
    assert run.name == f"{arch}-{problem}-sample"
    names = {path.name for path in run.iterdir()}
    assert {"args.json", "metrics.csv", "curves.png", "path.png", "last.pt", "best.pt"} <= names

    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    events = read_scalars(run)
    assert rows[0][:4] == ["epoch", "lr", "train_loss", "val_loss"]
    assert [float(row[3]) for row in rows[1:]] == pytest.approx([v for _, v in events["val_loss"]], rel=1e-4)
    last, best = (torch.load(run / name, weights_only=True) for name in ("last.pt", "best.pt"))
    assert last["meta"]["data"] == best["meta"]["data"] == "sample"
    assert best["epoch"] == 1 + min(range(len(rows) - 1), key=lambda i: float(rows[i + 1][3]))
    assert last["path"].shape == (len(rows), sum(p.numel() for p in last["model"].values()))
    assert json.loads((run / "args.json").read_text())["problem"] == problem

    measure([])
    result = json.loads((run / "test.json").read_text())
    assert good_enough(result), result
    assert result["data"] == "sample" and (run / "fit.png").read_bytes().startswith(b"\x89PNG")
    assert "sample" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
def test_every_optimizer_with_its_default_rate_beats_the_start(optimizer, empty_folder):
    train.main(["--problem", "spirals", "--optimizer", optimizer, "--epochs", "25", "--run", "r"])
    rows = [line.split(",") for line in Path("r/metrics.csv").read_text().splitlines()]
    assert float(rows[-1][2]) < 0.8 * 0.693


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("words", [["--batch-size", "0"], ["--batch-size", "1"], ["--schedule", "step"], ["--raw"]])
def test_quick_runs_take_every_path(words, empty_folder, device):
    for problem in options.RECIPES:
        lr = ["--lr", "1e-6", "--optimizer", "sgd"] if "--raw" in words else []
        train.main(["--quick", "--problem", problem, "--device", device, "--run", problem, *words, *lr])
        saved = torch.load(f"{problem}/last.pt", weights_only=True)
        assert saved["epoch"] == 1 and len(saved["path"]) == 2
        assert saved["history"][0]["train_loss"] > 0 and not torch.equal(*saved["path"])


@pytest.mark.usefixtures("undrawn")
def test_bfloat16_keeps_the_weights_in_float32(empty_folder, device):
    train.main(["--quick", "--problem", "spirals", "--precision", "bf16", "--device", device])
    saved = torch.load("runs/mlp-spirals-sample/last.pt", weights_only=True)
    assert all(value.dtype == torch.float32 for value in saved["model"].values())


def test_all_weights_equal_learn_less_than_random_ones(empty_folder):
    train.main(["--problem", "spirals", "--init", "torch,zeros", "--epochs", "40", "--optimizer", "adam", "--run", "c"])
    rows = {row["init"]: row for row in json.loads(Path("c/compare.json").read_text())}
    assert rows["torch"]["val_accuracy"] > 0.8 and rows["zeros"]["val_accuracy"] < 0.7
    assert Path("c/compare.png").read_bytes().startswith(b"\x89PNG")
    assert Path("c/adam-torch/best.pt").exists() and Path("c/adam-zeros/args.json").exists()


def test_a_comparison_survives_one_run_that_diverges(empty_folder, capsys):
    train.main(["--raw", "--optimizer", "sgd,adam", "--lr", "0.1", "--epochs", "3", "--run", "c"])
    rows = {row["optimizer"]: row for row in json.loads(Path("c/compare.json").read_text())}
    assert "not finite" in rows["sgd"]["failed"] and "val_loss" in rows["adam"]
    assert "not finite" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_run_never_overwrites_another(empty_folder):
    for _ in range(2):
        train.main(["--quick"])
    assert {path.name for path in Path("runs").iterdir()} == {"line-line-sample", "line-line-sample-2"}


@pytest.mark.usefixtures("undrawn")
def test_the_same_seed_gives_the_same_run_and_another_seed_another(empty_folder):
    for run, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        train.main(["--problem", "spirals", "--epochs", "3", "--seed", seed, "--run", run])
    a, b, c = (Path(run, "metrics.csv").read_bytes() for run in "abc")
    assert a == b != c


# ---- a kill, and what follows ----------------------------------------------------------------------------------------


def same(a, b) -> bool:
    """Equal to the last bit, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def kill_after(epochs: int, program, metrics: Path) -> None:
    """Signal 9 as soon as so many epochs are in the run's metrics.csv."""
    deadline = time.monotonic() + 60
    while not metrics.exists() or metrics.read_text().count("\n") <= epochs:
        assert program.is_alive() and time.monotonic() < deadline, "the run ended or hung before the kill"
        time.sleep(0.005)
    program.kill()
    program.join()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("optimizer", ["adam", "nesterov"])
def test_resumed_after_a_kill_it_equals_the_uninterrupted_run_bit_for_bit(optimizer, tmp_path):
    words = ("--problem", "curve", "--optimizer", optimizer, "--schedule", "cosine", "--epochs", "30", "--limit", "80")
    train.main([*words, "--device", "cpu", "--run", str(tmp_path / "whole")])
    cut = fork_train(*words, "--run", "cut", cwd=tmp_path)
    kill_after(5, cut, tmp_path / "cut" / "metrics.csv")
    saved = torch.load(tmp_path / "cut" / "last.pt", weights_only=True)
    assert 4 <= saved["epoch"] < 30, "the kill came too late to show anything"
    train.main(["--resume", str(tmp_path / "cut")])
    assert (tmp_path / "cut/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()
    for name in ("last.pt", "best.pt"):
        a, b = (torch.load(tmp_path / run / name, weights_only=True) for run in ("whole", "cut"))
        assert same(a, b), name
    curves = [read_scalars(tmp_path / run)["val_loss"] for run in ("whole", "cut")]
    assert dict(curves[0]) == dict(curves[1])


@pytest.mark.usefixtures("undrawn")
def test_resume_of_a_finished_run_changes_no_result(empty_folder):
    train.main(["--quick", "--run", "r"])
    before = Path("r/metrics.csv").read_bytes(), torch.load("r/last.pt", weights_only=True)
    train.main(["--resume", "r"])
    assert Path("r/metrics.csv").read_bytes() == before[0]
    assert same(torch.load("r/last.pt", weights_only=True), before[1])


@pytest.mark.usefixtures("undrawn")
def test_resume_goes_on_with_more_epochs(empty_folder):
    train.main(["--epochs", "4", "--run", "a"])
    train.main(["--epochs", "2", "--run", "b"])
    train.main(["--resume", "b", "--epochs", "4"])
    assert Path("a/metrics.csv").read_bytes() == Path("b/metrics.csv").read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(empty_folder):
    train.main(["--raw", "--optimizer", "sgd", "--lr", "1e-5", "--epochs", "2", "--run", "r"])
    good = torch.load("r/last.pt", weights_only=True)
    arguments = json.loads(Path("r/args.json").read_text())
    Path("r/args.json").write_text(json.dumps(arguments | {"lr": 1e30}))  # a rate that no flag may change now
    message = refused(train.main, "--resume", "r", "--epochs", "40")
    assert "not finite in epoch 3" in message
    assert same(torch.load("r/last.pt", weights_only=True), good)


@pytest.mark.usefixtures("undrawn")
def test_best_pt_is_the_epoch_of_the_lowest_validation_loss(empty_folder):
    train.main(
        ["--problem", "curve", "--optimizer", "sgd", "--lr", "1", "--epochs", "12", "--limit", "10", "--run", "r"]
    )
    losses = [row["val_loss"] for row in torch.load("r/last.pt", weights_only=True)["history"]]
    assert torch.load("r/best.pt", weights_only=True)["epoch"] == 1 + losses.index(min(losses)) < 12  # it diverges


@pytest.mark.usefixtures("undrawn")
def test_weight_decay_and_schedule_have_their_effect(empty_folder):
    words = ["--problem", "curve", "--optimizer", "sgd", "--epochs", "4"]
    train.main([*words, "--run", "plain"])
    train.main([*words, "--weight-decay", "0.5", "--schedule", "step", "--run", "other"])
    plain, other = (torch.load(f"{run}/last.pt", weights_only=True) for run in ("plain", "other"))
    norms = [sum(p.square().sum() for p in saved["model"].values()).item() for saved in (plain, other)]
    assert norms[1] < 0.9 * norms[0]
    rates = [row["lr"] for row in other["history"]]
    assert rates == pytest.approx([rates[0] / 2**k for k in range(4)]) and len({r["lr"] for r in plain["history"]}) == 1


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--problem", "circle"], "line, curve, spirals"),
        (["--arch", "cnn"], "line, mlp, relu_mlp"),
        (["--optimizer", "lion"], "sgd, momentum, nesterov, rmsprop, adam"),
        (["--optimizer", "sgd,lion"], "sgd, momentum, nesterov, rmsprop, adam"),
        (["--init", "best"], "torch, zeros, ones, small, large, xavier, he"),
        (["--data", "none.csv"], "none.csv: no such file"),
        (["--epochs", "0"], "argument --epochs: '0': must be a whole number, 1 or more"),
        (["--lr", "-1"], "argument --lr: '-1': must be a number above 0"),
        (["--batch-size", "-1"], "argument --batch-size: '-1': must be a whole number, 0 or more"),
        (["--resume", "nowhere"], "nowhere: no args.json"),
        (["--visdom", "http://127.0.0.1:9"], "--visdom"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(words, expected, empty_folder):
    assert expected in refused(train.main, *words)
    assert not Path("runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_that_is_not_there_is_refused(empty_folder):
    assert "--device cuda" in refused(train.main, "--device", "cuda")


@pytest.mark.usefixtures("undrawn")
def test_bad_checkpoints_are_refused(empty_folder, measure):
    assert "no run with a best.pt" in refused(measure)
    assert "nowhere: no such run folder" in refused(measure, "--run", "nowhere")
    train.main(["--quick", "--run", "r"])
    Path("r/best.pt").write_bytes(b"not a checkpoint")
    assert "r/best.pt: not a checkpoint" in refused(measure, "--run", "r")
    torch.save({"weights": torch.zeros(3)}, "r/best.pt")
    assert "not a checkpoint of this chapter" in refused(measure, "--run", "r")
    Path("r/last.pt").write_bytes(Path("r/last.pt").read_bytes()[:100])
    assert "r/last.pt: not a checkpoint" in refused(train.main, "--resume", "r")


@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint_that_would_run_code_is_not_run(empty_folder, measure):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (Path("exploded"),)

    train.main(["--quick", "--run", "r"])
    torch.save({"meta": Bomb()}, "r/best.pt")
    assert "not a checkpoint" in refused(measure, "--run", "r")
    assert not Path("exploded").exists()


@pytest.mark.usefixtures("undrawn")
def test_resume_with_another_model_optimizer_or_data_is_refused(empty_folder):
    train.main(["--quick", "--run", "r"])
    for words in (["--arch", "mlp"], ["--optimizer", "sgd"], ["--problem", "curve"], ["--optimizer", "sgd,adam"]):
        assert f"leave out {words[0]}" in refused(train.main, "--resume", "r", "--epochs", "3", *words)
    Path("my.csv").write_text("\n".join(["a,b", *(f"{i},{i * i}" for i in range(20))]) + "\n")
    train.main(["--data", "my.csv", "--epochs", "1", "--problem", "curve", "--run", "c"])
    Path("my.csv").write_text("\n".join(["a,b", *(f"{i},{i * i}" for i in range(21))]) + "\n")
    assert "the data are not those of the run: 1 " in refused(train.main, "--resume", "c", "--epochs", "3")


def test_a_bad_argument_from_the_shell_gives_one_line_and_status_1(start, tmp_path):
    program = start("train.py", "--arch", "cnn", cwd=tmp_path)
    output, errors = program.communicate(timeout=60)
    assert program.returncode == 1 and output == "" and len(errors.splitlines()) == 1


# ---- own data, predictions, other machines' ways ---------------------------------------------------------------------


def test_own_data_from_training_to_prediction(empty_folder, measure, capsys):
    rows = [f"{x / 10},{(x * 7 % 10) / 10},{'warm' if x > 50 else 'cold'}" for x in range(100)]
    Path("weather.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n")
    train.main(["--problem", "spirals", "--data", "weather.csv", "--epochs", "40"])
    measure([])
    result = json.loads(Path("runs/mlp-spirals-weather/test.json").read_text())
    assert result["data"] == "weather" and result["test_accuracy"] > 0.8
    Path("new.csv").write_text("a,b\n0.5,0.5\n9.5,0.5\nx,1\n")
    capsys.readouterr()
    measure(["--run", "runs/mlp-spirals-weather", "new.csv"])
    printed = capsys.readouterr()
    assert [line.split()[-1] for line in printed.out.splitlines()] == ["cold", "warm"]
    assert "new.csv:4: 'x' is no number" in printed.err
    assert "none.csv: no such file" in refused(measure, "none.csv")


def test_a_line_predicts_in_its_own_units(empty_folder, measure, capsys):
    Path("my.csv").write_text("\n".join(["km,price", *(f"{x},{300 + 2 * x}" for x in range(1, 60))]) + "\n")
    train.main(["--data", "my.csv", "--epochs", "150", "--run", "r"])
    measure(["--run", "r"])
    result = json.loads(Path("r/test.json").read_text())
    assert result["slope"] == pytest.approx(2, abs=0.02) and result["intercept"] == pytest.approx(300, abs=1)
    Path("new.csv").write_text("km\n1000\n")
    capsys.readouterr()
    measure(["--run", "r", "new.csv"])
    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(2300, rel=0.01)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_processes_see_each_sample_once_and_train_like_one(optimizer, tmp_path):
    """With SGD, since Adam does not notice gradients that are too large by a factor."""
    words = ("--problem", "curve", "--epochs", "3", "--optimizer", optimizer)
    torchrun(*words, "--run", "two", cwd=tmp_path)
    train.main([*words, "--device", "cpu", "--run", str(tmp_path / "one")])
    one, two = (utils.load_checkpoint(tmp_path / run / "last.pt") for run in ("one", "two"))
    assert one["model"].keys() == two["model"].keys()
    assert all(torch.allclose(one["model"][name], two["model"][name], atol=1e-4) for name in one["model"])
    assert one["history"][-1]["train_loss"] == pytest.approx(two["history"][-1]["train_loss"], rel=1e-3)


def test_the_folder_copied_out_alone_works(tmp_path, start):
    skip = shutil.ignore_patterns("runs", "data", "__pycache__", ".pytest_cache", "tests")
    copied = shutil.copytree(CHAPTER, tmp_path / "my_project", ignore=skip)
    program = start(str(copied / "train.py"), "--quick", cwd=copied)
    assert program.wait(60) == 0, program.stderr.read()
    assert (copied / "runs/line-line-sample/best.pt").exists()
    lesson = start("-m", "lessons", "elements", cwd=copied)
    output, errors = lesson.communicate(timeout=60)
    assert lesson.returncode == 0 and "fit_regression" in output and errors == ""


# ---- the picture of the path ----------------------------------------------------------------------------------------


def test_the_plane_of_a_path_holds_its_ends_and_most_of_it():
    generator = torch.Generator().manual_seed(0)
    path = torch.randn(30, 2, generator=generator).cumsum(0) @ torch.randn(2, 500, generator=generator)
    origin, axes, at = surface.plane_of(path)
    assert torch.allclose(axes @ axes.T, torch.eye(2), atol=1e-5)
    assert torch.allclose(origin + at @ axes, path, atol=1e-2 * path.abs().max())
    origin, axes, at = surface.plane_of(torch.zeros(1, 5))
    assert torch.isfinite(axes).all() and axes.shape == (2, 5)


def test_the_loss_on_the_surface_is_the_models_own_at_its_own_place():
    model, x, y = torch.nn.Linear(3, 1), torch.randn(9, 3), torch.randn(9, 1)
    loss_of = lambda f: (f(x) - y).square().mean()  # noqa: E731
    weights = train.weights_of(model)
    here, elsewhere = surface.losses_at(model, loss_of, torch.stack([weights, weights + 1])).tolist()
    assert here == pytest.approx(loss_of(model).item()) != pytest.approx(elsewhere)
    assert torch.equal(train.weights_of(model), weights)


def test_comparisons_are_listed_in_full(capsys):
    rows = [{"optimizer": "sgd", "init": "he", "epoch": 3, "lr": 0.1, "val_loss": 0.5}]
    compare.print_table([*rows, {"optimizer": "adam", "init": "he", "failed": "error: lost"}])
    first, second = capsys.readouterr().out.splitlines()
    assert "val_loss 0.5000" in first and "epoch 3" in first and "error: lost" in second
