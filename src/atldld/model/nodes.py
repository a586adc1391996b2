"""The sampling grid of a volume: nodes along p, i and r."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .dataset import SectionDataset
from .grid import Axis, footprint
from .space import AXES, extent

_MOST_PARTS = 12
_MOST_NODES = 10_000_000
_MOST_OF_A_VOLUME = 2**41
_CLOSE = 1e-6
"""Microns by which a node may lie off its lattice."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes along one axis: ``origin + k * step`` for `count` numbers k from `first` on.

    Parameters
    ----------
    origin
        Microns of node 0.
    step
        Microns between nodes.
    first, count
        The nodes that are there.
    lattice
        First k and one past the last k of the axis before anything was cut off.
    """

    origin: float
    step: float
    first: int
    count: int
    lattice: tuple[int, int]

    @classmethod
    def of(cls, axis: Axis) -> Nodes:
        """Return the points of a section grid's axis as nodes."""
        return cls(0.0, axis.step, axis.first, axis.count, axis.lattice)

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """The numbers k, shape (count,)."""
        return np.arange(self.first, self.first + self.count)

    def microns(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the reference coordinates of some numbers k."""
        return np.asarray(self.origin + numbers * self.step, dtype=np.float64)

    def cut(self, low: float, high: float) -> Nodes:
        """Return the nodes within ``[low, high]`` microns, ends included; perhaps none."""
        axis = Axis(self.step, self.first, self.count, self.lattice)
        cut = axis.cut(low - self.origin, high - self.origin)
        return replace(self, first=cut.first, count=cut.count)


@dataclass(frozen=True, slots=True)
class VolumeGrid:
    """The nodes of a volume along p, i and r."""

    p: Nodes
    i: Nodes
    r: Nodes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of nodes along p, i, r."""
        return self.p.count, self.i.count, self.r.count

    def along(self, axis: int) -> Nodes:
        """Return the nodes along one of p, i, r, by its place there."""
        return (self.p, self.i, self.r)[axis]


def volume_grid(dataset: SectionDataset, step: float) -> VolumeGrid:
    """Return the grid over all of a dataset's reference space, nodes at ``k * step`` microns.

    Parameters
    ----------
    dataset
        In spaces 9 and 10 the grid spans the space from 0, ``floor(extent / step)`` nodes an
        axis; in another space, whose extent is not known here, the footprints of the images.
    step
        Microns between nodes, above 0.

    Raises
    ------
    ValueError
        If that would be more nodes than anything could be made of.
    """
    bounds = extent(dataset.reference_space)
    if bounds is not None:
        axes = [Axis.spanning(0.0, high, step) for high in bounds]
    else:
        low, high = footprint(dataset)
        axes = [Axis.spanning(low[k], high[k] + step, step) for k in range(3)]
    return VolumeGrid(*map(Nodes.of, axes))


def cut_volume_grid(grid: VolumeGrid, region: dict[str, tuple[float, float]]) -> VolumeGrid:
    """Return the part of a grid within a region of reference space.

    Raises
    ------
    ValueError
        If the region holds no node of an axis; the message says where they lie.
    """
    axes = {}
    for place, name in enumerate(AXES):
        nodes = grid.along(place)
        axes[name] = nodes.cut(*region[name]) if name in region else nodes
        if axes[name].count == 0:
            low, high = region[name]
            first, last = nodes.microns(nodes.numbers[[0, -1]])
            raise ValueError(
                f"region {name}=({low:g}, {high:g}) holds no node; they lie from {first:g} to "
                f"{last:g} microns, {nodes.step:g} apart"
            )
    return VolumeGrid(**axes)


def check_size(grid: VolumeGrid) -> None:
    """Refuse a grid of more nodes than could be cut into chunks.

    Raises
    ------
    ValueError
        If there are more than 2**41: at P56, all of the space at less than 0.9 microns.
    """
    count = math.prod(grid.shape)
    if count > _MOST_OF_A_VOLUME:
        raise ValueError(
            f"a volume of {' x '.join(map(str, grid.shape))} voxels is too large: use a larger "
            "resolution, or cut it with region="
        )


def nodes_through(
    values: npt.NDArray[np.float64], name: str, lone_step: float
) -> tuple[Nodes, npt.NDArray[np.int64]]:
    """Return the evenly spaced nodes that some coordinates lie on, and which of them they are.

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
    >>> nodes, picked = nodes_through(np.array([100.0, 300.0, 600.0]), "p", 25.0)
    >>> nodes.origin, nodes.step, nodes.count, picked
    (100.0, 100.0, 6, array([0, 2, 5]))
    """
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"{name} of `like` must hold numbers of microns, at least one")
    distinct = np.unique(values)
    if len(distinct) == 1:
        nodes = Nodes(float(distinct[0]), lone_step, 0, 1, (0, 1))
        return nodes, np.zeros(len(values), dtype=np.int64)
    least = float(np.diff(distinct).min())
    for parts in range(1, _MOST_PARTS + 1):
        step = least / parts
        reach = (distinct[-1] - distinct[0]) / step
        if not reach < _MOST_NODES:
            break
        # From end to end, so that the rounding of one step does not add up.
        count = round(reach)
        step = float(distinct[-1] - distinct[0]) / max(count, 1)
        numbers = np.rint((distinct - distinct[0]) / step)
        if np.abs(distinct[0] + numbers * step - distinct).max() <= _CLOSE:
            nodes = Nodes(float(distinct[0]), step, 0, count + 1, (0, count + 1))
            return nodes, np.rint((values - distinct[0]) / step).astype(np.int64)
    raise ValueError(
        f"{name} of `like` does not lie on evenly spaced nodes: it begins "
        f"{', '.join(f'{value:g}' for value in values[:4])}"
    )


def finest_step(grid: VolumeGrid) -> float:
    """Return the smallest step of a grid's axes, microns; lone nodes do not count if others do."""
    every = [grid.p, grid.i, grid.r]
    rows = [nodes for nodes in every if nodes.lattice[1] - nodes.lattice[0] > 1] or every
    return min(nodes.step for nodes in rows)
