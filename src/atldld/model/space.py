"""Reference spaces, planes of section, and the flip between spaces 9 and 10.

Axes of a reference space are p (posterior), i (inferior) and r (right), in microns; the
origin is the anterior superior left corner [1]_. Space 10 is space 9 with r mirrored.

References
----------
.. [1] "API for mouse brain atlas", Allen Institute, https://community.brain-map.org/t/2766
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

AXES = ("p", "i", "r")

FLIP_R = 11350.0
"""Sum of the r of one point in spaces 9 and 10, in microns.

From the service's own ``ReferenceToReferenceTransform`` (10 to 9), and from ten points that
it answered in both spaces; it is not the extent, 11400.
"""

P56_EXTENT = (13200.0, 8000.0, 11400.0)
"""Extent of spaces 9 and 10 along p, i, r in microns (Allen's 2011 P56 space)."""

LABEL_MIDDLE_R = 5700.0
"""r in microns, in space 9 and in CCFv3, of the plane that the labels of Allen's atlases mirror
each other about; measured on the labels of both."""

P56_MIDDLE = (6600.0, 4000.0, FLIP_R / 2)
"""Middle of spaces 9 and 10 along p, i, r in microns; r is the plane that the flip keeps."""

_FLIPPED = {9: 10, 10: 9}
_NAMES: dict[int | str, str] = {
    9: "P56 Brain",
    10: "P56 Brain, L/R Flipped",
    "CCFv3": "Allen CCFv3 (2017)",
}


@dataclass(frozen=True, slots=True)
class Plane:
    """A plane of section and the axes of its array.

    Parameters
    ----------
    name
        ``"coronal"``, ``"sagittal"`` or ``"transverse"``.
    section, y, x
        Index into ``("p", "i", "r")`` of the slicing axis, of the rows and of the columns.
    """

    name: str
    section: int
    y: int
    x: int

    @property
    def axes(self) -> tuple[str, str, str]:
        """Names of the slicing axis, the row axis and the column axis."""
        return AXES[self.section], AXES[self.y], AXES[self.x]


CORONAL = Plane("coronal", section=0, y=1, x=2)
SAGITTAL = Plane("sagittal", section=2, y=1, x=0)
TRANSVERSE = Plane("transverse", section=1, y=0, x=2)
PLANES = {plane.name: plane for plane in (CORONAL, SAGITTAL, TRANSVERSE)}
_BY_AXIS = {plane.section: plane for plane in PLANES.values()}

_PLANE_OF_SECTION = {
    1: CORONAL, 2: SAGITTAL, 6: TRANSVERSE, 7: SAGITTAL, 8: SAGITTAL, 9: TRANSVERSE,
    10: TRANSVERSE, 11: CORONAL, 531107579: CORONAL,
}  # fmt: skip
"""Planes of the service's PlaneOfSection ids that name one; 4 is "variable", 5 is "n/a"."""


def plane_of_section(plane_of_section_id: int | None) -> Plane | None:
    """Return the plane that a PlaneOfSection id of the service names, or None."""
    return None if plane_of_section_id is None else _PLANE_OF_SECTION.get(plane_of_section_id)


def plane_of_section_ids(plane: Plane) -> tuple[int, ...]:
    """Return the PlaneOfSection ids of the service that name a plane.

    Examples
    --------
    >>> plane_of_section_ids(SAGITTAL)
    (2, 7, 8)
    """
    return tuple(number for number, named in _PLANE_OF_SECTION.items() if named is plane)


def plane_of_matrix(trv: npt.NDArray[np.float64]) -> Plane:
    """Return the plane that a dataset was sliced in, by its own matrix.

    Sections lie where the third row of `trv` is constant, so its linear part is their normal;
    the largest component names the slicing axis. No normal is more than 54.8 degrees
    (``arccos(1 / sqrt(3))``) off the nearest axis.

    Parameters
    ----------
    trv
        Shape (3, 4): reference space to image stack.
    """
    return _BY_AXIS[int(np.argmax(np.abs(trv[2, :3])))]


def can_flip(reference_space: int | None, other: int | None) -> bool:
    """Whether the flip of r leads from one reference space to the other."""
    return reference_space is not None and _FLIPPED.get(reference_space) == other


def flip_matrix() -> npt.NDArray[np.float64]:
    """Return the (4, 4) matrix of the flip between spaces 9 and 10, its own inverse."""
    flip = np.eye(4)
    flip[2, 2], flip[2, 3] = -1.0, FLIP_R
    return flip


def extent(
    reference_space: int | Literal["CCFv3"] | None,
) -> tuple[float, float, float] | None:
    """Return the extent along p, i, r in microns, or None where it is not known.

    CCFv3 has that of spaces 9 and 10: 528 x 320 x 456 voxels of 25 microns.
    """
    return P56_EXTENT if reference_space in (*_FLIPPED, "CCFv3") else None


def space_name(reference_space: int | Literal["CCFv3"] | None) -> str:
    """Return how to call a reference space in text."""
    if reference_space is None:
        return "unknown reference space"
    return _NAMES.get(reference_space, f"reference space {reference_space}")
