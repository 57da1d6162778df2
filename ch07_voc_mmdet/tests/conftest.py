"""Shared by the tests: --device, a small VOC folder, and a way to run the chapter's scripts as a user does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ["LANGUAGE"] = "en"  # the tests read English messages, whatever the system's language
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: threads cost more than they bring

import pytest

CHAPTER = Path(__file__).parents[1]
sys.path.insert(0, str(CHAPTER))

import operators  # noqa: E402

operators.provide()  # before any test file imports mmdet


def pytest_configure(config):
    """mmdet and mmengine's own warnings, which nobody here can mend."""
    config.addinivalue_line("filterwarnings", "ignore:`torch.jit:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:invalid escape sequence:DeprecationWarning")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device of the tests that train: cpu or cuda")


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
def scenes(tmp_path_factory):
    """A VOC folder with 24 scenes to train, 12 to validate (one of them empty) and 12 to test. Not to be changed."""
    import datasets

    folder = tmp_path_factory.mktemp("data") / "scenes"
    datasets.write_sample(folder, {"train": 24, "val": 12, "test": 12})
    return folder


@pytest.fixture(scope="session")
def few_scenes(tmp_path_factory):
    import datasets

    folder = tmp_path_factory.mktemp("data") / "few"
    datasets.write_sample(folder, {"train": 6, "val": 3, "test": 3})
    return folder


@pytest.fixture
def own_scenes(few_scenes, tmp_path):
    """A VOC folder with a few scenes that a test may spoil."""
    return shutil.copytree(few_scenes, tmp_path / "own")
