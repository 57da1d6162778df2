"""Tables that people bring: what was held out is what is tested, and the user's cells stay as they are."""

import csv
import json
import random

import numpy as np
import pytest
import torch

import boston
import datasets
import loop
import options
import photo
import tables
import test as tester
import train
import utils

NOISE = (
    "boston",
    "--arch",
    "course",
    "--folds",
    "3",
    "--shuffles",
    "1",
    "--members",
    "1",
    "--epochs",
    "60",
    "--lr",
    "0.02",
)


def write_table(path, rows: int, seed: int = 0, extra: int = 0) -> None:
    """Rows of noise: whatever is learned of them is learned by heart."""
    rng = np.random.default_rng(seed)
    lines = [",".join(f"{value:.6f}" for value in rng.normal(size=4)) for _ in range(rows + extra)]
    path.write_text("\n".join(["a,b,c,y", *lines]) + "\n")


def measured(run) -> dict:
    tester.main(["boston", "--run", str(run), "--device", "cpu"])
    return json.loads((run / "test.json").read_text("utf-8"))


def edited(path, edit) -> None:
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *edit(lines)]) + "\n")


@pytest.fixture
def noise(tmp_path):
    path, run = tmp_path / "noise.csv", tmp_path / "run"
    write_table(path, 60)
    train.main([*NOISE, "--data", str(path), "--device", "cpu", "--run", str(run)])
    return path, run, measured(run)


def test_neither_sorting_nor_new_rows_nor_new_columns_let_trained_rows_into_the_test(noise, capsys):
    path, run, honest = noise
    assert honest["r2"] < 0  # there is nothing to learn
    edited(path, sorted)
    again = measured(run)
    for name in honest["models"]:
        assert again["models"][name] == pytest.approx(honest["models"][name], rel=1e-3)
    edited(path, lambda lines: [*lines, "0.1,0.2,0.3,0.4"])
    capsys.readouterr()
    assert measured(run)["rmse"] == pytest.approx(honest["rmse"], rel=1e-6)
    assert "1 rows came after the training and are in no fold" in capsys.readouterr().err
    edited(path, lambda lines: random.Random(0).sample(lines, len(lines)))
    text = path.read_text().splitlines()
    path.write_text("\n".join(f"{i},{line}" if i else f"id,{line}" for i, line in enumerate(text)) + "\n")
    assert measured(run)["rmse"] == pytest.approx(honest["rmse"], rel=1e-6)


def test_rows_that_went_or_changed_are_named(noise, capsys):
    path, run, _ = noise
    edited(path, lambda lines: lines[2:] + ["9,9,9,9"])
    capsys.readouterr()
    assert measured(run)["r2"] < 0
    assert "2 rows of the training are gone or changed: row 1, row 2" in capsys.readouterr().err
    write_table(path, 60, seed=1)
    with pytest.raises(SystemExit, match="none of the rows that .* held out is in it"):
        measured(run)


def test_resuming_a_cross_validation_takes_no_other_folds_epochs_or_rows(noise):
    path, run, _ = noise
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    for words, message in (
        (["--folds", "8"], "leave out --folds"),
        (["--members", "2"], "leave out --members"),
        (["--epochs", "90"], "start a new run"),
    ):
        with pytest.raises(SystemExit, match=message):
            train.main(["--resume", str(run), *words])
    edited(path, lambda lines: lines[1:])
    with pytest.raises(SystemExit, match="the data are not those of the run: 1 train samples gone"):
        train.main(["--resume", str(run)])
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_predictions_keep_the_users_cells(tmp_path, capsys):
    """Long ids, quoted names with commas and every digit stay; one column is added; nothing is overwritten."""
    header = ["id", "latitude", "area, m2", "price"]
    rows = [
        [f"{20231205000 + i}", f"{31.230526 + i / 1e6:.6f}", f"{i % 7:03d}", f"{3 * (i % 7) + 5}"] for i in range(40)
    ]
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        with open(tmp_path / folder / "new.csv", "w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file).writerows([header, *rows])
    run = tmp_path / "run"
    train.main(
        [*NOISE, "--epochs", "2", "--data", str(tmp_path / "x" / "new.csv"), "--device", "cpu", "--run", str(run)]
    )
    files = [str(tmp_path / folder / "new.csv") for folder in ("x", "y")]
    tester.main(["boston", *files, "--run", str(run), "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["new-predicted-2.csv", "new-predicted.csv"]
    with open(tmp_path / "out" / "new-predicted.csv", newline="", encoding="utf-8") as file:
        first, *others = list(csv.reader(file))
    assert first == [*header, "predicted price"] and [row[:-1] for row in others] == rows
    assert all(np.isfinite(float(row[-1])) for row in others)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_tables_in_every_usual_encoding(tmp_path, encoding, newline):
    lines = ["编号,面积,价格", *(f"{i},{50 + i % 60},{3 * (i % 60) + 5}" for i in range(80))]
    (tmp_path / "a.csv").write_bytes((newline.join(lines) + newline).encode(encoding))
    table = tables.load_table(str(tmp_path / "a.csv"))
    assert table.columns == ["编号", "面积"] and len(table.y) == 80 and table.y[1] == 8


def test_what_is_no_text_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(SystemExit, match="a spreadsheet or an archive, no text file; save it as CSV UTF-8"):
        tables.load_table(str(tmp_path / "a.xlsx"))
    (tmp_path / "a.csv").write_bytes("size,price\n1,2\ncaf\xe9,3\n".encode("latin-1"))
    with pytest.raises(SystemExit, match="a.csv, line 3: neither UTF-8 nor GB18030"):
        tables.load_table(str(tmp_path / "a.csv"))


def test_a_text_column_can_be_dropped(tmp_path):
    lines = ["name,size,price", *(f"house {i},{i},{i * i}" for i in range(30))]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    assert tables.load_table(str(tmp_path / "a.csv"), drop=["name"]).columns == ["size"]
    with pytest.raises(SystemExit, match="'house 0' is not a number; --drop leaves a column out"):
        tables.load_table(str(tmp_path / "a.csv"))


def test_a_file_called_like_a_built_in_table_is_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "sample", 30)
    assert tables.load_table("sample").columns == ["a", "b", "c"]


def test_long_numbers_do_not_run_together(capsys):
    row = {f"{k}{s}": 123456789.123 for k in ("rmse", "mae", "r2") for s in ("", "_std", "_pooled")}
    boston.print_table({"networks": row})
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split() == ["networks", *["123456789.123", "±", "123456789.123"] * 3, "123456789.123"]


def test_the_huber_loss_trains_the_networks():
    """From the same start, another loss gives other weights."""
    rng = np.random.default_rng(0)
    table = tables.Table("t", ["a"], "y", rng.normal(size=(40, 1)), rng.standard_t(1, size=40))
    weights = []
    for huber in ("0", "0.2"):
        args = options.parse(None, [*NOISE, "--epochs", "40", "--huber", huber])
        options.fill_in_recipe(args, "t")
        utils.seed_everything(0)
        state, _ = boston.train_one(table, np.arange(5), args, 0, torch.device("cpu"))
        weights.append(state["model"]["layers.0.weight"])
    assert not torch.allclose(*weights, atol=1e-5)


# ---- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", range(1, 8))
def test_runs_of_any_number_of_steps(tmp_path, epochs):
    """Five steps in all once were divided by zero."""
    optimizer = loop.make_optimizer(
        torch.nn.Linear(2, 2), options.parse(None, ["mnist", "--lr", "0.1", "--weight-decay", "0"])
    )
    schedule = loop.make_schedule(optimizer, epochs)
    for _ in range(epochs):
        assert 0 <= optimizer.param_groups[0]["lr"] <= 0.1
        optimizer.step()
        schedule.step()


def test_the_running_average_is_one():
    """Decay 0.9: after many steps at 0, one at 1 moves it by a tenth."""
    model = torch.nn.Linear(1, 1, bias=False)
    average = loop.Average(model, 0.9)
    for step in range(200):
        torch.nn.init.constant_(model.weight, float(step == 199))
        average.update(model, step)
    assert average.model.weight.item() == pytest.approx(0.1, abs=1e-4)


def test_mnist_goes_on_with_more_epochs_and_refuses_other_flags(tmp_path, capsys):
    words = ["mnist", "--data", "sample", "--arch", "cnn", "--limit", "64", "--batch-size", "32", "--device", "cpu"]
    train.main([*words, "--epochs", "1", "--run", str(tmp_path / "run")])
    train.main(["--resume", str(tmp_path / "run"), "--epochs", "2"])
    rates = [row["lr"] for row in utils.load_checkpoint(tmp_path / "run" / "last.pt")["history"]]
    train.main([*words, "--epochs", "2", "--run", str(tmp_path / "long")])
    assert rates[1] == utils.load_checkpoint(tmp_path / "long" / "last.pt")["history"][1]["lr"]
    for flag in ("--lr", "--limit", "--batch-size"):
        with pytest.raises(SystemExit, match=f"leave out {flag}"):
            train.main(["mnist", "--resume", str(tmp_path / "run"), flag, "1"])


@pytest.mark.parametrize(
    "words", ["mnist --lr nan", "mnist --augment -1", "mnist --average 1", "boston --dropout 2", "boston --huber -1",
              "boston --l1 -1", "boston --folds 1", "denoise --noise -1", "mnist --seed -1", "mnist --workers -1"],
)  # fmt: skip
def test_every_number_has_its_range(words):
    flag = words.split()[1]
    with pytest.raises(SystemExit, match=f"argument {flag}: '.*': must be a "):
        options.parse(None, words.split())


def test_a_folder_called_mnist_holds_things_not_digits(tmp_path, monkeypatch, picture_folder):
    """Its pictures are not cut out and centred as photos of digits are."""
    monkeypatch.chdir(tmp_path)
    picture_folder("mnist", shoe=20, hat=20)
    train.main(["mnist", "--data", "mnist", "--arch", "cnn", "--epochs", "1", "--device", "cpu", "--run", "run"])
    monkeypatch.setattr(photo, "read_digits", lambda *words: pytest.fail("read as digits"))
    tester.main(["mnist", "mnist/shoe/0.png", "--run", "run", "--device", "cpu"])
    data = datasets.load("mnist", "nowhere")
    assert data.own and data.classes == ["hat", "shoe"]
