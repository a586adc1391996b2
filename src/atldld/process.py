"""What a process owns, and waits in it that end once nobody waits for what they bring.

A forked child makes anew what its parent owned: the threads of a parent are not in its child. A
lock that one of them held, or work that it had begun, would be waited for there without end.

Python joins the threads of dask and of `concurrent.futures` before it ends, and a worker of a
cluster joins those of its tasks. So whatever waits here looks up now and then: whether whoever
asked has walked away, the computation was interrupted (Ctrl-C), the interpreter is about to end,
or the worker is closing.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

_LOOK_UP: Final = 0.25
"""Seconds."""


class PerProcess(Generic[T]):
    """A value that a forked child does not share with its parent.

    To be made once, at the top of a module; it is never forgotten.

    Parameters
    ----------
    make
        Makes the value, here and in each forked child.

    Examples
    --------
    >>> import threading
    >>> lock = PerProcess(threading.Lock)
    >>> with lock.value:
    ...     pass
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self.value = make()
        self._make = make
        _all.append(self)

    def renew(self) -> None:
        """Make the value anew."""
        self.value = self._make()


_all: Final[list[PerProcess[Any]]] = []


def _renew_all() -> None:
    for each in _all:
        each.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


def first_time(key: Hashable) -> bool:
    """Whether this is the first time in this process that a key is asked for."""
    mine = object()
    return _seen.value.setdefault(key, mine) is mine


_seen: PerProcess[dict[Hashable, object]] = PerProcess(dict)


_left: ContextVar[threading.Event | None] = ContextVar("atldld_left", default=None)


@contextmanager
def cancelled_by(left: threading.Event) -> Iterator[None]:
    """Let the waits of this context end once an event is set, which says that nobody waits."""
    before = _left.set(left)
    try:
        yield
    finally:
        _left.reset(before)


def cancelled() -> bool:
    """Whether nobody waits any more for what this thread does."""
    left = _left.get()
    return (left is not None and left.is_set()) or _interpreter_ends() or _worker_closes()


def wait(ready: Callable[[float], object], until: float) -> bool:
    """Wait until something is ready, or until some time.

    Parameters
    ----------
    ready
        Is given seconds, waits for at most so long, and returns something true if it is ready.
    until
        A time of `time.monotonic`.

    Returns
    -------
    bool
        Whether it is ready.

    Raises
    ------
    CancelledError
        If nobody waits for it any more.
    """
    interrupted = _interrupted.value
    while True:
        seconds = until - time.monotonic()
        if ready(max(min(seconds, _LOOK_UP), 0.0)):
            return True
        if seconds <= 0.0:
            return False
        if interrupted.is_set() or cancelled():
            raise CancelledError("nobody waits for this any more")


def pause(seconds: float) -> None:
    """Do nothing for some seconds.

    Raises
    ------
    CancelledError
        If nobody waits for what comes after.
    """
    left = _left.get()
    ends = time.monotonic() + seconds
    wait(time.sleep if left is None else left.wait, ends)
    if left is not None and left.is_set():
        raise CancelledError("nobody waits for this any more")


_interrupted = PerProcess(threading.Event)


def _note_interruption(dsk: Any, state: Any, failed: bool) -> None:
    """End the waits of this moment where a computation of dask is left by Ctrl-C.

    dask forgets the threads of such a computation, which would be missed by the next one.
    """
    if failed and isinstance(sys.exc_info()[1], KeyboardInterrupt):
        _interrupted.value.set()
        _interrupted.renew()


@cache
def heed_interruptions() -> None:
    """Let dask tell of computations that are left: once, before whatever may wait in one."""
    from dask.callbacks import Callback

    Callback(finish=_note_interruption).register()


_probe = PerProcess(lambda: ThreadPoolExecutor(1, thread_name_prefix="atldld-probe"))


def _interpreter_ends() -> bool:
    """Whether Python has begun to join its threads: from then on no executor takes work."""
    try:
        _probe.value.submit(int)
    except RuntimeError:
        return True
    return False


def _worker_closes() -> bool:
    """Whether this is a task of a worker of dask.distributed that is being closed."""
    module = sys.modules.get("distributed.worker")
    if module is None:
        return False
    try:
        status = module.get_worker().status
    except (ValueError, AttributeError):
        return False
    return status.name in ("closing", "closed", "failed")
