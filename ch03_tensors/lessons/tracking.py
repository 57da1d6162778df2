"""Features for a linear classifier (HOG), and following things from frame to frame.

    python -m lessons tracking                 (with a picture)
    python -m lessons convolutions             (the next one)

Before networks learned their own features, people designed them, and a linear classifier did the rest. Pictures here are
drawn, grey, `(H, W)`, from 0 to 1, so that the right answer is known.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

TITLE = "Hand-made features, tracking"
TITLE_ZH = "HOG 特征与目标跟踪"
LESSONS = {"5-3": "特征工程"}
FORMULAS = {
    "hog": r"\theta = \operatorname{atan2}(g_y, g_x) \bmod \pi, \quad h_b = \sum_{\theta \in b} \sqrt{g_x^2 + g_y^2}",
}
FIGURES = {"follow": "draw_track"}


def shapes(count: int, seed: int, size: int = 32) -> tuple[Tensor, Tensor]:
    """To compare features we need pictures that are hard for pixels and easy for people. (5-3)

    Discs, squares and diamonds, anywhere, bright or dark, with noise. `-> pictures (N, H, W), labels (N,)`.

    >>> images, labels = shapes(300, seed=0)
    >>> images.shape, labels.bincount().tolist()
    (torch.Size([300, 32, 32]), [88, 111, 101])
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    radius, x, y, light = torch.rand(4, count, 1, 1, generator=generator)
    radius = 5 + 4 * radius
    place = torch.arange(float(size))
    dx = place - (radius + (size - 2 * radius) * x)
    dy = place[:, None] - (radius + (size - 2 * radius) * y)
    far = torch.stack([torch.hypot(dx, dy), torch.maximum(dx.abs(), dy.abs()), dx.abs() + dy.abs()])
    inside = far[labels, torch.arange(count)] < radius
    contrast = torch.where(light < 0.5, -1, 1) * (0.2 + 0.3 * light)
    noise = 0.05 * torch.randn(count, size, size, generator=generator)
    return (0.5 + contrast * (inside.float() - 0.5) + noise).clamp(0, 1), labels


def hog(images: Tensor, cell: int = 8, bins: int = 9) -> Tensor:
    """A person in a red coat and one in a blue coat share no pixel value, but the same outline. (5-3)

    HOG: how much edge points which way, in each cell of 8 x 8 pixels. `(N, H, W) -> (N, features)`. Dalal and Triggs, 2005.

    Each block of 2 x 2 cells is divided by its length, so that more light or contrast changes nothing. A direction and
    its opposite are one: a dark shape on a bright ground has the same edges.

    >>> images, _ = shapes(2, seed=0)
    >>> hog(images).shape  # 3 x 3 blocks of 2 x 2 cells with 9 directions
    torch.Size([2, 324])
    >>> torch.allclose(hog(images), hog(1 - 0.5 * images), atol=1e-4)
    True
    """
    padded = F.pad(images[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    x, y = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    place = torch.atan2(y, x) % math.pi / math.pi * bins  # between two bins: each gets its share
    low, share = place.floor(), place % 1
    votes = torch.zeros(len(images), bins, *images.shape[1:])
    for bin_, weight in ((low % bins, 1 - share), ((low + 1) % bins, share)):
        votes.scatter_add_(1, bin_.long()[:, None], (weight * torch.hypot(x, y))[:, None])
    cells = F.avg_pool2d(votes, cell)  # (N, bins, H / cell, W / cell)
    blocks = F.unfold(cells, 2)  # (N, 4 * bins, blocks): neighbouring blocks share cells
    return F.normalize(blocks, dim=1, eps=1e-4).flatten(1)


def linear_accuracy(features: Tensor, labels: Tensor, steps: int = 100) -> float:
    """Good features are those with which the simplest classifier is good. (5-3)

    A linear classifier learns from the first half; the share of right answers on the second. `(N, D), (N,) -> float`.

    Dalal and Triggs used a linear support vector machine; this is softmax regression. Three answers by chance are right
    once in three times. Pixels are hardly better, since a shape may be anywhere and bright or dark:

    >>> images, labels = shapes(600, seed=0)
    >>> pixels = linear_accuracy(images.flatten(1), labels)
    >>> directions = linear_accuracy(hog(images), labels)
    >>> pixels < 0.45, directions > 0.8
    (True, True)
    """
    half = len(labels) // 2
    features = (features - features[:half].mean(0)) / (features[:half].std(0) + 1e-4)
    layer = nn.Linear(features.shape[1], int(labels.max()) + 1)
    nn.init.zeros_(layer.weight)  # one layer needs no random start
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01, weight_decay=0.01)
    for _ in range(steps):
        loss = F.cross_entropy(layer(features[:half]), labels[:half])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (layer(features[half:]).argmax(1) == labels[half:]).float().mean().item()


# ---- tracking ------------------------------------------------------------------------------------------------------


def film(frames: int, seed: int = 0, size: int = 64) -> tuple[Tensor, Tensor]:
    """To see whether something is followed rightly, we need a film in which we know where it is. (5-3)

    A striped square walks in a curve and gets darker; another one stands in the way. `-> (T, H, W), corners (T, 2)`.

    >>> pictures, corners = film(40)
    >>> pictures.shape, corners[0].tolist(), corners[-1].tolist()
    (torch.Size([40, 64, 64]), [20, 4], [23, 46])
    """
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(frames)
    corners = torch.stack([20 + 14 * torch.sin(time / 6), 4 + 1.1 * time], dim=1).long()  # rows y, x
    pictures = 0.3 + 0.03 * torch.randn(frames, size, size, generator=generator)
    stripes = (torch.arange(12) // 3 % 2).float().expand(12, 12)
    pictures[:, 44:56, 40:52] += 0.5 * stripes.T  # it stands: its stripes lie
    for picture, (y, x), t in zip(pictures, corners.tolist(), time.tolist(), strict=True):
        picture[y : y + 12, x : x + 12] += (0.6 - 0.01 * t) * stripes
    return pictures.clamp(0, 1), corners


def follow(pictures: Tensor, corner: tuple[int, int], size: int = 12, reach: int = 5) -> Tensor:
    """A thing marked once is to be followed through the film: single-object tracking (单目标跟踪). (5-3)

    In each frame the place near the last one that looks most like the marked one. `(T, H, W) -> corners (T, 2)`.

    It looks at most `reach` pixels away: fewer places to compare, and nothing far away is mistaken for it. Means and
    lengths are taken off, so that it may get darker.

    >>> pictures, corners = film(40)
    >>> found = follow(pictures, corners[0].tolist())
    >>> (found - corners).abs().max().item()
    0

    It never looks for what it has lost. Of every eighth frame alone, the steps are larger than `reach`, and it stays behind:

    >>> (follow(pictures[::8], corners[0].tolist()) - corners[::8]).abs().max().item() > 10
    True
    """

    def standard(windows: Tensor) -> Tensor:
        centred = windows.flatten(-2) - windows.flatten(-2).mean(-1, keepdim=True)
        return F.normalize(centred, dim=-1)

    y, x = corner
    wanted, found = standard(pictures[0, y : y + size, x : x + size]), [(y, x)]
    for picture in pictures[1:]:
        top, left = max(0, y - reach), max(0, x - reach)
        near = picture[top : y + reach + size, left : x + reach + size]
        windows = near.unfold(0, size, 1).unfold(1, size, 1)  # (places down, places across, size, size)
        score = standard(windows) @ wanted
        down, across = divmod(score.argmax().item(), score.shape[1])
        y, x = top + down, left + across
        found.append((y, x))
    return torch.tensor(found)


def draw_track(folder: Path) -> Path:
    """The film's first, middle and last frame. The square was marked once, in the first; the line is where it was found since.
    The other square has the same stripes, lying, and is not taken for it."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    pictures, corners = film(40)
    found = follow(pictures, corners[0].tolist())
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axis, t in zip(figure.subplots(1, 3), (0, 20, 39), strict=True):
        axis.imshow(pictures[t].numpy(), cmap="gray", vmin=0, vmax=1)
        y, x = found[t].tolist()
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), 12, 12, fill=False, edgecolor="crimson", linewidth=2))
        axis.plot((found[: t + 1, 1] + 5.5).tolist(), (found[: t + 1, 0] + 5.5).tolist(), color="crimson", linewidth=1)
        axis.set(title=f"frame {t}", xlim=(-0.5, 63.5), ylim=(63.5, -0.5))
    figure.savefig(folder / "tracking.png", dpi=110)
    return folder / "tracking.png"


def name_boxes(frames: list[Tensor], at_least: float = 0.3) -> list[list[int]]:
    """A detector finds all cars in each frame, but does not say which is which. (5-3)

    Tracking by detection (基于检测的跟踪): a box keeps the name of the last frame's box that it overlaps most.

    `boxes (K, 4) of each frame -> a number for each box`. The largest overlap (IoU) is given away first, so that no name
    is used twice; a box that overlaps none is new. It is the idea of SORT (Bewley et al., 2016), without its prediction.

    Two boxes pass each other, and come from the detector in another order each time; a third one comes later.

    >>> a = [torch.tensor([4.0 * t, 0, 4 * t + 10, 10]) for t in range(6)]
    >>> b = [torch.tensor([24 - 4.0 * t, 8, 34 - 4 * t, 18]) for t in range(6)]
    >>> late = torch.tensor([50.0, 50, 60, 60])
    >>> frames = [torch.stack([a[t], b[t]] if t % 2 else [b[t], a[t]]) for t in range(6)]
    >>> name_boxes([*frames[:5], torch.stack([late, a[5], b[5]])])
    [[0, 1], [1, 0], [0, 1], [1, 0], [0, 1], [2, 1, 0]]
    """
    names, used = [list(range(len(frames[0])))], len(frames[0])
    for before, now in zip(frames, frames[1:], strict=False):
        overlap, given = box_iou(before, now), [-1] * len(now)
        while overlap.numel() and overlap.max() >= at_least:
            old, new = divmod(overlap.argmax().item(), len(now))
            given[new] = names[-1][old]
            overlap[old], overlap[:, new] = 0, 0
        for new in (k for k, name in enumerate(given) if name < 0):
            given[new], used = used, used + 1
        names.append(given)
    return names
