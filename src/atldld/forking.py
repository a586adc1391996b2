"""What a process owns, made anew in a child that is forked: the one place that does so.

The threads of a parent are not in its child. A lock that one of them held, or work that it had
begun, would be waited for there without end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")


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
