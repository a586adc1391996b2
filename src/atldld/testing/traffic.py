"""What a server was asked and what it answered, and what goes wrong on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

FaultKind = Literal[
    "latency", "hang", "drop", "400", "403", "404", "429", "500", "502", "503", "504",
    "html", "empty", "body", "reset", "short", "early-end", "slow", "truncated", "damaged",
    "wrong-size", "wrong-format", "rows", "early-hints", "two-answers",
]  # fmt: skip
RequestKind = Literal["image", "redirect", "metadata", "sync", "other"]

_ON_IMAGES = ("damaged", "wrong-size", "wrong-format")
_ON_METADATA = ("rows",)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and how it was answered.

    Parameters
    ----------
    number
        Counts from 0 in the order of answering.
    kind
        ``"image"``: the body of an image, delivered or attempted. ``"redirect"``: an image
        download that was redirected. ``"metadata"``, ``"sync"``, ``"other"``.
    path
        Path and query, decoded.
    status
        HTTP status that was sent; 0 where none was.
    bytes_sent
        Bytes of the body; while it is being sent, the bytes that are meant to be.
    fault
        Kind of the fault that hit the request, or None. A latency shows only where nothing
        else did.
    image_id, view, tier
        Of image requests, else None.
    left, top, width, height
        Of image requests: corner in full-resolution pixels of the slide, size in pixels of the
        tier, as asked of the image service.
    window
        ``(left, top, width, height)`` in pixels of the tier of the section, or None where the
        whole section was asked for.
    at
        Seconds since the log began.
    """

    number: int
    kind: RequestKind
    path: str
    status: int = 0
    bytes_sent: int = 0
    fault: str | None = None
    image_id: int | None = None
    view: str | None = None
    tier: int | None = None
    left: int | None = None
    top: int | None = None
    width: int | None = None
    height: int | None = None
    window: tuple[int, int, int, int] | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which requests go wrong.

    Parameters
    ----------
    kind
        What happens:

        ``"latency"``: the answer waits for `seconds`.
        ``"hang"``: nothing is ever answered; after `seconds` (or at the server's end) the
        connection is closed.
        ``"drop"``: the connection is closed without an answer.
        ``"404"``, ``"429"``, ``"500"``, ``"503"``, ...: that status, with ``Retry-After``
        where `retry_after` is given.
        ``"html"``: an HTML page with status 200.
        ``"empty"``: an empty body with status 200.
        ``"body"``: the caller's own `body`, `status` and `content_type`.
        ``"reset"``: the connection is reset in the middle of the body.
        ``"short"``: the connection is closed before the promised ``Content-Length`` came.
        ``"early-end"``: a chunked body that ends early, but well formed.
        ``"slow"``: the body drips, `piece` bytes every `seconds`.
        ``"truncated"``: the body is cut, with a ``Content-Length`` to match.
        ``"damaged"``: a JPEG whose head and end are whole, and whose inside is not.
        ``"wrong-size"``: a sound JPEG of another size.
        ``"wrong-format"``: the image as PNG.
        ``"rows"``: `rows` more rows are promised than ever come.
        ``"early-hints"``: an interim answer (status 103) comes `seconds` before the final one.
        ``"two-answers"``: the answer comes twice, at once, to one request.
    image_ids, views, tiers
        Only requests for these images, views and tiers; None for all.
    request
        Only requests of this kind: ``"image"`` (where the body of an image comes from),
        ``"redirect"`` (an image download that is redirected), ``"metadata"``, ``"sync"`` or
        ``"any"``. None is ``"metadata"`` for ``"rows"``, else ``"image"``.
    path
        Only requests whose path and query, decoded, contain this text.
    times
        How many matching requests are hit; None for all.
    skip
        How many matching requests pass first.
    every
        Of those after `skip`, only each `every`-th is hit, the first included.
    seconds
        See `kind`; None is 0.05, and for ``"hang"`` no end.
    retry_after
        Value of the ``Retry-After`` header: seconds, or any text.
    piece
        Bytes at a time of a ``"slow"`` body.
    rows
        How many rows are promised and never come.
    body, status, content_type
        The answer of a ``"body"``.

    Examples
    --------
    >>> Fault("503", image_ids=[7], times=2, retry_after=1).request
    'image'
    >>> Fault("rows", rows=202).request
    'metadata'
    """

    kind: FaultKind
    image_ids: Collection[int] | int | None = None
    views: Collection[str] | str | None = None
    tiers: Collection[int] | int | None = None
    request: Literal["image", "redirect", "metadata", "sync", "any"] | None = None
    path: str | None = None
    times: int | None = None
    skip: int = 0
    every: int = 1
    seconds: float | None = None
    retry_after: float | str | None = None
    piece: int = 1024
    rows: int = 202
    body: bytes = b""
    status: int = 200
    content_type: str = "image/jpeg"

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            known = ", ".join(get_args(FaultKind))
            raise ValueError(f"kind is {self.kind!r}; it must be one of {known}")
        for name in ("image_ids", "views", "tiers"):
            value = getattr(self, name)
            if value is not None:
                one = isinstance(value, int | str)
                object.__setattr__(self, name, (value,) if one else tuple(value))
        if self.request is None:
            usual = "metadata" if self.kind in _ON_METADATA else "image"
            object.__setattr__(self, "request", usual)
        for kinds, request in ((_ON_IMAGES, "image"), (_ON_METADATA, "metadata")):
            if self.kind in kinds and self.request != request:
                raise ValueError(f"{self.kind!r} is a fault of {request}s, not of {self.request!r}")
        if self.seconds is None and self.kind != "hang":
            object.__setattr__(self, "seconds", 0.05)
        if self.every < 1 or self.skip < 0 or self.piece < 1 or (self.seconds or 0.0) < 0:
            raise ValueError(f"every, skip, piece or seconds is out of range: {self}")

    def matches(self, asked: Request) -> bool:
        """Whether a request is of the kind, image, view and tier that this fault is for."""
        wanted = (
            (self.image_ids, asked.image_id),
            (self.views, asked.view),
            (self.tiers, asked.tier),
        )
        return (
            self.request in ("any", asked.kind)
            and all(
                some is None or (isinstance(some, tuple) and value in some)
                for some, value in wanted
            )
            and (self.path is None or self.path in asked.path)
        )


@dataclass(slots=True)
class _Armed:
    fault: Fault
    seen: int = 0
    hits: int = 0

    def draw(self) -> bool:
        """Count one more matching request; whether it is hit."""
        past = self.seen - self.fault.skip
        self.seen += 1
        spent = self.fault.times is not None and self.hits >= self.fault.times
        if past < 0 or past % self.fault.every or spent:
            return False
        self.hits += 1
        return True


class Faults:
    """The faults of a server; counts requests, for threads at once."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._armed = [_Armed(fault) for fault in faults]

    def add(self, fault: Fault) -> None:
        """Arm one more; its counting starts now."""
        with self._lock:
            self._armed.append(_Armed(fault))

    def clear(self) -> None:
        """Disarm all."""
        with self._lock:
            self._armed.clear()

    def draw(self, asked: Request) -> tuple[float, Fault | None]:
        """Return how many seconds of latency hit a request, and what else does: one at most."""
        seconds, other = 0.0, None
        with self._lock:
            for armed in self._armed:
                fault = armed.fault
                waits = fault.kind == "latency"
                if (waits or other is None) and fault.matches(asked) and armed.draw():
                    seconds += (fault.seconds or 0.0) if waits else 0.0
                    other = other if waits else fault
        return seconds, other


class Log:
    """The requests of a server, written by many threads; each is there before it is sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._serving = 0
        self._most = 0
        self._era = 0
        self._began = time.monotonic()

    def reset(self) -> None:
        """Forget all requests; the high water begins at what is being served."""
        with self._lock:
            self._requests = []
            self._most = self._serving
            self._era += 1
            self._began = time.monotonic()

    def enter(self) -> Callable[[], None]:
        """Note that one more request is being served; returns what ends it, once."""
        with self._lock:
            self._serving += 1
            self._most = max(self._most, self._serving)
        ended = False

        def leave() -> None:
            nonlocal ended
            with self._lock:
                self._serving -= 0 if ended else 1
                ended = True

        return leave

    def write(
        self, asked: Request, status: int, bytes_sent: int, fault: str | None
    ) -> tuple[int, int]:
        """Note an answer that is about to be sent; returns what `correct` wants."""
        with self._lock:
            number = len(self._requests)
            at = time.monotonic() - self._began
            record = replace(
                asked, number=number, status=status, bytes_sent=bytes_sent, fault=fault, at=at
            )
            self._requests.append(record)
            return self._era, number

    def correct(self, place: tuple[int, int], bytes_sent: int) -> None:
        """Note how many bytes were sent in the end."""
        era, number = place
        with self._lock:
            if era == self._era:
                self._requests[number] = replace(self._requests[number], bytes_sent=bytes_sent)

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order of answering."""
        with self._lock:
            return list(self._requests)

    @property
    def high_water(self) -> int:
        """The most requests that were being served at one time."""
        with self._lock:
            return self._most
