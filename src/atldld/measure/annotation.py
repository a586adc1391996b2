"""Annotations: which structure each voxel of an atlas belongs to."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from io import BytesIO
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from .. import __version__
from ..arrays.lookup import CCFV3, Space, annotated_space
from ..arrays.ontology import ONTOLOGY
from ..errors import library
from ..model.space import AXES, space_name
from ..source import Source, source_from
from ..source.allen import AllenSource
from ..source.archives import FILES, annotation_file, annotation_url, ontology_rows
from .grid_files import guarded, node_coordinates
from .symmetry import Origin, settle_origin
from .voxel_files import VoxelFile, metaimages_of, read_metaimage

ATLASES: dict[str, Space] = {"P56": 9, "CCFv3": CCFV3}  # type: ignore[dict-item]  # its one text
"""Allen's own annotations by name, and the space of each."""

_BY_NAME = " and ".join(map(repr, ATLASES))
_OPPOSITE = {"p": "a", "a": "p", "i": "s", "s": "i", "r": "l", "l": "r"}
_LARGEST_MM = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What a file holds: labels, and what it says of them.

    Parameters
    ----------
    values
        Shape (., ., .), in the file's own order of axes.
    spacing
        For each axis, in the file's own unit.
    axes
        For each axis the letter it runs to (p or a, i or s, r or l), or None.
    moved
        Whether the file says that its first voxel does not lie at 0.
    name, version
        Of the atlas, or empty.
    """

    values: npt.NDArray[Any]
    spacing: tuple[float, ...]
    axes: str | None
    moved: bool = False
    name: str = ""
    version: str = ""


def open_annotation(
    path: str | PathLike[str],
    *,
    resolution: int | None = None,
    reference_space: Literal[9, 10, "CCFv3"] | None = None,
    origin: Literal["node", "centre"] | Sequence[float] | None = None,
    spacing: float | None = None,
    axes: str | None = None,
    name: str | None = None,
    version: str | None = None,
    source: str | Source | None = None,
) -> xr.DataArray:
    """Open an annotation volume as a labelled array of structure ids.

    Parameters
    ----------
    path
        ``"P56"`` or ``"CCFv3"``: Allen's own annotation of that name, fetched once and kept (see
        Notes). Or a file: NRRD, NIfTI, or MetaImage (``.mhd``, ``.mha``, or a zip that holds
        one, as Allen publishes them); or the name of an atlas of brainglobe-atlasapi, if that
        is installed.
        NRRD needs pynrrd and NIfTI needs nibabel (``pip install pynrrd nibabel``).
    resolution
        Of an annotation by name, microns between voxels: 25 (the default) or 200 of P56; 10,
        25 (the default), 50 or 100 of CCFv3. At 10 it takes 5 GB of memory, at 25 0.3 GB.
    reference_space
        What the coordinates of a file mean: 9 or 10 for annotations of Allen's 2011 P56 space
        (10 has r mirrored), or ``"CCFv3"``. It must be given, because files do not say; a name
        says it. The same position carries the same label in only 29 % of 200 micron voxels of
        the two atlases.
    origin
        ``"node"``: voxel k stands for ``k * spacing`` (Allen's 200 micron grid). ``"centre"``:
        for ``(k + 0.5) * spacing`` (the CCFv3 volumes). None decides by the file's own labels:
        those of an atlas mirror each other across r = 5700, and half a voxel off they would not.
        Three numbers: p, i, r of the first voxel, for a part of an atlas.
    spacing
        Microns between voxels, where the file does not say or is wrong.
    axes
        Where the file's axes run to, such as ``"pir"`` (to posterior, inferior, right) or
        ``"ras"``. By default, what a NIfTI header says, and "pir" for the others, as Allen
        writes them; their own labels of orientation are not reliable.
    name, version
        Of the atlas, for the record; by default what the file says.
    source
        Where an annotation by name comes from: None, the archive of the service of
        ``set_options(api_url=...)``; or the base URL of a service.

    Returns
    -------
    xarray.DataArray
        Structure ids, integer, 0 outside, dims (p, i, r), coordinates in microns. The attributes
        tell the atlas, its version and space, the origin, and how the labels bear it out
        (``origin_check``, ``label_symmetry``, ``midline_r``).

    Raises
    ------
    ValueError
        If the file is not an annotation, or its origin cannot be decided.
    OSError
        If the file cannot be read.
    ImportError
        If a library for its format is missing.

    Warns
    -----
    AtldldWarning
        If the labels speak against the origin that was given.

    Notes
    -----
    ``"P56"`` is the annotation of Allen's 2011 space, which section datasets are registered to
    (space 9); ``"CCFv3"`` is the one of 2017, of another space. They must not be exchanged. The
    archive also has a folder ``mouse_2011``: it lies in CCFv3, whatever its name.

    An annotation by name knows Allen's ontology (`atldld.structures`): tables made with it carry
    acronyms and names, and its structures count their parts.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "atlas.mha"
    >>> labels = np.zeros((67, 41, 58), "<u4")
    >>> labels[20:40, 10:30, 10:48] = 997
    >>> labels[25:30, 15:20, [12, 45]] = 8
    >>> header = "NDims = 3, DimSize = 67 41 58, ElementSpacing = 200 200 200, ElementType = "
    >>> header = (header + "MET_UINT, ElementDataFile = LOCAL, ").replace(", ", chr(10))
    >>> _ = path.write_bytes(header.encode() + labels.tobytes(order="F"))
    >>> annotation = open_annotation(path, reference_space=9)
    >>> annotation.attrs["origin"], int(annotation.sel(p=5200, i=3200, r=2400))
    ('node', 8)
    """
    own = _atlas_named(path)
    if own is not None:
        return _named(own, resolution, reference_space, (origin, spacing, axes), source)
    if resolution is not None or source is not None:
        raise ValueError(f"resolution and source are of {_BY_NAME}; {path} is a file")
    if reference_space is None:
        raise TypeError(
            f"{path} does not say its space: pass reference_space=9 (or 10) for an annotation of "
            "Allen's 2011 P56 space, 'CCFv3' for one of that"
        )
    labels = _read(path)
    return _labelled(
        labels, path, annotated_space(reference_space), origin, spacing, axes, name, version
    )


def _labelled(
    labels: Labels,
    path: Any,
    space: Space,
    origin: Any,
    spacing: float | None,
    axes: str | None,
    name: str | None = None,
    version: str | None = None,
) -> xr.DataArray:
    """Return labels with their coordinates, and what is known of them."""
    step = _step(labels, path, spacing)
    order = (axes or labels.axes or "").lower()
    if not order:
        raise ValueError(
            f"{path} does not say how its axes run: pass axes=, such as 'pir' or 'ras'"
        )
    values = _whole(_turned(labels.values, order, path), path)
    settled: Origin = settle_origin(values, step, origin, labels.moved, str(path))
    coords = node_coordinates(settled.first, step, values.shape)
    attrs = {
        "long_name": "structure id",
        "atlas": name or labels.name or Path(fspath(path)).name.split(".")[0],
        "atlas_version": version or labels.version or "unknown",
        "reference_space": space,
        "reference_space_name": space_name(space),
        "spacing_microns": step,
        "origin": settled.name,
        "origin_check": settled.check,
        "label_symmetry": settled.symmetry,
        "midline_r": settled.midline,
        "source": str(path),
        "atldld_version": __version__,
    }
    return guarded(xr.DataArray(values, coords, AXES, name="structure_id", attrs=attrs), space)


def _atlas_named(path: str | PathLike[str]) -> str | None:
    """Return which of Allen's annotations is meant by name; a file of that name comes first."""
    if not isinstance(path, str) or Path(path).exists():
        return None
    return next((name for name in ATLASES if name.lower() == path.lower()), None)


def _named(
    name: str, resolution: int | None, space: Any, settings: tuple[Any, ...], source: Any
) -> xr.DataArray:
    """Return one of Allen's own annotations."""
    steps = sorted(step for each, step in FILES if each == name)
    wanted = 25 if resolution is None else resolution
    if wanted not in steps:
        raise ValueError(
            f"resolution is {resolution!r}; {name} is to be had at {', '.join(map(str, steps))} "
            "microns"
        )
    own = ATLASES[name]
    if space is not None and annotated_space(space) != own:
        raise ValueError(
            f"reference_space is {space!r}, but the annotation {name} lies in "
            f"{own if own == CCFV3 else f'space {own}'}"
        )
    if any(each is not None for each in settings):
        raise ValueError(f"origin, spacing and axes are of files; {name} has its own")
    origin = source_from(source)
    if not isinstance(origin, AllenSource):
        raise ValueError(f"{origin.name} keeps no annotations; give the base URL of an API")
    wanted = int(wanted)
    url = annotation_url(origin.base, name, wanted)
    read: Callable[[BytesIO, Any], Labels] = _from_zip
    if url.endswith(".nrrd"):
        # Before anything is downloaded that could not be read.
        library("nrrd", url.rpartition("/")[2], "pynrrd")
        read = _from_nrrd
    ontology_rows(origin)  # kept, so that its names are there without a network, too
    labels = read(BytesIO(annotation_file(origin, name, wanted)), url)
    found = _labelled(labels, url, own, None, None, None, f"Allen {name}", f"{wanted} microns")
    return found.assign_attrs(ontology=ONTOLOGY, ontology_source=origin.name)


def _read(path: str | PathLike[str]) -> Labels:
    place = Path(fspath(path))
    suffixes = [suffix.lower() for suffix in place.suffixes]
    if not suffixes and not place.exists():
        return _from_brainglobe(str(path))
    if not place.is_file():
        raise FileNotFoundError(f"there is no annotation file {path}")
    if suffixes[-1:] in ([".mhd"], [".mha"]):
        return _of_metaimage(read_metaimage(place))
    if suffixes[-1:] == [".zip"]:
        return _from_zip(place, path)
    if suffixes[-1:] in ([".nrrd"], [".nhdr"]):
        with place.open("rb") as file:
            return _from_nrrd(file, path)
    if ".nii" in suffixes:
        return _from_nifti(place)
    raise ValueError(
        f"{path} is of no known format: NRRD, NIfTI, MetaImage, or a zip that holds a MetaImage"
    )


def _of_metaimage(image: VoxelFile) -> Labels:
    return Labels(image.values, image.spacing, "pir", moved=any(image.offset))


_MOST_UNPACKED = 2**30
"""Three times the 25 micron annotation of the whole brain."""


def _from_zip(file: Path | BytesIO, path: Any) -> Labels:
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.file_size > _MOST_UNPACKED:
                    raise ValueError(
                        f"{path}: {member.filename!r} unpacks to {member.file_size} bytes, more "
                        f"than the {_MOST_UNPACKED} that are unpacked unseen; unpack it yourself "
                        "and name its .mhd"
                    )
            images = metaimages_of(archive.namelist(), archive.read)
    except (
        zipfile.BadZipFile, KeyError, RuntimeError, EOFError, zlib.error, lzma.LZMAError
    ) as error:  # fmt: skip
        raise ValueError(f"{path} is damaged, or not a zip: {error}") from error
    if len(images) != 1:
        raise ValueError(f"{path} holds {len(images)} MetaImages; an annotation is one")
    return _of_metaimage(next(iter(images.values())))


def _from_nrrd(file: IO[bytes], path: Any) -> Labels:
    nrrd = library("nrrd", str(path).rpartition("/")[2], "pynrrd")
    header = nrrd.read_header(file)
    values = nrrd.read_data(header, file, str(path))
    directions = header.get("space directions")
    axes: str | None = "pir"
    if directions is None:
        spacing = header.get("spacings")
    else:
        matrix = np.asarray(directions, dtype=np.float64)
        straight = matrix.shape == (3, 3) and np.count_nonzero(matrix) == 3
        # Whatever space the header names, Allen's files run along p, i, r.
        axes = "pir" if straight and (np.diag(matrix) != 0).all() else None
        spacing = np.linalg.norm(matrix, axis=1)
    moved = bool(np.any(np.nan_to_num(np.asarray(header.get("space origin", 0.0), dtype=float))))
    known = () if spacing is None else tuple(float(number) for number in spacing)
    return Labels(values, known, axes, moved)


def _from_nifti(path: Path) -> Labels:
    nibabel = library("nibabel", path.name)
    image = nibabel.load(path)
    header = image.header
    values = np.asanyarray(image.dataobj)
    spacing = np.array(header.get_zooms()[:3], dtype=np.float64)
    unit = header.get_xyzt_units()[0]
    spacing *= {"meter": 1e6, "mm": 1e3, "micron": 1.0}.get(unit, 1.0)
    oriented = int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0
    axes = "".join(nibabel.aff2axcodes(image.affine)).lower() if oriented else None
    return Labels(values, tuple(float(number) for number in spacing), axes)


def _from_brainglobe(name: str) -> Labels:
    if find_spec("brainglobe_atlasapi") is None:
        raise FileNotFoundError(
            f"there is no annotation file {name}; to open an atlas by its name, install "
            "brainglobe-atlasapi"
        )
    from brainglobe_atlasapi import BrainGlobeAtlas

    atlas = BrainGlobeAtlas(name, check_latest=False)
    # It names where each axis begins; here it counts where an axis runs to.
    axes = "".join(_OPPOSITE[letter] for letter in atlas.orientation)
    version = str(atlas.metadata.get("version", "unknown")).replace("_", ".")
    return Labels(
        np.asarray(atlas.annotation),
        tuple(float(number) for number in atlas.resolution),
        axes,
        name=str(atlas.metadata.get("name", name)),
        version=f"{version} (brainglobe-atlasapi {installed_version('brainglobe-atlasapi')})",
    )


def _step(labels: Labels, path: Any, given: float | None) -> float:
    if labels.values.ndim != 3:
        raise ValueError(f"{path} has {labels.values.ndim} dimensions; an annotation has three")
    if given is not None:
        if not np.isfinite(given) or given <= 0:
            raise ValueError(f"spacing is {given!r}; it must be a number of microns above 0")
        return float(given)
    steps = np.abs(np.asarray(labels.spacing, dtype=np.float64))
    if steps.shape != (3,) or not np.isfinite(steps).all() or (steps <= 0).any():
        raise ValueError(f"{path} does not say its voxel size: pass spacing= in microns")
    if np.ptp(steps) > 1e-4 * steps.max():
        raise ValueError(f"{path} has voxels of {steps.tolist()}; they must be cubes")
    # A brain is 13.2 millimetres or 13,200 microns long.
    unit = 1000.0 if steps[0] * max(labels.values.shape) < _LARGEST_MM else 1.0
    return round(float(steps[0]) * unit, 4)


def _turned(values: npt.NDArray[Any], order: str, path: Any) -> npt.NDArray[Any]:
    """Return a volume with its axes in the order p, i, r, each running that way."""
    places = [
        next((n for n, letter in enumerate(order) if letter in (axis, _OPPOSITE[axis])), None)
        for axis in AXES
    ]
    if len(order) != 3 or None in places:
        raise ValueError(
            f"the axes of {path} are {order!r}; they must be three letters, one of each pair p/a, "
            "i/s and r/l, such as 'pir'"
        )
    turned = values.transpose([place for place in places if place is not None])
    flips = tuple(slice(None) if axis in order else slice(None, None, -1) for axis in AXES)
    return turned[flips]


def _whole(values: npt.NDArray[Any], path: Any) -> npt.NDArray[Any]:
    if values.dtype.kind in "iu":
        if values.dtype.kind == "i" and values.min() < 0:
            raise ValueError(f"{path} holds {values.min()}; structure ids are not negative")
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "f":
        whole = values.astype(np.int64) if np.isfinite(values).all() else None
        if whole is not None and (whole == values).all() and whole.min() >= 0:
            return whole
    raise ValueError(f"{path} holds {values.dtype} that are not structure ids (whole numbers)")


def atlas_attributes(annotation: xr.DataArray) -> dict[Any, Any]:
    """Return what a result says about the atlas that it was made with."""
    kept = ("atlas", "atlas_version", "reference_space", "origin", "spacing_microns")
    attrs = {name: annotation.attrs[name] for name in kept if name in annotation.attrs}
    attrs["annotation_source"] = annotation.attrs.get("source", "")
    space = attrs.pop("reference_space", None)
    return {**attrs, "annotation_space": space}
