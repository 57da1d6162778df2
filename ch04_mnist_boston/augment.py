"""Augmentation of a whole batch at once, on the device it lies on: small turns, shifts, scales and shears."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_affine(pixels: Tensor, degrees: float, shift: float, scale: float, shear: float) -> Tensor:
    """(n, 1, S, S) floats -> the same, each picture turned by up to `degrees`, moved by up to `shift` pixels, made larger or
    smaller by up to the share `scale`, and slanted by up to `shear` pixels a pixel: what another hand would have written.

    One matrix a picture says for each pixel of the result where in the picture to look (Jaderberg et al. 2015, "Spatial
    Transformer Networks"); outside it is black. On a whole batch this takes a fraction of what the network takes.
    """
    n, _, _, size = pixels.shape

    def uniform(limit: float) -> Tensor:
        return limit * (2 * torch.rand(n, device=pixels.device) - 1)

    angle, slant = uniform(math.radians(degrees)), uniform(shear)
    zoom_x, zoom_y = torch.exp(uniform(math.log1p(scale))), torch.exp(uniform(math.log1p(scale)))
    cos, sin = torch.cos(angle), torch.sin(angle)
    move = 2 / size  # affine_grid counts from -1 to 1 across the picture
    rows = [
        torch.stack([zoom_x * cos, zoom_x * (slant * cos - sin), uniform(shift) * move], 1),
        torch.stack([zoom_y * sin, zoom_y * (slant * sin + cos), uniform(shift) * move], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)  # (n, S, S, 2)
    return F.grid_sample(pixels, grid, align_corners=False)
