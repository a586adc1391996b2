"""Another registration in the place of Allen's: sections placed by planes of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import AtldldWarning, RegistrationError
from .affine import Array, Mapping, tier_origin, tier_size
from .geometry import pixel_points
from .sections import Detection, SectionTable, in_order
from .space import AXES, P56_MIDDLE, Plane

_FLATTEST = 1e-3
"""Least sine of the angle between the edges of a picture that still spans a plane."""

_MOST_STRETCH = 0.02
"""By how much the sides of a picture may differ in proportion from those of its section."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the picture of one section lies.

    Parameters
    ----------
    label
        What to call it in messages.
    numbers
        Numbers that its name holds: one that is the id of an image of the dataset tells which
        section it is.
    section_number
        Which section it is where none of them does; None if it does not say.
    size
        Width and height in pixels of the picture that was registered, or None.
    corners
        p, i, r in microns of the picture's top left corner, of the step along its whole upper
        edge, and of the step along its whole left edge: corners, not centres of pixels.
    """

    label: str
    numbers: tuple[int, ...]
    section_number: int | None
    size: tuple[int, int] | None
    corners: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Registration:
    """Where sections lie, by another registration than Allen's.

    Parameters
    ----------
    name
        Where it comes from, such as the name of a file.
    checksum
        SHA-256 of that, in hexadecimal digits.
    space
        Name of the space that p, i, r count in.
    reference_space
        That space: 9, 10 or ``"CCFv3"``.
    placements
        The sections.
    """

    name: str
    checksum: str
    space: str
    reference_space: int | Literal["CCFv3"]
    placements: tuple[Placement, ...]

    @property
    def description(self) -> str:
        """What attributes say of it."""
        return f"{self.name} (SHA-256 {self.checksum[:16]}), to {self.space}"


def register(
    table: SectionTable,
    registration: Registration,
    *,
    dataset_id: int,
    plane: Plane,
    mapping: Mapping,
    detection_xy: Detection,
) -> SectionTable:
    """Place the sections of a dataset by another registration.

    Parameters
    ----------
    table
        The sections as Allen placed them, not flipped.
    registration
        Where they lie.
    dataset_id
        The dataset, for messages.
    plane
        Its plane of section; the registered planes must be of it too.
    mapping
        ``"oblique"``: both in-plane coordinates of the grid are exact, and the slice coordinate
        solves the plane of the section. ``"parallel"``: a grid point at the slice coordinate of the
        section shows the pixel at the foot of its perpendicular on the section.
    detection_xy
        What gives a section its slice coordinate; see `tabulate`.

    Returns
    -------
    table
        The sections that the registration places, in ascending order of slice coordinate;
        `affine`, `points`, `slice_coordinate` and `microns_per_pixel` are the registration's.

    Raises
    ------
    RegistrationError
        If an entry fits no section or more than one, two fit the same one, a plane is none or
        another plane of section, or a picture has not the shape of its section.

    Warns
    -----
    AtldldWarning
        If sections are left out because the registration does not place them, or if it turns
        most of them over.
    """
    owner = f"{registration.name}: dataset {dataset_id}"
    rows = _rows(table, registration.placements, owner)
    places = np.stack(
        [
            _pixels(table, row, placement, owner)
            for row, placement in zip(rows, registration.placements, strict=True)
        ]
    )
    _check_planes(places, registration.placements, plane, owner)
    _tell(table, rows, places, plane, owner)
    chosen = table.take(np.array(rows, dtype=np.intp))
    coordinate = _coordinates(chosen, places, plane, detection_xy)
    affine = _grid_to_pixels(places, coordinate, plane, mapping)
    return in_order(
        replace(
            chosen,
            slice_coordinate=coordinate,
            microns_per_pixel=np.linalg.norm(places[:, :, :2], axis=1).max(axis=-1),
            affine=affine,
            points=places @ _squared(affine),
        )
    )


def _rows(table: SectionTable, placements: Sequence[Placement], owner: str) -> list[int]:
    """Return the row of the table that each entry places."""
    rows: dict[int, str] = {}
    images = {int(image): row for row, image in enumerate(table.image_id)}
    for placement in placements:
        named = {images[number] for number in placement.numbers if number in images}
        row = named.pop() if len(named) == 1 else _row_of_number(table, placement, owner)
        if row in rows:
            raise RegistrationError(
                f"{owner}: {rows[row]} and {placement.label} are both image {table.image_id[row]}"
            )
        rows[row] = placement.label
    if not rows:
        raise RegistrationError(f"{owner}: no section is registered")
    return list(rows)


def _row_of_number(table: SectionTable, placement: Placement, owner: str) -> int:
    number = placement.section_number
    if number is None:
        raise RegistrationError(
            f"{owner}: {placement.label} does not say which section it is: it has no nr, and in "
            "its file name neither an image id nor _s and a section number"
        )
    matches = np.flatnonzero(table.section_number == number)
    if len(matches) == 1:
        return int(matches[0])
    if len(matches):
        ids = ", ".join(map(str, table.image_id[matches]))
        raise RegistrationError(
            f"{owner} has more than one section {number}: put the image id into the file name of "
            f"{placement.label}, one of {ids}"
        )
    numbers = ", ".join(map(str, np.sort(table.section_number)))
    raise RegistrationError(
        f"{owner} has no section {number}, which {placement.label} is for; it has {numbers}"
    )


def _pixels(table: SectionTable, row: int, placement: Placement, owner: str) -> Array:
    """Return the affine from full-resolution pixels of a section to p, i, r, shape (3, 3).

    The picture's edges are those of its outermost pixels. A picture with the size of a tier is
    that tier, whose pixel centres are known; any other one covers the section edge to edge.
    """
    corner, across, down = (np.array(each, dtype=np.float64) for each in placement.corners)
    out = np.empty((3, 3))
    out[:, 2] = corner
    sides = int(table.width[row]), int(table.height[row])
    tier = _tier(table, row, placement.size)
    if tier is None and placement.size is not None:
        _check_shape(sides, placement, owner)
    for place, (edge, side, offset) in enumerate(
        zip((across, down), sides, (int(table.x[row]), int(table.y[row])), strict=True)
    ):
        pixels, origin, step = (
            (side, 0.0, 1.0)
            if tier is None
            else (tier_size(side, tier), tier_origin(offset, tier), 2.0**tier)
        )
        # Pixel k is centred at (k + 0.5) / pixels of the edge, and at origin + k * step.
        out[:, place] = edge / (pixels * step)
        out[:, 2] += edge * ((0.5 - origin / step) / pixels)
    return out


def _tier(table: SectionTable, row: int, size: tuple[int, int] | None) -> int | None:
    for tier in range(int(table.tier_count[row])):
        if size == tuple(tier_size(int(side[row]), tier) for side in (table.width, table.height)):
            return tier
    return None


def _check_shape(sides: tuple[int, int], placement: Placement, owner: str) -> None:
    assert placement.size is not None
    (width, height), (wide, high) = sides, placement.size
    if abs(wide * height / (high * width) - 1.0) > _MOST_STRETCH:
        raise RegistrationError(
            f"{owner}: {placement.label} is {wide} x {high} pixels, another shape than the section "
            f"image of {width} x {height}; register whole section images, neither cut nor turned"
        )


def _check_planes(places: Array, placements: Sequence[Placement], plane: Plane, owner: str) -> None:
    for affine, placement in zip(places, placements, strict=True):
        normal = np.cross(affine[:, 0], affine[:, 1])
        size = np.linalg.norm(affine[:, 0]) * np.linalg.norm(affine[:, 1])
        if not np.isfinite(affine).all() or not np.linalg.norm(normal) > _FLATTEST * size:
            raise RegistrationError(f"{owner}: the place of {placement.label} is no plane")
        across = int(np.argmax(np.abs(normal)))
        if across != plane.section:
            raise RegistrationError(
                f"{owner}: {placement.label} is placed across {AXES[across]}, but the"
                f" sections are {plane.name}, across {AXES[plane.section]}"
            )


def _tell(table: SectionTable, rows: list[int], places: Array, plane: Plane, owner: str) -> None:
    """Warn of sections that are left out, and of a registration that mirrors."""
    left_out = np.setdiff1d(np.arange(len(table)), rows)
    if len(left_out):
        numbers = ", ".join(map(str, np.sort(table.section_number[left_out])))
        warnings.warn(
            f"{owner}: sections left out because the registration does not place them: {numbers}",
            AtldldWarning,
            stacklevel=6,
        )
    allen = pixel_points(table)[rows]
    in_plane = [plane.x, plane.y]
    turned = [np.sign(np.linalg.det(each[:, in_plane, :2])) for each in (allen, places)]
    if np.mean(turned[0] != turned[1]) > 0.5:
        warnings.warn(
            f"{owner}: the registration shows most sections as a mirror would, compared with "
            "Allen's own: left and right may be exchanged in it. "
            "atldld.read_quicknii(path, mirror=True) turns it over",
            AtldldWarning,
            stacklevel=6,
        )


def _coordinates(
    table: SectionTable, places: Array, plane: Plane, detection_xy: Detection
) -> Array:
    if detection_xy is None:
        oblique = _grid_to_pixels(places, np.zeros(len(places)), plane, "oblique")
        middle = np.array([P56_MIDDLE[plane.x], P56_MIDDLE[plane.y], 1.0])
        pixel = _squared(oblique) @ middle
    elif detection_xy == "center":
        pixel = np.stack([(table.width - 1) / 2, (table.height - 1) / 2, np.ones(len(table))], -1)
    else:
        pixel = np.broadcast_to([*detection_xy, 1.0], (len(table), 3))
    return np.asarray(np.einsum("nj,nj->n", places[:, plane.section], pixel))


def _grid_to_pixels(
    places: Array, slice_coordinate: Array, plane: Plane, mapping: Mapping
) -> Array:
    """Return the affines from (column microns, row microns, 1) to pixels, shape (n, 2, 3)."""
    if mapping == "oblique":
        return np.asarray(np.linalg.inv(_squared(places[:, [plane.x, plane.y]]))[:, :2])
    space = np.zeros((len(places), 4, 4))
    space[:, :3, [0, 1, 3]] = places
    normal = np.cross(places[:, :, 0], places[:, :, 1])
    space[:, :3, 2] = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    space[:, 3, 3] = 1.0
    level = np.zeros((len(places), 4, 3))
    level[:, plane.x, 0] = level[:, plane.y, 1] = level[:, 3, 2] = 1.0
    level[:, plane.section, 2] = slice_coordinate
    return np.asarray(np.linalg.solve(space, level)[:, :2])


def _squared(affine: Array) -> Array:
    """Return (n, 2, 3) affines with the row 0, 0, 1 below them."""
    last: npt.NDArray[np.float64] = np.broadcast_to([0.0, 0.0, 1.0], (len(affine), 1, 3))
    return np.concatenate([affine, last], axis=1)
