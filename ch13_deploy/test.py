"""Measures a trained or an exported network on the test split, or tells what is on the pictures you name.

    python test.py                                    # the newest run, or else the shipped weights
    python test.py --weights runs/export/resnet10.onnx       # any file of export.py or compress.py
    python test.py --weights weights/tiny.safetensors sign.jpg

Only this script reads the test split. Everything goes the way of the services (engine.Predictor), so what it says is what they
will say.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import datasets
import models
import train
import utils
from service import engine
from utils import fail, say

WEIGHTS = Path(__file__).parent / "weights" / "resnet10.safetensors"


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("files", nargs="*", help="pictures to classify instead of testing")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file, or an exported model")
    data_help = "what to test on (default: the data of the run): " + datasets.DATA_HELP
    parser.add_argument("--data", help=data_help)
    parser.add_argument("--out", metavar="DIR", help="default: the run folder, or runs/test-ARCH")
    parser.add_argument("--export", metavar="FILE", help="save the tested weights and their score as .safetensors")
    return parser.parse_args(argv)


def open_any(path: Path) -> engine.Engine:
    """Weights, a checkpoint or an exported model, all as an engine."""
    if path.suffix in (".safetensors", ".pt") and not path.name.endswith(engine.ENDINGS["torchscript"]):
        model, meta = models.load(path)
        return engine.Engine(engine.on_tensors(model.to(memory_format=torch.channels_last)), meta)
    try:
        return engine.open_model(path)
    except engine.BadModel as why:
        fail(why)


def measure(logits: np.ndarray, labels: np.ndarray, classes: list[str]) -> dict:
    """-> accuracy, and of each class the share found and the confusion matrix's row."""
    confusion = np.zeros((len(classes), len(classes)), int)  # row is the truth
    np.add.at(confusion, (labels, logits.argmax(1)), 1)
    found = confusion.diagonal() / confusion.sum(1).clip(1)
    result = {"accuracy": float((logits.argmax(1) == labels).mean()), "pictures": len(labels)}
    return result | {"classes": dict(zip(classes, found.tolist(), strict=True)), "confusion": confusion.tolist()}


def split_of(path: Path) -> dict:
    """What a run trained and held out, of a file in its folder or in its export/; of others, nothing is known."""
    found = [folder / "split.json" for folder in (path.parent, path.parent.parent) if (folder / "split.json").exists()]
    return utils.read_json(found[0]) if found else {"data": "auto", "own": False}


def test(args: argparse.Namespace, tested: engine.Engine, path: Path) -> None:
    meta, split = tested.meta, split_of(path)
    data = datasets.load(args.data or split["data"], meta["image_size"], ("test",), run=split)
    if data.classes != meta["classes"]:
        fail(f"{path} knows the classes {', '.join(meta['classes'])}; {data.name} has {', '.join(data.classes)}")
    split = data.splits["test"]
    start = time.perf_counter()
    logits = np.concatenate([tested.run(batch.numpy()) for batch in split.images.split(100)])
    seconds = time.perf_counter() - start
    about = {"arch": meta["arch"], "trained_on": meta["data"], "tested_on": data.name, "weights": str(path)}
    result = about | {"torch": torch.__version__} | measure(logits, split.labels.numpy(), data.classes)
    utils.print_table([["class", "found"], *([name, f"{found:.4f}"] for name, found in result["classes"].items())])
    out = utils.output_folder(args.out or (path.parent if path.name == "best.pt" else f"runs/test-{meta['arch']}"))
    utils.write_atomic(out / "test.json", json.dumps(result, indent=1))
    words = f"{meta['arch']}, trained on {meta['data']}: test accuracy {result['accuracy']:.4f} on {data.name}"
    say(f"{words} ({len(split):,} pictures, {seconds:.1f} s)")
    say(f"wrote {out}: test.json")
    if args.export:
        export(args, path, result)


def export(args: argparse.Namespace, path: Path, result: dict) -> None:
    """Saves the weights to share, with how they were made and what they score."""
    model, meta = models.load(path)
    if path.suffix == ".pt":
        meta["command"] = utils.command_of(utils.read_arguments(path.parent), train.parse([]))
    score = {name: result[name] for name in ("accuracy", "tested_on", "torch")}
    utils.save_weights(args.export, model.network, **meta | {"score": score})
    say(f"wrote {args.export}: {Path(args.export).stat().st_size / 1e6:.1f} MB")


def classify(tested: engine.Engine, files: list[str]) -> None:
    """Prints the answer for each file; names those that get none, and ends with status 1 if there are any."""
    predict, bad = engine.Predictor(tested), []
    for file in files:
        try:
            ((status, answer),) = predict([Path(file).read_bytes()])
        except OSError as error:
            status, answer = 0, {"error": error.strerror}
        if status == 200:
            print(f"{file}: " + ", ".join(f"{c['name']} {c['probability']:.3f}" for c in answer["classes"]))
        else:
            bad.append(file)
            print(f"{file}: {answer['error']}")
    if bad:
        fail(f"{len(bad)} of {len(files)} files could not be read, the first being {bad[0]}")


def main(argv=None) -> None:
    args = parse(argv)
    run = args.run or (None if args.weights else utils.newest_run())
    path = Path(args.weights) if args.weights else Path(run) / "best.pt" if run else WEIGHTS
    tested = open_any(path)
    utils.say_weights(path, tested.meta)
    if args.files:
        classify(tested, args.files)
    else:
        test(args, tested, path)


if __name__ == "__main__":
    utils.start(main)
