"""Lesson 3-35: a real Visdom server on this machine only, a run that draws to it, and the plot read back."""

import importlib.util
import json
import socket
import time
from pathlib import Path

import pytest

import train

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("visdom") is None, reason="Visdom is not installed (requirements-visdom.txt says how)"
)


@pytest.fixture
def server(tmp_path, start) -> str:
    """The address of a server that ends with the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ("visdom_server.py", "--port", str(port), "--keep", str(tmp_path / "plots"))
    program = start(*words, cwd=tmp_path)
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert program.poll() is None, program.stderr.read()
            assert time.monotonic() < deadline, "the server did not start within 30 seconds"
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    program.terminate()
    program.wait(10)


def test_a_run_draws_its_curves(server, workplace):
    from visdom import Visdom

    train.main(["--epochs", "3", "--run", "r", "--visdom", server])
    host, _, port = server.rpartition(":")
    reader = Visdom(server=host, port=int(port), env="line-adam-torch", use_incoming_socket=False)
    window = json.loads(reader.get_window_data("val_loss"))
    (curve,) = window["content"]["data"]
    column = (workplace / "r/metrics.csv").read_text().splitlines()
    expected = [float(row.split(",")[3]) for row in column[1:]]
    assert curve["x"] == [1, 2, 3] and curve["y"] == pytest.approx(expected, rel=1e-4)
    assert json.loads(reader.get_window_data("train_loss"))["content"]["data"][0]["x"] == [1, 2, 3]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads the list of sockets from Linux's /proc")
def test_the_server_answers_this_machine_only(server):
    port = int(server.rpartition(":")[2])
    table = Path("/proc/net/tcp").read_text().splitlines()  # Linux: the sockets that listen are in state 0A
    listening = [line.split()[1] for line in table if line.split()[3] == "0A"]
    addresses = {address.split(":")[0] for address in listening if int(address.split(":")[1], 16) == port}
    assert addresses == {"0100007F"}  # 127.0.0.1, bytes reversed
