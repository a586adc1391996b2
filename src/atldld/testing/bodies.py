"""Encoded images kept in memory, within a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Bodies:
    """A cache of bodies; the least recently used go first, prepared ones stay.

    Parameters
    ----------
    limit
        Most bytes to keep besides what was prepared.
    """

    def __init__(self, limit: int = 2**28) -> None:
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._prepared: dict[Hashable, bytes] = {}

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return a body; the first to ask for it makes it, others wait."""
        with self._lock:
            found = self._find(key)
            if found is not None:
                return found
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                found = self._find(key)
                if found is not None:
                    return found
            try:
                body = make()
                self._keep(key, body)
            finally:
                with self._lock:
                    self._making.pop(key, None)
            return body

    def prepare(self, key: Hashable, make: Callable[[], bytes]) -> int:
        """Make a body now, and keep it whatever the bound; returns its size in bytes."""
        body = self.get(key, make)
        with self._lock:
            self._prepared[key] = body
            self._held -= len(self._kept.pop(key, b""))
        return len(body)

    def _find(self, key: Hashable) -> bytes | None:
        if key in self._prepared:
            return self._prepared[key]
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        return None

    def _keep(self, key: Hashable, body: bytes) -> None:
        with self._lock:
            self._held += len(body) - len(self._kept.pop(key, b""))
            self._kept[key] = body
            while self._held > self._limit and self._kept:
                _, dropped = self._kept.popitem(last=False)
                self._held -= len(dropped)
