"""What can go wrong with a request, in words that name no URL and no password."""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, Final

from urllib3 import exceptions as raised

from ..errors import plain

_LONGEST: Final = 2**16


class FaultError(Exception):
    """Why one try failed.

    Parameters
    ----------
    cause
        In words, without the URL.
    again
        Whether another try makes sense.
    status
        HTTP status code, if an answer came.
    rest
        Seconds for which the service asked to be left alone, or None.
    """

    def __init__(
        self,
        cause: str,
        again: bool = True,
        status: int | None = None,
        rest: float | None = None,
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.again = again
        self.status = status
        self.rest = rest


def worth_retrying(status: int) -> bool:
    """Whether another try may have an answer that is not of this HTTP status."""
    return status in (408, 429) or status >= 500


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks to wait, or None.

    Parameters
    ----------
    headers
        Of the answer; the header holds seconds or an HTTP date (RFC 9110, section 10.2.3).
    now
        Seconds since the epoch.
    """
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        date = email.utils.parsedate_to_datetime(text)
        return max(date.timestamp() - now, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def said(body: bytes) -> str:
    """Return what the body of an error says: its ``msg``, its title or its first words."""
    text = body[:_LONGEST].decode("utf-8", "replace")
    try:
        envelope = json.loads(text)
    except (ValueError, RecursionError):
        title = re.search(r"<title[^>]*>(.*?)</title", text, re.IGNORECASE | re.DOTALL)
        text = title[1] if title else re.sub(r"<[^>]*>", " ", text)
    else:
        message = envelope.get("msg") if isinstance(envelope, dict) else None
        text = message if isinstance(message, str) else text
    return plain(text)


@contextmanager
def as_fault() -> Iterator[None]:
    """Turn whatever the libraries below raise into a `FaultError`."""
    try:
        yield
    except FaultError:
        raise
    except (raised.HTTPError, HTTPException, OSError, ValueError) as error:
        raise fault_of(error) from error


def fault_of(error: Exception) -> FaultError:
    """Put an exception of the libraries below into words."""
    # The order counts: some of these are special cases of others.
    match error:
        case raised.NameResolutionError():
            return FaultError("the name of the host cannot be resolved")
        case raised.NewConnectionError():
            return FaultError(f"no connection: {_root(error)}")
        case raised.ConnectTimeoutError():
            return FaultError("no connection within the time limit (option timeout)")
        case raised.TimeoutError() | TimeoutError():
            return FaultError("no complete answer within the time limit (option timeout)")
        case raised.IncompleteRead():
            return FaultError(f"the body ended early, after {_length(error)} bytes")
        case raised.DecodeError():
            return FaultError("the body cannot be decompressed")
        case raised.SSLError() if "CERTIFICATE_VERIFY" in str(error):
            return FaultError(f"its certificate is not trusted: {_root(error)}", again=False)
        case raised.SSLError():
            return FaultError(f"no secure connection: {_root(error)}")
        case raised.ProxyError():
            return FaultError(f"the proxy failed: {_root(error)}")
        case raised.LocationValueError():
            return FaultError("the address is not one that can be asked", again=False)
        case ValueError():
            return FaultError(plain(str(error)), again=False)
    return FaultError(f"the connection broke: {_root(error)}")


def _root(error: BaseException) -> str:
    """Return the words of the first cause; those of the wrappers name pools and objects."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner: Any = error.__cause__ or error.__context__
        if inner is None:
            inner = next((each for each in error.args if isinstance(each, BaseException)), None)
        if inner is None or isinstance(inner, FaultError):
            break
        error = inner
    return plain(str(error) or type(error).__name__)


def _length(error: raised.IncompleteRead) -> str:
    partial, expected = error.partial, error.expected
    return f"{partial} of {None if expected is None else partial + expected}"
