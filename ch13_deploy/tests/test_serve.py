"""The service as its clients meet it: a real process on loopback, fed pictures, nonsense and too much, and killed in parts."""

import asyncio
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import CHAPTER
from PIL import Image

import load
from load import Target, encoded, good_cases, mixed, odd_cases, put_load

ODD = odd_cases()
LINUX = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks into /proc, which only Linux has")


class Running:
    """A service that runs: its process, address and log."""

    def __init__(self, process, port: int, log: Path):
        self.process, self.port, self.log = process, port, log

    def ask(self, method: str, path: str, body=None, headers=None, timeout=30):
        """-> status, headers, and the answer: a dict where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            data = response.read()
            is_json = response.headers.get("content-type") == "application/json"
            return response.status, response.headers, json.loads(data) if is_json else data.decode()
        finally:
            connection.close()

    def predict(self, body, content_type="application/octet-stream", **kwargs):
        status, _, answer = self.ask("POST", "/predict", body, {"Content-Type": content_type}, **kwargs)
        return status, answer

    def put_load(self, cases, clients=16):
        return asyncio.run(put_load(Target("127.0.0.1", self.port, "/predict"), cases, clients))

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def metric(self, name: str) -> float:
        _, _, text = self.ask("GET", "/metrics")
        return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(name + r"[ {]", line))

    def resident_mb(self) -> float:
        sizes = [Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in (self.process.pid, *self.workers())]
        return sum(map(int, sizes)) * os.sysconf("SC_PAGESIZE") / 1e6


@contextmanager
def running(model: Path, folder: Path, *words, **environment):
    """serve.py in a process of its own, ended as a supervisor would end it."""
    log = folder / "serve.log"
    command = [sys.executable, CHAPTER / "serve.py", "--model", model, "--port", "0", "--drain", "0.3", *words]
    command = [*map(str, command)]
    with open(log, "w") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, env=os.environ | environment)
    try:
        deadline = time.time() + 120
        while not (found := re.search(r"on http://127.0.0.1:(\d+)", log.read_text())):
            assert process.poll() is None and time.time() < deadline, log.read_text()
            time.sleep(0.05)
        service = Running(process, int(found[1]), log)
        while True:
            try:
                if service.ask("GET", "/ready")[0] == 200:
                    break
            except OSError:
                assert time.time() < deadline
                time.sleep(0.05)
        yield service
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def service(onnx_file, tmp_path_factory):
    """One service for the tests that leave it as it was."""
    with running(onnx_file, tmp_path_factory.mktemp("serve"), "--timeout", "3") as it:
        yield it


# ---- pictures, and what is none ---------------------------------------------------------------------------------------


def test_a_picture_gets_its_classes(service):
    for case, name in zip(good_cases(10), load.sample.CLASSES, strict=True):
        status, answer = service.predict(case.body)
        assert status == 200 and answer["width"] == answer["height"] == 32
        shares = [c["probability"] for c in answer["classes"]]
        assert len(shares) == 5 and shares == sorted(shares, reverse=True) and sum(shares) <= 1.0001
        assert answer["classes"][0]["name"] == name


@pytest.mark.parametrize("name", ODD)
def test_every_odd_body_gets_the_status_it_should(service, name):
    case = ODD[name]
    status, answer = service.predict(case.body, case.content_type)
    assert status == case.status, answer
    if status != 200:
        assert set(answer) == {"error"} and 0 < len(answer["error"]) < 200 and "\n" not in answer["error"]


def test_a_rotated_photo_gets_the_answer_of_the_upright_one(service):
    sign = Image.fromarray(load.sample.make(1, seed=99)[0][0]).resize((120, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(sign.rotate(90, expand=True), "PNG", exif=exif)
    assert Image.open(load.io.BytesIO(turned)).size == (80, 120)
    upright, answer = service.predict(encoded(sign, "PNG")), service.predict(turned)
    assert answer == upright and (answer[1]["width"], answer[1]["height"]) == (120, 80)


def test_a_hundred_megabytes_are_refused_and_not_kept(service):
    before = service.resident_mb() if sys.platform == "linux" else 0
    chunks = itertools.repeat(bytes(1_000_000), 100)
    status, answer = service.predict(chunks)  # their length is not announced
    assert status == 413 and "10,000,000" in answer["error"]
    status, answer = service.predict(bytes(100_000_000))
    assert status == 413 and "100,000,000" in answer["error"]
    if before:
        assert service.resident_mb() < before + 40


def test_a_client_that_asks_first_is_told_before_it_sends(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n"
        client.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_slow_clients_are_let_go_and_hold_nobody_up(service):
    """One stops in the middle of the headers, one in the middle of the body; others are answered meanwhile."""
    head, body = (socket.create_connection(("127.0.0.1", service.port), timeout=10) for _ in range(2))
    with head, body:
        head.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        body.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n123")
        start = time.time()
        assert service.predict(good_cases(1)[0].body)[0] == 200 and time.time() - start < 2
        assert body.recv(100).startswith(b"HTTP/1.1 408 ")
        assert head.recv(100) == b""  # closed
        assert 2 < time.time() - start < 6


def test_what_is_not_http_is_answered_and_closed(service):
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\nX: " + 100_000 * b"x"):
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
            client.sendall(sent)
            assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
            assert client.recv(1000) == b""


def test_a_client_that_goes_away_leaves_no_trace(service):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n123")
    assert service.predict(good_cases(1)[0].body)[0] == 200
    assert "Traceback" not in service.log.read_text()


def test_other_paths_and_methods_are_refused(service):
    assert service.ask("GET", "/predict")[0] == 405
    for path in ("/nothing", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/docs", "/openapi.json"):
        assert service.ask("GET", path)[0] == 404
    assert service.ask("POST", "/reload")[0] == 401  # there is no token that could allow it


def test_ten_thousand_requests_in_small(service):
    """One thousand, every other one odd: all answered, each as it should be, and no memory kept. (The README has 10,000.)"""
    service.put_load(mixed(200, malformed=True))
    before = service.resident_mb() if sys.platform == "linux" else 0
    result = service.put_load(mixed(1000, malformed=True))
    assert result["requests"] == 1000 and result["unexpected"] == 0
    assert not [status for status in result["statuses"] if status == "lost" or status >= "500"]
    if before:
        assert service.resident_mb() < before + 25


# ---- what the operator sees -------------------------------------------------------------------------------------------


def test_health_readiness_and_metrics(service):
    assert service.ask("GET", "/health")[0] == 200
    status, _, answer = service.ask("GET", "/ready")
    assert status == 200 and answer["arch"] == "resnet10"
    before = service.metric("requests_total"), service.metric("batch_size_sum")
    service.put_load(good_cases(20))
    assert service.metric("requests_total") >= before[0] + 20
    assert service.metric("batch_size_sum") == before[1] + 20
    assert service.metric("workers") == 1 and service.metric("queue_length") == 0


def test_requests_that_come_together_are_answered_together(service):
    batches, pictures = service.metric("batch_size_count"), service.metric("batch_size_sum")
    service.put_load(good_cases(32) * 10, clients=32)
    assert service.metric("batch_size_sum") - pictures == 320
    assert service.metric("batch_size_count") - batches < 160


def test_the_access_log_has_no_content_and_no_lines_from_clients(service):
    secret = b"secret-in-the-picture"
    service.predict(secret)
    service.ask("GET", "/evil%0A2026-01-01%20forged%20line?token=abc", headers={"X-Secret": "header-secret"})
    log = service.log.read_text()
    assert "POST /predict 415" in log and "GET other 404" in log
    assert not re.search("secret|forged|token=abc|PNG|JFIF", log)


# ---- the service under stress -----------------------------------------------------------------------------------------


@LINUX
def test_a_killed_worker_loses_no_request_and_is_replaced(onnx_file, tmp_path):
    with running(onnx_file, tmp_path, "--workers", "2") as service:
        killed = []

        def kill_now_and_then():
            for _ in range(3):
                time.sleep(0.2)
                while service.metric("workers") < 2:
                    time.sleep(0.05)
                killed.append(service.workers()[0])
                os.kill(killed[-1], signal.SIGKILL)

        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        total = 0
        while killer.is_alive():
            result = service.put_load(good_cases(32) * 6)
            assert result["statuses"] == {"200": 192}, "nobody noticed, but for the wait"
            total += 192
        deadline = time.time() + 20
        while service.metric("workers") < 2:
            assert time.time() < deadline
            time.sleep(0.1)
        assert service.metric("worker_restarts") == 3 and not set(killed) & set(service.workers())


def test_overload_is_answered_at_once(onnx_file, tmp_path):
    """With room for eight, forty that come together cannot all wait; who is refused hears so and when to come back."""
    with running(onnx_file, tmp_path, "--max-queue", "8", "--max-batch", "1") as service:
        photo = Image.effect_noise((3000, 2000), 60)
        cases = [load.Case(encoded(photo, "PNG"))] * 40
        result = service.put_load(cases, clients=30)
        assert set(result["statuses"]) == {"200", "429"} and sum(result["statuses"].values()) == 40
        assert service.predict(good_cases(1)[0].body)[0] == 200


def test_bodies_in_memory_are_bounded(onnx_file, tmp_path):
    """Three clients announce 8 MB each and send nothing; there is room for two."""
    with running(onnx_file, tmp_path, "--max-memory", "17000000", "--timeout", "3") as service:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\nExpect: 100-continue\r\n\r\n"
        clients = [socket.create_connection(("127.0.0.1", service.port), timeout=10) for _ in range(3)]
        answers = []
        for client in clients:
            client.sendall(head)
            answers.append(client.recv(1000).split()[1])
        assert answers == [b"100", b"100", b"429"]
        for client in clients:
            client.close()
        deadline = time.time() + 5
        while service.predict(bytes(8_500_000))[0] == 429:  # the two are gone: there is room again
            assert time.time() < deadline
            time.sleep(0.1)


def test_a_new_model_takes_over_without_a_failed_request(onnx_file, tmp_path):
    import onnx

    model = tmp_path / "model.onnx"
    shutil.copy(onnx_file, model)
    token = {"Authorization": "Bearer open sesame"}
    with running(model, tmp_path, SERVE_TOKEN="open sesame") as service:
        first = service.ask("GET", "/ready")[2]["model"]
        other = onnx.load(str(onnx_file))
        other.doc_string = "version 2"
        results, stop = [], threading.Event()
        target = Target("127.0.0.1", service.port, "/predict", "open sesame")

        def keep_asking():
            while not stop.is_set():
                results.append(asyncio.run(put_load(target, good_cases(32) * 2, 8)))

        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            model.write_bytes(model.read_bytes()[:9999])
            status, _, answer = service.ask("POST", "/reload", headers=token)
            assert status == 422 and "the model in use stays: damaged" in answer["error"]
            assert service.ask("GET", "/ready")[2]["model"] == first
            onnx.save(other, str(model))
            status, _, answer = service.ask("POST", "/reload", headers=token)
            assert status == 200
            assert service.ask("GET", "/ready")[2]["model"] == answer["model"] != first
            shutil.copy(onnx_file, model)
            service.process.send_signal(signal.SIGHUP)
            deadline = time.time() + 20
            while service.ask("GET", "/ready")[2]["model"] != first:
                assert time.time() < deadline
                time.sleep(0.05)
        finally:
            stop.set()
            asking.join()
        assert len(results) > 2 and all(result["statuses"] == {"200": 64} for result in results)


def test_sigterm_answers_what_was_taken_and_ends(onnx_file, tmp_path):
    """Twenty large photos are being answered, one at a time, when the service is told to end."""
    with running(onnx_file, tmp_path, "--max-batch", "1") as service:
        photo = load.Case(encoded(Image.effect_noise((2500, 2000), 60), "PNG"))
        done = []
        asking = threading.Thread(target=lambda: done.append(service.put_load([photo] * 20, clients=20)))
        asking.start()
        while service.metric("queue_length") < 5:
            assert asking.is_alive()
        service.process.terminate()
        status, headers, answer = service.ask("GET", "/ready")
        assert status == 503 and answer["ready"] is False and headers["connection"] == "close"
        asking.join()
        assert done[0]["statuses"] == {"200": 20}
        assert service.process.wait(20) == 0
        assert "stopped" in service.log.read_text().splitlines()[-1]
        with pytest.raises(OSError):
            service.ask("GET", "/health")


@LINUX
def test_workers_end_when_the_server_is_killed(onnx_file, tmp_path):
    with running(onnx_file, tmp_path) as service:
        (worker,) = service.workers()
        service.process.kill()
        deadline = time.time() + 10
        while (
            Path(f"/proc/{worker}/cmdline").exists() and Path(f"/proc/{worker}/cmdline").read_bytes()
        ):  # no zombie either
            assert time.time() < deadline
            time.sleep(0.05)


def test_a_token_opens_and_nothing_else_does(onnx_file, tmp_path):
    with running(onnx_file, tmp_path, SERVE_TOKEN="open sesame") as service:
        body = good_cases(1)[0].body
        for text in ("", "Bearer open", "Bearer \xfc", "Basic eDp4"):
            given = {"Authorization": text}
            status, headers, answer = service.ask("POST", "/predict", body, given)
            assert status == 401 and headers["www-authenticate"] == "Bearer" and "token" in answer["error"]
            assert service.ask("GET", "/metrics", headers=given)[0] == 401
            assert service.ask("POST", "/reload", headers=given)[0] == 401
        assert service.ask("POST", "/predict", body, {"Authorization": "Bearer open sesame"})[0] == 200
        assert service.ask("GET", "/health")[0] == service.ask("GET", "/")[0] == 200
        assert "sesame" not in service.log.read_text()


# ---- what cannot be started -------------------------------------------------------------------------------------------


def test_what_cannot_be_served_is_said_in_one_line(onnx_file, tmp_path, run_script):
    (tmp_path / "cut.onnx").write_bytes(onnx_file.read_bytes()[:5000])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, message in (
            (("--model", onnx_file, "--port", port), f"cannot listen on 127.0.0.1:{port}: Address already in use"),
            (("--model", tmp_path / "cut.onnx", "--port", 0), "cut.onnx: damaged, or not an ONNX model"),
            (("--model", tmp_path / "gone.onnx", "--port", 0), "gone.onnx: No such file or directory"),
            (("--model", onnx_file, "--workers", 0), "--workers 0: must be above 0"),
        ):
            done = run_script("serve.py", *words)
            assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
            assert message in done.stderr
