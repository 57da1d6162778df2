"""What --optimizer, --lr and --schedule stand for: the optimizers and schedules of lessons/optimisation.py."""

from lessons.optimisation import SGD, Adam, Optimizer, RMSprop, cosine_schedule, step_schedule

# What --lr defaults to: chosen on the sample's validation split from 0.001, 0.003, ... 0.3 (line: 40 epochs, others:
# 100; seeds 0 and 1). Where several did as well, or the next larger one diverged, a smaller one was taken.
RATES = {
    "line": {"sgd": 0.03, "momentum": 0.01, "nesterov": 0.01, "rmsprop": 0.01, "adam": 0.03},
    "curve": {"sgd": 0.1, "momentum": 0.03, "nesterov": 0.03, "rmsprop": 0.01, "adam": 0.01},
    "spirals": {"sgd": 0.3, "momentum": 0.1, "nesterov": 0.1, "rmsprop": 0.01, "adam": 0.01},
}
OPTIMIZERS = tuple(RATES["line"])
SCHEDULES = ("constant", "step", "cosine")


def make_optimizer(name: str, parameters, lr: float, weight_decay: float) -> Optimizer:
    """momentum and nesterov are SGD with momentum 0.9."""
    if name == "adam":
        return Adam(parameters, lr, weight_decay=weight_decay)
    if name == "rmsprop":
        return RMSprop(parameters, lr, weight_decay=weight_decay)
    momentum = 0.0 if name == "sgd" else 0.9
    return SGD(parameters, lr, momentum, weight_decay, nesterov=name == "nesterov")


def learning_rate(schedule: str, base_lr: float, epoch: int, epochs: int) -> float:
    """The rate of an epoch (from 0): a function of its number alone, so that a resumed run has no schedule to restore.

    >>> [round(learning_rate("step", 0.1, epoch, 8), 4) for epoch in range(8)]
    [0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125]
    """
    if schedule == "cosine":
        return cosine_schedule(base_lr, epoch, epochs)
    if schedule == "step":  # halved after each quarter of the run
        return step_schedule(base_lr, epoch, max(1, epochs // 4), gamma=0.5)
    return base_lr
