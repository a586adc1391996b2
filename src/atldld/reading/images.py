"""Images as arrays: fetched from a source, decoded strictly, fetched again if damaged.

And what is shown meanwhile: a bar where the end is known, a count of images where it is not.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TextIO

from .. import options
from ..errors import ImageError
from ..model.read import ImageRead
from ..process import PerProcess
from ..sampling.warp import Pixels
from ..source import Source
from ..source.jpeg import decode
from ..source.prefetch import fetch_ahead, fetch_each

DECODED_BYTES = 256 * 2**20
"""Bytes of decoded images that a process works on at once, where memory is scarce."""

KEPT_BYTES = 2**30
"""Bytes of decoded images that a process keeps for later use, at most."""

AHEAD = 16
"""Bodies that are under way or wait to be decoded, at most."""

_SEVERAL = 4
_SMALL_PIXELS = 2**20
_MOST_THREADS = 8

_SECONDS_BETWEEN: Final = 0.1
"""A terminal that is written to more often slows the work down."""


class Budget:
    """A number of bytes that threads take from and give back.

    Parameters
    ----------
    total
        Bytes there are. Who wants more than that waits until nobody holds any, and goes alone.
        None: 256 MiB, or a sixteenth of the memory if that is more, at most 1 GiB, so that
        as many threads work at once as there is memory for.
    """

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taking(self, count: int) -> Iterator[None]:
        """Hold some bytes for the time of the block; wait until they can be had."""
        total = self._known_total()
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + count <= total)
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()

    def _known_total(self) -> int:
        if self.total is None:
            self.total = max(DECODED_BYTES, min(KEPT_BYTES, _memory() // 16))
        return self.total


decoded_bytes = PerProcess(Budget)
"""The budget of this process."""


class KeptImages:
    """Decoded images that may be used again soon; those used longest ago go first.

    Together they have 1 GiB, or an eighth of the memory of the machine or the worker if less.
    """

    def __init__(self) -> None:
        self._most: int | None = None
        self._lock = threading.Lock()
        self._images: OrderedDict[_ImageKey, Pixels] = OrderedDict()
        self._bytes = 0

    def get(self, key: _ImageKey) -> Pixels | None:
        """Return an image, or None."""
        with self._lock:
            found = self._images.get(key)
            if found is not None:
                self._images.move_to_end(key)
            return found

    def put(self, key: _ImageKey, image: Pixels) -> None:
        """Keep an image, if there is room for it; nobody may write to it any more."""
        if self._most is None:
            self._most = min(KEPT_BYTES, _memory() // 8)
        if image.nbytes > self._most:
            return
        image.flags.writeable = False
        with self._lock:
            self._bytes += image.nbytes
            before = self._images.pop(key, None)
            self._bytes -= 0 if before is None else before.nbytes
            self._images[key] = image
            while self._bytes > self._most:
                self._bytes -= self._images.popitem(last=False)[1].nbytes


def _memory() -> int:
    """Return the bytes of memory of this machine, or of the worker whose task this is."""
    distributed = sys.modules.get("distributed")
    memory: int | None = None
    if distributed is not None:
        with suppress(ValueError, AttributeError):
            memory = distributed.get_worker().memory_manager.memory_limit
    if memory is None and hasattr(os, "sysconf"):
        with suppress(ValueError, OSError):
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 8 * KEPT_BYTES if memory is None else memory


kept_images = PerProcess(KeptImages)
"""Those of this process."""

_ImageKey = tuple[Hashable, Path | str, ImageRead]


def _key(source: Source, cache: Path | str, read: ImageRead) -> _ImageKey:
    return source.__dask_tokenize__(), cache, read


def pixels_ahead(
    source: Source, reads: Iterable[ImageRead]
) -> Generator[tuple[ImageRead, Pixels], None, None]:
    """Yield images in the order asked, decoded one at a time, downloaded ahead.

    What waits ahead are bytes; an image is decoded when its turn comes, so that no more than
    one is held here.

    Parameters
    ----------
    source
        Where the images come from.
    reads
        Which images.

    Yields
    ------
    read, pixels
        uint8, shape (height, width, 3), or (height, width) for ``"expression_mask"``.

    Raises
    ------
    ImageError
        If an image cannot be had, or is damaged even when fetched again.
    """
    reads = list(reads)
    most = options.current().max_image_pixels
    for read in reads:
        if (error := too_large(source, read, most)) is not None:
            raise error
    with closing(fetch_ahead(source, reads)) as ahead:
        for read, body in ahead:
            yield read, _decoded(source, read, body)


def pixels_each(
    source: Source,
    reads: Iterable[ImageRead],
    at_hand: Collection[ImageRead] = (),
    lasting: Collection[ImageRead] = (),
) -> Generator[tuple[ImageRead, Pixels | ImageError], None, None]:
    """Yield images, or what was wrong with them, in the order in which they come.

    As `pixels_ahead`, but an image that cannot be had does not stop the others, and none waits
    for one that is slower. What is said to be at hand is read here, without a thread in
    between.

    Where nobody else computes (in the main thread: tasks of dask run in others), small images are
    decoded ahead, on as many threads as there are processors.

    What is said to be lasting is kept decoded, as far as there is room, and served from there as
    long as its source has it at hand.
    """
    unseen, cache = [], options.current().cache_dir
    for read in reads:
        there = kept_images.value.get(_key(source, cache, read)) if read in at_hand else None
        if there is None:
            unseen.append(read)
        else:
            yield read, there
    yield from _decoded_each(source, unseen, at_hand, lasting)


def _decoded_each(
    source: Source,
    reads: list[ImageRead],
    at_hand: Collection[ImageRead],
    lasting: Collection[ImageRead],
) -> Generator[tuple[ImageRead, Pixels | ImageError], None, None]:
    if _worth_threads(reads):
        yield from _decoded_ahead(source, reads, at_hand)
        return
    for read, body in _bodies(source, reads, at_hand):
        if isinstance(body, ImageError):
            yield read, body
            continue
        # Held until the next one is asked for, which the tasks of arrays do at once: only they
        # wait for each other here.
        with decoded_bytes.value.taking(3 * read.size[0] * read.size[1]):
            key = _key(source, options.current().cache_dir, read) if read in lasting else None
            # Another thread may have decoded it while this one waited.
            again = kept_images.value.get(key) if key is not None and read in at_hand else None
            found = _each_decoded(source, read, body) if again is None else again
            if key is not None and again is None and not isinstance(found, ImageError):
                kept_images.value.put(key, found)
            del again
            yield read, found
            # Given back with its bytes, and not only when the next one is there.
            del found, body


def _worth_threads(reads: Sequence[ImageRead]) -> bool:
    """Whether to decode ahead: some images, each a small part of the budget of decoded bytes."""
    return (
        len(reads) >= _SEVERAL
        and threading.current_thread() is threading.main_thread()
        and _processors() > 1
        and max(read.size[0] * read.size[1] for read in reads) <= _SMALL_PIXELS
    )


def _decoded_ahead(
    source: Source, reads: list[ImageRead], at_hand: Collection[ImageRead]
) -> Generator[tuple[ImageRead, Pixels | ImageError], None, None]:
    waiting: deque[tuple[ImageRead, Future[Pixels | ImageError]]] = deque()
    pool = ThreadPoolExecutor(_processors(), thread_name_prefix="atldld-decode")
    try:
        for read, body in _bodies(source, reads, at_hand):
            context = contextvars.copy_context()
            waiting.append((read, pool.submit(context.run, _each_decoded, source, read, body)))
            if len(waiting) > _processors() + 1:
                read, future = waiting.popleft()
                yield read, future.result()
                del future
        while waiting:
            read, future = waiting.popleft()
            yield read, future.result()
            del future
    finally:
        pool.shutdown(cancel_futures=True)


def _each_decoded(source: Source, read: ImageRead, body: bytes | ImageError) -> Pixels | ImageError:
    if isinstance(body, ImageError):
        return body
    try:
        return _decoded(source, read, body)
    except ImageError as error:
        return error


def _processors() -> int:
    """Return how many processors to decode on: those of the process, but a few at most."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    return min(os.cpu_count() or 1, _MOST_THREADS)


def _bodies(
    source: Source, reads: list[ImageRead], at_hand: Collection[ImageRead]
) -> Generator[tuple[ImageRead, bytes | ImageError], None, None]:
    wanted, most = [], options.current().max_image_pixels
    # Threads are for several: one image alone is fetched here too.
    for read in reads:
        if (giant := too_large(source, read, most)) is not None:
            yield read, giant
        elif read in at_hand or len(reads) == 1:
            try:
                yield read, source.image(read)
            except ImageError as error:
                yield read, error
        else:
            wanted.append(read)
    if wanted:
        yield from fetch_each(source, wanted, ahead=AHEAD)


def pixels(source: Source, read: ImageRead) -> Pixels:
    """Return one image; see `pixels_ahead`."""
    if (error := too_large(source, read)) is not None:
        raise error
    return _decoded(source, read, source.image(read))


def _decoded(source: Source, read: ImageRead, body: bytes) -> Pixels:
    return sound(source, read, body)[1]


def sound(source: Source, read: ImageRead, body: bytes) -> tuple[bytes, Pixels]:
    """Return a JPEG that decodes strictly, fetched again if need be, and its pixels.

    Raises
    ------
    ImageError
        If it is damaged then, too.
    """
    try:
        return body, _strictly(source, read, body)
    except ImageError:
        # A file damaged inside passes every check but this one: the copy that is kept may be
        # the damaged one.
        source.discard(read)
    body = source.image(read)
    return body, _strictly(source, read, body)


def _strictly(source: Source, read: ImageRead, body: bytes) -> Pixels:
    try:
        found = decode(body, grey=read.view == "expression_mask")
    except ValueError as error:
        raise read.error(str(error), source.url(read)) from error
    height, width = found.shape[:2]
    if (width, height) != read.size:
        wanted = "{} x {}".format(*read.size)
        raise read.error(
            f"it is {width} x {height} pixels; {wanted} were expected", source.url(read)
        )
    count_image(len(body))
    return found


def too_large(source: Source, read: ImageRead, most: int | None = None) -> ImageError | None:
    """Return what is wrong with a read that has more pixels than are to be held, or None.

    Parameters
    ----------
    source
        Where it would be read.
    read
        Which image, and window.
    most
        How many pixels are to be held, where that was looked up; None looks it up.
    """
    (width, height), most = read.size, most or options.current().max_image_pixels
    if width * height <= most:
        return None
    return read.error(
        f"it has {width} x {height} pixels, more than the {most} that are read at once; "
        "set_options(max_image_pixels=...) allows more, at 3 bytes each",
        source.url(read),
    )


class Progress(Protocol):
    """What is told of steps."""

    def update(self, n_steps: int) -> None:
        """Go on by some steps."""


class _Silent:
    def update(self, n_steps: int) -> None:
        """Say nothing."""


@contextmanager
def progress(length: int, label: str) -> Iterator[Progress]:
    """Show how far a loop is, where ``set_options(progress=...)`` or a terminal wants it.

    Parameters
    ----------
    length
        Number of steps.
    label
        What is being done.
    """
    wanted = options.current().progress
    shown = sys.stderr.isatty() if wanted is None else wanted
    if not shown or not length:
        yield _Silent()
        return
    import click

    with click.progressbar(length=length, label=label, file=sys.stderr, show_pos=True) as bar:
        yield bar


@dataclass(slots=True, eq=False)
class ImagesRead:
    """What was read while it was watched.

    Parameters
    ----------
    images
        How many images were decoded, whole or in part.
    n_bytes
        Their compressed bytes, from the network or the cache.
    """

    images: int = 0
    n_bytes: int = 0
    _file: TextIO | None = None
    _shown: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        return f"{self.images} images, {self.n_bytes / 1e6:.1f} MB"

    def add(self, n_bytes: int) -> None:
        """Count one image more."""
        with self._lock:
            self.images += 1
            self.n_bytes += n_bytes
            now = time.monotonic()
            if self._file is not None and now - self._shown >= _SECONDS_BETWEEN:
                self._shown = now
                print(f"\r{self}", end="", file=self._file, flush=True)


@contextmanager
def watch_images() -> Iterator[ImagesRead]:
    """Show on standard error how many images and bytes come, while something is computed.

    For `compute`, `to_zarr`, `quantify` and whatever else reads images in this process, in any
    of its threads; ``set_options(progress=False)`` keeps it silent. The workers of a cluster are
    other processes: what they read is on the dashboard of dask, as ``atldld-read``.

    Yields
    ------
    ImagesRead
        The count, which goes on until the block ends.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(1001, sections=3)]) as server:
    ...     sections = atldld.open_dataarray(1001, resolution=100, source=server.url)
    ...     with atldld.set_options(progress=False), atldld.watch_images() as seen:
    ...         pixels = sections.compute()
    >>> seen.images
    3
    """
    file = None if options.current().progress is False else sys.stderr
    watched = ImagesRead(_file=file)
    _watching.value.append(watched)
    try:
        yield watched
    finally:
        _watching.value.remove(watched)
        if file is not None:
            print(f"\r{watched}", file=file, flush=True)


def count_image(n_bytes: int) -> None:
    """Tell those who watch of one image more."""
    for watched in tuple(_watching.value):
        watched.add(n_bytes)


_watching: PerProcess[list[ImagesRead]] = PerProcess(list)
