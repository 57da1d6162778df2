"""Opens an exported model of any of the chapter's formats, and answers with it: files of pictures in, classes out.

All of training's answers and all of the services' come through `Predictor`; they differ in the engine below it alone.
torch is imported only by the formats that need it: a worker with an ONNX model starts in half a second.
"""

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import picture

ENDINGS = {"torchscript": ".torchscript.pt", "export": ".export.pt2", "aoti": ".aoti.pt2", "onnx": ".onnx"}


class BadModel(Exception):
    """A file that holds no model this chapter can run; the message is one line that names it."""


@dataclass
class Engine:
    """`run`: (N, 3, S, S) uint8 -> (N, K) float32 logits. `meta`: arch, classes, image_size and more, from the file."""

    run: Callable[[np.ndarray], np.ndarray]
    meta: dict


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_model(path: Path | str, threads: int = 0) -> Engine:
    """The file's ending says which format it is; `threads` 0 lets the engine choose. Raises BadModel.

    Open only files that you made or trust: TorchScript and AOTInductor files hold programs, the latter machine code.
    """
    path = Path(path)
    kind = next((kind for kind, ending in ENDINGS.items() if path.name.endswith(ending)), None)
    if kind is None:
        raise BadModel(f"{path}: not an exported model; its name should end in {', '.join(ENDINGS.values())}")
    if not path.is_file():
        raise BadModel(f"{path}: no such file; `python export.py --to {kind}` makes one")
    try:
        return open_onnx(path.read_bytes(), threads) if kind == "onnx" else OPENERS[kind](path)
    except BadModel as why:
        raise BadModel(f"{path}: {why}") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise BadModel(f"{path}: damaged, or not a model ({type(error).__name__})") from None


def open_onnx(data: bytes, threads: int = 0) -> Engine:
    """The bytes of an .onnx file -> Engine on ONNX Runtime's CPU provider. Raises BadModel."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # its complaints arrive as exceptions
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        meta = json.loads(session.get_modelmeta().custom_metadata_map["meta"])
    except KeyError:
        raise BadModel("an ONNX model, but it does not say its classes: not one of export.py") from None
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        raise BadModel(f"damaged, or not an ONNX model ({type(error).__name__})") from None
    name = session.get_inputs()[0].name
    return Engine(lambda pixels: session.run(None, {name: pixels})[0], meta)


def open_torchscript(path: Path) -> Engine:
    import torch

    extra = {"meta.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that it is deprecated
        program = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
    return Engine(on_tensors(program), json.loads(extra["meta.json"]))


def open_export(path: Path) -> Engine:
    import torch

    extra = {"meta.json": ""}
    program = torch.export.load(str(path), extra_files=extra).module()
    return Engine(on_tensors(program), json.loads(extra["meta.json"]))


def open_aoti(path: Path) -> Engine:
    import torch

    program = torch._inductor.aoti_load_package(str(path))
    return Engine(on_tensors(program), json.loads(program.get_metadata()["meta"]))


OPENERS = {"torchscript": open_torchscript, "export": open_export, "aoti": open_aoti}


def on_tensors(module: Callable) -> Callable[[np.ndarray], np.ndarray]:
    """A function of tensors, as one of arrays."""
    import torch

    def run(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()

    return run


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, K) -> (N, K) probabilities."""
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


class Predictor:
    """Files of pictures -> for each an HTTP status and what to say: the classes and their probabilities, or the error."""

    def __init__(self, engine: Engine, max_pixels: int = picture.MAX_PIXELS, top: int = 5):
        self.engine, self.max_pixels, self.top = engine, max_pixels, top
        self.classes, self.side = engine.meta["classes"], engine.meta["image_size"]

    def __call__(self, files: list[bytes]) -> list[tuple[int, dict]]:
        """All good pictures go through the network as one batch; a bad one costs only its own answer."""
        answers, pixels, good = [], [], []
        for data in files:
            try:
                array, (width, height) = picture.decode(data, self.side, self.max_pixels)
                good.append(len(answers))
                pixels.append(array)
                answers.append((200, {"width": width, "height": height}))
            except picture.Refused as why:
                answers.append((why.status, {"error": str(why)}))
        if good:
            shares = softmax(self.engine.run(np.stack(pixels)))
            best = np.argsort(-shares, axis=1)[:, : self.top]
            shares = np.take_along_axis(shares, best, axis=1).astype(float).round(6)
            for i, row, names in zip(good, shares.tolist(), best.tolist(), strict=True):
                answers[i][1]["classes"] = [
                    {"name": self.classes[k], "probability": share} for k, share in zip(names, row, strict=True)
                ]
        return answers
