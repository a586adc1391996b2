"""Pixels of sections summed over the cells of a volume: arithmetic on blocks in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.affine import points_of
from ..model.bend import BendSource
from ..model.grid import Axis

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Function = Callable[[npt.NDArray[np.uint8]], Any]
Ends = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First number of the cells, and one past the last, along p, i, r."""

Bounds = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
"""Least and greatest p, i, r of the pixels that count, in microns; both ends count."""

EVERYWHERE: Bounds = ((-np.inf, np.inf),) * 3

_PIXELS_AT_ONCE = 1 << 17
"""So that what lies between stays in the processor's cache."""

_MOST_BINS = 1 << 22
"""Cells of a box up to which every one of them gets a bin."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Cubes around the nodes of a volume.

    Parameters
    ----------
    axes
        The nodes along p, i, r: cell k holds what lies within ``[(k - 0.5) * step, (k + 0.5) *
        step)`` microns.
    bounds
        Where the pixels that count lie: cells at the border hold only a part of theirs.
    """

    axes: tuple[Axis, Axis, Axis]
    bounds: Bounds = EVERYWHERE

    @property
    def step(self) -> float:
        """Microns along a side of a cell."""
        return self.axes[0].step

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many cells there are along p, i, r."""
        p, i, r = (axis.count for axis in self.axes)
        return p, i, r

    @property
    def ends(self) -> Ends:
        """Numbers of the cells that are there."""
        p, i, r = ((axis.first, axis.first + axis.count) for axis in self.axes)
        return p, i, r


_FAR = (1e6, 1e6, 1e6, 1e6)
"""Full-resolution pixels further than any section is wide."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Where the pixels of a block lie.

    Parameters
    ----------
    affine
        Shape (3, 3): from full-resolution (x, y, 1) to p, i, r in microns.
    x, y
        Full-resolution coordinates of the first pixel.
    step
        Full-resolution pixels from one pixel to the next.
    width, height
        How many pixels.
    bend
        Where the bend of the section comes from; None for a straight one.
    """

    affine: Array
    x: float
    y: float
    step: int
    width: int
    height: int
    bend: BendSource | None = None

    def places(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Return p, i, r of full-resolution pixels, which broadcast; NaN where not known."""
        bend = None if self.bend is None else self.bend.load()
        return points_of(self.affine, *((x, y) if bend is None else bend.to_straight(x, y)))

    def _straight(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return between which straight x and y the pixels lie."""
        right, bottom = (
            self.x + self.step * (self.width - 1),
            self.y + self.step * (self.height - 1),
        )
        bend = None if self.bend is None else self.bend.load()
        if bend is None:
            return (self.x, right), (self.y, bottom)
        around = _FAR
        for _ in range(8):
            # First from anywhere, then from as far as that allows.
            (left, most_x), (up, most_y) = bend.moves(
                (self.x - around[0], right + around[1]), (self.y - around[2], bottom + around[3])
            )
            around = most_x, -left, most_y, -up
        return (self.x - most_x, right - left), (self.y - most_y, bottom - up)

    def ends(self, cell: float, cells: Ends) -> Ends:
        """Return the numbers of the cells that the block may touch, of those that there are."""
        x, y = self._straight()
        corners = points_of(self.affine, np.array(x)[None, :], np.array(y)[:, None])
        p, i, r = (
            # One more on either side: rounding at the corners may differ from that inside.
            (
                max(int(_numbers(values, cell).min()) - 1, low),
                min(int(_numbers(values, cell).max()) + 2, past),
            )
            for values, (low, past) in zip(corners, cells, strict=True)
        )
        return p, i, r


@dataclass(frozen=True, slots=True, eq=False)
class CellSums:
    """What was summed over the cells that some pixels lie in.

    Parameters
    ----------
    p, i, r
        Shape (n,): numbers of the cells, each once.
    pixels, expressing
        Shape (n,), int64: how many pixels, and how many of them express.
    intensity
        Shape (n,), float64: sum over those that express.
    """

    p: Counts
    i: Counts
    r: Counts
    pixels: Counts
    expressing: Counts
    intensity: Array


def overlap(ends: Ends, others: Ends) -> bool:
    """Whether two boxes of cells have one in common."""
    return all(
        max(low, other) < min(past, beyond)
        for (low, past), (other, beyond) in zip(ends, others, strict=True)
    )


def sums_of_pixels(
    pixels: npt.NDArray[Any],
    block: Block,
    cells: Ends,
    cell: float,
    threshold: float,
    function: Function | None,
    bounds: Bounds = EVERYWHERE,
) -> CellSums:
    """Return the sums of a block of pixels over the cells that they lie in.

    Parameters
    ----------
    pixels
        Shape (height, width[, 3]), uint8; or float32, all NaN, for pixels that could not be had:
        they lie nowhere.
    block
        Where they lie.
    cells, cell
        Numbers of the cells that count, and microns along a side of one.
    threshold
        Grey level from which on a pixel expresses; not used with `function`.
    function
        Gives a truth value or number for each pixel: it expresses where that is True, or above
        0, and the number is its intensity.
    bounds
        Where a pixel must lie to count, in microns.

    Notes
    -----
    A pixel lies in cell ``floor(coordinate / step + 0.5)`` of each axis, in float64, by its own
    p, i, r. Counts are exact, and so are sums of grey levels.
    """
    ends = block.ends(cell, cells)
    shape = tuple(max(past - low, 0) for low, past in ends)
    if pixels.dtype.kind == "f" and np.isnan(pixels.flat[0]):
        shape = (0, 0, 0)
    if not all(shape):
        none = np.zeros(0, dtype=np.int64)
        return CellSums(none, none, none, none, none, none.astype(np.float64))
    pixels = pixels.astype(np.uint8, copy=False)
    levels = None if function is None else _levels(function, pixels)
    bins = _Bins(shape)
    columns = block.x + block.step * np.arange(block.width, dtype=np.float64)
    rows = block.y + block.step * np.arange(block.height, dtype=np.float64)
    at_once = max(_PIXELS_AT_ONCE // block.width, 1)
    for first in range(0, block.height, at_once):
        some = slice(first, first + at_once)
        places: Sequence[Array] = block.places(columns[None, :], rows[some, None])
        if block.bend is not None:
            # What is not known lies in no cell.
            places = [
                np.where(np.isnan(values), (low - 10) * cell, values)
                for values, (low, _) in zip(places, ends, strict=True)
            ]
        codes, outside = _codes(places, ends, shape, cell, bounds)
        if levels is None:
            values: npt.NDArray[Any] = pixels[some].ravel()
            expresses = values >= threshold
        else:
            values = levels[some].ravel()
            expresses = values > 0
        if outside is not None:
            codes, values, expresses = codes[~outside], values[~outside], expresses[~outside]
        bins.add(codes, values, expresses)
    return bins.sums(ends)


def _levels(function: Function, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    found = np.asarray(function(pixels))
    if found.shape != pixels.shape[:2]:
        raise ValueError(
            f"the function gave an array of shape {found.shape} for pixels of shape "
            f"{pixels.shape}; it must give one value a pixel: {pixels.shape[:2]}"
        )
    if found.dtype.kind not in "biuf":
        raise TypeError(f"the function gave {found.dtype}; it must give truth values or numbers")
    return found


def _numbers(values: Array, cell: float) -> Array:
    return np.asarray(np.floor(values / cell + 0.5))


def _codes(
    places: Sequence[Array], ends: Ends, shape: tuple[int, ...], cell: float, bounds: Bounds
) -> tuple[Counts, npt.NDArray[np.bool_] | None]:
    """Return which bin each pixel goes into, and which lie outside of all; None for none."""
    codes: Any = 0
    outside: npt.NDArray[np.bool_] | None = None
    for values, (low, _), count, (least, most) in zip(places, ends, shape, bounds, strict=True):
        if values.min() < least or values.max() > most:
            beyond = (values < least) | (values > most)
            outside = beyond if outside is None else outside | beyond
        numbers = _numbers(values, cell).astype(np.int64)
        numbers -= low
        if numbers.min() < 0 or numbers.max() >= count:
            beyond = (numbers < 0) | (numbers >= count)
            outside = beyond if outside is None else outside | beyond
        codes = codes * count + numbers
    return codes.ravel(), None if outside is None else outside.ravel()


class _Bins:
    """Adds up over the cells of a box: in a bin each, or in bins for those that occur."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.count = int(np.prod(shape, dtype=np.int64))
        self.dense = self.count <= _MOST_BINS
        self.parts: list[tuple[Counts, Counts, Counts, Array]] = []
        if self.dense:
            none = np.zeros(self.count, dtype=np.int64)
            self.totals = (none, none.copy(), none.astype(np.float64))

    def add(
        self, codes: Counts, values: npt.NDArray[Any], expresses: npt.NDArray[np.bool_]
    ) -> None:
        """Add some pixels."""
        if self.dense:
            found = _summed(codes, values, expresses, self.count)
            pixels, expressing, intensity = self.totals
            pixels += found[0]
            expressing += found[1]
            intensity += found[2]
        else:
            there, places = np.unique(codes, return_inverse=True)
            self.parts.append((there, *_summed(places, values, expresses, len(there))))

    def sums(self, ends: Ends) -> CellSums:
        """Return the sums over the cells that some pixel lies in."""
        if self.dense:
            found = np.flatnonzero(self.totals[0])
            totals = self.totals[0][found], self.totals[1][found], self.totals[2][found]
        else:
            found, totals = _merged(self.parts)
        p, i, r = (
            number + low
            for number, (low, _) in zip(np.unravel_index(found, self.shape), ends, strict=True)
        )
        return CellSums(p, i, r, *totals)


def _summed(
    codes: Counts, values: npt.NDArray[Any], expresses: npt.NDArray[np.bool_], count: int
) -> tuple[Counts, Counts, Array]:
    chosen = codes[expresses]
    return (
        np.asarray(np.bincount(codes, minlength=count), dtype=np.int64),
        np.asarray(np.bincount(chosen, minlength=count), dtype=np.int64),
        np.asarray(
            np.bincount(chosen, weights=values[expresses], minlength=count), dtype=np.float64
        ),
    )


def _merged(
    parts: Sequence[tuple[Counts, Counts, Counts, Array]],
) -> tuple[Counts, tuple[Counts, Counts, Array]]:
    found, places = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    pixels, expressing = (np.zeros(len(found), dtype=np.int64) for _ in range(2))
    intensity = np.zeros(len(found), dtype=np.float64)
    np.add.at(pixels, places, np.concatenate([part[1] for part in parts]))
    np.add.at(expressing, places, np.concatenate([part[2] for part in parts]))
    np.add.at(intensity, places, np.concatenate([part[3] for part in parts]))
    return found, (pixels, expressing, intensity)


def dense_sums(parts: Iterable[CellSums], ends: Ends) -> tuple[Counts, Counts, Array]:
    """Return the sums of blocks over a box of cells: pixels, expressing, intensity."""
    shape = tuple(past - low for low, past in ends)
    pixels, expressing = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    intensity = np.zeros(shape, dtype=np.float64)
    for part in parts:
        inside = np.ones(len(part.p), dtype=bool)
        for numbers, (low, past) in zip((part.p, part.i, part.r), ends, strict=True):
            inside &= (numbers >= low) & (numbers < past)
        places = tuple(
            numbers[inside] - low
            for numbers, (low, _) in zip((part.p, part.i, part.r), ends, strict=True)
        )
        # Cells of one part are each there once, so that nothing is lost by adding so.
        pixels[places] += part.pixels[inside]
        expressing[places] += part.expressing[inside]
        intensity[places] += part.intensity[inside]
    return pixels, expressing, intensity
