"""Sections on the grid of reference space, in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import xarray as xr

from ..arrays.opening import open_dataarray
from ..model.read import View
from ..reading.progress import progress
from ..source import source_from
from ..source.protocol import Source
from ..source.search import dataset_info
from .files import write_whole
from .saved import Saved, file_name, write_tables

_AT_ONCE = 4
"""Sections that are computed together."""


def save_planes(
    dataset_id: int,
    folder: Path,
    *,
    views: tuple[str, ...] = ("image",),
    resolution: float = 25,
    tier: int | Literal["auto"] = "auto",
    region: Mapping[str, tuple[float, float]] | None = None,
    source: str | Source | None = None,
) -> Saved:
    """Save the sections of a dataset, registered, as PNG files.

    Row j and column k of a picture lie at ``first_row + j * step`` and ``first_column + k *
    step`` microns on the axes that the table names. Images are kept in the cache, so that a
    command that was stopped fetches nothing again.

    Parameters
    ----------
    dataset_id
        The dataset.
    folder
        Where they go.
    views, resolution, tier, region
        As for `atldld.open_dataarray`; a view without an expression mask is left out.
    source
        Where images come from.

    Raises
    ------
    ValueError, RegistrationError, APIError
        As `atldld.open_dataarray`.
    """
    origin = source_from(source)
    opened = {
        view: open_dataarray(
            dataset_id,
            resolution=resolution,
            tier=tier,
            view=cast(View, view),
            region=region,
            on_error="fill",
            chunks={"section": 1},
            source=origin,
        )
        for view in views
    }
    folder.mkdir(parents=True, exist_ok=True)
    saved = Saved(dataset_id)
    rows: list[dict[str, Any]] = []
    for view, sections in opened.items():
        sections.atlas.prefetch()
        filled: set[int] = set()
        with progress(sections.sizes["section"], f"Warping {view}") as shown:
            for first in range(0, sections.sizes["section"], _AT_ONCE):
                part = sections.isel(section=slice(first, first + _AT_ONCE)).compute()
                filled |= _filled(part, saved)
                rows += [
                    _save(plane, view, folder, saved)
                    for plane in part
                    if int(plane.image_id) not in filled
                ]
                shown.update(part.sizes["section"])
    rows.sort(key=lambda row: (row["section_number"], row["file"]))
    saved.files = [row["file"] for row in rows]
    write_tables(folder, dataset_info(dataset_id, source=origin), rows)
    return saved


def _filled(part: xr.DataArray, saved: Saved) -> set[int]:
    """Return the ids of images that could not be had, and note why."""
    failures = part.atlas.failures()
    bad = failures[failures["outcome"] == "filled"]
    for reason in bad["reason"]:
        if reason not in saved.errors:
            saved.errors.append(reason)
    return set(bad["image_id"].tolist())


def _save(plane: xr.DataArray, view: str, folder: Path, saved: Saved) -> dict[str, Any]:
    import cv2

    pixels = plane.values[..., ::-1] if plane.ndim == 3 else plane.values
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels))
    number, image_id = int(plane.section), int(plane.image_id)
    name = file_name(number, image_id, view, "png")
    write_whole(folder / name, encoded.tobytes())
    saved.bytes += len(encoded)
    along, down, across = _axes(plane)
    return {
        "file": name,
        "dataset_id": plane.attrs["dataset_id"],
        "gene": plane.attrs["gene"],
        "section_number": number,
        "image_id": image_id,
        "view": view,
        "tier": int(plane.tier),
        "slice_axis": along,
        "slice_coordinate": round(float(plane[along]), 3),
        "row_axis": down,
        "first_row": float(plane.y[0]),
        "column_axis": across,
        "first_column": float(plane.x[0]),
        "step": plane.attrs["resolution_microns"],
        "reference_space": plane.attrs["reference_space"],
    }


def _axes(plane: xr.DataArray) -> tuple[str, str, str]:
    """Return the names of the axis of the section, of the rows and of the columns."""
    by_dims = {plane[axis].dims: axis for axis in ("p", "i", "r")}
    return by_dims[()], by_dims[("y",)], by_dims[("x",)]
