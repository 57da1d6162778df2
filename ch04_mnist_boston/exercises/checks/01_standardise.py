import numpy as np

import tables

NAME = "standardised"
TITLE = {"en": "Standardise with what training knows", "zh": "只用训练集的统计量做标准化"}
TEXT = {
    "en": """
Age in years and tax in dollars: a network learns best if all columns have mean 0 and variance 1. But whose mean?
Write `standardised(train, test)`: train is (n, C), test (m, C); both come back scaled by the statistics of train
alone. A column that is constant in train becomes 0 there.
""",
    "zh": """
年龄以年计，税以美元计：如果各列均值为 0、方差为 1，网络学得最好。但用谁的均值？写出 `standardised(train, test)`：
train 的形状是 (n, C)，test 是 (m, C)；两者都只用 train 的统计量缩放后返回。在 train 中恒定的列变为 0。
""",
}
HINTS = {
    "en": [
        "mean(0) and std(0) are those of the columns. Which rows may they see?",
        "Where the standard deviation is 0, divide by 1: np.where.",
    ],
    "zh": ["mean(0) 和 std(0) 是各列的统计量。它们可以看哪些行？", "标准差为 0 的地方除以 1：np.where。"],
}


def check(function) -> tuple[str, str] | None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(5, 3, (40, 3)), rng.normal(9, 1, (10, 3))
    found, right = function(train.copy(), test.copy()), scaled(train, test)
    if not np.allclose(found[0], right[0], atol=1e-4):
        if np.allclose(found[0], together(train, test)[0]):
            return (
                "the test rows took part in the mean: the model would know something of the test",
                "测试集的行参与了均值的计算：模型会知道测试集的信息",
            )
        if np.allclose(found[0], scaled(train, test, axis=None)[0]):
            return "one mean for all columns: take each column's own", "所有列共用一个均值：应取每列自己的"
        return (
            f"column 0 of train has mean {found[0][:, 0].mean():.2f} and variance {found[0][:, 0].var():.2f}, not 0 and 1",
            f"train 第 0 列的均值是 {found[0][:, 0].mean():.2f}，方差是 {found[0][:, 0].var():.2f}，应为 0 和 1",
        )
    if not np.allclose(found[1], right[1], atol=1e-4):
        return (
            f"test has mean {found[1].mean():.2f}, its own statistics; by those of train it is {right[1].mean():.2f}",
            f"test 的均值是 {found[1].mean():.2f}：用了它自己的统计量；用 train 的统计量应为 {right[1].mean():.2f}",
        )
    train[:, 1] = 7
    with np.errstate(all="ignore"):
        found = function(train.copy(), test.copy())
    if not (np.isfinite(found[0]).all() and np.isfinite(found[1]).all() and (found[0][:, 1] == 0).all()):
        return (
            f"a constant column becomes {found[0][0, 1]:.3g}, not 0: its standard deviation is 0",
            f"恒定的列变成了 {found[0][0, 1]:.3g}，而不是 0：它的标准差是 0",
        )
    course = tables.Scaler(train)
    if not np.allclose(found[0], course(train).numpy(), atol=1e-4):
        return "tables.Scaler of this chapter gives something else", "与本章的 tables.Scaler 不同"
    return None


def scaled(train, test, axis=0, of=None):
    of = train if of is None else of
    return (train - of.mean(axis)) / of.std(axis), (test - of.mean(axis)) / of.std(axis)


def together(train, test):
    return scaled(train, test, of=np.concatenate([train, test]))


MISTAKES = {
    "all rows": together,
    "test by itself": lambda train, test: (scaled(train, test)[0], scaled(test, test)[0]),
    "one mean for all": lambda train, test: scaled(train, test, axis=None),
    "constant columns": scaled,
}
