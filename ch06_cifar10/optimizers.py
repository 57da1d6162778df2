"""The optimizers and learning-rate schedules behind --optimizer and --schedule: torch's own, and Muon for the speed run."""

import math

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import utils

OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
SCHEDULES = ("onecycle", "cosine", "step", "linear")


def make_optimizer(
    model: nn.Module, name: str, lr: float, weight_decay: float, precision: str = "fp32"
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum 0.9, Adam, AdamW, or Muon. Only matrices and filters decay: pulling the biases and the
    batch norms' scales to zero costs accuracy and regularises nothing. `precision` (fp32, bf16): of Muon's products."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if name == "muon":
        return Muon(model, lr, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = trained[0].device.type in ("cpu", "cuda")  # one kernel for all parameters
    if name == "sgd":
        return torch.optim.SGD(groups, lr, momentum=0.9, nesterov=True, fused=fused)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups, lr, fused=fused)


def make_scheduler(
    optimizer: torch.optim.Optimizer, name: str, epochs: int, steps: int, done: int = 0
) -> lr_scheduler.LRScheduler:
    """A schedule over `epochs` epochs of `steps` optimizer steps, to be stepped after each of them; `done` epochs are over.

    onecycle  up to the full rate in a fifth of the run, down to nothing by a cosine (Smith and Topin 2017)
    cosine    down to nothing by a cosine (Loshchilov and Hutter 2016)
    linear    down to nothing in a straight line
    step      x 0.9 every five epochs (the course's StepLR)

    The rate depends on the step alone. So a resumed run needs no saved state of it, and a lengthened one has a new schedule.
    """
    total = max(2, epochs * steps)
    if name == "onecycle":
        return utils.one_cycle(optimizer, total, done * steps, cycle_momentum=False)
    factors = {
        "cosine": lambda step: (1 + math.cos(math.pi * min(1.0, step / total))) / 2,
        "linear": lambda step: max(0.0, 1 - step / total),
        "step": lambda step: 0.9 ** (step // (5 * steps)),
    }
    return lr_scheduler.LambdaLR(optimizer, factors[name], last_epoch=done * steps - 1)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") for the convolutions, SGD with
    Nesterov momentum for the last layer and the biases.

    A filter bank (out, in, k, k) is a matrix (out, in * k * k). Its momentum is replaced by the nearest orthogonal matrix,
    so that all directions learn at the same pace, the rare ones too. The filters keep the norm sqrt(out): the batch norm after
    them removes any scale, so a growing norm would only slow them down. The last layer and the biases decay a little, as no
    batch norm rescales them. `lr` is the rate of the convolutions; the other rates are multiples of it. That of the biases
    looks huge. It is Jordan's, who sums the loss over the batch; here the loss is the mean.
    """

    def __init__(self, model: nn.Module, lr: float, momentum: float = 0.6, dtype: torch.dtype = torch.float32):
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        filters = [p for _, p in named if p.ndim == 4]
        heads = [p for _, p in named if p.ndim == 2]
        biases = [p for _, p in named if p.ndim < 2]
        share = lr / 0.2  # the rates and decays below were found for 0.2, in batches of 1000
        groups = [
            {"params": filters, "lr": lr, "momentum": momentum, "decay": 0.0, "orthogonal": True},
            {"params": heads, "lr": 0.54 * share, "momentum": 0.85, "decay": 0.003, "orthogonal": False},
            {"params": biases, "lr": 57.0 * share, "momentum": 0.85, "decay": 4e-5, "orthogonal": False},
        ]
        super().__init__([group for group in groups if group["params"]], {})
        self.dtype = dtype  # of the products in orthogonalize: bfloat16 will do, but many CPUs only emulate it

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                gradient = p.grad + group["decay"] * p
                momentum.mul_(group["momentum"]).add_(gradient)
                update = gradient + group["momentum"] * momentum  # Nesterov: a step ahead
                if group["orthogonal"]:
                    update = orthogonalize(update.flatten(1).to(self.dtype)).view_as(p)
                    p.mul_(len(p) ** 0.5 / p.norm())
                p.sub_(update, alpha=group["lr"])


def orthogonalize(matrix: Tensor, steps: int = 4) -> Tensor:
    """(m, n) -> (m, n) with about the same singular vectors, and singular values near 1 where they are not tiny.

    Newton-Schulz iteration of degree five: x -> a x + b x^3 + c x^5 on the singular values, divided by the matrix's norm
    first. A tiny one grows by a in each step: four steps bring 0.001 to 0.14, 0.005 to 0.66, and what is above 0.006 to
    between 0.68 and 1.2. Matrix products only, so bfloat16 will do.
    """
    a, b, c = 3.4445, -4.7750, 2.0315  # chosen by Jordan et al. for a steep start, not for an end at exactly 1
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
