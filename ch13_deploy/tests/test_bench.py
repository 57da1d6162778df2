"""What bench.py compares: the same network in each format, on the device that was asked for."""

import json

import numpy as np
import pytest
import torch

import bench
import datasets
import export
import models
from service import engine


def test_each_format_on_a_device_answers_as_the_network_does(tmp_path):
    model, meta = models.load(export.WEIGHTS)
    real = datasets.load("sample", meta["image_size"], limit=40).splits["val"].images[:40]
    expected = engine.on_tensors(model)(real[:5].numpy())
    runs = bench.on_device(model, meta, tmp_path, real, ["eager", "export", "onnx", "int8"], "cpu")
    assert list(runs) == ["eager", "export", "onnx"]  # what is left of the formats there is for a GPU
    for run in runs.values():
        np.testing.assert_allclose(run(real[:5].numpy()), expected, atol=2e-3)


def test_a_device_without_a_runtime_leaves_onnx_out(tmp_path, monkeypatch, capsys):
    model, meta = models.load(export.WEIGHTS)
    (tmp_path / "some.onnx").touch()
    monkeypatch.setattr(export, "export", lambda *_: tmp_path / "some.onnx")
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: module)
    monkeypatch.setitem(engine.PROVIDERS, "nowhere", "NoSuchProvider")
    assert bench.on_device(model, meta, tmp_path, None, ["onnx"], "nowhere") == {}
    assert "onnx: left out; this onnxruntime has no provider nowhere" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU, so asking for one is no error")
def test_cuda_without_a_gpu_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="error: --device cuda: PyTorch sees no such device here"):
        bench.main(["--device", "cuda", "--out", str(tmp_path)])


def test_formats_are_measured_in_turn_and_compared_with_eager(capsys):
    calls = []
    runs = {name: lambda pixels, name=name: calls.append((name, len(pixels))) for name in ("eager", "onnx")}
    rows = bench.measure_formats(runs, np.zeros((32, 3, 4, 4), np.uint8), rounds=2)
    assert [(row["format"], row["batch"]) for row in rows] == [("eager", 1), ("onnx", 1), ("eager", 32), ("onnx", 32)]
    assert calls[:8:2] == [("eager", 1), ("onnx", 1), ("eager", 32), ("onnx", 32)] and len(calls) == 2 * 4 * (3 + 2)
    assert all(row["over_eager"] == 1 for row in rows if row["format"] == "eager")
    assert json.dumps(rows)
