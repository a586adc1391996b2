"""The pixels of one section image, as they are: a lazy array, read by windows."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.tokenize import tokenize

from .. import options
from ..model.affine import Array
from ..model.bend import BendSource
from ..model.read import ImageRead, Window
from ..model.sections import SectionTable
from ..reading.failures import Failing
from ..reading.reader import Found, Part, Reader, places, squeezed
from ..sampling.coverage import Indices
from ..source.protocol import Source
from .index import SectionPlaces
from .lazy import CHANNELS


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImagePart(Part):
    """A part of the image."""

    def read(self, held: Collection[Window | None] = ()) -> ImageRead:
        """Return what to ask a source for that has some windows of the image at hand.

        Where the section begins between two tier pixels of its slide, a window is asked for
        even for all of the image: only of windows it is known which pixels they show.
        """
        # Without super() of no arguments: a class with slots is made twice.
        read = Part.read(self, held)
        if read.window is None and self.whole.fraction != (0.0, 0.0) and None not in held:
            read = replace(read, window=Window(0, 0, *self.whole.size))
        return read


class ImageArray(Reader[ImagePart]):
    """A rectangle of one tier of a section image, read when it is indexed.

    Parameters
    ----------
    whole
        The read of the whole image at the tier.
    window
        The rectangle: pixels of the tier, on the lattice of the slide.
    affine
        Shape (3, 3): from full-resolution (x, y, 1) to p, i, r in microns.
    table
        The sections of the dataset, this one among them.
    fill_value
        What pixels are that cannot be had, if they may lack; NaN makes the array float32.
    source, carried, failing
        As for `Reader`.
    bend
        Where the bend of the section comes from; None for a straight one.

    Notes
    -----
    Shape (rows, columns[, 3]). The index of a read is OUTER: one indexer an axis.
    """

    def __init__(
        self,
        whole: ImageRead,
        window: Window,
        affine: Array,
        table: SectionTable,
        fill_value: float,
        source: Source,
        carried: options.Carried,
        failing: Failing,
        bend: BendSource | None = None,
    ) -> None:
        super().__init__(source, carried, failing)
        self.bend = bend
        self.whole = whole
        self.window = window
        self.affine = affine
        self.table = table
        self.fill_value = fill_value
        channels = () if whole.view == "expression_mask" else (len(CHANNELS),)
        self.shape = (window.height, window.width, *channels)
        self.dtype = np.dtype(np.float32 if np.isnan(fill_value) else np.uint8)

    @property
    def section_places(self) -> SectionPlaces:
        """Where the pixels lie."""
        image_id = self.whole.image_id
        bends = {} if self.bend is None else {image_id: self.bend}
        images = np.array([image_id])
        return SectionPlaces(self.table, images, self.affine[None], pixel_bends=bends)

    def pieces(self, key: tuple[Any, ...]) -> list[ImagePart]:
        """Return the one part that an outer index into this array needs, or none."""
        rows, columns = self._numbers(key)
        if not (len(rows) and len(columns)):
            return []
        left, top = int(columns.min()), int(rows.min())
        size = int(columns.max()) + 1 - left, int(rows.max()) + 1 - top
        return [ImagePart(whole=self.whole, needed=Window(left, top, *size))]

    def samples(self) -> list[ImageRead]:
        """Return this image and a few others of the dataset, to find out about the service."""
        dataset_id = self.whole.dataset_id or 0
        own = self.table.whole_image(dataset_id, self._row(), 0, "image")
        return [own, *self.table.sample_images(dataset_id)]

    def tier_count(self, part: ImagePart) -> int:
        """Return how many tiers the image has."""
        return int(self.table.tier_count[self._row()])

    def at_tier(self, part: ImagePart, tier: int) -> ImagePart:
        """Refuse: other pixels are not these pixels."""
        raise ValueError(
            f"the pixels of tier {part.whole.tier} cannot be had from tier {tier} of image "
            f"{part.whole.image_id}"
        )

    def _row(self) -> int:
        return int(np.flatnonzero(self.table.image_id == self.whole.image_id)[0])

    def _numbers(self, key: tuple[Any, ...]) -> tuple[Indices, Indices]:
        """Return which rows and columns of the tier an outer index asks for."""
        rows, columns = places(key[:2], self.shape[:2])
        return rows + self.window.top, columns + self.window.left

    def _outer(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        rows, columns = self._numbers(key)
        out = np.empty((len(rows), len(columns), *self.shape[2:]), dtype=self.dtype)
        if out.size:
            with options.using(self.carried):
                for found in self.images(self.pieces(key)):
                    _taken(found, rows, columns, self.fill_value, out)
                    del found
        return squeezed(out, key, axes=2)

    def __dask_tokenize__(self) -> Hashable:
        return (
            type(self).__name__,
            tokenize(repr(self.whole), repr(self.window), self.affine, self.source),
            repr(self.fill_value),
            self.failing.fill,
        )


def _taken(
    found: Found[ImagePart],
    rows: Indices,
    columns: Indices,
    fill_value: float,
    out: npt.NDArray[Any],
) -> None:
    """Put pixels where they belong."""
    if found.image is None:
        out[...] = fill_value
        return
    window = found.window
    rows, columns = rows - window.top, columns - window.left
    # An image that begins later than the lattice does so by less than a pixel: the nearest one.
    along, down = (round(share) for share in found.past_lattice)
    rows, columns = np.maximum(rows - down, 0), np.maximum(columns - along, 0)
    out[...] = found.image[_run(rows)][:, _run(columns)]


def _run(numbers: Indices) -> slice | Indices:
    """Return a slice for numbers that follow each other, which is quicker."""
    first, count = int(numbers[0]), len(numbers)
    if int(numbers[-1]) - first == count - 1 and (np.diff(numbers) == 1).all():
        return slice(first, first + count)
    return numbers
