"""A section image that is bent in its plane, onto grid points.

As in `warp`, the grid is worked off in tiles on a fixed lattice of grid numbers, and where a point
falls in the image follows from its tile alone: it has one value to the last bit, however it is
selected and chunked. What is covered is no interval of each row any more; it is told point by
point, from the same places that are sampled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.affine import Array
from ..model.bend import TOUCHING, Bend, Lattice, Spans, Triangles
from ..model.read import Window
from .coverage import Coverage, Indices, coverage
from .reads import Interpolation, reach_pixels, span
from .warp import Pixels, Tile, clipped, cut, groups, shrink, shrunk

SIDE = 256
"""Of the tiles, in grid points. Those of bent sections are smaller: they are worked off in the
processor's cache, and their boxes stay tight where a bend is strong."""

_LARGEST_BOX = 4096
"""Source pixels a side. Where a tile spans more, its quarters are sampled."""

_SLACK = 0.01
"""Full-resolution pixels by which single precision may move a point further than it should."""

Singles = npt.NDArray[np.float32]
Bounds = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True, eq=False)
class TilePlaces:
    """Where the points of a tile fall: full-resolution x and y, counted from an origin.

    Parameters
    ----------
    x, y
        Shape (height, width), float32.
    origin
        A whole x and y near the tile, so that single precision does for sampling.
    known
        Shape (height, width): where this is known, and not the nearest that is; None for all.
    """

    x: Singles
    y: Singles
    origin: Array
    known: npt.NDArray[np.bool_] | None = None


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
    side
        Side of the tiles that are worked off at once, a power of two.
    """

    bend: Bend
    affine: Array
    size: tuple[int, int]
    bounds: Bounds
    side: int = SIDE

    def around(self, rows: Indices, columns: Indices) -> Coverage:
        """Return, for each row, columns between which all covered ones lie."""
        if not (len(rows) and len(columns)):
            return coverage(self.affine, self.size, rows, columns)
        moves = self._moves(rows, columns)
        shifted = self.affine.copy()
        shifted[:, 2] += [high for _, high in moves]
        # Bent, a point lies at most so far along x and y from where it lies straight.
        width, height = (
            side + (high - low) for side, (low, high) in zip(self.size, moves, strict=True)
        )
        return coverage(shifted, (width, height), rows, columns)

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
        moves = self._moves(around.rows, np.array(around.asked))
        edges = []
        reach = reach_pixels(interpolation, _to_tier(self.affine, tier))
        for axis, (low, high) in enumerate(moves):
            straight = self.affine[axis, :2] @ ends + self.affine[axis, 2]
            least = min(max(straight.min() + low, 0.0), self.size[axis] - 1.0)
            most = min(max(straight.max() + high, 0.0), self.size[axis] - 1.0)
            values = np.array([least, most]) * tier[axis, axis] + tier[axis, 2]
            edges.append(span(values, reach, size[axis]))
        (left, right), (top, bottom) = edges
        return Window(left, top, right - left, bottom - top)

    def covered(self, rows: Indices, columns: Indices) -> npt.NDArray[np.bool_]:
        """Return which grid points are covered, shape (rows, columns)."""
        out = np.zeros((len(rows), len(columns)), dtype=bool)
        if not out.size:
            return out
        around = self.around(rows, columns)
        for tile, down, across in _tiles(around, columns, self.bounds, self.side):
            here, there = _index(tile, down, across)
            sure = self.surely_covers(tile)
            out[there] = True if sure else self.within(tile, self.places(tile))[here]
        return out

    def surely_covers(self, tile: Tile) -> bool:
        """Whether every point of a tile is covered, as far as its corners and the bend tell."""
        rows = np.array([tile.row, tile.row + tile.height - 1])
        columns = np.array([tile.column, tile.column + tile.width - 1])
        spans = self._spans(rows, columns)
        if isinstance(self.bend, Lattice) and not self.bend.spans(*spans):
            return False
        return all(
            least + low >= 0 and most + high <= side - 1
            for (least, most), (low, high), side in zip(
                spans, self._moves(rows, columns), self.size, strict=True
            )
        )

    def within(self, tile: Tile, places: TilePlaces) -> npt.NDArray[np.bool_]:
        """Return whether the points of a tile lie in the section."""
        surely, perhaps = (np.ones(places.x.shape, dtype=bool) for _ in range(2))
        for values, origin, side in zip(
            (places.x, places.y), places.origin, self.size, strict=True
        ):
            low, high = np.float32(-origin), np.float32(side - 1 - origin)
            slack = np.float32(_SLACK + 1e-6 * max(abs(low), abs(high)))
            surely &= values >= low + slack
            surely &= values <= high - slack
            perhaps &= values >= low - slack
            perhaps &= values <= high + slack
        if places.known is not None:
            surely &= places.known
            perhaps &= places.known
        rows, columns = np.nonzero(perhaps & ~surely)
        if len(rows):
            # Along the border single precision does not do.
            at = np.stack([columns + tile.column, rows + tile.row]).astype(float)
            x, y = self.bend.to_bent(*(self.affine[:, :2] @ at + self.affine[:, 2:]))
            width, height = self.size
            inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
            surely[rows, columns] = inside
        return surely

    def places(self, tile: Tile) -> TilePlaces:
        """Return where the points of a tile fall."""
        rows = np.arange(tile.row, tile.row + tile.height, dtype=float)
        columns = np.arange(tile.column, tile.column + tile.width, dtype=float)
        place = _Rectangle(self.affine, rows, columns)
        if isinstance(self.bend, Triangles):
            return _by_triangles(self.bend, place)
        if isinstance(self.bend, Lattice):
            return _by_lattice(self.bend, place)
        raise TypeError(f"{type(self.bend).__name__} is no known way to bend a section")

    def _spans(self, rows: Indices, columns: Indices) -> Spans:
        """Return between which straight full-resolution x and y points lie."""
        corners = np.array(
            [[columns.min(), columns.max()] * 2, [rows.min()] * 2 + [rows.max()] * 2], dtype=float
        )
        x, y = self.affine[:, :2] @ corners + self.affine[:, 2:]
        return (float(x.min()), float(x.max())), (float(y.min()), float(y.max()))

    def _moves(self, rows: Indices, columns: Indices) -> Spans:
        """Return by how much x and y of points change at least and at most."""
        (left, right), (up, down) = self.bend.moves(*self._spans(rows, columns))
        return (left - _SLACK, right + _SLACK), (up - _SLACK, down + _SLACK)


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
    source = _Source(pixels, window, size, tier, _to_tier(grid.affine, tier), interpolation)
    for tile, down, across in _tiles(around, columns, grid.bounds, grid.side):
        here, there = _index(tile, down, across)
        places = grid.places(tile)
        if grid.surely_covers(tile):
            out[there] = source.sample(grid, tile, places)[here]
            continue
        shown = grid.within(tile, places)[here]
        if shown.any():
            sampled = source.sample(grid, tile, places)[here]
            out[there] = _over(out[there], sampled, shown)


def _over(below: npt.NDArray[Any], above: Pixels, shown: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return pixels with others over them where these are shown."""
    import cv2

    below = np.ascontiguousarray(below)
    above = np.ascontiguousarray(above, dtype=below.dtype)
    # Many times as fast as a mask of numpy's.
    return np.asarray(cv2.copyTo(above, np.ascontiguousarray(shown).view(np.uint8), below))


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """An image to sample.

    Parameters
    ----------
    pixels, window, size, interpolation
        See `warp.warp`.
    tier
        Shape (2, 3): from full-resolution (x, y, 1) to pixels of the tier.
    affine
        Shape (2, 3): from (column number, row number, 1) to pixels of the tier, were it straight.
    """

    pixels: Pixels
    window: Window
    size: tuple[int, int]
    tier: Array
    affine: Array
    interpolation: Interpolation

    def sample(self, grid: BentGrid, tile: Tile, places: TilePlaces) -> Pixels:
        """Return a tile of samples; those that are not covered are anything."""
        import cv2

        unit = shrink(self.affine) if self.interpolation == "area" else 1
        ends = self._ends(places)
        box = self._box(ends, unit)
        if max(box.width, box.height) > _LARGEST_BOX and tile.height * tile.width > 1:
            parts = np.zeros((tile.height, tile.width, *self.pixels.shape[2:]), dtype=np.uint8)
            for part in _quarters(tile):
                top, left = part.row - tile.row, part.column - tile.column
                parts[top : top + part.height, left : left + part.width] = self.sample(
                    grid, part, grid.places(part)
                )
            return parts
        source = shrunk(cut(self.pixels, self.window, box), unit)
        samples = 1
        if self.interpolation == "area":
            spanned = float(np.hypot(self.affine[0, :2], self.affine[1, :2]).max()) / unit
            samples = max(math.ceil(spanned), 2)
            places = grid.places(_wider(tile))
        # Pixel k of the shrunk source is the mean of `unit` pixels, centred on their middle.
        maps = [
            _finer(self._in_tier(places, axis, first + (unit - 1) / 2, unit), samples)
            for axis, first in enumerate((box.left, box.top))
        ]
        kernel = {
            "nearest": cv2.INTER_NEAREST,
            "linear": cv2.INTER_LINEAR,
            "cubic": cv2.INTER_CUBIC,
            "area": cv2.INTER_LINEAR,
        }[self.interpolation]
        many = cv2.remap(source, maps[0], maps[1], kernel, borderMode=cv2.BORDER_REPLICATE)
        if samples > 1:
            many = cv2.resize(many, (tile.width, tile.height), interpolation=cv2.INTER_AREA)
        return np.asarray(many, dtype=np.uint8)

    def _in_tier(
        self, places: TilePlaces, axis: int, first: float, unit: int
    ) -> npt.NDArray[np.float32]:
        """Return x or y in units of pixels of the tier, counted from one of them."""
        scale = self.tier[axis, axis] / unit
        shift = (places.origin[axis] * self.tier[axis, axis] + self.tier[axis, 2] - first) / unit
        out = (places.x if axis == 0 else places.y) * np.float32(scale)
        out += np.float32(shift)
        return out

    def _ends(self, places: TilePlaces) -> list[tuple[float, float]]:
        """Return the least and greatest x and y in pixels of the tier."""
        ends = []
        for axis, values in enumerate((places.x, places.y)):
            low, high = values.min(), values.max()
            shift = places.origin[axis]
            scale = self.tier[axis]
            ends.append(
                (
                    (float(low) + shift) * scale[axis] + scale[2],
                    (float(high) + shift) * scale[axis] + scale[2],
                )
            )
        return ends

    def _box(self, ends: list[tuple[float, float]], unit: int) -> Window:
        """Return the pixels that may be touched, cut to the image, on the shrink lattice."""
        edges = []
        reach = reach_pixels(self.interpolation, self.affine)
        for values, length in zip(ends, self.size, strict=True):
            first, past = span(np.clip(values, -1.0, float(length)), reach, length)
            edges.append((first // unit * unit, min(-(-past // unit) * unit, length)))
        (left, right), (top, bottom) = edges
        return Window(left, top, right - left, bottom - top)


def _to_tier(affine: Array, tier: Array) -> Array:
    return np.asarray(tier @ np.concatenate([affine, [[0.0, 0.0, 1.0]]]))


def _wider(tile: Tile) -> Tile:
    """Return a tile with the points around it."""
    return Tile(tile.row - 1, tile.column - 1, tile.height + 2, tile.width + 2)


def _finer(values: npt.NDArray[np.float32], samples: int) -> npt.NDArray[np.float32]:
    """Return several samples a step and axis, between the points of a tile with those around it.

    Sample k of a point lies (k - (samples - 1) / 2) / samples of a step off.
    """
    import cv2

    if samples == 1:
        return values
    size = (values.shape[1] - 2) * samples, (values.shape[0] - 2) * samples
    off = 1 - (samples - 1) / (2 * samples)
    between = np.array([[1 / samples, 0, off], [0, 1 / samples, off]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(values, between, size, flags=flags), dtype=np.float32)


def _quarters(tile: Tile) -> Iterator[Tile]:
    high, wide = (tile.height + 1) // 2, (tile.width + 1) // 2
    for row, height in ((0, high), (high, tile.height - high)):
        for column, width in ((0, wide), (wide, tile.width - wide)):
            if height and width:
                yield Tile(tile.row + row, tile.column + column, height, width)


def _tiles(around: Coverage, columns: Indices, bounds: Bounds, side: int) -> Iterator[Any]:
    """Yield tiles that may hold covered points, with the rows and columns that lie in them."""
    every = list(groups(columns, side))
    for down in groups(around.rows, side):
        first, last = around.first[down.places], around.last[down.places]
        some = first <= last
        if not some.any():
            continue
        low, high = int(first[some].min()), int(last[some].max())
        top, bottom = clipped(down.tile, side, bounds[0])
        for across in every:
            left, right = clipped(across.tile, side, bounds[1])
            if high >= left and low < right:
                yield Tile(top, left, bottom - top, right - left), down, across


def _index(tile: Tile, down: Any, across: Any) -> tuple[Any, Any]:
    """Return where points lie in their tile, and where among all that were asked for."""
    if down.run and across.run:
        return (down.within(tile.row), across.within(tile.column)), (down.run, across.run)
    return (
        np.ix_(down.numbers - tile.row, across.numbers - tile.column),
        np.ix_(down.places, across.places),
    )


class _Rectangle:
    """Evenly spaced grid points, and affines at them.

    Parameters
    ----------
    affine
        Shape (2, 3): from (column number, row number, 1) to straight full-resolution x, y.
    rows, columns
        The numbers.
    """

    def __init__(self, affine: Array, rows: Array, columns: Array) -> None:
        self.whole = np.concatenate([affine, [[0.0, 0.0, 1.0]]])
        self.rows, self.columns = rows, columns
        self.origin = np.rint(affine @ (columns[0], rows[0], 1.0))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self.rows), len(self.columns)

    @property
    def corners(self) -> Array:
        """Straight full-resolution (x, y) of the corners, shape (2, 4)."""
        ends = [[self.columns[0], self.columns[-1]] * 2, [self.rows[0]] * 2 + [self.rows[-1]] * 2]
        return np.asarray((self.whole @ np.array([*ends, [1.0] * 4]))[:2])

    def plane(
        self,
        affine: Array,
        axis: int,
        rows: slice = slice(None),
        columns: slice = slice(None),
    ) -> Singles:
        """Return x or y of an affine of straight pixels, counted from the origin.

        Parameters
        ----------
        affine
            Shape (2, 3): from straight full-resolution (x, y, 1).
        """
        along, down, shift = affine[axis] @ self.whole
        # Small numbers first: single precision keeps what the sum needs.
        start = along * self.columns[0] + shift - self.origin[axis]
        downs = np.asarray(down * self.rows[rows] + start, dtype=np.float32)
        across = np.asarray(along * (self.columns[columns] - self.columns[0]), dtype=np.float32)
        return np.asarray(downs[:, None] + across)


def _by_triangles(bend: Triangles, place: _Rectangle) -> TilePlaces:
    """Return where the points of a rectangle fall: each triangle in its own part of it.

    They are painted over each other, the first one last: it wins where the plane is folded.
    """
    import cv2

    pieces, columns = bend.from_straight, place.columns
    corners = place.corners
    x, y = place.plane(np.eye(2, 3), 0), place.plane(np.eye(2, 3), 1)
    near = (pieces.low <= corners.max(axis=1)).all(axis=1)
    near &= (pieces.high >= corners.min(axis=1)).all(axis=1)
    which = np.flatnonzero(near)[::-1]
    low, high = _intervals(pieces.inside[which] @ place.whole, place.rows)
    first = np.searchsorted(columns, low).astype(np.int32)
    past = np.maximum(np.searchsorted(columns, high, side="right").astype(np.int32), first)
    some = past > first
    for number in np.flatnonzero(some.any(axis=1)):
        rows = np.flatnonzero(some[number])
        down = slice(int(rows[0]), int(rows[-1]) + 1)
        begin, end = first[number, down], past[number, down]
        left = int(begin[some[number, down]].min())
        across = slice(left, int(end.max()))
        onto = pieces.onto[which[number]]
        there_x, there_y = (place.plane(onto, axis, down, across) for axis in (0, 1))
        if begin.max() == left and end.min() == across.stop:
            x[down, across], y[down, across] = there_x, there_y
            continue
        numbers = np.arange(across.start, across.stop, dtype=np.int32)
        hit = numbers >= begin[:, None]
        hit &= numbers < end[:, None]
        mask = hit.view(np.uint8)
        cv2.copyTo(there_x, mask, x[down, across])
        cv2.copyTo(there_y, mask, y[down, across])
    return TilePlaces(x, y, place.origin)


def _intervals(inside: Array, rows: Array) -> tuple[Array, Array]:
    """Return the least and greatest column of each row in triangles, shape (triangles, rows).

    Parameters
    ----------
    inside
        Shape (triangles, 2, 3): from (column, row, 1) to the barycentric coordinates u, v.
    """
    third = [0.0, 0.0, 1.0] - inside.sum(axis=1, keepdims=True)
    along, down, shift = np.moveaxis(np.concatenate([inside, third], axis=1), 2, 0)[..., None]
    level = -TOUCHING - (down * rows + shift)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = level / along
    never = (along == 0) & (level > 0)
    low = np.where(along > 0, at, np.where(never, np.inf, -np.inf)).max(axis=1)
    high = np.where(along < 0, at, np.where(never, -np.inf, np.inf)).min(axis=1)
    return low, high


def _by_lattice(bend: Lattice, place: _Rectangle) -> TilePlaces:
    """Return where the points of a rectangle fall: the field is warped onto it."""
    import cv2

    index = bend.index @ np.concatenate([place.corners, [[1.0] * 4]])
    height, width = bend.field.shape[:2]
    # The part of the field that is touched: small numbers keep single precision fine.
    left, right = span(index[0], 1, width)
    top, bottom = span(index[1], 1, height)
    start = [[1.0, 0, place.columns[0]], [0, 1.0, place.rows[0]], [0, 0, 1.0]]
    to_part = bend.index @ place.whole @ start
    to_part[:, 2] -= left, top
    # One component at a time: with two channels OpenCV 5 takes the nearest 32nd of a pixel.
    x, y = (
        place.plane(bend.affine, axis)
        + cv2.warpAffine(
            bend.components[axis][top:bottom, left:right],
            to_part,
            place.shape[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for axis in (0, 1)
    )
    corners = place.corners
    spans = [
        (float(low), float(high)) for low, high in zip(corners.min(1), corners.max(1), strict=True)
    ]
    known = None
    if not bend.spans(*spans):
        rows, columns = place.rows[:, None], place.columns
        known = bend.known(*(a * columns + b * rows + c for a, b, c in bend.index @ place.whole))
    return TilePlaces(x, y, place.origin, known)
