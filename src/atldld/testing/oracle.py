"""Slow, obvious arithmetic: where a pixel lies in reference space, written out entry by entry.

It shares nothing with the arithmetic of the package, so that a mistake made there cannot
cancel here; it is held against recorded answers of the service on its own. Rows are the
service's own (dicts with ``alignment2d`` and ``alignment3d``), and the formulas are those of
its synchronisation services [1]_: from an image to reference space ``tvr`` after ``tsv``, from
reference space to an image ``tvs`` after ``trv``; the stored inverses agree only to about
0.1 micron, so neither stands in for the other.

Every function takes numbers or arrays that broadcast, and computes in float64. Pixels are
full-resolution pixels of the section's own image: (0, 0) is the centre of the top left one.

References
----------
.. [1] "Image-to-image synchronization", Allen Institute, https://community.brain-map.org/t/2863
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Row = Mapping[str, Any]

FLIP = 11350.0
"""Sum of the r of one point in reference spaces 9 and 10, in microns (not the extent, 11400)."""


def image_to_stack(image: Row, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
    """Map pixels of an image to the image stack (microns), by its ``tsv``."""
    return _affine_2d(image["alignment2d"], "tsv", x, y)


def stack_to_image(image: Row, u: npt.ArrayLike, v: npt.ArrayLike) -> tuple[Array, Array]:
    """Map points of the image stack (microns) to pixels of an image, by its ``tvs``."""
    return _affine_2d(image["alignment2d"], "tvs", u, v)


def stack_to_reference(
    dataset: Row, u: npt.ArrayLike, v: npt.ArrayLike, z: npt.ArrayLike
) -> tuple[Array, Array, Array]:
    """Map points of the image stack to p, i, r of the dataset's own space, by its ``tvr``."""
    return _affine_3d(dataset["alignment3d"], "tvr", u, v, z)


def reference_to_stack(
    dataset: Row, p: npt.ArrayLike, i: npt.ArrayLike, r: npt.ArrayLike
) -> tuple[Array, Array, Array]:
    """Map p, i, r of the dataset's own space to the image stack, by its ``trv``."""
    return _affine_3d(dataset["alignment3d"], "trv", p, i, r)


def image_to_reference(
    dataset: Row, image: Row, x: npt.ArrayLike, y: npt.ArrayLike
) -> tuple[Array, Array, Array]:
    """Map pixels of an image to p, i, r of the dataset's own reference space.

    Parameters
    ----------
    dataset
        A SectionDataSet row with ``section_thickness`` and ``alignment3d``.
    image
        A SectionImage row with ``section_number`` and ``alignment2d``.
    x, y
        Full-resolution pixels of the section.

    Returns
    -------
    p, i, r
        Microns, float64. Nothing is clamped.

    Examples
    --------
    >>> dataset = {"section_thickness": 25.0, "alignment3d": {
    ...     "tvr_00": 1.0, "tvr_01": 0.0, "tvr_02": 0.0, "tvr_09": 5.0,
    ...     "tvr_03": 0.0, "tvr_04": 1.0, "tvr_05": 0.0, "tvr_10": 6.0,
    ...     "tvr_06": 0.0, "tvr_07": 0.0, "tvr_08": 1.0, "tvr_11": 7.0}}
    >>> image = {"section_number": 4, "alignment2d": {
    ...     "tsv_00": 2.0, "tsv_01": 0.0, "tsv_04": 0.5,
    ...     "tsv_02": 0.0, "tsv_03": 2.0, "tsv_05": 0.5}}
    >>> [float(c) for c in image_to_reference(dataset, image, 10, 20)]
    [25.5, 46.5, 107.0]
    """
    u, v = image_to_stack(image, x, y)
    return stack_to_reference(dataset, u, v, stack_depth(dataset, image))


def reference_to_image(
    dataset: Row, image: Row, p: npt.ArrayLike, i: npt.ArrayLike, r: npt.ArrayLike
) -> tuple[Array, Array]:
    """Map p, i, r of the dataset's own reference space to pixels of one of its images.

    The distance of the point from the section plays no part.
    """
    u, v, _ = reference_to_stack(dataset, p, i, r)
    return stack_to_image(image, u, v)


def stack_depth(dataset: Row, image: Row) -> float:
    """Return the third coordinate of a section in the image stack, in microns."""
    return float(image["section_number"]) * float(dataset["section_thickness"])


def flip(r: npt.ArrayLike) -> Array:
    """Return the r of space 10 for one of space 9, and the other way round (microns).

    Examples
    --------
    >>> float(flip(4300.0))
    7050.0
    """
    return FLIP - _float(r)


def to_space(r: npt.ArrayLike, given: int, wanted: int) -> Array:
    """Return r as the reference space `wanted` counts it; p and i are the same in both.

    Raises
    ------
    ValueError
        If no flip leads from one space to the other.
    """
    if given == wanted:
        return _float(r)
    if {given, wanted} == {9, 10}:
        return flip(r)
    raise ValueError(f"no transform leads from reference space {given} to {wanted}")


def nearest_image(images: Iterable[Any], number: float) -> Row | None:
    """Return the image row whose section number is nearest to `number`, or None.

    Of two equally near the lower; beyond the first or last section that one. Nulls and rows
    without alignment are passed over.
    """
    usable = [each for each in images if isinstance(each, Mapping) and each.get("alignment2d")]
    return min(
        usable,
        key=lambda image: (abs(image["section_number"] - number), image["section_number"]),
        default=None,
    )


def on_section(
    dataset: Row, image: Row, axis: Literal["p", "i", "r"], first: npt.ArrayLike, second: Any
) -> Array:
    """Return the coordinate along `axis` at which a section's own plane meets given points.

    Parameters
    ----------
    axis
        Which coordinate is sought; the other two are given.
    first, second
        The other two, in the order p, i, r (for ``axis="i"``: p and r), in microns.

    Returns
    -------
    coordinate
        Microns: it solves ``trv``'s third row for the depth of the section.

    Examples
    --------
    >>> dataset = {"section_thickness": 10.0,
    ...            "alignment3d": {"trv_06": -2.0, "trv_07": 1.0, "trv_08": 0.0, "trv_11": 50.0}}
    >>> float(on_section(dataset, {"section_number": 3}, "p", 100.0, 0.0))
    60.0
    """
    t = dataset["alignment3d"]
    a, b, c, d = t["trv_06"], t["trv_07"], t["trv_08"], t["trv_11"]
    z = stack_depth(dataset, image)
    first, second = _float(first), _float(second)
    if axis == "p":
        return _float((z - d - b * first - c * second) / a)
    if axis == "i":
        return _float((z - d - a * first - c * second) / b)
    return _float((z - d - a * first - b * second) / c)


def covered(image: Row, x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether full-resolution pixels x, y lie on the section: ``[0, w - 1] x [0, h - 1]``."""
    x, y = _float(x), _float(y)
    inside = (x >= 0) & (x <= image["width"] - 1) & (y >= 0) & (y <= image["height"] - 1)
    return np.asarray(inside)


def tilt_degrees(dataset: Row, axis: Literal["p", "i", "r"]) -> float:
    """Return the angle between the normal of the sections and an axis, in degrees."""
    t = dataset["alignment3d"]
    normal = (t["trv_06"], t["trv_07"], t["trv_08"])
    along = abs(normal["pir".index(axis)])
    return math.degrees(math.acos(min(along / math.hypot(*normal), 1.0)))


def _affine_2d(t: Row, name: str, a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Array, Array]:
    a, b = _float(a), _float(b)
    return (
        t[f"{name}_00"] * a + t[f"{name}_01"] * b + t[f"{name}_04"],
        t[f"{name}_02"] * a + t[f"{name}_03"] * b + t[f"{name}_05"],
    )


def _affine_3d(
    t: Row, name: str, a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike
) -> tuple[Array, Array, Array]:
    a, b, c = _float(a), _float(b), _float(c)
    return (
        t[f"{name}_00"] * a + t[f"{name}_01"] * b + t[f"{name}_02"] * c + t[f"{name}_09"],
        t[f"{name}_03"] * a + t[f"{name}_04"] * b + t[f"{name}_05"] * c + t[f"{name}_10"],
        t[f"{name}_06"] * a + t[f"{name}_07"] * b + t[f"{name}_08"] * c + t[f"{name}_11"],
    )


def _float(value: npt.ArrayLike) -> Array:
    return np.asarray(value, dtype=np.float64)
