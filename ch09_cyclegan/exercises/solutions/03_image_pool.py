import random

import torch
from torch import Tensor


def exchange(pool: list[Tensor], size: int, fakes: Tensor, source: random.Random) -> Tensor:
    """New fakes (N, 3, S, S) and a pool of older ones -> as many, to show to the discriminator; the pool is changed.

    While the pool holds fewer than `size`, a fake is put into it and also shown. After that, with probability 1/2, a fake of
    the pool is shown and the new one takes its place; else the new one is shown, and the pool stays. `source` draws."""
    chosen = []
    # Without their history: a picture that stays for many steps would keep the graph of its step, and its memory, alive.
    for fake in fakes.detach():
        if len(pool) < size:
            pool.append(fake.clone())  # a copy: `fake` is a view of a batch, which somebody may change
        elif size and source.random() < 0.5:
            place = source.randrange(size)
            # The old one leaves the pool as the new one enters: so the pool renews itself, and each is shown from it once.
            fake, pool[place] = pool[place], fake.clone()
        chosen.append(fake)
    return torch.stack(chosen)
