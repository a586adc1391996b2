"""Opening the pixels of one section image."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from xarray.core import indexing

from ..errors import AtldldWarning, RegistrationError
from ..model.affine import Array, image_affine, tier_origin, tier_size
from ..model.bend import BendSource
from ..model.dataset import SectionDataset, SectionImage
from ..model.geometry import clip_to_box, pixel_points
from ..model.read import View, Window
from ..model.registration import Registration
from ..model.sections import SectionTable, tabulate
from ..model.space import AXES, flip_matrix, space_name
from ..reading.failures import Failing
from ..source import source_from
from ..source.protocol import Source
from ..source.search import dataset_of_image
from . import accessor as _accessor  # noqa: F401  # registers .atlas
from .base import Opening, failing_of, fill_of, guarded
from .chunks import in_chunks
from .describe import channel_coordinate
from .image import ImageArray
from .index import DIM, SectionPlaces
from .registering import placing_of, registered, registration_from
from .request import (
    LARGEST_TIER,
    Chunks,
    Region,
    checked,
    checked_region,
    target_space,
    whole_number,
)

CHUNK = 2048
"""Pixels between the edges of chunks, counted from the corner of the tier.

A multiple of the lattice of windows, so that neighbouring chunks share no file.
"""

_NUDGE = 1e-9


def open_image(
    image_id: int,
    *,
    tier: int = 0,
    region: Mapping[str, tuple[float, float]] | None = None,
    view: View = "image",
    chunks: Literal["auto"] | Mapping[str, Any] | None = "auto",
    reference_space: Literal["native", 9, 10] = "native",
    registration: Any = None,
    dataset_id: int | None = None,
    on_error: Literal["raise", "fill"] = "raise",
    source: str | Source | None = None,
) -> xr.DataArray:
    """Open the pixels of one section image, unwarped and lazy.

    For counting cells, and for tiles to train on: nothing is resampled. Only metadata are read
    here; of the image, only windows around the pixels that are computed.

    Parameters
    ----------
    image_id
        Id of the section image, as in the coordinate ``image_id`` of opened sections.
    tier
        How many times each side of the image is halved; 0 is full resolution.
    region
        What to cut out, ends included: ``{"x": (low, high), "y": ...}`` in full-resolution
        pixels; or ``{"p": (low, high), "i": ..., "r": ...}`` in microns, for the rectangle
        around what lies within. Both may be mixed; an axis that is not named is whole.
    view
        ``"image"``, ``"projection"``, ``"expression"`` (Allen's coloured heat map), or
        ``"expression_mask"`` (its grey levels: one value a pixel, no ``channel`` dimension).
    chunks
        ``"auto"``: squares of 2048 pixels, with edges at multiples of 2048 of the tier, whatever
        the region. A dict as in xarray. None: no dask.
    reference_space
        The space of p, i, r: ``"native"``, or 9 or 10 (r of the other one is ``11350 - r``).
    registration
        Another registration in the place of Allen's, as for `open_dataarray`: p, i, r are then
        those of its space, through the bend of a section that has one. The pixels are the same.
    dataset_id
        The dataset that the image belongs to, if you know: that saves a search.
    on_error
        What to do about pixels that cannot be had. ``"raise"``: an `ImageError`. ``"fill"``:
        they are 0 (bright field: 255), with a warning; ``.atlas.failures()`` tells.
    source
        Where data come from, as for `open_dataarray`.

    Returns
    -------
    xarray.DataArray
        uint8, dims ``(y, x, channel)``. The coordinates ``x`` (right) and ``y`` (down) are those
        of the middles of the pixels in full-resolution pixels of the section: pixel k of tier n
        is centred on ``k * 2**n``, counted from where its slide begins (so on a section that
        begins at 13 of its slide, pixel 0 of tier 3 is centred on -5). Scalars ``section``,
        ``image_id``, ``tier`` and ``microns_per_pixel``. ``.atlas.pir()`` gives the exact p, i,
        r of every pixel, lazily; ``.atlas.plan()``, ``.atlas.prefetch()`` and
        ``.atlas.geometry()`` work as on sections.

        Pixels of two images do not mix: combining them raises, as their x and y mean
        different places.

    Raises
    ------
    ValueError, TypeError
        If an option cannot be used, or the region holds no pixel.
    ImageError
        If there is no such image.
    RegistrationError
        If the image has no usable place, or not the view asked for.
    DatasetNotFoundError, APIError
        As `open_dataarray`.

    Notes
    -----
    Where a service sends wrong windows, whole images are read; where it moreover begins them on
    the section's own pixels instead of the slide's, the nearest pixels are given, half a pixel of
    the tier off at most.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(dataset_id=1001, sections=3)]) as server:
    ...     image = atldld.open_image(1001001, source=server.url)
    ...     tile = image.sel(x=slice(300, 319), y=slice(200, 209)).compute()
    ...     places = image.atlas.pir().sel(x=300, y=200).compute()
    >>> tile.sizes["y"], tile.sizes["x"], float(tile.x[0])
    (10, 20, 300.0)
    """
    wanted = checked(
        image_id=image_id, view=view, chunks=chunks, reference_space=reference_space,
        on_error=on_error,
    )  # fmt: skip
    number, pixels = wanted["image_id"], wanted["view"]
    wanted_tier = whole_number("tier", tier, 0, LARGEST_TIER)
    cut = checked_region(region, ("x", "y", *AXES))
    owner = None if dataset_id is None else checked(dataset_id=dataset_id)["dataset_id"]
    origin = source_from(source)
    record = dataset_of_image(origin, number) if owner is None else origin.dataset(owner)
    image, record = _image(record, number)
    space, fill = wanted["reference_space"], wanted["on_error"] == "fill"
    placing = None
    if registration is not None:
        placing = placing_of(registration_from(registration), record)
    opening = ImageOpening.of(
        record, image, origin, wanted_tier, pixels, space, fill=fill, registration=placing
    )
    return opening.array(opening.window(cut), wanted["chunks"])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImageOpening(Opening):
    """An image, and which pixels of it.

    Parameters
    ----------
    image
        One of the images of the dataset.
    tier, view
        Which pixels.
    affine
        From full-resolution (x, y, 1), straight, to p, i, r in the space that it is opened in,
        shape (3, 3).
    table
        The sections of the dataset, this one among them.
    registration
        What places them in the place of Allen's matrices.
    """

    image: SectionImage
    tier: int
    view: View
    affine: Array
    table: SectionTable
    registration: Registration | None = None

    @classmethod
    def of(
        cls,
        record: SectionDataset,
        image: SectionImage,
        source: Source,
        tier: int,
        view: View,
        space: int | Literal["native"],
        *,
        fill: bool,
        failing: Failing | None = None,
        fill_value: float | None = None,
        registration: Registration | None = None,
        table: SectionTable | None = None,
    ) -> ImageOpening:
        """Check that the image has what is asked for, and work out where its pixels lie."""
        if tier >= image.tier_count:
            raise ValueError(
                f"tier is {tier}; image {image.id} has tiers 0 to {image.tier_count - 1}"
            )
        if view.startswith("expression") and not image.has_expression:
            raise RegistrationError(
                f"image {image.id} of dataset {record.id} has no expression mask "
                "(expression_path is null); use view='image'"
            )
        target: int | Literal["CCFv3"] | None
        if registration is None:
            target, flip = target_space(record, space)
            tvr = np.vstack([record.matrix("tvr"), [0, 0, 0, 1]])
            if flip:
                tvr = flip_matrix() @ tvr
            z = image.section_number * record.section_thickness
            affine = image_affine(np.array(image.tsv), tvr[:3], z)
            if table is None:
                table = tabulate(record, mapping="parallel", flip=flip)
        else:
            target = registration.reference_space
            if table is None:
                table = registered(record, registration, reference_space=space)
            row = np.flatnonzero(table.image_id == image.id)
            if not len(row):
                raise RegistrationError(
                    f"{registration.name} does not place image {image.id}, section "
                    f"{image.section_number} of dataset {record.id}"
                )
            affine = pixel_points(table.take(row))[0]
        carried, own = failing_of(
            image.id, tier, view, source, target, fill=fill, other_tiers=False
        )
        return cls(
            record=record,
            source=source,
            space=target,
            fill_value=fill_of(record, view) if fill_value is None else fill_value,
            carried=carried,
            failing=own if failing is None else failing,
            image=image,
            tier=tier,
            view=view,
            affine=affine,
            table=table,
            registration=registration,
        )

    @property
    def bend(self) -> BendSource | None:
        """Where the bend of the section comes from; None for a straight one."""
        found: BendSource | None = self.table.bend[self.table.image_id == self.image.id][0]
        return found

    @property
    def origin(self) -> tuple[float, float]:
        """Full-resolution x and y on which pixel (0, 0) of the tier is centred."""
        return tier_origin(self.image.x, self.tier), tier_origin(self.image.y, self.tier)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the tier."""
        return tier_size(self.image.width, self.tier), tier_size(self.image.height, self.tier)

    def window(self, region: Region) -> Window:
        """Return the pixels of the tier within a region, or refuse one that holds none."""
        ends = {axis: region[axis] for axis in AXES if axis in region}
        spans = self._spans(ends)
        window = []
        for axis, name in enumerate(("x", "y")):
            low, high = spans[axis]
            if name in region:
                low, high = max(low, region[name][0]), min(high, region[name][1])
            window.append(self._numbers(axis, low, high))
        (left, width), (top, height) = window
        if width <= 0 or height <= 0:
            raise ValueError(
                f"the region {region} holds no pixel of image {self.image.id}, whose x and y end "
                f"at {self.image.width - 1} and {self.image.height - 1}"
            )
        return Window(left, top, width, height)

    def _spans(self, ends: Region) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the least and greatest x and y of what lies within ends of p, i, r."""
        if not ends:
            return ((-math.inf, math.inf),) * 2
        step = 2**self.tier
        (left, top), (width, height) = self.origin, self.size
        right, bottom = left + (width - 1) * step, top + (height - 1) * step
        # Of a bent section, as far around as any pixel of the image may come from.
        bend = None if self.bend is None else self.bend.load()
        if bend is not None:
            around = self.image.width + self.image.height
            moves = bend.moves((left - around, right + around), (top - around, bottom + around))
            (left, right), (top, bottom) = (
                (least - high, most - low)
                for (least, most), (low, high) in zip(
                    ((left, right), (top, bottom)), moves, strict=True
                )
            )
        xy = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        places = np.column_stack([xy, np.ones(4)]) @ self.affine.T
        low, high = (
            np.array([ends.get(axis, (-np.inf, np.inf))[side] for axis in AXES]) for side in (0, 1)
        )
        inside = clip_to_box(np.concatenate([xy, places], axis=1), low, high)
        if not len(inside):
            return ((math.inf, -math.inf),) * 2
        least, most = inside[:, :2].min(axis=0), inside[:, :2].max(axis=0)
        if bend is not None:
            moves = bend.moves((least[0], most[0]), (least[1], most[1]))
            least = least + [low for low, _ in moves]
            most = most + [high for _, high in moves]
        return (float(least[0]), float(most[0])), (float(least[1]), float(most[1]))

    def _numbers(self, axis: int, low: float, high: float) -> tuple[int, int]:
        """Return the first tier pixel within ends, and how many there are; 0 or less for none."""
        step, origin, size = 2**self.tier, self.origin[axis], self.size[axis]
        first = 0 if low == -math.inf else min(max((low - origin) / step, -1.0), float(size))
        last = size if high == math.inf else min(max((high - origin) / step, -1.0), float(size))
        start = max(math.ceil(first - _NUDGE), 0)
        return start, min(math.floor(last + _NUDGE), size - 1) - start + 1

    def array(self, window: Window, chunks: Chunks) -> xr.DataArray:
        """Return the pixels of a window of the tier, lazily."""
        variable = self.variable(window, chunks, self.table)
        return xr.DataArray(variable, coords=self._coordinates(window), name=self.view)

    def variable(self, window: Window, chunks: Chunks, table: SectionTable) -> xr.Variable:
        """Return the pixels of a window without their coordinates.

        Parameters
        ----------
        window, chunks
            Which pixels, and how they are cut.
        table
            The sections that the array carries, this one among them.
        """
        place = int(np.flatnonzero(table.image_id == self.image.id)[0])
        whole = table.whole_image(self.record.id, place, self.tier, self.view)
        array = ImageArray(
            whole,
            window,
            self.affine,
            table,
            self.fill_value,
            self.source,
            self.carried,
            self.failing,
            self.bend,
        )
        dims = ("y", "x", "channel")[: len(array.shape)]
        variable = xr.Variable(dims, indexing.LazilyIndexedArray(array), self._attributes())
        sizes = _chunk_sizes(chunks, window, dims)
        return in_chunks(variable, sizes, array, chunked=chunks is not None)

    def _attributes(self) -> dict[str, Any]:
        attrs = self.attributes(
            mapping="none: the image's own pixels",
            resolution=self._microns,
            registration=self.registration,
        )
        image = self.image
        return {
            **self.of_pixels(self.view, attrs),
            "image_id": image.id,
            "section_number": image.section_number,
            "tier": self.tier,
            "width": image.width,
            "height": image.height,
        }

    @property
    def _microns(self) -> float:
        """Reference microns that a pixel of the tier spans along its longer axis."""
        return float(np.linalg.norm(self.affine[:, :2], axis=0).max() * 2**self.tier)

    def _coordinates(self, window: Window) -> xr.Coordinates:
        step, (left, top) = 2**self.tier, self.origin
        x = left + step * np.arange(window.left, window.right, dtype=np.float64)
        y = top + step * np.arange(window.top, window.bottom, dtype=np.float64)
        pixels = {"units": "full-resolution pixels"}
        space = space_name(-1 if self.space is None else self.space)
        where = f"the pixels of section image {self.image.id} in {space}"
        scalars = {
            DIM: xr.Variable((), self.image.section_number, {"long_name": "section number"}),
            "image_id": xr.Variable((), self.image.id, {"long_name": "section image id"}),
            "tier": xr.Variable((), self.tier, {"long_name": "tier"}),
            "microns_per_pixel": xr.Variable(
                (),
                self._microns,
                {"long_name": "reference microns per pixel of the tier", "units": "µm"},
            ),
        }
        plain: dict[Any, Any] = {
            "y": xr.Variable("y", y, {"long_name": "y (down)", **pixels}),
            "x": xr.Variable("x", x, {"long_name": "x (right)", **pixels}),
        }
        if self.view != "expression_mask":
            plain["channel"] = channel_coordinate()
        default = xr.Coordinates(plain)
        coordinates = xr.Coordinates(
            {**scalars, **default.variables}, indexes=dict(default.xindexes)
        )
        bends = {} if self.bend is None else {self.image.id: self.bend}
        images = np.array([self.image.id])
        places = SectionPlaces(self.table, images, self.affine[None], pixel_bends=bends)
        return guarded(coordinates, self.space, where, self.failing.ledger, [places])


def _image(record: SectionDataset, image_id: int) -> tuple[SectionImage, SectionDataset]:
    """Return an image and its dataset, which lists it even if it failed quality control."""
    for image in record.images:
        if image.id == image_id:
            return image, record
    for image in record.failed_images:
        if image.id == image_id:
            warnings.warn(
                f"image {image_id} of dataset {record.id} failed quality control at the Allen "
                "Institute",
                AtldldWarning,
                stacklevel=3,
            )
            images = sorted((*record.images, image), key=lambda each: each.section_number)
            return image, replace(record, images=tuple(images))
    raise RegistrationError(
        f"dataset {record.id} has no image {image_id}, or none that has a place in reference space"
    )


def _chunk_sizes(chunks: Chunks, window: Window, dims: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(chunks, Mapping) and chunks:
        unknown = set(chunks) - set(dims)
        if unknown:
            raise ValueError(f"chunks names {sorted(map(str, unknown))}; dimensions are {dims}")
        return {dim: chunks.get(dim, -1) for dim in dims}
    return {
        "y": _on_lattice(window.top, window.height),
        "x": _on_lattice(window.left, window.width),
        **({"channel": -1} if len(dims) == 3 else {}),
    }


def _on_lattice(first: int, count: int) -> tuple[int, ...]:
    """Return the lengths of chunks with edges at multiples of `CHUNK`.

    Examples
    --------
    >>> _on_lattice(2000, 5000)
    (48, 2048, 2048, 856)
    """
    inner = range((first // CHUNK + 1) * CHUNK, first + count, CHUNK)
    return tuple(np.diff([first, *inner, first + count]).tolist())
