"""Locks among the processes of a machine, freed by the kernel when their holder dies.

A forked child shares the open files of its parent, and with them its locks: it closes them as
it begins, or a lock would outlive the parent that held it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EAGAIN, EDEADLK
from pathlib import Path

_TAKEN = {EAGAIN, EACCES, EDEADLK}
_FIRST_WAIT = 0.002
_LONGEST_WAIT = 0.05


@contextmanager
def locked(path: Path, patience: float) -> Iterator[bool]:
    """Hold the lock of a file for the time of the block, if it is to be had.

    Threads of one process exclude each other too. The file stays behind.

    Parameters
    ----------
    path
        Of the file; it and its folder are made if need be.
    patience
        Seconds to wait for another holder.

    Yields
    ------
    bool
        Whether the lock is held. It is not where another held it for too long, or where the
        file system knows no locks or cannot be written to.
    """
    try:
        try:
            number = _opened(path, 0o666)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            number = _opened(path, 0o666)
    except OSError:
        yield False
        return
    held = False
    try:
        held = _taken_in_time(number, patience)
        yield held
    finally:
        _closed(number, held)


def claim(path: Path, mode: int = 0o600) -> int | None:
    """Lock a file if nobody holds it, and return what `release` takes; else None.

    Parameters
    ----------
    path
        Of the file; it is made if need be.
    mode
        Who may open a file that is made here.

    Raises
    ------
    OSError
        If the file cannot be opened, or the file system knows no locks.
    """
    number = _opened(path, mode)
    try:
        _take(number)
    except OSError as error:
        _closed(number, held=False)
        if error.errno in _TAKEN:
            return None
        raise
    return number


def release(number: int) -> None:
    """Give back what `claim` returned."""
    _closed(number, held=True)


def _opened(path: Path, mode: int) -> int:
    """Open a file to be locked, and note it for children that are forked meanwhile."""
    with _forking:
        number = os.open(path, os.O_RDWR | os.O_CREAT, mode)
        _open.add(number)
    return number


def _closed(number: int, held: bool) -> None:
    """Close a file, with its lock; do nothing in a child of the process that opened it."""
    with _forking:
        if number not in _open:
            return
        _open.remove(number)
        try:
            if held:
                # Closing would do, were there no child of another program that has it open too.
                _give_back(number)
        finally:
            os.close(number)


_open: set[int] = set()
_forking = threading.Lock()
"""Held while a file is opened or closed, and while this process forks."""


def _forked() -> None:
    for number in _open:
        with suppress(OSError):
            os.close(number)
    _open.clear()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_forked
    )


def _taken_in_time(number: int, patience: float) -> bool:
    until = time.monotonic() + patience
    wait = _FIRST_WAIT
    while True:
        try:
            _take(number)
            return True
        except OSError as error:
            if error.errno not in _TAKEN or time.monotonic() >= until:
                return False
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)


if sys.platform == "win32":
    import msvcrt

    def _take(number: int) -> None:
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)

    def _give_back(number: int) -> None:
        msvcrt.locking(number, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(number: int) -> None:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _give_back(number: int) -> None:
        fcntl.flock(number, fcntl.LOCK_UN)
