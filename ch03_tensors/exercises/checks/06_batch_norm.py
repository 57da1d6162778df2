import torch

from exercises.comparing import compare

NAME = "batch_norm"
TITLE = {"en": "Statistics of batch normalisation", "zh": "批归一化的统计量"}
TEXT = {
    "en": """
Batch normalisation has two sets of statistics: those of the batch, which it normalises with in training, and running
ones, which it uses in evaluation. Write `batch_norm(x, mean, var, momentum=0.1)` for training: x is (N, C, H, W);
mean and var (C,) are the running statistics. Return the normalised x (eps = 1e-5), the new running mean and the new
running variance, as F.batch_norm has them: it normalises with the variance divided by n, and remembers the one
divided by n - 1.
""",
    "zh": """
批归一化有两组统计量：批次的统计量，训练时用它归一化；移动平均的统计量，评估时使用。写出训练时的
`batch_norm(x, mean, var, momentum=0.1)`：x 的形状是 (N, C, H, W)；mean 和 var (C,) 是移动平均的统计量。返回归一化的 x
（eps = 1e-5）、新的移动均值和新的移动方差，与 F.batch_norm 相同：归一化时用除以 n 的方差，记住的是除以 n - 1 的方差。
""",
}
HINTS = {
    "en": [
        "Statistics of a channel are over the dimensions 0, 2 and 3.",
        "new = (1 - momentum) * old + momentum * batch's; var(unbiased=True) is the one divided by n - 1.",
    ],
    "zh": [
        "一个通道的统计量在第 0、2、3 维上计算。",
        "新 = (1 - momentum) * 旧 + momentum * 批次的；var(unbiased=True) 是除以 n - 1 的方差。",
    ],
}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


EXAMPLES = [(2 * draw(4, 3, 2, 2) + 1, draw(3), draw(3).abs()), (draw(2, 2, 3, 3), draw(2), draw(2).abs(), 0.3)]


def right(x, mean, var, momentum=0.1):
    return torch.nn.functional.batch_norm(x, mean, var, training=True, momentum=momentum), mean, var  # changed in place


def reversed_momentum(x, mean, var, momentum=0.1):
    return right(x, mean, var, 1 - momentum)


def biased(x, mean, var, momentum=0.1):
    n = x.numel() / x.shape[1]
    y, new_mean, new_var = right(x, mean, var.clone(), momentum)
    return y, new_mean, (1 - momentum) * var + (new_var - (1 - momentum) * var) * (n - 1) / n


def over_pictures(x, mean, var, momentum=0.1):
    y = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
    return (y, *right(x, mean, var, momentum)[1:])


REASONS = {
    reversed_momentum: (
        "momentum is the share of the batch's statistics, not of the old ones",
        "momentum 是批次统计量所占的比例，不是旧值的比例",
    ),
    biased: (
        "the running variance is divided by n; it estimates that of all data: n - 1",
        "移动方差除以了 n；它估计的是全体数据的方差：应除以 n - 1",
    ),
    over_pictures: (
        "each place is normalised by itself: a channel has one mean over N, H and W",
        "每个位置单独归一化了：一个通道在 N、H、W 上只有一个均值",
    ),
}

MISTAKES = {function.__name__: function for function in REASONS}


def check(function) -> tuple[str, str] | None:
    return compare(function, right, EXAMPLES, REASONS)
