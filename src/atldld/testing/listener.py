"""The listening side of a server: loopback only, quiet, and gone when it is closed."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def loopback(host: str) -> str:
    """Return an IPv4 loopback address, or raise a `ValueError`.

    Examples
    --------
    >>> loopback("localhost")
    '127.0.0.1'
    >>> loopback("0.0.0.0")
    Traceback (most recent call last):
    ...
    ValueError: the host is '0.0.0.0'; it must be a loopback address, such as 127.0.0.1
    """
    if host == "localhost":
        return "127.0.0.1"
    with contextlib.suppress(ValueError):
        address = ipaddress.IPv4Address(host)
        if address.is_loopback:
            return str(address)
    raise ValueError(f"the host is {host!r}; it must be a loopback address, such as 127.0.0.1")


class Listener(ThreadingHTTPServer):
    """A threading HTTP server that leaves nothing behind.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one.
    handler
        Class that handles connections.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self._guard = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._handlers: set[threading.Thread] = set()
        self._accepting: threading.Thread | None = None
        super().__init__((loopback(host), port), handler)

    def server_bind(self) -> None:
        """Bind without asking a name service what this host is called."""
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)

    def start(self) -> None:
        """Begin to accept."""
        self._accepting = threading.Thread(
            target=self.serve_forever, args=(0.02,), name="atldld-testing", daemon=True
        )
        self._accepting.start()

    def stop(self) -> None:
        """Stop accepting, close every connection, and wait for what served them."""
        if self._accepting is not None:
            self.shutdown()
            self._accepting.join()
        self.server_close()
        with self._guard:
            connections, handlers = list(self._connections), list(self._handlers)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for handler in handlers:
            handler.join(10.0)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection in a thread of its own."""
        thread = threading.Thread(target=self._serve, args=(request, client_address), daemon=True)
        with self._guard:
            self._connections.add(request)
            self._handlers.add(thread)
        thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients come and go."""

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._guard:
                self._connections.discard(request)
                self._handlers.discard(threading.current_thread())
