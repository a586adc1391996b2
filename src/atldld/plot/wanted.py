"""What the panels of a figure are to show, and reading it for all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from ..arrays.index import DIM
from ..model.space import AXES
from .lines import borders, outline, tables
from .looks import Look, Rgba, heat, look_of
from .panel import Panel
from .reading import lost_images, read
from .subject import Subject, subject


@dataclass(frozen=True, slots=True, eq=False)
class Over:
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


def over_of(obj: Any, chosen: Subject, overlay: Any, alpha: float) -> Over:
    """Return what a user wants laid over an array.

    Raises
    ------
    TypeError, ValueError
        If it does not fit.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha:g}; it must be from 0 to 1")
    if overlay is None:
        return Over(None, None, alpha)
    if isinstance(overlay, str):
        if not isinstance(obj, xr.Dataset) or overlay not in obj.data_vars:
            raise ValueError(f"there is no variable {overlay!r} to lay over: give an array")
        overlay = obj[overlay]
    if not isinstance(overlay, xr.DataArray):
        raise TypeError(
            f"overlay is {type(overlay).__name__}; it must be an array on the same grid, its "
            "name in the dataset, or an annotation"
        )
    if _is_annotation(overlay, chosen):
        return Over(None, overlay, alpha)
    laid = subject(overlay)
    _check_same_grid(chosen, laid)
    return Over(laid, None, alpha)


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
    over: Over,
    wanted: Sequence[Wanted],
    *,
    longest: int,
    outlined: bool,
    max_bytes: float,
) -> tuple[list[Panel], Look]:
    """Read what panels show, together, and return them with the look that they share.

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
    colours: list[Rgba | None] = [heat(each.values, over.alpha) for each in others]
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
    return panels, look_of(own)


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
    """Return gene and dataset of an array, as text; empty if it does not tell."""
    gene, dataset = array.attrs.get("gene") or "", array.attrs.get("dataset_id")
    if dataset is None:
        return str(gene)
    return f"{gene} ({dataset})" if gene else f"dataset {dataset}"
