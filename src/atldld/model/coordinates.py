"""The exact place in reference space of every grid point of a section.

It is an affine of the two grid coordinates: three numbers a row and section, whatever the
number of pixels.
"""

from __future__ import annotations

import numpy as np

from .affine import Array, Mapping, plane_affines
from .space import Plane


def point_affines(
    tsv: Array,
    tvs: Array,
    tvr: Array,
    trv: Array,
    z: Array,
    slice_coordinate: Array,
    plane: Plane,
    mapping: Mapping,
) -> Array:
    """Return, for each section, the affine from grid points to exact p, i, r.

    Parameters
    ----------
    tsv, tvs
        Shape (n, 2, 3): pixels of each section image to the image stack, and back.
    tvr, trv
        Shape (3, 4): the image stack to reference space, and back; of the space that r is
        counted in.
    z
        Shape (n,): section number times thickness, microns of the stack.
    slice_coordinate
        Shape (n,): microns; where ``"parallel"`` holds each section.
    plane
        The plane of section.
    mapping
        ``"oblique"``: the two grid coordinates are exact as they are, and the slice coordinate
        solves the third row of `trv`. ``"parallel"``: a grid point shows a pixel (``tvs`` after
        ``trv``), and lies where that pixel does (``tvr`` after ``tsv``).

    Returns
    -------
    affines
        Shape (n, 3, 3), float64: from (column microns, row microns, 1) to p, i, r in microns.
    """
    out = np.zeros((len(z), 3, 3))
    if mapping == "oblique":
        row = trv[2]
        out[:, plane.x, 0] = 1.0
        out[:, plane.y, 1] = 1.0
        out[:, plane.section, 0] = -row[plane.x] / row[plane.section]
        out[:, plane.section, 1] = -row[plane.y] / row[plane.section]
        out[:, plane.section, 2] = (z - row[3]) / row[plane.section]
        return out
    pixels = np.zeros((len(z), 3, 3))
    pixels[:, :2] = plane_affines(tvs, trv, z, slice_coordinate, plane, mapping)
    pixels[:, 2, 2] = 1.0
    stack = np.zeros((len(z), 4, 3))
    stack[:, :2] = tsv @ pixels
    stack[:, 2, 2] = z
    stack[:, 3, 2] = 1.0
    return np.asarray(tvr @ stack)


def points_of(affines: Array, columns: Array, rows: Array) -> tuple[Array, Array, Array]:
    """Return p, i, r of grid points.

    Parameters
    ----------
    affines
        Shape (..., 3, 3), from `point_affines`.
    columns, rows
        Microns along the columns and rows; broadcast against each other and the affines.

    Examples
    --------
    >>> p, i, r = points_of(np.eye(3), np.array([25.0, 50.0]), np.array([100.0]))
    >>> p, i, r
    (array([25., 50.]), array([100., 100.]), array([1., 1.]))
    """
    p, i, r = (
        affines[..., axis, 0] * columns + affines[..., axis, 1] * rows + affines[..., axis, 2]
        for axis in range(3)
    )
    return p, i, r


def image_affine(tsv: Array, tvr: Array, z: float) -> Array:
    """Return the affine from the pixels of an image to reference space: ``tvr`` after ``tsv``.

    Parameters
    ----------
    tsv
        Shape (2, 3).
    tvr
        Shape (3, 4).
    z
        Section number times thickness, microns of the stack.

    Returns
    -------
    affine
        Shape (3, 3), float64: from full-resolution (x, y, 1) to p, i, r in microns.

    Examples
    --------
    >>> image_affine(np.array([[2.0, 0, 5], [0, 2, 6]]), np.eye(3, 4), 100.0)
    array([[  2.,   0.,   5.],
           [  0.,   2.,   6.],
           [  0.,   0., 100.]])
    """
    stack = np.zeros((4, 3))
    stack[:2] = tsv
    stack[2, 2], stack[3, 2] = z, 1.0
    return np.asarray(tvr @ stack)
