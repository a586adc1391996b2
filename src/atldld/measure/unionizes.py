"""The values per structure that Allen publishes."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable
from typing import Any

import pandas as pd

from ..errors import APIError, AtldldWarning
from ..source import source_from
from ..source.allen import AllenSource
from ..source.protocol import Source
from ..source.rma import unionize_rows

_VALUES = (
    "expression_energy",
    "expression_density",
    "sum_pixels",
    "sum_expressing_pixels",
    "sum_pixel_intensity",
    "sum_expressing_pixel_intensity",
    "voxel_energy_mean",
    "voxel_energy_cv",
)


def unionizes(ids: int | Iterable[int], *, source: str | Source | None = None) -> pd.DataFrame:
    """Return the values per structure that Allen publishes for expression datasets.

    Allen sums its 200 micron grid over each structure of its 2011 atlas, and calls that
    unionizing [1]_. A structure includes its parts.

    Parameters
    ----------
    ids
        Ids of section datasets (or one), each once. Those of the connectivity atlas have values
        of another kind and give no rows.
    source
        Where they come from: None, the service of ``set_options(api_url=...)``; the base URL of
        a service; or a `Source` that is one.

    Returns
    -------
    pandas.DataFrame
        A row for each dataset and structure, in the order of `ids` and then of structure ids:
        ``dataset_id``, ``structure_id``, ``acronym``, ``name``, and under the service's own
        names ``expression_energy``, ``expression_density``, ``sum_pixels``,
        ``sum_expressing_pixels``, ``sum_pixel_intensity``, ``sum_expressing_pixel_intensity``,
        ``voxel_energy_mean`` and ``voxel_energy_cv`` (NaN where there is none).

    Raises
    ------
    ValueError, TypeError
        If the ids are not such, or the source is not a service.
    APIError
        If the service does not answer as it should.

    Warns
    -----
    AtldldWarning
        If there are no values for some of the datasets.

    References
    ----------
    .. [1] "Quantified data by structures",
       https://brain-map.org/support/documentation/quantified-data-by-structures

    Examples
    --------
    >>> from atldld.testing import AllenServer
    >>> energy = {"id": 1, "section_data_set_id": 7, "structure_id": 632,
    ...           "expression_energy": 18.5, "structure": {"id": 632, "acronym": "DG-sg"}}
    >>> with AllenServer({"id": 7, "structure_unionizes": [energy]}) as server:
    ...     table = unionizes([7], source=server.url)
    >>> table[["dataset_id", "structure_id", "acronym", "expression_energy"]]
       dataset_id  structure_id acronym  expression_energy
    0           7           632   DG-sg               18.5
    """
    numbers = _ids(ids)
    origin = source_from(source)
    if not isinstance(origin, AllenSource):
        raise ValueError(f"{origin.name} keeps no published values; give the base URL of an API")
    order = {number: place for place, number in enumerate(numbers)}
    records = []
    for row in unionize_rows(origin.base, numbers):
        if row.get("section_data_set_id") not in order:
            raise APIError(
                f"values of dataset {row.get('section_data_set_id')!r} were sent, which were not "
                "asked for",
                url=origin.name,
            )
        if row.get("structure_id") is not None:
            records.append(_record(row))
    names = ["dataset_id", "structure_id", "acronym", "name", *_VALUES]
    table = pd.DataFrame(records, columns=names)
    table = table.astype(
        {"dataset_id": "int64", "structure_id": "int64", **dict.fromkeys(_VALUES, "float64")}
    )
    missing = [number for number in numbers if number not in set(table["dataset_id"])]
    if missing:
        named = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        warnings.warn(
            f"there are no published values for datasets {named}", AtldldWarning, stacklevel=2
        )
    places = table["dataset_id"].map(order)
    table = table.assign(place=places).sort_values(["place", "structure_id"], kind="stable")
    return table.drop(columns="place").reset_index(drop=True)


def _record(row: Any) -> dict[str, Any]:
    structure = row.get("structure")
    structure = structure if isinstance(structure, dict) else {}
    return {
        "dataset_id": row["section_data_set_id"],
        "structure_id": row["structure_id"],
        "acronym": str(structure.get("acronym") or ""),
        "name": str(structure.get("name") or ""),
        **{name: row.get(name) for name in _VALUES},
    }


def _ids(ids: Any) -> list[int]:
    values = [ids] if not isinstance(ids, Iterable) else list(ids)
    if isinstance(ids, str) or any(isinstance(each, bool) for each in values):
        raise TypeError(f"ids are {ids!r}; they must be whole numbers")
    try:
        numbers = [operator.index(each) for each in values]
    except TypeError:
        raise TypeError(f"ids are {values!r}; they must be whole numbers") from None
    if not numbers or len(set(numbers)) != len(numbers) or min(numbers) < 0:
        raise ValueError(f"ids are {numbers}; they must be one or more, each once, not negative")
    return numbers
