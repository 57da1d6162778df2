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

from service import picture

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
        return open_onnx(path.read_bytes(), threads) if kind == "onnx" else checked(OPENERS[kind](path))
    except BadModel as why:
        raise BadModel(f"{path}: {why}") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise BadModel(f"{path}: damaged, or not a model ({type(error).__name__})") from None


PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_onnx(data: bytes, threads: int = 0, provider: str = "cpu") -> Engine:
    """The bytes of an .onnx file -> Engine on ONNX Runtime, on the processor or on a GPU (`provider`). Raises BadModel."""
    import onnxruntime

    if PROVIDERS[provider] not in onnxruntime.get_available_providers():
        raise BadModel(f"this onnxruntime has no provider {provider}; for cuda, install onnxruntime-gpu in its place")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # its complaints arrive as exceptions
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[PROVIDERS[provider]])
        if session.get_providers()[0] != PROVIDERS[provider]:  # it takes the processor when there is no GPU
            raise BadModel(f"the provider {provider} does not work here; is there a GPU, and are its libraries?")
        meta = json.loads(session.get_modelmeta().custom_metadata_map["meta"])
    except BadModel:
        raise
    except KeyError:
        raise BadModel("an ONNX model, but it does not say its classes: not one of export.py") from None
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        raise BadModel(f"damaged, or not an ONNX model ({type(error).__name__})") from None
    name = session.get_inputs()[0].name
    return checked(Engine(lambda pixels: session.run(None, {name: pixels})[0], meta))


def checked(engine: Engine) -> Engine:
    """The engine, once it has taken a picture of the size that the file states and given a number for each of its classes. The
    first run also allocates what the later ones use: not a client's time."""
    meta = engine.meta if isinstance(engine.meta, dict) else {}
    classes, side = meta.get("classes"), meta.get("image_size")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or not isinstance(side, int):
        raise BadModel("a model that does not say its classes and the size of its pictures: not one of export.py")
    try:
        shape = engine.run(np.zeros((1, 3, side, side), np.uint8)).shape
    except Exception as error:  # each engine has its own
        raise BadModel(f"does not take a batch of 1 picture, {side} x {side} ({type(error).__name__})") from None
    if shape != (1, len(classes)):
        raise BadModel(f"names {len(classes)} classes, but gives {'x'.join(map(str, shape[1:]))} numbers a picture")
    return engine


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
        """All good pictures go through the network together; a bad one costs only its own answer."""
        answers: list = [None] * len(files)
        while left := [i for i, answer in enumerate(answers) if answer is None]:
            for i, answer in zip(left, self.some([files[i] for i in left]), strict=True):
                answers[i] = answer
        return answers

    def some(self, files: list[bytes]) -> list[tuple[int, dict] | None]:
        """The answers to those that together have `max_pixels` at most, the smallest first; None for the others, which are
        to be sent again: whoever comes with a large picture does not make the rest wait for it. One is always answered."""
        answers: list = [None] * len(files)
        opened = {}
        for i, data in enumerate(files):
            try:
                opened[i] = picture.open_header(data, self.max_pixels)
            except picture.Refused as why:
                answers[i] = (why.status, {"error": str(why)})
        good, pixels, total = [], [], 0
        for i in sorted(opened, key=lambda i: opened[i].width * opened[i].height):
            total += opened[i].width * opened[i].height
            if total > self.max_pixels:  # the smallest never is: that much a single one may have
                break
            try:
                array, (width, height) = picture.pixels_of(opened.pop(i), self.side)
                answers[i] = (200, {"width": width, "height": height})
                good.append(i)
                pixels.append(array)
            except picture.Refused as why:
                answers[i] = (why.status, {"error": str(why)})
        if good:
            self.classify(np.stack(pixels), [answers[i][1] for i in good])
        return answers

    def classify(self, pixels: np.ndarray, answers: list[dict]) -> None:
        """(N, 3, S, S) uint8 -> "classes" in each of N answers: the likeliest, and their probabilities."""
        shares = softmax(self.engine.run(pixels))
        best = np.argsort(-shares, axis=1)[:, : self.top]
        shares = np.take_along_axis(shares, best, axis=1).astype(float).round(6)
        for answer, row, names in zip(answers, shares.tolist(), best.tolist(), strict=True):
            answer["classes"] = [
                {"name": self.classes[k], "probability": share} for k, share in zip(names, row, strict=True)
            ]
