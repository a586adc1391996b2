"""A section image that is bent in its plane, onto grid points.

As in `warp`, the grid is worked off in tiles on a fixed lattice of grid numbers, and where a point
falls in the image follows from its tile alone: it has one value to the last bit, however it is
selected and chunked. What is covered is no interval of each row any more; it is told point by
point, from the same places that are sampled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.affine import Array
from ..model.bend import Bend, Lattice, Spans
from ..model.read import Window
from .bent_places import Places, places_of
from .reads import Coverage, Indices, Interpolation, coverage, reach_pixels, span, step_pixels
from .warp import (
    Group,
    Pixels,
    Tile,
    clipped,
    cut,
    four_channels,
    groups,
    over,
    scratch,
    shrink,
    shrunk,
    tile_side,
)

_LARGEST_BOX = 4096
"""Source pixels a side. Where a tile spans more, its quarters are sampled."""

_MOST_POINTS = 512
"""Of a tile along its sides."""

_MOST_SAMPLES = 768
"""Samples along a tile that are averaged: their places stay in the processor's cache."""

_SLACK = 0.002
"""Full-resolution pixels by which single precision may move a point further than it should."""

_STEEP = 2.0**-10
"""The same, of how much a field differs from one of its points to the next."""

_ROUNDING = 2.0**-21
"""The same, of a coordinate."""

_KERNELS = {"nearest": 0, "linear": 1, "cubic": 2, "area": 1}
"""OpenCV's numbers of them."""

Bounds = tuple[tuple[int, int], tuple[int, int]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class BentGrid:
    """Where grid points fall in a bent section.

    Parameters
    ----------
    bend
        How the section is bent.
    affine
        Shape (2, 3): from (column number, row number, 1) to straight full-resolution x, y.
    size
        Width and height of the section in full-resolution pixels.
    bounds
        First, and one past the last, row number and column number of the uncut grid.
    """

    bend: Bend
    affine: Array
    size: tuple[int, int]
    bounds: Bounds

    @property
    def slack(self) -> float:
        """Full-resolution pixels by which places may be off."""
        if not isinstance(self.bend, Lattice):
            return _SLACK
        return _SLACK + _STEEP * self.bend.steepest

    def around(self, rows: Indices, columns: Indices) -> Coverage:
        """Return, for each row, columns between which all covered ones lie.

        A point between them is covered if its pixel lies within the section.
        """
        if not (len(rows) and len(columns)):
            return coverage(self.affine, self.size, rows, columns)
        ends = (int(rows.min()), int(rows.max())), (int(columns.min()), int(columns.max()))
        moves = self._moves(*ends)
        shifted = self.affine.copy()
        shifted[:, 2] += [high for _, high in moves]
        # Bent, a point lies at most so far along x and y from where it lies straight.
        width, height = (
            side + (high - low) for side, (low, high) in zip(self.size, moves, strict=True)
        )
        found = coverage(shifted, (width, height), rows, columns)
        if not isinstance(self.bend, Lattice):
            return found
        # A field is known half a step around its points.
        index = _after(self.bend.index, self.affine)
        index[:, 2] += 0.5
        sides = self.bend.field.shape[1] + 1, self.bend.field.shape[0] + 1
        if _holds(sides, _ends(index, *ends)):
            return found
        there = coverage(index, sides, rows, columns)
        first, last = np.maximum(found.first, there.first), np.minimum(found.last, there.last)
        return replace(found, first=first, last=last)

    def needed(
        self, around: Coverage, tier: Array, size: tuple[int, int], interpolation: Interpolation
    ) -> Window | None:
        """Return the pixels of a tier that covered points need; None for none.

        Parameters
        ----------
        around
            From `around`.
        tier
            Shape (2, 3): from full-resolution (x, y, 1) to pixels of the tier.
        size
            Width and height of the tier image in pixels.
        interpolation
            What the kernel is.
        """
        ends = around.ends()
        if ends.shape[1] == 0:
            return None
        beside = _beside(interpolation)
        rows = int(around.rows.min()), int(around.rows.max())
        moves = self._moves(rows, around.asked, beside)
        around_it = beside * np.abs(self.affine[:, :2]).sum(axis=1)
        reach = reach_pixels(interpolation, _after(tier, self.affine))
        edges = []
        for axis, (low, high) in enumerate(moves):
            straight = self.affine[axis, :2] @ ends + self.affine[axis, 2]
            values = np.array(
                [straight.min() + low - around_it[axis], straight.max() + high + around_it[axis]]
            )
            values = np.clip(values, 0.0, self.size[axis] - 1.0)
            edges.append(span(values * tier[axis, axis] + tier[axis, 2], reach, size[axis]))
        (left, right), (top, bottom) = edges
        return Window(left, top, right - left, bottom - top)

    def covered(self, rows: Indices, columns: Indices) -> Mask:
        """Return which grid points are covered, shape (rows, columns)."""
        around = self.around(rows, columns)
        out = around.mask(columns)
        for part in self.parts(around, columns, tile_side(self.affine)):
            spans = self.spans(part.tile)
            if not self.surely_covers(spans):
                to = np.array([[1.0, 0.0, -spans[0][0]], [0.0, 1.0, -spans[1][0]]])
                places = self.places(part.tile, part.first, to)
                out[part.there] &= self.within(part.tile, places, to, spans)[part.here]
        return out

    def parts(self, around: Coverage, columns: Indices, side: int) -> Iterator[TilePart]:
        """Yield tiles that may hold covered points, with the rows and columns that lie in them."""
        every = list(groups(columns, side))
        for down in groups(around.rows, side):
            first, last = around.first[down.index], around.last[down.index]
            some = first <= last
            if not some.any():
                continue
            low, high = int(first[some].min()), int(last[some].max())
            top, bottom = clipped(down.tile, side, self.bounds[0])
            for across in every:
                left, right = clipped(across.tile, side, self.bounds[1])
                if high >= max(left, int(across.numbers.min())) and low < right:
                    tile = Tile(top, left, bottom - top, right - left)
                    yield TilePart.of(tile, down, across, int(down.numbers[some].max()), high)

    def spans(self, tile: Tile, beside: int = 0) -> Spans:
        """Return the least and greatest full-resolution x and y of a tile, and of points beside."""
        rows = tile.row, tile.row + tile.height - 1
        columns = tile.column, tile.column + tile.width - 1
        x, y = (
            (least + low, most + high)
            for (least, most), (low, high) in zip(
                self._straight(rows, columns, beside),
                self._moves(rows, columns, beside),
                strict=True,
            )
        )
        return x, y

    def surely_covers(self, spans: Spans) -> bool:
        """Whether the section holds all places between some."""
        return _holds(self.size, spans)

    def places(self, tile: Tile, first: tuple[int, int], to: Array) -> Places:
        """Return where the first rows and columns of a tile fall; see `places_of`."""
        return places_of(self.bend, self.affine, tile, first, to)

    def within(self, tile: Tile, places: Places, to: Array, spans: Spans) -> Mask:
        """Return whether the first points of a tile lie in the section.

        Parameters
        ----------
        tile
            The tile.
        places, to
            From and for `places`.
        spans
            From `spans`.
        """
        surely, perhaps = (np.ones(places[0].shape, dtype=bool) for _ in range(2))
        for axis, (values, (least, most)) in enumerate(zip(places, spans, strict=True)):
            scale, shift = float(to[axis, axis]), float(to[axis, 2])
            low, high = shift, scale * (self.size[axis] - 1) + shift
            slack = scale * self.slack + _ROUNDING * max(abs(low), abs(high))
            if least < 0:
                surely &= values >= np.float32(low + slack)
                perhaps &= values >= np.float32(low - slack)
            if most > self.size[axis] - 1:
                surely &= values <= np.float32(high - slack)
                perhaps &= values <= np.float32(high + slack)
        perhaps ^= surely
        doubtful = np.flatnonzero(perhaps)
        if len(doubtful):
            # Along the border single precision does not do.
            wide = places[0].shape[1]
            rows, columns = doubtful // wide, doubtful % wide
            at = np.stack([columns + tile.column, rows + tile.row]).astype(float)
            x, y = self.bend.to_bent(*(self.affine[:, :2] @ at + self.affine[:, 2:]))
            width, height = self.size
            surely[rows, columns] = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        return surely

    def _straight(self, rows: tuple[int, int], columns: tuple[int, int], beside: int = 0) -> Spans:
        """Return the least and greatest straight x and y of rows and columns, and beside them."""
        down, across = ((ends[0] - beside, ends[1] + beside) for ends in (rows, columns))
        return _ends(self.affine, down, across)

    def _moves(self, rows: tuple[int, int], columns: tuple[int, int], beside: int = 0) -> Spans:
        """Return by how much x and y of points there change at least and at most."""
        (left, right), (up, down) = self.bend.moves(*self._straight(rows, columns, beside))
        slack = self.slack
        return (left - slack, right + slack), (up - slack, down + slack)


@dataclass(frozen=True, slots=True, eq=False)
class TilePart:
    """Rows and columns that were asked for in a tile.

    Parameters
    ----------
    tile
        The tile.
    first
        How many of its rows and columns hold all that may be covered: what a point shows does not
        depend on those after it.
    here, there
        Where the points lie among these, and among all that were asked for.
    run
        Whether both are slices.
    """

    tile: Tile
    first: tuple[int, int]
    here: tuple[Any, Any]
    there: tuple[Any, Any]
    run: bool

    @classmethod
    def of(
        cls, tile: Tile, down: Group, across: Group, last_row: int, last_column: int
    ) -> TilePart:
        """Return the part of some rows and columns, of which the last covered ones are known."""
        if down.run is None or across.run is None:
            here: Any = np.ix_(down.numbers - tile.row, across.numbers - tile.column)
            there: Any = np.ix_(down.places, across.places)
            return cls(tile, (tile.height, tile.width), here, there, False)
        rows, row_run = _first(down.numbers, down.run, tile.row, last_row)
        columns, column_run = _first(across.numbers, across.run, tile.column, last_column)
        first = rows.stop, columns.stop
        return cls(tile, first, (rows, columns), (row_run, column_run), True)


def _first(numbers: Indices, run: slice, begin: int, last: int) -> tuple[slice, slice]:
    """Return where numbers up to a last one lie in a tile, and among all that were asked for."""
    start = int(numbers[0])
    count = min(last, int(numbers[-1])) + 1 - start
    return (
        slice(start - begin, start - begin + count),
        slice(run.start, run.start + count),
    )


def bend_warp(
    pixels: Pixels,
    window: Window,
    size: tuple[int, int],
    grid: BentGrid,
    tier: Array,
    around: Coverage,
    columns: Indices,
    interpolation: Interpolation,
    fill: float | None,
    out: npt.NDArray[Any],
) -> None:
    """Sample a bent section image at grid points, and put `fill` where it does not cover them.

    Parameters
    ----------
    pixels, window, size
        The image; see `warp.warp`.
    grid
        Where grid points fall in the section.
    tier
        Shape (2, 3): from full-resolution (x, y, 1) to pixels of the tier.
    around
        From `BentGrid.around`, for the rows to sample.
    columns
        Numbers of the columns to sample, in any order.
    interpolation
        See `warp.warp`.
    fill
        Value of grid points that are not covered; None leaves them as they are.
    out
        Shape (rows, columns[, 3]), uint8 or float32: written in place.
    """
    if fill is not None:
        out[...] = fill
    source = _Source(pixels, window, size, grid, tier, interpolation)
    shown = around.mask(columns)
    for part in grid.parts(around, columns, source.side):
        sampled, inside = source.sample(part.tile, part.first)
        mask = shown[part.there]
        if inside is not None:
            mask &= inside[part.here]
        if part.run:
            over(out[part.there], sampled[part.here], mask)
        elif mask.any():
            below = out[part.there]
            over(below, np.ascontiguousarray(sampled[part.here]), mask)
            out[part.there] = below


class _Source:
    """An image to sample.

    Parameters
    ----------
    pixels, window, size, grid, tier, interpolation
        See `bend_warp`.
    """

    def __init__(
        self,
        pixels: Pixels,
        window: Window,
        size: tuple[int, int],
        grid: BentGrid,
        tier: Array,
        interpolation: Interpolation,
    ) -> None:
        self.pixels, self.window, self.size = pixels, window, size
        self.grid, self.tier, self.interpolation = grid, tier, interpolation
        straight = _after(tier, grid.affine)
        self.reach = reach_pixels(interpolation, straight)
        self.beside = _beside(interpolation)
        self.unit = self.samples = 1
        if interpolation == "area":
            self.unit = shrink(straight)
            self.samples = max(math.ceil(step_pixels(straight) / self.unit), 2)
        self.side = tile_side(straight, _MOST_POINTS)
        while self.side > 1 and self.side * self.samples > _MOST_SAMPLES:
            self.side //= 2

    def sample(self, tile: Tile, first: tuple[int, int]) -> tuple[Pixels, Mask | None]:
        """Return samples of the first rows and columns of a tile, good until the next.

        Returns
        -------
        sampled
            Shape (rows, columns[, 3 or 4]); of points that are not covered anything.
        inside
            Which points the section holds; None for all.
        """
        import cv2

        spans = self.grid.spans(tile, self.beside)
        box = self._box(spans)
        if max(box.width, box.height) > _LARGEST_BOX and tile.height * tile.width > 1:
            return self._in_quarters(tile, first)
        source = shrunk(cut(self.pixels, self.window, box), self.unit)
        kernel = _KERNELS[self.interpolation]
        if kernel == cv2.INTER_LINEAR and source.shape[2:] == (3,):
            source = four_channels(source, scratch.pixels("source", (*source.shape[:2], 4)))
        to = self.tier.copy()
        # Pixel k of the shrunk source is the mean of `unit` pixels, centred on their middle.
        to[:, 2] -= np.array([box.left, box.top]) + (self.unit - 1) / 2
        to /= self.unit
        beside = self.beside
        wider = Tile(
            tile.row - beside,
            tile.column - beside,
            *(side + 2 * beside for side in (tile.height, tile.width)),
        )
        x, y = self.grid.places(wider, (first[0] + 2 * beside, first[1] + 2 * beside), to)
        inside = None
        if not self.grid.surely_covers(spans):
            inner = slice(beside, beside + first[0]), slice(beside, beside + first[1])
            inside = self.grid.within(tile, (x[inner], y[inner]), to, spans)
        if self.samples > 1:
            x, y = (
                _finer(name, values, self.samples)
                for name, values in (("finer x", x), ("finer y", y))
            )
        if inside is not None:
            # Beyond the image OpenCV looks at each pixel on its own; the nearest is what it takes.
            np.clip(x, 0, source.shape[1] - 1, out=x)
            np.clip(y, 0, source.shape[0] - 1, out=y)
        out = scratch.pixels("samples", (*x.shape, *source.shape[2:]))
        cv2.remap(source, x, y, kernel, dst=out, borderMode=cv2.BORDER_REPLICATE)
        if self.samples > 1:
            mean = scratch.pixels("sampled", (*first, *source.shape[2:]))
            cv2.resize(out, first[::-1], dst=mean, interpolation=cv2.INTER_AREA)
            out = mean
        return out, inside

    def _in_quarters(self, tile: Tile, first: tuple[int, int]) -> tuple[Pixels, Mask]:
        shape = (*first, *self.pixels.shape[2:])
        out, inside = np.empty(shape, dtype=np.uint8), np.ones(first, dtype=bool)
        high, wide = (tile.height + 1) // 2, (tile.width + 1) // 2
        for row, height in ((0, high), (high, tile.height - high)):
            for column, width in ((0, wide), (wide, tile.width - wide)):
                some = min(height, first[0] - row), min(width, first[1] - column)
                if min(some) > 0:
                    part = Tile(tile.row + row, tile.column + column, height, width)
                    sampled, there = self.sample(part, some)
                    place = slice(row, row + some[0]), slice(column, column + some[1])
                    out[place] = sampled[..., :3] if sampled.ndim == 3 else sampled
                    if there is not None:
                        inside[place] = there
        return out, inside

    def _box(self, spans: Spans) -> Window:
        """Return the pixels that may be touched, cut to the image, on the shrink lattice."""
        edges, unit = [], self.unit
        for (low, high), row, axis in zip(spans, self.tier, (0, 1), strict=True):
            length = self.size[axis]
            ends = np.clip(np.array([low, high]) * row[axis] + row[2], -1.0, float(length))
            first, past = span(ends, self.reach, length)
            edges.append((first // unit * unit, min(-(-past // unit) * unit, length)))
        (left, right), (top, bottom) = edges
        return Window(left, top, right - left, bottom - top)


def _beside(interpolation: Interpolation) -> int:
    """Return how many grid points beside a point its value depends on: it is averaged over."""
    return 1 if interpolation == "area" else 0


def _ends(affine: Array, rows: tuple[int, int], columns: tuple[int, int]) -> Spans:
    """Return the least and greatest x and y of a rectangle of grid points."""
    x, y = (
        sorted(along * column + per_row * row + shift for column in columns for row in rows)
        for along, per_row, shift in affine.tolist()
    )
    return (x[0], x[-1]), (y[0], y[-1])


def _holds(sides: tuple[float, float], spans: Spans) -> bool:
    """Whether an image of some width and height holds all places between some."""
    return all(
        low >= 0 and high <= side - 1 for (low, high), side in zip(spans, sides, strict=True)
    )


def _after(affine: Array, first: Array) -> Array:
    """Return an affine of what another one gives, both of shape (2, 3)."""
    out = affine[:, :2] @ first
    out[:, 2] += affine[:, 2]
    return np.asarray(out)


def _finer(name: str, values: npt.NDArray[np.float32], samples: int) -> npt.NDArray[np.float32]:
    """Return several samples a step and axis, between points with those around them.

    Sample k of a point lies (k - (samples - 1) / 2) / samples of a step off.
    """
    import cv2

    height, width = (side * samples for side in values.shape)
    out = scratch.singles(name, (height, width))
    cv2.resize(values, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
    return out[samples:-samples, samples:-samples]
