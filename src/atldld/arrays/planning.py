"""Which images computing an object would read: found by walking its own graph.

The reader of an array sits in its dask graph, or in its lazy variable. Each of them is indexed
there as in a computation, only that a recording reader stands in its place and notes what it is
asked for. Attributes are not asked: they outlive arithmetic that makes them untrue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from .. import options
from ..model.read import ImageRead, Window
from ..reading.conventions import probes_needed
from ..reading.reader import LazyArray, Reader, index_outer
from .internals import indexings, lazy_variables, replaced


@dataclass(frozen=True, slots=True, eq=False)
class PlannedRead:
    """An image that would be read, and the reader that would read it.

    Parameters
    ----------
    reader
        The array that reads it, with its source and options.
    read
        Which image, tier and window.
    at_hand
        Whether the source has it at hand.
    """

    reader: Reader[Any]
    read: ImageRead
    at_hand: bool


class Notes:
    """What recorders note.

    Parameters
    ----------
    told
        Called with each read as soon as it is noted, if anything; the same may come again.
    """

    def __init__(self, told: Callable[[PlannedRead], None] | None = None) -> None:
        self.reads: list[PlannedRead] = []
        self._told = told

    def add(self, reads: list[PlannedRead]) -> None:
        """Note some reads."""
        self.reads += reads
        if self._told is not None:
            for read in reads:
                self._told(read)


class _Recorder(BackendArray):
    """Stands in for a reader: notes what is asked for, answers with zeros that cost nothing."""

    def __init__(self, array: LazyArray, notes: Notes) -> None:
        self.array = array
        self.notes = notes
        self.shape = array.shape
        self.dtype = array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return index_outer(key, self.shape, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> Any:
        for reader, inner in self.array.readers(key):
            self.notes.add([PlannedRead(reader, *each) for each in reader.reads(inner).items()])
        lengths = [np.arange(length)[part] for part, length in zip(key, self.shape, strict=True)]
        shape = tuple(len(places) for places in lengths if np.ndim(places))
        return np.broadcast_to(np.zeros((), self.dtype), shape)


def planned_reads(
    obj: xr.DataArray | xr.Dataset, told: Callable[[PlannedRead], None] | None = None
) -> list[PlannedRead]:
    """Return the reads that computing an object would cause, each once, in no request.

    Parameters
    ----------
    obj
        What would be computed: any selection, arithmetic or reduction of opened arrays.
    told
        Called with each read as soon as it is found. Whole images among these are in what is
        returned; a window may be left out of it for a larger one.

    Raises
    ------
    ValueError
        If the object holds no reader: its values are in memory, or come from elsewhere.
    """
    notes = Notes(told)
    if not _record(obj, notes):
        raise ValueError(
            "this object reads no section images: its values are in memory, or they do not come "
            "from atldld. Ask before compute() or load(), on what open_dataarray or "
            "open_dataset gave"
        )
    unique: dict[tuple[str, ImageRead], PlannedRead] = {}
    for note in notes.reads:
        unique.setdefault((note.reader.source.name, note.read), note)
    planned = _without_nested(list(unique.values()))
    return [*_first_of_all(planned), *planned]


def _first_of_all(planned: list[PlannedRead]) -> list[PlannedRead]:
    """Return the reads that find out what is in doubt about the sources of others."""
    by_source: dict[str, list[PlannedRead]] = {}
    for each in planned:
        by_source.setdefault(each.reader.source.name, []).append(each)
    found = []
    for group in by_source.values():
        reader = group[0].reader
        with options.using(reader.carried):
            pair = probes_needed(reader.source, reader.samples(), [each.read for each in group])
            found += [PlannedRead(reader, read, reader.has(read)) for read in pair]
    return found


def readers(obj: xr.DataArray | xr.Dataset) -> list[Reader[Any]]:
    """Return the readers that computing an object would use; none where it holds none."""
    notes = Notes()
    _record(obj, notes)
    return list({id(note.reader): note.reader for note in notes.reads}.values())


def _record(obj: xr.DataArray | xr.Dataset, notes: Notes) -> int:
    """Note the reads of an object; return how many readers it holds."""
    recorders: dict[int, Any] = {}

    def indexed(data: Any, index: Any | None) -> None:
        if id(data) not in recorders:
            found = replaced(data, lambda held: _recorder(held, notes))
            if found is None:
                return
            recorders[id(data)] = found
        if index is not None:
            np.asarray(recorders[id(data)][index])

    for data in lazy_variables(obj):
        # Of any number of axes: all of it.
        indexed(data, indexing.BasicIndexer((slice(None),) * data.ndim))
    for data, index in indexings(obj, optimized=True):
        indexed(data, index)
    return len(recorders)


def _without_nested(planned: list[PlannedRead]) -> list[PlannedRead]:
    """Leave out windows that lie within another one: that one, once there, serves them."""
    windows: dict[tuple[str, ImageRead], list[Window]] = {}
    for each in planned:
        windows.setdefault(_image(each), []).append(_window(each.read))
    return [
        each
        for each in planned
        if not any(
            other.holds(_window(each.read)) and other != _window(each.read)
            for other in windows[_image(each)]
        )
    ]


def _image(planned: PlannedRead) -> tuple[str, ImageRead]:
    return planned.reader.source.name, planned.read.whole()


def _window(read: ImageRead) -> Window:
    return read.window or Window(0, 0, read.width, read.height)


def _recorder(data: Any, notes: Notes) -> Any | None:
    """Return what stands in for an array of this package, or None for anything else."""
    return _Recorder(data, notes) if isinstance(data, LazyArray) else None
