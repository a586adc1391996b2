"""Allen's measures of expression, from the pixels of the sections themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from ..arrays.describe import warn_if_failed
from ..model.read import View
from ..source import source_from
from ..source.protocol import Source
from .quantify_asked import MEASURES, THRESHOLD, Asked
from .quantify_cells import Function
from .quantify_graph import SUMS, Quantifying
from .structures import structure_table

_LONG_NAMES = {
    "n_pixels": "image pixels in the cell",
    "n_expressing": "expressing pixels in the cell",
    "sum_intensity": "sum of intensity over the expressing pixels in the cell",
    "density": "expression density: expressing pixels / pixels",
    "intensity": "expression intensity: sum of intensity / expressing pixels",
    "energy": "expression energy: sum of intensity / pixels",
}


def quantify(
    dataset_id: int,
    *,
    resolution: float = 200,
    threshold: float = THRESHOLD,
    function: Function | None = None,
    measures: Sequence[str] | None = None,
    tier: int = 0,
    view: View | None = None,
    sections: Iterable[int] | None = None,
    region: Mapping[str, tuple[float, float]] | None = None,
    reference_space: Literal["native", 9, 10] = "native",
    chunks: Literal["auto"] | Mapping[str, int] = "auto",
    on_error: Literal["raise", "fill"] = "raise",
    source: str | Source | None = None,
) -> xr.Dataset:
    """Measure expression over the cells of a volume, by the exact place of every pixel.

    Nothing is resampled: each pixel of each section counts in the cell that its own p, i, r lie
    in. Images are read by windows, in parallel, each window once for one ``compute()``.

    Parameters
    ----------
    dataset_id
        Id of the section dataset.
    resolution
        Microns along a side of a cell. Cells are centred on the nodes of Allen's own volumes:
        cell k holds what lies within ``[(k - 0.5) * resolution, (k + 0.5) * resolution)``, from
        k = 0 to the cell that the far end of the space lies in, so that 200 gives the 67 x 41 x
        58 nodes of `open_grid`.
    threshold
        Least grey level of a pixel that expresses, in Allen's expression mask (0 to 255). What
        does not express is 0 in the mask; JPEG noise makes a few levels of it.
    function
        Instead of Allen's mask: a function of pixels (uint8, shape (height, width, 3), any part
        of an image) to one value for each, shape (height, width). Truth values: it expresses
        where True, with intensity 1. Numbers: it expresses where above 0, and the number is its
        intensity. It must treat every pixel by itself, and pickle where the computation is
        spread over processes.
    measures
        Of ``"density"``, ``"intensity"`` and ``"energy"``; None for all that the tier allows.
    tier
        0, full resolution; or a coarser one, for energy only. A coarser tier mixes expressing
        pixels with others, so that how many are above a threshold means another thing. Energy,
        a mean, changes little: what is lost are pixels at borders that fall below the threshold
        (``threshold=0`` loses none, and counts the noise).
    view
        What `function` gets: ``"image"`` by default, or ``"projection"``, ``"expression"`` or
        ``"expression_mask"`` (then of shape (height, width)).
    sections
        Section numbers to measure; None for all. A section without a mask is left out, with
        a warning.
    region
        ``{"p": (low, high), "i": ..., "r": ...}`` in microns, ends included: only pixels whose
        own p, i, r lie in this box count. Cells that the box cuts hold the pixels of their part
        of it, as ``n_pixels`` says; ends halfway between two nodes cut none.
    reference_space
        ``"native"``, or 9 or 10: r of the other space is ``11350 - r``, of every pixel.
    chunks
        ``"auto"``: slabs about 1600 microns thick along the slicing axis. A dict as in xarray.
    on_error
        What to do about pixels that cannot be had. ``"raise"``: an `ImageError`. ``"fill"``:
        they count nowhere, not as pixels either, with a warning; ``.atlas.failures()`` tells.
    source
        Where data come from, as for `open_dataarray`.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (p, i, r): ``n_pixels``, all image pixels in the cell (int64);
        ``n_expressing``, those that express; ``sum_intensity``, the sum of their grey levels
        (float64); and from these ``density = n_expressing / n_pixels`` (NaN in cells without
        pixels), ``intensity = sum_intensity / n_expressing`` (NaN where nothing expresses) and
        ``energy = sum_intensity / n_pixels``, so that energy is density times intensity. At a
        coarser tier ``n_pixels`` (of that tier), ``sum_intensity`` and ``energy``. Compute all
        of it at once: ``quantify(...).compute()``; each variable by itself would read again.

        ``.atlas.plan()`` and ``.atlas.prefetch()`` work on it, and selecting some slabs reads
        only the images that they need.

    Raises
    ------
    ValueError, TypeError
        If an option cannot be used; among them density and intensity at a coarser tier.
    RegistrationError
        If the dataset has no usable place, or no section has a mask.
    DatasetNotFoundError, APIError
        As `open_dataarray`.

    See Also
    --------
    open_grid : Allen's own measures, on the same nodes.

    Notes
    -----
    Measures of larger parts are ratios of sums, never means of ratios: `aggregate` and
    `structure_measures` in this module see to that. The definitions are those of Lein et al.
    (2007) and of Allen's white paper on informatics data processing.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> brain = phantom_dataset(dataset_id=1001, sections=4, resolution=40)
    >>> with AllenServer([brain]) as server:
    ...     found = atldld.quantify(1001, resolution=400, source=server.url).compute()
    >>> dict(found.sizes)
    {'p': 34, 'i': 21, 'r': 30}
    >>> whole = aggregate(found, dim=["p", "i", "r"])
    >>> bool(whole.energy == found.sum_intensity.sum() / found.n_pixels.sum())
    True
    """
    asked = Asked.checked(
        dataset_id,
        resolution=resolution,
        threshold=threshold,
        function=function,
        measures=measures,
        tier=tier,
        view=view,
        sections=sections,
        region=region,
        reference_space=reference_space,
        chunks=chunks,
        on_error=on_error,
    )
    origin = source_from(source)
    record = origin.dataset(asked.dataset_id)
    warn_if_failed(record, 2)
    return _measured(Quantifying(asked, origin, record).dataset(), asked.measures)


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
    >>> import numpy as np, xarray as xr
    >>> measured = xr.Dataset({"n_pixels": ("p", [10, 30]), "n_expressing": ("p", [10, 0]),
    ...                        "sum_intensity": ("p", [500.0, 0.0]), "density": ("p", [1.0, 0.0])})
    >>> float(aggregate(measured, dim="p").density)
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
    return _measured(sums, [name for name in MEASURES if name in measured])


def structure_measures(
    measured: xr.Dataset,
    annotation: xr.DataArray,
    structures: Iterable[int] | None = None,
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


def _measured(sums: xr.Dataset, measures: Iterable[str]) -> xr.Dataset:
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
