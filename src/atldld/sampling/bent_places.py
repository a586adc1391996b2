"""Where the points of a tile fall in a bent section, in single precision.

On each triangle that is an affine; on a lattice an affine and a field, which is warped onto the
tile. Affines count from the tile and to a place near it, so that numbers are small.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.affine import Array
from ..model.bend import TOUCHING, Bend, Lattice, Pieces, Triangles
from .reads import span
from .warp import LANES, Tile, scratch

Singles = npt.NDArray[np.float32]
Places = tuple[Singles, Singles]
Indices = npt.NDArray[np.integer[Any]]


def places_of(bend: Bend, affine: Array, tile: Tile, first: tuple[int, int], to: Array) -> Places:
    """Return where the first rows and columns of a tile fall.

    Parameters
    ----------
    bend
        How the section is bent.
    affine
        Shape (2, 3): from (column number, row number, 1) to straight full-resolution x, y.
    tile
        The tile. Where a point falls does not depend on what else is asked for.
    first
        How many rows and columns.
    to
        Shape (2, 3): from full-resolution (x, y, 1) to what is wanted: each from its own, by a
        scale and a shift.

    Returns
    -------
    x, y
        Shape `first`, good until the next call.
    """
    start = [[1.0, 0.0, tile.column], [0.0, 1.0, tile.row], [0.0, 0.0, 1.0]]
    grid = _whole(affine) @ start
    if isinstance(bend, Triangles):
        return _on_triangles(bend.from_straight, grid, tile, first, _whole(to))
    if isinstance(bend, Lattice):
        return _on_lattice(bend, grid, tile, first, to)
    raise TypeError(f"{type(bend).__name__} is no known way to bend a section")


def _on_lattice(
    bend: Lattice, grid: Array, tile: Tile, first: tuple[int, int], to: Array
) -> Places:
    import cv2

    to_field = bend.index @ grid
    right, bottom = tile.width - 1, tile.height - 1
    corners = np.array([[0, right] * 2, [0, 0, bottom, bottom], [1] * 4], dtype=float)
    # The part of the field that the tile lies on: small numbers keep single precision fine.
    (left, right), (top, bottom) = (
        span(ends, 1, side)
        for ends, side in zip(to_field @ corners, bend.field.shape[1::-1], strict=True)
    )
    to_field[:, 2] -= left, top
    straight = _whole(to) @ _whole(bend.affine) @ grid
    height, width = first
    wide = min(-(-width // LANES) * LANES, tile.width)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found = []
    # One component at a time: with two channels OpenCV 5 takes the nearest 32nd of a pixel.
    for axis, field in enumerate(bend.components):
        out = scratch.singles("xy"[axis], (height, wide))
        cv2.warpAffine(
            field[top:bottom, left:right], to_field, (wide, height), dst=out,
            flags=flags, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        along, per_row, shift = straight[axis]
        out *= np.float32(to[axis, axis])
        out += (per_row * np.arange(height) + shift).astype(np.float32)[:, None]
        out += (along * np.arange(wide)).astype(np.float32)
        found.append(out[:, :width])
    return found[0], found[1]


def _on_triangles(
    pieces: Pieces, grid: Array, tile: Tile, first: tuple[int, int], to: Array
) -> Places:
    height, width = first
    row, begin, count, piece = _runs(pieces, grid, height, tile.width, width)
    onto = to @ _whole(np.concatenate([pieces.onto, np.eye(2, 3)[None]])) @ grid
    # Counted from where a run begins: small numbers again.
    column = np.arange(width, dtype=np.float32) - _repeated(begin, count, first)
    found = []
    for axis in (0, 1):
        along, down, shift = onto[:, axis].T
        out = _repeated(along[piece], count, first)
        out *= column
        out += _repeated(along[piece] * begin + down[piece] * row + shift[piece], count, first)
        found.append(out)
    return found[0], found[1]


def _repeated(values: npt.NDArray[Any], counts: Indices, shape: tuple[int, int]) -> Singles:
    """Return values as single precision, each as often as is said."""
    return np.repeat(values.astype(np.float32), counts).reshape(shape)


def _runs(
    pieces: Pieces, grid: Array, height: int, width: int, most: int
) -> tuple[Indices, Indices, Indices, Indices]:
    """Return runs of columns that lie in one triangle, one row after the other.

    Parameters
    ----------
    pieces
        The triangles. Where they overlap the first one counts.
    grid
        Shape (3, 3): from (column, row, 1) of a tile to the plane of the triangles.
    height, width
        Rows, and columns, to look at.
    most
        Columns that are wanted of them.

    Returns
    -------
    row, begin, count, piece
        Shape (runs,): the row, the first column and how many there are, and the triangle; the one
        past the last where there is none.
    """
    row, begin, past, piece = _spans(pieces, grid, height, width)
    place = np.arange(len(row)) - np.searchsorted(row, np.arange(height))[row]
    deep = int(place.max(initial=-1)) + 1
    begins, pasts = np.zeros((2, deep, height), dtype=np.int16)
    begins[place, row], pasts[place, row] = begin, past
    which = np.full((deep + 1, height), len(pieces.corners))
    which[place, row] = piece
    # From where one span begins or ends to where the next one does.
    ends = np.broadcast_to(np.array([[0], [width]], dtype=np.int16), (2, height))
    edges = np.sort(np.concatenate([ends, begins, pasts]), axis=0)
    starts = edges[:-1, None]
    rank = np.arange(deep, 0, -1, dtype=np.int16)[:, None]
    there = np.multiply((begins <= starts) & (starts < pasts), rank, dtype=np.int16)
    shown = np.take_along_axis(which, deep - there.max(axis=1, initial=0), axis=0)
    counts = np.diff(np.minimum(edges, most), axis=0).T
    some = np.flatnonzero(counts > 0)
    row = some // counts.shape[1]
    return row, edges[:-1].T.ravel()[some], counts.ravel()[some], shown.T.ravel()[some]


def _spans(
    pieces: Pieces, grid: Array, height: int, width: int
) -> tuple[Indices, Indices, Indices, Indices]:
    """Return which columns of a tile lie in which triangle.

    Returns
    -------
    row, begin, past, piece
        Shape (spans,), by row: the row, its first column in a triangle and one past the last,
        and which triangle; those of a row in the order of the triangles.
    """
    inverse = np.linalg.inv(grid)
    columns, rows = (pieces.corners @ line[:2] + line[2] for line in inverse[:2])
    near = (columns.max(axis=1) > -1) & (columns.min(axis=1) < width)
    # A bit more of a row: there the bounds below leave no column.
    top = np.clip(np.ceil(rows.min(axis=1) - TOUCHING), 0, height).astype(np.int32)
    below = np.clip(np.floor(rows.max(axis=1) + TOUCHING) + 1, top, height).astype(np.int32)
    count = np.where(near, below - top, 0)
    piece = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(piece)) - np.repeat(np.cumsum(count) - count - top, count)
    order = np.argsort(row.astype(np.int16), kind="stable")
    row, piece = row[order], piece[order]
    inside = pieces.inside @ grid
    third = [0.0, 0.0, 1.0] - inside.sum(axis=1, keepdims=True)
    # All three barycentric coordinates, shape (3, triangles); where each is 0, the column is so
    # much a row and so much besides.
    along, down, shift = np.concatenate([inside, third], axis=1).T
    with np.errstate(divide="ignore", invalid="ignore"):
        edge = np.stack([-down / along, (-TOUCHING - shift) / along])
    lower = np.where(along > 0, edge, [[[0.0]], [[-np.inf]]]).take(piece, axis=2)
    upper = np.where(along < 0, edge, [[[0.0]], [[np.inf]]]).take(piece, axis=2)
    low, high = (lower[0] * row + lower[1]).max(axis=0), (upper[0] * row + upper[1]).min(axis=0)
    begin = np.clip(np.ceil(low), 0, width).astype(np.int16)
    past = np.clip(np.floor(high) + 1, begin, width).astype(np.int16)
    some = past > begin
    return row[some], begin[some], past[some], piece[some]


def _whole(affine: Array) -> Array:
    """Return (2, 3) affines, one or many, with the row 0, 0, 1 below them."""
    last = np.broadcast_to([0.0, 0.0, 1.0], (*affine.shape[:-2], 1, 3))
    return np.concatenate([affine, last], axis=-2)
