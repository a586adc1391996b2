"""Lazy volumes over the sections of a dataset: pixels, and which section shows where."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from dask.tokenize import tokenize
from xarray.core import indexing

from .. import options
from ..model.read import ImageRead
from ..reading.failures import Failing
from ..reading.reader import Found, FromMatrices, GridReader, index_outer, places, squeezed
from ..sampling.coverage import Indices
from ..sampling.decode import Pixels
from ..sampling.warp import framed, warp
from ..source.protocol import Source
from .volume_pieces import Box, Layer, VolumePiece, VolumeSampling

_TILE = 128
"""Side of the tiles that are warped at once: a band of a plane is often narrow."""


class VolumeArray(GridReader[VolumePiece]):
    """A volume of a dataset, read when it is indexed.

    Parameters
    ----------
    sampling
        Where every voxel comes from.
    source
        Where the images come from.
    fill_value
        Value of voxels that show no section; NaN makes the array float32.
    carried
        The options of the opening, for the process that computes.
    failing
        What to do about an image that cannot be had.
    marked
        Whether the last axis has marks, of what was not filled, behind the channels.

    Notes
    -----
    Shape (p, i, r[, 3]), with marks (p, i, r, 4 or 2). Each section is read and decoded once
    for a box, however many of its planes show it.
    """

    def __init__(
        self,
        sampling: VolumeSampling,
        source: Source,
        fill_value: float,
        carried: options.Carried,
        failing: Failing,
        *,
        marked: bool = False,
    ) -> None:
        super().__init__(source, carried, failing, marked)
        self.sampling = sampling
        self.fill_value = fill_value
        self.shape = (*sampling.grid.shape, *self.with_marks(sum(sampling.channels)))
        self.dtype = np.dtype(np.float32 if np.isnan(fill_value) else np.uint8)

    def pieces(self, key: tuple[Any, ...]) -> list[VolumePiece]:
        """Return what an outer index into this array needs, one piece a section, no pixels."""
        numbers = box_numbers(self.sampling, key)
        return self.sampling.box(*numbers).pieces() if all(map(len, numbers)) else []

    def samples(self) -> list[ImageRead]:
        """Return a few images from amid the dataset, to find out about its service."""
        return self.sampling.samples()

    def tier_count(self, part: VolumePiece) -> int:
        """Return how many tiers the image of a piece has."""
        return int(self.sampling.stack.tier_count[part.section])

    def at_tier(self, part: VolumePiece, tier: int) -> VolumePiece:
        """Return the same piece, read at another tier."""
        return self.sampling.piece(part.section, part.layers, tier)

    def section(self, part: VolumePiece) -> int:
        """Return the row of the stack that a piece is of."""
        return part.section

    def _pixels(self, key: tuple[Any, ...]) -> tuple[npt.NDArray[Any], set[int]]:
        numbers = box_numbers(self.sampling, key)
        shape = (*map(len, numbers), *self.sampling.channels)
        out, filled = np.empty(shape, dtype=self.dtype), set()
        if out.size:
            box = self.sampling.box(*numbers)
            fill_in = self._blend if self.sampling.between == "linear" else self._show
            with options.using(self.carried):
                filled = fill_in(box, out)
        return in_space(out, self.sampling), filled

    def _shown(self, key: tuple[Any, ...], filled: set[int]) -> npt.NDArray[np.bool_]:
        numbers = box_numbers(self.sampling, key)
        out = np.zeros(tuple(map(len, numbers)), dtype=bool)
        if out.size:
            box = self.sampling.box(*numbers)
            hidden = np.zeros_like(out)
            for layer in range(len(box.layers)):
                out |= box.shown(layer, filled) & ~hidden
                hidden |= box.shown(layer)
        return in_space(out, self.sampling)

    def _show(self, box: Box, out: npt.NDArray[Any]) -> set[int]:
        """Fill a box with the pixels of the nearest section; return which could not be had."""
        failed = set()
        out[...] = self.fill_value
        mirror = np.full_like(out, self.fill_value) if len(box.layers) > 1 else out
        for found in self.images(box.pieces()):
            if found.image is None:
                failed.add(found.asked.section)
            else:
                image = framed(found.image, found.part.interpolation)
                for layer, affine in zip(found.part.layers, found.part.affines, strict=True):
                    into = mirror if layer.mirrored else out
                    self._warp(image, found, layer, affine, box.columns, into[layer.place])
                del image
            del found  # before the next one is decoded
        if mirror is not out:
            np.copyto(out, mirror, where=_spread(~box.shown(0), out))
        return failed

    def _blend(self, box: Box, out: npt.NDArray[Any]) -> set[int]:
        """Fill a box with the pixels of the two sections that a voxel lies between.

        Return the sections that could not be had.
        """
        sums = [np.zeros(out.shape, dtype=np.float32) for _ in box.layers]
        weights = [np.zeros(out.shape[:3], dtype=np.float32) for _ in box.layers]
        failed = set()
        for found in self.images(box.pieces()):
            if found.image is None:
                failed.add(found.part.section)
                continue
            image = framed(found.image, found.part.interpolation)
            scratch = np.zeros(out.shape[1:], dtype=np.uint8)
            for layer, affine in zip(found.part.layers, found.part.affines, strict=True):
                self._warp(image, found, layer, affine, box.columns, scratch)
                part = _extent(layer, box.columns)
                weight = self._weight(layer, part, box.columns)
                share = _spread(weight, scratch) * scratch[part]
                sums[layer.mirrored][layer.place][part] += share
                weights[layer.mirrored][layer.place][part] += weight
            del found, image  # before the next one is decoded
        out[...] = self.fill_value
        for layer_number in reversed(range(len(box.layers))):
            shown = box.shown(layer_number, failed)
            self._finish(sums[layer_number], weights[layer_number], shown, out)
        return failed

    def _finish(
        self,
        total: npt.NDArray[np.float32],
        weight: npt.NDArray[np.float32],
        shown: npt.NDArray[np.bool_],
        out: npt.NDArray[Any],
    ) -> None:
        for place in range(len(out)):
            there = shown[place] & (weight[place] > 0)
            divisor = np.where(there, weight[place], 1)
            values = total[place] / _spread(divisor, total[place])
            if out.dtype == np.uint8:
                values = np.rint(values)
            np.copyto(out[place], values, where=_spread(there, values), casting="unsafe")

    def _warp(
        self,
        image: Pixels,
        found: Found[VolumePiece],
        layer: Layer,
        affine: npt.NDArray[np.float64],
        columns: Indices,
        out: npt.NDArray[Any],
    ) -> None:
        affine = affine - [[0, 0, shift] for shift in found.past_lattice]
        warp(
            image,
            found.window,
            found.part.whole.size,
            affine,
            layer.band.used,
            columns,
            self.sampling.bounds,
            found.part.interpolation,
            None,
            out,
            _TILE,
        )

    def _weight(
        self, layer: Layer, part: tuple[slice, slice], columns: Indices
    ) -> npt.NDArray[np.float32]:
        """Return the share of a section in each node of a part of a plane, by distance in z."""
        stack, section = self.sampling.layers[layer.mirrored], layer.band.section
        rows, columns = layer.nodes.rows[part[0]], columns[part[1]]
        z = layer.nodes.z(stack.trv, rows[:, None], columns) - stack.z[section]
        # Beyond the first and the last section there is nothing to share with.
        gaps = np.concatenate([[np.inf], np.diff(stack.z), [np.inf]])
        share = 1 - np.maximum(z / gaps[section + 1], -z / gaps[section])
        inside = layer.band.used.mask(columns, part[0])
        return np.where(inside, share, 0).astype(np.float32)

    def __dask_tokenize__(self) -> Hashable:
        # dask does not look into what is returned here: whatever is not text must be made so.
        return (
            type(self).__name__,
            tokenize(self.sampling, self.source),
            repr(self.fill_value),
            self.failing.fill,
            self.failing.other_tiers,
            self.marked,
        )


What = Literal["section_number", "distance", "mirrored"]
SHOWN_TYPES = {"section_number": np.int32, "distance": np.float64, "mirrored": np.bool_}
NOTHING = {"section_number": -1, "distance": np.nan, "mirrored": False}


class ShownArray(FromMatrices):
    """Which section each voxel of a volume shows, or how far it lies from it.

    Parameters
    ----------
    sampling
        Where every voxel comes from.
    what
        ``"section_number"``, int32, -1 for none; ``"distance"``, float64, microns of the image
        stack, NaN for none; or ``"mirrored"``, bool.

    Notes
    -----
    Shape (p, i, r). Nothing is downloaded.
    """

    def __init__(self, sampling: VolumeSampling, what: What) -> None:
        self.sampling = replace(sampling, between="nearest")
        self.what = what
        self.shape = sampling.grid.shape
        self.dtype = np.dtype(SHOWN_TYPES[what])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return index_outer(key, self.shape, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        numbers = box_numbers(self.sampling, key)
        out = np.full(tuple(map(len, numbers)), NOTHING[self.what], dtype=self.dtype)
        if out.size:
            self._fill(self.sampling.box(*numbers), out)
        return squeezed(in_space(out, self.sampling), key)

    def _fill(self, box: Box, out: npt.NDArray[Any]) -> None:
        stack = self.sampling.stack
        hidden = np.zeros(out.shape, dtype=bool) if len(box.layers) > 1 else None
        for mirrored, planes in enumerate(box.layers):
            for place, nodes, found in planes:
                for band in found:
                    there = band.shown.mask(box.columns)
                    if hidden is not None:
                        there &= ~hidden[place]
                        hidden[place] |= there
                    if self.what == "distance":
                        rows = nodes.rows[:, None]
                        z = nodes.z(self.sampling.layers[mirrored].trv, rows, box.columns)
                        np.copyto(out[place], z - stack.z[band.section], where=there)
                    else:
                        number = stack.section_number[band.section]
                        value = number if self.what == "section_number" else bool(mirrored)
                        out[place][there] = value

    def __dask_tokenize__(self) -> Hashable:
        return type(self).__name__, self.what, tokenize(self.sampling)


def box_numbers(sampling: VolumeSampling, key: tuple[Any, ...]) -> list[Indices]:
    """Return the grid numbers of an outer index along planes, rows and columns."""
    grid = sampling.grid
    asked = places(key[:3], grid.shape)
    return [asked[axis] + grid.axes[axis].first for axis in sampling.axes]


def in_space(out: npt.NDArray[Any], sampling: VolumeSampling) -> npt.NDArray[Any]:
    """Turn (planes, rows, columns, ...) into (p, i, r, ...)."""
    order = np.argsort(sampling.axes)
    return out.transpose(*order, *range(3, out.ndim))


def _extent(layer: Layer, columns: Indices) -> tuple[slice, slice]:
    """Return the rows and columns of a plane between which its used nodes lie."""
    used = layer.band.used
    rows = np.flatnonzero(used.first <= used.last)
    low, high = used.first[rows].min(), used.last[rows].max()
    across = np.flatnonzero((columns >= low) & (columns <= high))
    if len(across) == 0:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(across[0]), int(across[-1]) + 1)


def _spread(values: npt.NDArray[Any], over: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values of nodes with an axis for the channels of others, if these have one."""
    if values.ndim == over.ndim:
        return values
    if values.ndim != 2 or values.size == 0:
        return values[..., None]
    import cv2

    # Written out: numpy goes through an axis of three, repeated, many times slower.
    plain = values.view(np.uint8) if values.dtype == bool else values
    return np.asarray(cv2.merge([plain] * over.shape[-1])).view(values.dtype)
