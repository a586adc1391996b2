"""How the sections of an object lie in reference space, as a table."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..model.geometry import geometry, pixel_points
from ..model.sections import SectionTable
from ..model.space import AXES, extent
from .coordinates import readers
from .index import GUARD

COLUMNS = (
    "section_number", "image_id", "slice_axis", "normal_p", "normal_i", "normal_r", "tilt",
    "slice_low", "slice_high", "before", "after", "outside",
)  # fmt: skip


def geometry_table(obj: xr.DataArray | xr.Dataset) -> pd.DataFrame:
    """Return how the sections of an object lie; see `AtlasAccessor.geometry`."""
    bounds = extent(_space(obj))
    known: dict[int, dict[str, Any]] = {}
    held = readers(obj)
    for table in (reader.table for reader in held):
        for row in _rows(table, bounds):
            other = known.setdefault(row["image_id"], row)
            if not _alike(row, other):
                raise ValueError(
                    f"image {row['image_id']} lies in two places in this object, or has other "
                    "neighbours: it mixes arrays that were opened with different mapping=, "
                    "reference_space= or region="
                )
    if not held:
        raise ValueError(
            "this object holds no sections whose place is known: its values are in memory, or "
            "they do not come from atldld. Ask before compute() or load(), on what was opened"
        )
    rows = []
    for image in _images(obj):
        if image not in known:
            raise ValueError(
                "this object shows images that its readers do not know: image_id was changed"
            )
        rows.append(known[image])
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(table: SectionTable, bounds: tuple[float, float, float] | None) -> list[dict[str, Any]]:
    found = geometry(pixel_points(table), table.width, table.height, bounds)
    columns: dict[str, npt.NDArray[Any]] = {
        "section_number": table.section_number,
        "image_id": table.image_id,
        "slice_axis": np.full(len(table), AXES[found.axis], dtype=object),
        **{f"normal_{axis}": found.normal[:, place] for place, axis in enumerate(AXES)},
        "tilt": found.tilt,
        "slice_low": found.low,
        "slice_high": found.high,
        "before": found.before,
        "after": found.after,
        "outside": found.outside,
    }
    values = zip(*(columns[name].tolist() for name in COLUMNS), strict=True)
    return [dict(zip(COLUMNS, row, strict=True)) for row in values]


def _alike(row: dict[str, Any], other: dict[str, Any]) -> bool:
    # NaN, for no neighbour, is not equal to itself.
    return repr(row) == repr(other)


def _images(obj: xr.DataArray | xr.Dataset) -> list[int]:
    if "image_id" not in obj.coords or obj.coords["image_id"].ndim > 1:
        raise ValueError(
            "this object does not say which image_id it shows: the coordinate 'image_id' was lost"
        )
    return [int(image) for image in np.atleast_1d(obj.coords["image_id"].values)]


def _space(obj: xr.DataArray | xr.Dataset) -> int | Literal["CCFv3"] | None:
    """Return the reference space by the coordinate that keeps spaces apart, or None."""
    if GUARD not in obj.coords or obj.coords[GUARD].ndim:
        return None
    space: int | Literal["CCFv3"] = obj.coords[GUARD].item()
    return space
