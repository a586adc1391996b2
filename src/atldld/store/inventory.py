"""What is in the cache: shown, held against its records, kept within a limit, and thrown away.

Only what the cache itself writes is counted and removed, so that a ``cache_dir`` that holds
other files too keeps them.

Where there is a limit, what was used longest ago goes first. When a file was last used is the
time of its last change; reading it sets that time, at most once a minute. Only images, grids and
atlases go. Metadata and what was found out about services count towards the limit but stay: they
are small, and without them the images are of no use offline. A reader loses nothing: an open file
can be read to its end, and a file that is gone is fetched again. What another process is fetching
just then is left alone.

All processes with a limit share one count of the bytes that are kept, so that the folder is
looked through only once in a process and where the limit is reached::

    <cache_dir>/atldld-size/lock, bytes
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..options import current
from ..process import PerProcess
from .files import FileFaultError, Files, Location, cache_location, locked
from .records import (
    KINDS,
    Record,
    is_of_catalogue,
    is_service_folder,
    kind_of_name,
    lock_name,
    read_checked,
    read_record,
    record_name,
    service_folder,
)

_GOING: Final = ("images", "grids", "atlases")
_TALLY: Final = "atldld-size"
_DIGITS: Final = 20
_PATIENCE: Final = 60.0
_BETWEEN_USES: Final = 60.0
"""Seconds within which several uses of a file count as one."""

_ON_ITS_WAY: Final = 3600.0
"""Seconds for which a file on its way is left alone: somebody may be writing it."""

_LEFT_FREE: Final = 10
"""One part in so many of the limit is freed too, so that there is room for a while."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file in the cache, or a record whose file is gone.

    Parameters
    ----------
    files
        The store of its service.
    name
        Of the file, below that.
    size, record_size
        In bytes.
    used
        When it was last used, in seconds since the epoch; -1 where only the record is left.
    plain
        Whether it is a plain file, and no link, pipe or device.
    """

    files: Files
    name: str
    size: int
    record_size: int = 0
    used: float = 0.0
    plain: bool = True

    @property
    def kind(self) -> str:
        """What it is: the folder at the top of its name."""
        return self.name.partition("/")[0]

    @property
    def bytes(self) -> int:
        """Its size, with its record."""
        return self.size + self.record_size

    @property
    def place(self) -> str:
        """Path or URL."""
        return self.files.location.below(self.name).name


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
        ``"service"``, ``"grids"``, ``"atlases"``, ``"registrations"``, ``"catalogue"``.
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
    def total_bytes(self) -> int:
        """Size of the kept files."""
        return sum(self.bytes.values())


@dataclass(frozen=True, slots=True)
class Damage:
    """A kept file that is not as it came: its path or URL, what is wrong, where it came from."""

    path: str
    reason: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class CacheReport:
    """Number and size of the files that are as they came, and the others."""

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
    stock = [_stock(files) for files in service_stores(cache_place(cache_dir))]
    return sorted(stock, key=lambda one: (-one.total_bytes, one.url))


def verify_cache(
    cache_dir: str | os.PathLike[str] | None = None, *, remove: bool = False
) -> CacheReport:
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
    for files in service_stores(cache_place(cache_dir)):
        for each in _walked(files):
            # Those of a catalogue have no records; a manifest tells of them.
            if each.used < 0 or each.kind == "catalogue":
                continue
            # Another process may have been replacing it just then: damage is looked at twice.
            damage = _damage(each) and _damage(each)
            if damage is None:
                size += each.size
                sound += 1
                continue
            damaged.append(damage)
            if remove:
                files.remove(record_name(each.name))
                files.remove(each.name)
    return CacheReport(sound, size, tuple(damaged))


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
    place = cache_place(cache_dir)
    chosen = None if service is None else service_folder(service)
    before = time.time() - _ON_ITS_WAY
    for files in service_stores(place):
        if chosen not in (None, _folder(files)):
            continue
        for each in list(files.listed()):
            top = each.name.partition("/")[0]
            kept = kind_of_name(each.name) is not None
            ours = kept or kind_of_name(each.name.removesuffix(".json")) is not None
            kept = kept or is_of_catalogue(each.name)
            if (
                top == "locks"
                or is_of_catalogue(each.name)
                or (top in KINDS and (ours or not each.plain))
                or (top == "partial" and each.modified < before)
            ):
                files.remove(each.name)
                if each.plain and kept:
                    count += 1
                    size += each.size
        if files.path is not None:
            _remove_empty(files.path)
    if service is None and place.path is not None:
        for name in ("bytes", "lock"):
            with suppress(OSError):
                (place.path / _TALLY / name).unlink(missing_ok=True)
        _remove_empty(place.path / _TALLY)
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
    place = cache_place(cache_dir)
    if place.path is None:
        raise ValueError(
            f"{place.name} is no local folder: no limit is kept there; rules of its own may"
        )
    if not place.path.is_dir():
        return 0, 0
    with locked(place.path / _TALLY / "lock", _PATIENCE) as held:
        gone, total = _evicted(place.path, limit)
        if held:
            _write_tally(place.path, total)
    return len(gone), sum(each.bytes for each in gone)


def to_evict(
    kept: Iterable[Kept], total: int, limit: int, spared: Collection[Kept] = ()
) -> list[Kept]:
    """Return which files must go for a cache to keep within its limit.

    Parameters
    ----------
    kept
        What could go.
    total
        Bytes of all that is kept, whether it could go or not.
    limit
        Most bytes that may be kept.
    spared
        What cannot be removed.

    Returns
    -------
    list of Kept
        Nothing where all is within the limit. Else the least recently used, in that order: as
        many as bring the rest to nine tenths of the limit.

    Examples
    --------
    >>> service = Files(Location("/service"))
    >>> kept = [Kept(service, name, 40, used=used) for name, used in [("a", 3), ("b", 1)]]
    >>> [each.name for each in to_evict(kept, total=120, limit=100)]
    ['b']
    >>> to_evict(kept, total=120, limit=120)
    []
    """
    if total <= limit:
        return []
    excess = total - (limit - limit // _LEFT_FREE)
    chosen = []
    for each in sorted(kept, key=lambda each: (each.used, each.files.location.text, each.name)):
        if excess <= 0:
            break
        if each not in spared:
            chosen.append(each)
            excess -= each.bytes
    return chosen


def enforce_limit(cache_dir: Path, limit: int, added: int = 0) -> None:
    """Remove files from a cache, if need be, after this process added some bytes to it.

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


def mark_used(path: str | Path) -> None:
    """Note that a file was read just now, where that can be noted."""
    with suppress(OSError):
        now = time.time()
        if abs(now - os.stat(path).st_mtime) > _BETWEEN_USES:  # noqa: PTH116  # at every read
            os.utime(path, (now, now))


def cache_place(cache_dir: str | os.PathLike[str] | None) -> Location:
    """Return the folder of the cache that a user named, or that of the options."""
    return cache_location(current().cache_dir) if cache_dir is None else Location.of(cache_dir)


def service_stores(place: Location) -> list[Files]:
    """Return the stores of all services in the folder of all; links are none."""
    if place.path is None:
        tops = {each.name.partition("/")[0] for each in Files(place).listed()}
        return [Files(place.below(top)) for top in sorted(tops) if is_service_folder(top)]
    try:
        with os.scandir(place.path) as entries:
            folders = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [Files(place.below(name)) for name in sorted(folders) if is_service_folder(name)]


def _walked(files: Files) -> Iterator[Kept]:
    """Yield all that is kept, catalogues too, and the records that lost their file."""
    there = {each.name: each for each in files.listed()}
    for name in sorted({each.removesuffix(".json") for each in there} | {*there}):
        if is_of_catalogue(name) and name in there:
            table = there[name]
            yield Kept(files, name, table.size, 0, table.modified, table.plain)
        if kind_of_name(name) is None:
            continue
        found, record = there.get(name), there.get(record_name(name))
        beside = 0 if record is None or not record.plain else record.size
        if found is not None:
            yield Kept(files, name, found.size, beside, found.modified, found.plain)
        elif record is not None:
            yield Kept(files, name, 0, beside, -1.0, record.plain)


def _folder(files: Files) -> str:
    return files.location.name.replace(os.sep, "/").rpartition("/")[2]


def _stock(files: Files) -> Stock:
    kinds = (*KINDS, "catalogue")
    count, size = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
    times: list[float] = []
    url = ""
    for each in _walked(files):
        if each.used < 0:
            continue
        count[each.kind] += 1
        size[each.kind] += each.size
        if each.kind == "catalogue":
            times += [each.used] * (each.used > 0)
            continue
        with suppress(FileFaultError):
            record = _record(each)
            times.append(record.time)
            url = url or record.service
    oldest, newest = min(times, default=None), max(times, default=None)
    return Stock(files.location.name, url or _folder(files), count, size, oldest, newest)


def _record(kept: Kept) -> Record:
    record = read_record(kept.files, kept.name)
    if service_folder(record.service) != _folder(kept.files):
        raise FileFaultError("its record is of another service: one was copied over the other")
    return record


def _damage(kept: Kept) -> Damage | None:
    """Return what is wrong with a file, or None."""
    url = ""
    try:
        record = _record(kept)
        url = record.url
        read_checked(kept.files, kept.name, record)
    except FileFaultError as error:
        # What was removed meanwhile is no damage.
        gone = error.missing and kept.files.size(kept.name) is None
        return None if gone else Damage(kept.place, error.reason, url)
    return None


def _evicted(cache_dir: Path, limit: int) -> tuple[list[Kept], int]:
    """Bring a cache within its limit; return what went, and how many bytes are left."""
    services = service_stores(Location(str(cache_dir)))
    kept = [each for files in services for each in _walked(files) if each.plain]
    going = [each for each in kept if each.kind in _GOING]
    total = sum(each.bytes for each in kept)
    gone: list[Kept] = []
    tried: set[Kept] = set()
    while chosen := to_evict(going, total, limit, tried):
        for each in chosen:
            if _removed(each):
                total -= each.bytes
                gone.append(each)
            tried.add(each)
    return gone, total


def _removed(kept: Kept) -> bool:
    """Remove a file that nobody is fetching, nor has used since it was chosen."""
    folder = kept.files.path
    assert folder is not None
    path = folder / kept.name
    with locked(folder / lock_name(kept.name), 0.0) as held:
        # Where there are no locks, a file that is just being written may cost one more request.
        if held is False:
            return False
        try:
            if kept.used >= 0 and path.stat().st_mtime != kept.used:
                return False
            path.with_name(record_name(path.name)).unlink(missing_ok=True)
            if kept.used >= 0:
                path.unlink()
        except OSError:
            return False
    with suppress(OSError):
        path.parent.rmdir()
    return True


def _remove_empty(folder: Path) -> None:
    for at, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(at).rmdir()


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
