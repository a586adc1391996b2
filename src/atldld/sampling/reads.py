"""Which tier and which window a piece of the grid needs: pure arithmetic."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..model.affine import Array
from ..model.read import Window
from .coverage import Coverage

Interpolation = Literal["nearest", "linear", "cubic", "area"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "linear", "cubic", "area")

AREA_FROM = 1.5
"""Source pixels a grid step spans, above which ``"auto"`` averages over the step."""

_REACH = {"nearest": 1, "linear": 1, "cubic": 2}
"""Source pixels that a kernel reaches beyond the pixel it stands on, to either side."""

_NUDGE = 1e-9


def choose_tiers(
    tier: int | Literal["auto"],
    microns_per_pixel: Array,
    tier_count: npt.NDArray[np.int16],
    step: float,
) -> npt.NDArray[np.int16]:
    """Return the tier of each section.

    Parameters
    ----------
    tier
        A tier for all sections, or ``"auto"``: for each section the coarsest tier whose pixel
        is not larger than a grid step. None goes past the last tier of its section.
    microns_per_pixel
        Shape (n,): reference microns of a full-resolution pixel along its longer axis.
    tier_count
        Shape (n,): number of tiers of each section.
    step
        Microns between grid points.

    Examples
    --------
    >>> import numpy as np
    >>> choose_tiers("auto", np.array([1.0, 1.1, 30.0]), np.array([7, 4, 7]), 25.0)
    array([4, 3, 0])
    """
    if tier == "auto":
        wanted = np.floor(np.log2(step / microns_per_pixel) + _NUDGE).astype(np.int16)
    else:
        wanted = np.full(len(tier_count), min(tier, 1000), dtype=np.int16)
    return np.clip(wanted, 0, tier_count - 1)


def step_pixels(affine: Array) -> float:
    """Return how many source pixels a grid step spans, along the longer of the two axes.

    Parameters
    ----------
    affine
        Shape (2, 3): from (column number, row number, 1) to pixels of the tier.
    """
    return max(math.hypot(affine[0, 0], affine[1, 0]), math.hypot(affine[0, 1], affine[1, 1]))


def choose_interpolation(
    interpolation: Interpolation | Literal["auto"], affine: Array
) -> Interpolation:
    """Return the interpolation of a section: ``"auto"`` is area where a step spans much."""
    if interpolation != "auto":
        return interpolation
    return "area" if step_pixels(affine) > AREA_FROM else "linear"


def needed_window(
    affine: Array, covered: Coverage, size: tuple[int, int], interpolation: Interpolation
) -> Window | None:
    """Return the pixels of a tier that the covered points of a piece of the grid need.

    Parameters
    ----------
    affine
        Shape (2, 3): from (column number, row number, 1) to pixels of the tier.
    covered
        The covered points of the piece.
    size
        Width and height of the tier image in pixels.
    interpolation
        What the kernel is: it says how far around a point pixels are needed.

    Returns
    -------
    window
        Padded for the kernel and cut to the image, or None where no point is covered and
        nothing needs to be read.
    """
    ends = covered.ends()
    if ends.shape[1] == 0:
        return None
    x, y = affine[:, :2] @ ends + affine[:, 2:]
    reach = reach_pixels(interpolation, affine)
    left, right = span(x, reach, size[0])
    top, bottom = span(y, reach, size[1])
    return Window(left, top, right - left, bottom - top)


def reach_pixels(interpolation: Interpolation, affine: Array) -> int:
    """Return how many pixels around a point its value depends on, to either side."""
    if interpolation != "area":
        return _REACH[interpolation]
    # Half a step to either side, the pixels that a box of the shrunk image overlaps, and one
    # more for the linear kernel on them.
    return 2 * math.ceil(step_pixels(affine)) + 2


def span(values: Array, reach: int, size: int) -> tuple[int, int]:
    """Return the first pixel that `values` need, and one past the last, cut to ``[0, size)``."""
    first = min(max(math.floor(values.min()) - reach, 0), size - 1)
    past = max(min(math.floor(values.max()) + 1 + reach, size), first + 1)
    return first, past


def choose_window(needed: Window, size: tuple[int, int]) -> Window | None:
    """Return the window to ask a source for, or None for the whole image.

    Parameters
    ----------
    needed
        The pixels that are needed, within the image.
    size
        Width and height of the tier image in pixels.
    """
    whole = Window(0, 0, *size)
    if not whole.holds(needed):
        raise ValueError(f"{needed} is not within an image of {size[0]} x {size[1]} pixels")
    return None
