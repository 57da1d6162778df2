"""Draws where a network looked for its answer: Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep
Networks via Gradient-based Localization").

    python gradcam.py photo.jpg                 # the newest run, or the shipped weights: the heat for its answer
    python gradcam.py photo.jpg --class dog     # where it sees something of a dog
    python gradcam.py --check                   # is the heat true? Hides hot places of the validation pictures, then cold ones

Heat is no proof: it says which places speak for the class to this network, not why. --check measures it.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import datasets
import test as tester
import utils
from utils import fail, new_figure, save_figure, say

SMALLEST = 4  # rows of the smallest map to draw: one of 2 x 2 says nothing about places
MOST = 40  # pictures that are drawn
HIDDEN = 0.25  # of a picture, in --check


def heat_maps(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Normalised pictures (N, 3, H, W) and a class for each (N,) -> heat (N, H, W), 0 to 1.

    Of the last feature map with SMALLEST rows or more: each channel counts as much as the class's logit grows with it, on
    average over all places; what speaks against the class is left out."""
    layers = model.features if isinstance(model.features, nn.Sequential) else [model.features]
    with torch.enable_grad():
        x = maps = images
        for layer in layers:
            x = layer(x)
            maps = x if min(x.shape[2:]) >= SMALLEST else maps  # (N, C, h, w)
        logits = model.head(model.pool(x).flatten(1))
        (slope,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), maps)
    heat = (slope.mean((2, 3), keepdim=True) * maps.detach()).sum(1, keepdim=True).relu()  # (N, 1, h, w)
    heat = F.interpolate(heat, images.shape[2:], mode="bilinear")[:, 0]
    return heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)


def hide(images: Tensor, heat: Tensor, hottest: bool) -> Tensor:
    """The pictures with the hottest or the coldest quarter of the pixels replaced by the mean colour, which is 0."""
    order = heat.flatten(1).argsort(1, descending=hottest)
    count = round(HIDDEN * order.shape[1])
    hidden = torch.zeros_like(order, dtype=torch.bool).scatter(1, order[:, :count], True)
    return images.masked_fill(hidden.view_as(heat)[:, None], 0.0)


def check(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, device: torch.device) -> dict[str, float]:
    """-> the accuracy on the validation pictures as they are, and with the hottest or coldest quarter hidden."""
    wanted, _ = tester.source_of(args, meta, path)
    data = datasets.load(wanted, args.data_root, meta["image_size"], ("val",))  # test data are test.py's alone
    val = data.splits["val"]
    right = {"as they are": 0, "hottest quarter hidden": 0, "coldest quarter hidden": 0}
    normalize = datasets.Normalize(meta["mean"], meta["std"]).to(device)
    for pixels, labels in zip(val.images.split(250), val.labels.split(250), strict=True):
        images, labels = normalize(pixels.to(device)), labels.to(device)
        with torch.no_grad():
            heat = heat_maps(model, images, model(images).argmax(1))
            for name, shown in zip(right, (images, hide(images, heat, True), hide(images, heat, False)), strict=True):
                right[name] += int((model(shown).argmax(1) == labels).sum())
    return {name: count / len(val) for name, count in right.items()}


def draw(args: argparse.Namespace, model: nn.Module, meta: dict, device: torch.device) -> None:
    """Writes a picture with the heat over each of args.files, of 40 at most. Exit status 1 if one could not be read."""
    if args.wanted not in (None, *meta["classes"]):
        fail(f"--class {args.wanted}: the network knows {', '.join(meta['classes'])}")
    good, pixels, bad = tester.read_pictures(args.files, meta["image_size"])
    if not good:
        tester.refuse(bad, 0)
    files, pixels = good[:MOST], torch.stack(pixels[:MOST])
    images = datasets.Normalize(meta["mean"], meta["std"]).to(device)(pixels.to(device))
    with torch.no_grad():
        shares = model(images).softmax(1)
    classes = (
        shares.argmax(1)
        if args.wanted is None
        else torch.full_like(shares.argmax(1), meta["classes"].index(args.wanted))
    )
    heat = heat_maps(model, images, classes).cpu()
    figure = new_figure(5, 2.6 * len(files), "".join(meta["classes"]) + "".join(file.name for file in files))
    for axes, file, picture, warm, k, share in zip(
        figure.subplots(len(files), 2, squeeze=False), files, pixels, heat, classes.tolist(), shares, strict=True
    ):
        for axis in axes:
            axis.imshow(picture.permute(1, 2, 0).numpy())
            axis.axis("off")
        axes[1].imshow(warm.numpy(), cmap="jet", alpha=0.45, vmin=0, vmax=1)
        axes[0].set_title(utils.cut(file.name, 24), fontsize=8)
        axes[1].set_title(f"{utils.cut(meta['classes'][k], 20)} {share[k]:.3f}", fontsize=8)
    out = utils.free_name(utils.output_folder(args.out) / "gradcam.png")
    save_figure(figure, out)
    say(f"wrote {out}")
    tester.refuse(bad, len(good))


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help="pictures, or folders of pictures")
    parser.add_argument("--class", dest="wanted", metavar="NAME", help="the class to look for (default: the answer)")
    parser.add_argument(
        "--check", action="store_true", help="measure on the validation pictures what hiding hot places does"
    )
    parser.add_argument(
        "--run", metavar="DIR", help="a run folder (default: the newest run, or else the shipped weights)"
    )
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file, or a run's best.pt")
    parser.add_argument(
        "--data", help="with --check: whose validation pictures (default: the data the network was trained on)"
    )
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where CIFAR-10 lies (default: %(default)s)")
    parser.add_argument(
        "--out", default="runs/gradcam", metavar="DIR", help="where the picture goes (default: %(default)s)"
    )
    utils.add_mirror_flag(parser)
    utils.add_device_flag(parser)
    args = parser.parse_args(argv)
    if bool(args.files) == args.check:
        fail("give pictures to draw, or --check")
    return args


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    model, meta, path = tester.load_model(args, device)
    if args.check:
        for name, accuracy in check(args, model, meta, path, device).items():
            print(f"{name:<24}{accuracy:.4f}")
    else:
        draw(args, model, meta, device)


if __name__ == "__main__":
    utils.start(main)
