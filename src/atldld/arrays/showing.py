"""Which sections of a dataset there are to show, and what a user is warned of."""

from __future__ import annotations

import warnings
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import AtldldWarning, RegistrationError
from ..model.dataset import SectionDataset
from ..model.read import View


class Sections(Protocol):
    """Sections in columns."""

    @property
    def image_id(self) -> npt.NDArray[np.int64]:
        """Ids of their images."""

    @property
    def has_expression(self) -> npt.NDArray[np.bool_]:
        """Whether these have expression masks."""

    def take(self, rows: npt.NDArray[Any]) -> Self:
        """Return some of them."""


S = TypeVar("S", bound=Sections)


def showing(sections: S, record: SectionDataset, view: View, stacklevel: int) -> S:
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
        Of the warning about those left out, counted from the caller of this function.

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
