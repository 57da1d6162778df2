"""Measures a trained network on the test split, or tells what is on the pictures you name.

    python test.py                                                    # the newest run, or else the shipped weights
    python test.py --run runs/mobilenet-cifar10                       # test accuracy, table, pictures, test.json
    python test.py --weights weights/mobilenet.safetensors photo.jpg  # top-5 of a file, or of all pictures in a folder

Only this script reads the test split, and it changes nothing by it: train.py picks the best epoch on validation data.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.functional import classification as metrics

import datasets
import models
import options
import pictures
import utils
from utils import Number, fail, new_figure, save_figure, say

WEIGHTS = Path(__file__).parent / "weights" / "fastnet.safetensors"  # the best of the shipped ones


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("files", nargs="*", help="pictures, or folders of pictures, to classify instead of testing")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file, or a run's best.pt")
    parser.add_argument("--data", help="what to test on (default: the data the network was trained on)")
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where CIFAR-10 lies (default: %(default)s)")
    utils.add_mirror_flag(parser)
    parser.add_argument("--out", metavar="DIR", help="where results go (default: the run folder, or runs/test-ARCH)")
    parser.add_argument("--tta", action="store_true", help="average over six views: mirrored, and shifted by a pixel")
    top_help = "classes to show for a picture (default: %(default)s)"
    parser.add_argument("--top", type=Number(int, 1), default=5, metavar="N", help=top_help)
    parser.add_argument("--export", metavar="FILE", help="save the tested weights and their score as .safetensors")
    utils.add_device_flag(parser)
    return parser.parse_args(argv)


def load_model(args: argparse.Namespace, device: torch.device) -> tuple[nn.Module, dict, Path]:
    """-> the network in eval mode, what its file says of it (arch, classes, data, mean, std, image_size), and the file."""
    run = args.run or (None if args.weights else utils.newest_run())
    path = Path(args.weights) if args.weights else Path(run) / "best.pt" if run else WEIGHTS
    state, meta = utils.load_weights(path)
    needed = {"arch", "classes", "data", "mean", "std", "image_size"}
    if needed - meta.keys():
        fail(f"{path}: holds weights, but not of a run of this chapter ({', '.join(sorted(needed))} are needed)")
    model = models.build(meta["arch"], len(meta["classes"]))
    utils.load_state(model, state, path, meta["arch"])
    utils.say_weights(path, meta)
    return model.to(device, memory_format=torch.channels_last).eval(), meta, path


@torch.inference_mode()
def predict(model: nn.Module, meta: dict, images: Tensor, device: torch.device, tta: bool = False) -> Tensor:
    """(N, 3, S, S) uint8 -> (N, K) probabilities, on the CPU."""
    normalize = datasets.Normalize(meta["mean"], meta["std"]).to(device)
    batches = (normalize(batch.to(device)) for batch in images.split(500))
    return torch.cat([(six_views(model, x) if tta else model(x)).float().softmax(1).cpu() for x in batches])


def six_views(model: nn.Module, x: Tensor) -> Tensor:
    """Logits averaged over the picture and its mirror image, each in place and shifted a pixel up left and down right."""
    size = x.shape[-1]
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    views = ((0.5, x), (0.25, padded[..., :size, :size]), (0.25, padded[..., 2:, 2:]))
    return sum(share * (model(view) + model(view.flip(3))) / 2 for share, view in views)


# ---- the test split ---------------------------------------------------------------------------------------------------


def measure(probabilities: Tensor, labels: Tensor, classes: list[str]) -> dict:
    """(N, K) probabilities and (N,) labels -> accuracy, top-5 accuracy, confusion matrix and a row of figures a class."""
    k = len(classes)
    confusion = metrics.multiclass_confusion_matrix(probabilities, labels, k)  # (K, K): row is the truth
    precision_area = metrics.multiclass_average_precision(probabilities, labels, k, average=None)
    roc_area = metrics.multiclass_auroc(probabilities, labels, k, average=None)
    rows = {}
    for i, name in enumerate(classes):
        tp = int(confusion[i, i])
        fn, fp = int(confusion[i].sum()) - tp, int(confusion[:, i].sum()) - tp
        row = {"tp": tp, "fp": fp, "fn": fn, "tn": len(labels) - tp - fn - fp}
        recall, precision = tp / max(1, tp + fn), tp / max(1, tp + fp)
        row |= {"recall": recall, "precision": precision, "f1": 2 * tp / max(1, 2 * tp + fp + fn)}
        rows[name] = row | {"average_precision": float(precision_area[i]), "auroc": float(roc_area[i])}
    right = {n: float((probabilities.topk(n).indices == labels[:, None]).any(1).float().mean()) for n in (1, min(5, k))}
    result = {"accuracy": right[1], f"top{min(5, k)}_accuracy": right[min(5, k)], "pictures": len(labels)}
    return result | {"classes": rows, "confusion": confusion.tolist()}


def print_table(result: dict) -> None:
    """Recall is the share of a class's pictures that are called so (some call it the accuracy of the class), precision the
    share of those called so that are of the class, F1 their harmonic mean."""
    rows = [["class", "recall", "precision", "F1", "AP", "AUROC", "TP", "FP", "FN", "TN"]]
    for name, row in result["classes"].items():
        scores = [f"{row[key]:.4f}" for key in ("recall", "precision", "f1", "average_precision", "auroc")]
        rows.append([name, *scores, *(f"{row[key]:,}" for key in ("tp", "fp", "fn", "tn"))])
    utils.print_table(rows)


def draw_confusion(result: dict, path: Path) -> None:
    classes, counts = list(result["classes"]), torch.tensor(result["confusion"])
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    figure = new_figure(7, 6.4, "".join(classes))
    axis = figure.subplots()
    axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    shown = range(0, len(classes), -(-len(classes) // 50))  # of many classes, every second name or fewer
    names = [utils.cut(classes[i], 24) for i in shown]
    axis.set_xticks(shown, names, rotation=45 if len(classes) <= 25 else 90, ha="right", fontsize=8)
    axis.set_yticks(shown, names, fontsize=8)
    axis.set(xlabel="predicted", ylabel="true", title=f"Confusion, accuracy {result['accuracy']:.4f}")
    if len(classes) <= 25:
        for i, j in torch.cartesian_prod(torch.arange(len(classes)), torch.arange(len(classes))).tolist():
            colour = "white" if share[i, j] > 0.5 else "black"
            axis.text(j, i, int(counts[i, j]), ha="center", va="center", fontsize=8, color=colour)
    save_figure(figure, path)


def draw_pr_roc(probabilities: Tensor, labels: Tensor, classes: list[str], path: Path) -> None:
    """The precision-recall and the ROC curve of each class against all others."""
    precision, recall, _ = metrics.multiclass_precision_recall_curve(probabilities, labels, len(classes))
    false_rate, true_rate, _ = metrics.multiclass_roc(probabilities, labels, len(classes))
    figure = new_figure(11, 5, "".join(classes))
    left, right = figure.subplots(1, 2)
    for i, name in enumerate(classes):
        left.plot(recall[i].numpy(), precision[i].numpy(), label=name)
        right.plot(false_rate[i].numpy(), true_rate[i].numpy(), label=name)
    left.set(xlabel="recall", ylabel="precision", title="Precision-recall curve")
    right.set(
        xlabel="false positive rate", ylabel="true positive rate", title="ROC curve (its left end)", xlim=(-0.01, 0.3)
    )
    if len(classes) <= 20:  # more would cover the curves
        left.legend([utils.cut(name, 24) for name in classes], fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def draw_mistakes(images: Tensor, probabilities: Tensor, labels: Tensor, classes: list[str], path: Path) -> None:
    """The wrong answers that the network was surest of."""
    confidence, guess = probabilities.max(1)
    wrong = (guess != labels).nonzero()[:, 0]
    worst = wrong[confidence[wrong].argsort(descending=True)][:32]
    figure = new_figure(12, 7, "".join(classes))
    figure.suptitle(f"{len(wrong):,} of {len(labels):,} wrong; the surest of them")
    for axis in (grid := figure.subplots(4, 8)).flat:
        axis.axis("off")
    for axis, i in zip(grid.flat, worst.tolist(), strict=False):
        axis.imshow(images[i].permute(1, 2, 0).numpy())
        true, said = (utils.cut(classes[k], 20) for k in (labels[i], guess[i]))
        axis.set_title(f"{true}, not\n{said} ({confidence[i]:.2f})", fontsize=8)
    save_figure(figure, path)


def test(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, device: torch.device) -> None:
    wanted, split = source_of(args, meta, path)
    data = datasets.load(wanted, args.data_root, meta["image_size"], ("test",), run=split)
    if data.classes != meta["classes"]:
        fail(f"{path} knows the classes {', '.join(meta['classes'])}; {data.name} has {', '.join(data.classes)}")
    split = data.splits["test"]
    start = time.perf_counter()
    probabilities = predict(model, meta, split.images, device, args.tta)
    seconds = time.perf_counter() - start
    about = {"arch": meta["arch"], "trained_on": meta["data"], "tested_on": data.name, "weights": str(path)}
    result = about | {"tta": args.tta, "torch": torch.__version__} | measure(probabilities, split.labels, data.classes)

    out = output_folder(args, meta, path)
    print_table(result)
    draw_confusion(result, out / "confusion.png")
    draw_pr_roc(probabilities, split.labels, data.classes, out / "pr_roc.png")
    draw_mistakes(split.images, probabilities, split.labels, data.classes, out / "mistakes.png")
    utils.write_atomic(out / "test.json", json.dumps(result, indent=1))
    views = "six views each" if args.tta else "one view each"
    say(
        f"{meta['arch']}, trained on {meta['data']}: test accuracy {result['accuracy']:.4f} on {data.name} "
        f"({len(split):,} pictures, {views}, {seconds:.1f} s on {device})"
    )
    say(f"wrote {out}: test.json, confusion.png, pr_roc.png, mistakes.png")
    if args.export:
        export(args, model, meta, path, result)


def source_of(args: argparse.Namespace, meta: dict, path: Path) -> tuple[str, dict]:
    """-> the --data to test on, by default the run's own, and which samples trained (of shared weights: unknown)."""
    split = {"data": meta["data"], "own": meta.get("own", False)}
    if (path.parent / "split.json").exists():
        split = utils.read_json(path.parent / "split.json")
    return args.data or split["data"], split


def output_folder(args: argparse.Namespace, meta: dict, path: Path) -> Path:
    return utils.output_folder(
        args.out or (path.parent if path.suffix == ".pt" else Path("runs") / f"test-{meta['arch']}")
    )


def export(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, result: dict) -> None:
    """Saves the weights to share, with how they were made and what they score."""
    command = utils.command_of(utils.read_arguments(path.parent), options.parse("", []))
    score = {name: result[name] for name in ("accuracy", "tta", "tested_on", "torch")}
    target = utils.free_name(args.export)
    utils.save_weights(target, model, **meta, command=command, score=score)
    say(f"wrote {target}: {target.stat().st_size / 1e6:.1f} MB")


# ---- your pictures ----------------------------------------------------------------------------------------------------


def find_pictures(names: list[str]) -> list[Path]:
    files = []
    for path in map(Path, names):
        if not path.exists():
            fail(f"{path}: no such file or folder")
        found = pictures.list_pictures(path, deep=True) if path.is_dir() else [path]
        if not found:
            fail(f"{path}: no pictures in this folder")
        files += found
    return files


def read_pictures(names: list, image_size: int) -> tuple[list[Path], list[Tensor], list[Path]]:
    """-> the files that can be read, their pictures (3, S, S) uint8, and the files that cannot, each named in a line."""
    good, images, bad = [], [], []
    for file in find_pictures(names):
        try:
            images.append(datasets.read_image(file, image_size))
            good.append(file)
        except OSError as error:
            bad.append(file)
            say(f"{file}: not a picture that can be read ({error.strerror or error})")
    return good, images, bad


def refuse(bad: list[Path], good: int) -> None:
    """Ends the program with status 1 if some files could not be read."""
    if bad:
        fail(f"{len(bad)} of {len(bad) + good} files could not be read, the first being {bad[0]}")


def classify(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, device: torch.device) -> None:
    """Prints the likeliest classes of each picture, and draws them beside it. Exit status 1 if one could not be read."""
    good, images, bad = read_pictures(args.files, meta["image_size"])
    if good:
        top = predict(model, meta, torch.stack(images), device, args.tta).topk(min(args.top, len(meta["classes"])))
        answers = [
            [(meta["classes"][i], p) for i, p in zip(*row, strict=True)]
            for row in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        for file, answer in zip(good, answers, strict=True):
            print(f"{file}: " + ", ".join(f"{name} {p:.3f}" for name, p in answer))
        out = utils.free_name(output_folder(args, meta, path) / "predictions.png")
        draw_answers(good[:40], answers, meta["image_size"], out)
        say(f"wrote {out}")
    refuse(bad, len(good))


def draw_answers(files: list[Path], answers: list, image_size: int, path: Path) -> None:
    figure = new_figure(
        7, 1.6 * len(files), "".join(f.name for f in files) + "".join(n for row in answers for n, _ in row)
    )
    for axes, file, answer in zip(figure.subplots(len(files), 2, squeeze=False), files, answers, strict=False):
        axes[0].imshow(datasets.read_image(file, max(224, image_size)).permute(1, 2, 0).numpy())
        axes[0].axis("off")
        names, shares = zip(*reversed(answer[:10]), strict=True)
        axes[1].barh([utils.cut(name, 24) for name in names], shares)
        axes[1].set(xlim=(0, 1), title=utils.cut(file.name, 50))
        axes[1].tick_params(labelsize=8)
    save_figure(figure, path)


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    model, meta, path = load_model(args, device)
    (classify if args.files else test)(args, model, meta, path, device)


if __name__ == "__main__":
    utils.start(main)
