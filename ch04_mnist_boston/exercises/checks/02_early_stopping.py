import math

NAME = "train_until"
TITLE = {"en": "Early stopping, and the epoch to keep", "zh": "早停，以及应保留的一轮"}
TEXT = {
    "en": """
After some epochs the validation loss rises again: the network learns its training rows by heart. Stop then, and keep
the best epoch, not the last. Write `train_until(losses, patience)`: losses yields one validation loss for each epoch
that is trained, so take no more of them than you need. Stop after `patience` epochs in a row that were not better
than the best so far. Return the best epoch and the last one trained, counted from 1. Of equal losses the first is the
best. nan and inf are never the best.
""",
    "zh": """
若干轮之后，验证损失又会上升：网络开始死记训练集的行。这时应停止，并保留最好的一轮，而不是最后一轮。写出
`train_until(losses, patience)`：losses 每训练一轮给出一个验证损失，所以不要多取。连续 `patience` 轮都没有超过目前最好
的一轮，就停止。返回最好的一轮和训练的最后一轮，从 1 数起。损失相等时，先出现的为最好。nan 和 inf 永远不是最好。
""",
}
HINTS = {
    "en": [
        "Remember the best loss and its epoch. How many epochs have passed since?",
        "Compare each loss with the best, not with the one before. Every comparison with nan is False.",
    ],
    "zh": [
        "记住最好的损失和它的轮次。从那以后过了几轮？",
        "每个损失要与最好的比较，而不是与前一个比较。与 nan 的任何比较都是 False。",
    ],
}
CASES = (
    ([5, 4, 3, 3.5, 3.4, 3.3, 3.2], 3, (3, 6), "epochs 4 to 6 fall, but none is better than epoch 3",
     "第 4 到 6 轮在下降，但都没有超过第 3 轮"),
    ([5, 4, 4.5, 3, 3.5, 3.4, 1], 2, (4, 6), "epoch 4 is better, so that the waiting begins anew",
     "第 4 轮更好，于是重新开始等待"),
    ([5, 4, 3], 5, (3, 3), "all epochs are trained", "所有轮次都要训练"),
    ([3, 3, 3, 3], 2, (1, 3), "an equal loss is not better", "相等的损失不算更好"),
    ([5, math.nan, 4, math.nan, math.nan, 3], 2, (3, 5), "nan is never the best", "nan 永远不是最好"),
    ([math.nan, math.inf, math.nan], 9, (0, 3), "no loss was finite", "没有有限的损失"),
    ([2, -math.inf, 1, 3], 2, (3, 4), "minus infinity is never the best", "负无穷永远不是最好"),
)  # fmt: skip


def check(function) -> tuple[str, str] | None:
    for losses, patience, right, english, chinese in CASES:
        taken = []
        found = tuple(function((taken.append(loss) or loss for loss in losses), patience))
        call = f"{losses}, patience {patience}"
        if found != right:
            return f"{call}: {found}, not {right}: {english}", f"{call}：得到 {found}，应为 {right}：{chinese}"
        if len(taken) != right[1]:
            return (
                f"{call}: {len(taken)} epochs were trained, {right[1]} are enough",
                f"{call}：训练了 {len(taken)} 轮，{right[1]} 轮就够了",
            )
    return None


def against_the_last(losses, patience):
    before, best, best_epoch, waited, epoch = math.inf, math.inf, 0, 0, 0
    for epoch, loss in enumerate(losses, 1):
        waited = 0 if loss < before else waited + 1
        if loss < best:
            best, best_epoch = loss, epoch
        before = loss
        if waited >= patience:
            break
    return best_epoch, epoch


def the_last(losses, patience):
    best, epoch, at = math.inf, 0, 0
    for epoch, loss in enumerate(losses, 1):
        best, at = (loss, epoch) if loss < best else (best, at)
        if epoch - at >= patience:
            break
    return epoch, epoch


def with_nan(losses, patience):
    best, epoch, at = math.inf, 0, 0
    for epoch, loss in enumerate(losses, 1):
        best, at = (best, at) if loss >= best else (loss, epoch)
        if epoch - at >= patience:
            break
    return at, epoch


def trains_all(losses, patience):
    losses = list(losses)
    return next(case[2] for case in CASES if str(case[0]) == str(losses))


MISTAKES = {
    "compares with the epoch before": against_the_last,
    "keeps the last": the_last,
    "nan is best": with_nan,
    "trains all epochs first": trains_all,
}
