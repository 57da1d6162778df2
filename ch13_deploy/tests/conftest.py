"""Shared by the tests: --device, the shipped model, one service for all who leave it as it was, and ways to run the scripts."""

import os
import subprocess
import sys
from pathlib import Path

os.environ["LANGUAGE"] = "en"  # the tests read English messages, whatever the system's language
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: threads cost more than they bring

import numpy as np
import pytest
from PIL import Image

CHAPTER = Path(__file__).parents[1]
sys.path.insert(0, str(CHAPTER))


def pytest_configure(config):
    """torchao's own warnings, which nobody here can mend."""
    config.addinivalue_line("filterwarnings", "ignore:invalid escape sequence:DeprecationWarning")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device of the tests that train: cpu or cuda")


ORDER = [
    "train",
    "export",
    "compress",
    "models",
    "picture",
    "other_services",
    "serve",
    "deploy",
    "page",
    "front",
    "pool",
]


def pytest_collection_modifyitems(items):
    """The long tests first, so that none is left over when one of two processes has nothing more to do; those that compute in
    the first half, those that wait for services in the second, as pytest-xdist begins at both."""
    items.sort(
        key=lambda item: ORDER.index(name) if (name := item.path.stem.removeprefix("test_")) in ORDER else len(ORDER)
    )


@pytest.fixture
def device(request):
    return request.config.getoption("--device")


@pytest.fixture
def run_script():
    """run_script("train.py", "--quick") -> the finished process, its output as text."""

    def run(*words, **kwargs):
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=CHAPTER, capture_output=True, text=True, timeout=300, **kwargs)

    return run


@pytest.fixture(scope="session")
def onnx_file():
    """The shipped model."""
    return CHAPTER / "weights" / "resnet10.onnx"


@pytest.fixture(scope="session")
def service(onnx_file, tmp_path_factory):
    """One service for the tests that leave it as it was."""
    from running import running

    with running(onnx_file, tmp_path_factory.mktemp("serve"), "--timeout", "6", "--idle", "2") as it:
        yield it


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
