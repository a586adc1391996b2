"""The sections of a dataset as planes of an image stack: what a volume carries."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from .affine import Array, pixel_microns
from .dataset import SectionDataset
from .space import flip_matrix

LEAST_DISTANCE = 100.0
"""Microns of the stack within which a voxel shows a section, whatever the gaps."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Sections in ascending order of section number, one a number, n rows.

    Parameters
    ----------
    trv
        Shape (3, 4): reference space to image stack, of the space that r is counted in.
    image_id, section_number
        Shape (n,), int64.
    z
        Shape (n,), float64: section number times thickness, microns of the stack.
    tvs
        Shape (n, 2, 3): image stack to full-resolution pixels.
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

    trv: Array
    image_id: npt.NDArray[np.int64]
    section_number: npt.NDArray[np.int64]
    z: Array
    tvs: Array
    width: npt.NDArray[np.int32]
    height: npt.NDArray[np.int32]
    x: npt.NDArray[np.int32]
    y: npt.NDArray[np.int32]
    tier_count: npt.NDArray[np.int16]
    microns_per_pixel: Array
    has_expression: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.image_id)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Stack:
        """Return the stack of some rows (positions, or one truth value a row)."""
        return Stack(
            self.trv, **{field.name: getattr(self, field.name)[rows] for field in fields(self)[1:]}
        )

    def pixels_of_space(self) -> Array:
        """Return, for each section, ``tvs`` after ``trv``: p, i, r, 1 to x, y, shape (n, 2, 4)."""
        out = self.tvs[:, :, :2] @ self.trv[:2]
        out[:, :, 3] += self.tvs[:, :, 2]
        return np.asarray(out)


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
    number = np.array([image.section_number for image in chosen], dtype=np.int64)
    tsv = np.array([image.tsv for image in chosen], dtype=np.float64)
    stack = Stack(
        trv=np.ascontiguousarray(trv),
        image_id=np.array([image.id for image in chosen], dtype=np.int64),
        section_number=number,
        z=np.asarray(number * dataset.section_thickness, dtype=np.float64),
        tvs=np.array([image.tvs for image in chosen], dtype=np.float64),
        width=np.array([image.width for image in chosen], dtype=np.int32),
        height=np.array([image.height for image in chosen], dtype=np.int32),
        x=np.array([image.x for image in chosen], dtype=np.int32),
        y=np.array([image.y for image in chosen], dtype=np.int32),
        tier_count=np.array([image.tier_count for image in chosen], dtype=np.int16),
        microns_per_pixel=pixel_microns(tsv, tvr).max(axis=-1),
        has_expression=np.array([image.has_expression for image in chosen], dtype=bool),
    )
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
    return np.asarray(
        (across * np.asarray(p) + down * np.asarray(i) + along * np.asarray(r)) + shift,
        dtype=np.float64,
    )
