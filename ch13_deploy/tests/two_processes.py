"""Training processes as torchrun starts them, but forked from one that has imported torch and drawn the sample: in no time."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.distributed import run as torchrun
from torch.distributed.launcher.api import elastic_launch

import models
import sample
import train

HERE = Path(__file__).parent
draw = sample.make
PICTURES = {seed: draw(128, seed) for seed in (0, 1)}  # of training and validation: drawn once, for all processes


def make(count: int, seed: int = 0):
    """sample.make, which draws the first of many as it draws few."""
    pictures, labels = PICTURES[seed] if count <= 128 and seed in PICTURES else draw(count, seed)
    return pictures[:count].copy(), labels[:count].copy()


class Small(models.Classifier):
    """The smallest network with all kinds of layers: FSDP2 thinks for a while about each shape."""

    def __init__(self, num_classes: int = 10):
        features = torch.nn.Sequential(models.conv_bn_relu(3, 8, 3, 2), models.conv_bn_relu(8, 8, 3, 2))
        super().__init__(features, torch.nn.Linear(8, num_classes))


def write_curves(history: list[dict], path: Path) -> None:
    """In place of utils.draw_curves, which takes as long as such a training."""
    path.write_text(json.dumps(history))


# ---- processes --------------------------------------------------------------------------------------------------------


@contextmanager
def noted(log: Path):
    """What this process and its children say goes to a file; the process ends here, with exit code 0 or 1."""
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1), os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        torch.set_num_threads(1)
        signal.alarm(120)
        yield
        code = 0
    except SystemExit as why:
        print(why, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def run_one(words: list[str], run: Path, hook, here: dict) -> None:
    """train.py in this process, as a process of its own would run it."""
    with noted(run.with_suffix(f".{here['RANK']}.log")):
        os.environ.update({name: str(value) for name, value in here.items()})
        begin(words, run, hook)


def begin(words: list[str], run: Path, hook) -> None:
    sample.make, train.utils.draw_curves, models.MODELS["small"] = make, write_curves, Small
    if hook:
        hook(int(os.environ["RANK"]))
    train.main([*words, "--run", str(run)])


def run_agent(words: list[str], run: Path, hook, flags: list[str]) -> None:
    """torchrun's agent, which forks its workers here instead of starting Python anew."""
    with noted(run.with_suffix(".0.log")):
        config, _, _ = torchrun.config_from_args(torchrun.parse_args([*flags, "train.py"]))
        config.start_method = "fork"
        elastic_launch(config, begin)(words, run, hook)


def start(target, words, run: Path, hook, *more) -> multiprocessing.Process:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["two_processes", "matplotlib.figure", "tensorboardX"])
    os.environ["PYTHONPATH"] = f"{HERE}{os.pathsep}{HERE.parent}"
    process = context.Process(target=target, args=([str(word) for word in words], run, hook, *more))
    process.start()
    del os.environ["PYTHONPATH"]
    return process


def said_by(run: Path, processes: list[multiprocessing.Process], may_fail: bool = False) -> str:
    """Waits for them -> what the first one said."""
    for process in processes:
        process.join()
    said = run.with_suffix(".0.log").read_text()
    assert may_fail or not any(process.exitcode for process in processes), said
    return said


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def train_on_two(words, run: Path, restarts: int = 0, hook=None, may_fail: bool = False) -> str:
    """-> what the first process said. `hook(rank)`, a function of this file, is called in each before it begins."""
    here = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    here |= {"TORCHELASTIC_RESTART_COUNT": restarts, "TORCHELASTIC_RUN_ID": f"launch of {run.name}"}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in range(2)]
    return said_by(run, [start(run_one, words, run, hook, here | rank) for rank in ranks], may_fail)


def train_by_torchrun(words, run: Path, hook) -> str:
    """The same of one process and torchrun itself, that was given no --rdzv-id."""
    flags = f"--nproc-per-node 1 --max-restarts 1 --monitor-interval 0.1 --master-port {free_port()}".split()
    return said_by(run, [start(run_agent, words, run, hook, flags)])


# ---- hooks ------------------------------------------------------------------------------------------------------------


def die_in_the_second_epoch(rank: int) -> None:
    """The last of the processes does, when they have been started for the first time."""
    last, first = rank == train.world() - 1, os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    real = train.train_one_epoch

    def train_or_die(*words):
        if last and first and words[2].epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words)

    train.train_one_epoch = train_or_die


def compare_weights(rank: int) -> None:
    """Ends the run after an epoch if the two processes have not the same weights."""
    report, distribute, models = train.report, train.distribute, []

    def check(*words):
        weights = torch.cat([p.detach().flatten() for p in models[0].parameters()])
        both = [torch.empty_like(weights) for _ in range(2)]
        torch.distributed.all_gather(both, weights)
        assert torch.equal(*both), "the weights differ"
        return report(*words)

    def keep(*words):
        models.append(distribute(*words))
        return models[0]

    train.report, train.distribute = check, keep
