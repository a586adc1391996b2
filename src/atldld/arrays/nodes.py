"""The nodes that volumes are opened on, those of another array among them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.core import indexing

from ..model.grid import Grid, axis_through
from ..model.space import AXES
from ..reading.failures import Ledger
from .base import (
    AUTO_BYTES,
    channel_coordinate,
    chunks_given,
    guarded,
    in_chunks,
    microns_of,
    piece,
)
from .index import space_in
from .lazy import NOTHING, UnfilledArray, What, not_filled, without_marks
from .request import VolumeRequest

_DIMS = (*AXES, "channel")
_TILE = 128
"""Sides of pieces of planes are multiples of this where they can be."""

_MOST_PLANES = 64
"""Planes a chunk, beyond which planes are not split any further to have more of them."""

_LONG_NAMES: dict[What, dict[str, Any]] = {
    "section_number": {"long_name": "number of the section shown", "none": -1},
    "distance": {"long_name": "distance from the section shown", "units": "µm"},
    "mirrored": {"long_name": "mirrored from the other hemisphere"},
}


@dataclass(frozen=True, slots=True, eq=False)
class Like:
    """The nodes of another array.

    Parameters
    ----------
    coords
        Its p, i and r as they are.
    space
        The reference space that it says it lies in, or None.
    grid
        The evenly spaced nodes that hold them.
    picked
        Which of these they are, along each axis; a plain number where the axis is a scalar.
    """

    coords: dict[str, xr.Variable]
    space: int | str | None
    grid: Grid
    picked: dict[str, npt.NDArray[np.int64] | int]

    @classmethod
    def of(cls, like: Any, lone_step: float) -> Like | None:
        """Return the nodes of an array, or say what it lacks; None gives none."""
        if like is None:
            return None
        if not isinstance(like, xr.DataArray | xr.Dataset):
            raise TypeError(
                f"like is {type(like).__name__}; it must be an xarray object with p, i and r"
            )
        coords = {}
        for axis in AXES:
            if axis not in like.coords or like.coords[axis].ndim > 1:
                raise ValueError(
                    f"like has no {axis} along one dimension; it must have coordinates p, i and r "
                    "in microns, as volumes do"
                )
            variable = like.coords[axis].variable
            if variable.dtype.kind not in "iuf":
                raise TypeError(f"{axis} of like is {variable.dtype}; it must be microns")
            if variable.ndim and variable.dims != (axis,):
                raise ValueError(
                    f"{axis} of like lies along {variable.dims[0]!r}: that is an array of "
                    "sections; give an array with dimensions p, i and r"
                )
            coords[axis] = variable
        space = _space_of(like)
        axes, picked = [], {}
        for axis, variable in coords.items():
            values = np.atleast_1d(np.asarray(variable.values, dtype=np.float64))
            nodes, numbers = axis_through(values, axis, lone_step)
            axes.append(nodes)
            picked[axis] = numbers if variable.ndim else int(numbers[0])
        return cls(coords, space, Grid(AXES, tuple(axes)), picked)


def _space_of(like: xr.DataArray | xr.Dataset) -> int | str | None:
    """Return the reference space that an array says it lies in, or None where it does not say."""
    said = space_in(like)
    if said is None:
        said = like.attrs.get("reference_space")
    if isinstance(said, str) and said:
        return said
    try:
        number = operator.index(said)
    except TypeError:
        return None
    return number if number >= 0 else None


def volume_chunk_sizes(
    chunks: Any,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    itemsize: int,
    slicing: str,
    planes_a_gap: float,
    *,
    blended: bool,
) -> dict[str, Any]:
    """Return the chunk size of each dimension of a volume.

    Parameters
    ----------
    chunks
        ``"auto"`` (or an empty dict): slabs along the slicing axis of whole planes, as many as fit
        into 16 MiB, or 4 MiB if `blended`. Where so many planes as lie between two sections do
        not fit whole, these are split: each piece reads a window of the sections, and none of
        them has to be decoded again for every few planes. Else a dict as in xarray.
    dims, shape
        Names and lengths of the dimensions; p, i and r first.
    itemsize
        Bytes of one value.
    slicing
        The slicing axis.
    planes_a_gap
        How many planes of nodes lie between two neighbouring sections.
    blended
        Whether voxels are blended from two sections, which takes memory.

    Raises
    ------
    ValueError
        If the dict names a dimension that is not there.

    Examples
    --------
    >>> volume_chunk_sizes(
    ...     "auto", ("p", "i", "r", "channel"), (528, 320, 454, 3), 1, "p", 8.0, blended=False
    ... )
    {'p': 38, 'i': 320, 'r': 454, 'channel': 3}
    """
    if isinstance(chunks, Mapping) and chunks:
        return chunks_given(chunks, dims)
    sizes = dict(zip(dims, shape, strict=True))
    across = [dim for dim in dims[:3] if dim != slicing]
    rows, columns = (max(sizes[dim], 1) for dim in across)
    budget = AUTO_BYTES // 4 if blended else AUTO_BYTES
    points = max(budget // (itemsize * math.prod(shape[3:])), 1)
    least = int(min(max(planes_a_gap, 1), _MOST_PLANES, max(sizes[slicing], 1)))
    if rows * columns * least > points:
        rows, columns = piece(rows, columns, max(points // least, 1), _TILE)
    planes = max(min(points // (rows * columns), sizes[slicing]), 1)
    return {**sizes, slicing: planes, across[0]: rows, across[1]: columns}


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """The nodes that volumes are opened on, and how their arrays are cut.

    Parameters
    ----------
    grid
        Evenly spaced nodes.
    request
        What is asked for.
    like
        What the nodes were taken from, if anything.
    slicing
        The axis along which chunks are slabs.
    gap
        Microns along it between two sections.
    channels
        Length of the channel dimension, or nothing.
    """

    grid: Grid
    request: VolumeRequest
    like: Like | None
    slicing: str
    gap: float
    channels: tuple[int, ...]

    def lazy(self, array: Any, attrs: dict[str, Any], leading: tuple[str, ...] = ()) -> xr.Variable:
        """Return an array over the grid as a lazy variable over the nodes.

        Parameters
        ----------
        array
            Over `leading`, p, i, r and perhaps channels.
        attrs
            Its attributes.
        leading
            Dimensions before p, i and r, which chunks hold one of.
        """
        picked = {} if self.like is None else self.like.picked
        dims = (*leading, *_DIMS)[: len(array.shape)]
        variable = xr.Variable(dims, indexing.LazilyIndexedArray(array), attrs)
        shape = tuple(
            np.size(picked[axis]) if axis in picked else count
            for axis, count in zip(AXES, self.grid.shape, strict=True)
        )
        picks = {
            axis: numbers
            for axis, numbers in picked.items()
            if not np.array_equal(numbers, np.arange(variable.sizes[axis]))
        }
        variable = variable.isel(picks)
        chunks = self.request.chunks
        lead = dict.fromkeys(leading, 1)
        if isinstance(chunks, Mapping) and chunks:
            lead |= {dim: chunks[dim] for dim in leading if dim in chunks}
            chunks = {dim: size for dim, size in chunks.items() if dim not in leading} or {"p": -1}
        sizes = volume_chunk_sizes(
            "auto" if chunks is None else chunks,
            _DIMS,
            (*shape, *(self.channels or (1,))),
            4 if self.request.masked else 1,
            self.slicing,
            self.gap / self.grid.axes[AXES.index(self.slicing)].step,
            blended=self.request.between == "linear",
        )
        if getattr(array, "marked", False):
            sizes["channel"] = -1
        chunked = self.request.chunks is not None
        return in_chunks(variable, {**lead, **sizes}, array, picks, chunked=chunked)

    def axis(self, axis: str) -> xr.Variable:
        """Return the coordinate p, i or r of the nodes."""
        if self.like is None:
            nodes = self.grid.axes[AXES.index(axis)]
            return xr.Variable(axis, nodes.microns, microns_of(axis))
        given = self.like.coords[axis]
        return xr.Variable(given.dims, given.values, microns_of(axis))

    def coordinates(
        self, space: int | Literal["CCFv3"] | None, frame: str, ledger: Ledger
    ) -> xr.Coordinates:
        """Return the coordinates of volumes on the nodes, in a space."""
        nodes = xr.Coordinates({axis: self.axis(axis) for axis in AXES})
        variables, indexes = dict(nodes.variables), dict(nodes.xindexes)
        if self.channels:
            variables |= channel_coordinate().variables
            indexes |= channel_coordinate().xindexes
        return guarded(variables, indexes, space, frame, [ledger])

    def dataset(
        self,
        array_of: Callable[[Literal["image"] | What], Any],
        coordinates: xr.Coordinates,
        attrs: dict[str, Any],
        pixel_attrs: dict[str, Any],
        leading: tuple[str, ...] = (),
    ) -> xr.Dataset:
        """Return volumes on the nodes, lazily.

        Parameters
        ----------
        array_of
            Returns the array of pixels (if it is marked, what was filled shows no section), or of
            something that follows from matrices alone.
        coordinates
            From `coordinates`.
        attrs, pixel_attrs
            Of the volumes, and of their pixels.
        leading
            As in `lazy`.
        """
        image, chunks = array_of("image"), self.request.chunks
        pixels = marked = self.lazy(image, pixel_attrs, leading)
        if image.marked:
            given = chunks if isinstance(chunks, Mapping) else {}
            pixels = without_marks(marked, self.channels, given.get("channel", -1))
        variables = {"image": pixels}
        for what, named in _LONG_NAMES.items():
            if what == "mirrored" and not self.request.mirror:
                continue
            array = array_of(what)
            if image.marked and chunks is None:
                array = UnfilledArray([image], array, NOTHING[what])
            variables[what] = self.lazy(array, named, leading)
            if image.marked and chunks is not None:
                variables[what] = variables[what].where(not_filled([marked]), NOTHING[what])
                variables[what].attrs = named
        return self.within_region(xr.Dataset(variables, coordinates, attrs))

    def within_region(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return what lies within the region, of volumes on the nodes of another array."""
        if self.like is None or not self.request.region:
            return dataset
        return _cut(dataset, self.request.region)


def _cut(dataset: xr.Dataset, region: dict[str, tuple[float, float]]) -> xr.Dataset:
    """Return the nodes of `like` within a region."""
    for axis, (low, high) in region.items():
        values = np.atleast_1d(dataset[axis].values)
        inside = (values >= low) & (values <= high)
        if not inside.any():
            raise ValueError(
                f"region {axis}=({low:g}, {high:g}) holds no node of like; they lie from "
                f"{values.min():g} to {values.max():g} microns"
            )
        if axis in dataset.dims and not inside.all():
            dataset = dataset.isel({axis: np.flatnonzero(inside)})
    return dataset
