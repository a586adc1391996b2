"""The phantom brain: a colour for every point of reference space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from .tissue import EDGE, MIDDLE_R, Tissue, depth, tissue

Array = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Texture = Literal["tissue", "smooth", "fine", "linear"]
PlaneName = Literal["coronal", "sagittal", "transverse"]

EXTENT = (13200.0, 8000.0, 11400.0)
"""Extent of reference space 9 along p, i, r, in microns."""

AXES: dict[PlaneName, tuple[int, int, int]] = {
    "coronal": (0, 1, 2),
    "sagittal": (2, 1, 0),
    "transverse": (1, 0, 2),
}
"""For each plane the axes, as an index into p, i, r, of the slice, the rows and the columns."""

GROUND = (243.0, 241.0, 236.0)
"""Colour of the glass around the tissue."""

_WAVES = np.array(
    [
        # amplitude, then 1 / period along p, i, r in 1 / mm, then phase in turns
        [(58.0, 1 / 6.8, 1 / 131.0, 1 / 38.3, 0.60), (46.0, 1 / 14.2, -1 / 14.7, 0.0, 0.57)],
        [(58.0, 0.0, 1 / 7.0, 1 / 44.0, 0.31), (46.0, -1 / 14.3, -1 / 75.7, -1 / 25.3, 0.07)],
        [
            (58.0, -1 / 100.0, 1 / 150.0, 1 / 6.9, 0.64),
            (46.0, 1 / 110.0, 1 / 28.1, -1 / 25.3, 0.67),
        ],
    ]
)
"""The smooth texture: two waves for each channel, each channel led by another axis.

Of 20,000 drawn at random these leave the fewest points where some direction does not show.
"""

_FINE = (((0, 0.00), (1, 0.27)), ((1, 0.37), (2, 0.61)), ((2, 0.71), (0, 0.12)))
"""The fine texture: for each channel the axes of its two waves, and their phases in turns."""

_ABSORPTION = (0.98, 1.34, 0.66)
"""How strongly the violet stain takes away red, green and blue."""

_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class PhantomBrain:
    """A colour field over reference space.

    Parameters
    ----------
    texture
        ``"tissue"``: a stained brain on a light ground, good to look at. Its outline is soft
        and its halves differ; a slow change of hue tells the axes apart.
        ``"smooth"``: slow waves (7 to 14 mm) everywhere, without an outline; from the three
        channels together every axis, sign and small shift can be told. Between points 256
        microns apart it is linear to 2 grey levels.
        ``"fine"``: waves of one period along each axis, for registration to a fraction of a
        pixel: on any plane both axes show, in different channels and in the mean of all.
        ``"linear"``: red grows along p, green along i and blue along r, each linearly and by 200
        levels over the extent, for what interpolates between sections.
    fine_period
        Period of the fine texture in microns.

    Examples
    --------
    >>> brain = PhantomBrain()
    >>> brain.colour(0.0, 0.0, 0.0)             # glass
    array([243., 241., 236.])
    >>> brain.plane("coronal", at=6600.0, step=100.0).shape
    (80, 114, 3)
    """

    texture: Texture = "tissue"
    fine_period: float = 400.0

    def __post_init__(self) -> None:
        if self.texture not in get_args(Texture):
            known = ", ".join(get_args(Texture))
            raise ValueError(f"texture is {self.texture!r}; it must be one of {known}")
        if not (math.isfinite(self.fine_period) and self.fine_period > 0):
            raise ValueError(f"fine_period is {self.fine_period!r}; it must be above 0 microns")

    @property
    def lattice(self) -> float:
        """Microns between points from which the colours between are interpolated well.

        Linear interpolation is then off by at most about a quarter of a grey level (on
        tissue: of one, where bands are thinnest).
        """
        return {
            "smooth": 128.0,
            "fine": self.fine_period / 48.0,
            "tissue": 6.0,
            "linear": 1024.0,
        }[self.texture]

    def colour(self, p: npt.ArrayLike, i: npt.ArrayLike, r: npt.ArrayLike) -> Array:
        """Return the colour at points of reference space 9.

        Parameters
        ----------
        p, i, r
            Microns; broadcast against each other. Defined everywhere, also outside the
            extent.

        Returns
        -------
        colour
            Shape (..., 3), float64, 0 to 255: red, green, blue.
        """
        return self._evaluate(p, i, r, 3)

    def expression(self, p: npt.ArrayLike, i: npt.ArrayLike, r: npt.ArrayLike) -> Array:
        """Return the expression level at points of reference space 9.

        Parameters
        ----------
        p, i, r
            Microns; broadcast against each other.

        Returns
        -------
        level
            Shape (...), float64, 0 to 255. On tissue it is 0 outside, high in the bands of
            granule cells; on the other textures it is the mean of the three channels.
        """
        return self._evaluate(p, i, r, 0)

    def plane(
        self, plane: PlaneName, at: float, step: float = 25.0, *, expression: bool = False
    ) -> Pixels:
        """Return the phantom's own plane of constant p, r or i.

        Parameters
        ----------
        plane
            ``"coronal"`` (rows i, columns r), ``"sagittal"`` (rows i, columns p) or
            ``"transverse"`` (rows p, columns r).
        at
            Microns along the slicing axis, in reference space 9.
        step
            Microns between points. They stand at whole multiples of it from 0, and there are
            ``floor(extent / step)`` of them on an axis.
        expression
            Give the expression level instead of the colour.

        Returns
        -------
        pixels
            Shape (rows, columns, 3), or (rows, columns) of expression, uint8.
        """
        if plane not in AXES:
            raise ValueError(f"plane is {plane!r}; it must be one of {', '.join(AXES)}")
        across, down, along = AXES[plane]
        place: list[npt.ArrayLike] = [0.0, 0.0, 0.0]
        place[across] = at
        place[down] = (np.arange(math.floor(EXTENT[down] / step)) * step)[:, None]
        place[along] = (np.arange(math.floor(EXTENT[along] / step)) * step)[None, :]
        field = self.expression(*place) if expression else self.colour(*place)
        return np.rint(field).astype(np.uint8)

    def _evaluate(
        self, p: npt.ArrayLike, i: npt.ArrayLike, r: npt.ArrayLike, channels: int
    ) -> Array:
        p, i, r = np.broadcast_arrays(*(np.asarray(axis, dtype=np.float64) for axis in (p, i, r)))
        shape = p.shape
        out = np.empty((*shape, channels) if channels else shape)
        if p.size <= _BLOCK or not shape:
            out[...] = self._field(p, i, r, channels)
            return out
        # In blocks of rows: what lies between stays in the processor's cache.
        rows = max(_BLOCK * shape[0] // p.size, 1)
        for first in range(0, shape[0], rows):
            block = slice(first, first + rows)
            out[block] = self._field(p[block], i[block], r[block], channels)
        return out

    def _field(self, p: Array, i: Array, r: Array, channels: int) -> Array:
        if self.texture == "tissue":
            return _stained(p, i, r) if channels else _expressed(p, i, r)
        if self.texture == "linear":
            colour = _linear(p, i, r)
        else:
            colour = _smooth(p, i, r) if self.texture == "smooth" else self._fine(p, i, r)
        return colour if channels else np.asarray(colour.mean(axis=-1))

    def _fine(self, p: Array, i: Array, r: Array) -> Array:
        turn = 2.0 * np.pi / self.fine_period
        axes = (p, i, r)
        out = np.empty((*p.shape, 3))
        for channel, waves in enumerate(_FINE):
            out[..., channel] = 127.5 + sum(
                55.0 * np.sin(turn * axes[axis] + 2.0 * np.pi * phase) for axis, phase in waves
            )
        return out


def _linear(p: Array, i: Array, r: Array) -> Array:
    places = [axis / length for axis, length in zip((p, i, r), EXTENT, strict=True)]
    return np.asarray(27.5 + 200.0 * np.stack(places, axis=-1))


def _smooth(p: Array, i: Array, r: Array) -> Array:
    out = np.empty((*p.shape, 3))
    for channel, waves in enumerate(_WAVES):
        out[..., channel] = 127.5
        for amplitude, a, b, c, phase in waves:
            k = 2.0 * np.pi / 1000.0
            angle = (k * a) * p + (k * b) * i + (k * c) * r + 2.0 * np.pi * phase
            out[..., channel] += amplitude * np.sin(angle)
    return out


def _stained(p: Array, i: Array, r: Array) -> Array:
    out = np.empty((*p.shape, 3))
    out[...] = GROUND
    where, found, (p32, i32, r32) = _found(p, i, r)
    density = found.presence * (np.float32(0.10) + found.stain)
    hues = (
        1.0 + 0.28 * (p32 - 6600.0) / 6600.0,
        1.0 - 0.16 * (i32 - 4000.0) / 4000.0,
        1.0 + 0.45 * (r32 - MIDDLE_R) / 5700.0,
    )
    for channel, hue in enumerate(hues):
        # Light through a stained section falls off exponentially with the stain it meets.
        out[where, channel] = GROUND[channel] * np.exp(
            -_ABSORPTION[channel] * np.clip(hue, 0.4, 1.7) * density
        )
    return out


def _expressed(p: Array, i: Array, r: Array) -> Array:
    out = np.zeros(p.shape)
    where, found, _ = _found(p, i, r)
    level = 0.9 * found.granules + 0.35 * np.clip(found.stain - 0.45, 0.0, 1.0) * found.presence
    out[where] = 255.0 * np.clip(level, 0.0, 1.0)
    return out


def _found(p: Array, i: Array, r: Array) -> tuple[npt.NDArray[np.bool_], Tissue, list[Single]]:
    """Return where there is tissue, what it is there, and the coordinates of these points."""
    axes = [np.asarray(axis, dtype=np.float32) for axis in (p, i, r)]
    where = depth(*axes) > -EDGE
    inside = [axis[where] for axis in axes]
    return where, tissue(*inside), inside
