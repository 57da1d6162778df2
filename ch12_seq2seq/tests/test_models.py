"""Every network: shapes, gradients, masks, one step at a time or all at once; attention by the formulas of the papers."""

import math

import pytest
import torch

import models
from text import PAD

ARCHS = list(models.MODELS)
SOURCE = torch.tensor([[5, 6, 7, 3, PAD, PAD], [8, 9, 10, 11, 12, 3], [4, 3, PAD, PAD, PAD, PAD]])
TOKENS = torch.tensor([[2, 4, 5, 6, 7], [2, 8, 9, PAD, PAD], [2, 10, 11, 12, PAD]])


@pytest.mark.parametrize("arch", ARCHS)
def test_gives_logits_and_every_weight_learns(small, arch):
    model = small(arch).train()
    logits = model(SOURCE, TOKENS)
    assert logits.shape == (3, 5, 20)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), TOKENS.flatten()).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


@pytest.mark.parametrize("arch", ARCHS)
def test_padding_changes_nothing(small, arch):
    """A sentence in a batch with longer ones, both of its sides padded, has the logits it has alone."""
    model = small(arch)
    with torch.inference_mode():
        together = model(SOURCE, TOKENS)
        for source, tokens, logits in zip(SOURCE, TOKENS, together, strict=True):
            s, t = int((source != PAD).sum()), int((tokens != PAD).sum())
            torch.testing.assert_close(model(source[None, :s], tokens[None, :t])[0], logits[:t], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_step_at_a_time_is_all_at_once(small, arch):
    model = small(arch)
    with torch.inference_mode():
        state, steps = model.encode(SOURCE), []
        for token in TOKENS.split(1, 1):
            logits, state = model.decode(token, state)
            steps.append(logits)
        torch.testing.assert_close(torch.cat(steps, 1), model(SOURCE, TOKENS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
def test_no_position_sees_what_comes_later(small, arch):
    model, other = small(arch), TOKENS.clone()
    other[:, 3:] = 13
    with torch.inference_mode():
        first, second = model(SOURCE, TOKENS), model(SOURCE, other)
    torch.testing.assert_close(first[:, :3], second[:, :3], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first[:, 3:], second[:, 3:])


@pytest.mark.parametrize("arch", ARCHS)
def test_attention_is_a_share_of_each_source_position(small, arch):
    model = small(arch)
    with torch.inference_mode():
        weights = model.attention(SOURCE, TOKENS)
        again = model(SOURCE, TOKENS)
        torch.testing.assert_close(again, model(SOURCE, TOKENS))  # asking leaves no hook behind
    if arch == "plain":
        assert weights is None
        return
    assert weights.shape == (3, 5, 6)
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 5))
    assert (weights[(SOURCE == PAD)[:, None].expand(-1, 5, -1)] == 0).all() and (weights >= 0).all()


def score_of(attend, q, m):
    """Of one query and one memory vector, written as in the papers."""
    if attend.score == "dot":
        return q @ m / 8**0.5
    if attend.score == "general":
        return q @ attend.of_memory.weight @ m / 8**0.5
    matrix = torch.cat([attend.of_query.weight, attend.of_memory.weight], 1)
    return attend.v.weight[0] @ torch.tanh(matrix @ torch.cat([q, m]) + attend.of_memory.bias)


@pytest.mark.parametrize("score", ["dot", "general", "concat"])
def test_attention_is_the_papers_formula(score):
    torch.manual_seed(0)
    attend = models.Attention(score, 8)
    query, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    context, weights = attend(query, memory, mask)
    for n, length in ((0, 5), (1, 3)):
        for t in range(3):
            expected = torch.stack([score_of(attend, query[n, t], m) for m in memory[n, :length]]).softmax(0)
            torch.testing.assert_close(weights[n, t, :length], expected)
            torch.testing.assert_close(context[n, t], expected @ memory[n, :length])


def test_the_encoders_last_states_are_those_of_each_layer_both_directions_side_by_side():
    torch.manual_seed(0)
    encoder = models.Encoder("GRU", 6, 8, 2, 0.0)
    x, lengths = torch.randn(2, 5, 6), torch.tensor([5, 3])
    memory, (last,) = encoder(x, lengths)
    lower = torch.nn.GRU(6, 4, 1, batch_first=True, bidirectional=True)
    lower.load_state_dict({name: value for name, value in encoder.rnn.state_dict().items() if "_l0" in name})
    for n, length in enumerate(lengths):
        for layer, outputs in ((0, lower(x[n : n + 1, :length])[0][0]), (1, memory[n, :length])):
            torch.testing.assert_close(last[n, layer], torch.cat([outputs[-1, :4], outputs[0, 4:]]))


def test_a_transformers_embeddings_are_scaled_by_the_root_of_their_width(small):
    model, tokens = small("transformer"), torch.tensor([[5, 6, 7]])
    table = model.source_embedding.weight
    expected = table[tokens[0]] * 16**0.5 + models.positions(3, 16, torch.device("cpu"))
    torch.testing.assert_close(model.embed(model.source_embedding, tokens)[0], expected)


def test_positions_are_the_papers_sines():
    table = models.positions(50, 8, torch.device("cpu"))
    for place, i in ((0, 0), (7, 1), (49, 3)):
        angle = place / 10000 ** (2 * i / 8)
        assert table[place, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[place, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(1001, 333, requires_grad=True)
    drop = models.Dropout(0.3)
    y = drop(x)
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.005) and y.mean().item() == pytest.approx(
        1, abs=0.01
    )
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert drop(x.to(torch.bfloat16)).dtype == torch.bfloat16
    assert drop.eval()(x) is x and models.Dropout(0.0)(x) is x
    columns = (y == 0).float().mean(0)  # no column is favoured by the eight that share a number
    assert columns.min() > 0.2 and columns.max() < 0.4


def test_a_transformer_trains_without_the_fused_attention_to_the_same_answers(small):
    model, answers = small("transformer"), {}
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    source, tokens = torch.randint(4, 20, (5, 7)), torch.randint(4, 20, (5, 6))
    for training in (True, False):
        model.train(training)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            answers[training] = model(source, tokens)
            answers[training].sum().backward()
        assert any("flash_attention" in event.key for event in seen.key_averages()) is not training
    torch.testing.assert_close(answers[True], answers[False], atol=1e-5, rtol=1e-5)


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(SystemExit, match="no architecture 'bahdanu'; did you mean bahdanau"):
        models.build("bahdanu", 9, 9)
