from collections.abc import Iterable


def train_until(losses: Iterable[float], patience: int) -> tuple[int, int]:
    """Validation losses, one an epoch, as training goes on -> (the best epoch, the last one that was trained), from 1.

    Training stops after `patience` epochs in a row that were not better than the best. Take no loss from `losses` after
    that: each costs an epoch. A loss that is not finite is never the best. (0, n) if none was finite."""
    raise NotImplementedError
