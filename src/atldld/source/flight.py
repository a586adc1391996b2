"""One piece of work for all threads of a process that want the same thing at the same time."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

T = TypeVar("T")

_under_way: dict[Hashable, Future[Any]] = {}
_lock = threading.Lock()


def together(key: Hashable, work: Callable[[], T]) -> T:
    """Return what `work` returns, done once for all threads that come with one key meanwhile.

    The first thread works and the others wait for it. They share its result or a copy of its
    error; where it was interrupted, another of them takes over. Nothing is kept afterwards.

    Parameters
    ----------
    key
        What the threads have in common.
    work
        Must not come back here with the same key.
    """
    while True:
        with _lock:
            flight = _under_way.get(key)
            if flight is None:
                mine: Future[T] = Future()
                _under_way[key] = mine
                break
        try:
            shared: T = flight.result()
            return shared
        except CancelledError:
            continue
        except Exception as error:
            # Each thread adds its own frames to the traceback of what it raises.
            raise copy.copy(error) from None
    try:
        result = work()
    except BaseException as error:
        _land(key)
        if isinstance(error, Exception) and not isinstance(error, CancelledError):
            mine.set_exception(error)
        else:
            mine.cancel()
        raise
    _land(key)
    mine.set_result(result)
    return result


def _land(key: Hashable) -> None:
    with _lock:
        _under_way.pop(key, None)


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    _under_way.clear()


if hasattr(os, "register_at_fork"):
    # The parent's threads, which would finish the work, are not in the child.
    os.register_at_fork(after_in_child=_forget)
