"""Which record an opening is of, where its sections lie, and what of them is read and shown."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from dask.tokenize import tokenize

from .. import options
from ..errors import AtldldError, AtldldWarning, DatasetNotFoundError, RegistrationError
from ..model import affine
from ..model.dataset import SectionDataset
from ..model.read import View
from ..model.registration import Registration, register
from ..model.registration_files import FORMS, parse_registration, registration_of
from ..model.sections import Detection, Sections, SectionTable, tabulate
from ..model.space import can_flip
from ..reading.failures import Failing, Ledger
from ..sampling.reads import choose_tiers, serving_tiers
from ..source import Source, tiers_at_hand
from ..source.published import PublishedRegistration
from ..source.search import dataset_of_image

_LARGEST_FILE = 64 * 2**20

S = TypeVar("S", bound=Sections)


def record_of(source: Source, dataset_id: int) -> SectionDataset:
    """Return a dataset of a source; of the id of an image, say whose it is.

    Raises
    ------
    DatasetNotFoundError, RegistrationError, APIError, BundleError
        As the source does.
    """
    try:
        return source.dataset(dataset_id)
    except DatasetNotFoundError as error:
        try:
            owner = dataset_of_image(source, dataset_id)
        except (AtldldError, TypeError):
            raise error from None
        raise DatasetNotFoundError(
            f"there is no section dataset {dataset_id}: that is the id of a section image of "
            f"dataset {owner.id}. open_image({dataset_id}) opens it, open_dataarray({owner.id}) "
            "its dataset"
        ) from None


def target_space(
    record: SectionDataset, wanted: int | Literal["native"]
) -> tuple[int | None, bool]:
    """Return the space that a dataset is opened in, and whether its r is flipped for that."""
    native = record.reference_space
    if wanted in ("native", native):
        return native, False
    if not can_flip(native, int(wanted)):
        raise ValueError(
            f"dataset {record.id} lies in reference space {native}; only 9 and 10 can be turned "
            "into each other: use reference_space='native'"
        )
    return int(wanted), True


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


def showing(
    sections: S,
    record: SectionDataset,
    view: View,
    stacklevel: int | None,
    instead: str = "use view='image'",
) -> S:
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
    instead
        What to do where none has anything to show, for the message.

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
            f"null); {instead}"
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


def chosen_tiers(
    source: Source,
    record: SectionDataset,
    sections: Sections,
    wanted: int | Literal["auto"],
    view: View,
    step: float,
    stacklevel: int | None,
) -> npt.NDArray[np.int16]:
    """Return the tier that each section is read at.

    Parameters
    ----------
    source
        Where it has only some tiers, those serve ``"auto"``.
    record, sections
        The dataset, and its sections that are shown.
    wanted
        A tier, or ``"auto"``.
    view
        Which picture of the sections.
    step
        Microns between the points that are sampled.
    stacklevel
        Of the warning where no section has such a tier, counted from the caller; None for none.
    """
    tiers = choose_tiers(wanted, sections.microns_per_pixel, sections.tier_count, step)
    if wanted == "auto":
        at_hand = [tiers_at_hand(source, each, view) for each in sections.image_id.tolist()]
        return serving_tiers(tiers, at_hand)
    if stacklevel is not None and len(tiers) and int(tiers.max()) != wanted:
        warnings.warn(
            f"dataset {record.id}: no section has a tier {wanted}; each is read at its last one, "
            f"up to {int(tiers.max())} (the coordinate 'tier' says which)",
            AtldldWarning,
            stacklevel=stacklevel + 1,
        )
    return tiers


def ground(dataset: SectionDataset, view: View) -> int:
    """Return what stands where nothing is covered: white for bright field, else black."""
    return 255 if view == "image" and not dataset.fluorescent else 0


def fill_of(
    record: SectionDataset, view: View, *, masked: bool = False, given: int | None = None
) -> float:
    """Return what a pixel is that shows nothing: NaN, what was asked for, or the ground."""
    if masked:
        return float("nan")
    return float(ground(record, view) if given is None else given)


def failing_of(*token: Any, fill: bool, other_tiers: bool) -> tuple[options.Carried, Failing]:
    """Return the options of this moment, and what to do about images that cannot be had.

    Parameters
    ----------
    *token
        What tells the arrays of this opening from others: its failures are noted by that.
    fill, other_tiers
        As for `Failing`.
    """
    carried = options.carry()
    return carried, Failing(fill, other_tiers, Ledger(f"{tokenize(*token)}-{carried.process}"))
