"""Volumes of sections that a registration places one by one: they need not be parallel.

A voxel shows the section nearest to it along the slicing axis, and of it the point with the voxel's
other two coordinates: what `open_dataarray` shows at these with ``mapping="oblique"``. So each
section is put once onto the rows and columns of a box, bent or not, and its points go to the
planes in which they are nearest.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.tokenize import tokenize
from xarray.core import indexing

from .. import options
from ..model.affine import Array
from ..model.grid import Grid
from ..model.read import ImageRead
from ..model.sections import SectionTable
from ..model.space import Plane
from ..reading.failures import Failing
from ..reading.reader import FromMatrices, GridReader, index_outer, places, squeezed
from ..sampling.coverage import Indices
from ..source.protocol import Source
from .pieces import Piece, Sampling
from .sections import warp_piece
from .volume_pieces import Between
from .volumes import NOTHING, SHOWN_TYPES, What

_BEYOND = 3
"""Sections on either side that may lie between, beside those that are near enough to be shown."""


@dataclass(frozen=True, eq=False)
class RegisteredSampling:
    """How sections that were registered one by one fill a volume.

    Parameters
    ----------
    plane
        The plane of section.
    sections
        The sections, on the rows and columns of the volume.
    grid
        The nodes of the volume.
    between
        ``"nearest"``, or ``"linear"``: blended from the two sections that a node lies between.
    max_distance
        Microns along the slicing axis.
    """

    plane: Plane
    sections: Sampling
    grid: Grid
    between: Between
    max_distance: float
    mirrored: bool = False

    def __dask_tokenize__(self) -> tuple[Hashable, ...]:
        return (
            tokenize(self.sections),
            repr((self.plane, self.grid, self.between, self.max_distance)),
        )

    @property
    def table(self) -> SectionTable:
        """The sections, in ascending order of slice coordinate."""
        return self.sections.table

    @property
    def channels(self) -> tuple[int, ...]:
        """Length of the channel dimension, or nothing where a pixel has one value."""
        return self.sections.channels

    @property
    def axes(self) -> tuple[int, int, int]:
        """Which of p, i, r the planes follow each other along, their rows and columns."""
        return self.plane.section, self.plane.y, self.plane.x

    @property
    def gap(self) -> float:
        """Median microns from section to section."""
        return float(np.median(np.diff(self.table.slice_coordinate))) if len(self.table) > 1 else 0

    def box(self, key: tuple[Any, ...]) -> RegisteredBox:
        """Return the nodes of an outer index along p, i and r."""
        asked = places(key[:3], self.grid.shape)
        planes, rows, columns = (asked[axis] + self.grid.axes[axis].first for axis in self.axes)
        return RegisteredBox(self, planes, rows, columns)

    def in_space(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn (planes, rows, columns, ...) into (p, i, r, ...)."""
        return values.transpose(*np.argsort(self.axes), *range(3, values.ndim))


@dataclass(frozen=True, eq=False)
class RegisteredBox:
    """A box of nodes, and which sections they show; all are grid numbers, in any order."""

    sampling: RegisteredSampling
    planes: Indices
    rows: Indices
    columns: Indices

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of planes, rows and columns."""
        return len(self.planes), len(self.rows), len(self.columns)

    @cached_property
    def along(self) -> Array:
        """Microns of the planes along the slicing axis, shape (planes, 1, 1)."""
        return self.sampling.grid.axes[self.sampling.plane.section].at(self.planes)[:, None, None]

    def height(self, section: int) -> Array:
        """Return where a section lies along the slicing axis, shape (rows, columns)."""
        sampling = self.sampling
        across, down, shift = sampling.table.points[section, sampling.plane.section]
        y = sampling.grid.axes[sampling.plane.y].at(self.rows)
        x = sampling.grid.axes[sampling.plane.x].at(self.columns)
        return np.asarray((across * x)[None, :] + (down * y)[:, None] + shift)

    @cached_property
    def candidates(self) -> list[int]:
        """Sections that a node of the box may show or lie beside, by section number, then id."""
        table, reach = self.sampling.table, self.sampling.max_distance
        y = self.sampling.grid.axes[self.sampling.plane.y].at(self.rows)
        x = self.sampling.grid.axes[self.sampling.plane.x].at(self.columns)
        corners = np.array([[x.min(), x.max()] * 2, [y.min()] * 2 + [y.max()] * 2, [1.0] * 4])
        heights = table.points[:, self.sampling.plane.section] @ corners
        low, high = float(self.along.min()) - reach, float(self.along.max()) + reach
        near = np.flatnonzero((heights.max(axis=1) >= low) & (heights.min(axis=1) <= high))
        if not len(near):
            return []
        first, past = int(near[0]), int(near[-1]) + 1
        if self.sampling.between == "linear":
            first, past = max(first - _BEYOND, 0), min(past + _BEYOND, len(table))
        found = np.arange(first, past)
        order = np.lexsort([table.image_id[found], table.section_number[found]])
        return [int(section) for section in found[order]]

    @cached_property
    def nearest(self) -> tuple[npt.NDArray[np.int32], Array]:
        """Which section is nearest to each node, -1 for none near enough, and its distance."""
        best = np.full(self.shape, np.inf)
        which = np.full(self.shape, -1, dtype=np.int32)
        signed = np.full(self.shape, np.nan)
        for section in self.candidates:
            distance = self.along - self.height(section)
            closer = np.abs(distance) < best
            np.copyto(best, np.abs(distance), where=closer)
            np.copyto(signed, distance, where=closer)
            which[closer] = section
        which[best > self.sampling.max_distance] = -1
        return which, signed

    @cached_property
    def covered(self) -> dict[int, npt.NDArray[np.bool_]]:
        """Which rows and columns the candidates cover."""
        sampling = self.sampling.sections
        return {j: sampling.covered(j, self.rows, self.columns) for j in self.candidates}

    def shown(self, section: int) -> npt.NDArray[np.bool_]:
        """Return the nodes that show a section."""
        return np.asarray((self.nearest[0] == section) & self.covered[section])

    @cached_property
    def shares(self) -> dict[int, npt.NDArray[np.float32]]:
        """The share of each candidate in each node that shows some section."""
        low, high = np.full(self.shape, -np.inf), np.full(self.shape, np.inf)
        below, above = (np.full(self.shape, -1, dtype=np.int32) for _ in range(2))
        some = np.zeros(self.shape, dtype=bool)
        for section in self.candidates:
            height = np.broadcast_to(self.height(section), self.shape)
            lower = (height <= self.along) & (height > low)
            upper = (height > self.along) & (height < high)
            np.copyto(low, height, where=lower)
            np.copyto(high, height, where=upper)
            below[lower], above[upper] = section, section
            some |= self.shown(section)
        with np.errstate(invalid="ignore"):
            share = np.where(
                np.isfinite(low) & np.isfinite(high), (high - self.along) / (high - low), 1
            )
        out = {}
        for section in self.candidates:
            part = np.where(below == section, share, 0) + np.where(
                above == section, np.where(np.isfinite(low), 1 - share, 1), 0
            )
            out[section] = np.where(some & self.covered[section], part, 0).astype(np.float32)
        return out

    def used(self, section: int) -> npt.NDArray[np.bool_]:
        """Return the nodes that the pixels of a section are needed for."""
        if self.sampling.between == "linear":
            return np.asarray(self.shares[section] > 0)
        return self.shown(section)

    def pieces(self) -> list[tuple[Piece, tuple[slice, slice]]]:
        """Return what the box needs of each section, and on which of its rows and columns."""
        found = []
        for section in self.candidates:
            used = self.used(section)
            if not used.any():
                continue
            rows, columns = (np.flatnonzero(used.any(axis=axes)) for axes in ((0, 2), (0, 1)))
            part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            piece = self.sampling.sections.piece(section, self.rows[part[0]], self.columns[part[1]])
            found.append((piece, part))
        return found


class RegisteredVolumeArray(GridReader[Piece]):
    """A volume of sections that were registered one by one, read when it is indexed.

    Parameters
    ----------
    sampling
        Where every voxel comes from.
    source, carried, failing, marked
        As for `GridReader`.
    fill_value
        Value of voxels that show no section; NaN makes the array float32.

    Notes
    -----
    Shape (p, i, r[, 3]). Each section is read and put onto its plane once for a box.
    """

    def __init__(
        self,
        sampling: RegisteredSampling,
        source: Source,
        fill_value: float,
        carried: options.Carried,
        failing: Failing,
        *,
        marked: bool = False,
    ) -> None:
        super().__init__(source, carried, failing, marked)
        self.sampling = sampling
        self.fill_value = fill_value
        self.shape = (*sampling.grid.shape, *self.with_marks(sum(sampling.channels)))
        self.dtype = np.dtype(np.float32 if np.isnan(fill_value) else np.uint8)

    def pieces(self, key: tuple[Any, ...]) -> list[Piece]:
        """Return what an outer index into this array needs, one piece a section, no pixels."""
        box = self.sampling.box(key)
        return [piece for piece, _ in box.pieces()] if all(box.shape) else []

    def samples(self) -> list[ImageRead]:
        """Return a few images from amid the dataset, to find out about its service."""
        return self.sampling.sections.samples()

    def tier_count(self, part: Piece) -> int:
        """Return how many tiers the image of a piece has."""
        return int(self.sampling.table.tier_count[part.section])

    def at_tier(self, part: Piece, tier: int) -> Piece:
        """Return the same piece, read at another tier."""
        tiers = self.sampling.sections.tiers.copy()
        tiers[part.section] = tier
        low, high = part.covered.asked
        sections = replace(self.sampling.sections, tiers=tiers)
        return sections.piece(part.section, part.covered.rows, np.arange(low, high + 1))

    def section(self, part: Piece) -> int:
        """Return the row of the table that a piece is of."""
        return part.section

    def _pixels(self, key: tuple[Any, ...]) -> tuple[npt.NDArray[Any], set[int]]:
        box, filled = self.sampling.box(key), set()
        out = np.full((*box.shape, *self.sampling.channels), self.fill_value, dtype=self.dtype)
        if out.size:
            with options.using(self.carried):
                filled = self._fill(box, out)
        return self.sampling.in_space(out), filled

    def _fill(self, box: RegisteredBox, out: npt.NDArray[Any]) -> set[int]:
        """Fill a box with pixels; return which sections could not be had."""
        filled, blended = set(), self.sampling.between == "linear"
        parts = {piece.section: (piece, part) for piece, part in box.pieces()}
        total = np.zeros(out.shape if blended else 0, dtype=np.float32)
        weight = np.zeros(box.shape if blended else 0, dtype=np.float32)
        for found in self.images([piece for piece, _ in parts.values()]):
            section = found.asked.section
            if found.image is None:
                filled.add(section)
                continue
            rows, columns = parts[section][1]
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            scratch = np.zeros((*shape, *self.sampling.channels), dtype=np.uint8)
            bounds = self.sampling.sections.bounds
            warp_piece(found, box.columns[columns], bounds, None, scratch)
            there = box.used(section)[:, rows, columns]
            for place in np.flatnonzero(there.any(axis=(1, 2))):
                where = place, rows, columns
                if blended:
                    share = box.shares[section][where]
                    total[where] += (share[..., None] if total.ndim > 3 else share) * scratch
                    weight[where] += share
                else:
                    mask = there[place]
                    np.copyto(out[where], scratch, where=mask[..., None] if out.ndim > 3 else mask)
            del found  # before the next one is decoded
        if blended:
            _finish(box, total, weight, filled, out)
        return filled

    def _shown(self, key: tuple[Any, ...], filled: set[int]) -> npt.NDArray[np.bool_]:
        box = self.sampling.box(key)
        out = np.zeros(box.shape, dtype=bool)
        if out.size:
            out |= _showing(box, filled)
        return self.sampling.in_space(out)

    def __dask_tokenize__(self) -> Hashable:
        # dask does not look into what is returned here: whatever is not text must be made so.
        return (
            type(self).__name__,
            tokenize(self.sampling, self.source),
            repr(self.fill_value),
            self.failing.fill,
            self.failing.other_tiers,
            self.marked,
        )


def _finish(
    box: RegisteredBox,
    total: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    filled: Collection[int],
    out: npt.NDArray[Any],
) -> None:
    """Put blended values where a section is shown that could be had."""
    there = _showing(box, filled) & (weight > 0)
    divisor = np.where(there, weight, 1)
    values = total / (divisor[..., None] if total.ndim > 3 else divisor)
    if out.dtype == np.uint8:
        values = np.rint(values)
    np.copyto(out, values, where=there[..., None] if out.ndim > 3 else there, casting="unsafe")


def _showing(box: RegisteredBox, without: Collection[int]) -> npt.NDArray[np.bool_]:
    """Return the nodes that show a section, but for some that count for nothing."""
    out = np.zeros(box.shape, dtype=bool)
    for section in box.candidates:
        if section not in without:
            out |= box.shown(section)
    return out


class RegisteredShownArray(FromMatrices):
    """Which section each voxel shows, or how far it lies from it along the slicing axis.

    Parameters
    ----------
    sampling
        Where every voxel comes from.
    what
        ``"section_number"``, int32, -1 for none; or ``"distance"``, float64, microns, NaN for none.

    Notes
    -----
    Shape (p, i, r). No image is read.
    """

    def __init__(self, sampling: RegisteredSampling, what: What) -> None:
        self.sampling = replace(sampling, between="nearest")
        self.what = what
        self.shape = sampling.grid.shape
        self.dtype = np.dtype(SHOWN_TYPES[what])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return index_outer(key, self.shape, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        box = self.sampling.box(key)
        out = np.full(box.shape, NOTHING[self.what], dtype=self.dtype)
        if out.size:
            distance = box.nearest[1]
            for section in box.candidates:
                there = box.shown(section)
                number = self.sampling.table.section_number[section]
                np.copyto(
                    out,
                    distance if self.what == "distance" else number,
                    where=there,
                    casting="unsafe",
                )
        return squeezed(self.sampling.in_space(out), key)

    def __dask_tokenize__(self) -> Hashable:
        return type(self).__name__, self.what, tokenize(self.sampling)
