"""Connections of `predict`: what goes over the wire is what it would be without them."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from socket import create_connection, create_server, socket

import pytest
import uvicorn
from hepfaas.serving.connection import LISTENERS, ManyListenersLoop, protocol_for
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from support.servers import LIMIT_S, free_port, is_open

MOST = 3
LIKE_A_HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class App:
    """/late: a piece, and a second one once `goes_on` is set. /heads: pieces of a body that look like heads. Any other
    path: the body again."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["path"] == "/late":
            response: Response = StreamingResponse(self._late())
        elif scope["path"] == "/heads":
            response = StreamingResponse(self._heads(), headers={"Content-Length": str(3 * len(LIKE_A_HEAD))})
        else:
            response = Response(await request.body())
        await response(scope, receive, send)

    async def _late(self) -> AsyncIterator[bytes]:
        yield b"first"
        while not self.goes_on.is_set():
            await asyncio.sleep(0.01)
        yield b"second"

    async def _heads(self) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield LIKE_A_HEAD


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def wire(app: App) -> Iterator[socket]:
    """A connection to a server of the app."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, http=protocol_for(app, MOST), port=port, log_config=None, lifespan="off")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + LIMIT_S
    while not is_open(port) and time.monotonic() < end:
        time.sleep(0.01)
    try:
        with create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
            yield connection
    finally:
        app.goes_on.set()
        server.should_exit = True
        thread.join(LIMIT_S)


def read_until(wire: socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = wire.recv(65536)
        assert piece, data
        data += piece
    return data


def request(path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = {"Host": "x", "Content-Length": str(len(body)), **{key.replace("_", "-"): headers[key] for key in headers}}
    head = "".join(f"{key}: {value}\r\n" for key, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def test_answers_without_a_body_and_with_one_are_whole(wire: socket) -> None:
    for body in (b"", b"x", b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 300_000):
        wire.sendall(request("/", body))
        answer = read_until(wire, b"\r\n\r\n" + body)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"content-length: {len(body)}\r\n".encode() in answer


def test_requests_that_do_not_wait_are_answered_in_their_order(wire: socket) -> None:
    wire.sendall(request("/", b"one") + request("/", b"two") + request("/", b"three"))
    assert read_until(wire, b"three").count(b"HTTP/1.1 200 OK") == 3


def test_a_client_that_asks_whether_to_go_on_is_told_at_once(wire: socket) -> None:
    wire.sendall(request("/", b"body", Expect="100-continue").removesuffix(b"body"))
    assert read_until(wire, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.sendall(b"body")
    assert read_until(wire, b"\r\n\r\nbody").startswith(b"HTTP/1.1 200 OK")


def test_a_piece_comes_before_the_next_one_is_there(wire: socket, app: App) -> None:
    wire.sendall(request("/late"))
    assert read_until(wire, b"first\r\n").startswith(b"HTTP/1.1 200 OK")
    app.goes_on.set()
    assert read_until(wire, b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"


def test_a_body_that_looks_like_a_head_comes_whole(wire: socket) -> None:
    wire.sendall(request("/heads") + request("/heads", Connection="close"))
    answer = read_until(wire, 3 * LIKE_A_HEAD + b"")
    while piece := wire.recv(65536):
        answer += piece
    assert answer.count(3 * LIKE_A_HEAD) == 2


def test_a_connection_too_many_is_refused_and_the_others_are_not(wire: socket) -> None:
    place = wire.getpeername()
    with ExitStack() as open_ones:
        kept = [wire, *(open_ones.enter_context(create_connection(place, timeout=LIMIT_S)) for _ in range(MOST - 1))]
        for one in kept:
            one.sendall(request("/same", b"body"))
            assert read_until(one, b"body").startswith(b"HTTP/1.1 200")
        with create_connection(place, timeout=LIMIT_S) as surplus:
            surplus.sendall(request("/same", b"body"))
            answer = read_until(surplus, b"}")
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1" in answer.lower()
            assert b'{"error":"too many connections' in answer
            assert surplus.recv(1) == b""
        for one in kept:
            one.sendall(request("/same", b"again"))
            assert read_until(one, b"again").startswith(b"HTTP/1.1 200")


def test_a_crowd_is_let_in_many_at_a_time() -> None:
    many = 10 * LISTENERS
    transports: list[asyncio.BaseTransport] = []

    class Counting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transports.append(transport)

    async def rounds(listening: socket) -> int:
        server, passed = await asyncio.get_running_loop().create_server(Counting, sock=listening), 0
        while len(transports) < many and passed < 10 * many:
            await asyncio.sleep(0)
            passed += 1
        for transport in transports:
            transport.close()
        server.close()
        await asyncio.wait_for(server.wait_closed(), LIMIT_S)
        return passed

    with ExitStack() as open_ones:
        listening = create_server(("127.0.0.1", 0), backlog=many)
        place = listening.getsockname()
        for _ in range(many):
            open_ones.enter_context(create_connection(place, timeout=LIMIT_S))
        with asyncio.Runner(loop_factory=ManyListenersLoop) as runner:
            passed = runner.run(rounds(listening))
        assert passed < many / 4
        assert len(transports) == many
        with pytest.raises(ConnectionRefusedError):
            create_connection(place, timeout=LIMIT_S)
