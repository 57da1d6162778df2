"""Draws the path of a training on the surface of its loss.

    python train.py --problem line     # writes path.png at the end
    python train.py --problem line --raw --optimizer sgd --lr 1e-5   # why inputs are brought to one scale

Two parameters span the plane themselves. Of more, the plane through the last point is drawn that holds most of the
path: its two principal components (Li et al. 2018, "Visualizing the loss landscape of neural nets").
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lessons.linalg import pca
from utils import new_figure, save_figure


def plane_of(path: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The path `(E, P)` in a plane `-> origin (P,), axes (2, P), coordinates (E, 2)`.

    >>> path = torch.tensor([[0.0, 0.0, 1.0], [3.0, 0.0, 1.0], [3.0, 4.0, 1.0]])
    >>> origin, axes, at = plane_of(path)
    >>> torch.allclose(origin + at @ axes, path, atol=1e-5)
    True
    """
    if path.shape[1] == 2:
        return torch.zeros(2), torch.eye(2), path
    origin = path[-1]
    # The covariance of P parameters would be P x P: take the components from the E x E products instead.
    offsets = (path - origin).double()
    basis = torch.linalg.qr(offsets.T).Q if len(path) < path.shape[1] else torch.eye(path.shape[1]).double()
    axes = pca(offsets @ basis, 2)[0] @ basis.T
    if len(axes) < 2 or not torch.isfinite(axes).all():
        axes = torch.eye(path.shape[1])[:2].double()
    return origin, axes.float(), (offsets @ axes.T).float()


@torch.no_grad()
def losses_at(model: nn.Module, loss_of: Callable[[Callable], Tensor], points: Tensor) -> Tensor:
    """The loss with all parameters taken from one long vector, for many vectors at once: `(M, P) -> (M,)`.

    The model keeps its own parameters. vmap runs the same computation for 128 points together.

    >>> points = torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    >>> losses_at(nn.Linear(1, 1), lambda model: (model(torch.ones(1, 1)) ** 2).mean(), points)
    tensor([9., 0.])
    """
    sizes = [p.numel() for p in model.parameters()]

    def loss_at(point: Tensor) -> Tensor:
        pieces = zip(model.named_parameters(), point.split(sizes), strict=True)
        values = {name: piece.view_as(p) for (name, p), piece in pieces}
        return loss_of(lambda x: functional_call(model, values, (x,)))

    return torch.vmap(loss_at, chunk_size=128)(points)


def draw(model: nn.Module, loss_of: Callable[[Callable], Tensor], path: Tensor, file: Path) -> None:
    """Writes the picture: contours of log loss, the path from its start (circle) to its end (star)."""
    origin, axes, at = plane_of(path)
    low, high = at.amin(0), at.amax(0)
    margin = 0.35 * (high - low).max().clamp(min=0.5)
    steps = 31
    xs, ys = (torch.linspace(low[k] - margin, high[k] + margin, steps) for k in (0, 1))
    plane = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)  # (31, 31, 2)
    losses = losses_at(model, loss_of, origin + plane.flatten(0, 1) @ axes).view(steps, steps)
    figure = new_figure(6.4, 5)
    axis = figure.subplots()
    contours = axis.contourf(xs, ys, losses.clamp(min=1e-9).log10(), levels=30, cmap="viridis")
    figure.colorbar(contours, label="log10 of the training loss")
    axis.plot(*at.T, color="white", marker=".", markersize=3, linewidth=1)
    axis.plot(*at[0], "o", color="orange", label="start")
    axis.plot(*at[-1], "*", color="red", markersize=12, label="end")
    names = ("w", "b") if path.shape[1] == 2 else ("first principal component", "second principal component")
    axis.set(xlabel=names[0], ylabel=names[1], title="the path on the loss surface")
    axis.legend()
    save_figure(figure, file)
