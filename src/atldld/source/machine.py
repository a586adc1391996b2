"""Places for requests to a service, shared by all processes of a machine.

A place is a file that is locked while a request is under way. The kernel frees it at once when
its holder ends, in whatever way, so that a killed worker takes no place with it.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from .locks import claim, release

_FIRST_WAIT: Final = 0.002
_LONGEST_WAIT: Final = 0.05


def places_folder(url: str) -> Path:
    """Return the folder that holds the places for requests to the host of a URL."""
    parts = urlsplit(url)
    host = f"{parts.scheme}://{parts.hostname}:{parts.port}"
    owner = str(os.getuid()) if hasattr(os, "getuid") else "all"
    name = hashlib.sha256(host.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"atldld-connections-{owner}" / name


@contextmanager
def one_of(folder: Path, most: int) -> Iterator[bool]:
    """Hold one of `most` places for the time of the block, and wait until one is free.

    Parameters
    ----------
    folder
        Where the places are; made if need be.
    most
        How many there are for this process. Others may go by another number.

    Yields
    ------
    bool
        Whether a place is held. It is not where the file system knows no locks, or cannot be
        written to: then nothing is bounded here, and the work goes on.
    """
    number = _place(folder, most)
    try:
        yield number is not None
    finally:
        if number is not None:
            release(number)


def _place(folder: Path, most: int) -> int | None:
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    first = random.randrange(most)
    wait = _FIRST_WAIT
    while True:
        for step in range(most):
            try:
                number = claim(folder / f"{(first + step) % most}.lock")
            except OSError:
                return None
            if number is not None:
                return number
        time.sleep(wait * random.uniform(0.5, 1.0))
        wait = min(2 * wait, _LONGEST_WAIT)
