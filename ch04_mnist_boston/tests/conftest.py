"""Shared by the tests: --device, tables and pictures to feed, and a way to kill a run and compare what is left."""

import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

os.environ["LANGUAGE"] = "en"  # the tests read English messages, whatever the system's language
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: threads cost more than they bring

import numpy as np
import pytest
import torch
from PIL import Image

CHAPTER = Path(__file__).parents[1]
START = "fork" if sys.platform == "linux" else "spawn"  # forked, all is imported already; not safe elsewhere
sys.path.insert(0, str(CHAPTER))


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device of the tests that train: cpu or cuda")


@pytest.fixture
def device(request):
    return request.config.getoption("--device")


@pytest.fixture
def csv_file(tmp_path):
    """csv_file(rows=40) -> a CSV file of the sample's houses. `edit` may change its lines before they are written."""

    import sample

    def make(rows=40, edit=None, name="houses.csv"):
        x, y = sample.make_houses(rows)
        lines = [",".join((*sample.HOUSING_COLUMNS, sample.HOUSING_TARGET))]
        lines += [",".join(f"{value:.4f}" for value in (*row, price)) for row, price in zip(x, y, strict=True)]
        if edit:
            edit(lines)
        (tmp_path / name).write_text("\n".join(lines) + "\n", "utf-8")
        return tmp_path / name

    return make


@pytest.fixture
def picture_folder(tmp_path):
    """picture_folder(cat=4, dog=3) -> a folder with so many random 20 x 30 pictures in each class folder."""

    def make(folder="pictures", **counts):
        rng = np.random.default_rng(0)
        for name, count in counts.items():
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{i}.png")
        return tmp_path / folder

    return make


def metrics(run):
    return (run / "metrics.csv").read_text("utf-8").splitlines()


def as_a_program(words, output, environment):
    """train.py with these words, and what it prints in the file `output`."""
    import train
    import utils

    os.environ |= environment
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1), os.dup2(file, 2)
    sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115 (they stay open)
    utils.start(lambda: train.main(list(map(str, words))))


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


def wait_for(processes):
    for process in processes:
        process.join(100)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def train_on_two_processes(words, output):
    """train.py as torchrun starts it twice -> what both printed; they must end well."""
    codes = wait_for([fork(as_a_program, words, output, environment) for environment in two_ranks()])
    assert codes == [0, 0], output.read_text()
    return output.read_text()


def joined(function, environment, words):
    import utils

    os.environ |= environment
    with utils.processes():
        function(*words)


def on_two_processes(function, *words):
    """function(*words) in each of two processes that have joined; both must end well."""
    assert wait_for([fork(joined, function, environment, words) for environment in two_ranks()]) == [0, 0]


def run_and_kill(words, run, rows):
    """Starts train.py and kills it with signal 9 once `rows` rows are in the run's metrics.csv."""
    output = run.with_name(f"{run.name}.txt")
    process = fork(as_a_program, [*words, "--run", run], output, {})
    deadline = time.monotonic() + 100
    while not (run / "metrics.csv").exists() or len(metrics(run)) < 1 + rows:
        assert process.is_alive(), output.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.join()


def assert_equal(one, other):
    """Two checkpoints' contents are the same, tensors bit for bit; times may differ."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - {"seconds"}:
            assert_equal(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def assert_same_run(one, other):
    """The same metrics.csv, byte for byte, and the same checkpoints: networks, optimizer, schedule, history."""
    import utils

    assert metrics(one) == metrics(other)
    files = [sorted(path.relative_to(run) for path in run.rglob("*.pt")) for run in (one, other)]
    assert files[0] == files[1] and files[0]
    for name in files[0]:
        assert_equal(utils.load_checkpoint(one / name), utils.load_checkpoint(other / name))
