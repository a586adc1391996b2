"""Lazy arrays over the sections of a dataset: their pixels, and what follows from matrices alone.

A `Sampling` knows where every point of an array comes from, and nothing of sources. For an index it
gives a `Box`, which knows what is needed of each section, and how that fills the points. There are
three of each: sections each on its plane, volumes of parallel sections, and volumes of sections
that were registered one by one. The arrays are the same for all.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from hashlib import sha256
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.tokenize import tokenize
from xarray.core import indexing

from .. import options
from ..model.grid import Grid
from ..model.read import ImageRead, View
from ..model.sections import Sections
from ..reading.failures import Failing
from ..reading.reader import Found, LazyArray, Part, Reader, squeezed
from ..sampling.reads import Interpolation
from ..source import Source
from .index import ImagePlaces

CHANNELS = ("red", "green", "blue")
_CHANNEL = "channel"

What = Literal["covered", "section_number", "distance", "mirrored"]
_TYPES = {
    "covered": np.bool_, "section_number": np.int32, "distance": np.float64, "mirrored": np.bool_,
}  # fmt: skip
NOTHING = {"covered": False, "section_number": -1, "distance": np.nan, "mirrored": False}
"""What stands where no section is shown."""

Key = tuple[Any, ...]


def channels_of(view: View) -> tuple[int, ...]:
    """Return the length of the channel dimension, or nothing where a pixel has one value."""
    return () if view == "expression_mask" else (len(CHANNELS),)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SectionPart(Part):
    """What a box needs of one section.

    Parameters
    ----------
    section
        Row of the section among those of the sampling.
    """

    section: int


P = TypeVar("P", bound=SectionPart)
Images = Callable[[Sequence[P]], Iterator[Found[P]]]
"""What gives the images of some parts as they come, each decoded when it is asked for."""


class Box(ABC, Generic[P]):
    """Some points of an array: which sections they show, and how they are filled."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Number of points along the axes of the sampling, in their order there."""

    @abstractmethod
    def pieces(self) -> list[P]:
        """Return what is needed of each section: pure arithmetic, no pixels."""

    @abstractmethod
    def fill(self, images: Images[P], out: npt.NDArray[Any], fill_value: float) -> set[int]:
        """Fill `out`, of the shape and perhaps channels; return which sections could not be had."""

    @abstractmethod
    def shown(self, without: Collection[int] = ()) -> npt.NDArray[np.bool_]:
        """Return which points show a section, but for some that count for nothing."""

    @abstractmethod
    def put(self, what: What, out: npt.NDArray[Any]) -> None:
        """Put what follows from matrices alone where a section is shown."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sampling(ABC, Generic[P]):
    """How the sections of a dataset fill an array: everything but where bytes come from.

    Parameters
    ----------
    dataset_id
        The dataset, for messages.
    sections
        Its sections.
    grid
        Rows and columns of the plane, or the nodes of a volume.
    tiers
        Shape (n,): the tier each section is read at.
    view
        Which picture of the section.
    interpolation
        How a point is sampled from an image.
    """

    dataset_id: int
    sections: Sections
    grid: Grid
    tiers: npt.NDArray[np.int16]
    view: View
    interpolation: Interpolation | Literal["auto"]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Number of points along the three axes of the array."""

    @property
    def axes(self) -> tuple[int, int, int]:
        """Which axis of the array each axis of a box is."""
        return 0, 1, 2

    @property
    def channels(self) -> tuple[int, ...]:
        """Length of the channel dimension, or nothing where a pixel has one value."""
        return channels_of(self.view)

    @abstractmethod
    def box(self, key: Key) -> Box[P]:
        """Return the points of an outer index along the axes of the array."""

    @abstractmethod
    def at_tier(self, part: P, tier: int) -> P:
        """Return the same part, read at another tier."""

    @property
    def image_places(self) -> ImagePlaces | None:
        """Where the points lie, where they are those of sections."""
        return None

    @cached_property
    def token(self) -> str:
        """What tells it from others: two of one token read the same pixels."""
        names = [field.name for field in fields(self) if field.name not in ("sections", "tiers")]
        told = [repr(getattr(self, name)) for name in names]
        parts = type(self).__name__, *self.sections.__dask_tokenize__(), self.tiers.tolist(), *told
        return sha256(repr(parts).encode()).hexdigest()

    def __dask_tokenize__(self) -> str:
        return self.token

    def __getstate__(self) -> dict[str, object]:
        # What is derived is derived anew in the process that needs it.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def in_order(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn the axes of a box into those of the array."""
        return values.transpose(*np.argsort(self.axes), *range(3, values.ndim))


class PixelArray(Reader[P]):
    """The pixels of the sections of a dataset, read when they are indexed.

    Parameters
    ----------
    sampling
        Where every point comes from.
    source
        Where the images come from.
    fill_value
        Value of points that show no section; NaN makes the array float32.
    carried
        The options of the opening, for the process that computes.
    failing
        What to do about an image that cannot be had.
    marked
        Whether there is one channel more, the last one: 1 where the pixels are those of an
        image, 0 where they are not. Pixels and marks of a chunk come from one reading, and agree.

    Notes
    -----
    Shape (sections, rows, columns[, 3]) or (p, i, r[, 3]), with marks 4 or 2 at the end. Each
    section is read and decoded once for an index. It holds numpy columns, not records, and
    pickles: it travels in tasks.
    """

    def __init__(
        self,
        sampling: Sampling[P],
        source: Source,
        fill_value: float,
        carried: options.Carried,
        failing: Failing,
        *,
        marked: bool = False,
    ) -> None:
        super().__init__(source, carried, failing)
        self.sampling = sampling
        self.fill_value = fill_value
        self.marked = marked
        count = sum(sampling.channels)
        depth = (max(count, 1) + 1,) if marked else (count,) * bool(count)
        self.shape = (*sampling.shape, *depth)
        self.dtype = np.dtype(np.float32 if np.isnan(fill_value) else np.uint8)

    @property
    def image_places(self) -> ImagePlaces | None:
        """Where the pixels lie, where they are those of sections."""
        return self.sampling.image_places

    def pieces(self, key: Key) -> list[P]:
        """Return what an outer index into this array needs, one piece a section, no pixels."""
        box = self.sampling.box(key[:3])
        return box.pieces() if all(box.shape) else []

    def samples(self) -> list[ImageRead]:
        """Return a few images from amid the dataset, to find out about its service."""
        return self.sampling.sections.sample_images(self.sampling.dataset_id)

    def tier_count(self, part: P) -> int:
        """Return how many tiers the image of a piece has."""
        return int(self.sampling.sections.tier_count[part.section])

    def at_tier(self, part: P, tier: int) -> P:
        """Return the same piece, read at another tier."""
        return self.sampling.at_tier(part, tier)

    def _outer(self, key: Key) -> npt.NDArray[Any]:
        along = key[:3]
        if not self.marked:
            return squeezed(self._pixels(along)[0], key)
        depth = self.shape[3] - 1
        if np.all(np.arange(depth + 1)[key[3]] == depth):
            with options.using(self.carried):
                lacking = self.lacking(self.pieces(along))
            marks = self._marks(along, {part.section for part in lacking})
            values = np.zeros((*marks.shape, depth), dtype=self.dtype)
        else:
            values, filled = self._pixels(along)
            marks = self._marks(along, filled)
            values = values.reshape(*marks.shape, depth)
        both = np.concatenate([values, marks[..., None]], axis=-1, dtype=self.dtype)
        return squeezed(both, key)

    def _pixels(self, key: Key) -> tuple[npt.NDArray[Any], set[int]]:
        """Return the pixels of an outer index along three axes, and which sections were filled."""
        box, filled = self.sampling.box(key), set[int]()
        out = np.empty((*box.shape, *self.sampling.channels), dtype=self.dtype)
        if out.size:
            with options.using(self.carried):
                filled = box.fill(self.images, out, self.fill_value)
        return self.sampling.in_order(out), filled

    def _marks(self, key: Key, filled: set[int]) -> npt.NDArray[np.bool_]:
        """Return where an outer index along three axes shows sections that were not filled."""
        box = self.sampling.box(key)
        shown = box.shown(filled) if all(box.shape) else np.zeros(box.shape, dtype=bool)
        return self.sampling.in_order(shown)

    def __dask_tokenize__(self) -> Hashable:
        # dask does not look into what is returned here: whatever is not text must be made so.
        return (
            type(self).__name__,
            self.sampling.token,
            tokenize(self.source),
            repr(self.fill_value),
            self.failing.fill,
            self.failing.other_tiers,
            self.marked,
        )


class MatrixArray(LazyArray):
    """What follows from the matrices of a dataset alone: nothing is downloaded.

    Parameters
    ----------
    sampling
        Where every point comes from.
    what
        ``"covered"``, bool: whether a section is shown; ``"section_number"``, int32, -1 for none;
        ``"distance"``, float64, microns of the image stack (or along the slicing axis, of sections
        that were registered one by one), NaN for none; or ``"mirrored"``, bool.

    Notes
    -----
    Shape (sections, rows, columns) or (p, i, r).
    """

    def __init__(self, sampling: Sampling[Any], what: What) -> None:
        self.sampling = sampling
        self.what = what
        self.shape = sampling.shape
        self.dtype = np.dtype(_TYPES[what])

    @property
    def image_places(self) -> ImagePlaces | None:
        """Where the points lie, where they are those of sections."""
        return self.sampling.image_places

    def _outer(self, key: Key) -> npt.NDArray[Any]:
        box = self.sampling.box(key)
        out = np.full(box.shape, NOTHING[self.what], dtype=self.dtype)
        if out.size:
            box.put(self.what, out)
        return squeezed(self.sampling.in_order(out), key)

    def __dask_tokenize__(self) -> Hashable:
        return type(self).__name__, self.what, self.sampling.token


class UnfilledArray(LazyArray):
    """Where several marked arrays were not filled, or what else is true there.

    Whether an image can be had is only known once it was read, and may be another thing a moment
    later. So the pixels of a chunk and the marks of what was not filled come from one reading:
    with dask from one task, on whatever scheduler.

    Parameters
    ----------
    arrays
        Marked arrays of one shape, but for their channels.
    values
        An array from matrices alone, whose values count where nothing was filled. None: whether
        nothing was.
    nothing
        The value elsewhere.

    Notes
    -----
    It reads what it is asked about, unless these arrays were read before: then it says what
    they found. Shape as the arrays, without the channels.
    """

    def __init__(
        self, arrays: Sequence[Any], values: Any | None = None, nothing: Any = False
    ) -> None:
        self.arrays: tuple[Any, ...] = tuple(arrays)
        self.values = values
        self.nothing = nothing
        self.shape = self.arrays[0].shape[:-1]
        self.dtype = np.dtype(bool) if values is None else values.dtype

    @property
    def image_places(self) -> ImagePlaces | None:
        """Where the points lie, where they are those of sections."""
        places: ImagePlaces | None = self.arrays[0].image_places
        return places

    def readers(self, key: Key) -> Iterator[tuple[Reader[Any], Key]]:
        """Yield the readers that an outer index needs, each with the index into it."""
        for array in self.arrays:
            yield from array.readers((*key, array.shape[-1] - 1))

    def _outer(self, key: Key) -> Any:
        marks = [
            array[indexing.OuterIndexer((*key, array.shape[-1] - 1))] != 0 for array in self.arrays
        ]
        there = reduce(operator.and_, marks)
        if self.values is None:
            return there
        values = self.values[indexing.OuterIndexer(key)]
        return np.where(there, values, np.asarray(self.nothing, self.dtype))

    def __dask_tokenize__(self) -> Hashable:
        return type(self).__name__, tokenize(self.arrays, self.values, repr(self.nothing))


def without_marks(marked: xr.Variable, channels: tuple[int, ...], chunk: Any) -> xr.Variable:
    """Return the pixels of a lazy variable over a marked array.

    Parameters
    ----------
    marked
        Its last dimension is that of the channels and the mark.
    channels
        Length of the channel dimension of the pixels, or nothing.
    chunk
        Chunk size of the channel dimension.
    """
    part = marked.isel({_CHANNEL: slice(0, channels[0]) if channels else 0})
    if part.chunks is None:
        part.encoding["preferred_chunks"] = {
            dim: size
            for dim, size in marked.encoding["preferred_chunks"].items()
            if dim in part.dims
        }
    if _CHANNEL in part.dims:
        if part.chunks is None:
            part.encoding["preferred_chunks"][_CHANNEL] = chunk
        elif chunk not in (-1, *channels):
            part = part.chunk({_CHANNEL: chunk})
    return part


def not_filled(marked: Sequence[xr.Variable]) -> xr.Variable:
    """Return where none of some variables over marked arrays was filled; all are of dask."""
    marks = [variable.isel({_CHANNEL: -1}) != 0 for variable in marked]
    return reduce(operator.and_, marks)
