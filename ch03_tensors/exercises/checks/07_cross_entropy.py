import torch

from exercises.comparing import compare

NAME = "cross_entropy"
TITLE = {"en": "A stable cross-entropy", "zh": "数值稳定的交叉熵"}
TEXT = {
    "en": """
exp(89) does not fit into a float32, and log(0) is minus infinity: a cross-entropy written as in a textbook fails as
soon as a network is sure of itself. Write `cross_entropy(logits, labels)` with exp and log, but without softmax,
log_softmax, logsumexp or F.cross_entropy: logits is (N, K), labels (N,); the result is the mean over the rows.
""",
    "zh": """
float32 装不下 exp(89)，而 log(0) 是负无穷：照教科书写的交叉熵，网络一有把握就会失效。用 exp 和 log 写出
`cross_entropy(logits, labels)`，不用 softmax、log_softmax、logsumexp 或 F.cross_entropy：logits 的形状是 (N, K)，
labels 是 (N,)；结果是各行的平均值。
""",
}
HINTS = {
    "en": [
        "Softmax does not change if the same number is subtracted from all logits of a row. Which number?",
        "log softmax = z - max - log(sum(exp(z - max))): simplify before you compute.",
    ],
    "zh": [
        "同一行的所有 logits 减去同一个数，softmax 不变。减去哪个数？",
        "log softmax = z - max - log(sum(exp(z - max)))：先化简，再计算。",
    ],
}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


LABELS = torch.tensor([1, 0, 2, 2])
EXAMPLES = [(draw(4, 3), LABELS), (1000 * draw(4, 3).float(), LABELS)]
right = torch.nn.functional.cross_entropy


def from_the_textbook(logits, labels):
    e = logits.exp()
    return -(e / e.sum(1, keepdim=True)).log().gather(1, labels[:, None]).mean()


def softmax_then_log(logits, labels):
    return -logits.softmax(1).log().gather(1, labels[:, None]).mean()


def summed(logits, labels):
    return right(logits, labels, reduction="sum")


def twice(logits, labels):
    return right(logits.log_softmax(1).softmax(1), labels)


REASONS = {
    from_the_textbook: (
        "with logits in the thousands it is nan: exp overflows; subtract the row's maximum",
        "logits 上千时得到 nan：exp 溢出；先减去该行的最大值",
    ),
    softmax_then_log: (
        "with logits in the thousands it is inf: a probability rounds to 0; simplify log(exp(z) / sum)",
        "logits 上千时得到 inf：概率舍入为 0；先化简 log(exp(z) / sum)",
    ),
    summed: ("this is the sum over the rows, not the mean", "这是各行之和，不是平均值"),
    twice: ("softmax was taken twice", "做了两次 softmax"),
}

MISTAKES = {function.__name__: function for function in REASONS}


def check(function) -> tuple[str, str] | None:
    return compare(function, right, EXAMPLES, REASONS)
