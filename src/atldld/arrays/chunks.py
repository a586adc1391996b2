"""How an array of sections is cut into chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import xarray as xr

from ..reading.reader import Reader
from .internals import writable

AUTO_BYTES = 16 * 2**20
AUTO_SECTIONS = 8

_PIECE = 512
"""Sides of pieces are multiples of this where they can be: it is the side of a warped tile."""

_TILE = 128
"""The same in volumes."""

_MOST_PLANES = 64
"""Planes a chunk, beyond which planes are not split any further to have more of them."""


def chunk_sizes(
    chunks: Any,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    itemsize: int,
    most_sections: int = AUTO_SECTIONS,
) -> dict[str, Any]:
    """Return the chunk size of each dimension.

    Parameters
    ----------
    chunks
        ``"auto"`` (or an empty dict): as many whole sections as fit into 16 MiB, at most 8; a
        larger plane is split into pieces of at most 16 MiB. Else a dict as in xarray, where a
        dimension that is not named stays whole.
    dims, shape
        Names and lengths of the dimensions, ``section`` first, then ``y`` and ``x``.
    itemsize
        Bytes of one value.
    most_sections
        Sections a chunk, at most, if not given.

    Raises
    ------
    ValueError
        If the dict names a dimension that is not there.

    Examples
    --------
    >>> chunk_sizes("auto", ("section", "y", "x", "channel"), (60, 320, 456, 3), 1)
    {'section': 8, 'y': 320, 'x': 456, 'channel': 3}
    """
    if isinstance(chunks, Mapping) and chunks:
        return chunks_given(chunks, dims)
    point = itemsize * math.prod(shape[3:])
    rows, columns = shape[1], shape[2]
    plane = max(point * rows * columns, 1)
    if plane > AUTO_BYTES:
        rows, columns = _piece(rows, columns, AUTO_BYTES // point)
    sections = min(max(AUTO_BYTES // plane, 1), most_sections, max(shape[0], 1))
    return dict(zip(dims, (sections, rows, columns, *shape[3:]), strict=True))


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
        rows, columns = _piece(rows, columns, max(points // least, 1), _TILE)
    planes = max(min(points // (rows * columns), sizes[slicing]), 1)
    return {**sizes, slicing: planes, across[0]: rows, across[1]: columns}


def in_chunks(
    variable: xr.Variable, sizes: Mapping[str, Any], *token: object, chunked: bool
) -> xr.Variable:
    """Return a lazy variable as a dask array of some chunks, or as it is with a hint of them.

    Parameters
    ----------
    variable
        Over a lazy array.
    sizes
        The chunk size of each of its dimensions, and perhaps of others.
    *token
        What tells its values apart from others: the name of the dask array follows from it, and
        from the chunks.
    chunked
        Whether to make a dask array of it.
    """
    sizes = {str(dim): sizes[str(dim)] for dim in variable.dims}
    if not chunked:
        variable = writable(variable)
        variable.encoding["preferred_chunks"] = sizes
        return variable
    from dask.base import annotate
    from dask.tokenize import tokenize

    # Blocks of one name are one block to dask: other chunks need another.
    key = tokenize(sizes, *token)
    kind = "read" if token and isinstance(token[0], Reader) else "place"
    # What has an annotation of its own is not taken into what comes after it when layers are
    # fused: so that the dashboard of a cluster names it.
    with annotate(atldld=kind):
        return variable.chunk(sizes, name=f"atldld-{kind}-{key}", inline_array=False)


def chunks_given(chunks: Mapping[Any, Any], dims: tuple[str, ...]) -> dict[str, Any]:
    """Return what a dict says of each dimension; one that it does not name stays whole."""
    unknown = set(chunks) - set(dims)
    if unknown:
        raise ValueError(f"chunks names {sorted(map(str, unknown))}; dimensions are {dims}")
    return {dim: chunks.get(dim, -1) for dim in dims}


def _piece(rows: int, columns: int, points: int, unit: int = _PIECE) -> tuple[int, int]:
    """Return the rows and columns of a nearly square piece of at most `points` grid points."""
    side = math.isqrt(points)
    side = side // unit * unit or side
    rows = min(rows, side)
    columns = min(columns, points // rows)
    if columns > unit:
        columns = columns // unit * unit
    return min(rows, points // columns), columns
