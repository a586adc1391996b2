"""The sections of a dataset as numpy columns: what a lazy array carries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from .affine import (
    Array,
    Mapping,
    pixel_microns,
    plane_affines,
    point_affines,
    slice_coordinates,
    tier_size,
)
from .dataset import SectionDataset, SectionImage
from .grid import footprint
from .read import ImageRead, View
from .space import P56_MIDDLE, extent, flip_matrix

Detection = tuple[float, float] | Literal["center"] | None

_FARTHEST_PIXEL = 1e9

LEAST_DISTANCE = 100.0
"""Microns of the stack within which a voxel shows a section, whatever the gaps."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sections:
    """Section images of a dataset in columns, n rows.

    Parameters
    ----------
    image_id, section_number
        Shape (n,), int64.
    width, height, x, y
        Shape (n,), int32: the section on its slide, full-resolution pixels.
    tier_count
        Shape (n,), int16.
    microns_per_pixel
        Shape (n,), float64: reference microns that a full-resolution pixel spans along its
        longer axis.
    has_expression
        Shape (n,), bool.
    """

    image_id: npt.NDArray[np.int64]
    section_number: npt.NDArray[np.int64]
    width: npt.NDArray[np.int32]
    height: npt.NDArray[np.int32]
    x: npt.NDArray[np.int32]
    y: npt.NDArray[np.int32]
    tier_count: npt.NDArray[np.int16]
    microns_per_pixel: Array
    has_expression: npt.NDArray[np.bool_]

    shared: ClassVar[tuple[str, ...]] = ()
    """Fields that are no columns, but hold for all rows."""

    def __len__(self) -> int:
        return len(self.image_id)

    def __reduce__(self) -> tuple[Any, ...]:
        # It travels in every task: numbers that all sections share are carried once.
        return _unpacked, (
            type(self),
            *(_packed(getattr(self, each.name)) for each in fields(self)),
        )

    def __dask_tokenize__(self) -> tuple[str, str]:
        # By hand: dask takes ten times as long to look into so many arrays.
        digest = sha256()
        for field in fields(self):
            column = getattr(self, field.name)
            content = column.tobytes()
            if column.dtype == object:
                content = repr([None if each is None else each.key for each in column]).encode()
            digest.update(f"{field.name} {column.dtype.str} {column.shape} ".encode() + content)
        return type(self).__name__, digest.hexdigest()

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Self:
        """Return the sections of some rows (positions, or one truth value a row)."""
        names = [field.name for field in fields(self) if field.name not in self.shared]
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def whole_image(self, dataset_id: int, row: int, tier: int, view: View) -> ImageRead:
        """Return the read of the whole image of a section."""
        return ImageRead(
            image_id=int(self.image_id[row]),
            view=view,
            tier=tier,
            width=tier_size(int(self.width[row]), tier),
            height=tier_size(int(self.height[row]), tier),
            x=int(self.x[row]),
            y=int(self.y[row]),
            dataset_id=dataset_id,
            section_number=int(self.section_number[row]),
        )

    def sample_images(self, dataset_id: int) -> list[ImageRead]:
        """Return the reads of a few images, to find out about the service of a dataset.

        They come from amid the dataset, where there is tissue; last those that lie furthest from
        the corner of their slide.
        """
        count = len(self)
        furthest = [
            int(np.argmax(offset)) for offset in (np.minimum(self.x, self.y), self.x, self.y)
        ]
        rows = dict.fromkeys((count // 2, count // 4, 3 * count // 4, *furthest))
        return [self.whole_image(dataset_id, row, 0, "image") for row in rows]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SectionTable(Sections):
    """Sections in ascending order of slice coordinate (ties by image id), n rows.

    Parameters
    ----------
    slice_coordinate
        Shape (n,), float64: the one p, i or r (by plane) that stands for the section, microns.
    affine
        Shape (n, 2, 3), float64: from (column microns, row microns, 1) of the plane to
        full-resolution x, y.
    points
        Shape (n, 3, 3), float64: from the same to the exact p, i, r of what the point shows.
    bend
        Shape (n,), objects: where the bend of the section comes from, a `BendSource`, or None.
        Of a bent section `affine` gives the straight pixel.
    """

    slice_coordinate: Array
    affine: Array
    points: Array
    bend: npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Stack(Sections):
    """Sections in ascending order of section number, one a number, n rows.

    Parameters
    ----------
    trv
        Shape (3, 4): reference space to image stack, of the space that r is counted in.
    z
        Shape (n,), float64: section number times thickness, microns of the stack.
    tvs
        Shape (n, 2, 3): image stack to full-resolution pixels.
    """

    trv: Array
    z: Array
    tvs: Array

    shared: ClassVar[tuple[str, ...]] = ("trv",)

    def pixels_of_space(self) -> Array:
        """Return, for each section, ``tvs`` after ``trv``: p, i, r, 1 to x, y, shape (n, 2, 4)."""
        out = self.tvs[:, :, :2] @ self.trv[:2]
        out[:, :, 3] += self.tvs[:, :, 2]
        return np.asarray(out)


def tabulate(
    dataset: SectionDataset,
    *,
    mapping: Mapping = "oblique",
    detection_xy: Detection = None,
    flip: bool = False,
) -> SectionTable:
    """Put the sections of a dataset into columns, each with its affine and slice coordinate.

    Parameters
    ----------
    dataset
        The dataset.
    mapping
        See `plane_affines`.
    detection_xy
        What gives a section its slice coordinate: None, where its plane meets the middle line
        of the space; ``(x, y)``, the place of a full-resolution pixel; ``"center"``, the place
        of the middle of its image.
    flip
        Whether r is counted in the other one of spaces 9 and 10, as ``11350 - r``.

    Raises
    ------
    ValueError
        If `detection_xy` names a pixel that no image can have.
    """
    if isinstance(detection_xy, tuple) and not max(map(abs, detection_xy)) <= _FARTHEST_PIXEL:
        raise ValueError(
            f"detection_xy is {detection_xy}; no image reaches further than {_FARTHEST_PIXEL:g} "
            "pixels"
        )
    images = dataset.images
    trv, tvr = dataset.matrix("trv"), dataset.matrix("tvr")
    if flip:
        trv, tvr = trv @ flip_matrix(), (flip_matrix() @ np.vstack([tvr, [0, 0, 0, 1]]))[:3]
    columns, tsv, tvs = _columns(images, tvr)
    width, height = columns["width"], columns["height"]
    z = np.asarray(columns["section_number"] * dataset.section_thickness, dtype=np.float64)
    plane = dataset.plane
    if detection_xy is None:
        coordinate = slice_coordinates(trv, z, plane, _middle(dataset))
    else:
        x, y = ((width - 1) / 2, (height - 1) / 2) if detection_xy == "center" else detection_xy
        pixel = np.stack(np.broadcast_arrays(x, y, np.ones(len(images))), axis=-1)
        stack = np.concatenate([np.einsum("nij,nj->ni", tsv, pixel), z[:, None]], axis=1)
        coordinate = stack @ tvr[plane.section, :3] + tvr[plane.section, 3]
    table = SectionTable(
        **columns,
        slice_coordinate=coordinate,
        affine=plane_affines(tvs, trv, z, coordinate, plane, mapping),
        points=point_affines(tsv, tvs, tvr, trv, z, coordinate, plane, mapping),
        bend=np.full(len(images), None),
    )
    return in_order(table)


def in_order(table: SectionTable) -> SectionTable:
    """Return sections in ascending order of slice coordinate, ties by image id."""
    table = table.take(np.lexsort([table.image_id, table.slice_coordinate]))
    return replace(table, slice_coordinate=_told_apart(table.slice_coordinate))


_Packed = tuple[tuple[int, ...], npt.NDArray[Any], npt.NDArray[np.bool_], npt.NDArray[Any]]


def _packed(column: npt.NDArray[Any]) -> _Packed:
    """Return shape, first row, which of its numbers vary, and those of every row."""
    flat = column.reshape(len(column), math.prod(column.shape[1:]))
    varies = (flat != flat[:1]).any(axis=0)
    return column.shape, flat[:1], varies, np.ascontiguousarray(flat[:, varies])


def _unpacked(kind: type[Sections], *columns: _Packed) -> Sections:
    found = {}
    for field, (shape, first, varies, rows) in zip(fields(kind), columns, strict=True):
        flat = np.repeat(first, shape[0], axis=0)
        flat[:, varies] = rows
        found[field.name] = flat.reshape(shape)
    return kind(**found)


_TYPES = {
    "id": np.int64, "section_number": np.int64, "width": np.int32, "height": np.int32,
    "x": np.int32, "y": np.int32, "tier_count": np.int16, "has_expression": np.bool_,
}  # fmt: skip


def _columns(images: Sequence[SectionImage], tvr: Array) -> tuple[dict[str, Any], Array, Array]:
    """Return what `Sections` holds of images, and their matrices, shape (n, 2, 3) each."""
    columns: dict[str, Any] = {
        name: np.array([getattr(image, name) for image in images], dtype=dtype)
        for name, dtype in _TYPES.items()
    }
    tsv, tvs = (
        np.array([getattr(image, name) for image in images], dtype=np.float64)
        for name in ("tsv", "tvs")
    )
    columns["image_id"] = columns.pop("id")
    columns["microns_per_pixel"] = pixel_microns(tsv, tvr).max(axis=-1)
    return columns, tsv, tvs


def _told_apart(ascending: Array) -> Array:
    """Return equal coordinates one rounding step apart, so that each names one section.

    Two images with one section number lie on one plane; without this, no label-based selection
    could tell them apart.
    """
    out = ascending.copy()
    for place in np.flatnonzero(np.diff(ascending) == 0):
        out[place + 1] = np.nextafter(out[place], np.inf)
    return out


def _middle(dataset: SectionDataset) -> tuple[float, ...]:
    if extent(dataset.reference_space) is not None:
        return P56_MIDDLE
    low, high = footprint(dataset)
    return tuple((low + high) / 2)


def stack_of(dataset: SectionDataset, *, flip: bool = False) -> tuple[Stack, tuple[int, ...]]:
    """Return the image stack of a dataset, and the images that have no place of their own in it.

    Parameters
    ----------
    dataset
        The dataset.
    flip
        Whether r is counted in the other one of spaces 9 and 10, as ``11350 - r``.

    Returns
    -------
    stack
        The sections; of several images with one section number, the one of the lowest id.
    left_out
        Ids of the other images with such a number.
    """
    trv, tvr = dataset.matrix("trv"), dataset.matrix("tvr")
    if flip:
        trv = trv @ flip_matrix()
    ordered = sorted(dataset.images, key=lambda image: (image.section_number, image.id))
    images = {image.section_number: image for image in reversed(ordered)}
    chosen = [images[number] for number in sorted(images)]
    left_out = tuple(image.id for image in ordered if images[image.section_number].id != image.id)
    columns, _, tvs = _columns(chosen, tvr)
    z = np.asarray(columns["section_number"] * dataset.section_thickness, dtype=np.float64)
    stack = Stack(**columns, trv=np.ascontiguousarray(trv), z=z, tvs=tvs)
    return stack, left_out


def default_distance(z: Array) -> float:
    """Return how far from a section a voxel may lie and show it, microns of the stack.

    The larger of 100 and half the median gap between neighbouring sections.

    Parameters
    ----------
    z
        Shape (n,): ascending, of all sections of the dataset.

    Examples
    --------
    >>> import numpy as np
    >>> default_distance(np.array([0.0, 100.0, 200.0])), default_distance(np.array([0.0, 300.0]))
    (100.0, 150.0)
    """
    gaps = np.diff(z)
    return max(LEAST_DISTANCE, float(np.median(gaps)) / 2) if len(gaps) else LEAST_DISTANCE


def stack_z(trv: Array, p: npt.ArrayLike, i: npt.ArrayLike, r: npt.ArrayLike) -> Array:
    """Return the third coordinate of the image stack at points of reference space, microns.

    The sum is always taken in this order, so that the same point has the same z to the last bit
    wherever it is asked about; p, i and r broadcast.
    """
    across, down, along, shift = trv[2]
    p, i, r = (np.asarray(each, dtype=np.float64) for each in (p, i, r))
    return summed_z(across * p, down * i, along * r, shift)


def summed_z(of_p: Array, of_i: Array, of_r: Array, shift: float) -> Array:
    """Return z from the shares of p, i and r in it, and what is added to all; see `stack_z`."""
    return np.asarray((of_p + of_i + of_r) + shift, dtype=np.float64)
