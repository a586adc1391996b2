"""NIfTI and NRRD files of volumes, of even stacks of sections, and of single sections."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..arrays.lookup import CCFV3, space_of
from ..errors import library
from ..model.checks import checked_choice
from .placed import Placed, index_affine, placed, stored_dtype, written_attributes
from .whole_files import check_ending, pack_file, packed, replacing, write_planar, write_values

RAS_OF_PIR = np.array([[0.0, 0.0, 1e-3], [-1e-3, 0.0, 0.0], [0.0, -1e-3, 0.0]])
"""From p, i, r in microns to x (right), y (anterior), z (superior) in millimetres."""

_LONGEST_SIDE = 2**15 - 1
SIIBRA_SHIFT = np.array([-5.7375, 6.5625, 3.9625])
"""From RAS of the corner of CCFv3 to that of siibra's Allen atlas, in millimetres.

siibra counts from amid the brain: QuickNII's voxels of 25 microns, times 25, less 5737.5,
6637.5 and 4037.5 microns. Source: HumanBrainProject/interactive-viewer, transform of the template
"allen" (``[[1, 0, 0, -5737500], [0, 1, 0, -6637500], [0, 0, 1, -4037500]]``, nanometres).
"""

_TEMPLATE = 5
"""NIFTI_XFORM_TEMPLATE_OTHER: coordinates of a template that is not one of the human ones."""

_MOST_SHEAR = 1e-6
_RGB24 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])

LPS_OF_PIR = np.array([[0.0, 0.0, -1e-3], [1e-3, 0.0, 0.0], [0.0, -1e-3, 0.0]])
"""From p, i, r in microns to left, posterior, superior in millimetres."""

_TYPES = {
    "u1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16", "u4": "uint32", "i4": "int32",
    "u8": "uint64", "i8": "int64", "f4": "float", "f8": "double",
}  # fmt: skip


def to_nifti(
    obj: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    *,
    colours: Literal["axis", "rgb24"] = "axis",
    origin: Literal["corner", "siibra"] = "corner",
    overwrite: bool = False,
) -> None:
    """Write an array as a NIfTI file that stands upright in viewers.

    Parameters
    ----------
    obj
        A volume (dims p, i, r), a stack of sections (section, y, x), or one section (y, x), each
        with or without ``channel``; of a Dataset, its ``image``.
    path
        The file: ``.nii``, or ``.nii.gz`` to compress it.
    colours
        How a voxel has its red, green and blue. ``"axis"``: along a fourth axis of length 3,
        which every reader takes as numbers (``get_fdata()`` of nibabel). ``"rgb24"``: as one
        value of three bytes (datatype 128, uint8 only), which ITK-SNAP, FSLeyes, MRIcroGL and 3D
        Slicer show as colours, and which ``get_fdata()`` refuses.
    origin
        Where the world counts from: the ``"corner"`` of reference space, or, for what lies in
        CCFv3, where siibra-explorer does in its Allen mouse atlas (``"siibra"``), so that the file
        lies over that atlas.
    overwrite
        Whether a file that is there already may be replaced.

    Raises
    ------
    ValueError, TypeError
        If the array, the name or `colours` is none of these, or the sections of a stack are not
        evenly spaced: NIfTI has one affine, which cannot say so.
    FileExistsError
        If the file exists and may not be replaced.
    ImportError
        If nibabel is not installed.

    Notes
    -----
    The world of NIfTI is millimetres to the right, to anterior and to superior: ``x = r / 1000``,
    ``y = -p / 1000``, ``z = -i / 1000``, with the origin of reference space kept. Voxel indices run
    along r, i, p (columns, rows, sections), so that the bytes are in the order of the array, and
    the affine turns them upright. It gives the centres of voxels; the sform has code 5 (a
    template), and the qform says the same where there is no shear.

    Sections keep their exact tilt. A single section is a volume of one slice, as thick as the
    section; a stack must be even to a micron.

    Sides of more than 32767 voxels make a NIfTI-2 file. The attributes of the array are kept as
    JSON in a header extension of kind "comment".

    One row of chunks is held at a time. The file appears when it is whole.

    Examples
    --------
    >>> import atldld, nibabel, tempfile
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with (
    ...     AllenServer([phantom_dataset(dataset_id=1001)]) as server,
    ...     tempfile.TemporaryDirectory() as folder,
    ... ):
    ...     section = atldld.open_dataarray(1001, resolution=200, source=server.url)[3]
    ...     section.atlas.to_nifti(f"{folder}/section.nii")
    ...     image = nibabel.load(f"{folder}/section.nii")
    >>> image.shape, nibabel.aff2axcodes(image.affine)
    ((57, 40, 1, 3), ('R', 'I', 'P'))
    """
    nibabel = library("nibabel", "a NIfTI file")
    name = os.fspath(path)
    check_ending(name, "a NIfTI file", ".nii", ".nii.gz")
    compressed = name.endswith(".nii.gz")
    checked_choice("colours", colours, ("axis", "rgb24"))
    checked_choice("origin", origin, ("corner", "siibra"))
    where = placed(obj)
    if origin == "siibra":
        _check_ccfv3(where.array)
    if colours == "rgb24" and (not where.coloured or where.array.dtype != np.uint8):
        raise ValueError(
            f"rgb24 holds three uint8 channels, not {where.array.dtype} over {where.array.dims}: "
            "use colours='axis'"
        )
    planar = where.coloured and colours == "axis"
    affine = world_affine(where)
    if origin == "siibra":
        affine[:3, 3] += SIIBRA_SHIFT
    header = _nifti_header(nibabel, where, planar, affine)
    with replacing(path, overwrite=overwrite) as made:
        plain = made.with_name("plain") if compressed and planar else made
        with plain.open("xb") as raw:
            if compressed and not planar:
                with packed(raw) as file:
                    header.write_to(file)
                    write_values(file, where.array)
            else:
                header.write_to(raw)
                (write_planar if planar else write_values)(raw, where.array)
        if plain != made:
            pack_file(plain, made)


def world_affine(where: Placed) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the affine of NIfTI: from (column, row, section or p index) to RAS millimetres.

    Returns
    -------
    affine
        Shape (4, 4), float64.
    """
    places = RAS_OF_PIR @ index_affine(where)
    out = np.eye(4)
    out[:3] = places[:, [2, 1, 0, 3]]
    return out


def _check_ccfv3(array: xr.DataArray) -> None:
    if space_of(array, "these values") != CCFV3:
        raise ValueError(
            "origin='siibra' is of CCFv3, where this does not lie: open with registration=..."
        )


def _nifti_header(
    nibabel: Any, where: Placed, planar: bool, affine: np.ndarray[Any, np.dtype[np.float64]]
) -> Any:
    array = where.array
    sides = _sides(where, "NIfTI")
    if planar:
        sides += (array.shape[-1],)
    header: Any
    if max(sides) > _LONGEST_SIDE:
        header = nibabel.Nifti2Header(endianness="<")
    else:
        header = nibabel.Nifti1Header(endianness="<")
    coloured = where.coloured and not planar
    dtype = _RGB24 if coloured else stored_dtype(array.dtype)
    try:
        header.set_data_dtype(dtype)
    except nibabel.spatialimages.HeaderDataError:
        raise TypeError(f"NIfTI has no type for {dtype}; convert with astype first") from None
    header.set_data_shape(sides)
    header.set_sform(affine, code=_TEMPLATE)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    sheared = np.abs(directions.T @ directions - np.eye(3)).max() > _MOST_SHEAR
    header.set_qform(affine, code=0 if sheared else _TEMPLATE)
    header.set_xyzt_units("mm")
    attributes = written_attributes(array)
    dataset = attributes.get("dataset_id", "")
    header["descrip"] = f"atldld {dataset} {attributes.get('gene', '')}".encode()[:79]
    text = json.dumps(attributes, ensure_ascii=True).encode()
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", text))
    header.set_data_offset(header.single_vox_offset + header.extensions.get_sizeondisk())
    return header


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
    check_ending(path, "an NRRD file", ".nrrd")
    where = placed(obj)
    header = _nrrd_header(where, compress)
    with replacing(path, overwrite=overwrite) as made, made.open("xb") as raw:
        raw.write(header)
        if compress:
            with packed(raw) as file:
                write_values(file, where.array)
        else:
            write_values(raw, where.array)


def _nrrd_header(where: Placed, compress: bool) -> bytes:
    array = where.array
    dtype = stored_dtype(array.dtype)
    if dtype.str[1:] not in _TYPES:
        raise TypeError(f"NRRD has no type for {dtype}; convert with astype first")
    affine = LPS_OF_PIR @ index_affine(where)
    sizes = [str(size) for size in _sides(where, "NRRD")]
    directions = [_vector(affine[:, column]) for column in (2, 1, 0)]
    kinds = ["domain"] * 3
    if where.coloured:
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


def _sides(where: Placed, name: str) -> tuple[int, ...]:
    """Return how many voxels there are along columns, rows, and sections or p."""
    channels = where.array.shape[-1] if where.coloured else 3
    if channels != 3:
        raise ValueError(f"there are {channels} channels; {name} takes one, or all three")
    return ((1,) * (3 - len(where.shape)) + where.shape)[::-1]
