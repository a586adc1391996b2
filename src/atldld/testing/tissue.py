"""A made-up brain: how deep each point lies in the tissue, and how darkly it stains.

Coordinates are p, i, r of reference space 9, in microns. The shapes are ellipsoids placed by
eye, about as large as those of a mouse; nothing here is anatomy to rely on. The right half is
stretched against the left one, and some structures stand on one side only, so that a mirrored
picture cannot be taken for the right one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

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

    presence: Array
    stain: Array
    granules: Array


def depth(p: npt.ArrayLike, i: npt.ArrayLike, r: npt.ArrayLike) -> Array:
    """Return how deep points lie under the surface of the brain, in microns, about.

    Negative outside. Arrays that broadcast, in microns; float32.
    """
    p, i, r = np.broadcast_arrays(*(np.asarray(axis, dtype=np.float32) for axis in (p, i, r)))
    side = _from_midline(r)
    return _deepest(
        _cerebrum(p, i, r, side), _cerebellum(p, i, side), _bulb(p, i, side), _stem(p, i, side)
    )


def tissue(p: Array, i: Array, r: Array) -> Tissue:
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


def _deepest(*depths: Array) -> Array:
    deepest = depths[0]
    for other in depths[1:]:
        deepest = np.maximum(deepest, other)
    return deepest


def _reaches(depth: Array) -> bool:
    return bool((depth > -EDGE).any())


def _layers(depth: Array, table: npt.NDArray[np.float64]) -> Array:
    return np.interp(depth, table[:, 0], table[:, 1]).astype(np.float32)


def _from_midline(r: Array) -> Array:
    across = r - MIDDLE_R
    return np.asarray(np.maximum(_RIGHT * across, -_LEFT * across))


def _soft(depth: Array) -> Array:
    """Return 0 outside and 1 inside, smooth over `EDGE` microns."""
    t = np.clip(depth / EDGE + 0.5, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def _ellipsoid(dp: Array, di: Array, ds: Array, a: float, b: float, c: float) -> Array:
    """Return an estimate of the depth inside an ellipsoid of semi-axes a, b, c (microns)."""
    u, v, w = dp / a, di / b, ds / c
    u2, v2, w2 = u * u, v * v, w * w
    rho2 = u2 + v2 + w2
    slope = np.sqrt(u2 / (a * a) + v2 / (b * b) + w2 / (c * c) + 1e-16)
    return np.asarray((np.sqrt(rho2) - rho2) / slope)


def _cerebrum(p: Array, i: Array, r: Array, side: Array) -> Array:
    # Narrower in front than behind, as a brain is, and a cleft between the halves on top.
    narrow = 1.0 + 0.000055 * np.clip(6500.0 - p, 0.0, None)
    body = _ellipsoid(p - 5900.0, i - 3900.0, side * narrow, 5000.0, 3250.0, 4950.0)
    cleft = np.clip(1.0 - side / 240.0, 0.0, 1.0) * np.clip((2600.0 - i) / 900.0, 0.0, 1.0)
    waves = 45.0 * np.sin(p / 620.0) * np.sin(r / 710.0 + i / 900.0)
    return np.asarray(body + waves - 900.0 * cleft * cleft)


def _cerebellum(p: Array, i: Array, side: Array) -> Array:
    vermis = _ellipsoid(p - 11050.0, i - 2750.0, side, 1750.0, 1950.0, 1500.0)
    lobe = _ellipsoid(p - 11000.0, i - 3100.0, side - 2100.0, 1350.0, 1500.0, 1900.0)
    return np.asarray(np.maximum(vermis, lobe) - 110.0 * _clefts(p, i))


def _bulb(p: Array, i: Array, side: Array) -> Array:
    return _ellipsoid(p - 1500.0, i - 4000.0, side - 950.0, 1350.0, 1350.0, 830.0)


def _stem(p: Array, i: Array, side: Array) -> Array:
    return _ellipsoid(p - 9900.0, i - 5150.0, side, 3200.0, 1750.0, 2500.0)


def _clefts(p: Array, i: Array) -> Array:
    """Return 0 on the leaves of the cerebellum and 1 in the clefts between them."""
    down, back = i - 3500.0, p - 10200.0
    far = np.clip((np.hypot(down, back) - 500.0) / 900.0, 0.0, 1.0)
    return np.asarray(far * (0.5 - 0.5 * np.cos(11.0 * np.arctan2(down, back))))


def _folds(p: Array, i: Array, depth: Array) -> Array:
    """Return how far the layers of the cerebellum bend inwards, in microns."""
    return np.asarray(330.0 * _clefts(p, i) * np.clip(1.6 - depth / 900.0, 0.0, 1.0))


def _hippocampus(p: Array, i: Array, side: Array) -> Array:
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


def _ventricle(p: Array, i: Array, side: Array) -> Array:
    slit = _ellipsoid(
        p - 5300.0, i - 3200.0, side - 1050.0 - 0.35 * (i - 3200.0), 1500.0, 900.0, 190.0
    )
    return _soft(slit)


def _nuclei(p: Array, i: Array, r: Array) -> Array:
    """Return the blotches of the inner parts, and the one mass that only the right half has."""
    blotches = 0.13 * np.sin(p / 330.0 + i / 800.0) * np.sin(i / 290.0) * np.sin(r / 310.0)
    mass = _ellipsoid(p - 6400.0, i - 5300.0, r - 7700.0, 1900.0, 800.0, 900.0)
    return np.asarray(blotches + 0.45 * _soft(mass))
