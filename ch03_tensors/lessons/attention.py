"""Attention, multi-head attention, positions, and a Transformer layer, equal to torch's.

    python -m lessons attention                (with a picture)
    python -m lessons bert                     (the next one)

Sequences are `(N, T, D)`, batch first, here and in most papers on Transformers.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TITLE = "Attention and the Transformer"
TITLE_ZH = "Attention 与 Transformer 结构"
LESSONS = {"10-5": "Attention结构", "10-6": "Transformer结构"}
FORMULAS = {
    "attention": r"\mathrm{softmax}\left( \frac{Q K^T}{\sqrt{D}} \right) V",
    "positional_encoding": r"p_{t, 2i} = \sin \frac{t}{10000^{2i/D}}, \quad p_{t, 2i+1} = \cos \frac{t}{10000^{2i/D}}",
}
FIGURES = {"learn_to_reverse": "draw_heat_map", "positional_encoding": "draw_positions"}


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A word's meaning depends on a few others, near or far: look at those directly. (10-5)

    Each query takes a weighted mean of the values; the weights say how well it fits each key.

    `(.., T, D), (.., S, D), (.., S, E) -> (.., T, E), weights (.., T, S)`. softmax(Q K^T / sqrt(D)) V, Vaswani et al.,
    2017. Without the division the weights of long vectors would all go to one place. `mask` is True where a query may
    look.

    >>> key = torch.eye(3).unsqueeze(0) * 10
    >>> value = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> query = torch.tensor([[[0.0, 9.0, 0.0], [0.0, 0.0, 0.0]]])
    >>> mixed, weights = attention(query, key, value)
    >>> weights[0].round(decimals=3), mixed[0, :, 0]
    (tensor([[0.0000, 1.0000, 0.0000],
            [0.3330, 0.3330, 0.3330]]), tensor([2., 2.]))

    >>> q, k, v = torch.randn(3, 2, 5, 8)
    >>> torch.allclose(attention(q, k, v)[0], F.scaled_dot_product_attention(q, k, v), atol=1e-6)
    True

    It is a bag of words: shuffle keys and values together, and nothing changes.

    >>> order = torch.randperm(5)
    >>> torch.allclose(attention(q, k[:, order], v[:, order])[0], attention(q, k, v)[0], atol=1e-6)
    True
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = scores.softmax(dim=-1)
    return weights @ value, weights


def learn_to_reverse(length: int = 8, steps: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Where does a network look? Its weights say it, and they can be drawn. (10-5)

    One attention learns to write eight random tokens backwards. `-> weights (T, T)` before and after training.

    A query for each place to be written, a key for each place that is read: token and place added up. Nobody tells it
    which place to look at; before training it looks here and there, in the end at the right one.

    >>> before, after = learn_to_reverse()
    >>> after.argmax(1)
    tensor([7, 6, 5, 4, 3, 2, 1, 0])
    >>> torch.equal(before.argmax(1), after.argmax(1)), after.max(1).values.min().item() > 0.8
    (False, True)
    """
    generator, width = torch.Generator().manual_seed(seed), 16
    query, place = (torch.randn(length, width, generator=generator).requires_grad_() for _ in range(2))
    words = torch.randn(10, width, generator=generator).requires_grad_()
    optimizer, seen = torch.optim.Adam([query, place, words], lr=0.05), []
    for _ in range(steps):
        tokens = torch.randint(10, (64, length), generator=generator)
        mixed, weights = attention(query, words[tokens] + place, words[tokens])  # (64, T, D), (64, T, T)
        loss = F.cross_entropy((mixed @ words.T).flatten(0, 1), tokens.flip(1).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen = [*seen[:1], weights.detach().mean(0)]
    return seen[0], seen[-1]


def draw_heat_map(folder: Path) -> Path:
    """Each row is a token that is written, each column one that is read. Before training the weights say nothing;
    afterwards there is one bright place in each row, from the last token read to the first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axis, title, weights in zip(figure.subplots(1, 2), ("before", "after"), learn_to_reverse(), strict=True):
        shown = axis.imshow(weights.numpy(), cmap="magma", vmin=0, vmax=1)
        axis.set(title=f"{title} training", xlabel="place read", ylabel="place written")
    figure.colorbar(shown, ax=figure.axes, label="weight")
    figure.savefig(folder / "attention_map.png", dpi=110)
    return folder / "attention_map.png"


def causal_mask(length: int) -> Tensor:
    """A model that writes must not read the words that it is to write. (10-5)

    A decoder's place may look at itself and back, never ahead. `-> (T, T) bool`.

    >>> causal_mask(3)
    tensor([[ True, False, False],
            [ True,  True, False],
            [ True,  True,  True]])
    >>> q, k, v = torch.randn(3, 1, 4, 8)
    >>> ours, theirs = attention(q, k, v, causal_mask(4))[0], F.scaled_dot_product_attention(q, k, v, is_causal=True)
    >>> torch.allclose(ours, theirs, atol=1e-6)
    True
    """
    return torch.ones(length, length, dtype=torch.bool).tril()


class AdditiveAttention(nn.Module):
    """One vector is too narrow for a long sentence: look back at all words. (10-5)

    Attention in seq2seq: the decoder's state asks the encoder's states. Bahdanau et al., 2015.

    `(N, H), (N, S, H) -> (N, H), weights (N, S)`. Instead of one vector for the whole sentence, the decoder gets a new
    mixture at each word.

    >>> context, weights = AdditiveAttention(4)(torch.randn(2, 4), torch.randn(2, 7, 4))
    >>> context.shape, weights.shape, torch.allclose(weights.sum(1), torch.ones(2))
    (torch.Size([2, 4]), torch.Size([2, 7]), True)
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.ask = nn.Linear(hidden, hidden)
        self.answer = nn.Linear(hidden, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.score(torch.tanh(self.ask(state).unsqueeze(1) + self.answer(memory)))  # (N, S, 1)
        weights = scores.softmax(dim=1)
        return (weights * memory).sum(dim=1), weights.squeeze(2)


class MultiHeadAttention(nn.Module):
    """A word is subject, plural and in a question at once: several looks side by side. (10-6)

    Several attentions side by side, each on a part of the channels. `(N, T, D), (N, S, D) -> (N, T, D)`.

    The parameters have torch's names and shapes.

    >>> layer, reference = MultiHeadAttention(8, heads=2), nn.MultiheadAttention(8, 2, batch_first=True)
    >>> layer.load_state_dict(reference.state_dict())
    <All keys matched successfully>
    >>> x, memory = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    >>> torch.allclose(layer(x, memory), reference(x, memory, memory)[0], atol=1e-6)
    True
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        projections = zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        inputs = (x, memory, memory)
        query, key, value = (self.split(F.linear(i, w, b)) for i, (w, b) in zip(inputs, projections, strict=True))
        mixed, _ = attention(query, key, value, mask)  # (N, heads, T, D / heads)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """`(N, T, D) -> (N, heads, T, D / heads)`."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def positional_encoding(length: int, width: int) -> Tensor:
    """`dog bites man` and `man bites dog` have the same words: places must be told. (10-6)

    Attention does not see the order, so it is added to the input as waves: `-> (T, D)`. Vaswani et al., 2017.

    sin and cos of position / 10000^(2i / D). Two places k apart have the same inner product wherever they are:

    >>> p = positional_encoding(100, 32)
    >>> p[0, :4], p[1, :4]
    (tensor([0., 1., 0., 1.]), tensor([0.8415, 0.5403, 0.5332, 0.8460]))
    >>> torch.allclose((p[3] * p[10]).sum(), (p[53] * p[60]).sum(), atol=1e-4)
    True
    """
    position = torch.arange(length).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    encoding = torch.zeros(length, width)
    encoding[:, 0::2] = torch.sin(position * frequency)
    encoding[:, 1::2] = torch.cos(position * frequency)
    return encoding


def draw_positions(folder: Path) -> Path:
    """The positional encoding, and the inner products of its rows."""
    from matplotlib.figure import Figure

    p = positional_encoding(64, 32)
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(p.numpy(), aspect="auto", cmap="coolwarm")
    left.set(title="positional encoding", xlabel="channel", ylabel="position")
    right.imshow((p @ p.T).numpy(), cmap="coolwarm")
    right.set(title="inner products of positions")
    figure.savefig(folder / "attention_positions.png", dpi=110)
    return folder / "attention_positions.png"


class TransformerLayer(nn.Module):
    """The block from which BERT and today's language models are stacked. (10-6)

    A Transformer encoder layer: attention, then two linear layers, each with skip and LayerNorm.

    `(N, T, D) -> (N, T, D)`; Vaswani et al., 2017 (LayerNorm after the sum; without dropout). torch's names.

    >>> layer = TransformerLayer(8, heads=2, hidden=16)
    >>> reference = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    >>> layer.load_state_dict(reference.state_dict())
    <All keys matched successfully>
    >>> x = torch.randn(2, 5, 8)
    >>> torch.allclose(layer(x), reference(x), atol=1e-5)
    True
    """

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.self_attn = MultiHeadAttention(width, heads)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.self_attn(x, x, mask))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class TransformerDecoderLayer(nn.Module):
    """A translation is written while the source is read: both kinds of attention in one block. (10-6)

    A decoder layer: causal self-attention, attention to the encoder, two linear layers.

    `(N, T, D), (N, S, D) -> (N, T, D)`.

    >>> layer = TransformerDecoderLayer(8, heads=2, hidden=16)
    >>> reference = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    >>> layer.load_state_dict(reference.state_dict())
    <All keys matched successfully>
    >>> x, memory = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    >>> theirs = reference(x, memory, tgt_mask=~causal_mask(5))  # torch's mask is True where it may not look
    >>> torch.allclose(layer(x, memory), theirs, atol=1e-5)
    True
    """

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.self_attn, self.multihead_attn = MultiHeadAttention(width, heads), MultiHeadAttention(width, heads)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(x, x, causal_mask(x.shape[1]).to(x.device)))
        x = self.norm2(x + self.multihead_attn(x, memory))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))
