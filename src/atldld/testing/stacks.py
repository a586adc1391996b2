"""Where made-up sections lie: oblique matrices, section numbers, crops, slides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .oracle import flip
from .phantom import PlaneName
from .tissue import EDGE, MIDDLE_R, depth

Array = npt.NDArray[np.float64]

MIDDLE = np.array([6600.0, 4000.0, MIDDLE_R])
"""p, i, r that every stack turns about, in microns; the flip of r keeps it."""

_FRAMES: dict[PlaneName, tuple[tuple[float, float, float], ...]] = {
    # Rows: what the stack's x, y and z run along, in p, i, r. Each is right-handed.
    "coronal": ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
    "sagittal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "transverse": ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
}

_SPANS: dict[PlaneName, tuple[float, float]] = {
    "coronal": (12500.0, 900.0),
    "sagittal": (2000.0, 5300.0),
    "transverse": (900.0, 6900.0),
}
"""Where the first and the last section meet the middle line, along the slicing axis."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The 3-D side of a dataset.

    Parameters
    ----------
    trv, tvr
        Shape (4, 4): reference space to image stack, and its exact inverse.
    numbers
        The section numbers, ascending.
    """

    trv: Array
    tvr: Array
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """The 2-D side of one section: its size, and where it lies in the stack and on its slide.

    Parameters
    ----------
    tsv, tvs
        Shape (3, 3): full-resolution pixels to image stack, and the exact inverse.
    width, height
        Size of the section.
    x, y, slide_width, slide_height
        Where it lies on its slide, and the slide's size.
    slide
        Which slide.
    """

    tsv: Array
    tvs: Array
    width: int
    height: int
    x: int
    y: int
    slide_width: int
    slide_height: int
    slide: int


def make_stack(
    plane: PlaneName,
    tilt: float,
    sections: int,
    thickness: float,
    first_number: int,
    gaps: int,
    random: np.random.Generator,
) -> Stack:
    """Lay `sections` section numbers through the brain, on planes tilted by `tilt` degrees."""
    base = np.array(_FRAMES[plane], dtype=np.float64)
    azimuth = random.uniform(0.0, 2.0 * math.pi)
    towards = math.cos(azimuth) * base[0] + math.sin(azimuth) * base[1]
    # Turn the whole frame so that its third row leaves the slicing axis by exactly `tilt`.
    frame = base @ _rotation(np.cross(base[2], towards), math.radians(tilt)).T
    spin = math.radians(random.uniform(0.8, 3.0)) * random.choice([-1.0, 1.0])
    frame = frame @ _rotation(frame[2], spin).T
    scale = np.array([0.953, 0.968, 0.944]) + random.uniform(-0.02, 0.02, 3)
    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = random.uniform(-0.006, 0.006, 2)
    linear = (scale[:, None] * (shear @ frame)).astype(np.float64)

    axis = int(np.argmax(np.abs(base[2])))
    first, last = _SPANS[plane]
    length = abs((last - first) * linear[2, axis])
    wanted = sections + gaps
    step = max(round(length / thickness / max(wanted - 1, 1)), 1)
    numbers = first_number + step * np.arange(wanted)
    if gaps:
        missing = random.choice(np.arange(1, wanted - 1), size=gaps, replace=False)
        numbers = np.delete(numbers, missing)

    trv = np.eye(4)
    trv[:3, :3] = linear
    centre = MIDDLE.copy()
    centre[axis] = (first + last) / 2.0
    trv[0, 3] = 6100.0 + random.uniform(-300.0, 300.0) - linear[0] @ centre
    trv[1, 3] = 5200.0 + random.uniform(-300.0, 300.0) - linear[1] @ centre
    trv[2, 3] = (numbers[0] + numbers[-1]) / 2.0 * thickness - linear[2] @ centre
    return Stack(
        trv,
        np.asarray(np.linalg.inv(trv), dtype=np.float64),
        tuple(int(number) for number in numbers),
    )


def place_sections(
    stack: Stack,
    thickness: float,
    resolution: float,
    *,
    flipped: bool,
    image_size: tuple[int, int] | None,
    per_slide: int,
    random: np.random.Generator,
) -> list[Placement]:
    """Crop each section around its tissue, turn it a little, and put it on a slide.

    Parameters
    ----------
    flipped
        Whether the stack's matrices target space 10, where r is mirrored.
    image_size
        Width and height for every section; None crops each around its tissue.
    per_slide
        How many sections share a slide.
    """
    shapes = [
        _crop(stack, number * thickness, resolution, flipped, image_size, random)
        for number in stack.numbers
    ]
    placements: list[Placement] = []
    for slide, first in enumerate(range(0, len(shapes), per_slide)):
        group = shapes[first : first + per_slide]
        corners, size = _lay_out([shape[1] for shape in group], random)
        for (tsv, (width, height)), (x, y) in zip(group, corners, strict=True):
            tvs = np.asarray(np.linalg.inv(tsv), dtype=np.float64)
            placements.append(Placement(tsv, tvs, width, height, x, y, *size, slide))
    return placements


def _crop(
    stack: Stack,
    z: float,
    resolution: float,
    flipped: bool,
    image_size: tuple[int, int] | None,
    random: np.random.Generator,
) -> tuple[Array, tuple[int, int]]:
    turn = math.radians(random.uniform(-4.0, 4.0))
    linear = resolution * np.array(
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    )
    low, high = _footprint(stack, z, linear, flipped)
    margins = random.uniform(300.0, 900.0, (2, 2)) / resolution
    if image_size is None:
        low, high = low - margins[0], high + margins[1]
        width, height = (max(int(side) | 1, 3) for side in high - low)
    else:
        width, height = image_size
        # The tissue stays inside where it fits: the spare pixels are split at random.
        low = low - (np.array(image_size) - (high - low)) * random.uniform(0.3, 0.7, 2)
    tsv = np.eye(3)
    tsv[:2, :2] = linear
    tsv[:2, 2] = linear @ low
    return tsv, (width, height)


def _footprint(stack: Stack, z: float, linear: Array, flipped: bool) -> tuple[Array, Array]:
    """Return the corners, in turned pixels, of the box around the tissue of one section."""
    across = np.arange(-2000.0, 15000.0, 200.0)
    u, v = np.meshgrid(across, across)
    points = np.stack([u.ravel(), v.ravel(), np.full(u.size, z), np.ones(u.size)])
    p, i, r = (stack.tvr @ points)[:3]
    tissue = depth(p, i, flip(r) if flipped else r) > -EDGE
    if np.count_nonzero(tissue) < 40:
        # Beyond the brain: a small image of glass, about where the stack's middle lies.
        middle = (stack.trv @ np.append(MIDDLE, 1.0))[:2]
        corners = np.abs(points[:2] - middle[:, None]).max(axis=0) < 800.0
        tissue = corners
    pixels = np.linalg.solve(linear, points[:2, tissue])
    return pixels.min(axis=1), pixels.max(axis=1)


def _lay_out(
    sizes: list[tuple[int, int]], random: np.random.Generator
) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Put sections on a slide, two a row; alone, a section is its slide."""
    if len(sizes) == 1:
        return [(0, 0)], sizes[0]
    cell_width = max(width for width, _ in sizes)
    cell_height = max(height for _, height in sizes)
    columns = 2
    corners = []
    right = bottom = 0
    for place, (width, height) in enumerate(sizes):
        row, column = divmod(place, columns)
        # Odd offsets are multiples of no power of two, whatever the tier.
        x = int(random.integers(7, 90) + column * (cell_width + 101)) | 1
        y = int(random.integers(7, 90) + row * (cell_height + 101)) | 1
        corners.append((x, y))
        right, bottom = max(right, x + width), max(bottom, y + height)
    margin = [int(side) for side in random.integers(5, 80, 2)]
    return corners, ((right + margin[0]) | 1, (bottom + margin[1]) | 1)


def _rotation(axis: Array, angle: float) -> Array:
    """Return the (3, 3) rotation about an axis (Rodrigues' formula)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(
        np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)
    )


def tier_count(*sides: Any) -> int:
    """Return how many tiers a slide has: halved until it is at most 256 pixels a side.

    Examples
    --------
    >>> tier_count(14001, 7601), tier_count(19200, 38272), tier_count(100)
    (7, 9, 1)
    """
    return max(math.ceil(math.log2(max(sides) / 256)), 0) + 1
