"""How many machines of a dask.distributed cluster share the connections to a service.

`machine` bounds connections among the processes of one machine. Workers on several machines
divide the limit: each machine takes its part of it. Where a task runs on no cluster, or the
scheduler does not answer, a machine takes all.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import Any, Final

_KNOWN_FOR: Final = 10.0
_PATIENCE: Final = 5.0


def share_of(most: int, machines: int) -> int:
    """Return how many connections one of several machines may hold.

    Parameters
    ----------
    most
        The limit for all of them.
    machines
        How many there are.

    Returns
    -------
    int
        At least 1: more machines than connections hold one each.

    Examples
    --------
    >>> share_of(8, 1), share_of(8, 3), share_of(8, 20)
    (8, 2, 1)
    """
    return max(1, most // max(1, machines))


def machines() -> int:
    """Return on how many machines the workers of the cluster run that this task belongs to.

    It is 1 outside of a task of dask.distributed. The scheduler is asked for the addresses of its
    workers, once in ten seconds in a process.
    """
    # Who runs a task of it has imported it.
    module = sys.modules.get("distributed.worker")
    if module is None:
        return 1
    try:
        worker = module.get_worker()
    except (ValueError, AttributeError):
        return 1
    return _count.of(worker)


class _Count:
    """The number of machines, and when it was found out."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._scheduler = ""
        self._machines = 1
        self._until = 0.0

    def of(self, worker: Any) -> int:
        """Return the number for the cluster of a worker; one thread at a time asks for it."""
        address = str(worker.scheduler.address)
        with self._asking:
            if address != self._scheduler:
                self._scheduler, self._machines, self._until = address, 1, 0.0
            if time.monotonic() >= self._until:
                self._machines = _asked(worker) or self._machines
                self._until = time.monotonic() + _KNOWN_FOR
            return self._machines


def _asked(worker: Any) -> int | None:
    """Return the number of hosts of all workers, or None if that cannot be found out."""
    from distributed.comm.addressing import get_address_host
    from distributed.utils import sync

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        # An asynchronous task: the loop that would bring the answer is waiting for this one.
        return None
    try:
        addresses = sync(worker.loop, worker.scheduler.ncores, callback_timeout=_PATIENCE)
        return len({get_address_host(address) for address in addresses}) or None
    except Exception:
        # Whatever went wrong there (the cluster may be ending), the limit
        # of the machine holds still.
        return None


_count = _Count()


def _forget() -> None:
    global _count
    _count = _Count()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
