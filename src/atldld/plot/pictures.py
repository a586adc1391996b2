"""What the panels of a figure are to show, and reading it for all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from ..arrays.index import DIM, space_in
from ..arrays.lookup import CCFV3, annotation_from, space_of, space_of_annotation
from ..arrays.planning import failures_table, planned_reads
from ..model.read import ImageRead
from ..model.space import AXES, space_name
from .outlines import borders, outline, tables
from .panel import Heat, Look, Panel, Rgba, heat, heat_of, look_of
from .subject import Subject, subject

BORDERS_OF_SPACE = "borders"
"""What a user asks for who wants the borders of the atlas that the array lies in."""

_ATLAS_OF = {9: "P56", 10: "P56", CCFV3: CCFV3}


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """What is laid over pictures.

    Parameters
    ----------
    array
        Values on the same grid, or None.
    annotation
        Structure ids over p, i, r, or None.
    alpha
        How opaque values are, 0 to 1.
    """

    array: Subject | None
    annotation: xr.DataArray | None
    alpha: float


NO_OVERLAY = Overlay(None, None, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """One panel, not read yet.

    Parameters
    ----------
    title
        Above the panel.
    places
        Which of the sections or planes of the array, by dimension; empty where it is one.
    microns
        Microns of one unit of its axes.
    """

    title: str
    places: Mapping[str, int] = field(default_factory=dict)
    microns: float = 1.0


def overlay_of(obj: Any, chosen: Subject, overlay: Any, alpha: float) -> Overlay:
    """Return what a user wants laid over an array.

    Raises
    ------
    TypeError, ValueError
        If it does not fit.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha:g}; it must be from 0 to 1")
    if overlay is None:
        return Overlay(None, None, alpha)
    if isinstance(overlay, str):
        overlay = _named(obj, chosen, overlay)
    if not isinstance(overlay, xr.DataArray):
        raise TypeError(
            f"overlay is {type(overlay).__name__}; it must be an array on the same grid, its "
            "name in the dataset, or an annotation"
        )
    if _is_annotation(overlay, chosen):
        _check_atlas(chosen.array, overlay)
        return Overlay(None, overlay, alpha)
    laid = subject(overlay)
    _check_same_grid(chosen, laid)
    return Overlay(laid, None, alpha)


def _named(obj: Any, chosen: Subject, name: str) -> xr.DataArray:
    """Return what is laid over by name: a variable, or Allen's annotation of the array's space."""
    if isinstance(obj, xr.Dataset) and name in obj.data_vars:
        return obj[name]
    if name != BORDERS_OF_SPACE:
        raise ValueError(
            f"there is no variable {name!r} to lay over: give an array, or {BORDERS_OF_SPACE!r}"
        )
    space = space_of(chosen.array, "these values")
    if space not in _ATLAS_OF:
        raise ValueError(
            f"there is no annotation of {space_name(space)} to be had by name: give one of "
            "open_annotation(path)"
        )
    return annotation_from(_ATLAS_OF[space])


def _check_atlas(array: xr.DataArray, annotation: xr.DataArray) -> None:
    """Refuse borders of the 2011 space over what lies in CCFv3."""
    other = space_of_annotation(annotation)
    if space_in(array) == CCFV3 and other != CCFV3:
        raise ValueError(
            f"the array lies in CCFv3, and the annotation in {space_name(other)}: the same "
            f"position carries another label there more often than not. overlay="
            f"{BORDERS_OF_SPACE!r} and open_annotation('CCFv3') are of CCFv3"
        )


def _is_annotation(array: xr.DataArray, chosen: Subject) -> bool:
    if set(array.dims) != {"p", "i", "r"} or array.dtype.kind not in "iu":
        return False
    return chosen.kind != "volume" or "atlas" in array.attrs


def _check_same_grid(chosen: Subject, over: Subject) -> None:
    if over.kind != chosen.kind:
        raise ValueError(f"overlay is of another kind: {over.kind} over {chosen.kind}")
    own, other = chosen.array, over.array
    for name in (*(dim for dim in own.dims if dim != "channel"), "image_id", "reference_space"):
        if name not in own.coords or name not in other.coords:
            continue
        if not np.array_equal(own.coords[name].values, other.coords[name].values):
            raise ValueError(
                f"overlay lies elsewhere: its {name} differs. Open both with the same resolution "
                "and region, and select the same from both"
            )


def panels_of(
    obj: Any,
    chosen: Subject,
    over: Overlay,
    wanted: Sequence[Wanted],
    *,
    longest: int,
    outlined: bool,
    max_bytes: float,
) -> tuple[list[Panel], Look, Heat | None]:
    """Read what panels show, together; return them with the look and overlay that they share.

    Parameters
    ----------
    obj
        What the user gave.
    chosen, over
        What it is, and what is laid over it.
    wanted
        The panels.
    longest
        Most pixels along a side of a picture.
    outlined
        Whether to outline what images cover.
    max_bytes
        As for `read`.
    """
    pictures = [chosen.at(longest, **each.places) for each in wanted]
    laid = [] if over.array is None else [over.array.at(longest, **e.places) for e in wanted]
    found = read([each.array for each in (*pictures, *laid)], max_bytes)
    own, others = found[: len(pictures)], found[len(pictures) :]
    scale = heat_of(others) if others else None
    colours: list[Rgba | None] = [
        heat(each.values, over.alpha, scale.high) for each in others if scale is not None
    ]
    colours = colours or [None] * len(own)
    known = tables(obj) if outlined else {}
    lost = lost_images(obj)
    panels = []
    for want, picture, values, above in zip(wanted, pictures, own, colours, strict=True):
        image = image_of(values)
        panels.append(
            Panel(
                replace(picture, array=values),
                want.title,
                outline=None
                if image is None or picture.kind != "section"
                else outline(known, image),
                borders=None if over.annotation is None else borders(picture, over.annotation),
                overlay=above,
                microns=want.microns,
                empty="image could not be had" if image in lost else "",
            )
        )
    return panels, look_of(own), scale


def image_of(array: xr.DataArray) -> int | None:
    """Return the id of the image that an array shows, or None."""
    if "image_id" not in array.coords or array.coords["image_id"].ndim:
        return None
    image = float(array.coords["image_id"].item())
    return int(image) if np.isfinite(image) else None


def place_of(array: xr.DataArray, axes: tuple[str, str] | None) -> str:
    """Return which section an array shows and where it lies, as text; empty if it is not known."""
    parts = []
    if DIM in array.coords and not array.coords[DIM].ndim:
        parts.append(f"{array.coords[DIM].item():g}")
    parts += [
        f"{axis} = {array.coords[axis].item():.0f} µm"
        for axis in AXES
        if axis not in (axes or AXES) and axis in array.coords and not array.coords[axis].ndim
    ]
    return ": ".join(parts)


def name_of(array: xr.DataArray) -> str:
    """Return gene and dataset of an array, and CCFv3 where it lies there; empty if not told."""
    gene, dataset = array.attrs.get("gene") or "", array.attrs.get("dataset_id")
    name = str(gene)
    if dataset is not None:
        name = f"{gene} ({dataset})" if gene else f"dataset {dataset}"
    if space_in(array) == CCFV3:
        return f"{name} in CCFv3" if name else "CCFv3"
    return name


MOST_BYTES = 500_000_000
"""Bytes of decoded pixels that a picture may read, unless it is told otherwise."""


def read(arrays: Sequence[xr.DataArray], max_bytes: float) -> list[xr.DataArray]:
    """Return arrays in memory, read together.

    Parameters
    ----------
    arrays
        What a picture shows, already cut and thinned.
    max_bytes
        Most bytes of decoded image pixels that may be read for all of them.

    Raises
    ------
    ValueError
        If it would be more; nothing is read then.
    """
    check_cost(arrays, max_bytes)
    from dask.base import compute, optimize

    # Each by itself: where pictures share a chunk, dask would read all of that chunk for them.
    each = [optimize(array)[0] for array in arrays]
    return [array.load() for array in compute(*each, optimize_graph=False)]


def check_cost(arrays: Sequence[xr.DataArray], max_bytes: float) -> None:
    """Refuse what would read more than `max_bytes` of decoded pixels."""
    reads: dict[tuple[str, ImageRead], int] = {}
    for array in arrays:
        for name, each in _reads(array):
            reads[name, each] = _bytes(each)
    total = sum(reads.values())
    if total > max_bytes:
        images = len({each.image_id for _, each in reads})
        raise ValueError(
            f"this picture would read {total / 1e6:,.0f} MB of pixels from {images} images, more "
            f"than the {max_bytes / 1e6:,.0f} MB of max_bytes: open the dataset with a coarser "
            "resolution (resolution=100 is plenty for an overview), select fewer sections or a "
            "smaller part, or pass a larger max_bytes"
        )


def _reads(array: xr.DataArray) -> list[tuple[str, ImageRead]]:
    try:
        return [(each.reader.source.name, each.read) for each in planned_reads(array)]
    except ValueError:  # in memory: it reads nothing
        return []


def _bytes(read: ImageRead) -> int:
    width, height = read.size
    return width * height * (1 if read.view == "expression_mask" else 3)


def lost_images(obj: xr.DataArray | xr.Dataset) -> set[int]:
    """Return the ids of images that could not be had and were filled, as far as is known."""
    try:
        failures = failures_table(obj)
    except ValueError:
        return set()
    return {int(image) for image in failures.image_id[failures.outcome == "filled"]}
