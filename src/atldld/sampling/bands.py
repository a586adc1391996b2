"""Which section each node of a plane shows: bands between sections, from the matrices alone.

On a plane of reference space the third coordinate z of the image stack is linear. The nodes
nearest to one section in z form a band between two lines, and so do those that it covers: each
row of nodes shows a section from one column to another, and two numbers a row say all.

Rounding keeps order: z along a row never falls where it should rise. So a band is an interval
also in floating point, and its ends are where the same comparison, node by node, changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..model.affine import Array
from ..model.grid import Grid
from ..model.sections import stack_z
from ..model.space import Plane
from .coverage import Coverage, Indices, coverage

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
        Number of the plane along the slicing axis.
    rows
        Shape (m,): numbers of the rows.
    low, high
        First and last column number.
    """

    grid: Grid
    plane: Plane
    number: int
    rows: Indices
    low: int
    high: int

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
        """
        plane, axes = self.plane, self.grid.axes
        along, down, across = (axes[k] for k in (plane.section, plane.y, plane.x))
        out = np.empty((2, 3))
        out[:, 0] = pixels_of_space[:, plane.x] * across.step
        out[:, 1] = pixels_of_space[:, plane.y] * down.step
        out[:, 2] = (
            pixels_of_space[:, plane.section] * (along.origin + self.number * along.step)
            + pixels_of_space[:, plane.y] * down.origin
            + pixels_of_space[:, plane.x] * across.origin
            + pixels_of_space[:, 3]
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
    nodes: NodePlane, sections: SectionPlanes, max_distance: float, *, blended: bool
) -> list[Band]:
    """Return which nodes of a plane show which section.

    A node shows the section nearest to it in z, the lower one on a tie, where that covers it and
    is at most `max_distance` away.

    Parameters
    ----------
    nodes
        The plane.
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
        Those with a node, by section.
    """
    ends = np.array([[nodes.rows.min()], [nodes.rows.max()]])
    corners = nodes.z(sections.trv, ends, [nodes.low, nodes.high])
    least = _nearest(sections.z, corners.min())
    most = _nearest(sections.z, corners.max())
    reach = int(blended)
    candidates = range(max(least - reach, 0), min(most + reach, len(sections.z) - 1) + 1)
    rising = nodes.z(sections.trv, nodes.rows[0], [nodes.low, nodes.high])
    line = _Lines(nodes, sections, bool(rising[1] >= rising[0]))
    covers = {j: line.covered(j) for j in candidates}
    shown = {
        j: _both(covers[j], line.nearest(j), line.within(j, max_distance))
        for j in candidates
        if least <= j <= most and covers[j].any
    }
    found = []
    for j in candidates:
        own = shown.get(j, _none(nodes))
        used = own
        if blended and covers[j].any:
            between = line.between(j)
            shares = [_both(shown[k], covers[j], between) for k in (j - 1, j + 1) if k in shown]
            used = _hull(own, *shares)
        if used.any:
            found.append(Band(j, own, used))
    return found


class _Lines:
    """Finds, on a plane, the columns at which comparisons of z change."""

    def __init__(self, nodes: NodePlane, sections: SectionPlanes, rising: bool) -> None:
        self.nodes = nodes
        self.sections = sections
        self.rising = rising
        self.asked = nodes.low, nodes.high
        ends = nodes.z(sections.trv, nodes.rows[:, None], [nodes.low, nodes.high])
        self.start = ends[:, 0]
        self.slope = (ends[:, 1] - ends[:, 0]) / max(nodes.high - nodes.low, 1)

    def covered(self, j: int) -> Coverage:
        """Return which nodes a section covers."""
        affine = self.nodes.affine(self.sections.pixels_of_space[j])
        size = int(self.sections.width[j]), int(self.sections.height[j])
        return coverage(affine, size, self.nodes.rows, np.array(self.asked))

    def nearest(self, j: int) -> tuple[Indices, Indices]:
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

    def within(self, j: int, distance: float) -> tuple[Indices, Indices]:
        """Return the columns at most `distance` from a section."""
        z = self.sections.z[j]
        return self._all(
            [
                self._where(lambda at: (at - z) > distance, z + distance, above=False),
                self._where(lambda at: (z - at) <= distance, z - distance, above=True),
            ]
        )

    def between(self, j: int) -> tuple[Indices, Indices]:
        """Return the columns that lie between the neighbours of a section, these left out."""
        z, intervals = self.sections.z, []
        if j > 0:
            low = z[j - 1]
            intervals.append(self._where(lambda at: at > low, low, above=True))
        if j + 1 < len(z):
            high = z[j + 1]
            intervals.append(self._where(lambda at: at >= high, high, above=False))
        return self._all(intervals)

    def _all(self, intervals: list[tuple[Indices, Indices]]) -> tuple[Indices, Indices]:
        count = len(self.nodes.rows)
        first = np.full(count, self.asked[0], dtype=np.int64)
        last = np.full(count, self.asked[1], dtype=np.int64)
        for low, high in intervals:
            first, last = np.maximum(first, low), np.minimum(last, high)
        return first, last

    def _where(
        self, beyond: Callable[[Array], npt.NDArray[np.bool_]], limit: float, *, above: bool
    ) -> tuple[Indices, Indices]:
        """Return the columns where z is beyond a limit (`above`), or where it is not."""
        low, high = self.asked

        def past(rows: npt.NDArray[np.intp], columns: Indices) -> npt.NDArray[np.bool_]:
            z = self.nodes.z(self.sections.trv, self.nodes.rows[rows], columns)
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


def _nearest(z: Array, value: float) -> int:
    """Return the row of the section nearest to a value of z, the lower one on a tie."""
    after = int(np.searchsorted(z, value))
    if after == 0:
        return 0
    if after == len(z):
        return after - 1
    return after if value - z[after - 1] > z[after] - value else after - 1


def _none(nodes: NodePlane) -> Coverage:
    count = len(nodes.rows)
    first = np.full(count, nodes.high + 1, dtype=np.int64)
    return Coverage(nodes.rows, first, first - 1, (nodes.low, nodes.high))


def _both(covered: Coverage, *others: Coverage | tuple[Indices, Indices]) -> Coverage:
    """Return the columns of each row that lie in every one of some intervals."""
    first, last = covered.first, covered.last
    for other in others:
        low, high = (other.first, other.last) if isinstance(other, Coverage) else other
        first, last = np.maximum(first, low), np.minimum(last, high)
    return Coverage(covered.rows, first, last, covered.asked)


def _hull(*covered: Coverage) -> Coverage:
    """Return, for each row, the columns from the first to the last of some intervals."""
    low, high = covered[0].asked
    first = np.full(len(covered[0].rows), high + 1, dtype=np.int64)
    last = np.full(len(covered[0].rows), low - 1, dtype=np.int64)
    for each in covered:
        some = each.first <= each.last
        first = np.where(some, np.minimum(first, each.first), first)
        last = np.where(some, np.maximum(last, each.last), last)
    return Coverage(covered[0].rows, first, last, (low, high))
