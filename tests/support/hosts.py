"""Hostile hosts: a name whose address changes, servers that are slow or redirect elsewhere."""

import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Any, Self

import pytest

PUBLIC, LOOPBACK = "192.0.43.8", "127.0.0.1"


def resolve_in_turn(monkeypatch: pytest.MonkeyPatch, host: str, *addresses: str) -> list[str]:
    """Resolve the name to the next address in each look-up, finally always to the last; return the list of answers.

    Stands in for a DNS server, which this process cannot be configured to use.
    """
    original, answers = socket.getaddrinfo, list[str]()

    def getaddrinfo(name: Any, *more: Any, **named: Any) -> Any:
        if name != host:
            return original(name, *more, **named)
        answers.append(addresses[min(len(answers), len(addresses) - 1)])
        return original(answers[-1], *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


class SlowServer:
    """A server that sends its answer byte by byte, for a minute at most.

    heads: by HTTP method, the bytes to send at once; nothing for others. requests: as received. disconnected: set when
    a client closes the connection.
    """

    PAUSE_S, MAX_S = 0.05, 60.0

    def __init__(self, **heads: bytes) -> None:
        self._heads, self.requests, self.disconnected = heads, list[bytes](), threading.Event()

    def __enter__(self) -> Self:
        self._server = socket.create_server((LOOPBACK, 0))
        self._server.settimeout(self.PAUSE_S)
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()
        self.port = self._server.getsockname()[1]
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=self.MAX_S)
        self._server.close()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._server.accept()
            except TimeoutError:
                continue
            self._threads.append(threading.Thread(target=self._answer, args=(connection,)))
            self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        end = time.monotonic() + self.MAX_S
        with connection:
            self.requests.append(connection.recv(65_536))
            try:
                connection.sendall(self._heads.get(self.requests[-1].split(b" ")[0].decode(), b""))
                while time.monotonic() < end and not self._stopped.wait(self.PAUSE_S):
                    connection.sendall(b"a")
            except OSError:
                self.disconnected.set()


class UnusedServer:
    """A server that must get no connections. n_connections: how many it got."""

    def __enter__(self) -> Self:
        self.n_connections = 0
        self._server = socket.create_server((LOOPBACK, 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.n_connections += 1
            connection.close()


class RedirectingXRootD:
    """An XRootD server that accepts every login and redirects every open to `to`.

    Protocol: https://xrootd.web.cern.ch/doc/dev56/XRdv520.htm (kXR_redirect).
    """

    PROTOCOL, LOGIN, OPEN, END = 3006, 3007, 3010, 3023

    def __init__(self, to: str) -> None:
        self._to = to.encode()

    def __enter__(self) -> Self:
        self._server = socket.create_server((LOOPBACK, 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()
        self.url = f"root://{LOOPBACK}:{self._server.getsockname()[1]}//store/x.root"
        return self

    def __exit__(self, *error: object) -> None:
        for opened in (self._server, *self._connections):
            with suppress(OSError):  # the client has closed it
                opened.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                self._connections.append(self._server.accept()[0])
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._answer, args=(self._connections[-1],)))
            self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as received:
            received.read(20)
            connection.sendall(struct.pack(">HHIII", 0, 0, 8, 0x511, 1))
            while len(head := received.read(24)) == 24:
                stream, request, size = struct.unpack(">2sH16xI", head)
                received.read(size)
                status, body = {
                    self.PROTOCOL: (0, struct.pack(">II", 0x511, 1)),
                    self.LOGIN: (0, bytes(16)),
                    self.OPEN: (4004, struct.pack(">i", -1) + self._to),
                    self.END: (0, b""),
                }.get(request, (4003, struct.pack(">I", 3013) + b"not here\0"))
                connection.sendall(stream + struct.pack(">HI", status, len(body)) + body)
