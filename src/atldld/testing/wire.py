"""Answers on the wire, sound ones and spoilt ones."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus

from .jpegs import as_png, damaged, wrong_size
from .traffic import Fault

_PIECE = 1 << 18
_EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Allen Brain Atlas</title></head>"
    b"<body><h1>We're sorry, but something went wrong.</h1></body></html>\n"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered: status, body and the headers besides the length."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


def page(status: int = 200) -> Answer:
    """Return an HTML page, as servers send it in trouble."""
    return Answer(status, _PAGE, "text/html; charset=utf-8")


def text(status: int, message: str) -> Answer:
    """Return a plain text."""
    return Answer(status, message.encode(), "text/plain; charset=utf-8")


def spoilt(answer: Answer, fault: Fault) -> Answer:
    """Return an answer as a fault makes it, where the fault is one of content or status."""
    kind = fault.kind
    if kind.isdigit():
        headers = () if fault.retry_after is None else (("Retry-After", str(fault.retry_after)),)
        return replace(page(int(kind)), headers=headers)
    if kind == "html":
        return page()
    if kind == "empty":
        return replace(answer, body=b"")
    if kind == "body":
        return Answer(fault.status, fault.body, fault.content_type)
    if answer.status != HTTPStatus.OK or not answer.body:
        return answer
    if kind == "truncated":
        return replace(answer, body=answer.body[: max(len(answer.body) * 3 // 5, 1)])
    if kind == "damaged":
        return replace(answer, body=damaged(answer.body))
    if kind == "wrong-size":
        return replace(answer, body=wrong_size(answer.body))
    if kind == "wrong-format":
        return replace(answer, body=as_png(answer.body), content_type="image/png")
    return answer


def meant(answer: Answer, fault: Fault | None) -> int:
    """Return how many bytes of the body are meant to be sent."""
    kind = None if fault is None else fault.kind
    if kind in ("hang", "drop"):
        return 0
    if kind == "reset":
        return len(answer.body) // 2
    if kind in ("short", "early-end"):
        return len(answer.body) * 3 // 5
    return len(answer.body)


class Line:
    """One connection, on which one answer is sent.

    Parameters
    ----------
    connection
        The socket.
    closing
        Set when the server ends; cuts every wait short.
    keep_alive
        Whether the client may send another request on it.
    before_last
        Called once before the last byte is sent: a client that has everything cannot find
        the request still being served.
    """

    def __init__(
        self,
        connection: socket.socket,
        closing: threading.Event,
        keep_alive: bool,
        before_last: Callable[[], None],
    ) -> None:
        self.connection = connection
        self.keep_alive = keep_alive
        self.sent = 0
        self._closing = closing
        self._before_last = before_last

    def send(self, answer: Answer, fault: Fault | None) -> None:
        """Send an answer, in the way of the fault where there is one.

        Raises
        ------
        OSError
            If the client has gone.
        """
        content = answer.body
        kind = None if fault is None else fault.kind
        if fault is not None and kind in ("hang", "drop"):
            if kind == "hang":
                self._closing.wait(fault.seconds)
            self.keep_alive = False
            self._before_last()
        elif kind == "reset":
            self._begin(answer, f"Content-Length: {len(content)}")
            self._pieces(content[: meant(answer, fault)])
            self._before_last()
            self._reset()
        elif kind == "short":
            self.keep_alive = False
            self._begin(answer, f"Content-Length: {len(content) + 1}")
            self._before_last()
            self._pieces(content[: meant(answer, fault)])
        elif kind == "early-end":
            self._begin(answer, "Transfer-Encoding: chunked")
            part = content[: meant(answer, fault)]
            if part:
                self.connection.sendall(b"%x\r\n" % len(part))
                self._pieces(part)
                self.connection.sendall(b"\r\n")
            self._before_last()
            self.connection.sendall(b"0\r\n\r\n")
        elif fault is not None and kind == "slow" and content:
            self._begin(answer, f"Content-Length: {len(content)}")
            for first in range(0, len(content), fault.piece):
                if self._closing.wait(fault.seconds):
                    self.keep_alive = False
                    return
                if first + fault.piece >= len(content):
                    self._before_last()
                self._pieces(content[first : first + fault.piece])
        elif kind == "two-answers":
            self._twice(answer, content)
        else:
            if fault is not None and kind == "early-hints":
                self.connection.sendall(_EARLY_HINTS)
                self._closing.wait(fault.seconds)
            self._plain(answer, content)

    def _twice(self, answer: Answer, content: bytes) -> None:
        whole = self._head(answer, f"Content-Length: {len(content)}") + content
        self._before_last()
        self.connection.sendall(2 * whole)
        self.sent = len(content)

    def _plain(self, answer: Answer, content: bytes) -> None:
        head = self._head(answer, f"Content-Length: {len(answer.body)}")
        if not content:
            self._before_last()
            self.connection.sendall(head)
        elif len(content) <= _PIECE:
            self.connection.sendall(head + content[:-1])
            self._before_last()
            self.connection.sendall(content[-1:])
            self.sent = len(content)
        else:
            self.connection.sendall(head)
            self._pieces(content[:-1])
            self._before_last()
            self._pieces(content[-1:])

    def _begin(self, answer: Answer, length: str) -> None:
        self.connection.sendall(self._head(answer, length))

    def _head(self, answer: Answer, length: str) -> bytes:
        lines = [
            f"HTTP/1.1 {answer.status} {_phrase(answer.status)}",
            f"Content-Type: {answer.content_type}",
            length,
            *(f"{name}: {value}" for name, value in answer.headers),
            f"Connection: {'keep-alive' if self.keep_alive else 'close'}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _pieces(self, content: bytes) -> None:
        view = memoryview(content)
        for first in range(0, len(view), _PIECE):
            piece = view[first : first + _PIECE]
            self.connection.sendall(piece)
            self.sent += len(piece)

    def _reset(self) -> None:
        """Close so that the client meets a reset instead of an end."""
        self.keep_alive = False
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        # Past the objects that would send a proper end first.
        os.close(self.connection.detach())


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
