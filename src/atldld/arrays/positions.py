"""Where the pixels and the sections of an object lie, after whatever was done to it.

Which sections an object shows, and where they lie, is told by the readers in its own dask graph
or lazy variable; which of their rows and columns it shows, by its coordinates ``y`` and ``x`` in
microns. Attributes are not asked: they outlive arithmetic that makes them untrue.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from ..model.affine import Array
from ..model.geometry import geometry, pixel_points
from ..model.sections import SectionTable
from ..model.space import AXES, extent
from ..reading.reader import index_outer
from .describe import VOLUMES
from .graph import indexings, lazy_variables
from .index import GUARD, GuardIndex

DIMS = ("section", "y", "x")

_LONG_NAMES = {"p": "p (posterior)", "i": "i (inferior)", "r": "r (right)"}


@runtime_checkable
class Placed(Protocol):
    """A lazy array whose pixels lie on sections, and that knows where."""

    @property
    def table(self) -> SectionTable:
        """The sections that were opened, in the order of the stack."""

    def points(self) -> tuple[npt.NDArray[np.int64], Array]:
        """Return image ids, and for each the affine from (x, y, 1) to p, i, r.

        x and y are those of the array's coordinates: microns, or pixels.
        """


@dataclass(frozen=True, slots=True, eq=False)
class SectionPoints:
    """Where the pixels of an object lie: everything but the arithmetic.

    Parameters
    ----------
    affines
        Shape (sections, 3, 3): from (x, y, 1) to p, i, r.
    y, x
        Shape (rows,) and (columns,): the coordinates of rows and columns.
    dims
        Which of ``section``, ``y``, ``x`` are dimensions of the object; along the others it has
        one place.
    """

    affines: Array
    y: Array
    x: Array
    dims: tuple[str, ...]


def pir(obj: xr.DataArray | xr.Dataset) -> xr.Dataset:
    """Return the exact p, i, r of every pixel of opened sections, lazily.

    Parameters
    ----------
    obj
        What `atldld.open_dataarray`, `atldld.open_dataset` or `atldld.open_image` gave, after
        any selection; not yet computed. Or a volume: its one-dimensional coordinates p, i and r
        are the places of its voxels, and are returned.

    Returns
    -------
    xarray.Dataset
        ``p``, ``i``, ``r``: float64, microns, dask arrays over those of ``section``, ``y`` and
        ``x`` that `obj` has, chunked as it is. With ``mapping="oblique"`` the two coordinates of
        the grid are as they are and the third lies on the tilted section; with ``"parallel"``
        all three are those of the pixel that is shown.

        The places of the grid have the same names in `obj` and are left out here; ``section``,
        ``y`` and ``x`` are kept.

    Raises
    ------
    ValueError
        If the object holds no reader (its values are in memory, or come from elsewhere), or does
        not say which sections, rows and columns it shows.
    """
    if is_volume(obj):
        dataset = obj._to_temp_dataset() if isinstance(obj, xr.DataArray) else obj
        return dataset.coords.to_dataset()[list(AXES)]
    points = section_points(obj)
    lengths = {"section": len(points.affines), "y": len(points.y), "x": len(points.x)}
    sizes = {name: _chunks(obj, name, lengths[name]) for name in points.dims}
    absent = {name: 0 for name in DIMS if name not in points.dims}
    variables = {}
    for place, axis in enumerate(AXES):
        array = PointArray(points, place)
        attrs = {"long_name": _LONG_NAMES[axis], "units": "µm"}
        lazy = xr.Variable(DIMS, indexing.LazilyIndexedArray(array), attrs).isel(absent)
        variables[axis] = lazy.chunk(sizes, inline_array=False)
    dataset = obj._to_temp_dataset() if isinstance(obj, xr.DataArray) else obj
    coords = dataset.coords.to_dataset()[[name for name in DIMS if name in dataset.coords]]
    return coords.assign(variables)


def is_volume(obj: xr.DataArray | xr.Dataset) -> bool:
    """Whether an object lies in reference space by its coordinates p, i and r alone."""
    guard = obj.xindexes.get(GUARD)
    return isinstance(guard, GuardIndex) and guard.frame.startswith(VOLUMES)


class PointArray(BackendArray):
    """One of p, i, r of every pixel, computed when it is indexed.

    Parameters
    ----------
    points
        Where the pixels lie.
    axis
        Which of p, i, r.

    Notes
    -----
    Shape (sections, rows, columns), float64.
    """

    def __init__(self, points: SectionPoints, axis: int) -> None:
        self.points = points
        self.axis = axis
        self.shape = (len(points.affines), len(points.y), len(points.x))
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return index_outer(key, self.shape, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> Array:
        sections, rows, columns = (
            np.atleast_1d(values[part])
            for values, part in zip(
                (np.arange(self.shape[0]), self.points.y, self.points.x), key, strict=True
            )
        )
        affine = self.points.affines[sections, self.axis][:, None, None]
        along, down, shift = (affine[..., place] for place in range(3))
        out = along * columns + down * rows[:, None] + shift
        return np.asarray(out[tuple(slice(None) if _keeps_axis(part) else 0 for part in key)])

    def __dask_tokenize__(self) -> Hashable:
        from dask.tokenize import tokenize

        points = self.points
        return type(self).__name__, self.axis, tokenize(points.affines, points.y, points.x)


def _keeps_axis(part: Any) -> bool:
    return isinstance(part, slice) or np.ndim(part) > 0


def section_points(obj: xr.DataArray | xr.Dataset) -> SectionPoints:
    """Return where the pixels of an object lie, found by the readers that it holds.

    Raises
    ------
    ValueError
        As `pir`.
    """
    known: dict[int, Array] = {}
    found = False
    for reader in readers(obj):
        found = True
        images, affines = reader.points()
        for image, affine in zip(images.tolist(), affines, strict=True):
            other = known.setdefault(image, affine)
            if not np.array_equal(other, affine):
                raise ValueError(
                    f"image {image} lies in two places in this object: it mixes arrays that were "
                    "opened with different mapping= or reference_space="
                )
    if not found:
        raise ValueError(
            "this object holds no sections whose place is known: its values are in memory, or "
            "they do not come from atldld. Ask before compute() or load(), on what "
            "open_dataarray or open_dataset gave"
        )
    places = {}
    for name in ("image_id", "y", "x"):
        if name not in obj.coords or obj.coords[name].ndim > 1:
            raise ValueError(
                f"this object does not say which {name} it shows: the coordinate {name!r} was lost"
            )
        places[name] = np.atleast_1d(obj.coords[name].values)
    try:
        affines = np.array([known[int(image)] for image in places["image_id"]])
    except (KeyError, ValueError):
        raise ValueError(
            "this object shows images that its readers do not know: image_id was changed"
        ) from None
    return SectionPoints(
        affines.reshape(-1, 3, 3),
        places["y"].astype(np.float64),
        places["x"].astype(np.float64),
        tuple(name for name in DIMS if name in obj.dims),
    )


def readers(obj: xr.DataArray | xr.Dataset) -> list[Placed]:
    """Return the arrays of sections in an object's dask graph and lazy variables, each once."""
    found: dict[int, Placed] = {}
    held = (data for data, _ in indexings(obj, optimized=False))
    for data in (*lazy_variables(obj), *held):
        reader = _unwrapped(data)
        if reader is not None:
            found[id(reader)] = reader
    return list(found.values())


def _unwrapped(data: Any) -> Placed | None:
    """Return the array of sections below xarray's layers of lazy indexing, or None."""
    layers = indexing.ExplicitlyIndexed | indexing.ImplicitToExplicitIndexingAdapter
    while isinstance(data, layers) and not isinstance(data, BackendArray):
        data = getattr(data, "array", None)
    return data if isinstance(data, BackendArray) and isinstance(data, Placed) else None


def _chunks(obj: xr.DataArray | xr.Dataset, name: str, length: int) -> tuple[int, ...]:
    """Return the chunks of a dimension: the object's own, or some that are small."""
    if name in obj.dims and name in obj.chunksizes:
        return tuple(obj.chunksizes[name])
    most = 1 if name == "section" else 2048
    whole, rest = divmod(length, most)
    return (most,) * whole + ((rest,) if rest or not whole else ())


COLUMNS = (
    "section_number", "image_id", "slice_axis", "normal_p", "normal_i", "normal_r", "tilt",
    "slice_low", "slice_high", "before", "after", "outside",
)  # fmt: skip


def geometry_table(obj: xr.DataArray | xr.Dataset) -> pd.DataFrame:
    """Return how the sections of an object lie; see `AtlasAccessor.geometry`."""
    bounds = extent(_space(obj))
    known: dict[int, dict[str, Any]] = {}
    held = readers(obj)
    for table in (reader.table for reader in held):
        for row in _rows(table, bounds):
            other = known.setdefault(row["image_id"], row)
            if not _alike(row, other):
                raise ValueError(
                    f"image {row['image_id']} lies in two places in this object, or has other "
                    "neighbours: it mixes arrays that were opened with different mapping=, "
                    "reference_space= or region="
                )
    if not held:
        raise ValueError(
            "this object holds no sections whose place is known: its values are in memory, or "
            "they do not come from atldld. Ask before compute() or load(), on what was opened"
        )
    rows = []
    for image in _images(obj):
        if image not in known:
            raise ValueError(
                "this object shows images that its readers do not know: image_id was changed"
            )
        rows.append(known[image])
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(table: SectionTable, bounds: tuple[float, float, float] | None) -> list[dict[str, Any]]:
    found = geometry(pixel_points(table), table.width, table.height, bounds)
    columns: dict[str, npt.NDArray[Any]] = {
        "section_number": table.section_number,
        "image_id": table.image_id,
        "slice_axis": np.full(len(table), AXES[found.axis], dtype=object),
        **{f"normal_{axis}": found.normal[:, place] for place, axis in enumerate(AXES)},
        "tilt": found.tilt,
        "slice_low": found.low,
        "slice_high": found.high,
        "before": found.before,
        "after": found.after,
        "outside": found.outside,
    }
    values = zip(*(columns[name].tolist() for name in COLUMNS), strict=True)
    return [dict(zip(COLUMNS, row, strict=True)) for row in values]


def _alike(row: dict[str, Any], other: dict[str, Any]) -> bool:
    # NaN, for no neighbour, is not equal to itself.
    return repr(row) == repr(other)


def _images(obj: xr.DataArray | xr.Dataset) -> list[int]:
    if "image_id" not in obj.coords or obj.coords["image_id"].ndim > 1:
        raise ValueError(
            "this object does not say which image_id it shows: the coordinate 'image_id' was lost"
        )
    return [int(image) for image in np.atleast_1d(obj.coords["image_id"].values)]


def _space(obj: xr.DataArray | xr.Dataset) -> int | Literal["CCFv3"] | None:
    """Return the reference space by the coordinate that keeps spaces apart, or None."""
    if GUARD not in obj.coords or obj.coords[GUARD].ndim:
        return None
    space: int | Literal["CCFv3"] = obj.coords[GUARD].item()
    return space
