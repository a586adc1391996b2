"""Lazy arrays over the sections of a dataset: pixels, and which of them are covered."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.tokenize import tokenize
from xarray.core import indexing

from .. import options
from ..model.affine import Array
from ..model.read import ImageRead
from ..model.sections import SectionTable
from ..reading.failures import Failing
from ..reading.reader import Found, FromMatrices, GridReader, index_outer, places, squeezed
from ..sampling.bend import bend_warp
from ..sampling.coverage import Indices
from ..sampling.warp import warp
from ..source.protocol import Source
from .pieces import Piece, Sampling


class SectionArray(GridReader[Piece]):
    """Sections of a dataset on one grid, read when they are indexed.

    Parameters
    ----------
    sampling
        Where every grid point comes from.
    source
        Where the images come from.
    fill_value
        Value of grid points that are not covered; NaN makes the array float32.
    carried
        The options of the opening, for the process that computes.
    failing
        What to do about an image that cannot be had.
    marked
        Whether the last axis has marks, of what was not filled, behind the channels.

    Notes
    -----
    Shape (sections, rows, columns[, 3]), with marks (sections, rows, columns, 4 or 2). It holds
    numpy columns, not records, and pickles: it travels in tasks. The index of a read is OUTER:
    one indexer an axis.
    """

    def __init__(
        self,
        sampling: Sampling,
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
        depth = self.with_marks(sum(sampling.channels))
        self.shape = (len(sampling.table), *sampling.grid.shape, *depth)
        self.dtype = np.dtype(np.float32 if np.isnan(fill_value) else np.uint8)

    @property
    def table(self) -> SectionTable:
        """The sections."""
        return self.sampling.table

    def points(self) -> tuple[npt.NDArray[np.int64], Array]:
        """Return image ids, and the affines from grid microns to the exact p, i, r."""
        return self.table.image_id, self.table.points

    def pieces(self, key: tuple[Any, ...]) -> list[Piece]:
        """Return what an outer index into this array needs, one piece a section, no pixels."""
        sections, rows, columns = places(key[:3], self.shape[:3])
        rows, columns = self._numbers(rows, columns)
        if not (len(rows) and len(columns)):
            return []
        return [self.sampling.piece(int(s), rows, columns) for s in np.unique(sections)]

    def samples(self) -> list[ImageRead]:
        """Return a few images from amid the dataset, to find out about its service."""
        return self.sampling.samples()

    def tier_count(self, part: Piece) -> int:
        """Return how many tiers the image of a piece has."""
        return int(self.sampling.table.tier_count[part.section])

    def at_tier(self, part: Piece, tier: int) -> Piece:
        """Return the same piece, read at another tier."""
        tiers = self.sampling.tiers.copy()
        tiers[part.section] = tier
        low, high = part.covered.asked
        sampling = replace(self.sampling, tiers=tiers)
        return sampling.piece(part.section, part.covered.rows, np.arange(low, high + 1))

    def _numbers(self, rows: Indices, columns: Indices) -> tuple[Indices, Indices]:
        return rows + self.sampling.grid.y.first, columns + self.sampling.grid.x.first

    def section(self, part: Piece) -> int:
        """Return the row of the table that a piece is of."""
        return part.section

    def _pixels(self, key: tuple[Any, ...]) -> tuple[npt.NDArray[Any], set[int]]:
        sections, rows, columns = places(key, self.shape[:3])
        shape = (len(sections), len(rows), len(columns), *self.sampling.channels)
        out, filled = np.empty(shape, dtype=self.dtype), set()
        if out.size:
            pieces = self.pieces(key)
            for piece in pieces:
                if piece.needed is None:
                    out[sections == piece.section] = self.fill_value
            with options.using(self.carried):
                filled = self._read(pieces, sections, self._numbers(rows, columns)[1], out)
        return out, filled

    def _shown(self, key: tuple[Any, ...], filled: set[int]) -> npt.NDArray[np.bool_]:
        sections, rows, columns = places(key, self.shape[:3])
        return covered_mask(self.sampling, sections, *self._numbers(rows, columns), filled)

    def _read(
        self, pieces: list[Piece], sections: Indices, columns: Indices, out: npt.NDArray[Any]
    ) -> set[int]:
        """Put the pixels of sections where they belong; return which sections were filled."""
        filled = set()
        for found in self.images(pieces):
            shown = np.flatnonzero(sections == found.asked.section)
            if found.image is None:
                out[shown] = self.fill_value
                filled.add(found.asked.section)
                continue
            warp_piece(found, columns, self.sampling.bounds, self.fill_value, out[shown[0]])
            for place in shown[1:]:
                out[place] = out[shown[0]]
            del found  # before the next one is decoded
        return filled

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
    if part.bent is None:
        affine = part.affine - past
        warp(*image, affine, part.covered, columns, bounds, part.interpolation, fill, out)
    else:
        to_tier = part.to_tier - past
        bend_warp(*image, part.bent, to_tier, part.covered, columns, part.interpolation, fill, out)


class CoverageArray(FromMatrices):
    """Which grid points each section covers, from the matrices alone.

    Parameters
    ----------
    sampling
        Where every grid point comes from.

    Notes
    -----
    Shape (sections, rows, columns), bool. Nothing is downloaded.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.shape = (len(sampling.table), *sampling.grid.shape)
        self.dtype = np.dtype(bool)

    @property
    def table(self) -> SectionTable:
        """The sections."""
        return self.sampling.table

    def points(self) -> tuple[npt.NDArray[np.int64], Array]:
        """Return image ids, and the affines from grid microns to the exact p, i, r."""
        return self.table.image_id, self.table.points

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return index_outer(key, self.shape, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        sections, rows, columns = places(key, self.shape)
        grid = self.sampling.grid
        numbers = rows + grid.y.first, columns + grid.x.first
        return squeezed(covered_mask(self.sampling, sections, *numbers), key)

    def __dask_tokenize__(self) -> Hashable:
        return type(self).__name__, tokenize(self.sampling)


def covered_mask(
    sampling: Sampling,
    sections: Indices,
    rows: Indices,
    columns: Indices,
    without: Collection[int] = (),
) -> npt.NDArray[np.bool_]:
    """Return which grid points sections cover, shape (sections, rows, columns).

    Parameters
    ----------
    sampling
        Where every grid point comes from.
    sections
        Rows of the table.
    rows, columns
        Grid numbers.
    without
        Sections that cover nothing.
    """
    out = np.zeros((len(sections), len(rows), len(columns)), dtype=bool)
    if out.size:
        for place, section in enumerate(sections):
            if int(section) not in without:
                out[place] = sampling.covered(int(section), rows, columns)
    return out
