"""Measures a trained detector on the test split, or draws what it finds on what you name (course 7-10).

    python test.py                                       # the newest run, or else the shipped weights
    python test.py --run runs/fcos-tiny-sample           # AP, table, curves, errors, speed; test.json, detections.json
    python test.py --weights weights/fcos-tiny.safetensors photo.jpg album/ clip.mp4     # draws boxes on them
    python test.py --camera 0 --frames 300               # and on what a camera sees

Only this script reads the test split, and it changes nothing by it: train.py picks the best epoch on validation data.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from mmengine import Config
from mmengine.dataset import Compose
from PIL import Image
from torch import nn
from tqdm import tqdm

import datasets
import evaluate
import models
import pictures
import train
import utils
import voc
from plugins import read_pixels
from utils import fail, say

WEIGHTS = Path(__file__).parent / "weights" / "fcos-tiny.safetensors"
VIDEO_TYPES = {".mp4", ".avi", ".mov", ".mkv", ".webm"}


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("files", nargs="*", help="pictures, folders of pictures, or videos, to find things on")
    parser.add_argument("--camera", type=int, metavar="N", help="the camera to look through, the first being 0")
    parser.add_argument("--frames", type=int, metavar="N", help="stop a video or a camera after N frames")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file; or, with --config, any .pth of mmdet")
    parser.add_argument(
        "--config", metavar="FILE", help="with --weights FILE.pth: the configuration that it belongs to"
    )
    parser.add_argument("--data", help="what to test on (default: the data the network was trained on)")
    parser.add_argument("--data-root", metavar="DIR", help="where data lies (default: as in the run, else data)")
    utils.add_mirror_flag(parser)
    what = "test, or the pictures that validated; what trained is never tested (default: %(default)s)"
    parser.add_argument("--part", choices=("test", "val"), default="test", help=what)
    parser.add_argument(
        "--score",
        type=utils.Number(float, 0, 1),
        default=0.3,
        help="boxes to draw and to call wrong (default: %(default)s)",
    )
    whole, share = utils.Number(int, 32), utils.Number(float, 0, 0.9)
    parser.add_argument(
        "--tiles", type=whole, metavar="N", help="look at large pictures in pieces of N pixels a side too"
    )
    parser.add_argument("--overlap", type=share, default=0.2, help="of neighbouring pieces (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", help="where results go (default: the run folder, or runs/test-ARCH)")
    parser.add_argument("--export", metavar="FILE", help="save the tested weights and their score as .safetensors")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    return parser.parse_args(argv)


# ---- the detector -----------------------------------------------------------------------------------------------------


def load_detector(args: argparse.Namespace) -> tuple[Config, dict, dict, Path]:
    """-> the configuration, the weights, what is known of them (arch, size, classes, data, root), and their file."""
    runs = sorted(Path("runs").glob("*/best.pth"), key=lambda path: path.stat().st_mtime)
    path = Path(args.weights) if args.weights else Path(args.run) / "best.pth" if args.run else (runs or [WEIGHTS])[-1]
    if path.suffix == ".safetensors":
        state, meta = utils.load_weights(path)
        needed = {"arch", "size", "classes", "data", "image_size"}
        if needed - meta.keys():
            fail(f"{path}: holds weights, but not of a run of this chapter ({', '.join(sorted(needed))} are needed)")
        options = {"image_size": meta["image_size"]}
        config = models.build(meta["arch"], meta["size"], meta["classes"], meta["data"], **options)
        return config, state, meta | {"root": "data"}, path
    if not (args.config or (path.parent / "config.py").is_file()):
        fail(f"{path}: no config.py beside it; name the configuration with --config FILE")
    config = train.read_config(args.config or str(path.parent / "config.py"))
    saved = utils.load_checkpoint(path)
    if not isinstance(saved, dict) or "state_dict" not in saved:
        fail(f"{path}: not a checkpoint of mmengine (there is no state_dict in it)")
    dataset = config.test_dataloader.dataset
    classes = dataset.get("metainfo", {}).get("classes") or saved.get("meta", {}).get("dataset_meta", {}).get("classes")
    if not classes:
        fail(f"{path}: neither it nor its configuration names the classes")
    recipe = read_recipe(path)
    meta = {"arch": recipe.get("arch") or config.model.type, "size": recipe.get("size"), "classes": list(classes)}
    return config, saved["state_dict"], meta | {"data": dataset.get("data"), "root": dataset.get("root", "data")}, path


def read_recipe(path: Path) -> dict:
    """What args.json beside a checkpoint says; nothing if there is none."""
    file = path.parent / "args.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def fill(network: nn.Module, state: dict, path: Path, device: torch.device) -> nn.Module:
    """Puts the weights into the network -> it, ready to detect."""
    try:
        network.load_state_dict(state)
    except RuntimeError:
        fail(f"{path}: the weights in it are not those of the {type(network).__name__} of its configuration")
    return network.to(device).eval()


def find(network: nn.Module, pipeline: Compose, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 BGR -> boxes (n, 4), scores (n,), labels (n,), the surest first."""
    ready = pipeline({"img": picture, "img_id": 0})
    with torch.no_grad():
        found = network.test_step({name: [value] for name, value in ready.items()})[0].pred_instances
    boxes, scores, labels = (found[name].cpu().numpy() for name in ("bboxes", "scores", "labels"))
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order], labels[order]


def make_pipeline(config: Config) -> Compose:
    """The test transforms, for pictures that are in memory already."""
    steps = models.test_steps(config)
    steps[0] = {"type": "mmdet.LoadImageFromNDArray", "to_float32": steps[0].get("to_float32", False)}
    return Compose(steps)


def draw(picture: np.ndarray, found: tuple, classes: list[str], score: float) -> Image.Image:
    """(H, W, 3) BGR and what was found in it -> the picture with the boxes of at least `score`."""
    boxes, scores, labels = (array[found[1] >= score] for array in found)
    words = [f"{classes[label]} {s:.2f}" for label, s in zip(labels, scores, strict=True)]
    image = Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    return voc.draw_boxes(image, boxes.tolist(), words, [voc.colour_of(int(label)) for label in labels])


# ---- large pictures, a piece at a time --------------------------------------------------------------------------------


def tiles_of(height: int, width: int, side: int, overlap: float) -> list[tuple[int, int, int, int]]:
    """-> left, top, right, bottom of the pieces that cover a picture; neighbours share at least `overlap` of a side."""

    def starts(length: int) -> list[int]:
        count = 1 + max(0, math.ceil((length - side) / (side * (1 - overlap))))
        return [round(i * (length - side) / max(1, count - 1)) if count > 1 else 0 for i in range(count)]

    return [(x, y, min(x + side, width), min(y + side, height)) for y in starts(height) for x in starts(width)]


def find_in_tiles(find_in, picture: np.ndarray, side: int, overlap: float) -> tuple:
    """What find_in(picture) finds in each tile and in the whole, each thing once -> boxes, scores, labels, the surest first."""
    height, width = picture.shape[:2]
    boxes, scores, labels = (list(part) for part in zip(find_in(picture), strict=True))
    cut = [np.zeros(len(scores[0]), bool)]
    tiles = tiles_of(height, width, side, overlap)
    for left, top, right, bottom in tiles if len(tiles) > 1 else []:
        found = find_in(np.ascontiguousarray(picture[top:bottom, left:right]))
        shifted = found[0] + np.array([left, top, left, top], found[0].dtype)
        inner = np.array([left > 0, top > 0, right < width, bottom < height])
        touches = np.abs(shifted - np.array([left, top, right, bottom])) < 2  # a thing may go on behind that edge
        for whole, part in zip(
            (boxes, scores, labels, cut), (shifted, *found[1:], (touches & inner).any(1)), strict=True
        ):
            whole.append(part)
    return once(*map(np.concatenate, (boxes, scores, labels, cut)))


def once(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, cut: np.ndarray) -> tuple:
    """Each thing once: of boxes of one class that overlap by half, the surest stays; of a box that a tile's edge cuts (`cut`)
    and that lies mostly in another one, the other."""
    kept: list[int] = []
    for i in np.lexsort((-scores, cut)):  # what is whole first
        others = boxes[[k for k in kept if labels[k] == labels[i]]].reshape(-1, 4)
        size = (np.minimum(boxes[i, 2:], others[:, 2:]) - np.maximum(boxes[i, :2], others[:, :2])).clip(0).prod(1)
        inside = size / max(1e-9, float((boxes[i, 2:] - boxes[i, :2]).prod()))
        same = evaluate.iou(boxes[i : i + 1], others)[0] > 0.5
        if not (same | (cut[i] & (inside > 0.7))).any():
            kept.append(int(i))
    kept.sort(key=lambda k: -scores[k])
    return boxes[kept], scores[kept], labels[kept]


# ---- the test split ---------------------------------------------------------------------------------------------------


def measure_speed(
    network: nn.Module, pipeline: Compose, annotations: list[voc.Annotation], device: torch.device
) -> dict:
    """Seconds a picture, one at a time, from pixels to boxes: the median of up to 30, after 3 to warm up."""
    pictures = [read_pixels(annotation.image) for annotation in annotations[:30]]
    seconds = []
    for picture in pictures[:3] + pictures:
        start = time.perf_counter()
        find(network, pipeline, picture)  # which ends with the boxes on the CPU, so the device is done
        seconds.append(time.perf_counter() - start)
    median = float(np.median(seconds[-len(pictures) :]))
    return {"seconds_a_picture": median, "pictures_per_second": 1 / median, "device": str(device)}


def draw_curves(annotations: list, detections: dict, classes: list[str], path: Path) -> None:
    """The precision-recall curve of each class, at an overlap of 0.5."""
    figure = utils.new_figure(8, 5, "".join(classes))
    axis = figure.subplots()
    for label, name in enumerate(classes):
        precision, recall, _, count = evaluate.precision_recall(annotations, detections, classes, label)
        if count:
            ap = evaluate.average_precision(precision, recall)
            words = f"{utils.cut(name, 24)} {ap:.3f}"
            axis.plot(recall, precision, label=words, color=[c / 255 for c in voc.colour_of(label)])
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Precision-recall, IoU 0.5 (AP)")
    axis.grid(alpha=0.3)
    if 0 < len(axis.lines) <= 40:  # more would cover the curves
        axis.legend(fontsize=8, ncols=2 if len(axis.lines) > 8 else 1, loc="lower left")
    utils.save_figure(figure, path)


def draw_confusion(counts: list[list[int]], classes: list[str], path: Path) -> None:
    """Rows the truth, columns what was said; numbers are written while they can be read."""
    shown, names = np.array(counts), [utils.cut(name, 16) for name in classes]
    size = min(24, 3 + 0.42 * len(shown))
    figure = utils.new_figure(size + 1, size, "".join(classes))
    axis = figure.subplots()
    axis.imshow(shown / shown.sum(1, keepdims=True).clip(1), cmap="Blues", vmin=0, vmax=1)
    places = range(len(shown))
    axis.set_xticks(places, [*names, "(missed)"], rotation=90, fontsize=8)
    axis.set_yticks(places, [*names, "(background)"], fontsize=8)
    axis.set(xlabel="said", ylabel="is", title="Of the things of each class, the shares")
    for (row, column), count in np.ndenumerate(shown):
        if count and len(shown) <= 30:
            axis.text(column, row, f"{count:,}", ha="center", va="center", fontsize=7)
    utils.save_figure(figure, path)


def draw_errors(wrong: list[evaluate.Mistake], classes: list[str], path: Path, each: int = 4) -> None:
    """The worst mistakes of each kind, a row a kind: the surest, or the largest things that were missed. In red what is wrong,
    in green what is there."""
    tiles = []
    for kind in (*evaluate.ERRORS, "missed"):
        ours = [mistake for mistake in wrong if mistake.kind == kind]
        ours.sort(key=lambda mistake: (-mistake.score, -float((mistake.box[2:] - mistake.box[:2]).prod())))
        for mistake in ours[:each]:
            things = mistake.annotation.things
            picture = voc.draw_boxes(pictures.read_picture(mistake.annotation.image), [thing.box for thing in things],
                                     [utils.cut(thing.name, 24) for thing in things], ["#00c000"] * len(things))  # fmt: skip
            words = f"{kind}: {utils.cut(classes[mistake.label], 24)}" + (
                f" {mistake.score:.2f}" if mistake.score else ""
            )
            tiles.append(voc.draw_boxes(picture, [mistake.box.tolist()], [words], ["#ff4040"]))
        tiles += [None] * (-len(tiles) % each if ours else 0)
    if tiles:
        blank = Image.new("RGB", (8, 8), "white")
        voc.save_picture(voc.contact_sheet([tile or blank for tile in tiles], each), path)


def detect_in_tiles(args: argparse.Namespace, network: nn.Module, pipeline: Compose, annotations: list) -> dict:
    detect = detector(args, network, pipeline)
    return {a.id: detect(read_pixels(a.image)) for a in tqdm(annotations, desc="testing", disable=None, leave=False)}


def detector(args: argparse.Namespace, network: nn.Module, pipeline: Compose):
    """-> a function from a picture (H, W, 3) BGR to what is on it, in one go or, with --tiles, a piece at a time."""

    def detect(picture: np.ndarray) -> tuple:
        return find(network, pipeline, picture)

    return detect if not args.tiles else lambda picture: find_in_tiles(detect, picture, args.tiles, args.overlap)


def test(args: argparse.Namespace, config: Config, state: dict, meta: dict, path: Path, device: torch.device) -> None:
    """Runs the test split through mmengine's Runner, measures what was found, and writes it down."""
    data, root = load_data(args, meta, path)
    parts, ids = held_out(args, data, path)
    annotations = list(data.annotations(parts, only=ids))
    models.set_part(config, "test", data.name, root, parts, data.classes, only=ids)
    models.set_runtime(config, 0)
    out = output_folder(args, meta, path)
    runner = train.make_runner(config, out, device)
    network = fill(runner.model, state, path, device)
    start = time.perf_counter()
    if args.tiles:
        detections = detect_in_tiles(args, network, make_pipeline(config), annotations)
    else:
        runner.test()
        detections = runner.test_evaluator.metrics[0].detections
    seconds = time.perf_counter() - start

    about = {"arch": meta["arch"], "size": meta["size"], "trained_on": meta["data"], "tested_on": data.name}
    result = about | {"part": args.part, "weights": str(path), "tiles": args.tiles, "torch": torch.__version__}
    result |= evaluate.figures(annotations, detections, data.classes, args.score)
    result["speed"] = measure_speed(network, make_pipeline(config), annotations, device)
    evaluate.print_figures(result)
    names = draw_results(annotations, detections, data.classes, result, out)
    rows = evaluate.to_coco_results(annotations, detections)
    utils.write_atomic(out / "detections.json", json.dumps(rows))
    utils.write_atomic(out / "test.json", json.dumps(result, indent=1))
    say(
        f"{meta['arch']}, trained on {meta['data']}: mAP50 {result['mAP50_area']:.4f}, COCO AP {result['coco']['AP']:.4f} "
        f"on {args.part} of {data.name} ({len(annotations):,} pictures, {seconds:.1f} s on {device}; one at a time "
        f"{result['speed']['pictures_per_second']:.1f} a second)"
    )
    say(f"wrote {out}: test.json, detections.json, {', '.join(names)}")
    if args.export:
        export(args, config, network, meta, path, result)


def load_data(args: argparse.Namespace, meta: dict, path: Path) -> tuple[datasets.Data, str]:
    """-> the data to test on, with the classes that the network knows, and its root."""
    name, root = args.data or meta["data"], args.data_root or meta["root"]
    if not name:
        fail(f"{path}: its configuration does not say what to test on; use --data")
    data = datasets.load(name, root)
    if not set(meta["classes"]) <= set(data.classes):
        fail(f"{path} knows the classes {', '.join(meta['classes'])}; {data.name} has {', '.join(data.classes)}")
    data = data.of(meta["classes"])
    if data.others:
        say(f"{path} was not trained on {utils.shortened(list(data.others))}: things of these classes are left out")
    return data, root


def draw_results(annotations: list, detections: dict, classes: tuple[str, ...], result: dict, out: Path) -> list[str]:
    """Curves, confusion matrix, the first pictures and the worst mistakes -> the names of the files."""
    score = result["errors"]["score"]
    draw_curves(annotations, detections, classes, out / "pr_curves.png")
    draw_confusion(result["confusion"], classes, out / "confusion.png")
    shown = [(read_pixels(a.image), evaluate.detected(detections, a.id)) for a in annotations[:12]]
    drawn = [draw(picture, found, classes, score) for picture, found in shown]
    voc.save_picture(voc.contact_sheet(drawn), out / "detections.jpg")
    _, wrong = evaluate.find_mistakes(annotations, detections, classes, score)
    draw_errors(wrong, classes, out / "errors.jpg")
    return ["pr_curves.png", "confusion.png", "detections.jpg", *["errors.jpg"][: len(wrong)]]


def held_out(args: argparse.Namespace, data: datasets.Data, path: Path) -> tuple[str, list[str] | None]:
    """-> the part or parts to look in, and the IDs of the pictures there that did not train, as split.json beside the weights
    says; None: all of them."""
    file, items = path.parent / "split.json", data.part(args.part)
    if not file.exists():  # shared weights: what trained is not known
        return args.part, None
    split = utils.read_json(file)
    same = args.data is None or Path(args.data).resolve() == Path(split["data"]).resolve()
    parts = "+".join(data.parts) if same else args.part
    everything = data.part(parts)
    if args.part == "val" and same:
        chosen = split["val"].keys()
    else:
        chosen = utils.held_out(split, datasets.samples_of(everything), set(datasets.samples_of(items)), same_data=same)
    ids = [image_id for folder, image_id in everything if datasets.mark_of(folder, image_id) in chosen]
    if not ids:
        fail(f"no picture of {args.part} of {data.name} is left that did not train")
    return parts, ids


def output_folder(args: argparse.Namespace, meta: dict, path: Path) -> Path:
    default = path.parent if path.name == "best.pth" else Path("runs") / f"test-{meta['arch']}"
    out = Path(args.out) if args.out else default
    out.mkdir(parents=True, exist_ok=True)
    return out


def unshared(network: nn.Module) -> SimpleNamespace:
    """The network's weights, each with memory of its own: RTMDet's levels share some, which safetensors refuses to save."""
    return SimpleNamespace(state_dict=lambda: {name: value.clone() for name, value in network.state_dict().items()})


def export(args, config: Config, network: nn.Module, meta: dict, path: Path, result: dict) -> None:
    """Saves the weights to share, with how they were made and what they score."""
    recipe = read_recipe(path)
    if meta["arch"] not in models.FILES or not recipe or recipe["config"]:
        fail("--export: only what train.py made with --arch can be built again from its name")
    command = utils.command_of(recipe, train.parse([]))
    side = next((step["scale"][0] for step in models.test_steps(config) if step["type"] == "Resize"), None)
    score = {key: result[key] for key in ("mAP50_area", "mAP50_11points", "tested_on", "part", "torch")}
    score["AP"] = result["coco"]["AP"]
    about = {key: meta[key] for key in ("arch", "size", "classes", "data")} | {"image_size": side}
    utils.save_weights(args.export, unshared(network), **about, command=command, score=score)
    say(f"wrote {args.export}: {Path(args.export).stat().st_size / 1e6:.1f} MB")


# ---- your pictures, videos, camera ------------------------------------------------------------------------------------


def find_files(names: list[str]) -> list[Path]:
    files = []
    for path in map(Path, names):
        if not path.exists():
            fail(f"{path}: no such file or folder")
        if path.is_dir():
            found = pictures.list_pictures(path, deep=True)
            if not found:
                fail(f"{path}: no pictures in this folder")
        files += found if path.is_dir() else [path]
    return files


def read_frames(source: Path | int, count: int | None) -> Iterator[tuple[np.ndarray, float]]:
    """-> the frames of a video or a camera, each with the frames a second that the source states."""
    capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    if not capture.isOpened():
        camera = isinstance(source, int)
        raise OSError(f"camera {source}: cannot be opened" if camera else f"{source}: not a video that can be read")
    rate, seen = capture.get(cv2.CAP_PROP_FPS) or 25.0, 0
    try:
        while seen != count:
            there, frame = capture.read()
            if not there:
                return
            seen += 1
            yield frame, rate
    finally:
        capture.release()


def watch(source: Path | int, detect, classes: list[str], args: argparse.Namespace, target: Path) -> list[list[dict]]:
    """Draws the boxes on each frame into the new video `target` -> what was found, a list a frame. Ctrl-C ends it properly."""
    writer, rows = None, []
    try:
        for frame, rate in tqdm(read_frames(source, args.frames), unit="frame", disable=None):
            found = detect(frame)
            rows.append(to_rows(found, classes, args.score))
            drawn = cv2.cvtColor(np.asarray(draw(frame, found, classes, args.score)), cv2.COLOR_RGB2BGR)
            size = frame.shape[1], frame.shape[0]
            writer = writer or cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
            writer.write(drawn)
    except KeyboardInterrupt:
        print("stopped")
    finally:
        if writer:
            writer.release()
    if not rows:
        raise OSError(f"{source}: no frame in it")
    say(f"{source}: {len(rows)} frames, {sum(map(len, rows))} boxes; wrote {target}")
    return rows


def to_rows(found: tuple, classes: list[str], score: float) -> list[dict]:
    return [
        {"class": classes[label], "score": round(float(s), 4), "box": [round(float(v), 1) for v in box]}
        for box, s, label in zip(*found, strict=True)
        if s >= score
    ]


def predict(
    args: argparse.Namespace, config: Config, state: dict, meta: dict, path: Path, device: torch.device
) -> None:
    """Draws and lists what is found on every file named. Exit status 1 if one could not be read."""
    network = fill(models.make_network(config), state, path, device)
    pipeline, classes = make_pipeline(config), meta["classes"]
    out = output_folder(args, meta, path) / "predictions"
    out.mkdir(exist_ok=True)

    detect, results, bad = detector(args, network, pipeline), {}, []
    files = find_files(args.files)
    for file in files:
        try:
            if file.suffix.lower() in VIDEO_TYPES:
                target = out / f"{len(results) + 1:04d}-{file.stem}-detections.mp4"
                results[str(file)] = watch(file, detect, classes, args, target)
                continue
            picture = read_pixels(file)
        except OSError as error:
            bad.append(file)
            print(error if str(file) in str(error) else f"{file}: not a picture that can be read ({error})")
            continue
        found = detect(picture)
        rows = results[str(file)] = to_rows(found, classes, args.score)
        print(f"{file}: " + (", ".join(f"{row['class']} {row['score']:.2f}" for row in rows) or "nothing"))
        voc.save_picture(draw(picture, found, classes, args.score), out / f"{len(results):04d}-{file.stem}.jpg")
    if args.camera is not None:
        try:
            target = out / f"camera{args.camera}-detections.mp4"
            results[f"camera {args.camera}"] = watch(args.camera, detect, classes, args, target)
        except OSError as error:
            fail(error)
    utils.write_atomic(out / "predictions.json", json.dumps(results, indent=1))
    say(f"wrote {out}: predictions.json, and what was looked at with its boxes")
    if bad:
        fail(f"{len(bad)} of {len(files)} files could not be read, the first being {bad[0]}")


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    looks = args.files or args.camera is not None
    (predict if looks else test)(args, *load_detector(args), device)


if __name__ == "__main__":
    utils.start(main)
