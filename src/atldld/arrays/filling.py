"""Pixels that may be filled where an image cannot be had, and where they are not filled.

Whether an image can be had is only known once it was read, and may be another thing a moment
later. So the pixels of a chunk and the marks of what was not filled come from one reading: with
dask from one task, on whatever scheduler.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import xarray as xr
from dask.tokenize import tokenize
from xarray.backends import BackendArray
from xarray.core import indexing

from ..reading.reader import index_outer

_CHANNEL = "channel"


class HadArray(BackendArray):
    """Where several marked arrays were not filled, or what else is true there.

    Parameters
    ----------
    arrays
        Marked arrays of one shape, but for their channels.
    shown
        An array from matrices alone, whose values count where nothing was filled. None: whether
        nothing was.
    nothing
        The value elsewhere.

    Notes
    -----
    It reads what it is asked about, unless these arrays were read before: then it says what
    they found. Shape as the arrays, without the channels.
    """

    def __init__(
        self,
        arrays: Sequence[BackendArray],
        shown: Any | None = None,
        nothing: Any = False,
    ) -> None:
        self.arrays: tuple[Any, ...] = tuple(arrays)
        self.shown = shown
        self.nothing = nothing
        self.shape = self.arrays[0].shape[:3]
        self.dtype = np.dtype(bool) if shown is None else shown.dtype

    @property
    def table(self) -> Any:
        """The sections, where the arrays are those of sections."""
        return self.arrays[0].table

    @property
    def points(self) -> Any:
        """What returns image ids and affines, where the arrays are those of sections."""
        return self.arrays[0].points

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return index_outer(key, self.shape, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> Any:
        marks = [
            array[indexing.OuterIndexer((*key, array.shape[3] - 1))] != 0 for array in self.arrays
        ]
        there = reduce(operator.and_, marks)
        if self.shown is None:
            return there
        shown = self.shown[indexing.OuterIndexer(key)]
        return np.where(there, shown, np.asarray(self.nothing, self.dtype))

    def __dask_tokenize__(self) -> Hashable:
        return type(self).__name__, tokenize(self.arrays, self.shown, repr(self.nothing))


def pixels(marked: xr.Variable, channels: tuple[int, ...], chunk: Any) -> xr.Variable:
    """Return the pixels of a lazy variable over a marked array.

    Parameters
    ----------
    marked
        Its last dimension is that of the channels and the mark.
    channels
        Length of the channel dimension of the pixels, or nothing.
    chunk
        Chunk size of the channel dimension.
    """
    part = marked.isel({_CHANNEL: slice(0, channels[0]) if channels else 0})
    if part.chunks is None:
        part.encoding["preferred_chunks"] = {
            dim: size
            for dim, size in marked.encoding["preferred_chunks"].items()
            if dim in part.dims
        }
    if _CHANNEL in part.dims:
        if part.chunks is None:
            part.encoding["preferred_chunks"][_CHANNEL] = chunk
        elif chunk not in (-1, *channels):
            part = part.chunk({_CHANNEL: chunk})
    return part


def had(marked: Sequence[xr.Variable]) -> xr.Variable:
    """Return where none of some variables over marked arrays was filled; all are of dask."""
    marks = [variable.isel({_CHANNEL: -1}) != 0 for variable in marked]
    return reduce(operator.and_, marks)
