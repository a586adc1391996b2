"""Downloaded files on disk, shared by threads and processes.

Each file has a record beside it with its size and SHA-256. Both are written whole elsewhere in
the cache and moved into place, the record last; every reading holds the file against its
record, so that a torn, damaged or half-replaced file is a miss, whatever made it so. Locks only
save a second download of the same file: nothing here goes wrong without them.

::

    <cache_dir>/<host>-<hash of the service's URL>/
        images/69177654/image-t2.jpg              the whole image at tier 2
        images/69177654/image-t2.jpg.json         its record
        images/69177654/image-t2-w128-0-1024-768.jpg   left, top, width, height in tier pixels
        datasets/69289763.json                    the answer that described a dataset
        service/conventions.json                  what was found out about the service
        locks/3f2.lock, partial/                  locks, and files on their way
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from ..errors import AtldldWarning
from ..model.read import ImageRead, Window
from ..urls import without_credentials
from .bundle_files import IMAGE_BYTES
from .eviction import keep_within, mark_used
from .locks import locked
from .names import held_windows, image_name, lock_name, record_path, service_folder
from .places import FileFaultError, read_plain

_STALE_AFTER: Final = 86_400.0
_LONGEST_RECORD: Final = 65_536
_ROOM_OF_A_RECORD: Final = 512

Section = tuple[int, int, int, int]


def section_of(read: ImageRead) -> Section:
    """Return what must be the same for a kept image to be that of a read, besides its name.

    A service may register a dataset anew, and cut a section of the same image, and even of the
    same size, from another place of the slide.
    """
    return read.x, read.y, read.width, read.height


@dataclass(frozen=True, slots=True)
class Record:
    """What is known about a file without reading it.

    Parameters
    ----------
    size
        In bytes.
    sha256
        Of the content, in hexadecimal.
    url
        Where it came from, without credentials.
    time
        When it came, in seconds since the epoch.
    name
        Of the file: of a file that was copied over another's, the record tells.
    service
        Base URL of the service, without credentials.
    section
        Of an image: where its section was on the slide (x, y in full-resolution pixels) and how
        large at this tier (width, height in pixels); see `section_of`. None of other files.
    """

    size: int
    sha256: str
    url: str
    time: float
    name: str
    service: str
    section: Section | None

    @classmethod
    def of(
        cls, content: bytes, url: str, name: str, service: str, section: Section | None
    ) -> Record:
        """Return the record of a content that came just now."""
        digest = hashlib.sha256(content).hexdigest()
        return cls(len(content), digest, url, time.time(), name, service, section)

    @classmethod
    def from_json(cls, text: bytes) -> Record | None:
        """Return a record from its file, or None if it is not one."""
        try:
            fields = json.loads(text)
            section = fields["section"]
            record = cls(
                fields["size"],
                fields["sha256"],
                str(fields["url"]),
                float(fields["time"]),
                fields["name"],
                fields["service"],
                None if section is None else (section[0], section[1], section[2], section[3]),
            )
        except (ValueError, TypeError, LookupError, RecursionError):
            return None
        return record if type(record.size) is int and isinstance(record.sha256, str) else None

    def to_json(self) -> bytes:
        """Return what the file of a record holds."""
        return json.dumps(asdict(self)).encode()

    def fits(self, content: bytes) -> bool:
        """Whether a content is the recorded one."""
        return len(content) == self.size and hashlib.sha256(content).hexdigest() == self.sha256


@dataclass(frozen=True, slots=True)
class Cache:
    """The files of one service.

    Parameters
    ----------
    folder
        Where they are; made at the first writing.
    limit
        Most bytes that the folder of all services may have, or None. Images that were used
        longest ago give way to those that are fetched.
    service
        Base URL of the service, without credentials; files of another are misses. None takes
        those of any.
    """

    folder: Path
    limit: int | None = None
    service: str | None = None

    @classmethod
    def of(cls, cache_dir: Path, base_url: str, limit: int | None = None) -> Cache:
        """Return the cache of a service within the folder of all."""
        return cls(cache_dir / service_folder(base_url), limit, without_credentials(base_url))

    def load(self, name: str, section: Section | None = None) -> bytes | None:
        """Return the content of a file, or None if it is missing or not as recorded.

        Parameters
        ----------
        name
            Of the file.
        section
            Of an image: the section that it must show.
        """
        record = self.record(name)
        if record is None or record.section != section or record.size > IMAGE_BYTES:
            return None
        try:
            content = read_plain(self.folder / name, record.size)
        except (OSError, FileFaultError):
            return None
        if not record.fits(content):
            return None
        mark_used(self.folder / name)
        return content

    def record(self, name: str) -> Record | None:
        """Return the record of a file, or None if there is none, or it is another file's."""
        try:
            text = read_plain(record_path(self.folder / name), _LONGEST_RECORD)
        except (OSError, FileFaultError):
            return None
        record = Record.from_json(text)
        if record is None or record.name != name:
            return None
        return record if self.service in (None, record.service) else None

    def holds(self, name: str, section: Section | None = None) -> bool:
        """Whether a file seems to be there, by its record and size, without reading it."""
        record = self.record(name)
        try:
            status = (self.folder / name).lstat()
        except OSError:
            return False
        return (
            record is not None
            and record.section == section
            and status.st_size == record.size
            and stat.S_ISREG(status.st_mode)
        )

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image, view and tier seem to be there."""
        try:
            files = list((self.folder / image_name(read)).parent.iterdir())
        except OSError:
            return frozenset()
        windows = held_windows(read, (file.name for file in files))
        return frozenset(
            window
            for window in windows
            if self.holds(image_name(replace(read, window=window)), section_of(read))
        )

    def store(self, name: str, content: bytes, url: str, section: Section | None = None) -> bool:
        """Keep a content, and return whether that worked.

        Where the folder cannot be written to, or the disk is full, an `AtldldWarning` says so
        once in a process, and the work goes on without. The same where a content alone is
        larger than the limit.
        """
        path = self.folder / name
        if self.limit is not None and len(content) > self.limit:
            _warn_once(
                self.folder,
                f"a download of {len(content)} bytes is not kept: the cache may have "
                f"{self.limit} bytes in all; set_options(cache_limit=...) gives it more",
            )
            return False
        try:
            self._sweep_once()
            self._place(path, content)
            record = Record.of(content, url, name, self.service or "", section)
            self._place(record_path(path), record.to_json())
        except OSError as error:
            _warn_once(
                self.folder,
                f"downloads are not kept: the cache {self.folder} cannot be written to "
                f"({error.strerror or error}); set_options(cache_dir=...) names another folder",
            )
            return False
        return True

    def discard(self, name: str) -> None:
        """Forget a file."""
        path = self.folder / name
        for each in (record_path(path), path):
            with suppress(OSError):
                each.unlink(missing_ok=True)

    def obtain(
        self,
        name: str,
        fetch: Callable[[], bytes],
        fits: Callable[[bytes], bool],
        url: str,
        patience: float,
        section: Section | None = None,
    ) -> bytes:
        """Return the content of a file, fetched if it is not there, by one process alone.

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
        patience
            Seconds to wait for another process that is fetching the same file.
        section
            Of an image: the section that it must show.
        """
        content = self.load(name, section)
        if content is not None and fits(content):
            return content
        with self._locked(name, patience):
            # Another process may have written it since, or have been writing it just then.
            content = self.load(name, section)
            if content is not None and fits(content):
                return content
            self.discard(name)
            content = fetch()
            kept = self.store(name, content, url, section)
        if kept and self.limit is not None:
            keep_within(self.folder.parent, self.limit, len(content) + _ROOM_OF_A_RECORD)
        return content

    def _locked(self, name: str, patience: float) -> AbstractContextManager[bool]:
        """Hold the lock of a file among processes, if there is one to be had in time."""
        return locked(self.folder / lock_name(name), patience)

    def _place(self, path: Path, content: bytes) -> None:
        partial = self.folder / "partial" / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            try:
                file = partial.open("xb")
            except FileNotFoundError:
                partial.parent.mkdir(parents=True, exist_ok=True)
                file = partial.open("xb")
            with file:
                file.write(content)
            try:
                partial.replace(path)
            except FileNotFoundError:
                _into_new_folder(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    def _sweep_once(self) -> None:
        with _once:
            if self.folder in _swept:
                return
            _swept.add(self.folder)
        sweep(self.folder / "partial", time.time() - _STALE_AFTER)


def _into_new_folder(partial: Path, path: Path) -> None:
    for last in (False, False, True):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.replace(path)
            return
        except FileNotFoundError:
            # Another process may have removed the folder because it was empty.
            if last:
                raise


def sweep(partial: Path, before: float) -> int:
    """Remove files on their way that nobody can be writing any more; return how many.

    Parameters
    ----------
    partial
        The folder.
    before
        Files last written before this time (seconds since the epoch) go.
    """
    removed = 0
    with suppress(OSError):
        for entry in os.scandir(partial):
            with suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime < before:
                    Path(entry.path).unlink()
                    removed += 1
    return removed


_once = threading.Lock()
_swept: set[Path] = set()
_warned: set[Path] = set()


def _forget() -> None:
    global _once
    _once = threading.Lock()
    _swept.clear()
    _warned.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _warn_once(folder: Path, message: str) -> None:
    with _once:
        if folder in _warned:
            return
        _warned.add(folder)
    warnings.warn(message, AtldldWarning, stacklevel=2)
