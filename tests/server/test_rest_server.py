"""The HTTP server itself, with a fake handler and real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from featurewire_server.api import Api
from featurewire_server.common.admission import Admission
from featurewire_server.common.metrics import Metrics
from featurewire_server.transport import rest
from featurewire_server.transport.rest import app as rest_app
from featurewire_server.transport.rest import connection as rest_connection
from featurewire_server.transport.rest.app import Application
from featurewire_server.transport.rest.exchange import Answer, Request, failure, refusal
from featurewire_server.transport.rest.server import HttpServer, listen
from tests.server.support import leaves_nothing
from tests.support.waiting import wait_until

MIB = 1 << 20
LIMIT = 4 * MIB


def echo(request: Request) -> Answer:
    return Answer(status=200, body=f"{request.method} {request.path} {len(request.body)}".encode())


class Running:
    """A server whose handler can be changed between requests."""

    def __init__(self) -> None:
        self.handle: Callable[[Request], Answer] = echo
        self.admission = Admission(8 * MIB)
        self.http = HttpServer(
            listen(0),
            Application(
                self._answer,
                refuse=lambda _request, error: failure(error),
                refusal=lambda _request, status, text: refusal(status, text),
                admission=self.admission,
                working=2,
                timeout=60,
                max_body_bytes=LIMIT,
            ),
        )

    async def _answer(self, request: Request) -> Answer:
        if asyncio.iscoroutinefunction(self.handle):
            return await self.handle(request)
        return await asyncio.to_thread(self.handle, request)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.http.port), timeout=60)

    def send(self, data: bytes) -> bytes:
        """The reply to `data`, until the server closes the connection or pauses after an answer."""
        with self.socket() as sock:
            sock.sendall(data)
            return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    """Read until the connection ends, or until a pause of half a second after the first piece."""
    received = b""
    try:
        while chunk := sock.recv(65536):
            received += chunk
            sock.settimeout(0.5)
    except TimeoutError:
        pass
    return received


def one_answer(sock: socket.socket) -> bytes:
    """Read one complete answer."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += sock.recv(1000) or b"\r\n\r\n"
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < length and (more := sock.recv(1000)):
        body += more
    return head + b"\r\n\r\n" + body


until = partial(wait_until, timeout=60)


@pytest.fixture
def running() -> Iterator[Running]:
    with leaves_nothing() as counts:
        running = Running()
        counts.append(lambda: running.admission.held)
        yield running
        running.http.stop(1)


def test_a_connection_serves_one_request_after_the_other(running):
    connection = http.client.HTTPConnection("127.0.0.1", running.http.port, timeout=60)
    for path in ("/a", "/b?query=1", "/c"):
        connection.request("POST", path, b"xyz")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, f"POST {path} 3".encode())
    connection.close()


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://host/v1/models/m?x=1", b"/v1/models/m?x=1"),
        (b"HTTPS://host:8501/v1/a%20b", b"/v1/a%20b"),
        (b"http://host", b"/"),
        (b"/http://host/v1", b"/http://host/v1"),
    ],
)
def test_a_target_may_name_the_host_as_for_a_proxy(running, target, path):
    received = running.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert received.endswith(b"GET " + path + b" 0")


def test_http_1_0_keeps_a_connection_when_the_client_asks(running):
    with running.socket() as sock:
        for path in (b"/1", b"/2"):
            sock.sendall(b"GET " + path + b" HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
            answer = one_answer(sock)
            assert b"\r\nConnection: keep-alive\r\n" in answer
            assert answer.endswith(b"GET " + path + b" 0")
        sock.sendall(b"POST /3 HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")
        answer = read_all(sock)  # until the end of the connection
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b"POST /3 2")


def test_pipelined_requests_are_answered_in_order(running):
    received = running.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert received.index(b"GET /1 0") < received.index(b"GET /2 0")


def test_chunked_bodies_and_expect_continue_work(running):
    chunked = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert running.send(chunked + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").endswith(b"POST /c 5")
    with running.socket() as sock:
        sock.sendall(b"POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n")
        sock.sendall(b"Expect: 100-continue\r\n\r\n")
        assert b"100" in sock.recv(1000)
        sock.sendall(b"abc")
        assert one_answer(sock).endswith(b"POST /e 3")


@pytest.mark.parametrize(
    "head",
    [
        f"Content-Length: {LIMIT + 1}\r\n\r\n".encode(),
        b"Transfer-Encoding: chunked\r\n\r\n" + f"{LIMIT + 1:x}\r\n".encode() + b"x" * (LIMIT + 1),
    ],
    ids=["announced", "chunked"],
)
def test_a_body_over_the_limit_is_refused(running, head):
    assert b" 413 " in running.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + head)
    assert running.admission.held == 0


def test_bodies_count_against_the_memory_limit_and_free_it_again(running):
    running.admission.limit = 2 * MIB
    connection = http.client.HTTPConnection("127.0.0.1", running.http.port, timeout=60)
    connection.request("POST", "/", bytes(3 * MIB))
    answer = connection.getresponse()
    assert answer.status == 429
    assert b"max_inflight_bytes" in answer.read()
    connection.request("POST", "/", bytes(MIB))
    assert connection.getresponse().status == 200
    connection.close()
    until(lambda: running.admission.held == 0)


def test_a_body_counts_for_about_what_has_come_of_it(running):
    sockets = [running.socket() for _ in range(50)]
    for sock in sockets:
        sock.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB}\r\n\r\n{{".encode())
    for sock in sockets:
        sock.sendall(bytes(10_000))
    until(lambda: running.admission.held >= 50 * 10_001)
    assert running.admission.held <= 2 * 50 * 10_001
    for sock in sockets:
        sock.close()
    until(lambda: running.admission.held == 0)


def test_small_bodies_fit_by_the_dozen_under_a_small_limit(running):
    running.admission.limit = 100_000
    arrived, go_on = threading.Semaphore(0), threading.Event()

    def wait(request: Request) -> Answer:
        arrived.release()
        go_on.wait(60)
        return echo(request)

    running.handle = wait
    sockets = [running.socket() for _ in range(100)]
    for sock in sockets:
        sock.sendall(b"POST /s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + bytes(100))
    until(lambda: running.admission.held == 100 * 100)
    go_on.set()
    for sock in sockets:
        assert one_answer(sock).endswith(b"POST /s 100")
        sock.close()


def test_bodies_leave_half_of_the_memory_limit_to_grpc(running):
    half = running.admission.limit // 2
    sockets = [running.socket() for _ in range(4)]
    for sock in sockets:  # they never send a complete body
        sock.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB}\r\n\r\n".encode())
        sock.sendall(bytes(MIB - 1))
    until(lambda: running.admission.held >= half - 4)
    received = running.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    assert b" 429 " in received
    assert b"half of --max_inflight_bytes" in received
    assert running.send(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"GET /ok 0")
    other = running.admission.hold()
    other.resize(half)
    other.resize(0)
    for sock in sockets:
        sock.close()


def test_announcing_a_large_body_holds_no_memory(running):
    sockets = [running.socket() for _ in range(20)]
    for sock in sockets:
        sock.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT}\r\n\r\n".encode())
    assert running.send(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"GET /ok 0")
    assert running.admission.held == 0
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # a TLS handshake
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * (64 << 10),
        b"GET  / \r\n\r\n",
        bytes(1000),
    ],
)
def test_garbage_is_a_bad_request_and_the_next_client_is_served(running, data):
    received = running.send(data)
    assert received.split(b" ", 2)[1] in (b"400", b"431", b"505")
    assert running.send(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"GET /ok 0")


def test_slow_clients_do_not_take_the_threads(running):
    sockets = [running.socket() for _ in range(100)]
    for sock in sockets:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    assert running.send(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"GET /ok 0")
    for sock in sockets:
        sock.close()


def test_a_client_that_leaves_cancels_its_request(running):
    cancelled, arrived = threading.Event(), threading.Event()

    async def wait(_request: Request) -> Answer:
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError("nothing sets the event")

    running.handle = wait
    with running.socket() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert arrived.wait(60)
        assert not cancelled.is_set()
    assert cancelled.wait(60)


def connected(running: Running, count: int) -> list[socket.socket]:
    """Connections with an answer, which proves that the server has accepted them."""
    sockets = [running.socket() for _ in range(count)]
    for sock in sockets:
        sock.sendall(b"GET /k HTTP/1.1\r\nHost: x\r\n\r\n")
        assert one_answer(sock).endswith(b"GET /k 0")
    return sockets


def test_the_longest_idle_connection_makes_room_for_a_new_one(running, monkeypatch):
    monkeypatch.setattr(rest_connection, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(rest_connection, "IDLE_SECONDS", 0)
    first, second, busy = connected(running, 3)
    busy.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab")
    first.sendall(b"GET /again HTTP/1.1\r\nHost: x\r\n\r\n")  # now `second` is idle longest
    assert one_answer(first).endswith(b"GET /again 0")
    with running.socket() as extra:
        extra.sendall(b"GET /e HTTP/1.1\r\nHost: x\r\n\r\n")
        assert one_answer(extra).endswith(b"GET /e 0")
        assert second.recv(1000) == b""
        busy.sendall(b"c")
        assert one_answer(busy).endswith(b"POST / 3")
        first.sendall(b"GET /f HTTP/1.1\r\nHost: x\r\n\r\n")
        assert one_answer(first).endswith(b"GET /f 0")
    for sock in (first, second, busy):
        sock.close()


def test_without_an_idle_connection_a_new_one_is_told_so(running, monkeypatch):
    monkeypatch.setattr(rest_connection, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(rest_connection, "IDLE_SECONDS", 0)
    body, head, fresh = connected(running, 3)
    body.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab")
    until(lambda: running.admission.held == 3)
    head.sendall(b"GET / HT")
    monkeypatch.setattr(rest_connection, "IDLE_SECONDS", 3600)  # `fresh` has just had its answer
    for _ in range(3):
        received = running.send(b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 503 " in received
        assert b"Connection: close" in received
        assert json.loads(received.partition(b"\r\n\r\n")[2]).keys() == {"error"}
    fresh.close()
    until(lambda: running.send(b"GET /o HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"GET /o 0"))
    for sock in (body, head):
        sock.close()


def test_gets_are_answered_while_every_thread_is_taken(running):
    arrived, go_on = threading.Semaphore(0), threading.Event()

    def answer(request: Request) -> Answer:
        if request.method == "POST":
            arrived.release()
            go_on.wait(60)
        return echo(request)

    running.handle = answer
    sockets = [running.socket() for _ in range(5)]
    for sock in sockets:
        sock.sendall(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    for _ in range(2):  # places
        assert arrived.acquire(timeout=60)
    assert running.send(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"GET /ok 0")
    go_on.set()
    for sock in sockets:
        assert one_answer(sock).endswith(b"POST /p 0")
        sock.close()


def test_requests_refused_for_their_size_are_counted():
    metrics = Metrics()
    api = Api(None, admission=Admission(1000), metrics=metrics)
    server = rest.start(api, rest.RestConfig(threads=1, timeout_seconds=5, cors=True))
    post = "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n"

    def send(size: int, patience: float = 60) -> bytes:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
        sock.sendall(post.format(size).encode() + bytes(400))
        sock.settimeout(patience)
        return read_all(sock)

    with ExitStack() as stack:
        stack.callback(server.stop, 1)
        assert b" 413 " in send(501)
        assert send(401, patience=0.5) == b""  # the server waits for its last byte
        refused = send(400)
        assert b" 429 " in refused
        assert b"Access-Control-Allow-Origin" in refused
        counted = b':request_count{model_name="m",status="RESOURCE_EXHAUSTED"} 1\n'
        assert counted in metrics.page()


def test_a_client_that_sends_nothing_is_closed(running, monkeypatch):
    monkeypatch.setattr(rest_connection, "KEEP_ALIVE_SECONDS", 0.5)
    with running.socket() as sock:
        assert sock.recv(1) == b""
    assert running.send(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"GET /ok 0")


def test_a_client_that_never_finishes_a_header_is_closed(running, monkeypatch):
    monkeypatch.setattr(rest_connection, "HEADER_SECONDS", 0.5)
    with running.socket() as sock:
        for byte in b"GET / HTTP/1.1\r\nA: " + b"b" * 10_000:
            try:
                sock.sendall(bytes([byte]))
                sock.settimeout(0.05)
                assert sock.recv(1) == b""
                break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("the connection stayed open")
    assert running.send(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"GET /ok 0")


def test_a_body_that_does_not_come_is_told_so_and_left(running, monkeypatch):
    monkeypatch.setattr(rest_app, "BODY_IDLE_SECONDS", 0.3)
    received = b""
    with running.socket() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        received = read_all(sock)
        assert b" 408 " in received
        assert b"Connection: close" in received
    until(lambda: running.admission.held == 0)


def test_an_answer_counts_until_read_and_a_reader_who_stops_is_closed(running, monkeypatch):
    monkeypatch.setattr(rest_connection, "SEND_SECONDS", 1.0)

    def large(request: Request) -> Answer:
        request.call.held.resize(64 * MIB)
        return Answer(status=200, body=bytes(64 * MIB))

    running.admission.limit = 100 * MIB
    running.handle = large
    with running.socket() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: running.admission.held == 64 * MIB)
        until(lambda: running.admission.held == 0)
        sock.settimeout(10)
        assert len(read_all(sock)) < 64 * MIB


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", True), ("x-gzip", True), ("GZip", True), ("br", False), ("identity", False)],
)
def test_gzip_is_the_only_encoding_that_is_not_ignored(running, encoding, packed):
    running.handle = lambda request: Answer(status=200, body=str(request.packed).encode())
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: {encoding}\r\n"
    received = running.send(head.encode() + b"Content-Length: 1\r\n\r\nx")
    assert received.endswith(str(packed).encode())


def test_an_answer_to_head_has_no_body(running):
    assert running.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"\r\n\r\n")


def test_stop_finishes_what_is_being_answered_and_refuses_the_rest():
    running = Running()
    arrived, go_on = threading.Event(), threading.Event()

    def wait(_: Request) -> Answer:
        arrived.set()
        go_on.wait(60)
        return Answer(status=200, body=b"done")

    running.handle = wait
    with running.socket() as busy, running.socket() as idle:
        busy.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert arrived.wait(60)
        stopping = threading.Thread(target=running.http.stop, args=(10,))
        stopping.start()
        assert idle.recv(100) == b""
        go_on.set()
        received = read_all(busy)
        assert received.endswith(b"done")
        assert b"Connection: close" in received
        stopping.join(60)
        assert not stopping.is_alive()
    with pytest.raises(OSError, match="refused"):
        running.socket()


def test_stop_does_not_wait_for_ever():
    running = Running()
    go_on = threading.Event()
    running.handle = lambda _: Answer(status=200) if go_on.wait(60) else Answer(status=500)
    with running.socket() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        started = time.monotonic()
        running.http.stop(0.2)
        assert time.monotonic() - started < 10
    go_on.set()


def test_a_taken_port_is_named():
    taken = listen(0)
    port = taken.getsockname()[1]
    with pytest.raises(OSError, match=f"REST port {port}"):
        listen(port)
    taken.close()
