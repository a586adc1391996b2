"""Sampling grids: evenly spaced points along two or three axes of reference space.

The points of a section plane, and the nodes of a volume, sit at whole multiples k of the step
from 0 of reference space, so that grids of one step share their points whatever is cut out of
them. Only a volume on the nodes of another array may start elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import RegistrationError
from .affine import xy_to_pir
from .dataset import SectionDataset
from .space import AXES, extent

_NUDGE = 1e-9
"""Relative slack, so that rounding does not lose a point that lies on a border."""

_MOST_POINTS = 10_000_000
_MOST_OF_A_PLANE = 2**36
"""Grid points of a whole plane: at P56 a step of 0.05 microns, far below any pixel."""

_MOST_OF_A_VOLUME = 2**41
"""Nodes of a volume: at P56, all of the space at less than 0.9 microns."""

_LARGEST_FOOTPRINT = 1e6
"""Microns. Images that span more than a metre are not placed by a matrix that can be right."""

_MOST_PARTS = 12
_CLOSE = 1e-6
"""Microns by which a node may lie off its lattice."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Grid points along one axis: ``origin + k * step`` for `count` numbers k from `first` on.

    Parameters
    ----------
    step
        Microns between grid points.
    first, count
        The points that are there.
    lattice
        First k and one past the last k of the axis before anything was cut off.
    origin
        Microns of point 0.
    """

    step: float
    first: int
    count: int
    lattice: tuple[int, int]
    origin: float = 0.0

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
        """The reference coordinates of the points, shape (count,)."""
        return self.at(self.numbers)

    def at(
        self, numbers: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Return the reference coordinates of some whole numbers k, in microns."""
        return np.asarray(self.origin + numbers * self.step, dtype=np.float64)

    def cut(self, low: float, high: float) -> Axis:
        """Return the points within ``[low, high]`` microns, ends included; perhaps none."""
        # Ends beyond the axis stand for its ends: their quotients might overflow.
        least, most = (self.first - 1) * self.step, (self.first + self.count) * self.step
        low, high = (min(max(end - self.origin, least), most) for end in (low, high))
        slack = _NUDGE * max(1.0, abs(low), abs(high)) / self.step
        first = max(self.first, math.ceil(low / self.step - slack))
        last = min(self.first + self.count - 1, math.floor(high / self.step + slack))
        return replace(self, first=first, count=max(last - first + 1, 0))


@dataclass(frozen=True, slots=True)
class Grid:
    """Points along two axes of reference space (rows and columns of a plane), or all three.

    Parameters
    ----------
    names
        Which of p, i, r the axes are.
    axes
        Their points.
    """

    names: tuple[str, ...]
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of points along each axis."""
        return tuple(axis.count for axis in self.axes)

    @property
    def y(self) -> Axis:
        """The rows of a plane."""
        return self.axes[-2]

    @property
    def x(self) -> Axis:
        """The columns of a plane."""
        return self.axes[-1]

    @property
    def step(self) -> float:
        """The smallest step of the axes, microns; lone points do not count if others do."""
        rows = [axis for axis in self.axes if axis.lattice[1] - axis.lattice[0] > 1]
        return min(axis.step for axis in rows or self.axes)

    def cut(self, region: Mapping[str, tuple[float, float]]) -> Grid:
        """Return the part within a region of reference space.

        Parameters
        ----------
        region
            Microns from and to, by the name of the axis; those of other axes do not count.

        Raises
        ------
        ValueError
            If the region holds no grid point of an axis; the message says where they lie.
        """
        return replace(
            self,
            axes=tuple(
                _cut(axis, name, *region[name]) if name in region else axis
                for name, axis in zip(self.names, self.axes, strict=True)
            ),
        )


def _cut(axis: Axis, name: str, low: float, high: float) -> Axis:
    cut = axis.cut(low, high)
    if cut.count == 0:
        ends = axis.microns[[0, -1]]
        raise ValueError(
            f"region {name}=({low:g}, {high:g}) holds no grid point; they lie from {ends[0]:g} to "
            f"{ends[1]:g} microns, {axis.step:g} apart"
        )
    return cut


def section_grid(dataset: SectionDataset, step: float) -> Grid:
    """Return the grid over all of the plane of section of a dataset.

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
    grid = _spanning(dataset, (dataset.plane.y, dataset.plane.x), step)
    if grid.y.count * grid.x.count > _MOST_OF_A_PLANE:
        raise ValueError(
            f"a plane of {grid.y.count} x {grid.x.count} grid points, {step:g} microns apart, is "
            "too large: use a larger resolution"
        )
    return grid


def volume_grid(
    dataset: SectionDataset, step: float, region: Mapping[str, tuple[float, float]] | None = None
) -> Grid:
    """Return the grid over all of a dataset's reference space, or a region of it.

    Parameters
    ----------
    dataset, step
        As in `section_grid`.
    region
        What to keep of it; see `Grid.cut`.

    Raises
    ------
    ValueError
        If the region holds no node, or there would be more nodes than could be cut into chunks.
    RegistrationError
        As in `section_grid`.
    """
    return _not_too_large(_spanning(dataset, (0, 1, 2), step).cut(region or {}))


def grid_over(
    bounds: Sequence[float],
    step: float,
    region: Mapping[str, tuple[float, float]] | None = None,
) -> Grid:
    """Return the grid from 0 to some bounds along p, i, r, or a region of it; see `volume_grid`."""
    grid = Grid(AXES, tuple(Axis.spanning(0.0, high, step) for high in bounds))
    return _not_too_large(grid.cut(region or {}))


def _not_too_large(grid: Grid) -> Grid:
    if math.prod(grid.shape) > _MOST_OF_A_VOLUME:
        raise ValueError(
            f"a volume of {' x '.join(map(str, grid.shape))} voxels is too large: use a larger "
            "resolution, or cut it with region="
        )
    return grid


def _spanning(dataset: SectionDataset, axes: tuple[int, ...], step: float) -> Grid:
    bounds = extent(dataset.reference_space)
    if bounds is not None:
        ends = [(0.0, bounds[axis]) for axis in axes]
    else:
        low, high = footprint(dataset)
        if not max(np.abs(low).max(), np.abs(high).max()) <= _LARGEST_FOOTPRINT:
            raise RegistrationError(
                f"dataset {dataset.id}: its matrices put the images from "
                f"{low.min():.4g} to {high.max():.4g} microns, further than any brain reaches"
            )
        ends = [(low[axis], high[axis] + step) for axis in axes]
    return Grid(
        tuple(AXES[axis] for axis in axes), tuple(Axis.spanning(*each, step) for each in ends)
    )


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


def axis_through(
    values: npt.NDArray[np.float64], name: str, lone_step: float
) -> tuple[Axis, npt.NDArray[np.int64]]:
    """Return the evenly spaced axis that some coordinates lie on, and which of its points they are.

    Parameters
    ----------
    values
        Shape (n,): microns, in any order; some of an evenly spaced axis, or all of it.
    name
        Of the axis, for messages.
    lone_step
        Step of the axis where there is but one value.

    Raises
    ------
    ValueError
        If the values are not numbers, or lie on no lattice.

    Examples
    --------
    >>> import numpy as np
    >>> axis, picked = axis_through(np.array([100.0, 300.0, 600.0]), "p", 25.0)
    >>> axis.origin, axis.step, axis.count, picked
    (100.0, 100.0, 6, array([0, 2, 5]))
    """
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"{name} of `like` must hold numbers of microns, at least one")
    distinct = np.unique(values)
    if len(distinct) == 1:
        lone = Axis(lone_step, 0, 1, (0, 1), origin=float(distinct[0]))
        return lone, np.zeros(len(values), dtype=np.int64)
    least = float(np.diff(distinct).min())
    for parts in range(1, _MOST_PARTS + 1):
        step = least / parts
        reach = (distinct[-1] - distinct[0]) / step
        if not reach < _MOST_POINTS:
            break
        # From end to end, so that the rounding of one step does not add up.
        count = round(reach)
        step = float(distinct[-1] - distinct[0]) / max(count, 1)
        numbers = np.rint((distinct - distinct[0]) / step)
        if np.abs(distinct[0] + numbers * step - distinct).max() <= _CLOSE:
            axis = Axis(step, 0, count + 1, (0, count + 1), origin=float(distinct[0]))
            return axis, np.rint((values - distinct[0]) / step).astype(np.int64)
    raise ValueError(
        f"{name} of `like` does not lie on evenly spaced nodes: it begins "
        f"{', '.join(f'{value:g}' for value in values[:4])}"
    )
