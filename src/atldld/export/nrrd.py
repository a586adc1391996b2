"""NRRD files of volumes, of even stacks of sections, and of single sections."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import xarray as xr

from .placed import Placed, index_affine, placed, stored_dtype, written_attributes
from .whole_files import packed, replacing, write_values

LPS_OF_PIR = np.array([[0.0, 0.0, -1e-3], [1e-3, 0.0, 0.0], [0.0, -1e-3, 0.0]])
"""From p, i, r in microns to left, posterior, superior in millimetres."""

_TYPES = {
    "u1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16", "u4": "uint32", "i4": "int32",
    "u8": "uint64", "i8": "int64", "f4": "float", "f8": "double",
}  # fmt: skip


def to_nrrd(
    obj: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    *,
    compress: bool = True,
    overwrite: bool = False,
) -> None:
    """Write an array as an NRRD file with the directions of its axes in space.

    Parameters
    ----------
    obj
        A volume (dims p, i, r), a stack of sections (section, y, x), or one section (y, x), each
        with or without ``channel``; of a Dataset, its ``image``.
    path
        The file: ``.nrrd``.
    compress
        Whether to compress the values with gzip.
    overwrite
        Whether a file that is there already may be replaced.

    Raises
    ------
    ValueError, TypeError
        If the array or the name is none of these, or the sections of a stack are not evenly
        spaced: NRRD has one direction an axis, which cannot say so.
    FileExistsError
        If the file exists and may not be replaced.

    Notes
    -----
    The space is ``left-posterior-superior`` in millimetres, that of ITK and 3D Slicer: left ``-r /
    1000``, posterior ``p / 1000``, superior ``-i / 1000``, with the origin of reference space kept.
    It is the world of `to_nifti` with x and y negated. The axes run along r, i, p (columns, rows,
    sections), fastest first; colours are an axis of kind ``RGB-color`` before them. Origin and
    directions tell of the centres of voxels. Sections keep their exact tilt, as in `to_nifti`.

    The attributes of the array are key/value pairs of the header. One row of chunks is held at
    a time. The file appears when it is whole. The header is plain text, written after the
    definition of the format [1]_.

    References
    ----------
    .. [1] https://teem.sourceforge.net/nrrd/format.html

    Examples
    --------
    >>> import atldld, nrrd, tempfile
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with (
    ...     AllenServer([phantom_dataset(dataset_id=1001)]) as server,
    ...     tempfile.TemporaryDirectory() as folder,
    ... ):
    ...     section = atldld.open_dataarray(1001, resolution=200, source=server.url)[3]
    ...     section.atlas.to_nrrd(f"{folder}/section.nrrd")
    ...     values, header = nrrd.read(f"{folder}/section.nrrd")
    >>> values.shape, header["space"]
    ((3, 57, 40, 1), 'left-posterior-superior')
    """
    if not os.fspath(path).endswith(".nrrd"):
        raise ValueError(f"{os.fspath(path)}: an NRRD file is named .nrrd")
    where = placed(obj)
    header = _header(where, compress)
    with replacing(path, overwrite=overwrite) as made, made.open("xb") as raw:
        raw.write(header)
        if compress:
            with packed(raw) as file:
                write_values(file, where.array)
        else:
            write_values(raw, where.array)


def _header(where: Placed, compress: bool) -> bytes:
    array = where.array
    dtype = stored_dtype(array.dtype)
    if dtype.str[1:] not in _TYPES:
        raise TypeError(f"NRRD has no type for {dtype}; convert with astype first")
    affine = LPS_OF_PIR @ index_affine(where)
    shape = (1,) * (3 - len(where.shape)) + where.shape
    sizes = [str(size) for size in shape[::-1]]
    directions = [_vector(affine[:, column]) for column in (2, 1, 0)]
    kinds = ["domain"] * 3
    if where.coloured:
        if array.shape[-1] != 3:
            raise ValueError(f"there are {array.shape[-1]} channels; NRRD takes one, or all three")
        sizes, directions, kinds = ["3", *sizes], ["none", *directions], ["RGB-color", *kinds]
    lines = [
        "NRRD0005",
        f"type: {_TYPES[dtype.str[1:]]}",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(sizes)}",
        f"space directions: {' '.join(directions)}",
        f"kinds: {' '.join(kinds)}",
        'space units: "mm" "mm" "mm"',
        "endian: little",
        f"encoding: {'gzip' if compress else 'raw'}",
        f"space origin: {_vector(affine[:, 3])}",
    ]
    for key, value in written_attributes(array).items():
        lines.append(f"{_plain(key).replace(':', ' ')}:={_plain(str(value))}")
    return "\n".join([*lines, "", ""]).encode("ascii")


def _vector(numbers: Iterable[float]) -> str:
    return f"({','.join(repr(float(number) + 0.0) for number in numbers)})"


def _plain(text: str) -> str:
    """Return text as one line of ASCII, as the header wants it."""
    one_line = text.replace("\\", "\\\\").replace("\n", "\\n")
    return one_line.encode("ascii", "backslashreplace").decode("ascii")
