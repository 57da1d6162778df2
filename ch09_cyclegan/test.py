"""Translates pictures with a trained network: the files you name, or the whole test split, with figures.

    python test.py                                  # the newest run, or else the shipped weights, on the test split
    python test.py --run runs/cyclegan-resnet3-sample
    python test.py photo.jpg folder --direction BtoA --out translated

Files keep their names and may have any size. The test split gives test.json: the cycle error, FID and KID where Inception's
weights are at hand, and on the sample what a judge of colours calls the results. Only this script reads the test split.
"""

import argparse
import http.client
import json
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
from torchmetrics.image.kid import KernelInceptionDistance
from torchvision.utils import make_grid

import datasets
import models
import sample
import utils
from gans import noise
from utils import fail

WEIGHTS = Path(__file__).parent / "weights" / "resnet3.safetensors"  # trained on the drawn sample
DIRECTIONS = {"AtoB": "g_ab", "BtoA": "g_ba"}
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # its SHA-256 begins with 6726825d
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="pictures, or folders of pictures, to translate instead of testing")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file")
    parser.add_argument("--direction", choices=DIRECTIONS, help="default: AtoB for files, both for the test split")
    parser.add_argument("--data", help="what to test on (default: the data the network was trained on)")
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where the sets lie (default: %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="use only N test pictures of each domain")
    parser.add_argument("--out", metavar="DIR", help="where results go (default: translated; a test: the run folder)")
    parser.add_argument(
        "--max-side", type=int, default=1024, metavar="N", help="shrink larger files (default: %(default)s)"
    )
    parser.add_argument("--fid", action="store_true", help="download Inception's weights (95 MB) for FID and KID")
    parser.add_argument("--export", metavar="FILE", help="save the tested generators, in half precision, to share")
    parser.add_argument("--workers", type=int, default=0, help="processes that read files (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    return parser.parse_args(argv)


def load_generators(args: argparse.Namespace, device: torch.device) -> tuple[nn.ModuleDict, dict, Path]:
    """-> the generators by name in eval mode, what their file says of them, and the file."""
    runs = sorted(Path("runs").glob("*/best.pt"), key=lambda path: path.stat().st_mtime)
    path = Path(args.weights) if args.weights else Path(args.run) / "best.pt" if args.run else (runs or [WEIGHTS])[-1]
    if path.suffix == ".safetensors":
        state, meta = utils.load_weights(path)
    else:
        saved = utils.load_checkpoint(path)
        state, meta = (saved.get("model"), saved.get("meta")) if isinstance(saved, dict) else (None, None)
    needed = {"mode", "arch", "width", "upsample", "image_size", "data"}
    if not isinstance(state, dict) or not isinstance(meta, dict) or needed - meta.keys():
        fail(f"{path}: holds weights, but not of a run of this chapter ({', '.join(sorted(needed))} are needed)")
    names = sorted({key.split(".")[0] for key in state})
    shape = (meta["arch"], meta["image_size"], meta["width"], meta["upsample"])
    generators = nn.ModuleDict({name: models.build(*shape) for name in names})
    try:
        generators.load_state_dict(state)
    except RuntimeError:
        fail(f"{path}: says {meta['arch']} of width {meta['width']}, but the weights in it are of another network")
    if args.export:
        generators.half().float()  # so that what is measured is what is saved
    return generators.to(device, memory_format=torch.channels_last).eval(), meta, path


@torch.inference_mode()
def translate(generator: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    """(N, 3, H, W) uint8 of any size -> the same shape. Padded to what the network can halve and double, and cropped back."""
    height, width = pixels.shape[-2:]
    multiple = max(generator.multiple, 16)
    padding = (0, -width % multiple, 0, -height % multiple)
    x = F.pad(datasets.to_network(pixels.to(device)), padding, mode="replicate")
    try:
        return datasets.to_pixels(generator(x)[..., :height, :width])
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        fail(f"no memory for a picture of {width} x {height} pixels; try a smaller --max-side")


def in_batches(generator: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    return torch.cat([translate(generator, batch, device) for batch in pixels.split(16)])


def pick_directions(args: argparse.Namespace, generators: nn.ModuleDict, default: list[str]) -> list[str]:
    there = [direction for direction, name in DIRECTIONS.items() if name in generators]
    wanted = [args.direction] if args.direction else [direction for direction in default if direction in there]
    if not wanted or wanted[0] not in there:
        fail(f"--direction {args.direction}: this network translates {' and '.join(there) or 'no pictures'} only")
    return wanted


# ---- the test split ---------------------------------------------------------------------------------------------------


def load_inception(args: argparse.Namespace) -> nn.Module | None:
    """-> Inception-v3 with the weights that FID and KID are defined by, or None (and says so) where they are not at hand."""
    places = [Path(args.data_root) / INCEPTION, Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION]
    path = next((place for place in places if place.exists()), None)
    if path is None and args.fid:
        path, part = places[0], places[0].with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.fetch(INCEPTION_URL, part)
            part.replace(path)
        except (OSError, http.client.HTTPException) as error:
            part.unlink(missing_ok=True)
            fail(f"could not download {INCEPTION_URL} ({error}); put {INCEPTION} into {path.parent} by hand")
    if path is None:
        print(f"FID and KID: not computed, since {INCEPTION} is not in {places[0].parent} (--fid downloads it)")
        return None
    if not datasets.hash_of(path).startswith("6726825d"):
        fail(f"{path}: damaged (its SHA-256 does not begin with 6726825d); delete it")
    utils.load_checkpoint(path)  # refuses a file with anything but tensors in it, before the library opens it
    return NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))


def distances(inception: nn.Module, real: Tensor, fake: Tensor, device: torch.device) -> dict[str, float]:
    """FID (Heusel et al. 2017) and KID (Binkowski et al. 2018) between two heaps of (N, 3, S, S) uint8 pictures.

    Both compare Inception's features; FID as two Gaussians, which with few pictures comes out too high; KID without that bias.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it keeps all features in memory: a few MB
        kid = KernelInceptionDistance(inception, subsets=50, subset_size=min(100, len(real), len(fake))).to(device)
    fid = FrechetInceptionDistance(inception).to(device)
    torch.manual_seed(0)  # KID draws its subsets at random
    for metric in (fid, kid):
        for pictures, is_real in ((real, True), (fake, False)):
            for batch in pictures.split(32):
                metric.update(batch.to(device), real=is_real)
    mean, spread = kid.compute()
    return {"fid": float(fid.compute()), "kid": float(mean), "kid_std": float(spread)}


def measure(direction: str, generators: nn.ModuleDict, data: datasets.Data, meta: dict, inception, device) -> tuple:
    """-> figures of one direction, and what to show: the source, its translation, and that translated back."""
    source, target = (data.a, data.b) if direction == "AtoB" else (data.b, data.a)
    back_name = DIRECTIONS["BtoA" if direction == "AtoB" else "AtoB"]
    fake = in_batches(generators[DIRECTIONS[direction]], source, device)
    result, rows = {"pictures": len(source)}, [source, fake]
    if back_name in generators:
        back = in_batches(generators[back_name], fake, device)
        result["cycle_error"] = float((back.float() - source.float()).abs().mean() / 255)
        rows.append(back)
    if meta["mode"] == "pix2pix":
        result["pair_error"] = float((fake.float() - target.float()).abs().mean() / 255)
        rows.append(target)
    elif data.name == "sample":
        wanted = 1 if direction == "AtoB" else 0
        result[f"called_{sample.KINDS[wanted]}"] = float((sample.judge(fake) == wanted).float().mean())
    if inception:
        result |= distances(inception, target, fake, device)
    return result, rows


def test(args: argparse.Namespace, generators: nn.ModuleDict, meta: dict, path: Path, device: torch.device) -> None:
    directions = pick_directions(args, generators, list(DIRECTIONS))
    source = args.data or source_of(meta, path)
    data = datasets.load(source, args.data_root, "test", meta["mode"], meta["image_size"], args.limit, args.workers)
    out = Path(args.out) if args.out else path.parent if path.suffix == ".pt" else Path("runs") / f"test-{path.stem}"
    about = {"mode": meta["mode"], "arch": meta["arch"], "trained_on": meta["data"], "tested_on": data.name}
    result = about | {"weights": str(path), "torch": torch.__version__}
    inception = load_inception(args)
    for direction in directions:
        start = time.perf_counter()
        result[direction], rows = measure(direction, generators, data, meta, inception, device)
        names = data.names_a if direction == "AtoB" else data.names_b
        for name, picture in zip(names, rows[1], strict=True):
            save_picture(picture, out / direction / name)
        save_grid([row[:8] for row in rows], out / f"{direction}.png")
        figures = ", ".join(f"{name} {value:.4g}" for name, value in result[direction].items())
        print(f"{direction}, trained on {meta['data']}, tested on {data.name}: {figures}", end="")
        print(f" ({time.perf_counter() - start:.1f} s on {device})")
    utils.write_atomic(out / "test.json", json.dumps(result, indent=1))
    print(f"wrote {out}: test.json, " + ", ".join(f"{d}.png, {d}/" for d in directions))
    if args.export:
        export(args, generators, meta, path, {d: result[d] for d in directions})


def source_of(meta: dict, path: Path) -> str:
    """The --data that the run was trained with; for shared weights, the name of their data."""
    arguments = path.parent / "args.json"
    return json.loads(arguments.read_text("utf-8"))["data"] if arguments.exists() else meta["data"]


def export(args: argparse.Namespace, generators: nn.ModuleDict, meta: dict, path: Path, score: dict) -> None:
    """Saves the generators to share, with how they were made and what they score."""
    if not (path.parent / "args.json").exists():
        fail(f"--export: {path} is in no run folder, so nothing says how it was trained")
    recipe = json.loads((path.parent / "args.json").read_text("utf-8"))
    names = ["arch", "width", "patch", "upsample", "image_size", "epochs", "batch_size", "lr", "seed", "precision"]
    flags = " ".join(f"--{name.replace('_', '-')} {recipe[name]}" for name in names)
    command = f"python train.py --data {meta['data']} --mode {meta['mode']} {flags}"
    utils.save_weights(args.export, generators.half(), **meta, command=command, score=score, torch=torch.__version__)
    print(f"wrote {args.export}: {Path(args.export).stat().st_size / 1e6:.1f} MB")


def save_picture(pixels: Tensor, path: Path) -> None:
    """(3, H, W) uint8 -> a file, of the type that its name says."""
    quality = {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path, **quality)
    except (OSError, ValueError) as error:  # ValueError: a type that Pillow does not write
        fail(f"cannot write {path}: {getattr(error, 'strerror', None) or error}")


def save_grid(rows: list[Tensor], path: Path) -> None:
    """Rows of (n, 3, S, S) uint8 pictures, one below the other."""
    save_picture(make_grid(torch.cat(rows), nrow=len(rows[0]), padding=2, pad_value=255), path)


# ---- your pictures, and pictures out of noise -------------------------------------------------------------------------


def find_pictures(names: list[str]) -> list[tuple[Path, Path]]:
    """-> (file, its name below the folder that was named) of each picture."""
    files = []
    for path in map(Path, names):
        if not path.exists():
            fail(f"{path}: no such file or folder")
        found = [(path, Path(path.name))]
        if path.is_dir():
            types = datasets.IMAGE_TYPES
            found = [(p, p.relative_to(path)) for p in sorted(path.rglob("*")) if p.suffix.lower() in types]
        files += found or fail(f"{path}: no pictures in this folder")
    return files


def translate_files(args, generators: nn.ModuleDict, meta: dict, path: Path, device: torch.device) -> None:
    """Writes each translated picture under its own name below --out. Exit status 1 if one could not be read."""
    direction = pick_directions(args, generators, ["AtoB"])[0]
    out, files, shown, bad = Path(args.out or "translated"), find_pictures(args.files), [], []
    print(f"{direction} by {path} ({meta['arch']}, trained on {meta['data']})")
    for file, name in files:
        if (out / name).resolve() == file.resolve():
            fail(f"{file}: would be overwritten; choose another --out")
        try:
            picture = datasets.open_rgb(file)
        except OSError:
            bad.append(file)
            print(f"{file}: not a picture that can be read")
            continue
        before = picture.size
        picture.thumbnail((args.max_side, args.max_side), Image.BICUBIC)
        pixels = datasets.pixels_of(picture)
        result = translate(generators[DIRECTIONS[direction]], pixels[None], device)[0]
        save_picture(result, out / name)
        shrunk = f" (shrunk from {before[0]} x {before[1]}; --max-side)" if picture.size != before else ""
        print(f"{file} -> {out / name}, {picture.width} x {picture.height}{shrunk}")
        if len(shown) < 8:
            both = (picture, Image.fromarray(result.permute(1, 2, 0).numpy()))
            shown.append([datasets.pixels_of(datasets.squared(p, 128)) for p in both])
    if shown:
        save_grid([torch.stack(row) for row in zip(*shown, strict=True)], out / "grid.png")
    if bad:
        fail(f"{len(bad)} of {len(files)} files could not be read, the first being {bad[0]}")


@torch.inference_mode()
def draw_from_noise(args, generators: nn.ModuleDict, meta: dict, path: Path, device: torch.device) -> None:
    """DCGAN: 64 pictures out of noise, which has no test split."""
    if args.files:
        fail(f"{path} is a DCGAN: it makes pictures out of noise and translates none")
    out = Path(args.out) if args.out else path.parent
    torch.manual_seed(0)
    pictures = datasets.to_pixels(generators["g"](noise(64, device)))
    save_grid(list(pictures.split(8)), out / "from_noise.png")
    print(f"wrote {out / 'from_noise.png'}: 64 pictures in the manner of {meta['data']}'s domain B")


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    generators, meta, path = load_generators(args, device)
    verb = draw_from_noise if meta["mode"] == "dcgan" else translate_files if args.files else test
    verb(args, generators, meta, path, device)


if __name__ == "__main__":
    main()
