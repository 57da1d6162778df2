"""The networks of the chapter, each whole in one place, and build(arch, ...) over one dict of names.

    python models.py              # arch, parameters, source, at the sizes of options.py

All of them translate with the same three methods; S and T are the lengths of source and target, V the target words:
  encode(source (N, S))              -> state: a dict of tensors whose first dimension is the sentence
  decode(tokens (N, T), state)       -> logits (N, T, V) of the token after each, and the state after the last one
  attention(source, tokens (N, T))   -> (N, T, S): how much each target position looked at each source position; or None
forward(source, tokens) is decode after encode. decode takes one token or many, and goes on where the state ended: so
the same method trains with all right tokens at once (teacher forcing) and translates a token at a time.
"""

import difflib
import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from text import PAD
from utils import fail


class Dropout(nn.Dropout):
    """nn.Dropout, but on a CPU eight elements share one 64-bit random number (so p is rounded to 1/256).

    PyTorch draws a number for each element there, all in one thread: a quarter of a Transformer's training step."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        numbers = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        level = min(255, round(256 * self.p))
        kept = numbers.view(torch.uint8)[: x.numel()].view(x.shape) >= level
        return x * kept * (256 / (256 - level))


class Translator(nn.Module):
    """What all networks here share: embeddings of both sides, and the output layer tied to the target's.

    Press and Wolf 2017, "Using the Output Embedding to Improve Language Models": a word's row says both what it means
    as an input and when it is the answer, so rare words get twice the training.
    """

    def __init__(self, source_words: int, target_words: int, width: int, dropout: float):
        super().__init__()
        self.source_embedding = nn.Embedding(source_words, width)
        self.target_embedding = nn.Embedding(target_words, width)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=width**-0.5)
        self.output_bias = nn.Parameter(torch.zeros(target_words))
        self.scale = math.sqrt(width)  # embeddings enter with variance 1, and stay small where they are output weights
        self.dropout = Dropout(dropout)

    def forward(self, source: Tensor, tokens: Tensor) -> Tensor:
        """(N, S), (N, T) -> (N, T, V) logits."""
        return self.decode(tokens, self.encode(source))[0]

    def output(self, hidden: Tensor) -> Tensor:
        """(N, T, E) -> (N, T, V) logits: how well each word's embedding fits."""
        return F.linear(hidden, self.target_embedding.weight, self.output_bias)

    has_attention = True

    def attention(self, source: Tensor, tokens: Tensor) -> Tensor | None:
        return None


# ---- recurrent networks -----------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """Reads the sentence in both directions: (N, S, E) -> memory (N, S, H), and the last states (N, L, H).

    Packed sequences end where the sentence ends, so the backward direction does not start in the padding.
    """

    def __init__(self, cell: str, width: int, hidden: int, layers: int, dropout: float):
        super().__init__()
        options = {"batch_first": True, "bidirectional": True, "dropout": dropout if layers > 1 else 0.0}
        self.rnn = getattr(nn, cell)(width, hidden // 2, layers, **options)

    def forward(self, embedded: Tensor, lengths: Tensor) -> tuple[Tensor, list[Tensor]]:
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, last = self.rnn(packed)
        memory, _ = pad_packed_sequence(out, batch_first=True, total_length=embedded.shape[1])
        last = last if isinstance(last, tuple) else (last,)  # an LSTM has a cell state too
        # (2L, N, H/2), the directions of a layer side by side -> (N, L, H)
        return memory, [s.unflatten(0, (-1, 2)).permute(2, 0, 1, 3).flatten(2) for s in last]


class Attention(nn.Module):
    """query (N, T, H), memory (N, S, H), mask (N, S), True where padding -> context (N, T, H), weights (N, T, S).

    dot       q . m / sqrt(H)         Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine
    general   q . W m / sqrt(H)       Translation", section 3.1
    concat    v . tanh(W [q; m])      the same; and, as W [q; m] = W1 q + W2 m, also the additive score of Bahdanau et al.
                                      2015, "Neural Machine Translation by Jointly Learning to Align and Translate"

    The sqrt(H) is Vaswani et al.'s. Without it the sums over H products are large, each word looks at one other with a
    weight of 1, and a softmax that is sure hardly learns: see the README for what that costs.
    """

    def __init__(self, score: str, hidden: int):
        super().__init__()
        self.score = score
        if score in ("general", "concat"):
            self.of_memory = nn.Linear(hidden, hidden, bias=score == "concat")
        if score == "concat":
            self.of_query = nn.Linear(hidden, hidden, bias=False)
            self.v = nn.Linear(hidden, 1, bias=False)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        keys = memory if self.score == "dot" else self.of_memory(memory)
        if self.score == "concat":
            scores = self.v(torch.tanh(self.of_query(query)[:, :, None] + keys[:, None])).squeeze(3)
        else:
            scores = query @ keys.transpose(1, 2) / math.sqrt(query.shape[2])
        weights = scores.masked_fill(mask[:, None], -torch.inf).softmax(2)
        return weights @ memory, weights


class Recurrent(Translator):
    """The course's network (12-4, 12-5): a bidirectional encoder, and a decoder with Luong's attention or with none.

    Attention comes after the recurrent layer, h~ = tanh(W [c; h]), and does not feed the next step. So with the right
    tokens given, all steps of the recurrent layer are one call, and attention and output one matrix product each: this
    is what makes it several times faster than a loop over steps. Without attention (Sutskever et al. 2014, "Sequence to
    Sequence Learning with Neural Networks") all that the decoder knows of the sentence is the encoder's last state.
    """

    def __init__(
        self, source_words, target_words, width, hidden, layers, dropout, score: str | None, cell: str = "GRU"
    ):
        super().__init__(source_words, target_words, width, dropout)
        self.encoder = Encoder(cell, width, hidden, layers, dropout)
        between = dropout if layers > 1 else 0.0
        self.rnn = getattr(nn, cell)(width, hidden, layers, batch_first=True, dropout=between)
        self.attend = Attention(score, hidden) if score else None
        self.has_attention = score is not None
        self.readout = nn.Linear(2 * hidden if score else hidden, width)

    def encode(self, source: Tensor) -> dict[str, Tensor]:
        mask = source == PAD
        embedded = self.dropout(self.scale * self.source_embedding(source))
        memory, last = self.encoder(embedded, (~mask).sum(1))
        return {"memory": memory, "mask": mask} | dict(zip(("hidden", "cell"), last, strict=False))

    def decode(self, tokens: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        names = [name for name in ("hidden", "cell") if name in state]
        start = tuple(state[name].transpose(0, 1).contiguous() for name in names)  # (L, N, H)
        embedded = self.dropout(self.scale * self.target_embedding(tokens))
        hidden, last = self.rnn(embedded, start if len(start) > 1 else start[0])  # (N, T, H)
        last = last if isinstance(last, tuple) else (last,)
        state = state | {name: s.transpose(0, 1) for name, s in zip(names, last, strict=True)}
        if self.attend:
            context, state["weights"] = self.attend(hidden, state["memory"], state["mask"])
            hidden = torch.cat([context, hidden], 2)
        return self.output(self.dropout(torch.tanh(self.readout(hidden)))), state

    def attention(self, source: Tensor, tokens: Tensor) -> Tensor | None:
        return self.decode(tokens, self.encode(source))[1].get("weights")


class Bahdanau(Translator):
    """Bahdanau et al. 2015: the state before a step asks for the context, and the context is an input of the step.

    So each step needs the one before, and the steps are a loop even when the right tokens are known.
    """

    def __init__(self, source_words, target_words, width, hidden, layers, dropout):
        super().__init__(source_words, target_words, width, dropout)
        self.encoder = Encoder("GRU", width, hidden, layers, dropout)
        self.attend = Attention("concat", hidden)
        self.rnn = nn.GRU(width + hidden, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.readout = nn.Linear(2 * hidden + width, width)

    encode = Recurrent.encode
    attention = Recurrent.attention

    def decode(self, tokens: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        embedded = self.dropout(self.scale * self.target_embedding(tokens))
        last, seen, weights = state["hidden"].transpose(0, 1).contiguous(), [], []
        for now in embedded.split(1, 1):  # (N, 1, E)
            context, weight = self.attend(last[-1][:, None], state["memory"], state["mask"])  # (N, 1, H), (N, 1, S)
            hidden, last = self.rnn(torch.cat([now, context], 2), last)
            seen.append(torch.cat([hidden, context, now], 2))
            weights.append(weight)
        readout = torch.tanh(self.readout(torch.cat(seen, 1)))  # the large product with all words: once, for all steps
        state = state | {"hidden": last.transpose(0, 1), "weights": torch.cat(weights, 1)}
        return self.output(self.dropout(readout)), state


# ---- Transformer ------------------------------------------------------------------------------------------------------


def positions(count: int, width: int, device: torch.device) -> Tensor:
    """-> (count, width): sines and cosines of wavelengths from 2 pi to 10,000 * 2 pi (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    angles = torch.arange(count, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


class Transformer(Translator):
    """Vaswani et al. 2017, "Attention Is All You Need", on PyTorch's layers, with the normalisation before each part.

    Normalising first (Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture") trains at higher rates.
    """

    def __init__(self, source_words, target_words, width, heads, layers, decoder_layers, feedforward, dropout):
        super().__init__(source_words, target_words, width, dropout)
        options = {"dropout": dropout, "batch_first": True, "norm_first": True}
        encoder_layer = nn.TransformerEncoderLayer(width, heads, feedforward, **options)
        decoder_layer = nn.TransformerDecoderLayer(width, heads, feedforward, **options)
        self.encoder = nn.TransformerEncoder(encoder_layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder_layer, decoder_layers, nn.LayerNorm(width))
        for layer in (*self.encoder.layers, *self.decoder.layers):
            for name, module in list(layer.named_children()):
                if isinstance(module, nn.Dropout):
                    setattr(layer, name, Dropout(dropout))
                elif isinstance(module, nn.MultiheadAttention):
                    module.dropout = 0.0  # a Dropout of its output follows, which is enough
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.ndim > 1:  # PyTorch copies one layer's start to all; here each has its own
                nn.init.xavier_uniform_(parameter)

    def kernel(self, device: torch.device) -> AbstractContextManager:
        """What computes attention. PyTorch's fused kernel is made for long texts. For sentences of a dozen tokens in bf16, its
        forward and backward passes on a CPU take four times as long as plain matrix products. They train; it translates."""
        return sdpa_kernel(SDPBackend.MATH) if self.training and device.type == "cpu" else nullcontext()

    def embed(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        place = positions(tokens.shape[1], embedding.embedding_dim, tokens.device)
        return self.dropout(self.scale * embedding(tokens) + place)

    def encode(self, source: Tensor) -> dict[str, Tensor]:
        mask = source == PAD
        with self.kernel(source.device):
            memory = self.encoder(self.embed(self.source_embedding, source), src_key_padding_mask=mask)
        return {"memory": memory, "mask": mask, "prefix": source[:, :0]}

    def decode(self, tokens: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The state keeps the tokens so far, and each call computes them again: for short sentences that costs less than
        it would to keep the keys and values of every layer. Padding at the right is behind what is asked, so it is masked
        by causality."""
        prefix = torch.cat([state["prefix"], tokens], 1)
        later = torch.ones(prefix.shape[1], prefix.shape[1], dtype=torch.bool, device=tokens.device).triu(1)
        with self.kernel(tokens.device):
            hidden = self.decoder(
                self.embed(self.target_embedding, prefix),
                state["memory"],
                tgt_mask=later,
                tgt_is_causal=True,
                memory_key_padding_mask=state["mask"],
            )
        return self.output(hidden[:, -tokens.shape[1] :]), state | {"prefix": prefix}

    def attention(self, source: Tensor, tokens: Tensor) -> Tensor:
        """The weights with which the last decoder layer looks at the source, averaged over its heads.

        PyTorch's layer does not hand them out; hooks ask its attention for them and catch the answer."""
        caught = []
        cross = self.decoder.layers[-1].multihead_attn
        ask = cross.register_forward_pre_hook(lambda _, args, kw: (args, kw | {"need_weights": True}), with_kwargs=True)
        catch = cross.register_forward_hook(lambda _, args, answer: caught.append(answer[1]))
        with ask, catch:
            self(source, tokens)
        return caught[0]


# ---- names ------------------------------------------------------------------------------------------------------------

RECURRENT = {"width": 256, "hidden": 384, "layers": 1, "dropout": 0.3}
TRANSFORMER = {"width": 256, "heads": 4, "layers": 3, "decoder_layers": 2, "feedforward": 512, "dropout": 0.3}
MODELS = {
    "plain": (Recurrent, RECURRENT | {"score": None}),
    "dot": (Recurrent, RECURRENT | {"score": "dot"}),
    "general": (Recurrent, RECURRENT | {"score": "general"}),
    "concat": (Recurrent, RECURRENT | {"score": "concat"}),
    "lstm": (Recurrent, RECURRENT | {"score": "general", "cell": "LSTM"}),
    "bahdanau": (Bahdanau, RECURRENT),
    "transformer": (Transformer, TRANSFORMER),
}


def build(arch: str, source_words: int, target_words: int, **sizes) -> Translator:
    """A fresh network; `sizes` (width, hidden, layers, dropout ...) replaces those that stand in MODELS."""
    if arch not in MODELS:
        close = difflib.get_close_matches(arch, MODELS, 1)
        hint = f" did you mean {close[0]}?" if close else ""
        fail(f"no architecture {arch!r};{hint} there are: {', '.join(MODELS)}")
    network, standard = MODELS[arch]
    return network(source_words, target_words, **standard | {k: v for k, v in sizes.items() if v is not None})


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    print(f"{'arch':<14}{'parameters':>12}    (4,157 source and 2,353 target words)")
    for name in MODELS:
        print(f"{name:<14}{count_parameters(build(name, 4157, 2353)):>12,}")
