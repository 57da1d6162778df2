"""Turns trained weights into a file that runs without the code that made it, and checks the file before it is yours.

    python export.py --to onnx                           # the shipped weights -> runs/export/resnet10.onnx
    python export.py --to torchscript --by script        # compiled from the source; --by trace records one run (course 13-2)
    python export.py --to aoti --run runs/resnet10-sample        # -> runs/resnet10-sample/export
    python export.py --to onnx --weights ../ch06_cifar10/weights/mobilenet.safetensors

torchscript   a program for torch's own interpreter. Deprecated upstream; `export` and `aoti` replace it
export        the graph that torch.export captures: what one keeps, and what other compilers take
aoti          that graph as machine code for this kind of processor (AOTInductor; needs a C++ compiler)
onnx          the open format (13-4), for ONNX Runtime and many others: what serve.py runs

Each takes (N, 3, S, S) uint8 pixels, any N, and gives (N, K) logits: the normalisation is in the graph. Decoding and scaling
lie beside it, in picture.py; the file's metadata names the classes and says how the pixels are made.
"""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import datasets
import models
import utils
from service.engine import ENDINGS, BadModel, open_model
from utils import fail, say

WEIGHTS = Path(__file__).parent / "weights" / "resnet10.safetensors"
BATCHES = (1, 2, 7, 32)  # sizes at which an export is compared with eager
TOLERANCE = 1e-4  # of the largest logit: other kernels add in another order, and no more than that
PREPROCESSING = "upright RGB; the largest square in the middle, scaled to image_size, bicubic; uint8, (N, 3, S, S)"


def to_torchscript(model: nn.Module, example: Tensor, path: Path, meta: dict, by: str) -> None:
    """`trace` runs the model once and records the operations, so that an `if` is whatever it was that time; `script` compiles
    the source, with its ifs and loops, and asks for Python that it understands. These networks have no ifs: both serve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "deprecated", at every step: the --help has said so
        program = torch.jit.script(model) if by == "script" else torch.jit.trace(model, example)
        torch.jit.save(torch.jit.freeze(program), str(path), _extra_files={"meta.json": json.dumps(meta)})


def capture(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """The whole graph, for every batch size. The example is saved with it: a copy, as a view would bring its whole set."""
    return torch.export.export(model, (example.clone(),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))


def to_export(model: nn.Module, example: Tensor, path: Path, meta: dict, by: str) -> None:
    torch.export.save(capture(model, example), str(path), extra_files={"meta.json": json.dumps(meta)})


def to_aoti(model: nn.Module, example: Tensor, path: Path, meta: dict, by: str) -> None:
    config = {"aot_inductor.metadata": {"meta": json.dumps(meta)}}
    try:
        torch._inductor.aoti_compile_and_package(
            capture(model, example), package_path=str(path), inductor_configs=config
        )
    except torch._inductor.exc.InvalidCxxCompiler:
        fail("--to aoti needs a C++ compiler (g++ or clang++; the variable CXX may name it), and there is none")


def to_onnx(model: nn.Module, example: Tensor, path: Path, meta: dict, by: str) -> None:
    program = torch.onnx.export(
        model, (example,), dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False,
        input_names=["pixels"], output_names=["logits"],
    )  # fmt: skip
    program.model.metadata_props["meta"] = json.dumps(meta)
    for (
        node
    ) in program.model.graph:  # the torch program behind each: it names folders of this machine, and nobody reads it
        node.metadata_props.clear()
    program.save(str(path), external_data=False)


EXPORTERS = {"torchscript": to_torchscript, "export": to_export, "aoti": to_aoti, "onnx": to_onnx}


def real_pictures(data: str, image_size: int) -> Tensor:
    """-> (32, 3, S, S) uint8 pictures that no training has seen, to compare answers on."""
    return datasets.load(data, image_size, ("val",), limit=max(BATCHES)).splits["val"].images


@torch.inference_mode()
def difference(model: nn.Module, path: Path, real: Tensor) -> float:
    """The largest difference between the file's logits and eager's, over random and real pictures in batches of several
    sizes, as a share of the largest logit."""
    run = open_model(path).run
    random = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (max(BATCHES), *real.shape[1:]), np.uint8))
    worst = 0.0
    for pictures in (random, real):
        for size in BATCHES:
            batch = pictures[:size]
            expected = model(batch).numpy()
            try:
                given = run(batch.numpy())
            except Exception as error:  # each engine has its own
                raise BadModel(f"it does not take a batch of {size} ({type(error).__name__})") from None
            if given.shape != expected.shape:
                return float("inf")
            error = np.abs(given - expected).max() / np.abs(expected).max()
            worst = max(worst, float(error)) if np.isfinite(error) else float("inf")
    return worst


def export(model: nn.Module, meta: dict, kind: str, out: Path, real: Tensor, by: str = "trace", name: str = "") -> Path:
    """Writes out/NAME.ENDING once the file, opened again, answers as the model does; ends the program if it does not."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name or meta['arch']}{ENDINGS[kind]}"
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        EXPORTERS[kind](model, real[:2], beside, meta | {"preprocessing": PREPROCESSING}, by)
        error = difference(model, beside, real)
        if error > TOLERANCE:
            limit = f"at most {TOLERANCE:g} may be"
            fail(f"the {kind} export differs from eager by {error:.2g} of the largest logit, {limit}; it is not kept")
        os.replace(beside, path)
    except BadModel as why:
        fail(f"the {kind} export is of no use: {why}")
    finally:
        beside.unlink(missing_ok=True)
    size = path.stat().st_size / 1e6
    say(f"wrote {path}: {size:.2f} MB, differs from eager by {error:.1e} of the largest logit, batches of {BATCHES}")
    return path


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--to", choices=EXPORTERS, nargs="+", default=["onnx"], help="one or more (default: onnx)")
    parser.add_argument("--by", choices=("trace", "script"), default="trace", help="how TorchScript is made")
    parser.add_argument("--weights", metavar="FILE", help=f"a .safetensors file (default: weights/{WEIGHTS.name})")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py, instead of --weights")
    parser.add_argument("--data", default="sample", help="pictures to compare answers on: " + datasets.DATA_HELP)
    parser.add_argument("--out", metavar="DIR", help="default: export/ in the run, or runs/export")
    args = parser.parse_args(argv)
    path = Path(args.run) / "best.pt" if args.run else Path(args.weights or WEIGHTS)
    model, meta = models.load(path)
    meta |= {"source": f"{path.resolve().parent.name}/{path.name}", "source_sha256": utils.hash_of(path)}
    out = Path(args.out or (path.parent / "export" if args.run else "runs/export"))
    real = real_pictures(args.data, meta["image_size"])
    utils.seed_everything(0)
    for kind in args.to:
        export(model, meta, kind, out, real, args.by)


if __name__ == "__main__":
    main()
