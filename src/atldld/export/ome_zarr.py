"""OME-Zarr images of volumes, stacks of sections, and single sections."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..errors import AtldldWarning, library
from ..model.affine import Array
from ..model.space import AXES
from .placed import Placed, placed, step_of, stored_dtype, thickness, written_attributes
from .whole_files import replacing

VERSION = "0.5"

_SMALLEST_SIDE = 256
"""Pixels: no level is made that is smaller than this along its longest side."""

_VOLUME_CHUNK = 64
_PLANE_CHUNK = 512
_UNEVEN = 1e-3

_ORIENTATIONS = {
    "p": ("anterior-to-posterior", "posterior-to-anterior"),
    "i": ("superior-to-inferior", "inferior-to-superior"),
    "r": ("left-to-right", "right-to-left"),
}
_COLOURS = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}


def to_ome_zarr(
    obj: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    *,
    labels: bool | None = None,
    overwrite: bool = False,
) -> None:
    """Write an array as an OME-Zarr 0.5 image with smaller and smaller levels.

    Parameters
    ----------
    obj
        A volume (dims p, i, r), a stack of sections (section, y, x), or one section (y, x), each
        with or without ``channel``; of a Dataset, its ``image``.
    path
        The folder to be made, ``.ome.zarr`` or ``.zarr`` by custom.
    labels
        Whether the values are labels, of which a coarser level takes the most frequent, not
        the mean. None: they are where they are truth values, or integers other than uint8.
    overwrite
        Whether something that is there already may be replaced.

    Raises
    ------
    ValueError, TypeError
        If the array is none of these.
    FileExistsError
        If `path` exists and may not be replaced.
    ImportError
        If ngff-zarr is not installed.

    Warns
    -----
    AtldldWarning
        If the sections of a stack are not evenly spaced: the format has one step an axis, and
        the median gap is written.

    Notes
    -----
    Axes are c, z, y, x. Of a volume, z is p, y is i, x is r; of sections, z is the slicing axis,
    and y, x are rows and columns. Each carries micrometers and its anatomical orientation (RFC
    4: ``anterior-to-posterior`` for p, ``superior-to-inferior`` for i, ``left-to-right`` for
    r). Scale and translation place the centres of pixels in reference space. Every level halves
    the one before it, by the mean of 2 x 2 x 2 voxels, or of 2 x 2 pixels of a section; its first
    centre lies half a finer step further in, and a last odd row is left off.

    What the format cannot say is kept under ``atldld`` in the attributes of the root group: the
    attributes of the array, which axis is which, and for sections ``section_number``, ``image_id``,
    ``slice_coordinate`` (microns), and ``plane``, the exact affine of each section from (x microns,
    y microns, 1) to p, i, r.

    Chunks are written as they are computed, by the well-kept ngff-zarr; a level is made from the
    one before it on disk. The folder appears when it is whole.

    Examples
    --------
    >>> import atldld, tempfile, zarr
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with (
    ...     AllenServer([phantom_dataset(dataset_id=1001)]) as server,
    ...     tempfile.TemporaryDirectory() as folder,
    ... ):
    ...     volume = atldld.open_volume(1001, resolution=400, source=server.url)
    ...     volume.atlas.to_ome_zarr(f"{folder}/volume.ome.zarr")
    ...     image = zarr.open_group(f"{folder}/volume.ome.zarr", mode="r")
    >>> image["scale0/image"].shape
    (3, 33, 20, 28)
    """
    nz = library("ngff_zarr", "OME-Zarr", "ngff-zarr")
    where = _ascending(placed(obj))
    array = where.array
    if labels is None:
        labels = array.dtype.kind in "bui" and array.dtype != np.uint8
    if labels and where.coloured:
        raise ValueError("labels have no colours; leave out labels=True, or take one channel")
    names = "zyx"[-len(where.shape) :]
    scale, translation = _scale(where, names)
    image = nz.NgffImage(
        data=_dask(array, where),
        dims=(*names, "c") if where.coloured else tuple(names),
        scale=scale,
        translation=translation,
        name="image",
        axes_units=dict.fromkeys(names, "micrometer"),
        axes_orientations={
            name: nz.AnatomicalOrientation(
                value=nz.AnatomicalOrientationValues(_ORIENTATIONS[axis][0 if forward > 0 else 1])
            )
            for name, axis, forward in zip(
                names, where.axes[-len(names) :], _directions(where), strict=True
            )
        },
    )
    multiscales = nz.to_multiscales(
        image,
        scale_factors=_factors(where, names),
        method=nz.Methods.DASK_IMAGE_MODE if labels else nz.Methods.DASK_BIN_SHRINK,
        chunks=_chunks(where, names),
        cache=False,
    )
    multiscales.root_attributes = {"atldld": _attributes(where, names)}
    if where.coloured and array.dtype == np.uint8:
        multiscales.metadata.omero = _omero(nz, array)
    with replacing(path, overwrite=overwrite) as made:
        nz.to_ngff_zarr(str(made), multiscales, version=VERSION, overwrite=False)


def _ascending(where: Placed) -> Placed:
    """Return the array with every coordinate ascending: scales are above 0 in this format."""
    dims = where.array.dims
    turned: Mapping[Any, slice] = {
        dim: slice(None, None, -1)
        for dim, values in zip(dims, where.coordinates, strict=False)
        if len(values) > 1 and values[-1] < values[0]
    }
    if not turned:
        return where
    return placed(where.array.isel(turned))


def _scale(where: Placed, names: str) -> tuple[dict[str, float], dict[str, float]]:
    scale, translation = {"c": 1.0}, {"c": 0.0}
    for name, values in zip(names, where.coordinates, strict=True):
        translation[name] = float(values[0])
        if where.kind == "stack" and name == "z":
            scale[name] = _gap(where, values)
        else:
            scale[name] = step_of(values, name)
    if not where.coloured:
        del scale["c"], translation["c"]
    return scale, translation


def _gap(where: Placed, values: Array) -> float:
    if len(values) < 2:
        return thickness(where.array)
    gaps = np.diff(values)
    median = float(np.median(gaps))
    if not gaps.min() > 0:
        raise ValueError("the sections are in no ascending order; sort them first")
    if np.abs(gaps - median).max() > _UNEVEN * median:
        warnings.warn(
            f"the sections are not evenly spaced: gaps run from {gaps.min():.1f} to "
            f"{gaps.max():.1f} microns. Their median, {median:.1f}, is written as the step of z; "
            "the true places are in the attributes (atldld, slice_coordinate). open_volume gives "
            "an even grid",
            AtldldWarning,
            stacklevel=5,
        )
    return median


def _directions(where: Placed) -> tuple[float, ...]:
    """Return, for each dim of space, whether its coordinate grows with that of reference space."""
    if where.planes is None:
        return (1.0,) * len(where.shape)
    _, rows, columns = (AXES.index(axis) for axis in where.axes)
    plane = where.planes[0]
    return ((1.0, plane[rows, 1], plane[columns, 0]))[-len(where.shape) :]


def _dask(array: xr.DataArray, where: Placed) -> Any:
    chunked = array if array.chunks is not None else array.chunk(_whole_chunks(where))
    data = chunked.data
    return data.astype(stored_dtype(array.dtype))


def _whole_chunks(where: Placed) -> dict[Any, int]:
    size = _VOLUME_CHUNK if where.kind == "volume" else _PLANE_CHUNK
    chunks: dict[Any, int] = dict.fromkeys(where.array.dims[: len(where.shape)], size)
    if where.kind == "stack":
        chunks["section"] = 1
    return chunks


def _chunks(where: Placed, names: str) -> dict[str, int]:
    size = _VOLUME_CHUNK if where.kind == "volume" else _PLANE_CHUNK
    chunks = dict.fromkeys(names, size)
    if where.kind == "stack":
        chunks["z"] = 1
    if where.coloured:
        chunks["c"] = where.array.shape[-1]
    return chunks


def _factors(where: Placed, names: str) -> list[dict[str, int]]:
    """Return how often each level holds what the first one does, axis by axis."""
    halved = [name for name in names if where.kind == "volume" or name != "z"]
    sizes = dict(zip(names, where.shape, strict=True))
    factors, factor = [], 2
    while max(sizes[name] for name in halved) // factor >= _SMALLEST_SIDE:
        # An axis that is used up stays as it is.
        factors.append(
            {
                name: min(factor, _least_power(sizes[name])) if name in halved else 1
                for name in names
            }
        )
        factor *= 2
    return factors


def _least_power(size: int) -> int:
    return 1 << (size.bit_length() - 1)


def _attributes(where: Placed, names: str) -> dict[str, Any]:
    array = where.array
    out: dict[str, Any] = {
        **written_attributes(array),
        "axes": dict(zip(names, where.axes[-len(names) :], strict=True)),
    }
    if where.planes is not None:
        out["plane"] = where.planes.tolist()
        for name in ("section", "image_id", where.axes[0]):
            if name in array.coords:
                key = {"section": "section_number", "image_id": "image_id"}.get(
                    name, "slice_coordinate"
                )
                out[key] = np.atleast_1d(array.coords[name].values).tolist()
    return out


def _omero(nz: Any, array: xr.DataArray) -> Any:
    """Return how viewers show the channels: each in its colour, 0 to 255."""
    names = [str(name) for name in array.coords["channel"].values]
    window = {"min": 0.0, "max": 255.0, "start": 0.0, "end": 255.0}
    return nz.Omero(
        channels=[
            nz.OmeroChannel(
                label=name, color=_COLOURS.get(name, "FFFFFF"), window=nz.OmeroWindow(**window)
            )
            for name in names
        ]
    )
