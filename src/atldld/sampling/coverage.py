"""Which grid points a section covers: arithmetic on its affine and its size alone.

A grid point is covered when it falls within ``[0, width - 1] x [0, height - 1]`` of the
section's full-resolution pixels. That region is convex, so that each grid row is covered from
one column to another, and two numbers a row say all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.affine import Array

Indices = npt.NDArray[np.int64]

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
