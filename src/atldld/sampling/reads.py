"""Which grid points a section covers, and which tier and window of its image they need.

Arithmetic on its affine and its size alone. A grid point is covered when it falls within
``[0, width - 1] x [0, height - 1]`` of the section's full-resolution pixels. That region is convex,
so that each grid row is covered from one column to another, and two numbers a row say all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..model.affine import Array
from ..model.read import Window

Indices = npt.NDArray[np.int64]
Interpolation = Literal["nearest", "linear", "cubic", "area"]
Reach = tuple[tuple[float, float], tuple[float, float]]
"""The least and greatest x, and y, of some points, in pixels of a tier."""

INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "linear", "cubic", "area")

AREA_FROM = 1.5
"""Source pixels a grid step spans, above which ``"auto"`` averages over the step."""

LATTICE = 256
"""Pixels between the possible edges of windows, in every tier."""

SMALL_PIXELS = 2**20
"""Images of at most so many pixels are always read whole."""

LARGE_PIXELS = 32 * 10**6
"""Images of more pixels are read whole only if all of them is needed."""

MOST_OF_IT = 0.6
"""Share of an image from which the whole is read instead of a window."""

_REACH = {"nearest": 1, "linear": 1, "cubic": 2}
"""Source pixels that a kernel reaches beyond the pixel it stands on, to either side."""

_NUDGE = 1e-9

_SMALL = 2**30
"""Column numbers below which 32 bits do."""


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """The covered columns of some grid rows.

    Parameters
    ----------
    rows
        Shape (m,): numbers of the rows.
    first, last
        Shape (m,): first and last covered column of each row within the columns asked about;
        ``first > last`` where there is none.
    asked
        First and last column asked about.
    """

    rows: Indices
    first: Indices
    last: Indices
    asked: tuple[int, int]

    @property
    def any(self) -> bool:
        """Whether any point is covered."""
        return bool((self.first <= self.last).any())

    @property
    def all(self) -> bool:
        """Whether every point of the rows and columns asked about is covered."""
        low, high = self.asked
        return bool((self.first <= low).all() and (self.last >= high).all())

    def mask(self, columns: Indices, rows: slice = slice(None)) -> npt.NDArray[np.bool_]:
        """Return the truth of each of `columns` in some rows, shape (rows, len(columns))."""
        first, last = self.first[rows, None], self.last[rows, None]
        if max(map(abs, self.asked)) < _SMALL:  # compared in half the time
            first, last = first.astype(np.int32), last.astype(np.int32)
            columns = columns.astype(np.int32)
        inside = np.asarray(columns >= first, dtype=bool)
        inside &= columns <= last
        return inside

    def ends(self) -> Array:
        """Return the (column, row) of the first and last covered point of each row, (2, k)."""
        some = self.first <= self.last
        columns = np.concatenate([self.first[some], self.last[some]])
        return np.stack([columns, np.tile(self.rows[some], 2)]).astype(np.float64)


def coverage(affine: Array, size: tuple[float, float], rows: Indices, columns: Indices) -> Coverage:
    """Return which grid points a section covers.

    Parameters
    ----------
    affine
        Shape (2, 3): from (column number, row number, 1) to full-resolution x, y.
    size
        Width and height of the section in full-resolution pixels.
    rows
        Numbers of the rows asked about, in any order.
    columns
        Numbers of the columns asked about; all between the least and the greatest count.

    Examples
    --------
    >>> import numpy as np
    >>> found = coverage(np.array([[2.0, 0, -3], [0, 2.0, 0]]), (8, 4), np.arange(3), np.arange(9))
    >>> found.mask(np.arange(9)).astype(int)
    array([[0, 0, 1, 1, 1, 1, 0, 0, 0],
           [0, 0, 1, 1, 1, 1, 0, 0, 0],
           [0, 0, 0, 0, 0, 0, 0, 0, 0]])
    """
    asked = (int(columns.min()), int(columns.max())) if len(columns) else (0, -1)
    return Coverage(rows, *covered_columns(affine, size, rows, asked), asked)


def covered_columns(
    affine: Array, size: tuple[Any, Any], rows: Indices, asked: tuple[int, int]
) -> tuple[Indices, Indices]:
    """Return the first and last covered column of each row; see `Coverage`.

    Parameters
    ----------
    affine
        Shape (2, 3), or (2, 3, planes, 1) where each of several planes has its own.
    size, rows
        As in `coverage`; of several planes the size has shape (planes, 1).
    asked
        First and last column asked about.
    """
    (first, last), more = (
        _within(slope, per_row * rows + shift, side - 1.0, *asked)
        for (slope, per_row, shift), side in zip(affine, size, strict=True)
    )
    return np.maximum(first, more[0]), np.minimum(last, more[1])


def _within(slope: Array, start: Array, limit: Any, low: int, high: int) -> tuple[Indices, Indices]:
    """Return the first and last column u in [low, high] with ``0 <= slope*u + start <= limit``."""

    def covered(u: Array) -> npt.NDArray[np.bool_]:
        value = slope * u + start
        return np.asarray((value >= 0) & (value <= limit))

    level = slope == 0
    with np.errstate(over="ignore"):  # an end at infinity is an end
        divisor = np.where(level, 1.0, slope)
        ends = -start / divisor, (limit - start) / divisor
    # Clipped one beyond, so that an end that is far away stays an integer and stays outside.
    first = np.ceil(np.clip(np.minimum(*ends), low - 1, high + 1))
    last = np.floor(np.clip(np.maximum(*ends), low - 1, high + 1))
    # The division rounds: whether a point on the border is in is for the product to say.
    first += np.where(covered(first - 1), -1, np.where(covered(first), 0, 1))
    last += np.where(covered(last + 1), 1, np.where(covered(last), 0, -1))
    if np.any(level):
        inside = covered(np.zeros(1))
        first = np.where(level, np.where(inside, low, high + 1), first)
        last = np.where(level, np.where(inside, high, low - 1), last)
    first, last = np.maximum(first, low), np.minimum(last, high)
    return first.astype(np.int64), last.astype(np.int64)


def choose_tiers(
    tier: int | Literal["auto"],
    microns_per_pixel: Array,
    tier_count: npt.NDArray[np.int16],
    step: float,
) -> npt.NDArray[np.int16]:
    """Return the tier of each section.

    Parameters
    ----------
    tier
        A tier for all sections, or ``"auto"``: for each section the coarsest tier whose pixel
        is not larger than a grid step. None goes past the last tier of its section.
    microns_per_pixel
        Shape (n,): reference microns of a full-resolution pixel along its longer axis.
    tier_count
        Shape (n,): number of tiers of each section.
    step
        Microns between grid points.

    Examples
    --------
    >>> import numpy as np
    >>> choose_tiers("auto", np.array([1.0, 1.1, 30.0]), np.array([7, 4, 7]), 25.0)
    array([4, 3, 0])
    """
    if tier == "auto":
        wanted = np.floor(np.log2(step / microns_per_pixel) + _NUDGE).astype(np.int16)
    else:
        wanted = np.full(len(tier_count), min(tier, 1000), dtype=np.int16)
    return np.clip(wanted, 0, tier_count - 1)


def serving_tiers(
    wanted: npt.NDArray[np.int16], at_hand: Sequence[Collection[int] | None]
) -> npt.NDArray[np.int16]:
    """Return the tiers that serve where a source has only some of them.

    Parameters
    ----------
    wanted
        Shape (n,): the coarsest tier of each section whose pixel is not larger than a grid step.
    at_hand
        For each section the tiers that the source has of it; None where it has all.

    Returns
    -------
    tiers
        Shape (n,): of those at hand the coarsest that is not coarser than wanted; the wanted one
        where there is none.

    Examples
    --------
    >>> serving_tiers(np.array([4, 4, 1, 2], dtype=np.int16), [{2, 3, 6}, {4}, {2}, None])
    array([3, 4, 1, 2], dtype=int16)
    """
    served = wanted.copy()
    for place, (tier, there) in enumerate(zip(wanted, at_hand, strict=True)):
        if there is not None:
            served[place] = max((each for each in there if each <= tier), default=tier)
    return served


def step_pixels(affine: Array) -> float:
    """Return how many source pixels a grid step spans, along the longer of the two axes.

    Parameters
    ----------
    affine
        Shape (2, 3): from (column number, row number, 1) to pixels of the tier.
    """
    return max(math.hypot(affine[0, 0], affine[1, 0]), math.hypot(affine[0, 1], affine[1, 1]))


def choose_interpolation(
    interpolation: Interpolation | Literal["auto"], affine: Array
) -> Interpolation:
    """Return the interpolation of a section: ``"auto"`` is area where a step spans much."""
    if interpolation != "auto":
        return interpolation
    return "area" if step_pixels(affine) > AREA_FROM else "linear"


def needed_window(
    affine: Array, covered: Coverage, size: tuple[int, int], interpolation: Interpolation
) -> Window | None:
    """Return the pixels of a tier that the covered points of a piece of the grid need.

    Parameters
    ----------
    affine
        Shape (2, 3): from (column number, row number, 1) to pixels of the tier.
    covered
        The covered points of the piece.
    size
        Width and height of the tier image in pixels.
    interpolation
        What the kernel is: it says how far around a point pixels are needed.

    Returns
    -------
    window
        Padded for the kernel and cut to the image, or None where no point is covered and
        nothing needs to be read.
    """
    reach = covered_reach(affine, covered)
    return None if reach is None else window_around(reach, affine, size, interpolation)


def covered_reach(affine: Array, covered: Coverage) -> Reach | None:
    """Return the least and greatest x, and y, of covered points; None where there are none.

    Parameters
    ----------
    affine
        Shape (2, 3): from (column number, row number, 1) to pixels of the tier.
    covered
        The points.
    """
    ends = covered.ends()
    if ends.shape[1] == 0:
        return None
    x, y = affine[:, :2] @ ends + affine[:, 2:]
    return (float(x.min()), float(x.max())), (float(y.min()), float(y.max()))


def covered_reaches(affines: Array, covered: Sequence[Coverage]) -> list[Reach]:
    """Return the same of some planes with the same rows, each of which has a covered point.

    Parameters
    ----------
    affines
        Shape (n, 2, 3).
    covered
        Of each.
    """
    rows = covered[0].rows
    ends = np.stack([[each.first for each in covered], [each.last for each in covered]])
    there = ends[0] <= ends[1]
    along, down, shift = np.moveaxis(affines, 2, 0)[..., None]
    beside = down * rows + shift
    reaches = []
    for axis in (0, 1):
        values = along[:, axis] * ends + beside[:, axis]
        low = values.min(axis=(0, 2), where=there, initial=np.inf)
        high = values.max(axis=(0, 2), where=there, initial=-np.inf)
        reaches.append(zip(low.tolist(), high.tolist(), strict=True))
    return list(zip(*reaches, strict=True))


def window_around(
    reach: Reach, affine: Array, size: tuple[int, int], interpolation: Interpolation
) -> Window:
    """Return the pixels of a tier that points need; see `needed_window`.

    Parameters
    ----------
    reach
        The least and greatest x, and y, of the points, in pixels of the tier.
    affine, size, interpolation
        As for `needed_window`.
    """
    around = reach_pixels(interpolation, affine)
    left, right = span(reach[0], around, size[0])
    top, bottom = span(reach[1], around, size[1])
    return Window(left, top, right - left, bottom - top)


def reach_pixels(interpolation: Interpolation, affine: Array) -> int:
    """Return how many pixels around a point its value depends on, to either side."""
    if interpolation != "area":
        return _REACH[interpolation]
    # Half a step to either side, the pixels that a box of the shrunk image overlaps, and one
    # more for the linear kernel on them.
    return 2 * math.ceil(step_pixels(affine)) + 2


def span(values: tuple[float, float] | Array, reach: int, size: int) -> tuple[int, int]:
    """Return the first pixel that places need, and one past the last, cut to ``[0, size)``.

    Parameters
    ----------
    values
        The least and greatest place; of an array, its own.
    reach
        Pixels around a place that are needed.
    size
        Pixels of the image along the axis.
    """
    low, high = (values.min(), values.max()) if isinstance(values, np.ndarray) else values
    first, past = math.floor(low) - reach, math.floor(high) + 1 + reach
    first = 0 if first < 0 else size - 1 if first >= size else first
    return first, first + 1 if past <= first else size if past > size else past


def choose_window(
    needed: Window, size: tuple[int, int], held: Collection[Window | None] = ()
) -> Window | None:
    """Return the window to ask a source for, or None for the whole image.

    Parameters
    ----------
    needed
        The pixels that are needed, within the image.
    size
        Width and height of the tier image in pixels.
    held
        Windows of the tier that are at hand already; None among them is the whole image.

    Returns
    -------
    window
        None where the whole image is at hand, or small (at most 1 megapixel), or where the
        window would be most of it (60 %) and it is not large (at most 32 megapixels). A
        window at hand that holds what is needed, the smallest of them. Else the needed pixels
        with edges on a lattice of 256 pixels, so that different selections share files.

    Examples
    --------
    >>> choose_window(Window(300, 10, 900, 700), (10000, 7600))
    Window(left=256, top=0, width=1024, height=768)
    >>> choose_window(Window(300, 10, 300, 300), (625, 475)) is None
    True
    """
    whole = Window(0, 0, *size)
    if not whole.holds(needed):
        raise ValueError(f"{needed} is not within an image of {size[0]} x {size[1]} pixels")
    if None in held or whole.area <= SMALL_PIXELS:
        return None
    holding = [window for window in held if window is not None and window.holds(needed)]
    if holding:
        return min(holding, key=lambda window: (window.area, window.box))
    left, right = _on_lattice(needed.left, needed.right, size[0])
    top, bottom = _on_lattice(needed.top, needed.bottom, size[1])
    window = Window(left, top, right - left, bottom - top)
    most = window.area >= MOST_OF_IT * whole.area and whole.area <= LARGE_PIXELS
    return None if most or window == whole else window


def _on_lattice(first: int, past: int, size: int) -> tuple[int, int]:
    return first // LATTICE * LATTICE, min(-(-past // LATTICE) * LATTICE, size)
