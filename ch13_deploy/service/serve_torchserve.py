"""Behind `python serve.py --with torchserve`: packs the model with its handler, writes the configuration, runs TorchServe.

Upstream archived TorchServe in August 2025: it gets no fixes any more. It stands here as the course's part (13-3); for a
service of your own take the default. Everything lies in runs/torchserve: model_store/NAME.mar, config.properties, logs, and
key_file.json with the tokens, which TorchServe writes anew at each start:
    inference   http://127.0.0.1:8080/predictions/NAME   Authorization: Bearer <the token under "inference">
    management  http://127.0.0.1:8081                    ... <the token under "management">
    metrics     http://127.0.0.1:8082/metrics            ... <the token under "inference">
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from service.engine import BadModel, open_onnx
from service.options import fail
from service.pool import Settings

HERE = Path(__file__).parent


def missing() -> str | None:
    """What TorchServe needs and this machine lacks, in one line."""
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        return "TorchServe needs Java 11 or newer, and there is no java on the PATH"
    lacking = [name for name in ("ts", "model_archiver", "yaml") if importlib.util.find_spec(name) is None]
    return f"pip install -r requirements-torchserve.txt (there is no {lacking[0]})" if lacking else None


def pack(settings: Settings, folder: Path) -> str:
    """Writes model_store/NAME.mar: the model, the handler and, as service/, the files that it imports -> NAME."""
    try:
        name = open_onnx(settings.model.read_bytes(), 1).meta["arch"]
    except (BadModel, OSError) as why:
        fail(f"{settings.model}: {getattr(why, 'strerror', None) or why}")
    store = folder / "model_store"
    store.mkdir(parents=True, exist_ok=True)
    words = {"model-name": name, "version": "1.0", "serialized-file": settings.model, "handler": HERE / "handler.py"}
    with tempfile.TemporaryDirectory() as extra:
        (Path(extra) / "service").mkdir()
        for file in ("__init__.py", "engine.py", "picture.py"):
            shutil.copy(HERE / file, Path(extra) / "service")
        words |= {"extra-files": extra, "export-path": store}
        command = [sys.executable, "-m", "model_archiver.model_packaging", "--force"]
        command += [str(part) for name, value in words.items() for part in (f"--{name}", value)]
        done = subprocess.run(command, capture_output=True, text=True)
    if not (store / f"{name}.mar").exists():
        fail(f"the model could not be packed: {done.stderr.strip().splitlines()[-1:]}")
    return name


def configure(settings: Settings, folder: Path, name: str) -> Path:
    """Writes config.properties: loopback, tokens, the limits of the other services -> its path."""
    model = {"defaultVersion": True, "marName": f"{name}.mar", "batchSize": settings.max_batch}
    model |= {"minWorkers": settings.workers, "maxWorkers": settings.workers}
    model |= {"maxBatchDelay": max(1, round(1000 * settings.batch_wait)), "responseTimeout": round(settings.timeout)}
    lines = {
        "inference_address": f"http://{settings.host}:{settings.port}",
        "management_address": f"http://127.0.0.1:{settings.port + 1}",
        "metrics_address": f"http://127.0.0.1:{settings.port + 2}",
        "grpc_inference_port": settings.port + 3,
        "grpc_management_port": settings.port + 4,
        "model_store": "model_store",
        "load_models": f"{name}.mar",
        "models": json.dumps({name: {"1.0": model}}),
        "disable_token_authorization": "false",
        "enable_model_api": "false",  # nobody adds models over the net
        "install_py_dep_per_model": "false",
        "enable_envvars_config": "false",
        "job_queue_size": settings.max_queue,
        "max_request_size": settings.max_body,
        "number_of_netty_threads": 2,
        "vmargs": "-Xmx1g",
    }
    path = folder / "config.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), "utf-8")
    return path


def main(settings: Settings, folder: Path = Path("runs/torchserve")) -> None:
    """Runs TorchServe in the foreground until a signal ends it."""
    if why := missing():
        fail(why)
    folder = folder.absolute()
    settings.model = settings.model.absolute()
    name = pack(settings, folder)
    configure(settings, folder, name)
    own = folder / "tmp"  # where it unpacks models and keeps its process number: two servers need two
    own.mkdir(exist_ok=True)
    (folder / "key_file.json").unlink(missing_ok=True)
    environment = os.environ | {"TMPDIR": str(own), "TEMP": str(own), "OMP_NUM_THREADS": str(settings.threads)}
    words = ["--start", "--foreground", "--ncs", "--ts-config", "config.properties", "--model-store", "model_store"]
    command = [sys.executable, "-c", "from ts.model_server import start; start()", *words]
    url = f"http://{settings.host}:{settings.port}/predictions/{name}"
    print(f"TorchServe: {url}; its tokens: {folder / 'key_file.json'}", flush=True)
    server = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: os.killpg(server.pid, signal.SIGTERM))
    raise SystemExit(0 if server.wait() in (0, -signal.SIGTERM) else "error: TorchServe ended by itself; see the logs")
