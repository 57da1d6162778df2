"""Measures a trained network on the test split, or tells what is on the pictures you name.

    python test.py                                                    # the newest run, or else the shipped weights
    python test.py --run runs/mobilenet-cifar10                       # test accuracy, table, pictures, test.json
    python test.py --weights weights/mobilenet.safetensors photo.jpg  # top-5 of a file, or of all pictures in a folder

Only this script reads the test split, and it changes nothing by it: train.py picks the best epoch on validation data.
"""

import argparse
import io
import json
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.functional import classification as metrics

import datasets
import models
import utils
from utils import fail

WEIGHTS = Path(__file__).parent / "weights" / "fastnet.safetensors"  # the best of the shipped ones


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="pictures, or folders of pictures, to classify instead of testing")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file")
    parser.add_argument("--data", help="what to test on (default: the data the network was trained on)")
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where CIFAR-10 lies (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", help="where results go (default: the run folder, or runs/test-ARCH)")
    parser.add_argument("--tta", action="store_true", help="average over six views: mirrored, and shifted by a pixel")
    parser.add_argument("--top", type=int, default=5, help="classes to show for a picture (default: %(default)s)")
    parser.add_argument("--export", metavar="FILE", help="save the tested weights and their score as .safetensors")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    return parser.parse_args(argv)


def load_model(args: argparse.Namespace, device: torch.device) -> tuple[nn.Module, dict, Path]:
    """-> the network in eval mode, what its file says of it (arch, classes, data, mean, std, image_size), and the file."""
    runs = sorted(Path("runs").glob("*/best.pt"), key=lambda path: path.stat().st_mtime)
    path = Path(args.weights) if args.weights else Path(args.run) / "best.pt" if args.run else (runs or [WEIGHTS])[-1]
    if path.suffix == ".safetensors":
        state, meta = utils.load_weights(path)
    else:
        saved = utils.load_checkpoint(path)
        state, meta = (saved.get("model"), saved.get("meta")) if isinstance(saved, dict) else (None, None)
    needed = {"arch", "classes", "data", "mean", "std", "image_size"}
    if not isinstance(state, dict) or not isinstance(meta, dict) or needed - meta.keys():
        fail(f"{path}: holds weights, but not of a run of this chapter ({', '.join(sorted(needed))} are needed)")
    model = models.build(meta["arch"], len(meta["classes"]))
    try:
        model.load_state_dict(state)
    except RuntimeError:
        fail(f"{path}: says {meta['arch']}, but the weights in it are of another network")
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
        row |= {"accuracy": tp / max(1, tp + fn), "precision": tp / max(1, tp + fp)}
        rows[name] = row | {"average_precision": float(precision_area[i]), "auroc": float(roc_area[i])}
    right = {n: float((probabilities.topk(n).indices == labels[:, None]).any(1).float().mean()) for n in (1, min(5, k))}
    result = {"accuracy": right[1], f"top{min(5, k)}_accuracy": right[min(5, k)], "pictures": len(labels)}
    return result | {"classes": rows, "confusion": confusion.tolist()}


def print_table(result: dict) -> None:
    print(f"{'class':<14}{'accuracy':>9}{'precision':>10}{'AP':>8}{'AUROC':>8}{'TP':>7}{'FP':>7}{'FN':>7}{'TN':>7}")
    for name, row in result["classes"].items():
        scores = f"{row['accuracy']:>9.4f}{row['precision']:>10.4f}{row['average_precision']:>8.4f}{row['auroc']:>8.4f}"
        print(f"{name:<14}{scores}" + "".join(f"{row[key]:>7,}" for key in ("tp", "fp", "fn", "tn")))


def draw_confusion(result: dict, path: Path) -> None:
    classes, counts = list(result["classes"]), torch.tensor(result["confusion"])
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(7, 6.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), classes)
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
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, name in enumerate(classes):
        left.plot(recall[i].numpy(), precision[i].numpy(), label=name)
        right.plot(false_rate[i].numpy(), true_rate[i].numpy(), label=name)
    left.set(xlabel="recall", ylabel="precision", title="Precision-recall curve")
    right.set(
        xlabel="false positive rate", ylabel="true positive rate", title="ROC curve (its left end)", xlim=(-0.01, 0.3)
    )
    left.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def draw_mistakes(images: Tensor, probabilities: Tensor, labels: Tensor, classes: list[str], path: Path) -> None:
    """The wrong answers that the network was surest of."""
    confidence, guess = probabilities.max(1)
    wrong = (guess != labels).nonzero()[:, 0]
    worst = wrong[confidence[wrong].argsort(descending=True)][:32]
    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle(f"{len(wrong):,} of {len(labels):,} wrong; the surest of them")
    for axis in (grid := figure.subplots(4, 8)).flat:
        axis.axis("off")
    for axis, i in zip(grid.flat, worst.tolist(), strict=False):
        axis.imshow(images[i].permute(1, 2, 0).numpy())
        axis.set_title(f"{classes[labels[i]]}, not\n{classes[guess[i]]} ({confidence[i]:.2f})", fontsize=8)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    utils.write_atomic(path, buffer.getvalue())


def test(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, device: torch.device) -> None:
    data = datasets.load(args.data or source_of(meta, path), args.data_root, meta["image_size"], ("test",))
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
    print(
        f"{meta['arch']}, trained on {meta['data']}: test accuracy {result['accuracy']:.4f} on {data.name} "
        f"({len(split):,} pictures, {views}, {seconds:.1f} s on {device})"
    )
    print(f"wrote {out}: test.json, confusion.png, pr_roc.png, mistakes.png")
    if args.export:
        export(args, model, meta, path, result)


def source_of(meta: dict, path: Path) -> str:
    """The --data that the run was trained with; for shared weights, the name of their data."""
    arguments = path.parent / "args.json"
    return json.loads(arguments.read_text("utf-8"))["data"] if arguments.exists() else meta["data"]


def output_folder(args: argparse.Namespace, meta: dict, path: Path) -> Path:
    default = path.parent if path.suffix == ".pt" else Path("runs") / f"test-{meta['arch']}"
    out = Path(args.out) if args.out else default
    out.mkdir(parents=True, exist_ok=True)
    return out


def export(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, result: dict) -> None:
    """Saves the weights to share, with how they were made and what they score."""
    recipe = json.loads((path.parent / "args.json").read_text("utf-8"))
    flags = "".join(f" --{name.replace('_', '-')}" for name in ("no_val", "compile") if recipe[name])
    command = f"python train.py --arch {meta['arch']} --data {meta['data']} --seed {recipe['seed']}"
    score = {name: result[name] for name in ("accuracy", "tta", "tested_on", "torch")}
    command += f" --precision {recipe['precision']}{flags}"
    utils.save_weights(args.export, model, **meta, command=command, score=score)
    print(f"wrote {args.export}: {Path(args.export).stat().st_size / 1e6:.1f} MB")


# ---- your pictures ----------------------------------------------------------------------------------------------------


def find_pictures(names: list[str]) -> list[Path]:
    files = []
    for path in map(Path, names):
        if not path.exists():
            fail(f"{path}: no such file or folder")
        found = (
            sorted(p for p in path.rglob("*") if p.suffix.lower() in datasets.IMAGE_TYPES) if path.is_dir() else [path]
        )
        if not found:
            fail(f"{path}: no pictures in this folder")
        files += found
    return files


def classify(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, device: torch.device) -> None:
    """Prints the likeliest classes of each picture, and draws them beside it. Exit status 1 if one could not be read."""
    files, images, bad = find_pictures(args.files), [], []
    for file in files:
        try:
            images.append(datasets.read_image(file, meta["image_size"]))
        except OSError:
            bad.append(file)
            print(f"{file}: not a picture that can be read")
    good = [file for file in files if file not in bad]
    if images:
        top = predict(model, meta, torch.stack(images), device, args.tta).topk(min(args.top, len(meta["classes"])))
        answers = [
            [(meta["classes"][i], p) for i, p in zip(*row, strict=True)]
            for row in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        for file, answer in zip(good, answers, strict=True):
            print(f"{file}: " + ", ".join(f"{name} {p:.3f}" for name, p in answer))
        out = output_folder(args, meta, path) / "predictions.png"
        draw_answers(good[:40], answers, meta["image_size"], out)
        print(f"wrote {out}")
    if bad:
        fail(f"{len(bad)} of {len(files)} files could not be read, the first being {bad[0]}")


def draw_answers(files: list[Path], answers: list, image_size: int, path: Path) -> None:
    figure = Figure(figsize=(7, 1.6 * len(files)), layout="constrained")
    for axes, file, answer in zip(figure.subplots(len(files), 2, squeeze=False), files, answers, strict=False):
        axes[0].imshow(datasets.read_image(file, max(224, image_size)).permute(1, 2, 0).numpy())
        axes[0].axis("off")
        names, shares = zip(*reversed(answer), strict=True)
        axes[1].barh(names, shares)
        axes[1].set(xlim=(0, 1), title=file.name)
        axes[1].tick_params(labelsize=8)
    save_figure(figure, path)


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    model, meta, path = load_model(args, device)
    (classify if args.files else test)(args, model, meta, path, device)


if __name__ == "__main__":
    main()
