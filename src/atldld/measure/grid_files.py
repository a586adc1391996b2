"""Files of Allen's 200 micron volumes, and what they say of themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
import xarray as xr

from .. import __version__
from ..model.dataset import SectionDataset
from ..model.space import AXES, space_name
from ..source.grid import zip_members
from .guard import guarded
from .metaimage import MetaImage, metaimages_of

SHAPE = (67, 41, 58)
"""Nodes along p, i, r of the grid of the adult mouse brain."""

STEP = 200.0
"""Microns between nodes: node k sits at ``k * 200``."""

_LARGEST_VOLUME = 2**24
"""Bytes of one volume; the largest, of the mouse on embryonic day 13.5, has 3.2 million."""

_LONG_NAMES = {
    "energy": "expression energy",
    "density": "expression density",
    "intensity": "expression intensity",
}
_AXIS_NAMES = {"p": "posterior", "i": "inferior", "r": "right"}
_CITATION = (
    "Allen Institute for Brain Science, Allen Mouse Brain Atlas, section dataset {id}, 3-D "
    "expression grid data; Lein, E.S. et al. (2007) Genome-wide atlas of gene expression in the "
    "adult mouse brain, Nature 445: 168-176. Use is subject to "
    "https://alleninstitute.org/terms-of-use and https://alleninstitute.org/citation-policy."
)


def zip_grid(
    content: bytes,
    name: str,
    wanted: Any,
    stated: Any,
    record: Callable[[], SectionDataset] | None = None,
) -> xr.Dataset:
    """Return the volumes of a zip of the grid service.

    Parameters
    ----------
    content, name
        Its bytes, and what to call it.
    wanted, stated
        The space that the user wants, and the one that the user says it lies in.
    record
        Returns the record of the dataset, for a zip that does not say its space.
    """
    try:
        members = zip_members(content)
        images = metaimages_of(members, members.__getitem__, _LARGEST_VOLUME)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{name} is damaged, or not a zip of the grid service: {error}") from error
    described = [each for each in members if each.endswith("data_set.xml")]
    facts = _facts(members[described[0]]) if described else {}
    if not images:
        raise ValueError(f"{name} holds no MetaImage volume")
    space = facts.get("reference_space")
    if space is None and stated is None and record is not None:
        space = record().reference_space
    return labelled_grid(images, name, space_of_grid(space, wanted, stated, name), facts)


def _facts(xml: bytes) -> dict[str, Any]:
    """Return what the dataset's own description says of id and space."""
    if b"<!" in xml.replace(b"<!--", b""):
        return {}  # A document type, which could define entities without end.
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return {}
    facts = {}
    for key, tag in (("dataset_id", "id"), ("reference_space", "reference-space-id")):
        text = root.findtext(tag)
        if text is not None and re.fullmatch(r"\s*\d{1,18}\s*", text):
            facts[key] = int(text)
    return facts


def space_of_grid(said: int | None, wanted: Any, stated: Any, name: str) -> int:
    """Return the space that a volume lies in: what it says, or else what the user says."""
    if said is not None and stated not in (None, said):
        raise ValueError(f"native_space is {stated}, but {name} says that it lies in space {said}")
    for space in (said, stated, None if wanted == "native" else wanted):
        if space is not None:
            return int(space)
    raise ValueError(
        f"{name} does not say which reference space it lies in: pass reference_space=10 for a "
        "sagittal dataset, 9 for a coronal one"
    )


def labelled_grid(
    images: Mapping[str, MetaImage], name: str, space: int, facts: Mapping[str, Any]
) -> xr.Dataset:
    """Return volumes with their coordinates, or refuse those of another grid."""
    if space not in (9, 10):
        raise ValueError(
            f"{name} lies in {space_name(space)}; only spaces 9 and 10 are opened here"
        )
    variables = {}
    for volume, image in images.items():
        if image.values.shape != SHAPE or image.spacing != (STEP,) * 3 or any(image.offset):
            sides = " x ".join(map(str, image.values.shape))
            raise ValueError(
                f"{name}: {volume} has {sides} voxels of {image.spacing} from {image.offset}; an "
                "expression volume of the adult mouse brain has 67 x 41 x 58 of 200 microns from "
                "0. Grids of the connectivity atlas lie in CCFv3, another space, and those of the "
                "developing brain in spaces of their own: neither is opened here"
            )
        values = image.values.astype(np.float32)
        values[values < 0] = np.nan
        variables[volume] = xr.Variable(AXES, values)
    coords = {
        axis: xr.Variable(
            axis,
            np.arange(count) * STEP,
            {"long_name": f"{axis} ({_AXIS_NAMES[axis]})", "units": "µm"},
        )
        for axis, count in zip(AXES, SHAPE, strict=True)
    }
    attrs: dict[str, Any] = {
        "reference_space": space,
        "reference_space_name": space_name(space),
        "native_reference_space": space,
        "resampled": "no",
        "source": name,
        "atldld_version": __version__,
        "citation": _CITATION.format(id=facts.get("dataset_id", "")),
        **({"dataset_id": facts["dataset_id"]} if "dataset_id" in facts else {}),
    }
    grid = guarded(xr.Dataset(variables, coords=coords, attrs=attrs), space)
    for name_of, variable in grid.data_vars.items():
        variable.attrs.update({"long_name": _LONG_NAMES.get(str(name_of), str(name_of)), **attrs})
    return grid
