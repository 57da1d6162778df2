"""From logits to a translation: the likeliest token each time (greedy), or the likeliest of several sentences (beam)."""

import torch
from torch import Tensor, nn

from datasets import Codec, pad
from text import END, PAD, START, UNKNOWN, join

UNKNOWN_MARK = "⁇"


def limit(source: Tensor) -> int:
    """How many tokens a translation may have."""
    return 2 * source.shape[1] + 10


def next_scores(model: nn.Module, tokens: Tensor, state: dict) -> tuple[Tensor, dict]:
    """(N, 1) last tokens -> (N, V) log-probabilities of the next, and the new state. PAD and START are no answers."""
    logits, state = model.decode(tokens, state)
    scores = logits[:, -1].float().log_softmax(1)
    scores[:, [PAD, START]] = -torch.inf
    return scores, state


@torch.inference_mode()
def greedy(model: nn.Module, source: Tensor) -> list[list[int]]:
    """(N, S) -> the tokens of N translations, without START and END. What has ended is computed no further."""
    rows, alive = [[] for _ in source], list(range(len(source)))
    state, tokens = model.encode(source), torch.full_like(source[:, :1], START)
    for _ in range(limit(source)):
        scores, state = next_scores(model, tokens, state)
        tokens = scores.argmax(1, keepdim=True)
        for i, token in zip(alive, tokens[:, 0].tolist(), strict=True):
            rows[i].append(token)
        going = (tokens[:, 0] != END).nonzero()[:, 0]
        if len(going) == 0:
            break
        alive = [alive[i] for i in going.tolist()]
        tokens, state = tokens[going], {name: tensor[going] for name, tensor in state.items()}
    return [strip(row) for row in rows]


@torch.inference_mode()
def beam_search(model: nn.Module, source: Tensor, beam: int = 5, penalty: float = 1.0) -> tuple[list, list[float]]:
    """(N, S) -> the tokens of N translations, and their log-probabilities.

    Keeps the `beam` likeliest beginnings of each sentence; one that has ended stays as it is, and goes on competing. They
    are ranked by log-probability / ((5 + length) / 6) ** penalty (Wu et al. 2016, "Google's Neural Machine Translation
    System", equation 14): without it, long ones seldom win. A sentence is over when its first in rank has ended, which
    with a penalty of 0 no longer beginning can overtake, and with another seldom does.
    """
    device, answers, numbers = source.device, [None] * len(source), torch.arange(len(source))
    state = {name: tensor.repeat_interleave(beam, 0) for name, tensor in model.encode(source).items()}
    out = torch.full((len(source), beam, 1), START, device=device)
    scores = torch.full((len(source), beam), -torch.inf, device=device)
    scores[:, 0] = 0.0  # one beginning each, so that the first step does not take the same token `beam` times
    done = torch.zeros_like(scores, dtype=torch.bool)
    for step in range(limit(source)):
        steps, state = next_scores(model, out[:, :, -1].reshape(-1, 1), state)
        steps = steps.view(len(out), beam, -1)  # (N, beam, V)
        steps[done] = -torch.inf
        steps[..., PAD] = torch.where(done, 0.0, -torch.inf)  # what has ended goes on in one way, at no cost
        scores, best = (scores[..., None] + steps).flatten(1).topk(beam)  # (N, beam) of (N, beam * V)
        parent, token = best // steps.shape[2], best % steps.shape[2]
        n = torch.arange(len(out), device=device)[:, None]
        out, done = torch.cat([out[n, parent], token[..., None]], 2), done[n, parent] | (token == END)
        lengths = (out[..., 1:] != PAD).sum(2)
        first = (scores / ((5 + lengths) / 6) ** penalty).argmax(1)
        over = done[n[:, 0], first] | (step == limit(source) - 1)
        for i in over.nonzero()[:, 0].tolist():
            answers[numbers[i]] = strip(out[i, first[i], 1:].tolist()), scores[i, first[i]].item()
        going = (~over).nonzero()[:, 0]
        if len(going) == 0:
            break
        rows = (parent + beam * n)[going].flatten()  # where the beginnings that go on stood among all
        state = {name: tensor[rows] for name, tensor in state.items()}
        out, scores, done, numbers = out[going], scores[going], done[going], numbers[going.cpu()]
    return tuple(map(list, zip(*answers, strict=True)))


def strip(row: list[int]) -> list[int]:
    return row[: row.index(END)] if END in row else row


def translate(
    model: nn.Module, codec: Codec, texts: list[str], device: torch.device, beam: int = 1, penalty: float = 1.0
) -> dict[str, list[str]]:
    """Each normalised text -> the tokens of its translation. Texts of like length share a batch; beam 1 is greedy."""
    rows = {text: codec.encode_source(text) for text in texts if text}
    ordered, answers = sorted(rows, key=lambda text: len(rows[text])), {"": []}
    for start in range(0, len(ordered), 64):
        batch = ordered[start : start + 64]
        source = pad([rows[text] for text in batch]).to(device)
        found = greedy(model, source) if beam == 1 else beam_search(model, source, beam, penalty)[0]
        for text, row in zip(batch, found, strict=True):
            answers[text] = without_unknown(model, codec, text, row, device)
    return {text: answers[text] for text in texts}


def without_unknown(model: nn.Module, codec: Codec, text: str, row: list[int], device: torch.device) -> list[str]:
    """The tokens of a translation. In place of <unk> stands the source word looked at most (Luong et al. 2015), which is
    right for most names; without attention, a mark."""
    tokens = codec.target.decode(row)
    if UNKNOWN in row:
        weights = attention(model, codec, text, row, device)
        words = codec.rules.cut(text)[: codec.max_length]
        for i in (i for i, number in enumerate(row) if number == UNKNOWN):
            place = len(words) if weights is None else int(weights[i, : len(words)].argmax())
            tokens[i] = words[place] if place < len(words) else UNKNOWN_MARK
    return tokens


@torch.inference_mode()
def attention(model: nn.Module, codec: Codec, text: str, row: list[int], device: torch.device) -> Tensor | None:
    """-> (T, S): how much each of the T tokens `row` and the end looked at each source token and the end; None without."""
    source = torch.tensor([codec.encode_source(text)], device=device)
    weights = model.attention(source, torch.tensor([[START, *row]], device=device))
    return None if weights is None else weights[0].float().cpu()


def as_text(answers: dict[str, list[str]]) -> list[str]:
    return [join(tokens) for tokens in answers.values()]
