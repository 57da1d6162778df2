"""Lesson 3-35: a real Visdom server on this machine only, a run that draws to it, and the plot read back."""

import importlib.util
import json
import socket
import time
from pathlib import Path

import pytest

import train
from lessons import tools

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("visdom") is None, reason="Visdom is not installed (requirements-visdom.txt says how)"
)


@pytest.fixture
def server(tmp_path, start):
    """A server that ends with the test: its address, and the program."""
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
    yield f"http://127.0.0.1:{port}", program
    program.terminate()
    program.wait(10)


def test_a_run_draws_its_curves(server, empty_folder):
    from visdom import Visdom

    address, _ = server
    train.main(["--epochs", "3", "--run", "r", "--visdom", address])
    host, _, port = address.rpartition(":")
    reader = Visdom(server=host, port=int(port), env="line-adam-torch", use_incoming_socket=False)
    window = json.loads(reader.get_window_data("val_loss"))
    (curve,) = window["content"]["data"]
    column = (empty_folder / "r/metrics.csv").read_text().splitlines()
    expected = [float(row.split(",")[3]) for row in column[1:]]
    assert curve["x"] == [1, 2, 3] and curve["y"] == pytest.approx(expected, rel=1e-4)
    assert json.loads(reader.get_window_data("train_loss"))["content"]["data"][0]["x"] == [1, 2, 3]


def test_a_server_that_goes_away_does_not_end_the_training(server, capsys):
    address, program = server
    plot = tools.VisdomPlot(address, env="gone")
    plot.add(1, {"loss": 0.5})
    program.terminate()
    program.wait(10)
    for step in (2, 3):
        plot.add(step, {"loss": 0.5})
    assert capsys.readouterr().out.count("going on without it") == 1


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads the list of sockets from Linux's /proc")
def test_the_server_answers_this_machine_only(server):
    port = int(server[0].rpartition(":")[2])
    table = Path("/proc/net/tcp").read_text().splitlines()  # Linux: the sockets that listen are in state 0A
    listening = [line.split()[1] for line in table if line.split()[3] == "0A"]
    addresses = {address.split(":")[0] for address in listening if int(address.split(":")[1], 16) == port}
    assert addresses == {"0100007F"}  # 127.0.0.1, bytes reversed
