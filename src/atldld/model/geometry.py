"""How sections lie in reference space: normals, tilts, ranges, gaps, and what lies outside.

A section is a plane, and its image a rectangle on it: the middles of its pixels span ``[0,
width - 1] x [0, height - 1]``, which an affine takes to a parallelogram in reference space.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .affine import Array
from .sections import SectionTable
from .space import AXES

_THIN = 1e-6
"""Pixels that an image of one row or column is taken to be high or wide: a line has no area."""


def pixel_points(table: SectionTable) -> Array:
    """Return, for each section, the affine from full-resolution pixels to p, i, r.

    It goes through the plane that the section is sampled on, so that it is exact for what an
    array shows: with ``"parallel"`` it is ``tvr`` after ``tsv``; with ``"oblique"`` the inverse
    of ``tvs`` after ``trv``, which agrees with that to about 0.1 microns.

    Returns
    -------
    affines
        Shape (n, 3, 3), float64: from (x, y, 1) to p, i, r in microns.
    """
    onto = np.zeros((len(table), 3, 3))
    onto[:, :2] = table.affine
    onto[:, 2, 2] = 1.0
    return np.asarray(table.points @ np.linalg.inv(onto))


def geometry(
    affines: Array,
    width: npt.NDArray[Any],
    height: npt.NDArray[Any],
    bounds: tuple[float, float, float] | None,
) -> dict[str, npt.NDArray[Any]]:
    """Return how sections lie, from where their pixels do.

    Parameters
    ----------
    affines
        Shape (n, 3, 3): from (x, y, 1) in full-resolution pixels to p, i, r in microns; in the
        order of the stack.
    width, height
        Shape (n,): full-resolution pixels.
    bounds
        Extent of the space along p, i, r in microns, or None where it is not known.

    Returns
    -------
    columns
        Shape (n,) each, in the order that was given: ``slice_axis``, the name of the slicing axis;
        ``normal_p``, ``normal_i``, ``normal_r``, unit vectors along which the slice coordinate
        grows; ``tilt``, degrees between the normal and the slicing axis; ``slice_low`` and
        ``slice_high``, least and greatest slice coordinate of the image, microns; ``before`` and
        ``after``, microns from the middle of the image, along its normal, to the planes of the
        sections before and after, NaN where there is none; ``outside``, the share of the image's
        area that lies outside the space, NaN where its extent is not known.

    Notes
    -----
    The normal is the cross product of the steps that one pixel along x and one along y make.
    The slicing axis is that of its largest component, over all sections. The gap to another
    section is measured from the middle of the image along its normal. By Allen's matrices all
    planes of a dataset are parallel, and the gap is the same from wherever it is measured; by
    another registration they need not be.

    Examples
    --------
    >>> flat = np.array([[[2.0, 0, 0], [0, 2, 0], [0, 0, z]] for z in (100.0, 300.0)])
    >>> found = geometry(flat, np.array([11, 11]), np.array([6, 6]), (10.0, 8000.0, 11400.0))
    >>> found["normal_r"], found["after"], found["outside"]
    (array([1., 1.]), array([200.,  nan]), array([0.5, 0.5]))
    """
    normal = np.cross(affines[:, :, 0], affines[:, :, 1])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    axis = int(np.argmax(np.abs(normal).sum(axis=0))) if len(normal) else 0
    normal *= np.where(normal[:, axis : axis + 1] < 0, -1.0, 1.0)
    across = np.linalg.norm(np.delete(normal, axis, axis=1), axis=1)
    corners = affines @ image_corners(width, height)
    along = corners[:, axis]
    middle = corners.mean(axis=2)
    before = _gaps(middle[1:], normal[1:], middle[:-1], normal[:-1])
    after = _gaps(middle[:-1], normal[:-1], middle[1:], normal[1:])
    return {
        "slice_axis": np.full(len(normal), AXES[axis], dtype=object),
        **{f"normal_{name}": normal[:, place] + 0.0 for place, name in enumerate(AXES)},
        # The arctangent keeps small angles, which an arccosine rounds away.
        "tilt": np.degrees(np.arctan2(across, normal[:, axis])),
        "slice_low": along.min(axis=1),
        "slice_high": along.max(axis=1),
        "before": np.concatenate([[np.nan], before])[: len(normal)],
        "after": np.concatenate([after, [np.nan]])[: len(normal)],
        "outside": _shares_outside(corners, bounds),
    }


def _gaps(middle: Array, normal: Array, other: Array, other_normal: Array) -> Array:
    """Return how far it is from points, along normals, to planes through other points."""
    towards = np.einsum("ni,ni->n", other_normal, other - middle)
    return np.asarray(np.abs(towards / np.einsum("ni,ni->n", other_normal, normal)))


def image_corners(width: npt.NDArray[Any], height: npt.NDArray[Any]) -> Array:
    """Return the corners of images as columns (x, y, 1), round about, shape (n, 3, 4)."""
    right = np.maximum(np.asarray(width) - 1.0, _THIN)
    bottom = np.maximum(np.asarray(height) - 1.0, _THIN)
    none, one = np.zeros(len(right)), np.ones(len(right))
    x = np.stack([none, right, right, none], axis=1)
    y = np.stack([none, none, bottom, bottom], axis=1)
    return np.stack([x, y, np.stack([one] * 4, axis=1)], axis=1)


def _shares_outside(corners: Array, bounds: tuple[float, float, float] | None) -> Array:
    if bounds is None:
        return np.full(len(corners), np.nan)
    low, high = np.zeros(3), np.array(bounds)
    inside = (corners >= low[:, None]).all((1, 2)) & (corners <= high[:, None]).all((1, 2))
    shares = np.zeros(len(corners))
    for place in np.flatnonzero(~inside):
        shares[place] = 1.0 - _area(clip_to_box(_unit_square(corners[place]), low, high)[:, :2])
    return np.clip(shares, 0.0, 1.0)


def _unit_square(corners: Array) -> Array:
    """Return the corners of an image with their place on it: columns u, v, then p, i, r."""
    uv = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return np.concatenate([uv, corners.T], axis=1)


def clip_to_box(polygon: Array, low: Array, high: Array) -> Array:
    """Return the part of a flat convex polygon that lies within a box.

    Parameters
    ----------
    polygon
        Shape (corners, k + 3): round about, anything affine, and p, i, r in the last three.
    low, high
        Shape (3,): ends of the box along p, i, r; infinite where it has none.

    Returns
    -------
    polygon
        Of the same kind; without corners where nothing lies within.

    Notes
    -----
    Each of the six faces cuts off what lies beyond it, one after the other (Sutherland and
    Hodgman, 1974): what is affine over the polygon is interpolated where a side crosses.

    Examples
    --------
    >>> square = np.array([[0.0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]])
    >>> clip_to_box(square, np.array([1.0, -9, -9]), np.array([9.0, 9, 9])).tolist()
    [[1.0, 0.0, 0.0], [4.0, 0.0, 0.0], [4.0, 4.0, 0.0], [1.0, 4.0, 0.0]]
    """
    for axis in range(3):
        for sign, end in ((1.0, low[axis]), (-1.0, high[axis])):
            if np.isfinite(end) and len(polygon):
                polygon = _cut(polygon, sign * (polygon[:, axis - 3] - end))
    return polygon


def _cut(polygon: Array, above: Array) -> Array:
    """Return the part of a polygon on which a function, given at its corners, is not negative."""
    kept = []
    for place in range(len(polygon)):
        here, last = above[place], above[place - 1]
        if (here >= 0) != (last >= 0):
            share = last / (last - here)
            kept.append(polygon[place - 1] + share * (polygon[place] - polygon[place - 1]))
        if here >= 0:
            kept.append(polygon[place])
    return np.array(kept).reshape(-1, polygon.shape[1])


def _area(polygon: Array) -> float:
    """Return the area of a plane polygon, by the shoelace formula."""
    x, y = polygon.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2.0)
