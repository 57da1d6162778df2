"""What HTTP clients may do to the service, and what not: time, memory, connections, names, tokens, forms. The HTTP side runs in
this process, over answers that are made up."""

import asyncio
import base64
import json
import threading
import time

import pytest
from running import echo, front, head, read_all, wait_until

from service import app
from service.picture import Refused
from service.pool import CannotStart, Settings


@pytest.fixture(scope="module")
def service():
    with front(timeout=1.2, idle=0.6, max_body=200_000, max_memory=1_000_000) as it:
        yield it


async def slow(data: bytes) -> tuple[int, str]:
    await asyncio.sleep(0.25)
    return await echo(data)


def answers_of(data: bytes) -> list[tuple[int, dict]]:
    """What came over a connection -> status and JSON of each answer."""
    found = []
    while data:
        top, _, data = data.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in top.lower().split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        found.append((int(top.split()[1]), json.loads(data[:length])))
        data = data[length:]
    return found


# ---- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["POST /predict", "GET /health", "POST /reload", "GET /nothing"])
def test_a_body_that_comes_byte_by_byte_ends_at_the_deadline_on_every_route(service, route):
    method, path = route.split()
    start = time.monotonic()
    with service.connect() as client:
        client.sendall(head(1000, path, method=method))
        with pytest.raises(OSError):
            while time.monotonic() - start < 8:
                client.sendall(b"x")
                time.sleep(0.2)
    assert 1.0 < time.monotonic() - start < 5


def test_a_body_that_stops_gets_408_sooner_than_one_that_drips(service):
    start = time.monotonic()
    ((status, answer),) = answers_of(service.talk(head(1000), b"123"))
    assert status == 408 and "stopped for 0.6 s" in answer["error"] and 0.5 < time.monotonic() - start < 1.1


def test_heads_that_do_not_end_and_lone_bytes_are_let_go(service):
    start = time.monotonic()
    for sent in (b"POST /predict HTTP/1.1\r\nX-Slow: ", b"\r\n", b"G"):
        data = service.talk(sent)
        assert not data or answers_of(data)[0][0] == 408
    assert service.talk() == b"" and time.monotonic() - start < 8


def test_a_kept_connection_cannot_be_held_by_a_byte_now_and_then(service):
    with service.connect() as client:
        client.sendall(head(1) + b"x")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - start < 8:
                client.sendall(b"\r\n")
                time.sleep(0.2)
        assert time.monotonic() - start < 5


# ---- memory -----------------------------------------------------------------------------------------------------------


def test_what_is_announced_takes_no_room_and_what_has_arrived_does():
    with front(slow, max_body=200_000, max_memory=500_000) as service:
        waiting = [service.connect() for _ in range(30)]
        for client in waiting:
            client.sendall(head(200_000) + b"x")
        assert service.predict(b"y" * 100)[0] == 200
        for client in waiting[:2]:
            client.sendall(bytes(199_998))  # all but the last byte
        time.sleep(0.2)
        status, _, answer = service.ask("POST", "/predict", bytes(150_000))
        assert status == 429 and "too many pictures" in answer["error"]
        for client in waiting:
            client.close()
        wait_until(lambda: service.predict(bytes(150_000))[0] == 200)


def test_a_small_body_in_chunks_takes_little_room(service):
    chunked = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    waiting = [service.connect() for _ in range(12)]
    for client in waiting:
        client.sendall(chunked + b"800\r\n" + bytes(2048) + b"\r\n")
    assert service.predict(bytes(1000))[0] == 200
    for client in waiting:
        client.sendall(b"0\r\n\r\n" + head(1, "/predict", "Connection: close") + b"x")
        assert [answer["length"] for _, answer in answers_of(read_all(client))] == [2048, 1]
        client.close()


def test_a_body_that_is_too_long_is_refused_with_413_whether_or_not_it_says_so(service):
    status, answer = service.predict(bytes(300_000))
    assert status == 413 and "300,000" in answer["error"]
    status, answer = service.predict(iter([bytes(100_000)] * 4))
    assert status == 413 and "more than 200,000" in answer["error"]
    assert service.talk(head(300_000, "/predict", "Expect: 100-continue")).startswith(b"HTTP/1.1 413 ")


# ---- connections ------------------------------------------------------------------------------------------------------


def test_those_who_only_keep_connections_open_keep_nobody_out():
    with front(max_idle=20, most=40) as service:
        kept = []
        for _ in range(60):
            kept.append(service.connect())
            kept[-1].sendall(head(1) + b"x")
            assert kept[-1].recv(1000).startswith(b"HTTP/1.1 200")
        assert len(service.protocol.idle) <= 20
        silent = [service.connect() for _ in range(60)]
        assert service.predict(b"x")[0] == 200
        assert len(service.server.server_state.connections) <= 41
        for client in (*kept, *silent):
            client.close()


def test_where_all_connections_are_at_work_a_further_one_is_told():
    with front(slow, most=10) as service:
        busy = [service.connect() for _ in range(10)]
        for client in busy:
            client.sendall(head(1) + b"x")
        time.sleep(0.1)
        ((status, answer),) = answers_of(service.talk())
        assert status == 503 and "too many connections" in answer["error"]
        for client in busy:
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            client.close()


def test_requests_sent_together_are_answered_in_their_order():
    with front(slow) as service:
        sent = b"".join(head(size) + bytes([size % 100]) * size for size in (150_000, 3, 70_000, 5))
        sent += head(2, "/predict", "Connection: close") + b"zz"
        assert [answer["length"] for _, answer in answers_of(service.talk(sent))] == [150_000, 3, 70_000, 5, 2]


@pytest.mark.parametrize(
    ("bad", "status"),
    [(b"\x16\x03\x01 nonsense\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nX: " + 100_000 * b"x" + b"\r\n\r\n", 431)],
)
def test_a_bad_request_is_refused_after_the_good_one_before_it_is_answered(bad, status):
    with front(slow) as service:
        found = answers_of(service.talk(head(3) + b"abc" + bad))
        assert [code for code, _ in found] == [200, status] and found[0][1]["start"] == "abc"


@pytest.mark.parametrize("size", [30_000, 100_000, 400_000])
def test_long_heads_are_refused_with_431_whole_or_in_pieces(service, size):
    expected = 200 if size == 30_000 else 431
    lines = b"".join(b"X-%d: %s\r\n" % (i, 900 * b"x") for i in range(size // 1000))
    data = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + lines + b"\r\n"
    assert answers_of(service.talk(data))[0][0] == expected
    with service.connect() as client:
        try:
            for i in range(0, len(data), 20_000):
                client.sendall(data[i : i + 20_000])
                time.sleep(0.01)
        except OSError:
            pass
        assert (read_all(client) or b"HTTP/1.1 431").startswith(b"HTTP/1.1 %d" % expected)


def test_a_damaged_chunk_is_refused_and_closed(service):
    chunked = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    ((status, answer),) = answers_of(service.talk(chunked + b"5\r\nhello\r\nzzz\r\n"))
    assert status == 400 and set(answer) == {"error"}


def test_a_client_that_has_said_all_is_answered_and_one_that_broke_off_is_not():
    with front(slow) as service:
        ((status, answer),) = answers_of(service.talk(head(3) + b"abc", half_close=True))
        assert status == 200 and answer["length"] == 3
        assert service.talk(head(1000) + b"abc", half_close=True) == b""
        assert service.talk(half_close=True) == b""


def test_all_that_was_sent_before_the_end_is_answered():
    with front(slow) as service:
        clients = [service.connect() for _ in range(5)]
        for i, client in enumerate(clients):
            client.sendall(b"".join(head(1) + b"x" for _ in range(1 + i % 2)))
        late = service.connect()
        late.sendall(b"POST /predict HTTP/1.1\r\nHo")  # half a head at that time
        time.sleep(0.1)
        service.pool.draining = True
        service.server.should_exit = True
        time.sleep(0.2)
        late.sendall(b"st: 127.0.0.1\r\nContent-Length: 1\r\n\r\nx")
        for i, client in enumerate(clients):
            assert [status for status, _ in answers_of(read_all(client))] == [200] * (1 + i % 2)
            client.close()
        assert [status for status, _ in answers_of(read_all(late))] == [200]
        late.close()


# ---- names and tokens -------------------------------------------------------------------------------------------------


def host(service, name: str, path: str = "/metrics") -> int:
    return service.ask("GET", path, headers={"Host": name})[0]


def test_pages_of_other_names_get_no_answer(service):
    for name in ("localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000"):
        assert host(service, name) == 200
    for name in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "10.0.0.1", ""):
        assert host(service, name) == host(service, name, "/predict") == 421
    assert answers_of(service.talk(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n"))[0][0] == 400
    assert service.talk(b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_names_are_allowed_by_flag_and_addresses_where_it_listens_on_all():
    def allowed(name: str, **settings) -> bool:
        hosts = app.Hosts(Settings("none.onnx", **settings))
        return hosts.objection({"headers": [(b"host", name.encode())]}) is None

    assert allowed("signs.example:80", allowed_hosts=("Signs.example",)) and not allowed("signs.example")
    assert allowed("evil.example", allowed_hosts=("*",))
    assert allowed("10.1.2.3:8000", host="0.0.0.0") and allowed("[fe80::1]:80", host="::")
    assert not allowed("evil.example", host="0.0.0.0") and not allowed("10.1.2.3")
    assert allowed("10.1.2.3", host="10.1.2.3")


def test_a_token_opens_and_nothing_else_does():
    with front(token="open-sesame") as service:
        for text in ("", "Bearer open", "Bearer \xfc", "Basic eDp4", "open-sesame", "Bearer", "Token open-sesame"):
            given = {"Authorization": text}
            status, headers, answer = service.ask("POST", "/predict", b"x", given)
            assert status == 401 and headers["www-authenticate"] == "Bearer" and "token" in answer["error"]
            assert service.ask("GET", "/metrics", headers=given)[0] == 401
            assert service.ask("POST", "/reload", headers=given)[0] == 401
        for scheme in ("Bearer", "bearer", "BEARER"):
            given = {"Authorization": f"{scheme} open-sesame"}
            assert service.ask("POST", "/predict", b"x", given)[0] == 200
        assert service.ask("GET", "/health")[0] == service.ask("GET", "/")[0] == 200


# ---- answers ----------------------------------------------------------------------------------------------------------


def test_other_paths_and_methods_are_refused_in_the_words_of_all_errors(service):
    for method, path, expected in (
        ("GET", "/predict", 405),
        ("GET", "/nothing", 404),
        ("GET", "/health/", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("POST", "/reload", 401),
    ):
        status, headers, answer = service.ask(method, path)
        assert status == expected and set(answer) == {"error"}, path
        assert status != 405 or headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/metrics"])
def test_head_is_as_get_without_the_body(service, path):
    status, headers, body = service.ask("HEAD", path)
    assert status == 200 and body == "" and int(headers["content-length"]) > 0


def test_the_kind_of_a_body_is_read_in_any_case(service):
    for kind, expected in (("IMAGE/PNG", 200), ("Application/Octet-Stream", 200), ("text/plain", 415), ("imag", 415)):
        assert service.predict(b"x", kind)[0] == expected


def test_docs_only_where_they_are_asked_for():
    with front(docs=True) as service:
        assert "openapi.json" in service.ask("GET", "/docs")[2]
        paths = service.ask("GET", "/openapi.json")[2]["paths"]
        assert set(paths) == {"/predict", "/reload", "/", "/health", "/ready", "/metrics"}
        content = paths["/predict"]["post"]["requestBody"]["content"]
        assert {"multipart/form-data", "application/json"} < set(content)


def test_health_says_which_model_and_when_no_worker_lives(service):
    status, _, answer = service.ask("GET", "/health")
    expected = {"alive": True, "model": "none.onnx", "version": "0123456789ab", "arch": "none", "source": "nowhere"}
    assert status == 200 and answer == expected
    service.pool.alive = False
    try:
        assert service.ask("GET", "/health")[0] == 503
    finally:
        service.pool.alive = True


def test_metrics_name_the_model_and_the_time_that_workers_are_busy(service):
    service.pool.busy_seconds = 12.5
    _, _, text = service.ask("GET", "/metrics")
    assert 'model_info{classes="2",hash="0123456789ab",name="none.onnx"} 1.0' in text
    assert "worker_busy_seconds_total 12.5" in text


def test_a_reload_that_finds_no_room_for_a_worker_is_a_503_of_one_line():
    with front(token="t") as service:

        async def fails():
            raise CannotStart("no worker can be started: Too many open files")

        service.pool.reload = fails
        status, _, answer = service.ask("POST", "/reload", headers={"Authorization": "Bearer t"})
        assert status == 503 and answer["error"].endswith("Too many open files")


# ---- forms ------------------------------------------------------------------------------------------------------------


def form(*parts: tuple[str, str | None, bytes], boundary: str = "b0undary") -> tuple[bytes, str]:
    """(field, file name or None, content) -> a body as curl -F sends it, and its content type."""
    body = b""
    for field, name, content in parts:
        name = f'; filename="{name}"' if name is not None else ""
        body += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"{name}\r\n\r\n'.encode() + content + b"\r\n"
        )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def test_each_file_of_a_form_is_answered_or_refused_by_itself():
    async def some(data: bytes):
        if data == b"bad":
            raise Refused(429, "too many")
        if data == b"none":
            return 415, json.dumps({"error": "not a picture"})
        return await echo(data)

    odd = b"\r\n--b0undar\r\n\0\xff--"
    with front(some) as service:
        files = [("file", "a.jpg", odd), ("note", None, b"words"), ("file", "b.jpg", b"bad"), ("x", "", b"none")]
        status, answer = service.predict(*form(*files))
        assert status == 200 and answer == {
            "pictures": [
                {"status": 200, "length": len(odd), "start": odd[:20].decode("latin-1")},
                {"status": 429, "error": "too many"},
                {"status": 415, "error": "not a picture"},
            ]
        }
        status, answer = service.predict(*form(("file", "a.jpg", b"x" * 100_000)))
        assert [picture["length"] for picture in answer["pictures"]] == [100_000]


def test_forms_that_are_none_are_refused(service):
    body, kind = form(("file", "a.jpg", b"abc"))
    for sent, said, expected in (
        (body, "multipart/form-data", 400),  # no boundary
        (body[:60], kind, 400),
        (b"", kind, 400),
        (b"nonsense", kind, 400),
        (form(("note", None, b"words"))[0], kind, 400),  # no file
        (form(*[("file", "a.jpg", b"a")] * 33)[0], kind, 413),
    ):
        status, answer = service.predict(sent, said)
        assert status == expected and set(answer) == {"error"}, (sent, answer)


# ---- JSON -------------------------------------------------------------------------------------------------------------


def in_json(*files: bytes) -> bytes:
    """A body as the README shows it."""
    pictures = [{"name": f"{i}.jpg", "data": base64.b64encode(file).decode()} for i, file in enumerate(files)]
    return json.dumps({"pictures": pictures}).encode()


def test_each_picture_in_json_is_answered_or_refused_by_itself():
    async def some(data: bytes):
        return (415, json.dumps({"error": "not a picture"})) if data == b"none" else await echo(data)

    bad = [{"data": "Y*Q=="}, {"data": "abc"}, {"data": "\u00e9A=="}, {"data": 5}, {"name": "a"}, "text", None]
    with front(some) as service:
        body = json.loads(in_json(b"\0\xff\n", b"none", b"x" * 100_000))
        body["pictures"][1:1] = bad
        for kind in ("application/json", "Application/JSON; charset=utf-8"):
            status, answer = service.predict(json.dumps(body), kind)
            pictures = answer["pictures"]
            assert status == 200 and [p["status"] for p in pictures] == [200, *[400] * 7, 415, 200]
            assert pictures[0] == {"status": 200, "length": 3, "start": "\0\xff\n"}
            assert pictures[-1]["length"] == 100_000 and all(set(p) == {"status", "error"} for p in pictures[1:9])
            assert [p["error"] for p in pictures[1:4]] == ['"data" is not base64'] * 3


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", 400),
        (b"nonsense", 400),
        (b'{"pictures": [{"data": "YQ=="}]', 400),  # cut off
        (b"\xff\xfe\x00", 400),
        (b"5", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"pictures": []}', 400),
        (b'{"pictures": {"data": "YQ=="}}', 400),
        (b'{"pictures": 1' + b"0" * 5000 + b"}", 400),  # a number that Python does not read
        (b"[" * 1000, 400),  # too deep, or not closed
        (b"[" * 900 + b"]" * 900, 400),
        (b"[" * 190_000, 413),
        (b'{"pictures": [' + b"{}," * 60_000 + b"{}]}", 413),
        (in_json(*[b"a"] * 32), 200),
        (in_json(*[b"a"] * 33), 413),
        (in_json(b"a" * 160_000), 413),  # with what base64 adds it is more than 200,000 bytes
        (b" " * 300_000, 413),
    ],
    ids=lambda value: None if isinstance(value, int) else f"{value[:20]!r} {len(value)}",
)
def test_json_that_is_of_no_use_is_refused(service, body, expected):
    status, answer = service.predict(body, "application/json")
    assert status == expected and set(answer) == ({"error"} if expected != 200 else {"pictures"}), answer


def test_many_clients_at_a_time_all_get_their_own_answers():
    with front() as service:
        wrong = []

        def ask(number: int) -> None:
            for i in range(30):
                body = f"{number} {i}".encode()
                if service.predict(body)[1]["start"] != body.decode():
                    wrong.append(body)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
