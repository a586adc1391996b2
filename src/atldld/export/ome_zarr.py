"""OME-Zarr images of volumes and sections, and links that show them in Neuroglancer."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import xarray as xr

from ..errors import AtldldWarning, library
from ..model.affine import Array
from ..model.space import AXES
from .placed import Placed, placed, step_of, stored_dtype, thickness, written_attributes
from .whole_files import replacing

VERSION = "0.5"

_SMALLEST_SIDE = 256
"""Pixels: no level is made that is smaller than this along its longest side."""

_VOLUME_CHUNK = 64
_PLANE_CHUNK = 512
_UNEVEN = 1e-3

_ORIENTATIONS = {
    "p": ("anterior-to-posterior", "posterior-to-anterior"),
    "i": ("superior-to-inferior", "inferior-to-superior"),
    "r": ("left-to-right", "right-to-left"),
}
_COLOURS = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}

VIEWER = "https://neuroglancer-demo.appspot.com"
"""Google's own."""

_PIXELS = 350
"""Of a panel, that the longest side is to fill at first."""

_METRES = {"micrometer": 1e-6, "millimeter": 1e-3}
_COLOURED = """\
void main() {
  emitRGB(vec3(
    toNormalized(getDataValue(0)), toNormalized(getDataValue(1)), toNormalized(getDataValue(2))
  ));
}
"""
_GREY = """\
#uicontrol invlerp normalized
void main() {
  emitGrayscale(normalized());
}
"""
_LABELS = {"int32", "uint32", "int64", "uint64"}


def to_ome_zarr(
    obj: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    *,
    labels: bool | None = None,
    overwrite: bool = False,
) -> None:
    """Write an array as an OME-Zarr 0.5 image with smaller and smaller levels.

    Parameters
    ----------
    obj
        A volume (dims p, i, r), a stack of sections (section, y, x), or one section (y, x), each
        with or without ``channel``; of a Dataset, its ``image``.
    path
        The folder to be made, ``.ome.zarr`` or ``.zarr`` by custom.
    labels
        Whether the values are labels, of which a coarser level takes the most frequent, not
        the mean. None: they are where they are truth values, or integers other than uint8.
    overwrite
        Whether something that is there already may be replaced.

    Raises
    ------
    ValueError, TypeError
        If the array is none of these.
    FileExistsError
        If `path` exists and may not be replaced.
    ImportError
        If ngff-zarr is not installed.

    Warns
    -----
    AtldldWarning
        If the sections of a stack are not evenly spaced: the format has one step an axis, and
        the median gap is written.

    Notes
    -----
    Axes are c, z, y, x. Of a volume, z is p, y is i, x is r; of sections, z is the slicing axis,
    and y, x are rows and columns. Each carries micrometers and its anatomical orientation (RFC
    4: ``anterior-to-posterior`` for p, ``superior-to-inferior`` for i, ``left-to-right`` for
    r). Scale and translation place the centres of pixels in reference space. Every level halves
    the one before it, by the mean of 2 x 2 x 2 voxels, or of 2 x 2 pixels of a section; its first
    centre lies half a finer step further in, and a last odd row is left off.

    What the format cannot say is kept under ``atldld`` in the attributes of the root group: the
    attributes of the array, which axis is which, and for sections ``section_number``, ``image_id``,
    ``slice_coordinate`` (microns), and ``plane``, the exact affine of each section from (x microns,
    y microns, 1) to p, i, r.

    Chunks are written as they are computed, by the well-kept ngff-zarr; a level is made from the
    one before it on disk. The folder appears when it is whole.

    Examples
    --------
    >>> import atldld, tempfile, zarr
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with (
    ...     AllenServer([phantom_dataset(dataset_id=1001)]) as server,
    ...     tempfile.TemporaryDirectory() as folder,
    ... ):
    ...     volume = atldld.open_volume(1001, resolution=400, source=server.url)
    ...     volume.atlas.to_ome_zarr(f"{folder}/volume.ome.zarr")
    ...     image = zarr.open_group(f"{folder}/volume.ome.zarr", mode="r")
    >>> image["scale0/image"].shape
    (3, 33, 20, 28)
    """
    nz = library("ngff_zarr", "OME-Zarr", "ngff-zarr")
    where = _ascending(placed(obj))
    array = where.array
    if labels is None:
        labels = array.dtype.kind in "bui" and array.dtype != np.uint8
    if labels and where.coloured:
        raise ValueError("labels have no colours; leave out labels=True, or take one channel")
    names = "zyx"[-len(where.shape) :]
    scale, translation = _scale(where, names)
    image = nz.NgffImage(
        data=_dask(array, where),
        dims=(*names, "c") if where.coloured else tuple(names),
        scale=scale,
        translation=translation,
        name="image",
        axes_units=dict.fromkeys(names, "micrometer"),
        axes_orientations={
            name: nz.AnatomicalOrientation(
                value=nz.AnatomicalOrientationValues(_ORIENTATIONS[axis][0 if forward > 0 else 1])
            )
            for name, axis, forward in zip(
                names, where.axes[-len(names) :], _directions(where), strict=True
            )
        },
    )
    multiscales = nz.to_multiscales(
        image,
        scale_factors=_factors(where, names),
        method=nz.Methods.DASK_IMAGE_MODE if labels else nz.Methods.DASK_BIN_SHRINK,
        chunks=_chunks(where, names),
        cache=False,
    )
    multiscales.root_attributes = {"atldld": _attributes(where, names)}
    if where.coloured and array.dtype == np.uint8:
        multiscales.metadata.omero = _omero(nz, array)
    with replacing(path, overwrite=overwrite) as made:
        nz.to_ngff_zarr(str(made), multiscales, version=VERSION, overwrite=False)


def _ascending(where: Placed) -> Placed:
    """Return the array with every coordinate ascending: scales are above 0 in this format."""
    dims = where.array.dims
    turned: Mapping[Any, slice] = {
        dim: slice(None, None, -1)
        for dim, values in zip(dims, where.coordinates, strict=False)
        if len(values) > 1 and values[-1] < values[0]
    }
    if not turned:
        return where
    return placed(where.array.isel(turned))


def _scale(where: Placed, names: str) -> tuple[dict[str, float], dict[str, float]]:
    scale, translation = {"c": 1.0}, {"c": 0.0}
    for name, values in zip(names, where.coordinates, strict=True):
        translation[name] = float(values[0])
        if where.kind == "stack" and name == "z":
            scale[name] = _gap(where, values)
        else:
            scale[name] = step_of(values, name)
    if not where.coloured:
        del scale["c"], translation["c"]
    return scale, translation


def _gap(where: Placed, values: Array) -> float:
    if len(values) < 2:
        return thickness(where.array)
    gaps = np.diff(values)
    median = float(np.median(gaps))
    if not gaps.min() > 0:
        raise ValueError("the sections are in no ascending order; sort them first")
    if np.abs(gaps - median).max() > _UNEVEN * median:
        warnings.warn(
            f"the sections are not evenly spaced: gaps run from {gaps.min():.1f} to "
            f"{gaps.max():.1f} microns. Their median, {median:.1f}, is written as the step of z; "
            "the true places are in the attributes (atldld, slice_coordinate). open_volume gives "
            "an even grid",
            AtldldWarning,
            stacklevel=5,
        )
    return median


def _directions(where: Placed) -> tuple[float, ...]:
    """Return, for each dim of space, whether its coordinate grows with that of reference space."""
    if where.planes is None:
        return (1.0,) * len(where.shape)
    _, rows, columns = (AXES.index(axis) for axis in where.axes)
    plane = where.planes[0]
    return ((1.0, plane[rows, 1], plane[columns, 0]))[-len(where.shape) :]


def _dask(array: xr.DataArray, where: Placed) -> Any:
    chunked = array if array.chunks is not None else array.chunk(_whole_chunks(where))
    data = chunked.data
    return data.astype(stored_dtype(array.dtype))


def _whole_chunks(where: Placed) -> dict[Any, int]:
    size = _VOLUME_CHUNK if where.kind == "volume" else _PLANE_CHUNK
    chunks: dict[Any, int] = dict.fromkeys(where.array.dims[: len(where.shape)], size)
    if where.kind == "stack":
        chunks["section"] = 1
    return chunks


def _chunks(where: Placed, names: str) -> dict[str, int]:
    size = _VOLUME_CHUNK if where.kind == "volume" else _PLANE_CHUNK
    chunks = dict.fromkeys(names, size)
    if where.kind == "stack":
        chunks["z"] = 1
    if where.coloured:
        chunks["c"] = where.array.shape[-1]
    return chunks


def _factors(where: Placed, names: str) -> list[dict[str, int]]:
    """Return how often each level holds what the first one does, axis by axis."""
    halved = [name for name in names if where.kind == "volume" or name != "z"]
    sizes = dict(zip(names, where.shape, strict=True))
    factors, factor = [], 2
    while max(sizes[name] for name in halved) // factor >= _SMALLEST_SIDE:
        # An axis that is used up stays as it is.
        factors.append(
            {
                name: min(factor, _least_power(sizes[name])) if name in halved else 1
                for name in names
            }
        )
        factor *= 2
    return factors


def _least_power(size: int) -> int:
    return 1 << (size.bit_length() - 1)


def _attributes(where: Placed, names: str) -> dict[str, Any]:
    array = where.array
    out: dict[str, Any] = {
        **written_attributes(array),
        "axes": dict(zip(names, where.axes[-len(names) :], strict=True)),
    }
    if where.planes is not None:
        out["plane"] = where.planes.tolist()
        for name in ("section", "image_id", where.axes[0]):
            if name in array.coords:
                key = {"section": "section_number", "image_id": "image_id"}.get(
                    name, "slice_coordinate"
                )
                out[key] = np.atleast_1d(array.coords[name].values).tolist()
    return out


def _omero(nz: Any, array: xr.DataArray) -> Any:
    """Return how viewers show the channels: each in its colour, 0 to 255."""
    names = [str(name) for name in array.coords["channel"].values]
    window = {"min": 0.0, "max": 255.0, "start": 0.0, "end": 255.0}
    return nz.Omero(
        channels=[
            nz.OmeroChannel(
                label=name, color=_COLOURS.get(name, "FFFFFF"), window=nz.OmeroWindow(**window)
            )
            for name in names
        ]
    )


def neuroglancer_state(path: str | os.PathLike[str], url: str) -> dict[str, Any]:
    """Return the state of Neuroglancer that shows an OME-Zarr image where it lies.

    Parameters
    ----------
    path
        The folder that `atldld.export.to_ome_zarr` wrote, on this machine.
    url
        Where a browser finds that folder: ``https://...``, or ``gs://`` and ``s3://`` of an open
        bucket. The server must allow other origins (CORS).

    Returns
    -------
    state
        As Neuroglancer's JSON has it: dimensions, position, one layer, layout.

    Raises
    ------
    ValueError
        If `path` holds no OME-Zarr 0.5 image of a volume, or `url` is none.

    Notes
    -----
    Dimensions are x, y, z in microns: of a volume r, i and p, so that the panel ``xy`` is a coronal
    plane, upright, and the numbers are those of reference space. Neuroglancer counts from the
    corners of voxels; it reads from the file where their middles are. Colours are shown as they
    are; one value a voxel is grey, with a control for black and white; labels are segments.

    Examples
    --------
    >>> import atldld, tempfile
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with (
    ...     AllenServer([phantom_dataset(dataset_id=1001)]) as server,
    ...     tempfile.TemporaryDirectory() as folder,
    ... ):
    ...     volume = atldld.open_volume(1001, resolution=400, source=server.url)
    ...     volume.atlas.to_ome_zarr(f"{folder}/volume.ome.zarr")
    ...     state = neuroglancer_state(f"{folder}/volume.ome.zarr", "https://lab.org/volume.ome.zarr")
    >>> state["dimensions"]["x"], state["position"]
    ([1e-06, 'm'], [5600.0, 4000.0, 6400.0])
    >>> state["layers"][0]["source"]["url"]
    'zarr://https://lab.org/volume.ome.zarr'
    """
    if urlsplit(url).scheme not in ("http", "https", "gs", "s3"):
        raise ValueError(f"url is {url!r}; it must be what a browser can open, such as https://...")
    attributes, shape, kind = _written_image(Path(path))
    (multiscale,) = attributes["ome"]["multiscales"]
    axes = multiscale["axes"]
    scale, first = _step_and_start(multiscale["datasets"][0])
    names = [axis["name"] for axis in axes]
    if not {"z", "y", "x"} <= set(names):
        raise ValueError(f"{path} has the axes {', '.join(names)}; Neuroglancer takes volumes")
    position, dimensions = [], {}
    for name in ("x", "y", "z"):
        place = names.index(name)
        metres = _METRES[axes[place]["unit"]]
        dimensions[name] = [metres, "m"]
        position.append(first[place] + scale[place] * (shape[place] // 2))
    widest = max(side * step for side, step in zip(shape, scale, strict=True))
    coloured = "c" in names
    source: dict[str, Any] = {"url": f"zarr://{url.rstrip('/')}"}
    if coloured:
        source["transform"] = {
            "outputDimensions": {
                "c^" if axis["name"] == "c" else axis["name"]: [1, ""]
                if axis["name"] == "c"
                else [_METRES[axis["unit"]], "m"]
                for axis in axes
            }
        }
    layer: dict[str, Any] = {"name": _name(attributes, Path(path)), "source": source}
    if kind == "labels":
        layer["type"] = "segmentation"
    else:
        layer |= {"type": "image", "shader": _COLOURED if coloured else _GREY, "opacity": 1}
    return {
        "dimensions": dimensions,
        "position": position,
        "crossSectionScale": widest / _PIXELS,
        "projectionScale": 2 * widest,
        "layers": [layer],
        "selectedLayer": {"layer": layer["name"], "visible": True},
        "layout": "4panel",
    }


def neuroglancer_link(path: str | os.PathLike[str], url: str, *, viewer: str = VIEWER) -> str:
    """Return a link that opens an OME-Zarr image in Neuroglancer.

    Parameters
    ----------
    path, url
        As for `neuroglancer_state`.
    viewer
        Where Neuroglancer itself is.

    Raises
    ------
    ValueError
        As `neuroglancer_state`.
    """
    state = json.dumps(neuroglancer_state(path, url), separators=(",", ":"))
    return f"{viewer.rstrip('/')}/#!{quote(state, safe='')}"


def _written_image(path: Path) -> tuple[dict[str, Any], list[int], str]:
    """Return the attributes of an image, the shape of its first level, and what it holds."""
    try:
        attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        level = attributes["ome"]["multiscales"][0]["datasets"][0]["path"]
        array = json.loads((path / level / "zarr.json").read_text(encoding="utf-8"))
        shape, dtype = array["shape"], array["data_type"]
    except (OSError, ValueError, LookupError, TypeError):
        raise ValueError(
            f"{path} is no OME-Zarr 0.5 image; give the folder that to_ome_zarr wrote"
        ) from None
    return attributes, shape, "labels" if dtype in _LABELS else "image"


def _step_and_start(dataset: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return the steps and the first places of a level."""
    found = {each["type"]: each[each["type"]] for each in dataset["coordinateTransformations"]}
    scale = found["scale"]
    return scale, found.get("translation", [0.0] * len(scale))


def _name(attributes: dict[str, Any], path: Path) -> str:
    own = attributes.get("atldld", {})
    gene, dataset = own.get("gene"), own.get("dataset_id")
    name = f"{gene} ({dataset})" if gene else str(dataset or path.name)
    return f"{name} in CCFv3" if own.get("reference_space") == "CCFv3" else name
