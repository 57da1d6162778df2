"""The command line of serve.py: its flags, and the bounds of each."""

import argparse
import math
import os
import re
import sys
from pathlib import Path

import language
from language import translated
from service.engine import PROVIDERS, cores
from service.pool import Settings

DEFAULT_MODEL = Path(__file__).parents[1] / "weights" / "resnet10.onnx"  # python export.py --out weights makes it


def fail(message) -> None:
    raise SystemExit(f"{translated('error: ')}{translated(str(message))}")


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line, in the language of --lang: utils.Parser without torch."""

    def __init__(self, *args, **options):
        super().__init__(*args, formatter_class=language.Help, allow_abbrev=False, **options)
        language.add_language_flag(self)

    def parse_known_args(self, args=None, namespace=None):
        language.choose(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

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


def parse(argv=None, about: str = "") -> tuple[argparse.Namespace, Settings]:
    parser = Parser(description=about)
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
