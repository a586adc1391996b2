"""HTTP: whole bodies, bounded in number, size and time, with retries that cover the body.

One transport on `urllib3` serves metadata and images: what is built on top of it (`requests`,
say) retries the opening of a request, not a body that breaks off, and is slower on many small
files. A body counts as fetched once its last byte has come and the caller's check has
accepted it; until then every fault is tried again.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Final

from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import HTTPError
from urllib3.util import make_headers

from .. import __version__
from ..errors import APIError
from ..options import Options, current
from ..urls import redirected, same_origin, split_credentials, without_credentials
from . import connection
from .cluster import machines, share_of
from .connection import deadline, manager, seconds_left
from .faults import FaultError, as_fault, retry_after, said, worth_retrying
from .giving_up import pause
from .machine import one_of, places_folder

_log = logging.getLogger("atldld")

MOST_REDIRECTS: Final = 5

_PIECE: Final = 2**18
_MOST_OF_AN_ERROR: Final = 2**16
_FIRST_PAUSE: Final = 0.5
_CONNECT_SECONDS: Final = 15.0
"""Seconds for each address of a host; the next one is tried after."""


class UnfitBodyError(Exception):
    """Raised by a check: the body is not what was asked for, another try may bring it."""


Check = Callable[[bytes, Mapping[str, str]], None]


@dataclass(frozen=True, slots=True)
class Body:
    """A whole body and how it came.

    Parameters
    ----------
    content
        The bytes.
    headers
        Headers of the answer; names in any case.
    tries
        How many tries it took.
    """

    content: bytes
    headers: Mapping[str, str]
    tries: int


def fetch(
    url: str,
    *,
    limit_bytes: int,
    check: Check | None = None,
    headers: Mapping[str, str] | None = None,
    options: Options | None = None,
) -> Body:
    """Return the whole body that a URL answers with.

    Parameters
    ----------
    url
        An http or https URL; a name and password in it are sent as basic authentication.
    limit_bytes
        A body of more bytes is refused while it arrives.
    check
        Looks at body and headers, and raises `UnfitBodyError` if they are not what was
        asked for.
    headers
        Further headers of the request.
    options
        By default those of this moment.

    Returns
    -------
    Body

    Raises
    ------
    APIError
        If it could not be had; the message says how many tries were made and what was wrong
        with the last one, `status` is that of the last answer.
    CancelledError
        If this was done for someone who has walked away (see `giving_up`).
    """
    options = current() if options is None else options
    shown = without_credentials(url)
    left = options.timeout * (options.retries + 1)
    for number in range(1, options.retries + 2):
        try:
            most = share_of(options.max_connections, machines())
            with _slots.one(most), one_of(places_folder(url), most):
                began = time.monotonic()
                until = began + min(options.timeout, left)
                try:
                    content, answered = _attempt(url, headers or {}, limit_bytes, until)
                finally:
                    left -= time.monotonic() - began
            if check is not None:
                check(content, answered)
            return Body(content, answered, number)
        except UnfitBodyError as unfit:
            fault = FaultError(str(unfit), status=200)
        except FaultError as raised:
            fault = raised
        seconds = _pause(number, fault, options)
        if not fault.again or number > options.retries or seconds >= left:
            break
        _log.info("try %d for %s failed: %s; again in %.1f s", number, shown, fault.cause, seconds)
        left -= seconds
        pause(seconds)
    raise APIError(_summary(fault, number, left), url=shown, status=fault.status)


def close_idle() -> None:
    """Close the connections that are kept for later requests, if no request is under way."""
    _slots.while_all_free(connection.close_idle)


def _attempt(
    url: str, headers: Mapping[str, str], limit_bytes: int, until: float
) -> tuple[bytes, Mapping[str, str]]:
    """Make one try, redirects included, and return body and headers, or raise a `FaultError`."""
    with deadline(until), as_fault():
        target = url
        for _ in range(MOST_REDIRECTS + 1):
            # A service may send a client elsewhere, but not its password.
            credentials = split_credentials(url)[1] if same_origin(url, target) else None
            with _answer(target, headers, credentials) as response:
                if response.status in (301, 302, 303, 307, 308) and "location" in response.headers:
                    target = redirected(target, response.headers["location"])
                    _drop(response)
                    continue
                if response.status not in (200, 203):
                    raise _refusal(response)
                return _read(response, limit_bytes), response.headers
    raise FaultError(f"redirected more than {MOST_REDIRECTS} times", again=False)


@contextmanager
def _answer(
    url: str, headers: Mapping[str, str], credentials: str | None
) -> Iterator[BaseHTTPResponse]:
    address, _ = split_credentials(url)
    sent = {"User-Agent": f"atldld/{__version__}", "Accept": "*/*", **headers}
    if credentials is not None:
        sent |= make_headers(basic_auth=credentials)
    left = seconds_left()
    response = manager(address).urlopen(
        "GET",
        address,
        headers=sent,
        redirect=False,
        retries=False,
        preload_content=False,
        timeout=Timeout(connect=min(left, _CONNECT_SECONDS), read=left),
    )
    whole = False
    try:
        if response.status < 200:
            # The real answer follows on this connection, and would be read by the next request.
            raise FaultError(f"an interim answer (HTTP status {response.status})")
        yield response
        whole = True
    finally:
        if not whole:
            # What is left of the body must not be read as the answer to the next request.
            response.close()
        response.release_conn()


def _read(response: BaseHTTPResponse, limit_bytes: int) -> bytes:
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit_bytes:
        raise FaultError(
            f"the body has {declared[:20]} bytes, more than the {limit_bytes} expected", again=False
        )
    pieces = []
    size = 0
    for piece in response.stream(_PIECE, decode_content=True):
        seconds_left()
        pieces.append(piece)
        size += len(piece)
        if size > limit_bytes:
            raise FaultError(
                f"the body has more than the {limit_bytes} bytes expected", again=False
            )
    if size == 0 and not declared:
        # This is what a header that was cut off looks like.
        raise FaultError("the connection closed before the body")
    return b"".join(pieces)


def _drop(response: BaseHTTPResponse) -> None:
    """Read the short rest of an answer that nobody needs, or else close the connection."""
    try:
        _read(response, _MOST_OF_AN_ERROR)
    except FaultError:
        response.close()


def _refusal(response: BaseHTTPResponse) -> FaultError:
    status = response.status
    try:
        text = said(_read(response, _MOST_OF_AN_ERROR))
    except (FaultError, HTTPError, HTTPException, OSError):
        response.close()
        text = ""
    cause = f"HTTP status {status}" + (f", saying {text!r}" if text else "")
    rest = retry_after(response.headers, time.time()) if status in (429, 503) else None
    return FaultError(cause, worth_retrying(status), status, rest)


def _pause(number: int, fault: FaultError, options: Options) -> float:
    """Return the seconds to wait after try `number`, at random so that crowds disperse."""
    longest = min(_FIRST_PAUSE * 2.0 ** (number - 1), options.timeout / 20)
    pause = longest * random.uniform(0.5, 1.0)
    return pause if fault.rest is None else max(fault.rest, pause)


def _summary(fault: FaultError, tries: int, left: float) -> str:
    text = fault.cause
    if fault.rest is not None and fault.rest >= left:
        text += f"; it asks to be left alone for {fault.rest:.0f} s, longer than we may wait"
    return text if tries == 1 else f"gave up after {tries} tries, the last: {text}"


class _Slots:
    """Bounds how many requests are under way at once, by an option that may change."""

    def __init__(self) -> None:
        self._free = threading.Condition(threading.Lock())
        self._taken = 0

    @contextmanager
    def one(self, most: int) -> Iterator[None]:
        """Hold one of `most` slots for the time of the block."""
        with self._free:
            while self._taken >= most:
                self._free.wait()
            self._taken += 1
        try:
            yield
        finally:
            with self._free:
                self._taken -= 1
                # Not all who wait go by the same number.
                self._free.notify_all()

    def while_all_free(self, work: Callable[[], None]) -> None:
        """Do some short work if no slot is taken, and let none be taken meanwhile."""
        with self._free:
            if not self._taken:
                work()


_slots = _Slots()


def _forget() -> None:
    global _slots
    _slots = _Slots()


if hasattr(os, "register_at_fork"):
    # The requests of the parent's threads are not the child's.
    os.register_at_fork(after_in_child=_forget)
