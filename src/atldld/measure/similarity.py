"""How alike the expression of genes is: one dataset against all others, chunk by chunk."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..model.space import AXES

_FEWEST_VOXELS = 100


def correlations(
    values: xr.DataArray, dataset_id: int, *, fewest_voxels: int = _FEWEST_VOXELS
) -> pd.DataFrame:
    """Correlate one dataset's values with those of every dataset, over the voxels that both have.

    Parameters
    ----------
    values
        A volume of `open_grids`, dims (dataset, p, i, r), such as ``grids.energy``; perhaps a
        part of it, or something computed of it. Read chunk by chunk, once each.
    dataset_id
        The dataset that the others are held against; one of `values`.
    fewest_voxels
        Of two datasets that both have data, to be correlated at all.

    Returns
    -------
    pandas.DataFrame
        A row a dataset, the most alike first: ``dataset_id``, ``gene`` (where `values` knows
        it), ``correlation`` (Pearson's; NaN where there are too few voxels, or all have one
        value) and ``voxels``, over how many.

    Raises
    ------
    ValueError, KeyError
        If `values` is no such array, or does not hold the dataset.

    Notes
    -----
    Missing values take no part; zeros do. With dask.distributed each worker holds a chunk and
    the one dataset, and two numbers a dataset come back.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> values = np.random.default_rng(0).random((3, 10, 10, 10))
    >>> values[2] = 3 * values[0] + 1
    >>> energy = xr.DataArray(values, {"dataset": [7, 8, 9]}, ("dataset", "p", "i", "r"))
    >>> correlations(energy, 7).correlation.round(2).tolist()
    [1.0, 1.0, -0.01]
    """
    if not isinstance(values, xr.DataArray) or {*values.dims} != {"dataset", *AXES}:
        what = getattr(values, "dims", type(values).__name__)
        raise ValueError(f"values are {what}; they must be an array over dataset, p, i and r")
    values = values.transpose("dataset", *AXES)
    if dataset_id not in values.indexes["dataset"]:
        raise KeyError(f"there is no dataset {dataset_id} among the values")
    seed = int(values.indexes["dataset"].get_loc(dataset_id))
    told = correlations_with(values.data, seed, fewest_voxels)
    table = {"dataset_id": values["dataset"].values}
    if "gene" in values.coords:
        table["gene"] = values["gene"].values
    frame = pd.DataFrame({**table, "correlation": told[:, 0], "voxels": told[:, 1].astype(int)})
    return frame.sort_values(
        ["correlation", "dataset_id"], ascending=[False, True], ignore_index=True
    )


def correlations_with(data: Any, seed: int, fewest_voxels: int = _FEWEST_VOXELS) -> Any:
    """Return the correlations of all volumes with one of them, and over how many voxels.

    Parameters
    ----------
    data
        Shape (n, p, i, r), in memory or of dask; NaN where there are no data.
    seed
        The place of the one.
    fewest_voxels
        Fewer give NaN.

    Returns
    -------
    correlations
        Shape (n, 2), float64, in memory.
    """
    if not hasattr(data, "__dask_graph__"):
        return correlated(data, data[seed], fewest_voxels)
    import dask.array as da

    data = data.rechunk({1: -1, 2: -1, 3: -1})
    # One graph holds the chunk of the seed and what is compared with it: no chunk is read twice.
    return da.blockwise(
        partial(correlated, fewest_voxels=fewest_voxels),
        "nt",
        data,
        "npir",
        data[seed],
        "pir",
        new_axes={"t": 2},
        concatenate=True,
        dtype=np.float64,
        meta=np.empty((0, 0)),
    ).compute()


def correlated(
    block: npt.NDArray[Any], seed: npt.NDArray[Any], fewest_voxels: int = _FEWEST_VOXELS
) -> npt.NDArray[np.float64]:
    """Return the correlations of some volumes in memory with one, as `correlations_with` does.

    Parameters
    ----------
    block
        Shape (n, p, i, r); NaN where there are no data.
    seed
        Shape (p, i, r).
    fewest_voxels
        Fewer give NaN.
    """
    out = np.full((len(block), 2), np.nan)
    known = np.flatnonzero(~np.isnan(seed))
    theirs = seed.ravel()[known].astype(np.float64)
    # Room that is used again: workers of dask.distributed return what is let go of to the system
    # at once, and getting it anew for every volume would cost ten times the arithmetic.
    taken = np.empty(len(known), block.dtype)
    one, two, products = (np.empty(len(known)) for _ in range(3))
    absent = np.empty(len(known), bool)
    for place, volume in enumerate(block.reshape(len(block), -1)):
        np.take(volume, known, out=taken, mode="clip")
        np.isnan(taken, out=absent)
        out[place, 1] = count = len(known) - int(np.count_nonzero(absent))
        if count < max(fewest_voxels, 2):
            continue
        one[:], two[:] = taken, theirs
        if not (_centred(one, absent, count) and _centred(two, absent, count)):
            continue
        # Not by BLAS: its threads wait for each other where workers share the processors.
        both, first, second = (
            np.multiply(left, right, out=products).sum()
            for left, right in ((one, two), (one, one), (two, two))
        )
        out[place, 0] = both / np.sqrt(first * second)
    return out


def _centred(values: npt.NDArray[np.float64], absent: npt.NDArray[np.bool_], count: int) -> bool:
    """Make values what they are off their mean, and 0 where absent; tell whether they differ."""
    values -= values[absent.argmin()]
    np.putmask(values, absent, 0.0)
    if not values.any():
        return False
    values -= values.sum() / count
    np.putmask(values, absent, 0.0)
    return True
