"""Measures a trained network on the test split, or finds the objects on the pictures you name.

    python test.py                                            # the newest run, or else the shipped weights
    python test.py --run runs/mini-sample                     # COCO's AP, mIoU, PQ; pictures; test.json
    python test.py --weights coco --data coco                 # the engine's own COCO weights on val2017
    python test.py --weights weights/mini.safetensors photo.jpg folder/   # annotated pictures and predictions.json

Only this script reads the test split, and it changes nothing by it: train.py picks the best epoch on validation data.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import datasets
import draw
import evaluate
import options
import utils
from pictures import list_pictures
from tiles import in_tiles
from train import pick_engine
from utils import fail, say

WEIGHTS = Path(__file__).parent / "weights" / "mini.safetensors"
NEEDED = {"engine", "arch", "categories", "data", "mean", "std", "min_size", "max_size", "frozen"}


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("files", nargs="*", help="pictures, or folders of pictures, to search instead of testing")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file, or coco: the engine's own COCO weights")
    parser.add_argument("--engine", choices=("auto", *options.ENGINES), default="auto", help="for --weights coco")
    parser.add_argument("--data", help="what to test on (default: the data the network was trained on)")
    parser.add_argument("--data-root", metavar="DIR", help="where coco/ lies (default: the run's, or data)")
    parser.add_argument("--out", metavar="DIR", help="where results go (default: the run folder, or runs/test-ARCH)")
    whole, share = utils.Number(int, 32), utils.Number(float, 0, 0.9)
    parser.add_argument(
        "--tiles", type=whole, metavar="N", help="look at large pictures in pieces of N pixels a side too"
    )
    parser.add_argument("--overlap", type=share, default=0.2, help="of neighbouring pieces (default: %(default)s)")
    parser.add_argument(
        "--score",
        type=utils.Number(float, 0, 1),
        default=evaluate.SURE,
        help="least score on pictures and maps (%(default)s)",
    )
    parser.add_argument("--export", metavar="FILE", help="save the tested weights and their score as .safetensors")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    return parser.parse_args(argv)


def read_weights(args: argparse.Namespace) -> tuple[dict, dict, Path]:
    """-> weights, what their file says of the network, and the file."""
    if args.weights == "coco":
        name, engine = pick_engine(args.engine)
        state = engine.coco_state()
        if state is None:
            fail(f"--weights coco: the COCO weights of {name} cannot be had here")
        return state, engine.coco_meta(), Path(f"coco-{name}")
    runs = sorted(Path("runs").glob("*/best.pt"), key=lambda path: path.stat().st_mtime)
    path = Path(args.weights) if args.weights else Path(args.run) / "best.pt" if args.run else (runs or [WEIGHTS])[-1]
    if path.suffix == ".safetensors":
        state, meta = utils.load_weights(path)
    else:
        saved = utils.load_checkpoint(path)
        state, meta = (saved.get("model"), saved.get("meta")) if isinstance(saved, dict) else (None, None)
    if not isinstance(state, dict) or not isinstance(meta, dict) or NEEDED - meta.keys():
        fail(f"{path}: holds weights, but not of a run of this chapter ({', '.join(sorted(NEEDED))} are needed)")
    return state, meta, path


def saved_arguments(path: Path) -> dict:
    """The arguments of the run that a checkpoint lies in; of shared weights, none."""
    arguments = path.parent / "args.json"
    return json.loads(arguments.read_text("utf-8")) if path.suffix == ".pt" and arguments.exists() else {}


def output_folder(args: argparse.Namespace, meta: dict, path: Path) -> Path:
    default = path.parent if path.suffix == ".pt" else Path("runs") / f"test-{meta['arch']}-{meta['engine']}"
    out = Path(args.out) if args.out else default
    out.mkdir(parents=True, exist_ok=True)
    return out


# ---- the test split ---------------------------------------------------------------------------------------------------


def load_test_split(args: argparse.Namespace, meta: dict, path: Path) -> datasets.Data:
    """The test split of the data the network was trained on, or of --data; its categories must be the network's."""
    saved, subset = saved_arguments(path), meta.get("subset", {}) if not args.data else {}
    root = args.data_root or saved.get("data_root", "data")
    name = args.data or saved.get("data", meta["data"])
    limit = subset.get("limit") if name == "coco" else None
    split = utils.read_json(path.parent / "split.json") if (path.parent / "split.json").exists() else {}
    same = "test" in split and (args.data is None or Path(args.data).resolve() == Path(split["data"]).resolve())
    parts = ("train", "val", "test") if same else ("test",)
    data = datasets.load(name, root, parts, subset.get("categories"), limit)
    known = {(category["id"], category["name"]) for category in meta["categories"]}
    if strange := [c["name"] for c in data.categories if (c["id"], c["name"]) not in known]:
        fail(f"{path} does not know {', '.join(strange[:5])} of {data.name} (or under another id)")
    if split:
        data.splits["test"] = held_out(data, split, same)
    return data


def held_out(data: datasets.Data, split: dict, same: bool) -> datasets.Split:
    """-> the pictures that did not train, as the run's split.json says: see utils.held_out."""
    test, everything = data.splits["test"], data.splits["test"]
    ids = [image["id"] for part in data.splits.values() for image in part.images]
    if len({str(part.folder) for part in data.splits.values()}) == 1 and len(set(ids)) == len(ids):  # parts of one file
        images = [image for part in data.splits.values() for image in part.images]
        objects = {key: rows for part in data.splits.values() for key, rows in part.objects.items()}
        everything = datasets.Split(test.folder, images, objects)
    samples = {mark: name for part in data.splits.values() for mark, name in part.samples().items()}
    chosen = utils.held_out(split, samples, set(test.samples()), same_data=same)
    images = [image for image in everything.images if everything.mark(image) in chosen]
    if not images:
        fail(f"no picture of the test part of {data.name} is left that did not train")
    return everything.take(images)


def test(args: argparse.Namespace, predict: Callable, meta: dict, path: Path, device: torch.device) -> dict:
    data = load_test_split(args, meta, path)
    split, out = data.splits["test"], output_folder(args, meta, path)
    start = time.perf_counter()
    results = evaluate.collect(predict, split, meta["categories"])
    seconds = time.perf_counter() - start
    truth = split.truth(data.categories)
    figures, evaluation = evaluate.measure(truth, results, args.score)
    about = {name: meta[name] for name in ("engine", "arch")} | {"trained_on": meta["data"], "tested_on": data.name}
    result = about | {"weights": str(path), "tiles": args.tiles, "torch": torch.__version__} | figures

    evaluate.print_table(result)
    utils.write_atomic(out / "predictions.json", json.dumps(results))
    utils.write_atomic(out / "truth.json", json.dumps(truth))
    utils.write_atomic(out / "test.json", json.dumps(result, indent=1))
    draw_scenes(split, results, data.categories, args.score, out / "scenes.png")
    draw.draw_precision_recall(evaluation, data.categories, out / "precision_recall.png")
    draw.draw_confusion(result["confusion"], data.categories, out / "confusion.png")
    wrong = evaluate.find_mistakes(truth, results, args.score)
    draw_errors(split, wrong, data.categories, out / "errors.jpg")
    say(
        f"{meta['arch']} ({meta['engine']}), trained on {meta['data']}: mask AP {evaluate.show(result['mask']['AP'], 0)}, AP50 "
        f"{evaluate.show(result['mask']['AP50'], 0)} on {data.name} ({len(split):,} pictures, {seconds:.1f} s on {device})"
    )
    names = "predictions.json, truth.json, test.json, scenes.png, precision_recall.png, confusion.png"
    say(f"wrote {out}: {names}{', errors.jpg' if wrong else ''}")
    return result


def draw_scenes(split: datasets.Split, results: list[dict], categories: list[dict], sure: float, path: Path) -> None:
    """The first pictures that have objects: as annotated, and to its right as predicted."""
    pictures = []
    for image in [image for image in split.images if split.objects[image["id"]]][:8]:
        try:
            picture = datasets.read_scene(split, image)
        except OSError:  # it was named when it was to be predicted
            continue
        found = [row for row in results if row["image_id"] == image["id"] and row["score"] >= sure]
        pictures.append(draw.annotate(picture, split.objects[image["id"]], categories, "annotated"))
        pictures.append(draw.annotate(picture, found, categories, "predicted"))
    if pictures:
        draw.save(draw.sheet(pictures, columns=4), path)


def draw_errors(split: datasets.Split, wrong: list, categories: list[dict], path: Path, each: int = 4) -> None:
    """The worst mistakes of each kind, a row a kind: the surest, or the largest objects that were missed."""
    tiles = []
    for kind in evaluate.ERRORS:
        ours = [(image, row) for k, image, row in wrong if k == kind]
        ours.sort(key=lambda pair: (-pair[1].get("score", 0), -pair[1]["bbox"][2] * pair[1]["bbox"][3]))
        row_of_tiles = []
        for image, row in ours[:each]:
            try:
                picture = datasets.read_scene(split, image)
            except OSError:  # it was named when it was to be predicted
                continue
            row_of_tiles.append(draw.annotate(picture, [row], categories, f"{kind}: {image['file_name']}"))
        blank = np.full((8, 8, 3), 255, np.uint8)
        tiles += row_of_tiles + [blank] * (-len(row_of_tiles) % each)
    if tiles:
        draw.save(draw.sheet(tiles, columns=each), path)


def export(args: argparse.Namespace, state: dict, meta: dict, path: Path, result: dict) -> None:
    """Saves the weights to share, with how they were made and what they score."""
    command = utils.command_of(utils.read_arguments(path.parent), options.parse("", []))
    score = {"mask_AP": result["mask"]["AP"], "mask_AP50": result["mask"]["AP50"], "box_AP": result["box"]["AP"]}
    score |= {name: result[name] for name in ("tested_on", "torch")}
    model = torch.nn.Module()
    model.state_dict = lambda: state
    utils.save_weights(args.export, model, **meta, command=command, score=score)
    say(f"wrote {args.export}: {Path(args.export).stat().st_size / 1e6:.1f} MB")


# ---- your pictures ----------------------------------------------------------------------------------------------------


def find_pictures(names: list[str]) -> list[Path]:
    files = []
    for path in map(Path, names):
        if not path.exists():
            fail(f"{path}: no such file or folder")
        found = list_pictures(path, deep=True) if path.is_dir() else [path]
        if not found:
            fail(f"{path}: no pictures in this folder")
        files += found
    return files


def search(args: argparse.Namespace, predict: Callable, meta: dict, path: Path) -> None:
    """Writes each picture with what was found on it, and all of it as COCO results. Exit status 1 if one cannot be read."""
    files, results, bad = find_pictures(args.files), [], []
    out = output_folder(args, meta, path) / "predictions"
    out.mkdir(exist_ok=True)
    for number, file in enumerate(files, 1):
        try:
            picture = datasets.read_image(file)
        except OSError:
            bad.append(file)
            say(f"{file}: not a picture that can be read")
            continue
        rows = evaluate.to_results(predict([picture])[0], number, meta["categories"])
        results += [row | {"file_name": str(file)} for row in rows]
        sure = [row for row in rows if row["score"] >= args.score]
        names = {category["id"]: category["name"] for category in meta["categories"]}
        print(f"{file}: " + (", ".join(f"{names[r['category_id']]} {r['score']:.2f}" for r in sure) or "nothing"))
        draw.save(draw.annotate(picture, sure, meta["categories"]), out / f"{number:04d}-{file.stem}.png")
    utils.write_atomic(out / "predictions.json", json.dumps(results))
    say(f"wrote {out}: {len(files) - len(bad)} pictures, predictions.json")
    if bad:
        fail(f"{len(bad)} of {len(files)} files could not be read, the first being {bad[0]}")


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    state, meta, path = read_weights(args)
    if args.engine not in ("auto", meta["engine"]):
        fail(f"{path}: trained with {meta['engine']}, whose weights {args.engine} cannot use")
    _, engine = pick_engine(meta["engine"])
    predict = engine.make_predictor(meta, state, device, str(path))
    if args.tiles:
        predict = in_tiles(predict, args.tiles, args.overlap)
    if args.files:
        search(args, predict, meta, path)
    else:
        result = test(args, predict, meta, path, device)
        if args.export:
            export(args, state, meta, path, result)


if __name__ == "__main__":
    utils.start(main)
