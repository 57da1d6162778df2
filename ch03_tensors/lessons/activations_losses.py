"""Activations and losses, each from its formula, each equal to torch's.

    python -m lessons activations_losses       (with a picture)
    python -m lessons normalisation            (the next one)

Losses average over the batch, as torch's do by default: with a batch twice as large the gradient stays as large.
"""

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: F401 (for the examples)
from torch import Tensor, nn  # noqa: F401 (for the examples)

TITLE = "Activations and losses"
TITLE_ZH = "激活函数与损失函数"
LESSONS = {"3-34": "Pytorch与nn库", "5-7": "激活层-BN层-FC层-损失层"}
FORMULAS = {
    "sigmoid": r"\sigma(z) = \frac{1}{1 + e^{-z}}, \quad \sigma'(z) = \sigma(z) (1 - \sigma(z))",
    "tanh": r"\tanh z = \frac{e^z - e^{-z}}{e^z + e^{-z}}",
    "relu": r"\mathrm{relu}(z) = \max(0, z)",
    "log_softmax": r"\log \mathrm{softmax}(z)_k = z_k - \log \sum_j e^{z_j}",
    "l1_loss": r"L = \frac{1}{N} \sum_i |x_i - y_i|",
    "mse_loss": r"L = \frac{1}{N} \sum_i (x_i - y_i)^2",
    "cross_entropy": r"L = -\frac{1}{N} \sum_i \log \mathrm{softmax}(z_i)_{y_i}, \quad "
    r"\frac{\partial L}{\partial z} = \frac{1}{N} (\mathrm{softmax}(z) - y)",
    "bce_loss": r"L = -\frac{1}{N} \sum_i \left( t_i \log p_i + (1 - t_i) \log (1 - p_i) \right)",
}
FIGURES = {"hardswish": "draw_activations"}


def sigmoid(z: Tensor) -> Tensor:
    """To turn any number into a probability of yes, or a gate between shut and open. (3-34, 5-7)

    1 / (1 + e^-z): values in (0, 1), derivative a (1 - a) of at most 0.25. Any shape.

    Written with e^z for negative z, so that the exponential never overflows.

    >>> z = torch.tensor([-1000.0, -1.0, 0.0, 1.0], requires_grad=True)
    >>> sigmoid(z).detach(), F.sigmoid(z).detach()
    (tensor([0.0000, 0.2689, 0.5000, 0.7311]), tensor([0.0000, 0.2689, 0.5000, 0.7311]))
    >>> sigmoid(z).sum().backward()
    >>> z.grad
    tensor([0.0000, 0.1966, 0.2500, 0.1966])
    """
    e = torch.exp(torch.where(z >= 0, -z, z))  # -z.abs() has no derivative at 0, and autograd would take 0 there
    return torch.where(z >= 0, 1 / (1 + e), e / (1 + e))


def tanh(z: Tensor) -> Tensor:
    """A hidden value around 0 trains more easily than one that is always positive. (3-34, 5-7)

    (e^z - e^-z) / (e^z + e^-z) = 2 sigmoid(2z) - 1: values in (-1, 1) around 0, derivative 1 - a^2.

    >>> z = torch.tensor([-1.0, 0.0, 3.0], requires_grad=True)
    >>> tanh(z).detach(), torch.tanh(z).detach()
    (tensor([-0.7616,  0.0000,  0.9951]), tensor([-0.7616,  0.0000,  0.9951]))
    >>> tanh(z).sum().backward()
    >>> z.grad
    tensor([0.4200, 1.0000, 0.0099])
    """
    return 2 * sigmoid(2 * z) - 1


def relu(z: Tensor) -> Tensor:
    """The gradient should pass through many layers without shrinking; and it should be cheap. (3-34, 5-7)

    max(0, z): derivative 1 for positive z, 0 for negative; at 0 torch takes 0.

    >>> z = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    >>> relu(z).detach()
    tensor([0., 0., 3.])
    >>> relu(z).sum().backward()
    >>> z.grad
    tensor([0., 0., 1.])
    """
    return torch.where(z > 0, z, torch.zeros_like(z))


def leaky_relu(z: Tensor, slope: float = 0.01) -> Tensor:
    """A ReLU whose input is always negative is dead for ever: leave it a small slope. (3-34, 5-7)

    z or slope * z: a unit whose input is always negative still learns.

    >>> leaky_relu(torch.tensor([-2.0, 3.0])), F.leaky_relu(torch.tensor([-2.0, 3.0]))
    (tensor([-0.0200,  3.0000]), tensor([-0.0200,  3.0000]))
    """
    return torch.where(z > 0, z, slope * z)


def hardswish(z: Tensor) -> Tensor:
    """Phones cannot afford an exponential in each activation. (5-7)

    z * clamp(z + 3, 0, 6) / 6, the cheap swish of MobileNetV3 (Howard et al. 2019).

    >>> z = torch.tensor([-4.0, -1.0, 4.0])
    >>> hardswish(z), F.hardswish(z)
    (tensor([-0.0000, -0.3333,  4.0000]), tensor([-0.0000, -0.3333,  4.0000]))
    """
    return z * (z + 3).clamp(0, 6) / 6


def draw_activations(folder: Path) -> Path:
    """The activations and their derivatives."""
    from matplotlib.figure import Figure

    z = torch.linspace(-5, 5, 301, requires_grad=True)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    values, slopes = figure.subplots(1, 2)
    for function in (sigmoid, tanh, relu, leaky_relu, hardswish):
        a = function(z)
        (slope,) = torch.autograd.grad(a.sum(), z)
        values.plot(z.detach(), a.detach(), label=function.__name__)
        slopes.plot(z.detach(), slope, label=function.__name__)
    values.set(title="activation", ylim=(-1.2, 3))
    slopes.set(title="derivative")
    values.legend()
    figure.savefig(folder / "activations.png", dpi=110)
    return folder / "activations.png"


def log_softmax(z: Tensor) -> Tensor:
    """K scores should become K probabilities that sum to 1, without overflow on the way. (5-7)

    z_k - log sum_j e^(z_j), `(N, K) -> (N, K)`; softmax is its exponential.

    The notes' outputs 3, 1, -3 as probabilities:

    >>> z = torch.tensor([[3.0, 1.0, -3.0]])
    >>> log_softmax(z).exp(), F.softmax(z, dim=1)
    (tensor([[0.8789, 0.1189, 0.0022]]), tensor([[0.8789, 0.1189, 0.0022]]))

    Subtracting the largest first changes nothing in the result, and keeps e^1000 away:

    >>> log_softmax(torch.tensor([[1000.0, 0.0]])), torch.tensor([1000.0]).exp()
    (tensor([[    0., -1000.]]), tensor([inf]))
    """
    shifted = z - z.amax(dim=-1, keepdim=True).detach()
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()


def l1_loss(x: Tensor, y: Tensor) -> Tensor:
    """If some targets are wrong, they should not decide the fit. (3-34, 5-7)

    The mean of |x - y|: an outlier pulls no harder than any other sample.

    >>> x, y = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 4.0, 0.0])
    >>> l1_loss(x, y), F.l1_loss(x, y)
    (tensor(2.6667), tensor(2.6667))
    """
    return (x - y).abs().mean()


def mse_loss(x: Tensor, y: Tensor) -> Tensor:
    """Large errors are worse than many small ones: the usual loss of a regression. (3-34, 5-7)

    The mean of (x - y)^2: an outlier pulls in proportion to its distance.

    >>> x, y = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 4.0, 0.0])
    >>> mse_loss(x, y), F.mse_loss(x, y)
    (tensor(13.3333), tensor(13.3333))

    `nn.MSELoss` is the same as a module: made once with its settings, then called. `nn.L1Loss` likewise.

    >>> nn.MSELoss()(x, y), nn.MSELoss(reduction="none")(x, y)
    (tensor(13.3333), tensor([ 0.,  4., 36.]))
    """
    return (x - y).square().mean()


def nll_loss(log_probabilities: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """How surprised is the model by the right answer? The less, the better. (3-34, 5-7)

    Negative log-likelihood: minus the log-probability of the right class. `(N, K), (N,) -> ()`.

    With a weight for each class, the mean is a weighted mean: divided by the weights that were used, not by N.

    >>> log_p = log_softmax(torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]))
    >>> labels, weight = torch.tensor([1, 2]), torch.tensor([1.0, 2.0, 5.0])
    >>> nll_loss(log_p, labels), F.nll_loss(log_p, labels)
    (tensor(0.7531), tensor(0.7531))
    >>> nll_loss(log_p, labels, weight), F.nll_loss(log_p, labels, weight)
    (tensor(0.9012), tensor(0.9012))
    """
    picked = log_probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
    weights = torch.ones_like(picked) if weight is None else weight[labels]
    return -(weights * picked).sum() / weights.sum()


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """The loss of nearly every classifier: it takes raw scores, so that nothing overflows. (3-34, 5-7)

    log_softmax, then NLL: the loss for one class out of K, from raw outputs. `(N, K), (N,) -> ()`.

    >>> logits, labels = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([1, 2])
    >>> cross_entropy(logits, labels), F.cross_entropy(logits, labels)
    (tensor(0.7531), tensor(0.7531))

    `nn.CrossEntropyLoss` is the same as a module. It takes the raw scores: no softmax before it.

    >>> criterion = nn.CrossEntropyLoss()
    >>> criterion(logits, labels), criterion(logits.softmax(1), labels)
    (tensor(0.7531), tensor(0.9479))

    An untrained network with K classes starts near log K: 1.0986 for 3, 2.3026 for 10.

    >>> cross_entropy(torch.zeros(1, 10), torch.tensor([3]))
    tensor(2.3026)

    Its gradient is softmax - one_hot, over N: bounded, and zero only for a sure right answer.

    >>> z = logits.clone().requires_grad_()
    >>> cross_entropy(z, labels).backward()
    >>> torch.allclose(z.grad, (logits.softmax(1) - F.one_hot(labels, 3)) / 2, atol=1e-6)
    True
    """
    return nll_loss(log_softmax(logits), labels, weight)


def bce_loss(p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Yes or no, or several labels at once: each output is a question of its own. (3-34, 5-7)

    Binary cross-entropy of probabilities: -mean(t log p + (1 - t) log(1 - p)). Same shapes `-> ()`.

    >>> p, t = torch.tensor([0.9, 0.2, 0.5]), torch.tensor([1.0, 0.0, 1.0])
    >>> bce_loss(p, t), F.binary_cross_entropy(p, t)
    (tensor(0.3406), tensor(0.3406))

    p = 0 where t = 1 would be infinite; torch cuts the logarithm off at -100, and so does this.

    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> bce_loss(zero, one), F.binary_cross_entropy(zero, one)
    (tensor(100.), tensor(100.))
    """
    loss = -(target * p.log().clamp(min=-100) + (1 - target) * (1 - p).log().clamp(min=-100))
    return (loss if weight is None else weight * loss).mean()


def bce_with_logits(z: Tensor, target: Tensor) -> Tensor:
    """A probability rounded to 0 or 1 has no logarithm: compute the loss from raw scores. (5-7)

    The same from raw outputs: max(z, 0) - z t + log(1 + e^-|z|), which no z overflows. Same shapes `-> ()`.

    >>> z, t = torch.tensor([2.0, -500.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    >>> bce_with_logits(z, t), F.binary_cross_entropy_with_logits(z, t)
    (tensor(166.9400), tensor(166.9400))
    """
    minus_abs = torch.where(z >= 0, -z, z)
    positive = torch.where(z >= 0, z, torch.zeros_like(z))  # at 0 this and minus_abs must take the same side
    return (positive - z * target + torch.log1p(torch.exp(minus_abs))).mean()


def backward_through(depth: int, activation: str) -> float:
    """Deep networks did not train for decades; this number shows why. (5-7)

    Gradient of the input after `depth` layers of one unit, weight 1: saturation (饱和) in one number.

    Sigmoid's derivative is at most 1/4, so that each layer takes away three quarters or more; ReLU takes nothing.

    >>> [f"{backward_through(10, name):.0e}" for name in ("sigmoid", "tanh", "relu")]
    ['3e-07', '4e-02', '1e+00']
    """
    function = {"sigmoid": sigmoid, "tanh": tanh, "relu": relu}[activation]
    x = torch.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(depth):
        y = function(y)
    y.backward()
    return x.grad.item()
