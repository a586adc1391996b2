"""What is in the cache: shown, held against its records, and thrown away.

Only what the cache itself writes is counted and removed, so that a ``cache_dir`` that holds
other files too keeps them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..options import current
from .cache import cache_location
from .eviction import evict, forget_tally, service_folders
from .files import FileFaultError, Files, Listed
from .location import Location
from .manifest import RECORD_BYTES, Record
from .names import (
    KINDS,
    is_service_folder,
    kind_of_name,
    most_bytes,
    record_name,
    service_folder,
)

_ON_ITS_WAY: Final = 3600.0
"""Seconds for which a file on its way is left alone: somebody may be writing it."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What is kept of one service.

    Parameters
    ----------
    folder
        Path or URL.
    url
        Base URL of the service, or the folder's name where no record tells it.
    files, bytes
        Number and size of the kept files, by kind: ``"images"``, ``"datasets"``,
        ``"service"``, ``"grids"``, ``"atlases"``.
    oldest, newest
        When the first and the last of them came, in seconds since the epoch, or None.
    """

    folder: str
    url: str
    files: dict[str, int]
    bytes: dict[str, int]
    oldest: float | None = None
    newest: float | None = None

    @property
    def total_files(self) -> int:
        """Number of kept files."""
        return sum(self.files.values())

    @property
    def total_bytes(self) -> int:
        """Size of the kept files."""
        return sum(self.bytes.values())


@dataclass(frozen=True, slots=True)
class Damage:
    """A kept file that is not as it came.

    Parameters
    ----------
    path
        Which: a path or URL.
    reason
        What is wrong, in words.
    url
        Where it came from, or empty.
    """

    path: str
    reason: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at every kept file gave.

    Parameters
    ----------
    files, bytes
        Number and size of the files that are as they came.
    damaged
        The others.
    """

    files: int
    bytes: int
    damaged: tuple[Damage, ...]


def cache_stock(cache_dir: str | os.PathLike[str] | None = None) -> list[Stock]:
    """Return what is in the cache, service by service.

    Parameters
    ----------
    cache_dir
        The folder; by default that of the options.

    Returns
    -------
    list of Stock
        The largest first; empty where there is no cache.
    """
    stock = [_stock(files) for files in _services(_place(cache_dir))]
    return sorted(stock, key=lambda one: (-one.total_bytes, one.url))


def verify_cache(
    cache_dir: str | os.PathLike[str] | None = None, *, remove: bool = False
) -> Verdict:
    """Hold every kept file against the size and SHA-256 that it came with.

    A damaged file is found on reading anyway, and fetched again; this finds all of them at
    once, before one goes where there is no network.

    Parameters
    ----------
    cache_dir
        The folder; by default that of the options.
    remove
        Whether to throw the damaged ones away.
    """
    sound = size = 0
    damaged = []
    for files in _services(_place(cache_dir)):
        for each in _kept(files):
            record, fault = _look(files, each.name)
            if fault:
                # Another process may have been replacing it just then.
                record, fault = _look(files, each.name)
            if not fault:
                size += each.size
                sound += 1
                continue
            path = files.location.below(each.name).name
            damaged.append(Damage(path, fault, "" if record is None else record.url))
            if remove:
                files.remove(record_name(each.name))
                files.remove(each.name)
    return Verdict(sound, size, tuple(damaged))


def clear_cache(
    cache_dir: str | os.PathLike[str] | None = None, *, service: str | None = None
) -> tuple[int, int]:
    """Remove what the cache keeps, and return how many files and bytes that were.

    Parameters
    ----------
    cache_dir
        The folder; by default that of the options.
    service
        Only what is kept of the service of this base URL.

    Notes
    -----
    Links are removed, never followed. Files that the cache did not write stay, and so do
    files that a download under way is writing.
    """
    count = size = 0
    place = _place(cache_dir)
    chosen = None if service is None else service_folder(service)
    for files in _services(place):
        if chosen not in (None, files.location.name.rpartition("/")[2]):
            continue
        for each in list(_written(files)):
            files.remove(each.name)
            if each.plain and kind_of_name(each.name) is not None:
                count += 1
                size += each.size
        if files.path is not None:
            _remove_empty(files.path)
    if service is None and place.path is not None:
        forget_tally(place.path)
    return count, size


def trim_cache(
    cache_dir: str | os.PathLike[str] | None = None, *, limit: int | None = None
) -> tuple[int, int]:
    """Remove the images, grids and atlases used longest ago; return how many, in bytes too.

    Every download does this by itself where there is a limit; this is for a cache that has no
    limit, or whose limit became smaller.

    Parameters
    ----------
    cache_dir
        The folder; by default that of the options.
    limit
        Most bytes that may stay; by default that of the options.

    Returns
    -------
    files, bytes
        How many went.

    Raises
    ------
    ValueError
        If there is no limit.
    """
    limit = current().cache_limit if limit is None else limit
    if limit is None:
        raise ValueError("there is no limit; name one, or set_options(cache_limit=...)")
    place = _place(cache_dir)
    if place.path is None:
        raise ValueError(
            f"{place.name} is no local folder: no limit is kept there; rules of its own may"
        )
    return evict(place.path, limit)


def _place(cache_dir: str | os.PathLike[str] | None) -> Location:
    return cache_location(current().cache_dir) if cache_dir is None else Location.of(cache_dir)


def _services(place: Location) -> list[Files]:
    """Return the stores of all services in the folder of all."""
    if place.path is not None:
        return [Files(Location(str(folder))) for folder in service_folders(place.path)]
    tops = {each.name.partition("/")[0] for each in Files(place).listed()}
    return [Files(place.below(top)) for top in sorted(tops) if is_service_folder(top)]


def _kept(files: Files) -> Iterator[Listed]:
    """Yield the files that have, or should have, a record; not the records."""
    return (each for each in files.listed() if kind_of_name(each.name) is not None)


def _written(files: Files) -> Iterator[Listed]:
    """Yield all files that the cache wrote and nobody is writing."""
    before = time.time() - _ON_ITS_WAY
    for each in files.listed():
        top = each.name.partition("/")[0]
        ours = kind_of_name(each.name) or kind_of_name(each.name.removesuffix(".json"))
        if (
            top == "locks"
            or (top in KINDS and (ours or not each.plain))
            or (top == "partial" and each.modified < before)
        ):
            yield each


def _stock(files: Files) -> Stock:
    count = dict.fromkeys(KINDS, 0)
    size = dict.fromkeys(KINDS, 0)
    times: list[float] = []
    url = ""
    for each in _kept(files):
        kind = each.name.partition("/")[0]
        size[kind] += each.size
        count[kind] += 1
        record, _ = _record(files, each.name)
        if record is not None:
            times.append(record.time)
            url = url or record.service
    place = files.location.name
    oldest, newest = min(times, default=None), max(times, default=None)
    return Stock(place, url or place.rpartition("/")[2], count, size, oldest, newest)


def _record(files: Files, name: str) -> tuple[Record | None, str]:
    """Return the record of a kept file, and what is wrong with it, or nothing."""
    try:
        record = Record.from_json(files.read(record_name(name), RECORD_BYTES))
    except FileFaultError as error:
        if error.missing:
            return None, "it has no record, so nobody can tell what it should be"
        return None, f"its record is of no use: {error.reason}"
    if record is None:
        return None, "its record is damaged"
    folder = files.location.name.replace(os.sep, "/").rpartition("/")[2]
    if record.name != name or service_folder(record.service) != folder:
        return None, "its record is another file's: one was copied over the other"
    if record.size > most_bytes(name):
        return None, f"it is said to have {record.size} bytes; {most_bytes(name)} are believable"
    return record, ""


def _look(files: Files, name: str) -> tuple[Record | None, str]:
    """Return the record of a kept file, and what is wrong with the file, or nothing."""
    record, fault = _record(files, name)
    if record is None:
        return record, fault
    try:
        return record, record.fault(files.read(name, record.size)) or ""
    except FileFaultError as error:
        return record, "" if error.missing else error.reason  # or removed meanwhile


def _remove_empty(folder: Path) -> None:
    for at, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(at).rmdir()
