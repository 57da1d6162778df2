"""The pictures in a request's body: one file's bytes, a form of several files (curl -F), or JSON with several in base64:

    {"pictures": [{"name": "a.jpg", "data": "<base64>"}, ...]}

Names are for people; nothing here looks at them, nor at other keys. What is wrong with one picture costs its own answer alone.
"""

import base64
import json

from python_multipart.multipart import MultipartParser, parse_options_header

from service.picture import Refused

ONE_FILE, FORM, JSON = ("image/", "application/octet-stream"), "multipart/form-data", "application/json"
MOST_FILES = 32  # of a body
MOST_VALUES = 32 * MOST_FILES  # of JSON: a body of 10 MB could hold millions, which take hundreds of megabytes


def is_taken(kind: str) -> bool:
    return kind.startswith(ONE_FILE) or holds_several(kind)


def holds_several(kind: str) -> bool:
    """Whether a content type, with whatever parameters, is one of several pictures."""
    return kind.partition(";")[0].strip().lower() in (FORM, JSON)


def pictures_of(kind: str, body: bytes) -> list[bytes | Refused]:
    """A body of several pictures -> their files' bytes in their order, or why there are none. Raises Refused for the whole."""
    return files_of_form(kind, body) if kind.lower().startswith(FORM) else files_of_json(body)


# ---- forms ------------------------------------------------------------------------------------------------------------


class Form:
    """Gathers the files of a form from what the parser calls; other fields are ignored."""

    def __init__(self):
        self.files: list[bytearray] = []
        self.on_part_begin()

    def on_part_begin(self) -> None:
        self.is_file, self.disposition = False, b""
        self.name, self.value = bytearray(), bytearray()  # of the header that is being read

    def on_header_field(self, chunk: bytes, start: int, end: int) -> None:
        self.name += chunk[start:end]

    def on_header_value(self, chunk: bytes, start: int, end: int) -> None:
        self.value += chunk[start:end]

    def on_header_end(self) -> None:
        if self.name.lower() == b"content-disposition":
            self.disposition = bytes(self.value)
        self.name, self.value = bytearray(), bytearray()

    def on_headers_finished(self) -> None:
        self.is_file = b"filename" in parse_options_header(self.disposition)[1]
        if self.is_file and len(self.files) == MOST_FILES:
            raise Refused(413, f"more than {MOST_FILES} files in a form")
        if self.is_file:
            self.files.append(bytearray())

    def on_part_data(self, chunk: bytes, start: int, end: int) -> None:
        if self.is_file:
            self.files[-1] += memoryview(chunk)[start:end]


def files_of_form(kind: str, body: bytes) -> list[bytes]:
    form = Form()
    callbacks = {name: getattr(form, name) for name in dir(form) if name.startswith("on_")}
    try:
        parser = MultipartParser(parse_options_header(kind)[1][b"boundary"], callbacks)
        parser.write(body)
        parser.finalize()
    except Refused:
        raise
    except Exception:  # FormParserError, KeyError without a boundary, ...
        raise Refused(400, "a damaged form; send it as curl -F file=@a.jpg does") from None
    if not form.files:
        raise Refused(400, "a form without a file; send it as curl -F file=@a.jpg does")
    return [bytes(file) for file in form.files]


# ---- JSON -------------------------------------------------------------------------------------------------------------


def files_of_json(body: bytes) -> list[bytes | Refused]:
    if sum(map(body.count, (b"{", b"[", b",", b":"))) > MOST_VALUES:  # none of them is in base64
        raise Refused(413, f"JSON of far more values than {MOST_FILES} pictures need")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    pictures = value.get("pictures") if isinstance(value, dict) else None
    if not isinstance(pictures, list) or not pictures:
        raise Refused(400, 'JSON of another form; send {"pictures": [{"data": "<base64>"}, ...]}')
    if len(pictures) > MOST_FILES:
        raise Refused(413, f"more than {MOST_FILES} pictures in a body")
    return [file_of(picture) for picture in pictures]


def file_of(picture) -> bytes | Refused:
    """{"data": "<base64>"} -> the bytes."""
    data = picture.get("data") if isinstance(picture, dict) else None
    if not isinstance(data, str):
        return Refused(400, 'a picture without "data", which is to be a text in base64')
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        return Refused(400, '"data" is not base64')
