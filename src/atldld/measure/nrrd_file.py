"""NRRD volumes within bounds: pynrrd reads the header, no more is unpacked than it says.

The format is described in [1]_.

References
----------
.. [1] "Definition of NRRD File Format", https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import io
import math
import zlib
from typing import Any, Final

import numpy as np

from .metaimage import MetaImage

_TYPES: Final = {
    "float": "f4", "double": "f8", "uchar": "u1", "unsigned char": "u1", "uint8": "u1",
    "ushort": "u2", "unsigned short": "u2", "uint16": "u2", "short": "i2", "int16": "i2",
    "uint": "u4", "unsigned int": "u4", "uint32": "u4", "int": "i4", "int32": "i4",
}  # fmt: skip
_GZIP: Final = 31


def parse_nrrd(content: bytes, name: str, most_bytes: int) -> MetaImage:
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
    MetaImage
        ``values`` with the index that runs fastest in the file first; ``spacing`` and ``offset``
        in the units of the header.

    Raises
    ------
    ValueError
        If it is not such a file, or one of a kind that is not supported.
    ImportError
        If pynrrd is missing.
    """
    try:
        import nrrd
    except ImportError as error:
        raise ImportError(f"{name} needs pynrrd: pip install pynrrd") from error
    stream = io.BytesIO(content)
    try:
        header = nrrd.read_header(stream)
        shape = tuple(int(side) for side in header["sizes"])
        dtype = np.dtype(_TYPES[header["type"].lower()])
        spacing, offset = _spacing(header, len(shape)), _offset(header, len(shape))
    except (nrrd.NRRDError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} is not an NRRD volume of a kind that is read: {error}") from error
    size = math.prod(shape) * dtype.itemsize
    if not shape or min(shape) < 1 or size > most_bytes or "data file" in header:
        raise ValueError(f"{name}: {shape} voxels, {size} bytes, are not read here")
    if header.get("endian", "little") == "big":
        dtype = dtype.newbyteorder(">")
    samples = _samples(content[stream.tell() :], str(header.get("encoding")), size, name)
    values = np.frombuffer(samples, dtype).reshape(shape, order="F")
    texts = {str(key): str(value) for key, value in header.items()}
    return MetaImage(values.astype(dtype.newbyteorder("=")), spacing, offset, texts)


def _samples(rest: bytes, encoding: str, size: int, name: str) -> bytes:
    if encoding.lower() in ("gzip", "gz"):
        unpack = zlib.decompressobj(_GZIP)
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


def _spacing(header: Any, axes: int) -> tuple[float, ...]:
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


def _offset(header: Any, axes: int) -> tuple[float, ...]:
    origin = np.asarray(header.get("space origin", np.zeros(axes)), dtype=np.float64)
    return tuple(np.nan_to_num(origin).tolist())
