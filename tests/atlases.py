"""A small made-up atlas: not symmetric in p and i, mirror symmetric in r, and its files."""

import numpy as np

MIDDLE = 5700.0


def structure(p, i, r):
    """Return the structure ids at places in microns: boxes that differ along every axis."""
    side = np.abs(r - MIDDLE)
    inside = (p > 2000) & (p < 11000) & (i > 1200) & (i < 6400) & (side < 4300)
    label = np.where(p < 5000, 11, 12)
    label = np.where(i > 3700, label + 10, label)
    label = np.where(side < 1500, label + 100, label)
    label = np.where((p > 8000) & (i < 2500), 614454277, label)
    return np.where(inside, label, 0).astype(np.uint32)


def labels(step, origin, shape):
    """Return the atlas on voxels k * step (``node``) or (k + 0.5) * step (``centre``)."""
    half = step / 2 if origin == "centre" else 0.0
    p, i, r = (half + np.arange(count) * step for count in shape)
    return structure(p[:, None, None], i[None, :, None], r[None, None, :])


TREE = [
    {
        "id": 997,
        "acronym": "root",
        "name": "root",
        "children": [
            {
                "id": 8,
                "acronym": "dorsal",
                "name": "dorsal part",
                "children": [
                    {"id": n, "acronym": f"d{n}", "name": f"box {n}", "children": []}
                    for n in (11, 12, 111, 112)
                ],
            },
            {
                "id": 9,
                "acronym": "ventral",
                "name": "ventral part",
                "children": [
                    {"id": n, "acronym": f"v{n}", "name": f"box {n}", "children": []}
                    for n in (21, 22, 121, 122)
                ],
            },
            {"id": 614454277, "acronym": "far", "name": "far box", "children": []},
        ],
    }
]
"""Allen's JSON of a structure graph, of the structures above."""
