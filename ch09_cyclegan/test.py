"""Translates pictures with a trained network: the files you name, or the whole test split, with figures.

    python test.py                                  # the newest run, or else the shipped weights, on the test split
    python test.py --run runs/cyclegan-resnet3-sample
    python test.py photo.jpg folder --direction BtoA --out translated

Files keep their names and may have any size. The test split gives test.json: the cycle error, FID and KID where Inception's
weights are at hand, and on the sample what a judge of colours calls the results. Only this script reads the test split.
"""

import argparse
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
import options
import pictures
import sample
import utils
from gans import noise
from grid import draw_rows
from utils import Number, fail, say

WEIGHTS = Path(__file__).parent / "weights" / "resnet3.safetensors"  # trained on the drawn sample
COLOUR_TYPES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
DIRECTIONS = {"AtoB": "g_ab", "BtoA": "g_ba"}
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # its SHA-256 begins with 6726825d
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("files", nargs="*", help="pictures, or folders of pictures, to translate instead of testing")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file, or a run's best.pt")
    parser.add_argument("--direction", choices=DIRECTIONS, help="default: AtoB for files, both for the test split")
    parser.add_argument("--data", help="what to test on (default: the data the network was trained on)")
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where the sets lie (default: %(default)s)")
    parser.add_argument("--limit", type=Number(int, 1), metavar="N", help="use only N test pictures of each domain")
    parser.add_argument("--out", metavar="DIR", help="where results go (default: translated; a test: the run folder)")
    tiles_help = "larger files are translated in tiles of that side (default: %(default)s)"
    parser.add_argument("--max-side", type=Number(int, 64), default=1024, metavar="N", help=tiles_help)
    parser.add_argument("--fid", action="store_true", help="download Inception's weights (95 MB) for FID and KID")
    parser.add_argument("--export", metavar="FILE", help="save the tested generators, in half precision, to share")
    parser.add_argument(
        "--workers", type=Number(int, 0, 256), default=0, help="processes that read files (default: %(default)s)"
    )
    utils.add_device_flag(parser)
    return parser.parse_args(argv)


def load_generators(args: argparse.Namespace, device: torch.device) -> tuple[nn.ModuleDict, dict, Path]:
    """-> the generators by name in eval mode, what their file says of them, and the file."""
    run = args.run or (None if args.weights else utils.newest_run())
    path = Path(args.weights) if args.weights else Path(run) / "best.pt" if run else WEIGHTS
    state, meta = utils.load_weights(path)
    needed = {"mode", "arch", "width", "upsample", "image_size", "data"}
    if needed - meta.keys():
        fail(f"{path}: holds weights, but not of a run of this chapter ({', '.join(sorted(needed))} are needed)")
    state = {key: tensor for key, tensor in state.items() if key.startswith("g")}  # last.pt has the discriminators too
    names = sorted({key.split(".")[0] for key in state})
    shape = (meta["arch"], meta["image_size"], meta["width"], meta["upsample"])
    generators = nn.ModuleDict({name: models.build(*shape) for name in names})
    try:
        generators.load_state_dict(state)
    except RuntimeError:
        fail(f"{path}: says {meta['arch']} of width {meta['width']}, but the weights in it are of another network")
    utils.say_weights(path, meta)
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
        fail(f"no memory for a picture of {width} x {height} pixels at once; try a smaller --max-side")


def translate_tiles(generator: nn.Module, pixels: Tensor, device: torch.device, side: int) -> Tensor:
    """(3, H, W) uint8 -> the same shape, in tiles of `side` pixels at most, for what does not fit into memory at once.

    Neighbouring tiles share a strip, in which one fades into the other: each was normalised by itself, and a hard edge
    between them would show.
    """
    height, width = pixels.shape[-2:]
    if max(height, width) <= side:
        return translate(generator, pixels[None], device)[0]
    overlap = min(64, side // 4)
    total, weight = torch.zeros(3, height, width), torch.zeros(1, height, width)
    for top, bottom in stretches(height, side, overlap):
        for left, right in stretches(width, side, overlap):
            tile = translate(generator, pixels[None, :, top:bottom, left:right], device)[0].float()
            share = ramp(bottom - top, overlap)[:, None] * ramp(right - left, overlap)
            total[:, top:bottom, left:right] += tile * share
            weight[:, top:bottom, left:right] += share
    return (total / weight).round().clamp(0, 255).byte()


def stretches(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """(begin, end) of as few stretches of at most `side` as cover `length`, evenly, each sharing `overlap` or more."""
    count = max(1, -(-(length - overlap) // (side - overlap)))
    size = min(side, length)
    return [(begin, begin + size) for begin in (round(i * (length - size) / max(1, count - 1)) for i in range(count))]


def ramp(length: int, overlap: int) -> Tensor:
    """(length,) weights: 1 in the middle, falling towards both ends over `overlap` pixels, never 0."""
    distance = torch.minimum(torch.arange(length), torch.arange(length).flip(0)) + 1
    return (distance / (overlap + 1)).clamp(max=1)


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
        path = places[0]
        utils.download([INCEPTION_URL], path, check=check_inception)
    if path is None:
        say(f"FID and KID: not computed, since {INCEPTION} is not in {places[0].parent} (--fid downloads it)")
        return None
    try:
        check_inception(path)
    except ValueError as error:
        fail(f"{path}: damaged ({error}); move it away")
    utils.load_checkpoint(path)  # refuses a file with anything but tensors in it, before the library opens it
    return NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))


def check_inception(path: Path) -> None:
    if not utils.hash_of(path).startswith("6726825d"):
        raise ValueError("its SHA-256 does not begin with 6726825d")


def distances(inception: nn.Module, real: Tensor, fake: Tensor, device: torch.device) -> dict[str, float]:
    """FID (Heusel et al. 2017) and KID (Binkowski et al. 2018) between two heaps of (N, 3, S, S) uint8 pictures.

    Both compare Inception's features; FID as two Gaussians, which with few pictures comes out too high; KID without that bias.
    FID sums in float64, which MPS does not have: there both are computed on the CPU.
    """
    device = torch.device("cpu") if device.type == "mps" else device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it keeps all features in memory: a few MB
        kid = KernelInceptionDistance(inception, subsets=50, subset_size=min(100, len(real), len(fake))).to(device)
    fid = FrechetInceptionDistance(inception).to(device)
    torch.manual_seed(0)  # KID draws its subsets at random
    for metric in (fid, kid):
        for heap, is_real in ((real, True), (fake, False)):
            for batch in heap.split(32):
                metric.update(batch.to(device), real=is_real)
    mean, spread = kid.compute()
    return {"fid": float(fid.compute()), "kid": float(mean), "kid_std": float(spread)}


def measure(direction: str, generators: nn.ModuleDict, data: datasets.Data, meta: dict, inception, device) -> tuple:
    """-> figures of one direction, and what to show, by name: the source, its translation, and that translated back."""
    source, target = (data.a, data.b) if direction == "AtoB" else (data.b, data.a)
    back_name = DIRECTIONS["BtoA" if direction == "AtoB" else "AtoB"]
    fake = in_batches(generators[DIRECTIONS[direction]], source, device)
    from_, to = direction.split("to")
    result, rows = {"pictures": len(source)}, {f"real {from_}": source, f"fake {to}": fake}
    if back_name in generators:
        back = in_batches(generators[back_name], fake, device)
        result["cycle_error"] = float((back.float() - source.float()).abs().mean() / 255)
        rows[f"back to {from_}"] = back
    if meta["mode"] == "pix2pix":
        result["pair_error"] = float((fake.float() - target.float()).abs().mean() / 255)
        rows[f"real {to}"] = target
    elif data.name == "sample" and not data.own:
        wanted = 1 if direction == "AtoB" else 0
        result[f"called_{sample.KINDS[wanted]}"] = float((sample.judge(fake) == wanted).float().mean())
    if inception:
        result |= distances(inception, target, fake, device)
    return result, rows


def test(args: argparse.Namespace, generators: nn.ModuleDict, meta: dict, path: Path, device: torch.device) -> None:
    directions = pick_directions(args, generators, list(DIRECTIONS))
    source, split = source_of(args, meta, path)
    data = datasets.load(
        source, args.data_root, "test", meta["mode"], meta["image_size"], args.limit, args.workers, split
    )
    out = utils.output_folder(args.out or (path.parent if path.suffix == ".pt" else Path("runs") / f"test-{path.stem}"))
    about = {"mode": meta["mode"], "arch": meta["arch"], "trained_on": meta["data"], "tested_on": data.name}
    result = about | {"weights": str(path), "torch": torch.__version__}
    inception, written = load_inception(args), ["test.json"]
    for direction in directions:
        start = time.perf_counter()
        result[direction], rows = measure(direction, generators, data, meta, inception, device)
        names = data.names_a if direction == "AtoB" else data.names_b
        folder = utils.free_name(out / direction)
        for name, picture in zip(names, list(rows.values())[1], strict=True):
            save_picture(picture, folder / name)
        grid = save_grid({name: row[:8] for name, row in rows.items()}, folder.with_suffix(".png"))
        written += [grid.name, f"{folder.name}/"]
        figures = ", ".join(f"{name} {value:.4g}" for name, value in result[direction].items())
        print(f"{direction}, trained on {meta['data']}, tested on {data.name}: {figures}", end="")
        say(f" ({time.perf_counter() - start:.1f} s on {device})")
    utils.write_atomic(out / "test.json", json.dumps(result, indent=1))
    say(f"wrote {out}: {', '.join(written)}")
    if args.export:
        export(args, generators, meta, path, {d: result[d] for d in directions})


def source_of(args: argparse.Namespace, meta: dict, path: Path) -> tuple[str, dict]:
    """-> the --data to test on, by default the run's own, and which samples trained (of shared weights: unknown)."""
    split = {"data": meta["data"], "own": meta.get("own", False)}
    if (path.parent / "split.json").exists():
        split = utils.read_json(path.parent / "split.json")
    return args.data or split["data"], split


def export(args: argparse.Namespace, generators: nn.ModuleDict, meta: dict, path: Path, score: dict) -> None:
    """Saves the generators to share, with how they were made and what they score."""
    if not (path.parent / "args.json").exists():
        fail(f"--export: {path} is in no run folder, so nothing says how it was trained")
    command = utils.command_of(utils.read_arguments(path.parent), options.parse("", []))
    target = utils.free_name(args.export)
    utils.save_weights(target, generators.half(), **meta, command=command, score=score, torch=torch.__version__)
    say(f"wrote {target}: {target.stat().st_size / 1e6:.1f} MB")


def save_picture(pixels: Tensor, path: Path, is_grey: bool = False) -> Path:
    """(3, H, W) uint8 -> the file's path: of the type that its name says, or a PNG where that cannot hold all colours."""
    path = path if path.suffix.lower() in COLOUR_TYPES else path.with_suffix(".png")
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    try:
        utils.output_folder(path.parent)
        return pictures.save_picture(picture.convert("L") if is_grey else picture, path)
    except (OSError, ValueError) as error:  # ValueError: a type that Pillow does not write
        fail(f"cannot write {path}: {getattr(error, 'strerror', None) or error}")


def save_grid(rows: dict[str, Tensor], path: Path) -> Path:
    """Rows of (n, 3, S, S) uint8 pictures, one below the other, each with its name."""
    return save_picture(datasets.pixels_of(draw_rows(rows)), path)


# ---- your pictures, and pictures out of noise -------------------------------------------------------------------------


def find_pictures(names: list[str]) -> list[tuple[Path, Path]]:
    """-> (file, its name below the folder that was named) of each picture."""
    files = []
    for path in map(Path, names):
        if not path.exists():
            fail(f"{path}: no such file or folder")
        found = [(path, Path(path.name))]
        if path.is_dir():
            found = [(p, p.relative_to(path)) for p in pictures.list_pictures(path, deep=True)]
        files += found or fail(f"{path}: no pictures in this folder")
    return files


def translate_files(args, generators: nn.ModuleDict, meta: dict, path: Path, device: torch.device) -> None:
    """Writes each translated picture under its own name below --out. Exit status 1 if one could not be read."""
    direction = pick_directions(args, generators, ["AtoB"])[0]
    out, files, shown, bad = Path(args.out or "translated"), find_pictures(args.files), [], []
    say(f"{direction} by {path} ({meta['arch']}, trained on {meta['data']})")
    for file, name in files:
        try:
            picture = pictures.read_picture(file)
        except OSError as error:
            bad.append(file)
            say(f"{file}: not a picture that can be read ({error.strerror or error})")
            continue
        pixels = datasets.pixels_of(picture)
        result = translate_tiles(generators[DIRECTIONS[direction]], pixels, device, args.max_side)
        is_grey = bool((pixels == pixels[:1]).all())  # a grey picture stays grey
        target = save_picture(result, out / name, is_grey)
        tiles = " in tiles (--max-side)" if max(picture.size) > args.max_side else ""
        print(f"{file} -> {target}, {picture.width} x {picture.height}{tiles}")
        if len(shown) < 8:
            both = (picture, Image.open(target).convert("RGB"))
            shown.append([datasets.pixels_of(datasets.squared(p, 128)) for p in both])
    if shown:
        before, after = (torch.stack(row) for row in zip(*shown, strict=True))
        save_grid({"yours": before, direction: after}, out / "grid.png")
    if bad:
        fail(f"{len(bad)} of {len(files)} files could not be read, the first being {bad[0]}")


@torch.inference_mode()
def draw_from_noise(args, generators: nn.ModuleDict, meta: dict, path: Path, device: torch.device) -> None:
    """DCGAN and WGAN-GP: 64 pictures out of noise, which has no test split."""
    if args.files:
        fail(f"{path} is a DCGAN: it makes pictures out of noise and translates none")
    out = Path(args.out) if args.out else path.parent
    torch.manual_seed(0)
    fakes = datasets.to_pixels(generators["g"](noise(64, device)))
    target = save_picture(make_grid(fakes, padding=2, pad_value=255), utils.output_folder(out) / "from_noise.png")
    say(f"wrote {target}: 64 pictures in the manner of {meta['data']}'s domain B")
    say(
        f"two of them differ by {variety(fakes):.3f} of the range on average; 0 would be the same picture again and again"
    )


def variety(pixels: Tensor) -> float:
    """The mean difference of a pixel between two of these pictures (N, 3, S, S) uint8, as a share of the range."""
    flat = pixels.flatten(1).float() / 255
    return float(torch.cdist(flat, flat, p=1).sum() / (len(flat) * (len(flat) - 1) * flat.shape[1]))


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    generators, meta, path = load_generators(args, device)
    verb = draw_from_noise if meta["mode"] in datasets.FROM_NOISE else translate_files if args.files else test
    verb(args, generators, meta, path, device)


if __name__ == "__main__":
    utils.start(main)
