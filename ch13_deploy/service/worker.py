"""A model worker: a process of its own that decodes pictures and runs the network. pool.py starts it; nobody else does.

It reads frames from its standard input and answers each on its standard output. A frame is a number of parts, their lengths
(32 bits each, little endian), then the parts. The first frame is the model; the others are pictures. An answer is a length and
JSON: of pictures, for each its HTTP status and its answer, or null where it is to be sent again (see engine.Predictor.some).

It outlives no server, however that ended: where the input ends the worker ends, whatever it is doing, and on Linux the kernel
ends it too.
"""

import ctypes
import json
import os
import queue
import signal
import struct
import sys
import threading

PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Linux kills this process when its parent dies, also inside a library that lets no other thread of Python run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            os._exit(1)


def read_frame(stream) -> list[bytes] | None:
    """-> the parts of the next frame; None at the end of the input, also in the middle of a frame."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    (count,) = struct.unpack("<I", head)
    if len(sizes := stream.read(4 * count)) < 4 * count:
        return None
    parts = [stream.read(length) for length in struct.unpack(f"<{count}I", sizes)]
    return parts if sum(map(len, parts)) == sum(struct.unpack(f"<{count}I", sizes)) else None


def read_frames(stream, frames: queue.SimpleQueue) -> None:
    """Runs in a thread, so that the end of the input is noticed while the main one is at work."""
    while (frame := read_frame(stream)) is not None:
        frames.put(frame)
    os._exit(0)


def main() -> None:
    options = json.loads(sys.argv[1])
    end_with(options["parent"])
    for name in ("SIGTERM", "SIGINT"):  # sent to the whole group; the server ends its workers when all are answered
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers
    frames: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=read_frames, args=(sys.stdin.buffer, frames), daemon=True).start()

    def reply(value) -> None:
        data = json.dumps(value).encode()
        answers.write(struct.pack("<I", len(data)) + data)
        answers.flush()

    from service import engine  # after the above: it takes a moment

    (model,) = frames.get()
    try:
        opened = engine.open_onnx(model, options["threads"], options["provider"])
    except engine.BadModel as why:
        return reply({"error": str(why)})
    predict = engine.Predictor(opened, options["max_pixels"])
    reply({"meta": opened.meta})
    while True:
        reply([answer and (answer[0], json.dumps(answer[1])) for answer in predict.some(frames.get())])


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the server is gone, and with it the clients
        os._exit(1)
