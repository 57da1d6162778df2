"""Greedy and beam search: against each other, against trying everything, and what they do with unknown words."""

import itertools
import math

import pytest
import torch

import datasets
import models
import search
import test as tester
from text import END, PAD, SPECIAL, START, UNKNOWN, Rules, Side, Vocabulary

SOURCE = datasets.pad([[5, 6, 7, 3], [8, 9, 10, 11, 12, 3], [4, 3], [9, 9, 9, 3], [20, 21, 3]])


def lively(model):
    """Untrained, a network gives all words about the same chance; with larger weights it has opinions, and an end."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.output_bias[END] = 3
    return model


def log_probability(model, source, row):
    """Of the translation `row` and its end, from one pass over all of it."""
    tokens = torch.tensor([[START, *row]])
    with torch.inference_mode():
        steps = model(source[None, source != PAD], tokens).log_softmax(2)
    return steps[0].gather(1, torch.tensor([*row, END])[:, None]).sum().item()


@pytest.mark.parametrize("arch", models.MODELS)
def test_beam_one_is_greedy_and_wider_beams_are_never_worse(small, arch):
    better = 0
    for seed in range(3):
        model = lively(small(arch, seed=seed))
        greedy = search.greedy(model, SOURCE)
        assert search.beam_search(model, SOURCE, beam=1)[0] == greedy
        rows, scores = search.beam_search(model, SOURCE, beam=5, penalty=0.0)
        for source, ours, row, score in zip(SOURCE, greedy, rows, scores, strict=True):
            if max(len(ours), len(row)) < search.limit(source[None])[0]:  # both have ended
                assert score == pytest.approx(log_probability(model, source, row), abs=1e-3)
                assert score >= log_probability(model, source, ours) - 1e-3
                better += row != ours
        for source, row, score in zip(SOURCE, *search.beam_search(model, SOURCE, beam=5, penalty=2.0), strict=True):
            if len(row) < search.limit(source[None])[0]:
                assert score == pytest.approx(log_probability(model, source, row), abs=1e-3)
    assert better > 0


@pytest.mark.parametrize("arch", models.MODELS)
def test_a_batch_translates_as_its_sentences_alone_and_always_the_same(small, arch):
    model = lively(small(arch, seed=4))
    for beam in (1, 4):
        find = search.greedy if beam == 1 else lambda model, source: search.beam_search(model, source, 4)[0]
        together = find(model, SOURCE)
        assert together == find(model, SOURCE)
        for source, row in zip(SOURCE, together, strict=True):
            assert find(model, source[None, source != PAD])[0] == row


class Table(torch.nn.Module):
    """A translator whose next token depends on the last one alone: (V, V) logits; `looks` (T, S) is its attention."""

    def __init__(self, table, looks=None):
        super().__init__()
        self.table, self.looks = table, looks

    def encode(self, source):
        return {"source": source}

    def decode(self, tokens, state):
        return self.table[tokens], state

    def attention(self, source, tokens):
        return None if self.looks is None else self.looks[None]


def test_a_beam_of_everything_finds_the_best_of_all():
    """Three words, sentences of up to three: 40 in all. A beam of 100 keeps every beginning, so it must find the best."""
    for seed in range(5):
        table = torch.randn(7, 7, generator=torch.Generator().manual_seed(seed)) * 2
        table[:, [PAD, UNKNOWN, START]] = -torch.inf
        steps = table.log_softmax(1)
        sentences = [list(s) for n in range(4) for s in itertools.product((4, 5, 6), repeat=n)]
        scored = []
        for words in sentences:
            total = sum(steps[a, b].item() for a, b in itertools.pairwise([START, *words, END]))
            scored.append((total, words))
        best = max(scored)
        rows, scores = search.beam_search(Table(table), torch.full((2, 3), 9), 100, penalty=0.0)
        if len(rows[0]) <= 3:
            assert rows[0] == rows[1] == best[1] and scores[0] == pytest.approx(best[0], abs=1e-4)
        else:  # a longer sentence than those tried here is better still
            assert scores[0] > best[0]


def test_a_length_penalty_lets_longer_ones_win():
    """A word and the end is likeliest; of two words and more each is likelier, but not all together."""
    table = torch.full((7, 7), -40.0)
    table[START, [4, 5]] = torch.tensor([0.5, 0.5]).log()
    table[4, [END, 6]] = torch.tensor([0.2, 0.8]).log()
    table[5, [END, 6]] = torch.tensor([0.1, 0.9]).log()
    table[6, [END, 4]] = torch.tensor([0.18, 0.82]).log()
    source = torch.full((1, 3), 9)
    assert search.beam_search(Table(table), source, 3, penalty=0.0) == ([[4]], [pytest.approx(math.log(0.1), abs=1e-4)])
    assert len(search.beam_search(Table(table), source, 3, penalty=2.0)[0][0]) > 1


def test_the_usual_penalty_prefers_five_words_to_one_that_is_little_likelier():
    """One word, of probability 0.5, against five together of 0.31: the usual penalty takes the five, a penalty of 1 the one."""
    table = torch.full((10, 10), -40.0)
    table[START, [4, 5, 6]] = torch.tensor([0.5, 0.308, 0.192]).log()
    for a, b in ((4, END), *itertools.pairwise([5, 6, 7, 8, 9, END])):
        table[a, b] = 0.0
    source = torch.full((1, 3), 9)
    assert search.beam_search(Table(table), source, 3)[0] == [[5, 6, 7, 8, 9]]
    assert search.beam_search(Table(table), source, 3, penalty=1.0)[0] == [[4]]
    assert tester.parse([]).length_penalty == search.PENALTY


def test_a_search_goes_on_until_nothing_can_overtake():
    """The short one ends first, at rank log(0.5) / lp(2); the long one, never above it until its end, has log(0.49) / lp(5)."""
    table = torch.full((8, 8), -40.0)
    table[START, [4, 5]] = torch.tensor([0.51, 0.49]).log()
    table[4, [END, 4]] = torch.tensor([0.98, 0.02]).log()
    for a, b in itertools.pairwise([5, 6, 7, END]):
        table[a, b] = 0.0
    rows, scores = search.beam_search(Table(table), torch.full((1, 3), 9), 2, penalty=1.0)
    assert rows == [[5, 6, 7]] and scores == [pytest.approx(math.log(0.49), abs=1e-3)]
    assert search.beam_search(Table(table), torch.full((1, 3), 9), 2, penalty=0.0)[0] == [[4]]


def test_a_long_neighbour_changes_no_translation():
    table = torch.zeros(8, 8)
    table[:, END] = -40.0  # nothing ends by itself
    alone, together = torch.full((1, 3), 9), torch.full((2, 30), 9)
    together[0, 3:] = PAD
    for find in (search.greedy, lambda model, source: search.beam_search(model, source, 2)[0]):
        assert len(find(Table(table), together)[0]) == len(find(Table(table), alone)[0]) == 16


def make_codec(max_length=50):
    words = (Vocabulary([*SPECIAL, " i", " see", "."]), Vocabulary([*SPECIAL, "我", "看", "见", "。"]))
    sides = (Side(Rules(language=""), words[0], lower=True), Side(Rules(), words[1]))
    return datasets.Codec(*sides, max_length)


def chain(*tokens):
    """A table that goes from START through `tokens` to END."""
    table = torch.zeros(8, 8)
    for a, b in itertools.pairwise([START, *tokens, END]):
        table[a, b] = 9.0
    return table


@pytest.mark.parametrize("beam", [1, 3])
def test_an_unknown_word_is_copied_from_where_the_network_looks(beam):
    looks = torch.zeros(5, 5)
    looks[2, 2] = 1.0  # writing the third token it looks at the third word
    found = search.translate(
        Table(chain(4, 5, UNKNOWN), looks), make_codec(), ["I see Zyzzyva."], torch.device("cpu"), beam
    )
    assert search.as_text(make_codec(), found) == ["我看Zyzzyva"]
    unseen = search.translate(Table(chain(4, 5, UNKNOWN)), make_codec(), ["I see Zyzzyva."], torch.device("cpu"), beam)
    assert search.as_text(make_codec(), unseen) == ["我看⁇"]


def test_unknown_source_words_are_put_where_attention_looked_at_them():
    looks = torch.zeros(4, 5)  # 我 看 见 and the end look at: i, see, Zyzzyva (unknown), the mark, the end
    looks[0, 0] = looks[1, 1] = looks[3, 3] = 1.0
    looks[2, 2] = 0.9
    model, text = Table(chain(4, 5, 6), looks), ["I see Zyzzyva."]
    plain = search.translate(model, make_codec(), text, torch.device("cpu"))
    copied = search.translate(model, make_codec(), text, torch.device("cpu"), copy_unknown=True)
    assert search.as_text(make_codec(), plain) == ["我看见"] and search.as_text(make_codec(), copied) == [
        "我看Zyzzyva见"
    ]
    assert make_codec().source.unknown("I see Zyzzyva.") == [(2, "Zyzzyva")]


def test_empty_unknown_and_endless_sentences_do_no_harm(small):
    codec, model = make_codec(), small("general", (7, 8))
    odd = ["", "\U0001f642", "𠮷野家", "see " * 2000, "I"]
    answers = search.translate(model, codec, [*odd, "I"], torch.device("cpu"), beam=2)
    assert list(answers) == odd and answers[""] == []
    assert all(len(tokens) <= 2 * 51 + 10 for tokens in answers.values())
