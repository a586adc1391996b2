"""Reading the files of a zip archive from a stranger.

The central directory is parsed by `zipfile`, after its size was looked at; entries are read
here, one range of the file each, so that many threads and stores without open files can do it.
An archive whose entries overlap, repeat a name, lead elsewhere, are links, are encrypted, or
unpack to far more than they take is refused as a whole.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import Final

from ..errors import BundleError, plain
from .bundle_files import name_fault
from .places import MOST_ENTRIES, FileFaultError, RangedFile

DIRECTORY_BYTES: Final = 2**23
"""The central directory of the largest bundle takes half of it."""

MOST_RATIO: Final = 100
"""Of unpacked to packed bytes. Rows of metadata pack to a tenth, images not at all."""

_LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
_SIGNATURE: Final = b"PK\3\4"
_LONGEST_FIELD: Final = 2**16 - 1
_ENCRYPTED: Final = 0x1


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where an entry of an archive is, and how it is packed."""

    start: int
    end: int
    packed: int
    size: int
    deflated: bool
    name: bytes


@dataclass(frozen=True, slots=True)
class ZipPlace:
    """A zip archive, its directory read and found sound."""

    file: RangedFile
    entries: dict[str, _Entry] = field(repr=False)

    @classmethod
    def of(cls, file: RangedFile, name: str) -> ZipPlace:
        """Read the directory of an archive.

        Raises
        ------
        BundleError
            If it is no archive, or one that is refused.
        FileFaultError
            If the file cannot be read.
        """
        size = file.size()
        try:
            with zipfile.ZipFile(_Bounded(file, size)) as archive:
                listed = archive.infolist()
        except (FileFaultError, BundleError):
            raise
        except Exception as error:
            raise BundleError(
                f"{name} is not a whole zip archive ({plain(str(error))}); if it is on its way "
                "here, wait for the rest"
            ) from error
        try:
            return cls(file, _entries(listed, size))
        except ValueError as error:
            raise BundleError(f"{name} is refused: {error}") from error

    def read(self, name: str, most: int) -> bytes:
        """See `Place`."""
        entry = self.entries.get(name)
        if entry is None:
            raise FileFaultError("it is not there", missing=True)
        if entry.size > most:
            raise FileFaultError(f"it has {entry.size} bytes instead of {most} at most")
        span = self.file.read(entry.start, entry.end - entry.start)
        packed = _packed(span, entry)
        if not entry.deflated:
            return packed
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, entry.size + 1)
        except zlib.error as error:
            raise FileFaultError("it cannot be unpacked") from error
        if len(content) != entry.size:
            raise FileFaultError("it does not unpack to the size that the archive says")
        return content

    def names(self) -> list[str]:
        """See `Place`."""
        return list(self.entries)


def _entries(listed: list[zipfile.ZipInfo], size: int) -> dict[str, _Entry]:
    """Return the entries of an archive, or raise a ValueError that says why it is refused."""
    if len(listed) > MOST_ENTRIES:
        raise ValueError(f"it has more than {MOST_ENTRIES} entries")
    ordered = sorted(listed, key=lambda info: info.header_offset)
    ends = [info.header_offset for info in ordered[1:]] + [size]
    entries: dict[str, _Entry] = {}
    seen: set[str] = set()
    for info, end in zip(ordered, ends, strict=True):
        # Another spelling than `filename`, which is cut at a NUL.
        name = info.orig_filename
        folder = name.endswith("/")
        shown = plain(repr(name), 100)
        fault = name_fault(name[:-1] if folder else name)
        if fault is not None:
            raise ValueError(f"it has an entry {shown}: {fault}")
        if name in seen:
            raise ValueError(f"it has the entry {shown} twice")
        seen.add(name)
        raw = name.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
        least = info.header_offset + _LOCAL_HEADER.size + len(raw) + info.compress_size
        if info.header_offset < 0 or least > end:
            raise ValueError(f"the entry {shown} overlaps another")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(f"the entry {shown} is a link")
        if info.flag_bits & _ENCRYPTED:
            raise ValueError(f"the entry {shown} is encrypted")
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        if not deflated and info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"the entry {shown} is packed in a way that bundles are not")
        if info.file_size > (MOST_RATIO if deflated else 1) * info.compress_size:
            raise ValueError(
                f"the entry {shown} would unpack from {info.compress_size} to {info.file_size} "
                "bytes"
            )
        if folder:
            continue
        # A gap between entries may be of any size.
        end = min(end, least + 2 * _LONGEST_FIELD)
        entries[name] = _Entry(
            info.header_offset, end, info.compress_size, info.file_size, deflated, raw
        )
    return entries


def _packed(span: bytes, entry: _Entry) -> bytes:
    """Return the packed bytes of an entry, after its own header, within its own bounds."""
    if len(span) < _LOCAL_HEADER.size:
        raise FileFaultError("the archive is cut off there")
    signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack_from(span)
    name_end = _LOCAL_HEADER.size + name_length
    if signature != _SIGNATURE or span[_LOCAL_HEADER.size : name_end] != entry.name:
        raise FileFaultError("another entry stands in its place in the archive")
    start = name_end + extra_length
    if start + entry.packed > len(span):
        raise FileFaultError("it reaches into the next entry of the archive")
    return span[start : start + entry.packed]


class _Bounded(io.RawIOBase):
    """A file for `zipfile` to read the directory from, and no more than a directory."""

    def __init__(self, file: RangedFile, size: int) -> None:
        self._file = file
        self._size = size
        self._at = 0

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
        if count > DIRECTORY_BYTES:
            raise BundleError(
                f"the directory of a zip archive is refused: it has {count} bytes; "
                f"{DIRECTORY_BYTES} are believable"
            )
        content = self._file.read(self._at, count)
        self._at += len(content)
        return content
