"""What the first weights decide: symmetry, explosion, and the scale that keeps a signal alive.

python -m lessons initialisation
python -m lessons tools                    (the next one)
"""

import math

import torch
from torch import Tensor, nn

TITLE = "Initialisation and symmetry"
TITLE_ZH = "初始化网络参数与对称性"
LESSONS = {"3-34": "Pytorch与nn库"}
FORMULAS = {
    "xavier_uniform": r"w \sim U\left(-\sqrt{\frac{6}{n_{in} + n_{out}}}, \sqrt{\frac{6}{n_{in} + n_{out}}}\right)",
    "he_normal": r"w \sim N\left(0, \frac{2}{n_{in}}\right)",
}


def xavier_uniform(shape: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
    """A signal should be as large behind a tanh layer as before it, and the gradient too. (3-34)

    Uniform on +-sqrt(6 / (in + out)): variance 2 / (in + out), for tanh. Glorot and Bengio, 2010.

    >>> weight = xavier_uniform((300, 500), torch.Generator().manual_seed(0))
    >>> print(f"variance {weight.var():.6f}, wanted {2 / 800:.6f}, torch's {nn.init.xavier_uniform_(weight).var():.4f}")
    variance 0.002499, wanted 0.002500, torch's 0.0025
    """
    bound = math.sqrt(6 / sum(shape))
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound


def he_normal(shape: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
    """ReLU throws half of the signal away: the first weights must make up for it. (3-34)

    Normal with variance 2 / in, for ReLU, which lets half of the signal through. He et al., 2015.

    >>> weight = he_normal((300, 500), torch.Generator().manual_seed(0))
    >>> print(f"variance {weight.var():.4f}, wanted {2 / 500:.4f}, torch's {nn.init.kaiming_normal_(weight).var():.4f}")
    variance 0.0040, wanted 0.0040, torch's 0.0040
    """
    return torch.randn(shape, generator=generator) * math.sqrt(2 / shape[1])


def signal_after(depth: int, std: float, width: int = 500, seed: int = 0) -> float:
    """Twenty layers multiply a small mistake in scale twenty times: look at what is left. (3-34)

    The standard deviation of a signal after `depth` ReLU layers with weights N(0, std).

    Too large, it explodes; too small, it dies; sqrt(2 / width) keeps it. (The note's own case is a mean of 0.5 and 500
    inputs: each layer then multiplies by about 250.)

    >>> for std in (0.1, 0.01, math.sqrt(2 / 500)):
    ...     print(f"{std:.4f}", [f"{signal_after(depth, std):.0e}" for depth in (1, 5, 20)])
    0.1000 ['1e+00', '1e+01', '8e+03']
    0.0100 ['1e-01', '1e-04', '8e-17']
    0.0632 ['9e-01', '1e+00', '9e-01']
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(width, generator=generator)
    for _ in range(depth):
        x = torch.relu(torch.randn(width, width, generator=generator) @ x * std)
    return x.std().item()


def distinct_units(first_weight: Tensor, steps: int = 100) -> int:
    """All weights zero sounds neutral; it makes a layer of 100 units worth one. (3-34)

    How many different hidden units a network has after training from `first_weight`, `(H, D) -> int`.

    Equal units get equal gradients and stay equal for ever: a layer of 100 is then worth one. That is the symmetry
    (对称性) that random weights break.

    >>> distinct_units(torch.zeros(4, 2)), distinct_units(torch.ones(4, 2))
    (1, 1)
    >>> distinct_units(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    4

    All zero is worse still: the hidden units start at tanh(0) = 0, and where both layers are 0 nothing but the last
    bias ever gets a gradient.

    >>> hidden, out = nn.Linear(2, 4), nn.Linear(4, 1)
    >>> for p in (*hidden.parameters(), *out.parameters()):
    ...     _ = nn.init.zeros_(p)
    >>> out(torch.tanh(hidden(torch.ones(1, 2)))).sub(3).square().sum().backward()
    >>> [p.grad.abs().sum().item() for p in (hidden.weight, hidden.bias, out.weight, out.bias)]
    [0.0, 0.0, 0.0, 6.0]
    """
    hidden, out = nn.Linear(first_weight.shape[1], len(first_weight)), nn.Linear(len(first_weight), 1)
    with torch.no_grad():
        hidden.weight.copy_(first_weight)
        hidden.bias.zero_()
        out.weight.fill_(1.0)
    x = torch.randn(32, first_weight.shape[1], generator=torch.Generator().manual_seed(1))
    y = x.prod(dim=1, keepdim=True)
    parameters = [*hidden.parameters(), *out.parameters()]
    for _ in range(steps):
        loss = (out(torch.tanh(hidden(x))) - y).square().mean()
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.data -= 0.1 * gradient
    return len({tuple(row.tolist()) for row in hidden.weight.detach().mul(1e4).round()})
