"""Measures a trained network on the test split, or says what texts mean and which words drove the answer.

    python test.py                                  # the newest run, or else the shipped weights, on the test split
    python test.py --baselines                      # and what counting words achieves on the same split
    python test.py --ensemble runs/a runs/b         # the mean of what several networks say, on the same split
    python test.py "今天心情很好" "服务太差了"      # an answer each, with the words that drove it
    python test.py reviews.txt                      # a file of lines, or a table (.csv, .tsv, .jsonl) -> JSON lines
    tail -f log | python test.py -                  # lines from a pipe, each answered as it comes

Only this script reads the test split, and it changes nothing by it: train.py picks the best epoch on validation data.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.functional import classification as metrics

import datasets
import explain
import models
import options
import reading
import scores
import utils
from utils import fail, say

WEIGHTS = Path(__file__).parent / "weights" / "fasttext.safetensors"
NEEDED = {"arch", "classes", "data", "vocabulary", "tokenizer", "emoticons", "stop_words", "max_length", "sizes"}
MOST_SHOWN = 30  # classes in a table or picture; test.json has all


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("texts", nargs="*", help="texts, files of lines, tables, or - for lines from a pipe, to judge")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file, or a run's best.pt")
    parser.add_argument("--ensemble", nargs="+", metavar="DIR", help="test the mean of these runs' probabilities")
    parser.add_argument("--data", help="what to test on (default: the data the network was trained on)")
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where real data lie (default: %(default)s)")
    utils.add_mirror_flag(parser)
    parser.add_argument("--cache", metavar="DIR", help="of tokenised text and of jieba (default: DATA_ROOT/cache)")
    parser.add_argument(
        "--text-column", metavar="NAME", help="of a table (default: that of the training, or a usual name)"
    )
    parser.add_argument(
        "--label-column", metavar="NAME", help="of --data (default: that of the training, or a usual name)"
    )
    parser.add_argument("--out", metavar="DIR", help="where results go (default: the run folder, or runs/test-ARCH)")
    parser.add_argument("--baselines", action="store_true", help="fit the baselines too, on the same tokens")
    parser.add_argument("--no-words", action="store_true", help="answers only: faster, for large files")
    parser.add_argument("--picture", metavar="FILE", help="texts: save the words' influence and attention as .svg")
    parser.add_argument("--export", metavar="FILE", help="save the tested weights and their score as .safetensors")
    utils.add_device_flag(parser)
    args = parser.parse_args(argv)
    args.cache = args.cache or Path(args.data_root) / "cache"
    if args.ensemble and (args.texts or args.run or args.weights or args.export):
        fail("--ensemble tests several runs; no --run, --weights, --export or texts go with it")
    return args


def load_model(args: argparse.Namespace, run: str | None, device: torch.device) -> tuple[nn.Module, dict, Path]:
    """-> the network of the run (None: of --weights, or else the newest) in eval mode, what its file says of it (NEEDED), and
    the file."""
    run = run or (None if args.weights else utils.newest_run())
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
    if args.export:  # what is measured is what is saved: weights rounded to 16 bits
        model.half().float()
    utils.say_weights(path, meta)
    return model.to(device).eval(), meta, path


@torch.inference_mode()
def predict(model: nn.Module, split: datasets.Split, device: torch.device) -> Tensor:
    """-> (N, K) probabilities on the CPU, in the order of the split."""
    loader = datasets.BucketLoader(split, 500, device)
    several = split.labels.ndim == 2
    probabilities = torch.cat([scores.probabilities_of(model(ids), several).cpu() for ids, *_ in loader])
    return probabilities[loader.order.argsort()]


# ---- the test split ---------------------------------------------------------------------------------------------------


def load_test_split(args: argparse.Namespace, meta: dict, path: Path) -> tuple[datasets.Corpus, datasets.Split]:
    """-> the corpus that the network was trained on (or --data) and its test part, with the network's class numbers."""
    is_run = path.suffix == ".pt" and (path.parent / "args.json").exists()
    recipe = utils.read_arguments(path.parent) if is_run else {}
    saved = {} if args.data else recipe
    columns = {name: getattr(args, name) or saved.get(name) for name in ("text_column", "label_column")}
    name, how = args.data or recipe.get("data", meta["data"]), (meta["tokenizer"], meta["emoticons"])
    corpus = datasets.load(name, args.data_root, *how, cache=args.cache, **columns)
    if (corpus.labels.ndim == 2) != meta.get("several", False):
        fail(f"{corpus.name}: one of the two has several labels a text, this table or {path}, and the other one label")
    with_class_numbers(corpus, meta["classes"], path)
    if is_run and (path.parent / "split.json").exists():
        keep_held_out(corpus, utils.read_json(path.parent / "split.json"), args.data is None)
    split = datasets.encode(corpus, "test", meta["vocabulary"], meta["max_length"], meta["stop_words"])
    return corpus, split


def with_class_numbers(corpus: datasets.Corpus, classes: list[str], path: Path) -> None:
    """Gives the corpus the network's classes, in its order."""
    number = {name.casefold(): i for i, name in enumerate(classes)}
    several = corpus.labels.ndim == 2
    for i, name in enumerate(corpus.classes):
        if name.casefold() not in number:
            has = corpus.labels[:, i] > 0 if several else corpus.labels == i
            known = utils.cut(", ".join(classes), 200)
            fail(
                f"{corpus.name}, line {corpus.lines[has][0]}: the label {name!r} is unknown to {path}, which has {known}"
            )
    places = np.array([number[name.casefold()] for name in corpus.classes])
    if several:
        labels = np.zeros((len(corpus.labels), len(classes)), np.int64)
        labels[:, places] = corpus.labels
    corpus.labels, corpus.classes = labels if several else places[corpus.labels], classes


def keep_held_out(corpus: datasets.Corpus, split: dict, same_data: bool) -> None:
    """Gives the texts the parts that they had in the run, for the baselines train and val too; what came later may be tested,
    and of other data, what the run did not see. Says what came, changed or went since."""
    marks = [utils.fingerprint(text.encode("utf-8", "surrogatepass")) for text in corpus.raw]
    test = datasets.PARTS.index("test")
    in_test = {mark for mark, part in zip(marks, corpus.parts, strict=True) if part == test}
    names = dict(zip(marks, (f"line {line}" for line in corpus.lines), strict=True))
    chosen = utils.held_out(split, names, in_test, names_stay=False, same_data=same_data)
    own = dict(zip(marks, (-1 if same_data else part if part != test else -1 for part in corpus.parts), strict=True))
    before = {mark: i for i, name in enumerate(datasets.PARTS[:2]) for mark in split.get(name) or {}}
    corpus.parts = np.array([test if mark in chosen else before.get(mark, own[mark]) for mark in marks], np.int8)


def measure(probabilities: Tensor, labels: Tensor, classes: list[str]) -> dict:
    """(N, K) probabilities and (N,) labels -> accuracy, F1, calibration error, confusion matrix, figures a class."""
    k = len(classes)
    confusion = metrics.multiclass_confusion_matrix(probabilities, labels, k)  # (K, K): row is the truth
    rows, macro_f1 = figures_of(confusion.diagonal(), confusion.sum(0), confusion.sum(1), classes)
    return {
        "accuracy": float((probabilities.argmax(1) == labels).float().mean()),
        "macro_f1": macro_f1,
        "majority": float(confusion.sum(1).max() / confusion.sum()),
        "calibration_error": float(metrics.multiclass_calibration_error(probabilities, labels, k, n_bins=10)),
        "texts": len(labels),
        "classes": rows,
        "confusion": confusion.tolist(),
        "calibration": calibration(probabilities, labels),
    }


def measure_several(probabilities: Tensor, labels: Tensor, classes: list[str]) -> dict:
    """(N, K) probabilities and (N, K) labels -> the share of texts whose labels are all right, F1, figures a label."""
    said, true = probabilities > 0.5, labels > 0
    right = (said & true).sum(0)
    rows, macro_f1 = figures_of(right, said.sum(0), true.sum(0), classes)
    micro_f1 = float(2 * right.sum() / (said.sum() + true.sum()).clamp(min=1))
    accuracy = float((said == true).all(1).float().mean())
    return {"accuracy": accuracy, "micro_f1": micro_f1, "macro_f1": macro_f1, "texts": len(labels), "classes": rows}


def figures_of(right: Tensor, said: Tensor, true: Tensor, classes: list[str]) -> tuple[dict, float]:
    """(K,) right answers, answers, texts of each class -> precision, recall and F1 of each; F1's mean over those there."""
    precision, recall = right / said.clamp(min=1), right / true.clamp(min=1)
    f1, there = 2 * right / (said + true).clamp(min=1), said + true > 0
    columns = {"texts": true, "precision": precision, "recall": recall, "f1": f1}
    rows = {name: {kind: values[i].item() for kind, values in columns.items()} for i, name in enumerate(classes)}
    return rows, float(f1[there].mean())


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
    """The classes with the most texts; all of them are in test.json."""
    order = sorted(result["classes"], key=lambda name: -result["classes"][name]["texts"])
    table = [["class", "texts", "precision", "recall", "F1"]]
    for name in order[:MOST_SHOWN]:
        row = result["classes"][name]
        table.append(
            [utils.cut(name, 30), f"{row['texts']:,}", *(f"{row[x]:.4f}" for x in ("precision", "recall", "f1"))]
        )
    utils.print_table(table)
    if len(order) > MOST_SHOWN:
        say(f"and {len(order) - MOST_SHOWN} more classes, in test.json")


def draw_confusion(result: dict, path: Path) -> None:
    """Of many classes, those with the most texts."""
    names = list(result["classes"])
    chosen = sorted(sorted(range(len(names)), key=lambda i: -result["classes"][names[i]]["texts"])[:MOST_SHOWN])
    labels = [utils.cut(names[i], 16) for i in chosen]
    counts = torch.tensor(result["confusion"])
    share = (counts / counts.sum(1, keepdim=True).clamp(min=1))[chosen][:, chosen]
    size = 3.2 + 0.4 * len(labels)
    figure = utils.new_figure(size + 0.4, size, "".join(labels))
    axis = figure.subplots()
    axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axis.set_yticks(range(len(labels)), labels)
    axis.set(xlabel="predicted", ylabel="true", title=f"Confusion, accuracy {result['accuracy']:.4f}")
    for i, j in torch.cartesian_prod(torch.arange(len(labels)), torch.arange(len(labels))).tolist():
        if count := int(counts[chosen[i], chosen[j]]):
            colour = "white" if share[i, j] > 0.5 else "black"
            axis.text(j, i, count, ha="center", va="center", fontsize=9 if len(labels) < 12 else 6, color=colour)
    utils.save_figure(figure, path)


def draw_calibration(result: dict, path: Path) -> None:
    """How often answers are right against how sure the network was; on the diagonal it knows what it knows."""
    rows = result["calibration"]
    figure = utils.new_figure(5, 5)
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
    utils.save_figure(figure, path)


def worst_mistakes(corpus, split, probabilities: Tensor, classes: list[str]) -> list[tuple[str, str]]:
    """The wrong answers that the network was surest of -> (what was said, the text)."""
    several = split.labels.ndim == 2
    said = probabilities > 0.5 if several else probabilities == probabilities.amax(1, keepdim=True)
    true = split.labels > 0 if several else torch.nn.functional.one_hot(split.labels, len(classes)) > 0
    confidence = (probabilities - 0.5).abs().masked_fill(said == true, 0).amax(1) if several else probabilities.amax(1)
    wrong = (said != true).any(1).nonzero()[:, 0]
    mistakes = []
    for i in wrong[confidence[wrong].argsort(descending=True)][:50].tolist():
        row, (answer, right) = (
            split.rows[i],
            ("|".join(classes[c] for c in one.nonzero()[:, 0].tolist()) or "(none)" for one in (said[i], true[i])),
        )
        mistakes.append((f"line {corpus.lines[row]}: {answer} ({confidence[i]:.2f}), not {right}", corpus.raw[row]))
    return mistakes


def predict_test_split(args: argparse.Namespace, members: list, device: torch.device) -> tuple:
    """Networks as load_model() gives them -> the first one's corpus and test split, the mean of all their probabilities there,
    and the seconds that predicting took. Networks that err in different places correct each other (Hansen and Salamon 1990)."""
    first, total, seconds = None, 0.0, 0.0
    for model, meta, path in members:
        corpus, split = load_test_split(args, meta, path)
        tested = meta["classes"], [corpus.raw[row] for row in split.rows], split.labels.tolist()
        first = first or (corpus, split, tested)
        if tested != first[2]:
            fail(f"{members[0][2]} and {path}: their classes or their test texts differ, so their answers have no mean")
        start = time.perf_counter()
        total = total + predict(model, split, device)
        seconds += time.perf_counter() - start
    return *first[:2], total / len(members), seconds


def test(args: argparse.Namespace, members: list, device: torch.device) -> None:
    """Measures a network, or the mean of several: members, as load_model() gives them."""
    model, meta, path = members[0]
    corpus, split, probabilities, seconds = predict_test_split(args, members, device)
    several = split.labels.ndim == 2
    if args.baselines and several:
        fail("--baselines: of tables with one label a text only")
    who = meta["arch"] if len(members) == 1 else f"mean of {len(members)} networks"
    about = {"arch": who, "trained_on": meta["data"], "tested_on": corpus.name}
    about["weights"] = ", ".join(str(path) for _, _, path in members)
    about |= {"tokenizer": meta["tokenizer"], "emoticons": meta["emoticons"], "torch": torch.__version__}
    result = about | (measure_several if several else measure)(probabilities, split.labels, meta["classes"])

    out = output_folder(args, meta, path)
    files = write_results(args, model, meta, corpus, split, probabilities, result, out, device)
    print_table(result)
    figures = {"all labels right": "accuracy", "micro-F1": "micro_f1"} if several else {"accuracy": "accuracy"}
    words = ", ".join(f"{word} {result[name]:.4f}" for word, name in (figures | {"macro-F1": "macro_f1"}).items())
    always = "" if several else f"; always to say the commonest class: {result['majority']:.4f}"
    say(
        f"{who}, trained on {meta['data']}, emoticons: {meta['emoticons']}: test {words} on {corpus.name} "
        f"({len(split):,} texts, {seconds:.1f} s on {device}){always}"
    )
    say(f"wrote {out}: {', '.join(files)}")
    if args.baselines:
        import baselines  # scikit-learn takes a second to import

        result["baselines"] = baselines.run(corpus, meta["stop_words"], longest=3 if meta["tokenizer"] == "char" else 2)
        baselines.print_table(result["baselines"])
        utils.write_atomic(out / "test.json", json.dumps(result, indent=1, ensure_ascii=False))
    if args.export:
        export(args, model, meta, path, result)


def write_results(args, model, meta: dict, corpus, split, probabilities, result: dict, out: Path, device) -> list[str]:
    """-> the names of the files written."""
    files = ["test.json", "mistakes.txt"]
    utils.write_atomic(out / "test.json", json.dumps(result, indent=1, ensure_ascii=False))
    if "confusion" in result:
        draw_confusion(result, out / "confusion.png")
        draw_calibration(result, out / "calibration.png")
        files += ["confusion.png", "calibration.png"]
    mistakes = worst_mistakes(corpus, split, probabilities, meta["classes"])
    utils.write_atomic(out / "mistakes.txt", "\n\n".join(map("\n".join, mistakes)) + "\n")
    if not args.ensemble:
        explain_to_picture(args, model, meta, mistakes[:8], out / "words.svg", device)
        files.append("words.svg")
    return files


def output_folder(args: argparse.Namespace, meta: dict, path: Path) -> Path:
    own = path.parent if path.suffix == ".pt" and not args.ensemble else None
    name = "ensemble" if args.ensemble else meta["arch"]
    return utils.output_folder(args.out or own or Path("runs") / f"test-{name}")


def export(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, result: dict) -> None:
    """Saves the weights to share, in half precision, with the vocabulary, how they were made and what they score."""
    if path.suffix != ".pt":
        fail(f"--export: {path} is no run; only a run knows how its weights were made")
    command = utils.command_of(utils.read_arguments(path.parent), options.parse("", []))
    score = {name: result[name] for name in ("accuracy", "macro_f1", "texts", "tested_on", "torch")}
    about = {name: value for name, value in meta.items() if name != "labels"}
    target = utils.free_name(args.export)
    utils.save_weights(target, model.half(), **about, command=command, score=score)
    say(f"wrote {target}: {target.stat().st_size / 1e6:.1f} MB")


# ---- your texts -------------------------------------------------------------------------------------------------------


def explain_to_picture(args, model, meta: dict, titled: list[tuple[str, str]], path: Path, device) -> None:
    reader = explain.Reader(meta, args.cache)
    answers = explain.judge(model, reader, [text for _, text in titled], device, words=True) if titled else ()
    rows = [row for said, (title, _) in zip(answers, titled, strict=True) for row in explain.rows_of(said, title)]
    explain.draw(path, rows)


def classify(args: argparse.Namespace, model: nn.Module, meta: dict, device: torch.device) -> None:
    """Texts are answered for people, files and pipes in JSON lines, one for each line."""
    reader = explain.Reader(meta, args.cache)
    words, pictured = not args.no_words or bool(args.picture), []
    for is_text, some in reading.texts_of(args.texts, args.text_column):
        for said in explain.judge(model, reader, some, device, words):
            (explain.show if is_text else explain.print_json)(said)
            if is_text and said["label"] is None and len(args.texts) == 1:
                fail("there is nothing to judge")
            pictured += [said] if is_text and said["label"] is not None else []
    if args.picture:
        titled = [(said, f"{said['label']} {said['probability']:.2f}") for said in pictured]
        target = utils.free_name(args.picture)
        explain.draw(target, [row for said, title in titled for row in explain.rows_of(said, title)])
        say(f"wrote {target}", file=sys.stderr)


def main(argv=None) -> None:
    args = parse(argv)
    sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to stop
    device = utils.pick_device(args.device)
    members = [load_model(args, run, device) for run in args.ensemble or [args.run]]
    if args.texts:
        classify(args, *members[0][:2], device)
    else:
        test(args, members, device)


if __name__ == "__main__":
    utils.start(main)
