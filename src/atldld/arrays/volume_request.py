"""What only a volume is asked for: the nodes of another array, how far, how blended."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..model.dataset import SectionDataset
from ..model.grid import Grid, axis_through
from ..model.space import AXES, can_flip, space_name
from .index import GUARD
from .request import Request, finite, one_of
from .volume_pieces import Between


@dataclass(frozen=True, slots=True, eq=False)
class Like:
    """The nodes of another array.

    Parameters
    ----------
    coords
        Its p, i and r as they are.
    space
        The reference space that it says it lies in, or None.
    grid
        The evenly spaced nodes that hold them.
    picked
        Which of these they are, along each axis; a plain number where the axis is a scalar.
    """

    coords: dict[str, xr.Variable]
    space: int | None
    grid: Grid
    picked: dict[str, npt.NDArray[np.int64] | int]

    @classmethod
    def of(cls, like: Any, lone_step: float) -> Like:
        """Return the nodes of an array, or say what it lacks."""
        if not isinstance(like, xr.DataArray | xr.Dataset):
            raise TypeError(
                f"like is {type(like).__name__}; it must be an xarray object with p, i and r"
            )
        coords = {}
        for axis in AXES:
            if axis not in like.coords or like.coords[axis].ndim > 1:
                raise ValueError(
                    f"like has no {axis} along one dimension; it must have coordinates p, i and r "
                    "in microns, as volumes do"
                )
            variable = like.coords[axis].variable
            if variable.dtype.kind not in "iuf":
                raise TypeError(f"{axis} of like is {variable.dtype}; it must be microns")
            if variable.ndim and variable.dims != (axis,):
                raise ValueError(
                    f"{axis} of like lies along {variable.dims[0]!r}: that is an array of "
                    "sections; give an array with dimensions p, i and r"
                )
            coords[axis] = variable
        space = _space_of(like)
        axes, picked = [], {}
        for axis, variable in coords.items():
            values = np.atleast_1d(np.asarray(variable.values, dtype=np.float64))
            nodes, numbers = axis_through(values, axis, lone_step)
            axes.append(nodes)
            picked[axis] = numbers if variable.ndim else int(numbers[0])
        return cls(coords, space, Grid(AXES, tuple(axes)), picked)


@dataclass(frozen=True, slots=True, eq=False)
class VolumeRequest:
    """The options that only a volume has."""

    max_distance: float | None
    between: Between
    mirror: bool
    like: Like | None

    @classmethod
    def checked(
        cls, max_distance: Any, between: Any, mirror: Any, like: Any, resolution: float
    ) -> VolumeRequest:
        """Return the options in their own types, or say which of them is wrong."""
        one_of("between", between, get_args(Between))
        if not isinstance(mirror, bool):
            raise TypeError(f"mirror is {mirror!r}; it must be True or False")
        if max_distance is not None:
            max_distance = finite("max_distance", max_distance)
            if max_distance < 0:
                raise ValueError(
                    f"max_distance is {max_distance:g}; it must be a number of microns, 0 or more"
                )
        return cls(
            max_distance, between, mirror, None if like is None else Like.of(like, resolution)
        )


def _space_of(like: xr.DataArray | xr.Dataset) -> int | None:
    """Return the reference space that an array says it lies in, or None where it does not say."""
    said: Any = like.coords[GUARD].item() if GUARD in like.coords else None
    if said is None:
        said = like.attrs.get("reference_space")
    if isinstance(said, str) and said:
        raise ValueError(
            f"like lies in {said}, and there is no way there from the spaces of section datasets: "
            "give an array in reference space 9 or 10"
        )
    try:
        number = operator.index(said)
    except TypeError:
        return None
    return number if number >= 0 else None


def space_wanted(request: Request, like: Like | None, record: SectionDataset) -> Any:
    """Return the reference space asked for: that of `like`, if nothing else is."""
    if like is None or like.space is None:
        return request.reference_space
    native = record.reference_space
    if request.reference_space not in ("native", like.space):
        raise ValueError(
            f"like lies in {space_name(like.space)} (reference space {like.space}), but "
            f"reference_space={request.reference_space} is asked for: leave that out, or open "
            "like in that space"
        )
    if like.space != native and not can_flip(native, like.space):
        raise ValueError(
            f"like lies in reference space {like.space} and dataset {record.id} in {native}: there "
            "is no way from one to the other"
        )
    return "native" if like.space == native else like.space
