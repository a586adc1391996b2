"""What opened arrays say of themselves, which sections they show, and what a user is warned of."""

from __future__ import annotations

import warnings
from typing import Any, Literal, TypeVar

import numpy as np
import xarray as xr

from .. import __version__
from ..errors import AtldldWarning, RegistrationError
from ..model.dataset import SectionDataset
from ..model.read import View
from ..model.registration import Registration
from ..model.sections import Sections
from ..model.space import space_name
from ..source.published import PublishedRegistration
from .lazy import CHANNELS

CITATION = (
    "Allen Institute for Brain Science, Allen Mouse Brain Atlas, section dataset {id}, "
    "https://mouse.brain-map.org/experiment/show/{id}; Lein, E.S. et al. (2007) Genome-wide "
    "atlas of gene expression in the adult mouse brain, Nature 445: 168-176. Use is subject to "
    "https://alleninstitute.org/terms-of-use and "
    "https://alleninstitute.org/citation-policy."
)

_AXIS_NAMES = {"p": "posterior", "i": "inferior", "r": "right"}

VOLUMES = "volumes in"
"""How the frame of a volume begins."""

ACCURACY = "affine, to Allen's 2011 P56 space (not CCFv3): good to 200 to 400 microns of anatomy"


def frame(dataset: SectionDataset, reference_space: int | Literal["CCFv3"] | None) -> str:
    """Return plane and space of an array, as text that tells what may be combined."""
    where = space_name(reference_space)
    if reference_space is None:
        where = f"{where} of dataset {dataset.id}"
    return f"{dataset.plane.name} sections in {where}"


def volume_frame(dataset: SectionDataset, reference_space: int | Literal["CCFv3"] | None) -> str:
    """Return the space of a volume, as text that tells what may be combined."""
    where = space_name(reference_space)
    if reference_space is None:
        where = f"{where} of dataset {dataset.id}"
    return voxel_frame(where)


def voxel_frame(where: str) -> str:
    """Return what volumes in a space say, which may be combined with one another."""
    return f"{VOLUMES} {where}"


def microns_of(axis: str) -> dict[str, str]:
    """Return the attributes of a coordinate p, i or r."""
    return {"long_name": f"{axis} ({_AXIS_NAMES[axis]})", "units": "µm"}


def channel_coordinate() -> xr.Variable:
    """Return the coordinate of the channels, of text that survives Zarr."""
    return xr.Variable("channel", np.array(CHANNELS, dtype=object), {"long_name": "colour channel"})


def ground(dataset: SectionDataset, view: View) -> int:
    """Return what stands where nothing is covered: white for bright field, else black."""
    return 255 if view == "image" and not dataset.fluorescent else 0


def attributes(
    dataset: SectionDataset,
    *,
    reference_space: int | Literal["CCFv3"] | None,
    mapping: str,
    resolution: float,
    source: str,
    registration: Registration | PublishedRegistration | None = None,
) -> dict[str, Any]:
    """Return the attributes that an array of a dataset carries.

    Returns
    -------
    attributes
        Text and numbers only, so that they survive Zarr and netCDF.
    """
    along = abs(dataset.trv[2][dataset.plane.section])
    found: dict[str, Any] = {
        "dataset_id": dataset.id,
        "gene": ", ".join(dataset.genes),
        "plane": dataset.plane.name,
        "reference_space": -1 if reference_space is None else reference_space,
        "reference_space_name": space_name(reference_space),
        "native_reference_space": -1
        if dataset.reference_space is None
        else dataset.reference_space,
        "hemisphere": dataset.hemisphere,
        "specimen": dataset.specimen or "",
        "age": dataset.age or "",
        "products": ", ".join(dataset.products),
        "resolution_microns": resolution,
        "section_thickness_microns": dataset.section_thickness,
        "reference_microns_per_stack_micron": 1.0 / along,
        "mapping": mapping,
        "registration": ACCURACY if reference_space in (9, 10) else "",
        "source": source,
        "atldld_version": __version__,
        "citation": CITATION.format(id=dataset.id),
    }
    if isinstance(registration, Registration):
        # How far apart the sections are, is no longer told by Allen's matrix.
        del found["reference_microns_per_stack_micron"]
        found["registration"] = (
            registration.description
            if registration.citation
            else f"a user's: {registration.description}"
        )
        if registration.citation:
            found["citation"] = f"{found['citation']} Registration: {registration.citation}."
    return found


S = TypeVar("S", bound=Sections)


def showing(sections: S, record: SectionDataset, view: View, stacklevel: int | None) -> S:
    """Leave out the sections that have nothing to show in an expression view.

    Parameters
    ----------
    sections
        Sections of the dataset.
    record
        The dataset.
    view
        The view.
    stacklevel
        Of the warning about those left out, counted from the caller of this function. None for
        no warning.

    Raises
    ------
    RegistrationError
        If none has anything to show.
    """
    if not view.startswith("expression") or sections.has_expression.all():
        return sections
    if not sections.has_expression.any():
        raise RegistrationError(
            f"dataset {record.id}: no section image has an expression mask (expression_path is "
            "null); use view='image'"
        )
    if stacklevel is not None:
        missing = ", ".join(map(str, sections.image_id[~sections.has_expression]))
        warnings.warn(
            f"dataset {record.id}: sections without an expression mask left out, images {missing}",
            AtldldWarning,
            stacklevel=stacklevel + 1,
        )
    return sections.take(sections.has_expression)


def warn_if_failed(record: SectionDataset, stacklevel: int) -> None:
    """Warn of a dataset that failed quality control; `stacklevel` counts from the caller."""
    if record.failed:
        warnings.warn(
            f"dataset {record.id} failed quality control at the Allen Institute",
            AtldldWarning,
            stacklevel=stacklevel + 1,
        )
