"""Connections of this process that keep to a deadline.

One pool of connections serves metadata and images alike. A socket of the standard library
gives each single receive its full timeout, so that a server which sends a byte now and then
holds a reader for ever; the sockets here give a receive only what is left of the deadline of
the whole try, from the first byte of the header to the last of the body.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import make_headers

from ..options import MOST_CONNECTIONS
from ..urls import split_credentials


class _Clock(threading.local):
    deadline = float("inf")


_clock = _Clock()


@contextmanager
def deadline(at: float) -> Iterator[None]:
    """Let every receive of this thread end with `TimeoutError` at a time of `time.monotonic`."""
    before, _clock.deadline = _clock.deadline, at
    try:
        yield
    finally:
        _clock.deadline = before


def seconds_left() -> float:
    """Return the seconds up to the deadline of this thread.

    Raises
    ------
    TimeoutError
        If it has passed.
    """
    left = _clock.deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for the request is up")
    return left


class _PunctualSocket(socket.socket):
    def recv(self, *args: Any) -> bytes:
        self.settimeout(_timeout())
        return super().recv(*args)

    def recv_into(self, *args: Any) -> int:
        self.settimeout(_timeout())
        return super().recv_into(*args)


class _PunctualSSLSocket(ssl.SSLSocket):
    def recv(self, *args: Any) -> bytes:
        self.settimeout(_timeout())
        return super().recv(*args)

    def recv_into(self, *args: Any) -> int:
        self.settimeout(_timeout())
        return super().recv_into(*args)


def _timeout() -> float | None:
    left = seconds_left()
    return None if left == float("inf") else left


def _punctual(sock: socket.socket) -> socket.socket:
    timeout = sock.gettimeout()
    punctual = _PunctualSocket(fileno=sock.detach())
    punctual.settimeout(timeout)
    return punctual


@contextmanager
def _closed_on_error(sock: socket.socket | None) -> Iterator[None]:
    """Close a socket at once if no answer can be made of what it says.

    Closing it in the usual way would wait for the half-made answer to be collected.
    """
    try:
        yield
    except BaseException:
        number = -1 if sock is None else sock.detach()
        if number >= 0:
            socket.close(number)
        raise


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _punctual(super()._new_conn())

    def getresponse(self) -> Any:
        with _closed_on_error(self.sock):
            return super().getresponse()


class _SecureConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _punctual(super()._new_conn())

    def getresponse(self) -> Any:
        with _closed_on_error(self.sock):
            return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}

_Route = tuple[str | None, str, str]
"""Proxy, and file and folder of trusted certificates."""

_managers: dict[_Route, PoolManager] = {}
_making = threading.Lock()


def manager(url: str) -> PoolManager:
    """Return the pool of connections that leads to a URL from this process.

    The proxy settings of the environment (or of the system) decide the way:
    ``http_proxy``, ``https_proxy``, ``no_proxy``. Certificates are held against ``certifi``'s
    bundle, or against what ``SSL_CERT_FILE``, ``SSL_CERT_DIR`` or ``REQUESTS_CA_BUNDLE`` names.

    Raises
    ------
    ValueError
        If the proxy is of a kind that is not supported.
    """
    route = (_proxy(url), *_certificates())
    found = _managers.get(route)
    if found is None:
        with _making:
            found = _managers.get(route)
            if found is None:
                found = _managers[route] = _new_manager(*route)
    return found


def close_idle() -> None:
    """Close the connections of this process that are kept open for later requests.

    No request may be under way.
    """
    for each in list(_managers.values()):
        pools = [each.pools.get(key) for key in each.pools.keys()]  # noqa: SIM118 - not iterable
        each.clear()
        for pool in pools:
            if pool is not None:
                pool.close()


def _new_manager(proxy: str | None, ca_file: str, ca_folder: str) -> PoolManager:
    context = ssl.create_default_context(cafile=ca_file or None, capath=ca_folder or None)
    context.sslsocket_class = _PunctualSSLSocket
    # The number of requests under way is bounded elsewhere; this is only how many idle
    # connections may be kept.
    settings: dict[str, Any] = {"maxsize": MOST_CONNECTIONS, "ssl_context": context}
    if proxy is None:
        made = PoolManager(**settings)
    else:
        address, userinfo = split_credentials(proxy)
        headers = make_headers(proxy_basic_auth=userinfo) if userinfo else None
        made = ProxyManager(address, proxy_headers=headers, **settings)
    made.pool_classes_by_scheme = _POOLS
    return made


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if urlsplit(proxy).scheme not in _POOLS:
        raise ValueError(
            f"the proxy for {parts.scheme} is a {urlsplit(proxy).scheme} proxy; only http and "
            "https proxies are supported"
        )
    return proxy


def _certificates() -> tuple[str, str]:
    bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE") or ""
    folder = os.environ.get("SSL_CERT_DIR") or ""
    if bundle and Path(bundle).is_dir():
        return "", bundle
    if not bundle and not folder:
        import certifi

        bundle = certifi.where()
    return bundle, folder


def _forget() -> None:
    # Two processes that write to one connection would read each other's answers.
    global _making
    _managers.clear()
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
