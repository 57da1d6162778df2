"""Optimizers by hand, learning-rate schedules, batch sizes, and the search for good settings.

    python -m lessons optimisation             (with a picture)
    python -m lessons regularisation           (the next one)

SGD, RMSprop and Adam here are the ones that train.py uses.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

TITLE = "Learning rate, optimizers, batch size, search"
TITLE_ZH = "学习率、优化器、BatchSize 与调参"
LESSONS = {"5-12": "学习率", "5-13": "优化器"}
FORMULAS = {
    "cosine_schedule": r"\eta_t = \frac{\eta_0}{2} \left( 1 + \cos \frac{\pi t}{T} \right)",
    "warmup_schedule": r"\eta_t = \eta_0 \frac{t + 1}{T_w} \; (t < T_w), \quad "
    r"\eta_t = \frac{\eta_0}{2} \left( 1 + \cos \frac{\pi (t - T_w)}{T - T_w} \right)",
    "SGD": r"v \leftarrow m v + g, \quad p \leftarrow p - \eta v",
    "AdaGrad": r"s \leftarrow s + g^2, \quad p \leftarrow p - \eta \frac{g}{\sqrt{s} + \epsilon}",
    "RMSprop": r"s \leftarrow \alpha s + (1-\alpha) g^2, \quad p \leftarrow p - \eta \frac{g}{\sqrt{s} + \epsilon}",
    "Adam": r"m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad "
    r"p \leftarrow p - \eta \frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \epsilon}",
    "AdamW": r"p \leftarrow (1 - \eta d) \, p - \eta \frac{\hat{m}}{\sqrt{\hat{v}} + \epsilon}",
}
FIGURES = {"plateau_schedule": "draw_schedules", "down_the_ravine": "draw_paths"}


# ---- 5-12: the learning rate ---------------------------------------------------------------------------------------


def steps_to_reach(lr: float, target: float = 1e-3, limit: int = 1000) -> int | None:
    """The learning rate decides first: too small never arrives, too large is lost. (5-12)

    Steps of gradient descent on x^2 / 2 from 1 until |x| < target; None: never within the limit.

    The slope is x, so that a step multiplies x by 1 - lr: slow if lr is small, oscillating above 1, lost from 2 on.

    >>> {lr: steps_to_reach(lr) for lr in (0.001, 0.01, 0.1, 0.9, 1.5, 1.95, 2.0)}
    {0.001: None, 0.01: 688, 0.1: 66, 0.9: 3, 1.5: 10, 1.95: 135, 2.0: None}
    """
    x = 1.0
    for step in range(1, limit + 1):
        x -= lr * x
        if abs(x) < target:
            return step
    return None


def step_schedule(base_lr: float, epoch: int, step_size: int, gamma: float) -> float:
    """Large steps at first, small ones near the end: the simplest plan. (5-12)

    The learning rate times gamma after every `step_size` epochs, as StepLR.

    >>> [round(step_schedule(0.1, epoch, step_size=2, gamma=0.5), 4) for epoch in range(6)]
    [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> rates = []
    >>> for epoch in range(6):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 4))
    ...     optimizer.step()
    ...     scheduler.step()
    >>> rates
    [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    """
    return base_lr * gamma ** (epoch // step_size)


def exponential_schedule(base_lr: float, epoch: int, gamma: float) -> float:
    """A little smaller after every epoch, without jumps. (5-12)

    StepLR with a step of one epoch, the notes' `StepLR(optimizer, step_size=1, gamma=0.9)`.

    >>> [round(exponential_schedule(0.1, epoch, 0.9), 4) for epoch in range(4)]
    [0.1, 0.09, 0.081, 0.0729]
    """
    return step_schedule(base_lr, epoch, 1, gamma)


def cosine_schedule(base_lr: float, epoch: int, epochs: int) -> float:
    """One number to choose, the number of epochs, and good results: today's usual plan. (5-12)

    Half a cosine from base_lr to 0: long near the top, gentle at the end. Loshchilov and Hutter, 2016.

    >>> [round(cosine_schedule(0.1, epoch, 4), 4) for epoch in range(5)]
    [0.1, 0.0854, 0.05, 0.0146, 0.0]
    """
    return base_lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def warmup_schedule(base_lr: float, step: int, warmup: int, steps: int) -> float:
    """The first gradients of fresh weights are large and say little: do not run after them. (5-12)

    Warm-up (预热): the rate rises in a straight line for some steps, then falls along half a cosine. Goyal et al., 2017.

    Transformers are trained so: Adam's first steps have full length whatever the gradient is, since its averages know
    one gradient only (`Adam` below), and LayerNorm and attention are still far from where they work well. A few
    hundred steps, or a few percent of the training, are usual.

    >>> [round(warmup_schedule(0.1, step, warmup=4, steps=12), 3) for step in range(13)]
    [0.025, 0.05, 0.075, 0.1, 0.1, 0.096, 0.085, 0.069, 0.05, 0.031, 0.015, 0.004, 0.0]

    torch puts it together from two schedules:

    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> rising = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=3)
    >>> falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    >>> scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, falling], milestones=[4])
    >>> rates = []
    >>> for step in range(12):
    ...     rates.append(optimizer.param_groups[0]["lr"])
    ...     optimizer.step()
    ...     scheduler.step()
    >>> all(abs(rate - warmup_schedule(0.1, step, 4, 12)) < 1e-9 for step, rate in enumerate(rates))
    True
    """
    if step < warmup:
        return base_lr * (step + 1) / warmup
    return cosine_schedule(base_lr, step - warmup, steps - warmup)


def plateau_schedule(losses: list[float], base_lr: float, factor: float = 0.5, patience: int = 2) -> list[float]:
    """Who does not know how long a training will take can let the loss decide when to take smaller steps. (5-12)

    The rate after each epoch's validation loss: times `factor` when `patience` epochs in a row and one more were not
    better, as ReduceLROnPlateau. `(E,) -> (E,)`.

    Better means by one part in ten thousand at least. After a cut the count begins again.

    >>> losses = [3.0, 2.0, 1.5, 1.6, 1.5, 1.7, 1.4, 1.4, 1.4, 1.4, 1.4]
    >>> plateau_schedule(losses, 0.1)
    [0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025]
    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    >>> rates = []
    >>> for loss in losses:
    ...     scheduler.step(loss)
    ...     rates.append(optimizer.param_groups[0]["lr"])
    >>> rates == plateau_schedule(losses, 0.1)
    True
    """
    rates, best, waited = [], math.inf, 0
    for loss in losses:
        if loss < best * (1 - 1e-4):
            best, waited = loss, 0
        else:
            waited += 1
        if waited > patience:
            base_lr, waited = base_lr * factor, 0
        rates.append(base_lr)
    return rates


def draw_schedules(folder: Path) -> Path:
    """The plans for the learning rate, side by side. The plateau has no plan: where the loss has stopped
    falling, the rate is halved, again and again until it falls."""
    from matplotlib.figure import Figure

    losses = [2.0 * 0.9 ** min(t, 12) * 0.97 ** max(0, min(t, 30) - 16) for t in range(40)]
    plans = {
        "step": [step_schedule(0.1, t, step_size=10, gamma=0.5) for t in range(40)],
        "exponential": [exponential_schedule(0.1, t, gamma=0.9) for t in range(40)],
        "warm-up and cosine": [warmup_schedule(0.1, t, warmup=5, steps=40) for t in range(40)],
        "plateau": plateau_schedule(losses, 0.1),
    }
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axis, (name, rates) in zip(figure.subplots(1, 4, sharey=True), plans.items(), strict=True):
        axis.step(range(40), rates, where="post")
        axis.set(title=name, xlabel="epoch", ylim=(0, 0.11))
    figure.axes[0].set(ylabel="learning rate")
    figure.axes[-1].plot(
        range(40), [0.04 * loss for loss in losses], color="gray", linestyle=":", label="loss (scaled)"
    )
    figure.axes[-1].legend(fontsize=8)
    figure.savefig(folder / "schedules.png", dpi=110)
    return folder / "schedules.png"


# ---- 5-13: optimizers ----------------------------------------------------------------------------------------------


class Optimizer:
    """All optimizers differ in one line only; the rest can be shared. (5-13)

    What all optimizers share: the parameters, a learning rate, and what is remembered of each parameter.

    A kind of optimizer says only how a gradient becomes a step: `update(gradient, state) -> same shape`. All of them
    make p <- p - lr * step. `weight_decay` adds d * p to the gradient, which is L2 regularisation.

    >>> p = nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> optimizer = SGD([p], lr=0.1)
    >>> p.square().sum().backward()
    >>> optimizer.step()
    >>> p.data
    tensor([0.8000, 1.6000])
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0):
        self.parameters = list(parameters)
        self.lr, self.weight_decay = lr, weight_decay
        self.state: list[dict] = [{} for _ in self.parameters]

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for p, state in zip(self.parameters, self.state, strict=True):
            if p.grad is not None:
                p -= self.lr * self.update(p.grad + self.weight_decay * p, state)

    def update(self, gradient: Tensor, state: dict) -> Tensor:
        raise NotImplementedError

    def state_dict(self) -> dict:
        """What a resumed training needs: tensors and numbers."""
        return {"lr": self.lr, "state": self.state}

    def load_state_dict(self, saved: dict) -> None:
        self.lr = saved["lr"]
        for p, state, values in zip(self.parameters, self.state, saved["state"], strict=True):
            for name, value in values.items():
                state[name] = value.to(p.device, copy=True) if torch.is_tensor(value) else value


class SGD(Optimizer):
    """In a narrow valley plain descent swings from side to side: momentum averages that away. (5-13)

    Gradient descent with momentum (动量): v <- m v + g, p <- p - lr v. Polyak, 1964.

    Where gradients agree, v grows up to 1 / (1 - m) times; where they turn about, they cancel. `nesterov` looks one
    step of momentum ahead.

    >>> path = down_the_ravine(lambda parameters: SGD(parameters, lr=0.1, momentum=0.9), steps=20)
    >>> reference = down_the_ravine(lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9), steps=20)
    >>> (path - reference).abs().max().item() < 1e-10
    True
    """

    def __init__(self, parameters, lr: float = 0.01, momentum: float = 0.0, weight_decay: float = 0.0, nesterov=False):
        super().__init__(parameters, lr, weight_decay)
        self.momentum, self.nesterov = momentum, nesterov

    def update(self, gradient: Tensor, state: dict) -> Tensor:
        if not self.momentum:
            return gradient
        if not state:
            state["velocity"] = torch.zeros_like(gradient)
        velocity = state["velocity"].mul_(self.momentum).add_(gradient)
        return gradient + self.momentum * velocity if self.nesterov else velocity


class AdaGrad(Optimizer):
    """A rare word has a gradient once in a thousand steps, a frequent one in each: the rare one needs longer steps. (5-13)

    Divide each parameter's gradient by the root of the sum of its squares so far. Duchi et al., 2011.

    Derived: a step of length lr / sqrt(T) is right for T gradients of size 1 (more steps, smaller ones). If gradients
    have other sizes, and each parameter others, then T becomes the sum of g^2, one for each parameter.

    >>> path = down_the_ravine(lambda parameters: AdaGrad(parameters, lr=1.0), steps=20)
    >>> reference = down_the_ravine(lambda parameters: torch.optim.Adagrad(parameters, lr=1.0), steps=20)
    >>> (path - reference).abs().max().item() < 1e-10
    True

    The sum never forgets: with a gradient of 1 in each step, step t is 1 / sqrt(t) long. It suits words; in a long
    training of a network the steps become too short, and RMSprop puts a running mean in the place of the sum.

    >>> state = {}
    >>> [round(AdaGrad([]).update(torch.ones(()), state).item(), 2) for _ in range(9)]
    [1.0, 0.71, 0.58, 0.5, 0.45, 0.41, 0.38, 0.35, 0.33]
    """

    def __init__(self, parameters, lr: float = 0.01, eps: float = 1e-10, weight_decay: float = 0.0):
        super().__init__(parameters, lr, weight_decay)
        self.eps = eps

    def update(self, gradient: Tensor, state: dict) -> Tensor:
        if not state:
            state["sum"] = torch.zeros_like(gradient)
        return gradient / (state["sum"].add_(gradient**2).sqrt() + self.eps)


class RMSprop(Optimizer):
    """Some parameters have huge gradients and some tiny ones: give each its own step. (5-13)

    A step size for each parameter: lr over the running root mean square of its gradient. Hinton, 2012.

    >>> path = down_the_ravine(lambda parameters: RMSprop(parameters, lr=0.05), steps=20)
    >>> reference = down_the_ravine(lambda parameters: torch.optim.RMSprop(parameters, lr=0.05), steps=20)
    >>> (path - reference).abs().max().item() < 1e-10
    True
    """

    def __init__(self, parameters, lr: float = 0.01, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0):
        super().__init__(parameters, lr, weight_decay)
        self.alpha, self.eps = alpha, eps

    def update(self, gradient: Tensor, state: dict) -> Tensor:
        if not state:
            state["square"] = torch.zeros_like(gradient)
        square = state["square"].mul_(self.alpha).add_((1 - self.alpha) * gradient**2)
        return gradient / (square.sqrt() + self.eps)


class Adam(Optimizer):
    """A good first choice that works with its default settings on most problems. (5-13)

    Momentum and RMSprop together, each corrected for its start at zero. Kingma and Ba, 2015.

    m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
    With t = 1 the correction makes the first step lr * sign(g), whatever the gradient's size.

    >>> path = down_the_ravine(lambda parameters: Adam(parameters, lr=0.1), steps=20)
    >>> reference = down_the_ravine(lambda parameters: torch.optim.Adam(parameters, lr=0.1), steps=20)
    >>> (path - reference).abs().max().item() < 1e-10
    True
    >>> path[0] - path[1]
    tensor([-0.1000,  0.1000], dtype=torch.float64)
    """

    def __init__(self, parameters, lr: float = 1e-3, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0):
        super().__init__(parameters, lr, weight_decay)
        self.betas, self.eps = betas, eps

    def update(self, gradient: Tensor, state: dict) -> Tensor:
        b1, b2 = self.betas
        if not state:
            state.update(step=0, mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
        state["step"] += 1
        mean = state["mean"].mul_(b1).add_((1 - b1) * gradient)
        square = state["square"].mul_(b2).add_((1 - b2) * gradient**2)
        unbiased_mean = mean / (1 - b1 ** state["step"])
        unbiased_square = square / (1 - b2 ** state["step"])
        return unbiased_mean / (unbiased_square.sqrt() + self.eps)


class AdamW(Adam):
    """With Adam, weight decay hardly works where gradients are large; nearly all of today's networks use this instead. (5-13)

    Adam, but weights shrink by lr * d of themselves, beside the gradient and not in it. Loshchilov and Hutter, 2019.

    Derived: for SGD it is the same whether d * p is added to the gradient (L2 regularisation) or p is multiplied by
    1 - lr * d. Adam divides the gradient by its size, and with it the d * p inside: a weight with gradients of 100 would
    shrink ten thousand times more slowly than one with 0.01. So the decay is taken out of the division.

    >>> path = down_the_ravine(lambda parameters: AdamW(parameters, lr=0.1, weight_decay=0.5), steps=20)
    >>> reference = down_the_ravine(lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5), steps=20)
    >>> (path - reference).abs().max().item() < 1e-10
    True

    Two weights that the loss does not need, one with large random gradients and one with small ones, after 1000 steps:

    >>> for kind in (Adam, AdamW):
    ...     p, generator = nn.Parameter(torch.ones(2)), torch.Generator().manual_seed(0)
    ...     optimizer = kind([p], lr=0.001, weight_decay=1.0)
    ...     for _ in range(1000):
    ...         p.grad = torch.randn(2, generator=generator) * torch.tensor([100.0, 0.01])
    ...         optimizer.step()
    ...     print(kind.__name__, [round(value, 1) for value in p.tolist()])
    Adam [1.0, 0.3]
    AdamW [0.4, 0.4]
    """

    def __init__(self, parameters, lr: float = 1e-3, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01):
        super().__init__(parameters, lr, betas, eps)
        self.shrink = weight_decay

    @torch.no_grad()
    def step(self) -> None:
        for p in self.parameters:
            if p.grad is not None:
                p *= 1 - self.lr * self.shrink
        super().step()


def ravine(p: Tensor) -> Tensor:
    """Real losses are steep one way and flat another; this is the smallest such valley. (5-13)

    A long valley, 20 times as steep across as along: what plain gradient descent is bad at. `(2,) -> ()`.

    >>> ravine(torch.tensor([1.0, 1.0]))
    tensor(10.5000)
    """
    return 0.5 * (p[..., 0] ** 2 + 20 * p[..., 1] ** 2)


def down_the_ravine(make_optimizer, steps: int, start: tuple[float, float] = (-4.0, 1.0)) -> Tensor:
    """To compare optimizers, watch them walk down the same valley. (5-13)

    The path of an optimizer down the ravine, `-> (steps + 1, 2)` float64.

    Each with a learning rate chosen by hand for this valley, so that this is no ranking.

    >>> makers = {
    ...     "sgd": lambda parameters: SGD(parameters, lr=0.09),
    ...     "momentum": lambda parameters: SGD(parameters, lr=0.04, momentum=0.8),
    ...     "rmsprop": lambda parameters: RMSprop(parameters, lr=0.1),
    ...     "adam": lambda parameters: Adam(parameters, lr=0.4),
    ... }
    >>> for name, make in makers.items():
    ...     print(f"{name:<9} loss after 40 steps {ravine(down_the_ravine(make, 40)[-1]):.5f}")
    sgd       loss after 40 steps 0.00423
    momentum  loss after 40 steps 0.00115
    rmsprop   loss after 40 steps 0.00000
    adam      loss after 40 steps 0.15606
    """
    p = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer, path = make_optimizer([p]), [p.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        ravine(p).backward()
        optimizer.step()
        path.append(p.detach().clone())
    return torch.stack(path)


def draw_paths(folder: Path) -> Path:
    """Four optimizers on one surface, 40 steps from the left. Plain descent swings from side to side; momentum and Adam run
    past the goal and turn back; RMSprop begins with a step as long across the valley as along it."""
    from matplotlib.figure import Figure

    makers = {
        "sgd": lambda parameters: SGD(parameters, lr=0.09),
        "momentum": lambda parameters: SGD(parameters, lr=0.04, momentum=0.8),
        "rmsprop": lambda parameters: RMSprop(parameters, lr=0.1),
        "adam": lambda parameters: Adam(parameters, lr=0.4),
    }
    x, y = torch.meshgrid(torch.linspace(-4.5, 2, 80), torch.linspace(-1.4, 1.4, 80), indexing="xy")
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axis = figure.subplots()
    axis.contour(x, y, ravine(torch.stack([x, y], dim=-1)), levels=20, linewidths=0.5, colors="gray")
    for name, make in makers.items():
        axis.plot(*down_the_ravine(make, 40).T, marker=".", linewidth=1, label=name)
    axis.legend()
    figure.savefig(folder / "optimisation_paths.png", dpi=110)
    return folder / "optimisation_paths.png"


def fit_in_batches(batch_size: int, epochs: int, lr: float, seed: int = 0) -> list[float]:
    """All data for one step is slow, one sample is noisy: what lies between? (5-13)

    Batch, stochastic and mini-batch descent: y = 2 x + 1 + noise, 256 points; the loss of each update.

    All 256 at once go straight down; one at a time (stochastic, 随机) makes 256 updates in an epoch, each from one
    random point; a mini-batch (小批量) lies between. The loss of a batch rises now and then because the next batch is
    another one.

    >>> for size in (256, 32, 1):
    ...     losses = fit_in_batches(size, epochs=5, lr=0.05)
    ...     rises = sum(after > before for before, after in zip(losses, losses[1:])) / (len(losses) - 1)
    ...     print(f"batch {size:>3}: {len(losses) // 5:>3} updates an epoch, loss rose at {rises:.0%} of them")
    batch 256:   1 updates an epoch, loss rose at 0% of them
    batch  32:   8 updates an epoch, loss rose at 44% of them
    batch   1: 256 updates an epoch, loss rose at 50% of them
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(256, generator=generator)
    y = 2 * x + 1 + 0.5 * torch.randn(256, generator=generator)
    w, b, losses = torch.zeros(()), torch.zeros(()), []
    for _ in range(epochs):
        for index in torch.randperm(256, generator=generator).split(batch_size):
            error = w * x[index] + b - y[index]
            losses.append(error.square().mean().item())
            w, b = w - lr * 2 * (error * x[index]).mean(), b - lr * 2 * error.mean()
    return losses


def batch_size_study(sizes: list[int], epochs: int = 5) -> dict[int, float]:
    """A batch twice as large is no free gift: see what it costs. (5-13)

    The loss over the last epoch for several batch sizes, at the same learning rate.

    In the same number of epochs a large batch makes few updates and does not arrive; a batch of 1 arrives, and then
    jumps about the optimum (0.25 is the noise nobody can fit). A larger batch wants a larger learning rate.

    >>> {size: round(loss, 2) for size, loss in batch_size_study([1, 8, 32, 256]).items()}
    {1: 0.33, 8: 0.3, 32: 0.3, 256: 2.39}
    >>> round(fit_in_batches(256, epochs=5, lr=0.4)[-1], 2)
    0.29
    """
    losses = {size: fit_in_batches(size, epochs, lr=0.05) for size in sizes}
    return {size: sum(row[-len(row) // epochs :]) / (len(row) // epochs) for size, row in losses.items()}


# ---- the search for settings ---------------------------------------------------------------------------------------


def log_uniform(low: float, high: float, count: int, seed: int) -> list[float]:
    """Is 0.001 or 0.01 better? Such settings are searched in powers of ten. (5-12)

    Random numbers that are as often between 0.001 and 0.01 as between 0.01 and 0.1.

    A learning rate is tried on a logarithmic axis (非线性轴调参). On a plain axis nine of ten tries between 0.0001
    and 1 would lie above 0.1:

    >>> tries = log_uniform(1e-4, 1.0, count=1000, seed=0)
    >>> [sum(low <= value < 10 * low for value in tries) for low in (1e-4, 1e-3, 1e-2, 1e-1)]
    [254, 246, 258, 242]
    >>> plain = torch.empty(1000).uniform_(1e-4, 1, generator=torch.Generator().manual_seed(0))
    >>> round((plain > 0.1).float().mean().item(), 2)
    0.9
    """
    exponents = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (math.log(low) + exponents * math.log(high / low)).exp().tolist()


def grid_and_random(tries_per_axis: int, seed: int) -> tuple[float, float]:
    """You can afford nine trials: how should they be placed? (5-12)

    Grid against random search (网格调参, 随机调参), the same number of tries; the best loss of each.

    Two settings, of which only the learning rate matters much. A grid of 3 x 3 tries three learning rates, three times
    each; nine random points try nine (Bergstra and Bengio, 2012).

    >>> results = [grid_and_random(tries_per_axis=3, seed=seed) for seed in range(100)]
    >>> sum(random < grid for grid, random in results)
    72
    >>> round(results[0][0], 3), round(sum(random for _, random in results) / 100, 3)
    (0.35, 0.247)
    """

    def loss(lr: float, other: float) -> float:
        return abs(math.log10(lr) + 1.7) + 0.05 * abs(math.log10(other) + 3)  # best at lr = 0.02

    points = [10 ** (-4 + 4 * i / (tries_per_axis - 1)) for i in range(tries_per_axis)]
    grid = min(loss(lr, other) for lr in points for other in points)
    count = tries_per_axis**2
    pairs = zip(log_uniform(1e-4, 1.0, count, seed), log_uniform(1e-4, 1.0, count, seed + 10_000), strict=True)
    return grid, min(loss(lr, other) for lr, other in pairs)
