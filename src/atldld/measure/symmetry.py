"""Where the voxels of an annotation lie, by the symmetry of its labels.

The two sides of an atlas mirror each other. A file whose labels mirror each other about voxel
number m has its middle at ``m * spacing`` if voxel k stands for ``k * spacing``, and half a
voxel further if it stands for ``(k + 0.5) * spacing``: only one of the two is the middle of the
brain. Allen's 2011 grid annotation and CCFv3 have their middle at r = 5700.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import AtldldWarning
from ..model.space import LABEL_MIDDLE_R

_REACH = 150.0
_LEAST_SYMMETRY = 0.75
_ENOUGH_VOXELS = 2_000_000


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the first voxel lies, and what the labels say to it.

    Parameters
    ----------
    name
        ``"node"``, ``"centre"`` or ``"given"``.
    first
        p, i, r of the first voxel, in microns.
    check
        What the labels say, in words.
    symmetry
        Share of labelled voxels whose mirror image carries the same label.
    midline
        r of the plane that they mirror each other about; NaN where they do not, or were not asked.
    """

    name: str
    first: tuple[float, float, float]
    check: str
    symmetry: float
    midline: float


def label_symmetry(values: npt.NDArray[Any], step: float) -> tuple[float, float]:
    """Return about which voxel number along the last axis labels mirror each other best.

    Parameters
    ----------
    values
        Shape (p, i, r).
    step
        Microns between voxels; only planes within 150 microns of r = 5700 are looked at.

    Returns
    -------
    number
        A whole number, or half of an odd one; NaN where nothing is labelled there.
    symmetry
        Share of the labelled voxels whose mirror image carries the same label.

    Examples
    --------
    >>> labels = np.zeros((1, 1, 58), int)
    >>> labels[0, 0, 20:38] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    >>> label_symmetry(labels, 200.0)
    (28.5, 1.0)
    """
    count = values.shape[-1]
    thin = max(int(math.sqrt(values.size / _ENOUGH_VOXELS)), 1)
    sample = np.ascontiguousarray(values[::thin, ::thin])
    best = (math.nan, 0.0)
    low = math.floor(2 * (LABEL_MIDDLE_R - _REACH) / step) - 1
    high = math.ceil(2 * (LABEL_MIDDLE_R + _REACH) / step)
    for double in range(max(low, 1), min(high, 2 * count - 3) + 1):
        numbers = np.arange(max(0, double - count + 1), (double + 1) // 2)
        left, right = sample[..., numbers], sample[..., double - numbers]
        labelled = np.count_nonzero((left != 0) | (right != 0))
        same = np.count_nonzero((left == right) & (left != 0))
        if labelled and same / labelled > best[1]:
            best = (double / 2, float(same / labelled))
    return best


def settle_origin(
    values: npt.NDArray[Any], step: float, given: Any, moved: bool, name: str
) -> Origin:
    """Return the origin of a volume: the one given, held against the labels, or theirs.

    Raises
    ------
    ValueError
        If none is given and the labels do not tell, or what is given is not an origin.
    """
    if given is not None and not isinstance(given, str):
        return _placed(values, step, given)
    if given not in (None, "node", "centre"):
        raise ValueError(f"origin is {given!r}; it must be 'node', 'centre' or three numbers")
    number, symmetry = label_symmetry(values, step)
    told = None if moved else _told(number, symmetry, step)
    if given is None and told is None:
        why = (
            "says that its first voxel does not lie at 0"
            if moved
            else f"has labels that mirror each other to {symmetry:.0%}, about voxel {number}"
        )
        raise ValueError(
            f"{name} {why}, which does not tell where its voxels lie: pass origin='node' (voxel k "
            "at k * spacing), 'centre' (at (k + 0.5) * spacing), or p, i, r of the first voxel"
        )
    chosen = given or told
    half = step / 2 if chosen == "centre" else 0.0
    about = number * step + half
    check = f"labels mirror each other to {symmetry:.1%} about r = {about:g}"
    if told is None:
        check = f"not decided by the labels: {check}"
    elif told != chosen:
        check = f"the labels speak for {told!r}: {check}"
        warnings.warn(
            f"{name}: origin is {chosen!r}, but its {check}, not {LABEL_MIDDLE_R:g}",
            AtldldWarning,
            stacklevel=3,
        )
    # Labels that hardly mirror each other, as those of half an atlas, show no middle.
    midline = about if symmetry >= _LEAST_SYMMETRY else math.nan
    return Origin(str(chosen), (half,) * 3, check, symmetry, midline)


def _told(number: float, symmetry: float, step: float) -> str | None:
    if math.isnan(number) or symmetry < _LEAST_SYMMETRY:
        return None
    off = {
        "node": abs(number * step - LABEL_MIDDLE_R),
        "centre": abs((number + 0.5) * step - LABEL_MIDDLE_R),
    }
    nearer, further = sorted(off, key=lambda name: off[name])
    clear = off[nearer] <= step / 4 and off[further] - off[nearer] >= step / 4
    return nearer if clear else None


def _placed(values: npt.NDArray[Any], step: float, given: Sequence[float]) -> Origin:
    try:
        first = tuple(float(number) for number in given)
    except (TypeError, ValueError):
        first = ()
    if len(first) != 3 or not all(math.isfinite(number) for number in first):
        raise ValueError(f"origin is {given!r}; it must be 'node', 'centre' or three numbers")
    return Origin("given", (first[0], first[1], first[2]), "not checked", math.nan, math.nan)
