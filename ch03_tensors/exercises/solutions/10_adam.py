from torch import Tensor


def adam(p: Tensor, gradients: list[Tensor], lr: float, betas: tuple[float, float], eps: float) -> Tensor:
    """A parameter and the gradients of the steps, in order, of its shape -> the parameter after all steps of Adam."""
    m, v = 0 * p, 0 * p  # running means of the gradient and of its square
    for t, g in enumerate(gradients, 1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        # Both began at 0, and are too small at first: after t steps the weights of all gradients sum to 1 - beta^t. Divided by
        # that, the first step has the size lr, whatever the gradient's size is.
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        p = p - lr * m_hat / (
            v_hat.sqrt() + eps
        )  # eps is outside the root: it is compared with a gradient, not its square
    return p
