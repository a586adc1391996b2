"""Cutting a phantom brain into a section dataset: oblique matrices, numbers, crops, slides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from . import service_rows as rows
from .datasets import PhantomDataset
from .oracle import flip
from .phantom import EDGE, MIDDLE_R, PhantomBrain, PlaneName, depth

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


def phantom_dataset(
    dataset_id: int = 1001,
    plane: PlaneName = "coronal",
    tilt: float = 3.0,
    sections: int = 12,
    brain: PhantomBrain | None = None,
    *,
    reference_space: int | None = None,
    section_thickness: float = 25.0,
    resolution: float = 8.0,
    slides: bool | int = False,
    image_size: tuple[int, int] | None = None,
    first_number: int = 0,
    gaps: int | None = None,
    tier_count: int | None = None,
    expression: bool = True,
    gene: str | Sequence[str] = "Phantom1",
    products: Sequence[int] = (1,),
    first_image_id: int | None = None,
    seed: int = 0,
) -> PhantomDataset:
    """Cut a phantom brain into a section dataset.

    The same arguments give the same dataset. Its matrices are oblique and mildly anisotropic,
    with six significant digits, each direction rounded from the exact inverse of the other,
    so that stored inverses differ by about 0.01 to 0.1. Each section is cropped around its
    tissue and turned by itself, so that 2-D matrices jump from one section to the next.

    Parameters
    ----------
    dataset_id
        Its id; image ids follow from it.
    plane
        ``"coronal"``: numbers grow from posterior to anterior. ``"sagittal"``: from lateral to
        medial, one hemisphere, r about 2000 to 5300 in its own space. ``"transverse"``: from
        top to bottom.
    tilt
        Degrees between the normal of the sections and the slicing axis.
    sections
        How many.
    brain
        What they show; None is a `PhantomBrain` of tissue.
    reference_space
        The space its matrices target; None is 9, or 10 for sagittal data. In space 10 r runs
        the other way (``11350 - r``) through the same brain.
    section_thickness
        Microns of the stack from one section number to the next.
    resolution
        Microns per full-resolution pixel.
    slides
        Sections per slide: False is one each, True is four. Then ``x, y`` are odd, and
        ``image_width`` differs from ``width``.
    image_size
        Width and height of every section in full-resolution pixels; None crops to the tissue
        (odd sizes).
    first_number
        Number of the first section.
    gaps
        How many numbers between are missing; None is two, where there are sections enough.
    tier_count
        Number of tiers; None halves the slide until it is at most 256 pixels a side.
    expression
        Whether the images have expression masks.
    gene
        Acronym or acronyms of the genes; an empty sequence for none.
    products
        Ids of the service's products that it belongs to; 5 and 31 are fluorescence data and
        get an ``equalization``.
    first_image_id
        Id of the first image; None is ``dataset_id * 1000``.
    seed
        Varies what is drawn at random: tilt direction, crops, turns.

    Examples
    --------
    >>> dataset = phantom_dataset(1001, sections=4, resolution=32.0)
    >>> dataset.image_ids
    [1001000, 1001001, 1001002, 1001003]
    >>> dataset.pixels(1001000, tier=3).dtype
    dtype('uint8')
    """
    if plane not in get_args(PlaneName):
        known = ", ".join(get_args(PlaneName))
        raise ValueError(f"plane is {plane!r}; it must be one of {known}")
    if sections < 1:
        raise ValueError(f"sections is {sections!r}; it must be at least 1")
    if not 0 <= tilt < 45:
        raise ValueError(f"tilt is {tilt!r}; it must be from 0 to below 45 degrees")
    space = (10 if plane == "sagittal" else 9) if reference_space is None else reference_space
    missing = (2 if sections >= 6 else 0) if gaps is None else gaps
    if missing and missing > sections + missing - 2:
        raise ValueError(f"gaps is {gaps!r}; {sections} sections have no room for them between")
    trv, tvr, placements = _geometry(
        plane,
        tilt,
        sections,
        section_thickness,
        first_number,
        missing,
        resolution,
        space == 10,
        None if image_size is None else (image_size[0], image_size[1]),
        4 if slides is True else max(int(slides), 1),
        (seed, dataset_id),
    )
    base = dataset_id * 1000 if first_image_id is None else first_image_id
    images = []
    for image_id, placed in enumerate(placements, base):
        columns = placed.columns
        slide = columns["image_width"], columns["image_height"]
        tiers = tiers_of(*slide) if tier_count is None else tier_count
        image = rows.section_image(
            image_id, dataset_id, resolution=resolution, tier_count=tiers, **columns
        )
        if not expression:
            image["expression_path"] = None
        image["alignment2d"] = rows.alignment2d(
            700_000_000 + image_id, image_id, placed.tsv.tolist(), placed.tvs.tolist()
        )
        images.append(image)
    genes = (gene,) if isinstance(gene, str) else tuple(gene)
    row = rows.section_dataset(
        dataset_id,
        expression=expression,
        plane_of_section_id=rows.PLANE_IDS[plane],
        reference_space_id=space,
        section_thickness=section_thickness,
        genes=[rows.gene(acronym) for acronym in genes],
        products=[rows.product(product_id) for product_id in products],
        specimen=rows.specimen(dataset_id),
        treatments=[],
    )
    if {5, 31} & set(products):
        row["equalization"] = rows.equalization(dataset_id)
    row["alignment3d"] = rows.alignment3d(
        800_000_000 + dataset_id, dataset_id, tvr.tolist(), trv.tolist()
    )
    row["section_images"] = images
    on = {image["id"]: placed.slide for image, placed in zip(images, placements, strict=True)}
    return PhantomDataset(row, brain or PhantomBrain(), slides=on)


def tiers_of(*sides: int) -> int:
    """Return how many tiers a slide has: halved until it is at most 256 pixels a side.

    Examples
    --------
    >>> tiers_of(14001, 7601), tiers_of(19200, 38272), tiers_of(100)
    (7, 9, 1)
    """
    return max(math.ceil(math.log2(max(sides) / 256)), 0) + 1


class Placement(NamedTuple):
    """Where one section lies in the stack and on its slide.

    Parameters
    ----------
    tsv, tvs
        Shape (3, 3): full-resolution pixels to image stack, and the exact inverse.
    slide
        Which slide.
    columns
        Section number, sizes and offset, as a SectionImage row names them.
    """

    tsv: Array
    tvs: Array
    slide: int
    columns: Mapping[str, int]


@lru_cache(maxsize=128)
def _geometry(
    plane: PlaneName,
    tilt: float,
    sections: int,
    thickness: float,
    first_number: int,
    gaps: int,
    resolution: float,
    flipped: bool,
    image_size: tuple[int, int] | None,
    per_slide: int,
    seed: tuple[int, int],
) -> tuple[Array, Array, list[Placement]]:
    """Lay sections through the brain, crop each around its tissue, and put it on a slide.

    Parameters
    ----------
    flipped
        Whether the matrices target space 10, where r is mirrored.
    image_size
        Width and height for every section; None crops each around its tissue.
    per_slide
        How many sections share a slide.
    """
    random = np.random.default_rng(seed)
    trv, numbers = _stack(plane, tilt, sections, thickness, first_number, gaps, random)
    tvr = np.asarray(np.linalg.inv(trv), dtype=np.float64)
    crops = []
    for number in numbers:
        inside = _tissue(trv, tvr, number * thickness, flipped)
        crops.append((number, *_crop(inside, resolution, image_size, random)))
    placements = []
    for slide, first in enumerate(range(0, len(crops), per_slide)):
        group = crops[first : first + per_slide]
        corners, size = _lay_out([sides for _, _, sides in group], random)
        for (number, tsv, (width, height)), (x, y) in zip(group, corners, strict=True):
            columns = {
                "section_number": number,
                "width": width,
                "height": height,
                "x": x,
                "y": y,
                "image_width": size[0],
                "image_height": size[1],
            }
            tvs = np.asarray(np.linalg.inv(tsv), dtype=np.float64)
            placements.append(Placement(tsv, tvs, slide, columns))
    return trv, tvr, placements


def _stack(
    plane: PlaneName,
    tilt: float,
    sections: int,
    thickness: float,
    first_number: int,
    gaps: int,
    random: np.random.Generator,
) -> tuple[Array, list[int]]:
    """Return ``trv``, whose planes are tilted by `tilt` degrees, and numbers through the brain."""
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
    return trv, [int(number) for number in numbers]


def _crop(
    inside: Array,
    resolution: float,
    image_size: tuple[int, int] | None,
    random: np.random.Generator,
) -> tuple[Array, tuple[int, int]]:
    """Return the ``tsv`` and the size of an image around points of the stack, shape (2, n)."""
    turn = math.radians(random.uniform(-4.0, 4.0))
    linear = resolution * np.array(
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    )
    pixels = np.linalg.solve(linear, inside)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
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


def _tissue(trv: Array, tvr: Array, z: float, flipped: bool) -> Array:
    """Return points of the stack that are tissue of the section at z, shape (2, n), in microns."""
    across = np.arange(-2000.0, 15000.0, 200.0)
    u, v = np.meshgrid(across, across)
    points = np.stack([u.ravel(), v.ravel(), np.full(u.size, z), np.ones(u.size)])
    p, i, r = (tvr @ points)[:3]
    inside = depth(p, i, flip(r) if flipped else r) > -EDGE
    if np.count_nonzero(inside) < 40:
        # Beyond the brain: a small image of glass, about where the stack's middle lies.
        middle = (trv @ np.append(MIDDLE, 1.0))[:2]
        inside = np.abs(points[:2] - middle[:, None]).max(axis=0) < 800.0
    return points[:2, inside]


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
