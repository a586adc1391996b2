"""The sampling grid of a section plane.

Grid points sit at whole multiples k of the step from 0 of reference space, so that grids of
one step share their points whatever is cut out of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import RegistrationError
from .affine import xy_to_pir
from .dataset import SectionDataset
from .space import AXES, Plane, extent

_NUDGE = 1e-9
"""Relative slack, so that rounding does not lose a point that lies on a border."""

_MOST_POINTS = 10_000_000
_MOST_OF_A_PLANE = 2**36
"""Grid points of a whole plane: at P56 a step of 0.05 microns, far below any pixel."""

_LARGEST_FOOTPRINT = 1e6
"""Microns. Images that span more than a metre are not placed by a matrix that can be right."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Grid points along one axis: ``k * step`` for `count` numbers k from `first` on.

    Parameters
    ----------
    step
        Microns between grid points.
    first, count
        The points that are there.
    lattice
        First k and one past the last k of the axis before anything was cut off.
    """

    step: float
    first: int
    count: int
    lattice: tuple[int, int]

    @classmethod
    def spanning(cls, low: float, high: float, step: float) -> Axis:
        """Return the axis with all points k * step, ``floor(low / step) <= k < high / step``."""
        points = (high - low) / step
        if points >= _MOST_POINTS + 1:
            raise ValueError(
                f"{high - low:g} microns in steps of {step:g} are {points:.0f} grid points an "
                f"axis; at most {_MOST_POINTS} are possible: use a larger resolution"
            )
        first = math.floor(low / step + _NUDGE)
        count = max(math.floor(high / step + _NUDGE) - first, 1)
        return cls(step, first, count, (first, first + count))

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """The numbers k, shape (count,)."""
        return np.arange(self.first, self.first + self.count)

    @property
    def microns(self) -> npt.NDArray[np.float64]:
        """The reference coordinates k * step, shape (count,)."""
        return np.asarray(self.numbers * self.step, dtype=np.float64)

    def cut(self, low: float, high: float) -> Axis:
        """Return the points within ``[low, high]`` microns, ends included; perhaps none."""
        # Ends beyond the axis stand for its ends: their quotients might overflow.
        low = min(max(low, (self.first - 1) * self.step), (self.first + self.count) * self.step)
        high = min(max(high, (self.first - 1) * self.step), (self.first + self.count) * self.step)
        slack = _NUDGE * max(1.0, abs(low), abs(high)) / self.step
        first = max(self.first, math.ceil(low / self.step - slack))
        last = min(self.first + self.count - 1, math.floor(high / self.step + slack))
        return replace(self, first=first, count=max(last - first + 1, 0))


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows and columns of a section plane.

    Parameters
    ----------
    y, x
        The axes; which axes of reference space they are, the plane says.
    """

    y: Axis
    x: Axis

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.y.count, self.x.count

    @property
    def step(self) -> float:
        """Microns between grid points."""
        return self.y.step


def section_grid(dataset: SectionDataset, step: float) -> Grid:
    """Return the grid over all of a dataset's reference space.

    Parameters
    ----------
    dataset
        In spaces 9 and 10 the grid spans the space from 0: ``floor(extent / step)`` points an
        axis. In another space, whose extent is not known here, it spans the footprints of the
        section images.
    step
        Microns between grid points, above 0.

    Raises
    ------
    ValueError
        If that would be more grid points than anything could be made of.
    RegistrationError
        If the footprints span more than a metre, or lie further than that from 0.
    """
    plane = dataset.plane
    bounds = extent(dataset.reference_space)
    if bounds is not None:
        y, x = (Axis.spanning(0.0, bounds[axis], step) for axis in (plane.y, plane.x))
    else:
        low, high = footprint(dataset)
        if not max(np.abs(low).max(), np.abs(high).max()) <= _LARGEST_FOOTPRINT:
            raise RegistrationError(
                f"dataset {dataset.id}: its matrices put the images from "
                f"{low.min():.4g} to {high.max():.4g} microns, further than any brain reaches"
            )
        y, x = (Axis.spanning(low[axis], high[axis] + step, step) for axis in (plane.y, plane.x))
    if y.count * x.count > _MOST_OF_A_PLANE:
        raise ValueError(
            f"a plane of {y.count} x {x.count} grid points, {step:g} microns apart, is too "
            "large: use a larger resolution"
        )
    return Grid(y, x)


def footprint(dataset: SectionDataset) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the least and the greatest p, i, r of all corners of all images, in microns."""
    tvr = dataset.matrix("tvr")
    corners = []
    for image in dataset.images:
        right, bottom = image.width - 1.0, image.height - 1.0
        z = image.section_number * dataset.section_thickness
        points = [[0.0, right, right, 0.0], [0.0, 0.0, bottom, bottom], [z] * 4]
        corners.append(xy_to_pir(points, image.tsv, tvr))
    every = np.concatenate(corners, axis=1)
    return every.min(axis=1), every.max(axis=1)


def cut_grid(grid: Grid, plane: Plane, region: dict[str, tuple[float, float]]) -> Grid:
    """Return the part of a grid within a region of reference space.

    Raises
    ------
    ValueError
        If the region holds no grid point of an axis; the message says where they lie.
    """
    axes = {}
    for role, axis in (("y", grid.y), ("x", grid.x)):
        name = AXES[getattr(plane, role)]
        if name not in region:
            axes[role] = axis
            continue
        axes[role] = axis.cut(*region[name])
        if axes[role].count == 0:
            low, high = region[name]
            raise ValueError(
                f"region {name}=({low:g}, {high:g}) holds no grid point; they lie from "
                f"{axis.microns[0]:g} to {axis.microns[-1]:g} microns, {axis.step:g} apart"
            )
    return Grid(**axes)
