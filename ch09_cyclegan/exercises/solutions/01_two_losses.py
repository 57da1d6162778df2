from torch import Tensor, nn


def losses(generator: nn.Module, discriminator: nn.Module, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Input x and real pictures -> the least-squares losses of the generator and of the discriminator, two scalars. The second
    must give the generator no gradient."""
    fake = generator(x)
    # The generator wants its fakes to be taken for real: 1. The gradient goes through the discriminator into the generator.
    wanted = ((discriminator(fake) - 1) ** 2).mean()
    # The discriminator wants 1 for real and 0 for fake. detach() cuts the way back: else its loss would teach the generator to
    # be found out.
    of_real, of_fake = discriminator(real), discriminator(fake.detach())
    judged = (((of_real - 1) ** 2).mean() + (of_fake**2).mean()) / 2
    return wanted, judged
