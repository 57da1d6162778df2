"""Measures a trained network on the test split, or says what texts mean and which words drove the answer.

    python test.py                                  # the newest run, or else the shipped weights, on the test split
    python test.py --baselines                      # and what counting words achieves on the same split
    python test.py "今天心情很好" "服务太差了"      # an answer each, with the words that drove it
    python test.py reviews.txt                      # a file of lines -> JSON lines; from a pipe: python test.py - < reviews.txt

Only this script reads the test split, and it changes nothing by it: train.py picks the best epoch on validation data.
"""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.functional import classification as metrics

import datasets
import explain
import models
import options
import utils
from utils import fail, say

WEIGHTS = Path(__file__).parent / "weights" / "fasttext.safetensors"
NEEDED = {"arch", "classes", "data", "vocabulary", "tokenizer", "emoticons", "stop_words", "max_length", "sizes"}


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("texts", nargs="*", help="texts, files of lines, or - for lines from a pipe, to judge")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file, or a run's best.pt")
    parser.add_argument("--data", help="what to test on (default: the data the network was trained on)")
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where real data lie (default: %(default)s)")
    parser.add_argument("--cache", metavar="DIR", help="of tokenised text and of jieba (default: DATA_ROOT/cache)")
    parser.add_argument("--out", metavar="DIR", help="where results go (default: the run folder, or runs/test-ARCH)")
    parser.add_argument("--baselines", action="store_true", help="fit the baselines too, on the same tokens")
    parser.add_argument("--no-words", action="store_true", help="answers only: faster, for large files")
    parser.add_argument("--picture", metavar="FILE", help="texts: save the words' influence and attention as .svg")
    parser.add_argument("--export", metavar="FILE", help="save the tested weights and their score as .safetensors")
    utils.add_device_flag(parser)
    args = parser.parse_args(argv)
    args.cache = args.cache or Path(args.data_root) / "cache"
    return args


def load_model(args: argparse.Namespace, device: torch.device) -> tuple[nn.Module, dict, Path]:
    """-> the network in eval mode, what its file says of it (NEEDED), and the file."""
    run = args.run or (None if args.weights else utils.newest_run())
    path = Path(args.weights) if args.weights else Path(run) / "best.pt" if run else WEIGHTS
    state, meta = utils.load_weights(path)
    if NEEDED - meta.keys():
        fail(f"{path}: holds weights, but not of a run of this chapter ({', '.join(sorted(NEEDED))} are needed)")
    model = models.build(meta["arch"], len(meta["vocabulary"]), len(meta["classes"]), **meta["sizes"])
    try:
        model.load_state_dict(state)
    except RuntimeError:
        words = f"{len(meta['vocabulary']):,} words"
        fail(f"{path}: says {meta['arch']} with {words}, but the weights in it are of another network or vocabulary")
    utils.say_weights(path, meta)
    return model.to(device).eval(), meta, path


@torch.inference_mode()
def predict(model: nn.Module, split: datasets.Split, device: torch.device) -> Tensor:
    """-> (N, K) probabilities on the CPU, in the order of the split."""
    loader = datasets.BucketLoader(split, 500, device)
    probabilities = torch.cat([model(ids).float().softmax(1).cpu() for ids, _ in loader])
    return probabilities[loader.order.argsort()]


# ---- the test split ---------------------------------------------------------------------------------------------------


def load_test_split(args: argparse.Namespace, meta: dict, path: Path) -> tuple[datasets.Corpus, datasets.Split]:
    """-> the corpus that the network was trained on (or --data) and its test part, with the network's class numbers."""
    is_run = path.suffix == ".pt" and (path.parent / "args.json").exists()
    recipe = utils.read_arguments(path.parent) if is_run else {}
    columns = {name: None if args.data else recipe.get(name) for name in ("text_column", "label_column")}
    name, how = args.data or recipe.get("data", meta["data"]), (meta["tokenizer"], meta["emoticons"])
    corpus = datasets.load(name, args.data_root, *how, cache=args.cache, **columns)
    unknown = [i for i, name in enumerate(corpus.classes) if name not in meta["classes"]]
    if unknown:
        line = corpus.lines[corpus.labels == unknown[0]][0]
        known = ", ".join(meta["classes"])
        fail(
            f"{corpus.name}, line {line}: the label {corpus.classes[unknown[0]]!r} is unknown to {path}, which has {known}"
        )
    if is_run and (path.parent / "split.json").exists():
        keep_held_out(corpus, utils.read_json(path.parent / "split.json"), args.data is None)
    split = datasets.encode(corpus, "test", meta["vocabulary"], meta["max_length"], meta["stop_words"])
    split.labels = torch.tensor([meta["classes"].index(name) for name in corpus.classes])[split.labels]
    return corpus, split


def keep_held_out(corpus: datasets.Corpus, split: dict, same_data: bool) -> None:
    """Takes out of the test part what the run trained on; says what came, changed or went since."""
    marks = [utils.fingerprint(text.encode("utf-8", "surrogatepass")) for text in corpus.raw]
    test = datasets.PARTS.index("test")
    in_test = {mark for mark, part in zip(marks, corpus.parts, strict=True) if part == test}
    names = dict(zip(marks, (f"line {line}" for line in corpus.lines), strict=True))
    chosen = utils.held_out(split, names, in_test, names_stay=False, same_data=same_data)
    corpus.parts = np.array([test if mark in chosen else -1 for mark in marks], np.int8)


def measure(probabilities: Tensor, labels: Tensor, classes: list[str]) -> dict:
    """(N, K) probabilities and (N,) labels -> accuracy, F1, calibration error, confusion matrix, figures a class."""
    k = len(classes)
    confusion = metrics.multiclass_confusion_matrix(probabilities, labels, k)  # (K, K): row is the truth
    scores = {
        "precision": metrics.multiclass_precision(probabilities, labels, k, average=None),
        "recall": metrics.multiclass_recall(probabilities, labels, k, average=None),
        "f1": metrics.multiclass_f1_score(probabilities, labels, k, average=None),
    }
    rows = {
        name: {"texts": int(confusion[i].sum())} | {kind: float(values[i]) for kind, values in scores.items()}
        for i, name in enumerate(classes)
    }
    return {
        "accuracy": float((probabilities.argmax(1) == labels).float().mean()),
        "macro_f1": float(scores["f1"].mean()),
        "calibration_error": float(metrics.multiclass_calibration_error(probabilities, labels, k, n_bins=10)),
        "texts": len(labels),
        "classes": rows,
        "confusion": confusion.tolist(),
        "calibration": calibration(probabilities, labels),
    }


def calibration(probabilities: Tensor, labels: Tensor, bins: int = 10) -> list[dict]:
    """Of the answers given with about the same confidence, how many are right? A row a bin that has answers."""
    confidence, guess = probabilities.max(1)
    which, rows = (confidence * bins).long().clamp(max=bins - 1), []
    for i in which.unique().tolist():
        here = which == i
        right = float((guess == labels)[here].float().mean())
        rows.append({"confidence": float(confidence[here].mean()), "right": right, "texts": int(here.sum())})
    return rows


def print_table(result: dict) -> None:
    print(f"{'class':<14}{'texts':>8}{'precision':>11}{'recall':>9}{'F1':>9}")
    for name, row in result["classes"].items():
        print(f"{name:<14}{row['texts']:>8,}{row['precision']:>11.4f}{row['recall']:>9.4f}{row['f1']:>9.4f}")


def draw_confusion(result: dict, path: Path) -> None:
    # fonts for Chinese are not everywhere: such a class goes by its number
    classes = [name if name.isascii() else str(i) for i, name in enumerate(result["classes"])]
    counts = torch.tensor(result["confusion"])
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="predicted", ylabel="true", title=f"Confusion, accuracy {result['accuracy']:.4f}")
    for i, j in torch.cartesian_prod(torch.arange(len(classes)), torch.arange(len(classes))).tolist():
        colour = "white" if share[i, j] > 0.5 else "black"
        axis.text(j, i, int(counts[i, j]), ha="center", va="center", fontsize=9, color=colour)
    save_figure(figure, path)


def draw_calibration(result: dict, path: Path) -> None:
    """How often answers are right against how sure the network was; on the diagonal it knows what it knows."""
    rows = result["calibration"]
    figure = Figure(figsize=(5, 5), layout="constrained")
    curve, counts = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    curve.plot([0, 1], [0, 1], "--", color="grey", label="perfect")
    curve.plot([r["confidence"] for r in rows], [r["right"] for r in rows], "o-", label="network")
    curve.set(
        ylabel="share right", title=f"Calibration, expected error {result['calibration_error']:.3f}", ylim=(0, 1.02)
    )
    curve.legend()
    counts.bar([r["confidence"] for r in rows], [r["texts"] for r in rows], width=0.06)
    counts.set(xlabel="confidence", ylabel="texts", xlim=(1 / len(result["classes"]) - 0.05, 1.02))
    for axis in (curve, counts):
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    utils.write_atomic(path, buffer.getvalue())


def worst_mistakes(corpus, split, probabilities: Tensor, classes: list[str]) -> list[tuple[str, str]]:
    """The wrong answers that the network was surest of -> (what was said, the text)."""
    confidence, guess = probabilities.max(1)
    wrong = (guess != split.labels).nonzero()[:, 0]
    mistakes = []
    for i in wrong[confidence[wrong].argsort(descending=True)][:50].tolist():
        row, answer = split.rows[i], f"{classes[guess[i]]} ({confidence[i]:.2f}), not {classes[split.labels[i]]}"
        mistakes.append((f"line {corpus.lines[row]}: {answer}", corpus.raw[row]))
    return mistakes


def test(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, device: torch.device) -> None:
    corpus, split = load_test_split(args, meta, path)
    start = time.perf_counter()
    probabilities = predict(model, split, device)
    seconds = time.perf_counter() - start
    about = {"arch": meta["arch"], "trained_on": meta["data"], "tested_on": corpus.name, "weights": str(path)}
    about |= {"tokenizer": meta["tokenizer"], "emoticons": meta["emoticons"], "torch": torch.__version__}
    result = about | measure(probabilities, split.labels, meta["classes"])
    if args.baselines:
        import baselines  # scikit-learn takes a second to import

        result["baselines"] = baselines.run(corpus, meta["stop_words"], longest=3 if meta["tokenizer"] == "char" else 2)
        baselines.print_table(result["baselines"])

    out = output_folder(args, meta, path)
    print_table(result)
    draw_confusion(result, out / "confusion.png")
    draw_calibration(result, out / "calibration.png")
    mistakes = worst_mistakes(corpus, split, probabilities, meta["classes"])
    utils.write_atomic(out / "mistakes.txt", "\n\n".join(map("\n".join, mistakes)) + "\n")
    explain_to_picture(args, model, meta, mistakes[:8], out / "words.svg", device)
    utils.write_atomic(out / "test.json", json.dumps(result, indent=1, ensure_ascii=False))
    print(
        f"{meta['arch']}, trained on {meta['data']}, emoticons: {meta['emoticons']}: test accuracy "
        f"{result['accuracy']:.4f}, F1 {result['macro_f1']:.4f} on {corpus.name} "
        f"({len(split):,} texts, {seconds:.1f} s on {device})"
    )
    print(f"wrote {out}: test.json, confusion.png, calibration.png, mistakes.txt, words.svg")
    if args.export:
        export(args, model, meta, path, result)


def output_folder(args: argparse.Namespace, meta: dict, path: Path) -> Path:
    default = path.parent if path.suffix == ".pt" else Path("runs") / f"test-{meta['arch']}"
    out = Path(args.out) if args.out else default
    out.mkdir(parents=True, exist_ok=True)
    return out


def export(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, result: dict) -> None:
    """Saves the weights to share, in half precision, with the vocabulary, how they were made and what they score."""
    if path.suffix != ".pt":
        fail(f"--export: {path} is no run; only a run knows how its weights were made")
    recipe = utils.read_arguments(path.parent)
    command = f"python train.py --arch {meta['arch']} --data {Path(recipe['data']).name}"
    command += f" --emoticons {meta['emoticons']}"
    usual = options.parse("", ["--arch", meta["arch"]])
    options.fill_in_recipe(usual)
    for name in (*options.COLUMNS, "longest", "label_smoothing", "max_words", "min_count", "max_length", "limit"):
        if recipe[name] != getattr(usual, name):
            command += f" --{name.replace('_', '-')} {recipe[name]}"
    score = {name: result[name] for name in ("accuracy", "macro_f1", "texts", "tested_on", "torch")}
    utils.save_weights(args.export, model.half(), **meta, command=f"{command} --seed {recipe['seed']}", score=score)
    print(f"wrote {args.export}: {Path(args.export).stat().st_size / 1e6:.1f} MB")


# ---- your texts -------------------------------------------------------------------------------------------------------


def lines_of(args: argparse.Namespace) -> Iterator[str]:
    """The lines of the files named, and of the pipe."""
    for name in args.texts:
        if name == "-":
            data, path = sys.stdin.buffer.read(), Path("the pipe")
        else:
            path = Path(name)
            data = path.read_bytes()
        yield from (line.rstrip("\r") for line in datasets.decode(path, data).removesuffix("\n").split("\n"))


def explain_to_picture(args, model, meta: dict, titled: list[tuple[str, str]], path: Path, device) -> None:
    reader = explain.Reader(meta, args.cache)
    answers = explain.judge(model, reader, [text for _, text in titled], device, words=True) if titled else ()
    rows = [row for said, (title, _) in zip(answers, titled, strict=True) for row in explain.rows_of(said, title)]
    explain.draw(path, rows)


def classify(args: argparse.Namespace, model: nn.Module, meta: dict, device: torch.device) -> None:
    """Texts are answered for people, files and pipes in JSON lines, one for each line."""
    reader = explain.Reader(meta, args.cache)
    words = not args.no_words or bool(args.picture)
    if all(name == "-" or os.path.isfile(name) for name in args.texts):  # pathlib fails at a name of 300 characters
        lines: Iterable[str] = lines_of(args)
        while some := list(islice(lines, 256)):
            for said in explain.judge(model, reader, some, device, words):
                print(explain.to_json(said), flush=True)
        return
    answers = list(explain.judge(model, reader, args.texts, device, words))
    for said in answers:
        explain.show(said)
    if args.picture:
        titled = [(said, f"{said['label']} {said['probability']:.2f}") for said in answers if said["label"]]
        explain.draw(args.picture, [row for said, title in titled for row in explain.rows_of(said, title)])
        say(f"wrote {args.picture}")
    if len(answers) == 1 and answers[0]["label"] is None:
        fail("there is nothing to judge")


def main(argv=None) -> None:
    args = parse(argv)
    sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to stop
    device = utils.pick_device(args.device)
    model, meta, path = load_model(args, device)
    if args.texts:
        classify(args, model, meta, device)
    else:
        test(args, model, meta, path, device)


if __name__ == "__main__":
    utils.start(main)
