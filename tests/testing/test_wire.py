"""A request stops being served before its client can have all of the answer."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from atldld.testing import Fault
from atldld.testing.wire import Answer, Line, delivery


class CountingSocket(socket.socket):
    """A socket that knows how many bytes were handed to it."""

    handed = 0

    def sendall(self, data: Any, *flags: int) -> None:
        self.handed += len(data)
        super().sendall(data, *flags)


@pytest.mark.parametrize("size", [0, 1, 1000, 700_000])
@pytest.mark.parametrize("kind", [None, "slow", "early-end", "short"])
def test_serving_ends_before_the_last_byte(size: int, kind: Any) -> None:
    ours, theirs = socket.socketpair()
    received = bytearray()

    def read() -> None:
        while piece := theirs.recv(65536):
            received.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    fault = None if kind is None else Fault(kind, seconds=0.0, piece=100_000)
    with CountingSocket(fileno=ours.detach()) as connection:
        handed: list[int] = []
        line = Line(connection, threading.Event(), True)
        going = delivery(Answer(200, bytes(size), "image/jpeg"), fault, keep_alive=True)
        line.send(going, lambda: handed.append(connection.handed))
    reader.join(20)
    theirs.close()
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert len(handed) == 1
    assert handed[0] < len(received)
