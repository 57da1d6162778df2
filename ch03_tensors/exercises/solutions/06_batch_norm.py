from torch import Tensor


def batch_norm(x: Tensor, mean: Tensor, var: Tensor, momentum: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    """x (N, C, H, W) in training, and the running statistics (C,) -> the normalised x (eps 1e-5, no weight or bias),
    and the new running mean and variance, as torch does it."""
    # A channel is one feature, at whatever place and in whatever picture: its statistics are over N, H and W.
    own_mean, own_var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    y = (x - own_mean[:, None, None]) / (own_var[:, None, None] + 1e-5).sqrt()  # (C, 1, 1) broadcasts over (N, C, H, W)
    # What is normalised with is the batch's variance: divided by n. What is remembered estimates that of all data: by n - 1.
    n = x.numel() / x.shape[1]
    new_mean = (1 - momentum) * mean + momentum * own_mean  # torch's momentum is the share of the new
    new_var = (1 - momentum) * var + momentum * own_var * n / (n - 1)
    return y, new_mean, new_var
