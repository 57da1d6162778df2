"""The same model under TorchServe and under Ray Serve: the same answers as the default service gives."""

import http.client
import importlib.util
import json
import sys
from contextlib import ExitStack
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

import bench
from service import engine, handler, serve_torchserve
from service.load_generator import good_cases, odd_cases

NO_TORCHSERVE = serve_torchserve.missing()
NO_RAY = None if importlib.util.find_spec("ray") else "pip install -r requirements-ray.txt (there is no ray)"
OTHERWISE = {"wrong content type", "too large a body", "empty"}  # where TorchServe has its own ideas
ODD = {name: case for name, case in odd_cases().items() if name not in OTHERWISE}


def ask(url: str, body: bytes, token: str | None = None):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        headers = {"Content-Type": "application/octet-stream"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection.request("POST", parts.path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def assert_the_same_answers(url: str, token: str | None, onnx_file) -> None:
    predict = engine.Predictor(engine.open_model(onnx_file, 1))
    for case in [*good_cases(10), *ODD.values()]:
        ((status, expected),) = predict([case.body])
        given_status, given = ask(url, case.body, token)
        assert given_status == status
        if status == 200:
            assert [c["name"] for c in given["classes"]] == [c["name"] for c in expected["classes"]]
            pairs = zip(given["classes"], expected["classes"], strict=True)
            assert all(abs(a["probability"] - b["probability"]) < 1e-4 for a, b in pairs)
            assert (given["width"], given["height"]) == (expected["width"], expected["height"])
        else:
            assert given == expected


@pytest.fixture(scope="module")
def start(onnx_file, tmp_path_factory):
    """start("ray") -> its URL and token, and the folder in which it runs."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")  # quick to start, slow for long
        patch.setenv("RAY_prestart_worker_first_driver", "0")  # two workers that nobody uses

        def one(how: str):
            folder = tmp_path_factory.mktemp(how)
            url, token, _ = stack.enter_context(bench.service(how, onnx_file, folder))
            return url, token, folder

        yield one


@pytest.mark.skipif(NO_TORCHSERVE is not None, reason=str(NO_TORCHSERVE))
def test_torchserve_answers_the_same_and_wants_its_tokens(start, onnx_file):
    url, token, folder = start("torchserve")
    assert_the_same_answers(url, token, onnx_file)
    assert ask(url, good_cases(1)[0].body)[0] == 400  # TorchServe's way to say that the token is missing
    keys = json.loads((folder / "runs/torchserve/key_file.json").read_text())
    port = urlsplit(url).port
    for address, key, path, expected in (
        (port + 1, keys["management"]["key"], "/models/resnet10", 200),
        (port + 1, token, "/models/resnet10", 400),  # the inference token does not manage
        (port + 2, token, "/metrics", 200),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", address, timeout=30)
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        assert response.status == expected, text


@pytest.mark.skipif(NO_RAY is not None, reason=str(NO_RAY))
def test_ray_serve_answers_the_same(start, onnx_file):
    url, token, _ = start("ray")
    assert_the_same_answers(url, token, onnx_file)
    assert ask(url, ODD["not an image"].body)[0] == 415
    assert ask(url.replace("/predict", "/nothing"), b"")[0] == 404


def test_what_is_no_picture_costs_no_other_request_of_torchserves_batch_its_answer(onnx_file, monkeypatch):
    """Of JSON it makes a dict, of text a str."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    manifest = {"model": {"serializedFile": onnx_file.name}}
    statuses: dict[int, int] = {}
    context = SimpleNamespace(system_properties={"model_dir": str(onnx_file.parent)}, manifest=manifest)
    context.set_response_status = lambda status, phrase, i: statuses.update({i: status})
    context.set_response_content_type = lambda i, kind: None
    worker = handler.Handler()
    worker.initialize(context)
    picture = good_cases(1)[0].body
    rows = [{"body": bytearray(picture)}, {"body": {"a": 1}}, {"body": [1]}, {"body": "text"}, {}, {"data": picture}]
    answers = [json.loads(text) for text in worker.handle(rows, context)]
    assert statuses == {0: 200, 1: 415, 2: 415, 3: 415, 4: 400, 5: 200}
    assert answers[0] == answers[5] and answers[0]["classes"][0]["name"] == "stop"


def test_what_is_missing_for_torchserve_is_said_in_one_line(monkeypatch, onnx_file):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(SystemExit, match="TorchServe needs Java 11 or newer, and there is no java on the PATH"):
        serve_torchserve.main(None)
