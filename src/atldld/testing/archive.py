"""What Allen keeps as files: grids of data, an atlas, and the slides of the open bucket.

The atlas has names of files as Allen's archive has them. Its structures have the ids, names and
colours of Allen's ontology, and shapes that follow the made-up tissue. They mirror each other about
r = 5700, as the structures of Allen's atlases do.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .datasets import PhantomDataset
from .phantom import MIDDLE_R, depth, tissue
from .service_rows import Row

Ids = npt.NDArray[np.uint32]
Single = npt.NDArray[np.float32]

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
        return _zipped(_metaimage("gridAnnotation", grid_labels(), 200, "???"))
    if path == "mouse_annotation/P56_Mouse_annotation.zip":
        return _zipped(_metaimage("annotation", voxel_labels(25, ccfv3=False), 25, "???"))
    folder, _, name = path.rpartition("/")
    steps = {f"annotation_{step}.nrrd": step for step in (10, 25, 50, 100)}
    if folder == "mouse_ccf/annotation/ccf_2017" and name in steps:
        labels = voxel_labels(steps[name], ccfv3=True)
        return _nrrd(labels, steps[name], "space: left-posterior-superior")
    return None


def grid_zip(
    volumes: Mapping[str, Single], step: float, dataset_id: int, reference_space: int
) -> bytes:
    """Return volumes as the grid service sends them: MetaImages and a description, zipped.

    Parameters
    ----------
    volumes
        By name (``"energy"``), along p, i, r; -1 where there are no data.
    step
        Microns between nodes.
    dataset_id, reference_space
        What the description says.
    """
    description = (
        f"<section-data-set><id>{dataset_id}</id>"
        f"<reference-space-id>{reference_space}</reference-space-id></section-data-set>"
    )
    files = {"data_set.xml": description.encode()}
    for name, values in volumes.items():
        files |= _metaimage(name, values.astype("<f4"), step, "RAI")
    return _zipped(files, zipfile.ZIP_STORED)


def nrrd_grid(values: Single, step: float) -> bytes:
    """Return a volume as the service sends connectivity grids: NRRD, gzipped, along p, i, r."""
    return _nrrd(values.astype("<f4"), step, "space dimension: 3")


def _metaimage(
    name: str, values: npt.NDArray[Any], step: float, orientation: str
) -> dict[str, bytes]:
    kind = {"f": "MET_FLOAT", "u": "MET_UINT"}[values.dtype.kind]
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"Offset = 0 0 0\nElementSpacing = {step:g} {step:g} {step:g}\n"
        f"DimSize = {' '.join(map(str, values.shape))}\nAnatomicalOrientation = {orientation}\n"
        f"ElementType = {kind}\nElementDataFile = {name}.raw\n"
    )
    return {f"{name}.mhd": header.encode(), f"{name}.raw": values.tobytes(order="F")}


def _zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            # A fixed date, so that the same volumes give the same bytes.
            entry = zipfile.ZipInfo(name, (2011, 1, 1, 0, 0, 0))
            archive.writestr(entry, content, compression, compresslevel=1)
    return made.getvalue()


def _nrrd(values: npt.NDArray[Any], step: float, space: str) -> bytes:
    kind = {"f": "float", "u": "unsigned int"}[values.dtype.kind]
    header = (
        f"NRRD0004\ntype: {kind}\ndimension: 3\n{space}\n"
        f"sizes: {' '.join(map(str, values.shape))}\n"
        f"space directions: ({step:g},0,0) (0,{step:g},0) (0,0,{step:g})\n"
        "space origin: (0,0,0)\nkinds: domain domain domain\nendian: little\nencoding: gzip\n\n"
    )
    return header.encode() + gzip.compress(values.tobytes(order="F"), compresslevel=1, mtime=0)


def _open_grid(
    p: npt.NDArray[Any], i: npt.NDArray[Any], r: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    return p[:, None, None], i[None, :, None], r[None, None, :]


@dataclass(frozen=True, slots=True)
class TiffForm:
    """How the slides of a bucket are written: nobody outside knows.

    Parameters
    ----------
    tile
        Side of square tiles; None for strips.
    rows
        Rows of a strip; None for one strip.
    compression
        None, or a name that tifffile knows: ``"zlib"``, ``"lzw"``, ``"packbits"``, ``"jpeg"``.
    big
        Whether it is a BigTIFF.
    grey
        Whether red alone is kept.
    planar
        Whether each colour has segments of its own.
    predictor
        Whether differences are compressed.
    """

    tile: int | None = None
    rows: int | None = 16
    compression: Literal["zlib", "lzw", "packbits", "jpeg"] | None = None
    big: bool = False
    grey: bool = False
    planar: bool = False
    predictor: bool = False

    def write(self, path: Path, pixels: Any) -> None:
        """Write pixels, uint8 of shape (height, width, 3), as a TIFF."""
        import tifffile

        options: dict[str, Any] = {"compression": self.compression, "metadata": None}
        if self.predictor:
            options["predictor"] = True
        if self.tile is not None:
            options["tile"] = (self.tile, self.tile)
        else:
            options["rowsperstrip"] = pixels.shape[0] if self.rows is None else self.rows
        if self.grey:
            pixels, options["photometric"] = np.ascontiguousarray(pixels[..., 0]), "minisblack"
        else:
            options["photometric"] = "rgb"
        if self.planar and not self.grey:
            pixels, options["planarconfig"] = np.moveaxis(pixels, -1, 0), "separate"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tifffile.TiffWriter(path, bigtiff=self.big) as file:
            file.write(pixels, **options)


def write_slides(
    datasets: Iterable[PhantomDataset],
    folder: Path,
    form: TiffForm | None = None,
    *,
    lost: Iterable[tuple[int, int]] = (),
) -> None:
    """Write phantom datasets to a folder as Allen's open bucket has them.

    Parameters
    ----------
    datasets
        What to write.
    folder
        Where to.
    form
        How the TIFFs are written.
    lost
        Image ids and tiers whose slides are listed and not there.
    """
    form = form or TiffForm()
    gone = {*lost}
    listing = []
    for dataset in datasets:
        home = folder / f"section_data_set_{dataset.id}"
        images: list[Row] = []
        for image_id in dataset.image_ids:
            image = dataset.image(image_id)
            name = f"section_image_{dataset.slides.get(image_id, image_id)}.tiff"
            tiers = {}
            for tier in range(image["tier_count"]):
                tiers[f"downsample_{tier}"] = tier_of(image, tier)
                path = home / f"downsample_{tier}" / name
                if (image_id, tier) not in gone and not path.exists():
                    size = (
                        max(image["image_width"] >> tier, 1),
                        max(image["image_height"] >> tier, 1),
                    )
                    pixels = dataset.slide_pixels(image_id, "image", tier, (0, 0), size)
                    form.write(path, pixels)
            images.append(
                {
                    "bits_per_component": 8,
                    "id": image_id,
                    "resolution": image["resolution"],
                    "section_number": image["section_number"],
                    "downsampling": tiers,
                    "image_file_name": name,
                }
            )
        row = {"id": dataset.id, "section_images": images}
        home.mkdir(parents=True, exist_ok=True)
        (home / "section_data_set.json").write_text(json.dumps(row), encoding="utf-8")
        listing.append({"id": dataset.id, "genes": dataset.row.get("genes")})
    (folder / "section_data_sets.json").write_text(json.dumps(listing), encoding="utf-8")


def tier_of(image: Row, tier: int) -> Row:
    """Return what the bucket says of a tier: every number is halved and floored."""
    return {
        "width": max(image["width"] >> tier, 1),
        "height": max(image["height"] >> tier, 1),
        "x": image["x"] >> tier,
        "y": image["y"] >> tier,
        "image_file_width": max(image["image_width"] >> tier, 1),
        "image_file_height": max(image["image_height"] >> tier, 1),
    }
