"""Programs of confined workers that an attacker has taken over, and that send harmful messages."""

import fcntl
import json
import os
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

from hepfaas.models.inference_messages import MESSAGE, OK
from hepfaas.sandbox import wire


def message(header: Any, shapes: Any = (), length: int | None = None) -> bytes:
    """Return a message of sandbox/wire.py, whose length may be false."""
    text = json.dumps([header, shapes]).encode()
    return struct.pack("<I", len(text) if length is None else length) + text


ANSWERS: dict[str, Callable[[], bytes]] = {
    "a header of 4 GB": lambda: message({}, length=2**32 - 1),
    "no JSON": lambda: struct.pack("<I", 4) + b"\xff\x00{]",
    "JSON that is no message": lambda: struct.pack("<I", 2) + b"[]",
    "nested without end": lambda: struct.pack("<I", 200_000) + b"[" * 200_000,
    "an array of 1 EB": lambda: message({}, [["<f4", [2**60]]]),
    "an array of objects": lambda: message({}, [["|O", [1]]]),
    "a negative shape": lambda: message({}, [["<f4", [-1]]]),
    "a million arrays": lambda: message({}, [["<f4", [0]]] * 1_000_000),
    "a callback that is not there": lambda: message({"call": "delete"}),
    "a callback with other values": lambda: message({"call": "fetch", "nothing": 1}),
    "a fetch from before the file": lambda: message({"call": "fetch", "ranges": [[-10, 10]]}),
    "a fetch of 1 TB": lambda: message({"call": "fetch", "ranges": [[0, 10**12]]}),
    "a fetch of text": lambda: message({"call": "fetch", "ranges": [["0", "1"]]}),
    "a fetch of no range": lambda: message({"call": "fetch", "ranges": 7}),
    "an error that is no text": lambda: message({"error": {"a": 1}, "kind": ["RequestError"]}),
    "an error of another kind": lambda: message({"error": "x", "kind": "SystemExit"}),
    "nothing": lambda: b"",
}


def serve(channel_number: int, *descriptors: int) -> None:
    """Answer each call as its value `attack` says."""
    with socket.socket(fileno=channel_number) as channel:
        while True:
            header, _ = wire.receive(channel)
            attack = header.get("attack") or header.get("name", "")
            if attack == "silence":
                time.sleep(3600)
            if attack == "trickle":
                for byte in message({"a": "b" * 1_000}):
                    channel.send(bytes([byte]))
                    time.sleep(0.05)
            if attack == "callbacks without end":
                while True:
                    channel.sendall(message({"call": "fetch", "ranges": [[0, 1]]}))
                    wire.receive(channel)
            answer = ANSWERS[attack]()
            if not answer:
                os._exit(0)
            channel.sendall(answer)


def serve_inference(channel_number: int, memory_number: int) -> None:
    """Answer as a taken-over worker might; the number of rows in the request selects the attack."""
    with socket.socket(fileno=channel_number) as channel:
        while data := channel.recv(4_096):
            if len(data) != MESSAGE.size:
                continue  # the description of a graph
            operation, _, rows = MESSAGE.unpack(data)
            if operation == 1:
                channel.recv(4_096)
                channel.send(OK)
            elif rows == 1:
                for _ in range(100):
                    channel.send(OK)
            elif rows == 2:
                channel.send(b"\xff\x1b[31m" * 10_000)
            elif rows == 3:
                channel.shutdown(socket.SHUT_RDWR)
                time.sleep(3600)
            elif rows == 5:
                _answer_without_reading(channel)
            else:
                os._exit(3)


def _answer_without_reading(channel: socket.socket) -> None:
    """Answer each message as soon as it arrives, and leave all of them in the channel."""
    answered, size = -1, bytearray(4)
    while True:
        if answered < (there := int.from_bytes(size, "little")):
            answered = there
            channel.send(OK)
        fcntl.ioctl(channel, termios.FIONREAD, size)
