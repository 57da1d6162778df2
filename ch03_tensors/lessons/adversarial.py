"""Generative adversarial networks in formulas: the minimax game, its best player, its gradients; and what came of it.

python -m lessons adversarial
python -m lessons recurrent                (the next one)

A generator makes pictures from noise, a discriminator must tell them from real ones, and each trains against the other
(Goodfellow et al., 2014). Whole networks are trained in chapter 9; here stand the formulas, in numbers.
"""

import math  # noqa: F401 (for the examples)

import torch
import torch.nn.functional as F
from torch import Tensor

TITLE = "Generative adversarial networks: the game and its uses"
TITLE_ZH = "生成对抗网络：极小极大博弈与应用"
LESSONS = {"9-1": "GAN的基础概念和典型模型介绍（上）", "9-2": "GAN的基础概念和典型模型介绍（下）"}
FORMULAS = {
    "game_value": r"\min_G \max_D \; E_{x \sim p} [\log D(x)] + E_{z} [\log (1 - D(G(z)))]",
    "best_discriminator": r"D^*(x) = \frac{p(x)}{p(x) + q(x)}, \quad V(G, D^*) = 2 \, \mathrm{JS}(p, q) - \log 4",
    "style_norm": r"y = \gamma(s) \, \frac{x - \mu(x)}{\sigma(x)} + \beta(s)",
}


def game_value(d_real: Tensor, d_fake: Tensor) -> Tensor:
    """Two networks want opposite things: one number says who is winning. (9-1)

    The value of the game (极小极大, minimax). D gives the probability that a picture is real; D wants the value large, G
    wants it small. `(N,), (M,) -> ()`, probabilities of real pictures and of made ones.

    >>> sure, lost = torch.tensor([0.99, 0.98]), torch.tensor([0.5, 0.5])
    >>> game_value(sure, 1 - sure), game_value(lost, lost)
    (tensor(-0.0303), tensor(-1.3863))

    -1.3863 is -log 4: D can only guess, and G has won. Turned round, it is twice the binary cross-entropy that programs use:

    >>> d = torch.cat([sure, 1 - sure])
    >>> -2 * F.binary_cross_entropy(d, torch.tensor([1.0, 1.0, 0.0, 0.0]))
    tensor(-0.0303)
    """
    return d_real.log().mean() + (1 - d_fake).log().mean()


def best_discriminator(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """What does the generator really make smaller? Give it the best opponent and see. (9-1)

    Where real pictures have probability p and made ones q, the best D answers p / (p + q). Against it the value is
    2 JS(p, q) - log 4, with the Jensen-Shannon divergence: it is smallest, -log 4, only if q equals p.
    `(K,), (K,) -> D (K,), value ()`.

    >>> p, q = torch.tensor([0.5, 0.4, 0.1]), torch.tensor([0.1, 0.4, 0.5])
    >>> d, value = best_discriminator(p, q)
    >>> d
    tensor([0.8333, 0.5000, 0.1667])
    >>> middle = (p + q) / 2
    >>> js = ((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2
    >>> torch.allclose(value, 2 * js - math.log(4)), best_discriminator(p, p)[1]
    (True, tensor(-1.3863))

    No other D has a larger value:

    >>> others = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))
    >>> bool(((p * others.log() + q * (1 - others).log()).sum(dim=1) < value).all())
    True
    """
    d = p / (p + q)
    return d, (p * d.log() + q * (1 - d).log()).sum()


def generator_slopes(score: float) -> tuple[float, float]:
    """At the start every fake is found out, and just then the generator must learn: which loss lets it? (9-1)

    The slope of the generator's loss by the discriminator's score s of a fake, D = sigmoid(s). log(1 - D), as in the
    formula, is flat where D is sure (it saturates); -log D, which programs use instead, is steep there.

    >>> for score in (-6.0, 0.0, 6.0):
    ...     print(f"D = {torch.sigmoid(torch.tensor(score)):.3f}", *(f"{slope:.3f}" for slope in generator_slopes(score)))
    D = 0.002 -0.002 -0.998
    D = 0.500 -0.500 -0.500
    D = 0.998 -0.998 -0.002
    """
    slopes = []
    for loss in (lambda s: torch.log(1 - torch.sigmoid(s)), lambda s: -torch.log(torch.sigmoid(s))):
        s = torch.tensor(score, requires_grad=True)
        loss(s).backward()
        slopes.append(s.grad.item())
    return slopes[0], slopes[1]


def style_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """What are GANs good for? Faces that nobody has, with hair, light and pose to choose one by one. (9-2)

    Other uses: photographs from drawings and day to night (pix2pix, CycleGAN, chapter 9), larger pictures from small
    ones (SRGAN), holes filled in, more training data where it is rare, and also forgeries. Since about 2021 diffusion
    models have taken over much of it: they train more calmly, and draw more slowly.

    StyleGAN (Karras et al., 2019) puts a style vector into every layer: it takes away each channel's own mean and
    deviation (InstanceNorm) and gives it those that the style asks for (AdaIN, Huang and Belongie, 2017). Early layers
    then decide pose and shape, late ones colour. `(N, C, H, W), (N, C), (N, C) -> (N, C, H, W)`.

    >>> x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 5 + 2
    >>> scale, shift = torch.tensor([[1.0, 2.0, 3.0]] * 2), torch.tensor([[0.0, 10.0, -10.0]] * 2)
    >>> y = style_norm(x, scale, shift)
    >>> torch.allclose(y.mean((2, 3)), shift, atol=1e-4), torch.allclose(y.std((2, 3), correction=0), scale, atol=1e-3)
    (True, True)
    """
    return F.instance_norm(x) * scale[..., None, None] + shift[..., None, None]


def truncated_noise(count: int, limit: float, seed: int) -> Tensor:
    """Rare noise makes odd pictures: keep to the usual, and pictures get better and more alike. (9-2)

    BigGAN (Brock et al., 2019) draws large pictures of a thousand classes: large batches, many channels, the class told
    to every layer by its normalisation. When drawing, its truncation trick draws each number of the noise again until
    it is within the limit: one number to trade variety for quality. `-> (count,)`.

    >>> for limit in (2.0, 1.0, 0.5):
    ...     z = truncated_noise(10_000, limit, seed=0)
    ...     print(f"limit {limit}: largest {z.abs().max():.2f}, standard deviation {z.std():.2f}")
    limit 2.0: largest 2.00, standard deviation 0.87
    limit 1.0: largest 1.00, standard deviation 0.54
    limit 0.5: largest 0.50, standard deviation 0.28
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, generator=generator)
    while (far := z.abs() > limit).any():
        z[far] = torch.randn(int(far.sum()), generator=generator)
    return z
