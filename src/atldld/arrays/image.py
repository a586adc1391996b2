"""The pixels of one section image, as they are: opened lazily, read by windows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.tokenize import tokenize
from xarray.core import indexing

from .. import options as settings
from ..errors import AtldldWarning, RegistrationError
from ..model import affine as affines
from ..model.affine import Array, image_affine, tier_origin, tier_size
from ..model.bend import BendSource
from ..model.dataset import SectionDataset, SectionImage
from ..model.geometry import clip_to_box, pixel_points
from ..model.read import ImageRead, View, Window
from ..model.registration import Registration
from ..model.sections import SectionTable
from ..model.space import AXES, flip_matrix, space_name
from ..reading.failures import Failing
from ..reading.reader import Found, Part, Reader, places, squeezed
from ..sampling.reads import Indices
from ..source import Source, source_from
from ..source.search import dataset_of_image
from . import accessor as _accessor  # noqa: F401  # registers .atlas
from .base import (
    Opening,
    Space,
    channel_coordinate,
    chunks_given,
    failing_of,
    fill_of,
    guarded,
    in_chunks,
    placing_of,
    sections_of,
)
from .index import DIM, ImagePlaces, in_a_row
from .lazy import channels_of
from .request import Chunks, ImageOptions, Region, checked_id, checked_options, takes

CHUNK = 2048
"""Pixels between the edges of chunks, counted from the corner of the tier.

A multiple of the lattice of windows, so that neighbouring chunks share no file.
"""

_NUDGE = 1e-9


@takes(ImageOptions)
def open_image(image_id: int, **options: Unpack[ImageOptions]) -> xr.DataArray:
    """Open the pixels of one section image, unwarped and lazy.

    For counting cells, and for tiles to train on: nothing is resampled. Only metadata are read
    here; of the image, only windows around the pixels that are computed.

    Parameters
    ----------
    image_id
        Id of the section image, as in the coordinate ``image_id`` of opened sections.
    **options
        As in `ImageOptions`.

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
    number = checked_id("image_id", image_id)
    wanted = checked_options(ImageOptions, "open_image", options)
    source, owner = source_from(wanted["source"]), wanted["dataset_id"]
    record = dataset_of_image(source, number) if owner is None else source.dataset(owner)
    image, record = _image(record, number)
    registration = placing_of(wanted["registration"], record)
    space, table = image_sections(record, registration, wanted["reference_space"])
    carried, failing = failing_of(
        number,
        wanted["tier"],
        wanted["view"],
        source,
        space,
        fill=wanted["on_error"] == "fill",
        other_tiers=False,
    )
    opening = ImageOpening(
        record=record,
        source=source,
        space=space,
        fill_value=fill_of(record, wanted["view"]),
        carried=carried,
        failing=failing,
        image=image,
        tier=wanted["tier"],
        view=wanted["view"],
        table=table,
        registration=registration,
    )
    return opening.array(opening.window(wanted["region"]), wanted["chunks"])


def image_sections(
    record: SectionDataset,
    registration: Registration | None,
    reference_space: int | Literal["native"],
) -> tuple[Space, SectionTable]:
    """Return the space that images of a dataset are opened in, and its sections there."""
    mapping: affines.Mapping = "parallel" if registration is None else "oblique"
    return sections_of(record, registration, reference_space, mapping=mapping)


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageOpening(Opening):
    """An image, and which pixels of it.

    Parameters
    ----------
    image
        One of the images of the dataset.
    tier, view
        Which pixels.
    table
        The sections of the dataset, this one among them.
    registration
        What places them in the place of Allen's matrices.
    """

    image: SectionImage
    tier: int
    view: View
    table: SectionTable
    registration: Registration | None = None

    def __post_init__(self) -> None:
        """Check that the image has what is asked for."""
        image, dataset_id = self.image, self.record.id
        if self.tier >= image.tier_count:
            raise ValueError(
                f"tier is {self.tier}; image {image.id} has tiers 0 to {image.tier_count - 1}"
            )
        if self.view.startswith("expression") and not image.has_expression:
            raise RegistrationError(
                f"image {image.id} of dataset {dataset_id} has no expression mask "
                "(expression_path is null); use view='image'"
            )
        if self.registration is not None and image.id not in self.table.image_id:
            raise RegistrationError(
                f"{self.registration.name} does not place image {image.id}, section "
                f"{image.section_number} of dataset {dataset_id}"
            )

    @cached_property
    def affine(self) -> Array:
        """From full-resolution (x, y, 1), straight, to p, i, r of its space, shape (3, 3)."""
        record = self.record
        if self.registration is not None:
            own = self.table.take(self.table.image_id == self.image.id)
            return np.asarray(pixel_points(own)[0])
        tvr = np.vstack([record.matrix("tvr"), [0, 0, 0, 1]])
        if self.space != record.reference_space:
            tvr = flip_matrix() @ tvr
        z = self.image.section_number * record.section_thickness
        return image_affine(np.array(self.image.tsv), tvr[:3], z)

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
        space = space_name(self.space)
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
        default = xr.Coordinates(plain)
        variables: dict[Any, xr.Variable] = {**scalars, **default.variables}
        indexes: dict[Any, xr.Index] = dict(default.xindexes)
        if channels_of(self.view):
            variables |= channel_coordinate().variables
            indexes |= channel_coordinate().xindexes
        places = image_places(self.table, self.image.id, self.affine, self.bend)
        return guarded(variables, indexes, self.space, where, [self.failing.ledger], [places])


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
        return chunks_given(chunks, dims)
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
        carried: settings.Carried,
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
        self.shape = (window.height, window.width, *channels_of(whole.view))
        self.dtype = np.dtype(np.float32 if np.isnan(fill_value) else np.uint8)

    @property
    def image_places(self) -> ImagePlaces:
        """Where the pixels lie."""
        return image_places(self.table, self.whole.image_id, self.affine, self.bend)

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
            with settings.using(self.carried):
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


def image_places(
    table: SectionTable, image_id: int, affine: Array, bend: BendSource | None
) -> ImagePlaces:
    """Return where the pixels of one image lie."""
    bends = {} if bend is None else {image_id: bend}
    return ImagePlaces(table, np.array([image_id]), affine[None], pixel_bends=bends)


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
    out[...] = found.image[in_a_row(rows)][:, in_a_row(columns)]
