import random

from torch import Tensor


def exchange(pool: list[Tensor], size: int, fakes: Tensor, source: random.Random) -> Tensor:
    """New fakes (N, 3, S, S) and a pool of older ones -> as many, to show to the discriminator; the pool is changed.

    While the pool holds fewer than `size`, a fake is put into it and also shown. After that, with probability 1/2, a fake of
    the pool is shown and the new one takes its place; else the new one is shown, and the pool stays. `source` draws."""
    raise NotImplementedError
