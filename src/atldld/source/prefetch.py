"""Downloads ahead of their use, on a few threads.

dask runs as many threads as there are processors, which is too few for a network. The threads
here hold bytes and nothing else; decoding happens where the bytes are used.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import closing
from itertools import islice
from typing import Any, Final, Self, TypeVar

from .. import process
from ..errors import ImageError
from ..model.read import ImageRead
from ..options import current
from ..process import PerProcess
from . import Source

T = TypeVar("T")

_MOST_IDLE: Final = 4

process.heed_interruptions()


def fetch_ahead(
    source: Source, reads: Iterable[ImageRead], *, ahead: int = 16
) -> Generator[tuple[ImageRead, bytes], None, None]:
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
        been yielded. Closing the generator gives up what has not ended.

    Raises
    ------
    ImageError
        If a read cannot be had.
    """
    with closing(_fetched(source, reads, ahead, None, in_order=True)) as coming:
        for read, content in coming:
            if isinstance(content, ImageError):
                raise content
            yield read, content


class Begun:
    """Fetches that are begun while it is still being found out what else is needed.

    As a context manager it gives up, at its end, what was begun and has not ended.
    """

    def __init__(self) -> None:
        self._threads = _Threads()
        self._futures: dict[tuple[str, ImageRead], Future[bytes | ImageError]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if all(future.done() for future in self._futures.values()):
            self._threads.__exit__(kind)
        else:
            self._threads.give_up()

    def __len__(self) -> int:
        return len(self._futures)

    def __contains__(self, read: tuple[str, ImageRead]) -> bool:
        return read in self._futures

    def begin(self, source: Source, read: ImageRead) -> None:
        """Fetch a read, if that has not begun already."""
        if (source.name, read) not in self._futures:
            self._futures[source.name, read] = self._threads.begin(_image_or_error, source, read)

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
    yield from _fetched(source, reads, ahead, begun, in_order=False)


def _fetched(
    source: Source, reads: Iterable[ImageRead], ahead: int, begun: Begun | None, *, in_order: bool
) -> Generator[tuple[ImageRead, bytes | ImageError], None, None]:
    coming = iter(reads)
    waiting: dict[Future[bytes | ImageError], ImageRead] = {}
    with _Threads() as threads:
        while True:
            for read in islice(coming, max(ahead, 1) - len(waiting)):
                future = None if begun is None else begun.get(source, read)
                if future is None:
                    future = threads.begin(_image_or_error, source, read)
                waiting[future] = read
            if not waiting:
                return
            future = _first_done(list(waiting)[: 1 if in_order else None])
            read, content = waiting.pop(future), future.result()
            del future
            yield read, content
            del content


def _image_or_error(source: Source, read: ImageRead) -> bytes | ImageError:
    try:
        return source.image(read)
    except ImageError as error:
        return error


class _Threads:
    """Threads for the downloads of one caller, as many as there may be connections.

    Once all that they were given is done they are kept for the next caller: where threads end
    while the profiler of dask.distributed looks at all of them, Python before 3.11.9 can stand
    still for ever (https://github.com/python/cpython/issues/106883). Those that are given up end.
    """

    def __init__(self) -> None:
        self._left = threading.Event()
        size = current().max_connections
        # In a child that is forked meanwhile this list is its parent's.
        self._pools = _idle.value.setdefault(size, [])
        try:
            self._pool = self._pools.pop()
        except IndexError:
            self._pool = ThreadPoolExecutor(size, "atldld-download")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and len(self._pools) < _MOST_IDLE:
            self._pools.append(self._pool)
        else:
            self.give_up()

    def begin(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Let a thread do the work, within a copy of the caller's context."""
        context = contextvars.copy_context()
        return self._pool.submit(context.run, self._work, work, *args)

    def give_up(self) -> None:
        """Begin nothing more, and let the waits of what has begun end."""
        self._left.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _work(self, work: Callable[..., T], *args: Any) -> T:
        with process.cancelled_by(self._left):
            return work(*args)


_idle: PerProcess[dict[int, list[ThreadPoolExecutor]]] = PerProcess(dict)


def _first_done(futures: Sequence[Future[T]]) -> Future[T]:
    """Return the first of some futures that is done, once one is."""
    process.wait(lambda seconds: wait_for(futures, seconds, FIRST_COMPLETED).done, math.inf)
    return next(future for future in futures if future.done())
