"""Downloads ahead of their use, on a few threads of this process.

dask runs as many threads as there are processors, which is too few for a network. The threads
here hold bytes and nothing else; decoding happens where the bytes are used.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import chain, islice
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from ..errors import ImageError
from ..model.read import ImageRead
from ..options import current
from .giving_up import given_up_by
from .protocol import Source

T = TypeVar("T")

_IDLE_SECONDS = 2.0


def fetch_ahead(
    source: Source, reads: Iterable[ImageRead], *, ahead: int = 16
) -> Iterator[tuple[ImageRead, bytes]]:
    """Yield reads and their bytes in order, while the next ones are being fetched.

    Parameters
    ----------
    source
        Where they come from.
    reads
        What is wanted.
    ahead
        How many reads may be under way or waiting to be yielded.

    Yields
    ------
    read, content
        In the order of `reads`. An error is raised in its place; what came before it has
        been yielded. Closing the generator gives up what has not begun.

    Raises
    ------
    ImageError
        If a read cannot be had.
    """
    coming = iter(reads)
    first = list(islice(coming, 2))
    if len(first) < 2 or _in_pool.get():
        # A thread of the pool must not wait for the pool.
        for read in chain(first, coming):
            yield read, source.image(read)
        return
    coming = chain(first, coming)
    waiting: deque[tuple[ImageRead, Future[bytes]]] = deque()
    left = threading.Event()
    try:
        while True:
            for read in islice(coming, max(ahead, 1) - len(waiting)):
                waiting.append((read, _pool.submit(_image, source, read, left)))
            if not waiting:
                return
            read, future = waiting.popleft()
            content = future.result()
            del future
            yield read, content
    finally:
        left.set()
        for _, future in waiting:
            future.cancel()


class Begun:
    """Fetches that are begun while it is still being found out what else is needed.

    As a context manager it gives up, at its end, what was begun and not waited for.
    """

    def __init__(self) -> None:
        self._left = threading.Event()
        self._futures: dict[tuple[str, ImageRead], Future[bytes | ImageError]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        for future in self._futures.values():
            future.cancel()

    def __len__(self) -> int:
        return len(self._futures)

    def __contains__(self, read: tuple[str, ImageRead]) -> bool:
        return read in self._futures

    def begin(self, source: Source, read: ImageRead) -> None:
        """Fetch a read, if that has not begun already."""
        if (source.name, read) not in self._futures:
            future = _pool.submit(_image_or_error, source, read, self._left)
            self._futures[source.name, read] = future

    def get(self, source: Source, read: ImageRead) -> Future[bytes | ImageError] | None:
        """Return a fetch that has begun, or None."""
        return self._futures.get((source.name, read))


def fetch_each(
    source: Source,
    reads: Iterable[ImageRead],
    *,
    ahead: int = 64,
    begun: Begun | None = None,
) -> Iterator[tuple[ImageRead, bytes | ImageError]]:
    """Yield reads with their bytes or their error, in the order in which they come.

    Parameters
    ----------
    source, reads
        As in `fetch_ahead`.
    ahead
        How many reads may be under way or waiting to be yielded.
    begun
        Fetches that have begun already; they are not repeated.
    """
    coming = iter(reads)
    if _in_pool.get():
        for read in coming:
            yield read, _image_or_error(source, read, threading.Event())
        return
    done: SimpleQueue[Future[bytes | ImageError]] = SimpleQueue()
    waiting: dict[Future[bytes | ImageError], ImageRead] = {}
    left = threading.Event()
    try:
        while True:
            for read in islice(coming, max(ahead, 1) - len(waiting)):
                future = None if begun is None else begun.get(source, read)
                if future is None:
                    future = _pool.submit(_image_or_error, source, read, left)
                waiting[future] = read
                future.add_done_callback(done.put)
            if not waiting:
                return
            future = done.get()
            read, content = waiting.pop(future), future.result()
            del future
            yield read, content
    finally:
        left.set()
        for future in waiting:
            future.cancel()


def _image(source: Source, read: ImageRead, left: threading.Event) -> bytes:
    with given_up_by(left):
        return source.image(read)


def _image_or_error(source: Source, read: ImageRead, left: threading.Event) -> bytes | ImageError:
    try:
        return _image(source, read, left)
    except ImageError as error:
        return error


_in_pool: contextvars.ContextVar[bool] = contextvars.ContextVar("atldld_in_pool", default=False)

_Job = tuple[Future[Any], contextvars.Context, Callable[..., Any], tuple[Any, ...]]


class _Pool:
    """Daemon threads, as many as there may be connections, that end when nothing comes.

    The executors of the standard library are joined when the interpreter exits, which would
    make a user who presses Ctrl-C wait for downloads.
    """

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._threads = 0
        self._idle = 0
        self._most = 1

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Let a thread do the work, within a copy of the caller's context."""
        future: Future[T] = Future()
        job: _Job = (future, contextvars.copy_context(), work, args)
        most = current().max_connections
        alone = False
        with self._changed:
            self._most = most
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._changed.notify()
            elif self._threads < most and not self._start() and not self._threads:
                self._jobs.pop()
                alone = True
        if alone:
            _run(*job)
        return future

    def _start(self) -> bool:
        thread = threading.Thread(target=self._work, name="atldld-download", daemon=True)
        self._threads += 1
        try:
            thread.start()
        except RuntimeError:
            # The system gives no more threads.
            self._threads -= 1
            return False
        return True

    def _work(self) -> None:
        while (job := self._next()) is not None:
            _run(*job)
            del job
        if not self._threads:
            from .transport import close_idle

            close_idle()

    def _next(self) -> _Job | None:
        """Return what to do next, or None if this thread is not needed any more."""
        with self._changed:
            while self._threads <= self._most:
                if self._jobs:
                    return self._jobs.popleft()
                self._idle += 1
                told = self._changed.wait(_IDLE_SECONDS)
                self._idle -= 1
                if not told and not self._jobs:
                    break
            self._threads -= 1
            # This thread may have been told of a job that another must do now.
            self._changed.notify()
            return None


def _run(
    future: Future[Any],
    context: contextvars.Context,
    work: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    if not future.set_running_or_notify_cancel():
        return
    context.run(_in_pool.set, True)
    try:
        result = context.run(work, *args)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


_pool = _Pool()


def _forget() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    # The parent's threads are not in the child.
    os.register_at_fork(after_in_child=_forget)
