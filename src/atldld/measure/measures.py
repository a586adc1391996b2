"""Measures of expression of larger parts: ratios of sums; and those that Allen publishes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import APIError, AtldldWarning
from ..source import Source, source_from
from ..source.allen import AllenSource
from ..source.rma import unionize_rows
from .selection import selected
from .structures import structure_table

MEASURES = ("density", "intensity", "energy")
SUMS = ("n_pixels", "n_expressing", "sum_intensity")
_LONG_NAMES = {
    "n_pixels": "image pixels in the cell",
    "n_expressing": "expressing pixels in the cell",
    "sum_intensity": "sum of intensity over the expressing pixels in the cell",
    "density": "expression density: expressing pixels / pixels",
    "intensity": "expression intensity: sum of intensity / expressing pixels",
    "energy": "expression energy: sum of intensity / pixels",
}

_PUBLISHED = (
    "expression_energy",
    "expression_density",
    "sum_pixels",
    "sum_expressing_pixels",
    "sum_pixel_intensity",
    "sum_expressing_pixel_intensity",
    "voxel_energy_mean",
    "voxel_energy_cv",
)
"""Columns of `unionizes`, under the names of the service."""


def aggregate(
    measured: xr.Dataset,
    dim: str | Iterable[str] | None = None,
    coarsen: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Return measures of larger parts: ratios of sums.

    Parameters
    ----------
    measured
        From `quantify`, after any selection.
    dim
        Dimensions to sum over entirely.
    coarsen
        For dimensions, how many cells make one; what is left over at the end makes a last one.
        The place of the new cell is the mean of its nodes'.

    Returns
    -------
    xarray.Dataset
        The sums over the parts, and of them the measures that `measured` has.

    Raises
    ------
    ValueError
        If `measured` lacks the sums.

    Examples
    --------
    >>> import atldld, xarray as xr
    >>> measured = xr.Dataset({"n_pixels": ("p", [10, 30]), "n_expressing": ("p", [10, 0]),
    ...                        "sum_intensity": ("p", [500.0, 0.0]), "density": ("p", [1.0, 0.0])})
    >>> float(atldld.aggregate(measured, dim="p").density)
    0.25
    """
    names = [name for name in SUMS if name in measured]
    if "n_pixels" not in names or "sum_intensity" not in names:
        raise ValueError(f"there are no sums to aggregate: {', '.join(SUMS)} are what it takes")
    sums = measured[names]
    with xr.set_options(keep_attrs=True):
        if coarsen:
            types = {name: sums[name].dtype for name in names}
            sums = sums.coarsen(dict(coarsen), boundary="pad").sum()
            sums = sums.astype(types)
        if dim is not None:
            sums = sums.sum([dim] if isinstance(dim, str) else list(dim))
    return with_measures(sums, [name for name in MEASURES if name in measured])


def structure_measures(
    measured: xr.Dataset,
    annotation: xr.DataArray,
    structures: Iterable[int | str] | None = None,
    tree: Any = None,
    by_hemisphere: bool = False,
) -> pd.DataFrame:
    """Return the measures of every structure of an atlas: ratios of sums over its cells.

    Parameters
    ----------
    measured
        From `quantify`, after any selection. It is computed, in one pass.
    annotation, structures, tree, by_hemisphere
        As for `atldld.structure_table`: a cell counts for the structure at its node.

    Returns
    -------
    pandas.DataFrame
        A row for each ``structure_id`` (with ``hemisphere``, if asked for): the sums, and of
        them the measures that `measured` has. Atlas, version and space are in ``attrs``.

    Raises
    ------
    ValueError, TypeError
        As `atldld.structure_table`.
    """
    names = [name for name in SUMS if name in measured]
    sums = measured[names].compute()
    there = sums["n_pixels"] > 0
    table = pd.DataFrame()
    for name in names:
        values = sums[name].astype(np.float64).where(there)
        values.attrs = {**measured.attrs, **measured[name].attrs}
        found = structure_table(
            values, annotation, structures=structures, tree=tree, by_hemisphere=by_hemisphere
        )
        if table.empty:
            kept = [column for column in ("acronym", "name") if column in found]
            table = found[[*kept, "size", "count", "covered"]].copy()
            table.attrs = {**found.attrs, "values": "measures of expression"}
        table[name] = found["sum"]
    for name in MEASURES:
        if name in measured:
            table[name] = _ratio(name, table)
    return table


def with_measures(sums: xr.Dataset, measures: Iterable[str]) -> xr.Dataset:
    """Return sums with measures computed from them."""
    found = {name: _ratio(name, sums) for name in measures}
    measured = sums.assign(found)
    # A measure is not a view: it has no grey levels.
    attrs = {name: value for name, value in sums.attrs.items() if name != "view"}
    for name, variable in measured.data_vars.items():
        variable.attrs = {**attrs, "long_name": _LONG_NAMES[str(name)]}
    return measured


def _ratio(name: str, sums: Any) -> Any:
    """Return a measure from columns or variables of sums; NaN where nothing is divided by."""
    above, below = {
        "density": ("n_expressing", "n_pixels"),
        "intensity": ("sum_intensity", "n_expressing"),
        "energy": ("sum_intensity", "n_pixels"),
    }[name]
    return sums[above] / sums[below].where(sums[below] > 0)


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
    numbers, _ = selected(ids, None)
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
            records.append(_published(row))
    names = ["dataset_id", "structure_id", "acronym", "name", *_PUBLISHED]
    table = pd.DataFrame(records, columns=names)
    table = table.astype(
        {"dataset_id": "int64", "structure_id": "int64", **dict.fromkeys(_PUBLISHED, "float64")}
    )
    found = {*table["dataset_id"]}
    missing = [number for number in numbers if number not in found]
    if missing:
        named = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        warnings.warn(
            f"there are no published values for datasets {named}", AtldldWarning, stacklevel=2
        )
    places = table["dataset_id"].map(order)
    table = table.assign(place=places).sort_values(["place", "structure_id"], kind="stable")
    return table.drop(columns="place").reset_index(drop=True)


def _published(row: Any) -> dict[str, Any]:
    structure = row.get("structure")
    structure = structure if isinstance(structure, dict) else {}
    return {
        "dataset_id": row["section_data_set_id"],
        "structure_id": row["structure_id"],
        "acronym": str(structure.get("acronym") or ""),
        "name": str(structure.get("name") or ""),
        **{name: row.get(name) for name in _PUBLISHED},
    }
