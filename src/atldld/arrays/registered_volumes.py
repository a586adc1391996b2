"""Volumes of sections that a registration places one by one: they need not be parallel.

A voxel shows the section nearest to it along the slicing axis, and of it the point with the voxel's
other two coordinates: what `open_dataarray` shows at these with ``mapping="oblique"``. So each
section is put once onto the rows and columns of a box, bent or not, and its points go to the
planes in which they are nearest.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.affine import Array
from ..model.grid import Grid
from ..model.sections import SectionTable
from .lazy import Images, Key, What
from .planes import Piece, SectionSampling, warp_piece
from .volumes import VolumeBox, VolumeSampling, put_means

_BEYOND = 3
"""Sections on either side that may lie between, beside those that are near enough to be shown."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RegisteredSampling(VolumeSampling[Piece]):
    """How sections that were registered one by one fill a volume; see `VolumeSampling`.

    They are in ascending order of slice coordinate.
    """

    sections: SectionTable

    @cached_property
    def on_planes(self) -> SectionSampling:
        """The sections on the rows and columns of the volume."""
        return SectionSampling(
            dataset_id=self.dataset_id,
            sections=self.sections,
            grid=Grid(("y", "x"), (self.grid.axes[self.plane.y], self.grid.axes[self.plane.x])),
            tiers=self.tiers,
            view=self.view,
            interpolation=self.interpolation,
        )

    @property
    def gap(self) -> float:
        """Median microns along the slicing axis from section to section; 0 where there is one."""
        along = self.sections.slice_coordinate
        return float(np.median(np.diff(along))) if len(along) > 1 else 0.0

    def box(self, key: Key) -> RegisteredBox:
        """Return the nodes of an outer index along p, i and r."""
        return RegisteredBox(self, *self.numbers(key))

    def at_tier(self, part: Piece, tier: int) -> Piece:
        """Return the same piece, read at another tier."""
        return self.on_planes.at_tier(part, tier)


@dataclass(frozen=True, eq=False)
class RegisteredBox(VolumeBox[Piece]):
    """A box of nodes, and which registered sections they show; see `VolumeBox`."""

    sampling: RegisteredSampling

    @cached_property
    def along(self) -> Array:
        """Microns of the planes along the slicing axis, shape (planes, 1, 1)."""
        return self.sampling.grid.axes[self.sampling.plane.section].at(self.planes)[:, None, None]

    def height(self, section: int) -> Array:
        """Return where a section lies along the slicing axis, shape (rows, columns)."""
        sampling = self.sampling
        across, down, shift = sampling.sections.points[section, sampling.plane.section]
        y = sampling.grid.axes[sampling.plane.y].at(self.rows)
        x = sampling.grid.axes[sampling.plane.x].at(self.columns)
        return np.asarray((across * x)[None, :] + (down * y)[:, None] + shift)

    @cached_property
    def candidates(self) -> list[int]:
        """Sections that a node of the box may show or lie beside, by section number, then id."""
        table, reach = self.sampling.sections, self.sampling.max_distance
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
        planes = self.sampling.on_planes
        return {j: planes.covered(j, self.rows, self.columns) for j in self.candidates}

    def showing(self, section: int) -> npt.NDArray[np.bool_]:
        """Return the nodes that show a section."""
        return np.asarray((self.nearest[0] == section) & self.covered[section])

    def shown(self, without: Collection[int] = ()) -> npt.NDArray[np.bool_]:
        """Return the nodes that show a section, but for some that count for nothing."""
        out = np.zeros(self.shape, dtype=bool)
        for section in self.candidates:
            if section not in without:
                out |= self.showing(section)
        return out

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
            some |= self.showing(section)
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
        return self.showing(section)

    def pieces(self) -> list[Piece]:
        """Return what the box needs of each section."""
        return [piece for piece, _ in self._parts()]

    def _parts(self) -> list[tuple[Piece, tuple[slice, slice]]]:
        """Return what the box needs of each section, and on which of its rows and columns."""
        found = []
        for section in self.candidates:
            used = self.used(section)
            if not used.any():
                continue
            rows, columns = (np.flatnonzero(used.any(axis=axes)) for axes in ((0, 2), (0, 1)))
            part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            piece = self.sampling.on_planes.piece(
                section, self.rows[part[0]], self.columns[part[1]]
            )
            found.append((piece, part))
        return found

    def fill(self, images: Images[Piece], out: npt.NDArray[Any], fill_value: float) -> set[int]:
        """Fill the box with pixels; return which sections could not be had.

        Each section is read and put onto its plane once.
        """
        out[...] = fill_value
        filled, blended = set(), self.sampling.between == "linear"
        parts = {piece.section: (piece, part) for piece, part in self._parts()}
        total = np.zeros(out.shape if blended else 0, dtype=np.float32)
        weight = np.zeros(self.shape if blended else 0, dtype=np.float32)
        for found in images([piece for piece, _ in parts.values()]):
            section = found.asked.section
            if found.image is None:
                filled.add(section)
                continue
            rows, columns = parts[section][1]
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            scratch = np.zeros((*shape, *self.sampling.channels), dtype=np.uint8)
            bounds = self.sampling.on_planes.bounds
            warp_piece(found, self.columns[columns], bounds, None, scratch)
            there = self.used(section)[:, rows, columns]
            for place in np.flatnonzero(there.any(axis=(1, 2))):
                where = place, rows, columns
                if blended:
                    share = self.shares[section][where]
                    total[where] += (share[..., None] if total.ndim > 3 else share) * scratch
                    weight[where] += share
                else:
                    mask = there[place]
                    np.copyto(out[where], scratch, where=mask[..., None] if out.ndim > 3 else mask)
            del found  # before the next one is decoded
        if blended:
            put_means(total, weight, self.shown(filled), out)
        return filled

    def put(self, what: What, out: npt.NDArray[Any]) -> None:
        """Put which section each node shows, or how far it lies from it along the slicing axis."""
        distance = self.nearest[1]
        for section in self.candidates:
            number = self.sampling.sections.section_number[section]
            values = distance if what == "distance" else number
            np.copyto(out, values, where=self.showing(section), casting="unsafe")
