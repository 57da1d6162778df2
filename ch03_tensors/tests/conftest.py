"""What all tests share: the chapter on the import path, the device, no network, programs run as a reader runs them."""

import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

os.environ["LANGUAGE"] = "en"  # the tests read English messages, whatever the system's language
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads cost more than they bring

import pytest
import torch

CHAPTER = Path(__file__).resolve().parent.parent
START = "fork" if sys.platform == "linux" else "spawn"  # forked, all is imported already; not safe elsewhere
sys.path.insert(0, str(CHAPTER))


def pytest_configure(config):
    """visdom's own warnings, which nobody here can mend."""
    config.addinivalue_line("filterwarnings", "ignore:The 'warn' method is deprecated:DeprecationWarning")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="cpu or cuda: where the tests of train.py and lessons compute")


@pytest.fixture(scope="session")
def device(request) -> str:
    name = request.config.getoption("--device")
    assert name != "cuda" or torch.cuda.is_available(), "--device cuda, and no CUDA device is here"
    return name


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that reaches for another machine fails."""
    connect = socket.socket.connect

    def local_only(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def undrawn(monkeypatch):
    """Runs end without their pictures, for tests that look at other things: drawing takes longer than a short training."""
    import surface
    import utils

    monkeypatch.setattr(utils, "draw_curves", lambda *words: None)
    monkeypatch.setattr(surface, "draw", lambda *words: None)


@pytest.fixture
def empty_folder(tmp_path, monkeypatch) -> Path:
    """An empty folder, as the current one: run folders land there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_a_program(words: tuple, cwd: Path, environment: dict) -> None:
    """train.py with these words, its output in cwd/output.txt."""
    import train
    import utils

    os.chdir(cwd)
    os.environ |= environment
    output = os.open(cwd / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1), os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115 (they stay open)
    utils.start(lambda: train.main([*map(str, words), "--device", "cpu"] if "--resume" not in words else list(words)))


def fork_train(*words, cwd: Path, **environment: str):
    """-> train.py with these words as a process of its own, forked from here, where everything is imported already."""
    process = multiprocessing.get_context(START).Process(target=as_a_program, args=(words, cwd, environment))
    process.start()
    return process


def torchrun(*words, cwd: Path) -> None:
    """train.py with these words on two processes, as torchrun starts them; both must end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [fork_train(*words, cwd=cwd, RANK=rank, LOCAL_RANK=rank, **shared) for rank in "01"]
    for process in both:
        process.join(100)
        process.kill()
    assert [process.exitcode for process in both] == [0, 0], (cwd / "output.txt").read_text()


@pytest.fixture
def start():
    """start("train.py", "--quick", cwd=...) -> a running program; what is left of it is killed at the end."""
    running = []

    def begin(*words: str, cwd: Path, **options) -> subprocess.Popen:
        if words[0].endswith(".py") and not Path(words[0]).is_absolute():
            words = (str(CHAPTER / words[0]), *words[1:])
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, *words]
        running.append(subprocess.Popen(command, cwd=cwd, env=environment, **{**output, **options}))
        return running[-1]

    yield begin
    for program in running:
        if program.poll() is None:
            program.kill()
        program.communicate()
