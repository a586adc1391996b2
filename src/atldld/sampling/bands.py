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

import numpy as np
import numpy.typing as npt

from ..model.affine import Array
from ..model.grid import Grid
from ..model.sections import stack_z, summed_z
from ..model.space import Plane
from .reads import Coverage, Indices, covered_columns

Lines = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Some rows of some planes: places of the planes, and of the rows, among those asked about."""

Past = Callable[[Array, Lines | None], npt.NDArray[np.bool_]]
Of = Callable[[Array], Array]


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
            Shape (2, 4): from (p, i, r, 1) to x, y; see `Stack.pixels_of_space`. Or (2, 4, planes),
            where each has its own.

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
    lines = _Lines(some, numbers, sections)
    reach = int(blended)
    begin, end = np.maximum(least - reach, 0), np.minimum(most + reach, len(sections.z) - 1)
    # All planes at once: the first section that each may show, then the second, and so on.
    places = [np.minimum(begin + k, end) for k in range(int((end - begin).max()) + 1)]
    covers = [lines.covered(j) for j in places]
    shown = []
    nearest = lines.everything
    for j, cover in zip(places, covers, strict=True):
        own, nearest = lines.nearest(nearest, j, least, most)
        shown.append(lines.within(own & cover, j, max_distance))
    found: list[list[Band]] = [[] for _ in planes]
    for k, (j, own) in enumerate(zip(places, shown, strict=True)):
        used = own
        if blended:
            between = lines.between(j) & covers[k]
            for beside in (k - 1, k + 1):
                if 0 <= beside < len(shown):
                    used = used | (shown[beside] & between)
        some_used = (begin + k <= end) & (used.first <= used.last).any(axis=1)
        which = np.flatnonzero(some_used)
        showing = own.coverages(which, lines)
        using = used.coverages(which, lines) if blended else showing
        for place, *both in zip(which.tolist(), showing, using, strict=True):
            found[place].append(Band(int(j[place]), *both))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Spans:
    """A run of columns on each row of each plane: first and last, shape (planes, rows)."""

    first: Array
    last: Array

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

    def coverages(self, places: npt.NDArray[np.intp], lines: _Lines) -> list[Coverage]:
        """Return some planes of it."""
        low, high = lines.asked
        first, last = (ends[places].astype(np.int64) for ends in (self.first, self.last))
        none = first > last
        first[none], last[none] = high + 1, low - 1
        rows = lines.some.rows
        return [Coverage(rows, *both, lines.asked) for both in zip(first, last, strict=True)]


class _Lines:
    """The rows of some planes, along which z rises or falls: finds where comparisons of it change.

    Sections are given by plane, shape (planes,). Columns are whole numbers as float64, shape
    (planes, rows).
    """

    def __init__(self, some: NodePlane, numbers: Indices, sections: SectionPlanes) -> None:
        self.some = some
        self.planes = some.at(numbers)
        self.sections = sections
        self.asked = some.low, some.high
        axes, plane, trv = some.grid.axes, some.plane, sections.trv
        self._axis, self._rate = axes[plane.x], trv[2, plane.x]
        self._of_plane = trv[2, plane.section] * axes[plane.section].at(numbers)[:, None]
        self._of_row = (trv[2, plane.y] * axes[plane.y].at(some.rows))[None]
        # By the sign of the slope: z never falls along a row where it should rise.
        self.rising = bool(self._rate >= 0)
        self._start = self.z(np.full((1, 1), float(some.low)))

    def z(self, columns: Array, only: Lines | None = None) -> Array:
        """Return z of the image stack at a column of each row, or of some rows only."""
        plane = self.some.plane
        shares: dict[int, Array] = {}
        of_plane, of_row = self._of_plane, self._of_row
        if only is not None:
            of_plane, of_row = of_plane[only[0], 0], of_row[0, only[1]]
        shares[plane.section], shares[plane.y] = of_plane, of_row
        shares[plane.x] = self._rate * self._axis.at(columns)
        return summed_z(shares[0], shares[1], shares[2], self.sections.trv[2, 3])

    @property
    def everything(self) -> _Spans:
        """All columns of all rows."""
        shape = len(self._of_plane), self._of_row.shape[1]
        return _Spans(*(np.full(shape, float(end)) for end in self.asked))

    def covered(self, j: npt.NDArray[np.intp]) -> _Spans:
        """Return which nodes a section covers."""
        sections = self.sections
        affine = self.planes.affine(np.moveaxis(sections.pixels_of_space[j], 0, -1))
        size = sections.width[j][:, None], sections.height[j][:, None]
        found = covered_columns(affine[..., None], size, self.some.rows, self.asked)
        return _Spans(*(ends.astype(np.float64) for ends in found))

    def nearest(
        self, left: _Spans, j: npt.NDArray[np.intp], least: Indices, most: Indices
    ) -> tuple[_Spans, _Spans]:
        """Return what lies nearest to a section, the lower one on a tie, and what is left above.

        Parameters
        ----------
        left
            What is nearer to it, and to those above, than to the one below.
        j
            The section.
        least, most
            The first and last section that is nearest to some node of a plane.
        """
        z = self.sections.z
        low, high = z[j], z[np.minimum(j + 1, len(z) - 1)]
        low, high = (
            np.where(j < least, -np.inf, np.where(j >= most, np.inf, end))[:, None]
            for end in (low, high)
        )
        column = self._column(lambda at, of: (at - of(low)) > (of(high) - at), (low + high) / 2)
        return self._kept(left, column, above=False), self._kept(left, column, above=True)

    def within(self, spans: _Spans, j: npt.NDArray[np.intp], distance: float) -> _Spans:
        """Return the columns at most `distance` from a section."""
        z = self.sections.z[j][:, None]

        def beyond(at: Array, of: Of) -> npt.NDArray[np.bool_]:
            return np.asarray((at - of(z)) > distance)

        def reached(at: Array, of: Of) -> npt.NDArray[np.bool_]:
            return np.asarray((of(z) - at) <= distance)

        low, high = self.asked
        ends = (self.z(np.clip(end, low, high)) for end in (spans.first, spans.last))
        near = [~beyond(at, np.asarray) & reached(at, np.asarray) for at in ends]
        if ((near[0] & near[1]) | (spans.first > spans.last)).all():
            return spans
        spans = self._kept(spans, self._column(beyond, z + distance), above=False)
        return self._kept(spans, self._column(reached, z - distance), above=True)

    def between(self, j: npt.NDArray[np.intp]) -> _Spans:
        """Return the columns that lie between the neighbours of a section, these left out."""
        z = np.concatenate([[-np.inf], self.sections.z, [np.inf]])
        below, above = z[j][:, None], z[j + 2][:, None]
        spans = self._kept(
            self.everything, self._column(lambda at, of: at > of(below), below), above=True
        )
        column = self._column(lambda at, of: at >= of(above), above)
        return self._kept(spans, column, above=False)

    def _column(self, past: Callable[[Array, Of], npt.NDArray[np.bool_]], limit: Array) -> Array:
        """Return the least column of each row at which z is past a limit, or where it falls, not.

        `past` says of z whether it is, given what picks values of the planes that it is of.
        """
        low, high = self.asked

        def changed(columns: Array, only: Lines | None) -> npt.NDArray[np.bool_]:
            def of(values: Array) -> Array:
                return values if only is None else values[only[0], 0]

            holds = past(self.z(columns, only), of)
            return holds if self.rising else ~holds

        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            guess = np.ceil((limit - self._start) / np.float64(self._rate * self._axis.step)) + low
        return crossing(changed, np.nan_to_num(guess, nan=low), low, high)

    def _kept(self, spans: _Spans, column: Array, *, above: bool) -> _Spans:
        """Return the columns where z is past a limit (`above`), or where it is not."""
        if above == self.rising:
            return _Spans(np.maximum(spans.first, column), spans.last)
        return _Spans(spans.first, np.minimum(spans.last, column - 1))


def crossing(past: Past, guess: Array, low: int, high: int) -> Array:
    """Return the least column of each row at which a statement holds.

    Parameters
    ----------
    past
        The statement, of a column of each row, or of those rows that are given as their places;
        along a row it holds from some column on.
    guess
        Shape (planes, rows): about where that is; a good one saves the search.
    low, high
        First and last column.

    Returns
    -------
    column
        Shape (planes, rows), whole numbers; ``high + 1`` where it holds nowhere.
    """
    column = np.clip(guess, low, high + 1)

    def right(columns: Array, only: Lines | None) -> npt.NDArray[np.bool_]:
        begins = (columns > high) | past(np.minimum(columns, high), only)
        ends = (columns <= low) | ~past(np.maximum(columns - 1, low), only)
        return np.asarray(begins & ends)

    at, beside = np.nonzero(~right(column, None))
    for off in (1, -1):
        if len(at) == 0:
            return column
        moved = np.clip(column[at, beside] + off, low, high + 1)
        mended = right(moved, (at, beside))
        column[at[mended], beside[mended]] = moved[mended]
        at, beside = at[~mended], beside[~mended]
    if len(at):
        column[at, beside] = _searched(past, (at, beside), low, high)
    return column


def _searched(past: Past, rows: Lines, low: int, high: int) -> Array:
    least = np.full(len(rows[0]), float(low))
    most = np.full(len(rows[0]), float(high + 1))
    while (least < most).any():
        middle = (least + most) // 2
        holds = past(np.minimum(middle, high), rows) | (middle > high)
        most = np.where(holds, middle, most)
        least = np.where(holds, least, np.minimum(middle + 1, most))
    return least


def _nearest(z: Array, values: Array) -> npt.NDArray[np.intp]:
    """Return the rows of the sections nearest to values of z, the lower one on a tie."""
    after = np.searchsorted(z, values)
    below, above = np.maximum(after - 1, 0), np.minimum(after, len(z) - 1)
    return np.where(values - z[below] > z[above] - values, above, below)
