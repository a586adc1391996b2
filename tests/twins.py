"""Slow, obvious twins: from grid points to pixels through the 3-D matrices, in plain numpy."""

import numpy as np

AXES = {"coronal": ("p", "i", "r"), "sagittal": ("r", "i", "p"), "transverse": ("i", "p", "r")}


def matrix(alignment, name):
    """Return the service's numbered entries as a matrix: linear part row by row, then shift."""
    t = [alignment[f"{name}_{k:02d}"] for k in range(6 if name in ("tsv", "tvs") else 12)]
    if len(t) == 6:
        return np.array([[t[0], t[1], t[4]], [t[2], t[3], t[5]]], dtype=float)
    return np.array([[*t[0:3], t[9]], [*t[3:6], t[10]], [*t[6:9], t[11]]], dtype=float)


def pixels_of_grid(row, image, plane, y, x, mapping, slice_coordinate=None, flipped=False):
    """Return the full-resolution x, y that grid points show, and the p, i, r of the points.

    `row` and `image` are the service's own rows; y and x are microns along the plane's axes,
    in the other of spaces 9 and 10 where `flipped`.
    """
    trv = matrix(row["alignment3d"], "trv")
    tvs = matrix(image["alignment2d"], "tvs")
    z = image["section_number"] * row["section_thickness"]
    along, rows, columns = ("pir".index(axis) for axis in AXES[plane])
    y, x = np.meshgrid(np.asarray(y, float), np.asarray(x, float), indexing="ij")
    point = np.zeros((3, *y.shape))
    point[rows], point[columns] = y, x
    if slice_coordinate is not None:
        point[along] = slice_coordinate
    if flipped:
        point[2] = 11350.0 - point[2]
    if mapping == "oblique":
        rest = sum(trv[2, axis] * point[axis] for axis in (rows, columns)) + trv[2, 3]
        point[along] = (z - rest) / trv[2, along]
    stack = np.tensordot(trv[:, :3], point, axes=1) + trv[:, 3][:, None, None]
    px = tvs[0, 0] * stack[0] + tvs[0, 1] * stack[1] + tvs[0, 2]
    py = tvs[1, 0] * stack[0] + tvs[1, 1] * stack[1] + tvs[1, 2]
    if flipped:
        point[2] = 11350.0 - point[2]
    return px, py, point


def covered(image, px, py):
    """Return which full-resolution places lie on the section."""
    return (px >= 0) & (px <= image["width"] - 1) & (py >= 0) & (py <= image["height"] - 1)


def true_colour(phantom, image_id, px, py):
    """Return what the phantom shows at the place that pixels of a section truly come from."""
    p, i, r = phantom.pir(image_id, px, py)
    if phantom.row["reference_space_id"] == 10:
        r = 11350.0 - r
    return phantom.brain.colour(p, i, r)
