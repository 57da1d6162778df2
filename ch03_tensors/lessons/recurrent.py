"""Recurrent networks: the simple RNN, both directions, LSTM, GRU; cells by hand, equal to torch's.

    python -m lessons recurrent
    python -m lessons attention                (the next one)

Sequences are `(T, N, D)`, time first, as torch's recurrent layers have them by default.
"""

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: F401 (for the examples)
from torch import Tensor, nn

TITLE = "Recurrent networks"
TITLE_ZH = "循环神经网络"
LESSONS = {
    "10-1": "RNN网络基础",
    "10-2": "RNN常见网络结构-simple RNN网络",
    "10-3": "Bi-RNN网络",
    "10-4": "LSTM网络基础",
}
FORMULAS = {
    "RNNCell": r"h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})",
    "LSTMCell": r"c_t = f \odot c_{t-1} + i \odot g, \quad h_t = o \odot \tanh(c_t)",
    "GRUCell": r"h_t = z \odot h_{t-1} + (1 - z) \odot n",
}
FIGURES = {"LSTMCell": "draw_gates"}


def embed(tokens: Tensor, table: Tensor) -> Tensor:
    """A network computes with vectors, a sentence has words: look each one up. (10-1)

    Words become vectors: row number `token` of a table that is learned. `(T, N), (V, D) -> (T, N, D)`.

    It is the product of one-hot vectors with the table, without the zeros.

    >>> layer = nn.Embedding(10, 3)
    >>> tokens = torch.tensor([[1, 2, 4, 5], [4, 3, 2, 9]]).T
    >>> torch.equal(embed(tokens, layer.weight), layer(tokens)), layer(tokens).shape
    (True, torch.Size([4, 2, 3]))
    >>> torch.equal(F.one_hot(tokens, 10).float() @ layer.weight, layer(tokens))
    True
    """
    return table[tokens]


def remember_first(x: Tensor, keep: float) -> Tensor:
    """To read a sentence of any length, carry a memory along; see how it fades. (10-1)

    The smallest recurrence: h_t = keep * h_(t-1) + x_t, one number of memory. `(T,) -> (T,)`.

    The same weights at every step, so that a sequence may have any length; the state carries what came before.

    >>> remember_first(torch.tensor([1.0, 0.0, 0.0, 0.0]), keep=0.5)
    tensor([1.0000, 0.5000, 0.2500, 0.1250])

    After T steps the memory of the first input is keep^T: gone, or exploded. So with the gradient:

    >>> x = torch.zeros(50, requires_grad=True)
    >>> for keep in (0.5, 1.0, 1.5):
    ...     (gradient,) = torch.autograd.grad(remember_first(x, keep)[-1], x)
    ...     print(f"keep {keep}: gradient of the first of 50 inputs {gradient[0]:.0e}")
    keep 0.5: gradient of the first of 50 inputs 2e-15
    keep 1.0: gradient of the first of 50 inputs 1e+00
    keep 1.5: gradient of the first of 50 inputs 4e+08
    """
    h, states = x.new_zeros(()), []
    for value in x:
        h = keep * h + value
        states.append(h)
    return torch.stack(states)


class RNNCell(nn.RNNCellBase):
    """The simplest network that reads word after word. (10-2)

    One step of the simple RNN: h' = tanh(W_ih x + b_ih + W_hh h + b_hh). Elman, 1990.

    `(N, D), (N, H) -> (N, H)`. U of the notes is W_ih here, W is W_hh. The base class only makes the parameters, with
    torch's names for them.

    >>> cell, reference = RNNCell(3, 4), nn.RNNCell(3, 4)
    >>> cell.load_state_dict(reference.state_dict())
    <All keys matched successfully>
    >>> x, h = torch.randn(2, 3), torch.randn(2, 4)
    >>> torch.allclose(cell(x, h), reference(x, h), atol=1e-6)
    True
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size, bias=True, num_chunks=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight_ih.T + self.bias_ih + h @ self.weight_hh.T + self.bias_hh)


def unroll(cell: nn.Module, x: Tensor, state):
    """How does a gradient get back to the first word? Lay the loop out flat. (10-2)

    Runs a cell along a sequence, `(T, N, D) -> (T, N, H), last state`.

    Unrolled in time (展开) it is a feed-forward network with T layers that share their weights; autograd goes back
    through all of them: backpropagation through time.

    >>> layer = nn.RNN(3, 4)
    >>> x, zeros = torch.randn(6, 2, 3), torch.zeros(2, 4)
    >>> outputs, last = unroll(cell_of(layer), x, zeros)
    >>> torch.allclose(outputs, layer(x)[0], atol=1e-6), torch.equal(outputs[-1], last)
    (True, True)
    """
    outputs = []
    for step in x:
        state = cell(step, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs), state


def cell_of(layer: nn.RNNBase, suffix: str = "_l0") -> nn.Module:
    """A cell written by hand is right if it equals torch's with the same weights. (10-2)

    The hand-written cell with the weights of one layer of nn.RNN, nn.LSTM or nn.GRU.

    >>> type(cell_of(nn.GRU(3, 4))).__name__, type(cell_of(nn.LSTM(3, 4, bidirectional=True), "_l0_reverse")).__name__
    ('GRUCell', 'LSTMCell')
    """
    cell = {nn.RNN: RNNCell, nn.LSTM: LSTMCell, nn.GRU: GRUCell}[type(layer)](layer.input_size, layer.hidden_size)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell.to(layer.weight_ih_l0.dtype).load_state_dict({name: getattr(layer, name + suffix) for name in names})
    return cell


def bidirectional(layer: nn.RNNBase, x: Tensor, state) -> Tensor:
    """Whether `bank` has to do with money may be said three words later: read from both ends. (10-3)

    Two cells, one from each end; their outputs side by side. Schuster and Paliwal, 1997.

    `(T, N, D) -> (T, N, 2 H)`. So each place knows what follows as well as what came before: for labels, not for
    predicting the next word.

    >>> layer = nn.LSTM(3, 4, bidirectional=True)
    >>> x, zeros = torch.randn(6, 2, 3), torch.zeros(2, 4)
    >>> torch.allclose(bidirectional(layer, x, (zeros, zeros)), layer(x)[0], atol=1e-6)
    True
    """
    forwards, _ = unroll(cell_of(layer), x, state)
    backwards, _ = unroll(cell_of(layer, "_l0_reverse"), x.flip(0), state)
    return torch.cat([forwards, backwards.flip(0)], dim=-1)


class LSTMCell(nn.RNNCellBase):
    """A simple RNN forgets soon: give it a memory that gates protect. (10-4)

    One step of the LSTM, with three gates and a memory. Hochreiter and Schmidhuber, 1997.

    `(N, D), ((N, H), (N, H)) -> ((N, H), (N, H))`. The forget gate (遗忘门) says what of the memory c stays, the input
    gate (输入门) what of the candidate enters, the output gate (输出门) what is shown as h. (The forget gate is from
    Gers et al., 2000.)

    >>> cell, reference = LSTMCell(3, 4), nn.LSTMCell(3, 4)
    >>> cell.load_state_dict(reference.state_dict())
    <All keys matched successfully>
    >>> x, h, c = torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)
    >>> all(torch.allclose(a, b, atol=1e-6) for a, b in zip(cell(x, (h, c)), reference(x, (h, c))))
    True

    With the forget gate open and the input gate shut, the memory is kept for ever:

    >>> cell.bias_ih.data[:4] = -100.0
    >>> cell.bias_ih.data[4:8] = 100.0
    >>> torch.allclose(cell(x, (h, c))[1], c)
    True
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size, bias=True, num_chunks=4)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        parts = (x @ self.weight_ih.T + self.bias_ih + h @ self.weight_hh.T + self.bias_hh).chunk(4, dim=1)
        enter, forget, show = (torch.sigmoid(parts[k]) for k in (0, 1, 3))  # torch's order: i, f, g, o
        candidate = torch.tanh(parts[2])
        c = forget * c + enter * candidate
        return show * torch.tanh(c), c


def draw_gates(folder: Path) -> Path:
    """A cell whose weights were set by hand: the second input says "remember this". Then the input gate opens and the forget
    gate shuts, for one step; the memory takes over the number (its tanh) and keeps it until the next time."""
    from matplotlib.figure import Figure

    numbers = torch.tensor([0.3, -0.6, 0.9, 0.1, -0.8, 0.5, -0.2, -0.7, 0.4, 0.8, -0.1, 0.6, 0.2, -0.5, 0.7, -0.3])
    say = torch.zeros(16).index_fill(0, torch.tensor([2, 7, 12]), 1.0)
    cell = LSTMCell(2, 1)
    cell.load_state_dict({
        "weight_ih": torch.tensor([[0.0, 12.0], [0.0, -12.0], [1.0, 0.0], [0.0, 0.0]]),  # input, forget, candidate, output
        "bias_ih": torch.tensor([-6.0, 6.0, 0.0, 6.0]),
        "weight_hh": torch.zeros(4, 1),
        "bias_hh": torch.zeros(4),
    })  # fmt: skip
    h = c = torch.zeros(1, 1)
    rows = {
        "number": numbers.tolist(),
        "remember this": say.tolist(),
        "input gate": [],
        "forget gate": [],
        "memory c": [],
    }
    for x in torch.stack([numbers, say], dim=1):
        parts = (x @ cell.weight_ih.T + cell.bias_ih).sigmoid()  # what comes from h is zero here
        h, c = cell(x.unsqueeze(0), (h, c))
        for name, value in (("input gate", parts[0]), ("forget gate", parts[1]), ("memory c", c)):
            rows[name].append(value.item())
    figure = Figure(figsize=(9, 5), layout="constrained")
    for axis, (name, values) in zip(figure.subplots(5, 1, sharex=True), rows.items(), strict=True):
        axis.bar(range(16), values, color="tab:orange" if "gate" in name else "tab:blue")
        axis.set(
            ylabel=name.replace(" ", "\n"), ylim=(0, 1.1) if "gate" in name or name == "remember this" else (-1, 1)
        )
    figure.axes[-1].set(xlabel="time step")
    figure.savefig(folder / "lstm_gates.png", dpi=110)
    return folder / "lstm_gates.png"


class GRUCell(nn.RNNCellBase):
    """Nearly as good as an LSTM with a quarter fewer weights. (10-4)

    One step of the GRU: two gates, and no memory besides h. Cho et al., 2014. `(N, D), (N, H) -> (N, H)`.

    >>> cell, reference = GRUCell(3, 4), nn.GRUCell(3, 4)
    >>> cell.load_state_dict(reference.state_dict())
    <All keys matched successfully>
    >>> x, h = torch.randn(2, 3), torch.randn(2, 4)
    >>> torch.allclose(cell(x, h), reference(x, h), atol=1e-6)
    True
    >>> [sum(p.numel() for p in kind(3, 4).parameters()) for kind in (RNNCell, GRUCell, LSTMCell)]
    [36, 108, 144]
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size, bias=True, num_chunks=3)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        reset_x, update_x, new_x = (x @ self.weight_ih.T + self.bias_ih).chunk(3, dim=1)
        reset_h, update_h, new_h = (h @ self.weight_hh.T + self.bias_hh).chunk(3, dim=1)
        reset, update = torch.sigmoid(reset_x + reset_h), torch.sigmoid(update_x + update_h)
        candidate = torch.tanh(new_x + reset * new_h)
        return update * h + (1 - update) * candidate


def gradient_over_time(kind: str, length: int, seed: int = 0) -> float:
    """Is it true that an LSTM remembers longer? Measure it. (10-4)

    How much of the last output's gradient reaches the first input.

    In an untrained simple RNN it fades at each step; an LSTM whose forget gate starts open keeps more of it.

    >>> for length in (5, 20, 80):
    ...     print(length, [f"{kind} {gradient_over_time(kind, length):.0e}" for kind in ("rnn", "lstm")])
    5 ['rnn 4e-02', 'lstm 3e-01']
    20 ['rnn 3e-06', 'lstm 1e-01']
    80 ['rnn 1e-21', 'lstm 4e-01']
    """
    with torch.random.fork_rng(devices=[]):  # layers are made from the shared generator: leave it as it was
        torch.manual_seed(seed)
        layer = {"rnn": nn.RNN, "lstm": nn.LSTM}[kind](4, 16)
        x = torch.randn(length, 1, 4, requires_grad=True)
    if kind == "lstm":
        layer.bias_ih_l0.data[16:32] = 3.0
    outputs, _ = layer(x)
    (gradient,) = torch.autograd.grad(outputs[-1].sum(), x)
    return gradient[0].norm().item()
