"""QuickNII's anchoring of sections: nine numbers each, in voxels of an atlas.

``[ox, oy, oz, ux, uy, uz, vx, vy, vz]`` places a picture in the voxels of an atlas: o is its top
left corner, u its whole upper edge and v its whole left edge, so that the point at the share a of
the width and b of the height lies at ``o + a u + b v``. Voxel axes are x to the right, y to the
front, z to the top [1]_; the voxel at a place is found by cutting off what follows the point [2]_,
so that voxel k lies between k and k + 1. Of CCFv3 at 25 microns there are 456 x 528 x 320 voxels
[3]_, and its voxel k lies between 25 k and 25 (k + 1) microns of p, i, r, so that::

    p = 25 (528 - y),  i = 25 (320 - z),  r = 25 x

Of its extension there are 566 voxels along y, the first 24 of them behind CCFv3 [4]_, so that
``p = 25 (552 - y)``.

The converter of the QUINT workflow has 527 and 319 there [1]_: it turns numbers of voxels into
numbers of voxels, 25 microns nearer the origin along p and i than the continuous place.

References
----------
.. [1] QUINT workflow, frequently asked questions, "The QUINT coordinates do not match Allen
   Common Coordinate Framework coordinates"; and QuickNII-extras, ``HTML/QNII2AMBA-CCFv3.html``.
.. [2] QuickNII-extras, ``Java/BuildNII.java``; the formula is there too.
.. [3] DeepSlice, ``coord_post_processing/depth_estimation.py``, and ``metadata/config.json`` for
   the name of the atlas and its 25 microns; QuickNII's ``target-resolution``.
.. [4] spatial_brain_maps 0.1.2, ``utilities/center_images_from_alignment.py``: 24 voxels of 25
   microns lead from CCFv3 to the extended atlas.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .affine import Array
from .space import P56_EXTENT

DEFAULT_TARGET = "ABA_Mouse_CCFv3_2017_25um.cutlas"
"""How QuickNII and DeepSlice call Allen's CCFv3 at 25 microns."""

NINE = ("ox", "oy", "oz", "ux", "uy", "uz", "vx", "vy", "vz")
"""How the nine numbers are called."""

_NAME = re.compile(r"(?:ABA_Mouse_CCFv3_2017|(CCFv3a_extended))_(\d{1,4})um(?:\.cutlas)?")

_EXTENDED = (350.0, 600.0)
"""Microns by which the extended atlas reaches beyond CCFv3 in front and behind.

At 25 microns it has 566 voxels along y, counted from behind: 24 of them, then the 528 of CCFv3,
then 14.
"""


@dataclass(frozen=True, slots=True)
class Target:
    """The atlas whose voxels anchorings count.

    Parameters
    ----------
    name
        How QuickNII calls it.
    microns
        Side of a voxel.
    extended
        Whether it is the one that reaches further in front and behind.
    """

    name: str
    microns: float
    extended: bool = False

    @classmethod
    def named(cls, name: Any) -> Target:
        """Return an atlas by its name.

        Raises
        ------
        ValueError
            If the name is not that of CCFv3.
        """
        found = _NAME.fullmatch(name) if isinstance(name, str) else None
        if found is None or not int(found[2]):
            shown = name if isinstance(name, str) else type(name).__name__
            raise ValueError(
                f"target is {shown!r}; known are Allen's CCFv3 at any resolution, such as "
                "'ABA_Mouse_CCFv3_2017_25um.cutlas', and its extension "
                "'CCFv3a_extended_25um.cutlas'"
            )
        return cls(name, float(found[2]), found[1] is not None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x (right), y (anterior), z (superior)."""
        p, i, r = P56_EXTENT
        if self.extended:
            p += sum(_EXTENDED)
        return round(r / self.microns), round(p / self.microns), round(i / self.microns)

    def to_pir(self) -> Array:
        """Return the affine from voxel places x, y, z to p, i, r in microns, shape (3, 4)."""
        s = self.microns
        behind = s * round(P56_EXTENT[0] / s) + (_EXTENDED[1] if self.extended else 0.0)
        top = s * round(P56_EXTENT[1] / s)
        return np.array([[0, -s, 0, behind], [0, 0, -s, top], [s, 0, 0, 0]], dtype=float)


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
