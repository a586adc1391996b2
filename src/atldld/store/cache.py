"""Downloaded files of one service, shared by threads and processes, and by machines if need be.

Each file has a record beside it with its size and SHA-256, and which read it is of. Both are
written whole elsewhere and moved into place, the record last; every reading holds the file
against its record, and the record against what is wanted, so that a torn, damaged, half-replaced
or misplaced file is a miss, whatever made it so. Locks only save a second download of the same
file: nothing here goes wrong without them.

::

    <cache_dir>/<host>-<hash of the service's URL>/      one store a service, see `names`

The folder of all may be the URL of a bucket. Then there are no locks among processes, and no
limit of size is kept.
"""

from __future__ import annotations

import copy
import threading
import time
import warnings
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from ..errors import AtldldWarning, plain
from ..model.read import ImageRead, Window
from ..options import current
from ..process import PerProcess, first_time
from ..urls import without_credentials
from .files import FileFaultError, Files, Listed, cache_location, locked
from .inventory import enforce_limit, mark_used
from .records import (
    KeptImage,
    Record,
    Section,
    image_name,
    lies_within,
    lock_name,
    most_bytes,
    read_checked,
    read_record,
    record_name,
    section_of,
    service_folder,
)

T = TypeVar("T")

_STALE_AFTER: Final = 86_400.0
_ROOM_OF_A_RECORD: Final = 512


@dataclass(frozen=True, slots=True)
class Cache:
    """The files of one service.

    Parameters
    ----------
    files
        Where they are; a folder is made at the first writing.
    service
        Base URL of the service, without credentials; files of another are misses. None reads
        those of any.
    limit
        Most bytes that the folder of all services may have, or None. Images that were used
        longest ago give way to those that are fetched.
    """

    files: Files
    service: str | None
    limit: int | None = None

    @classmethod
    def here(cls, base_url: str) -> Cache:
        """Return the cache of a service, by the options of the moment."""
        options = current()
        return cls.of(options.cache_dir, base_url, options.cache_limit)

    @classmethod
    def of(cls, cache_dir: Path | str, base_url: str, limit: int | None = None) -> Cache:
        """Return the cache of a service within the folder of all."""
        folder = cache_location(cache_dir).below(service_folder(base_url))
        return cls(Files(folder), without_credentials(base_url), limit)

    @property
    def place(self) -> str:
        """Path or URL of the folder, without secrets."""
        return self.files.location.name

    def load(self, name: str, section: Section | None = None) -> bytes | None:
        """Return the content of a file, or None if it is missing or not what is wanted.

        Parameters
        ----------
        name
            Of the file.
        section
            Of an image: the section that it must show.
        """
        found = self.load_recorded(name, section)
        return None if found is None else found[0]

    def load_recorded(
        self, name: str, section: Section | None = None
    ) -> tuple[bytes, Record] | None:
        """Return the content of a file, as `load` does, with what is known of it."""
        record = self.record(name, section)
        if record is None:
            return None
        try:
            content = read_checked(self.files, name, record)
        except FileFaultError:
            return None
        if self.files.path is not None:
            mark_used(f"{self.files.location.text}/{name}")
        return content, record

    def record(self, name: str, section: Section | None = None) -> Record | None:
        """Return the record of a file, or None if there is none, or it is of something else."""
        try:
            record = read_record(self.files, name)
        except FileFaultError:
            return None
        believed = record.section == section and self.service in (None, record.service)
        return record if believed else None

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image, view and tier seem to be there.

        Where the whole image is there, nobody needs the records of its windows: they are not read.
        """
        listed: dict[Window | None, Listed] = {}
        with suppress(FileFaultError):
            for each in self.files.listed(image_name(read).rpartition("/")[0]):
                image = KeptImage.of_name(each.name)
                if (
                    each.plain
                    and image is not None
                    and (image.view, image.tier) == (read.view, read.tier)
                    and (image.window is None or lies_within(image.window, read))
                ):
                    listed[image.window] = each
        section = section_of(read)
        if None in listed and self._fits(listed[None], section):
            return frozenset(listed)
        return frozenset(window for window, each in listed.items() if self._fits(each, section))

    def _fits(self, listed: Listed, section: Section) -> bool:
        record = self.record(listed.name, section)
        return record is not None and record.size == listed.size

    def store(self, name: str, content: bytes, url: str, section: Section | None = None) -> bool:
        """Keep a content, and return whether that worked.

        Where the folder cannot be written to, or the disk is full, an `AtldldWarning` says so
        once in a process, and the work goes on without. The same where a content alone is
        larger than the limit.
        """
        if self.limit is not None and len(content) > self.limit:
            self._warn_once(
                f"a download of {len(content)} bytes is not kept: the cache may have "
                f"{self.limit} bytes in all; set_options(cache_limit=...) gives it more",
            )
            return False
        try:
            self.write(name, content, url, section)
        except FileFaultError as error:
            self._warn_once(
                f"downloads are not kept: the cache {self.place} cannot be written to "
                f"({error.reason}); set_options(cache_dir=...) names another folder",
            )
            return False
        return True

    def write(
        self,
        name: str,
        content: bytes,
        url: str,
        section: Section | None = None,
        *,
        durable: bool = False,
    ) -> Record:
        """Write a file, then its record, or raise a `FileFaultError`."""
        if len(content) > most_bytes(name):
            raise FileFaultError(f"{name} has {len(content)} bytes, more than are read back")
        record = Record.made(content, name, self.service or "", url, section)
        if first_time(("swept", self.place)):
            self.files.sweep(time.time() - _STALE_AFTER)
        self.files.write(name, content, durable=durable)
        self.files.write(record_name(name), record.model_dump_json().encode(), durable=durable)
        return record

    def _warn_once(self, message: str) -> None:
        if first_time(("keeps nothing", self.place)):
            warnings.warn(plain(message, 500), AtldldWarning, stacklevel=3)

    def discard(self, name: str) -> None:
        """Forget a file."""
        self.files.remove(record_name(name))
        self.files.remove(name)

    def obtain(
        self,
        name: str,
        fetch: Callable[[], bytes],
        fits: Callable[[bytes], bool],
        url: str,
        section: Section | None = None,
    ) -> bytes:
        """Return the content of a file, fetched if it is not there, by one thread alone.

        It waits for another process that is fetching the same file, as long as a request may take.

        Parameters
        ----------
        name
            Of the file.
        fetch
            Returns the content, checked, or raises.
        fits
            Whether a content from disk is what is wanted.
        url
            Where `fetch` gets it, for the record.
        section
            Of an image: the section that it must show.
        """
        flight = self.place, name, section
        return single_flight(flight, lambda: self._obtain(name, fetch, fits, url, section))

    def _obtain(
        self,
        name: str,
        fetch: Callable[[], bytes],
        fits: Callable[[bytes], bool],
        url: str,
        section: Section | None,
    ) -> bytes:
        content = self.load(name, section)
        if content is not None and fits(content):
            return content
        folder = self.files.path
        alone: AbstractContextManager[object] = nullcontext()
        if folder is not None:
            alone = locked(folder / lock_name(name), current().longest)
        with alone:
            # Another process may have written it since, or have been writing it just then.
            content = self.load(name, section)
            if content is not None and fits(content):
                return content
            self.discard(name)
            content = fetch()
            kept = self.store(name, content, url, section)
        if kept and self.limit is not None and folder is not None:
            enforce_limit(folder.parent, self.limit, len(content) + _ROOM_OF_A_RECORD)
        return content


class _UnderWay:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.flights: dict[Hashable, Future[Any]] = {}

    def land(self, key: Hashable) -> None:
        with self.lock:
            self.flights.pop(key, None)


# The parent's threads, which would finish the work, are not in a forked child.
_under_way = PerProcess(_UnderWay)


def single_flight(key: Hashable, work: Callable[[], T]) -> T:
    """Return what `work` returns, done once for all threads that come with one key meanwhile.

    The first thread works and the others wait for it. They share its result or a copy of its
    error; where it was interrupted, another of them takes over. Nothing is kept afterwards.

    Parameters
    ----------
    key
        What the threads have in common.
    work
        Must not come back here with the same key.
    """
    under_way = _under_way.value
    while True:
        with under_way.lock:
            flight = under_way.flights.get(key)
            if flight is None:
                mine: Future[T] = Future()
                under_way.flights[key] = mine
                break
        try:
            shared: T = flight.result()
            return shared
        except CancelledError:
            continue
        except Exception as error:
            # Each thread adds its own frames to the traceback of what it raises.
            raise copy.copy(error) from None
    try:
        result = work()
    except BaseException as error:
        under_way.land(key)
        if isinstance(error, Exception) and not isinstance(error, CancelledError):
            mine.set_exception(error)
        else:
            mine.cancel()
        raise
    under_way.land(key)
    mine.set_result(result)
    return result
