"""A made-up atlas of the phantom brain, as files that Allen's archive has under the same names.

Structures have the ids, names and colours of Allen's ontology, and shapes that follow the made-up
tissue. They mirror each other about r = 5700, as the structures of Allen's atlases do.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .tissue import MIDDLE_R, depth, tissue

Ids = npt.NDArray[np.uint32]

ARCHIVE = "/informatics-archive/current-release/"
"""Where the archive lies on its host."""

STRUCTURES = (
    (997, "root", "root", None, "FFFFFF"),
    (8, "grey", "Basic cell groups and regions", 997, "BFDAE3"),
    (567, "CH", "Cerebrum", 8, "B0F0FF"),
    (688, "CTX", "Cerebral cortex", 567, "B0FFB8"),
    (315, "Isocortex", "Isocortex", 688, "70FF71"),
    (698, "OLF", "Olfactory areas", 688, "9AD2BD"),
    (507, "MOB", "Main olfactory bulb", 698, "9AD2BD"),
    (1089, "HPF", "Hippocampal formation", 688, "7ED04B"),
    (1080, "HIP", "Hippocampal region", 1089, "7ED04B"),
    (726, "DG", "Dentate gyrus", 1080, "7ED04B"),
    (632, "DG-sg", "Dentate gyrus, granule cell layer", 726, "66A83D"),
    (623, "CNU", "Cerebral nuclei", 567, "98D6F9"),
    (477, "STR", "Striatum", 623, "98D6F9"),
    (343, "BS", "Brain stem", 8, "FF7080"),
    (1129, "IB", "Interbrain", 343, "FF7080"),
    (549, "TH", "Thalamus", 1129, "FF7080"),
    (512, "CB", "Cerebellum", 8, "F0F080"),
)
"""Id, acronym, name, parent and colour of each, in the order of the ontology."""

_MIDDLE = 5700.0
_SHIFT = 300.0
"""Microns that the made-up CCFv3 lies further back, so that the two atlases cannot be mistaken."""

_GRID = (67, 41, 58)
_EXTENT = (13200, 8000, 11400)
_DRAWN = 50
"""Microns between the points that finer volumes are drawn on."""


def ontology() -> bytes:
    """Return the structure graph as the API sends it: nested ``children`` in an envelope."""
    nodes: dict[int, dict[str, Any]] = {
        number: {
            "id": number,
            "atlas_id": number,
            "ontology_id": 1,
            "acronym": acronym,
            "name": name,
            "color_hex_triplet": colour,
            "graph_order": order,
            "parent_structure_id": parent,
            "children": [],
        }
        for order, (number, acronym, name, parent, colour) in enumerate(STRUCTURES)
    }
    for number, _, _, parent, _ in STRUCTURES:
        if parent is not None:
            nodes[parent]["children"].append(nodes[number])
    envelope = {
        "success": True, "id": 0, "start_row": 0, "num_rows": 1, "total_rows": 1,
        "msg": [nodes[997]],
    }  # fmt: skip
    return json.dumps(envelope).encode()


def structure_at(p: npt.ArrayLike, i: npt.ArrayLike, r: npt.ArrayLike, reach: float = 0.0) -> Ids:
    """Return the structure at points of reference space 9; 0 outside of the brain.

    Parameters
    ----------
    p, i, r
        Microns; broadcast against each other.
    reach
        Microns within which granule cells count: their bands are thinner than a large voxel.
    """
    p, i, r = np.broadcast_arrays(*(np.asarray(axis, dtype=np.float64) for axis in (p, i, r)))
    r = MIDDLE_R + np.abs(r - _MIDDLE)
    deep = depth(p, i, r)
    out = np.full(p.shape, 343, dtype=np.uint32)
    out[(p < 9000) & (i < 5200)] = 549
    out[p < 6200] = 477
    hippocampus = (np.abs(p - 7900) < 1900) & (i < 3900 + 0.42 * np.clip(p - 7600, 0, None))
    out[hippocampus] = 1080
    some = [axis[hippocampus] for axis in (p, i, r)]
    out[hippocampus] = np.where(_granules(some, reach) > 0.3, 632, 1080)
    out[(deep < 1450) & (i < 5300)] = 315
    out[(p > 9500) & (i < 4300)] = 512
    out[p < 2300] = 507
    out[deep <= 0] = 0
    return out


def _granules(points: list[npt.NDArray[np.float64]], reach: float) -> npt.NDArray[np.float32]:
    p, i, r = points
    shifts = (0.0,) if not reach else (-reach, -reach / 2, 0.0, reach / 2, reach)
    levels = [
        tissue(*(np.asarray(each, np.float32) for each in (p + dp, i + di, r))).granules
        for dp in shifts
        for di in shifts
    ]
    return np.asarray(np.max(levels, axis=0))


@lru_cache(maxsize=4)
def grid_labels() -> Ids:
    """Return the atlas on the 200 micron nodes of the 2011 space, shape (67, 41, 58)."""
    return structure_at(*_open_grid(*(np.arange(n) * 200.0 for n in _GRID)), reach=100.0)


@lru_cache(maxsize=1)
def _drawn(shift: float) -> Ids:
    """Return the atlas on voxels of 50 microns, whose centres lie half a voxel in."""
    p, i, r = ((np.arange(n // _DRAWN) + 0.5) * _DRAWN for n in _EXTENT)
    slabs = [structure_at(*_open_grid(each - shift, i, r)) for each in np.array_split(p, 16)]
    return np.concatenate(slabs)


def voxel_labels(step: int, *, ccfv3: bool) -> Ids:
    """Return the atlas on cubes of 10, 25, 50 or 100 microns, shape (p, i, r)."""
    drawn = _drawn(_SHIFT if ccfv3 else 0.0)
    if step >= _DRAWN:
        thin = slice(None, None, step // _DRAWN)
        half = drawn[thin, thin, thin][..., : _EXTENT[2] // step // 2]
        return np.concatenate([half, half[..., ::-1]], axis=-1)
    axes = ((np.arange(n // step) + 0.5) * step for n in _EXTENT)
    p, i, r = ((axis / _DRAWN).astype(int) for axis in axes)
    return np.asarray(drawn[np.ix_(p, i, r)])


@lru_cache(maxsize=8)
def archive_file(path: str) -> bytes | None:
    """Return a file of the archive by its path below `ARCHIVE`, or None.

    Examples
    --------
    >>> archive_file("mouse_annotation/P56_Mouse_gridAnnotation.zip")[:2], archive_file("x")
    (b'PK', None)
    """
    if path == "mouse_annotation/P56_Mouse_gridAnnotation.zip":
        return _zipped(grid_labels(), 200, "gridAnnotation")
    if path == "mouse_annotation/P56_Mouse_annotation.zip":
        return _zipped(voxel_labels(25, ccfv3=False), 25, "annotation")
    folder, _, name = path.rpartition("/")
    steps = {f"annotation_{step}.nrrd": step for step in (10, 25, 50, 100)}
    if folder == "mouse_ccf/annotation/ccf_2017" and name in steps:
        return _nrrd(voxel_labels(steps[name], ccfv3=True), steps[name])
    return None


def _zipped(ids: Ids, step: int, name: str) -> bytes:
    sizes = " ".join(map(str, ids.shape))
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"Offset = 0 0 0\nCenterOfRotation = 0 0 0\nElementSpacing = {step} {step} {step}\n"
        f"DimSize = {sizes}\nAnatomicalOrientation = ???\nElementType = MET_UINT\n"
        f"ElementDataFile = {name}.raw\n"
    )
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(f"{name}.mhd", header)
        archive.writestr(f"{name}.raw", ids.tobytes(order="F"))
    return made.getvalue()


def _nrrd(ids: Ids, step: int) -> bytes:
    header = (
        "NRRD0004\ntype: unsigned int\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(map(str, ids.shape))}\n"
        f"space directions: ({step},0,0) (0,{step},0) (0,0,{step})\n"
        "kinds: domain domain domain\nendian: little\nencoding: gzip\nspace origin: (0,0,0)\n\n"
    )
    return header.encode() + gzip.compress(ids.tobytes(order="F"), compresslevel=1, mtime=0)


def _open_grid(
    p: npt.NDArray[Any], i: npt.NDArray[Any], r: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    return p[:, None, None], i[None, :, None], r[None, None, :]
