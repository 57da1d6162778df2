"""The service's HTTP side: what is taken, what is refused, and how it is watched. Pictures go to the pool unopened.

    POST /predict   the bytes of a picture file -> {"width", "height", "classes": [{"name", "probability"}, ...]}
                    a form of several files (curl -F), or JSON {"pictures": [{"data": base64}, ...]}
                    -> {"pictures": [{"status", and the above or "error"}, ...]}
    GET  /          a page that takes a picture and shows the answer
    GET  /health    200 while the process can do its work; /ready: 200 while it can answer; /metrics: for Prometheus
    POST /reload    open the model file again (only where there is a token); the signal SIGHUP does the same
Errors are {"error": "one line"}. No request names a file, and none reaches the disk.
"""

import asyncio
import hmac
import ipaddress
import json
import logging
import re
import time
from pathlib import Path

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from service.bodies import FORM, JSON, ONE_FILE, holds_several, is_taken, pictures_of
from service.engine import BadModel
from service.picture import Refused
from service.pool import CannotStart, Pool, Settings

log = logging.getLogger("serve")
PAGE = Path(__file__).with_name("page.html")
ROUTES = ("/", "/predict", "/health", "/ready", "/metrics", "/reload")
PAGE_HEADERS = {  # the page may load nothing from elsewhere, and nobody may frame it
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob:; connect-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
NO_TOKEN = Refused(401, "this service asks for a token: send the header Authorization: Bearer TOKEN")


class OfPool:
    """Which model answers, and how long workers were busy: read when Prometheus asks, as the model may be another by then."""

    def __init__(self, pool: Pool):
        self.pool = pool

    def collect(self):
        model = self.pool.model
        labels = {"name": model.name, "hash": model.version, "classes": str(len(model.meta["classes"]))}
        yield InfoMetricFamily("model", "The model that answers", value=labels)
        busy = (
            "Time that workers spent on batches; its rate over the number of workers is the share of time they are busy"
        )
        yield CounterMetricFamily("worker_busy_seconds", busy, value=self.pool.busy_seconds)


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
            ("queue_length", "Requests that wait", lambda: pool.waiting),
            ("workers", "Workers that take requests", lambda: len(pool.workers)),
            ("worker_restarts", "Workers that died and were replaced", lambda: pool.restarts),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)
        self.registry.register(OfPool(pool))


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
                if self.pool.draining and not scope.get("more_follow", bool)():  # no further request on this connection
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
    headers |= {408: {"Connection": "close"}}
    return answer(why.status, {"error": str(why)}, **headers.get(why.status, {}))


class Hosts:
    """The names by which the service may be called. A page of another name, which its owner lets point to this machine (DNS
    rebinding), could read the answers with the eyes of whoever has it open."""

    def __init__(self, settings: Settings):
        self.names = {"localhost", "127.0.0.1", "::1", settings.host.lower(), *map(str.lower, settings.allowed_hosts)}
        self.everyone = "*" in self.names
        self.addresses = settings.host in ("0.0.0.0", "::", "")  # it listens on all of them; no page's name is one

    def objection(self, scope) -> Refused | None:
        if self.everyone:
            return None
        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1:
            if not given and scope.get("http_version") == "1.0":
                return None
            return Refused(400, "a request must have one Host header")
        name = re.sub(r":\d*$", "", given[0].decode("latin-1").lower()).strip("[]")
        if name in self.names or (self.addresses and is_address(name)):
            return None
        return Refused(421, "not a name of this service; it may be allowed with --allowed-hosts")


def is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


class Service:
    """The endpoints."""

    def __init__(self, pool: Pool, metrics: Metrics | None):
        self.pool, self.settings, self.metrics = pool, pool.settings, metrics
        self.held = 0  # bytes of bodies in memory: those that have arrived
        self.page = PAGE.read_bytes()

    async def predict(self, request: Request) -> Response:
        """The classes of a picture: send the bytes of its file, or a form or JSON with several."""
        kind = request.headers.get("content-type", ONE_FILE[1])
        size = int(request.headers.get("content-length", 0))  # the parser has refused anything but digits
        body = Body(self)
        try:
            data = await body.read(request, self.objection(request, kind, size))
            if holds_several(kind):
                pictures, data = pictures_of(kind, data), b""  # not both at a time
                return answer(200, {"pictures": await asyncio.gather(*map(self.predict_one, pictures))})
            status, text = await self.pool.submit(data)
            return answer(status, text)
        except ClientDisconnect:
            return answer(400, {"error": "the client went away"})
        except Refused as why:
            response = refusal(why)
            if "expect" in request.headers:  # the body may come all the same, and must not be taken for another request
                response.headers["connection"] = "close"
            return response
        finally:
            body.release()

    async def predict_one(self, picture: bytes | Refused) -> dict:
        """Of several: it is answered, or refused, by itself."""
        try:
            if isinstance(picture, Refused):
                raise picture
            status, text = await self.pool.submit(picture)
            return {"status": status} | (json.loads(text) if isinstance(text, str) else text)
        except Refused as why:
            return {"status": why.status, "error": str(why)}

    def objection(self, request: Request, kind: str, size: int) -> Refused | None:
        """What speaks against a request before its body is read, if anything. `size`: as announced."""
        if not self.allowed(request):
            return NO_TOKEN
        if size > self.settings.max_body:
            return Refused(413, f"a body of {size:,} bytes; at most {self.settings.max_body:,} are taken")
        if not is_taken(kind.lower()):
            return Refused(
                415, f"send a picture's bytes as image/jpeg or {ONE_FILE[1]}, or several as {FORM} or {JSON}"
            )
        return None

    def allowed(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        token = self.settings.token
        return token is None or (
            scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
        )

    async def reload(self, request: Request) -> Response:
        """Opens the model file again, beside the model in use, which stays if that fails."""
        if self.settings.token is None or not self.allowed(request):
            return refusal(Refused(401, "only with a token: Authorization: Bearer TOKEN"))
        try:
            model = await self.pool.reload()
        except BadModel as why:
            return answer(422, {"error": f"the model in use stays: {why}"})
        except CannotStart as why:
            return refusal(Refused(503, f"the model in use stays: {why}"))
        return answer(200, {"model": model.version})

    async def show_page(self) -> Response:
        """A page that takes a picture and shows the answer."""
        return Response(self.page, headers=PAGE_HEADERS, media_type="text/html")

    async def health(self) -> Response:
        """Whether the process can do its work, and with which model: if not, a supervisor should start it anew."""
        alive = self.pool.alive
        return answer(200 if alive else 503, {"alive": alive} | self.pool.model.about())

    async def ready(self) -> Response:
        """Whether it can answer now: if not, a load balancer should look elsewhere."""
        model = {"model": self.pool.model.version, "arch": self.pool.model.meta["arch"]}
        return answer(200 if self.pool.ready else 503, {"ready": self.pool.ready} | model)

    async def show_metrics(self, request: Request) -> Response:
        """For Prometheus."""
        if not self.allowed(request):
            return refusal(NO_TOKEN)
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)


class Body:
    """The body of a request, and what it takes of the memory that all bodies share: what has arrived, not what is announced."""

    def __init__(self, service: Service):
        self.service, self.settings, self.held = service, service.settings, 0

    async def read(self, request: Request, objection: Refused | None) -> bytes:
        """One that is refused is read as well, and thrown away: a client that is still sending would not see the answer, as
        closing a connection with unread data resets it. One that waits for a "100 Continue" is told at once."""
        if objection and "expect" in request.headers:
            raise objection
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if objection is None:
                objection = self.keep(len(part), size)
                parts.append(part)
            if objection and parts:
                parts.clear()
                self.release()
        if objection or "late" in request.scope:  # see protocol.Protocol.too_late
            raise objection or Refused(408, request.scope["late"])
        return b"".join(parts)

    def keep(self, length: int, size: int) -> Refused | None:
        if size > self.settings.max_body:
            return Refused(413, f"a body of more than {self.settings.max_body:,} bytes")
        if self.service.held + length > self.settings.max_memory:
            return Refused(429, "too many pictures at a time; try again in a second")
        self.held += length
        self.service.held += length
        return None

    def release(self) -> None:
        self.service.held -= self.held
        self.held = 0


class ShortCut:
    """Takes POST /predict past FastAPI's layers: for a request that is all bytes they find nothing to do, and cost as much
    processor time as a small network's answer. Before that it looks at the Host header."""

    def __init__(self, service: Service, app: FastAPI):
        self.service, self.app, self.hosts = service, app, Hosts(service.settings)

    async def __call__(self, scope, receive, send) -> None:
        if why := self.hosts.objection(scope):
            await refusal(why)(scope, receive, send)
        elif scope["path"] == "/predict" and scope["method"] == "POST":
            response = await self.service.predict(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def plain_error(request: Request, error: HTTPException) -> Response:
    """404 and 405 in the words of all other errors."""
    why = {404: "there is no such page", 405: "this page does not take that method"}
    response = answer(error.status_code, {"error": why.get(error.status_code, str(error.detail))})
    response.headers.update(error.headers or {})
    return response


def documented() -> dict:
    """What FastAPI cannot tell of POST /predict, which takes its requests unread, for its page (--docs)."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    files = {"type": "array", "items": binary["schema"]}
    form = {"schema": {"type": "object", "properties": {"file": files}}}
    words = {"type": "object", "properties": {"name": {"type": "string"}, "data": {"type": "string", "format": "byte"}}}
    several = {"schema": {"type": "object", "properties": {"pictures": {"type": "array", "items": words}}}}
    content = {ONE_FILE[1]: binary, "image/*": binary, FORM: form, JSON: several}
    return {"requestBody": {"required": True, "content": content}}


def make_app(pool: Pool):
    """-> the ASGI application over a pool of workers."""
    metrics, docs = Metrics(pool), pool.settings.docs
    service = Service(pool, metrics)
    urls = {"docs_url": "/docs" if docs else None, "openapi_url": "/openapi.json" if docs else None, "redoc_url": None}
    handlers = {HTTPException: plain_error}
    app = FastAPI(title="Picture classifier", redirect_slashes=False, exception_handlers=handlers, **urls)
    app.add_api_route("/predict", service.predict, methods=["POST"], openapi_extra=documented())  # see ShortCut
    app.add_api_route("/reload", service.reload, methods=["POST"])
    pages = {
        "/": service.show_page,
        "/health": service.health,
        "/ready": service.ready,
        "/metrics": service.show_metrics,
    }
    for path, page in pages.items():
        app.add_api_route(path, page)
        app.add_api_route(path, page, methods=["HEAD"], include_in_schema=False)
    return Observe(ShortCut(service, app), pool, metrics)
