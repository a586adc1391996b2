"""How values become colours: stains on white, fluorescence on black, one value a pixel in grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

Values = npt.NDArray[Any]
Rgba = npt.NDArray[np.uint8]

_DIM = 64.0
"""Mean grey level below which the middle pixel of a picture means a dark ground."""
_FAINT = 16.0
"""Grey level up to which a heat map shows nothing: the black of a JPEG is not quite black."""


@dataclass(frozen=True, slots=True)
class Look:
    """How the panels of one figure show their values.

    Parameters
    ----------
    coloured
        Whether a pixel has three values, from 0 to 255.
    dark
        Whether the ground is black.
    low, high
        Of one value a pixel, what is black and what is white.
    none
        The whole number that stands for no value, or None.
    """

    coloured: bool
    dark: bool
    low: float = 0.0
    high: float = 255.0
    none: int | None = None

    @property
    def ground(self) -> str:
        """Colour where there is nothing."""
        return "black" if self.dark else "white"

    @property
    def ink(self) -> str:
        """Colour of what is drawn upon the picture."""
        return "white" if self.dark else "black"


def look_of(arrays: Sequence[xr.DataArray]) -> Look:
    """Return how arrays in memory are shown beside each other, all in the same way."""
    first = arrays[0]
    none = first.attrs.get("none") if first.dtype.kind in "iu" else None
    if "channel" in first.dims:
        return Look(True, _is_dark(arrays))
    if first.dtype == np.uint8 or first.attrs.get("view") == "expression_mask":
        return Look(False, True)
    if first.dtype.kind == "b":
        return Look(False, True, 0.0, 1.0)
    found = [array.values[np.isfinite(array.values)] for array in arrays]
    if none is not None:
        found = [values[values != none] for values in found]
    found = [values for values in found if values.size]
    low = min((float(values.min()) for values in found), default=0.0)
    high = max((float(values.max()) for values in found), default=1.0)
    return Look(False, True, min(low, 0.0), high if high > low else low + 1.0, none)


def _is_dark(arrays: Sequence[xr.DataArray]) -> bool:
    attrs = arrays[0].attrs
    if "value_where_not_covered" in attrs:
        return bool(attrs["value_where_not_covered"] < 128)
    if str(attrs.get("view", "")).startswith("expression"):
        return True
    if "Connectivity" in str(attrs.get("products", "")):
        return True
    # What is covered where nothing else is known: tissue is darker than glass, and a dark
    # ground is darker than tissue.
    levels = [array.values[np.isfinite(array.values)] for array in arrays]
    seen = np.concatenate([values.ravel()[::97] for values in levels])
    return bool(seen.size) and float(np.median(seen)) < _DIM


def rgba(values: Values) -> Rgba:
    """Return colours of shape (rows, columns, 4), transparent where one of the three is NaN."""
    there = np.asarray(np.isfinite(values).all(axis=-1))
    levels = np.where(there[..., None], values, 0)
    out = np.empty((*values.shape[:2], 4), dtype=np.uint8)
    out[..., :3] = np.clip(np.rint(levels), 0, 255)
    out[..., 3] = np.where(there, 255, 0)
    return out


def heat(values: Values, alpha: float) -> Rgba:
    """Return colours of an overlay: those of a heat map, transparent where it is black.

    Parameters
    ----------
    values
        Shape (rows, columns, 3), or (rows, columns): grey levels, shown from yellow to red.
    alpha
        How opaque it is where there is something, 0 to 1.
    """
    if values.ndim == 2:
        share = np.clip(np.nan_to_num(values) / 255.0, 0.0, 1.0)
        parts = [np.ones_like(share), 1.0 - share, np.zeros_like(share)]
        colours, strength = np.stack(parts, axis=-1) * 255.0, share * 255.0
    else:
        colours, strength = values, np.nan_to_num(values).max(axis=-1)
    out = rgba(np.where(np.isfinite(colours), colours, np.nan))
    out[..., 3] = np.where((out[..., 3] > 0) & (strength > _FAINT), round(255 * alpha), 0)
    return out


def grey(values: Values, look: Look) -> npt.NDArray[np.float64]:
    """Return one value a pixel, NaN where there is none."""
    out = values.astype(np.float64)
    if look.none is not None:
        out[values == look.none] = np.nan
    return out


def is_empty(values: Values) -> bool:
    """Whether there is no value at all."""
    return values.dtype.kind == "f" and not np.isfinite(values).any()
