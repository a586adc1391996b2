"""QuickNII's anchoring of sections: nine numbers each, in voxels of an atlas.

``[ox, oy, oz, ux, uy, uz, vx, vy, vz]`` places a picture in the voxels of an atlas: o is its top
left corner, u its whole upper edge and v its whole left edge, so that the point at the share a of
the width and b of the height lies at ``o + a u + b v``. Voxel axes are x to the right, y to the
front, z to the top [1]_; the voxel at a place is found by cutting off what follows the point [2]_,
so that voxel k lies between k and k + 1. Of CCFv3 at 25 microns there are 456 x 528 x 320 voxels
[3]_, and its voxel k lies between 25 k and 25 (k + 1) microns of p, i, r, so that::

    p = 25 (528 - y),  i = 25 (320 - z),  r = 25 x

The converter of the QUINT workflow has 527 and 319 there [1]_: it turns numbers of voxels into
numbers of voxels, 25 microns nearer the origin along p and i than the continuous place.

References
----------
.. [1] QUINT workflow, frequently asked questions, "The QUINT coordinates do not match Allen
   Common Coordinate Framework coordinates"; and QuickNII-extras, ``HTML/QNII2AMBA-CCFv3.html``.
.. [2] QuickNII-extras, ``Java/BuildNII.java``; the formula is there too.
.. [3] DeepSlice, ``coord_post_processing/depth_estimation.py``, and ``metadata/config.json`` for
   the name of the atlas and its 25 microns; QuickNII's ``target-resolution``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import RegistrationError
from .affine import Array
from .registration import Placement, Registration
from .space import P56_EXTENT, space_name

DEFAULT_TARGET = "ABA_Mouse_CCFv3_2017_25um.cutlas"
"""How QuickNII and DeepSlice call Allen's CCFv3 at 25 microns."""

MARK = "atldld"
"""Key of what our own files say beyond the anchorings."""

_CCFV3_NAME = re.compile(r"ABA_Mouse_CCFv3_2017_(\d+)um(\.cutlas)?")
_SECTION = re.compile(r"_s(\d+)")


@dataclass(frozen=True, slots=True)
class Target:
    """The atlas whose voxels anchorings count.

    Parameters
    ----------
    name
        How QuickNII calls it.
    microns
        Side of a voxel.
    """

    name: str
    microns: float

    @classmethod
    def named(cls, name: Any) -> Target:
        """Return an atlas by its name.

        Raises
        ------
        ValueError
            If the name is not that of CCFv3.
        """
        found = _CCFV3_NAME.fullmatch(name) if isinstance(name, str) else None
        if found is None or not int(found[1]):
            raise ValueError(
                f"target is {name!r}; known are Allen's CCFv3 at any resolution, such as "
                "'ABA_Mouse_CCFv3_2017_25um.cutlas'"
            )
        return cls(name, float(found[1]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x (right), y (anterior), z (superior)."""
        p, i, r = (round(side / self.microns) for side in P56_EXTENT)
        return r, p, i

    def to_pir(self) -> Array:
        """Return the affine from voxel places x, y, z to p, i, r in microns, shape (3, 4)."""
        _, front, top = self.shape
        s = self.microns
        return np.array([[0, -s, 0, s * front], [0, 0, -s, s * top], [s, 0, 0, 0]], dtype=float)


def anchoring_of(corners: Array, target: Target) -> list[float]:
    """Return the nine numbers of a picture.

    Parameters
    ----------
    corners
        Shape (3, 3): rows are p, i, r in microns of the top left corner, of the whole upper edge
        and of the whole left edge.
    target
        The atlas.
    """
    affine = target.to_pir()
    inverse = np.linalg.inv(affine[:, :3])
    moved = corners.copy()
    moved[0] -= affine[:, 3]
    return [float(number) + 0.0 for number in (moved @ inverse.T).ravel()]


def corners_of(anchoring: Sequence[float], target: Target) -> Array:
    """Return where a picture lies; the inverse of `anchoring_of`.

    Examples
    --------
    >>> target = Target.named("ABA_Mouse_CCFv3_2017_25um")
    >>> corners_of([0, 528, 320, 456, 0, 0, 0, 0, -320], target)
    array([[    0.,     0.,     0.],
           [    0.,     0., 11400.],
           [    0.,  8000.,     0.]])
    """
    affine = target.to_pir()
    out = np.reshape(np.array(anchoring, dtype=np.float64), (3, 3)) @ affine[:, :3].T
    out[0] += affine[:, 3]
    return np.asarray(out + 0.0)


def registration_of(
    content: Mapping[Any, Any], *, name: str, checksum: str | None = None, mirror: bool = False
) -> Registration:
    """Return the registration that a QuickNII or DeepSlice file, or a mapping, describes.

    Parameters
    ----------
    content
        What the JSON file holds: ``target`` and ``slices``, each with ``anchoring``, and ``nr`` or
        a number after ``_s`` in its ``filename``. Or a mapping from section number or image id to
        nine numbers, in voxels of CCFv3 at 25 microns.
    name
        What to call it.
    checksum
        SHA-256 of the file; None for that of the content.
    mirror
        Whether to turn left and right over, ``r -> 11400 - r``.

    Raises
    ------
    RegistrationError
        If it is not of this kind, or the place of a slice is not nine numbers. Slices without
        an anchoring are left out.
    """
    plain = "slices" not in content
    slices = _from_mapping(content) if plain else content["slices"]
    if checksum is None:
        text = json.dumps(_jsonable(content), sort_keys=True)
        checksum = hashlib.sha256(text.encode()).hexdigest()
    if not isinstance(slices, Sequence) or isinstance(slices, str):
        raise RegistrationError(f"{name}: slices is no list")
    try:
        target = Target.named(content.get("target") if not plain else DEFAULT_TARGET)
    except ValueError as error:
        raise RegistrationError(f"{name}: {error}") from None
    told = content.get("target-resolution")
    if told is not None and list(told) != list(target.shape):
        raise RegistrationError(
            f"{name}: target-resolution is {told}, but {target.name} has {list(target.shape)} "
            "voxels"
        )
    placements = [
        placement
        for number, each in enumerate(slices)
        if (placement := _placement(each, number, name, target, mirror)) is not None
    ]
    space = "CCFv3" if mirror else _space(content, slices)
    return Registration(
        name=name,
        checksum=checksum,
        space=space_name(space),
        reference_space=space,
        placements=tuple(placements),
    )


def anchorings_checksum(slices: Sequence[Mapping[str, Any]]) -> str:
    """Return the checksum by which a file of ours knows that nobody moved its sections."""
    text = json.dumps([[each.get("nr"), each.get("anchoring")] for each in slices])
    return hashlib.sha256(text.encode()).hexdigest()


def _space(content: Mapping[Any, Any], slices: Any) -> Literal[9, 10, "CCFv3"]:
    """Return the space of anchorings: Allen's own in a file of ours that nobody changed."""
    mark = content.get(MARK)
    if not isinstance(mark, Mapping) or mark.get("anchorings") != anchorings_checksum(slices):
        return "CCFv3"
    known: dict[Any, Literal[9, 10]] = {9: 9, 10: 10}
    return known.get(mark.get("reference_space"), "CCFv3")


def _placement(each: Any, number: int, name: str, target: Target, mirror: bool) -> Placement | None:
    if not isinstance(each, Mapping):
        raise RegistrationError(f"{name}: slice {number} is no object")
    file = str(each.get("filename", ""))
    label = file or f"slice {number}"
    anchoring = each.get("anchoring")
    if not anchoring:
        return None
    if (
        not isinstance(anchoring, Sequence)
        or len(anchoring) != 9
        or not all(isinstance(value, int | float) and math.isfinite(value) for value in anchoring)
    ):
        raise RegistrationError(f"{name}: the anchoring of {label} is not nine numbers")
    corners = corners_of(anchoring, target)
    if mirror:
        corners[:, 2] *= -1.0
        corners[0, 2] += P56_EXTENT[2]
    return Placement(
        label=label,
        numbers=tuple(map(int, re.findall(r"\d+", file))),
        section_number=_section_number(each, file),
        size=_size(each),
        corners=tuple((float(p), float(i), float(r)) for p, i, r in corners),
    )


def _section_number(each: Mapping[str, Any], file: str) -> int | None:
    # The name says what the picture was made from; DeepSlice takes nr from it too.
    found = _SECTION.findall(file)
    if found:
        return int(found[-1])
    number = each.get("nr")
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _size(each: Mapping[str, Any]) -> tuple[int, int] | None:
    size = each.get("width"), each.get("height")
    if all(isinstance(side, int | float) and side > 0 for side in size):
        return int(size[0]), int(size[1])  # type: ignore[arg-type]  # both are numbers
    return None


def _from_mapping(content: Mapping[Any, Any]) -> list[dict[str, Any]]:
    slices = []
    for key, anchoring in content.items():
        if not isinstance(key, int | np.integer) or isinstance(key, bool):
            raise RegistrationError(
                f"a registration is keyed by section number or image id, not by {key!r}"
            )
        numbers = [float(value) for value in anchoring]
        slices.append({"filename": f"section or image {key}", "nr": int(key), "anchoring": numbers})
    return slices


def _jsonable(content: Mapping[Any, Any]) -> Any:
    return {str(key): _plain(value) for key, value in content.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return _jsonable(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
