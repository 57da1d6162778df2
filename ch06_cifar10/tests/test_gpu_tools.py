"""The scripts of the repository's gpu/ that run in this chapter's folder, at tiny sizes. A copied folder has no gpu/."""

import json
import sys

import pytest
import torch
from conftest import CHAPTER

import optimizers

GPU = CHAPTER.parent / "gpu"
pytestmark = pytest.mark.skipif(not (GPU / "speed.py").exists(), reason="gpu/ belongs to the whole repository")
SMALL = (
    "--data",
    "sample",
    "--arch",
    "lenet5",
    "--limit",
    "32",
    "--epochs",
    "2",
    "--batch-size",
    "16",
    "--device",
    "cpu",
)


@pytest.fixture
def run(monkeypatch, capsys):
    """run("speed", "--runs", "1") -> what gpu/speed.py prints as JSON, run from this chapter's folder."""
    monkeypatch.chdir(CHAPTER)
    monkeypatch.syspath_prepend(str(GPU))

    def call(name, *words):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
        module = __import__(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])  # they change it as they are imported
        module.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


def test_the_machine_says_what_it_is_and_can_do(run):
    found = run("machine", "cpu", 64)
    assert found["cores"] >= 1 and found["torch"] == torch.__version__ and found["name"] == found["cpu"]
    assert set(found["products"]) == {"fp32", "bf16"} and found["bf16_over_fp32"] > 0


def test_a_resumed_run_is_exact_on_the_cpu_and_the_runs_figures_are_read(run, tmp_path):
    found = run("resume", tmp_path, *SMALL)
    assert found == {"difference_of_two_runs": 0.0, "difference_after_resume": 0.0}
    (tmp_path / "resumed" / "test.json").write_text(json.dumps({"accuracy": 0.5, "tta": False, "arch": "lenet5"}))
    found = run("run_figures", tmp_path / "resumed")
    assert (found["epochs"], found["score"], found["score_is"], found["data"]) == (2, 0.5, "accuracy", "sample")
    assert found["train_s"] > 0 and "arch" not in found


def test_another_run_differs(run, tmp_path):
    import resume

    weights = {"w": torch.tensor([1.0, -4.0]), "steps": torch.tensor(3)}
    assert resume.difference(weights, {"w": torch.tensor([1.0, -3.0]), "steps": torch.tensor(9)}) == 0.25


def test_each_speed_run_starts_afresh(run, monkeypatch):
    monkeypatch.setattr(optimizers, "orthogonalize", lambda matrix: matrix / matrix.norm())  # quick on any CPU
    words = ("--data", "sample", "--limit", "16", "--epochs", "1", "--device", "cpu")
    found = run("speed", "--runs", "2", *words)
    assert found["runs"] == 2 == len(found["seconds"]) and found["operations"] > 1e10 and found["data"] == "sample"
    assert found["accuracy_mean"] == pytest.approx(sum(found["accuracy"]) / 2, abs=1e-4)
    import speed

    monkeypatch.setattr(sys, "argv", ["speed.py", *words])
    one = speed.SpeedRun(speed.parse())
    weights = []
    for seed in (3, 4, 3):
        one(seed)
        weights.append(one.model.head.weight.detach().clone())
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])


def test_where_the_time_goes_is_shown(run):
    found = run("where", "--arch", "lenet5", "--batch-size", "4", "--device", "cpu")
    assert found["step_ms"] > 0 and 0 < sum(found["most_time"].values()) <= 1.01 and len(found["most_time"]) == 6


def test_two_classes_become_two_domains(run, tmp_path, monkeypatch):
    import datasets

    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda name, root, size, parts: load(name, root, size, parts, limit=40))
    counts = run("horse2deer", "sample", "data", tmp_path / "domains")
    assert set(counts) == {"trainA", "trainB", "testA", "testB"} and min(counts.values()) > 0
    assert len(list((tmp_path / "domains" / "trainA").glob("*.png"))) == counts["trainA"]
