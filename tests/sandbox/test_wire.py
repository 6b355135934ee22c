"""Messages arrive as they were sent, and an end within a message is noticed."""

import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hepfaas.sandbox import wire

ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.array(7, dtype=np.int64),
    np.zeros((0, 5), dtype=np.float32),
    np.array([2**64 - 1], dtype=np.uint64),
    np.arange(10)[::2],
]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_arrays_arrive_as_they_were(pair: tuple[socket.socket, socket.socket]) -> None:
    wire.send(pair[0], {"do": "it", "n": [1, None]}, ARRAYS)
    header, arrays = wire.receive(pair[1])
    assert header == {"do": "it", "n": [1, None]}
    for sent, got in zip(ARRAYS, arrays, strict=True):
        assert (sent.dtype, sent.shape, sent.tolist()) == (got.dtype, got.shape, got.tolist())


def test_arrays_larger_than_the_socket_arrive(pair: tuple[socket.socket, socket.socket]) -> None:
    big = np.arange(5_000_000, dtype=np.int64)
    sender = threading.Thread(target=wire.send, args=(pair[0], {}, [big]))
    sender.start()
    _, (got,) = wire.receive(pair[1])
    sender.join()
    assert np.array_equal(got, big)


@pytest.mark.parametrize("type_", ["O", "f8,O", "U4", "V2000000000", "f4,f4"])
def test_arrays_of_objects_are_refused(pair: tuple[socket.socket, socket.socket], type_: str) -> None:
    text = f'[{{}}, [["{type_}", [1]]]]'.encode()
    pair[0].sendall(len(text).to_bytes(4, "little") + text + b"\x41" * 16)
    with pytest.raises(ValueError, match="only numbers are sent"):
        wire.receive(pair[1])


def test_numbers_without_a_numpy_type_are_sent_as_they_are(pair: tuple[socket.socket, socket.socket]) -> None:
    wire.send(pair[0], {}, [np.array([b"\x80\x3f"], dtype="V2")])
    _, (got,) = wire.receive(pair[1])
    assert got.tobytes() == b"\x80\x3f"


def test_an_end_within_a_message_is_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(b"\x40\x00\x00\x00half")
    pair[0].close()
    with pytest.raises(EOFError):
        wire.receive(pair[1])
