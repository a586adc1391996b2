"""Files of the QUINT workflow: of QuickNII and DeepSlice, out and in, and of MeshView."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from .. import __version__
from ..arrays.index import space_in
from ..arrays.lookup import CCFV3
from ..arrays.positions import known_places
from ..arrays.request import registration_from
from ..model.affine import tier_origin, tier_size
from ..model.anchoring import DEFAULT_TARGET, Target, anchoring_of
from ..model.checks import whole_number
from ..model.geometry import pixel_points
from ..model.registration import Registration
from ..model.registration_files import MARK, anchorings_checksum
from ..model.sections import SectionTable
from ..model.space import AXES, space_name
from .placed import written_attributes
from .whole_files import check_ending, replacing

if TYPE_CHECKING:
    import pandas as pd

_COLOURS = (
    "4e79a7", "f28e2b", "59a14f", "e15759", "b07aa1", "edc948", "76b7b2", "ff9da7", "9c755f",
)  # fmt: skip
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
_DECIMALS = 3
"""Of a voxel: a fortieth of a micron."""


def to_quicknii(
    obj: xr.DataArray | xr.Dataset,
    path: str | os.PathLike[str],
    *,
    tier: int = 0,
    target: str = DEFAULT_TARGET,
    overwrite: bool = False,
) -> None:
    """Write where the section images lie as a file for QuickNII, DeepSlice and VisuAlign.

    Parameters
    ----------
    obj
        Sections that `atldld.open_dataarray` or `atldld.open_dataset` opened, after any selection;
        not yet computed.
    path
        The file: ``.json``.
    tier
        Which tier of the images the pictures are: how many times each side is halved.
    target
        The atlas whose voxels are counted: Allen's CCFv3, by the name that QuickNII gives it.
    overwrite
        Whether a file that is there already may be replaced.

    Raises
    ------
    ValueError, TypeError
        If the object does not know where its sections lie, or lies in the space of another age, or
        an argument is none of the above.
    FileExistsError
        If the file exists and may not be replaced.

    Notes
    -----
    The tools have CCFv3 for their atlas; Allen's registration leads to the 2011 space, which has
    the same extent and axes, but other anatomy at the same place. The file gives the places of the
    2011 space as they are, to start from: moved sections, when they are read again, are in CCFv3.
    A file whose sections nobody moved is known by a checksum, and read as Allen's own.

    Each section is a slice with its number as ``nr``, and the file name
    ``image_<image id>_s<section number>.jpg``; give your pictures these names. The picture is the
    whole section image at `tier`, neither cut nor turned. `atldld.model.anchoring` tells how nine
    numbers place it.

    Examples
    --------
    >>> import atldld, json, pathlib, tempfile
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with (
    ...     AllenServer([phantom_dataset(dataset_id=1001)]) as server,
    ...     tempfile.TemporaryDirectory() as folder,
    ... ):
    ...     sections = atldld.open_dataarray(1001, source=server.url)
    ...     path = pathlib.Path(folder, "sections.json")
    ...     sections.atlas.to_quicknii(path, tier=2)
    ...     again = atldld.open_dataarray(1001, registration=path, source=server.url)
    ...     slices = json.loads(path.read_text())["slices"]
    >>> bool(abs(again.p.values - sections.p.values).max() < 1e-6), slices[0]["filename"]
    (True, 'image_1001011_s429.jpg')
    """
    check_ending(path, "a QuickNII file", ".json")
    atlas = Target.named(target)
    table = _sections(obj)
    whole_number("tier", tier, 0, int(table.tier_count.min()) - 1)
    space = space_in(obj)
    if space not in (None, 9, 10, "CCFv3"):
        raise ValueError(
            f"these sections lie in {space_name(int(space))}, that of another age: the tools' "
            "atlas is CCFv3, of the adult brain, and would show them where they mean nothing"
        )
    slices = _slices(table, tier, atlas)
    attributes = written_attributes(
        obj if isinstance(obj, xr.DataArray) else xr.DataArray(attrs=obj.attrs)
    )
    content: dict[str, Any] = {
        "name": f"dataset {attributes.get('dataset_id', '')}",
        "target": atlas.name,
        "target-resolution": list(atlas.shape),
        "aligner": f"atldld {__version__}",
        "slices": slices,
        MARK: {
            "reference_space": -1 if space is None else space,
            "anchorings": anchorings_checksum(slices),
            "tier": tier,
            **{
                name: attributes[name]
                for name in ("dataset_id", "reference_space_name", "registration", "citation")
                if name in attributes
            },
        },
    }
    with replacing(path, overwrite=overwrite) as made:
        made.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_quicknii(
    content: str | os.PathLike[str] | Mapping[Any, Any], *, mirror: bool = False
) -> Registration:
    """Read a file of QuickNII, VisuAlign or DeepSlice, for ``registration=`` of the openings.

    Parameters
    ----------
    content
        Path of the file, or what its JSON holds.
    mirror
        Whether to turn left and right over (``r -> 11400 - r``). Both sides of CCFv3 look alike, so
        that a tool can place a section with left and right exchanged; opening warns where a
        registration shows most sections as a mirror would, compared with Allen's own.

    Returns
    -------
    Registration

    Raises
    ------
    TypeError, FileNotFoundError, RegistrationError
        If it cannot be read as such a file.
    """
    found = registration_from(content, mirror=mirror)
    if not isinstance(found, Registration):
        raise TypeError(f"{found.name} is a folder; give the path of one file")
    return found


def _sections(obj: xr.DataArray | xr.Dataset) -> SectionTable:
    """Return the sections that an object shows, in its order."""
    if not isinstance(obj, xr.DataArray | xr.Dataset):
        raise TypeError(f"{type(obj).__name__} has no sections; give what open_dataarray gave")
    tables = [places.table for places in known_places(obj)]
    if not tables or "image_id" not in obj.coords:
        raise ValueError(
            "this object holds no sections whose place is known: its values are in memory, or "
            "they do not come from atldld. Ask before compute() or load()"
        )
    first = tables[0]
    if any(
        not np.array_equal(table.image_id, first.image_id)
        or not np.array_equal(table.affine, first.affine)
        for table in tables[1:]
    ):
        raise ValueError("this object mixes sections of more than one opening; export each of them")
    rows = {int(image): row for row, image in enumerate(first.image_id)}
    shown = np.atleast_1d(obj.coords["image_id"].values)
    return first.take(np.array([rows[int(image)] for image in shown], dtype=np.intp))


def _slices(table: SectionTable, tier: int, atlas: Target) -> list[dict[str, Any]]:
    slices = []
    step = 2.0**tier
    for row, pixels in enumerate(pixel_points(table)):
        corners = np.empty((3, 3))
        corners[0] = pixels[:, 2]
        sizes = []
        for place, (side, offset) in enumerate(
            ((table.width[row], table.x[row]), (table.height[row], table.y[row]))
        ):
            size = tier_size(int(side), tier)
            sizes.append(size)
            # The outer edge of tier pixel 0, which is centred on its tier origin.
            corners[0] += pixels[:, place] * (tier_origin(int(offset), tier) - step / 2)
            corners[1 + place] = pixels[:, place] * size * step
        image, number = int(table.image_id[row]), int(table.section_number[row])
        slices.append(
            {
                "filename": f"image_{image}_s{number}.jpg",
                "nr": number,
                "width": sizes[0],
                "height": sizes[1],
                "anchoring": anchoring_of(corners, atlas),
            }
        )
    return slices


def to_meshview(
    points: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    by: Hashable | None = None,
    colours: Mapping[Any, str] | None = None,
    reference_space: Literal["CCFv3"] | None = None,
    overwrite: bool = False,
) -> None:
    """Write places in CCFv3 as point clouds that MeshView shows within the brain.

    Parameters
    ----------
    points
        A frame with ``p``, ``i`` and ``r`` in microns, such as `atldld.sections_to_points` and
        ``.atlas.to_table()`` give with a registration. Rows without a place are left out.
    path
        The file: ``.json``.
    by
        A column: each of its values becomes a cloud of its own, with a name and a colour. By
        default all points are one cloud.
    colours
        Colours of the clouds by these values, such as ``{"DG": "#7ed04b"}``; others take turns.
    reference_space
        ``"CCFv3"``, where the frame does not say which space its places lie in.
    overwrite
        Whether a file that is there already may be replaced.

    Raises
    ------
    ValueError, TypeError
        If the places are not said to lie in CCFv3, a column is missing, or there is no place.
    FileExistsError
        If the file exists and may not be replaced.

    Notes
    -----
    The file is a list of clouds, each ``idx``, ``count``, ``name``, ``r``, ``g``, ``b`` and
    ``triplets``: x, y, z of one point after the other, as PyNutil writes them [1]_. They count
    voxels of CCFv3 at 25 microns, to the right, to the front and to the top: ``x = r / 25``,
    ``y = 528 - p / 25``, ``z = 320 - i / 25`` (`atldld.model.anchoring`).

    References
    ----------
    .. [1] PyNutil 0.3.3, ``io/read_and_write.py``

    Examples
    --------
    >>> import json, pandas as pd, pathlib, tempfile
    >>> points = pd.DataFrame({"p": [6600.0], "i": [4000.0], "r": [5700.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "cells.json")
    ...     to_meshview(points, path, reference_space="CCFv3")
    ...     (cloud,) = json.loads(path.read_text())
    >>> cloud["triplets"], cloud["count"], cloud["name"]
    ([228.0, 264.0, 160.0], 1, 'points')
    """
    check_ending(path, "a file of MeshView", ".json")
    _check_space(points, reference_space)
    missing = [name for name in (*AXES, *([] if by is None else [by])) if name not in points]
    if missing:
        raise ValueError(f"the points have no column {missing[0]!r}: there are {list(points)}")
    found = [
        _cloud(number, name, places, _colour(number, name, colours or {}))
        for number, (name, places) in enumerate(_groups(points, by))
    ]
    if not found:
        raise ValueError("there is nothing to export: no point has a place")
    with replacing(path, overwrite=overwrite) as made:
        made.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


def _check_space(points: pd.DataFrame, given: str | None) -> None:
    said = points.attrs.get("reference_space") if given is None else given
    if said is None:
        raise TypeError(
            "the points do not say which space they lie in: pass reference_space='CCFv3' for "
            "places that a registration gave"
        )
    if said != CCFV3:
        where = space_name(said) if isinstance(said, int) else repr(said)
        raise ValueError(
            f"the points lie in {where}, and MeshView shows CCFv3: take places that a registration "
            "gave (registration=...)"
        )


def _groups(
    points: pd.DataFrame, by: Hashable | None
) -> Iterator[tuple[Any, npt.NDArray[np.float64]]]:
    there = points[np.isfinite(points[list(AXES)].to_numpy(dtype=float)).all(axis=1)]
    groups = [("points", there)] if by is None else there.groupby(by, sort=True, observed=True)
    for name, part in groups:
        if len(part):
            yield name, part[list(AXES)].to_numpy(dtype=float)


def _cloud(
    number: int, name: Any, places: npt.NDArray[np.float64], colour: tuple[int, int, int]
) -> dict[str, Any]:
    affine = Target.named(DEFAULT_TARGET).to_pir()
    voxels = (places - affine[:, 3]) @ np.linalg.inv(affine[:, :3]).T
    red, green, blue = colour
    return {
        "idx": number,
        "count": len(places),
        "name": str(name),
        "r": red,
        "g": green,
        "b": blue,
        "triplets": np.round(voxels, _DECIMALS).ravel().tolist(),
    }


def _colour(number: int, name: Any, colours: Mapping[Any, str]) -> tuple[int, int, int]:
    text = colours.get(name, _COLOURS[number % len(_COLOURS)])
    found = _HEX.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"the colour of {name!r} is {text!r}; it must be like '#7ed04b'")
    red, green, blue = bytes.fromhex(found[1])
    return red, green, blue
