"""The container and the Kubernetes files, as far as they can be looked at without either."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from conftest import CHAPTER
from running import running

from service import load_generator, options


def lines_of(name: str) -> set[str]:
    lines = (CHAPTER / name).read_text("utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def copied() -> dict[str, str]:
    """What the Dockerfile copies -> where below /app."""
    text = (CHAPTER / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    rows = re.findall(r"^COPY (.+) /app/(\S*)$", text, re.MULTILINE)
    return {name: folder for names, folder in rows for name in shlex.split(names)}


def test_the_container_has_all_that_the_service_needs_and_no_torch(tmp_path):
    """What the Dockerfile copies, and nothing else of this folder, answers a picture; the disk may be read-only."""
    for name, folder in copied().items():
        (tmp_path / "app" / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(CHAPTER / name, tmp_path / "app" / folder)
    allowed = {line.removeprefix("!") for line in lines_of(".dockerignore")} - {"*"}
    assert allowed == copied().keys()
    assert lines_of("requirements-serve.txt") < lines_of("requirements.txt")
    (tmp_path / "no" / "torch").mkdir(parents=True)
    (tmp_path / "no" / "torch" / "__init__.py").write_text("raise ImportError('there is no torch')")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "app", tmp_path / "empty"):
        folder.chmod(0o555)
    model = tmp_path / "app" / "weights" / "resnet10.onnx"
    where = {"PYTHONPATH": str(tmp_path / "no"), "PYTHONDONTWRITEBYTECODE": "1"}
    with running(model, tmp_path, chapter=tmp_path / "app", **where) as service:
        status, answer = service.predict(load_generator.good_cases(1)[0].body)
        assert status == 200 and answer["classes"][0]["name"] == "stop"
    assert sys.platform == "win32" or not list((tmp_path / "app").rglob("__pycache__"))


def documents(name: str) -> list[dict]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((CHAPTER / "deploy" / name).read_text("utf-8")))


def test_the_kubernetes_files_agree_with_the_service():
    deployment, service, budget, scaler = documents("service.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    _, settings = options.parse(container["args"])
    assert pod["terminationGracePeriodSeconds"] > settings.drain + 2 * settings.timeout + 5
    assert {service["metadata"]["name"], "localhost"} & set(settings.allowed_hosts)
    ports = {container[name]["httpGet"]["port"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert ports == {"http"} and container["ports"] == [{"name": "http", "containerPort": settings.port}]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"]
    assert scaler["spec"]["metrics"][0]["pods"]["metric"]["name"] == "queue_length"


def test_the_training_job_gives_words_that_train_py_takes():
    import train

    (job,) = documents("train.yaml")
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    program, script, *words = container["command"]
    assert (program, script) == ("torchrun", "train.py") and job["spec"]["elasticPolicy"]["rdzvId"] != "none"
    assert train.parse(words).run == "runs/signs-1"


@pytest.mark.parametrize("name", ["Dockerfile", "deploy/service.yaml", "deploy/train.yaml"])
def test_no_file_is_forgotten(name):
    for page in ("README.md", "README.zh-CN.md"):
        assert name in (Path(CHAPTER) / page).read_text("utf-8")
