"""Which images computing an object would read, found by walking its own graph; and fetching them.

The reader of an array sits in its dask graph, or in its lazy variable. Each of them is indexed
there as in a computation, only that a recording reader stands in its place and notes what it is
asked for. Attributes are not asked: they outlive arithmetic that makes them untrue.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from .. import options
from ..errors import AtldldWarning, ImageError
from ..model.read import ImageRead, Window
from ..reading.conventions import known, probes_needed, settle
from ..reading.failures import FIELDS, Ledger
from ..reading.images import progress, too_large
from ..reading.reader import LazyArray, Reader, index_outer
from ..source import KeepingSource, Source
from ..source.allen import AllenSource
from ..source.prefetch import Begun, fetch_each
from .index import GuardIndex
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


Note = Callable[[PlannedRead], Any]
"""What recorders call with each read."""


class _Recorder(BackendArray):
    """Stands in for a reader: notes what is asked for, answers with zeros that cost nothing."""

    def __init__(self, array: LazyArray, note: Note) -> None:
        self.array = array
        self.note = note
        self.shape = array.shape
        self.dtype = array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return index_outer(key, self.shape, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> Any:
        for reader, inner in self.array.readers(key):
            for each in reader.reads(inner).items():
                self.note(PlannedRead(reader, *each))
        lengths = [np.arange(length)[part] for part, length in zip(key, self.shape, strict=True)]
        shape = tuple(len(places) for places in lengths if np.ndim(places))
        return np.broadcast_to(np.zeros((), self.dtype), shape)


def planned_reads(
    obj: xr.DataArray | xr.Dataset, on_read: Callable[[PlannedRead], None] | None = None
) -> list[PlannedRead]:
    """Return the reads that computing an object would cause, each once, in no request.

    Parameters
    ----------
    obj
        What would be computed: any selection, arithmetic or reduction of opened arrays.
    on_read
        Called with each read as soon as it is found. Whole images among these are in what is
        returned; a window may be left out of it for a larger one.

    Raises
    ------
    ValueError
        If the object holds no reader: its values are in memory, or come from elsewhere.
    """
    unique: dict[tuple[str, ImageRead], PlannedRead] = {}

    def note(read: PlannedRead) -> None:
        unique.setdefault((read.reader.source.name, read.read), read)
        if on_read is not None:
            on_read(read)

    if not _record(obj, note):
        raise ValueError(
            "this object reads no section images: its values are in memory, or they do not come "
            "from atldld. Ask before compute() or load(), on what open_dataarray or "
            "open_dataset gave"
        )
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
    found: dict[int, Reader[Any]] = {}
    _record(obj, lambda read: found.setdefault(id(read.reader), read.reader))
    return list(found.values())


def _record(obj: xr.DataArray | xr.Dataset, note: Note) -> int:
    """Note the reads of an object; return how many readers it holds."""
    recorders: dict[int, Any] = {}

    def indexed(data: Any, index: Any | None) -> None:
        if id(data) not in recorders:
            found = replaced(
                data, lambda held: _Recorder(held, note) if isinstance(held, LazyArray) else None
            )
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


COLUMNS = (
    "dataset_id", "section_number", "image_id", "view", "tier",
    "left", "top", "width", "height", "whole", "cached", "url",
)  # fmt: skip


def plan_table(planned: Iterable[PlannedRead]) -> pd.DataFrame:
    """Return planned reads as a table, a row each; see `AtlasAccessor.plan`."""
    return _table([_row(each) for each in planned], COLUMNS)


def prefetch(obj: xr.DataArray | xr.Dataset) -> pd.DataFrame:
    """Fetch what computing an object would read; see `AtlasAccessor.prefetch`."""
    with Begun() as begun:
        return _prefetch(obj, begun)


def _prefetch(obj: xr.DataArray | xr.Dataset, begun: Begun) -> pd.DataFrame:
    planned = planned_reads(obj, lambda each: _begin(each, begun))
    if _settle(planned):
        planned = planned_reads(obj)
    rows = [_row(each) | {"bytes": 0, "error": ""} for each in planned]
    with progress(len(planned), "Fetching images") as shown:
        for places in _by_reader(planned).values():
            reader = planned[places[0]].reader
            reads = {planned[place].read: place for place in places}
            with options.using(reader.carried):
                for place in places:
                    # What is at hand is left alone: its bytes are checked when it is read.
                    if planned[place].at_hand:
                        del reads[planned[place].read]
                        rows[place]["bytes"] = _kept_bytes(planned[place])
                shown.update(len(places) - len(reads))
                room = _Room(options.current().cache_limit, reader.source)
                for read, error in _giants(reader.source, reads).items():
                    rows[reads.pop(read)]["error"] = str(error)
                    shown.update(1)
                for read, content in fetch_each(reader.source, list(reads), begun=begun):
                    row = rows[reads[read]]
                    if isinstance(content, ImageError):
                        row["error"] = str(content)
                    else:
                        row["bytes"] = len(content)
                        room.take(len(content))
                    shown.update(1)
    return _table(rows, (*COLUMNS, "bytes", "error"))


def _giants(source: Source, reads: Iterable[ImageRead]) -> dict[ImageRead, ImageError]:
    """Return the reads that have too many pixels to be read, with the error of each."""
    found = {read: too_large(source, read) for read in reads}
    return {read: error for read, error in found.items() if error is not None}


def _begin(planned: PlannedRead, begun: Begun) -> None:
    """Begin to fetch a whole image that is sure to be needed, until every connection is busy."""
    read, source = planned.read, planned.reader.source
    with options.using(planned.reader.carried):
        if read.window is not None or len(begun) >= options.current().max_connections:
            return
        if planned.at_hand or too_large(source, read) is not None:
            return
        if isinstance(source, KeepingSource) and not known(source).lack([read]):
            begun.begin(source, read)


def _kept_bytes(planned: PlannedRead) -> int:
    """Return how many bytes are at hand of a read, if its source can tell without reading them."""
    source = planned.reader.source
    return source.kept_bytes(planned.read) if isinstance(source, AllenSource) else 0


class _Room:
    """Notices that a prefetch does not fit into the cache, and says so once.

    Parameters
    ----------
    limit
        Most bytes in the cache, or None.
    source
        Only what comes from a service is kept there.
    """

    def __init__(self, limit: int | None, source: Source) -> None:
        self._limit = limit if isinstance(source, AllenSource) else None
        self._left = self._limit or 0

    def take(self, count: int) -> None:
        """Count the bytes of one more image."""
        if self._limit is None:
            return
        self._left -= count
        if self._left < 0:
            warnings.warn(
                f"what is prefetched has more than the {self._limit} bytes that the cache may "
                "keep: what came first is removed again; set_options(cache_limit=...) gives it "
                "more",
                AtldldWarning,
                stacklevel=3,
            )
            self._limit = None


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    # An empty table has the same types of columns as a full one.
    return pd.DataFrame(rows, columns=list(columns)).astype({"whole": bool, "cached": bool})


def failures_table(obj: xr.DataArray | xr.Dataset) -> pd.DataFrame:
    """Return what failed when an object was computed; see `AtlasAccessor.failures`."""
    names = [reader.failing.ledger.name for reader in readers(obj)]
    for index in obj.xindexes.values():
        if isinstance(index, GuardIndex):
            names += index.ledgers
    if not names:
        raise ValueError(
            "this object does not say which arrays it was made from; ask the object that "
            "open_dataarray or open_dataset gave"
        )
    failures = [each for name in dict.fromkeys(names) for each in Ledger(name).failures()]
    return pd.DataFrame(
        [{field: getattr(each, field) for field in FIELDS} for each in failures],
        columns=list(FIELDS),
    )


def _settle(planned: list[PlannedRead]) -> bool:
    """Find out what is in doubt about the sources of reads; return whether anything was."""
    asked = False
    for places in _by_reader(planned).values():
        reader = planned[places[0]].reader
        reads = [planned[place].read for place in places]
        with options.using(reader.carried):
            if known(reader.source).lack(reads):
                settle(reader.source, reader.samples(), reads)
                asked = True
    return asked


def _by_reader(planned: list[PlannedRead]) -> dict[tuple[str, options.Carried], list[int]]:
    """Return the places of the reads that go to one source with the same options."""
    places: dict[tuple[str, options.Carried], list[int]] = {}
    for place, each in enumerate(planned):
        key = (each.reader.source.name, each.reader.carried)
        places.setdefault(key, []).append(place)
    return places


def _row(planned: PlannedRead) -> dict[str, Any]:
    read, source = planned.read, planned.reader.source
    left, top, width, height = (0, 0, *read.size) if read.window is None else read.window.box
    values = (
        read.dataset_id, read.section_number, read.image_id, read.view, read.tier,
        left, top, width, height, read.window is None, planned.at_hand, source.url(read),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
