import torch

from exercises.comparing import compare

NAME = "lstm_cell"
TITLE = {"en": "An LSTM cell", "zh": "LSTM 单元"}
TEXT = {
    "en": """
An LSTM keeps a cell c beside its hidden state h, and three gates say what is let in, kept and shown. Write
`lstm_cell(x, h, c, w_x, w_h, b)`: x is (N, D), h and c are (N, H); w_x (4H, D), w_h (4H, H) and b (4H,) hold, one
below the other as in nn.LSTMCell, the input gate i, the forget gate f, the candidate g and the output gate o. Return
the new h and c.
""",
    "zh": """
LSTM 在隐藏状态 h 之外还有记忆 c，三个门决定放入什么、保留什么、输出什么。写出 `lstm_cell(x, h, c, w_x, w_h, b)`：x 的
形状是 (N, D)，h 和 c 是 (N, H)；w_x (4H, D)、w_h (4H, H)、b (4H,) 从上到下依次是输入门 i、遗忘门 f、候选值 g、输出门
o，与 nn.LSTMCell 相同。返回新的 h 和 c。
""",
}
HINTS = {
    "en": [
        "(x @ w_x.T + h @ w_h.T + b).chunk(4, 1) gives all four.",
        "c = sigmoid(f) c + sigmoid(i) tanh(g); h = sigmoid(o) tanh(c), with the new c.",
    ],
    "zh": [
        "(x @ w_x.T + h @ w_h.T + b).chunk(4, 1) 一次得到四个。",
        "c = sigmoid(f) c + sigmoid(i) tanh(g)；h = sigmoid(o) tanh(c)，这里的 c 是新的。",
    ],
}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


EXAMPLES = [(draw(3, 2), draw(3, 4), draw(3, 4) * 2, draw(16, 2), draw(16, 4), draw(16))]


def gates(x, h, w_x, w_h, b):
    return (x @ w_x.T + h @ w_h.T + b).chunk(4, 1)


def right(x, h, c, w_x, w_h, b):
    cell = torch.nn.LSTMCell(x.shape[1], h.shape[1], dtype=x.dtype)
    for name, value in (("weight_ih", w_x), ("weight_hh", w_h), ("bias_ih", b), ("bias_hh", 0 * b)):
        getattr(cell, name).data = value
    return cell(x, (h, c))


def other_order(x, h, c, w_x, w_h, b):
    i, f, o, g = gates(x, h, w_x, w_h, b)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def old_cell(x, h, c, w_x, w_h, b):
    o = gates(x, h, w_x, w_h, b)[3]
    return o.sigmoid() * c.tanh(), right(x, h, c, w_x, w_h, b)[1]


def no_tanh(x, h, c, w_x, w_h, b):
    c = right(x, h, c, w_x, w_h, b)[1]
    return gates(x, h, w_x, w_h, b)[3].sigmoid() * c, c


def candidate_as_a_gate(x, h, c, w_x, w_h, b):
    i, f, g, o = gates(x, h, w_x, w_h, b)
    c = f.sigmoid() * c + i.sigmoid() * g.sigmoid()
    return o.sigmoid() * c.tanh(), c


REASONS = {
    other_order: (
        "the order of the rows is i, f, g, o: the candidate is third",
        "各行的次序是 i、f、g、o：候选值是第三个",
    ),
    old_cell: ("h is made of the old cell; take the new one", "h 用了旧的记忆；应用新的"),
    no_tanh: ("h lacks the tanh of the cell", "h 缺少记忆的 tanh"),
    candidate_as_a_gate: (
        "the candidate is a value, not a gate: tanh, not sigmoid",
        "候选值是数值，不是门：用 tanh，不用 sigmoid",
    ),
}

MISTAKES = {function.__name__: function for function in REASONS}


def check(function) -> tuple[str, str] | None:
    return compare(function, right, EXAMPLES, REASONS)
