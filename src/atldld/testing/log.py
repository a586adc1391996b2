"""What a server was asked, and what it answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from .traffic import RequestKind, Subject


@dataclass(frozen=True, slots=True)
class Request:
    """One answered request.

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
    status: int
    bytes_sent: int
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

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave."""
        window = values["window"]
        return cls(**{**values, "window": None if window is None else tuple(window)})

    def to_json(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold."""
        return asdict(self)


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
        self, subject: Subject, status: int, bytes_sent: int, fault: str | None
    ) -> tuple[int, int]:
        """Note an answer that is about to be sent; returns what `correct` wants."""
        with self._lock:
            number = len(self._requests)
            record = Request(
                number=number,
                kind=subject.kind,
                path=subject.path,
                status=status,
                bytes_sent=bytes_sent,
                fault=fault,
                image_id=subject.image_id,
                view=subject.view,
                tier=subject.tier,
                left=subject.left,
                top=subject.top,
                width=subject.width,
                height=subject.height,
                window=subject.window,
                at=time.monotonic() - self._began,
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
