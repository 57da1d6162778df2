"""Shared by the tests: --device, a folder of two domains, and a way to run the chapter's scripts as a user does."""

import functools
import multiprocessing
import os
import socket
import sys
from pathlib import Path

os.environ["LANGUAGE"] = "en"  # the tests read English messages, whatever the system's language
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: threads cost more than they bring

import numpy as np
import pytest
from PIL import Image

CHAPTER = Path(__file__).parents[1]
START = "fork" if sys.platform == "linux" else "spawn"  # forked, all is imported already; not safe elsewhere
sys.path.insert(0, str(CHAPTER))

import sample  # noqa: E402

sample.make, sample.make_pairs = map(functools.cache, (sample.make, sample.make_pairs))  # drawn once for all tests


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


def joined(function, environment, words):
    """function(*words) in a process that has joined the other."""
    import utils

    os.environ |= environment
    with utils.processes():
        function(*words)


def fork(function, *words):
    """-> function(*words) in a process of its own, forked from here, where everything is imported already."""
    process = multiprocessing.get_context(START).Process(target=function, args=words)
    process.start()
    return process


def two_ranks():
    """The environment that torchrun gives to each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]


def exit_codes(processes, seconds=100):
    """Waits for the processes -> their exit codes; those that take longer are killed."""
    for process in processes:
        process.join(seconds)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def train_on_two_processes(words, output):
    """train.py as torchrun starts it twice; both must end well."""
    codes = exit_codes([fork(as_a_program, words, output, environment) for environment in two_ranks()])
    assert codes == [0, 0], output.read_text()


def on_two_processes(function, *words):
    """function(*words) in each of two processes that have joined; both must end well."""
    assert exit_codes([fork(joined, function, environment, words) for environment in two_ranks()]) == [0, 0]


@pytest.fixture
def domains(tmp_path):
    """domains(trainA=4, trainB=3) -> a folder with so many random pictures, of many sizes, in each of these folders."""

    def make(folder="domains", **counts):
        rng = np.random.default_rng(0)
        for name, count in counts.items():
            here = tmp_path / folder / name.replace("_", "/")
            here.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (20 + 3 * i, 41 - 2 * i, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(here / f"{i}.png")
        return tmp_path / folder

    return make
