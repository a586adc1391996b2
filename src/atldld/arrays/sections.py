"""Lazy arrays over the sections of a dataset: pixels, and which of them are covered."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.tokenize import tokenize
from xarray.backends import BackendArray
from xarray.core import indexing

from .. import options
from ..errors import ImageError
from ..model.read import ImageRead, Window
from ..sampling.coverage import Indices
from ..sampling.decode import Pixels
from ..sampling.warp import warp
from ..source.protocol import Source, keeps
from .conventions import known, settle
from .failing import Failing, is_bad_itself, neighbours
from .pieces import Piece, Sampling
from .pixels import pixels, pixels_each


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
    failing
        What to do about an image that cannot be had.

    Notes
    -----
    Shape (sections, rows, columns[, 3]). It holds numpy columns, not records, and pickles: it
    travels in tasks. The index of a read is OUTER: one indexer an axis.
    """

    def __init__(
        self,
        sampling: Sampling,
        source: Source,
        fill_value: float,
        carried: options.Carried,
        failing: Failing,
    ) -> None:
        self.sampling = sampling
        self.source = source
        self.fill_value = fill_value
        self.carried = carried
        self.failing = failing
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
        """Return the images that an outer index into this array reads, without reading any."""
        if any(len(places) == 0 for places in _places(key, self.shape)):
            return []
        with options.using(self.carried):
            asked, _ = self._asked(self.pieces(key), known(self.source).windows)
        return list(asked)

    def _asked(
        self, pieces: list[Piece], windows: bool | None
    ) -> tuple[dict[ImageRead, Piece], set[ImageRead]]:
        """Return what to ask the source for, with its pieces, and which of it is at hand."""
        asked, at_hand = {}, set()
        for piece in pieces:
            if piece.needed is not None:
                held = self._held(piece)
                read = piece.whole if windows is False else piece.read(held)
                asked[read] = piece
                if read.window in held:
                    at_hand.add(read)
        return asked, at_hand

    def _held(self, piece: Piece) -> frozenset[Window | None]:
        source = self.source
        return source.held(piece.whole) if keeps(source) else frozenset()

    def _numbers(self, rows: Indices, columns: Indices) -> tuple[Indices, Indices]:
        return rows + self.sampling.grid.y.first, columns + self.sampling.grid.x.first

    def _outer(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        sections, rows, columns = _places(key[:3], self.shape[:3])
        shape = (len(sections), len(rows), len(columns), *self.sampling.channels)
        out = np.empty(shape, dtype=self.dtype)
        if out.size:
            pieces = self.pieces(key)
            for piece in pieces:
                if piece.needed is None:
                    out[sections == piece.section] = self.fill_value
            with options.using(self.carried):
                self._read(pieces, sections, self._numbers(rows, columns)[1], out)
        return _squeezed(out, key)

    def _read(
        self, pieces: list[Piece], sections: Indices, columns: Indices, out: npt.NDArray[Any]
    ) -> None:
        found_out = known(self.source)
        asked, at_hand = self._asked(pieces, found_out.windows)
        if found_out.lack(asked):
            found_out = settle(self.source, self.sampling.samples(), list(asked))
        if found_out.windows is not True:
            # Not known to be right is not good enough.
            asked = {piece.whole: piece for piece in asked.values()}
        for read, found in pixels_each(self.source, asked, at_hand):
            piece = asked[read]
            places = np.flatnonzero(sections == piece.section)
            image: Pixels | None
            if isinstance(found, ImageError):
                read, image = self._instead(piece, read, found)
                piece = self._at_tier(piece, read.tier)
                found_out = settle(self.source, self.sampling.samples(), [read])
            else:
                image = found
                self.failing.had(read)
            if image is None:
                out[places] = self.fill_value
                continue
            warp(
                image,
                read.window or Window(0, 0, *piece.whole.size),
                piece.whole.size,
                piece.affine_of(read, found_out.whole_origin),
                piece.covered,
                columns,
                self.sampling.bounds,
                piece.interpolation,
                self.fill_value,
                out[places[0]],
            )
            for place in places[1:]:
                out[place] = out[places[0]]
            del found, image  # before the next one is decoded

    def _instead(
        self, piece: Piece, read: ImageRead, error: ImageError
    ) -> tuple[ImageRead, Pixels | None]:
        """Return what serves for an image that cannot be had: another tier, or nothing."""
        if self.failing.other_tiers and is_bad_itself(error):
            count = int(self.sampling.table.tier_count[piece.section])
            for tier in neighbours(read.tier, count):
                other = self._at_tier(piece, tier).whole
                try:
                    found = pixels(self.source, other)
                except ImageError:
                    continue
                self.failing.ledger.note(read, error, f"tier {tier}")
                return other, found
        if not self.failing.fill:
            raise error
        self.failing.ledger.note(read, error, "filled")
        return read, None

    def _at_tier(self, piece: Piece, tier: int) -> Piece:
        if tier == piece.whole.tier:
            return piece
        tiers = self.sampling.tiers.copy()
        tiers[piece.section] = tier
        low, high = piece.covered.asked
        sampling = replace(self.sampling, tiers=tiers)
        return sampling.piece(piece.section, piece.covered.rows, np.arange(low, high + 1))

    def __dask_tokenize__(self) -> Hashable:
        # dask does not look into what is returned here: whatever is not text must be made so.
        return (
            type(self).__name__,
            tokenize(self.sampling, self.source),
            repr(self.fill_value),
            self.failing.fill,
            self.failing.other_tiers,
        )


class CoverageArray(BackendArray):
    """Which grid points each section covers, from the matrices alone.

    Parameters
    ----------
    sampling
        Where every grid point comes from.
    failing
        What knows which sections were filled because their image could not be had: those
        are not covered.

    Notes
    -----
    Shape (sections, rows, columns), bool. Nothing is downloaded.
    """

    def __init__(self, sampling: Sampling, failing: Failing) -> None:
        self.sampling = sampling
        self.failing = failing
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
            filled = self.failing.filled()
            for place, section in enumerate(sections):
                if int(self.sampling.table.image_id[section]) in filled:
                    continue
                out[place] = self.sampling.covered(int(section), rows, columns).mask(columns)
        return _squeezed(out, key)

    def __dask_tokenize__(self) -> Hashable:
        return type(self).__name__, tokenize(self.sampling)


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
