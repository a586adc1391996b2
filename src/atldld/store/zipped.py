"""Reading the files of a zip archive from a stranger, by `zipfile`, a range of bytes at a time.

Only what a manifest lists is ever read, and no more of it than the manifest says; so names that
lead elsewhere, entries that come twice and bombs do nothing.
"""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from typing import Final

from ..errors import BundleError, plain
from .files import FileFaultError

DIRECTORY_BYTES: Final = 2**23
"""The central directory of the largest bundle takes half of it."""

_SPAN: Final = 2**16
"""Bytes that are read ahead at the end of an archive, where most directories lie."""

_SLACK: Final = 2**10
"""Bytes of the header of an entry beyond its name."""


Part = Callable[[int, int], bytes]
"""Reads the bytes of a file from one place to another, or raises a `FileFaultError`."""


class ZipFiles:
    """A zip archive whose directory was read; see `ReadableFiles`.

    Parameters
    ----------
    part
        Reads a part of the archive; called by several threads at once.
    size
        Of the archive, in bytes.
    name
        What to call it.

    Raises
    ------
    BundleError
        If it is no archive.
    FileFaultError
        If the file cannot be read.
    """

    def __init__(self, part: Part, size: int, name: str) -> None:
        self._seekable = _Seekable(part, size)
        try:
            self._archive = zipfile.ZipFile(self._seekable)
        except (FileFaultError, BundleError):
            raise
        except Exception as error:
            raise BundleError(
                f"{name} is not a whole zip archive ({plain(str(error))}); if it is on its way "
                "here, wait for the rest"
            ) from error

    def read(self, name: str, most: int) -> bytes:
        """See `ReadableFiles`."""
        try:
            entry = self._archive.getinfo(name)
        except KeyError:
            raise FileFaultError("it is not there", missing=True) from None
        # What does not shrink when it is packed grows by a thousandth at most.
        if max(entry.file_size, entry.compress_size - _SLACK) > most + most // 1000:
            raise FileFaultError(f"it has {entry.file_size} bytes instead of {most} at most")
        length = len(entry.orig_filename.encode()) + entry.compress_size + _SLACK
        self._seekable.read_ahead(entry.header_offset, entry.header_offset + length)
        try:
            with self._archive.open(entry) as packed:
                content = packed.read(most + 1)
        except FileFaultError:
            raise
        except Exception as error:
            # zipfile, zlib and lzma raise a dozen kinds for what was damaged or encrypted.
            raise FileFaultError(f"it cannot be unpacked: {plain(str(error))}") from error
        finally:
            self._seekable.forget()
        if len(content) > most:
            raise FileFaultError(f"it has more than {most} bytes")
        return content

    def names(self) -> Iterator[str]:
        """See `ReadableFiles`."""
        return (name for name in self._archive.namelist() if not name.endswith("/"))


class _Seekable(io.RawIOBase):
    """A file as `zipfile` wants it, of which each thread reads one range ahead.

    `zipfile` moves and reads under a lock of its own; what a thread has read ahead is served
    there, so that threads do not wait for each other's network.
    """

    def __init__(self, part: Part, size: int) -> None:
        self._part = part
        self._size = size
        self._at = 0
        self._ahead = threading.local()
        self.read_ahead(max(size - _SPAN, 0), size)

    def read_ahead(self, start: int, stop: int) -> None:
        """Read a range, for the reads of this thread that lie in it."""
        self._ahead.start = start
        self._ahead.content = self._between(start, min(stop, self._size))

    def forget(self) -> None:
        """Forget what this thread has read ahead."""
        self._ahead.content = b""

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("before the start of the file")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        count = max(self._size - self._at, 0)
        count = count if size is None or size < 0 else min(size, count)
        content = self._served(self._at, count)
        self._at += len(content)
        return content

    def _served(self, start: int, count: int) -> bytes:
        ahead = getattr(self._ahead, "content", b"")
        first = start - getattr(self._ahead, "start", 0)
        if first >= 0 and first + count <= len(ahead):
            return ahead[first : first + count]
        if count > DIRECTORY_BYTES:
            raise BundleError(
                f"the directory of a zip archive is refused: it has {count} bytes; "
                f"{DIRECTORY_BYTES} are believable"
            )
        return self._between(start, start + count)

    def _between(self, start: int, stop: int) -> bytes:
        return self._part(start, stop) if start < stop else b""
