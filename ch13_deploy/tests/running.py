"""Ways to run the service in tests: as a process with workers, and its HTTP side alone, in a thread, with answers made up."""

import asyncio
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from conftest import CHAPTER

from service import app
from service import server as service_server
from service.load_generator import Target, put_load
from service.pool import Model, Settings
from service.protocol import Protocol


class Client:
    """Asks a service on a port of loopback."""

    port: int

    def ask(self, method: str, path: str, body=None, headers=None, timeout=30):
        """-> status, headers, and the answer: a dict where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            data = response.read()
            is_json = response.headers.get("content-type") == "application/json" and data
            return response.status, response.headers, json.loads(data) if is_json else data.decode()
        finally:
            connection.close()

    def predict(self, body, content_type="application/octet-stream", **kwargs):
        status, _, answer = self.ask("POST", "/predict", body, {"Content-Type": content_type}, **kwargs)
        return status, answer

    def connect(self, timeout=10) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def talk(self, *sent: bytes, half_close=False, timeout=10) -> bytes:
        """Sends bytes as they are -> all that comes back until the service closes the connection."""
        with self.connect(timeout) as client:
            for part in sent:
                client.sendall(part)
            if half_close:
                client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def metric(self, name: str) -> float:
        _, _, text = self.ask("GET", "/metrics")
        return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(name + r"[ {]", line))


def read_all(client: socket.socket) -> bytes:
    data = b""
    try:
        while part := client.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def head(length: int, path: str = "/predict", *lines: str, method: str = "POST") -> bytes:
    """The head of a request whose body has `length` bytes."""
    rows = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}", *lines]
    return "".join(f"{row}\r\n" for row in [*rows, ""]).encode()


# ---- a whole service --------------------------------------------------------------------------------------------------


class Running(Client):
    """A service that runs: its process, address and log."""

    def __init__(self, process, port: int, log: Path):
        self.process, self.port, self.log = process, port, log

    def put_load(self, cases, clients=16):
        return asyncio.run(put_load(Target("127.0.0.1", self.port, "/predict"), cases, clients))

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def resident_mb(self) -> float:
        sizes = [Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in (self.process.pid, *self.workers())]
        return sum(map(int, sizes)) * os.sysconf("SC_PAGESIZE") / 1e6


@contextmanager
def running(model: Path, folder: Path, *words, chapter: Path = CHAPTER, start_new_session=False, **environment):
    """serve.py in a process of its own, ended as a supervisor would end it."""
    log = folder / "serve.log"
    command = [sys.executable, chapter / "serve.py", "--model", model, "--port", "0", "--drain", "0.3", *words]
    command = [*map(str, command)]
    with open(log, "w") as out:
        where = {"cwd": folder, "env": os.environ | environment, "start_new_session": start_new_session}
        process = subprocess.Popen(command, stdout=out, stderr=out, **where)
    try:
        deadline = time.time() + 60
        while not (found := re.search(r"on http://127.0.0.1:(\d+)", log.read_text())):
            assert process.poll() is None and time.time() < deadline, log.read_text()
            time.sleep(0.02)
        service = Running(process, int(found[1]), log)
        wait_until(lambda: answers_ready(service))
        yield service
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


def answers_ready(service: Client) -> bool:
    try:
        return service.ask("GET", "/ready")[0] == 200
    except OSError:
        return False


def wait_until(true, seconds: float = 20.0) -> None:
    deadline = time.time() + seconds
    while not true():
        assert time.time() < deadline, "waited in vain"
        time.sleep(0.02)


# ---- its HTTP side alone ----------------------------------------------------------------------------------------------


class Answers:
    """What app.py needs of a pool; `submit` may be another function."""

    def __init__(self, settings: Settings, submit):
        self.settings, self.waiting, self.workers, self.restarts, self.busy_seconds = settings, 0, [], 0, 0.0
        self.ready, self.alive, self.draining, self.queue = True, True, False, []
        meta = {"arch": "none", "classes": ["a", "b"], "source": "nowhere"}
        self.model = Model(b"", "0123456789ab", "none.onnx", meta)
        self.submit = submit


async def echo(data: bytes) -> tuple[int, dict]:
    """Answers with the body's length and beginning."""
    return 200, json.dumps({"length": len(data), "start": data[:20].decode("latin-1")})


class Front(Client):
    def __init__(self, port: int, server: uvicorn.Server, pool: Answers, protocol: type):
        self.port, self.server, self.pool, self.protocol = port, server, pool, protocol


@contextmanager
def front(submit=echo, most: int = 1000, **settings):
    """app.py and protocol.py on a port of loopback, in a thread of this process, over made-up answers."""
    settings = Settings(Path("none.onnx"), access_log=False, **settings)
    pool, sock = Answers(settings, submit), socket.create_server(("127.0.0.1", 0))
    protocol = Protocol.for_limits(settings.timeout, settings.idle, most, settings.max_idle)
    config = uvicorn.Config(
        app.make_app(pool), http=protocol, lifespan="off", ws="none", log_config=None, loop="asyncio"
    )
    config.timeout_graceful_shutdown = 5
    server = service_server.Server(config, pool)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])))
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Front(sock.getsockname()[1], server, pool, protocol)
    finally:
        server.should_exit = True
        thread.join()
