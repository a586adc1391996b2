"""Keeping volumes of different reference spaces apart, as those that are opened are."""

from __future__ import annotations

from typing import Any, TypeVar

import xarray as xr

from ..arrays.index import GUARD, GuardIndex
from ..model.space import space_name

_Volume = TypeVar("_Volume", xr.DataArray, xr.Dataset)


def guarded(volume: _Volume, space: Any) -> _Volume:
    """Return a volume over p, i, r that refuses to mix with those of another space.

    Parameters
    ----------
    volume
        The volume; a guard that it has is replaced.
    space
        9, 10 or ``"CCFv3"``.

    Examples
    --------
    >>> nine, ten = (guarded(xr.DataArray([1.0], {"p": [0.0]}), space) for space in (9, 10))
    >>> nine + ten
    Traceback (most recent call last):
    ...
    atldld.errors.MixError: an array of volumes in P56 Brain and one of volumes in P56 \
Brain, L/R Flipped cannot be combined: their rows and columns are different directions. Open both \
with the same reference_space=, or as volumes on one grid
    """
    where = f"volumes in {space_name(space)}"
    guard = xr.Variable((), space, {"long_name": "reference space", "frame": where})
    coords = xr.Coordinates({GUARD: guard}, indexes={GUARD: GuardIndex(GUARD, where)})
    return volume.drop_vars(GUARD, errors="ignore").assign_coords(coords)
