"""Stands in for worker.py in tests of the pool: it starts at once, and does what its "pictures" say."""

import json
import os
import struct
import sys
import time

ARGUMENTS = json.loads(sys.argv[1])


def read_frame() -> list[bytes]:
    stream = sys.stdin.buffer
    head = stream.read(4)
    if len(head) < 4:
        sys.exit()
    (count,) = struct.unpack("<I", head)
    return [stream.read(length) for length in struct.unpack(f"<{count}I", stream.read(4 * count))]


def reply(value) -> None:
    data = json.dumps(value).encode()
    sys.stdout.buffer.write(struct.pack("<I", len(data)) + data)
    sys.stdout.buffer.flush()


def one(word: bytes, count: int, model: str):
    if word.startswith(b"die"):
        os._exit(9)
    if word.startswith(b"hang"):
        time.sleep(60)
    if word.startswith(b"slow"):
        time.sleep(0.3)
    if word.startswith(b"large") and count > 1:
        return None
    return 200, json.dumps({"batch": count, "model": model, "pid": os.getpid(), "at": time.monotonic()})


(model,) = read_frame()
if model.startswith(b"bad"):
    reply({"error": "a bad model"})
elif model.startswith(b"die"):
    os._exit(9)
else:
    reply({"meta": {"arch": "odd", "classes": ["a", "b"]}})
    while True:
        words = read_frame()
        answers = [one(word, len(words), model.decode()) for word in words]
        reply(["nonsense"] if b"nonsense" in words else answers)
