"""Locks among the processes of a machine: `filelock`, whose kernel locks die with their holder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..cancel import cancelled

_BETWEEN_TRIES: Final = 0.01


@contextmanager
def locked(path: Path, patience: float) -> Iterator[bool | None]:
    """Hold the lock of a file for the time of the block, if it is to be had.

    Threads of one process exclude each other too. The file stays behind. Links are refused.

    Parameters
    ----------
    path
        Of the file; it and its folder are made if need be.
    patience
        Seconds to wait for another holder; less where nobody waits for it any more.

    Yields
    ------
    bool or None
        Whether the lock is held, and not by another for too long. None where there can be no
        lock: the file system knows none, or cannot be written to.
    """
    from filelock import FileLock, Timeout

    # A lock without the kernel would outlive its holder: rather none.
    lock = FileLock(
        path,
        timeout=patience,
        poll_interval=_BETWEEN_TRIES,
        is_singleton=False,
        thread_local=False,
        fallback_to_soft=False,
    )
    try:
        try:
            lock.acquire(cancel_check=cancelled)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(cancel_check=cancelled)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        yield None
        return
    try:
        yield True
    finally:
        lock.release()
