"""Slow, obvious twin of a volume: voxel by voxel, section by section, in plain numpy."""

import numpy as np

import twins


def voxels(row, images, p, i, r, max_distance, flipped=False):
    """Return what voxels show: section number, distance, image row, x and y; one a voxel.

    `row` and `images` are the service's own rows; p, i, r are arrays of one shape (n,), in the
    other of spaces 9 and 10 where `flipped`.
    """
    t = row["alignment3d"]
    out = []
    ordered = sorted(images, key=lambda image: (image["section_number"], image["id"]))
    for place in zip(p, i, r, strict=True):
        a, b, c = place
        if flipped:
            c = 11350.0 - c
        u = t["trv_00"] * a + t["trv_01"] * b + t["trv_02"] * c + t["trv_09"]
        v = t["trv_03"] * a + t["trv_04"] * b + t["trv_05"] * c + t["trv_10"]
        z = t["trv_06"] * a + t["trv_07"] * b + t["trv_08"] * c + t["trv_11"]
        best = None
        for image in ordered:
            distance = z - image["section_number"] * row["section_thickness"]
            if best is None or abs(distance) < abs(best[1]):
                best = image, distance
        image, distance = best
        tvs = twins.matrix(image["alignment2d"], "tvs")
        x, y = tvs @ [u, v, 1.0]
        there = bool(twins.covered(image, x, y)) and abs(distance) <= max_distance
        out.append((image, distance, x, y) if there else (None, np.nan, np.nan, np.nan))
    return out


def numbers(found):
    """Return the section numbers and distances of what `voxels` found."""
    return (
        np.array([-1 if image is None else image["section_number"] for image, *_ in found]),
        np.array([distance for _, distance, *_ in found]),
    )


def colours(phantom, found):
    """Return the phantom's colour at each voxel's projection on its section, NaN for none."""
    out = np.full((len(found), 3), np.nan)
    for image_id in {image["id"] for image, *_ in found if image is not None}:
        where = [
            k for k, one in enumerate(found) if one[0] is not None and one[0]["id"] == image_id
        ]
        x, y = np.array([found[k][2:] for k in where]).T
        out[where] = twins.true_colour(phantom, image_id, x, y)
    return out
