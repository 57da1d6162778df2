"""Serves an exported model over HTTP: one service, three ways to run it.

    python serve.py                                  # http://127.0.0.1:8000, the shipped model, ONNX Runtime
    python serve.py --model runs/resnet10-sample/export/resnet10.onnx --port 8080 --workers 2
    python serve.py --with torchserve                # the same model under TorchServe (requirements-torchserve.txt, Java)
    python serve.py --with ray                       # the same under Ray Serve (requirements-ray.txt)
    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict
    curl -F file=@a.jpg -F file=@b.jpg http://127.0.0.1:8000/predict

A token, if there is to be one, comes in the environment: SERVE_TOKEN=... python serve.py. SIGHUP opens the model file again;
SIGTERM stops taking requests, answers those that were taken, and ends. Nothing is written, so that a read-only disk will do.
"""

import argparse
import asyncio
import ipaddress
import logging
import math
import os
import re
import signal
import socket
import sys
from pathlib import Path

import uvicorn

if sys.platform != "win32":
    import uvloop

from engine import PROVIDERS, BadModel, cores
from pool import CannotStart, Pool, Settings

log = logging.getLogger("serve")
DEFAULT_MODEL = Path(__file__).parent / "weights" / "resnet10.onnx"  # python export.py --out weights makes it


def fail(message) -> None:
    raise SystemExit(f"error: {message}")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        fail(f"{message} (--help lists the flags)")


NUMBERS = (  # flag, the lowest value, the highest, what it is
    ("port", 0, 65_535, "0 takes a free one"),
    ("workers", 1, 256, "model workers, processes of their own; under Ray, the most replicas"),
    ("threads", 1, 4 * cores(), "threads of each worker"),
    ("max-batch", 1, 1024, "pictures a batch"),
    ("batch-wait", 0, 10, "seconds to wait for a fuller batch"),
    ("max-queue", 1, 100_000, "requests that wait"),
    ("max-body", 1, 1_000_000_000, "bytes of a request's body"),
    ("max-memory", 1, 10**12, "bytes of all bodies held at a time"),
    ("max-pixels", 1, 1_000_000_000, "pixels of a picture, and of a batch"),
    ("timeout", 0.1, 3600, "seconds to send a request, and again to answer it"),
    ("idle", 0.1, 3600, "seconds without a byte in the middle of a request"),
    ("max-idle", 0, 100_000, "connections that are kept open between requests"),
    ("drain", 0, 600, "seconds between saying that it is not ready and taking no more connections, on SIGTERM"),
)


def number(kind: type, low: float, high: float):
    """-> the type of a flag: an int or a float from `low` to `high`."""

    def read(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # nor for what is no number
            raise argparse.ArgumentTypeError(f"{text!r}: must be a number from {low:,} to {high:,}")
        return value

    return read


def parse(argv=None) -> tuple[argparse.Namespace, Settings]:
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=__doc__, formatter_class=layout, allow_abbrev=False)
    default = Settings(DEFAULT_MODEL)
    ways = ("asgi", "torchserve", "ray")
    parser.add_argument("--with", dest="how", choices=ways, default="asgi", help="default: %(default)s")
    parser.add_argument("--model", metavar="FILE", type=Path, default=DEFAULT_MODEL, help="default: the shipped one")
    parser.add_argument(
        "--provider", choices=PROVIDERS, default="cpu", help="cuda: with onnxruntime-gpu (default: cpu)"
    )
    host = "address to listen on; anything but loopback lets others in (default: %(default)s)"
    parser.add_argument("--host", default=default.host, help=host)
    names = "names by which it may be called, beside localhost and --host; * for any"
    parser.add_argument("--allowed-hosts", nargs="+", metavar="NAME", default=(), help=names)
    for name, low, high, text in NUMBERS:
        value = getattr(default, name.replace("-", "_"))
        text = f"{text}, from {low:,} to {high:,} (default: {value:,})"
        parser.add_argument(f"--{name}", type=number(type(value), low, high), metavar="N", default=value, help=text)
    parser.add_argument("--docs", action="store_true", help="a page at /docs that describes the service (OpenAPI)")
    parser.add_argument("--no-access-log", dest="access_log", action="store_false", help="log no requests")
    args = parser.parse_args(argv)
    if args.max_memory < args.max_body:
        fail(
            f"--max-memory {args.max_memory}: less than --max-body {args.max_body}, so that no large picture would fit"
        )
    settings = {name: value for name, value in vars(args).items() if name != "how"}
    return args, Settings(**settings, token=token_of(os.environ.get("SERVE_TOKEN")))


def token_of(text: str | None) -> str | None:
    """The token, if it is one that a client can send."""
    if text is not None and not re.fullmatch("[!-~]+", text):
        fail("SERVE_TOKEN: must be of ASCII letters, digits and signs, without blanks, and not empty")
    return text


def listen(host: str, port: int) -> socket.socket:
    """-> a listening socket. Taken before anything else is started, so that a port in use costs a line and no time."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except (OSError, UnicodeError) as error:
        fail(f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or 'not a name of a machine'}")
    return sock


def most_connections(settings: Settings) -> int:
    """How many connections there may be at a time: room for all who wait, and for some more who are told that it is full; and
    fewer file descriptors than there are, as further workers need some. The soft limit is raised to the hard one."""
    wanted = 4 * settings.max_queue + settings.max_idle
    try:
        import resource
    except ImportError:  # Windows
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2 * wanted if hard == resource.RLIM_INFINITY else min(hard, 2 * wanted)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return max(8, min(wanted, soft - 64 - 8 * settings.workers))


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
        log.info("stopping: not ready from now on; %d requests wait", self.pool.waiting)
        asyncio.get_running_loop().call_later(self.pool.settings.drain, setattr, self, "should_exit", True)


async def reload(pool: Pool) -> None:
    try:
        await pool.reload()
    except (BadModel, CannotStart) as why:
        log.error("the model in use stays: %s", why)


async def run(settings: Settings, sock: socket.socket) -> None:
    """Serves until a signal ends it."""
    from app import make_app
    from protocol import Protocol

    pool = Pool(settings)
    try:
        await pool.start()
    except BadModel as why:
        fail(f"{settings.model}: {why}" if str(settings.model) not in str(why) else why)
    except CannotStart as why:
        fail(why)
    protocol = Protocol.for_limits(settings.timeout, settings.idle, most_connections(settings), settings.max_idle)
    config = uvicorn.Config(
        make_app(pool), http=protocol, lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=30, timeout_graceful_shutdown=2 * math.ceil(settings.timeout) + 5,
    )  # fmt: skip
    server = Server(config, pool)
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(reload(pool)))
    host, port = sock.getsockname()[:2]
    about = pool.model.about()
    log.info("model %s: %s from %s, SHA-256 %s...", settings.model, about["arch"], about["source"], about["version"])
    log.info("on http://%s:%d", f"[{host}]" if ":" in host else host, port)
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
