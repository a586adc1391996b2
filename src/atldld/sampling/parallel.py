"""The displacement field between a plane of reference space and a section image."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model.affine import grid_affine, plane_affines
from ..model.space import P56_EXTENT, PLANES, Plane
from .displacement import DisplacementField, Floats


def get_parallel_transform(
    slice_coordinate: float,
    affine_2d: npt.ArrayLike,
    affine_3d: npt.ArrayLike,
    axis: str = "coronal",
    downsample_ref: int = 1,
    downsample_img: int = 0,
) -> DisplacementField:
    """Return the displacement field between a plane of reference space and a section image.

    Warping the raw image with it registers the image. The plane is parallel to the axes of the
    space: `axis` is held at `slice_coordinate`. The section itself is tilted against it; see
    the ``mapping`` of `atldld.open_dataarray`.

    Parameters
    ----------
    slice_coordinate
        Where the plane lies along its axis, in microns: p of a coronal, i of a transverse, r of
        a sagittal plane.
    affine_2d
        Shape (2, 3): ``tvs`` of the section image.
    affine_3d
        Shape (3, 4): ``trv`` of the dataset.
    axis
        ``"coronal"``, ``"sagittal"`` or ``"transverse"``.
    downsample_ref
        Microns between grid points, a whole number of at least 1: it divides (rounded down) the
        extent of the space, 13200 along p, 8000 along i and 11400 along r.
    downsample_img
        Tier of the image, a whole number of at least 0: x and y are divided by
        ``2 ** downsample_img``.

    Returns
    -------
    field
        Rows and columns are the two free axes in the order p, i, r: (i, r) for coronal, (p, i)
        for sagittal and (p, r) for transverse planes. Note that arrays of
        `atldld.open_dataarray` stand upright instead: a sagittal plane is (i, p) there. Grid
        point k lies at ``k * downsample_ref``.

    Raises
    ------
    ValueError
        If `axis` is not known, a number is out of range or not finite, or a shape is not as
        above.

    Notes
    -----
    The two matrices and the plane make one affine, three numbers for x and three for y. They are
    computed in float64 and rounded once, to float32, when the field is filled.

    Examples
    --------
    >>> import numpy as np
    >>> trv = np.eye(3, 4)[[2, 1, 0]]
    >>> field = get_parallel_transform(5000, np.eye(2, 3), trv, downsample_ref=25)
    >>> field.shape
    (320, 456)
    >>> field.transformation[0][0, :3]
    array([ 0., 25., 50.], dtype=float32)
    """
    tvs = _finite(affine_2d, "affine_2d", (2, 3))
    trv = _finite(affine_3d, "affine_3d", (3, 4))
    where = _finite(slice_coordinate, "slice_coordinate", ())
    if axis not in tuple(PLANES):
        raise ValueError(f"axis is {axis!r}; known ones are {', '.join(map(repr, PLANES))}")
    step = _whole(downsample_ref, "downsample_ref", 1)
    tier = _whole(downsample_img, "downsample_img", 0)
    section = PLANES[axis].section
    y, x = (free for free in range(3) if free != section)
    plane = Plane(axis, section=section, y=y, x=x)
    microns = plane_affines(
        tvs[None], trv, np.zeros(1), where.reshape(1), plane, mapping="parallel"
    )[0]
    affine = grid_affine(microns, step, (0.0, 0.0), tier, (0, 0))
    columns = np.arange(int(P56_EXTENT[x]) // step, dtype=np.float64)
    rows = np.arange(int(P56_EXTENT[y]) // step, dtype=np.float64)
    (x_column, x_row, x_origin), (y_column, y_row, y_origin) = affine
    return DisplacementField(
        _plane(x_row * rows + x_origin, (x_column - 1.0) * columns),
        _plane((y_row - 1.0) * rows + y_origin, y_column * columns),
    )


def _plane(down: npt.NDArray[np.float64], across: npt.NDArray[np.float64]) -> Floats:
    """Return ``down[:, None] + across``, added in float64 and kept in float32."""
    out = np.empty((len(down), len(across)), dtype=np.float32)
    # Through the buffers of the ufunc: no float64 array of this size exists.
    np.add(down[:, None], across, out=out, casting="same_kind")
    return out


def _finite(values: npt.ArrayLike, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; it must be {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is {array.tolist()}; it must be finite")
    return array


def _whole(value: Any, name: str, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {least}")
    return number
