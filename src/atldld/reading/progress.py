"""What is shown of work that goes on: a bar where its end is known, a count where it is not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, TextIO

from .. import options
from ..process import PerProcess

_SECONDS_BETWEEN: Final = 0.1
"""A terminal that is written to more often slows the work down."""


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
