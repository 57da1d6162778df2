"""The service's HTTP side: what is taken, what is refused, and how it is watched. Pictures go to the pool unopened.

    POST /predict   the bytes of a picture file -> {"width", "height", "classes": [{"name", "probability"}, ...]}
    GET  /          a page that takes a picture and shows the answer
    GET  /health    200 while the process lives; /ready: 200 while it can answer; /metrics: for Prometheus
    POST /reload    open the model file again (only where there is a token); the signal SIGHUP does the same
Errors are {"error": "one line"}. No request names a file, and none reaches the disk.
"""

import asyncio
import hmac
import json
import logging
import time
from pathlib import Path

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine import BadModel
from picture import Refused
from pool import Pool

log = logging.getLogger("serve")
PAGE = Path(__file__).with_name("page.html")
ROUTES = ("/", "/predict", "/health", "/ready", "/metrics", "/reload")
HEAD_BYTES = 32_768  # of a request's line and headers
PAGE_HEADERS = {  # the page may load nothing from elsewhere, and nobody may frame it
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob:; connect-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
TAKEN_TYPES = ("image/", "application/octet-stream")


class Metrics:
    """What Prometheus is told. Labels come from short lists alone, so that no client can make the page grow."""

    def __init__(self, pool: Pool):
        self.registry = CollectorRegistry()
        self.requests = Counter("requests", "Answered requests", ["route", "status"], registry=self.registry)
        buckets = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
        where = {"registry": self.registry}
        self.seconds = Histogram("request_seconds", "Time to answer", ["route"], buckets=buckets, **where)
        batches = Histogram("batch_size", "Pictures a batch", buckets=(1, 2, 4, 8, 16, 32, 64), **where)
        pool.batches = batches.observe
        for name, text, read in (
            ("queue_length", "Requests that wait", lambda: len(pool.queue)),
            ("workers", "Workers that take requests", lambda: len(pool.workers)),
            ("worker_restarts", "Workers that died and were replaced", lambda: pool.restarts),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)


class Observe:
    """Counts, times and logs every request: its route, status and time; never a body, a header or a query."""

    def __init__(self, app, pool: Pool, metrics: Metrics):
        self.app, self.pool, self.metrics = app, pool, metrics

    async def __call__(self, scope, receive, send) -> None:
        start, status = time.perf_counter(), 500

        async def send_and_note(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.pool.draining:  # no further request on this connection
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            route, seconds = scope["path"] if scope["path"] in ROUTES else "other", time.perf_counter() - start
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            if self.pool.settings.access_log:
                log.info("%s %s %d %.1f ms", scope["method"][:10], route, status, 1000 * seconds)


def answer(status: int, value: dict | str, **headers: str) -> Response:
    body = value if isinstance(value, str) else json.dumps(value)
    return Response(body, status, {name.replace("_", "-"): text for name, text in headers.items()}, "application/json")


def refusal(why: Refused) -> Response:
    headers = {401: {"WWW_Authenticate": "Bearer"}, 429: {"Retry_After": "1"}, 503: {"Retry_After": "1"}}
    return answer(why.status, {"error": str(why)}, **headers.get(why.status, {}))


class Service:
    """The endpoints."""

    def __init__(self, pool: Pool, metrics: Metrics):
        self.pool, self.settings, self.metrics = pool, pool.settings, metrics
        self.held = 0  # bytes of bodies in memory, those still to come included
        self.page = PAGE.read_bytes()

    async def predict(self, request: Request) -> Response:
        size = self.announced_size(request)
        objection = self.objection(request, size)
        reserved = 0 if objection else size
        self.held += reserved
        try:
            data = await asyncio.wait_for(self.read_body(request, objection), self.settings.timeout)
            status, text = await self.pool.submit(data)
            return answer(status, text)
        except asyncio.TimeoutError:
            why = f"the body did not arrive within {self.settings.timeout:g} s"
            return answer(408, {"error": why}, Connection="close")
        except ClientDisconnect:
            return answer(400, {"error": "the client went away"})
        except Refused as why:
            response = refusal(why)
            if "expect" in request.headers:  # the body may come all the same, and must not be taken for another request
                response.headers["connection"] = "close"
            return response
        finally:
            self.held -= reserved

    def announced_size(self, request: Request) -> int:
        """The body's length as the header has it; of a body sent in chunks, the most it may be."""
        return int(request.headers.get("content-length", self.settings.max_body))  # the parser let pass digits alone

    def objection(self, request: Request, size: int) -> Refused | None:
        """What speaks against a request before its body is read, if anything."""
        if not self.allowed(request):
            return Refused(401, "this service asks for a token: send the header Authorization: Bearer TOKEN")
        if size > self.settings.max_body:
            return Refused(413, f"a body of {size:,} bytes; at most {self.settings.max_body:,} are taken")
        kind = request.headers.get("content-type", TAKEN_TYPES[1])
        if not kind.startswith(TAKEN_TYPES):
            return Refused(415, "send a picture file's bytes, as image/jpeg, image/png or application/octet-stream")
        if self.held + size > self.settings.max_memory:
            return Refused(429, "too many pictures at a time; try again in a second")
        return None

    def allowed(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self.settings.token is None or hmac.compare_digest(given.encode(), self.settings.token.encode())

    async def read_body(self, request: Request, objection: Refused | None) -> bytes:
        """The request's body. One that is refused is read as well, and thrown away: a client that is still sending would not
        see the answer, as closing a connection with unread data resets it. One that waits for a "100 Continue" is told at once.
        """
        if objection and "expect" in request.headers:
            raise objection
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.settings.max_body and not objection:
                objection = Refused(413, f"a body of more than {self.settings.max_body:,} bytes")
            if objection:
                parts.clear()
            else:
                parts.append(part)
        if objection:
            raise objection
        return b"".join(parts)

    async def reload(self, request: Request) -> Response:
        if self.settings.token is None or not self.allowed(request):
            return refusal(Refused(401, "only with a token: Authorization: Bearer TOKEN"))
        try:
            model = await self.pool.reload()
        except BadModel as why:
            return answer(422, {"error": f"the model in use stays: {why}"})
        return answer(200, {"model": model.version})

    async def show_page(self) -> Response:
        return Response(self.page, headers=PAGE_HEADERS, media_type="text/html")

    async def health(self) -> Response:
        return answer(200, {"alive": True})

    async def ready(self) -> Response:
        model = {"model": self.pool.model.version, "arch": self.pool.model.meta["arch"]}
        return answer(200 if self.pool.ready else 503, {"ready": self.pool.ready} | model)

    async def show_metrics(self, request: Request) -> Response:
        if not self.allowed(request):
            return refusal(Refused(401, "this service asks for a token: send the header Authorization: Bearer TOKEN"))
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)


class ShortCut:
    """Takes POST /predict past FastAPI's layers: for a request that is all bytes they find nothing to do, and cost as much
    processor time as a small network's answer."""

    def __init__(self, service: Service, app: FastAPI):
        self.service, self.app = service, app

    async def __call__(self, scope, receive, send) -> None:
        if scope["path"] == "/predict" and scope["method"] == "POST":
            response = await self.service.predict(Request(scope, receive))
            return await response(scope, receive, send)
        await self.app(scope, receive, send)


def make_app(pool: Pool):
    """-> the ASGI application over a pool of workers."""
    metrics = Metrics(pool)
    service = Service(pool, metrics)
    app = FastAPI(title="Picture classifier", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/predict", service.predict, methods=["POST"])  # says 405 to the other methods; see ShortCut
    app.add_api_route("/reload", service.reload, methods=["POST"])
    app.add_api_route("/", service.show_page)
    app.add_api_route("/health", service.health)
    app.add_api_route("/ready", service.ready)
    app.add_api_route("/metrics", service.show_metrics)
    return Observe(ShortCut(service, app), pool, metrics)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, and a limit that it lacks: a request's line and headers must come in time and be of sane length, or
    a client could hold connections for ever by sending a byte now and then."""

    head_seconds, head_timer, head_bytes = 10.0, None, 0

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self.expect_head()

    def expect_head(self) -> None:
        self.head_arrived()
        self.head_bytes = 0
        self.head_timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def head_arrived(self) -> None:
        if self.head_timer:
            self.head_timer.cancel()
            self.head_timer = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.head_timer:  # still not whole
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.expect_head()

    def on_headers_complete(self) -> None:
        self.head_arrived()
        super().on_headers_complete()

    def connection_lost(self, exc) -> None:
        self.head_arrived()
        super().connection_lost(exc)
