"""One piece of work for all threads of a process that want the same thing at the same time."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from ..forking import PerProcess

T = TypeVar("T")


class _UnderWay:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.flights: dict[Hashable, Future[Any]] = {}

    def land(self, key: Hashable) -> None:
        with self.lock:
            self.flights.pop(key, None)


# The parent's threads, which would finish the work, are not in a forked child.
_under_way = PerProcess(_UnderWay)


def single_flight(key: Hashable, work: Callable[[], T]) -> T:
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
    under_way = _under_way.value
    while True:
        with under_way.lock:
            flight = under_way.flights.get(key)
            if flight is None:
                mine: Future[T] = Future()
                under_way.flights[key] = mine
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
        under_way.land(key)
        if isinstance(error, Exception) and not isinstance(error, CancelledError):
            mine.set_exception(error)
        else:
            mine.cancel()
        raise
    under_way.land(key)
    mine.set_result(result)
    return result
