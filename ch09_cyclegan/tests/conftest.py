"""Shared by the tests: --device, a folder of two domains, and a way to run the chapter's scripts as a user does."""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: threads cost more than they bring

import numpy as np
import pytest
from PIL import Image

CHAPTER = Path(__file__).parents[1]
sys.path.insert(0, str(CHAPTER))


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
