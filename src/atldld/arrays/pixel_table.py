"""Pixels as rows of a table: values, section, exact place and structure of each."""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from collections.abc import Collection, Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..model.affine import points_of
from ..model.space import AXES
from .lookup import Voxels
from .positions import DIMS, SectionPoints, is_volume, section_points

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


def write_parquet(
    obj: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    voxels: Voxels | None,
    wanted: Collection[int] | None,
    *,
    overwrite: bool,
) -> None:
    """Write the pixels of an object as Parquet, part by part; see `AtlasAccessor.to_table`.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    FileExistsError
        If there is something, unless it may be replaced.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install pyarrow") from error
    target = Path(path)
    if target.is_dir() or (target.exists() and not overwrite):
        raise FileExistsError(f"{target} is there already; overwrite=True replaces a file")
    half = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    said = {str(name): str(value) for name, value in obj.attrs.items()}
    try:
        parts = table_parts(obj, voxels, wanted)
        first = next(parts)
        schema = pa.Schema.from_pandas(first, preserve_index=False).with_metadata(said)
        with pq.ParquetWriter(half, schema) as writer:
            for part in itertools.chain([first], parts):
                if len(part):
                    writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))
        half.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            half.unlink()


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
    dataset = _as_dataset(obj)
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
    dataset = dataset.drop_vars([name for name in dataset.coords if name not in dataset.xindexes])
    for block in _blocks(dataset, [dim for dim in dims if dim in dataset.dims]):
        part = dataset.isel(block).compute()
        values = {
            name: column
            for variable in part.data_vars.values()
            for name, column in _columns(variable, dims, prefixed=isinstance(obj, xr.Dataset))
        }
        bounds = [
            range(*block.get(dim, slice(None)).indices(dataset.sizes.get(dim, 1))) for dim in dims
        ]
        labels = _labels(obj, dims, bounds)
        for some in _some_rows(tuple(map(len, bounds))):
            shown = {name: labels[name][rows] for name, rows in zip(dims, some, strict=True)}
            sections = bounds[0][some[0]]
            yield _part(
                {name: _cut(column, some) for name, column in values.items()},
                _located(points, sections, shown, labels["image_id"][some[0]])
                if points
                else _voxels(shown),
                voxels,
                wanted,
            )


def _some_rows(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice]]:
    """Yield parts of a block that make at most `_MOST_ROWS` rows, if one line of it does."""
    line = max(shape[2], 1)
    lines = max(min(_MOST_ROWS // line, max(shape[1], 1)), 1)
    planes = max(_MOST_ROWS // (line * lines), 1)
    for first in range(0, max(shape[0], 1), planes):
        for start in range(0, max(shape[1], 1), lines):
            yield slice(first, first + planes), slice(start, start + lines), slice(None)


def _cut(column: npt.NDArray[Any], some: tuple[slice, ...]) -> npt.NDArray[Any]:
    return column[
        tuple(slice(None) if n == 1 else each for n, each in zip(column.shape, some, strict=True))
    ]


def _part(
    values: dict[str, npt.NDArray[Any]],
    located: dict[str, npt.NDArray[Any]],
    voxels: Voxels | None,
    wanted: Collection[int] | None,
) -> pd.DataFrame:
    """Return one table of values and places, all of one shape, without rows not wanted."""
    if voxels is not None:
        found = voxels.at(*(located[axis] for axis in AXES)).astype(np.int64)
        located = {**located, "structure_id": found}
        values.pop("structure_id", None)
    columns = {**located, **values}
    shape = np.broadcast_shapes(*(column.shape for column in columns.values()))
    there = None
    if wanted is not None:
        there = np.isin(np.broadcast_to(columns["structure_id"], shape), list(wanted))
    spread = {name: np.broadcast_to(column, shape) for name, column in columns.items()}
    return pd.DataFrame(
        {name: each.ravel() if there is None else each[there] for name, each in spread.items()}
    )


def _located(
    points: SectionPoints,
    sections: range,
    shown: dict[str, npt.NDArray[Any]],
    images: npt.NDArray[Any],
) -> dict[str, npt.NDArray[Any]]:
    """Return section, image, row, column and exact place of pixels, over (section, y, x)."""
    y, x = shown["y"][:, None], shown["x"]
    affines = points.affines[sections.start : sections.stop][:, None, None]
    at: tuple[npt.NDArray[Any], npt.NDArray[Any]] = (x.astype(np.float64), y.astype(np.float64))
    if any(points.bends):
        at = points.straight(np.arange(sections.start, sections.stop), shown["y"], at[0])
    place = points_of(affines, *at)
    return {
        "section": shown["section"][:, None, None],
        "image_id": images[:, None, None],
        "y": y,
        "x": x,
        **dict(zip(AXES, place, strict=True)),
    }


def _voxels(shown: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    p, i, r = (shown[axis].astype(np.float64) for axis in AXES)
    return {"p": p[:, None, None], "i": i[:, None], "r": r}


def _as_dataset(obj: xr.DataArray | xr.Dataset) -> xr.Dataset:
    if isinstance(obj, xr.Dataset):
        return obj
    return obj.rename("value" if obj.name is None else obj.name).to_dataset()


def _columns(
    variable: xr.DataArray, dims: tuple[str, ...], *, prefixed: bool
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield columns of a variable, one a channel, each with an axis for every one of `dims`."""
    own = variable.variable
    channels = own.sizes.get(_CHANNEL)
    spread = own.set_dims(
        {dim: own.sizes.get(dim, 1) for dim in dict.fromkeys((*dims, _CHANNEL, *own.dims))}
    )
    values = spread.transpose(*dims, _CHANNEL).values
    if channels is None:
        yield str(variable.name), values[..., 0]
        return
    names = variable.coords[_CHANNEL].values if _CHANNEL in variable.coords else range(channels)
    for number, name in enumerate(names):
        yield f"{variable.name}_{name}" if prefixed else str(name), values[..., number]


def _labels(
    obj: xr.DataArray | xr.Dataset, dims: tuple[str, ...], bounds: list[range]
) -> dict[str, npt.NDArray[Any]]:
    """Return the labels of a block along each dimension; along one that is gone, the one left."""
    found: dict[str, npt.NDArray[Any]] = {}
    for dim, part in zip(dims, bounds, strict=True):
        names = (dim, "image_id") if dim == "section" else (dim,)
        for name in names:
            found[name] = np.atleast_1d(obj.coords[name].values)[part.start : part.stop]
    return found


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
