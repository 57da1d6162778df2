"""Shared by the tests: --device, small networks, and a way to run the chapter's scripts as a user does."""

import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

os.environ["LANGUAGE"] = "en"  # the tests read English messages, whatever the system's language
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: threads cost more than they bring

import pytest

CHAPTER = Path(__file__).parents[1]
START = "fork" if sys.platform == "linux" else "spawn"  # forked, all is imported already; not safe elsewhere
sys.path.insert(0, str(CHAPTER))


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device of the tests that train: cpu or cuda")


@pytest.fixture
def device(request):
    return request.config.getoption("--device")


def as_a_program(words, output, environment):
    """train.py with these words, and what it prints in the file `output`."""
    import train
    import utils

    os.environ |= environment
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1), os.dup2(file, 2)
    sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115 (they stay open)
    utils.start(lambda: train.main(list(map(str, words))))


def fork(words, output, environment=None):
    """-> train.py as a process of its own, forked from here, where everything is imported already."""
    import torch._dynamo  # noqa: F401 (an optimizer imports it, in seconds)

    import train  # noqa: F401

    process = multiprocessing.get_context(START).Process(target=as_a_program, args=(words, output, environment or {}))
    process.start()
    return process


def fork_two(words, output):
    """-> train.py as torchrun starts it, twice, with the environment that torchrun gives to each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [fork(words, output, shared | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]


def end(processes):
    """Waits for the processes, kills those that take too long -> their exit codes."""
    for process in processes:
        process.join(100)
    return kill(processes)


def kill(processes):
    """Kills what still runs with signal 9 -> the exit codes."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


@pytest.fixture
def run_script():
    """run_script("train.py", "--quick") -> the finished process, its output as text."""

    def run(*words, **kwargs):
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=CHAPTER, capture_output=True, text=True, timeout=300, **kwargs)

    return run


@pytest.fixture
def small():
    """small("dot") -> a small network of that kind, of 30 source and 20 target words, in eval mode."""
    import torch

    import models

    def build(arch, words=(30, 20), seed=0):
        torch.manual_seed(seed)
        standard = {"width": 16, "hidden": 24, "heads": 2, "layers": 2, "decoder_layers": 2, "feedforward": 32}
        sizes = {name: size for name, size in standard.items() if name in models.MODELS[arch][1]}
        return models.build(arch, *words, **sizes).eval()

    return build
