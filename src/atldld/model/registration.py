"""Another registration in the place of Allen's: sections placed by planes of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import AtldldWarning, RegistrationError
from .affine import Array, Mapping, tier_origin, tier_size
from .bend import BendSource, Marker, Markers
from .geometry import pixel_points
from .sections import Detection, SectionTable, in_order
from .space import AXES, P56_MIDDLE, Plane

_FLATTEST = 1e-3
"""Least sine of the angle between the edges of a picture that still spans a plane."""

_MOST_STRETCH = 0.02
"""By how much the sides of a picture may differ in proportion from those of its section."""


@dataclass(frozen=True, slots=True)
class Named:
    """What the name of a picture says about which section it is.

    Parameters
    ----------
    numbers
        The numbers in it, any of which may be the id of an image.
    images
        Those of them that look like the id of an image, of whatever dataset.
    folders
        The folders of its path that are numbers, such as the id of an experiment.
    section
        The section number, or None.
    """

    numbers: tuple[int, ...] = ()
    images: tuple[int, ...] = ()
    folders: tuple[int, ...] = ()
    section: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the picture of one section lies.

    Parameters
    ----------
    label
        What to call it in messages.
    named
        What its name says.
    section_number
        Which section it is where its name holds the id of no image; None if nothing says.
    size
        Width and height in pixels of the picture that was registered, or None.
    corners
        p, i, r in microns of the picture's top left corner, of the step along its whole upper
        edge, and of the step along its whole left edge: corners, not centres of pixels. Empty where
        the file does not say.
    markers
        VisuAlign's, in pixels of the picture, of which (0, 0) is the outer corner.
    """

    label: str
    named: Named
    section_number: int | None
    size: tuple[int, int] | None
    corners: tuple[tuple[float, float, float], ...]
    markers: tuple[Marker, ...] = ()

    def not_named(self, numbers: Collection[int]) -> Placement:
        """Return the same without some numbers in its name."""
        named = replace(
            self.named,
            numbers=tuple(each for each in self.named.numbers if each not in numbers),
            images=tuple(each for each in self.named.images if each not in numbers),
        )
        return replace(self, named=named)

    def mirrored(self, extent: float) -> Placement:
        """Return the same with left and right turned over: ``r -> extent - r``."""
        if not self.corners:
            return self
        (p, i, r), *steps = self.corners
        turned = [(p, i, extent - r), *((p, i, -r) for p, i, r in steps)]
        return replace(self, corners=tuple(turned))


class SectionFields(Protocol):
    """Where the bends of sections come from."""

    def of(self, placement: Placement, dataset_id: int, size: tuple[int, int]) -> BendSource:
        """Return the bend of a section, whose size is in full-resolution pixels."""


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
    citation
        Whose it is, to be told in papers; empty for a user's own.
    fields
        Where the bends of sections come from, if not from markers.
    """

    name: str
    checksum: str
    space: str
    reference_space: int | Literal["CCFv3"]
    placements: tuple[Placement, ...]
    citation: str = ""
    fields: SectionFields | None = None

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
    failed: Collection[int] = (),
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
    failed
        Ids of images of the dataset that are not in the table because they failed quality
        control: their entries are passed over.

    Returns
    -------
    table
        The sections that the registration places, in ascending order of slice coordinate;
        `affine`, `points`, `slice_coordinate` and `microns_per_pixel` are the registration's.

    Raises
    ------
    RegistrationError
        If no entry is for this dataset, one that is fits no section or more than one, two fit the
        same one, a plane is none or another plane of section, or a picture has not the shape of
        its section.

    Warns
    -----
    AtldldWarning
        If sections are left out because the registration does not place them, or if it turns
        most of them over.
    """
    owner = f"{registration.name}: dataset {dataset_id}"
    rows, placements = _rows(table, registration, dataset_id, frozenset(failed), owner)
    places = np.stack(
        [
            _pixels(table, row, placement, owner, whole=registration.fields is not None)
            for row, placement in zip(rows, placements, strict=True)
        ]
    )
    _check_planes(places, placements, plane, owner)
    _tell(table, rows, places, plane, owner)
    chosen = table.take(np.array(rows, dtype=np.intp))
    bends = np.full(len(rows), None)
    for place, (row, placement) in enumerate(zip(rows, placements, strict=True)):
        if registration.fields is None:
            bends[place] = _bend(table, row, placement)
        else:
            size = int(table.width[row]), int(table.height[row])
            bends[place] = registration.fields.of(placement, dataset_id, size)
    chosen = replace(chosen, bend=bends)
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


def _rows(
    table: SectionTable,
    registration: Registration,
    dataset_id: int,
    failed: Collection[int],
    owner: str,
) -> tuple[list[int], list[Placement]]:
    """Return the rows of the table that are placed, and by which entries.

    An entry is for an image whose id its name holds. Only where its name holds no id of an image,
    and does not name another experiment, is it for the section of its number. The entries of
    other experiments of the same animal are passed over.
    """
    rows: dict[int, Placement] = {}
    renumbered, unplaced = [], []
    images = {int(image): row for row, image in enumerate(table.image_id)}
    for placement in registration.placements:
        row = _row_of_image(images, placement, owner)
        if row is None:
            if _is_foreign(placement, dataset_id, failed, owner):
                continue
            if placement.corners:
                row = _row_of_number(table, placement, owner)
        if row is None or not placement.corners:
            unplaced.append(placement.label)
            continue
        number = placement.section_number
        if number not in (None, table.section_number[row], table.image_id[row]):
            renumbered.append(
                f"{placement.label} is section {table.section_number[row]} of the dataset"
            )
        if row in rows:
            raise RegistrationError(
                f"{owner}: {rows[row].label} and {placement.label} are both image "
                f"{table.image_id[row]}"
            )
        rows[row] = placement
    if unplaced:
        warnings.warn(
            f"{owner}: passed over, as they have no anchoring: {', '.join(unplaced)}",
            AtldldWarning,
            stacklevel=6,
        )
    if not rows:
        raise RegistrationError(_nothing_fits(table, registration, owner))
    if renumbered:
        warnings.warn(
            f"{owner}: sections have other numbers in the registration; they are told by the ids "
            f"of their images: {_some(renumbered)}",
            AtldldWarning,
            stacklevel=6,
        )
    return list(rows), list(rows.values())


def _row_of_image(images: dict[int, int], placement: Placement, owner: str) -> int | None:
    """Return the row of the image whose id the name of an entry holds, or None."""
    found = {images[number] for number in placement.named.numbers if number in images}
    if len(found) > 1:
        named = [number for number in placement.named.numbers if number in images]
        raise RegistrationError(
            f"{owner}: {placement.label} names several of its images: {_some(named)}"
        )
    return found.pop() if found else None


def _is_foreign(placement: Placement, dataset_id: int, failed: Collection[int], owner: str) -> bool:
    """Whether an entry that names no image of a dataset is none of its business."""
    named = placement.named
    if set(named.numbers) & set(failed):
        return True
    if dataset_id in named.folders and named.images:
        raise RegistrationError(
            f"{owner}: {placement.label} is said to be of this dataset, which has no image "
            f"{_some(named.images)}"
        )
    return bool(named.images) or (bool(named.folders) and dataset_id not in named.folders)


def _nothing_fits(table: SectionTable, registration: Registration, owner: str) -> str:
    """Return what an error says about a registration of other sections."""
    placements = registration.placements
    if not placements:
        return f"{owner}: no section is registered"
    held = [f"{len(placements)} pictures such as {placements[0].label}"]
    images = [number for each in placements for number in each.named.images]
    folders = sorted({number for each in placements for number in each.named.folders})
    if images:
        held.append(f"images {_some(images)}")
    if folders:
        held.append(f"experiments {_some(folders)}")
    return (
        f"{owner}: nothing in it is for this dataset. It holds {', '.join(held)}; the dataset has "
        f"images {_some(table.image_id)}, sections {_some(table.section_number)}"
    )


def _some(values: Iterable[object], most: int = 4) -> str:
    """Return the first few of some values as text."""
    shown = [str(value) for value in values]
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest} more" if rest > 0 else "")


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


def _pixels(
    table: SectionTable, row: int, placement: Placement, owner: str, *, whole: bool = False
) -> Array:
    """Return the affine from (straight) pixels of a section to p, i, r, shape (3, 3).

    The picture's edges are those of its outermost pixels. A picture with the size of a tier is
    that tier, whose pixel centres are known; any other one covers the section edge to edge, and
    so does every one that is said to be `whole`.
    """
    corner, across, down = (np.array(each, dtype=np.float64) for each in placement.corners)
    if placement.size is not None and _tier(table, row, placement.size) is None:
        _check_shape((int(table.width[row]), int(table.height[row])), placement, owner)
    spans, edges = _picture(table, row, None if whole else placement.size)
    out = np.stack([across / spans[0], down / spans[1], corner], axis=1)
    out[:, 2] -= out[:, :2] @ edges
    return out


def _picture(table: SectionTable, row: int, size: tuple[int, int] | None) -> tuple[Array, Array]:
    """Return the full-resolution pixels that a picture spans, and the place of its outer corner."""
    sides = int(table.width[row]), int(table.height[row])
    tier = _tier(table, row, size)
    if tier is None:
        return np.array(sides, dtype=np.float64), np.array([-0.5, -0.5])
    step = 2.0**tier
    offsets = int(table.x[row]), int(table.y[row])
    return (
        np.array([tier_size(side, tier) * step for side in sides]),
        np.array([tier_origin(offset, tier) - step / 2 for offset in offsets]),
    )


def _bend(table: SectionTable, row: int, placement: Placement) -> Markers | None:
    """Return how a section is bent in its plane, or None."""
    if not placement.markers or placement.size is None:
        return None
    spans, corner = _picture(table, row, placement.size)
    scale = np.stack([spans / placement.size, corner])
    return Markers(np.array(placement.markers, dtype=np.float64), placement.size, scale)


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
    else:
        x, y = (
            ((table.width - 1) / 2, (table.height - 1) / 2)
            if detection_xy == "center"
            else np.broadcast_to(np.array(detection_xy)[:, None], (2, len(table)))
        )
        pixel = np.stack([x, y, np.ones(len(table))], axis=-1)
        for place, bend in enumerate(table.bend):
            if isinstance(bend, Markers):
                pixel[place, :2] = bend.load().to_straight(*pixel[place, :2])
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
