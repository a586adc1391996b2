"""Files below one folder or URL: read within bounds, written whole or not at all.

Local files are opened here, so that links are not followed and pipes not waited for; everything
else is fsspec's.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from ..errors import plain
from .location import Location
from .names import name_fault

T = TypeVar("T")

_READING: Final = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
"""Without following a link, nor waiting for the other end of a pipe."""

_PARTIAL: Final = "partial"

_BUCKETS: Final = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")


class FileFaultError(Exception):
    """A file of a store cannot be read or written.

    Parameters
    ----------
    reason
        In words, without the place.
    missing
        Whether it is simply not there.
    """

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as a folder or bucket lists it.

    Parameters
    ----------
    name
        Below the folder.
    size
        In bytes.
    modified
        When it was last changed, in seconds since the epoch; 0 where the store does not tell.
    plain
        Whether it is a plain file, and no link, pipe or device.
    """

    name: str
    size: int
    modified: float = 0.0
    plain: bool = True


class ReadableFiles(Protocol):
    """Where the files of a store are read. May be used by several threads at once."""

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file.

        Raises
        ------
        FileFaultError
            If it is not there, cannot be read, is no plain file, or has more than `most` bytes.
        """
        ...

    def names(self) -> Iterator[str]:
        """Yield the names of all files; a `FileFaultError` says that they cannot be listed."""
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """Files below a local folder or an fsspec URL.

    Parameters
    ----------
    location
        Of the folder. It may be a link itself; nothing below it may.
    """

    location: Location

    @property
    def path(self) -> Path | None:
        """The local folder, or None where it is elsewhere."""
        return self.location.path

    def read(self, name: str, most: int) -> bytes:
        """See `ReadableFiles`."""
        if self.path is not None:
            return _attempted(lambda: _read_plain(self._inside(name), most))
        files, path = self._remote(name)
        content = _attempted(lambda: bytes(files.cat_file(path, start=0, end=most + 1)))
        if len(content) > most:
            raise FileFaultError(f"it has more than {most} bytes")
        return content

    def names(self) -> Iterator[str]:
        """See `ReadableFiles`."""
        return (each.name for each in self.listed())

    def size(self, name: str) -> int | None:
        """Return the size of a plain file, or None if there is none of that name."""
        try:
            if self.path is not None:
                status = (self.path / name).lstat()
                return status.st_size if stat.S_ISREG(status.st_mode) else None
            files, path = self._remote(name)
            files.invalidate_cache()
            return int(_attempted(lambda: files.size(path)))
        except (OSError, FileFaultError):
            return None

    def listed(self, below: str = "") -> Iterator[Listed]:
        """Yield all files below a folder; links are listed, not followed.

        Raises
        ------
        FileFaultError
            If a store elsewhere cannot be listed. A local folder that cannot be is empty.
        """
        if self.path is not None:
            yield from _walked(self.path, self.path / below)
            return
        files, path = self._remote(below)
        root = self.location.filesystem()[1]

        def found() -> dict[str, dict[str, object]]:
            files.invalidate_cache()
            return dict(files.find(path, detail=True))

        for each, detail in _attempted(found).items():
            if each != root and detail.get("type") == "file":
                yield Listed(each[len(root) :].lstrip("/"), int(str(detail.get("size") or 0)))

    def write(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Write a file so that everybody sees all of it or nothing.

        Parameters
        ----------
        name
            Of the file.
        content
            All of it.
        durable
            Whether it must outlive a power cut that comes after files written later.

        Raises
        ------
        FileFaultError
            If that cannot be.
        """
        if self.path is not None:
            root, path = self.path, self._inside(name)
            _attempted(lambda: _place(root / _PARTIAL, path, content, durable), "written")
            return
        files, remote = self._remote(name)

        def put() -> None:
            try:
                files.pipe_file(remote, content)
            except FileNotFoundError:
                # A store that has folders. Nobody asked for a bucket to be made.
                if self.location.text.partition(":")[0] in _BUCKETS:
                    raise
                files.makedirs(remote.rpartition("/")[0], exist_ok=True)
                files.pipe_file(remote, content)

        _attempted(put, "written")

    def remove(self, name: str) -> None:
        """Remove a file or link, if it can be."""
        if self.path is not None:
            with suppress(OSError, FileFaultError):
                self._inside(name).unlink()
            return
        files, path = self._remote(name)
        with suppress(FileFaultError):
            _attempted(lambda: files.rm_file(path))

    def sweep(self, before: float) -> int:
        """Remove files on their way, last written before a time, that nobody can be writing.

        Returns how many; a store elsewhere has none.
        """
        removed = 0
        if self.path is not None:
            with suppress(OSError), os.scandir(self.path / _PARTIAL) as entries:
                for entry in entries:
                    with suppress(OSError):
                        if entry.stat(follow_symlinks=False).st_mtime < before:
                            Path(entry.path).unlink()
                            removed += 1
        return removed

    def _inside(self, name: str) -> Path:
        """Return the local path of a file, with no link between."""
        if name_fault(name) is not None:
            raise FileFaultError("its name leads elsewhere")
        assert self.path is not None
        path = str(self.path)
        for part in name.split("/")[:-1]:
            path = f"{path}/{part}"
            if os.path.islink(path):  # noqa: PTH114  # asked at every read of the cache
                raise FileFaultError("it lies behind a link")
        return self.path / name

    def _remote(self, name: str) -> tuple[Any, str]:
        if name and name_fault(name) is not None:
            raise FileFaultError("its name leads elsewhere")
        files, root = self.location.filesystem()
        return files, f"{root}/{name}" if name else root


class RangedFile(Protocol):
    """One file of which parts are read. May be used by several threads at once."""

    def size(self) -> int:
        """Return its size in bytes, or raise a `FileFaultError`."""
        ...

    def read(self, start: int, stop: int) -> bytes:
        """Return some of its bytes, fewer at its end, or raise a `FileFaultError`."""
        ...


@dataclass(frozen=True, slots=True)
class NamedFile:
    """One file that a user named by a local path or an fsspec URL."""

    location: Location

    def size(self) -> int:
        """See `RangedFile`."""
        path = self.location.path
        if path is not None:
            return _attempted(lambda: path.stat().st_size)
        files, remote = self.location.filesystem()

        def size() -> int:
            files.invalidate_cache()
            return int(files.size(remote))

        return _attempted(size)

    def read(self, start: int, stop: int) -> bytes:
        """See `RangedFile`."""
        path = self.location.path
        if path is not None:
            return _attempted(lambda: _read_range(path, start, stop))
        files, remote = self.location.filesystem()
        content = _attempted(lambda: bytes(files.cat_file(remote, start=start, end=stop)))
        if len(content) > stop - start:
            raise FileFaultError(
                "its server sends whole files where a part is asked for; download the bundle, and "
                "open the copy"
            )
        return content


def _read_plain(path: Path, most: int) -> bytes:
    """Return the content of a plain file of at most so many bytes."""
    descriptor = os.open(path, _READING)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileFaultError("it is not a plain file")
        if status.st_size > most:
            raise FileFaultError(f"it has {status.st_size} bytes instead of {most} at most")
        return file.read(most)


def _read_range(path: Path, start: int, stop: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _place(partials: Path, path: Path, content: bytes, durable: bool) -> None:
    """Write a local file elsewhere, and move it into place."""
    partial = partials / f"{os.getpid()}-{secrets.token_hex(8)}"
    try:
        try:
            file = partial.open("xb")
        except FileNotFoundError:
            partials.mkdir(parents=True, exist_ok=True)
            file = partial.open("xb")
        with file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        for last in (False, False, True):
            try:
                partial.replace(path)
                return
            except FileNotFoundError:
                # Its folder is new, or another process has just removed it as empty.
                if last:
                    raise
                path.parent.mkdir(parents=True, exist_ok=True)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _walked(root: Path, top: Path) -> Iterator[Listed]:
    folders, start = [top], os.path.join(root, "")  # noqa: PTH118  # ends with a separator
    while folders:
        folder = folders.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                    continue
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    name = entry.path[len(start) :].replace(os.sep, "/")
                    yield Listed(
                        name, status.st_size, status.st_mtime, stat.S_ISREG(status.st_mode)
                    )


def _attempted(work: Callable[[], T], done: str = "read") -> T:
    """Return what `work` returns, or raise a `FileFaultError` for whatever a store raises.

    It is raised outside of the handler: stores of other people may put credentials and signed
    URLs into what they raise, and a chain of exceptions would show them.
    """
    try:
        return work()
    except FileFaultError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        fault = FileFaultError(
            "it is not there" if done == "read" else f"it cannot be {done}: {words_of(error)}",
            missing=True,
        )
    except Exception as error:
        fault = FileFaultError(f"it cannot be {done}: {words_of(error)}")
    raise fault


def words_of(error: Exception) -> str:
    """Return what an exception of a store says, without what may be a secret."""
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno == errno.ELOOP:
            return "it is a link"
        if error.errno != errno.EINVAL:
            return os.strerror(error.errno)
    return plain(type(error).__name__)
