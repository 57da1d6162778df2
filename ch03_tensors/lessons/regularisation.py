"""Against overfitting: L1, L2, dropout.

python -m lessons regularisation
python -m lessons classification           (the next one)
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

TITLE = "Regularisation"
TITLE_ZH = "正则化与 Dropout"
LESSONS = {"5-7": "激活层-BN层-FC层-损失层", "5-14": "卷积神经网添加正则化"}
FORMULAS = {
    "l1_penalty": r"\lambda \sum_i |p_i|",
    "l2_penalty": r"\frac{\lambda}{2} \sum_i p_i^2",
}


def l1_penalty(parameters: Iterable[Tensor], strength: float) -> Tensor:
    """A model that uses five of a hundred columns can be explained. (5-14)

    strength * the sum of |p|: as steep near zero as far off, so that it pulls on to zero. `-> ()`.

    >>> w = torch.tensor([0.5, -2.0], requires_grad=True)
    >>> l1_penalty([w], 0.1).backward()
    >>> w.grad
    tensor([ 0.1000, -0.1000])
    """
    return strength * sum(p.abs().sum() for p in parameters)


def l2_penalty(parameters: Iterable[Tensor], strength: float) -> Tensor:
    """Huge weights fit the noise; a price on their size keeps the model smooth. (5-14)

    strength / 2 * the sum of p^2: its slope is strength * p, which pulls large weights most. `-> ()`.

    For plain SGD that is the optimizer's `weight_decay`:

    >>> def one_step(weight_decay, strength):
    ...     w = nn.Parameter(torch.tensor([0.5, -2.0]))
    ...     (w.sum() + l2_penalty([w], strength)).backward()
    ...     torch.optim.SGD([w], lr=0.1, weight_decay=weight_decay).step()
    ...     return w.detach()
    >>> one_step(weight_decay=0.3, strength=0.0), one_step(weight_decay=0.0, strength=0.3)
    (tensor([ 0.3850, -2.0400]), tensor([ 0.3850, -2.0400]))
    """
    return strength / 2 * sum(p.square().sum() for p in parameters)


def fit_many_features(penalty: str, strength: float) -> Tensor:
    """See on one example what the two penalties do to useless features. (5-14)

    A regression with 20 features of which 3 count, 40 samples; the weights found. `-> (20,)`.

    L1 sets most of the idle weights to zero (sparse, 稀疏: it selects features), L2 only makes them small. For an exact
    zero, the step of L1 is a shrinkage (soft threshold, the proximal gradient), not a slope that jumps over zero.

    >>> for penalty, strength in (("none", 0.0), ("l1", 0.1), ("l2", 0.1)):
    ...     w = fit_many_features(penalty, strength)
    ...     zeros, idle = int((w == 0).sum()), w[3:].abs().mean()
    ...     print(f"{penalty:<4} zeros {zeros:>2}, idle weights {idle:.3f}, first weight {w[0]:.2f}")
    none zeros  0, idle weights 0.097, first weight 2.25
    l1   zeros 13, idle weights 0.015, first weight 1.97
    l2   zeros  0, idle weights 0.091, first weight 1.78
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 20, generator=generator, dtype=torch.float64)
    truth = torch.zeros(20, dtype=torch.float64)
    truth[:3] = torch.tensor([2.0, -3.0, 1.0], dtype=torch.float64)
    y = x @ truth + 0.5 * torch.randn(40, generator=generator, dtype=torch.float64)
    w, lr = torch.zeros(20, dtype=torch.float64), 0.1
    for _ in range(2000):
        gradient = x.T @ (x @ w - y) / len(x)
        if penalty == "l2":
            gradient = gradient + strength * w
        w = w - lr * gradient
        if penalty == "l1":
            w = w.sign() * (w.abs() - lr * strength).clamp(min=0)
    return w


class Dropout(nn.Module):
    """Units that rely on one another fail together on new data. (5-7, 5-14)

    Sets each value to 0 with probability p in training. Srivastava et al., 2014. Same shape.

    What stays is divided by 1 - p, so that the expected value is the same, and in evaluation nothing is done. Usual
    after full connections, with p from 0.3 to 0.5.

    >>> layer, x = Dropout(0.5), torch.ones(10_000)
    >>> torch.manual_seed(0).initial_seed()
    0
    >>> y = layer(x)
    >>> y.unique(), round(y.mean().item(), 2)
    (tensor([0., 2.]), 0.99)
    >>> torch.equal(layer.eval()(x), x)
    True

    With the same random numbers it is torch's:

    >>> _ = torch.manual_seed(1), layer.train()
    >>> first = layer(x)
    >>> _ = torch.manual_seed(1)
    >>> torch.equal(first, nn.functional.dropout(x, 0.5))
    True
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.empty_like(x).bernoulli_(1 - self.p)
        return x * keep / (1 - self.p)


def polynomial_errors(degree: int, strength: float) -> tuple[float, float]:
    """A perfect score on the training data may be the worst model: see it once in numbers. (5-14)

    Underfitting and overfitting: errors (root mean square) on 10 training and 200 new points of a sine.

    A line is too stiff, degree 9 goes through every noisy point and errs between them; the L2 penalty tames it. The new
    points carry no noise: there the error is the distance from the sine itself, so that it can be smaller than the error
    on the training points, as with degrees 1 and 3.

    >>> for degree, strength in ((1, 0.0), (3, 0.0), (9, 0.0), (9, 1e-3)):
    ...     train, new = polynomial_errors(degree, strength)
    ...     print(f"degree {degree}, L2 {strength:<5}  training {train:.2f}  new {new:.2f}")
    degree 1, L2 0.0    training 0.62  new 0.45
    degree 3, L2 0.0    training 0.17  new 0.13
    degree 9, L2 0.0    training 0.00  new 0.43
    degree 9, L2 0.001  training 0.12  new 0.18
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(-1, 1, 10, dtype=torch.float64)
    y = torch.sin(3 * x) + 0.2 * torch.randn(10, generator=generator, dtype=torch.float64)
    new_x = torch.linspace(-1, 1, 200, dtype=torch.float64)
    powers, new_powers = (t.unsqueeze(1) ** torch.arange(degree + 1) for t in (x, new_x))
    # with L2 the least squares have one more row for each weight: sqrt(strength) * w = 0
    rows = torch.cat([powers, strength**0.5 * torch.eye(degree + 1, dtype=torch.float64)])
    w = torch.linalg.lstsq(rows, torch.cat([y, torch.zeros(degree + 1, dtype=torch.float64)])).solution
    errors = (powers @ w - y, new_powers @ w - torch.sin(3 * new_x))
    return tuple(error.square().mean().sqrt().item() for error in errors)
