"""What an array to be exported is, and where each of its values lies in reference space."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..arrays.positions import array_in, axes_along, section_points
from ..errors import AtldldWarning
from ..model.affine import Array
from ..model.space import AXES

Kind = Literal["volume", "stack", "section"]

_SPACE_DIMS: dict[Kind, tuple[str, ...]] = {
    "volume": AXES,
    "stack": ("section", "y", "x"),
    "section": ("y", "x"),
}
_EVEN = 1.0
"""Microns by which a section may lie off an even spacing and still be called even."""


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """An array, its dimensions in order, and where they lie.

    Parameters
    ----------
    kind
        ``"volume"`` over p, i, r; ``"stack"`` over section, y, x; ``"section"`` over y, x.
    array
        Dims those of `kind`, and ``channel`` last where there are colours.
    axes
        For each dim of space, which of p, i, r it runs along (for sections: the nearest).
    coordinates
        For each dim of space, its microns along that axis; of the pixels of an image, microns
        from its corner along the section. One number for the slicing axis of a single section
        is not among them.
    planes
        Shape (sections, 3, 3): from (column microns, row microns, 1) to p, i, r in microns;
        None for volumes.
    """

    kind: Kind
    array: xr.DataArray
    axes: tuple[str, ...]
    coordinates: tuple[Array, ...]
    planes: Array | None

    @property
    def coloured(self) -> bool:
        """Whether the last dimension is ``channel``."""
        return "channel" in self.array.dims

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dims of space."""
        return self.array.shape[: len(self.coordinates)]


def placed(obj: xr.DataArray | xr.Dataset) -> Placed:
    """Return what an array is and where it lies.

    Parameters
    ----------
    obj
        A volume with dims p, i, r; a stack with dims section, y, x; or one section, or the pixels
        of one image, with dims y, x; each with or without ``channel``, in any order. Of a
        Dataset, its ``image``, or the one variable that it has.

    Raises
    ------
    ValueError, TypeError
        If it is none of these, holds numbers of no known kind, or its coordinates are not even.
    """
    array = array_in(obj, "exported")
    kind = _kind(array)
    dims = _SPACE_DIMS[kind]
    extra = set(array.dims) - {*dims, "channel"}
    if extra:
        raise ValueError(f"nothing can be made of the dimension {sorted(map(str, extra))[0]!r}")
    if 0 in array.shape:
        raise ValueError(f"there is nothing to export: the array has the shape {array.shape}")
    if array.dtype.kind not in "buif":
        raise TypeError(f"values are {array.dtype}; they must be numbers")
    order = (*dims, "channel") if "channel" in array.dims else dims
    array = array.transpose(*order)
    if kind == "section" and not set(AXES) & set(array.coords):
        return _native(array)
    axes = dims if kind == "volume" else _axes_of_sections(array, dims)
    coordinates = tuple(
        _microns(array, dim, axis) for dim, axis in zip(dims, axes[-len(dims) :], strict=True)
    )
    for dim, values in zip(dims, coordinates, strict=True):
        if dim != "section":
            step_of(values, dim)
    planes = None if kind == "volume" else _planes(array, axes)
    return Placed(kind, array, axes, coordinates, planes)


def _native(array: xr.DataArray) -> Placed:
    """Return where the pixels of one image lie; its coordinates are full-resolution pixels."""
    plane = section_points(array).straight().affines[0]
    normal = np.cross(plane[:, 0], plane[:, 1])
    along = int(np.argmax(np.abs(normal)))
    in_plane = np.abs(np.delete(plane, along, axis=0))
    free = [axis for place, axis in enumerate(AXES) if place != along]
    columns = free[int(np.argmax(in_plane[:, 0]))]
    rows = free[1 - free.index(columns)]
    microns = np.linalg.norm(plane[:, :2], axis=0)
    coordinates = tuple(
        array[dim].values * scale for dim, scale in (("y", microns[1]), ("x", microns[0]))
    )
    for dim, values in zip(("y", "x"), coordinates, strict=True):
        step_of(values, dim)
    plane = plane / [*microns, 1.0]
    return Placed("section", array, (AXES[along], rows, columns), coordinates, plane[None])


def step_of(values: Array, dim: str) -> float:
    """Return the step of even coordinates in microns; it may be negative.

    Raises
    ------
    ValueError
        If there is only one coordinate, or they are not even.
    """
    if len(values) < 2:
        raise ValueError(f"{dim} has one value, which has no step: select at least two, as a slice")
    step = float(values[-1] - values[0]) / (len(values) - 1)
    if step == 0 or not np.allclose(np.diff(values), step, rtol=1e-6, atol=0):
        raise ValueError(f"the coordinates of {dim} are not even; interpolate onto even ones first")
    return step


def index_affine(where: Placed) -> Array:
    """Return the affine from places in the array to reference space.

    Returns
    -------
    affine
        Shape (3, 4), float64: from (first, second, third index, 1) to p, i, r in microns. For a
        single section the first index is across it, one section thickness a step.

    Raises
    ------
    ValueError
        If it is a stack of sections that no single affine places.
    """
    if where.planes is None:
        out = np.zeros((3, 4))
        for place, (dim, values) in enumerate(zip(AXES, where.coordinates, strict=True)):
            out[place, place], out[place, 3] = step_of(values, dim), values[0]
        return out
    rows, columns = where.coordinates[-2:]
    first = where.planes[0]
    out = np.empty((3, 4))
    out[:, 1] = first[:, 1] * step_of(rows, "y")
    out[:, 2] = first[:, 0] * step_of(columns, "x")
    out[:, 3] = first @ (columns[0], rows[0], 1.0)
    out[:, 0] = _across(where, rows, columns)
    return out


def _across(where: Placed, rows: Array, columns: Array) -> Array:
    """Return how far reference space moves from one section to the next."""
    planes = where.planes
    assert planes is not None
    if len(planes) == 1:
        normal = np.cross(planes[0][:, 0], planes[0][:, 1])
        normal /= np.linalg.norm(normal)
        along = AXES.index(where.axes[0])
        return np.asarray(normal * np.sign(normal[along]) * thickness(where.array))
    corners = np.array([[x, y, 1.0] for x in columns[[0, -1]] for y in rows[[0, -1]]])
    places = np.einsum("nij,kj->nki", planes, corners)
    move = (places[-1, 0] - places[0, 0]) / (len(planes) - 1)
    even = places[0] + np.arange(len(planes))[:, None, None] * move
    off = float(np.abs(places - even).max())
    if off > _EVEN:
        gaps = np.diff(where.coordinates[0])
        raise ValueError(
            f"these sections are not evenly spaced (gaps from {gaps.min():.1f} to {gaps.max():.1f} "
            f"microns) or not parallel: they lie up to {off:.1f} microns off an even stack, and "
            "one affine cannot say so. Use open_volume, export sections one by one, or "
            "to_ome_zarr, which keeps the place of each"
        )
    return np.asarray(move)


def thickness(array: xr.DataArray) -> float:
    """Return the thickness of a section in reference microns, 25 where it is not told."""
    microns = float(array.attrs.get("section_thickness_microns", 25.0))
    return microns * float(array.attrs.get("reference_microns_per_stack_micron", 1.0))


def _kind(array: xr.DataArray) -> Kind:
    for kind, dims in _SPACE_DIMS.items():
        if set(dims) <= set(array.dims):
            return kind
    raise ValueError(
        f"the dimensions are {array.dims}; they must hold p, i and r (a volume), section, y and "
        "x (a stack), or y and x (a section)"
    )


def _axes_of_sections(array: xr.DataArray, dims: tuple[str, ...]) -> tuple[str, str, str]:
    """Return which of p, i, r is the slicing axis, the row axis and the column axis."""
    found = axes_along(array)
    along: tuple[Hashable, ...] = ("section",) if "section" in dims else ()
    try:
        return found[along], found["y",], found["x",]
    except KeyError:
        raise ValueError(
            "the array has lost the coordinates p, i and r that say where its sections lie"
        ) from None


def _microns(array: xr.DataArray, dim: str, axis: str) -> Array:
    if axis not in array.coords or array.coords[axis].dims != (dim,):
        raise ValueError(f"the array has lost its coordinate {axis} along {dim}")
    return np.asarray(array.coords[axis].values, dtype=np.float64)


def _planes(array: xr.DataArray, axes: tuple[str, ...]) -> Array:
    """Return the planes of sections: exact, or level where only slice coordinates are known."""
    try:
        return section_points(array).affines
    except ValueError as error:
        warnings.warn(
            f"the tilt of the sections is not known here ({error}): they are exported as level, "
            "each at its slice coordinate",
            AtldldWarning,
            stacklevel=5,
        )
    levels = np.atleast_1d(array.coords[axes[0]].values).astype(np.float64)
    planes = np.zeros((len(levels), 3, 3))
    planes[:, AXES.index(axes[2]), 0] = 1.0
    planes[:, AXES.index(axes[1]), 1] = 1.0
    planes[:, AXES.index(axes[0]), 2] = levels
    return planes


def written_attributes(array: xr.DataArray) -> dict[str, Any]:
    """Return the attributes of an array as plain text and numbers, for headers."""
    return {
        str(key): value.item() if isinstance(value, np.generic) else value
        for key, value in array.attrs.items()
        if isinstance(value, str | int | float | np.generic)
    }


def stored_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return the type that values are written as: their own, and uint8 for truth values."""
    kind = np.dtype(dtype)
    return np.dtype(np.uint8) if kind.kind == "b" else kind
