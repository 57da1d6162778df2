import numpy as np


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, C) and (m, C) -> the same, scaled so that each column of `train` has mean 0 and variance 1. A column that is
    constant in `train` becomes 0 there, and never inf or nan."""
    # What a model may know comes from the training rows: the mean of the test rows is knowledge of the test. In use, rows come
    # one at a time, and one row has no variance at all.
    mean, std = train.mean(0), train.std(0)
    # A constant column: 0 / 0. Divided by 1 it is 0 in training, and the model has learned nothing about it.
    std = np.where(std > 0, std, 1)
    return (train - mean) / std, (test - mean) / std
