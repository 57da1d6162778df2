"""The service as its clients meet it: a real process on loopback, fed pictures, nonsense and too much, and killed in parts."""

import asyncio
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
from pathlib import Path

import pytest
from conftest import CHAPTER
from PIL import Image
from running import head, running, wait_until

import serve
from service import engine, load_generator, options, server
from service.load_generator import Target, encoded, good_cases, mixed, odd_cases, put_load

ODD = odd_cases()
LINUX = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks into /proc, which only Linux has")
TOKEN = {"Authorization": "Bearer open-sesame"}


@pytest.fixture(scope="module")
def own_service(onnx_file, tmp_path_factory):
    """A service with two workers, a token and a model file of its own, for the tests that kill and change parts of it."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copy(onnx_file, folder / "model.onnx")
    with running(folder / "model.onnx", folder, "--workers", "2", SERVE_TOKEN="open-sesame") as it:
        it.model = folder / "model.onnx"
        yield it


# ---- pictures, and what is none ---------------------------------------------------------------------------------------


def test_a_picture_gets_its_classes(service):
    for case, name in zip(good_cases(10), load_generator.sample.CLASSES, strict=True):
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


def test_a_picture_has_one_answer_however_it_is_stored(service):
    """Turned with the note that it is; as 16-bit grey; see-through on white."""
    sign = Image.fromarray(load_generator.sample.make(1, seed=99)[0][0]).resize((120, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(sign.rotate(90, expand=True), "PNG", exif=exif)
    upright, answer = service.predict(encoded(sign, "PNG")), service.predict(turned)
    assert answer == upright and (answer[1]["width"], answer[1]["height"]) == (120, 80)
    grey = sign.convert("L")
    wide = Image.fromarray(load_generator.np.asarray(grey).astype("uint16") * 257)
    assert service.predict(encoded(wide, "PNG")) == service.predict(encoded(grey, "PNG"))
    clear = sign.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(sign.size))
    white = Image.alpha_composite(Image.new("RGBA", sign.size, "white"), clear).convert("RGB")
    assert service.predict(encoded(clear, "PNG")) == service.predict(encoded(white, "PNG"))


def test_large_pictures_do_not_keep_the_others_waiting(service):
    """Eight of 16 million pixels come before eight signs: all are answered, and the signs do not wait for all of these."""
    large, times = ODD["large"].body, {}

    def ask(number: int, body: bytes) -> None:
        status, _ = service.predict(body)
        times[number] = status, time.monotonic()

    cases = [large] * 8 + [case.body for case in good_cases(8)]
    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(cases)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [times[i][0] for i in range(16)] == [200] * 16
    assert sorted(times[i][1] for i in range(8, 16))[4] < sorted(times[i][1] for i in range(8))[5]


def test_a_hundred_megabytes_are_refused_and_not_kept(service):
    before = service.resident_mb() if sys.platform == "linux" else 0
    chunks = itertools.repeat(bytes(1_000_000), 100)
    status, answer = service.predict(chunks)  # their length is not announced
    assert status == 413 and "10,000,000" in answer["error"]
    status, answer = service.predict(bytes(100_000_000))
    assert status == 413 and "100,000,000" in answer["error"]
    if before:
        assert service.resident_mb() < before + 40


def test_a_form_of_several_files(service):
    files = [good_cases(2)[1].body, b"Dear Sir or Madam", good_cases(1)[0].body]
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n'
    status, answer = service.predict(
        b"".join(part % file for file in files) + b"--x--\r\n", "multipart/form-data; boundary=x"
    )
    assert status == 200
    names = [picture.get("classes", [{"name": picture.get("error")}])[0]["name"] for picture in answer["pictures"]]
    assert names[::2] == ["yield", "stop"] and names[1].startswith("not a picture")
    assert answer["pictures"][2]["classes"] == service.predict(files[2])[1]["classes"]


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_json_as_the_readme_shows_it(service, tmp_path):
    """A copy of its two lines, sent to this service; of a good picture and of what is none."""
    page = (CHAPTER / "README.md").read_text("utf-8")
    lines = re.search(r"^printf .+\ncurl .+application/json.+$", page, re.MULTILINE)[0]
    for content, expected in ((good_cases(2)[1].body, 200), (b"Dear Sir or Madam", 415)):
        (tmp_path / "a.jpg").write_bytes(content)
        command = lines.replace(":8000/", f":{service.port}/")
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=30)
        (answer,) = json.loads(done.stdout)["pictures"]
        status, alone = service.predict(content)
        assert answer == {"status": expected} | alone and status == expected


def test_a_client_that_goes_away_leaves_no_trace(service):
    for _ in range(20):
        with service.connect() as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n123")
    assert service.predict(good_cases(1)[0].body)[0] == 200
    assert "Traceback" not in service.log.read_text()


def test_connections_are_as_test_front_has_them_also_over_the_loop_of_the_real_service(service):
    body = good_cases(1)[0].body
    assert service.talk(head(len(body)) + body, half_close=True).startswith(b"HTTP/1.1 200 ")
    last = head(len(body), "/predict", "Connection: close") + body
    assert service.talk(head(len(body)) + body + head(9_000) + bytes(9_000) + last).count(b"HTTP/1.1 ") == 3
    start = time.monotonic()
    assert service.talk(head(100) + b"x").startswith(b"HTTP/1.1 408 ") and 1.5 < time.monotonic() - start < 5
    assert service.talk(b"GET / HTTP/1.1\r\nX: " + 100_000 * b"x" + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")


def test_ten_thousand_requests_in_small(service):
    """600, every other one odd: all answered, each as it should be, and no memory kept. (The README has 10,000.)"""
    service.put_load(mixed(200, malformed=True))
    before = service.resident_mb() if sys.platform == "linux" else 0
    result = service.put_load(mixed(600, malformed=True))
    assert result["requests"] == 600 and result["unexpected"] == 0
    assert not [status for status in result["statuses"] if status == "lost" or status >= "500"]
    if before:
        assert service.resident_mb() < before + 25


# ---- what the operator sees -------------------------------------------------------------------------------------------


def test_health_readiness_and_metrics(service):
    status, _, answer = service.ask("GET", "/health")
    assert status == 200 and answer["model"] == "resnet10.onnx" and answer["source"] == "weights/resnet10.safetensors"
    version = answer["version"]
    status, _, answer = service.ask("GET", "/ready")
    assert status == 200 and answer["arch"] == "resnet10" and answer["model"] == version
    assert f"resnet10 from weights/resnet10.safetensors, SHA-256 {version}" in service.log.read_text()
    before = [service.metric(name) for name in ("requests_total", "batch_size_sum", "worker_busy_seconds_total")]
    service.put_load(good_cases(20))
    assert service.metric("requests_total") >= before[0] + 20
    assert service.metric("batch_size_sum") == before[1] + 20
    assert before[2] < service.metric("worker_busy_seconds_total") < before[2] + 20
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
    wait_until(lambda: "GET other 404" in service.log.read_text())  # a line is written after its answer
    log = service.log.read_text()
    assert "POST /predict 415" in log
    assert not re.search("secret|forged|token=abc|PNG|JFIF", log)


# ---- the service under stress -----------------------------------------------------------------------------------------


@LINUX
def test_a_killed_worker_loses_no_request_and_is_replaced(own_service):
    target, killed = Target("127.0.0.1", own_service.port, "/predict", "open-sesame"), []
    before = metric(own_service, "worker_restarts")

    def kill_now_and_then():
        for kill in (signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP):
            time.sleep(0.2)
            wait_until(lambda: metric(own_service, "workers") == 2)
            killed.append(own_service.workers()[0])
            os.kill(killed[-1], kill)

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    deadline = time.time() + 60
    while killer.is_alive() or metric(own_service, "worker_restarts") < before + 3:
        assert time.time() < deadline
        result = asyncio.run(put_load(target, good_cases(32) * 6, 16))
        assert result["statuses"] == {"200": 192}, "nobody noticed, but for the wait"
    wait_until(lambda: metric(own_service, "workers") == 2)
    assert not set(killed) & set(own_service.workers())


def metric(service, name: str) -> float:
    _, _, text = service.ask("GET", "/metrics", headers=TOKEN)
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


def test_a_new_model_takes_over_without_a_failed_request(own_service, onnx_file):
    import onnx

    first = own_service.ask("GET", "/ready")[2]["model"]
    other = onnx.load(str(onnx_file))
    other.doc_string = "version 2"
    results, stop = [], threading.Event()
    target = Target("127.0.0.1", own_service.port, "/predict", "open-sesame")

    def keep_asking():
        while not stop.is_set():
            results.append(asyncio.run(put_load(target, good_cases(32) * 2, 8)))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        own_service.model.write_bytes(onnx_file.read_bytes()[:9999])
        status, _, answer = own_service.ask("POST", "/reload", headers=TOKEN)
        assert status == 422 and "the model in use stays: damaged" in answer["error"]
        assert own_service.ask("GET", "/ready")[2]["model"] == first
        onnx.save(other, str(own_service.model))
        status, _, answer = own_service.ask("POST", "/reload", headers=TOKEN)
        assert status == 200
        assert own_service.ask("GET", "/ready")[2]["model"] == answer["model"] != first
        shutil.copy(onnx_file, own_service.model)
        own_service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: own_service.ask("GET", "/ready")[2]["model"] == first)
    finally:
        stop.set()
        asking.join()
    assert results and all(result["statuses"] == {"200": 64} for result in results)
    assert "sesame" not in own_service.log.read_text()


def test_sigterm_to_the_whole_group_answers_what_was_taken_and_ends(onnx_file, tmp_path):
    """Photos and signs are being answered when service and workers are told to end, as a terminal or a supervisor does."""
    with running(onnx_file, tmp_path, "--max-batch", "4", start_new_session=True) as service:
        photo = load_generator.Case(encoded(Image.effect_noise((2000, 2000), 60), "PNG"))
        todo, done = [photo, *good_cases(8)] * 500, []  # more than there is time for

        async def send_until_nothing_is_left():
            target = Target("127.0.0.1", service.port, "/predict")
            await asyncio.gather(*(load_generator.client(target, todo, done, 30) for _ in range(30)))

        asking = threading.Thread(target=lambda: asyncio.run(send_until_nothing_is_left()))
        asking.start()
        wait_until(lambda: service.metric("queue_length") > 5 and len(done) > 30)
        before = len(done)
        todo.clear()  # no client sends another request from here on
        os.killpg(service.process.pid, signal.SIGTERM)
        status, headers, answer = service.ask("GET", "/ready")
        assert status == 503 and answer["ready"] is False and headers["connection"] == "close"
        asking.join()
        assert {status for _, status, _ in done} == {200} and len(done) > before + 5
        assert service.process.wait(20) == 0
        log = service.log.read_text()
        assert "stopped" in log.splitlines()[-1] and "died" not in log, "a worker ends when the server ends it"
        with pytest.raises(OSError):
            service.ask("GET", "/health")


# ---- how it starts ----------------------------------------------------------------------------------------------------


def test_the_shipped_model_is_that_of_the_shipped_weights(onnx_file):
    """serve.py with no flags serves it, and imports no torch: whoever changes the weights exports them again."""
    import export
    import models
    import utils

    opened, weights = engine.open_model(options.DEFAULT_MODEL, 1), CHAPTER / "weights" / "resnet10.safetensors"
    model, meta = models.load(weights)
    assert onnx_file == options.DEFAULT_MODEL and opened.meta["source_sha256"] == utils.hash_of(weights)
    assert opened.meta["classes"] == meta["classes"] and opened.meta["score"] == meta["score"]
    assert export.difference(model, onnx_file, export.real_pictures("sample", 32)) < export.TOLERANCE
    assert str(CHAPTER.parent).encode() not in onnx_file.read_bytes(), "names a folder of the machine that exported it"


def test_a_service_needs_no_torch_and_writes_nothing(tmp_path):
    lines = (
        "import sys, builtins\n"
        "import serve\n"
        "from service import app, bodies, engine, options, pool, protocol, server, worker\n"
        "args, settings = options.parse(['--port', '0'])\n"
        "engine.open_onnx(settings.model.read_bytes(), 1)\n"
        "sys.exit('torch' in sys.modules)"
    )
    before = {path: path.stat().st_mtime for path in CHAPTER.rglob("*") if "__pycache__" not in path.parts}
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(CHAPTER)})
    assert done.returncode == 0 and not list(tmp_path.iterdir())
    assert before == {path: path.stat().st_mtime for path in CHAPTER.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", "0"), "--workers: '0': must be a number from 1 to 256"),
        (("--threads", "100000"), "--threads: '100000': must be a number from 1 to "),
        (("--port", "65536"), "--port: '65536': must be a number from 0 to 65,535"),
        (("--timeout", "inf"), "--timeout: 'inf': must be"),
        (("--timeout", "nan"), "--timeout: 'nan': must be"),
        (("--drain", "-1"), "--drain: '-1': must be"),
        (("--max-batch", "x"), "--max-batch: 'x': must be"),
        (("--max-memory", "5"), "--max-memory 5: less than --max-body"),
        (("--provider", "tpu"), "--provider: invalid choice: 'tpu'"),
    ],
)
def test_flags_have_bounds(words, message):
    with pytest.raises(SystemExit) as refusal:
        options.parse(words)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("token", ["", " ", "open sesame", "schlüssel", "line\nbreak"])
def test_a_token_that_no_client_can_send_is_refused_at_the_start(monkeypatch, token):
    monkeypatch.setenv("SERVE_TOKEN", token)
    with pytest.raises(SystemExit, match="SERVE_TOKEN: must be of ASCII"):
        options.parse([])


def test_connections_have_a_limit_below_that_of_file_descriptors():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(300, before[0]), before[1]))
        most = server.most_connections(options.parse(["--max-queue", "256"])[1])
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert most == min(1280, soft - 72) and soft > most + 64
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_cannot_be_served_is_said_in_one_line(onnx_file, tmp_path, run_script):
    (tmp_path / "cut.onnx").write_bytes(onnx_file.read_bytes()[:5000])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            server.listen("127.0.0.1", port)
    with pytest.raises(SystemExit, match="gone.onnx: No such file or directory; `python export.py"):
        serve.main(["--model", str(tmp_path / "gone.onnx"), "--port", "0"])
    done = run_script("serve.py", "--model", tmp_path / "cut.onnx", "--port", 0)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "cut.onnx: damaged, or not an ONNX model" in done.stderr
