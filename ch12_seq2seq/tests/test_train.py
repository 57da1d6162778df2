"""Training as a whole: it learns, it resumes exactly after a kill, it refuses nonsense in one line."""

import json
import os
import time

import pytest
import torch
import torch.nn.functional as F
from conftest import end, fork, fork_two, kill
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import datasets
import losses
import options
import sample
import test as tester
import train
import utils
from text import PAD

SMALL = ("--data", "sample", "--arch", "general", "--width", "32", "--hidden", "32", "--limit", "300", "--epochs", "4")


def metrics(run):
    return (run / "metrics.csv").read_text("utf-8").splitlines()


def assert_same_run(one, other):
    """The same metrics.csv, byte for byte, and the same weights and optimizer state, bit for bit."""
    assert metrics(one) == metrics(other)
    for name in ("last.pt", "best.pt"):
        first, second = (utils.load_checkpoint(run / name) for run in (one, other))
        assert first["epoch"] == second["epoch"]
        assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    states = [utils.load_checkpoint(run / "last.pt")["optimizer"]["state"] for run in (one, other)]
    assert all(torch.equal(a, states[1][i][key]) for i in states[0] for key, a in states[0][i].items())


def start(words, run, epochs, fork=fork):
    """Starts train.py and kills it with signal 9, and all its processes, once last.pt has `epochs` epochs or more."""
    output = run.with_name(f"{run.name}.txt")
    started = fork([*words, "--run", run], output)
    processes = started if isinstance(started, list) else [started]
    deadline = time.time() + 300
    while not (run / "last.pt").exists() or utils.load_checkpoint(run / "last.pt")["epoch"] < epochs:
        assert all(process.is_alive() for process in processes), output.read_text()
        assert time.time() < deadline
        time.sleep(0.01)
    kill(processes)
    assert utils.load_checkpoint(run / "last.pt")["epoch"] >= epochs  # what the resumed run starts from


def test_killed_and_resumed_equals_never_killed(tmp_path):
    words = [
        *SMALL[:-1],
        "8",
        "--teacher-forcing",
        "1",
        "0.5",
        "--device",
        "cpu",
    ]  # its coins have to fall the same way too
    train.main([*words, "--run", str(tmp_path / "whole")])
    killed = tmp_path / "killed"
    start(words, killed, epochs=2)
    assert len(metrics(killed)) < 1 + 8, "it was over before the kill"
    train.main(["--resume", str(killed)])
    assert_same_run(tmp_path / "whole", killed)


def test_killed_and_resumed_on_two_processes_is_as_good_as_one(tmp_path):
    """Without dropout, two processes share the work of one: the same losses, but for the order of the additions."""
    words = [*SMALL[:-4], "--limit", "150", "--epochs", "6", "--dropout", "0", "--device", "cpu"]
    train.main([*words, "--run", str(tmp_path / "single")])
    killed = tmp_path / "killed"
    start(words, killed, epochs=2, fork=fork_two)
    assert len(metrics(killed)) < 1 + 6, "it was over before the kill"
    said = tmp_path / "said.txt"
    assert end(fork_two(["--resume", killed], said)) == [0, 0], said.read_text()
    histories = [utils.load_checkpoint(tmp_path / name / "last.pt")["history"] for name in ("single", "killed")]
    for one, two in zip(*histories, strict=True):
        assert (one["train_loss"], one["val_loss"]) == pytest.approx((two["train_loss"], two["val_loss"]), rel=2e-3)


def test_learns_the_sample(tmp_path, device):
    """A small network with attention translates most combinations that it never saw, character by character."""
    run = tmp_path / "run"
    words = ["--data", "sample", "--arch", "dot", "--width", "64", "--hidden", "96", "--epochs", "4", "--lr", "5e-3"]
    train.main([*words, "--device", device, "--run", str(run)])
    tester.main(["--run", str(run), "--device", device])
    result = json.loads((run / "test.json").read_text("utf-8"))
    assert result["exact"] > 0.9 and result["bleu"] > 95 and result["tested_on"] == "sample"
    for name in ("args.json", "metrics.csv", "curves.png", "last.pt", "best.pt", "translations.tsv", "attention.png"):
        assert (run / name).stat().st_size > 100


def test_quick_run_as_a_user_runs_it(tmp_path, run_script, device):
    run = tmp_path / "quick"
    done = run_script("train.py", "--quick", "--device", device, "--run", run)
    assert done.returncode == 0, done.stderr
    assert "val_bleu" in done.stdout and f"now: python test.py --run {run}" in done.stdout
    assert "epoch 1:" not in done.stderr  # no progress bar where the output is no terminal
    assert json.loads((run / "args.json").read_text("utf-8"))["data"] == "sample"
    assert "val_bleu" in EventAccumulator(str(run)).Reload().Tags()["scalars"]


def test_a_run_never_overwrites_another(tmp_path):
    words = ["--arch", "dot", "--quick", "--data", "sample", "--device", "cpu", "--run", str(tmp_path / "run")]
    train.main(words)
    before = (tmp_path / "run" / "last.pt").read_bytes()
    train.main([*words, "--seed", "1"])
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    assert utils.load_checkpoint(tmp_path / "run-2" / "last.pt")["epoch"] == 1


@pytest.mark.parametrize(
    "flags",
    [
        ("--arch", "lstm", "--reverse", "--subwords", "120"),
        ("--arch", "bahdanau", "--chinese", "jieba", "--teacher-forcing", "0"),
        ("--arch", "transformer", "--precision", "bf16", "--label-smoothing", "0.1", "--max-length", "14"),
        ("--arch", "plain", "--script", "as-is", "--min-count", "3", "--teacher-forcing", "0.5"),
    ],
)
def test_own_pairs_in_every_way(tmp_path, flags, capsys):
    path = tmp_path / "mine.tsv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in sample.make(300)), "utf-8")
    words = ["--data", str(path), "--limit", "150", "--epochs", "1", "--batch-size", "300", "--device", "cpu"]
    train.main([*words, "--run", str(tmp_path / "run"), *flags])
    tester.main(["--run", str(tmp_path / "run"), "--device", "cpu", "--beam", "2"])
    result = json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))
    said = capsys.readouterr().out
    assert ("tok:13a" if "--reverse" in flags else "tok:zh") in result["signature"]
    assert result["tested_on"] == "mine" and result["reverse"] == ("--reverse" in flags)
    assert ("pairs or lines: longer than 14" in said) == ("--max-length" in flags)
    assert (tmp_path / "run" / "attention.png").exists() == ("plain" not in flags)


# ---- the pieces -------------------------------------------------------------------------------------------------------


def test_the_courses_loss_is_cross_entropy_that_ignores_padding():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 6, 9, requires_grad=True), torch.randint(1, 9, (4, 6))
    targets[0, 3:] = targets[2, 1:] = PAD
    ours = losses.masked_nll(logits, targets)
    library = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=PAD, reduction="sum")
    torch.testing.assert_close(ours, library)
    torch.testing.assert_close(losses.cross_entropy(logits, targets), library)
    for share in (0.0, 0.1):
        trained, shown = losses.smoothed(logits, targets, share)
        words = {"ignore_index": PAD, "reduction": "sum", "label_smoothing": share}
        torch.testing.assert_close(trained, F.cross_entropy(logits.transpose(1, 2), targets, **words))
        torch.testing.assert_close(shown, library)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, library)]
    torch.testing.assert_close(*gradients)
    assert (gradients[0][targets == PAD] == 0).all()


@pytest.mark.parametrize("arch", ["general", "bahdanau", "transformer"])
def test_free_running_reads_its_own_answers(small, arch):
    model = small(arch)
    source, tokens = torch.tensor([[5, 6, 3], [7, 3, PAD]]), torch.tensor([[2, 4, 5, 6], [2, 7, 8, 9]])
    logits = train.free_running(model, source, tokens)
    own = torch.cat([tokens[:, :1], logits.argmax(2)[:, :-1]], 1)
    torch.testing.assert_close(logits, model(source, own), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(train.Learner(model)(source, tokens), model(source, tokens))


def test_the_rate_rises_and_falls_to_nothing():
    args = options.parse(None, ["--lr", "0.5", "--warmup", "0.2"])
    rates = [train.learning_rate(args, share) for share in (0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0.25, 0.5, 0.25, 0.0])


def test_bench_prints_one_line_of_json(capsys):
    words = (
        "--data",
        "sample",
        "--limit",
        "2000",
        "--arch",
        "dot",
        "--width",
        "32",
        "--hidden",
        "32",
        "--device",
        "cpu",
    )
    train.main([*words, "--bench"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["tokens_per_s"] > figures["course_tokens_per_s"] > 0
    assert figures["speedup_over_course"] > 1 and figures["padding"] < figures["course_padding"]
    assert figures["step_gflops"] > 0 and 0 < figures["utilisation"] < 1.5


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(tmp_path, monkeypatch):
    real, run = train.train_one_epoch, tmp_path / "run"

    def overflow(learner, batches, optimizer, args):
        if batches.epoch == 2:
            with torch.no_grad():
                learner.model.output_bias.fill_(torch.nan)
        return real(learner, batches, optimizer, args)

    monkeypatch.setattr(train, "train_one_epoch", overflow)
    with pytest.raises(SystemExit, match="loss is not finite in epoch 3"):
        train.main([*SMALL, "--device", "cpu", "--run", str(run)])
    saved = utils.load_checkpoint(run / "last.pt")
    assert saved["epoch"] == 2 and len(metrics(run)) == 3
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    torch.save({"model": Trap()}, tmp_path / "last.pt")
    with pytest.raises(SystemExit, match="not a checkpoint that can be read"):
        utils.load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arch", "transfomer"], "no architecture 'transfomer'; did you mean transformer?"),
        (["--data", "nowhere"], "--data nowhere: not cmn-eng"),
        (["--resume", "nowhere"], "no args.json there"),
        (["--heads", "4"], "--heads: a general has no such size"),
        (["--arch", "transformer", "--width", "30", "--heads", "4"], "multiple of the 4 heads"),
        (["--arch", "dot", "--hidden", "33"], "--hidden 33: must be even"),
        (["--batch-size", "0"], "argument --batch-size: '0': must be a whole number, 1 or more"),
        (["--dropout", "1"], "argument --dropout: '1': must be a number from 0 to 0.99"),
        (["--teacher-forcing", "2"], "argument --teacher-forcing: '2': must be a number from 0 to 1"),
        (["--data", "sample", "--max-length", "2"], "--max-length 2: all training pairs are longer"),
    ],
)
def test_nonsense_is_refused_in_one_line(words, message):
    with pytest.raises(SystemExit) as refusal:
        train.main(["--device", "cpu", *words])
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU, so asking for one is no error")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(SystemExit, match="--device cuda: this PyTorch .* sees no such device"):
        train.main(["--device", "cuda"])


def test_resuming_with_another_network_or_other_pairs_is_refused(tmp_path):
    path, run = tmp_path / "mine.tsv", tmp_path / "run"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in sample.make(200)), "utf-8")
    words = [
        "--data",
        str(path),
        "--arch",
        "dot",
        "--width",
        "16",
        "--hidden",
        "16",
        "--epochs",
        "1",
        "--device",
        "cpu",
    ]
    train.main([*words, "--run", str(run)])
    before = (run / "args.json").read_bytes()
    with pytest.raises(SystemExit, match="leave out --arch, --width"):
        train.main(["--resume", str(run), "--arch", "concat", "--width", "32"])
    path.write_text("".join(f"{a} Zyzzyva\t{b}\n" for a, b in sample.make(200)), "utf-8")
    with pytest.raises(SystemExit, match="the data are not those of the run"):
        train.main(["--resume", str(run)])
    assert (run / "args.json").read_bytes() == before


def test_a_run_of_another_network_ends_in_one_line(tmp_path):
    """As after a change of models.py, or of the optimizer's groups, between two parts of a run."""
    layer, wider = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    optimizer, other = torch.optim.SGD(layer.parameters(), 0.1), torch.optim.SGD([layer.weight], 0.1)
    meta = {"arch": "x", "sizes": {}, "source": [], "target": []}
    for saved, states in ((wider, optimizer), (layer, other)):
        last = {"meta": meta, "model": saved.state_dict(), "optimizer": states.state_dict()}
        with pytest.raises(SystemExit, match="last.pt: says x, but the weights in it are of another network"):
            train.restore(last, tmp_path, meta, layer, optimizer)


def test_an_epoch_is_the_same_whatever_came_before(tmp_path):
    """The data order is a function of seed and epoch alone."""
    codec = datasets.Codec.of(sample.make(100), (datasets.Rules(), datasets.Rules()), 1, 50)
    orders = []
    for drawn in (0, 1000):
        torch.manual_seed(drawn)
        batches = datasets.TokenBatches(sample.make(100), codec, 200, torch.device("cpu"), seed=3)
        batches.epoch = 5
        orders.append([rows.tolist() for rows in batches.composition()])
    assert orders[0] == orders[1]
