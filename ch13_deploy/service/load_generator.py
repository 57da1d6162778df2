"""Puts a service under load from a process of its own, with good pictures or with all kinds of bad ones among them.

    python -m service.load_generator http://127.0.0.1:8000/predict --clients 32 --requests 10000
    python -m service.load_generator http://127.0.0.1:8000/predict --requests 10000 --malformed --nuisances 100

Each client sends its next request when it has the answer to the last, over a connection that it keeps. Prints one line of
JSON: requests a second, the latencies' percentiles in milliseconds, how often each status came, and how many requests were
lost, that is, got no answer at all. A token is taken from the environment (SERVE_TOKEN).
"""

import asyncio
import contextlib
import functools
import io
import json
import os
import random
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

import sample
from service.options import Parser

if sys.platform != "win32":
    import uvloop  # a quicker event loop: what the generator takes of the processor, the service lacks


@dataclass
class Case:
    """A body to send, and the status that it should get."""

    body: bytes
    status: int = 200
    content_type: str = "application/octet-stream"
    heavy: bool = False  # takes much of somebody's time, so that a load has few of them


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def good_cases(count: int = 32) -> list[Case]:
    """Signs as PNG and JPEG files."""
    pictures, _ = sample.make(count, seed=99)
    kinds = ("PNG", "JPEG")
    return [Case(encoded(Image.fromarray(pixels), kinds[i % 2])) for i, pixels in enumerate(pictures)]


@functools.cache
def odd_cases() -> dict[str, Case]:
    """What a service on the open net is sent sooner or later: pictures out of the ordinary, and things that are none."""
    sign = Image.fromarray(sample.make(1, seed=99)[0][0]).resize((120, 80))
    photo, exif = encoded(sign, "JPEG"), Image.Exif()
    exif[0x0112] = 6  # lies on its side: show it turned by 90 degrees
    frames = [sign, sign.rotate(90), sign.rotate(180)]
    in_words = b"Exif\0\0MM\0*" + struct.pack(">IHHHI4sI", 8, 1, 0x0112, 2, 2, b"6", 0)  # the orientation as text
    grey16 = Image.fromarray(np.asarray(sign.convert("L")).astype(np.uint16) * 257)
    return {
        "animated GIF": Case(encoded(sign, "GIF", save_all=True, append_images=frames)),
        "CMYK": Case(encoded(sign.convert("CMYK"), "JPEG"), content_type="image/jpeg"),
        "EXIF-rotated": Case(encoded(sign.rotate(90, expand=True), "JPEG", exif=exif, quality=95)),
        "grey": Case(encoded(sign.convert("L"), "PNG")),
        "palette": Case(encoded(sign.convert("P"), "PNG")),
        "transparent": Case(encoded(sign.convert("RGBA"), "WEBP")),
        "TIFF": Case(encoded(sign, "TIFF"), content_type="IMAGE/TIFF"),
        "16 bits": Case(encoded(grey16, "PNG")),
        "EXIF in words": Case(encoded(sign, "PNG", exif=in_words)),
        "1x1": Case(encoded(Image.new("RGB", (1, 1)), "PNG")),
        "named otherwise": Case(photo, content_type="image/png"),
        "large": Case(encoded(Image.new("L", (4000, 4000)), "PNG"), heavy=True),
        "20,000 pixels wide": Case(encoded(Image.new("1", (20_000, 40)), "PNG"), 413),
        "a line": Case(encoded(Image.new("1", (1, 60_000)), "PNG"), 413),
        "many pixels": Case(encoded(Image.new("1", (7071, 7071)), "PNG"), 413),
        "bomb": Case(encoded(Image.new("1", (12_000, 12_000)), "PNG"), 413),
        "not an image": Case(b"Dear Sir or Madam, " * 50, 415),
        "a page": Case(b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", 415, "image/svg+xml"),
        "random bytes": Case(random.Random(0).randbytes(5000), 415),
        "wrong content type": Case(photo, 415, "text/plain"),
        "truncated JPEG": Case(photo[: len(photo) // 2], 422),
        "truncated PNG": Case(encoded(sign, "PNG")[:500], 422),
        "first bytes only": Case(photo[:12], 422),
        "empty": Case(b"", 400),
        "too large a body": Case(bytes(12_000_000), 413, heavy=True),
    }


@dataclass
class Target:
    host: str
    port: int
    path: str
    token: str | None = None

    @classmethod
    def parse(cls, url: str, token: str | None = None) -> "Target":
        parts = urlsplit(url)
        return cls(parts.hostname, parts.port or 80, parts.path or "/", token)

    def request(self, case: Case) -> bytes:
        token = f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        head = f"POST {self.path} HTTP/1.1\r\nHost: {self.host}\r\n{token}Content-Type: {case.content_type}\r\n"
        return f"{head}Content-Length: {len(case.body)}\r\n\r\n".encode() + case.body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """-> status, body, and whether the connection stays."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    body = await reader.readexactly(int(fields["content-length"]))
    return int(head.split(" ")[1]), body, fields.get("connection") != "close"


async def client(target: Target, todo: list[Case], done: list[tuple[Case, int | None, float]], seconds: float) -> None:
    """Sends cases from `todo` until there are none; notes status (None: lost) and time of each in `done`."""
    writer = None
    while todo:
        case, start = todo.pop(), time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection(target.host, target.port)
            writer.write(target.request(case))
            await writer.drain()
            status, _, stays = await asyncio.wait_for(read_answer(reader), seconds)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            status, stays = None, False
        done.append((case, status, time.perf_counter() - start))
        if not stays and writer:
            writer.close()
            writer = None
    if writer:
        writer.close()


async def put_load(target: Target, cases: list[Case], clients: int, seconds: float = 30.0) -> dict:
    """Sends all cases, by `clients` clients at a time -> what came of it."""
    todo, done, start = list(reversed(cases)), [], time.perf_counter()
    await asyncio.gather(*(client(target, todo, done, seconds) for _ in range(clients)))
    took = time.perf_counter() - start
    p50, p95, p99 = (1000 * np.percentile([seconds for _, _, seconds in done], (50, 95, 99))).round(2).tolist()
    statuses = Counter(str(status or "lost") for _, status, _ in done)
    wrong = sum(status != case.status for case, status, _ in done)
    result = {"requests": len(done), "clients": clients, "seconds": round(took, 2), "per_s": round(len(done) / took, 1)}
    return result | {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "statuses": dict(statuses), "unexpected": wrong}


async def nuisance(target: Target, number: int, end: asyncio.Event) -> None:
    """A connection that takes room and asks nothing, opened again whenever the service closes it: it announces a body and
    sends none of it, or a byte now and then, or half a head; or it breaks off, or only keeps a connection open."""
    head = f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\nContent-Length: 10000000\r\n"
    first = (head + "\r\n", head + "\r\n", head, head + "\r\nxxx", "")[number % 5].encode()
    while not end.is_set():
        try:
            reader, writer = await asyncio.open_connection(target.host, target.port)
            writer.write(first)
            for _ in range(1 if number % 5 == 3 else 30):
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(end.wait(), 0.5)
                if end.is_set() or reader.at_eof():
                    break
                if number % 5 == 1:
                    writer.write(b"x")
            writer.close()
        except OSError:
            await asyncio.sleep(0.1)


async def put_load_among(target: Target, cases: list[Case], clients: int, nuisances: int) -> dict:
    """put_load(), while so many connections only make trouble."""
    end = asyncio.Event()
    others = [asyncio.ensure_future(nuisance(target, number, end)) for number in range(nuisances)]
    try:
        return await put_load(target, cases, clients)
    finally:
        end.set()
        await asyncio.gather(*others, return_exceptions=True)


def mixed(count: int, malformed: bool) -> list[Case]:
    """-> `count` cases: signs; with `malformed`, every other one is odd, and of those that are heavy there are few."""
    good, odd = good_cases(), list(odd_cases().values())
    light, heavy = ([case for case in odd if case.heavy is kind] for kind in (False, True))
    cases = [good[i % len(good)] for i in range(count)]
    for i in range(0, count if malformed else 0, 2):
        cases[i] = heavy[i // 200 % len(heavy)] if i % 200 == 0 else light[i // 2 % len(light)]
    return cases


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--malformed", action="store_true", help="every other request is odd or bad")
    parser.add_argument(
        "--nuisances", type=int, default=0, help="connections that send nothing whole, or nothing at all"
    )
    args = parser.parse_args()
    target = Target.parse(args.url, os.environ.get("SERVE_TOKEN"))
    run = asyncio.run if sys.platform == "win32" else uvloop.run
    cases = mixed(args.requests, args.malformed)
    print(json.dumps(run(put_load_among(target, cases, args.clients, args.nuisances))))


if __name__ == "__main__":
    main()
