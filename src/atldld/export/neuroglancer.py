"""States and links for the viewer Neuroglancer, of OME-Zarr images that `to_ome_zarr` wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

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
    attributes, shape, kind = _image(Path(path))
    (multiscale,) = attributes["ome"]["multiscales"]
    axes = multiscale["axes"]
    scale, first = _placed(multiscale["datasets"][0])
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


def _image(path: Path) -> tuple[dict[str, Any], list[int], str]:
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


_LABELS = {"int32", "uint32", "int64", "uint64"}


def _placed(dataset: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return the steps and the first places of a level."""
    found = {each["type"]: each[each["type"]] for each in dataset["coordinateTransformations"]}
    scale = found["scale"]
    return scale, found.get("translation", [0.0] * len(scale))


def _name(attributes: dict[str, Any], path: Path) -> str:
    own = attributes.get("atldld", {})
    gene, dataset = own.get("gene"), own.get("dataset_id")
    name = f"{gene} ({dataset})" if gene else str(dataset or path.name)
    return f"{name} in CCFv3" if own.get("reference_space") == "CCFv3" else name
