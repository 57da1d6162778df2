"""The networks: shapes, gradients, padding that changes nothing, order that does, attention that adds up."""

import pytest
import torch
import torch.nn.functional as F

import bench
import models
from text import PAD, SPECIAL, UNK

SMALL = {"dim": 16, "hidden": 8}
END = 2  # the number of 。


def texts(*rows):
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])


def build(arch, **sizes):
    torch.manual_seed(0)
    model = models.build(arch, 50, 3, **(SMALL | sizes))
    if arch == "fasttext":
        every = torch.arange(2, 50)
        pairs = torch.cartesian_prod(every, every)
        model.learn_runs([(pairs, None), (pairs, None)])
    return model


@pytest.mark.parametrize("arch", models.MODELS)
def test_every_network_gives_logits_and_every_parameter_learns(arch):
    model = build(arch, hidden=64, word_dropout=0.0, dropout=0.0)
    ids = torch.randint(2, 50, (16, 12), generator=torch.Generator().manual_seed(1))
    ids[3, 5:] = PAD
    logits = model(ids)
    assert logits.shape == (16, 3)
    F.cross_entropy(logits, torch.arange(16) % 3).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert not without
    assert (model.embedding.weight[PAD] == 0).all() and (model.embedding.weight.grad[PAD] == 0).all()


@pytest.mark.parametrize("arch", models.MODELS)
def test_padding_changes_no_answer_and_one_token_is_enough(arch):
    model = build(arch).eval()
    rows = [[7], [UNK], [8, 9, END, 10, 11], [12, END, END, 13, 14, 15, 16, END], [END]]
    together = model(F.pad(texts(*rows), (0, 9)))
    alone = torch.cat([model(texts(row)) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arch", models.MODELS)
def test_order_counts(arch):
    model = build(arch, hidden=3000 if arch == "fasttext" else 8).eval()
    one, other = model(texts([10, 11, 12, 13], [13, 12, 11, 10]))
    assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize("arch", models.WITH_ATTENTION)
def test_attention_adds_up_to_one_over_the_words_and_gives_padding_none(arch):
    model = build(arch).eval()
    ids = texts([7, 8, END, 9, 10, 11, END, 12], [13, 14, 15], [16])
    logits, share = model.attend(ids)
    torch.testing.assert_close(logits, model(ids), atol=1e-6, rtol=1e-5)
    assert share.shape == ids.shape and (share[ids == PAD] == 0).all() and (share >= 0).all()
    torch.testing.assert_close(share.sum(1), torch.ones(3))


def test_a_clause_ends_with_its_marks():
    ids = texts([20, 21, END, END, 22, END + 1, 23], [END, 24])
    assert models.HAN.clauses_of(ids).tolist()[0] == [0, 0, 0, 0, 1, 1, 2]
    assert models.HAN.clauses_of(ids).tolist()[1][:2] == [0, 1]
    assert all(2 <= i < 2 + len(models.CLAUSE_ENDS) for i, t in enumerate(SPECIAL) if t in models.CLAUSE_ENDS)


def test_fasttext_knows_the_runs_that_training_texts_have_twice():
    model = models.FastText(50, 2, dim=4, hidden=6, longest=3).eval()
    ids = texts([10, 11, 12], [9, 10, 11])  # twice: 10 11
    keys, inside = model.runs(ids)  # of 2, from beginning to end, then of 3
    assert keys.shape == inside.shape == (2, 4 + 3) and len(keys.unique()) == 7 + 6 and inside.all()
    model.learn_runs([(ids, None)])
    assert model.known.tolist() == [keys[0, 1], *[2**31 - 1] * 5]
    weight = model.embedding.weight
    expected = [weight[[10, 11, 50]].sum(0) / 3**0.5, weight[[20, 21]].sum(0) / 2**0.5]
    torch.testing.assert_close(model(texts([10, 11], [20, 21])), model.head(torch.stack(expected)))


def test_fasttext_sees_where_a_text_begins_and_ends():
    model = models.FastText(50, 2, longest=3, hidden=9).eval()
    ids = texts([10, 11], [10, 11, 12], [9, 10, 11])
    keys, inside = model.runs(ids)
    of = [set(keys[i][inside[i]].tolist()) for i in range(3)]
    assert [len(one) for one in of] == [3 + 2, 4 + 3, 4 + 3]
    assert len(of[0] & of[1]) == 3  # begin 10, 10 11, begin 10 11
    assert len(of[0] & of[2]) == 3  # 10 11, 11 end, 10 11 end
    assert len(of[1] & of[2]) == 1  # 10 11


def test_fasttext_hashes_hardly_ever_meet():
    keys, _ = models.FastText(50, 2, hidden=1).runs(torch.cartesian_prod(torch.arange(2, 900), torch.arange(2, 900)))
    assert len(keys.unique()) > 0.9995 * len(keys)


def test_the_lstm_reads_on_to_the_texts_end_and_not_beyond():
    """Equal to the cell run by hand over the text's own tokens."""
    model = build("lstm").eval()
    row = [5, 6, 7, 8, 9]
    outputs, _ = model.rnn(model.embedding(torch.tensor([row])))
    expected = model.head(outputs[:, -1])
    torch.testing.assert_close(model(F.pad(texts(row), (0, 30))), expected, atol=1e-6, rtol=1e-5)


def test_hidden_words_are_read_as_unknown_while_training_only():
    model = build("bilstm", word_dropout=0.5)
    ids = texts([5] * 200, [6] * 100)
    hidden = model.drop_words(ids)
    assert 0.35 < (hidden == UNK).sum() / 300 < 0.65 and (hidden[1, 100:] == PAD).all()
    assert torch.equal(model.eval().drop_words(ids), ids)


def test_flops_of_recurrent_layers_are_counted():
    """The course's LSTM: two layers, four gates, each with a product of the input and one of the state."""
    model = build("lstm")
    dim, hidden, tokens = SMALL["dim"], SMALL["hidden"], 4 + 2
    layers = 2 * tokens * 4 * hidden * ((dim + hidden) + (hidden + hidden))
    assert bench.count_flops(model, texts([5, 6, 7, 8], [9, 10])) == layers + 2 * 2 * hidden * 3


def test_a_wrong_name_is_refused_with_the_right_ones():
    with pytest.raises(SystemExit, match="no architecture 'txtcnn'; did you mean textcnn"):
        models.build("txtcnn")
