"""The sums of `quantify` as a dask graph: a task for each block of an image, and for each chunk."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from .. import options
from ..arrays.describe import attributes, microns_of, volume_frame
from ..arrays.image_opening import ImageOpening
from ..arrays.index import GUARD, GuardIndex
from ..arrays.request import target_space
from ..errors import AtldldWarning, RegistrationError
from ..model.dataset import SectionDataset, SectionImage
from ..model.grid import Axis, footprint
from ..model.sections import SectionTable, tabulate
from ..model.space import AXES, extent
from ..reading.failing import Failing
from ..reading.ledger import Ledger
from ..source.protocol import Source
from .quantify_asked import Asked
from .quantify_cells import Block, Cells, Ends, dense_sums, overlap, sums_of_pixels

SUMS = ("n_pixels", "n_expressing", "sum_intensity")

_SLAB_MICRONS = 1600.0
_MOST_CELLS = 2**21
_ROUNDING = 1e-3
"""Microns."""

_WHOLE_IMAGE = 8 * 10**6
"""Pixels up to which an image is read as one block."""


class Quantifying:
    """Builds the lazy sums of one dataset."""

    def __init__(self, asked: Asked, source: Source, record: SectionDataset) -> None:
        from dask.tokenize import tokenize

        self.asked = asked
        self.source = source
        self.record = record
        self.space, self.flip = target_space(record, asked.space)
        self.cells = _cells(record, asked)
        self.images = _images(record, asked)
        carried = options.carry()
        name = tokenize(record.id, repr(asked), source)
        self.failing = Failing(asked.fill, False, Ledger(f"{name}-{carried.process}"))

    def dataset(self) -> xr.Dataset:
        """Return the sums, lazily."""
        sums = xr.Dataset(
            {name: xr.Variable(AXES, data) for name, data in self._sums().items()},
            coords=self._coordinates(),
            attrs=self._attributes(),
        )
        return sums.drop_vars("n_expressing") if self.asked.tier else sums

    def _sums(self) -> dict[str, Any]:
        import dask.array as da
        from dask.delayed import delayed

        parts = list(self._parts())
        edges = self._edges()
        shape = tuple(len(each) - 1 for each in edges)
        grids = {name: np.empty(shape, dtype=object) for name in SUMS}
        summed = delayed(dense_sums, pure=False)
        for place in np.ndindex(*shape):
            p, i, r = (
                (int(each[at]), int(each[at + 1])) for each, at in zip(edges, place, strict=True)
            )
            ends = (p, i, r)
            found = summed([part for touched, part in parts if overlap(touched, ends)], ends)
            size = tuple(past - low for low, past in ends)
            for number, name in enumerate(SUMS):
                dtype = np.float64 if name == "sum_intensity" else np.int64
                grids[name][place] = da.from_delayed(found[number], size, dtype)
        return {name: da.block(grid.tolist()) for name, grid in grids.items()}

    def _parts(self) -> Iterable[tuple[Ends, Any]]:
        """Yield the sums of every block of every image, with the cells that it may touch."""
        from dask.delayed import delayed

        summed = delayed(sums_of_pixels, pure=False)
        table = tabulate(self.record, mapping="parallel", flip=self.flip)
        half = self.cells.step / 2
        # A pixel on the border is read whichever way the arithmetic of windows rounds.
        region = {
            name: (
                max(float(axis.microns[0]) - half, low - _ROUNDING),
                min(float(axis.microns[-1]) + half, high + _ROUNDING),
            )
            for name, axis, (low, high) in zip(
                AXES, self.cells.axes, self.cells.bounds, strict=True
            )
        }
        for image in self.images:
            opening = self._opening(image)
            try:
                window = opening.window(region)
            except ValueError:
                continue  # nothing of it lies in the volume
            chunks: Any = "auto" if window.area > _WHOLE_IMAGE else {"y": -1, "x": -1}
            data = opening.variable(window, chunks, _row(table, image)).data
            step, (x, y) = 2**self.asked.tier, opening.origin
            tops = np.concatenate([[0], np.cumsum(data.chunks[0])]) + window.top
            lefts = np.concatenate([[0], np.cumsum(data.chunks[1])]) + window.left
            blocks = data.to_delayed(optimize_graph=False)
            for row, column in np.ndindex(*blocks.shape[:2]):
                block = Block(
                    opening.affine,
                    x + step * float(lefts[column]),
                    y + step * float(tops[row]),
                    step,
                    int(data.chunks[1][column]),
                    int(data.chunks[0][row]),
                )
                touched = block.ends(self.cells.step, self.cells.ends)
                if all(low < past for low, past in touched):
                    pixels = blocks[(row, column, *(0,) * (blocks.ndim - 2))]
                    yield (
                        touched,
                        summed(
                            pixels,
                            block,
                            self.cells.ends,
                            self.cells.step,
                            self.asked.threshold,
                            self.asked.function,
                            self.cells.bounds,
                        ),
                    )

    def _opening(self, image: SectionImage) -> ImageOpening:
        return ImageOpening.of(
            self.record,
            image,
            self.source,
            self.asked.tier,
            self.asked.view,
            self.asked.space,
            fill=self.asked.fill,
            failing=self.failing,
            fill_value=math.nan if self.asked.fill else 0,
        )

    def _edges(self) -> list[Any]:
        """Return the numbers of cells that chunks begin with, and one past the last."""
        along = AXES[self.record.plane.section]
        wanted = self.asked.chunks
        if wanted is None:
            thick = max(round(_SLAB_MICRONS / self.cells.step), 1)
            side = max(math.isqrt(_MOST_CELLS // thick), 1)
            wanted = {axis: thick if axis == along else side for axis in AXES}
        edges = []
        for name, axis in zip(AXES, self.cells.axes, strict=True):
            size = wanted.get(name, -1)
            first, past = axis.first, axis.first + axis.count
            edges.append(np.append(np.arange(first, past, size if size > 0 else axis.count), past))
        return edges

    def _coordinates(self) -> xr.Coordinates:
        where = volume_frame(self.record, self.space)
        space = -1 if self.space is None else self.space
        nodes = {
            name: xr.Variable(name, axis.microns, microns_of(name))
            for name, axis in zip(AXES, self.cells.axes, strict=True)
        }
        default = xr.Coordinates(nodes)
        guard = xr.Variable((), space, {"long_name": "reference space", "frame": where})
        indexes = {GUARD: GuardIndex(GUARD, where, (self.failing.ledger.name,))}
        return xr.Coordinates(
            {**default.variables, GUARD: guard}, indexes={**indexes, **default.xindexes}
        )

    def _attributes(self) -> dict[str, Any]:
        asked = self.asked
        attrs = attributes(
            self.record,
            reference_space=self.space,
            mapping="exact: each pixel by its own p, i, r",
            resolution=asked.resolution,
            source=self.source.name,
        )
        said: dict[str, Any] = (
            {"threshold": asked.threshold}
            if asked.function is None
            else {"function": getattr(asked.function, "__name__", type(asked.function).__name__)}
        )
        if asked.region:
            said["region"] = "; ".join(
                f"{axis} {low:g} to {high:g} microns" for axis, (low, high) in asked.region.items()
            )
        return {**attrs, "view": asked.view, "tier": asked.tier, **said}


def _cells(record: SectionDataset, asked: Asked) -> Cells:
    step = asked.resolution
    bounds = extent(record.reference_space)
    low, high = (np.zeros(3), np.array(bounds)) if bounds is not None else footprint(record)
    axes, within = [], []
    for name, least, most in zip(AXES, low, high, strict=True):
        # Up to the cell that the far end lies in, by the rule that pixels go by.
        axis = Axis.spanning(float(least), float(most) + 1.5 * step, step)
        ends = asked.region.get(name, (-math.inf, math.inf))
        axes.append(_touched(axis, ends, name))
        within.append(ends)
    return Cells((axes[0], axes[1], axes[2]), (within[0], within[1], within[2]))


def _touched(axis: Axis, ends: tuple[float, float], name: str) -> Axis:
    """Return the cells that something between two ends may lie in."""
    near, far = (axis.first - 0.5) * axis.step, (axis.first + axis.count - 0.5) * axis.step
    if ends[1] < near or ends[0] >= far:
        raise ValueError(
            f"region {name}=({ends[0]:g}, {ends[1]:g}) holds no cell; they reach from {near:g} to "
            f"{far:g} microns"
        )
    first, last = (
        min(
            max(math.floor(min(max(end, near), far) / axis.step + 0.5), axis.first),
            axis.first + axis.count - 1,
        )
        for end in ends
    )
    return replace(axis, first=first, count=last - first + 1)


def _images(record: SectionDataset, asked: Asked) -> list[SectionImage]:
    images = list(record.images)
    if asked.sections is not None:
        images = [image for image in images if image.section_number in asked.sections]
        missing = asked.sections - {image.section_number for image in images}
        if missing:
            named = ", ".join(map(str, sorted(missing)))
            raise ValueError(f"dataset {record.id} has no sections {named}")
    if asked.view.startswith("expression"):
        lacking = [image for image in images if not image.has_expression]
        images = [image for image in images if image.has_expression]
        if not images:
            raise RegistrationError(
                f"dataset {record.id}: no section image has an expression mask (expression_path "
                "is null); measure the images with function="
            )
        if lacking:
            named = ", ".join(str(image.id) for image in lacking)
            warnings.warn(
                f"dataset {record.id}: sections without an expression mask left out, images "
                f"{named}",
                AtldldWarning,
                stacklevel=4,
            )
    return images


def _row(table: SectionTable, image: SectionImage) -> SectionTable:
    return table.take(table.image_id == image.id)
