"""One request and what came of it, whatever it was: for questions about a service.

`transport` fetches what is known to be wanted, and turns all else into errors; here the errors
are the answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from urllib3 import Timeout
from urllib3.util import make_headers

from .. import __version__
from ..urls import redirected, same_origin, split_credentials, without_credentials, without_secrets
from .connection import deadline, manager, seconds_left
from .faults import FaultError, as_fault
from .jpeg import kind_of

_MOST_REDIRECTS: Final = 5
_PIECE: Final = 2**16


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a service answered to one request.

    Parameters
    ----------
    url
        What was asked, without credentials.
    status
        HTTP status of the last answer, or None if there was none.
    content_type
        As the service says it; empty if it does not.
    body
        At most as much as was asked for.
    hops
        Where redirects led, one after another, without credentials and query.
    seconds
        From the asking to the last byte.
    fault
        What went wrong below HTTP, in words; empty if nothing did.
    """

    url: str
    status: int | None = None
    content_type: str = ""
    body: bytes = b""
    hops: tuple[str, ...] = ()
    seconds: float = 0.0
    fault: str = ""

    @property
    def kind(self) -> str:
        """What the body is, in words."""
        return "a JPEG" if self.body.startswith(b"\xff\xd8\xff") else kind_of(self.body)

    @property
    def form(self) -> str:
        """Status and kind of body, as in ``"404, text"``."""
        return self.fault or f"{self.status}, {self.kind}"


def exchange(url: str, seconds: float, most_bytes: int = 2**26) -> Exchange:
    """Ask once, follow redirects on the web, and return what came; nothing is raised.

    Parameters
    ----------
    url
        An http or https URL; a name and password in it are sent to its own host alone.
    seconds
        Within which the last byte must have come.
    most_bytes
        A longer body is left.
    """
    began = time.monotonic()
    hops: list[str] = []
    status: int | None = None
    content_type, body, fault = "", b"", ""
    try:
        with deadline(began + seconds), as_fault():
            target = url
            while True:
                status, headers, body = _answer(target, url, most_bytes)
                content_type = headers.get("content-type", "")
                if status not in (301, 302, 303, 307, 308) or "location" not in headers:
                    break
                if len(hops) == _MOST_REDIRECTS:
                    raise FaultError(f"redirected more than {_MOST_REDIRECTS} times")
                target = redirected(target, headers["location"])
                hops.append(without_secrets(target).removesuffix("?..."))
    except FaultError as error:
        fault = error.cause
    shown = without_credentials(url)
    return Exchange(shown, status, content_type, body, tuple(hops), time.monotonic() - began, fault)


def _answer(url: str, asked: str, most_bytes: int) -> tuple[int, dict[str, str], bytes]:
    address, _ = split_credentials(url)
    sent = {"User-Agent": f"atldld/{__version__}", "Accept": "*/*"}
    credentials = split_credentials(asked)[1] if same_origin(asked, url) else None
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
        timeout=Timeout(connect=left, read=left),
    )
    pieces, size = [], 0
    whole = False
    try:
        if response.status < 200:
            # The real answer follows on this connection, and would be read by the next request.
            raise FaultError(f"an interim answer (HTTP status {response.status})")
        for piece in response.stream(_PIECE, decode_content=True):
            seconds_left()
            pieces.append(piece)
            size += len(piece)
            if size > most_bytes:
                raise FaultError(f"the body has more than {most_bytes} bytes")
        whole = True
    finally:
        if not whole:
            response.close()
        response.release_conn()
    headers = {name.lower(): value for name, value in response.headers.items()}
    return response.status, headers, b"".join(pieces)
