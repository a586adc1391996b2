"""Numbers per structure: tables, structures of points, bounds."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..arrays.internals import read_when_indexed
from ..arrays.lookup import Space, annotated_space, lookup_of, space_of, voxels_of
from ..arrays.ontology import structure_ids, tree_of
from ..arrays.positions import DIMS, section_points
from ..errors import AtldldWarning
from ..model.space import AXES
from .annotation import atlas_attributes
from .points import points_array
from .sums import Places, VolumePlaces, frame_of, sums_of

_CARRIED = ("dataset_id", "gene", "hemisphere", "registration", "resampled", "citation")


def structure_table(
    values: xr.DataArray | xr.Dataset,
    annotation: xr.DataArray,
    weights: xr.DataArray | None = None,
    structures: Iterable[int | str] | None = None,
    tree: Any = None,
    by_hemisphere: bool = False,
) -> pd.DataFrame:
    """Return the mean, sum and coverage of values in every structure of an atlas.

    Every point counts for the structure of the annotation's voxel that is nearest to its exact
    place: for tilted sections its place on the section, not the section's one coordinate. Dask
    arrays are read chunk by chunk, each chunk once, in bounded memory.

    Parameters
    ----------
    values
        A volume over p, i, r, or sections over section, y, x as opened (before ``compute()``),
        after any selection or arithmetic that keeps their coordinates. NaN does not count. A
        Dataset of one variable stands for it.
    annotation
        From `open_annotation`. Where one of the two lies in space 9 and the other in 10, places
        are flipped, exactly.
    weights
        Of the values, broadcast against them, not negative; 0 and NaN leave a value out. The
        coverage of an opened dataset (``covered``) will do; so will pixels per cell.
    structures
        The rows wanted, in their order, by id, acronym or name; by default all that a point
        lies in.
    tree
        Who is part of whom (see Notes): then every structure counts its parts as well. None
        for what the annotation says: Allen's ontology, where it was opened by name, and no tree
        for a file. False for none: every structure counts the voxels of its own label alone.
    by_hemisphere
        Whether to tell the sides of the atlas apart, at the plane that its labels mirror each
        other about (``midline_r``; where they do not say, r = 5700, which is 5650 in space 10).
        In space 10, r is mirrored, and left is where sagittal sections were cut.

    Returns
    -------
    pandas.DataFrame
        A row for each ``structure_id`` (the index; with it ``hemisphere``, and any other
        dimension of the values, such as ``channel``). ``size``: points of the grid in the
        structure; ``count``: of those, the ones that have a value; ``covered``: their share;
        ``mean``: weighted; ``sum``: of weight times value; with weights also ``weight``, their
        sum; with a tree also ``acronym`` and ``name``. Atlas, version, space and origin of the
        annotation are in ``attrs``.

    Raises
    ------
    ValueError, TypeError
        If values and annotation cannot be put together; the message says why.

    Warns
    -----
    AtldldWarning
        If labels of CCFv3 are laid over data of the 2011 space or the other way round; if the
        values may hold filling: they were opened without ``masked=True``, and none is missing.

    Notes
    -----
    A tree is what `atldld.structures` returned, another pandas frame with ``id`` and
    ``parent_structure_id``, or Allen's JSON of a structure graph, loaded or as a path.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> nodes = {"p": np.arange(3) * 200.0, "i": [0.0, 200.0], "r": [0.0, 200.0]}
    >>> ids = np.array([[[0, 7], [7, 7]], [[8, 8], [8, 8]], [[8, 8], [8, 0]]])
    >>> annotation = xr.DataArray(ids, nodes, attrs={"reference_space": 9})
    >>> energy = annotation.astype(float).where(annotation.p < 400)
    >>> structure_table(energy, annotation, tree=[{"id": 8, "children": [{"id": 7}]}])[
    ...     ["size", "count", "covered", "mean", "sum"]]  # doctest: +NORMALIZE_WHITESPACE
                  size  count  covered      mean   sum
    structure_id
    7                3      3      1.0  7.000000  21.0
    8               10      7      0.7  7.571429  53.0
    """
    array = _one_array(values)
    space = space_of(array, "the values")
    lookup = lookup_of(annotation, space)
    places, dims = _places(array)
    grown = tree_of(annotation, tree)
    wanted = None if structures is None else structure_ids(structures, grown)
    may_hold_filling = weights is None and "value_where_not_covered" in array.attrs
    whole = array.dtype.kind in "iu"
    if may_hold_filling and whole:
        _warn_of_filling()
    absent = [dim for dim in dims if dim not in array.dims]
    others = [dim for dim in array.dims if dim not in dims]
    full = array.variable.set_dims({dim: array.sizes.get(dim, 1) for dim in (*absent, *array.dims)})
    full = _chunked(full.transpose(*dims, *others), array)
    heavy = None
    if weights is not None:
        heavy = _weights(weights, array, full)
    sums = sums_of(full.data, heavy, places, lookup, 2 if by_hemisphere else 1)
    levels = [(str(dim), _labels_of(array, dim)) for dim in others]
    table = frame_of(sums, lookup, wanted, grown, levels, by_hemisphere, weights is not None)
    # A mean over channels is no whole number any more, but filling is in it.
    if may_hold_filling and not whole and len(table) and (table["count"] == table["size"]).all():
        _warn_of_filling()
    table.attrs = {
        "values": str(array.name or ""),
        **{name: array.attrs[name] for name in _CARRIED if name in array.attrs},
        "values_space": space,
        **atlas_attributes(annotation),
    }
    return table


def _warn_of_filling() -> None:
    warnings.warn(
        "the values were opened without masked=True, so that filling cannot be told from tissue: "
        "open with masked=True, or pass weights= (the coverage of open_dataset)",
        AtldldWarning,
        stacklevel=3,
    )


@overload
def structures_at(
    points: xr.Dataset, annotation: xr.DataArray, *, reference_space: Space | None = None
) -> xr.DataArray: ...


@overload
def structures_at(
    points: Any, annotation: xr.DataArray, *, reference_space: Space | None = None
) -> npt.NDArray[np.int64]: ...


def structures_at(
    points: Any,
    annotation: xr.DataArray,
    *,
    reference_space: Space | None = None,
) -> Any:
    """Return the structure that each of some points lies in.

    Parameters
    ----------
    points
        p, i, r in microns: an array of shape (N, 3), or a pandas frame with these columns. Or a
        Dataset of them over any dimensions, as ``.atlas.pir()`` gives.
    annotation
        From `open_annotation`.
    reference_space
        The space of the points: 9, 10 or ``"CCFv3"``. None for the one that a Dataset says, else
        for the annotation's own; r of the other one of 9 and 10 is flipped, exactly.

    Returns
    -------
    structure_id
        Shape (N,), int64: the label of the nearest voxel; 0 outside, and where a coordinate is
        not a number. Of a Dataset a DataArray over its dimensions, lazy as it is.

    Warns
    -----
    AtldldWarning
        If one of the two is CCFv3 and the other Allen's 2011 space.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> nodes = {"p": [0.0, 200.0], "i": [0.0, 200.0], "r": [0.0, 200.0]}
    >>> annotation = xr.DataArray(np.arange(8).reshape(2, 2, 2), nodes,
    ...                           attrs={"reference_space": 9})
    >>> structures_at([[190, 0, 120], [190, 0, 5000]], annotation)
    array([5, 0])
    """
    space = None if reference_space is None else annotated_space(reference_space)
    if isinstance(points, xr.Dataset):
        return _structures_of(points, annotation, space)
    where = points_array(points)
    found = voxels_of(annotation, space).at(where[:, 0], where[:, 1], where[:, 2])
    return found.astype(np.int64)


def _structures_of(
    points: xr.Dataset, annotation: xr.DataArray, space: Space | None
) -> xr.DataArray:
    missing = [axis for axis in AXES if axis not in points.variables]
    if missing:
        raise ValueError(f"points lack {', '.join(missing)}; .atlas.pir() gives them")
    voxels = voxels_of(annotation, space_of(points, "the points") if space is None else space)
    found: xr.DataArray = xr.apply_ufunc(
        voxels.at,
        *(points[axis] for axis in AXES),
        dask="parallelized",
        output_dtypes=[voxels.values.dtype],
        keep_attrs=False,
    )
    return found.astype(np.int64).rename("structure_id").assign_attrs(long_name="structure")


def structure_bounds(
    structure: int | str, annotation: xr.DataArray, tree: Any = None
) -> dict[str, tuple[float, float]]:
    """Return the box around a structure, as a ``region`` for `open_dataarray`.

    Parameters
    ----------
    structure
        Its id, acronym or name.
    annotation
        From `open_annotation`; open data with ``reference_space=`` its own, as the region is
        meant in it.
    tree
        As for `structure_table`: with one, its parts count as well.

    Returns
    -------
    region
        ``{"p": (low, high), "i": ..., "r": ...}`` in microns: the outer faces of its outermost
        voxels, on both sides of the brain.

    Raises
    ------
    KeyError
        If the annotation has no voxel of it.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> nodes = {"p": [0.0, 200.0], "i": [0.0, 200.0], "r": [0.0, 200.0]}
    >>> annotation = xr.DataArray(np.arange(8).reshape(2, 2, 2), nodes,
    ...                           attrs={"reference_space": 9})
    >>> structure_bounds(6, annotation)
    {'p': (100.0, 300.0), 'i': (100.0, 300.0), 'r': (-100.0, 100.0)}
    """
    lookup = lookup_of(annotation, None)
    grown = tree_of(annotation, tree)
    (number,) = structure_ids([structure], grown)
    wanted = {number}
    if grown is not None:
        wanted |= {int(each) for each in lookup.ids if number in grown.line(int(each))}
    codes = np.flatnonzero(np.isin(lookup.ids, sorted(wanted)) & (lookup.ids != 0))
    seen = [np.zeros(count, dtype=bool) for count in lookup.voxels.values.shape]
    for place, slab in enumerate(lookup.voxels.values):
        mine = np.isin(slab, codes)
        seen[0][place] = mine.any()
        seen[1] |= mine.any(axis=1)
        seen[2] |= mine.any(axis=0)
    if not seen[0].any():
        hint = "" if grown is not None else "; if it has parts, pass tree="
        raise KeyError(f"the annotation has no voxel of structure {structure}{hint}")
    region = {}
    for axis, flags, first, step in zip(
        AXES, seen, lookup.voxels.first, lookup.voxels.step, strict=True
    ):
        numbers = np.flatnonzero(flags)
        region[axis] = (
            float(first + (numbers[0] - 0.5) * step),
            float(first + (numbers[-1] + 0.5) * step),
        )
    return region


def _one_array(values: Any) -> xr.DataArray:
    if isinstance(values, xr.Dataset):
        if len(values.data_vars) != 1:
            names = ", ".join(map(str, values.data_vars))
            raise TypeError(f"values is a Dataset of several variables: choose one of {names}")
        (values,) = values.data_vars.values()
    if not isinstance(values, xr.DataArray):
        raise TypeError(f"values is {type(values).__name__}; it must be a DataArray")
    if values.dtype.kind not in "biuf":
        raise TypeError(f"values are of dtype {values.dtype}; they must be numbers")
    return values


def _places(array: xr.DataArray) -> tuple[Places, tuple[str, str, str]]:
    """Return where the points of an array lie, and along which three dimensions."""
    if any(dim in array.dims for dim in DIMS):
        return section_points(array).straight(), DIMS
    if not any(axis in array.dims for axis in AXES):
        raise ValueError(
            f"values have dims {array.dims}; they must be sections (section, y, x) or a volume "
            "(p, i, r)"
        )
    along = []
    for axis in AXES:
        if axis not in array.coords or array.coords[axis].ndim > 1:
            raise ValueError(f"values do not say where they lie: the coordinate {axis!r} is lost")
        along.append(np.atleast_1d(array.coords[axis].values).astype(np.float64))
    return VolumePlaces(*along), AXES


def _chunked(full: xr.Variable, array: xr.DataArray) -> xr.Variable:
    """Return a variable that is read piece by piece where it is not in memory."""
    if not read_when_indexed(array):
        return full
    sizes = array.encoding.get("preferred_chunks", {})
    return full.chunk({dim: sizes[dim] for dim in full.dims if dim in sizes})


def _weights(weights: Any, array: xr.DataArray, full: xr.Variable) -> Any:
    if not isinstance(weights, xr.DataArray):
        raise TypeError(f"weights is {type(weights).__name__}; it must be a DataArray")
    extra = set(weights.dims) - set(array.dims)
    if extra:
        raise ValueError(f"weights have dims {sorted(map(str, extra))} that the values lack")
    xr.align(array, weights, join="exact", copy=False)
    spread = weights.variable.set_dims({dim: full.sizes[dim] for dim in full.dims}).transpose(
        *full.dims
    )
    if not full.chunks:
        return spread.values
    return spread.chunk(dict(zip(full.dims, full.chunks, strict=True))).data


def _labels_of(array: xr.DataArray, dim: Any) -> list[Any]:
    if dim in array.coords:
        return list(array.coords[dim].values.tolist())
    return list(range(array.sizes[dim]))
