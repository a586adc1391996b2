"""Files of QuickNII and DeepSlice: where each section lies, out and in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from .. import __version__
from ..arrays.positions import known_places
from ..arrays.request import registration_from
from ..model.affine import tier_origin, tier_size
from ..model.anchoring import DEFAULT_TARGET, Target, anchoring_of
from ..model.checks import whole_number
from ..model.geometry import pixel_points
from ..model.registration import Registration
from ..model.registration_files import MARK, anchorings_checksum
from ..model.sections import SectionTable
from .placed import written_attributes
from .whole_files import replacing


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
        If the object does not know where its sections lie, or an argument is none of the above.
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
    if not os.fspath(path).endswith(".json"):
        raise ValueError(f"{os.fspath(path)}: a QuickNII file is named .json")
    atlas = Target.named(target)
    table = _sections(obj)
    last = int(table.tier_count.min()) - 1
    if whole_number("tier", tier, 0) > last:
        raise ValueError(f"tier is {tier}; the images have tiers 0 to {last}")
    slices = _slices(table, tier, atlas)
    attributes = written_attributes(
        obj if isinstance(obj, xr.DataArray) else xr.DataArray(attrs=obj.attrs)
    )
    space = obj.coords["reference_space"].item() if "reference_space" in obj.coords else -1
    content: dict[str, Any] = {
        "name": f"dataset {attributes.get('dataset_id', '')}",
        "target": atlas.name,
        "target-resolution": list(atlas.shape),
        "aligner": f"atldld {__version__}",
        "slices": slices,
        MARK: {
            "reference_space": space,
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
