"""Training as a whole: it learns, it resumes exactly after a kill, it refuses nonsense in one line."""

import functools
import json
import os
import time

import pytest
import torch
from conftest import as_a_program, exit_codes, fork, train_on_two_processes, two_ranks
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import datasets
import gans
import models
import sample
import test as tester
import train
import utils

TINY = ("--data", "sample", "--image-size", "32", "--width", "4", "--patch", "16", "--device", "cpu")
SMALL = (*TINY, "--limit", "24", "--epochs", "4", "--pool", "30")  # the pool is full after the first epoch


def metrics(run):
    return (run / "metrics.csv").read_text("utf-8").splitlines()


def same(one, other):
    """Equal bit for bit, through dicts and lists."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def assert_same_run(one, other):
    """The same metrics.csv, samples, networks, optimizers and pools. (Only the seconds of training differ.)"""
    assert metrics(one) == metrics(other)
    first, second = (utils.load_checkpoint(run / "last.pt") for run in (one, other))
    assert first.keys() == second.keys() and all(len(pool) == 30 for pool in first["pools"][0].values())
    for key in first.keys() - {"seconds"}:
        assert same(first[key], second[key]), key
    grids = [[p.read_bytes() for p in sorted((run / "samples").iterdir())] for run in (one, other)]
    assert len(grids[0]) == 4 and grids[0] == grids[1]


def start_and_kill(words, run, epochs, environments=({},)):
    """Starts train.py once for each environment, and kills it with signal 9 once `epochs` epochs are in `run`."""
    output = run.with_name(f"{run.name}.txt")
    programs = [fork(as_a_program, [*words, "--run", run], output, environment) for environment in environments]
    deadline = time.monotonic() + 300
    while not (run / "metrics.csv").exists() or len(metrics(run)) < 1 + epochs:
        assert all(program.is_alive() for program in programs), output.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for program in programs:
        program.kill()
        program.join()
    assert len(metrics(run)) < 1 + 4, "it was over before the kill"


def test_killed_and_resumed_equals_never_killed(tmp_path):
    train.main([*SMALL, "--run", str(tmp_path / "whole")])
    killed = tmp_path / "killed"
    start_and_kill(SMALL, killed, epochs=2)
    train.main(["--resume", str(killed)])
    assert_same_run(tmp_path / "whole", killed)
    events = EventAccumulator(str(killed)).Reload()  # the kill lost some; the resumed run wrote all again
    assert [event.step for event in events.Scalars("cycle_a")] == [1, 2, 3, 4]
    assert events.Tags()["images"] == ["samples"]


def test_two_processes_train_as_one_and_resume_as_exactly(tmp_path):
    train_on_two_processes([*SMALL, "--run", tmp_path / "whole"], tmp_path / "whole.txt")
    train.main([*SMALL, "--epochs", "1", "--run", str(tmp_path / "alone")])
    rows = ([line.split(",") for line in metrics(tmp_path / name)] for name in ("whole", "alone"))
    two, one = (dict(zip(names, first, strict=True)) for names, first, *_ in rows)
    for name in two.keys() - {"lr"}:  # in the first epoch the pools are not full: no chance in it
        assert float(two[name]) == pytest.approx(float(one[name]), rel=2e-2), name
    killed = tmp_path / "killed"
    start_and_kill(SMALL, killed, 2, two_ranks())
    with pytest.raises(SystemExit, match=r"was trained by 2 process\(es\), not 1"):
        train.main(["--resume", str(killed)])
    train_on_two_processes(["--resume", killed], tmp_path / "resumed.txt")
    assert_same_run(tmp_path / "whole", killed)
    pools = utils.load_checkpoint(killed / "last.pt")["pools"]
    assert len(pools) == 2 and not same(pools[0], pools[1])


def test_apples_become_oranges(tmp_path, device):
    """A quarter of the sample's pixels and half its channels, but a whole training: the judge of colours is convinced."""
    run = str(tmp_path / "run")
    words = ["--data", "sample", "--image-size", "32", "--width", "8", "--limit", "120", "--epochs", "5"]
    train.main([*words, "--device", device, "--run", run])
    tester.main(["--run", run, "--device", device])
    result = json.loads((tmp_path / "run" / "test.json").read_text("utf-8"))
    assert result["tested_on"] == "sample" and result["AtoB"]["pictures"] == 100
    assert result["AtoB"]["called_orange"] >= 0.8 and result["BtoA"]["called_apple"] >= 0.8
    assert result["AtoB"]["cycle_error"] < 0.15
    data = datasets.load("sample", part="test", image_size=32)
    torch.manual_seed(0)
    networks = [models.build("resnet3", 32, 8) for _ in range(10)]  # each tints its pictures in a way of its own
    called = [sample.judge(tester.in_batches(net, data.a[:16], torch.device("cpu"))) == 1 for net in networks]
    assert torch.stack(called).float().mean() < 0.2
    for name in ("args.json", "metrics.csv", "curves.png", "last.pt", "best.pt", "AtoB.png", "BtoA/0099.png"):
        assert (tmp_path / "run" / name).stat().st_size > 100


def test_pix2pix_learns_to_colour_label_maps(tmp_path, device):
    words = ["--mode", "pix2pix", "--data", "sample", "--image-size", "32", "--width", "8", "--limit", "100"]
    run = tmp_path / "run"
    train.main([*words, "--epochs", "4", "--batch-size", "2", "--device", device, "--run", str(run)])
    tester.main(["--run", str(run), "--device", device])
    result = json.loads((run / "test.json").read_text("utf-8"))
    assert "BtoA" not in result
    data = datasets.load("sample", part="test", mode="pix2pix", image_size=32)
    unchanged = (data.a.float() - data.b.float()).abs().mean() / 255
    assert result["AtoB"]["pair_error"] < 0.75 * unchanged
    with pytest.raises(SystemExit, match="--direction BtoA: this network translates AtoB only"):
        tester.main(["--run", str(run), "--direction", "BtoA", "--device", device])


def test_dcgan_learns_the_colour_of_oranges(tmp_path, device):
    words = ["--mode", "dcgan", "--data", "sample", "--image-size", "32", "--width", "8", "--limit", "160"]
    run = tmp_path / "run"
    train.main([*words, "--epochs", "15", "--device", device, "--run", str(run)])
    tester.main(["--run", str(run), "--device", device])
    with Image.open(run / "from_noise.png") as picture:
        assert picture.size == (8 * 34 + 2, 8 * 34 + 2)
    saved = utils.load_checkpoint(run / "best.pt")["model"]
    share = []
    for trained in (False, True):
        torch.manual_seed(0)
        net = models.build("dcgan", 32, 8).eval()
        if trained:
            net.load_state_dict({name.removeprefix("g."): weight for name, weight in saved.items()})
        with torch.inference_mode():
            pictures = datasets.to_pixels(net(gans.noise(100, torch.device("cpu"))))
        share.append((sample.judge(pictures) == 1).float().mean().item())
    assert share[0] < 0.2 and share[1] > 0.5


def test_quick_run_as_a_user_runs_it(tmp_path):
    run, output = tmp_path / "quick", tmp_path / "output.txt"
    assert exit_codes([fork(as_a_program, ["--quick", "--device", "cpu", "--run", run], output, {})]) == [0]
    said = output.read_text()
    assert "gan_ab" in said and f"now: python test.py --run {run}" in said
    assert "epoch 1:" not in said  # no progress bar where the output is no terminal
    assert json.loads((run / "args.json").read_text("utf-8"))["data"] == "sample"
    with Image.open(run / "samples" / "epoch_0001.png") as picture:
        width, height = (
            picture.size
        )  # eight pictures; real A, fake B, back to A, and the other way; at the left their names
        assert height == 6 * 66 + 2 and 8 * 66 + 2 + 20 < width < 8 * 66 + 2 + 100


def test_the_rate_falls_in_the_second_half_of_a_run(tmp_path):
    """Of four epochs: the whole rate in two, then the whole, then half of it; so the optimizers have it too."""
    words = [*TINY, "--limit", "4", "--epochs", "4", "--lr", "0.001"]
    train.main([*words, "--run", str(tmp_path / "run")])
    saved = utils.load_checkpoint(tmp_path / "run" / "last.pt")
    assert [row["lr"] for row in saved["history"]] == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4])
    assert [o["param_groups"][0]["lr"] for o in saved["optimizers"].values()] == pytest.approx([5e-4] * 2)


def test_a_run_never_overwrites_another(tmp_path):
    words = [*TINY, "--limit", "4", "--epochs", "1", "--run", str(tmp_path / "run")]
    train.main(words)
    before = (tmp_path / "run" / "last.pt").read_bytes()
    train.main([*words, "--seed", "1"])
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    assert utils.load_checkpoint(tmp_path / "run-2" / "last.pt")["epoch"] == 1


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--arch", "unet", "--upsample", "resize", "--precision", "bf16"),
        ("--mode", "dcgan", "--no-flip"),
        ("--mode", "wgan_gp"),
    ],
)
def test_own_folder_of_unequal_domains(domains, tmp_path, flags):
    words = ["--data", str(domains(trainA=3, trainB=5, testA=2, testB=1)), "--image-size", "32", "--width", "4"]
    run = tmp_path / "run"
    train.main([*words, "--epochs", "1", "--batch-size", "2", "--device", "cpu", "--run", str(run), *flags])
    tester.main(["--run", str(run), "--device", "cpu"])
    assert (run / "from_noise.png").exists() or len(list((run / "AtoB").iterdir())) == 2


def test_compiling_changes_no_key_and_no_loss(tmp_path, monkeypatch):
    """With a backend that needs no compiler: what is tested is what train.py does around it."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    runs = []
    for name, flags in (("eager", []), ("compiled", ["--compile"])):
        words = [*TINY, "--mode", "pix2pix", "--arch", "resnet3", "--limit", "8", "--epochs", "1"]
        train.main([*words, "--run", str(tmp_path / name), *flags])
        runs.append(utils.load_checkpoint(tmp_path / name / "last.pt"))
    assert runs[0]["model"].keys() == runs[1]["model"].keys()
    assert runs[1]["history"][0] == pytest.approx(runs[0]["history"][0], rel=1e-3)


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(tmp_path, monkeypatch):
    real = datasets.PairLoader.cut
    run = tmp_path / "run"
    monkeypatch.setattr(
        datasets.PairLoader, "cut", lambda self, *words: real(self, *words) * (torch.inf if self.epoch == 2 else 1)
    )
    with pytest.raises(SystemExit, match="a loss is not finite in epoch 3"):
        train.main([*SMALL, "--run", str(run)])
    saved = utils.load_checkpoint(run / "last.pt")
    assert saved["epoch"] == 2 and len(metrics(run)) == 3
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arch", "resnet99"], "no architecture 'resnet99'; did you mean resnet9?"),
        (["--data", "nowhere"], "--data nowhere: not auto, sample or one of apple2orange"),
        (["--resume", "nowhere"], "no args.json there"),
        (["--mode", "dcgan", "--arch", "unet"], "--arch unet does not go with --mode dcgan"),
        (["--mode", "wgan_gp", "--arch", "unet"], "--arch unet does not go with --mode wgan_gp"),
        (["--mode", "wgan_gp", "--compile"], "--compile: --mode wgan_gp needs the gradient of a gradient"),
        (["--data", "sample", "--mode", "dcgan", "--image-size", "48"], "--image-size 48: DCGAN doubles"),
        (
            ["--data", "sample", "--image-size", "8"],
            "argument --image-size: '8': must be a whole number from 16 to 4096",
        ),
        (
            ["--data", "sample", "--image-size", "16", "--patch", "70"],
            "--patch 70: too large for pictures of 16 pixels",
        ),
        (["--epochs", "0"], "argument --epochs: '0': must be a whole number, 1 or more"),
        (["--bench", "--mode", "pix2pix"], "--bench measures --mode cyclegan"),
    ],
)
def test_nonsense_is_refused_in_one_line(words, message, tmp_path):
    with pytest.raises(SystemExit) as refusal:
        train.main(["--device", "cpu", "--limit", "2", "--run", str(tmp_path / "run"), *words])
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU, so asking for one is no error")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(SystemExit, match="--device cuda: this PyTorch .* sees no such device"):
        train.main(["--device", "cuda"])


def test_resuming_with_another_network_is_refused(tmp_path):
    run = str(tmp_path / "run")
    train.main([*TINY, "--limit", "4", "--epochs", "1", "--run", run])
    before = (tmp_path / "run" / "args.json").read_bytes()
    for words, message in (
        (("--width", "8"), "leave out --width"),
        (("--arch", "unet", "--lr", "1"), "leave out --arch, --lr"),
    ):
        with pytest.raises(SystemExit, match=message):
            train.main(["--resume", run, *words])
    assert (tmp_path / "run" / "args.json").read_bytes() == before


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    torch.save({"model": Trap()}, tmp_path / "best.pt")
    with pytest.raises(SystemExit, match="not a checkpoint that can be read"):
        tester.main(["--run", str(tmp_path), "--device", "cpu"])
    assert not (tmp_path / "trapped").exists()


def test_bench_prints_one_line_of_json(capsys):
    train.main([*TINY, "--batch-size", "1", "--bench"])
    result = json.loads(capsys.readouterr().out)
    assert result["pairs_per_s"] > 0 and result["speedup_over_plain"] > 0 and 0 < result["utilisation"] < 1.5
    assert result["step_gflops"] > 0.01
