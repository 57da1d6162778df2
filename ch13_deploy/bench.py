"""How fast does the same network answer in each format, and how fast does each service under load?

    python bench.py                                      # eager, compiled, TorchScript, AOTInductor, ONNX Runtime, int8
    python bench.py --device cuda                        # eager, compiled, torch.export, ONNX Runtime, on a GPU
    python bench.py --services asgi torchserve ray       # requests a second from a second process, 32 clients
    python bench.py --soak 10000                         # half of them odd or bad: the answers, and the service's memory

One run measures everything that is compared, in rounds that go over all of them in turn, since machines drift. Latencies are
milliseconds for a batch: the median, the 95th and the 99th percentile. Prints a table, and one line of JSON.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from service import engine
from service.options import Parser

HERE = Path(__file__).parent
SIZES = (1, 32)


# ---- formats ----------------------------------------------------------------------------------------------------------


def open_formats(weights: str | None, out: Path, names: list[str], device: str = "cpu") -> dict:
    """-> name: function of pixels, and the pictures to measure on. Exports what is not there yet."""
    import torch

    import compress
    import datasets
    import export
    import models

    model, meta = models.load(weights or export.WEIGHTS)
    data = datasets.load("sample", meta["image_size"], limit=compress.CALIBRATION)
    real, threads, runs = data.splits["val"].images, torch.get_num_threads(), {}
    if device == "cuda":
        return {"runs": on_device(model, meta, out, real, names, device), "pictures": real[: max(SIZES)].numpy()}
    for name in names:
        if name == "eager":
            runs[name] = engine.on_tensors(model)
        elif name == "compiled":
            runs[name] = engine.on_tensors(torch.compile(model, dynamic=True))
        elif name == "int8":
            source = export.export(model, meta, "onnx", out, real)
            path = compress.int8_ort(source, data.splits["train"].images, out / f"{meta['arch']}-int8.onnx")
            runs[name] = engine.open_model(path, threads).run
        else:
            runs[name] = engine.open_model(export.export(model, meta, name, out, real), threads).run
    return {"runs": runs, "pictures": real[: max(SIZES)].numpy()}


def on_device(model, meta: dict, out: Path, real, names: list[str], device: str) -> dict:
    """-> name: function of pixels, of those formats that run on `device`. The pixels are on the CPU, as a service has them, and
    so are the answers."""
    import torch
    from torch.export.passes import move_to_device_pass

    import export

    def there_and_back(module):
        return engine.on_tensors(lambda pixels: module(pixels.to(device, non_blocking=True)).cpu())

    runs = {}
    for name in names:
        if name == "eager":
            runs[name] = there_and_back(model.to(device))
        elif name == "compiled":
            runs[name] = there_and_back(torch.compile(model.to(device), dynamic=True))
        elif name == "export":
            program = torch.export.load(str(export.export(model.cpu(), meta, name, out, real)))
            runs[name] = there_and_back(move_to_device_pass(program, device).module())
        elif name == "onnx":
            data = export.export(model.cpu(), meta, name, out, real).read_bytes()
            try:
                runs[name] = engine.open_onnx(data, provider=device).run
            except engine.BadModel as why:
                print(f"{name}: left out; {why}")
    model.to(device)
    return runs


def measure_formats(runs: dict, pictures: np.ndarray, rounds: int) -> list[dict]:
    times = {(name, size): [] for size in SIZES for name in runs}
    for turn in range(-3, rounds):  # the first three warm up: they allocate, and compile
        for name, size in times:
            runs[name](pictures[:size])  # untimed: the runtime before this one leaves its threads spinning for a while
            start = time.perf_counter()
            runs[name](pictures[:size])
            if turn >= 0:
                times[name, size].append(1000 * (time.perf_counter() - start))
    rows, eager = [], {size: np.median(times["eager", size]) for size in SIZES if "eager" in runs}
    for (name, size), values in times.items():
        p50, p95, p99 = np.percentile(values, (50, 95, 99))
        row = {"format": name, "batch": size, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}
        row |= {"per_s": 1000 * size / np.mean(values), "over_eager": eager[size] / p50 if eager else float("nan")}
        rows.append({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
    return rows


# ---- services ---------------------------------------------------------------------------------------------------------


def free_port(count: int = 1) -> int:
    """-> the first of `count` free ports in a row on loopback."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = first.getsockname()[1]
        try:
            for other in range(port, port + count):
                socket.create_server(("127.0.0.1", other)).close()
            return port
        except OSError:
            continue


def answers(url: str, body: bytes, token: str | None = None) -> int | None:
    """-> the status of one request; None if nobody answers."""
    headers = {"Content-Type": "image/png"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@contextmanager
def service(how: str, model: Path, folder: Path, *words: str, seconds: float = 90) -> Iterator[tuple]:
    """Runs `serve.py --with HOW` in `folder` until the block ends -> URL for pictures, token and process number, once it
    answers."""
    from service.load_generator import good_cases

    port, key, body = free_port(5), folder / "runs/torchserve/key_file.json", good_cases(1)[0].body
    path = f"/predictions/{engine.open_onnx(model.read_bytes()).meta['arch']}" if how == "torchserve" else "/predict"
    url, token = f"http://127.0.0.1:{port}{path}", None
    command = [sys.executable, HERE / "serve.py", "--with", how, "--model", model.absolute(), "--port", port, *words]
    with open(folder / f"{how}.log", "w") as out:
        process = subprocess.Popen([*map(str, command)], cwd=folder, stdout=out, stderr=out, start_new_session=True)
        deadline = time.monotonic() + seconds
        try:
            while answers(url, body, token) != 200:  # TorchServe's /ping is well before its workers are
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{how} did not start: {Path(out.name).read_text()[-500:]}")
                if how == "torchserve" and key.exists():
                    token = json.loads(key.read_text() or "{}").get("inference", {}).get("key")
                time.sleep(0.2)
            yield url, token, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def put_load(url: str, token: str | None, requests: int, clients: int = 32, *words: str) -> dict:
    """The load generator in a process of its own -> what it measured."""
    command = [
        sys.executable,
        "-m",
        "service.load_generator",
        url,
        "--requests",
        requests,
        "--clients",
        clients,
        *words,
    ]
    environment = os.environ | ({"SERVE_TOKEN": token} if token else {})
    done = subprocess.run([*map(str, command)], cwd=HERE, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


SERVICES = {  # name: serve.py's words
    "asgi": ("asgi",),
    "torchserve": ("torchserve",),
    "torchserve-1": ("torchserve", "--max-batch", "1"),  # a picture at a time, as it does when nobody configures it
    "ray": ("ray",),
}


def measure_services(names: list[str], model: Path, requests: int) -> list[dict]:
    rows = []
    for name in names:
        folder, (how, *words) = Path(tempfile.mkdtemp(prefix="bench-")), SERVICES[name]
        try:
            with service(how, model, folder, "--no-access-log", *words) as (url, token, _):
                put_load(url, token, requests // 4)  # warms up: connections, the Java compiler
                for clients, count in ((1, requests // 4), (32, requests)):
                    rows.append({"service": name} | put_load(url, token, count, clients))
        except RuntimeError as why:
            print(f"{name}: left out; {why}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return rows


def resident_mb(pid: int) -> float:
    """The memory of a process and of those that it started (Linux)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in (pid, *children))
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def soak(model: Path, requests: int) -> dict:
    """Sends the default service `requests` requests, every other one odd or bad, while a hundred connections make trouble
    -> what came, and its memory on the way."""
    with tempfile.TemporaryDirectory() as folder, service("asgi", model, Path(folder)) as (url, token, pid):
        parts = [requests // 10] + 3 * [requests * 3 // 10]
        memory, rows = [], []
        for count in parts:
            rows.append(put_load(url, token, count, 32, "--malformed", "--nuisances", 100))
            memory.append(round(resident_mb(pid), 1))
    statuses = sorted({status for row in rows for status in row["statuses"]})
    total = {status: sum(row["statuses"].get(status, 0) for row in rows) for status in statuses}
    return {
        "requests": sum(parts),
        "statuses": total,
        "unexpected": sum(row["unexpected"] for row in rows),
        "mb": memory,
    }


def print_rows(rows: list[dict]) -> None:
    for i, row in enumerate(rows):
        row = {key: value for key, value in row.items() if key not in ("requests", "seconds", "statuses", "unexpected")}
        if i == 0:
            print("".join(f"{key:>13}" for key in row))
        print("".join(f"{value:>13,.2f}" if isinstance(value, float) else f"{value:>13}" for value in row.values()))


ON_A_GPU = ("eager", "compiled", "export", "onnx")
FORMATS = ("eager", "compiled", "torchscript", "export", "aoti", "onnx", "int8")


def main(argv=None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="default: all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=f"cuda: {', '.join(ON_A_GPU)}")
    parser.add_argument("--services", nargs="+", choices=SERVICES, help="measure these instead")
    parser.add_argument("--soak", type=int, metavar="N", help="N requests to the default service, half of them bad")
    parser.add_argument("--weights", metavar="FILE", help="default: weights/resnet10.safetensors")
    parser.add_argument("--model", metavar="FILE", help="for --services: an .onnx file (default: the shipped one)")
    parser.add_argument("--requests", type=int, default=4000, help="to each service (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=100, help="of each format (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=engine.cores(), help="default: %(default)s, all cores")
    parser.add_argument("--out", metavar="DIR", default="runs/bench", help="default: %(default)s")
    args = parser.parse_args(argv)
    about = {"cores": engine.cores()}
    if args.services or args.soak:
        from service.options import DEFAULT_MODEL

        model = Path(args.model or DEFAULT_MODEL)
    if args.soak:
        return print(json.dumps(about | soak(model, args.soak)))
    if args.services:
        rows = measure_services(args.services, model, args.requests)
    else:
        import torch

        torch.set_num_threads(args.threads)
        about |= {"threads": args.threads, "torch": torch.__version__, "device": args.device}
        if args.device == "cuda" and not torch.cuda.is_available():
            raise SystemExit("error: --device cuda: PyTorch sees no such device here")
        opened = open_formats(args.weights, Path(args.out), args.formats, args.device)
        rows = measure_formats(opened["runs"], opened["pictures"], args.rounds)
    print_rows(rows)
    print(json.dumps(about | {"rows": rows}))


if __name__ == "__main__":
    main()
