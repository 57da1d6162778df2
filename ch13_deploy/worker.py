"""A model worker: a process of its own that decodes pictures and runs the network. pool.py starts it; nobody else does.

It reads frames from its standard input and answers each on its standard output. A frame is a number of parts, their lengths
(32 bits each, little endian), then the parts. The first frame is the model; an answer is a length and JSON. When the input
ends, so does the worker: it outlives neither a server that closed it nor one that was killed.
"""

import json
import os
import signal
import struct
import sys

import engine


def read_frame(stream) -> list[bytes] | None:
    """-> the parts of the next frame; None at the end of the input."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    (count,) = struct.unpack("<I", head)
    return [stream.read(length) for length in struct.unpack(f"<{count}I", stream.read(4 * count))]


def main() -> None:
    options = json.loads(sys.argv[1])
    for name in ("SIGTERM", "SIGINT"):  # sent to the whole group; the server ends its workers when all are answered
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers

    def reply(value) -> None:
        data = json.dumps(value).encode()
        answers.write(struct.pack("<I", len(data)) + data)
        answers.flush()

    try:
        (model,) = read_frame(sys.stdin.buffer)
        predict = engine.Predictor(engine.open_onnx(model, options["threads"]), options["max_pixels"])
        side = predict.side
        predict.engine.run(engine.np.zeros((1, 3, side, side), "uint8"))  # the first run allocates: not a client's time
    except engine.BadModel as why:
        return reply({"error": str(why)})
    reply({"meta": predict.engine.meta})
    while (files := read_frame(sys.stdin.buffer)) is not None:
        reply([(status, json.dumps(answer)) for status, answer in predict(files)])


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the server is gone, and with it the clients
        os._exit(1)
