"""HTTP: whole bodies, bounded in number, size and time, with retries that cover the body.

`requests` is the client. It knows proxies, certificates, passwords and redirects. What it does
not know is here: a time limit for the whole of a try, a limit for the size of a body, tries that
end with the last byte and with a check of what came.

Each try has a session of its own, and each request a connection of its own. Where connections
are used again, an answer that nobody asked for (an interim one, a second one) is read as the
answer to the next request: an image of another section. That a connection has nothing to read
before it is used again is no proof: such an answer may come a moment later, and an image of the
same size passes every check. What is trusted is read once a process. Measured with 64 bodies of
30 kB by TLS from this machine, 8 threads, the server waiting for the round trips of one farther
away (seconds; of the client's processor time in brackets)::

    round trip                                 0 ms          20 ms         100 ms
    certificates read for each connection      5.1 (1.6)     3.8 (1.6)     4.1 (1.6)
    certificates read once, as here            0.2 (0.2)     0.8 (0.2)     2.6 (0.2)
    connections kept                           0.7 (0.3)     0.7 (0.2)     1.4 (0.2)
"""

from __future__ import annotations

import email.utils
import errno
import json
import logging
import os
import random
import re
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from http.client import IncompleteRead
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from .. import __version__, process
from ..errors import APIError, plain
from ..options import Options, current
from ..process import PerProcess
from ..urls import redirected, without_credentials, without_secrets
from . import limit

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

_log = logging.getLogger("atldld")

MOST_REDIRECTS: Final = 5

_PIECE: Final = 2**18
_MOST_OF_AN_ERROR: Final = 2**16
_FIRST_PAUSE: Final = 0.5
_IDLE_SECONDS: Final = 60.0
_CONNECT_SECONDS: Final = 15.0
"""For each address of a host; the next one is tried after."""

_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_TOO_LATE: Final = "no complete answer within the time limit (option timeout)"
_UNREACHED: Final = (
    errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EACCES,
)  # fmt: skip


class UnfitBodyError(Exception):
    """Raised by a check: the body is not what was asked for, another try may bring it."""


class FaultError(Exception):
    """Why one try failed.

    Parameters
    ----------
    cause
        In words that name no URL and no password.
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


Check = Callable[[bytes, Mapping[str, str]], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request brought, after redirects.

    Parameters
    ----------
    status
        HTTP status code.
    headers
        Names in any case.
    content
        The body; of a status that was not wanted only the beginning.
    hops
        Where redirects led, one after another, without credentials and query.
    tries
        How many it took.
    whole_bytes
        Of a part of a file: how many bytes the file has, if the service says so.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    hops: tuple[str, ...] = ()
    tries: int = 1
    whole_bytes: int | None = None


def fetch(
    url: str,
    *,
    limit_bytes: int,
    check: Check | None = None,
    headers: Mapping[str, str] | None = None,
    byte_range: tuple[int, int] | None = None,
    options: Options | None = None,
) -> Answer:
    """Return the whole body that a URL answers with, or a part of it.

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
    byte_range
        First byte and the byte after the last of a part of a file; the end of the file may
        cut it short.
    options
        By default those of this moment.

    Returns
    -------
    Answer
        Its body is whole.

    Raises
    ------
    APIError
        If it could not be had; the message says how many tries were made and what was wrong
        with the last one, `status` is that of the last answer.
    CancelledError
        If nobody waits for it any more (see `process`).
    """
    options = current() if options is None else options
    shown = without_credentials(url)
    sent = {"Accept-Encoding": "identity", **(headers or {})}
    if byte_range is not None:
        sent["Range"] = f"bytes={byte_range[0]}-{byte_range[1] - 1}"
        limit_bytes = min(limit_bytes, byte_range[1] - byte_range[0])
    wanted = (200, 203) if byte_range is None else (206,)
    ends = time.monotonic() + options.longest
    for number in range(1, options.retries + 2):
        try:
            with limit.connection(url, options.max_connections, options.timeout, ends):
                until = min(time.monotonic() + options.timeout, ends)
                answer = ask(url, until, limit_bytes=limit_bytes, wanted=wanted, headers=sent)
            if answer.status not in wanted:
                raise _refusal(answer, byte_range)
            whole_bytes = None if byte_range is None else _part(answer, byte_range)
            if check is not None:
                check(answer.content, answer.headers)
            return replace(answer, tries=number, whole_bytes=whole_bytes)
        except UnfitBodyError as unfit:
            fault = FaultError(str(unfit), status=200)
        except limit.NoPlaceError as taken:
            fault = FaultError(f"there was no connection free: {taken}", again=False)
        except FaultError as raised:
            fault = raised
        seconds, left = _pause(number, fault, options), ends - time.monotonic()
        if not fault.again or number > options.retries or seconds >= left:
            break
        _log.info("try %d for %s failed: %s; again in %.1f s", number, shown, fault.cause, seconds)
        process.pause(seconds)
    raise APIError(_summary(fault, number, left), url=shown, status=fault.status)


def ask(
    url: str,
    until: float,
    *,
    limit_bytes: int,
    wanted: Collection[int] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask once, follow redirects on the web, and return what came.

    The request is made in another thread, so that it can be left at any moment: `requests`
    gives each single receive its time, and none to the whole.

    Parameters
    ----------
    url
        An http or https URL; a name and password in it are sent to its own host alone.
    until
        When the last byte must have come, by `time.monotonic`.
    limit_bytes
        A longer body is an error.
    wanted
        HTTP statuses whose bodies are wanted whole; None for all.
    headers
        Of the request.

    Raises
    ------
    FaultError
        If no whole answer came.
    CancelledError
        If nobody waits for it any more.
    """
    exchange = _Exchange(url, until, limit_bytes, wanted, headers or {})
    try:
        _threads.value.begin(exchange.run)
    except RuntimeError:
        # The system gives no more threads.
        exchange.run()
    try:
        if not process.wait(exchange.is_done, until):
            raise FaultError(_TOO_LATE)
    except FaultError:
        # A refusal is one without its words.
        refusal = exchange.refusal()
        if refusal is None:
            raise
        return refusal
    finally:
        exchange.leave()
    return exchange.outcome.result()


class _ExchangeThreads:
    """Threads that make one exchange after another, as many as there are exchanges at once.

    They are kept for a while, not made for each exchange: where threads end while the profiler of
    dask.distributed looks at all threads, Python before 3.11.9 can stand still for ever [1]_. They
    are daemons, because nothing ends a look-up of a name or a wait for a silent server: whoever
    left such an exchange does not wait for it when Python ends.

    References
    ----------
    .. [1] https://github.com/python/cpython/issues/106883
    """

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[Callable[[], None]]] = []

    def begin(self, work: Callable[[], None]) -> None:
        """Let a thread that is idle do the work, or a new one."""
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = SimpleQueue()
            threading.Thread(
                target=self._serve, args=(inbox,), name="atldld-http", daemon=True
            ).start()
        inbox.put(work)

    def _serve(self, inbox: SimpleQueue[Callable[[], None]]) -> None:
        while True:
            try:
                work = inbox.get(timeout=_IDLE_SECONDS)
            except Empty:
                try:
                    self._idle.remove(inbox)
                except ValueError:
                    # Somebody took it just now: work is on its way.
                    continue
                return
            work()
            del work
            self._idle.append(inbox)


_threads = PerProcess(_ExchangeThreads)


class _Exchange:
    """One try, redirects included, that another thread waits for, or leaves."""

    def __init__(
        self,
        url: str,
        until: float,
        limit_bytes: int,
        wanted: Collection[int] | None,
        headers: Mapping[str, str],
    ) -> None:
        self.outcome: Future[Answer] = Future()
        self._url = url
        self._until = until
        self._limit_bytes = limit_bytes
        self._wanted = wanted
        self._headers = headers
        self._hops: list[str] = []
        self._response: requests.Response | None = None
        self._left = False

    def is_done(self, seconds: float) -> bool:
        """Wait for at most some seconds, and say whether the outcome is there."""
        return bool(wait_for({self.outcome}, seconds).done)

    def refusal(self) -> Answer | None:
        """Return what has come if its status alone is of interest."""
        response = self._response
        if response is None or self._is_wanted(response):
            return None
        return Answer(response.status_code, response.headers, b"", tuple(self._hops))

    def _is_wanted(self, response: requests.Response) -> bool:
        return self._wanted is None or response.status_code in self._wanted

    def leave(self) -> None:
        """Let the connection be closed as soon as may be, if it is open: nobody waits any more."""
        self._left = True
        response, self._response = self._response, None
        if response is not None:
            with suppress(Exception):
                # Ends the receive that the other thread is in, which then closes it.
                response.raw.shutdown()

    def run(self) -> None:
        """Fill in the outcome."""
        try:
            answer = self._answer()
        except FaultError as fault:
            self.outcome.set_exception(fault)
        except Exception as error:
            # Whatever the client makes of what a server sends.
            made = fault_of(error)
            for cause in _causes(error):
                # A half-made answer in there would keep its socket until it is collected.
                traceback.clear_frames(cause.__traceback__)
            self.outcome.set_exception(made)
        else:
            self.outcome.set_result(answer)

    def _answer(self) -> Answer:
        import requests

        seconds = max(self._until - time.monotonic(), 0.001)
        sent = {"User-Agent": f"atldld/{__version__}", "Connection": "close", **self._headers}
        with requests.Session() as session:
            session.max_redirects = MOST_REDIRECTS
            session.mount("https://", _adapter())
            response = session.get(
                self._url,
                headers=sent,
                stream=True,
                timeout=(min(seconds, _CONNECT_SECONDS), seconds),
                hooks={"response": lambda each, *_, **__: self._look_at(session, each)},
            )
            with response:
                self._response = response
                content = b"".join(self._pieces(response))
        return Answer(response.status_code, response.headers, content, tuple(self._hops))

    def _look_at(self, session: requests.Session, response: requests.Response) -> None:
        """Look at the head of each answer, before a redirect is followed."""
        if response.status_code < 200:
            # The real answer follows on this connection.
            response.close()
            raise FaultError(f"an interim answer (HTTP status {response.status_code})")
        location = session.get_redirect_target(response)
        if location is not None:
            response.close()
            try:
                target = redirected(response.url, location)
            except ValueError as error:
                raise FaultError(str(error), again=False) from None
            self._hops.append(without_secrets(target).removesuffix("?..."))

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        wanted = self._is_wanted(response)
        declared = response.headers.get("content-length", "")
        if wanted and declared.isdecimal() and int(declared[:20]) > self._limit_bytes:
            raise FaultError(
                f"the body has {declared[:20]} bytes, more than the {self._limit_bytes} expected",
                again=False,
            )
        size = 0
        for piece in response.iter_content(_PIECE if wanted else _MOST_OF_AN_ERROR):
            if self._left:
                raise FaultError("nobody waits for it")
            yield piece
            size += len(piece)
            if not wanted:
                return
            if size > self._limit_bytes:
                raise FaultError(
                    f"the body has more than the {self._limit_bytes} bytes expected", again=False
                )
        if wanted and size == 0 and not declared:
            # This is what a header that was cut off looks like.
            raise FaultError("the connection closed before the body")


def _adapter() -> HTTPAdapter:
    """Return what asks by https, and trusts what the environment says, or else `requests`."""
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        """Takes certificates that were read before: reading them takes longer than asking."""

        def build_connection_pool_key_attributes(
            self, request: Any, verify: Any, cert: Any = None
        ) -> tuple[Any, Any]:
            host, _ = super().build_connection_pool_key_attributes(request, True, cert)
            return host, {"ssl_context": _trusted(), "cert_reqs": "CERT_REQUIRED"}

        def proxy_manager_for(self, proxy: Any, **of_proxy: Any) -> Any:
            of_proxy.setdefault("proxy_ssl_context", _trusted())
            return super().proxy_manager_for(proxy, **of_proxy)

        def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
            """Leave it to the context."""

    return Adapter()


def _trusted() -> ssl.SSLContext:
    """Return what the environment says is trusted, or else what `requests` trusts."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    name = next((name for name in _CERTIFICATES if os.environ.get(name)), "")
    named = Path(os.environ[name] if name else DEFAULT_CA_BUNDLE_PATH)
    try:
        return _read_certificates(named, named.stat().st_mtime_ns)
    except FileNotFoundError:
        missing = f"{name} names a file of certificates that is not there"
        raise FaultError(missing, again=False) from None


@lru_cache(maxsize=4)
def _read_certificates(named: Path, changed: int) -> ssl.SSLContext:
    """Return what the certificates of a file or folder, as of a time, vouch for."""
    if named.is_dir():
        return ssl.create_default_context(capath=str(named))
    return ssl.create_default_context(cafile=str(named))


def _part(answer: Answer, byte_range: tuple[int, int]) -> int | None:
    """Return the bytes of the whole of which an answer is the part that was asked for."""
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise FaultError("a part of a file came compressed", again=False, status=answer.status)
    given = answer.headers.get("content-range", "")
    found = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", given.strip())
    if found is None:
        raise FaultError("a part of a file came without its place", status=answer.status)
    first, last = int(found[1]), int(found[2])
    whole = None if found[3] == "*" else int(found[3])
    start, stop = byte_range
    if first != start or last + 1 - first != len(answer.content):
        raise FaultError(f"bytes {first} to {last} came instead of {start} to {stop - 1}")
    if last + 1 != stop and last + 1 != whole:
        raise FaultError(f"only {len(answer.content)} of {stop - start} bytes came")
    return whole


def _refusal(answer: Answer, byte_range: tuple[int, int] | None) -> FaultError:
    if byte_range is not None and answer.status == 200:
        return FaultError("the service sends files whole, not in parts", False, 200)
    text = error_text(answer.content)
    cause = f"HTTP status {answer.status}" + (f", saying {text!r}" if text else "")
    rest = retry_after(answer.headers, time.time()) if answer.status in (429, 503) else None
    return FaultError(cause, is_retryable(answer.status), answer.status, rest)


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


def is_retryable(status: int) -> bool:
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


def error_text(body: bytes) -> str:
    """Return what the body of an error says: its ``msg``, its title or its first words."""
    text = body[:_MOST_OF_AN_ERROR].decode("utf-8", "replace")
    try:
        envelope = json.loads(text)
    except (ValueError, RecursionError):
        title = re.search(r"<title[^>]*>(.*?)</title", text, re.IGNORECASE | re.DOTALL)
        text = title[1] if title else re.sub(r"<[^>]*>", " ", text)
    else:
        message = envelope.get("msg") if isinstance(envelope, dict) else None
        text = message if isinstance(message, str) else text
    return plain(text)


def fault_of(error: Exception) -> FaultError:
    """Put what `requests` raises, and what it raises it for, into words."""
    from requests import exceptions as raised

    causes = _causes(error)
    root = plain(str(causes[-1]) or type(causes[-1]).__name__)
    socks = "neither http nor https leads there; for a SOCKS proxy: pip install pysocks"
    # What is raised, the words for it, and whether another try makes sense. The order counts: some
    # of these are special cases of others.
    for kinds, words, again in (
        (raised.TooManyRedirects, f"redirected more than {MOST_REDIRECTS} times", False),
        (raised.InvalidProxyURL, "the address of the proxy is not one that can be asked", False),
        (raised.ProxyError, f"the proxy failed: {root}", True),
        (socket.gaierror, "the name of the host cannot be resolved", True),
        (raised.ConnectTimeout, "no connection within the time limit (option timeout)", True),
        (raised.Timeout, _TOO_LATE, True),
        (TimeoutError, _TOO_LATE, True),
        (ssl.SSLCertVerificationError, f"its certificate is not trusted: {root}", False),
        (ssl.SSLError, f"no secure connection: {root}", True),
        (raised.ContentDecodingError, "the body cannot be decompressed", True),
        (IncompleteRead, f"the body ended early, after {_length(causes)} bytes", True),
        (raised.InvalidSchema, socks, False),
    ):
        if any(isinstance(each, kinds) for each in causes):
            return FaultError(words, again)
    if isinstance(error, ValueError) and not isinstance(error, raised.InvalidHeader):
        return FaultError("the address is not one that can be asked", again=False)
    if any(getattr(each, "errno", None) in _UNREACHED for each in causes):
        return FaultError(f"no connection: {root}")
    return FaultError(f"the connection broke: {root}")


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error, what it was raised for, what that was raised for, and so on."""
    found: list[BaseException] = []
    coming: Any = error
    while coming is not None and all(coming is not each for each in found):
        found.append(coming)
        inner = [getattr(coming, "reason", None), coming.__cause__, coming.__context__]
        inner += coming.args
        coming = next((each for each in inner if isinstance(each, BaseException)), None)
    return found


def _length(causes: list[BaseException]) -> str:
    for each in causes:
        if isinstance(each, IncompleteRead):
            read = each.partial if isinstance(each.partial, int) else len(each.partial)
            return f"{read} of {None if each.expected is None else read + each.expected}"
    return "?"
