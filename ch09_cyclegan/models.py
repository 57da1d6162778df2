"""The networks of the chapter, each whole in one place, and build(arch, ...) over one dict of names.

    python models.py              # arch, parameters, MACs of each generator; parameters, receptive field of each discriminator
    python models.py resnet9      # that one, layer by layer

Generators take a picture and give a picture, (N, 3, H, W) -> (N, 3, H, W) in -1..1; dcgan takes noise. Discriminators give
a map of scores, one for each patch of the picture: (N, 3, H, W) -> (N, 1, h, w), high where it looks real.
"""

import difflib
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import utils
from utils import fail

UPSAMPLE = ("transpose", "resize")
PATCHES = {16: 1, 34: 2, 70: 3, 142: 4}  # the side of a patch in pixels -> the discriminator's layers of stride 2


def upsample_by_2(in_channels: int, out_channels: int, how: str, kernel_size: int) -> list[nn.Module]:
    """(N, in, H, W) -> (N, out, 2H, 2W), by one of two ways.

    transpose  a transposed convolution. Where its kernel is no multiple of its stride of 2, neighbouring pixels are sums
               of different numbers of terms, and a checkerboard shows (Odena et al. 2016, "Deconvolution and
               Checkerboard Artifacts").
    resize     every pixel four times, then a 3x3 convolution: no checkerboard, slower.
    """
    if how == "transpose":  # kernel 3 wants a pixel of output padding to come out at exactly twice the size; 4 does not
        return [nn.ConvTranspose2d(in_channels, out_channels, kernel_size, 2, 1, output_padding=kernel_size % 2)]
    return [nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(in_channels, out_channels, 3)]


class ResidualBlock(nn.Module):
    """(N, C, H, W) -> the same: x + f(x). Reflection padding mirrors the border, where zeros would leave dark edges.

    Instance norm (Ulyanov et al. 2016) gives every channel of every picture the mean 0 and variance 1: contrast is a matter
    of style. It takes statistics of one picture alone, so it works with a batch of 1, and the same in training and testing.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.f = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels), nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x)


class ResnetGenerator(nn.Sequential):
    """Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", after Johnson et
    al. 2016: down to a quarter of the size, residual blocks there, and up again. (N, 3, H, W) -> (N, 3, H, W) in -1..1, for
    sides that are multiples of 4. The paper has 9 blocks for 256 pixels and 6 for 128."""

    def __init__(self, blocks: int, width: int = 64, upsample: str = "transpose"):
        w = width
        super().__init__(
            nn.ReflectionPad2d(3), nn.Conv2d(3, w, 7), nn.InstanceNorm2d(w), nn.ReLU(inplace=True),  # (N, w, H, W)
            nn.Conv2d(w, 2 * w, 3, 2, 1), nn.InstanceNorm2d(2 * w), nn.ReLU(inplace=True),  # (N, 2w, H/2, W/2)
            nn.Conv2d(2 * w, 4 * w, 3, 2, 1), nn.InstanceNorm2d(4 * w), nn.ReLU(inplace=True),  # (N, 4w, H/4, W/4)
            *(ResidualBlock(4 * w) for _ in range(blocks)),
            *upsample_by_2(4 * w, 2 * w, upsample, 3), nn.InstanceNorm2d(2 * w), nn.ReLU(inplace=True),
            *upsample_by_2(2 * w, w, upsample, 3), nn.InstanceNorm2d(w), nn.ReLU(inplace=True),
            nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh(),
        )  # fmt: skip
        self.multiple = 4


class UnetGenerator(nn.Module):
    """Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", after Ronneberger et al. 2015:
    an encoder that halves the size `depth` times, a decoder that doubles it as often, and skip connections between the layers
    of equal size. (N, 3, H, W) -> (N, 3, H, W) in -1..1, for sides that are multiples of 2**depth.

    What detail the encoder loses, the decoder cannot invent; a skip hands it across, and hands gradients back.
      concat  the encoder's channels are put beside the decoder's (Isola et al.)
      add     they are added, before the activation (Mao et al. 2016, for denoising)
      none    a plain encoder-decoder, to see the difference
    """

    def __init__(self, skips: str, depth: int = 8, width: int = 64, upsample: str = "transpose", dropout: bool = False):
        super().__init__()
        self.skips, self.multiple = skips, 2**depth
        channels = [min(width * 2**i, 8 * width) for i in range(depth)]  # 64, 128, 256, 512, 512, ...
        self.encoder = nn.ModuleList([nn.Conv2d(3, channels[0], 4, 2, 1)])
        for i in range(
            1, depth
        ):  # (N, C, H, W) -> (N, C', H/2, W/2); one pixel, in the middle of the U, has no variance
            norm = nn.InstanceNorm2d(channels[i]) if i < depth - 1 else nn.Identity()
            self.encoder.append(
                nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(channels[i - 1], channels[i], 4, 2, 1), norm)
            )
        self.decoder = nn.ModuleList()
        for i in reversed(range(1, depth)):  # (N, C', H, W) -> (N, C, 2H, 2W)
            wide = 2 if skips == "concat" and i < depth - 1 else 1
            up = upsample_by_2(wide * channels[i], channels[i - 1], upsample, 4)
            noise = nn.Dropout(0.5) if dropout and depth - 4 <= i < depth - 1 else nn.Identity()
            self.decoder.append(nn.Sequential(nn.ReLU(), *up, nn.InstanceNorm2d(channels[i - 1]), noise))
        wide = 2 if skips == "concat" and depth > 1 else 1
        self.last = nn.Sequential(nn.ReLU(), *upsample_by_2(wide * channels[0], 3, upsample, 4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        encoded = []
        for down in self.encoder:
            x = down(x)
            encoded.append(x)
        encoded.pop()  # the middle of the U: nothing to skip
        for up in self.decoder:
            x, same_size = up(x), encoded.pop()
            x = torch.cat([same_size, x], 1) if self.skips == "concat" else x + same_size if self.skips == "add" else x
        return self.last(x)


class PatchDiscriminator(nn.Sequential):
    """Isola et al. 2017: judges each patch of 16, 34, 70 or 142 pixels, (N, C, H, W) -> (N, 1, h, w), not the whole picture.
    Fewer parameters, any size of picture, and it looks at texture, which the L1 losses do not see. No sigmoid: the loss takes
    raw scores. pix2pix shows it the input beside the output, C = 6."""

    def __init__(self, patch: int = 70, width: int = 64, in_channels: int = 3):
        layers = PATCHES[patch]
        channels = [min(width * 2**i, 8 * width) for i in range(layers + 1)]
        blocks = [nn.Conv2d(in_channels, channels[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for i in range(layers):
            stride = 2 if i < layers - 1 else 1
            blocks += [nn.Conv2d(channels[i], channels[i + 1], 4, stride, 1), nn.InstanceNorm2d(channels[i + 1])]
            blocks += [nn.LeakyReLU(0.2, inplace=True)]
        super().__init__(*blocks, nn.Conv2d(channels[-1], 1, 4, 1, 1))


class DcganGenerator(nn.Sequential):
    """Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks":
    noise (N, 100, 1, 1) -> (N, 3, S, S) in -1..1, S a power of 2. With batch norm, as in the paper."""

    noise_channels = 100

    def __init__(self, image_size: int = 64, width: int = 64, upsample: str = "transpose"):
        channels = [
            width * image_size // 8 >> i for i in range(image_size.bit_length() - 3)
        ]  # 64 pixels: 8w, 4w, 2w, w
        layers = [nn.ConvTranspose2d(self.noise_channels, channels[0], 4)]  # (N, 8w, 4, 4)
        for c, half in zip(channels, channels[1:], strict=False):
            layers += [nn.BatchNorm2d(c), nn.ReLU(inplace=True), *upsample_by_2(c, half, upsample, 4)]
        last = [nn.BatchNorm2d(channels[-1]), nn.ReLU(inplace=True), *upsample_by_2(channels[-1], 3, upsample, 4)]
        super().__init__(*layers, *last, nn.Tanh())


class DcganDiscriminator(nn.Sequential):
    """The mirror image of DcganGenerator: (N, 3, S, S) -> (N, 1, 1, 1), a single score."""

    def __init__(self, image_size: int = 64, width: int = 64, norm: Callable[[int], nn.Module] = nn.BatchNorm2d):
        channels = [width << i for i in range(image_size.bit_length() - 3)]
        layers = [nn.Conv2d(3, channels[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for c, double in zip(channels, channels[1:], strict=False):
            layers += [nn.Conv2d(c, double, 4, 2, 1), norm(double), nn.LeakyReLU(0.2, inplace=True)]
        super().__init__(*layers, nn.Conv2d(channels[-1], 1, 4))


# ---- by name ----------------------------------------------------------------------------------------------------------

MODELS = {
    "resnet9": partial(ResnetGenerator, 9),
    "resnet6": partial(ResnetGenerator, 6),
    "resnet3": partial(ResnetGenerator, 3),
    "unet": partial(UnetGenerator, "concat"),
    "unet_add": partial(UnetGenerator, "add"),
    "unet_plain": partial(UnetGenerator, "none"),
    "dcgan": DcganGenerator,
}


def build(arch: str, image_size: int = 256, width: int = 64, upsample: str = "transpose", **more) -> nn.Module:
    """-> the generator of that name, its weights freshly drawn; ends the program if there is none of that name."""
    if arch not in MODELS:
        near = difflib.get_close_matches(arch, MODELS, 1)
        fail(f"no architecture {arch!r};{f' did you mean {near[0]}?' if near else ''} there are: {', '.join(MODELS)}")
    if arch.startswith("unet"):
        more["depth"] = min(8, (image_size & -image_size).bit_length() - 1)  # as often as the size can be halved
        if more["depth"] < 2:
            fail(f"--image-size {image_size}: a U-Net halves the size again and again; take a multiple of 32 or more")
    if arch.startswith("resnet") and image_size % 4:
        fail(f"--image-size {image_size}: a ResNet generator halves the size twice; take a multiple of 4")
    if arch == "dcgan":
        more["image_size"] = power_of_two(image_size)
    return initialise(MODELS[arch](width=width, upsample=upsample, **more))


def power_of_two(image_size: int) -> int:
    if image_size < 8 or image_size & (image_size - 1):
        fail(f"--image-size {image_size}: DCGAN doubles 4 pixels again and again; take 16, 32, 64, 128, ...")
    return image_size


def initialise(model: nn.Module) -> nn.Module:
    """Weights from a normal distribution of standard deviation 0.02, as all three papers have them; biases 0."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
            nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, 0.02)
            nn.init.zeros_(module.bias)
    return model


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def receptive_field(model: nn.Sequential) -> int:
    """The side in pixels of what one unit of the last layer sees, counted back from it: (r - 1) * stride + kernel."""
    side = 1
    for layer in reversed([m for m in model.modules() if isinstance(m, nn.Conv2d)]):
        side = (side - 1) * layer.stride[0] + layer.kernel_size[0]
    return side


def main() -> None:
    if sys.argv[1:]:
        print(build(sys.argv[1], 64 if sys.argv[1] == "dcgan" else 256))
        return
    print(f"{'generator':<14}{'parameters':>12}{'MACs':>18}")
    for arch in MODELS:
        size = 64 if arch == "dcgan" else 256
        model = build(arch, size).eval()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 100, 1, 1) if arch == "dcgan" else torch.zeros(1, 3, size, size))
        print(f"{arch:<14}{count_parameters(model):>12,}{counter.get_total_flops() // 2:>18,}   ({size}x{size} pixels)")
    print(f"{'discriminator':<14}{'parameters':>12}{'sees, pixels':>18}")
    for patch in PATCHES:
        model = PatchDiscriminator(patch)
        print(f"patch {patch:<8}{count_parameters(model):>12,}{receptive_field(model):>18}")


if __name__ == "__main__":
    utils.start(main)
