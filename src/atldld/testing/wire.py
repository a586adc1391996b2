"""HTTP on loopback: a listener that leaves nothing behind, and answers sent well or badly."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple

import numpy as np

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
        return replace(answer, body=_damaged(answer.body))
    if kind == "wrong-size":
        return replace(answer, body=_wrong_size(answer.body))
    if kind == "wrong-format":
        return replace(answer, body=_as_png(answer.body), content_type="image/png")
    return answer


def _damaged(jpeg: bytes) -> bytes:
    """Return a JPEG whose head and end are whole and whose inside strict decoders refuse.

    Raises
    ------
    ValueError
        If no damage to its scan is noticed; so small an image can be.
    """
    import simplejpeg

    start = jpeg.rindex(b"\xff\xda")
    start += 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")
    length = len(jpeg) - 2 - start
    random = np.random.default_rng(len(jpeg))
    for attempt in range(200):
        size = max(min(16 << (attempt // 20), length // 2), 1)
        at = start + int(random.integers(length // 4, max(length * 3 // 4 - size, length // 4 + 1)))
        noise = random.integers(0, 255, size, dtype=np.uint8).tobytes()
        spoiled = jpeg[:at] + noise + jpeg[at + size :]
        try:
            simplejpeg.decode_jpeg(spoiled, strict=True)
        except ValueError:
            return spoiled
    raise ValueError(f"no damage to a JPEG of {len(jpeg)} bytes is noticed")


def _wrong_size(jpeg: bytes) -> bytes:
    """Return a sound JPEG of the same picture that is half as wide, and a row higher."""
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(jpeg)
    height, width = pixels.shape[:2]
    rows = np.append(np.arange(height), height - 1)
    columns = np.arange(0, width, 2) if width > 1 else np.array([0, 0])
    other = np.ascontiguousarray(pixels[rows[:, None], columns[None, :]])
    return bytes(simplejpeg.encode_jpeg(other, 95, "RGB", "444", fastdct=False))


def _as_png(jpeg: bytes) -> bytes:
    """Return the same picture as PNG."""
    import cv2
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(jpeg)
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))
    if not done:
        raise ValueError("the image cannot be encoded as PNG")
    return data.tobytes()


class Step(NamedTuple):
    """Bytes that go out together: a frame of HTTP, then part of a body.

    Parameters
    ----------
    frame, body
        What is sent.
    pause
        Seconds to wait before it; None waits until the server ends.
    """

    frame: bytes = b""
    body: bytes = b""
    pause: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """How an answer goes out.

    Parameters
    ----------
    steps
        What is sent, one after the other.
    ending
        What becomes of the connection: it is kept, closed, or reset.
    """

    steps: tuple[Step, ...]
    ending: Literal["keep", "close", "reset"]

    @property
    def body_bytes(self) -> int:
        """How many bytes of the body are sent where the client takes them all."""
        return sum(len(step.body) for step in self.steps)


def delivery(answer: Answer, fault: Fault | None, *, keep_alive: bool) -> Delivery:
    """Return how an answer goes out, in the way of a fault where there is one."""
    body, kind = answer.body, None if fault is None else fault.kind
    whole = f"Content-Length: {len(body)}"
    part = body[: len(body) * 3 // 5]
    kept: Literal["keep", "close"] = "keep" if keep_alive else "close"
    head = _head(answer, whole, kept)
    if fault is None:
        return Delivery((Step(head, body),), kept)
    if kind in ("hang", "drop"):
        return Delivery((Step(pause=fault.seconds if kind == "hang" else 0.0),), "close")
    if kind == "reset":
        return Delivery((Step(head, body[: len(body) // 2]),), "reset")
    if kind == "short":
        promised = f"Content-Length: {len(body) + 1}"
        return Delivery((Step(_head(answer, promised, "close"), part),), "close")
    if kind == "early-end":
        head = _head(answer, "Transfer-Encoding: chunked", kept)
        chunk = Step(head + b"%x\r\n" % len(part), part), Step(b"\r\n0\r\n\r\n")
        return Delivery(chunk if part else (Step(head + b"0\r\n\r\n"),), kept)
    if kind == "slow":
        drops = (body[first : first + fault.piece] for first in range(0, len(body), fault.piece))
        drip = (Step(body=drop, pause=fault.seconds) for drop in drops)
        return Delivery((Step(head), *drip), kept)
    if kind == "two-answers":
        return Delivery((Step(head + body + head, body),), kept)
    if kind == "early-hints":
        return Delivery((Step(_EARLY_HINTS), Step(head, body, fault.seconds)), kept)
    return Delivery((Step(head, body),), kept)


def _head(answer: Answer, length: str, kept: Literal["keep", "close"]) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {responses.get(answer.status, 'Unknown')}",
        f"Content-Type: {answer.content_type}",
        length,
        *(f"{name}: {value}" for name, value in answer.headers),
        f"Connection: {'keep-alive' if kept == 'keep' else 'close'}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Line:
    """A connection that one answer is sent on.

    Parameters
    ----------
    connection
        The socket.
    closing
        Set when the server ends; cuts every pause short.
    keep_alive
        Whether the client may send another request on it.
    """

    def __init__(
        self, connection: socket.socket, closing: threading.Event, keep_alive: bool
    ) -> None:
        self.connection = connection
        self.closing = closing
        self.keep_alive = keep_alive
        self.sent = 0
        """Bytes of the body that were sent."""

    def send(self, delivery: Delivery, before_last: Callable[[], None]) -> None:
        """Send an answer.

        Parameters
        ----------
        delivery
            How it goes out.
        before_last
            Called before the last byte is sent: a client that has everything cannot find the
            request still being served.

        Raises
        ------
        OSError
            If the client has gone.
        """
        self.keep_alive = delivery.ending == "keep"
        for step in delivery.steps[:-1]:
            if not self._put(step, None):
                return
        if self._put(delivery.steps[-1], before_last) and delivery.ending == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            # Past the objects that would send a proper end first.
            os.close(self.connection.detach())

    def _put(self, step: Step, before_last: Callable[[], None] | None) -> bool:
        """Send a step; False where the server has ended before."""
        if step.pause != 0.0 and self.closing.wait(step.pause):
            self.keep_alive = False
            return False
        size, before = len(step.frame) + len(step.body), self.sent
        done = 0
        while done < size:
            at = done - len(step.frame)
            piece = step.body[at : at + _PIECE] if done else step.frame + step.body[:_PIECE]
            if done + len(piece) == size and before_last is not None:
                if len(piece) > 1:
                    self.connection.sendall(piece[:-1])
                before_last()
                piece, done = piece[-1:], size - 1
            self.connection.sendall(piece)
            done += len(piece)
            self.sent = before + max(done - len(step.frame), 0)
        return True


class Connection(BaseHTTPRequestHandler):
    """A connection to a `Listener`: each request is handed on to the listener's `exchange`."""

    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer a request."""
        line = Line(self.connection, self.server.closing, not self.close_connection)
        try:
            self.server.exchange(self.path, line)
        except OSError:
            line.keep_alive = False
        self.close_connection = not line.keep_alive

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Listener(ThreadingHTTPServer):
    """A threading HTTP server that leaves nothing behind.

    Parameters
    ----------
    host, port
        Where to listen: a loopback address; port 0 takes a free one.
    exchange
        Called with the path and query of each request, and the line to answer on.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, host: str, port: int, exchange: Callable[[str, Line], None]) -> None:
        self.exchange = exchange
        self.closing = threading.Event()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._accepting = threading.Thread(target=self._accept, name="atldld-testing", daemon=True)
        super().__init__((_loopback(host), port), Connection)

    def server_bind(self) -> None:
        """Bind without asking a name service what this host is called."""
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)

    def start(self) -> None:
        """Begin to accept."""
        self._accepting.start()

    def stop(self) -> None:
        """Stop accepting, close every connection, and wait for what served them."""
        self.closing.set()
        if self._accepting.is_alive():
            with contextlib.suppress(OSError):
                # One more connection wakes what waits for one.
                socket.create_connection((self.server_name, self.server_port), 1.0).close()
            self._accepting.join()
        self.server_close()
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for handler in self._connections:
            handler.join(10.0)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Turn away who comes when it is over."""
        del request, client_address
        return not self.closing.is_set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection in a thread of its own, which `stop` can end."""
        handler = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        alive = {thread: one for thread, one in self._connections.items() if thread.is_alive()}
        self._connections = {**alive, handler: request}
        handler.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients come and go."""

    def _accept(self) -> None:
        while not self.closing.is_set():
            self.handle_request()


def _loopback(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    with contextlib.suppress(ValueError):
        address = ipaddress.IPv4Address(host)
        if address.is_loopback:
            return str(address)
    raise ValueError(f"the host is {host!r}; it must be a loopback address, such as 127.0.0.1")
