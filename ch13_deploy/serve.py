"""Serves an exported model over HTTP: one service, three ways to run it.

    python serve.py                                  # http://127.0.0.1:8000, the shipped weights, ONNX Runtime
    python serve.py --model runs/export/resnet10.onnx --port 8080 --workers 2
    python serve.py --with torchserve                # the same model under TorchServe (requirements-torchserve.txt, Java)
    python serve.py --with ray                       # the same under Ray Serve (requirements-ray.txt)
    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict

A token, if there is to be one, comes in the environment: SERVE_TOKEN=... python serve.py. SIGHUP opens the model file again;
SIGTERM stops taking requests, answers those that were taken, and ends.
"""

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

if sys.platform != "win32":
    import uvloop

from engine import BadModel
from pool import Pool, Settings

log = logging.getLogger("serve")
HERE = Path(__file__).parent
DEFAULT_MODEL = HERE / "runs" / "export" / "resnet10.onnx"


def fail(message) -> None:
    raise SystemExit(f"error: {message}")


def parse(argv=None) -> tuple[argparse.Namespace, Settings]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Settings(DEFAULT_MODEL)

    def add(name: str, text: str) -> None:
        value = getattr(default, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"{text} (default: {value})")

    ways = ("asgi", "torchserve", "ray")
    parser.add_argument("--with", dest="how", choices=ways, default="asgi", help="default: %(default)s")
    parser.add_argument("--model", metavar="FILE", help="an .onnx file (default: the shipped weights)")
    add("host", "address to listen on; anything but loopback lets others in")
    add("port", "0 takes a free one")
    add("workers", "model workers, processes of their own; under Ray, the most replicas")
    add("threads", "threads of each worker")
    add("max-batch", "most pictures a batch")
    add("batch-wait", "seconds to wait for a fuller batch")
    add("max-queue", "most requests that wait")
    add("max-body", "most bytes of a picture file")
    add("max-memory", "most bytes of all files held at a time")
    add("max-pixels", "most pixels of a picture")
    add("timeout", "seconds to send a request, and again to answer it")
    add("drain", "seconds between saying that it is not ready and taking no more connections, on SIGTERM")
    parser.add_argument("--no-access-log", dest="access_log", action="store_false", help="log no requests")
    args = parser.parse_args(argv)
    for name in ("workers", "threads", "max_batch", "max_queue", "max_body", "max_memory", "max_pixels", "timeout"):
        if getattr(args, name) <= 0:
            fail(f"--{name.replace('_', '-')} {getattr(args, name)}: must be above 0")
    args.model = Path(args.model) if args.model else shipped_model()
    names = set(vars(args)) - {"how"}
    return args, Settings(**{name: getattr(args, name) for name in names}, token=os.environ.get("SERVE_TOKEN") or None)


def shipped_model() -> Path:
    """The shipped weights as an ONNX file, exported at the first start."""
    weights = HERE / "weights" / "resnet10.safetensors"
    if not DEFAULT_MODEL.exists() or DEFAULT_MODEL.stat().st_mtime < weights.stat().st_mtime:
        import export  # here, since it imports torch, which nothing else of a service needs

        export.main(["--to", "onnx", "--out", str(DEFAULT_MODEL.parent)])
    return DEFAULT_MODEL


def listen(host: str, port: int) -> socket.socket:
    """-> a listening socket. Taken before anything else is started, so that a port in use costs a line and no time."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        fail(f"cannot listen on {host}:{port}: {error.strerror}")
    return sock


class Server(uvicorn.Server):
    """uvicorn's server, with a softer landing: first it says that it is not ready, so that a load balancer looks elsewhere and
    clients let go of their connections; then it takes no new ones, and ends when all that it took are answered."""

    def __init__(self, config: uvicorn.Config, pool: Pool):
        super().__init__(config)
        self.pool = pool

    def handle_exit(self, sig, frame) -> None:
        if self.pool.draining:  # asked twice: now
            self.should_exit = self.force_exit = True
            return
        self.pool.draining = True
        log.info("stopping: not ready from now on; %d requests wait", len(self.pool.queue))
        asyncio.get_running_loop().call_later(self.pool.settings.drain, setattr, self, "should_exit", True)


async def reload(pool: Pool) -> None:
    try:
        await pool.reload()
    except BadModel as why:
        log.error("the model in use stays: %s", why)


async def run(settings: Settings, sock: socket.socket) -> None:
    """Serves until a signal ends it."""
    from app import Protocol, make_app

    pool = Pool(settings)
    try:
        await pool.start()
    except BadModel as why:
        fail(f"{settings.model}: {why}" if str(settings.model) not in str(why) else why)
    Protocol.head_seconds = settings.timeout
    config = uvicorn.Config(
        make_app(pool), http=Protocol, lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, limit_concurrency=4 * settings.max_queue + 256, timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.timeout) + 5,
    )  # fmt: skip
    server = Server(config, pool)
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(reload(pool)))
    host, port = sock.getsockname()[:2]
    log.info("model %s (%s) on http://%s:%d", pool.model.version, pool.model.meta["arch"], host, port)
    try:
        await server.serve([sock])
    finally:
        await pool.close()
    log.info("stopped")


def main(argv=None) -> None:
    args, settings = parse(argv)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stdout)
    if args.how == "torchserve":
        import serve_torchserve

        return serve_torchserve.main(settings)
    if args.how == "ray":
        import serve_ray

        return serve_ray.main(settings)
    sock = listen(settings.host, settings.port)
    if not ipaddress.ip_address(sock.getsockname()[0]).is_loopback and settings.token is None:
        log.warning("anybody who reaches %s can use this service: no SERVE_TOKEN is set", settings.host)
    (asyncio if sys.platform == "win32" else uvloop).run(run(settings, sock))


if __name__ == "__main__":
    main()
