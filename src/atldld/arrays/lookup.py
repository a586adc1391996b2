"""Which structure a place belongs to: the label of the nearest voxel."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from dask.tokenize import tokenize

from ..errors import AtldldWarning
from ..model.affine import points_of
from ..model.sections import SectionTable
from ..model.space import AXES, FLIP_R, LABEL_MIDDLE_R, can_flip
from ..reading.reader import LazyArray, places, squeezed
from .index import ImagePlaces, space_in

Array = npt.NDArray[np.float64]

CCFV3 = "CCFv3"
Space = int | Literal["CCFv3"]


@dataclass(frozen=True, slots=True, eq=False)
class Voxels:
    """Evenly spaced voxels, each with a value.

    Parameters
    ----------
    values
        Shape (p, i, r).
    first, step
        p, i, r of the middle of the first voxel and microns between voxels, for each axis.
    flip
        Whether r of the places asked for is that of the other one of spaces 9 and 10.
    """

    values: npt.NDArray[Any]
    first: tuple[float, float, float]
    step: tuple[float, float, float]
    flip: bool

    def at(self, p: Array, i: Array, r: Array) -> npt.NDArray[Any]:
        """Return the value of the nearest voxel of every point; 0 outside.

        Parameters
        ----------
        p, i, r
            Microns; broadcast against each other. Halfway between two voxels the higher one
            counts; what is no number is outside.
        """
        inside = np.ones((), dtype=bool)
        numbers = []
        for microns, first, step, count in zip(
            (p, i, self.own(r)), self.first, self.step, self.values.shape, strict=True
        ):
            number = np.floor((microns - first) / step + 0.5)
            good = (number >= 0) & (number < count)
            inside = inside & good
            numbers.append(np.where(good, number, 0).astype(np.intp))
        found = self.values[tuple(np.broadcast_arrays(*numbers))]
        return np.asarray(np.where(inside, found, found.dtype.type(0)))

    def own(self, r: Array) -> Array:
        """Return r as the voxels count it."""
        return FLIP_R - r if self.flip else r


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """An annotation, made small and quick to count by.

    Parameters
    ----------
    ids
        Shape (n,), ascending: the structure ids; the first is 0, outside.
    voxels
        For each voxel its place among the ids.
    middle
        r between left and right, in the annotation's own space.
    """

    ids: npt.NDArray[np.int64]
    voxels: Voxels
    middle: float

    def places(
        self, p: Array, i: Array, r: Array
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the place among the ids of every point, and whether it lies on the right."""
        found = self.voxels.at(p, i, r)
        return found, np.broadcast_to(self.voxels.own(r) >= self.middle, found.shape)


def annotation_from(value: Any) -> xr.DataArray:
    """Return an annotation: as it is, or opened by name or path."""
    if isinstance(value, str | os.PathLike):
        opened: Any = importlib.import_module("..", __package__).open_annotation
        value = opened(value)
    space_of_annotation(value)
    annotation: xr.DataArray = value
    return annotation


def voxels_of(annotation: xr.DataArray, space: Space | None) -> Voxels:
    """Return the voxels of an annotation, for places of a space.

    Parameters
    ----------
    annotation
        From `open_annotation`.
    space
        Of the places that will be asked for; None for the annotation's own.

    Warns
    -----
    AtldldWarning
        If one of the two is CCFv3 and the other is Allen's 2011 space.
    """
    own = space_of_annotation(annotation)
    flip = _flips(own, own if space is None else space)
    annotation = annotation.transpose(*AXES)
    first, step = [], []
    for axis in AXES:
        values = np.asarray(annotation[axis].values, dtype=np.float64)
        steps = np.diff(values)
        if len(values) > 1 and (steps[0] <= 0 or np.ptp(steps) > 1e-6 * abs(steps[0])):
            raise ValueError(f"the voxels of the annotation are not evenly spaced along {axis}")
        first.append(float(values[0]))
        step.append(float(steps[0]) if len(values) > 1 else float(annotation.spacing_microns))
    return Voxels(
        annotation.values, (first[0], first[1], first[2]), (step[0], step[1], step[2]), flip
    )


def lookup_of(annotation: xr.DataArray, space: Space | None) -> Lookup:
    """Return the lookup of an annotation, for places of a space; see `voxels_of`."""
    voxels = voxels_of(annotation, space)
    ids, codes = _coded(voxels.values)
    middle = float(annotation.attrs.get("midline_r", np.nan))
    if np.isnan(middle):
        flipped = space_of_annotation(annotation) == 10
        middle = FLIP_R - LABEL_MIDDLE_R if flipped else LABEL_MIDDLE_R
    return Lookup(ids, replace(voxels, values=codes), middle)


class StructureArray(LazyArray):
    """The structure at the exact place of every grid point of sections.

    Parameters
    ----------
    table
        The sections.
    y, x
        Shape (rows,) and (columns,): microns.
    voxels
        Structure ids.

    Notes
    -----
    Shape (sections, rows, columns), int64. Nothing is downloaded.
    """

    def __init__(self, table: SectionTable, y: Array, x: Array, voxels: Voxels) -> None:
        self.table = table
        self.y = y
        self.x = x
        self.voxels = voxels
        self.shape = (len(table), len(y), len(x))
        self.dtype = np.dtype(np.int64)

    @property
    def image_places(self) -> ImagePlaces:
        """Where the grid points lie."""
        return ImagePlaces(self.table, self.table.image_id, self.table.points)

    def _outer(self, key: tuple[Any, ...]) -> npt.NDArray[np.int64]:
        sections, rows, columns = places(key, self.shape)
        affines = self.table.points[sections][:, None, None]
        out = self.voxels.at(*points_of(affines, self.x[columns], self.y[rows][:, None]))
        return squeezed(out.astype(np.int64), key)

    def __dask_tokenize__(self) -> Hashable:
        voxels = self.voxels
        return (
            type(self).__name__,
            tokenize(self.table.image_id, self.table.points, self.y, self.x, voxels.values),
            repr((voxels.first, voxels.step, voxels.flip)),
        )


def space_of(obj: Any, what: str) -> Space:
    """Return the reference space that an array says it lies in.

    Raises
    ------
    ValueError
        If it does not say.
    """
    known = space_in(obj)
    space = obj.attrs.get("reference_space") if known is None else known
    if space == CCFV3:
        return CCFV3  # type: ignore[return-value]  # the one text that Space allows
    if space is None or isinstance(space, str) or space < 0:
        raise ValueError(
            f"{what} do not say which reference space they lie in: set "
            "attrs['reference_space'] to 9, 10 or 'CCFv3'"
        )
    return int(space)


def _flips(own: Space, space: Space) -> bool:
    if own == space:
        return False
    if CCFV3 not in (own, space):
        if not can_flip(int(own), int(space)):
            raise ValueError(f"the annotation lies in space {own}, the places in space {space}")
        return True
    other = space if own == CCFV3 else own
    if other not in (9, 10):
        raise ValueError(f"the annotation lies in space {own}, the places in space {space}")
    warnings.warn(
        "labels of CCFv3 and places of Allen's 2011 P56 space are different atlases: the same "
        "position carries the same label in only 29 % of 200 micron voxels",
        AtldldWarning,
        stacklevel=4,
    )
    # CCFv3 counts r as space 9 does.
    return other == 10


def _coded(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Return the ids of an annotation, ascending from 0, and their places among these."""
    found = {0}
    for slab in values:
        found.update(int(number) for number in pd.unique(slab.ravel()))
    ids = np.array(sorted(found), dtype=np.int64)
    if ids[0] < 0:
        raise ValueError(f"the annotation holds {ids[0]}; structure ids are not negative")
    codes = np.empty(values.shape, dtype=np.min_scalar_type(len(ids)))
    for slab, out in zip(values, codes, strict=True):
        out[:] = np.searchsorted(ids, slab)
    return ids, codes


def space_of_annotation(annotation: xr.DataArray) -> Space:
    """Return the space of an annotation, or say what is wrong with it.

    Raises
    ------
    TypeError, ValueError
        If it is not one that `open_annotation` could have returned.
    """
    if not isinstance(annotation, xr.DataArray):
        raise TypeError(f"annotation is {type(annotation).__name__}; it must be a DataArray")
    if set(annotation.dims) != set(AXES) or annotation.dtype.kind not in "iu":
        raise ValueError(
            f"annotation has dims {annotation.dims} and dtype {annotation.dtype}; it must hold "
            "structure ids over p, i and r, as from open_annotation"
        )
    space = annotation.attrs.get("reference_space")
    if space is None:
        raise ValueError("annotation does not say its space: set attrs['reference_space']")
    return annotated_space(space)


def annotated_space(value: Any) -> Space:
    """Return a space that an annotation can lie in: 9, 10 or ``"CCFv3"``."""
    if isinstance(value, str) and value.lower() == "ccfv3":
        return CCFV3  # type: ignore[return-value]  # the one text that Space allows
    if not isinstance(value, bool | str) and value in (9, 10):
        return int(value)
    raise ValueError(f"reference_space is {value!r}; it must be 9, 10 or 'CCFv3'")
