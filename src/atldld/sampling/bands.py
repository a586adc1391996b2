"""Which section each node of a plane shows: bands between sections, from the matrices alone.

On a plane of reference space the third coordinate z of the image stack is linear. The nodes
nearest to one section in z form a band between two lines, and so do those that it covers: each
row of nodes shows a section from one column to another, and two numbers a row say all.

Rounding keeps order: z along a row never falls where it should rise. So a band is an interval
also in floating point, and its ends are where the same comparison, node by node, changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.affine import Array
from ..model.grid import Grid
from ..model.sections import stack_z
from ..model.space import Plane
from .coverage import Coverage, Indices, covered_columns

_FAR = 2**62
"""Past every column: where a run of none begins."""

Past = Callable[[npt.NDArray[np.intp], Indices], npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class NodePlane:
    """Some nodes of one plane of a volume: rows and a run of columns.

    Parameters
    ----------
    grid
        The volume's grid.
    plane
        The plane of section: which axes the rows and columns are.
    number
        Number of the plane along the slicing axis; or the numbers of several, where `z` and
        `affine` are asked for those.
    rows
        Shape (m,): numbers of the rows.
    low, high
        First and last column number.
    """

    grid: Grid
    plane: Plane
    number: int | Indices
    rows: Indices
    low: int
    high: int

    def at(self, number: int | Indices) -> NodePlane:
        """Return the same nodes of another plane, or of several."""
        return replace(self, number=number)

    def z(self, trv: Array, rows: npt.ArrayLike, columns: npt.ArrayLike) -> Array:
        """Return z of the image stack at numbers of rows and columns, which broadcast."""
        place: list[npt.ArrayLike] = [0.0, 0.0, 0.0]
        axes = self.grid.axes
        place[self.plane.section] = axes[self.plane.section].at(np.asarray(self.number))
        place[self.plane.y] = axes[self.plane.y].at(np.asarray(rows))
        place[self.plane.x] = axes[self.plane.x].at(np.asarray(columns))
        return stack_z(trv, *place)

    def affine(self, pixels_of_space: Array) -> Array:
        """Return the affine from (column number, row number, 1) to full-resolution x, y.

        Parameters
        ----------
        pixels_of_space
            Shape (2, 4): from (p, i, r, 1) to x, y; see `Stack.pixels_of_space`.

        Returns
        -------
        affine
            Shape (2, 3), with the numbers of the planes, if there are several, as last axis.
        """
        plane, axes = self.plane, self.grid.axes
        along, down, across = (axes[k] for k in (plane.section, plane.y, plane.x))
        number = np.asarray(self.number)
        out = np.empty((2, 3, *number.shape))
        for place, row in enumerate(pixels_of_space):
            out[place, 0] = row[plane.x] * across.step
            out[place, 1] = row[plane.y] * down.step
            out[place, 2] = (
                row[plane.section] * (along.origin + number * along.step)
                + row[plane.y] * down.origin
                + row[plane.x] * across.origin
                + row[3]
            )
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """The nodes of a plane that have to do with one section.

    Parameters
    ----------
    section
        Row of the stack.
    shown
        The nodes that show it: nearest to it, close enough, covered.
    used
        Those that its pixels are needed for: the same, and with ``between="linear"`` also the
        nodes of its neighbours that it has a share in.
    """

    section: int
    shown: Coverage
    used: Coverage


@dataclass(frozen=True, slots=True, eq=False)
class SectionPlanes:
    """What the sections of a stack are, as far as bands depend on it.

    Parameters
    ----------
    trv
        Shape (3, 4): reference space to image stack.
    z
        Shape (n,): ascending, microns of the stack.
    pixels_of_space
        Shape (n, 2, 4): (p, i, r, 1) to full-resolution x, y.
    width, height
        Shape (n,): full-resolution pixels.
    """

    trv: Array
    z: Array
    pixels_of_space: Array
    width: npt.NDArray[np.int32]
    height: npt.NDArray[np.int32]


def bands(
    planes: Sequence[NodePlane], sections: SectionPlanes, max_distance: float, *, blended: bool
) -> list[list[Band]]:
    """Return which nodes of some planes show which section.

    A node shows the section nearest to it in z, the lower one on a tie, where that covers it and
    is at most `max_distance` away.

    Parameters
    ----------
    planes
        The planes, all with the same rows and columns.
    sections
        The sections.
    max_distance
        Microns of the stack.
    blended
        Whether a node takes a share of the second section as well: of the two that it lies
        between.

    Returns
    -------
    bands
        For each plane those with a node, by section.
    """
    some = planes[0]
    numbers = np.array([each.number for each in planes], dtype=np.int64)
    corners = some.at(numbers).z(
        sections.trv,
        np.array([some.rows.min(), some.rows.max()])[:, None, None],
        np.array([some.low, some.high])[:, None],
    )
    least, most = (_nearest(sections.z, end) for end in (corners.min((0, 1)), corners.max((0, 1))))
    shape = len(planes), len(some.rows)
    reach, asked = int(blended), (some.low, some.high)
    covers: dict[int, _Spans] = {}
    shown: dict[int, _Spans] = {}
    between: dict[int, _Spans] = {}
    # All planes at once: a section is looked for on the few that it may lie on.
    for j in range(max(least.min() - reach, 0), min(most.max() + reach + 1, len(sections.z))):
        places = np.flatnonzero((least - reach <= j) & (j <= most + reach))
        if len(places) == 0:
            continue
        line = _Lines(some, np.repeat(numbers[places], shape[1]), shape, places, sections)
        covers[j] = line.covered(j)
        own = line.nearest(j) & line.within(j, max_distance) & covers[j]
        shown[j] = own.on(places[(least[places] <= j) & (j <= most[places])])
        if blended:
            between[j] = line.between(j)
    found: list[list[Band]] = [[] for _ in planes]
    for j, own in shown.items():
        used = own
        if blended:
            for k in (j - 1, j + 1):
                if k in shown:
                    used = used | (shown[k] & covers[j] & between[j])
        places = np.flatnonzero((used.first <= used.last).any(axis=1))
        showing = own.coverages(places, some.rows, asked)
        using = used.coverages(places, some.rows, asked) if blended else showing
        for place, *both in zip(places.tolist(), showing, using, strict=True):
            found[place].append(Band(j, *both))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Spans:
    """A run of columns on each row of each plane: first and last, shape (planes, rows)."""

    first: Indices
    last: Indices

    def __and__(self, other: _Spans) -> _Spans:
        """Return what lies in both."""
        return _Spans(np.maximum(self.first, other.first), np.minimum(self.last, other.last))

    def __or__(self, other: _Spans) -> _Spans:
        """Return the columns from the first to the last of both; empty runs do not count."""
        some, more = self.first <= self.last, other.first <= other.last
        first = np.where(more, other.first, self.first)
        last = np.where(more, other.last, self.last)
        both = some & more
        return _Spans(
            np.where(both, np.minimum(self.first, first), np.where(some, self.first, first)),
            np.where(both, np.maximum(self.last, last), np.where(some, self.last, last)),
        )

    def on(self, planes: npt.NDArray[np.intp]) -> _Spans:
        """Return the same on some planes, and nothing on the others."""
        first = np.full_like(self.first, _FAR)
        first[planes] = self.first[planes]
        return _Spans(first, self.last)

    def coverages(
        self, places: npt.NDArray[np.intp], rows: Indices, asked: tuple[int, int]
    ) -> list[Coverage]:
        """Return some planes of it."""
        low, high = asked
        first, last = self.first[places], self.last[places]
        none = first > last
        first, last = np.where(none, high + 1, first), np.where(none, low - 1, last)
        return [Coverage(rows, *both, asked) for both in zip(first, last, strict=True)]


class _Lines:
    """Finds the columns at which comparisons of z change, on some planes at once.

    What it finds is empty on the planes that it does not look at.
    """

    def __init__(
        self,
        some: NodePlane,
        numbers: Indices,
        shape: tuple[int, int],
        places: npt.NDArray[np.intp],
        sections: SectionPlanes,
    ) -> None:
        self.some = some
        self.numbers = numbers
        self.rows = np.tile(some.rows, len(places))
        self.shape = shape
        self.places = places
        self.sections = sections
        self.asked = some.low, some.high
        # By the sign of the slope: z never falls along a row where it should rise.
        self.rising = bool(sections.trv[2, some.plane.x] >= 0)
        start, end = (self.z(slice(None), np.array(column)) for column in self.asked)
        self.start = start
        self.slope = (end - start) / max(some.high - some.low, 1)

    def z(self, rows: Any, columns: Indices) -> Array:
        """Return z of the image stack at columns of some of the rows."""
        return self.some.at(self.numbers[rows]).z(self.sections.trv, self.rows[rows], columns)

    def spread(self, first: Indices, last: Indices) -> _Spans:
        """Return runs of all planes, from those of the rows that are looked at."""
        spans = _Spans(np.full(self.shape, _FAR), np.full(self.shape, -_FAR))
        spans.first[self.places] = first.reshape(-1, self.shape[1])
        spans.last[self.places] = last.reshape(-1, self.shape[1])
        return spans

    def covered(self, j: int) -> _Spans:
        """Return which nodes a section covers."""
        affine = self.some.at(self.numbers).affine(self.sections.pixels_of_space[j])
        size = int(self.sections.width[j]), int(self.sections.height[j])
        return self.spread(*covered_columns(affine, size, self.rows, self.asked))

    def nearest(self, j: int) -> _Spans:
        """Return the columns that lie nearest to a section, the lower one on a tie."""
        z, intervals = self.sections.z, []
        if j > 0:
            low, high = z[j - 1], z[j]
            intervals.append(
                self._where(lambda at: (at - low) > (high - at), (low + high) / 2, above=True)
            )
        if j + 1 < len(z):
            least, most = z[j], z[j + 1]
            intervals.append(
                self._where(lambda at: (at - least) > (most - at), (least + most) / 2, above=False)
            )
        return self._all(intervals)

    def within(self, j: int, distance: float) -> _Spans:
        """Return the columns at most `distance` from a section."""
        z = self.sections.z[j]
        return self._all(
            [
                self._where(lambda at: (at - z) > distance, z + distance, above=False),
                self._where(lambda at: (z - at) <= distance, z - distance, above=True),
            ]
        )

    def between(self, j: int) -> _Spans:
        """Return the columns that lie between the neighbours of a section, these left out."""
        z, intervals = self.sections.z, []
        if j > 0:
            low = z[j - 1]
            intervals.append(self._where(lambda at: at > low, low, above=True))
        if j + 1 < len(z):
            high = z[j + 1]
            intervals.append(self._where(lambda at: at >= high, high, above=False))
        return self._all(intervals)

    def _all(self, intervals: list[tuple[Indices, Indices]]) -> _Spans:
        count = len(self.rows)
        first = np.full(count, self.asked[0], dtype=np.int64)
        last = np.full(count, self.asked[1], dtype=np.int64)
        for low, high in intervals:
            first, last = np.maximum(first, low), np.minimum(last, high)
        return self.spread(first, last)

    def _where(
        self, beyond: Callable[[Array], npt.NDArray[np.bool_]], limit: float, *, above: bool
    ) -> tuple[Indices, Indices]:
        """Return the columns where z is beyond a limit (`above`), or where it is not."""
        low, high = self.asked

        def past(rows: npt.NDArray[np.intp], columns: Indices) -> npt.NDArray[np.bool_]:
            z = self.z(rows, columns)
            return beyond(z) if self.rising else ~beyond(z)

        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            guess = np.ceil((limit - self.start) / self.slope) + low
        column = crossing(past, np.nan_to_num(guess, nan=low), low, high)
        if above == self.rising:
            return column, np.full(len(column), high, dtype=np.int64)
        return np.full(len(column), low, dtype=np.int64), column - 1


def crossing(past: Past, guess: Array, low: int, high: int) -> Indices:
    """Return the least column of each row at which a statement holds.

    Parameters
    ----------
    past
        The statement, of rows (places) and columns; along a row it holds from some column on.
    guess
        Shape (m,): about where that is; a good one saves the search.
    low, high
        First and last column.

    Returns
    -------
    column
        Shape (m,); ``high + 1`` where it holds nowhere.
    """
    column = np.clip(guess, low, high + 1).astype(np.int64)
    rows = np.arange(len(column))

    def right(places: npt.NDArray[np.intp], columns: Indices) -> npt.NDArray[np.bool_]:
        begins = (columns > high) | past(places, np.minimum(columns, high))
        ends = (columns <= low) | ~past(places, np.maximum(columns - 1, low))
        return np.asarray(begins & ends)

    wrong = rows[~right(rows, column)]
    for off in (1, -1):
        if len(wrong) == 0:
            return column
        beside = np.clip(column[wrong] + off, low, high + 1)
        mended = right(wrong, beside)
        column[wrong[mended]] = beside[mended]
        wrong = wrong[~mended]
    if len(wrong):
        column[wrong] = _searched(past, wrong, low, high)
    return column


def _searched(past: Past, rows: npt.NDArray[np.intp], low: int, high: int) -> Indices:
    least = np.full(len(rows), low, dtype=np.int64)
    most = np.full(len(rows), high + 1, dtype=np.int64)
    while (least < most).any():
        middle = (least + most) // 2
        holds = past(rows, np.minimum(middle, high)) | (middle > high)
        most = np.where(holds, middle, most)
        least = np.where(holds, least, np.minimum(middle + 1, most))
    return least


def _nearest(z: Array, values: Array) -> npt.NDArray[np.intp]:
    """Return the rows of the sections nearest to values of z, the lower one on a tie."""
    after = np.searchsorted(z, values)
    below, above = np.maximum(after - 1, 0), np.minimum(after, len(z) - 1)
    return np.where(values - z[below] > z[above] - values, above, below)
