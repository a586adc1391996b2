"""Where the pixels and the sections of an object lie, whatever was done to it; selecting by place.

Which sections an object shows is told by its coordinate ``image_id``, which of their rows and
columns by ``y`` and ``x``; where these lie, by the readers in its dask graph or lazy variable and,
also once its values are in memory, by the guard of its reference space. Attributes are not asked:
they outlive arithmetic that makes them untrue.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from ..model.affine import Array, points_of
from ..model.bend import BendSource
from ..model.geometry import geometry, pixel_points
from ..model.sections import LEAST_DISTANCE, SectionTable
from ..model.space import AXES, extent
from ..reading.reader import LazyArray, index_outer, places, squeezed
from .base import VOLUMES
from .index import DIM, GUARD, GuardIndex, ImagePlaces, in_a_row, space_in
from .internals import as_dataset, below, indexings, lazy_variables

DIMS = ("section", "y", "x")
_SHOWN = ("image_id", "y", "x")
_UNKNOWN = "this object shows images that its readers do not know: image_id was changed"

T = TypeVar("T", xr.DataArray, xr.Dataset)

_LONG_NAMES = {"p": "p (posterior)", "i": "i (inferior)", "r": "r (right)"}


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
    bends
        Of an object whose x and y are pixels, for each section: where its bend comes from, or None
        for a straight one. Empty for all others: their places follow from the grid.
    """

    affines: Array
    y: Array
    x: Array
    dims: tuple[str, ...]
    bends: tuple[BendSource | None, ...] = ()

    def pixels(
        self, sections: npt.NDArray[Any], rows: Array, columns: Array
    ) -> tuple[Array, Array]:
        """Return x and y, straight, of pixels over (sections, rows, columns), or to broadcast."""
        if not any(self.bends):
            return columns, rows[:, None]
        x, y = np.broadcast_arrays(columns, rows[:, None])
        found = []
        for section in sections:
            source = self.bends[section]
            bend = None if source is None else source.load()
            found.append((x, y) if bend is None else bend.to_straight(x, y))
        return np.stack([x for x, _ in found]), np.stack([y for _, y in found])

    def along(self, axis: int, sections: npt.NDArray[Any], x: Array, y: Array) -> Array:
        """Return one of p, i, r of straight pixels, shape (sections, rows, columns)."""
        affine = self.affines[sections, axis][:, None, None]
        return np.asarray(affine[..., 0] * x + affine[..., 1] * y + affine[..., 2])

    def straight(self) -> SectionPoints:
        """Return the same, if it is of an object that is straight.

        Raises
        ------
        ValueError
            If a section is bent: its pixels lie on no lattice.
        """
        if any(self.bends):
            raise ValueError(
                "these are the pixels of a bent section, which lie on no even lattice in space: "
                ".atlas.pir() gives the place of each, and open_dataarray the section unbent"
            )
        return self

    def part(self, key: tuple[slice, slice, slice]) -> SectionPoints:
        """Return the places of a part, which is straight."""
        return SectionPoints(self.affines[key[0]], self.y[key[1]], self.x[key[2]], self.dims)

    def plane(self, number: int, rows: slice) -> tuple[Array, Array, Array]:
        """Return p, i, r of some rows of one section, which is straight."""
        return points_of(self.affines[number], self.x[None, :], self.y[rows, None])


EXACT = "exact_"
"""What the names of exact places begin with beside the coordinates p, i and r."""


def with_pir(obj: T) -> T:
    """Return an object with its exact places as coordinates; see `AtlasAccessor.with_pir`."""
    exact = pir(obj, prefix=EXACT)
    return obj.assign_coords({name: exact[name].variable for name in exact.data_vars})


def pir(obj: xr.DataArray | xr.Dataset, prefix: str = "") -> xr.Dataset:
    """Return the exact p, i, r of every pixel of opened sections, lazily.

    Parameters
    ----------
    obj
        What `atldld.open_dataarray`, `atldld.open_dataset` or `atldld.open_image` gave, after
        any selection. Or a volume: its one-dimensional coordinates p, i and r are the places of
        its voxels, and are returned.
    prefix
        What the names of the three begin with.

    Returns
    -------
    xarray.Dataset
        ``p``, ``i``, ``r``: float64, microns, dask arrays over those of ``section``, ``y`` and
        ``x`` that `obj` has, chunked as it is. With ``mapping="oblique"`` the two coordinates of
        the grid are as they are and the third lies on the tilted section; with ``"parallel"``
        all three are those of the pixel that is shown.

        The places of the grid have the same names in `obj` and are left out here; ``section``,
        ``y``, ``x`` and the reference space are kept.

    Raises
    ------
    ValueError
        If the object does not know where its sections lie (it comes from elsewhere, or from a
        file), or does not say which sections, rows and columns it shows.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix is {prefix!r}; it must be text, such as 'exact_'")
    if is_volume(obj):
        voxels = as_dataset(obj).coords.to_dataset()
        voxels = voxels.drop_vars(set(voxels.coords) - {*AXES, GUARD})
        if not prefix:
            return voxels
        return voxels.assign(
            {f"{prefix}{axis}": voxels[axis].variable.to_base_variable() for axis in AXES}
        )
    points = section_points(obj)
    lengths = {"section": len(points.affines), "y": len(points.y), "x": len(points.x)}
    sizes = {name: _chunks(obj, name, lengths[name]) for name in points.dims}
    absent = {name: 0 for name in DIMS if name not in points.dims}
    variables = {}
    for place, axis in enumerate(AXES):
        array = PointArray(points, place)
        attrs = {"long_name": _LONG_NAMES[axis], "units": "µm"}
        lazy = xr.Variable(DIMS, indexing.LazilyIndexedArray(array), attrs).isel(absent)
        variables[f"{prefix}{axis}"] = lazy.chunk(sizes, inline_array=False)
    coords = as_dataset(obj).coords.to_dataset()
    coords = coords.drop_vars(set(coords.variables) - {*DIMS, GUARD})
    return coords.assign(variables)


def array_in(obj: Any, done: str) -> xr.DataArray:
    """Return the array that an object stands for: itself; of a Dataset its ``image``, or its one.

    Parameters
    ----------
    obj
        What a user gave.
    done
        What is to be done with it, for messages: ``"drawn"``.

    Raises
    ------
    TypeError, ValueError
        If it is none, or several.
    """
    if isinstance(obj, xr.DataArray):
        return obj
    if not isinstance(obj, xr.Dataset):
        raise TypeError(
            f"{type(obj).__name__} cannot be {done}; it must be a DataArray or a Dataset"
        )
    names = ["image"] if "image" in obj.data_vars else list(obj.data_vars)
    if len(names) != 1:
        raise ValueError(
            f"the dataset has no variable 'image': choose one of {', '.join(map(str, names))}"
        )
    return obj[names[0]]


def axes_along(array: xr.DataArray) -> dict[tuple[Hashable, ...], str]:
    """Return which of p, i, r lies along which dimensions of an array; ``()`` is a scalar."""
    return {array.coords[axis].dims: axis for axis in AXES if axis in array.coords}


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
        sections, rows, columns = places(key, self.shape)
        at = self.points.pixels(sections, self.points.y[rows], self.points.x[columns])
        return np.asarray(squeezed(self.points.along(self.axis, sections, *at), key))

    def __dask_tokenize__(self) -> Hashable:
        from dask.tokenize import tokenize

        points = self.points
        keys = tuple(None if bend is None else bend.key for bend in points.bends)
        return type(self).__name__, self.axis, tokenize(points.affines, points.y, points.x), keys


def section_points(obj: xr.DataArray | xr.Dataset) -> SectionPoints:
    """Return where the pixels of an object lie.

    Raises
    ------
    ValueError
        As `pir`.
    """
    known: dict[int, tuple[Array, int]] = {}
    bends: dict[int, BendSource] = {}
    for each in _known(obj):
        numbers = dict(zip(each.table.image_id.tolist(), each.table.section_number, strict=True))
        bends.update(each.pixel_bends)
        for image, affine in zip(each.images.tolist(), each.affines, strict=True):
            other, _ = known.setdefault(image, (affine, int(numbers[image])))
            if other is not affine and not np.array_equal(other, affine):
                raise ValueError(
                    f"image {image} lies in two places in this object: it mixes arrays that were "
                    "opened with different mapping=, registration= or reference_space="
                )
    images, y, x = (_shown(obj, name, dim) for name, dim in zip(_SHOWN, DIMS, strict=True))
    if any(image not in known for image in images.tolist()):
        raise ValueError(_UNKNOWN)
    _check_labels(obj, [known[image][1] for image in images.tolist()], y, x)
    return SectionPoints(
        np.array([known[image][0] for image in images.tolist()]).reshape(-1, 3, 3),
        y.astype(np.float64),
        x.astype(np.float64),
        tuple(name for name in DIMS if name in obj.dims),
        tuple(bends.get(image) for image in images.tolist()) if bends else (),
    )


def _shown(obj: xr.DataArray | xr.Dataset, name: str, dim: str) -> npt.NDArray[Any]:
    """Return the values of a coordinate that says what is shown along a dimension."""
    if name not in obj.coords:
        raise ValueError(
            f"this object does not say which {name} it shows: the coordinate {name!r} was lost"
        )
    dims = obj.coords[name].dims
    if dims not in ((), (dim,)):
        raise ValueError(
            f"{name} of this object lies along {', '.join(map(repr, dims))}, not along {dim!r}: "
            "its places can be told before arrays are put together or dimensions are stacked"
        )
    return np.atleast_1d(obj.coords[name].values)


def _check_labels(
    obj: xr.DataArray | xr.Dataset, numbers: list[int], y: npt.NDArray[Any], x: npt.NDArray[Any]
) -> None:
    """Refuse an object whose coordinates do not belong together any more."""
    if "section" in obj.coords and obj.coords["section"].dims in ((), ("section",)):
        shown = np.atleast_1d(obj.coords["section"].values)
        if shown.shape != (len(numbers),) or not np.array_equal(shown, numbers):
            raise ValueError(
                "the section numbers of this object are not those of its images: one of them was "
                "changed"
            )
    for dim, values in (("y", y), ("x", x)):
        for axis in AXES:
            if axis in obj.coords and obj.coords[axis].dims == (dim,):
                copy = obj.coords[axis].values
                if not np.allclose(copy, values, rtol=1e-9, atol=1e-6):
                    raise ValueError(
                        f"{dim} and {axis} of this object no longer agree: one of them was "
                        "changed, and its places follow from both"
                    )


def _known(obj: xr.DataArray | xr.Dataset) -> list[ImagePlaces]:
    """Return what knows where sections of an object lie, or refuse where nothing does."""
    found = known_places(obj)
    guard = obj.xindexes.get(GUARD)
    if not found and isinstance(guard, GuardIndex) and guard.places:
        raise ValueError(
            "the place of these values in memory is not sure: sections of their dataset were "
            "combined with sections that lie in two places, opened with another mapping=, "
            "registration= or reference_space=. Open the dataset anew, or ask before compute()"
        )
    if not found:
        raise ValueError(
            "this object holds no sections whose place is known: it does not come from atldld, or "
            "it was read from a file, or lost its guard (the coordinate 'reference_space') on the "
            "way. Ask what open_dataarray or open_dataset gave"
        )
    return found


def known_places(obj: xr.DataArray | xr.Dataset) -> list[ImagePlaces]:
    """Return where sections lie, by graph, lazy variables and guard, each once."""
    found: dict[int, ImagePlaces] = {}
    held = (data for data, _ in indexings(obj, optimized=False))
    for data in (*lazy_variables(obj), *held):
        array = below(data, _says_places)
        if array is not None and id(array) not in found:
            found[id(array)] = array.image_places
    guard = obj.xindexes.get(GUARD)
    if isinstance(guard, GuardIndex):
        found.update({id(each): each for each in guard.places if not each.contradicted})
    return list(found.values())


def _says_places(data: Any) -> bool:
    return isinstance(data, LazyArray) and getattr(data, "image_places", None) is not None


def _chunks(obj: xr.DataArray | xr.Dataset, name: str, length: int) -> tuple[int, ...]:
    """Return the chunks of a dimension: the object's own, or some that are small."""
    if name in obj.dims and name in obj.chunksizes:
        return tuple(obj.chunksizes[name])
    most = 1 if name == "section" else 2048
    whole, rest = divmod(length, most)
    return (most,) * whole + ((rest,) if rest or not whole else ())


def geometry_table(obj: xr.DataArray | xr.Dataset) -> pd.DataFrame:
    """Return how the sections of an object lie; see `AtlasAccessor.geometry`."""
    bounds = extent(space_in(obj))
    tables = {id(each.table): each.table for each in _known(obj)}
    rows = pd.concat([_rows(table, bounds) for table in tables.values()]).drop_duplicates()
    twice = rows["image_id"][rows["image_id"].duplicated()]
    if len(twice):
        raise ValueError(
            f"image {twice.iloc[0]} lies in two places in this object, or has other neighbours: it "
            "mixes arrays that were opened with different mapping=, reference_space= or region="
        )
    chosen = pd.Index(rows["image_id"]).get_indexer(pd.Index(_shown(obj, "image_id", "section")))
    if (chosen < 0).any():
        raise ValueError(_UNKNOWN)
    shown: pd.DataFrame = rows.iloc[chosen].reset_index(drop=True)
    return shown


def _rows(table: SectionTable, bounds: tuple[float, float, float] | None) -> pd.DataFrame:
    named = {"section_number": table.section_number, "image_id": table.image_id}
    return pd.DataFrame(named | geometry(pixel_points(table), table.width, table.height, bounds))


def places_at(
    obj: xr.DataArray | xr.Dataset, wanted: Mapping[str, Any]
) -> dict[Hashable, int | slice | npt.NDArray[np.intp]]:
    """Return what to select along each dimension; see `AtlasAccessor.at`."""
    chosen: dict[Hashable, int | slice | npt.NDArray[np.intp]] = {}
    for axis, where in wanted.items():
        if axis not in AXES:
            raise ValueError(f"{axis!r} is not an axis of reference space: use p, i or r")
        if axis not in obj.coords or obj.coords[axis].ndim != 1:
            raise ValueError(f"there is no {axis} to select by: it is already selected or lost")
        (dim,) = obj.coords[axis].dims
        values = obj.coords[axis].values
        if len(values) == 0:
            raise KeyError(f"{axis}={where!r}: there is nothing to select from")
        if isinstance(where, slice):
            chosen[dim] = _inside(values, where, axis)
        else:
            chosen[dim] = _nearest(values, where, axis, _lone_reach(obj, dim))
    return chosen


def _inside(values: npt.NDArray[Any], wanted: slice, axis: str) -> slice | npt.NDArray[np.intp]:
    if wanted.step is not None:
        raise ValueError(f"{axis}: a slice of reference coordinates has no step")
    low = -np.inf if wanted.start is None else _number(wanted.start, axis)
    high = np.inf if wanted.stop is None else _number(wanted.stop, axis)
    if low > high:
        raise ValueError(f"{axis}: the slice ends at {high:g}, before it starts at {low:g}")
    found = np.flatnonzero((values >= low) & (values <= high))
    if len(found) == 0:
        raise KeyError(f"{axis} from {low:g} to {high:g} holds nothing; {_there(values)}")
    return in_a_row(found)


def _nearest(values: npt.NDArray[Any], wanted: Any, axis: str, lone_reach: float) -> int:
    target = _number(wanted, axis)
    if not np.isfinite(target):
        raise KeyError(f"{axis}={wanted!r} is no place; {_there(values)}")
    place = int(np.argmin(np.abs(values - target)))
    reach = _half_gap(values, place, lone_reach)
    # A grid point may lie half a step off by rounding.
    if abs(values[place] - target) > reach * (1 + 1e-9):
        raise KeyError(
            f"{axis}={target:g}: the nearest is at {values[place]:g}, more than {reach:g} microns "
            f"(half a gap) off; {_there(values)}"
        )
    return place


def _there(values: npt.NDArray[Any]) -> str:
    if len(values) == 1:
        return f"there is one, at {values[0]:g}"
    return f"there are {len(values)} from {values.min():g} to {values.max():g}"


def _number(value: Any, axis: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{axis} is too large; it must be a number of microns") from None


def _half_gap(values: npt.NDArray[Any], place: int, lone: float) -> float:
    """Return half the larger of the gaps to the neighbours, in microns."""
    ordered = np.sort(values)
    at = int(np.searchsorted(ordered, values[place]))
    gaps = np.diff(ordered[max(at - 1, 0) : at + 2])
    return float(gaps.max()) / 2 if len(gaps) else lone


def _lone_reach(obj: xr.DataArray | xr.Dataset, dim: Hashable) -> float:
    """Return from how far off the only place along a dimension is taken, in microns."""
    if dim != DIM:
        step = obj.attrs.get("resolution_microns")
        return float(step) / 2 if isinstance(step, int | float) else LEAST_DISTANCE
    guard = obj.xindexes.get(GUARD)
    if isinstance(guard, GuardIndex) and "image_id" in obj.coords:
        image = obj.coords["image_id"].values.ravel()
        for each in guard.places:
            rows = np.flatnonzero(np.isin(each.table.image_id, image))
            if len(rows):
                along = each.table.slice_coordinate
                return _half_gap(along, int(rows[0]), LEAST_DISTANCE)
    return LEAST_DISTANCE
