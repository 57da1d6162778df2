"""Shared by the tests: --device, a cache for all, a table of texts, and a way to run the chapter's scripts as a user does."""

import csv
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


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder for jieba's dictionary and tokenised text."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run_script():
    """run_script("train.py", "--quick") -> the finished process, its output as text."""

    def run(*words, **kwargs):
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=CHAPTER, capture_output=True, text=True, timeout=300, **kwargs)

    return run


@pytest.fixture
def table(tmp_path):
    """table([("很好", "1"), ...]) -> the path of a CSV file with these rows, in UTF-8."""

    def write(rows, name="reviews.csv", header=("review", "label")):
        path = tmp_path / name
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write
