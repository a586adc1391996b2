"""Cutting a phantom brain into a section dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from . import service_rows as rows
from . import stacks
from .datasets import PhantomDataset
from .phantom import PhantomBrain, PlaneName


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
    random = np.random.default_rng([seed, dataset_id])
    stack = stacks.make_stack(
        plane, tilt, sections, section_thickness, first_number, missing, random
    )
    placements = stacks.place_sections(
        stack,
        section_thickness,
        resolution,
        flipped=space == 10,
        image_size=image_size,
        per_slide=4 if slides is True else max(int(slides), 1),
        random=random,
    )
    base = dataset_id * 1000 if first_image_id is None else first_image_id
    images = []
    for place, (number, placed) in enumerate(zip(stack.numbers, placements, strict=True)):
        image = rows.section_image(
            base + place,
            dataset_id,
            section_number=number,
            width=placed.width,
            height=placed.height,
            x=placed.x,
            y=placed.y,
            image_width=placed.slide_width,
            image_height=placed.slide_height,
            resolution=resolution,
            tier_count=stacks.tier_count(placed.slide_width, placed.slide_height)
            if tier_count is None
            else tier_count,
        )
        if not expression:
            image["expression_path"] = None
        image["alignment2d"] = rows.alignment2d(
            700_000_000 + base + place, base + place, placed.tsv.tolist(), placed.tvs.tolist()
        )
        images.append(image)
    genes = (gene,) if isinstance(gene, str) else tuple(gene)
    row = rows.section_dataset(
        dataset_id,
        expression=expression,
        plane_of_section_id=rows.PLANE_IDS[plane],
        reference_space_id=space,
        section_thickness=section_thickness,
    )
    row["genes"] = [rows.gene(acronym) for acronym in genes]
    row["products"] = [rows.product(product_id) for product_id in products]
    row["specimen"] = rows.specimen(dataset_id)
    row["treatments"] = []
    if {5, 31} & set(products):
        row["equalization"] = rows.equalization(dataset_id)
    row["alignment3d"] = rows.alignment3d(
        800_000_000 + dataset_id, dataset_id, stack.tvr.tolist(), stack.trv.tolist()
    )
    row["section_images"] = images
    on = {image["id"]: placed.slide for image, placed in zip(images, placements, strict=True)}
    return PhantomDataset(row, brain or PhantomBrain(), slides=on)
