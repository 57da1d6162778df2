"""Every format answers as eager does, for every batch size and for files of pictures; a file that does not is not kept."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from conftest import CHAPTER
from PIL import Image

import export
import models
import test as tester
from service import engine
from service.load_generator import encoded, good_cases, odd_cases

CASES = {name: case for name, case in odd_cases().items() if case.status == 200}


@pytest.fixture(scope="module")
def network():
    """The small network: quick to export and to compile."""
    return models.load(CHAPTER / "weights" / "tiny.safetensors")


@pytest.fixture(scope="module")
def real():
    return export.real_pictures("sample", 32)


@pytest.fixture(scope="module")
def eager(network):
    model, meta = network
    return engine.Predictor(engine.Engine(engine.on_tensors(model), meta))


COMPILER = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")


AOTI = pytest.param("aoti", "", marks=COMPILER)
QUICK_COMPILER = {  # no trials of the processor, no headers prepared for next time, nothing for a debugger, little improved
    "cpp.vec_isa_ok": False,
    "aot_inductor.precompile_headers": False,
    "aot_inductor.enable_line_tables": False,
    "aot_inductor.compile_wrapper_opt_level": "O0",
}


@pytest.mark.parametrize(
    ("kind", "by"), [("torchscript", "trace"), ("torchscript", "script"), ("export", ""), ("onnx", ""), AOTI]
)
def test_the_same_picture_gets_the_same_answer(kind, by, network, real, eager, tmp_path, capsys):
    model, meta = network
    with torch._inductor.config.patch(QUICK_COMPILER):
        path = export.export(model, meta, kind, tmp_path, real, by)
    assert str(CHAPTER).encode() not in path.read_bytes() or kind != "onnx", "it names folders of this machine"
    assert "differs from eager by" in capsys.readouterr().out and [p.name for p in tmp_path.iterdir()] == [path.name]
    opened = engine.open_model(path, 1)
    assert opened.meta["classes"] == meta["classes"] and opened.meta["preprocessing"] == export.PREPROCESSING
    files = [case.body for case in [*good_cases(12), *CASES.values()]]
    for (status, given), (_, expected) in zip(engine.Predictor(opened)(files), eager(files), strict=True):
        assert status == 200 and (given["width"], given["height"]) == (expected["width"], expected["height"])
        shares = {c["name"]: c["probability"] for c in expected["classes"]}
        assert given["classes"][0]["name"] == expected["classes"][0]["name"]
        assert all(abs(c["probability"] - shares[c["name"]]) < 1e-4 for c in given["classes"] if c["name"] in shares)
    for size in (1, 3, 33):
        assert opened.run(np.zeros((size, 3, 32, 32), np.uint8)).shape == (size, 10)


def test_an_export_that_answers_otherwise_is_an_error_with_the_figure(network, real, tmp_path, monkeypatch):
    model, meta = network
    wrong = models.Deployable(model.network, meta["mean"], [2 * s for s in meta["std"]]).eval()
    monkeypatch.setitem(export.EXPORTERS, "export", lambda _, *rest: export.to_export(wrong, *rest))
    message = r"the export export differs from eager by [\d.]+ of the largest logit, at most 0.0001"
    with pytest.raises(SystemExit, match=message):
        export.export(model, meta, "export", tmp_path, real)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("fixed_size", "other"), [(2, 1), (1, 2)])
def test_an_export_of_one_batch_size_is_not_kept(network, real, tmp_path, monkeypatch, fixed_size, other):
    model, meta = network

    def fixed(model, example, path, meta, by):
        program = torch.export.export(model, (example[:fixed_size],))
        torch.export.save(program, str(path), extra_files={"meta.json": json.dumps(meta)})

    monkeypatch.setitem(export.EXPORTERS, "export", fixed)
    with pytest.raises(SystemExit, match=f"the export export is of no use: .*does not take a batch of {other} "):
        export.export(model, meta, "export", tmp_path, real)
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_models_are_named_in_one_line(onnx_file, tmp_path):
    data = onnx_file.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: len(data) // 2])
    for ending in engine.ENDINGS.values():
        (tmp_path / f"text{ending}").write_text("Dear reader")
    names = {"cut.onnx": "damaged", "gone.onnx": "no such file", "model.h5": "not an exported model"}
    names |= {f"text{ending}": "damaged" for ending in engine.ENDINGS.values()}
    for name, message in names.items():
        with pytest.raises(engine.BadModel) as refusal:
            engine.open_model(tmp_path / name)
        assert name in str(refusal.value) and message in str(refusal.value) and "\n" not in str(refusal.value)
    with pytest.raises(SystemExit, match="cut.onnx: damaged"):
        tester.main(["--weights", str(tmp_path / "cut.onnx")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["a", "b", "c"]}, "names 3 classes, but gives 10 numbers a picture"),
        ({"classes": "stop"}, "does not say its classes"),
        ({"classes": None}, "does not say its classes"),
        ({"image_size": 64.5}, "does not say its classes and the size"),
        ({"image_size": 0}, "does not take a batch of 1 picture, 0 x 0|gives"),
    ],
)
def test_a_model_that_says_what_is_not_so_is_refused_when_it_is_opened(onnx_file, change, message):
    model = onnx.load(str(onnx_file))
    meta = json.loads(model.metadata_props[0].value) | change
    onnx.helper.set_model_props(model, {"meta": json.dumps(meta)})
    with pytest.raises(engine.BadModel, match=message):
        engine.open_onnx(model.SerializeToString(), 1)


def test_a_gpu_that_is_not_there_is_said(onnx_file):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    with pytest.raises(engine.BadModel, match="no provider cuda; for cuda, install onnxruntime-gpu"):
        engine.open_onnx(onnx_file.read_bytes(), 1, "cuda")


def test_exports_of_a_run_lie_in_the_run_and_say_where_they_come_from(network, tmp_path, monkeypatch):
    model, meta = network
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    state = {name: value.clone() for name, value in model.network.state_dict().items()}
    torch.save({"meta": meta, "model": state}, run / "best.pt")
    monkeypatch.chdir(tmp_path)
    export.main(["--to", "torchscript", "--run", "runs/mine"])
    opened = engine.open_model(run / "export" / "tiny.torchscript.pt", 1)
    assert opened.meta["source"] == "mine/best.pt" and not list(tmp_path.glob("runs/export"))


def test_a_large_picture_takes_no_other_with_it(network, eager):
    """Of those that together have too many pixels, the smallest are answered at once, and the others are for later."""
    sizes = (60, 10, 100, 30)
    files = [encoded(Image.new("RGB", (size, size), "red"), "PNG") for size in sizes]
    predict = engine.Predictor(eager.engine, max_pixels=100 * 100)
    assert [answer and answer[1]["width"] for answer in predict.some([*files, b"no picture"])[:4]] == [60, 10, None, 30]
    assert predict.some([files[2]])[0][1]["width"] == 100, "one alone always is"
    answers = predict([*files, b"no picture"])
    assert [answer["width"] for _, answer in answers[:4]] == list(sizes) and answers[4][0] == 415


def test_probabilities_of_large_logits_are_numbers():
    """exp(1000) is none."""
    shares = engine.softmax(np.array([[1000.0, 999.0], [-1000.0, -1000.0]], np.float32))
    np.testing.assert_allclose(shares, [[0.7310586, 0.2689414], [0.5, 0.5]], rtol=1e-5)


def test_a_damaged_onnx_file_never_answers(onnx_file):
    rng, data = np.random.default_rng(0), onnx_file.read_bytes()
    for length in rng.integers(0, len(data) - 1, 10):
        with pytest.raises(engine.BadModel):
            engine.open_onnx(data[:length])


def test_test_py_reads_files_and_names_the_bad_ones(onnx_file, tmp_path, capsys):
    (tmp_path / "sign.png").write_bytes(good_cases(1)[0].body)
    (tmp_path / "letter.png").write_text("Dear reader")
    with pytest.raises(SystemExit, match="2 of 3 files could not be read, the first being .*letter.png"):
        tester.main([*(str(tmp_path / n) for n in ("sign.png", "letter.png", "gone.png")), "--weights", str(onnx_file)])
    said = capsys.readouterr().out
    assert "sign.png: stop " in said and "letter.png: not a picture" in said and "gone.png: No such file" in said
