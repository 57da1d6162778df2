"""The loop in small: what a step learns from, what validation sees, which epoch is kept, and recipes laid out in steps."""

import json
import math
import shlex

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import datasets
import models
import options
import scores
import test as tester
import text
import train
import utils

CPU = torch.device("cpu")


def arguments(*words):
    args = options.parse("", ["--arch", "textcnn", *words])
    args.lr = args.lr or 0.01
    return args


def split_of(count=43, labels=None):
    torch.manual_seed(1)
    lengths = torch.randint(1, 9, (count,))
    ids = torch.randint(2, 30, (int(lengths.sum()),)).int()
    labels = torch.arange(count) % 3 if labels is None else labels
    return datasets.Split(ids, lengths.cumsum(0) - lengths, lengths, labels, np.arange(count), 3)


def network(dropout=0.0):
    torch.manual_seed(0)
    return models.build("textcnn", 30, 3, dim=8, hidden=4, dropout=dropout, word_dropout=dropout)


class Recorder(torch.optim.SGD):
    """Keeps the gradients of each step, and changes nothing."""

    def __init__(self, model):
        super().__init__(model.parameters(), 0.1)
        self.seen = []

    def step(self):
        self.seen.append(torch.cat([p.grad.flatten() for group in self.param_groups for p in group["params"]]))


class Still:
    def step(self):
        pass


def gradients(monkeypatch, rank, world, *words, weight=None):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))
    monkeypatch.setattr(train.dist, "all_reduce", lambda tensor: None)
    model = network()
    recorder = Recorder(model)
    loader = datasets.BucketLoader(split_of(), 5, CPU, train=True)
    row = train.train_one_epoch(model, loader, recorder, Still(), arguments(*words), weight)
    return recorder.seen, row


def test_two_processes_together_have_the_gradients_of_one(monkeypatch):
    """DistributedDataParallel takes the mean of the two; of a batch of five, one has three texts."""
    monkeypatch.setattr(train.nn.utils, "clip_grad_norm_", lambda *_: None)
    (single, _), (first, _), (second, _) = (gradients(monkeypatch, *where) for where in ((0, 1), (0, 2), (1, 2)))
    assert len(single) == 8
    for whole, one, other in zip(single, first, second, strict=True):
        torch.testing.assert_close((one + other) / 2, whole, atol=1e-6, rtol=1e-4)


def test_fewer_texts_than_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="--batch-size 1: less than a text for each of the 2 processes"):
        arguments("--batch-size", "1")


def test_gradients_are_clipped(monkeypatch):
    monkeypatch.setattr(train, "loss_of", lambda *words: 1000 * scores.loss_of(*words))
    seen, _ = gradients(monkeypatch, 0, 1)
    assert max(gradient.norm().item() for gradient in seen) == pytest.approx(1.0, abs=1e-3)


def test_label_smoothing_and_balance_change_what_is_learned_and_not_what_is_shown(monkeypatch):
    plain, row = gradients(monkeypatch, 0, 1)
    smoothed, other = gradients(monkeypatch, 0, 1, "--label-smoothing", "0.3")
    balanced, third = gradients(monkeypatch, 0, 1, weight=torch.tensor([3.0, 0.5, 0.5]))
    assert (plain[0] - smoothed[0]).abs().max() > 1e-3 and (plain[0] - balanced[0]).abs().max() > 1e-3
    assert row["train_loss"] == pytest.approx(other["train_loss"]) == pytest.approx(third["train_loss"])


def test_the_loss_by_hand():
    logits, labels = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]), torch.tensor([0, 2])
    logs = logits.log_softmax(1)
    assert scores.loss_of(logits, labels).item() == pytest.approx(-(logs[0, 0] + logs[1, 2]).item())
    smoothed = -0.7 * (logs[0, 0] + logs[1, 2]) - 0.3 * logs.mean(1).sum()
    assert scores.loss_of(logits, labels, 0.3).item() == pytest.approx(smoothed.item(), rel=1e-5)
    weight = scores.balance([30, 10, 20], 60, False)
    assert (weight * torch.tensor([30, 10, 20])).tolist() == pytest.approx([20, 20, 20])
    assert scores.balance([30, 10], 60, True).tolist() == pytest.approx([1, 5])


def test_validation_is_without_dropout_and_counts_right():
    model, split = network(dropout=0.7), split_of()
    loader = datasets.BucketLoader(split, 7, CPU)
    first, second = (train.evaluate(model.train(), loader, arguments()) for _ in range(2))
    assert first == second
    with torch.no_grad():
        logits = model.eval()(datasets.gather(split, torch.arange(43), 8))
    assert first["val_loss"] == pytest.approx(F.cross_entropy(logits, split.labels).item(), rel=1e-5)
    by_hand = tester.measure(logits.softmax(1), split.labels, ["a", "b", "c"])
    assert first["val_accuracy"] == pytest.approx(by_hand["accuracy"])
    assert first["val_macro_f1"] == pytest.approx(by_hand["macro_f1"])


# ---- which epoch is kept ----------------------------------------------------------------------------------------------

SMALL = (
    "--data",
    "sample",
    "--arch",
    "textcnn",
    "--tokenizer",
    "char",
    "--dim",
    "4",
    "--hidden",
    "4",
    "--limit",
    "64",
    "--device",
    "cpu",
)


def run_with_scores(tmp_path, monkeypatch, cache, told, *words):
    told = iter(told)
    names = ("val_accuracy", "val_loss", "val_macro_f1")
    monkeypatch.setattr(train, "evaluate", lambda *_: dict(zip(names, next(told), strict=True)))
    train.main([*SMALL, "--cache", str(cache), "--run", str(tmp_path / "run"), *words])
    return utils.load_checkpoint(tmp_path / "run" / "best.pt")["epoch"]


def test_the_best_epoch_is_kept(tmp_path, monkeypatch, cache):
    told = [(0.6, 1.0, 0.1), (0.8, 0.9, 0.2), (0.8, 0.8, 0.4), (0.7, 0.1, 0.3), (0.8, 0.9, 0.2)]
    assert run_with_scores(tmp_path, monkeypatch, cache, told, "--epochs", "5") == 3


def test_with_balance_the_best_epoch_is_that_of_macro_f1(tmp_path, monkeypatch, cache):
    told = [(0.6, 1.0, 0.5), (0.8, 0.9, 0.2)]
    assert run_with_scores(tmp_path, monkeypatch, cache, told, "--epochs", "2", "--balance") == 1


def test_a_validation_loss_that_is_no_number_makes_no_best_epoch(tmp_path, monkeypatch, cache):
    with pytest.raises(SystemExit, match="validation loss is not finite in epoch 2"):
        run_with_scores(tmp_path, monkeypatch, cache, [(0.6, 1.0, 0.5), (0.9, math.nan, 0.5)], "--epochs", "2")
    assert utils.load_checkpoint(tmp_path / "run" / "best.pt")["epoch"] == 1


def test_of_few_validation_texts_a_later_epoch_within_chance_counts():
    assert train.chance(0.7, 100) == pytest.approx(math.sqrt(0.7 * 0.3 / 100))
    assert train.chance(0.7, train.FEW_TEXTS) == 0


def test_a_resumed_run_goes_on_in_its_schedule(tmp_path, cache):
    words = [*SMALL, "--cache", str(cache), "--epochs", "4"]
    train.main([*words, "--run", str(tmp_path / "whole")])
    train.main([*words[:-1], "2", "--run", str(tmp_path / "half")])
    train.main(["--resume", str(tmp_path / "half"), "--epochs", "4"])
    rows = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("whole", "half")]
    rates = [[float(row.split(",")[1]) for row in lines[1:]] for lines in rows]
    assert rates[0][2:] == rates[1][2:] and len(rates[1]) == 4


def test_resuming_with_other_labels_is_refused(tmp_path, table, cache):
    rows = [(f"第{i}条{'好' if i % 2 else '坏'}", i % 2) for i in range(300)]
    words = ["--data", str(table(rows)), "--arch", "textcnn", "--quick", "--device", "cpu", "--cache", str(cache)]
    train.main([*words, "--run", str(tmp_path / "run")])
    table([(t, 1 - label) for t, label in rows])
    with pytest.raises(SystemExit, match="labels differ from what .* gives now"):
        train.main(["--resume", str(tmp_path / "run"), "--epochs", "2"])


# ---- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", options.RECIPES)
@pytest.mark.parametrize("texts", [8, 80, 240, 800, 2400])
def test_small_tables_are_trained_for_many_steps_of_small_batches(arch, texts):
    args = options.parse("", ["--arch", arch])
    recipe = options.recipe_of(args, texts, np.full(texts, 20), 2, False)
    assert recipe["batch_size"] <= max(1, texts // 8) and recipe["batch_size"] >= min(
        options.SMALLEST_BATCH, texts // 8
    )
    assert options.LEAST_STEPS <= recipe["epochs"] * (texts // recipe["batch_size"]) < 2 * options.LEAST_STEPS


@pytest.mark.parametrize("arch", options.RECIPES)
def test_recipes_of_large_tables_are_those_of_the_page(arch):
    args = options.parse("", ["--arch", arch])
    recipe = options.recipe_of(args, 55_000, np.full(55_000, 30), 2, False)
    assert [recipe[name] for name in options.COLUMNS[1:]] == list(options.RECIPES[arch][1:]) and recipe[
        "max_length"
    ] == 128
    long = options.recipe_of(args, 55_000, np.full(55_000, 300), 2, False)
    assert long["max_length"] == 300 and options.recipe_of(args, 900, np.full(900, 9000), 2, False)["max_length"] == 512


def test_an_exported_command_trains_as_the_run_did():
    every = """--data shop.csv --text-column text --label-column label --emoticons strip --tokenizer char
        --stop-words hit --max-words 300 --min-count 3 --max-length 40 --limit 64 --arch lstm --vectors v.txt
        --epochs 1 --batch-size 16 --lr 0.003 --weight-decay 0.1 --dim 8 --hidden 9 --longest 3 --dropout 0.2
        --word-dropout 0.3 --label-smoothing 0.1 --balance --seed 3 --precision bf16 --compile"""
    args, usual = options.parse("", every.split()), options.parse("", [])
    elsewhere = dict.fromkeys(utils.ON_THIS_MACHINE)  # where it was trained, and on what, does not matter
    not_tried = [name for name in vars(args) if vars(args)[name] == vars(usual)[name] and name not in elsewhere]
    assert not_tried == ["weights", "quick"]  # --vectors takes no --weights
    command = utils.command_of(json.loads(json.dumps(vars(args))), usual)
    again = options.parse("", shlex.split(command)[2:])
    assert vars(again) | elsewhere == vars(args) | elsewhere


# ---- networks by hand -------------------------------------------------------------------------------------------------


def test_an_rcnns_token_has_the_contexts_before_and_after_it():
    torch.manual_seed(0)
    model = models.build("rcnn", 30, 2, dim=6, hidden=4).eval()
    row = [5, 6, 7]
    x = model.embedding(torch.tensor([row]))
    outputs, _ = model.rnn(x)
    zero, y = torch.zeros(4), []
    for i in range(3):
        left = outputs[0, i - 1, :4] if i else zero
        right = outputs[0, i + 1, 4:] if i < 2 else zero
        y.append(torch.tanh(model.mix(torch.cat([left, x[0, i], right]))))
    expected = model.head(torch.stack(y).amax(0))
    torch.testing.assert_close(model(torch.tensor([row]))[0], expected, atol=1e-6, rtol=1e-5)


def test_a_transformers_wavelengths_are_the_papers():
    table = models.Transformer.positions(50, 8, CPU)
    for place, i in ((0, 0), (7, 1), (49, 3)):
        angle = place / 10000 ** (2 * i / 8)
        assert table[place, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[place, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_the_sum_of_a_fasttext_keeps_its_size_when_words_are_hidden():
    torch.manual_seed(0)
    model = models.FastText(50, 2, dim=4, hidden=6, word_dropout=0.5)
    ids = torch.arange(2, 42)[None].expand(2000, -1)
    with torch.no_grad():
        model.embedding.weight.fill_(1.0)
        model.head.bias.zero_()
        torch.testing.assert_close(model.train()(ids).mean(0), model.eval()(ids[:1])[0], atol=0.0, rtol=0.03)


def test_attention_is_the_papers_formula():
    torch.manual_seed(0)
    attend, h = models.Attention(4), torch.randn(3, 4)
    expected = [attend.u_w.weight[0] @ torch.tanh(attend.W.weight @ one + attend.W.bias) for one in h]
    torch.testing.assert_close(attend(h), torch.stack(expected))


def test_the_first_tokens_of_a_long_text_are_kept(table, cache):
    corpus = datasets.load(str(table([(f"甲乙丙{i}丁", i % 2) for i in range(60)])), tokenizer="char", cache=cache)
    vocabulary = [*text.SPECIAL, "甲", "乙", "丙", "丁"]
    split = datasets.encode(corpus, "train", vocabulary, 2)
    assert datasets.gather(split, torch.arange(len(split)), 2).tolist() == [
        [len(text.SPECIAL), len(text.SPECIAL) + 1]
    ] * len(split)
