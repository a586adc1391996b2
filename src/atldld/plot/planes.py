"""The three planes of a volume through a point, and which point to take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..arrays.planning import readers
from ..arrays.volumes import VolumeArray
from ..model.space import AXES

_THIN = 48
"""Nodes along an axis that are looked at to find the middle of what is covered."""


def nodes_at(array: xr.DataArray, point: dict[str, float]) -> dict[str, int]:
    """Return the place of the nearest node to a point, along each of p, i, r.

    Parameters
    ----------
    array
        A volume.
    point
        Microns along some axes; along the others, the middle of what is covered is taken.

    Raises
    ------
    ValueError
        If the point lies outside the volume.
    """
    for axis, value in point.items():
        values = array[axis].values
        low, high = float(values.min()), float(values.max())
        half = (high - low) / max(len(values) - 1, 1) / 2
        if not low - half <= value <= high + half:
            raise ValueError(
                f"{axis}={value:g} lies outside the volume, which reaches from {low:g} to {high:g}"
            )
    middle = {} if len(point) == 3 else _middle(array)
    return {
        axis: int(np.argmin(np.abs(array[axis].values - point.get(axis, middle.get(axis)))))
        for axis in AXES
    }


def _middle(array: xr.DataArray) -> dict[str, float]:
    """Return the middle of the box around what sections cover, within the volume, in microns."""
    spans = _covered(array)
    found = {}
    for axis in AXES:
        values = array[axis].values
        low, high = float(values.min()), float(values.max())
        least, most = spans.get(axis, (low, high))
        if least <= high and most >= low:
            low, high = max(low, least), min(high, most)
        found[axis] = (low + high) / 2
    return found


def _covered(array: xr.DataArray) -> dict[str, tuple[float, float]]:
    """Return from where to where nodes show a section along each axis, of what is opened."""
    thin = {axis: slice(None, None, -(-array.sizes[axis] // 4)) for axis in AXES}
    found: dict[str, tuple[float, float]] = {}
    for reader in readers(array.isel(thin)):
        if not isinstance(reader, VolumeArray):
            continue
        sampling = reader.sampling
        along = [sampling.grid.axes[axis] for axis in sampling.axes]
        numbers = [_spread(nodes.numbers) for nodes in along]
        shown = sampling.box(numbers[0], numbers[1], numbers[2]).shown(0)
        if not shown.any():
            continue
        for place, axis in enumerate(sampling.axes):
            some = numbers[place][shown.any(axis=tuple({0, 1, 2} - {place}))]
            ends = along[place].at(some[[0, -1]])
            found[AXES[axis]] = (float(ends[0]), float(ends[1]))
    return found or _finite(array)


def _spread(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return some of the numbers, evenly chosen, both ends among them."""
    count = min(len(numbers), _THIN)
    return np.asarray(numbers[np.unique(np.linspace(0, len(numbers) - 1, count).astype(int))])


def _finite(array: xr.DataArray) -> dict[str, tuple[float, float]]:
    """Return the same of values in memory that are NaN where nothing is covered."""
    if array.dtype.kind != "f" or not isinstance(array.variable._data, np.ndarray):
        return {}
    there = array.copy(data=np.isfinite(array.values))
    found = {}
    for axis in AXES:
        some = there.any([dim for dim in there.dims if dim != axis]).values
        if some.any():
            ends = array[axis].values[some]
            found[axis] = (float(ends.min()), float(ends.max()))
    return found
