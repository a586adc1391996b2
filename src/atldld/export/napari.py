"""Layers for the viewer napari: sections, images and volumes where they lie."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from ..errors import library
from ..model.space import AXES
from .placed import Placed, index_affine, placed

Layer = tuple[Any, dict[str, Any], str]


def napari_layers(*objects: xr.DataArray | xr.Dataset) -> list[Layer]:
    """Return layers of napari, each where it lies in reference space.

    Parameters
    ----------
    *objects
        Volumes (dims p, i, r), stacks of sections (section, y, x), single sections, or the
        pixels of images from `atldld.open_image` (y, x); lazy ones stay lazy. Of a Dataset, its
        ``image``.

    Returns
    -------
    layers
        ``(data, arguments, "image")`` each, as napari's ``Layer.create`` takes them. A volume is
        one layer; of a stack, each section is one, with its own tilt. Data have three dimensions of
        space (a section is one deep) and the colours last; ``affine`` (4, 4) takes their indices to
        p, i, r in microns, middles of pixels to places.

    Raises
    ------
    ValueError, TypeError
        If something is none of these.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(dataset_id=1001, sections=3)]) as server:
    ...     sections = atldld.open_dataarray(1001, resolution=200, source=server.url)
    ...     layers = atldld.napari_layers(sections)
    >>> [arguments["name"] for _, arguments, _ in layers]
    ['section 430', 'section 215', 'section 0']
    >>> layers[0][0].shape, layers[0][1]["axis_labels"]
    ((1, 40, 57, 3), ('p', 'i', 'r'))
    """
    return [_layer(part) for obj in objects for part in _parts(placed(obj))]


def view(*objects: xr.DataArray | xr.Dataset, **options: Any) -> Any:
    """Open napari with sections, images and volumes where they lie in reference space.

    Parameters
    ----------
    *objects
        As for `napari_layers`.
    **options
        Go to ``napari.Viewer``, such as ``ndisplay=2``; three dimensions are shown by default.

    Returns
    -------
    napari.Viewer
        Its axes are p, i and r in microns. Outside of a notebook, ``napari.run()`` keeps it open.
        In two dimensions napari shows tilted layers without their tilt, and says so.

    Raises
    ------
    ImportError
        If napari is not installed.
    ValueError, TypeError
        As `napari_layers`, before anything is opened.
    """
    layers = napari_layers(*objects)
    napari = library("napari", "viewing")
    viewer = napari.Viewer(**{"ndisplay": 3, **options})
    with warnings.catch_warnings():
        # A layer is sliced in two dimensions before a viewer holds it, tilted or not.
        warnings.filterwarnings("ignore", "Non-orthogonal slicing", UserWarning)
        for data, arguments, kind in layers:
            viewer.add_layer(napari.layers.Layer.create(data, arguments, kind))
    return viewer


def _parts(where: Placed) -> Iterator[Placed]:
    if where.kind != "stack":
        yield where
        return
    assert where.planes is not None
    for place, plane in enumerate(where.planes):
        yield replace(
            where,
            kind="section",
            array=where.array.isel(section=place),
            coordinates=where.coordinates[1:],
            planes=plane[None],
        )


def _layer(where: Placed) -> Layer:
    array = where.array
    affine = np.eye(4)
    affine[:3] = index_affine(where)
    data = array.data if where.kind == "volume" else array.data[np.newaxis]
    arguments: dict[str, Any] = {
        "name": _name(where),
        "rgb": where.coloured,
        "affine": affine,
        "axis_labels": AXES,
        "units": ("um",) * 3,
        "metadata": {"atldld": _metadata(array)},
    }
    if array.dtype == np.uint8:
        arguments["contrast_limits"] = (0, 255)
    return data, arguments, "image"


def _name(where: Placed) -> str:
    array = where.array
    if where.kind == "volume" or "section" not in array.coords:
        name = str(array.attrs.get("long_name", array.name or "volume"))
    else:
        name = f"section {int(array.coords['section'])}"
    return f"{name} in CCFv3" if array.attrs.get("reference_space") == "CCFv3" else name


def _metadata(array: xr.DataArray) -> dict[str, Any]:
    scalars = {
        str(name): coordinate.item()
        for name, coordinate in array.coords.items()
        if coordinate.ndim == 0
    }
    return {**array.attrs, **scalars}
