"""How an array of sections is cut into chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

AUTO_BYTES = 16 * 2**20
AUTO_SECTIONS = 8

_PIECE = 512
"""Sides of pieces are multiples of this where they can be: it is the side of a warped tile."""


def chunk_sizes(
    chunks: Any, dims: tuple[str, ...], shape: tuple[int, ...], itemsize: int
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
        unknown = set(chunks) - set(dims)
        if unknown:
            raise ValueError(f"chunks names {sorted(map(str, unknown))}; dimensions are {dims}")
        return {dim: chunks.get(dim, -1) for dim in dims}
    point = itemsize * math.prod(shape[3:])
    rows, columns = shape[1], shape[2]
    plane = max(point * rows * columns, 1)
    if plane > AUTO_BYTES:
        rows, columns = _piece(rows, columns, AUTO_BYTES // point)
    sections = min(max(AUTO_BYTES // plane, 1), AUTO_SECTIONS, max(shape[0], 1))
    return dict(zip(dims, (sections, rows, columns, *shape[3:]), strict=True))


def _piece(rows: int, columns: int, points: int) -> tuple[int, int]:
    """Return the rows and columns of a nearly square piece of at most `points` grid points."""
    side = max(math.isqrt(points) // _PIECE * _PIECE, 1)
    rows = min(rows, side)
    columns = min(columns, points // rows)
    if columns > _PIECE:
        columns = columns // _PIECE * _PIECE
    return min(rows, points // columns), columns
