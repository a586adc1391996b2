"""What lies below an object: the lazily indexed data in its variables and its dask graph.

Attributes are not asked for it: they outlive arithmetic that makes them untrue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import xarray as xr
from xarray.core import indexing


def lazy_variables(obj: xr.DataArray | xr.Dataset) -> Iterator[Any]:
    """Yield the data of the variables that are read when they are indexed, without dask."""
    for variable in _variables(obj):
        if isinstance(variable._data, indexing.ExplicitlyIndexed):
            yield variable._data


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


def _variables(obj: xr.DataArray | xr.Dataset) -> list[xr.Variable]:
    dataset = obj._to_temp_dataset() if isinstance(obj, xr.DataArray) else obj
    return list(dataset.variables.values())


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
