"""What leans on private parts of xarray and dask, all of it.

How xarray wraps data that is read when it is indexed, how dask writes tasks, and how alignment
tells indexes apart, is promised by neither. ``tests/arrays/test_internals.py`` fails first where
that changes. (The rest of the package uses of ``xarray.core.indexing`` what is documented for
authors of backends.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

_LAYERS = indexing.ExplicitlyIndexed | indexing.ImplicitToExplicitIndexingAdapter


def as_dataset(obj: xr.DataArray | xr.Dataset) -> xr.Dataset:
    """Return a Dataset as it is, and a DataArray as one with its own data and coordinates.

    Unlike `DataArray.to_dataset` it takes any name, or none.
    """
    return obj._to_temp_dataset() if isinstance(obj, xr.DataArray) else obj


def is_lazy(obj: xr.DataArray | xr.Dataset) -> bool:
    """Whether anything of an object is not in memory."""
    return not all(each._in_memory for each in as_dataset(obj).variables.values())


def in_memory(array: xr.DataArray) -> bool:
    """Whether the values of an array are in memory."""
    return isinstance(array.variable._data, np.ndarray)


def read_when_indexed(array: xr.DataArray) -> bool:
    """Whether the values of an array are read when they are indexed, without dask."""
    return isinstance(array.variable._data, indexing.ExplicitlyIndexed)


def lazy_variables(obj: xr.DataArray | xr.Dataset) -> Iterator[Any]:
    """Yield the data of the variables that are read when they are indexed, without dask."""
    for variable in as_dataset(obj).variables.values():
        if isinstance(variable._data, indexing.ExplicitlyIndexed):
            yield variable._data


def writable(variable: xr.Variable) -> xr.Variable:
    """Return a lazy variable that can be assigned to: then, what it holds is read and kept."""
    return variable._replace(data=indexing.CopyOnWriteArray(variable._data))


def below(data: Any, wanted: Callable[[Any], bool]) -> Any | None:
    """Return what is wanted below xarray's layers of lazy indexing, or None."""
    while not wanted(data):
        if not isinstance(data, _LAYERS):
            return None
        data = getattr(data, "array", None)
    return data


def replaced(data: Any, instead: Callable[[Any], Any | None]) -> Any | None:
    """Return lazily indexed data with something in the place of what lies at its bottom.

    Parameters
    ----------
    data
        Perhaps in layers of lazy indexing.
    instead
        Returns what takes the place of an array; None to look below it.

    Returns
    -------
    data
        The same layers; None where nothing was found to replace.
    """
    found = instead(data)
    if found is not None:
        return found
    if not isinstance(data, _LAYERS):
        return None
    inner = replaced(getattr(data, "array", None), instead)
    if inner is None:
        return None
    outer: Any = copy.copy(data)
    outer.array = inner
    return outer


def indexings(
    obj: xr.DataArray | xr.Dataset, *, optimized: bool
) -> Iterator[tuple[Any, Any | None]]:
    """Yield the data that dask graphs hold, and with what each is indexed.

    Parameters
    ----------
    obj
        An object of any chunked variables.
    optimized
        Whether to look at the graph that would run: without the data that no chunk needs, and
        with selections folded into the indexing. Else at the graph as it was built.

    Yields
    ------
    data
        Whatever a task holds as it is, or indexes.
    index
        What it is indexed with; None where it is merely held.
    """
    from dask.base import is_dask_collection, optimize

    if not is_dask_collection(obj):
        return
    collection: Any = obj
    if optimized:
        (collection,) = optimize(obj)
    walk = _Walk(dict(collection.__dask_graph__() or {}))
    for node in walk.graph.values():
        yield from walk.node(node, {})


class _Walk:
    """Finds, in the tasks of a graph, what is held and what is indexed."""

    def __init__(self, graph: Mapping[Any, Any]) -> None:
        self.graph = graph

    def node(self, node: Any, scope: Mapping[Any, Any]) -> Iterator[tuple[Any, Any | None]]:
        """Yield what a task holds or indexes; `scope` says what names in it stand for."""
        from dask._task_spec import DataNode, Task
        from dask.array.core import getter, getter_inline, getter_nofancy

        if isinstance(node, DataNode):
            yield node.value, None
            return
        if not isinstance(node, Task):
            return
        if node.func in (getter, getter_inline, getter_nofancy):
            yield self._value(node.args[0], scope), self._value(node.args[1], scope)
            return
        for part in (*node.args, *node.kwargs.values()):
            if isinstance(part, dict):
                inner = {**scope, **self._bound(node, scope), **part}
                for each in part.values():
                    yield from self.node(each, inner)
            elif isinstance(part, Task):
                yield from self.node(part, scope)

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


def named_by_content(dataset: xr.Dataset) -> xr.Dataset:
    """Return a Dataset whose lazy variables xarray will name by what is read.

    xarray names the dask arrays of what it opens by URL and options. The same ones mean another
    thing once the service of ``set_options(api_url=...)`` is another, or a bundle was packed
    again; dask would then take the pixels of one for those of the other. Coordinates in memory
    stay there.
    """
    # Replaced in place: a new Dataset would ask every index to be built anew.
    indexes = dataset.xindexes
    return dataset._replace(
        {
            name: variable if name in indexes else _own(variable)
            for name, variable in dataset.variables.items()
        }
    )


def _own(variable: xr.Variable) -> xr.Variable:
    kind = _InMemory if variable._in_memory else _OwnName
    return kind(variable.dims, variable._data, variable.attrs, variable.encoding, fastpath=True)


class _OwnName(xr.Variable):
    """A lazy variable whose dask array is named by what is read, not by how it was asked for."""

    __slots__ = ()

    def chunk(self, *args: Any, **kwargs: Any) -> Any:
        """Return the variable as a dask array."""
        named = kwargs.get("from_array_kwargs") or {}
        if "name" in named:
            from dask.tokenize import tokenize

            name = f"atldld-{tokenize(self._data, named['name'])}"
            kwargs["from_array_kwargs"] = {**named, "name": name}
        chunked = super().chunk(*args, **kwargs)
        return xr.Variable(chunked.dims, chunked._data, chunked.attrs, chunked.encoding)


class _InMemory(xr.Variable):
    """A coordinate that chunking leaves alone, as it does those of `atldld.open_dataset`."""

    __slots__ = ()

    def chunk(self, *_: Any, **__: Any) -> Any:
        """Return the variable as it is."""
        return xr.Variable(self.dims, np.asarray(self._data), self.attrs, self.encoding)


class AlignedAs(type):
    """Makes xarray align an index of one class with indexes of another.

    Parameters
    ----------
    kind
        The other class.

    Notes
    -----
    xarray groups the indexes of the objects that it aligns by the names and dimensions of their
    coordinates and by ``type(index)``, as a key of a dict; indexes of two types are not compared
    but refused. `xarray.Dataset.interp` makes a plain index of the labels that it is given, and
    aligns variables of truth values with it. So the class of an index over sections equals that
    of plain indexes as such a key. It then decides itself what it can be matched with.
    """

    _kind: type

    def __new__(
        cls, name: str, bases: tuple[type, ...], names: dict[str, Any], kind: type
    ) -> AlignedAs:
        """Make the class that equals `kind`."""
        made = super().__new__(cls, name, bases, names)
        made._kind = kind
        return made

    def __init__(
        cls, name: str, bases: tuple[type, ...], names: dict[str, Any], kind: type
    ) -> None:
        super().__init__(name, bases, names)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls._kind

    def __hash__(cls) -> int:
        return hash(cls._kind)
