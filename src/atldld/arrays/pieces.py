"""What a piece of the array needs of each section: arithmetic on matrices and sizes, no pixels."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from dask.tokenize import tokenize

from ..model.affine import Array, grid_affine, tier_size
from ..model.grid import Grid
from ..model.read import ImageRead, View, Window
from ..model.sections import SectionTable, Stack
from ..reading.reader import part_read
from ..sampling.bend import BentGrid
from ..sampling.coverage import Coverage, Indices, coverage
from ..sampling.reads import Interpolation, choose_interpolation, needed_window

CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True, slots=True, eq=False)
class Sampling:
    """How the sections of a dataset come onto a grid: everything but where bytes come from.

    Parameters
    ----------
    dataset_id
        The dataset, for messages.
    table
        The sections.
    grid
        Rows and columns of the plane.
    tiers
        Shape (n,): the tier each section is read at.
    view
        Which picture of the section.
    interpolation
        How a grid point is sampled.
    """

    dataset_id: int
    table: SectionTable
    grid: Grid
    tiers: npt.NDArray[np.int16]
    view: View
    interpolation: Interpolation | Literal["auto"]

    def __dask_tokenize__(self) -> tuple[Hashable, ...]:
        return (
            self.dataset_id,
            tokenize(self.table, self.tiers),
            repr(self.grid),
            self.view,
            self.interpolation,
        )

    @property
    def channels(self) -> tuple[int, ...]:
        """Length of the channel dimension, or nothing where a pixel has one value."""
        return () if self.view == "expression_mask" else (len(CHANNELS),)

    @property
    def bounds(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First, and one past the last, number of the rows and columns of the uncut grid."""
        return self.grid.y.lattice, self.grid.x.lattice

    def _to_pixels(self, section: int) -> Array:
        """Return the affine from grid numbers to (straight) full-resolution pixels."""
        affine, x, y = self.table.affine[section], self.grid.x, self.grid.y
        out: Array = affine.copy()
        out[:, :2] *= x.step, y.step
        if x.origin or y.origin:
            out[:, 2] += affine[:, :2] @ (x.origin, y.origin)
        return out

    def _size(self, section: int) -> tuple[int, int]:
        return int(self.table.width[section]), int(self.table.height[section])

    def bent(self, section: int) -> BentGrid | None:
        """Return where grid points fall in a section that is bent, None for a straight one."""
        source = self.table.bend[section]
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
        """Return what a piece of one section needs: pure arithmetic, no pixels.

        Parameters
        ----------
        section
            Row of the table.
        rows, columns
            Grid numbers.
        """
        table, tier = self.table, int(self.tiers[section])
        offset = int(table.x[section]), int(table.y[section])
        affine = grid_affine(self._to_pixels(section), 1.0, (0.0, 0.0), tier, offset)
        read = self.whole(section, tier, self.view)
        interpolation = choose_interpolation(self.interpolation, affine)
        bent = self.bent(section)
        to_tier = grid_affine(np.eye(2, 3), 1.0, (0.0, 0.0), tier, offset)
        if bent is None:
            covered = coverage(self._to_pixels(section), self._size(section), rows, columns)
            needed = needed_window(affine, covered, read.size, interpolation)
        else:
            covered = bent.around(rows, columns)
            needed = bent.needed(covered, to_tier, read.size, interpolation)
        if self.view.startswith("expression") and not table.has_expression[section]:
            needed = None
        return Piece(section, affine, covered, interpolation, read, needed, bent, to_tier)

    def whole(self, section: int, tier: int, view: View) -> ImageRead:
        """Return the read of the whole image of a section."""
        return whole_read(self.dataset_id, self.table, section, tier, view)

    def samples(self) -> list[ImageRead]:
        """Return a few images from amid the dataset, to find out about its service."""
        return sample_reads(self.dataset_id, self.table)


def whole_read(
    dataset_id: int, table: SectionTable | Stack, section: int, tier: int, view: View
) -> ImageRead:
    """Return the read of the whole image of a section: a row of the table, or of the stack."""
    return ImageRead(
        image_id=int(table.image_id[section]),
        view=view,
        tier=tier,
        width=tier_size(int(table.width[section]), tier),
        height=tier_size(int(table.height[section]), tier),
        x=int(table.x[section]),
        y=int(table.y[section]),
        dataset_id=dataset_id,
        section_number=int(table.section_number[section]),
    )


def sample_reads(dataset_id: int, table: SectionTable | Stack) -> list[ImageRead]:
    """Return a few images of a dataset, to find out about its service.

    They come from amid the dataset, where there is tissue; last those that lie furthest from the
    corner of their slide.
    """
    count = len(table)
    furthest = [
        int(np.argmax(offset)) for offset in (np.minimum(table.x, table.y), table.x, table.y)
    ]
    places = dict.fromkeys((count // 2, count // 4, 3 * count // 4, *furthest))
    return [whole_read(dataset_id, table, place, 0, "image") for place in places]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One section's part in a piece of the array.

    Parameters
    ----------
    section
        Row of the table.
    affine
        Shape (2, 3): from (column number, row number, 1) to pixels of the tier, where that
        begins on the pixel lattice of its slide.
    covered
        The covered points; of a bent section those between which they lie.
    interpolation
        How they are sampled.
    whole
        The read of the whole image at the tier.
    needed
        The pixels that are needed of it, or None where there is nothing to read.
    bent
        Where grid points fall in a bent section, None for a straight one.
    to_tier
        Shape (2, 3): from full-resolution (x, y, 1) to pixels of the tier.
    """

    section: int
    affine: Array
    covered: Coverage
    interpolation: Interpolation
    whole: ImageRead
    needed: Window | None
    bent: BentGrid | None
    to_tier: Array

    def read(self, held: Collection[Window | None] = ()) -> ImageRead:
        """Return what to ask a source for that has some windows of the image at hand."""
        return part_read(self.whole, self.needed, held)
