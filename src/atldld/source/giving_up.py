"""Work in other threads that its asker has walked away from."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import ContextVar

_left: ContextVar[threading.Event | None] = ContextVar("atldld_left", default=None)


@contextmanager
def given_up_by(left: threading.Event) -> Iterator[None]:
    """Let the pauses of this thread end once an event is set, which says that nobody waits.

    What is under way is finished, for it will be kept; nothing is tried again.
    """
    before = _left.set(left)
    try:
        yield
    finally:
        _left.reset(before)


def pause(seconds: float) -> None:
    """Wait before another try.

    Raises
    ------
    CancelledError
        If nobody waits for the work any more.
    """
    left = _left.get()
    if left is None:
        time.sleep(seconds)
    elif left.wait(seconds):
        raise CancelledError("nobody waits for this any more")
