"""A section image onto grid points, with one affine and no displacement field.

The grid is worked off in square tiles on a fixed lattice of grid numbers, each from its own box
of source pixels. Both follow from the affine alone, never from what was asked for, so that a
grid point has one value to the last bit, however it is selected and chunked. A box is also
small: that keeps OpenCV's single-precision coordinates good to a thousandth of a pixel, and
away from its limit of 32767 pixels a side.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.affine import Array
from ..model.read import Window
from .reads import (
    Coverage,
    Indices,
    Interpolation,
    Reach,
    covered_reach,
    reach_pixels,
    span,
    step_pixels,
)

Pixels = npt.NDArray[np.uint8]

_LARGEST_TILE = 512
_LARGEST_BOX = 2048
_MOST_KEPT = 4 * 2**20
"""Bytes of a piece of memory that a thread keeps for its next tile."""

_FAR_BORDER = 3
"""Pixels beyond a tier image that a covered point may stand on: up to two that were cut off."""

_MOST_TILES = 4
"""Tiles beside each other that are written at once."""

LANES = 32
"""Columns of a tile that OpenCV samples at once, at most (16 bits each, in registers of 512): it
goes through a row from its beginning, so that the first columns of a tile, in whole lots of these,
are what they are in the whole tile."""

_MOST_FRAMED = 2**22
"""Pixels of an image that is made ready as a whole: it takes four bytes of each."""

_ROUNDING = 2.0**-21
"""Of the sum of what is added up for a coordinate: what single precision may be off, and more."""


class Scratch(threading.local):
    """Memory of a thread for what lies between an image and the array, one use after the other.

    Fresh memory costs as much as the sampling: the system hands it out page by page, zeroed.
    """

    def __init__(self) -> None:
        self._kept: dict[str, npt.NDArray[np.uint8]] = {}

    def pixels(self, name: str, shape: tuple[int, ...]) -> Pixels:
        """Return an array that holds anything, good until the next call with this name."""
        size = math.prod(shape)
        if size > _MOST_KEPT:
            return np.empty(shape, dtype=np.uint8)
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            kept = self._kept[name] = np.empty(size, dtype=np.uint8)
        return kept[:size].reshape(shape)

    def singles(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return the same of single precision."""
        return self.pixels(name, (4 * math.prod(shape),)).view(np.float32).reshape(shape)


scratch = Scratch()


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
    image = pixels, window, size
    Warp(image, affine, covered.rows, columns, bounds, interpolation, largest).put(
        affine, covered, fill, out
    )


class Warp:
    """A section image that is put onto grid points, by one affine or by some that differ in shift.

    Parameters
    ----------
    image
        The pixels, where they lie in the tier, and width and height of the tier; see `warp`.
    affine
        Shape (2, 3): one of the affines from grid numbers to pixels of the tier.
    rows, columns
        Grid numbers of the points, in any order.
    bounds, interpolation, largest
        See `warp`.
    """

    def __init__(
        self,
        image: tuple[Pixels, Window, tuple[int, int]],
        affine: Array,
        rows: Indices,
        columns: Indices,
        bounds: tuple[tuple[int, int], tuple[int, int]],
        interpolation: Interpolation,
        largest: int = _LARGEST_TILE,
    ) -> None:
        self.pixels, self.window, self.size = image
        self.interpolation = interpolation
        self.around = reach_pixels(interpolation, affine)
        self.unit = shrink(affine) if interpolation == "area" else 1
        self.side = tile_side(affine, largest)
        self.columns = columns
        self.in_a_row = is_run(columns)
        self.bounds = bounds
        self.down = list(groups(rows, self.side))

    def put(
        self,
        affine: Array,
        covered: Coverage,
        fill: float | None,
        out: npt.NDArray[Any],
        reach: Reach | None = None,
    ) -> None:
        """Write the points that are covered, and `fill`, unless it is None, to the others.

        Parameters
        ----------
        affine
            Shape (2, 3): from grid numbers to pixels of the tier.
        covered
            The covered columns of the rows.
        fill, out
            See `warp`.
        reach
            The least and greatest x, and y, of the covered points in pixels of the tier, if known.
        """
        reach = reach or covered_reach(affine, covered)
        if reach is None:
            if fill is not None:
                out[...] = fill
            return
        onto = affine.tolist()
        for rows in self.down:
            first, last = covered.first[rows.index], covered.last[rows.index]
            some = np.flatnonzero(first <= last)
            if len(some) == 0:
                if fill is not None:
                    out[rows.index] = fill
                continue
            top, bottom = clipped(rows.tile, self.side, self.bounds[0])
            if rows.run is None or not self.in_a_row:
                strips = _Strips(self, onto, reach, top, bottom, bottom - top)
                strips.put_scattered(rows, first, last, fill, out)
                continue
            # Rows and columns beyond the covered ones are not sampled, where OpenCV comes to them
            # after the others of a tile: what a point shows does not depend on them.
            above, below = int(some[0]), int(some[-1]) + 1
            begin = int(rows.numbers[0]) - top
            strips = _Strips(self, onto, reach, top, bottom, begin + below)
            least, most = int(self.columns[0]), int(self.columns[-1])
            low, high = int(first[some].min()), int(last[some].max())
            low, high = max(low, least), min(high, most)
            into = out[rows.run]
            if fill is not None:
                into[:above] = into[below:] = fill
                into[above:below, : max(low - least, 0)] = fill
                into[above:below, max(high + 1 - least, 0) :] = fill
            into, first, last = into[above:below], first[above:below], last[above:below]
            for left, right in strips.pieces(low, high):
                shown = strips.sample(left, right)[begin + above :]
                part = into[:, left - least : right - least]
                _put(shown, part, (left, right), first, last, fill)


@dataclass(frozen=True, slots=True, eq=False)
class _Strips:
    """The tiles beside each other that some rows of the grid lie in.

    Parameters
    ----------
    of
        The image, and the grid.
    onto
        Shape (2, 3): from (column number, row number, 1) to pixels of the tier.
    reach
        The least and greatest x, and y, of the covered points there.
    top, bottom
        First row number, and one past the last, of the tiles.
    deep
        How many of their rows are sampled.
    """

    of: Warp
    onto: list[list[float]]
    reach: Reach
    top: int
    bottom: int
    deep: int

    def pieces(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Yield the first column number, and one past the last, of what is sampled at once."""
        side = self.of.side
        while low <= high:
            past = min((low // side + _MOST_TILES) * side, high + 1)
            yield low, past
            low = past

    def sample(self, left: int, right: int) -> Pixels:
        """Return samples of columns, shape (deep, right - left[, 3 or 4]), good until the next.

        Those that are not covered may be anything.
        """
        of, tiles = self.of, []
        for number in range(left // of.side, (right - 1) // of.side + 1):
            begin, end = clipped(number, of.side, of.bounds[1])
            wide = min(-(-(min(right, end) - begin) // LANES) * LANES, end - begin)
            tiles.append((Tile(self.top, begin, self.bottom - self.top, end - begin), wide))
        begin, (last, wide) = tiles[0][0].column, tiles[-1]
        depth = of.pixels.shape[2:] and (4 if of.interpolation in ("linear", "area") else 3,)
        out = scratch.pixels("sampled", (self.deep, last.column + wide - begin, *depth))
        for tile, wide in tiles:
            first = tile.column - begin
            _sample(of, self.onto, self.reach, tile, out[:, first : first + wide])
        return out[:, left - begin : right - begin]

    def put_scattered(
        self, rows: Group, first: Indices, last: Indices, fill: float | None, out: npt.NDArray[Any]
    ) -> None:
        """Write rows of one tile, or columns, that may lie anywhere: each tile beside the array."""
        of = self.of
        for across in groups(of.columns, of.side):
            where = np.ix_(rows.places, across.places)
            part = out[where]
            if fill is not None:
                part[...] = fill
            left, right = clipped(across.tile, of.side, of.bounds[1])
            inside = (across.numbers >= first[:, None]) & (across.numbers <= last[:, None])
            if inside.any():
                shown = self.sample(left, right)
                shown = shown[rows.numbers - self.top][:, across.numbers - left]
                part[inside] = shown[inside][..., :3] if shown.ndim == 3 else shown[inside]
            out[where] = part


def framed(pixels: Pixels, interpolation: Interpolation) -> Pixels:
    """Return an image made ready once for many warps of it, where that pays.

    Parameters
    ----------
    pixels
        uint8, shape (height, width[, 3]).
    interpolation
        How it will be sampled.

    Returns
    -------
    pixels
        The same, or with four channels and its last rows and columns repeated; good until the next
        call in this thread.
    """
    if interpolation != "linear" or pixels.shape[2:] != (3,) or pixels.size > 3 * _MOST_FRAMED:
        return pixels
    height, width = pixels.shape[:2]
    shape = height + _FAR_BORDER, width + _FAR_BORDER, 4
    return four_channels(pixels, scratch.pixels("framed", shape))


def _put(
    shown: Pixels,
    into: npt.NDArray[Any],
    columns: tuple[int, int],
    first: Indices,
    last: Indices,
    fill: float | None,
) -> None:
    """Write the covered points of a strip, and `fill`, unless it is None, to the others.

    Parameters
    ----------
    shown
        Shape (rows, columns[, 3 or 4]): what was sampled.
    into
        Shape (rows, columns[, 3]): the part of the array.
    columns
        Number of the first column, and one past the last.
    first, last
        Shape (rows,): first and last covered column of each row.
    """
    import cv2

    left, right = columns
    from_left, to_right = int(first.max()) <= left, int(last.min()) >= right - 1
    whole = from_left and to_right
    if whole and into.dtype == np.uint8 and shown.shape[2:] == (4,):
        cv2.cvtColor(shown, cv2.COLOR_RGBA2RGB, dst=into)
        return
    if whole:
        into[...] = _three_channels(shown)
        return
    if fill is not None:
        into[...] = fill
    # Places within a strip fit into 16 bits, which are compared four times as fast as 64.
    places = np.arange(right - left, dtype=np.int16)
    mask = np.ones((len(first), right - left), dtype=bool)
    if not from_left:
        begin = np.minimum(np.maximum(first, left), right) - left
        mask = places >= begin.astype(np.int16)[:, None]
    if not to_right:
        end = np.minimum(np.maximum(last, left - 1), right) - left
        mask &= places <= end.astype(np.int16)[:, None]
    over(into, shown, mask)


def over(into: npt.NDArray[Any], shown: Pixels, mask: npt.NDArray[np.bool_]) -> None:
    """Write pixels where a mask is true.

    Parameters
    ----------
    into
        Shape (rows, columns[, 3]): part of an array.
    shown
        Shape (rows, columns[, 3 or 4]).
    mask
        Shape (rows, columns).
    """
    import cv2

    shown = _three_channels(shown).astype(into.dtype, copy=False)
    # OpenCV copies behind a mask a hundred times faster than numpy does.
    cv2.copyTo(shown, np.ascontiguousarray(mask).view(np.uint8), dst=into)


def _three_channels(shown: Pixels) -> Pixels:
    """Return pixels without a fourth channel, good until the next call."""
    import cv2

    if shown.shape[2:] != (4,):
        return shown
    three = scratch.pixels("three", (*shown.shape[:2], 3))
    cv2.cvtColor(shown, cv2.COLOR_RGBA2RGB, dst=three)
    return three


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Rows, or columns, that lie in one tile.

    Parameters
    ----------
    tile
        Number of the tile along the axis.
    numbers
        Their grid numbers.
    run
        Where they stand among all that were asked for, if both go up one by one; else None.
    scattered
        Where they stand otherwise.
    """

    tile: int
    numbers: Indices
    run: slice | None
    scattered: npt.NDArray[np.intp] | None = None

    @property
    def places(self) -> npt.NDArray[np.intp]:
        """Where they stand among all that were asked for."""
        if self.run is not None:
            return np.arange(self.run.start, self.run.stop)
        assert self.scattered is not None
        return self.scattered

    @property
    def index(self) -> slice | npt.NDArray[np.intp]:
        """The same, as an index that copies nothing where that can be."""
        return self.run if self.run is not None else self.places

    def within(self, first: int) -> slice | Indices:
        """Return the numbers as places of a tile that begins at `first`."""
        if self.run is None:
            return self.numbers - first
        start = int(self.numbers[0]) - first
        return slice(start, start + len(self.numbers))


def groups(numbers: Indices, side: int) -> Iterator[Group]:
    """Yield the numbers that lie in each tile."""
    if len(numbers) and is_run(numbers):
        least, past = int(numbers[0]), int(numbers[-1]) + 1
        for tile in range(least // side, (past - 1) // side + 1):
            run = slice(max(tile * side - least, 0), min((tile + 1) * side, past) - least)
            yield Group(tile, numbers[run], run)
        return
    of = numbers // side
    for tile in np.unique(of).tolist():
        places = np.flatnonzero(of == tile)
        yield Group(tile, numbers[places], None, places)


def clipped(number: int, side: int, bounds: tuple[int, int]) -> tuple[int, int]:
    """Return where a tile begins and ends along an axis of the grid."""
    return max(number * side, bounds[0]), min((number + 1) * side, bounds[1])


def is_run(numbers: npt.NDArray[np.integer[Any]]) -> bool:
    """Whether numbers go up one by one."""
    return len(numbers) == 1 or bool((numbers[1:] - numbers[:-1] == 1).all())


def _box(tile: Tile, of: Warp, onto: list[list[float]]) -> Window:
    """Return the source pixels that a tile may touch, cut to the image, on the shrink lattice."""
    unit, around, edges = of.unit, of.around, []
    columns, rows = (
        (tile.column, tile.column + tile.width - 1),
        (tile.row, tile.row + tile.height - 1),
    )
    for (along, down, shift), length in zip(onto, of.size, strict=True):
        # Sums round as their terms grow: the ends are those of two of the corners.
        low = along * columns[along < 0] + down * rows[down < 0] + shift
        high = along * columns[along >= 0] + down * rows[down >= 0] + shift
        first, past = span((low, high), around, length)
        if unit > 1:
            first, past = first // unit * unit, min(-(-past // unit) * unit, length)
        edges.append((first, past))
    (left, right), (top, bottom) = edges
    return Window(left, top, right - left, bottom - top)


def cut(pixels: Pixels, window: Window, box: Window) -> Pixels:
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


def shrink(affine: Array) -> int:
    """Return by how many whole pixels a source is shrunk before it is averaged over a step.

    A third of what a step spans at most: cells of the shrunk source lie askew to grid steps,
    and a step must hold several of them.
    """
    steps = math.hypot(affine[0, 0], affine[1, 0]), math.hypot(affine[0, 1], affine[1, 1])
    return max(math.floor(min(steps) / 3), 1)


def _sample(
    of: Warp, affine: list[list[float]], reach: Reach, tile: Tile, out: npt.NDArray[np.uint8]
) -> None:
    """Write the first rows and columns of a tile."""
    import cv2

    pixels, window, interpolation = of.pixels, of.window, of.interpolation
    box = _box(tile, of, affine)
    (a, b, x), (c, d, y) = affine
    x = x + (a * tile.column + b * tile.row) - box.left
    y = y + (c * tile.column + d * tile.row) - box.top
    onto = np.array([[a, b, x], [c, d, y]])
    if interpolation in ("nearest", "cubic"):
        kernel = cv2.INTER_NEAREST if interpolation == "nearest" else cv2.INTER_CUBIC
        _warp_affine(cut(pixels, window, box), onto, out, kernel, cv2.BORDER_REPLICATE)
        return
    if interpolation == "linear":
        # Most of what is sampled in vain lies off the image. OpenCV passes over it where the
        # border is constant, and looks up every pixel where it is replicated. The far border
        # is replicated here; the near one cannot be without another rounding of coordinates.
        inside = _inside(onto, box, (tile.width, tile.height), reach, of.size)
        source = _source(pixels, window, box, _FAR_BORDER if inside else 0)
        border = cv2.BORDER_CONSTANT if inside else cv2.BORDER_REPLICATE
        _warp_affine(source, onto, out, cv2.INTER_LINEAR, border)
        return
    unit = of.unit
    source = shrunk(cut(pixels, window, box), unit)
    if source.shape[2:] == (3,):
        source = four_channels(source, scratch.pixels("source", (*source.shape[:2], 4)))
    # Pixel k of the shrunk source is the mean of `unit` pixels, centred on their middle.
    onto[:, 2] -= (unit - 1) / 2
    onto /= unit
    # As many samples a step and axis as it still spans pixels, centred on the grid point.
    samples = max(math.ceil(step_pixels(onto)), 2)
    onto[:, 2] -= (onto[:, 0] + onto[:, 1]) * (samples - 1) / (2 * samples)
    onto[:, :2] /= samples
    deep, wide = out.shape[:2]
    many = scratch.pixels("samples", (samples * deep, samples * wide, *out.shape[2:]))
    _warp_affine(source, onto, many, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    cv2.resize(many, (wide, deep), dst=out, interpolation=cv2.INTER_AREA)


def _source(pixels: Pixels, window: Window, box: Window, border: int) -> Pixels:
    """Return the pixels of a box, with four channels for three, and past it `border` more.

    These repeat the last ones, or are those of the image where it goes on: no covered point
    stands on them there.
    """
    if pixels.shape[2:] == (4,):
        if window.holds(box):
            left, top = box.left - window.left, box.top - window.top
            return pixels[top : top + box.height + border, left : left + box.width + border]
        pixels = np.ascontiguousarray(pixels[: window.height, : window.width, :3])
    source = cut(pixels, window, box)
    shape = box.height + border, box.width + border
    if source.ndim == 3:
        return four_channels(source, scratch.pixels("source", (*shape, 4)))
    if not border:
        return source
    out = scratch.pixels("source", shape)
    out[: box.height, : box.width] = source
    return _bordered(out, box.height, box.width)


def _inside(
    onto: Array, box: Window, points: tuple[int, int], reach: Reach, size: tuple[int, int]
) -> bool:
    """Whether the covered points of a tile lie within a box with `_FAR_BORDER`, however rounded.

    Parameters
    ----------
    onto
        Shape (2, 3): from points of the tile to pixels of the box.
    box
        The part of the image; where it does not end with the image, it holds them.
    points
        Width and height of the tile.
    reach
        The least and greatest x, and y, of the covered points, in pixels of the image.
    size
        Width and height of the image.
    """
    starts, ends = (box.left, box.top), (box.right, box.bottom)
    for row, (least, most), start, end, length in zip(
        onto.tolist(), reach, starts, ends, size, strict=True
    ):
        if start and end < length:
            continue
        slack = _ROUNDING * (abs(row[0]) * points[0] + abs(row[1]) * points[1] + abs(row[2]))
        if start == 0 and least < slack:
            return False
        if end == length and most + slack > end + _FAR_BORDER - 1:
            return False
    return True


def four_channels(source: Pixels, out: npt.NDArray[np.uint8]) -> Pixels:
    """Write colours with a fourth channel, and repeat the last of them to fill `out`.

    OpenCV blends four channels twice as fast as three (5.0).
    """
    import cv2

    height, width = source.shape[:2]
    cv2.cvtColor(source, cv2.COLOR_RGB2RGBA, dst=out[:height, :width])
    return _bordered(out, height, width)


def _bordered(out: npt.NDArray[np.uint8], height: int, width: int) -> Pixels:
    """Repeat the last row and column of the part that is there."""
    if width < out.shape[1]:
        out[:height, width:] = out[:height, width - 1 : width]
    if height < out.shape[0]:
        out[height:] = out[height - 1]
    return out


def _warp_affine(
    source: Pixels, onto: Array, out: npt.NDArray[np.uint8], kernel: int, border: int
) -> None:
    import cv2

    height, width = out.shape[:2]
    flags = kernel | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(source, onto, (width, height), dst=out, flags=flags, borderMode=border)


def shrunk(source: Pixels, unit: int) -> Pixels:
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
