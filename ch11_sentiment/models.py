"""The networks of the chapter (course 11-5, 11-8), each whole in one place, and build(arch, ...) over one dict of names.

    python models.py              # arch and parameters of each
    python models.py textcnn      # that one, layer by layer

Every network takes texts as numbers, (N, L) int64, padded with 0 at the end, and gives (N, K) logits. Padding changes no
answer (up to rounding): it is packed away, masked, or below every maximum. Those in WITH_ATTENTION also say, by
`attend`, what share of its attention each token got.
"""

import difflib
import math
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import utils
from text import CLAUSE_ENDS, PAD, UNK
from utils import fail


class TextClassifier(nn.Module):
    """What the networks share: the embedding, and dropout of two kinds.

    `word_dropout` is the chance of a training token to be read as <unk>: a text then has to be judged by what else is in it,
    and <unk> is a thing the network has seen when it meets one."""

    def __init__(self, vocabulary_size: int, dim: int, dropout: float, word_dropout: float):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, dim, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        with torch.no_grad():
            self.embedding.weight[PAD] = 0.0
        self.dropout, self.word_dropout = nn.Dropout(dropout), word_dropout

    def drop_words(self, ids: Tensor) -> Tensor:
        if not self.training or self.word_dropout == 0:
            return ids
        dropped = (torch.rand(ids.shape, device=ids.device) < self.word_dropout) & (ids != PAD)
        return torch.where(dropped, UNK, ids)

    @torch.no_grad()
    def start_from(self, vectors: dict[int, Tensor]) -> None:
        """Puts trained vectors in the place of those drawn: number of the token -> (dim,)."""
        if vectors:
            self.embedding.weight[torch.tensor(list(vectors))] = torch.stack(list(vectors.values()))

    def embed(self, ids: Tensor) -> Tensor:
        """(N, L) -> (N, L, dim)"""
        return self.dropout(self.embedding(self.drop_words(ids)))


def run_packed(rnn: nn.Module, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """(N, L, in) -> outputs (N, L, out), zero where the text is over, and the last hidden states of all layers.

    Packed, the backward direction starts at a text's last token and the last state is the text's, not the padding's."""
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    outputs, last = rnn(packed)
    outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
    return outputs, last[0] if isinstance(last, tuple) else last


def lengths_of(ids: Tensor) -> Tensor:
    return (ids != PAD).sum(1)


def masked_max(x: Tensor, ids: Tensor) -> Tensor:
    """(N, L, C) -> (N, C): the largest value over a text's own tokens."""
    return x.masked_fill((ids == PAD)[..., None], -torch.inf).amax(1)


class FastText(TextClassifier):
    """Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification": the embeddings of all tokens and of all runs of 2
    to `longest` tokens, summed up, and a linear layer. No order beyond a run. The beginning and the end of a text count as
    tokens of a run: a mark at the end says more than the same mark elsewhere.

    The paper lets runs share a number of buckets by their hash. Here `learn_runs` looks up which runs the training texts have
    more than once, the `hidden` commonest of them get an embedding each, and the others are not looked at: most runs are seen
    once, and the noise they brought into shared buckets cost 1.4 points of validation accuracy. The sum is divided by the root
    of the number of terms, not by the number, so that a long text may be judged more surely than a short one."""

    def __init__(self, vocabulary_size, num_classes, dim=2, hidden=650_000, dropout=0.0, word_dropout=0.4, longest=5):
        super().__init__(vocabulary_size + hidden, dim, dropout, word_dropout)
        nn.init.normal_(self.embedding.weight[1:], std=0.01)  # a run that was hardly trained on should hardly count
        self.register_buffer("known", torch.full((hidden,), 2**31 - 1, dtype=torch.int32))  # hashes of runs, sorted
        self.words, self.longest, self.head = vocabulary_size, longest, nn.Linear(dim, num_classes)

    def runs(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(N, L) -> (N, about (longest - 1) * L) int32 hashes of runs of 2 tokens or more, and which are of the text."""
        lengths, ids = (
            lengths_of(ids)[:, None],
            F.pad(ids, (1, 1)),
        )  # a 0 on either side: where the text begins and ends
        found, inside, key = [ids[:, :0]], [ids[:, :0] != PAD], ids
        for n in range(2, 1 + min(self.longest, ids.shape[1])):
            key = key[:, :-1] * 1_000_003 + ids[:, n - 1 :] * 8 + n  # int64 wraps around, which a hash may
            found.append(key)
            inside.append(torch.arange(n - 1, ids.shape[1], device=ids.device) <= lengths + 1)
        key = torch.cat(found, 1) * -7046029254386353131  # 2**64 / golden ratio: spreads neighbours over all bits
        return (key >> 33).int(), torch.cat(inside, 1)

    def learn_runs(self, batches) -> None:
        """Fills `known` with the commonest runs of the training texts, (ids, labels) batches; those seen once are left out."""
        keys = torch.cat([keys[inside] for keys, inside in (self.runs(ids) for ids, *_ in batches)]).cpu()
        keys, counts = keys.unique(return_counts=True)
        common = counts.argsort(descending=True, stable=True)[: len(self.known)]
        common = keys[common[counts[common] > 1]].sort().values
        self.known.fill_(2**31 - 1)[: len(common)] = common.to(self.known.device)

    def forward(self, ids: Tensor) -> Tensor:
        keys, inside = self.runs(ids)
        place = torch.searchsorted(self.known, keys).clamp(max=len(self.known) - 1)
        inside = torch.cat([ids != PAD, inside & (self.known[place] == keys)], 1)
        count = inside.sum(1, keepdim=True)  # at least 1: no text is empty
        scale = count**-0.5
        if self.training:
            inside = inside & (torch.rand(inside.shape, device=ids.device) >= self.word_dropout)
            scale = scale / (1 - self.word_dropout)
        terms = torch.where(inside, torch.cat([ids, self.words + place], 1), PAD)
        total = F.embedding_bag(terms, self.embedding.weight, mode="sum", padding_idx=PAD)
        return self.head(self.dropout(total * scale))  # (N, dim) -> (N, K)


class TextCNN(TextClassifier):
    """Kim 2014, "Convolutional Neural Networks for Sentence Classification": filters over runs of 2 to 5 tokens, and of each
    feature map its largest value in the text."""

    widths = (2, 3, 4, 5)

    def __init__(self, vocabulary_size, num_classes, dim=64, hidden=64, dropout=0.5, word_dropout=0.1):
        super().__init__(vocabulary_size, dim, dropout, word_dropout)
        self.filters = nn.ModuleList(nn.Conv1d(dim, hidden, width, padding=width - 1) for width in self.widths)
        self.head = nn.Linear(hidden * len(self.widths), num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        x, pooled = self.embed(ids).transpose(1, 2), []  # (N, dim, L)
        for width, filter_ in zip(self.widths, self.filters, strict=True):
            feature_map = F.relu(filter_(x))  # (N, hidden, L + width - 1)
            touches = F.pad(ids != PAD, (width - 1, 0), value=True)  # (N, L + width - 1): has a token of the text
            pooled.append(feature_map.masked_fill(~touches[:, None], 0.0).amax(2))  # (N, hidden)
        return self.head(self.dropout(torch.cat(pooled, 1)))  # (N, 4 hidden) -> (N, K)


class LSTM(TextClassifier):
    """The course's: an LSTM (Hochreiter and Schmidhuber 1997) reads the text once, and its last state decides. The last of the
    text, that is: without packing it would be the state after up to a hundred tokens of padding."""

    def __init__(self, vocabulary_size, num_classes, dim=64, hidden=64, dropout=0.5, word_dropout=0.1):
        super().__init__(vocabulary_size, dim, dropout, word_dropout)
        self.rnn = nn.LSTM(dim, hidden, num_layers=2, dropout=dropout, batch_first=True)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        _, last = run_packed(self.rnn, self.embed(ids), lengths_of(ids))  # (layers, N, hidden)
        return self.head(self.dropout(last[-1]))  # (N, hidden) -> (N, K)


class BiLSTM(TextClassifier):
    """An LSTM in each direction (Graves and Schmidhuber 2005), and of each unit its largest output over the text: what was
    noticed anywhere is not forgotten by the end."""

    def __init__(self, vocabulary_size, num_classes, dim=64, hidden=64, dropout=0.5, word_dropout=0.1):
        super().__init__(vocabulary_size, dim, dropout, word_dropout)
        self.rnn = nn.LSTM(dim, hidden, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        outputs, _ = run_packed(self.rnn, self.embed(ids), lengths_of(ids))  # (N, L, 2 hidden)
        return self.head(self.dropout(masked_max(outputs, ids)))


class RCNN(TextClassifier):
    """Lai et al. 2015, "Recurrent Convolutional Neural Networks for Text Classification": what is left of a token, the token,
    and what is right of it, together through a layer; then the maximum over the text. LSTMs for the paper's plain RNNs."""

    def __init__(self, vocabulary_size, num_classes, dim=64, hidden=64, dropout=0.5, word_dropout=0.1):
        super().__init__(vocabulary_size, dim, dropout, word_dropout)
        self.rnn = nn.LSTM(dim, hidden, bidirectional=True, batch_first=True)
        self.mix = nn.Linear(2 * hidden + dim, hidden)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        outputs, _ = run_packed(self.rnn, x, lengths_of(ids))  # (N, L, 2 hidden)
        left, right = outputs.chunk(
            2, 2
        )  # (N, L, hidden) each: of the tokens before and after, so each is moved by one place
        left, right = F.pad(left, (0, 0, 1, 0))[:, :-1], F.pad(right, (0, 0, 0, 1))[:, 1:]
        y = torch.tanh(self.mix(torch.cat([left, x, right], 2)))  # (N, L, hidden)
        return self.head(self.dropout(masked_max(y, ids)))


class Attention(nn.Module):
    """Which of several vectors matter: softmax of u . u_w with u = tanh(W h + b), and u_w learned (Yang et al. 2016)."""

    def __init__(self, width: int):
        super().__init__()
        self.W, self.u_w = nn.Linear(width, width), nn.Linear(width, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """(..., width) -> (...) scores, before the softmax"""
        u = torch.tanh(self.W(h))  # (..., width)
        return self.u_w(u)[..., 0]  # (...)


class HAN(TextClassifier):
    """Yang et al. 2016, "Hierarchical Attention Networks for Document Classification": attention over the words of a clause
    gives the clause, attention over the clauses gives the text. A clause ends with one of 。!?;,~ since microblogs have few
    sentences; the words' GRU reads on from clause to clause, where the paper's starts afresh."""

    def __init__(self, vocabulary_size, num_classes, dim=64, hidden=32, dropout=0.5, word_dropout=0.1):
        super().__init__(vocabulary_size, dim, dropout, word_dropout)
        self.words = nn.GRU(dim, hidden, bidirectional=True, batch_first=True)
        self.clauses = nn.GRU(2 * hidden, hidden, bidirectional=True, batch_first=True)
        self.word_attention, self.clause_attention = Attention(2 * hidden), Attention(2 * hidden)
        self.head = nn.Linear(2 * hidden, num_classes)

    @staticmethod
    def clauses_of(ids: Tensor) -> Tensor:
        """(N, L) -> (N, L): the number of the clause that each token is in; an end belongs to the clause it ends."""
        ends = (ids > UNK) & (ids < 2 + len(CLAUSE_ENDS))
        before = F.pad(ends, (1, 0))[:, :-1]
        return (before & ~ends).cumsum(1)  # of several ends in a row (。。。), the last

    def forward(self, ids: Tensor) -> Tensor:
        return self.attend(ids)[0]

    def attend(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(N, L) -> (N, K) logits and (N, L) attention, the word's share in its clause times the clause's, sum 1."""
        outside = ids == PAD
        clause = self.clauses_of(ids).masked_fill(outside, 0)
        x, _ = run_packed(self.words, self.embed(ids), lengths_of(ids))  # (N, L, 2 hidden)
        x, score = x.float(), self.word_attention(x).float().masked_fill(outside, -torch.inf)
        share = (score - score.amax(1, keepdim=True)).clamp(min=-30).exp() * ~outside
        last = clause.amax(1)
        lengths = (last + 1).cpu()  # where the recurrent layer wants them
        count = int(lengths.max())
        total = share.new_zeros(len(ids), count).scatter_add(1, clause, share)
        share = share / total.gather(1, clause).clamp(min=1e-30)
        vectors = x.new_zeros(len(ids), count, x.shape[2])
        vectors = vectors.scatter_add(1, clause[..., None].expand_as(x), share[..., None] * x)  # (N, clauses, 2 hidden)

        y, _ = run_packed(self.clauses, vectors, lengths)
        beyond = torch.arange(count, device=ids.device) > last[:, None]
        weight = self.clause_attention(y).masked_fill(beyond, -torch.inf).softmax(1)  # (N, clauses)
        logits = self.head(self.dropout((weight[..., None] * y).sum(1)))
        return logits, share * weight.gather(1, clause)


class Block(nn.Module):
    """A Transformer layer that normalises before it works (Xiong et al. 2020), which trains without a long warm-up."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, outside: Tensor, weights: bool = False) -> tuple[Tensor, Tensor | None]:
        y = self.norm1(x)
        y, share = self.attention(y, y, y, key_padding_mask=outside, need_weights=weights)
        x = x + self.dropout(y)
        return x + self.dropout(self.feed_forward(self.norm2(x))), share  # share: (N, L, L), the mean over the heads


class Transformer(TextClassifier):
    """Vaswani et al. 2017, "Attention Is All You Need": the encoder. As in BERT (Devlin et al. 2018), an extra token in front,
    [CLS], gathers what the text says; its attention in the last layer is what `attend` shows."""

    def __init__(
        self, vocabulary_size, num_classes, dim=64, hidden=128, dropout=0.1, word_dropout=0.1, layers=2, heads=4
    ):
        super().__init__(vocabulary_size, dim, dropout, word_dropout)
        self.cls = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, dropout) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, num_classes)

    @staticmethod
    def positions(length: int, dim: int, device) -> Tensor:
        """-> (length, dim): sines and cosines of falling frequency, for texts of any length."""
        angle = torch.arange(length, device=device)[:, None] * torch.exp(
            torch.arange(0, dim, 2, device=device) * (-math.log(10_000) / dim)
        )
        return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.encode(ids, weights=False)[0]

    def attend(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(N, L) -> (N, K) logits and (N, L) attention of [CLS], without its share for itself, sum 1."""
        logits, share = self.encode(ids, weights=True)
        share = share[:, 0, 1:]
        return logits, share / share.sum(1, keepdim=True).clamp(min=1e-9)

    def encode(self, ids: Tensor, weights: bool) -> tuple[Tensor, Tensor | None]:
        x = self.embed(ids)
        x = x + self.positions(x.shape[1], x.shape[2], x.device) * x.shape[2] ** -0.5
        x = torch.cat([self.cls.expand(len(ids), 1, -1), x], 1)  # (N, 1 + L, dim)
        outside, share = F.pad(ids == PAD, (1, 0)), None
        for i, block in enumerate(self.blocks, 1):
            x, share = block(x, outside, weights and i == len(self.blocks))
        return self.head(self.norm(x[:, 0])), share


MODELS = {
    "fasttext": FastText,
    "textcnn": TextCNN,
    "lstm": LSTM,
    "bilstm": BiLSTM,
    "rcnn": RCNN,
    "han": HAN,
    "transformer": Transformer,
}
WITH_ATTENTION = ("han", "transformer")


def build(arch: str, vocabulary_size: int = 20_000, num_classes: int = 2, **sizes) -> TextClassifier:
    """-> the network named `arch`, with fresh weights; `sizes` (dim, hidden, dropout, word_dropout) as its class takes them.
    A wrong name ends the program with the right ones."""
    if arch not in MODELS:
        close = difflib.get_close_matches(arch, MODELS, 1)
        hint = f" did you mean {close[0]}?" if close else ""
        fail(f"no architecture {arch!r};{hint} there are: {', '.join(MODELS)}")
    return MODELS[arch](vocabulary_size, num_classes, **sizes)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def main() -> None:
    if len(sys.argv) > 1:
        print(build(sys.argv[1]))
        return
    print(f"{'arch':<14}{'parameters':>12}{'without embedding':>20}      (20,000 words, 2 classes)")
    for arch in MODELS:
        model = build(arch)
        whole, rest = count_parameters(model), count_parameters(model) - model.embedding.weight.numel()
        print(f"{arch:<14}{whole:>12,}{rest:>20,}")


if __name__ == "__main__":
    utils.start(main)
