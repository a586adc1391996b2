"""Lazy arrays over the sections of a dataset: pixels, and which of them are covered."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from xarray.backends import BackendArray
from xarray.core import indexing

from .. import options
from ..model.affine import Array, grid_affine, tier_size
from ..model.grid import Grid
from ..model.read import ImageRead, View, Window
from ..model.table import SectionTable
from ..sampling.coverage import Coverage, Indices, coverage
from ..sampling.reads import Interpolation, choose_interpolation, choose_window, needed_window
from ..sampling.warp import warp
from ..source.protocol import Source
from .pixels import pixels_ahead

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

    @property
    def channels(self) -> tuple[int, ...]:
        """Length of the channel dimension, or nothing where a pixel has one value."""
        return () if self.view == "expression_mask" else (len(CHANNELS),)

    @property
    def bounds(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First, and one past the last, number of the rows and columns of the uncut grid."""
        return self.grid.y.lattice, self.grid.x.lattice

    def covered(self, section: int, rows: Indices, columns: Indices) -> Coverage:
        """Return which grid points a section covers; rows and columns are grid numbers."""
        affine = grid_affine(self.table.affine[section], self.grid.step, (0.0, 0.0), 0, (0, 0))
        size = int(self.table.width[section]), int(self.table.height[section])
        return coverage(affine, size, rows, columns)

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
        affine = grid_affine(
            table.affine[section],
            self.grid.step,
            (0.0, 0.0),
            tier,
            (int(table.x[section]), int(table.y[section])),
        )
        size = (
            tier_size(int(table.width[section]), tier),
            tier_size(int(table.height[section]), tier),
        )
        interpolation = choose_interpolation(self.interpolation, affine)
        covered = self.covered(section, rows, columns)
        needed = needed_window(affine, covered, size, interpolation)
        exists = bool(table.has_expression[section]) or not self.view.startswith("expression")
        read = None
        if needed is not None and exists:
            read = ImageRead(
                image_id=int(table.image_id[section]),
                view=self.view,
                tier=tier,
                width=size[0],
                height=size[1],
                x=int(table.x[section]),
                y=int(table.y[section]),
                window=choose_window(needed, size),
                dataset_id=self.dataset_id,
                section_number=int(table.section_number[section]),
            )
        return Piece(section, affine, size, covered, interpolation, read)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One section's part in a piece of the array.

    Parameters
    ----------
    section
        Row of the table.
    affine
        Shape (2, 3): from (column number, row number, 1) to pixels of the tier.
    size
        Width and height of the tier image in pixels.
    covered
        The covered points.
    interpolation
        How they are sampled.
    read
        The image to read, or None where nothing is covered.
    """

    section: int
    affine: Array
    size: tuple[int, int]
    covered: Coverage
    interpolation: Interpolation
    read: ImageRead | None


class SectionArray(BackendArray):
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

    Notes
    -----
    Shape (sections, rows, columns[, 3]). It holds numpy columns, not records, and pickles: it
    travels in tasks. The index of a read is OUTER: one indexer an axis.
    """

    def __init__(
        self, sampling: Sampling, source: Source, fill_value: float, carried: options.Carried
    ) -> None:
        self.sampling = sampling
        self.source = source
        self.fill_value = fill_value
        self.carried = carried
        self.shape = (len(sampling.table), *sampling.grid.shape, *sampling.channels)
        self.dtype = np.dtype(np.float32 if np.isnan(fill_value) else np.uint8)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return index_outer(key, self.shape, self._outer)

    def pieces(self, key: tuple[Any, ...]) -> list[Piece]:
        """Return what an outer index into this array needs, one piece a section, no pixels."""
        sections, rows, columns = _places(key[:3], self.shape[:3])
        rows, columns = self._numbers(rows, columns)
        if not (len(rows) and len(columns)):
            return []
        return [self.sampling.piece(int(s), rows, columns) for s in np.unique(sections)]

    def reads(self, key: tuple[Any, ...]) -> list[ImageRead]:
        """Return the images that an outer index into this array reads."""
        if any(len(places) == 0 for places in _places(key, self.shape)):
            return []
        return [piece.read for piece in self.pieces(key) if piece.read is not None]

    def _numbers(self, rows: Indices, columns: Indices) -> tuple[Indices, Indices]:
        return rows + self.sampling.grid.y.first, columns + self.sampling.grid.x.first

    def _outer(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        sections, rows, columns = _places(key[:3], self.shape[:3])
        shape = (len(sections), len(rows), len(columns), *self.sampling.channels)
        out = np.empty(shape, dtype=self.dtype)
        by_section = {piece.section: piece for piece in self.pieces(key)}
        reads = {piece.read: piece for piece in by_section.values() if piece.read is not None}
        _, columns = self._numbers(rows, columns)
        if out.size:
            for section in by_section.keys() - {piece.section for piece in reads.values()}:
                out[sections == section] = self.fill_value
            with options.using(self.carried):
                for read, pixels in pixels_ahead(self.source, list(reads)):
                    self._warp(reads[read], pixels, columns, sections, out)
        return _squeezed(out, key)

    def _warp(
        self,
        piece: Piece,
        pixels: npt.NDArray[np.uint8],
        columns: Indices,
        sections: Indices,
        out: npt.NDArray[Any],
    ) -> None:
        first, *again = np.flatnonzero(sections == piece.section)
        window = piece.read and piece.read.window
        warp(
            pixels,
            window or Window(0, 0, *piece.size),
            piece.size,
            piece.affine,
            piece.covered,
            columns,
            self.sampling.bounds,
            piece.interpolation,
            self.fill_value,
            out[first],
        )
        out[again] = out[first]

    def __dask_tokenize__(self) -> Hashable:
        return (type(self).__name__, *_token(self.sampling), self.source, repr(self.fill_value))


class CoverageArray(BackendArray):
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

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return index_outer(key, self.shape, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        sections, rows, columns = _places(key, self.shape)
        grid = self.sampling.grid
        rows, columns = rows + grid.y.first, columns + grid.x.first
        out = np.zeros((len(sections), len(rows), len(columns)), dtype=bool)
        if out.size:
            for place, section in enumerate(sections):
                out[place] = self.sampling.covered(int(section), rows, columns).mask(columns)
        return _squeezed(out, key)

    def __dask_tokenize__(self) -> Hashable:
        return (type(self).__name__, *_token(self.sampling))


def _places(key: tuple[Any, ...], shape: tuple[int, ...]) -> list[Indices]:
    """Return the positions that an outer index asks for along each axis."""
    places = []
    for indexer, length in zip(key, shape, strict=True):
        every = np.arange(length)
        places.append(np.atleast_1d(every[indexer]))
    return places


def index_outer(
    key: indexing.ExplicitIndexer, shape: tuple[int, ...], outer: Callable[[tuple[Any, ...]], Any]
) -> Any:
    """Index by an explicit indexer of xarray, given a function that takes an outer one.

    Only vectorised indexers are taken apart by xarray: `outer` knows every other one, empty
    and negative slices included, on which xarray's own decomposition stumbles.
    """
    if isinstance(key, indexing.VectorizedIndexer):
        return indexing.explicit_indexing_adapter(key, shape, indexing.IndexingSupport.OUTER, outer)
    return outer(key.tuple)


def _squeezed(out: npt.NDArray[Any], key: tuple[Any, ...]) -> npt.NDArray[Any]:
    """Apply what is left of an outer index: the channel, and the axes that integers drop."""
    for channel in key[3:]:
        out = out[..., channel]
    return out[tuple(slice(None) if _keeps_axis(part) else 0 for part in key[:3])]


def _keeps_axis(part: Any) -> bool:
    return isinstance(part, slice) or np.ndim(part) > 0


def _token(sampling: Sampling) -> tuple[Hashable, ...]:
    from dask.tokenize import tokenize

    table = sampling.table
    return (
        sampling.dataset_id,
        tokenize(*(getattr(table, name) for name in table.__slots__), sampling.tiers),
        sampling.grid,
        sampling.view,
        sampling.interpolation,
    )
