"""Selecting by reference coordinate: what ``.atlas.at`` takes, and what it refuses."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..model.sections import LEAST_DISTANCE
from ..model.space import AXES
from .index import DIM, GUARD, GuardIndex


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
    places = np.flatnonzero((values >= low) & (values <= high))
    if len(places) == 0:
        raise KeyError(f"{axis} from {low:g} to {high:g} holds nothing; {_there(values)}")
    if (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


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
        for places in guard.places:
            rows = np.flatnonzero(np.isin(places.table.image_id, image))
            if len(rows):
                along = places.table.slice_coordinate
                return _half_gap(along, int(rows[0]), LEAST_DISTANCE)
    return LEAST_DISTANCE
