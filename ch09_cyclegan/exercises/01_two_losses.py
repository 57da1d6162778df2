from torch import Tensor, nn


def losses(generator: nn.Module, discriminator: nn.Module, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Input x and real pictures -> the least-squares losses of the generator and of the discriminator, two scalars. The second
    must give the generator no gradient."""
    raise NotImplementedError
