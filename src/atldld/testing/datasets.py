"""Section datasets whose pixels are computed from a brain."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from . import oracle
from .phantom import PhantomBrain
from .served import Pixels, Served
from .service_rows import Row

Array = npt.NDArray[np.float64]
View = Literal["image", "projection", "expression", "expression_mask"]
Origin = Literal["floor", "exact"]

_BLOCK = 1 << 18
"""Points computed at a time."""


@dataclass(frozen=True, eq=False)
class PhantomDataset(Served):
    """A section dataset whose pixels are computed from a brain when they are asked for.

    Parameters
    ----------
    row
        What a server tells about it: a SectionDataSet row with everything nested in it
        (``alignment3d``, ``genes``, ``products``, ``specimen``, ``section_images`` each with
        ``alignment2d``), ready for JSON.
    brain
        What the pixels show.
    truth
        The row that the pixels are computed from, where `row` tells something else (see
        `altered`); None takes `row`.
    slides
        For each image id the slide it is on; images that are not listed are alone on theirs.
    """

    row: Row
    brain: PhantomBrain = field(default_factory=PhantomBrain)
    truth: Row | None = None
    slides: Mapping[int, int] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        """The SectionDataSet rows that a server serves: this one."""
        return [self.row]

    @property
    def id(self) -> int:
        """Id of the dataset."""
        return int(self._true["id"])

    @property
    def image_ids(self) -> list[int]:
        """Ids of the images, by ascending section number."""
        return [image["id"] for image in self._true["section_images"]]

    def image(self, image_id: int) -> Row:
        """Return the SectionImage row of an image, with its ``alignment2d``."""
        for image in self._true["section_images"]:
            if image["id"] == image_id:
                return dict(image)
        raise KeyError(f"dataset {self.id} has no image {image_id!r}; it has {self.image_ids}")

    def pir(self, image_id: int, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array, Array]:
        """Return where full-resolution pixels of an image lie, in the dataset's own space.

        Parameters
        ----------
        image_id
            Which image.
        x, y
            Full-resolution pixels of the section; broadcast against each other.

        Returns
        -------
        p, i, r
            Microns, float64: ``tvr`` after ``tsv``.
        """
        return oracle.image_to_reference(self._true, self.image(image_id), x, y)

    def pixels(
        self,
        image_id: int,
        tier: int = 0,
        left: int = 0,
        top: int = 0,
        width: int | None = None,
        height: int | None = None,
        view: View = "image",
        *,
        origin: Origin = "floor",
        shift: float = 0.0,
    ) -> Pixels:
        """Return a tier of an image, or a window of it.

        Parameters
        ----------
        image_id
            Which image.
        tier
            How often each side is halved: sizes are ``floor(size / 2**tier)``, at least 1.
        left, top, width, height
            The window, in pixels of the tier of the section; by default all of it. It may
            reach past the section: there is more of the slide.
        view
            ``"image"``, ``"projection"``, ``"expression"`` (a heat map on black) or
            ``"expression_mask"`` (its grey levels).
        origin
            Which pixel is centred where. ``"floor"``: pixel k of the *slide's* tier is
            centred on its full-resolution pixel ``k * 2**tier``, and the section begins at
            tier pixel ``floor(x / 2**tier)``, so that pixel k of the section is centred on
            ``k * 2**tier - x % 2**tier`` of the section. ``"exact"``: on ``k * 2**tier``.
        shift
            Where in a full-resolution pixel its own coordinate points: 0 the centre, 0.5 the
            corner (then pixel x shows the brain at ``x + 0.5``).

        Returns
        -------
        pixels
            Shape (height, width, 3), or (height, width) of the mask; uint8.
        """
        image = self.image(image_id)
        step = 2**tier
        size = (
            max(image["width"] // step, 1) - left if width is None else width,
            max(image["height"] // step, 1) - top if height is None else height,
        )
        corner = (image["x"] + left * step, image["y"] + top * step)
        if origin == "floor":
            corner = (corner[0] - corner[0] % step, corner[1] - corner[1] % step)
        return self.slide_pixels(image_id, view, tier, corner, size, shift=shift)

    def slide_pixels(
        self,
        image_id: int,
        view: View,
        tier: int,
        corner: tuple[int, int],
        size: tuple[int, int],
        *,
        shift: float = 0.0,
    ) -> Pixels:
        """Return part of the slide that an image is on.

        Each pixel shows the section whose rectangle is nearest, so that tissue goes on
        smoothly past the rectangle of its section.

        Parameters
        ----------
        corner
            The full-resolution pixel of the slide that the first pixel is centred on.
        size
            Width and height in pixels of the tier.

        Returns
        -------
        pixels
            Shape (height, width, 3), or (height, width) of the mask; uint8.
        """
        if view not in get_args(View):
            raise ValueError(f"view is {view!r}; it must be one of {', '.join(get_args(View))}")
        image = self.image(image_id)
        step = 2**tier
        x = corner[0] + step * np.arange(size[0])
        y = corner[1] + step * np.arange(size[1])
        neighbours = self._on_slide_of(image_id)
        if len(neighbours) == 1 or (
            _within(image, "x", "width", x) and _within(image, "y", "height", y)
        ):
            return self._section(image, view, corner, step, size, shift)
        gaps = np.stack(
            [
                np.maximum(
                    _outside(other, "x", "width", x)[None, :],
                    _outside(other, "y", "height", y)[:, None],
                )
                for other in neighbours
            ]
        )
        nearest = np.argmin(gaps, axis=0)
        shape = (size[1], size[0]) if view == "expression_mask" else (size[1], size[0], 3)
        out = np.empty(shape, dtype=np.uint8)
        for place, other in enumerate(neighbours):
            down, along = (nearest == place).any(axis=1), (nearest == place).any(axis=0)
            if not down.any():
                continue
            (first_row, last_row), (first, last) = _ends(down), _ends(along)
            start = (corner[0] + step * first, corner[1] + step * first_row)
            extent = (last - first + 1, last_row - first_row + 1)
            part = self._section(other, view, start, step, extent, shift)
            box = (slice(first_row, last_row + 1), slice(first, last + 1))
            mine = nearest[box] == place
            out[box][mine] = part[mine]
        return out

    def altered(self, change: Callable[[Row], Any]) -> PhantomDataset:
        """Return a dataset that tells something else than it shows.

        Parameters
        ----------
        change
            Called with a deep copy of the row, which it changes in place. The pixels go on
            being computed from the row as it was.

        Examples
        --------
        >>> from atldld.testing import phantom_dataset
        >>> dataset = phantom_dataset(7, sections=3)
        >>> def lose_alignment(row):
        ...     row["section_images"][0]["alignment2d"] = None
        >>> dataset.altered(lose_alignment).row["section_images"][0]["alignment2d"] is None
        True
        """
        told = copy.deepcopy(self.row)
        change(told)
        return replace(self, row=told, truth=self._true)

    @property
    def _true(self) -> Row:
        return self.row if self.truth is None else self.truth

    def _on_slide_of(self, image_id: int) -> list[Row]:
        slide = self.slides.get(image_id)
        if slide is None:
            return [self.image(image_id)]
        return [
            image for image in self._true["section_images"] if self.slides.get(image["id"]) == slide
        ]

    def _section(
        self,
        image: Row,
        view: View,
        corner: tuple[int, int],
        step: int,
        size: tuple[int, int],
        shift: float,
    ) -> Pixels:
        """Colour evenly spaced points of a section.

        Where they lie closer together than the brain's `lattice`, colours are computed on a
        coarser lattice and interpolated between, so that images of 100 megapixels can be had. The
        lattice is fixed to the section, so that a window shows what the whole image shows.
        """
        start = (corner[0] - image["x"] + shift, corner[1] - image["y"] + shift)
        matrix = image["alignment2d"]
        pitch = step * float(np.hypot(matrix["tsv_00"], matrix["tsv_02"]))
        coarse = max(int(self.brain.lattice / pitch), 1) if self.brain.lattice >= 2 * pitch else 1
        levels = view != "image"
        blocks = (
            self._exact(image, start, step, size, levels)
            if coarse == 1
            else self._interpolated(image, start, step, size, coarse, levels)
        )
        out = np.empty((size[1], size[0]) if levels else (size[1], size[0], 3), dtype=np.uint8)
        first = 0
        for block in blocks:
            # Half a level more, and the fraction dropped: rounded.
            out[first : first + len(block)] = block + block.dtype.type(0.5)
            first += len(block)
        colours = {"expression": _HEAT, "projection": _GLOW}
        return colours[view][out] if view in colours else out

    def _exact(
        self,
        image: Row,
        start: tuple[float, float],
        step: int,
        size: tuple[int, int],
        levels: bool,
    ) -> Iterator[npt.NDArray[np.floating]]:
        """Yield blocks of rows, every point computed."""
        x = start[0] + step * np.arange(size[0], dtype=np.float64)
        y = start[1] + step * np.arange(size[1], dtype=np.float64)
        rows = max(_BLOCK // max(size[0], 1), 1)
        for first in range(0, size[1], rows):
            yield self._field(image, x, y[first : first + rows], levels)

    def _interpolated(
        self,
        image: Row,
        start: tuple[float, float],
        step: int,
        size: tuple[int, int],
        coarse: int,
        levels: bool,
    ) -> Iterator[npt.NDArray[np.floating]]:
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
        rows = max(_BLOCK // len(nodes[0]), 1)
        for first_row in range(0, len(nodes[1]), rows):
            block = slice(first_row, first_row + rows)
            field = self._field(image, nodes[0], nodes[1][block], levels)
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
            yield pixels[..., 0] if levels else pixels

    def _field(self, image: Row, x: Array, y: Array, levels: bool) -> Array:
        """Return the colours (or levels) at columns x and rows y of a section."""
        # The map is affine: what x adds and what y adds are computed once per column and row.
        along, down, corner = (
            oracle.image_to_reference(self._true, image, *at)
            for at in ((x, 0.0), (0.0, y), (0.0, 0.0))
        )
        p, i, r = (
            a[None, :] + (d - c)[:, None] for a, d, c in zip(along, down, corner, strict=True)
        )
        if self._true.get("reference_space_id") == 10:
            r = oracle.flip(r)
        return self.brain.expression(p, i, r) if levels else self.brain.colour(p, i, r)


def _ramp(*stops: tuple[int, int, int, int]) -> Pixels:
    """Return colours for grey levels, shape (256, 3): level, then red, green, blue of each stop."""
    at, *channels = zip(*stops, strict=True)
    ramp = [np.interp(np.arange(256), at, channel) for channel in channels]
    return np.asarray(np.rint(np.stack(ramp, axis=-1)), dtype=np.uint8)


_HEAT = _ramp(
    (0, 0, 0, 0), (1, 0, 0, 110), (64, 0, 80, 255), (120, 0, 220, 120), (180, 255, 230, 0),
    (255, 255, 20, 0),
)  # fmt: skip
"""Expression: black for nothing, then blue, green, yellow, red."""

_GLOW = _ramp((0, 0, 0, 0), (128, 210, 60, 0), (200, 255, 170, 0), (255, 255, 255, 200))
"""Projection: black, orange, white."""


def _within(image: Row, corner: str, side: str, places: npt.NDArray[np.int64]) -> bool:
    return bool((_outside(image, corner, side, places) == 0).all())


def _outside(
    image: Row, corner: str, side: str, places: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return how many pixels of the slide lie between each place and the section."""
    low = image[corner]
    high = low + image[side] - 1
    return np.asarray(np.maximum(np.maximum(low - places, places - high), 0))


def _ends(flags: npt.NDArray[np.bool_]) -> tuple[int, int]:
    found = np.flatnonzero(flags)
    return int(found[0]), int(found[-1])
