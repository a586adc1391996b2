"""MetaImage volumes (``.mhd`` with ``.raw``, or ``.mha``): the small part of it that Allen uses.

A header of ``Key = value`` lines says how the samples that follow, or lie in another file, are
to be read [1]_. The first index runs fastest.

References
----------
.. [1] "MetaIO documentation", https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
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
_MOST_BYTES = 2**34
"""Of the samples: the largest annotation, of 10 micron voxels, has 4.8e9."""


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


def metaimages_of(
    names: Iterable[str], read: Callable[[str], bytes], most_bytes: int = _MOST_BYTES
) -> dict[str, MetaImage]:
    """Return the MetaImages of an archive by the names of their headers, without folder, suffix.

    Parameters
    ----------
    names
        Of the files in the archive.
    read
        Returns the bytes of one of them.
    most_bytes
        Of the samples of one of them.

    Raises
    ------
    ValueError, KeyError
        If one of them is damaged, incomplete, or of a kind that is not supported; what `read`
        raises.
    """
    found = {}
    for name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() in (".mhd", ".mha"):
            beside = partial(_beside, read, path.parent)
            found[path.stem] = parse_metaimage(read(name), name, beside, most_bytes)
    return found


def _beside(read: Callable[[str], bytes], folder: PurePosixPath, name: str) -> bytes:
    return read(str(folder / name))


def parse_metaimage(
    data: bytes, name: str, beside: Callable[[str], bytes], most_bytes: int = _MOST_BYTES
) -> MetaImage:
    r"""Read a MetaImage from its header file's bytes.

    Parameters
    ----------
    data
        The header, with the samples after it where it says ``LOCAL``.
    name
        What to call it in messages.
    beside
        Returns the bytes of another file by its bare name.
    most_bytes
        Of the samples: a header that claims more is refused before anything is unpacked.

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
    size = math.prod(shape) * np.dtype(kind).itemsize
    if channels != 1 or not shape or min(shape) < 1 or size > most_bytes:
        raise ValueError(
            f"{name}: {channels} channels of {shape} voxels, {size} bytes, are not supported"
        )
    dtype = np.dtype(kind).newbyteorder(">" if _is_true(header, "BinaryDataByteOrderMSB") else "<")
    place = header["ElementDataFile"]
    content = rest if place == "LOCAL" else beside(_bare(place, name))
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
