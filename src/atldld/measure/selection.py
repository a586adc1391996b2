"""What users choose of the atlas: datasets, and what is known of them."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..model.info import DatasetSummary
from ..model.terms import chosen_ids
from ..source import source_from
from ..source.allen import AllenSource
from ..source.catalogue import Catalogue


def selected(selection: Any, source: Any) -> tuple[list[int], Any]:
    """Return the ids of chosen datasets, each once, and the source to look in."""
    if isinstance(selection, Catalogue):
        numbers = [each.dataset_id for each in selection.summaries()]
        return numbers, selection if source is None else source
    return list(chosen_ids("ids", selection)), source


def service_of(source: Any) -> AllenSource:
    """Return the service that a user named."""
    origin = source_from(source)
    if not isinstance(origin, AllenSource):
        raise ValueError(
            f"{origin.name} has no grids, nor all of the atlas; give the base URL of an Allen API"
        )
    return origin


def labels_of(
    numbers: list[int], known: dict[int, DatasetSummary], dim: str | None = None
) -> dict[str, Any]:
    """Return what datasets are called: ids, genes, planes and specimens.

    Parameters
    ----------
    numbers, known
        Ids, and what is known of them.
    dim
        The dimension that they lie along, for coordinates; None for plain arrays.
    """
    nothing = DatasetSummary(0)
    told = [known.get(number, nothing) for number in numbers]
    labels: dict[str, Any] = {
        "dataset": np.array(numbers, np.int64),
        "gene": np.array([", ".join(each.genes) for each in told], str),
        "plane": np.array([each.plane for each in told], str),
        "specimen": np.array([each.specimen for each in told], str),
    }
    if dim is None:
        return labels
    attrs = {"dataset": {"long_name": "section dataset id"}}
    return {name: (dim, values, attrs.get(name, {})) for name, values in labels.items()}


def dataset_id_of(value: Any) -> int:
    """Return the id of a dataset, or say that it is none."""
    if isinstance(value, bool):
        raise TypeError(f"{value!r} is neither the id of a dataset nor a path")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{value!r} is neither the id of a dataset nor a path") from None
    if number < 0:
        raise ValueError(f"the dataset id is {number}; it must not be negative")
    return number
