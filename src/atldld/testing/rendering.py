"""Pixels of a section, from the brain that was cut."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from . import oracle
from .colormaps import coloured
from .oracle import Row
from .phantom import PhantomBrain

Array = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


def render(
    brain: PhantomBrain,
    dataset: Row,
    image: Row,
    view: str,
    start: tuple[float, float],
    step: int,
    size: tuple[int, int],
) -> Pixels:
    """Colour evenly spaced points of a section.

    Where the points lie closer together than the brain's `lattice`, colours are computed on a
    coarser lattice and interpolated between, so that images of 100 megapixels can be had. The
    lattice is fixed to the section, so that a window shows what the whole image shows.

    Parameters
    ----------
    start
        x, y of the first point in full-resolution pixels of the section.
    step
        Full-resolution pixels between points.
    size
        How many points along x and along y.
    view
        ``"image"``, ``"projection"``, ``"expression"`` or ``"expression_mask"``.

    Returns
    -------
    pixels
        Shape (height, width, 3) or, of the mask, (height, width); uint8.
    """
    width, height = size
    pitch = step * float(np.hypot(image["alignment2d"]["tsv_00"], image["alignment2d"]["tsv_02"]))
    coarse = max(int(brain.lattice / pitch), 1) if brain.lattice >= 2.0 * pitch else 1
    levels = view != "image"
    out = np.empty((height, width) if levels else (height, width, 3), dtype=np.uint8)
    if coarse == 1:
        x = start[0] + step * np.arange(width, dtype=np.float64)
        y = start[1] + step * np.arange(height, dtype=np.float64)
        rows = max((1 << 18) // max(width, 1), 1)
        for first in range(0, height, rows):
            field = _field(brain, dataset, image, x, y[first : first + rows], levels)
            out[first : first + rows] = _rounded(field)
    else:
        first_row = 0
        for block in _interpolated(brain, dataset, image, start, step, size, coarse, levels):
            out[first_row : first_row + len(block)] = block
            first_row += len(block)
    return out if view in ("image", "expression_mask") else coloured(out, view)


def _field(
    brain: PhantomBrain, dataset: Row, image: Row, x: Array, y: Array, levels: bool
) -> Array:
    # The map is affine: what x adds and what y adds are computed once per column and row.
    along = oracle.image_to_reference(dataset, image, x, 0.0)
    down = oracle.image_to_reference(dataset, image, 0.0, y)
    corner = oracle.image_to_reference(dataset, image, 0.0, 0.0)
    p, i, r = (a[None, :] + (d - c)[:, None] for a, d, c in zip(along, down, corner, strict=True))
    if dataset.get("reference_space_id") == 10:
        r = oracle.flip(r)
    return brain.expression(p, i, r) if levels else brain.colour(p, i, r)


def _interpolated(
    brain: PhantomBrain,
    dataset: Row,
    image: Row,
    start: tuple[float, float],
    step: int,
    size: tuple[int, int],
    coarse: int,
    levels: bool,
) -> Iterator[Pixels]:
    """Yield blocks of rows, interpolated between every `coarse`-th point."""
    nodes, skips = [], []
    for first, count in zip(start, size, strict=True):
        index = math.floor(first / step)
        node = index // coarse
        past = (index + count - 1) // coarse + 2
        offset = first - index * step
        nodes.append(offset + step * coarse * np.arange(node, past, dtype=np.float64))
        skips.append(index - node * coarse)
    table = np.empty((len(nodes[1]), len(nodes[0]), 1 if levels else 3), dtype=np.float32)
    rows = max((1 << 18) // len(nodes[0]), 1)
    for first_row in range(0, len(nodes[1]), rows):
        block = slice(first_row, first_row + rows)
        field = _field(brain, dataset, image, nodes[0], nodes[1][block], levels)
        table[block] = field.reshape(table[block].shape)

    share = (np.arange(coarse, dtype=np.float32) / np.float32(coarse))[:, None]
    left = size[1]
    for row in range(len(nodes[1]) - 1):
        skip = skips[1] if row == 0 else 0
        take = min(coarse - skip, left)
        if take <= 0:
            break
        part = share[skip : skip + take, :, None]
        lines = table[row] * (1 - part) + table[row + 1] * part
        between = lines[:, :-1, None] * (1 - share) + lines[:, 1:, None] * share
        pixels = between.reshape(take, -1, table.shape[2])[:, skips[0] : skips[0] + size[0]]
        left -= take
        yield _rounded(pixels[..., 0] if levels else pixels)


def _rounded(field: npt.NDArray[np.floating]) -> Pixels:
    return np.asarray(field + field.dtype.type(0.5)).astype(np.uint8)
