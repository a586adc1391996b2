"""The warp as it is said: three channels, square tiles, every point asked whether it is covered.

What the package's own warp must equal to the last bit, and what its speed is measured against.
One `warpAffine` a tile with a replicated border, as many samples a step as the step spans pixels
for ``"area"``, and the fill written where a section does not cover. Slow, and without any way
around.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

KERNELS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_LINEAR,
}
_REACH = {"nearest": 1, "linear": 1, "cubic": 2}
_LARGEST_BOX = 2048

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


def plain_warp(
    image: Pixels,
    affine: Floats,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    shape: tuple[int, int],
    interpolation: str,
    fill: float,
    largest: int = 512,
) -> npt.NDArray[Any]:
    """Return a whole tier image on a whole grid.

    Parameters
    ----------
    image
        uint8, shape (height, width[, 3]).
    affine
        Shape (2, 3): from (column number, row number, 1) to its pixels.
    first, last
        Shape (rows,): first and last covered column of each row of the grid.
    shape
        Rows and columns of the grid, numbered from 0.
    interpolation
        ``"nearest"``, ``"linear"``, ``"cubic"`` or ``"area"``.
    fill
        Value of points that are not covered; NaN makes the array float32.
    largest
        Side of the largest tiles.
    """
    step = max(math.hypot(*affine[:, 0]), math.hypot(*affine[:, 1]))
    power = math.floor(math.log2(_LARGEST_BOX / max(step, 1e-9)))
    side = 2 ** min(max(power, 0), round(math.log2(largest)))
    dtype = np.float32 if np.isnan(fill) else np.uint8
    out = np.empty((*shape, *image.shape[2:]), dtype=dtype)
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            size = min(side, shape[1] - left), min(side, shape[0] - top)
            tile = _tile(image, affine, (left, top), size, interpolation)
            out[top : top + size[1], left : left + size[0]] = tile
    for row, begin, end in zip(out, first, last, strict=True):
        if begin > end:
            row[:] = fill
        else:
            row[:begin] = fill
            row[end + 1 :] = fill
    return out


def _tile(
    image: Pixels, affine: Floats, at: tuple[int, int], size: tuple[int, int], interpolation: str
) -> Pixels:
    left, top, right, bottom = _box(image.shape, affine, at, size, interpolation)
    source = image[top:bottom, left:right]
    onto = affine.copy()
    onto[:, 2] += affine[:, 0] * at[0] + affine[:, 1] * at[1]
    onto[:, 2] -= (left, top)
    if interpolation != "area":
        return _sampled(source, onto, size, interpolation)
    unit = _unit(affine)
    if unit > 1:
        rest = -source.shape[0] % unit, -source.shape[1] % unit
        source = cv2.copyMakeBorder(source, 0, rest[0], 0, rest[1], cv2.BORDER_REPLICATE)
        small = source.shape[1] // unit, source.shape[0] // unit
        source = cv2.resize(source, small, interpolation=cv2.INTER_AREA)
    onto[:, 2] -= (unit - 1) / 2
    onto /= unit
    samples = max(math.ceil(max(math.hypot(*onto[:, 0]), math.hypot(*onto[:, 1]))), 2)
    onto[:, 2] -= (onto[:, 0] + onto[:, 1]) * (samples - 1) / (2 * samples)
    onto[:, :2] /= samples
    many = _sampled(source, onto, (samples * size[0], samples * size[1]), "area")
    return np.asarray(cv2.resize(many, size, interpolation=cv2.INTER_AREA))


def _unit(affine: Floats) -> int:
    return max(math.floor(min(math.hypot(*affine[:, 0]), math.hypot(*affine[:, 1])) / 3), 1)


def _box(
    shape: tuple[int, ...],
    affine: Floats,
    at: tuple[int, int],
    size: tuple[int, int],
    interpolation: str,
) -> list[int]:
    """Return the first column and row, and one past the last, of the pixels of a tile."""
    unit = _unit(affine) if interpolation == "area" else 1
    step = max(math.hypot(*affine[:, 0]), math.hypot(*affine[:, 1]))
    reach = 2 * math.ceil(step) + 2 if interpolation == "area" else _REACH[interpolation]
    firsts, pasts = [], []
    for row, length in zip(affine, (shape[1], shape[0]), strict=True):
        values = [
            row[0] * column + row[1] * line + row[2]
            for column in (at[0], at[0] + size[0] - 1)
            for line in (at[1], at[1] + size[1] - 1)
        ]
        first = min(max(math.floor(min(values)) - reach, 0), length - 1)
        past = max(min(math.floor(max(values)) + 1 + reach, length), first + 1)
        firsts.append(first // unit * unit)
        pasts.append(min(-(-past // unit) * unit, length))
    return [*firsts, *pasts]


def _sampled(source: Pixels, onto: Floats, size: tuple[int, int], interpolation: str) -> Pixels:
    return np.asarray(
        cv2.warpAffine(
            source,
            onto,
            size,
            flags=KERNELS[interpolation] | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )
