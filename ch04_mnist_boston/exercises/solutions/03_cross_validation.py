from collections.abc import Callable

import numpy as np


def cross_validate(x: np.ndarray, y: np.ndarray, fit: Callable, scale: Callable, folds: int) -> float:
    """Rows x (n, C), targets y (n,) -> the mean squared error over all rows, each predicted by a model that has not seen it.

    scale(rows)   a function that scales rows like these (the statistics of `rows` are in it)
    fit(x, y)     a trained model: a function of rows (m, C) -> predictions (m,)
    Row i is tested in fold i % folds."""
    errors = np.zeros(len(y))
    fold = np.arange(len(y)) % folds
    for k in range(folds):
        train, test = fold != k, fold == k
        # Everything that learns from rows belongs into the loop, the scaling too. Fitted once on all rows before, it has
        # seen the test rows of every fold; with selected columns or filled gaps that makes a large difference.
        prepare = scale(x[train])
        model = fit(prepare(x[train]), y[train])
        errors[test] = (model(prepare(x[test])) - y[test]) ** 2
    # The mean over rows, not over folds: the folds may differ in size.
    return float(errors.mean())
