"""Pixels as rows of a table: values, section, exact place and structure of each."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Iterator

import numpy as np
import pandas as pd
import xarray as xr

from ..model.space import AXES
from .lookup import Voxels
from .positions import DIMS, is_volume, section_points

_CHANNEL = "channel"
_MOST_ROWS = 2**20
"""Rows of a part of a table, in memory at one time beside the chunk that they are of."""


def pixel_table(
    obj: xr.DataArray | xr.Dataset, voxels: Voxels | None, wanted: Collection[int] | None
) -> pd.DataFrame:
    """Return the pixels of an object as rows; see `AtlasAccessor.to_table`."""
    parts = list(table_parts(obj, voxels, wanted))
    # Parts without rows have the types of the others all the same.
    table = pd.concat(parts, ignore_index=True)
    table.attrs = dict(obj.attrs)
    return table


def table_parts(
    obj: xr.DataArray | xr.Dataset, voxels: Voxels | None, wanted: Collection[int] | None
) -> Iterator[pd.DataFrame]:
    """Yield the pixels of an object as tables of bounded length; each chunk is computed once.

    Parameters
    ----------
    obj
        Sections, an image or a volume, after any selection and arithmetic.
    voxels
        Structure ids, to look up that of each pixel.
    wanted
        The structures whose pixels are to be rows; None for every pixel.
    """
    if isinstance(obj, xr.DataArray):
        dataset = obj.rename("value" if obj.name is None else obj.name).to_dataset()
    else:
        dataset = obj
    dims = AXES if is_volume(dataset) else DIMS
    extra = set(dataset.dims) - {*dims, _CHANNEL}
    if extra:
        raise ValueError(
            f"this object has the dimensions {sorted(map(str, extra))} besides {', '.join(dims)} "
            "and channel: select from them, or reduce them, first"
        )
    if wanted is not None and voxels is None and "structure_id" not in dataset:
        raise ValueError("structure= needs annotation=, to tell which structure a pixel lies in")
    points = None if dims == AXES else section_points(dataset)
    labels = {name: (name, np.atleast_1d(dataset.coords[name].values)) for name in dims}
    if points is not None:
        images = np.atleast_1d(dataset.coords["image_id"].values)
        labels = {"section": labels["section"], "image_id": ("section", images), **labels}
    places = xr.Dataset(labels).reset_index(dims).reset_coords()
    dataset = dataset.drop_vars([name for name in dataset.coords if name not in dataset.xindexes])
    for block in _blocks(dataset, [dim for dim in dims if dim in dataset.dims]):
        part, shown = dataset.isel(block).compute(), places.isel(block)
        first = block.get("section", slice(0)).start or 0
        values = {
            name: column
            for variable in part.data_vars.values()
            for name, column in _columns(variable, prefixed=isinstance(obj, xr.Dataset))
        }
        for some in _some_rows({dim: shown.sizes[dim] for dim in dims}):
            columns = dict(shown.isel(some).variables)
            sizes = {dim: columns[dim].size for dim in dims}
            if points is None:
                columns = {axis: columns[axis].astype(np.float64) for axis in AXES}
            else:
                sections = first + np.arange(shown.sizes["section"])[some["section"]]
                y, x = (columns[dim].values.astype(np.float64) for dim in ("y", "x"))
                at = points.pixels(sections, y, x)
                for number, axis in enumerate(AXES):
                    columns[axis] = xr.Variable(DIMS, points.along(number, sections, *at))
            few = {name: each.isel(some, missing_dims="ignore") for name, each in values.items()}
            yield _part(columns, few, sizes, voxels, wanted)


def _some_rows(sizes: dict[str, int]) -> Iterator[dict[str, slice]]:
    """Yield parts of a block that make at most `_MOST_ROWS` rows, if one line of it does."""
    (first, planes), (second, lines), (_, line) = sizes.items()
    most = max(min(_MOST_ROWS // max(line, 1), max(lines, 1)), 1)
    deep = max(_MOST_ROWS // (max(line, 1) * most), 1)
    for plane in range(0, max(planes, 1), deep):
        for start in range(0, max(lines, 1), most):
            yield {first: slice(plane, plane + deep), second: slice(start, start + most)}


def _part(
    places: dict[Hashable, xr.Variable],
    values: dict[str, xr.Variable],
    sizes: dict[str, int],
    voxels: Voxels | None,
    wanted: Collection[int] | None,
) -> pd.DataFrame:
    """Return one table of places and values, without rows not wanted."""
    spread = {name: each.set_dims(sizes).values for name, each in places.items()}
    if voxels is not None:
        spread["structure_id"] = voxels.at(*(spread[axis] for axis in AXES)).astype(np.int64)
        values.pop("structure_id", None)
    spread |= {name: each.set_dims(sizes).values for name, each in values.items()}
    there = None if wanted is None else np.isin(spread["structure_id"], [*wanted])
    return pd.DataFrame(
        {name: each.ravel() if there is None else each[there] for name, each in spread.items()}
    )


def _columns(variable: xr.DataArray, *, prefixed: bool) -> Iterator[tuple[str, xr.Variable]]:
    """Yield columns of a variable, one a channel."""
    if _CHANNEL not in variable.dims:
        yield str(variable.name), variable.variable
        return
    for number, name in enumerate(variable[_CHANNEL].values):
        column = variable.variable.isel({_CHANNEL: number})
        yield f"{variable.name}_{name}" if prefixed else str(name), column


def _blocks(dataset: xr.Dataset, dims: list[str]) -> Iterator[dict[Hashable, slice]]:
    """Yield the parts of an object that are computed one after the other: its largest chunks."""
    largest = max(dataset.data_vars.values(), key=lambda variable: variable.nbytes)
    edges = []
    for dim in dims:
        length = dataset.sizes[dim]
        lengths = largest.chunksizes.get(dim)
        if lengths is None:
            # Lazy without dask, it says in what pieces it is best read.
            size = largest.encoding.get("preferred_chunks", {}).get(dim, max(length, 1))
            most = max(int(np.max(size)), 1)
            lengths = tuple(min(most, length - at) for at in range(0, max(length, 1), most))
        stops = np.cumsum(lengths).tolist()
        edges.append(
            [slice(stop - length, stop) for stop, length in zip(stops, lengths, strict=True)]
        )
    for parts in itertools.product(*edges):
        yield dict(zip(dims, parts, strict=True))
