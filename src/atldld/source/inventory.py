"""What is in the cache: shown, held against its records, and thrown away.

Only what the cache itself writes is counted and removed, so that a ``cache_dir`` that holds
other files too keeps them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..options import current
from ..urls import without_credentials
from .bundle_files import IMAGE_BYTES
from .cache import Cache, Record
from .eviction import evict, forget_tally
from .names import SERVICE_FOLDER, service_folder
from .places import FileFaultError, read_plain, words_of

KINDS: Final = ("images", "grids", "datasets", "service")
"""The folders of files with records, in each service's folder."""

_BELOW_BASE: Final = re.compile(r"/(section_image_download|data)/.*")
_ON_ITS_WAY: Final = 3600.0
"""Seconds for which a file on its way is left alone: somebody may be writing it."""

_LONGEST_RECORD: Final = 65_536


@dataclass(frozen=True, slots=True)
class Stock:
    """What is kept of one service.

    Parameters
    ----------
    folder
        Where.
    url
        Base URL of the service, or the folder's name where no record tells it.
    files, bytes
        Number and size of the kept files, by kind: ``"images"``, ``"datasets"``,
        ``"service"``, ``"grids"``.
    oldest, newest
        When the first and the last of them came, in seconds since the epoch, or None.
    """

    folder: Path
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
        Which.
    reason
        What is wrong, in words.
    url
        Where it came from, or empty.
    """

    path: Path
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
    stock = [_stock(folder) for folder in _services(_folder(cache_dir))]
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
    files = size = 0
    damaged = []
    for folder in _services(_folder(cache_dir)):
        cache = Cache(folder)
        for path in _kept(folder):
            name = path.relative_to(folder).as_posix()
            # Another process may be replacing it just then.
            found = _fault(cache, name) and _fault(cache, name)
            if not found:
                with suppress(OSError):
                    size += path.stat().st_size
                    files += 1
                continue
            record = cache.record(name)
            damaged.append(Damage(path, found, record.url if record is not None else ""))
            if remove:
                cache.discard(name)
    return Verdict(files, size, tuple(damaged))


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
    files = size = 0
    for folder in _services(_folder(cache_dir)):
        if service is not None and folder != Cache.of(folder.parent, service).folder:
            continue
        kept = set(_kept(folder))
        for path in _written(folder):
            with suppress(OSError):
                length = path.lstat().st_size
                path.unlink()
                files += path in kept
                size += length if path in kept else 0
        _remove_empty(folder)
    if service is None:
        forget_tally(_folder(cache_dir))
    return files, size


def trim_cache(
    cache_dir: str | os.PathLike[str] | None = None, *, limit: int | None = None
) -> tuple[int, int]:
    """Remove the images and grids that were used longest ago, and return how many, in bytes too.

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
    return evict(_folder(cache_dir), limit)


def _folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    return current().cache_dir if cache_dir is None else Path(cache_dir)


def _services(cache_dir: Path) -> list[Path]:
    try:
        found = sorted(cache_dir.iterdir())
    except OSError:
        return []
    return [
        each
        for each in found
        if SERVICE_FOLDER.fullmatch(each.name) and each.is_dir() and not each.is_symlink()
    ]


def _kept(folder: Path) -> Iterator[Path]:
    """Yield the files that have, or should have, a record; not the records."""
    for path in _below(folder, KINDS):
        suffixes = {"images": ".jpg", "grids": ".zip"}.get(
            path.relative_to(folder).parts[0], ".json"
        )
        name = path.name
        if name.endswith(suffixes) and not name.endswith(".json.json"):
            yield path


def _written(folder: Path) -> Iterator[Path]:
    """Yield all files that the cache wrote and nobody is writing."""
    yield from list(_below(folder, (*KINDS, "locks")))
    before = time.time() - _ON_ITS_WAY
    for path in list(_below(folder, ("partial",))):
        with suppress(OSError):
            if path.lstat().st_mtime < before:
                yield path


def _below(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Yield files and links below some folders of a folder."""
    for top in (folder / name for name in names):
        if top.is_symlink():
            continue
        for at, folders, files in os.walk(top):
            links = [each for each in folders if Path(at, each).is_symlink()]
            yield from (Path(at, name) for name in sorted(files) + links)


def _stock(folder: Path) -> Stock:
    files = dict.fromkeys(KINDS, 0)
    size = dict.fromkeys(KINDS, 0)
    times: list[float] = []
    url = ""
    cache = Cache(folder)
    for path in _kept(folder):
        with suppress(OSError):
            kind = path.relative_to(folder).parts[0]
            size[kind] += path.lstat().st_size
            files[kind] += 1
        record = cache.record(path.relative_to(folder).as_posix())
        if record is not None:
            times.append(record.time)
            url = url or _BELOW_BASE.sub("", without_credentials(record.url))
    return Stock(
        folder,
        url or folder.name,
        files,
        size,
        min(times, default=None),
        max(times, default=None),
    )


def _fault(cache: Cache, name: str) -> str:
    """Return what is wrong with a kept file, or nothing."""
    path = cache.folder / name
    try:
        note = read_plain(path.with_name(path.name + ".json"), _LONGEST_RECORD)
    except FileNotFoundError:
        return "it has no record, so nobody can tell what it should be"
    except (OSError, FileFaultError) as error:
        return f"its record cannot be read: {words_of(error)}"
    record = Record.from_json(note)
    if record is None:
        return "its record is damaged"
    if record.name != name or service_folder(record.service) != cache.folder.name:
        return "its record is another file's: one was copied over the other"
    if record.size > IMAGE_BYTES:
        return f"it is said to have {record.size} bytes; {IMAGE_BYTES} are believable"
    try:
        content = read_plain(path, record.size)
    except FileNotFoundError:
        return ""  # removed meanwhile
    except FileFaultError as error:
        return error.reason
    except OSError as error:
        return f"it cannot be read: {words_of(error)}"
    if record.fits(content):
        return ""
    if len(content) != record.size:
        return f"it has {len(content)} bytes, not {record.size}"
    return "its content is not what came (SHA-256 differs)"


def _remove_empty(folder: Path) -> None:
    for at, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(at).rmdir()
