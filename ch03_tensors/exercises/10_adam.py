from torch import Tensor


def adam(p: Tensor, gradients: list[Tensor], lr: float, betas: tuple[float, float], eps: float) -> Tensor:
    """A parameter and the gradients of the steps, in order, of its shape -> the parameter after all steps of Adam."""
    raise NotImplementedError
