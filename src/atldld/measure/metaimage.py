"""MetaImage volumes (``.mhd`` with ``.raw``, or ``.mha``): the small part of it that Allen uses.

A header of ``Key = value`` lines says how the samples that follow, or lie in another file, are
to be read [1]_. The first index runs fastest.

References
----------
.. [1] "MetaIO documentation", https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2",
    "MET_INT": "i4", "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
"""Types of one meaning on every machine; MET_LONG has 4 bytes on some and 8 on others."""

_LONGEST_HEADER = 65_536
_MOST_VOXELS = 2**32


@dataclass(frozen=True, slots=True, eq=False)
class MetaImage:
    """A volume and what its header says.

    Parameters
    ----------
    values
        Shape as in ``DimSize``: the index that runs fastest in the file comes first.
    spacing, offset
        A number for each axis, in the units of the header.
    header
        All keys, as text.
    """

    values: npt.NDArray[Any]
    spacing: tuple[float, ...]
    offset: tuple[float, ...]
    header: Mapping[str, str]


def read_metaimage(path: Path) -> MetaImage:
    """Read a MetaImage file; its samples may lie in another file beside it.

    Raises
    ------
    OSError
        If a file is missing or cannot be read.
    ValueError
        If it is not a MetaImage, or one of a kind that is not supported; the message names it.
    """
    return parse_metaimage(
        path.read_bytes(), path.name, lambda name: (path.parent / name).read_bytes()
    )


def metaimages_of(archive: zipfile.ZipFile) -> dict[str, MetaImage]:
    """Return the MetaImages of a zip by the names of their headers, without folder and suffix.

    Raises
    ------
    ValueError, KeyError, zipfile.BadZipFile
        If one of them is damaged, incomplete, or of a kind that is not supported.
    """
    found = {}
    for name in archive.namelist():
        path = PurePosixPath(name)
        if path.suffix.lower() in (".mhd", ".mha"):
            found[path.stem] = parse_metaimage(
                archive.read(name), name, partial(_beside, archive, path.parent)
            )
    return found


def _beside(archive: zipfile.ZipFile, folder: PurePosixPath, name: str) -> bytes:
    return archive.read(str(folder / name))


def parse_metaimage(data: bytes, name: str, beside: Callable[[str], bytes]) -> MetaImage:
    r"""Read a MetaImage from its header file's bytes.

    Parameters
    ----------
    data
        The header, with the samples after it where it says ``LOCAL``.
    name
        What to call it in messages.
    beside
        Returns the bytes of another file by its bare name.

    Examples
    --------
    >>> header = b"NDims = 1\nDimSize = 3\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    >>> parse_metaimage(header + bytes([1, 2, 3]), "x.mha", beside=bytes).values
    array([1, 2, 3], dtype=uint8)
    """
    header, rest = _header(data, name)
    try:
        shape = tuple(int(side) for side in header["DimSize"].split())
        kind = _TYPES[header["ElementType"]]
        channels = int(header.get("ElementNumberOfChannels", "1"))
        spacing = _numbers(header, ("ElementSpacing", "ElementSize"), len(shape), 1.0)
        offset = _numbers(header, ("Offset", "Origin", "Position"), len(shape), 0.0)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{name}: the header is not one of a supported MetaImage: {error}"
        ) from None
    if channels != 1 or not shape or min(shape) < 1 or math.prod(shape) > _MOST_VOXELS:
        raise ValueError(f"{name}: {channels} channels of {shape} voxels are not supported")
    dtype = np.dtype(kind).newbyteorder(">" if _is_true(header, "BinaryDataByteOrderMSB") else "<")
    place = header["ElementDataFile"]
    content = rest if place == "LOCAL" else beside(_bare(place, name))
    size = math.prod(shape) * dtype.itemsize
    if _is_true(header, "CompressedData"):
        try:
            # One byte more than there should be tells a longer stream from a whole one.
            content = zlib.decompressobj().decompress(content, size + 1)
        except zlib.error as error:
            raise ValueError(f"{name}: the compressed samples are damaged: {error}") from None
    if len(content) != size:
        raise ValueError(
            f"{name}: {place} has {len(content)} bytes; {shape} voxels of {dtype} are {size}"
        )
    values = np.frombuffer(content, dtype).reshape(shape, order="F")
    return MetaImage(values.astype(dtype.newbyteorder("=")), spacing, offset, header)


def _header(data: bytes, name: str) -> tuple[dict[str, str], bytes]:
    header: dict[str, str] = {}
    start = 0
    while "ElementDataFile" not in header:
        end = data.find(b"\n", start, _LONGEST_HEADER)
        line = data[start : len(data) if end < 0 else end][:_LONGEST_HEADER]
        key, equals, value = line.decode("latin-1").partition("=")
        if not equals and key.strip():
            raise ValueError(f"{name} is not a MetaImage: a line of its header is {key[:40]!r}")
        header[key.strip()] = value.strip()
        if end < 0:
            break
        start = end + 1
    if "ElementDataFile" not in header:
        raise ValueError(f"{name} is not a MetaImage: its header does not name ElementDataFile")
    return header, data[start:]


def _numbers(
    header: Mapping[str, str], names: tuple[str, ...], count: int, default: float
) -> tuple[float, ...]:
    for name in names:
        if name in header:
            numbers = tuple(float(part) for part in header[name].split())
            if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
                raise ValueError(f"{name} is {header[name]!r}")
            return numbers
    return (default,) * count


def _is_true(header: Mapping[str, str], name: str) -> bool:
    return header.get(name, "false").lower() == "true"


def _bare(place: str, name: str) -> str:
    if PurePosixPath(place).name != place or "\\" in place or place.startswith("LIST"):
        raise ValueError(f"{name}: the samples lie in {place!r}, not in one file beside it")
    return place
