"""A section dataset and its images: frozen records, built from RMA rows, checked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import AtldldWarning, RegistrationError
from . import rows as rma
from .affine import tier_size
from .read import ImageRead, View
from .rows import Matrix, Row
from .space import Plane, plane_of_matrix, plane_of_section

_INVERSE_TOLERANCE = 50.0
"""Largest believable gap between a stored inverse and the true one (microns or pixels).

The stored ones agree to about 0.1 (six significant digits); a gap of this size means that a
matrix is not what its name says.
"""

_CONNECTIVITY_PRODUCTS = (5, 31)
_LARGEST_SIDE = 2**20
_LARGEST_OFFSET = 2**24
_LARGEST_NUMBER = 2**24
_LARGEST_THICKNESS = 1e5
_MOST_TIERS = 32
"""Bounds beyond which a number is not what its column says, whatever the service sends."""


@dataclass(frozen=True, slots=True)
class SectionImage:
    """One histological section and where it lies in the image stack.

    Parameters
    ----------
    id
        Id of the section image at the service.
    dataset_id
        Id of the dataset that it belongs to.
    section_number
        Its number in the stack; not an index, may be 0, need not be unique.
    width, height
        Size of the section in full-resolution pixels (not of its slide).
    x, y
        Offset of the section on its slide, in full-resolution pixels.
    tier_count
        Number of tiers of the slide; tiers are 0 to ``tier_count - 1``.
    resolution
        Microns per full-resolution pixel on the glass slide, or None.
    failed
        Whether the image failed quality control.
    has_expression
        Whether the image has an expression mask.
    tsv, tvs
        2 rows of 3: full-resolution pixels to the image stack (microns), and back.
    """

    id: int
    dataset_id: int
    section_number: int
    width: int
    height: int
    x: int
    y: int
    tier_count: int
    resolution: float | None
    failed: bool
    has_expression: bool
    tsv: Matrix
    tvs: Matrix

    @classmethod
    def from_row(cls, row: Row, dataset_id: int) -> SectionImage:
        """Build an image from a SectionImage row with its ``alignment2d``.

        Parameters
        ----------
        row
            The row; null or absent optional fields are understood.
        dataset_id
            Id of the dataset that it must belong to.

        Raises
        ------
        RegistrationError
            If the image has no usable alignment, size or number, or belongs to another
            dataset. The message names dataset, image and field.
        """
        owner = f"dataset {dataset_id}, image {rma.shown(row.get('id'))}"
        image_id = rma.integer(row, "id", owner, least=0)
        belongs_to = rma.optional_integer(row, "data_set_id", owner)
        if belongs_to not in (None, dataset_id):
            raise RegistrationError(f"{owner}: data_set_id is {belongs_to}, another dataset")
        width = rma.integer(row, "width", owner, least=1)
        height = rma.integer(row, "height", owner, least=1)
        if max(width, height) > _LARGEST_SIDE:
            raise RegistrationError(f"{owner}: width x height is {width} x {height}, not an image")
        slide = max(
            width,
            height,
            rma.optional_integer(row, "image_width", owner) or 0,
            rma.optional_integer(row, "image_height", owner) or 0,
        )
        tiers = rma.optional_integer(row, "tier_count", owner, least=1, most=_MOST_TIERS)
        alignment = row.get("alignment2d")
        return cls(
            id=image_id,
            dataset_id=dataset_id,
            section_number=rma.integer(row, "section_number", owner, most=_LARGEST_NUMBER),
            width=width,
            height=height,
            x=rma.optional_integer(row, "x", owner, least=0, most=_LARGEST_OFFSET) or 0,
            y=rma.optional_integer(row, "y", owner, least=0, most=_LARGEST_OFFSET) or 0,
            tier_count=_usual_tier_count(slide) if tiers is None else tiers,
            resolution=rma.optional_positive(row, "resolution"),
            failed=rma.flag(row, "failed"),
            has_expression=bool(row.get("expression_path")),
            tsv=rma.matrix_2d(alignment, "tsv", owner),
            tvs=rma.matrix_2d(alignment, "tvs", owner),
        )

    def read(self, tier: int, view: View = "image") -> ImageRead:
        """Return the read of the whole image at a tier."""
        return ImageRead(
            image_id=self.id,
            view=view,
            tier=tier,
            width=tier_size(self.width, tier),
            height=tier_size(self.height, tier),
            x=self.x,
            y=self.y,
            dataset_id=self.dataset_id,
            section_number=self.section_number,
        )


@dataclass(frozen=True, slots=True)
class SectionDataset:
    """A stack of sections and the matrices that put it into reference space.

    Parameters
    ----------
    id
        Id of the dataset at the service.
    plane
        The plane of section, by the dataset's own matrix.
    plane_of_section_id
        What the service calls the plane, or None.
    reference_space
        Id of the reference space that the matrices target, or None.
    section_thickness
        Microns of the image stack from one section number to the next.
    tvr, trv
        3 rows of 4: image stack to reference space (both in microns), and back.
    images
        The usable images, ascending by section number, then by id.
    failed_images
        The images that could be placed but failed quality control, in the same order.
    failed
        Whether the dataset failed quality control.
    genes
        Acronyms of the genes probed; empty for other data.
    products
        Names of Allen's products that the dataset belongs to.
    fluorescent
        Whether the sections are bright on black.
    hemisphere
        ``"left"``, ``"right"``, ``"both"`` or ``"unknown"``: which side the tissue is from.
    specimen, age
        Names, or None.
    """

    id: int
    plane: Plane
    plane_of_section_id: int | None
    reference_space: int | None
    section_thickness: float
    tvr: Matrix
    trv: Matrix
    images: tuple[SectionImage, ...]
    failed_images: tuple[SectionImage, ...] = ()
    failed: bool = False
    genes: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    fluorescent: bool = False
    hemisphere: str = "unknown"
    specimen: str | None = None
    age: str | None = None

    @classmethod
    def from_rows(cls, row: Row, image_rows: Iterable[Any] | None = None) -> SectionDataset:
        """Build a dataset from RMA rows.

        Parameters
        ----------
        row
            A SectionDataSet row with its ``alignment3d``.
        image_rows
            SectionImage rows with their ``alignment2d``; None takes them from
            ``row["section_images"]``. Nulls among them are passed over.

        Returns
        -------
        SectionDataset
            With every usable image. An image that failed quality control is set aside, and one
            that cannot be placed is left out, each with an `AtldldWarning` that names it.

        Raises
        ------
        RegistrationError
            If the dataset has no usable alignment or thickness, or no usable image. The
            message names the dataset and the field.
        """
        if not isinstance(row, Mapping):
            raise RegistrationError(f"the row of a dataset is {rma.shown(row)}, not an object")
        dataset_id = rma.integer(row, "id", f"dataset {rma.shown(row.get('id'))}", least=0)
        owner = f"dataset {dataset_id}"
        thickness = rma.positive(row, "section_thickness", owner, most=_LARGEST_THICKNESS)
        tvr = rma.matrix_3d(row.get("alignment3d"), "tvr", owner)
        trv = rma.matrix_3d(row.get("alignment3d"), "trv", owner)
        (gap,) = _inverse_gaps([tvr], [trv])
        if gap > _INVERSE_TOLERANCE:
            raise RegistrationError(_no_inverse(owner, "alignment3d", gap))
        plane = plane_of_matrix(np.asarray(trv))
        plane_id = rma.optional_integer(row, "plane_of_section_id", owner)
        _compare_planes(plane, plane_id, owner)
        space = rma.optional_integer(row, "reference_space_id", owner)
        if space is None:
            warnings.warn(
                f"{owner}: the reference space is not given; its coordinates cannot be compared "
                "with those of other datasets",
                AtldldWarning,
                stacklevel=2,
            )
        if image_rows is None:
            image_rows = row.get("section_images")
        specimen = next(iter(rma.records(row.get("specimen"))), {})
        products = rma.records(row.get("products"))
        images = _placed_images(image_rows, dataset_id)
        return cls(
            id=dataset_id,
            plane=plane,
            plane_of_section_id=plane_id,
            reference_space=space,
            section_thickness=thickness,
            tvr=tvr,
            trv=trv,
            images=tuple(image for image in images if not image.failed),
            failed_images=tuple(image for image in images if image.failed),
            failed=rma.flag(row, "failed"),
            genes=rma.texts(rma.records(row.get("genes")), "acronym"),
            products=rma.texts(products, "name"),
            fluorescent=_is_fluorescent(row, products),
            hemisphere=_hemisphere(specimen, plane, space),
            specimen=next(iter(rma.texts([specimen], "name")), None),
            age=next(rma.ages(row, specimen), None),
        )

    def matrix(self, name: str) -> npt.NDArray[np.float64]:
        """Return ``"tvr"`` or ``"trv"`` as an array of shape (3, 4)."""
        return np.array(getattr(self, name), dtype=np.float64)


def _placed_images(image_rows: Any, dataset_id: int) -> list[SectionImage]:
    found: list[SectionImage | str] = []
    for row in rma.records(image_rows):
        try:
            found.append(SectionImage.from_row(row, dataset_id))
        except RegistrationError as error:
            found.append(f"left out: {error}")
    placed = [each for each in found if isinstance(each, SectionImage)]
    gaps = iter(_inverse_gaps([each.tsv for each in placed], [each.tvs for each in placed]))
    images: dict[int, SectionImage] = {}
    reasons = []
    for image in found:
        if isinstance(image, str):
            reasons.append(image)
            continue
        owner = f"dataset {dataset_id}, image {image.id}"
        gap = next(gaps)
        if gap > _INVERSE_TOLERANCE:
            reasons.append(f"left out: {_no_inverse(owner, 'alignment2d', gap)}")
            continue
        if image.id not in images and image.failed:
            reasons.append(f"set aside: {owner}: failed quality control")
        if images.setdefault(image.id, image) != image:
            reasons.append(f"left out: {owner}: listed twice, not alike")
    if all(image.failed for image in images.values()):
        why = "; ".join(reasons[:5]) or "the service lists none"
        raise RegistrationError(f"dataset {dataset_id} has no usable section image: {why}")
    for reason in reasons:
        warnings.warn(f"section image {reason}", AtldldWarning, stacklevel=4)
    return sorted(images.values(), key=lambda image: (image.section_number, image.id))


def _usual_tier_count(longer_side: int) -> int:
    """Return the number of tiers by the rule that recorded images obey: down to 256 pixels."""
    return max(math.ceil(math.log2(longer_side / 256)), 0) + 1


def _inverse_gaps(forward: Sequence[Matrix], back: Sequence[Matrix]) -> list[float]:
    """Return how far matrices are from being each other's inverses, over 10,000 units."""
    if not forward:
        return []
    one, two = np.array(forward), np.array(back)
    linear = two[:, :, :-1] @ one[:, :, :-1] - np.eye(one.shape[1])
    shift = (two[:, :, :-1] @ one[:, :, -1:])[..., 0] + two[:, :, -1]
    gaps = 10_000.0 * np.abs(linear).max(axis=(1, 2)) + np.abs(shift).max(axis=1)
    found: list[float] = gaps.tolist()
    return found


def _no_inverse(owner: str, field: str, gap: float) -> str:
    return (
        f"{owner}: the two matrices of {field} are not each other's inverse (off by {gap:.4g} "
        "over 10,000)"
    )


def _compare_planes(plane: Plane, plane_id: int | None, owner: str) -> None:
    named = plane_of_section(plane_id)
    if named is plane:
        return
    said = (
        f"its plane of section ({plane_id!r}) names none"
        if named is None
        else f"its plane of section says {named.name}"
    )
    warnings.warn(
        f"{owner}: its matrix says {plane.name}, {said}; the matrix is used",
        AtldldWarning,
        stacklevel=3,
    )


def _is_fluorescent(row: Row, products: list[Row]) -> bool:
    return (
        any(row.get(f"{colour}_channel") for colour in ("red", "green", "blue"))
        or bool(rma.records(row.get("equalization")))
        or any(product.get("id") in _CONNECTIVITY_PRODUCTS for product in products)
    )


def _hemisphere(specimen: Row, plane: Plane, space: int | None) -> str:
    said = str(specimen.get("hemisphere")).lower()
    if said in ("left", "right", "both"):
        return said
    if plane.name == "sagittal":
        # Allen's sagittal mouse series are cut from the left hemisphere, and only they are
        # registered to space 10 (API for mouse brain atlas).
        return "left" if space == 10 else "unknown"
    return "both"
