"""The limit of connections to a service: of a process, of a machine, of a cluster.

A place among the connections of a machine is a file that is locked while a request is under
way. The kernel frees it when its holder ends, in whatever way. A holder that is stopped (by
Ctrl-Z, say) keeps its lock; the time that is noted on the file says until when it counts.

Workers on several machines divide the limit: each machine takes its part of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import stat
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from .. import process
from ..errors import AtldldWarning
from ..process import PerProcess, first_time

_FIRST_WAIT: Final = 0.002
_LONGEST_WAIT: Final = 0.05
_GRACE: Final = 5.0
"""Seconds beyond its time for which a holder counts still."""

_KNOWN_FOR: Final = 10.0
_PATIENCE: Final = 5.0

process.heed_interruptions()


class NoPlaceError(Exception):
    """All connections were taken for all the time that there was; the message says by whom."""


@contextmanager
def connection(url: str, most: int, seconds: float, until: float) -> Iterator[None]:
    """Hold one of the connections to the host of a URL for the time of the block.

    Parameters
    ----------
    url
        What will be asked.
    most
        How many there are for all machines of a cluster together. Others may go by another
        number.
    seconds
        For how long it is needed at most; then it is lent to others too.
    until
        How long to wait for it: a time of `time.monotonic`.

    Raises
    ------
    NoPlaceError
        If none was free by then.
    CancelledError
        If nobody waits for it any more.
    """
    most = share_of(most, machines())
    slots = _slots.value
    if not slots.take(most, until):
        raise NoPlaceError(f"this process had {most} requests under way all the time")
    try:
        with _place(_folder(url), most, seconds, until):
            yield
    finally:
        slots.give_back()


def under_way() -> int:
    """Return how many connections this process holds at this moment."""
    return _slots.value.taken


class _Slots:
    """The requests that are under way in this process, bounded by an option that may change."""

    def __init__(self) -> None:
        self._free = threading.Condition(threading.Lock())
        self.taken = 0

    def take(self, most: int, until: float) -> bool:
        with self._free:
            free = process.wait(
                lambda seconds: self._free.wait_for(lambda: self.taken < most, seconds), until
            )
            self.taken += free
        return free

    def give_back(self) -> None:
        with self._free:
            self.taken -= 1
            # Not all who wait go by the same number.
            self._free.notify_all()


_slots = PerProcess(_Slots)


@contextmanager
def _place(folder: Path | None, most: int, seconds: float, until: float) -> Iterator[None]:
    """Hold one of the places of a machine, where there is a folder for them.

    Where the file system knows no locks, or cannot be written to, nothing is bounded here.
    """
    if folder is None:
        yield
        return
    from filelock import FileLock, Timeout

    locks: dict[int, FileLock] = {}

    def take() -> FileLock | None:
        counted, number = most, 0
        while number < counted:
            path = folder / f"{number}.lock"
            if number not in locks:
                locks[number] = FileLock(path, mode=0o600, fallback_to_soft=False)
            try:
                locks[number].acquire(blocking=False)
            except Timeout:
                counted += _lapsed(path)
                number += 1
                continue
            with suppress(OSError):
                os.utime(path, (0, time.time() + seconds + _GRACE))
            return locks[number]
        return None

    try:
        held = take()
        wait = _FIRST_WAIT
        while held is None:
            if time.monotonic() >= until:
                raise NoPlaceError(
                    f"other processes of this machine had all {most} connections (option "
                    "max_connections)"
                )
            process.pause(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, _LONGEST_WAIT)
            held = take()
    except (OSError, NotImplementedError):
        held = None
    try:
        yield
    finally:
        # In a child that was forked meanwhile it is not held: it is its parent's still.
        if held is not None and held.is_locked:
            with suppress(OSError):
                # Who waits for a file that has gone makes another: nothing is left behind.
                Path(held.lock_file).unlink(missing_ok=True)
            held.release()


def _lapsed(path: Path) -> bool:
    """Whether the holder of a place has had its time."""
    try:
        return path.stat().st_mtime + 1.0 < time.time()
    except OSError:
        return False


def _folder(url: str) -> Path | None:
    """Return the folder of the places for the host of a URL; None where none can be trusted."""
    from platformdirs import user_cache_path

    parts = urlsplit(url)
    # Several machines may have their users' folders in common.
    told = f"{parts.scheme}://{parts.hostname}:{parts.port} from {socket.gethostname()}"
    name = hashlib.sha256(told.encode()).hexdigest()[:16]
    roots = [user_cache_path("atldld", appauthor=False)]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        roots.insert(0, Path(runtime) / "atldld")
    for root in roots:
        folder = root / "connections"
        try:
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            trusted = all(map(_is_private, (root.parent, root, folder, folder / name)))
        except OSError:
            continue
        if trusted:
            return folder / name
    if first_time("no folder for locks of connections"):
        warnings.warn(
            "the limit of connections holds for each process alone: there is no folder of the "
            "user's own to keep locks in (XDG_RUNTIME_DIR names one)",
            AtldldWarning,
            stacklevel=2,
        )
    return None


def _is_private(folder: Path) -> bool:
    """Whether a folder is the user's, no link, and nothing that everybody may write to."""
    found = folder.lstat()
    ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return stat.S_ISDIR(found.st_mode) and ours and not found.st_mode & stat.S_IWOTH


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

    It is 1 outside of a task of dask.distributed, and where the scheduler does not answer. It
    is asked for the addresses of its workers once in ten seconds in a process.
    """
    # Who runs a task of it has imported it.
    module = sys.modules.get("distributed.worker")
    if module is None:
        return 1
    try:
        worker = module.get_worker()
    except (ValueError, AttributeError):
        return 1
    return _count.value.of(worker)


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


_count = PerProcess(_Count)
