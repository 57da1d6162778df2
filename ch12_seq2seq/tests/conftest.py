"""Shared by the tests: --device, small networks, and a way to run the chapter's scripts as a user does."""

import os
import subprocess
import sys
from pathlib import Path

os.environ["LANGUAGE"] = "en"  # the tests read English messages, whatever the system's language
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: threads cost more than they bring

import pytest

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
