"""From pixels to reference space and back, all in float64.

Four matrices, named "from-to" by the service: ``tsv`` (2, 3) takes full-resolution pixels of a
section image to the image stack (microns), ``tvs`` takes them back; ``tvr`` (3, 4) takes the
image stack to reference space, ``trv`` takes it back. The third coordinate of the stack is
``section_number * section_thickness``. The stored inverses agree only to about 0.1 micron, so
each direction uses its own: to an image always ``tvs`` after ``trv``, to reference space
always ``tvr`` after ``tsv``, as the service's own answers do.

Pixel x, y are those of the section's own image at full resolution: (0, 0) is the centre of its
top left pixel, x runs right and y runs down.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from .space import Plane

Array = npt.NDArray[np.float64]
Mapping = Literal["oblique", "parallel"]


def pir_to_xy(
    coords_ref: npt.ArrayLike, affine_2d: npt.ArrayLike, affine_3d: npt.ArrayLike
) -> Array:
    """Map points of reference space into a section image.

    Parameters
    ----------
    coords_ref
        Shape (3, N): p, i, r in microns.
    affine_2d
        Shape (2, 3): ``tvs`` of the section image.
    affine_3d
        Shape (3, 4): ``trv`` of the dataset.

    Returns
    -------
    coords_img
        Shape (3, N), float64: x, y in full-resolution pixels, and
        ``section_number * section_thickness`` in microns, where the section number may be any
        number, not only that of an image.

    Raises
    ------
    ValueError
        If a shape is not as above.

    Examples
    --------
    >>> import numpy as np
    >>> trv = np.eye(3, 4)
    >>> tvs = [[0.5, 0, 10], [0, 0.5, 20]]
    >>> pir_to_xy([[100.0], [200.0], [300.0]], tvs, trv).ravel()
    array([ 60., 120., 300.])
    """
    coords, tvs, trv = _checked(coords_ref, affine_2d, affine_3d, "coords_ref")
    stack = trv[:, :3] @ coords + trv[:, 3:]
    xy = tvs[:, :2] @ stack[:2] + tvs[:, 2:]
    return np.concatenate([xy, stack[2:]])


def xy_to_pir(
    coords_img: npt.ArrayLike, affine_2d: npt.ArrayLike, affine_3d: npt.ArrayLike
) -> Array:
    """Map points of a section image into reference space.

    Parameters
    ----------
    coords_img
        Shape (3, N): x, y in full-resolution pixels, and ``section_number *
        section_thickness`` in microns.
    affine_2d
        Shape (2, 3): ``tsv`` of the section image.
    affine_3d
        Shape (3, 4): ``tvr`` of the dataset.

    Returns
    -------
    coords_ref
        Shape (3, N), float64: p, i, r in microns.

    Raises
    ------
    ValueError
        If a shape is not as above.

    Examples
    --------
    >>> import numpy as np
    >>> tvr = np.eye(3, 4)
    >>> tsv = [[2, 0, -20], [0, 2, -40]]
    >>> xy_to_pir([[60.0], [120.0], [300.0]], tsv, tvr).ravel()
    array([100., 200., 300.])
    """
    coords, tsv, tvr = _checked(coords_img, affine_2d, affine_3d, "coords_img")
    stack = np.concatenate([tsv[:, :2] @ coords[:2] + tsv[:, 2:], coords[2:]])
    return np.asarray(tvr[:, :3] @ stack + tvr[:, 3:])


def slice_coordinates(trv: Array, z: Array, plane: Plane, middle: tuple[float, ...]) -> Array:
    """Return where section planes meet the middle line of the space, in microns.

    The line runs along the slicing axis through `middle`, so that the coordinate is linear in
    `z`: evenly spaced sections are evenly spaced, and the order never breaks.

    Parameters
    ----------
    trv
        Shape (3, 4): reference space to image stack.
    z
        Shape (n,): ``section_number * section_thickness``.
    plane
        The plane of section.
    middle
        p, i, r of a point of the line; the one along the slicing axis is not used.

    Returns
    -------
    slice_coordinate
        Shape (n,), float64.
    """
    row = trv[2]
    off_axis = row[3] + row[plane.y] * middle[plane.y] + row[plane.x] * middle[plane.x]
    return np.asarray((z - off_axis) / row[plane.section])


def plane_affines(
    tvs: Array, trv: Array, z: Array, slice_coordinate: Array, plane: Plane, mapping: Mapping
) -> Array:
    """Return the affines from a plane of reference space to section images.

    Parameters
    ----------
    tvs
        Shape (n, 2, 3): image stack to full-resolution pixels.
    trv
        Shape (3, 4): reference space to image stack.
    z
        Shape (n,): ``section_number * section_thickness``; used by ``"oblique"``.
    slice_coordinate
        Shape (n,), microns: where the planes of constant coordinate lie; used by
        ``"parallel"``.
    plane
        The plane of section: which two axes of reference space span the plane.
    mapping
        ``"oblique"``: the slice coordinate of each point solves the third row of `trv`, so
        that the point lies on the section. ``"parallel"``: it is `slice_coordinate`.

    Returns
    -------
    affines
        Shape (n, 2, 3), float64: from (column microns, row microns, 1) to full-resolution
        (x, y).
    """
    into = _plane_points(trv, z, slice_coordinate, plane, mapping)
    stack = np.zeros((len(z), 3, 3))
    stack[:, :2] = trv[:2] @ into
    stack[:, 2, 2] = 1.0
    return np.asarray(tvs @ stack)


def _plane_points(
    trv: Array, z: Array, slice_coordinate: Array, plane: Plane, mapping: Mapping
) -> Array:
    """Return the affines from (column microns, row microns, 1) to p, i, r, 1, shape (n, 4, 3)."""
    into = np.zeros((len(z), 4, 3))
    into[:, plane.x, 0] = 1.0
    into[:, plane.y, 1] = 1.0
    into[:, 3, 2] = 1.0
    if mapping == "oblique":
        row = trv[2]
        into[:, plane.section, 0] = -row[plane.x] / row[plane.section]
        into[:, plane.section, 1] = -row[plane.y] / row[plane.section]
        into[:, plane.section, 2] = (z - row[3]) / row[plane.section]
    else:
        into[:, plane.section, 2] = slice_coordinate
    return into


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
    if mapping == "oblique":
        return _plane_points(trv, z, slice_coordinate, plane, mapping)[:, :3]
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


def grid_affine(
    affine: Array, step: float, origin: tuple[float, float], tier: int, offset: tuple[int, int]
) -> Array:
    """Turn an affine of microns and pixels into one of grid points and tier pixels.

    Parameters
    ----------
    affine
        Shape (..., 2, 3): from (column, row) in microns to full-resolution x, y.
    step
        Microns between grid points.
    origin
        Column and row in microns of grid point (0, 0).
    tier
        How many times each side is halved.
    offset
        x, y of the section on its slide, in full-resolution pixels.

    Returns
    -------
    affine
        Shape (..., 2, 3): from (column index, row index) to x, y in pixels of the tier.
    """
    out = np.empty_like(affine)
    out[..., :2] = affine[..., :2] * step
    out[..., 2] = affine[..., :2] @ np.asarray(origin) + affine[..., 2]
    out[..., 2] -= [tier_origin(offset[0], tier), tier_origin(offset[1], tier)]
    return out / 2.0**tier


def tier_origin(offset: int, tier: int) -> float:
    """Return the full-resolution pixel of the section on which tier pixel 0 is centred.

    Pixel k of a tier is centred on full-resolution pixel ``k * 2**tier`` *of the slide* (on
    one real image the centres were measured at 4k + 0.00 for tier 2). A section that starts at
    `offset` on its slide starts at tier pixel ``offset // 2**tier`` there, as sizes and
    offsets in Allen's own tier tables are floored. Where `offset` is no multiple of
    ``2**tier`` nobody has measured it.

    Parameters
    ----------
    offset
        x or y of the section on its slide, in full-resolution pixels.
    tier
        How many times each side is halved.

    Examples
    --------
    >>> tier_origin(0, 3), tier_origin(13, 3)
    (0.0, -5.0)
    """
    return float(-(offset % 2**tier))


def tier_size(size: int, tier: int) -> int:
    """Return how many pixels of a tier a side of `size` full-resolution pixels has, at least 1.

    The service floors: 11921 x 7553 at tier 2 is 2980 x 1888.
    """
    return max(size >> tier, 1)


def pixel_microns(tsv: Array, tvr: Array) -> Array:
    """Return the reference microns that one full-resolution pixel spans, along x and y.

    Parameters
    ----------
    tsv
        Shape (..., 2, 3).
    tvr
        Shape (3, 4).

    Returns
    -------
    microns
        Shape (..., 2): length in reference space of a step of one pixel in x and in y.
    """
    return np.asarray(np.linalg.norm(tvr[:, :2] @ tsv[..., :2], axis=-2))


def _checked(
    coords: npt.ArrayLike, affine_2d: npt.ArrayLike, affine_3d: npt.ArrayLike, name: str
) -> tuple[Array, Array, Array]:
    points = np.asarray(coords, dtype=np.float64)
    two = np.asarray(affine_2d, dtype=np.float64)
    three = np.asarray(affine_3d, dtype=np.float64)
    if points.ndim != 2 or points.shape[0] != 3:
        raise ValueError(f"{name} has shape {points.shape}; it must be (3, N)")
    if two.shape != (2, 3):
        raise ValueError(f"affine_2d has shape {two.shape}; it must be (2, 3)")
    if three.shape != (3, 4):
        raise ValueError(f"affine_3d has shape {three.shape}; it must be (3, 4)")
    return points, two, three
