"""How many bytes of decoded images a process holds at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

DECODED_BYTES = 256 * 2**20


class Budget:
    """A number of bytes that threads take from and give back.

    Parameters
    ----------
    total
        Bytes there are. Who wants more than that waits until nobody holds any, and goes alone.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taking(self, count: int) -> Iterator[None]:
        """Hold some bytes for the time of the block; wait until they can be had."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + count <= self.total)
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()


decoded = Budget(DECODED_BYTES)
"""The budget of this process."""


def _forget() -> None:
    global decoded
    decoded = Budget(DECODED_BYTES)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
