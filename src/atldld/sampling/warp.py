"""A section image onto grid points, with one affine and no displacement field.

The grid is worked off in square tiles on a fixed lattice of grid numbers, each from its own box
of source pixels. Both follow from the affine alone, never from what was asked for, so that a
grid point has one value to the last bit, however it is selected and chunked. A box is also
small: that keeps OpenCV's single-precision coordinates good to a thousandth of a pixel, and
away from its limit of 32767 pixels a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.affine import Array
from ..model.read import Window
from .coverage import Coverage, Indices
from .decode import Pixels
from .reads import Interpolation, reach_pixels, span, step_pixels

_LARGEST_TILE = 512
_LARGEST_BOX = 2048


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of grid numbers that is warped at once.

    Parameters
    ----------
    row, column
        First row and column number.
    height, width
        Its rows and columns.
    """

    row: int
    column: int
    height: int
    width: int


def tile_side(affine: Array, largest: int = _LARGEST_TILE) -> int:
    """Return the side of the tiles of a section, in grid points: a power of two up to `largest`.

    Chosen so that the source box of a tile stays near 2048 pixels a side at most.
    """
    fitting = _LARGEST_BOX / max(step_pixels(affine), 1e-9)
    return int(2 ** np.clip(math.floor(math.log2(fitting)), 0, round(math.log2(largest))))


def warp(
    pixels: Pixels,
    window: Window,
    size: tuple[int, int],
    affine: Array,
    covered: Coverage,
    columns: Indices,
    bounds: tuple[tuple[int, int], tuple[int, int]],
    interpolation: Interpolation,
    fill: float | None,
    out: npt.NDArray[Any],
    largest: int = _LARGEST_TILE,
) -> None:
    """Sample a section image at grid points, and put `fill` where it does not cover them.

    Parameters
    ----------
    pixels
        uint8, shape (window height, window width[, 3]): part of a tier image.
    window
        Where `pixels` lie in the tier; at least what `reads.needed_window` says.
    size
        Width and height of the whole tier image in pixels.
    affine
        Shape (2, 3): from (column number, row number, 1) to pixels of the tier, integer values
        at pixel centres.
    covered
        The covered columns of the rows to sample, ``covered.rows``.
    columns
        Numbers of the columns to sample, in any order.
    bounds
        First, and one past the last, row number and column number of the uncut grid.
    interpolation
        ``"nearest"``, ``"linear"``, ``"cubic"`` or ``"area"``. ``"area"`` averages over a grid
        step: where a step spans six source pixels and more, the source is first shrunk by a
        whole number (a box mean, one pass over the pixels); then as many linear samples a step
        and axis as it still spans pixels (two to six) are averaged. It takes 4 to 36 times as
        many samples as linear does.
    fill
        Value of grid points that are not covered; None leaves them as they are.
    out
        Shape (rows, columns[, 3]), uint8 or float32: written in place.
    largest
        Side of the largest tiles, a power of two: small ones where little of the grid is covered.

    Notes
    -----
    Points near the border take the nearest pixel where a kernel reaches beyond the image; no
    fill is blended in.
    """
    if not covered.any:
        if fill is not None:
            out[...] = fill
        return
    side = tile_side(affine, largest)
    for tile, rows, across in _tiles(covered, columns, bounds, side):
        box = _box(tile, affine, size, interpolation)
        sampled = _sample(_cut(pixels, window, box), box, affine, tile, interpolation)
        if rows.run and across.run:
            shown = sampled[rows.within(tile.row), across.within(tile.column)]
        else:
            shown = sampled[np.ix_(rows.numbers - tile.row, across.numbers - tile.column)]
        if fill is None:
            _put(shown, covered, rows, across, out)
        elif rows.run and across.run:
            out[rows.run, across.run] = shown
        else:
            out[np.ix_(rows.places, across.places)] = shown
    if fill is not None and not covered.all:
        _fill(out, covered, columns, fill)


def _put(
    sampled: Pixels, covered: Coverage, rows: _Group, across: _Group, out: npt.NDArray[Any]
) -> None:
    """Write the covered points of a tile, and leave the others as they are."""
    if across.run is None:
        mask = covered.mask(across.numbers)[rows.places]
        for place, row, inside in zip(rows.places, sampled, mask, strict=True):
            out[place, across.places[inside]] = row[inside]
        return
    begin, length = int(across.numbers[0]), len(across.numbers)
    first = np.clip(covered.first[rows.places] - begin, 0, length)
    last = np.clip(covered.last[rows.places] + 1 - begin, first, length)
    if rows.run and not first.any() and (last == length).all():
        out[rows.run, across.run] = sampled
        return
    offset = int(across.places[0])
    places = rows.places.tolist()
    for place, row, start, stop in zip(places, sampled, first.tolist(), last.tolist(), strict=True):
        if start < stop:
            out[place, offset + start : offset + stop] = row[start:stop]


def _fill(out: npt.NDArray[Any], covered: Coverage, columns: Indices, fill: float) -> None:
    """Put `fill` where nothing is covered."""
    if not _is_run(columns):
        out[~covered.mask(columns)] = fill
        return
    # Two ends a row are written many times faster than a mask of the plane.
    first = np.clip(covered.first - columns[0], 0, len(columns))
    last = np.clip(covered.last + 1 - columns[0], first, len(columns))
    for row, start, stop in zip(out, first.tolist(), last.tolist(), strict=True):
        if start > 0:
            row[:start] = fill
        if stop < len(columns):
            row[stop:] = fill


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Rows, or columns, that lie in one tile.

    Parameters
    ----------
    tile
        Number of the tile along the axis.
    places
        Where they stand among all that were asked for.
    numbers
        Their grid numbers.
    run
        `places` as a slice, if both go up one by one; else None.
    """

    tile: int
    places: npt.NDArray[np.intp]
    numbers: Indices
    run: slice | None

    def within(self, first: int) -> slice:
        """Return the numbers of a run as a slice of a tile that begins at `first`."""
        start = int(self.numbers[0]) - first
        return slice(start, start + len(self.numbers))


def _tiles(
    covered: Coverage, columns: Indices, bounds: tuple[tuple[int, int], tuple[int, int]], side: int
) -> Iterator[tuple[Tile, _Group, _Group]]:
    """Yield the tiles that hold covered points, with the rows and columns that lie in them."""
    every = list(_groups(columns, side))
    for rows in _groups(covered.rows, side):
        some = covered.first[rows.places] <= covered.last[rows.places]
        if not some.any():
            continue
        first = int(covered.first[rows.places][some].min())
        last = int(covered.last[rows.places][some].max())
        top, bottom = _clipped(rows.tile, side, bounds[0])
        for across in every:
            left, right = _clipped(across.tile, side, bounds[1])
            if last < left or first >= right:
                continue
            yield Tile(top, left, bottom - top, right - left), rows, across


def _groups(numbers: Indices, side: int) -> Iterator[_Group]:
    """Yield the numbers that lie in each tile."""
    tiles = numbers // side
    for tile in np.unique(tiles):
        places = np.flatnonzero(tiles == tile)
        inside = numbers[places]
        run = None
        if _is_run(inside) and _is_run(places):
            run = slice(int(places[0]), int(places[-1]) + 1)
        yield _Group(int(tile), places, inside, run)


def _clipped(number: int, side: int, bounds: tuple[int, int]) -> tuple[int, int]:
    return max(number * side, bounds[0]), min((number + 1) * side, bounds[1])


def _is_run(numbers: npt.NDArray[np.integer[Any]]) -> bool:
    return len(numbers) == 1 or bool((np.diff(numbers) == 1).all())


def _box(tile: Tile, affine: Array, size: tuple[int, int], interpolation: Interpolation) -> Window:
    """Return the source pixels that a tile may touch, cut to the image, on the shrink lattice."""
    corners = np.array(
        [
            [tile.column, tile.column + tile.width - 1] * 2,
            [tile.row] * 2 + [tile.row + tile.height - 1] * 2,
        ],
        dtype=np.float64,
    )
    x, y = affine[:, :2] @ corners + affine[:, 2:]
    reach = reach_pixels(interpolation, affine)
    unit = _shrink(affine) if interpolation == "area" else 1
    edges = []
    for values, length in ((x, size[0]), (y, size[1])):
        first, past = span(values, reach, length)
        edges.append((first // unit * unit, min(-(-past // unit) * unit, length)))
    (left, right), (top, bottom) = edges
    return Window(left, top, right - left, bottom - top)


def _cut(pixels: Pixels, window: Window, box: Window) -> Pixels:
    """Return the pixels of a box; those outside the window are not needed and come as zeros."""
    left, top = max(window.left, box.left), max(window.top, box.top)
    right, bottom = min(window.right, box.right), min(window.bottom, box.bottom)
    part = pixels[top - window.top : bottom - window.top, left - window.left : right - window.left]
    if window.holds(box):
        return part
    whole = np.zeros((box.height, box.width, *pixels.shape[2:]), dtype=np.uint8)
    if left < right and top < bottom:
        whole[top - box.top : bottom - box.top, left - box.left : right - box.left] = part
    return whole


def _shrink(affine: Array) -> int:
    """Return by how many whole pixels a source is shrunk before it is averaged over a step.

    A third of what a step spans at most: cells of the shrunk source lie askew to grid steps,
    and a step must hold several of them.
    """
    steps = math.hypot(affine[0, 0], affine[1, 0]), math.hypot(affine[0, 1], affine[1, 1])
    return max(math.floor(min(steps) / 3), 1)


def _sample(
    source: Pixels, box: Window, affine: Array, tile: Tile, interpolation: Interpolation
) -> Pixels:
    import cv2

    onto = affine.copy()
    onto[:, 2] += affine[:, 0] * tile.column + affine[:, 1] * tile.row
    onto[:, 2] -= (box.left, box.top)
    if interpolation != "area":
        kernel = {
            "nearest": cv2.INTER_NEAREST,
            "linear": cv2.INTER_LINEAR,
            "cubic": cv2.INTER_CUBIC,
        }[interpolation]
        return _warp_affine(source, onto, (tile.width, tile.height), kernel)
    unit = _shrink(affine)
    source = _shrunk(source, unit)
    # Pixel k of the shrunk source is the mean of `unit` pixels, centred on their middle.
    onto[:, 2] -= (unit - 1) / 2
    onto /= unit
    # As many samples a step and axis as it still spans pixels, centred on the grid point.
    samples = max(math.ceil(step_pixels(onto)), 2)
    onto[:, 2] -= (onto[:, 0] + onto[:, 1]) * (samples - 1) / (2 * samples)
    onto[:, :2] /= samples
    size = tile.width, tile.height
    many = _warp_affine(source, onto, (samples * size[0], samples * size[1]), cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(many, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _warp_affine(source: Pixels, onto: Array, size: tuple[int, int], kernel: int) -> Pixels:
    import cv2

    return np.asarray(
        cv2.warpAffine(
            source,
            onto,
            size,
            flags=kernel | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        dtype=np.uint8,
    )


def _shrunk(source: Pixels, unit: int) -> Pixels:
    """Return the mean of each square of `unit` pixels; a rest at the far border is completed."""
    import cv2

    if unit == 1:
        return source
    height, width = source.shape[:2]
    rest_y, rest_x = -height % unit, -width % unit
    if rest_y or rest_x:
        source = np.asarray(
            cv2.copyMakeBorder(source, 0, rest_y, 0, rest_x, cv2.BORDER_REPLICATE), dtype=np.uint8
        )
    size = source.shape[1] // unit, source.shape[0] // unit
    return np.asarray(cv2.resize(source, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
