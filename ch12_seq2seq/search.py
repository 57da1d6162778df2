"""From logits to a translation: the likeliest token each time (greedy), or the likeliest of several sentences (beam)."""

import torch
from torch import Tensor, nn

from datasets import Codec, pad
from text import END, PAD, START, UNKNOWN

UNKNOWN_MARK = "⁇"
PENALTY = 1.4  # the power in lp(), for short sentences; 1.0 chose translations that were too short (see the README)


def limit(source: Tensor) -> Tensor:
    """(N, S) -> (N,): how many tokens each translation may have, whatever else is in the batch."""
    return 2 * (source != PAD).sum(1) + 10


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
    state, tokens, most = model.encode(source), torch.full_like(source[:, :1], START), limit(source)
    for length in range(1, int(most.max()) + 1):
        scores, state = next_scores(model, tokens, state)
        tokens = scores.argmax(1, keepdim=True)
        for i, token in zip(alive, tokens[:, 0].tolist(), strict=True):
            rows[i].append(token)
        going = ((tokens[:, 0] != END) & (most > length)).nonzero()[:, 0]
        if len(going) == 0:
            break
        alive = [alive[i] for i in going.tolist()]
        tokens, most, state = tokens[going], most[going], {name: tensor[going] for name, tensor in state.items()}
    return [strip(row) for row in rows]


@torch.inference_mode()
def beam_search(model: nn.Module, source: Tensor, beam: int = 5, penalty: float = PENALTY) -> tuple[list, list[float]]:
    """(N, S) -> the tokens of N translations, and their log-probabilities.

    Each step extends the `beam` likeliest unfinished translations of each sentence. Finished ones are kept apart, and the best
    one is the answer: that with the highest log-probability / lp(length), lp(n) = ((5 + n) / 6) ** penalty (Wu et al. 2016,
    "Google's Neural Machine Translation System", equation 14). Without a penalty long ones seldom win. The search of a
    sentence ends when no unfinished translation can beat the best finished one: a log-probability only falls, so its score
    is at most log-probability / lp(limit).
    """
    device, answers, numbers = source.device, [([], -torch.inf)] * len(source), torch.arange(len(source))
    state = {name: tensor.repeat_interleave(beam, 0) for name, tensor in model.encode(source).items()}
    out = torch.full((len(source), beam, 1), START, device=device)
    scores = torch.full((len(source), beam), -torch.inf, device=device)
    scores[:, 0] = 0.0  # one start each, so that the first step does not take the same token `beam` times
    ended = torch.full((len(source),), -torch.inf, device=device)  # the best rank of what has ended
    most = limit(source)
    for length in range(1, int(most.max()) + 1):
        steps, state = next_scores(model, out[:, :, -1].reshape(-1, 1), state)
        steps = steps.view(len(out), beam, -1)  # (N, beam, V)
        scores, best = (scores[..., None] + steps).flatten(1).topk(beam)  # (N, beam) of (N, beam * V)
        parent, token = best // steps.shape[2], best % steps.shape[2]
        n = torch.arange(len(out), device=device)[:, None]
        out = torch.cat([out[n, parent], token[..., None]], 2)  # (N, beam, 1 + length)
        over = most == length
        cut = over & (ended == -torch.inf)  # none has ended at the limit: the best is taken as it is
        may_end = (token == END) | cut[:, None]
        rank, first = (scores / lp(length, penalty)).masked_fill(~may_end, -torch.inf).max(1)
        for i in (rank > ended).nonzero()[:, 0].tolist():
            answers[numbers[i]] = strip(out[i, first[i], 1:].tolist()), scores[i, first[i]].item()
        ended = torch.maximum(ended, rank)
        scores = scores.masked_fill(token == END, -torch.inf)  # (N, beam): those that go on
        going = ((scores.amax(1) / lp(most, penalty) > ended) & ~over).nonzero()[:, 0]
        if len(going) == 0:
            break
        rows = (parent + beam * n)[going].flatten()  # the rows of those that go on
        state = {name: tensor[rows] for name, tensor in state.items()}
        out, scores, ended, most = out[going], scores[going], ended[going], most[going]
        numbers = numbers[going.cpu()]
    return tuple(map(list, zip(*answers, strict=True)))


def lp(length, penalty: float):
    return ((5 + length) / 6) ** penalty


def strip(row: list[int]) -> list[int]:
    return row[: row.index(END)] if END in row else row


def translate(
    model: nn.Module, codec: Codec, texts: list[str], device: torch.device, beam=1, penalty=PENALTY, copy_unknown=False
) -> dict[str, list[str]]:
    """Each normalised text -> the tokens of its translation. Texts of like length share a batch; beam 1 is greedy."""
    rows = {text: codec.encode_source(text) for text in texts if text}
    ordered, answers = sorted(rows, key=lambda text: len(rows[text])), {"": []}
    for start in range(0, len(ordered), 64):
        batch = ordered[start : start + 64]
        source = pad([rows[text] for text in batch]).to(device)
        found = greedy(model, source) if beam == 1 else beam_search(model, source, beam, penalty)[0]
        for text, row in zip(batch, found, strict=True):
            answers[text] = without_unknown(model, codec, text, row, device, copy_unknown)
    return {text: answers[text] for text in texts}


def without_unknown(
    model, codec: Codec, text: str, row: list[int], device: torch.device, copy_unknown=False
) -> list[str]:
    """The tokens of a translation. In place of <unk> stands the source word looked at most (Luong et al. 2015), which is
    right for most names; without attention, a mark. With `copy_unknown`, source words that the vocabulary lacks and that
    stand in no <unk>'s place are put in where attention looked at them most."""
    tokens, unknown = codec.target.decode(row), codec.source.unknown(text) if copy_unknown else []
    if UNKNOWN not in row and not unknown:
        return tokens
    weights = attention(model, codec, text, row, device)  # (T + 1, S + 1)
    words, copied = codec.source.cut(text, as_written=True)[: codec.max_length], set()
    for i in (i for i, number in enumerate(row) if number == UNKNOWN):
        place = len(words) if weights is None else int(weights[i, : len(words)].argmax())
        tokens[i] = words[place] if place < len(words) else UNKNOWN_MARK
        copied.add(place)
    if weights is None:
        return tokens
    missing = [(int(weights[:, place].argmax()), place) for place, _ in unknown if place < len(words)]
    for at, place in sorted(missing, reverse=True):  # from the end, so that the places before stay what they are
        if place not in copied:
            tokens.insert(at, words[place])
    return tokens


@torch.inference_mode()
def attention(model: nn.Module, codec: Codec, text: str, row: list[int], device: torch.device) -> Tensor | None:
    """-> (T, S): how much each of the T tokens `row` and the end looked at each source token and the end; None without."""
    source = torch.tensor([codec.encode_source(text)], device=device)
    weights = model.attention(source, torch.tensor([[START, *row]], device=device))
    return None if weights is None else weights[0].float().cpu()


def as_text(codec: Codec, answers: dict[str, list[str]]) -> list[str]:
    return [codec.target.join(tokens) for tokens in answers.values()]
