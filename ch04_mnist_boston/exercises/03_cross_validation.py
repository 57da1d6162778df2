from collections.abc import Callable

import numpy as np


def cross_validate(x: np.ndarray, y: np.ndarray, fit: Callable, scale: Callable, folds: int) -> float:
    """Rows x (n, C), targets y (n,) -> the mean squared error over all rows, each predicted by a model that has not seen it.

    scale(rows)   a function that scales rows like these (the statistics of `rows` are in it)
    fit(x, y)     a trained model: a function of rows (m, C) -> predictions (m,)
    Row i is tested in fold i % folds."""
    raise NotImplementedError
