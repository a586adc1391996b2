"""Keeping a cache within a limit of size: what was used longest ago goes first.

When a file was last used is the time of its last change; reading it sets that time, at most once
a minute. Only images, grids and atlases go. Metadata and what was found out about services count
towards the limit but stay: they are small, and without them the images are of no use offline.

A reader loses nothing by an eviction. An open file can be read to its end, and a file that is
gone is fetched again. What another process is fetching just then is left alone.

All processes with a limit share one count of the bytes that are kept, so that the folder is
looked through only once in a process and where the limit is reached::

    <cache_dir>/atldld-size/lock, bytes
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..forking import PerProcess
from .files import Files
from .location import Location
from .locks import locked
from .names import is_service_folder, kind_of_name, lock_name, record_name

_TALLY: Final = "atldld-size"
_DIGITS: Final = 20
_PATIENCE: Final = 60.0
_BETWEEN_USES: Final = 60.0
"""Seconds within which several uses of a file count as one."""

_LOST: Final = -1.0
"""When a record was used whose file is gone."""

_LEFT_FREE: Final = 10
"""One part in so many of the limit is freed too, so that there is room for a while."""


@dataclass(frozen=True, slots=True)
class Download:
    """An image or a grid in the cache.

    Parameters
    ----------
    service
        The folder of its service.
    name
        Of its file, below that folder.
    bytes
        Its size, with its record.
    used
        When it was last used, in seconds since the epoch.
    """

    service: Path
    name: str
    bytes: int
    used: float

    @property
    def path(self) -> Path:
        """Where its file is."""
        return self.service / self.name


def to_evict(
    downloads: Iterable[Download], total: int, limit: int, spared: Collection[Path] = ()
) -> list[Download]:
    """Return which downloads must go for a cache to keep within its limit.

    Parameters
    ----------
    downloads
        What could go.
    total
        Bytes of all that is kept, whether it could go or not.
    limit
        Most bytes that may be kept.
    spared
        Files that cannot be removed.

    Returns
    -------
    list of Download
        Nothing where all is within the limit. Else the least recently used, in that order: as
        many as bring the rest to nine tenths of the limit.

    Examples
    --------
    >>> folder = Path("service")
    >>> kept = [Download(folder, name, 40, used) for name, used in [("a", 3), ("b", 1), ("c", 2)]]
    >>> [each.name for each in to_evict(kept, total=120, limit=100)]
    ['b']
    >>> to_evict(kept, total=120, limit=120)
    []
    """
    if total <= limit:
        return []
    excess = total - (limit - limit // _LEFT_FREE)
    chosen = []
    for each in sorted(downloads, key=lambda each: (each.used, each.path)):
        if excess <= 0:
            break
        if each.path not in spared:
            chosen.append(each)
            excess -= each.bytes
    return chosen


def keep_within(cache_dir: Path, limit: int, added: int = 0) -> None:
    """Remove downloads, if need be, after some bytes were added to a cache.

    Parameters
    ----------
    cache_dir
        The folder of all services.
    limit
        Most bytes that may be kept.
    added
        What this process has just written there.

    Notes
    -----
    What cannot be removed stays; no error is raised.
    """
    with locked(cache_dir / _TALLY / "lock", _PATIENCE) as held:
        # What processes without a limit wrote is in no count: each process looks once itself.
        total = _seen.value.get(cache_dir)
        if held and total is not None:
            total = _read_tally(cache_dir)
        if total is None or total + added > limit:
            _, total = _evicted(cache_dir, limit)
        else:
            total += added
        _seen.value[cache_dir] = total
        if held:
            _write_tally(cache_dir, total)


def mark_used(path: Path) -> None:
    """Note that a file was read just now, where that can be noted."""
    with suppress(OSError):
        now = time.time()
        if abs(now - path.stat().st_mtime) > _BETWEEN_USES:
            os.utime(path, (now, now))


def forget_tally(cache_dir: Path) -> None:
    """Remove the count of a cache that is emptied."""
    for name in ("bytes", "lock"):
        with suppress(OSError):
            (cache_dir / _TALLY / name).unlink(missing_ok=True)
    with suppress(OSError):
        (cache_dir / _TALLY).rmdir()


def evict(cache_dir: Path, limit: int) -> tuple[int, int]:
    """Bring a cache within a limit; return how many files and bytes went."""
    if not cache_dir.is_dir():
        return 0, 0
    with locked(cache_dir / _TALLY / "lock", _PATIENCE) as held:
        gone, total = _evicted(cache_dir, limit)
        if held:
            _write_tally(cache_dir, total)
    return len(gone), sum(each.bytes for each in gone)


def _evicted(cache_dir: Path, limit: int) -> tuple[list[Download], int]:
    """Bring a cache within its limit; return what went, and how many bytes are left."""
    gone: list[Download] = []
    downloads, total = _looked_through(cache_dir)
    spared: set[Path] = set()
    while chosen := to_evict(downloads, total, limit, spared):
        for each in chosen:
            if _removed(each):
                total -= each.bytes
                gone.append(each)
            spared.add(each.path)
    return gone, total


def _removed(download: Download) -> bool:
    """Remove a file that nobody is fetching, nor has used since it was chosen."""
    path = download.path
    with locked(download.service / lock_name(download.name), 0.0) as held:
        # Where there are no locks, a file that is just being written may cost one more request.
        if held is False:
            return False
        try:
            if download.used != _LOST and path.stat().st_mtime != download.used:
                return False
            path.with_name(record_name(path.name)).unlink(missing_ok=True)
            if download.used != _LOST:
                path.unlink()
        except OSError:
            return False
    with suppress(OSError):
        path.parent.rmdir()
    return True


def _looked_through(cache_dir: Path) -> tuple[list[Download], int]:
    """Return the images and grids of all services, and the bytes of all that is kept."""
    downloads: list[Download] = []
    rest = 0
    for service in service_folders(cache_dir):
        files = {each.name: each for each in Files(Location(str(service))).listed() if each.plain}
        for name in {each.removesuffix(".json") for each in files} | {*files}:
            kind = kind_of_name(name)
            record = files.get(record_name(name))
            if kind in ("images", "grids", "atlases"):
                found = files.get(name)
                size = sum(each.size for each in (found, record) if each is not None)
                used = _LOST if found is None else found.modified
                downloads.append(Download(service, name, size, used))
            elif kind is not None and name in files:
                rest += files[name].size + (0 if record is None else record.size)
    return downloads, rest + sum(each.bytes for each in downloads)


def service_folders(cache_dir: Path) -> list[Path]:
    """Return the folders of services in the folder of all; links are none."""
    try:
        with os.scandir(cache_dir) as entries:
            return sorted(
                Path(each.path)
                for each in entries
                if is_service_folder(each.name) and each.is_dir(follow_symlinks=False)
            )
    except OSError:
        return []


def _read_tally(cache_dir: Path) -> int | None:
    try:
        text = (cache_dir / _TALLY / "bytes").read_text(encoding="ascii")
        return int(text) if len(text) == _DIGITS else None
    except (OSError, ValueError):
        return None


def _write_tally(cache_dir: Path, total: int) -> None:
    # Of a fixed length, so that half a number is not read as a smaller one.
    with suppress(OSError):
        (cache_dir / _TALLY / "bytes").write_text(f"{total:0{_DIGITS}d}", encoding="ascii")


_seen: PerProcess[dict[Path, int]] = PerProcess(dict)
"""Caches that this process has looked through, and their bytes as it knows them."""
