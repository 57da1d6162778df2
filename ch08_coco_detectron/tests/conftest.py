"""Shared by the tests: --device, a small sample on the disk, and a way to run the chapter's scripts as a user does."""

import itertools
import json
import multiprocessing
import os
import socket
import subprocess
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


def pytest_configure(config):
    """pycocotools's own warnings, which nobody here can mend."""
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device of the tests that train: cpu or cuda")


@pytest.fixture
def device(request):
    return request.config.getoption("--device")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A folder in COCO's format with 16, 4 and 6 scenes of the sample. Tests only read it."""
    import sample

    folder = tmp_path_factory.mktemp("data") / "scenes"
    sample.write(folder, {"train": 16, "val": 4, "test": 6})
    return folder


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
def coco_file(tmp_path):
    """coco_file(images=[...], annotations=[...]) -> an annotation file, and a grey picture for each image, no two alike."""
    made = itertools.count()

    def make(images=None, annotations=(), categories=None, name="instances_train", folder="own"):
        top = tmp_path / folder
        images = [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}] if images is None else images
        categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}] if categories is None else categories
        place = top / name.split("_")[-1]
        place.mkdir(parents=True, exist_ok=True)
        (top / "annotations").mkdir(exist_ok=True)
        for image in images:
            if image.get("file_name") and not image.pop("absent", False):
                pixels = np.full((image["height"], image["width"], 3), 90, np.uint8)
                pixels[0, 0] = divmod(next(made), 256) + (0,)
                Image.fromarray(pixels).save(place / image["file_name"])
        content = {"images": images, "annotations": list(annotations), "categories": categories}
        path = top / "annotations" / f"{name}.json"
        path.write_text(json.dumps(content), "utf-8")
        return path

    return make


def thing(number=1, image_id=1, category_id=3, box=(5, 5, 10, 8), **changes):
    """An annotation whose mask is its box."""
    x, y, w, h = box
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    row = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": list(box), "area": w * h}
    return row | {"iscrowd": 0, "segmentation": polygon} | changes
