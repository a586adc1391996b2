"""What a user gives as another registration: a file, what it holds, or one that is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RegistrationError
from ..model import affine
from ..model.dataset import SectionDataset
from ..model.registration import Registration, register
from ..model.registration_files import FORMS, parse_registration, registration_of
from ..model.sections import Detection, SectionTable, tabulate
from ..source.published import PublishedRegistration

_LARGEST_FILE = 64 * 2**20


def placing_of(
    registration: Registration | PublishedRegistration, record: SectionDataset
) -> Registration:
    """Return where the sections of a dataset lie, fetched where it is published for many.

    Raises
    ------
    RegistrationError
        If nothing is published of its animal.
    """
    if isinstance(registration, Registration):
        return registration
    return registration.of_animal(record.specimen, record.id)


def registered(
    record: SectionDataset,
    registration: Registration,
    *,
    mapping: affine.Mapping = "oblique",
    detection_xy: Detection = None,
    reference_space: int | str = "native",
) -> SectionTable:
    """Return the sections of a dataset where a registration places them.

    Parameters
    ----------
    record
        The dataset.
    registration
        From `placing_of`.
    mapping, detection_xy
        See `tabulate`.
    reference_space
        What was asked for: the registration's own, or ``"native"``.

    Raises
    ------
    ValueError
        If another space is asked for.
    RegistrationError
        If the registration does not fit.
    """
    if reference_space not in ("native", registration.reference_space):
        raise ValueError(
            f"{registration.name} places sections in {registration.space}, which cannot be turned "
            f"into reference_space={reference_space}: leave that out"
        )
    table = tabulate(record, mapping=mapping, detection_xy=detection_xy)
    return register(
        table,
        registration,
        dataset_id=record.id,
        plane=record.plane,
        mapping=mapping,
        detection_xy=detection_xy,
        failed=[image.id for image in record.failed_images],
    )


def registration_from(value: Any, *, mirror: bool = False) -> Registration | PublishedRegistration:
    """Return the registration that a user gave.

    Parameters
    ----------
    value
        Path of a file of QuickNII, VisuAlign or DeepSlice; folder or fsspec URL of a published
        registration; a mapping of what a JSON file of them
        holds; a mapping from section numbers or image ids to nine numbers; or a `Registration`.
    mirror
        Whether to turn left and right over.

    Raises
    ------
    TypeError
        If it is none of these.
    FileNotFoundError
        If there is no such file.
    RegistrationError
        If the file does not say where sections lie.
    """
    if isinstance(value, Registration | PublishedRegistration):
        return value
    if isinstance(value, Mapping):
        return registration_of(value, name="a mapping", mirror=mirror)
    if not isinstance(value, str | os.PathLike):
        raise TypeError(
            f"registration is {type(value).__name__}; it must be the path of {FORMS}, or a mapping"
        )
    if "://" in os.fspath(value) or Path(value).is_dir():
        if mirror:
            raise ValueError("mirror is for files; open with the published registration as it is")
        return PublishedRegistration.at(os.fspath(value))
    path = Path(value)
    if not path.is_file():
        raise FileNotFoundError(f"there is no registration file {path}")
    with path.open("rb") as file:
        body = file.read(_LARGEST_FILE + 1)
    if len(body) > _LARGEST_FILE:
        raise RegistrationError(
            f"{path.name} has more than {_LARGEST_FILE // 2**20} MiB; it must be {FORMS}"
        )
    return parse_registration(body, name=path.name, mirror=mirror)
