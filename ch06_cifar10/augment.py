"""Augmentation of a whole batch at once, on the device it lies on: crop, flip, cutout, colour, mixup, as tensor operations."""

import random

import torch
import torch.nn.functional as F
from torch import Tensor


class Augment:
    """uint8 pictures (n, 3, H, W) -> the same, changed at random, as if photographed again a little differently.

    crop    shifts by up to that many pixels either way; the border is filled by reflection
    flip    mirrors: each picture in every second epoch, a random half in the first. Every picture is then seen both ways as
            often; random flips do not guarantee this (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU")
    cutout  puts a grey square of that side over a random place (DeVries and Taylor 2017, "Improved Regularization of CNNs")
    colour  scales brightness and contrast by up to that share either way
    """

    def __init__(self, crop: int = 0, flip: bool = False, cutout: int = 0, colour: float = 0.0):
        self.crop, self.flip, self.cutout, self.colour = crop, flip, cutout, colour

    def __call__(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        """`indices` (n,): the pictures' numbers in the data set, which decide who is mirrored in which epoch."""
        if self.crop or self.flip:
            images = self.crop_and_flip(images, indices, epoch)
        if self.colour:
            images = self.change_colour(images)
        if self.cutout:
            images = self.cut_out(images)
        return images

    def crop_and_flip(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        n, _, height, width = images.shape
        rows = torch.arange(height, device=images.device).expand(n, -1)
        columns = torch.arange(width, device=images.device).expand(n, -1)
        if self.flip:
            parity = (
                indices * 2654435761 >> 16
            ) & 1  # a fixed coin for each picture: the multiplication scatters the bits
            mirrored = (parity + epoch) % 2 == 1
            columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        if self.crop:
            images = F.pad(images.float(), (self.crop,) * 4, mode="reflect").to(images.dtype)
            shift = torch.randint(0, 2 * self.crop + 1, (2, n, 1), device=images.device)
            rows, columns = rows + shift[0], columns + shift[1]
        # One gather does both: picture i takes pixel (rows[i, y], columns[i, x]) for its (y, x). Channels come last in
        # memory on the way out, as the convolutions want them.
        i = torch.arange(n, device=images.device)[:, None, None]
        return images.permute(0, 2, 3, 1)[i, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def change_colour(self, images: Tensor) -> Tensor:
        n = len(images)
        brightness, contrast = 1 + self.colour * (2 * torch.rand(2, n, 1, 1, 1, device=images.device) - 1)
        pixels = images.float() * brightness
        grey = pixels.mean(dim=(1, 2, 3), keepdim=True)
        return ((pixels - grey) * contrast + grey).round().clamp(0, 255).to(images.dtype)

    def cut_out(self, images: Tensor) -> Tensor:
        n, _, height, width = images.shape
        centre = torch.rand(2, n, 1, device=images.device)
        rows = (torch.arange(height, device=images.device) - centre[0] * height).abs() < self.cutout / 2
        columns = (torch.arange(width, device=images.device) - centre[1] * width).abs() < self.cutout / 2
        return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 128)


def mixup(images: Tensor, alpha: float) -> tuple[Tensor, Tensor, float]:
    """Mixup (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"): pictures laid over each other, (N, 3, H, W).

    -> the mixed pictures; of each, which other one is in it (N,); and the first one's share, 1/2 to 1, drawn from
    Beta(alpha, alpha) for the whole batch: a small alpha mixes little, 1 draws all shares alike. The loss is mixed in the same
    way, so that the network is taught to be as unsure as the picture is, and to change evenly from one class to another."""
    share = random.betavariate(alpha, alpha)  # not drawn on the device: nothing waits for it
    share = max(share, 1 - share)  # the pictures' own labels stay the likelier ones
    other = torch.randperm(len(images), device=images.device)
    return torch.lerp(images[other], images, share), other, share
