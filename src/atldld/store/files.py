"""Files below one folder or URL: read within bounds, written whole or not at all, and locked.

Local files are opened here, so that links are not followed and pipes not waited for; everything
else is fsspec's. Locks are `filelock`'s, whose kernel locks die with their holder.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self, TypeVar

from ..errors import BundleError, plain
from ..process import cancelled
from ..urls import without_credentials, without_secrets

T = TypeVar("T")

LONGEST_NAME: Final = 200
"""Characters of the name of a file below a folder."""

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
_BETWEEN_TRIES: Final = 0.01


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


@dataclass(frozen=True, slots=True, repr=False)
class Location:
    """A place that a user named: an absolute local path, or a URL that fsspec knows.

    Examples
    --------
    >>> Location.of("https://host/prox1.zip?signature=secret")
    Location('https://host/prox1.zip')
    """

    text: str

    @classmethod
    def of(cls, where: str | os.PathLike[str]) -> Self:
        """Return the location that a user named, or raise if it cannot be the place of a store."""
        text = os.fspath(where) if isinstance(where, str | os.PathLike) else None
        if not isinstance(text, str):
            raise TypeError(f"source or target is {where!r}; it must be a text or a path")
        text = text.strip()
        if not text or "\0" in text or not _encodable(text):
            raise ValueError(f"source or target is {without_secrets(text)!r}, which names nothing")
        text = text.removeprefix("file://").removeprefix("local://")
        if "::" in text:
            raise ValueError(
                f"source or target {without_secrets(text)!r} chains stores; name the zip file or "
                "folder itself"
            )
        if "://" not in text:
            return cls(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111
        if without_credentials(text) != text:
            raise ValueError(
                f"source or target {without_secrets(text)!r} has a name or password in it; those "
                "of a store belong in its environment variables or fsspec's configuration"
            )
        return cls(text.rstrip("/"))

    def __repr__(self) -> str:
        return f"Location({self.name!r})"

    @property
    def path(self) -> Path | None:
        """The local path, or None where it is a URL."""
        return _local_path(self.text)

    @property
    def name(self) -> str:
        """What to call it; holds no secrets."""
        return self.text if self.path is not None else re.split("[?#;]", self.text)[0]

    def below(self, name: str) -> Location:
        """Return the location of something below this one."""
        return Location(f"{self.text}/{name}" if self.path is None else str(self.path / name))

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server."""
        return self.text.lower().startswith(("http://", "https://"))

    @property
    def says_zip(self) -> bool:
        """Whether it is a zip file by its name."""
        return self.name.lower().endswith(".zip")

    def filesystem(self) -> tuple[Any, str]:
        """Return the fsspec file system of a URL, and the path within it.

        Found anew in every process: file systems have threads and connections.

        Raises
        ------
        BundleError
            If fsspec does not know such URLs, or lacks what it needs for them.
        """
        from fsspec.core import url_to_fs

        try:
            found, path = url_to_fs(self.text)
        except ImportError as error:
            missing = "" if error.name is None else f" (pip install {error.name})"
            fault = BundleError(f"{self.name} cannot be reached: {error}{missing}")
        except Exception as error:
            # Raised outside of the handler: what stores raise may hold secrets.
            fault = BundleError(f"{self.name} cannot be reached: {type(error).__name__}")
        else:
            return found, str(path).rstrip("/")
        raise fault

    def size(self) -> int:
        """Return the size of the file that is here, in bytes, or raise a `FileFaultError`."""
        path = self.path
        if path is not None:
            return attempted(lambda: path.stat().st_size)
        files, remote = self.filesystem()

        def size() -> int:
            files.invalidate_cache()
            return int(files.size(remote))

        return attempted(size)

    def read(self, start: int, stop: int) -> bytes:
        """Return some bytes of the file that is here, or raise a `FileFaultError`."""
        path = self.path
        if path is not None:
            return attempted(lambda: _read_range(path, start, stop))
        files, remote = self.filesystem()
        content = attempted(lambda: bytes(files.cat_file(remote, start=start, end=stop)))
        if len(content) > stop - start:
            raise FileFaultError(
                "its server sends whole files where a part is asked for; download the bundle, and "
                "open the copy"
            )
        return content

    def put(self, local: Path) -> None:
        """Put a whole local file here, at a URL, or raise a `FileFaultError`."""
        files, remote = self.filesystem()
        attempted(lambda: files.put_file(str(local), remote), "written")
        files.invalidate_cache()


def cache_location(cache_dir: Path | str) -> Location:
    """Return where the folder of all services is, by the option of that name."""
    return Location(str(cache_dir)) if isinstance(cache_dir, Path) else Location.of(cache_dir)


@lru_cache(maxsize=256)
def _local_path(text: str) -> Path | None:
    return None if "://" in text else Path(text)


def _encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _read_range(path: Path, start: int, stop: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


class Listed(NamedTuple):
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

    The folder may be a link itself; nothing below it may.
    """

    location: Location

    @property
    def path(self) -> Path | None:
        """The local folder, or None where it is elsewhere."""
        return self.location.path

    def read(self, name: str, most: int) -> bytes:
        """See `ReadableFiles`."""
        if self.path is not None:
            return attempted(lambda: _read_regular(self._inside(name), most))
        files, path = self._remote(name)
        content = attempted(lambda: bytes(files.cat_file(path, start=0, end=most + 1)))
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
            return self.location.below(name).size()
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
            yield from _walked(f"{self.location.text}/", below)
            return
        files, path = self._remote(below)
        root = self.location.filesystem()[1]

        def found() -> dict[str, dict[str, object]]:
            files.invalidate_cache()
            return dict(files.find(path, detail=True))

        for each, detail in attempted(found).items():
            if each != root and detail.get("type") == "file":
                yield Listed(each[len(root) :].lstrip("/"), int(str(detail.get("size") or 0)))

    def write(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Write a file so that everybody sees all of it or nothing, or raise a `FileFaultError`.

        A durable one outlives a power cut that comes after files written later.
        """
        if self.path is not None:
            root, path = self.path, self._inside(name)
            attempted(lambda: _place(root / _PARTIAL, path, content, durable), "written")
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

        attempted(put, "written")

    def remove(self, name: str) -> None:
        """Remove a file or link, if it can be."""
        if self.path is not None:
            with suppress(OSError, FileFaultError):
                Path(self._inside(name)).unlink()
            return
        files, path = self._remote(name)
        with suppress(FileFaultError):
            attempted(lambda: files.rm_file(path))

    def sweep(self, before: float) -> None:
        """Remove local files on their way, last written before a time: nobody is writing them."""
        if self.path is None:
            return
        with suppress(OSError), os.scandir(self.path / _PARTIAL) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        Path(entry.path).unlink()

    def _inside(self, name: str) -> str:
        """Return the local path of a file, with no link between."""
        if name_fault(name) is not None:
            raise FileFaultError("its name leads elsewhere")
        path = self.location.text
        *folders, last = name.split("/")
        for part in folders:
            path = f"{path}/{part}"
            if os.path.islink(path):  # noqa: PTH114  # asked at every read of the cache
                raise FileFaultError("it lies behind a link")
        return f"{path}/{last}"

    def _remote(self, name: str) -> tuple[Any, str]:
        if name and name_fault(name) is not None:
            raise FileFaultError("its name leads elsewhere")
        files, root = self.location.filesystem()
        return files, f"{root}/{name}" if name else root


def name_fault(name: str) -> str | None:
    """Return why a name leads elsewhere than to a file below a folder, in words, or None.

    Examples
    --------
    >>> name_fault("images/7/image-t2.jpg")
    >>> name_fault("images/../../.bashrc")
    "it has a part '..'"
    """
    if len(name) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} characters"
    if any(character in name for character in "\\:") or not name.isprintable():
        return "it has a backslash, a colon or a character that cannot be printed"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return f"it has a part {part!r}"
    return None


def _read_regular(path: str, most: int) -> bytes:
    """Return the content of a plain file of at most so many bytes."""
    descriptor = os.open(path, _READING)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileFaultError("it is not a plain file")
        if status.st_size > most:
            raise FileFaultError(f"it has {status.st_size} bytes instead of {most} at most")
        # Files are replaced, never changed: what comes short was cut off by somebody else.
        parts = [os.read(descriptor, status.st_size)]
        while (left := status.st_size - sum(map(len, parts))) and parts[-1]:
            parts.append(os.read(descriptor, left))
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _place(partials: Path, path: str, content: bytes, durable: bool) -> None:
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
        for last in (False, False, False, True):
            try:
                partial.replace(path)
                return
            except FileNotFoundError:
                # Its folder is new, or another process has just removed it as empty: perhaps
                # while it is made here, which looks as if something else were in its place.
                if last:
                    raise
                with suppress(FileExistsError):
                    Path(path).parent.mkdir(parents=True, exist_ok=True)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _walked(root: str, below: str) -> Iterator[Listed]:
    folders = [root + below]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    continue
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    name = entry.path[len(root) :].replace(os.sep, "/")
                    yield Listed(
                        name, status.st_size, status.st_mtime, stat.S_ISREG(status.st_mode)
                    )


def attempted(work: Callable[[], T], done: str = "read") -> T:
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
            "it is not there" if done == "read" else f"it cannot be {done}: {error_words(error)}",
            missing=True,
        )
    except Exception as error:
        fault = FileFaultError(f"it cannot be {done}: {error_words(error)}")
    raise fault


def error_words(error: Exception) -> str:
    """Return what an exception of a store says, without what may be a secret."""
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno == errno.ELOOP:
            return "it is a link"
        if error.errno != errno.EINVAL:
            return os.strerror(error.errno)
    return plain(type(error).__name__)


@contextmanager
def locked(path: Path, patience: float) -> Iterator[bool | None]:
    """Hold the lock of a file for the time of the block, if it is to be had.

    Threads of one process exclude each other too. The file stays behind. Links are refused.

    Parameters
    ----------
    path
        Of the file; it and its folder are made if need be.
    patience
        Seconds to wait for another holder; less where nobody waits for it any more.

    Yields
    ------
    bool or None
        Whether the lock is held, and not by another for too long. None where there can be no
        lock: the file system knows none, or cannot be written to.
    """
    from filelock import FileLock, Timeout

    # A lock without the kernel would outlive its holder: rather none.
    lock = FileLock(
        path,
        timeout=patience,
        poll_interval=_BETWEEN_TRIES,
        is_singleton=False,
        thread_local=False,
        fallback_to_soft=False,
    )
    try:
        try:
            lock.acquire(cancel_check=cancelled)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(cancel_check=cancelled)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        yield None
        return
    try:
        yield True
    finally:
        lock.release()
