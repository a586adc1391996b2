"""The phantom brain: a colour for every point of reference space, and the made-up tissue in it.

Coordinates are p, i, r of reference space 9, in microns. The shapes of the tissue are ellipsoids
placed by eye, about as large as those of a mouse; nothing here is anatomy to rely on. The right
half is stretched against the left one, and some structures stand on one side only, so that a
mirrored picture cannot be taken for the right one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

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

MIDDLE_R = 5675.0
"""r of the plane between the two halves; the flip between spaces 9 and 10 keeps it."""

EDGE = 200.0
"""Microns over which the outline fades, so that sampling it is well behaved."""

_RIGHT, _LEFT = 0.92, 1.06
"""How far from the midline a structure seems to lie; less than 1 draws that half larger."""

_CORTEX = np.array(
    [
        (-400.0, 0.20), (0.0, 0.20), (140.0, 0.22), (230.0, 0.66), (420.0, 0.52), (560.0, 0.50),
        (680.0, 0.80), (820.0, 0.74), (950.0, 0.40), (1150.0, 0.52), (1300.0, 0.62),
        (1420.0, 0.42), (1530.0, 0.08), (1720.0, 0.07), (1860.0, 0.36), (5000.0, 0.40),
    ]
)  # fmt: skip
_PALEOCORTEX = np.array(
    [(-400.0, 0.2), (0.0, 0.2), (180.0, 0.24), (300.0, 0.78), (430.0, 0.7), (600.0, 0.36),
     (1000.0, 0.40), (5000.0, 0.38)]
)  # fmt: skip
_CEREBELLUM = np.array(
    [
        (-900.0, 0.16), (150.0, 0.18), (240.0, 0.24), (330.0, 0.95), (560.0, 0.90),
        (680.0, 0.16), (900.0, 0.12), (1500.0, 0.20), (5000.0, 0.24),
    ]
)  # fmt: skip
_BULB = np.array(
    [
        (-400.0, 0.25), (0.0, 0.30), (110.0, 0.60), (220.0, 0.25), (360.0, 0.20), (430.0, 0.70),
        (520.0, 0.35), (640.0, 0.72), (2000.0, 0.78),
    ]
)  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class Tissue:
    """What is found at some points: arrays of one shape.

    Parameters
    ----------
    presence
        0 outside, 1 inside, soft between.
    stain
        How darkly it stains, about 0 to 1.3; meaningful where `presence` is above 0.
    granules
        0 to 1: how much of the dark, thin bands of granule cells is here.
    """

    presence: Single
    stain: Single
    granules: Single


def depth(p: npt.ArrayLike, i: npt.ArrayLike, r: npt.ArrayLike) -> Single:
    """Return how deep points lie under the surface of the brain, in microns, about.

    Negative outside. Arrays that broadcast, in microns; float32.
    """
    p, i, r = np.broadcast_arrays(*(np.asarray(axis, dtype=np.float32) for axis in (p, i, r)))
    side = _from_midline(r)
    return _deepest(
        _cerebrum(p, i, r, side), _cerebellum(p, i, side), _bulb(p, i, side), _stem(p, i, side)
    )


def tissue(p: Single, i: Single, r: Single) -> Tissue:
    """Return what is found at points p, i, r (arrays of one shape, microns, float32)."""
    side = _from_midline(r)
    stem = _stem(p, i, side)
    cerebrum = _cerebrum(p, i, r, side)
    cerebellum = _cerebellum(p, i, side)
    bulb = _bulb(p, i, side)

    nuclei = _nuclei(p, i, r)
    stain = np.float32(0.34) + nuclei
    granules = np.zeros_like(stain)
    if _reaches(cerebrum):
        granules = _hippocampus(p, i, side)
        dorsal = np.clip((5300.0 - i) / 1300.0, 0.0, 1.0)
        layers = _layers(cerebrum, _PALEOCORTEX)
        layers += dorsal * (_layers(cerebrum, _CORTEX) - layers)
        layers += np.clip((cerebrum - 1800.0) / 400.0, 0.0, 1.0) * nuclei
        layers *= 1.0 - 0.8 * _ventricle(p, i, side)
        layers += 0.9 * granules
        stain += _soft(cerebrum) * (layers - stain)
    if _reaches(bulb):
        stain += _soft(bulb) * (_layers(bulb, _BULB) - stain)
    if _reaches(cerebellum):
        weight = _soft(cerebellum)
        layers = _layers(cerebellum - _folds(p, i, cerebellum), _CEREBELLUM)
        stain += weight * (layers - stain)
        granules = np.maximum(granules, weight * np.clip((layers - 0.5) / 0.45, 0.0, 1.0))

    presence = _soft(_deepest(cerebrum, cerebellum, bulb, stem))
    return Tissue(presence, stain, granules * presence)


def _deepest(*depths: Single) -> Single:
    deepest = depths[0]
    for other in depths[1:]:
        deepest = np.maximum(deepest, other)
    return deepest


def _reaches(depth: Single) -> bool:
    return bool((depth > -EDGE).any())


def _layers(depth: Single, table: npt.NDArray[np.float64]) -> Single:
    return np.interp(depth, table[:, 0], table[:, 1]).astype(np.float32)


def _from_midline(r: Single) -> Single:
    across = r - MIDDLE_R
    return np.asarray(np.maximum(_RIGHT * across, -_LEFT * across))


def _soft(depth: Single) -> Single:
    """Return 0 outside and 1 inside, smooth over `EDGE` microns."""
    t = np.clip(depth / EDGE + 0.5, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def _ellipsoid(dp: Single, di: Single, ds: Single, a: float, b: float, c: float) -> Single:
    """Return an estimate of the depth inside an ellipsoid of semi-axes a, b, c (microns)."""
    u, v, w = dp / a, di / b, ds / c
    u2, v2, w2 = u * u, v * v, w * w
    rho2 = u2 + v2 + w2
    slope = np.sqrt(u2 / (a * a) + v2 / (b * b) + w2 / (c * c) + 1e-16)
    return np.asarray((np.sqrt(rho2) - rho2) / slope)


def _cerebrum(p: Single, i: Single, r: Single, side: Single) -> Single:
    # Narrower in front than behind, as a brain is, and a cleft between the halves on top.
    narrow = 1.0 + 0.000055 * np.clip(6500.0 - p, 0.0, None)
    body = _ellipsoid(p - 5900.0, i - 3900.0, side * narrow, 5000.0, 3250.0, 4950.0)
    cleft = np.clip(1.0 - side / 240.0, 0.0, 1.0) * np.clip((2600.0 - i) / 900.0, 0.0, 1.0)
    waves = 45.0 * np.sin(p / 620.0) * np.sin(r / 710.0 + i / 900.0)
    return np.asarray(body + waves - 900.0 * cleft * cleft)


def _cerebellum(p: Single, i: Single, side: Single) -> Single:
    vermis = _ellipsoid(p - 11050.0, i - 2750.0, side, 1750.0, 1950.0, 1500.0)
    lobe = _ellipsoid(p - 11000.0, i - 3100.0, side - 2100.0, 1350.0, 1500.0, 1900.0)
    return np.asarray(np.maximum(vermis, lobe) - 110.0 * _clefts(p, i))


def _bulb(p: Single, i: Single, side: Single) -> Single:
    return _ellipsoid(p - 1500.0, i - 4000.0, side - 950.0, 1350.0, 1350.0, 830.0)


def _stem(p: Single, i: Single, side: Single) -> Single:
    return _ellipsoid(p - 9900.0, i - 5150.0, side, 3200.0, 1750.0, 2500.0)


def _clefts(p: Single, i: Single) -> Single:
    """Return 0 on the leaves of the cerebellum and 1 in the clefts between them."""
    down, back = i - 3500.0, p - 10200.0
    far = np.clip((np.hypot(down, back) - 500.0) / 900.0, 0.0, 1.0)
    return np.asarray(far * (0.5 - 0.5 * np.cos(11.0 * np.arctan2(down, back))))


def _folds(p: Single, i: Single, depth: Single) -> Single:
    """Return how far the layers of the cerebellum bend inwards, in microns."""
    return np.asarray(330.0 * _clefts(p, i) * np.clip(1.6 - depth / 900.0, 0.0, 1.0))


def _hippocampus(p: Single, i: Single, side: Single) -> Single:
    """Return the thin dark bands: an arch, and the blade-shaped fold below it."""
    back = (p - 7900.0) / 1900.0
    lower = 0.42 * np.clip(p - 7600.0, 0.0, None)
    arch = _ellipsoid(p - 7900.0, i - 3150.0 - lower, side - 1900.0, 2000.0, 950.0, 1600.0)
    over = np.clip((3500.0 + lower - i) / 500.0, 0.0, 1.0)
    fold = _ellipsoid(p - 7900.0, i - 3050.0 - lower, side - 1500.0, 1800.0, 400.0, 1150.0)
    open_side = np.clip((2450.0 - side) / 500.0, 0.0, 1.0)
    here = np.clip(1.35 - np.abs(back), 0.0, 0.3) / 0.3
    bands = np.maximum(
        0.8 * over * np.exp(-(((arch - 170.0) / 75.0) ** 2)),
        open_side * np.exp(-(((fold - 60.0) / 70.0) ** 2)),
    )
    return np.asarray(here * bands)


def _ventricle(p: Single, i: Single, side: Single) -> Single:
    slit = _ellipsoid(
        p - 5300.0, i - 3200.0, side - 1050.0 - 0.35 * (i - 3200.0), 1500.0, 900.0, 190.0
    )
    return _soft(slit)


def _nuclei(p: Single, i: Single, r: Single) -> Single:
    """Return the blotches of the inner parts, and the one mass that only the right half has."""
    blotches = 0.13 * np.sin(p / 330.0 + i / 800.0) * np.sin(i / 290.0) * np.sin(r / 310.0)
    mass = _ellipsoid(p - 6400.0, i - 5300.0, r - 7700.0, 1900.0, 800.0, 900.0)
    return np.asarray(blotches + 0.45 * _soft(mass))
