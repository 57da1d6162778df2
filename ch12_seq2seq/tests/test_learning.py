"""The loop in small: what a step learns from, what validation sees, and which epoch is kept."""

import json
import shlex

import pytest
import torch

import bench
import datasets
import losses
import models
import options
import prepare
import sample
import test as tester
import train
import utils
from text import PAD, Rules

PAIRS = sample.make(60)
CPU = torch.device("cpu")
CODEC = datasets.Codec.of(PAIRS, (Rules(language=""), Rules()), 1, 50)


def arguments(*words):
    args = options.parse("", ["--arch", "general", "--width", "16", "--hidden", "16", "--dropout", "0", *words])
    args.label_smoothing = args.label_smoothing or 0.0
    args.epochs, args.lr, args.warmup = args.epochs or 2, args.lr or 0.01, 0.1
    return args


def network(dropout=0.0):
    torch.manual_seed(0)
    return models.build("general", len(CODEC.source), len(CODEC.target), width=16, hidden=16, dropout=dropout)


class Recorder(torch.optim.SGD):
    """Keeps the gradients of each step, and changes nothing."""

    def __init__(self, model):
        super().__init__(model.parameters(), 0.1)
        self.seen = []

    def step(self):
        self.seen.append([p.grad.clone() for group in self.param_groups for p in group["params"] if p.grad is not None])


def gradients(monkeypatch, rank, world, *words):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))
    monkeypatch.setattr(train.dist, "all_reduce", lambda tensor: None)
    learner = train.Learner(network())
    recorder = Recorder(learner)
    batches = datasets.TokenBatches(PAIRS, CODEC, 150, CPU, seed=0)
    train.train_one_epoch(learner, batches, recorder, arguments("--clip", "1e9", *words))
    return recorder.seen


def test_two_processes_together_have_the_gradients_of_one(monkeypatch):
    """DistributedDataParallel takes the mean of the two; a batch is shared unevenly."""
    single, first, second = (gradients(monkeypatch, rank, world) for rank, world in ((0, 1), (0, 2), (1, 2)))
    assert len(single) == len(first) == len(second) > 2
    for whole, one, other in zip(single, first, second, strict=True):
        for w, a, b in zip(whole, one, other, strict=True):
            torch.testing.assert_close((a + b) / 2, w, atol=1e-6, rtol=1e-4)


def test_label_smoothing_changes_what_is_learned_and_not_what_is_shown(monkeypatch):
    plain, smoothed = (gradients(monkeypatch, 0, 1, "--label-smoothing", share)[0] for share in ("0", "0.3"))
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(plain, smoothed, strict=True))
    shown = []
    for share in ("0", "0.3"):
        learner = train.Learner(network())
        args = arguments("--label-smoothing", share)
        shown.append(
            train.train_one_epoch(learner, datasets.TokenBatches(PAIRS, CODEC, 150, CPU, 0), Recorder(learner), args)
        )
    assert shown[0]["train_loss"] == pytest.approx(shown[1]["train_loss"], rel=1e-5)


def test_teacher_forcing_falls_from_its_first_to_its_second_share():
    class Watch(train.Learner):
        def forward(self, source, tokens, teacher=True):
            self.given.append(teacher)
            return super().forward(source, tokens, teacher)

    learner, shares = Watch(network()), []
    batches = datasets.TokenBatches(PAIRS, CODEC, 150, CPU, seed=0)
    for batches.epoch in (0, 1, 2):
        learner.given = []
        args = arguments("--teacher-forcing", "1", "0", "--epochs", "3")
        train.train_one_epoch(learner, batches, Recorder(learner), args)
        shares.append(sum(learner.given) / len(learner.given))
    assert shares[0] == 1 and 0 < shares[1] < 1 and shares[2] == 0


def test_only_matrices_that_are_no_embeddings_decay():
    model = network()
    decaying, rest = prepare.make_optimizer(model, arguments("--weight-decay", "0.5")).param_groups
    assert decaying["weight_decay"] == 0.5 and rest["weight_decay"] == 0
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in decaying["params"]} == {
        n for n, p in model.named_parameters() if p.ndim > 1 and "emb" not in n
    }
    assert len(decaying["params"]) + len(rest["params"]) == len(names)


def test_validation_is_without_dropout():
    model = network(dropout=0.8).train()
    batches = datasets.TokenBatches(PAIRS, CODEC, 500, CPU)
    args = arguments()
    first, second = (train.evaluate(model.train(), batches, CODEC, PAIRS, args) for _ in range(2))
    assert first == second
    sums = [(losses.cross_entropy(model.eval()(s, t[:, :-1]), t[:, 1:]).item(), tokens) for s, t, tokens in batches]
    assert first["val_loss"] == pytest.approx(sum(a for a, _ in sums) / sum(n for _, n in sums), rel=1e-5)


SMALL = ("--data", "sample", "--arch", "dot", "--width", "16", "--hidden", "16", "--limit", "100", "--device", "cpu")


def scores_by_epoch(monkeypatch, scores):
    told = iter(scores)
    row = {"val_perplexity": 2.0, "val_exact": 0.0}
    monkeypatch.setattr(
        train, "evaluate", lambda *_: dict(zip(("val_bleu", "val_loss"), next(told), strict=True)) | row
    )


def test_the_best_epoch_is_kept(tmp_path, monkeypatch):
    scores_by_epoch(monkeypatch, [(1.0, 1.0), (3.0, 1.0), (2.0, 0.5), (3.0, 2.0)])
    train.main([*SMALL, "--epochs", "4", "--run", str(tmp_path / "run")])
    assert utils.load_checkpoint(tmp_path / "run" / "best.pt")["epoch"] == 2
    assert utils.load_checkpoint(tmp_path / "run" / "last.pt")["epoch"] == 4


def test_a_validation_loss_that_is_no_number_makes_no_best_epoch(tmp_path, monkeypatch):
    scores_by_epoch(monkeypatch, [(1.0, 1.0), (3.0, float("nan"))])
    with pytest.raises(SystemExit, match="validation loss is not finite in epoch 2"):
        train.main([*SMALL, "--epochs", "2", "--run", str(tmp_path / "run")])
    assert utils.load_checkpoint(tmp_path / "run" / "best.pt")["epoch"] == 1


def test_limit_takes_training_pairs_only_and_few_pairs_are_trained_for_many_steps(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in sample.make(400)), "utf-8")
    args = options.parse("", ["--data", str(path), "--limit", "10"])
    data, codec = prepare.load_data(args)
    everything = datasets.load(str(path))
    assert len(data.splits["train"]) == 10 and data.splits["val"] == everything.splits["val"]
    batches = datasets.TokenBatches(data.splits["train"], codec, 0, CPU, 0)
    options.fill_in_recipe(args, data.name, batches)
    assert len(batches.composition()) >= 8 and args.epochs * len(batches.composition()) >= options.LEAST_STEPS


def test_an_exported_command_trains_as_the_run_did():
    every = """--data a.txt --reverse --split source --chinese jieba --script as-is --subwords 90 0 --min-count 3
        --max-length 9 --limit 100 --arch transformer --width 8 --layers 3 --decoder-layers 4 --heads 2
        --feedforward 7 --dropout 0.2 --epochs 1 --batch-size 50 --lr 0.003 --weight-decay 0.1 --warmup 0.3
        --label-smoothing 0.2 --clip 2 --teacher-forcing 1 0.5 --seed 3 --precision bf16 --compile"""
    args, usual = options.parse("", every.split()), options.parse("", [])
    elsewhere = dict.fromkeys(utils.ON_THIS_MACHINE)  # where it was trained, and on what, does not matter
    not_tried = [name for name in vars(args) if vars(args)[name] == vars(usual)[name] and name not in elsewhere]
    assert not_tried == ["hidden", "quick"]  # a Transformer has no --hidden
    command = utils.command_of(json.loads(json.dumps(vars(args))), usual)
    again = options.parse("", shlex.split(command)[2:])
    assert vars(again) | elsewhere == vars(args) | elsewhere


def test_subwords_on_one_side_are_scored_by_characters_on_the_other(tmp_path):
    train.main([*SMALL, "--epochs", "1", "--subwords", "90", "0", "--run", str(tmp_path / "run")])
    tester.main(["--run", str(tmp_path / "run"), "--device", "cpu", "--beam", "1"])
    assert json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))["signature"].split("|")[3] == "tok:zh"


@pytest.mark.parametrize("arch", [name for name in models.MODELS if name != "lstm"])
def test_flops_by_formula_are_those_that_are_counted(small, arch):
    """Where PyTorch's counter sees everything: on the CPU, without gradients, in training mode, with the plain kernels."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model, source, target = small(arch).train(), torch.randint(4, 20, (3, 7)), torch.randint(4, 20, (3, 5))
    assert not (source == PAD).any()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(source, target)
    assert bench.flops(model, 3, 7, 5) == counter.get_total_flops()


def test_an_lstm_has_four_gates_where_a_gru_has_three(small):
    """The counter does not see LSTM kernels on a CPU at all."""
    gru, lstm = (bench.flops(small(arch), 3, 7, 5) for arch in ("general", "lstm"))
    width, hidden, half = 16, 24, 12
    one = 2 * 3 * 7 * 2 * half * ((width + half) + (hidden + half)) + 2 * 3 * 5 * hidden * (width + 3 * hidden)
    assert lstm - gru == one
