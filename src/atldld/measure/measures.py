"""Measures of expression as ratios of sums, and those of larger parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

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
