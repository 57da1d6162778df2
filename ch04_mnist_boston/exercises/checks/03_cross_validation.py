import numpy as np

NAME = "cross_validate"
TITLE = {"en": "Cross-validation without a leak", "zh": "没有泄漏的交叉验证"}
TEXT = {
    "en": """
506 houses are few: a test set of 50 says little. Cross-validation tests each row once, by a model that was trained
without it. Write `cross_validate(x, y, fit, scale, folds)`: scale(rows) returns a function that scales by the
statistics of those rows; fit(x, y) returns a function that predicts. Row i is tested in fold i % folds. The result is
the mean squared error over all rows. The checker watches which rows scale and fit get to see.
""",
    "zh": """
506 所房屋很少：50 所的测试集说明不了什么。交叉验证把每一行都测试一次，所用的模型训练时没有见过它。写出
`cross_validate(x, y, fit, scale, folds)`：scale(rows) 返回一个按这些行的统计量缩放的函数；fit(x, y) 返回一个预测函
数。第 i 行在第 i % folds 折中测试。结果是所有行的均方误差。检查程序会监视 scale 和 fit 看到了哪些行。
""",
}
HINTS = {
    "en": [
        "In each fold: scale and fit with the training rows, then predict the test rows.",
        "Call scale inside the loop. Collect the squared errors of all rows and take one mean at the end.",
    ],
    "zh": [
        "在每一折中：用训练的行 scale 和 fit，再预测测试的行。",
        "在循环里面调用 scale。收集所有行的平方误差，最后取一次平均。",
    ],
}


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (11, 2))
    return x, x @ [1.0, -2.0] + rng.normal(size=11)


def scale(rows):
    mean, std = rows.mean(0), rows.std(0)
    return lambda x: (x - mean) / std


def fit(x, y):
    weights = np.linalg.lstsq(np.c_[x, np.ones(len(x))] + 0.3 * np.eye(len(x), x.shape[1] + 1), y, rcond=None)[0]
    return lambda rows: np.c_[rows, np.ones(len(rows))] @ weights


def check(function) -> tuple[str, str] | None:
    (x, y), folds, scaled, fitted = data(), 4, [], []

    def watched_scale(rows):
        scaled.append(len(rows))
        return scale(rows)

    def watched_fit(rows, targets):
        fitted.append(len(targets))
        return fit(rows, targets)

    found, right = (
        function(x.copy(), y.copy(), watched_fit, watched_scale, folds),
        right_answer(x, y, fit, scale, folds),
    )
    if len(y) in fitted:
        return (
            "fit saw all 11 rows, also those that are tested: the error is that of training",
            "fit 看到了全部 11 行，包括被测试的行：得到的是训练误差",
        )
    if len(y) in scaled:
        return (
            "scale saw all 11 rows: the test rows of each fold are in its mean; call it in the loop, with the training rows",
            "scale 看到了全部 11 行：它的均值里有每一折的测试行；应在循环里用训练的行调用",
        )
    if len(fitted) != folds:
        return f"{len(fitted)} models were trained, not {folds}", f"训练了 {len(fitted)} 个模型，应为 {folds} 个"
    if abs(found - of_folds(x, y, fit, scale, folds)) < 1e-9:
        return (
            f"{found:.4f} is the mean of the folds' errors, but they have 3, 3, 3 and 2 rows: {right:.4f}",
            f"{found:.4f} 是各折误差的平均，但各折有 3、3、3、2 行：应为 {right:.4f}",
        )
    if not abs(found - right) < 1e-9:
        return (
            f"{found:.4f}, not {right:.4f}: are the test rows scaled as the training rows were?",
            f"得到 {found:.4f}，应为 {right:.4f}：测试的行是否与训练的行用同样方式缩放？",
        )
    return None


def by_fold(x, y, fit, scale, folds, of_test=None):
    for k in range(folds):
        test = np.arange(len(y)) % folds == k
        prepare = scale(x[~test])
        model = fit(prepare(x[~test]), y[~test])
        yield (model((of_test(x[test]) if of_test else prepare)(x[test])) - y[test]) ** 2


def right_answer(*words):
    return float(np.concatenate(list(by_fold(*words))).mean())


def of_folds(*words):
    return float(np.mean([errors.mean() for errors in by_fold(*words)]))


def scaled_before(x, y, fit, scale, folds):
    return right_answer(scale(x)(x), y, fit, lambda rows: lambda x: x, folds)


def not_held_out(x, y, fit, scale, folds):
    return float(((fit(x, y)(x) - y) ** 2).mean())


def test_by_itself(x, y, fit, scale, folds):
    return float(np.concatenate(list(by_fold(x, y, fit, scale, folds, of_test=scale))).mean())


MISTAKES = {
    "scaled before": scaled_before,
    "nothing held out": not_held_out,
    "mean of folds": of_folds,
    "test scaled by itself": test_by_itself,
}
