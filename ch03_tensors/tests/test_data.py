"""The sample, and CSV files of one's own: what is read, how it is split, and what is said of bad input."""

import pytest
import torch

import datasets
import models
import sample
import train
from datasets import PROBLEMS


def write(path, rows: list[str]):
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def line_rows(count: int) -> list[str]:
    return ["father,son", *(f"{90 + i},{100 + i / 2}" for i in range(count))]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_sample_is_the_same_for_the_same_seed_and_its_splits_differ(problem):
    assert all(torch.equal(a, b) for a, b in zip(sample.make(problem, 50, 3), sample.make(problem, 50, 3), strict=True))
    data = datasets.load(problem, "auto", ("train", "val", "test"))
    assert data.name == "sample"
    rows = [tuple(row) for x in data.inputs.values() for row in x.tolist()]
    assert len(set(rows)) == len(rows) == 800
    for split, y in data.targets.items():
        assert y.shape == ((len(data.inputs[split]),) if data.classes else (len(data.inputs[split]), 1))


def test_the_line_of_the_sample_regresses_to_the_mean():
    father, son = sample.make("line", 20_000, 0)
    slope = ((father - father.mean()) * (son - son.mean())).mean() / father.var(correction=0)
    assert abs(slope - 0.5) < 0.02 and abs(son.std() - father.std()) < 0.3


def test_no_line_separates_the_spirals():
    x, y = sample.make("spirals", 1000, 0)
    best = 0.0
    for angle in torch.linspace(0, torch.pi, 60):
        along = x @ torch.stack([torch.cos(angle), torch.sin(angle)])
        for cut in torch.linspace(-1, 1, 41):
            accuracy = ((along > cut).long() == y).double().mean().item()
            best = max(best, accuracy, 1 - accuracy)
    assert best < 0.7


@pytest.mark.parametrize("problem", PROBLEMS)
def test_files_that_sample_writes_are_read_back(problem, tmp_path, capsys):
    sample.main(["--count", "100", "--out", str(tmp_path)])
    assert f"{problem}.csv: 100 rows" in capsys.readouterr().out
    data = datasets.load(problem, str(tmp_path / f"{problem}.csv"), ("train", "val", "test"))
    assert data.name == problem and data.columns == sample.COLUMNS[problem]
    assert len(data.inputs["train"]) > 40 and min(len(data.inputs[split]) for split in ("val", "test")) > 8
    x, _ = sample.make(problem, 100, 0)
    read = torch.cat(list(data.inputs.values()))
    assert torch.allclose(read.float().sort(0).values, x.sort(0).values, atol=1e-4)
    assert data.classes == (["A", "B"] if problem == "spirals" else [])


def test_a_split_is_the_same_whichever_others_are_asked_for(tmp_path):
    path = write(tmp_path / "my.csv", line_rows(30))
    everything = datasets.load("line", path, ("train", "val", "test"))
    assert list(datasets.load("line", path).inputs) == ["train", "val"]
    assert torch.equal(datasets.load("line", path, ("test",)).inputs["test"], everything.inputs["test"])


def test_bad_rows_are_named_and_left_out(tmp_path, capsys):
    rows = [*line_rows(20), "abc,1", "1,2,3", "4,nan", "5,"]
    data = datasets.load("line", write(tmp_path / "my.csv", rows), ("train", "val", "test"))
    assert sum(len(x) for x in data.inputs.values()) == 20
    warning = capsys.readouterr().err
    assert "4 of 24 rows left out" in warning
    for text in ("my.csv:22: 'abc' is no number", "my.csv:23: 3 columns", "my.csv:24: 'nan'", "my.csv:25: ''"):
        assert text in warning


@pytest.mark.parametrize(
    "problem, rows, message",
    [
        ("line", [], "needs a header"),
        ("line", ["a,b"], "no usable row"),
        ("line", ["a,b", "x,y"], "no usable row"),
        ("line", line_rows(5), "too few"),
        ("line", ["a,b,c", *(f"{i},{i},{i}" for i in range(20))], "one input"),
        ("spirals", ["a,b,c", *(f"{i},{i},red" for i in range(20))], "one class only"),
    ],
)
def test_a_file_that_will_not_do_is_refused_in_one_line(problem, rows, message, tmp_path):
    path = write(tmp_path / "my.csv", rows) if rows else str(tmp_path / "my.csv")
    if not rows:
        open(path, "w").close()
    with pytest.raises(SystemExit) as stop:
        datasets.load(problem, path)
    assert message in str(stop.value) and "my.csv" in str(stop.value) and "\n" not in str(stop.value)


def test_a_missing_file_and_a_binary_one_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="no such file"):
        datasets.load("line", str(tmp_path / "none.csv"))
    (tmp_path / "my.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(SystemExit, match="my.csv.*save it as UTF-8"):
        datasets.load("line", str(tmp_path / "my.csv"))


@pytest.mark.parametrize("arch", list(models.MODELS))
@pytest.mark.parametrize("init", list(models.INITS))
def test_every_model_takes_every_initialisation(arch, init):
    torch.manual_seed(0)
    model = models.build(arch, 3, 2)
    models.initialise(model, init)
    x = torch.randn(5, 3)
    assert model(x).shape == (5, 2) and torch.isfinite(model(x)).all()
    model(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    if init in ("zeros", "ones"):
        assert all((p == (init == "ones")).all() for name, p in model.named_parameters() if "weight" in name)


def test_wrong_names_list_the_right_ones():
    with pytest.raises(SystemExit, match="line, mlp, relu_mlp"):
        models.build("cnn", 1, 1)
    with pytest.raises(SystemExit, match="xavier, he"):
        models.initialise(models.build("line", 1, 1), "best")
    with pytest.raises(SystemExit, match="line, curve, spirals"):
        datasets.load("circle", "sample")


def test_large_numbers_that_differ_little_are_told_apart(tmp_path):
    """In float32, all ids of eleven digits within a thousand of each other are one number."""
    rows = ["id,price", *(f"{20231205000 + i},{3 * i}" for i in range(60))]
    data = datasets.load("line", write(tmp_path / "my.csv", rows), ("train", "val", "test"))
    x, _ = train.normalised(data, train.scales_of(data, raw=False), "train")
    assert len(set(x.flatten().tolist())) == len(x) and x.std().item() == pytest.approx(1, abs=0.05)


def test_a_constant_column_does_not_divide_by_zero_and_a_tiny_one_counts(tmp_path):
    rows = ["a,b,y", *(f"7,{i * 1e-9},{i}" for i in range(60))]
    data = datasets.load("curve", write(tmp_path / "my.csv", rows), ("train", "val", "test"))
    x, _ = train.normalised(data, train.scales_of(data, raw=False), "train")
    assert (x[:, 0] == 0).all() and x[:, 1].std().item() == pytest.approx(1, abs=0.05)


def rows_of(data, split):
    return {tuple(row) for row in data.inputs[split].tolist()}


def test_the_order_of_rows_and_new_rows_change_no_part(tmp_path):
    header, *rows = line_rows(60)
    first = datasets.load("line", write(tmp_path / "a.csv", [header, *rows]), ("train", "val", "test"))
    parts = [rows_of(first, split) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == 60 and len(set.union(*parts)) == 60 and all(parts)
    again = datasets.load("line", write(tmp_path / "b.csv", [header, *rows[::-1]]), ("train", "val", "test"))
    assert [rows_of(again, split) for split in ("train", "val", "test")] == parts
    more = datasets.load("line", write(tmp_path / "c.csv", [header, "7,7", *rows, "8,8"]), ("train", "val", "test"))
    assert all(old <= rows_of(more, split) for old, split in zip(parts, ("train", "val", "test"), strict=True))


def test_a_row_that_trained_is_never_tested(tmp_path, capsys):
    """Also where the run knew another split: what it says trained is left out, what came later is counted."""
    path = write(tmp_path / "a.csv", line_rows(60))
    data = datasets.load("line", path, ("train", "val", "test"))
    moved = dict(list(data.samples["test"].items())[:2])
    run = data.samples | {"train": data.samples["train"] | moved, "own": True, "data": path}
    run["test"] = {mark: row for mark, row in data.samples["test"].items() if mark not in moved}
    write(tmp_path / "a.csv", [*line_rows(60), "500,1"])
    tested = datasets.load("line", path, ("test",), run)
    assert len(rows_of(tested, "test") & rows_of(data, "test")) == len(data.samples["test"]) - 2
    said = capsys.readouterr().err
    assert "that trained or validated, and are not tested: 2" in said and "came after the training" in said
