"""Volumes in files, within bounds: MetaImage (``.mhd`` with ``.raw``, or ``.mha``), and NRRD.

A header says how the samples that follow, or lie in another file, are to be read [1]_ [2]_. It may
come from a stranger: no more is unpacked than a bound allows, and than it says. MetaImage is read
here, the small part of it that Allen uses, from bytes of an archive, too; NRRD headers by pynrrd.

References
----------
.. [1] "MetaIO documentation", https://itk.org/Wiki/ITK/MetaIO/Documentation
.. [2] "Definition of NRRD File Format", https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import library

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2",
    "MET_INT": "i4", "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
"""Types of one meaning on every machine; MET_LONG has 4 bytes on some and 8 on others."""

_NRRD_TYPES = {
    "float": "f4", "double": "f8", "uchar": "u1", "unsigned char": "u1", "uint8": "u1",
    "ushort": "u2", "unsigned short": "u2", "uint16": "u2", "short": "i2", "int16": "i2",
    "uint": "u4", "unsigned int": "u4", "uint32": "u4", "int": "i4", "int32": "i4",
}  # fmt: skip

_LONGEST_HEADER = 65_536
_MOST_BYTES = 2**34
"""Of the samples: the largest annotation, of 10 micron voxels, has 4.8e9."""


@dataclass(frozen=True, slots=True, eq=False)
class VoxelFile:
    """A volume and what its header says.

    Parameters
    ----------
    values
        The index that runs fastest in the file comes first.
    spacing, offset
        A number for each axis, in the units of the header.
    header
        All keys, as text.
    """

    values: npt.NDArray[Any]
    spacing: tuple[float, ...]
    offset: tuple[float, ...]
    header: Mapping[str, str]


def read_metaimage(path: Path) -> VoxelFile:
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
) -> dict[str, VoxelFile]:
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
) -> VoxelFile:
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
    return VoxelFile(values.astype(dtype.newbyteorder("=")), spacing, offset, header)


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


def parse_nrrd(content: bytes, name: str, most_bytes: int) -> VoxelFile:
    """Return a volume and what its header says.

    Parameters
    ----------
    content
        The file: header and samples.
    name
        What to call it in messages.
    most_bytes
        Of the samples: a header that claims more is refused before anything is unpacked.

    Returns
    -------
    VoxelFile
        ``values`` with the index that runs fastest in the file first; ``spacing`` and ``offset``
        in the units of the header.

    Raises
    ------
    ValueError
        If it is not such a file, or one of a kind that is not supported.
    ImportError
        If pynrrd is missing.
    """
    nrrd = library("nrrd", name, "pynrrd")
    stream = io.BytesIO(content)
    try:
        header = nrrd.read_header(stream)
        shape = tuple(int(side) for side in header["sizes"])
        dtype = np.dtype(_NRRD_TYPES[header["type"].lower()])
        spacing, offset = _nrrd_spacing(header, len(shape)), _nrrd_offset(header, len(shape))
    except (nrrd.NRRDError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} is not an NRRD volume of a kind that is read: {error}") from error
    size = math.prod(shape) * dtype.itemsize
    if not shape or min(shape) < 1 or size > most_bytes or "data file" in header:
        raise ValueError(f"{name}: {shape} voxels, {size} bytes, are not read here")
    if header.get("endian", "little") == "big":
        dtype = dtype.newbyteorder(">")
    samples = _nrrd_samples(content[stream.tell() :], str(header.get("encoding")), size, name)
    values = np.frombuffer(samples, dtype).reshape(shape, order="F")
    texts = {str(key): str(value) for key, value in header.items()}
    return VoxelFile(values.astype(dtype.newbyteorder("=")), spacing, offset, texts)


def _nrrd_samples(rest: bytes, encoding: str, size: int, name: str) -> bytes:
    if encoding.lower() in ("gzip", "gz"):
        unpack = zlib.decompressobj(31)  # gzip
        try:
            # One byte more than there should be tells a longer stream from a whole one.
            rest = unpack.decompress(rest, size + 1)
        except zlib.error as error:
            raise ValueError(f"{name}: the samples are damaged: {error}") from error
    elif encoding.lower() != "raw":
        raise ValueError(f"{name}: the encoding is {encoding}; gzip and raw are read")
    if len(rest) != size:
        raise ValueError(f"{name}: the samples have {len(rest)} bytes instead of {size}")
    return rest


def _nrrd_spacing(header: Any, axes: int) -> tuple[float, ...]:
    if "space directions" in header:
        matrix = np.asarray(header["space directions"], dtype=np.float64)
        if matrix.shape != (axes, axes) or np.count_nonzero(matrix - np.diag(np.diag(matrix))):
            raise ValueError("the axes are turned against those of the space")
        steps = np.diag(matrix)
    else:
        steps = np.asarray(header.get("spacings", np.ones(axes)), dtype=np.float64)
    if steps.shape != (axes,) or not np.isfinite(steps).all() or (steps <= 0).any():
        raise ValueError(f"the spacing is {steps.tolist()}")
    return tuple(steps.tolist())


def _nrrd_offset(header: Any, axes: int) -> tuple[float, ...]:
    origin = np.asarray(header.get("space origin", np.zeros(axes)), dtype=np.float64)
    return tuple(np.nan_to_num(origin).tolist())
