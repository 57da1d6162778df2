"""Training as a whole: it learns, it resumes exactly after a kill, its files are safe to load, nonsense gets one line."""

import json
import time
import types

import pytest
import torch
import torch.distributed as dist
from conftest import CHAPTER, START, end, fork, fork_two, kill
from mmdet.apis import DetInferencer
from mmengine import Config
from mmengine.logging import HistoryBuffer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import analyze_log
import models
import plugins
import train
import utils


def words(scenes, *more, run=None):
    small = ["--data", str(scenes), "--arch", "fcos", "--size", "tiny", "--image-size", "64", "--device", "cpu"]
    return [*small, "--batch-size", "8", *more, *(["--run", str(run)] if run else [])]


def metrics(run):
    return (run / "metrics.csv").read_text("utf-8").splitlines()


def assert_same(one, other):
    """Equal all the way down, tensors bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def assert_same_run(one, other):
    assert metrics(one) == metrics(other)
    for name in ("last.pth", "best.pth"):
        first, second = (utils.load_checkpoint(run / name) for run in (one, other))
        assert first["meta"]["epoch"] == second["meta"]["epoch"]
        for key in first.keys() - {"meta", "message_hub"}:
            assert_same(first[key], second[key])
        assert first["message_hub"]["runtime_info"]["best"] == second["message_hub"]["runtime_info"]["best"]


def start_and_kill(words, run, epochs):
    """Starts train.py and kills it with signal 9 once `epochs` epochs are in `run`."""
    output = run.with_name(f"{run.name}.txt")
    process = fork([*words, "--run", run], output)
    deadline = time.time() + 300
    while not (run / "metrics.csv").exists() or len(metrics(run)) < 1 + epochs:
        assert process.is_alive(), output.read_text()
        assert time.time() < deadline
        time.sleep(0.005)
    kill([process])


def test_killed_and_resumed_equals_never_killed(scenes, tmp_path):
    train.main(words(scenes, "--epochs", "4", run=tmp_path / "whole"))
    killed = tmp_path / "killed"
    start_and_kill(words(scenes, "--epochs", "4"), killed, epochs=2)
    assert len(metrics(killed)) < 1 + 4, "it was over before the kill"
    assert (killed / "last.pth").exists()
    train.main(["--resume", str(killed), "--device", "cpu"])
    assert_same_run(tmp_path / "whole", killed)
    rows, val = analyze_log.read_run(killed)  # over both starts
    assert [row["step"] for row in val] == [1, 2, 3, 4] and len(list(killed.glob("2*"))) == 2


def test_an_averaged_model_and_reading_processes_resume_too(scenes, tmp_path, monkeypatch):
    """YOLOX in full has an EMA of its weights, mosaics, and a switch near the end; made small here, with a reader."""
    config = models.build("yolox", "full", ("balloon", "boat", "car", "house", "tree"), str(scenes), epochs=2)
    models.tiny_yolox(config.model)
    text = config.pretty_text.replace("640", "96")
    (tmp_path / "small_yolox.py").write_text(text)
    base = [
        "--config",
        str(tmp_path / "small_yolox.py"),
        "--epochs",
        "2",
        "--limit",
        "4",
        "--device",
        "cpu",
        "--workers",
        "1",
    ]
    train.main([*base, "--run", str(tmp_path / "whole")])
    finish, seen = plugins.RunFolder.finish, []

    def stop_after_one(self, runner, epoch):
        finish(self, runner, epoch)
        seen.append(epoch)
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(plugins.RunFolder, "finish", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        train.main([*base, "--run", str(tmp_path / "stopped")])
    monkeypatch.undo()
    train.main(["--resume", str(tmp_path / "stopped"), "--device", "cpu", "--workers", "1"])
    assert seen == [1] and "ema_state_dict" in utils.load_checkpoint(tmp_path / "whole" / "last.pth")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.skipif(START != "fork", reason="its processes must inherit what this test has replaced")
def test_two_processes_train_as_one_run(scenes, tmp_path, monkeypatch):
    """Both take half of the pictures, hold the same weights, and are scored on all of the validation pictures."""
    finish = plugins.RunFolder.finish

    def compare(self, runner, epoch):
        mine = torch.cat([parameter.detach().flatten() for parameter in runner.model.parameters()])
        both = [torch.zeros_like(mine), torch.zeros_like(mine)]
        dist.all_gather(both, mine)
        assert torch.equal(*both), "each process has trained a network of its own"
        finish(self, runner, epoch)

    monkeypatch.setattr(plugins.RunFolder, "finish", compare)
    said = tmp_path / "said.txt"
    codes = end(fork_two(words(scenes, "--epochs", "2", run=tmp_path / "two"), said))
    assert codes == [0, 0], said.read_text()
    assert "cpu, 2 processes" in said.read_text() and said.read_text().count("epoch   2/2") == 1
    assert len(metrics(tmp_path / "two")) == 3
    assert (
        utils.load_checkpoint(tmp_path / "two" / "last.pth")["meta"]["iter"] == 2 * 2
    )  # 24 pictures / (2 x 8), 2 epochs


def test_learns_the_scenes(scenes, tmp_path, device):
    """In 16 epochs over 24 scenes, a small detector goes from nothing to some things found on others. (480 scenes: README.)"""
    more = ["--epochs", "16", "--batch-size", "4", "--image-size", "160", "--lr", "0.002", "--device", device]
    train.main([*words(scenes), *more, "--run", str(tmp_path / "run")])
    history = [dict(zip(metrics(tmp_path / "run")[0].split(","), map(float, row.split(",")), strict=True))
               for row in metrics(tmp_path / "run")[1:]]  # fmt: skip
    assert history[-1]["train_loss"] < 0.65 * history[0]["train_loss"]
    assert history[0]["val_mAP50"] < 0.03 and history[-1]["val_mAP50"] > 0.08


def test_checkpoints_hold_plain_things_and_mmdet_can_use_them(scenes, tmp_path):
    """best.pth loads with weights_only; so mmdet's own DetInferencer takes it and the run's config.py, which does too."""
    run = tmp_path / "run"
    train.main(words(scenes, "--epochs", "1", run=run))
    saved = torch.load(run / "last.pth", weights_only=True)
    assert {"state_dict", "optimizer", "param_schedulers", "message_hub", "meta"} <= saved.keys()
    assert saved["meta"]["dataset_meta"]["classes"] == ["balloon", "boat", "car", "house", "tree"]
    losses = saved["message_hub"]["log_scalars"]["train/loss"]
    assert len(losses["values"]) == 3 and losses["counts"] == [1, 1, 1]

    inferencer = DetInferencer(str(run / "config.py"), str(run / "best.pth"), device="cpu", show_progress=False)
    picture = next((scenes / "JPEGImages").glob("test*.jpg"))
    found = inferencer(str(picture), return_datasamples=True)["predictions"][0].pred_instances
    assert inferencer.model.dataset_meta["classes"] == ["balloon", "boat", "car", "house", "tree"]
    assert found.bboxes.shape == (len(found.scores), 4)

    events = EventAccumulator(str(next(run.glob("2*/vis_data")))).Reload().Tags()["scalars"]
    assert "loss" in events or any("loss" in name for name in events), events
    again = tmp_path / "again"
    train.main(["--config", str(run / "config.py"), "--epochs", "1", "--device", "cpu", "--run", str(again)])
    assert metrics(again) == metrics(run)


def test_the_plain_hook_is_what_makes_them_safe(tmp_path):
    """Without it, what mmengine would save is refused by weights_only; with it, the same comes back as it was."""
    hub = {"log_scalars": {"train/loss": HistoryBuffer([3.0, 2.0], [1, 1])}, "runtime_info": {"epoch": 1}}
    checkpoint = {"message_hub": hub, "meta": {"dataset_meta": {"classes": ("a", "b")}}}
    torch.save(checkpoint, tmp_path / "theirs.pth")
    with pytest.raises(SystemExit, match="not a checkpoint that can be read"):
        utils.load_checkpoint(tmp_path / "theirs.pth")
    hook = plugins.PlainCheckpoint()
    hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / "ours.pth")
    loaded = utils.load_checkpoint(tmp_path / "ours.pth")
    hook.after_load_checkpoint(None, loaded)
    buffer = loaded["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(buffer, HistoryBuffer) and buffer.data[0].tolist() == [3.0, 2.0] and buffer.mean(2) == 2.5


def test_quick_run_as_a_user_runs_it(scenes, tmp_path, run_script):
    run = tmp_path / "quick"
    done = run_script("train.py", "--quick", "--data", scenes, "--image-size", "64", "--device", "cpu", "--run", run)
    assert done.returncode == 0, done.stderr
    assert "val_mAP50" in done.stdout and f"now: python test.py --run {run}" in done.stdout
    assert done.stderr == "" and len(done.stdout.splitlines()) < 8  # no bars, no logs, no warnings of libraries
    assert json.loads((run / "args.json").read_text("utf-8"))["limit"] == 16
    assert Config.fromfile(run / "config.py").train_dataloader.dataset.limit == 16


def test_without_validation_the_last_epoch_is_kept(scenes, tmp_path):
    train.main(words(scenes, "--epochs", "2", "--no-val", run=tmp_path / "run"))
    assert "val_mAP50" not in metrics(tmp_path / "run")[0]
    config = Config.fromfile(tmp_path / "run" / "config.py")
    assert config.train_dataloader.dataset.part == "train+val" and config.val_dataloader is None
    states = [utils.load_checkpoint(tmp_path / "run" / name) for name in ("last.pth", "best.pth")]
    assert states[0]["meta"]["epoch"] == states[1]["meta"]["epoch"] == 2
    assert_same(states[0]["state_dict"], states[1]["state_dict"])


def test_the_learning_rate_follows_the_batch_size(scenes, tmp_path):
    for run, more in {"scaled": (), "given": ("--lr", "0.002")}.items():
        train.main(words(scenes, "--epochs", "1", "--limit", "8", *more, run=tmp_path / run))
    scaled, given = (float(metrics(tmp_path / run)[1].split(",")[1]) for run in ("scaled", "given"))
    assert scaled == pytest.approx(given / 2)  # 8 pictures a step in place of 16


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--data", "gone"), "there is no folder of that name"),
        (("--arch", "fcs"), r"no architecture 'fcs'; did you mean fcos\?"),
        (("--epochs", "0"), "argument --epochs: '0': must be a whole number, 1 or more"),
        (("--lr", "nan"), "argument --lr: 'nan': must be a number above 0"),
        (("--precision", "bf16"), "mixed precision for GPUs only"),
        (("--config", "gone.py"), "--config gone.py: cannot be read"),
        (("--resume", "gone"), "gone: no args.json there, so this is not a run folder"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(scenes, more, message, monkeypatch, tmp_path):
    monkeypatch.chdir(CHAPTER)
    with pytest.raises(SystemExit, match=message):
        train.main([*words(scenes, run=tmp_path / "run"), *more])
    assert not (tmp_path / "run").exists()


def test_half_a_configuration_is_refused(scenes, tmp_path):
    (tmp_path / "half.py").write_text("model = dict(type='FCOS')\n")
    with pytest.raises(SystemExit, match="not the whole configuration of a detector"):
        train.main(["--data", str(scenes), "--config", str(tmp_path / "half.py"), "--device", "cpu"])


def test_one_loss_among_many_that_is_no_number_is_noticed(monkeypatch):
    """Not only at every fiftieth step, when it is looked at."""
    monkeypatch.setattr(plugins.tqdm, "update", lambda bar: None)
    rates = types.SimpleNamespace(get_lr=lambda: {"lr": [0.1]})
    runner = types.SimpleNamespace(epoch=0, train_dataloader=[0] * 6, optim_wrapper=rates)
    hook = plugins.RunFolder()
    hook.before_train_epoch(runner)
    for step, loss in enumerate([1.0, float("nan"), 1.0, 1.0, 1.0]):
        hook.after_train_iter(runner, step, outputs={"loss": torch.tensor(loss)})
    with pytest.raises(SystemExit, match="the loss is not finite in epoch 1"):
        hook.after_train_iter(runner, 5, outputs={"loss": torch.tensor(1.0)})


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_saved(scenes, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(SystemExit, match="the loss is not finite in epoch 1: try a smaller --lr"):
        train.main(words(scenes, "--epochs", "3", "--lr", "1e30", run=run))
    assert not (run / "last.pth").exists()
    with pytest.raises(SystemExit, match="this is not a run folder"):
        train.main(["--resume", str(tmp_path), "--device", "cpu"])
