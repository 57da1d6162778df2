"""Smaller networks: what is cut is gone, what is kept works, and 8 bits cost less than a point."""

import argparse

import pytest
import torch
from conftest import CHAPTER

import compress
import datasets
import export
import models
import utils
from service import engine


@pytest.fixture(scope="module")
def shipped():
    return models.load(CHAPTER / "weights" / "resnet10.safetensors")


@pytest.fixture(scope="module")
def splits():
    return datasets.load("sample", limit=320).splits


def test_int8_is_at_least_3_5_times_smaller_and_loses_less_than_a_point(onnx_file, splits, tmp_path):
    path = compress.int8_ort(onnx_file, splits["train"].images[: compress.CALIBRATION], tmp_path / "int8.onnx")
    assert onnx_file.stat().st_size / path.stat().st_size >= 3.5
    small, large = engine.open_model(path, 1), engine.open_model(onnx_file, 1)
    assert small.meta == large.meta
    assert compress.accuracy(small.run, splits["val"]) > compress.accuracy(large.run, splits["val"]) - 0.01


def test_torchao_gives_the_same_accuracy_in_a_quarter_of_the_bytes(shipped, splits, tmp_path):
    model, _ = shipped
    program = compress.int8_ao(model, splits["train"].images[:64])
    torch.export.save(program, tmp_path / "int8.pt2")
    assert (CHAPTER / "weights" / "resnet10.safetensors").stat().st_size / (tmp_path / "int8.pt2").stat().st_size > 3
    val = datasets.Split(splits["val"].images[:200], splits["val"].labels[:200])
    run, exact = engine.on_tensors(program.module()), engine.on_tensors(model)
    assert compress.accuracy(run, val) > compress.accuracy(exact, val) - 0.02


def test_cutting_nothing_changes_nothing_and_cutting_half_halves(shipped, splits):
    network, pixels = shipped[0].network, torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(compress.cut(network, 1.0)(pixels), network(pixels))
        small = compress.cut(network, 0.5)
        assert small(pixels).shape == (4, 10)
    assert models.count_parameters(small) < 0.56 * models.count_parameters(network)


def test_channels_that_do_nothing_are_the_ones_to_go(shipped):
    """Half of each block's channels are silenced; cutting half must then change nothing."""
    network = models.ResNet10()
    network.load_state_dict(shipped[0].network.state_dict())
    for block in list(network.features)[1:]:
        silent = torch.randperm(block.conv1.out_channels)[: block.conv1.out_channels // 2]
        for tensor in (block.conv1.weight, block.bn1.weight, block.bn1.bias):
            tensor.data[silent] = 0
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(compress.cut(network, 0.5)(pixels), network.eval()(pixels), rtol=1e-4, atol=1e-4)


def test_a_channel_that_batch_norm_silences_is_the_first_to_go(shipped):
    """However large its filter is."""
    network = models.ResNet10()
    network.load_state_dict(shipped[0].network.state_dict())
    for block in list(network.features)[1:]:
        silent = torch.randperm(block.conv1.out_channels)[: block.conv1.out_channels // 2]
        block.conv1.weight.data[silent] *= 100
        block.bn1.weight.data[silent] = block.bn1.bias.data[silent] = 0
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(compress.cut(network, 0.5)(pixels), network.eval()(pixels), rtol=1e-4, atol=1e-4)


def test_a_narrowed_network_may_be_made_smaller_again(splits, tmp_path, monkeypatch):
    """What is written of it says how wide it is, and can be loaded; its student is another network."""
    monkeypatch.setattr(export, "export", lambda *_, **more: tmp_path / more["name"])
    monkeypatch.setattr(engine, "open_model", lambda *_: None)
    inner = [16, 32, 64, 128]
    model = models.Deployable(models.build("resnet10", inner=inner), [0.5] * 3, [0.2] * 3).eval()
    meta = {"arch": "resnet10", "classes": list("abcdefghij"), "data": "toy", "mean": [0.5] * 3, "std": [0.2] * 3}
    meta |= {"image_size": 32, "inner": inner, "score": {"accuracy": 1.0}}
    few = datasets.Split(splits["val"].images[:64], splits["val"].labels[:64])
    args = argparse.Namespace(only=("narrow", "taught"), out=str(tmp_path), epochs=1, threads=1, limit=64)
    compress.make(args, model, meta, few, few.images)
    widths, commands = [], []
    for name in ("original", "narrow", "taught"):
        loaded, said = models.load(tmp_path / f"{name}.safetensors")
        assert "score" not in said and loaded(few.images[:2]).shape == (2, 10)
        widths.append((said["arch"], said.get("inner")))
        commands.append(utils.load_weights(tmp_path / f"{name}.safetensors")[1]["command"])
    assert widths == [("resnet10", inner), ("resnet10", [8, 16, 32, 64]), ("tiny", None)]
    ran = [compress.parse(command.split()[2:]) for command in commands]
    assert [(again.only, again.epochs, again.limit) for again in ran] == [
        (compress.WAYS, 1, 64), (["narrow"], 1, 64), (["taught"], 1, 64)
    ]  # fmt: skip


def test_the_distillation_loss_is_that_of_the_paper():
    """T^2 times the divergence of the softened answers, from the teacher's (Hinton et al. 2015), for T = 4."""
    student, teacher = (
        torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]]),
        torch.tensor([[4.0, 1.0, 0.0], [0.0, 2.0, 1.0]]),
    )
    p, q = (teacher / 4).softmax(1), (student / 4).softmax(1)
    expected = 16 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(compress.distillation_loss(student, teacher), expected)


def test_a_student_learns_from_its_teacher_nine_times_as_much_as_from_the_labels(monkeypatch):
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, pixels):
            return self.weight.expand(len(pixels), 1)

    gradients, student = [], Sum()
    student.weight.register_hook(gradients.append)
    monkeypatch.setattr(compress.F, "cross_entropy", lambda logits, labels: logits.mean())
    monkeypatch.setattr(compress, "distillation_loss", lambda logits, taught: 100 * logits.mean())
    few = datasets.Split(torch.zeros(64, 3, 8, 8, dtype=torch.uint8), torch.zeros(64, dtype=torch.long))
    compress.fit(student, few, 1, 1e-3, teacher=Sum())
    assert [float(g) for g in gradients] == pytest.approx([0.1 + 90.0])


def test_sparse_weights_stay_zero_while_the_rest_learns(shipped, splits):
    few = datasets.Split(splits["train"].images[:128], splits["train"].labels[:128])
    thin = compress.sparse(shipped[0], few, epochs=1, amount=0.8)
    layers = [m for m in thin.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    weights = torch.cat([layer.weight.flatten() for layer in layers])
    assert (weights == 0).double().mean() == pytest.approx(0.8, abs=0.01)
    assert "network.head.weight" in thin.state_dict()  # no mask left over


def test_a_student_gets_nearer_to_its_teacher(shipped, splits):
    teacher, meta = shipped
    torch.manual_seed(0)
    student = models.Deployable(models.build("tiny"), meta["mean"], meta["std"])
    pixels = splits["val"].images[:100]
    few = datasets.Split(splits["train"].images[:320], splits["train"].labels[:320])

    def distance() -> float:
        with torch.no_grad():
            return float(compress.distillation_loss(student.eval()(pixels), teacher(pixels)))

    before = distance()
    compress.fit(student, few, 4, 5e-3, teacher)
    assert distance() < 0.8 * before


def test_the_table_names_what_was_measured(splits, tmp_path, capsys):
    args = argparse.Namespace(only=("narrow",), out=str(tmp_path), epochs=1, threads=1)
    model, meta = models.load(CHAPTER / "weights" / "tiny.safetensors")
    few = datasets.Split(splits["val"].images[:64], splits["val"].labels[:64])
    rows = compress.measure(compress.make(args, model, meta, few, few.images[: max(export.BATCHES)]), few)
    compress.print_table(rows)
    said = capsys.readouterr().out
    assert "narrow: left out, since a tiny has no residual blocks" in said and "original" in said
    assert rows["original"]["accuracy"] > 0.8 and rows["original"]["ms_1"] > 0
