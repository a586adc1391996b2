"""Sections on a grid, each on its own plane: what a piece needs of them, and its pixels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.affine import Array, grid_affine
from ..model.sections import SectionTable
from ..reading.reader import Found, places
from ..reading.threads import opencv_threads
from ..sampling.bent_grid import BentGrid, bend_warp
from ..sampling.reads import (
    Coverage,
    Indices,
    Interpolation,
    choose_interpolation,
    coverage,
    needed_window,
)
from ..sampling.warp import warp
from .index import ImagePlaces
from .lazy import Box, Images, Key, Sampling, SectionPart, What


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Piece(SectionPart):
    """One section's part in a piece of the array.

    Parameters
    ----------
    affine
        Shape (2, 3): from (column number, row number, 1) to pixels of the tier, where that
        begins on the pixel lattice of its slide.
    covered
        The covered points; of a bent section those between which they lie.
    interpolation
        How they are sampled.
    bent
        Where grid points fall in a bent section, None for a straight one.
    to_tier
        Shape (2, 3): from full-resolution (x, y, 1) to pixels of the tier.
    """

    affine: Array
    covered: Coverage
    interpolation: Interpolation
    bent: BentGrid | None
    to_tier: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class SectionSampling(Sampling[Piece]):
    """How the sections of a dataset come onto the grid of their planes; see `Sampling`."""

    sections: SectionTable

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of sections, rows and columns."""
        return (len(self.sections), *self.grid.shape)

    @property
    def image_places(self) -> ImagePlaces:
        """Where the grid points lie."""
        return ImagePlaces(self.sections, self.sections.image_id, self.sections.points)

    @property
    def bounds(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First, and one past the last, number of the rows and columns of the uncut grid."""
        return self.grid.y.lattice, self.grid.x.lattice

    def _to_pixels(self, section: int) -> Array:
        """Return the affine from grid numbers to (straight) full-resolution pixels."""
        affine, x, y = self.sections.affine[section], self.grid.x, self.grid.y
        out: Array = affine.copy()
        out[:, :2] *= x.step, y.step
        if x.origin or y.origin:
            out[:, 2] += affine[:, :2] @ (x.origin, y.origin)
        return out

    def _size(self, section: int) -> tuple[int, int]:
        return int(self.sections.width[section]), int(self.sections.height[section])

    def bent(self, section: int) -> BentGrid | None:
        """Return where grid points fall in a section that is bent, None for a straight one."""
        source = self.sections.bend[section]
        bend = None if source is None else source.load()
        if bend is None:
            return None
        return BentGrid(bend, self._to_pixels(section), self._size(section), self.bounds)

    def covered(self, section: int, rows: Indices, columns: Indices) -> npt.NDArray[np.bool_]:
        """Return which grid points a section covers; rows and columns are grid numbers."""
        bent = self.bent(section)
        if bent is not None:
            return bent.covered(rows, columns)
        affine, size = self._to_pixels(section), self._size(section)
        return coverage(affine, size, rows, columns).mask(columns)

    def piece(self, section: int, rows: Indices, columns: Indices) -> Piece:
        """Return what a piece of one section needs; rows and columns are grid numbers."""
        table, tier = self.sections, int(self.tiers[section])
        offset = int(table.x[section]), int(table.y[section])
        affine = grid_affine(self._to_pixels(section), 1.0, (0.0, 0.0), tier, offset)
        whole = table.whole_image(self.dataset_id, section, tier, self.view)
        interpolation = choose_interpolation(self.interpolation, affine)
        bent = self.bent(section)
        to_tier = grid_affine(np.eye(2, 3), 1.0, (0.0, 0.0), tier, offset)
        if bent is None:
            covered = coverage(self._to_pixels(section), self._size(section), rows, columns)
            needed = needed_window(affine, covered, whole.size, interpolation)
        else:
            covered = bent.around(rows, columns)
            needed = bent.needed(covered, to_tier, whole.size, interpolation)
        if self.view.startswith("expression") and not table.has_expression[section]:
            needed = None
        return Piece(
            section=section,
            whole=whole,
            needed=needed,
            affine=affine,
            covered=covered,
            interpolation=interpolation,
            bent=bent,
            to_tier=to_tier,
        )

    def at_tier(self, part: Piece, tier: int) -> Piece:
        """Return the same piece, read at another tier."""
        tiers = self.tiers.copy()
        tiers[part.section] = tier
        low, high = part.covered.asked
        other = replace(self, tiers=tiers)
        return other.piece(part.section, part.covered.rows, np.arange(low, high + 1))

    def box(self, key: Key) -> SectionBox:
        """Return the points of an outer index along sections, rows and columns."""
        sections, rows, columns = places(key, self.shape)
        return SectionBox(self, sections, rows + self.grid.y.first, columns + self.grid.x.first)


@dataclass(frozen=True, slots=True, eq=False)
class SectionBox(Box[Piece]):
    """Grid points of some sections.

    Parameters
    ----------
    sampling
        Where they come from.
    sections
        Rows of the table, in any order.
    rows, columns
        Grid numbers, in any order.
    """

    sampling: SectionSampling
    sections: Indices
    rows: Indices
    columns: Indices

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of sections, rows and columns."""
        return len(self.sections), len(self.rows), len(self.columns)

    def pieces(self) -> list[Piece]:
        """Return what is needed of each section."""
        return [
            self.sampling.piece(int(section), self.rows, self.columns)
            for section in np.unique(self.sections)
        ]

    def fill(self, images: Images[Piece], out: npt.NDArray[Any], fill_value: float) -> set[int]:
        """Put the pixels of sections where they belong; return which sections were filled."""
        filled, pieces = set(), self.pieces()
        for piece in pieces:
            if piece.needed is None:
                out[self.sections == piece.section] = fill_value
        for found in images(pieces):
            shown = np.flatnonzero(self.sections == found.asked.section)
            if found.image is None:
                out[shown] = fill_value
                filled.add(found.asked.section)
                continue
            warp_piece(found, self.columns, self.sampling.bounds, fill_value, out[shown[0]])
            for place in shown[1:]:
                out[place] = out[shown[0]]
            del found  # before the next one is decoded
        return filled

    def shown(self, without: Collection[int] = ()) -> npt.NDArray[np.bool_]:
        """Return which grid points sections cover, but for some that cover nothing."""
        out = np.zeros(self.shape, dtype=bool)
        for place, section in enumerate(self.sections.tolist()):
            if section not in without:
                out[place] = self.sampling.covered(section, self.rows, self.columns)
        return out

    def put(self, what: What, out: npt.NDArray[Any]) -> None:
        """Put which points are covered."""
        out[...] = self.shown()


def warp_piece(
    found: Found[Piece],
    columns: Indices,
    bounds: tuple[tuple[int, int], tuple[int, int]],
    fill: float | None,
    out: npt.NDArray[Any],
) -> None:
    """Put the pixels of a section onto the grid points of its piece; see `warp` and `bend_warp`."""
    part = found.part
    assert found.image is not None
    image = found.image, found.window, part.whole.size
    past = np.array([[0, 0, shift] for shift in found.past_lattice])
    how = part.interpolation, fill, out
    with opencv_threads.value.one_each():
        if part.bent is None:
            warp(*image, part.affine - past, part.covered, columns, bounds, *how)
        else:
            bend_warp(*image, part.bent, part.to_tier - past, part.covered, columns, *how)
