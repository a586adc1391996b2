"""Reading the files of a bundle from a local folder or an object store, within bounds."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from ..errors import BundleError, plain
from .bundle_files import MOST_FILES, name_fault
from .location import Location

T = TypeVar("T")

MOST_ENTRIES: Final = 2 * MOST_FILES
"""Of a folder or a zip file: more than that is not looked through."""


_READING: Final = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
"""Without following a link, nor waiting for the other end of a pipe."""


class FileFaultError(Exception):
    """A file of a bundle cannot be read.

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


class Place(Protocol):
    """Where the files of a bundle are read from. May be used by several threads at once."""

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file.

        Raises
        ------
        FileFaultError
            If it is not there, cannot be read, is no plain file, or has more than `most` bytes.
        """
        ...

    def names(self) -> list[str]:
        """Return the names of all files.

        Raises
        ------
        BundleError
            If there are too many, or some that no bundle has.
        """
        ...


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A local folder. Links in it are refused, for they may lead out of it."""

    path: Path

    def read(self, name: str, most: int) -> bytes:
        """See `Place`."""
        return attempted(lambda: read_plain(self._inside(name), most))

    def names(self) -> list[str]:
        """See `Place`."""
        found: list[str] = []
        folders = [self.path]
        count = 0
        try:
            while folders:
                folder = folders.pop()
                with os.scandir(folder) as entries:
                    for entry in entries:
                        count += 1
                        name = Path(entry.path).relative_to(self.path).as_posix()
                        if count > MOST_ENTRIES:
                            raise BundleError(
                                f"{self.path} has more than {MOST_ENTRIES} files; no bundle has"
                            )
                        if entry.is_symlink():
                            raise BundleError(f"{self.path}: {plain(name)} is a link; refused")
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(Path(entry.path))
                        else:
                            found.append(name)
        except OSError as error:
            raise BundleError(f"{self.path} cannot be read: {words_of(error)}") from error
        return found

    def _inside(self, name: str) -> Path:
        """Return the path of a file, with no link between."""
        if name_fault(name) is not None:
            raise FileFaultError("its name leads elsewhere")
        path = self.path
        for part in name.split("/")[:-1]:
            path = path / part
            if path.is_symlink():
                raise FileFaultError("it lies behind a link")
        return self.path / name


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """Objects below one URL, such as a prefix in a bucket."""

    location: Location

    def read(self, name: str, most: int) -> bytes:
        """See `Place`."""
        if name_fault(name) is not None:
            raise FileFaultError("its name leads elsewhere")
        content = _ranged(self.location, f"/{name}", 0, most + 1)
        if len(content) > most:
            raise FileFaultError(f"it has more than {most} bytes")
        return content

    def names(self) -> list[str]:
        """See `Place`."""
        files, root = self.location.filesystem()

        def listed() -> list[str]:
            files.invalidate_cache()
            return list(files.find(root))

        paths = reached(self.location.name, listed)
        if len(paths) > MOST_ENTRIES:
            raise BundleError(f"{self.location.name} has more than {MOST_ENTRIES} files")
        return [path[len(root) :].lstrip("/") for path in paths if path != root]


class RangedFile(Protocol):
    """One file of which parts are read. May be used by several threads at once."""

    def size(self) -> int:
        """Return its size in bytes, or raise a `FileFaultError`."""
        ...

    def read(self, start: int, count: int) -> bytes:
        """Return some of its bytes, fewer at its end, or raise a `FileFaultError`."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A local file that a user named."""

    path: Path

    def size(self) -> int:
        """See `RangedFile`."""
        return attempted(lambda: self.path.stat().st_size)

    def read(self, start: int, count: int) -> bytes:
        """See `RangedFile`."""

        def ranged() -> bytes:
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read(count)

        return attempted(ranged)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that fsspec reads."""

    location: Location

    def size(self) -> int:
        """See `RangedFile`."""
        files, path = self.location.filesystem()

        def size() -> int:
            files.invalidate_cache()
            return int(files.size(path))

        return attempted(size)

    def read(self, start: int, count: int) -> bytes:
        """See `RangedFile`."""
        return _ranged(self.location, "", start, start + count)


def _ranged(location: Location, below: str, start: int, end: int) -> bytes:
    files, path = location.filesystem()
    content = attempted(lambda: bytes(files.cat_file(path + below, start=start, end=end)))
    if len(content) > end - start:
        raise FileFaultError(
            "its server sends whole files where a part is asked for; download the bundle, and open "
            "the copy"
        )
    return content


def read_plain(path: Path, most: int) -> bytes:
    """Return the content of a plain file of at most so many bytes."""
    descriptor = os.open(path, _READING)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileFaultError("it is not a plain file")
        if status.st_size > most:
            raise FileFaultError(f"it has {status.st_size} bytes instead of {most} at most")
        return file.read(most)


def attempted(work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise a `FileFaultError` for whatever a store raises.

    It is raised outside of the handler: stores of other people may put credentials and signed
    URLs into what they raise, and a chain of exceptions would show them.
    """
    try:
        return work()
    except (FileFaultError, BundleError):
        raise
    except (FileNotFoundError, NotADirectoryError):
        fault = FileFaultError("it is not there", missing=True)
    except Exception as error:
        fault = FileFaultError(f"it cannot be read: {words_of(error)}")
    raise fault


def reached(name: str, work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise a `BundleError` about a bundle of that name."""
    try:
        return work()
    except BundleError:
        raise
    except Exception as error:
        fault = BundleError(f"{name} cannot be reached: {words_of(error)}")
    raise fault


def words_of(error: Exception) -> str:
    """Return what an exception of a store says, without what may be a secret."""
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno == errno.ELOOP:
            return "it is a link"
        if error.errno != errno.EINVAL:
            return os.strerror(error.errno)
    return plain(type(error).__name__)
