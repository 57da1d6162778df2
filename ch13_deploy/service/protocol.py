"""uvicorn's HTTP/1.1, and what it lacks where anybody may connect: limits on the time, the connections and the headers that a
client takes.

A request has `timeout` seconds from its first byte to its last, and `idle` between two bytes, on every route. Connections that
wait for a further request have a limit of their own: beyond it the one that has waited longest is closed, so that nobody is
kept out by those who only hold theirs open. What is refused here gets {"error": ...}, after the answers that were due before.
"""

import json

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES = 32_768  # of a request's line and headers


def refusal_bytes(status: int, why: str) -> bytes:
    """A whole HTTP answer, after which the connection ends."""
    body = json.dumps({"error": why}).encode()
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return STATUS_LINE[status] + head.encode() + body


BAD, TOO_LONG = (400, "not HTTP/1.1, or a damaged request"), (431, "the head of the request is too long")


class Protocol(HttpToolsProtocol):
    """A connection. `for_limits` makes the class that uvicorn is given; the connections of one class share its limits."""

    timeout, idle_seconds, most, most_idle = 10.0, 5.0, 1280, 256
    idle: dict = {}  # connections that send nothing, the longest first; for_limits gives each class its own

    @classmethod
    def for_limits(cls, timeout: float, idle: float, most: int, most_idle: int) -> type["Protocol"]:
        limits = {"timeout": timeout, "idle_seconds": idle, "most": most, "most_idle": most_idle, "idle": {}}
        return type("Protocol", (cls,), limits)

    # ---- from the transport -------------------------------------------------------------------------------------------

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self.began = self.heard = self.loop.time()  # of the request that is arriving: its first byte, its latest
        self.arriving = True  # a request is, or is to come: at first one must
        self.in_head, self.head_bytes, self.silent, self.leaving = True, 0, True, False
        self.last_words, self.fault = b"", BAD
        self.timer = self.loop.call_later(self.idle_seconds, self.look)
        if len(self.connections) > self.most:
            oldest = next(iter(self.idle), None)
            if oldest is None:
                return self.end_with(refusal_bytes(503, "too many connections; try again later"))
            oldest.close()
        self.idle[self] = None

    def data_received(self, data: bytes) -> None:
        self.idle.pop(self, None)
        self.heard, self.silent = self.loop.time(), False
        if not self.arriving:
            self.arriving, self.began = True, self.heard
        self.watch()
        was_in_head, self.new_message = self.in_head, False
        super().data_received(data)
        if was_in_head and self.in_head and not self.new_message:  # all of `data` belongs to a head that goes on
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES:
                self.refuse(*TOO_LONG)

    def eof_received(self) -> bool:
        """The client will send no more, but may still listen: what was asked is answered. -> whether to keep the connection."""
        due = self.cycle is not None and not self.cycle.response_complete
        if due and self.arriving and not self.in_head:  # its body will never be whole
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            return False
        if due:
            self.cycle.keep_alive = False
        return due

    def connection_lost(self, exc: Exception | None) -> None:
        self.idle.pop(self, None)
        self.unwatch()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends: a request that has begun to arrive is still answered."""
        if self.arriving and not self.silent and self.in_head:
            self.leaving = True
        else:
            super().shutdown()

    # ---- from the parser ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.arriving, self.began = True, self.heard
        self.in_head, self.head_bytes, self.new_message = True, 0, True

    def on_headers_complete(self) -> None:
        if sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url) > HEAD_BYTES:
            self.fault = TOO_LONG
            raise ValueError  # the parser gives up, and send_400_response says why
        self.scope["more_follow"] = self.more_follow
        super().on_headers_complete()
        self.in_head = False
        if self.leaving:
            self.cycle.keep_alive = False

    def more_follow(self) -> bool:
        """Whether further requests of this connection were taken that are not answered yet."""
        return bool(self.pipeline)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.arriving, self.in_head = False, True

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it where the parser gave up."""
        self.refuse(*self.fault)

    # ---- answers ------------------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        was_paused = self.flow.read_paused
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.last_words and not self.pipeline and self.cycle.response_complete:
            self.end_with(self.last_words)
        elif self.arriving:
            if was_paused:  # by us: the time did not run against the client
                self.began = self.heard = self.loop.time()
            self.watch()
        elif not self.pipeline:
            self.idle[self] = None
            if len(self.idle) > self.most_idle:
                next(iter(self.idle)).close()

    def refuse(self, status: int, why: str) -> None:
        """Ends the connection with an error for the request that is arriving, once those before it are answered."""
        if self.transport.is_closing() or self.last_words:
            return
        words, due = refusal_bytes(status, why), self.cycle is not None and not self.cycle.response_complete
        if (
            due and not self.in_head
        ):  # the fault is in the body of a request that the application has, or that waits for its turn
            if self.pipeline:
                self.pipeline.popleft()
            else:
                self.cycle.disconnected, due = True, False
                self.cycle.message_event.set()
        if not due:
            return self.end_with(words)
        self.last_words = words
        self.flow.pause_reading()

    def end_with(self, words: bytes) -> None:
        self.transport.write(words)
        self.transport.close()

    def close(self) -> None:
        self.idle.pop(self, None)
        self.transport.close()

    # ---- time ---------------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """A timer runs while a request arrives; it looks at the clock itself, as setting one for each byte would cost more."""
        if self.timer is None:
            self.timer = self.loop.call_later(min(self.idle_seconds, self.timeout), self.look)

    def unwatch(self) -> None:
        if self.timer:
            self.timer.cancel()
            self.timer = None

    def look(self) -> None:
        self.timer = None
        if not self.arriving or self.transport.is_closing():
            return
        now, end = self.loop.time(), min(self.began + self.timeout, self.heard + self.idle_seconds)
        if self.flow.read_paused:  # we do not listen: the client cannot send
            end = max(end, now + self.idle_seconds)
        if now < end:
            self.timer = self.loop.call_later(end - now, self.look)
        elif self.silent:
            self.close()
        else:
            self.too_late(
                f"the request did not arrive whole within {self.timeout:g} s, or stopped for {self.idle_seconds:g} s"
            )

    def too_late(self, why: str) -> None:
        due = self.cycle is not None and not self.cycle.response_complete
        if self.in_head or not due or self.pipeline:
            if not self.in_head and not due:  # answered already, before its body was whole
                return self.close()
            return self.refuse(408, why)
        self.cycle.scope["late"] = why  # the application reads the body: it is told that this is all, and answers
        self.cycle.keep_alive, self.cycle.more_body = False, False
        self.cycle.message_event.set()
        self.flow.pause_reading()
