"""Which images computing an object would read: found by walking its own graph.

The reader of an array sits in its dask graph, or in its lazy variable. Each of them is indexed
there as in a computation, only that a recording reader stands in its place and notes what it is
asked for. Attributes are not asked: they outlive arithmetic that makes them untrue.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from .. import options
from ..model.read import ImageRead, Window
from .conventions import probes_needed
from .reader import FromMatrices, Reader, index_outer


@dataclass(frozen=True, slots=True, eq=False)
class PlannedRead:
    """An image that would be read, and the reader that would read it.

    Parameters
    ----------
    reader
        The array that reads it, with its source and options.
    read
        Which image, tier and window.
    """

    reader: Reader[Any]
    read: ImageRead


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

    def __init__(self, reader: Reader[Any] | FromMatrices, notes: Notes) -> None:
        self.reader = reader
        self.notes = notes
        self.shape = reader.shape
        self.dtype = reader.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return index_outer(key, self.shape, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> Any:
        if isinstance(self.reader, Reader):
            self.notes.add([PlannedRead(self.reader, read) for read in self.reader.reads(key)])
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
            found += [PlannedRead(reader, read) for read in pair]
    return found


def readers(obj: xr.DataArray | xr.Dataset) -> list[Reader[Any]]:
    """Return the readers that computing an object would use; none where it holds none."""
    notes = Notes()
    _record(obj, notes)
    return list({id(note.reader): note.reader for note in notes.reads}.values())


def _record(obj: xr.DataArray | xr.Dataset, notes: Notes) -> int:
    """Note the reads of an object; return how many readers it holds."""
    count = 0
    for data in _lazy_data(obj):
        found = _recording(data, notes)
        if found is not None:
            count += 1
            np.asarray(found)
    return count + _walk_graph(obj, notes)


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


def _lazy_data(obj: xr.DataArray | xr.Dataset) -> Iterator[Any]:
    dataset = obj._to_temp_dataset() if isinstance(obj, xr.DataArray) else obj
    for variable in dataset.variables.values():
        if isinstance(variable._data, indexing.ExplicitlyIndexed):
            yield variable._data


def _recording(data: Any, notes: Notes) -> Any | None:
    """Return lazily indexed data with a recorder in place of its reader, or None without one."""
    if isinstance(data, Reader | FromMatrices):
        return _Recorder(data, notes)
    if not isinstance(
        data, indexing.ExplicitlyIndexed | indexing.ImplicitToExplicitIndexingAdapter
    ):
        return None
    replaced = _recording(getattr(data, "array", None), notes)
    if replaced is None:
        return None
    outer: Any = copy.copy(data)
    outer.array = replaced
    return outer


def _walk_graph(obj: xr.DataArray | xr.Dataset, notes: Notes) -> int:
    """Note the reads of a dask graph as it would run; return how many readers it holds."""
    from dask.base import is_dask_collection, optimize

    if not is_dask_collection(obj):
        return 0
    (optimized,) = optimize(obj)
    walk = _Walk(dict(optimized.__dask_graph__()), notes)
    walk.all()
    return len(walk.readers)


class _Walk:
    """Finds, in the tasks of a graph, where a reader is indexed, and indexes a recorder so."""

    def __init__(self, graph: Mapping[Any, Any], notes: Notes) -> None:
        self.graph = graph
        self.notes = notes
        self.readers: dict[int, Any] = {}

    def all(self) -> None:
        """Walk every task."""
        for node in self.graph.values():
            self._node(node, {})

    def _node(self, node: Any, scope: Mapping[Any, Any]) -> None:
        from dask._task_spec import DataNode, Task
        from dask.array.core import getter, getter_inline, getter_nofancy

        if isinstance(node, DataNode):
            self._reader(node.value)
            return
        if not isinstance(node, Task):
            return
        if node.func in (getter, getter_inline, getter_nofancy):
            reader = self._reader(self._value(node.args[0], scope))
            if reader is not None:
                np.asarray(reader[self._value(node.args[1], scope)])
            return
        for part in (*node.args, *node.kwargs.values()):
            if isinstance(part, dict):
                inner = {**scope, **self._bound(node, scope), **part}
                for each in part.values():
                    self._node(each, inner)
            elif isinstance(part, Task):
                self._node(part, scope)

    def _bound(self, node: Any, scope: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return what the names of a fused task stand for: it carries the graph of its parts."""
        from dask._task_spec import _execute_subgraph

        if node.func is not _execute_subgraph:
            return {}
        _, _, names, *values = node.args
        return {
            name: self._value(value, scope)
            for name, value in zip(self._value(names, scope), values, strict=True)
        }

    def _value(self, part: Any, scope: Mapping[Any, Any]) -> Any:
        from dask._task_spec import Alias, DataNode, TaskRef

        while isinstance(part, TaskRef | Alias | DataNode):
            if isinstance(part, DataNode):
                return part.value
            key = part.key if isinstance(part, TaskRef) else part.target
            part = scope.get(key, self.graph.get(key))
        return part

    def _reader(self, data: Any) -> Any | None:
        """Return the recorder of lazily indexed data, made once."""
        if id(data) not in self.readers:
            found = _recording(data, self.notes)
            if found is None:
                return None
            self.readers[id(data)] = found
        return self.readers[id(data)]
