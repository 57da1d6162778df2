import math
from collections.abc import Iterable


def train_until(losses: Iterable[float], patience: int) -> tuple[int, int]:
    """Validation losses, one an epoch, as training goes on -> (the best epoch, the last one that was trained), from 1.

    Training stops after `patience` epochs in a row that were not better than the best. Take no loss from `losses` after
    that: each costs an epoch. A loss that is not finite is never the best. (0, n) if none was finite."""
    best, best_epoch, epoch = math.inf, 0, 0
    for epoch, loss in enumerate(losses, 1):
        # nan < best is False, so a nan is not better. (Written the other way round, `not loss >= best`, it would be.)
        if loss < best and math.isfinite(loss):
            best, best_epoch = loss, epoch
        # Counted from the best epoch, not from the last fall: a slow rise with small dips in it is not progress.
        if epoch - best_epoch >= patience:
            break
    # The best epoch's weights are the answer. The last epoch's are `patience` epochs too old.
    return best_epoch, epoch
