"""A name whose addresses change, servers that keep one waiting or lead elsewhere: what strangers may name."""

import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Any, Self

import pytest

PUBLIC, OURS = "192.0.43.8", "127.0.0.1"


def answer_in_turn(monkeypatch: pytest.MonkeyPatch, host: str, *addresses: str) -> list[str]:
    """The name has another address each time it is asked for, in the end the last one: a stand-in for a DNS server,
    which this process cannot be pointed at. Gives what was answered."""
    ask, answered = socket.getaddrinfo, list[str]()

    def asked(name: Any, *more: Any, **named: Any) -> Any:
        if name != host:
            return ask(name, *more, **named)
        answered.append(addresses[min(len(answered), len(addresses) - 1)])
        return ask(answered[-1], *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    return answered


class Trickling:
    """A server that gives one byte after the other, for a minute, of an answer that has many more.

    heads: what it gives at once to each method, nothing to others. `asked`: what came. `left`: set when it was left."""

    PAUSE_S, MOST_S = 0.05, 60.0

    def __init__(self, **heads: bytes) -> None:
        self._heads, self.asked, self.left = heads, list[bytes](), threading.Event()

    def __enter__(self) -> Self:
        self._server = socket.create_server((OURS, 0))
        self._server.settimeout(self.PAUSE_S)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()
        self.port = self._server.getsockname()[1]
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(timeout=self.MOST_S)
        self._server.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                taken, _ = self._server.accept()
            except TimeoutError:
                continue
            self._threads.append(threading.Thread(target=self._give, args=(taken,)))
            self._threads[-1].start()

    def _give(self, taken: socket.socket) -> None:
        end = time.monotonic() + self.MOST_S
        with taken:
            self.asked.append(taken.recv(65_536))
            try:
                taken.sendall(self._heads.get(self.asked[-1].split(b" ")[0].decode(), b""))
                while time.monotonic() < end and not self._over.wait(self.PAUSE_S):
                    taken.sendall(b"a")
            except OSError:
                self.left.set()


class Untouched:
    """A server that nobody may come to. `came`: how many did."""

    def __enter__(self) -> Self:
        self.came = 0
        self._server = socket.create_server((OURS, 0))
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
                taken, _ = self._server.accept()
            except OSError:
                return
            self.came += 1
            taken.close()


class LeadingXRootD:
    """A server of XRootD that takes every login and leads who opens a file to `to`, as
    https://xrootd.web.cern.ch/doc/dev56/XRdv520.htm (kXR_redirect) has it."""

    PROTOCOL, LOGIN, OPEN, END = 3006, 3007, 3010, 3023

    def __init__(self, to: str) -> None:
        self._to = to.encode()

    def __enter__(self) -> Self:
        self._server = socket.create_server((OURS, 0))
        self._taken: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()
        self.url = f"root://{OURS}:{self._server.getsockname()[1]}//store/x.root"
        return self

    def __exit__(self, *error: object) -> None:
        for one in (self._server, *self._taken):
            with suppress(OSError):  # it was left before
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                self._taken.append(self._server.accept()[0])
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._answer, args=(self._taken[-1],)))
            self._threads[-1].start()

    def _answer(self, taken: socket.socket) -> None:
        with taken, taken.makefile("rb") as came:
            came.read(20)
            taken.sendall(struct.pack(">HHIII", 0, 0, 8, 0x511, 1))
            while len(head := came.read(24)) == 24:
                stream, request, size = struct.unpack(">2sH16xI", head)
                came.read(size)
                status, body = {
                    self.PROTOCOL: (0, struct.pack(">II", 0x511, 1)),
                    self.LOGIN: (0, bytes(16)),
                    self.OPEN: (4004, struct.pack(">i", -1) + self._to),
                    self.END: (0, b""),
                }.get(request, (4003, struct.pack(">I", 3013) + b"not here\0"))
                taken.sendall(stream + struct.pack(">HI", status, len(body)) + body)
