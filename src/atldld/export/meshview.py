"""Point clouds for MeshView, the viewer of the QUINT workflow: places in CCFv3."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..arrays.lookup import CCFV3
from ..model.anchoring import DEFAULT_TARGET, Target
from ..model.space import AXES, space_name
from .whole_files import replacing

if TYPE_CHECKING:
    import pandas as pd

_COLOURS = (
    "4e79a7", "f28e2b", "59a14f", "e15759", "b07aa1", "edc948", "76b7b2", "ff9da7", "9c755f",
)  # fmt: skip
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
_DECIMALS = 3
"""Of a voxel: a fortieth of a micron."""


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
    if not os.fspath(path).endswith(".json"):
        raise ValueError(f"{os.fspath(path)}: a file of MeshView is named .json")
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
