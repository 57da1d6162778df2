"""The default service's process: its socket, the signals, and a soft end."""

import asyncio
import ipaddress
import logging
import math
import signal
import socket
import sys

import uvicorn

if sys.platform != "win32":
    import uvloop

from service.app import make_app
from service.engine import BadModel
from service.options import fail
from service.pool import CannotStart, Pool, Settings
from service.protocol import Protocol

log = logging.getLogger("serve")


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


def main(settings: Settings) -> None:
    sock = listen(settings.host, settings.port)
    if not ipaddress.ip_address(sock.getsockname()[0]).is_loopback and settings.token is None:
        log.warning("anybody who reaches %s can use this service: no SERVE_TOKEN is set", settings.host)
    (asyncio if sys.platform == "win32" else uvloop).run(run(settings, sock))
