"""Lazy arrays that read section images: what all of them have in common.

A reader says which pieces an index into it is made of, each a part of one image; here they are
turned into reads, fetched together, and given back decoded, whatever the array does with them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from xarray.backends import BackendArray
from xarray.core import indexing

from .. import options
from ..errors import ImageError
from ..model.read import ImageRead, Window
from ..sampling.reads import Indices, choose_window
from ..sampling.warp import Pixels
from ..source import Source
from .conventions import known, settle
from .failures import Failing, is_bad_itself, neighbours
from .images import pixels, pixels_each


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Part:
    """A part of one image that a piece of an array needs.

    Parameters
    ----------
    whole
        The read of the whole image at the tier.
    needed
        The pixels that are needed of it, on the lattice of the slide; None where there is nothing
        to read.
    """

    whole: ImageRead
    needed: Window | None

    def read(self, held: Collection[Window | None] = ()) -> ImageRead:
        """Return what to ask a source for that has some windows of the image at hand.

        None among these is the whole image.
        """
        if self.needed is None:
            raise ValueError(f"nothing is needed of image {self.whole.image_id}")
        return replace(self.whole, window=choose_window(self.needed, self.whole.size, held))


_WORTH_KEEPING = 2**18
"""Pixels from which an image takes longer to decode than all else that is done about it."""
_LITTLE = 4

P = TypeVar("P", bound=Part)


@dataclass(frozen=True, slots=True, eq=False)
class Found(Generic[P]):
    """An image, as it came.

    Parameters
    ----------
    asked
        The part that was asked for.
    part
        The part that is here: another one where another tier serves.
    read
        What was read for it.
    image
        The pixels; None where there are none and the section is to be filled.
    whole_origin
        Where images of whole sections begin; see `Conventions`.
    """

    asked: P
    part: P
    read: ImageRead
    image: Pixels | None
    whole_origin: Literal["slide", "section"] | None

    @property
    def window(self) -> Window:
        """Where the pixels lie in the tier."""
        return self.read.window or Window(0, 0, *self.part.whole.size)

    @property
    def past_lattice(self) -> tuple[float, float]:
        """How far past a tier pixel of the slide the image begins, in pixels along x and y.

        A window lies on the pixel lattice of the slide; the whole image does too, unless the
        service lets it begin where the section does.
        """
        if self.read.window is None and self.whole_origin == "section":
            return self.read.fraction
        return 0.0, 0.0


class LazyArray(BackendArray):
    """An array whose values are found when it is indexed."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @abstractmethod
    def _outer(self, key: tuple[Any, ...]) -> Any:
        """Return the values of an outer index: one indexer an axis."""

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return index_outer(key, self.shape, self._outer)

    def readers(self, key: tuple[Any, ...]) -> Iterator[tuple[Reader[Any], tuple[Any, ...]]]:
        """Yield the readers that an outer index needs, each with the index into it; here none."""
        yield from ()


class Reader(LazyArray, Generic[P]):
    """A lazy array whose values come from section images.

    Parameters
    ----------
    source
        Where the images come from.
    carried
        The options of the opening, for the process that computes.
    failing
        What to do about an image that cannot be had.
    """

    def __init__(self, source: Source, carried: options.Carried, failing: Failing) -> None:
        self.source = source
        self.carried = carried
        self.failing = failing
        self._filled: dict[tuple[int, Window], None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_filled": {}}

    @abstractmethod
    def pieces(self, key: tuple[Any, ...]) -> Sequence[P]:
        """Return what an outer index into this array needs of each image, no pixels."""

    @abstractmethod
    def samples(self) -> list[ImageRead]:
        """Return a few images from amid the dataset, to find out about its service."""

    @abstractmethod
    def tier_count(self, part: P) -> int:
        """Return how many tiers the image of a part has."""

    @abstractmethod
    def at_tier(self, part: P, tier: int) -> P:
        """Return the same part, read at another tier."""

    def readers(self, key: tuple[Any, ...]) -> Iterator[tuple[Reader[Any], tuple[Any, ...]]]:
        """Yield this reader, with the index."""
        yield self, key

    def reads(self, key: tuple[Any, ...]) -> dict[ImageRead, bool]:
        """Return the images that an outer index into this array reads, without reading any.

        Each with whether it is at hand.
        """
        if any(len(each) == 0 for each in places(key, self.shape)):
            return {}
        with options.using(self.carried):
            asked, at_hand = self._asked(self.pieces(key), known(self.source).windows)
        return {read: read in at_hand for read in asked}

    def images(self, parts: Sequence[P]) -> Generator[Found[P], None, None]:
        """Yield the image of each part that needs one, in the order in which they come.

        Each is decoded when it is asked for: let go of one before asking for the next.

        Raises
        ------
        ImageError
            If an image cannot be had, unless such are to be filled.
        """
        found_out = known(self.source)
        asked, at_hand = self._asked(parts, found_out.windows)
        if found_out.lack(asked):
            found_out = settle(self.source, self.samples(), list(asked))
        # Not known to be right is not good enough.
        asked = {
            read if found_out.trust(read) else part.whole: part for read, part in asked.items()
        }
        lasting = {read for read, part in asked.items() if _uses_little(part.needed, read)}
        for read, found in pixels_each(self.source, asked, at_hand, lasting):
            wanted = part = asked[read]
            image: Pixels | None
            if isinstance(found, ImageError):
                read, image = self._instead(part, read, found)
                if read.tier != part.whole.tier:
                    part = self.at_tier(part, read.tier)
                found_out = settle(self.source, self.samples(), [read])
            else:
                image = found
                self.failing.had(read)
            self._note(wanted, filled=image is None)
            yield Found(wanted, part, read, image, found_out.whole_origin)
            del found, image  # before the next one is decoded

    def lacking(self, parts: Sequence[P]) -> list[P]:
        """Return the parts whose image cannot be had, as this array found when it last read them.

        What it has not read is read now.
        """
        filled = list(self._filled)
        lacking: list[P] = []
        unread: list[P] = []
        for part in parts:
            if part.needed is None:
                continue
            before = any(
                image_id == part.whole.image_id and _overlap(window, part.needed)
                for image_id, window in filled
            )
            (lacking if before else unread).append(part)
        for found in self.images(unread):
            if found.image is None:
                lacking.append(found.asked)
            del found  # before the next one is decoded
        return lacking

    def _note(self, part: P, *, filled: bool) -> None:
        """Keep in mind which windows of an image were filled, until they are had."""
        image_id, needed = part.whole.image_id, part.needed
        if needed is None:
            return
        # Other threads note as well: each step is one that no other can come into.
        if filled:
            self._filled[image_id, needed] = None
        elif self._filled:
            for noted in list(self._filled):
                if noted[0] == image_id and needed.holds(noted[1]):
                    self._filled.pop(noted, None)

    def _asked(
        self, parts: Sequence[P], windows: bool | None
    ) -> tuple[dict[ImageRead, P], set[ImageRead]]:
        """Return what to ask the source for, with its parts, and which of it is at hand."""
        asked, at_hand = {}, set()
        for part in parts:
            if part.needed is not None:
                held = self._held(part.whole)
                read = part.whole if windows is False else part.read(held)
                asked[read] = part
                if read.window in held:
                    at_hand.add(read)
        return asked, at_hand

    def has(self, read: ImageRead) -> bool:
        """Whether the source has a read at hand."""
        return read.window in self._held(read)

    def _held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image are at hand; a source may keep none."""
        held = getattr(self.source, "held", None)
        return frozenset() if held is None else held(read)

    def _instead(
        self, part: P, read: ImageRead, error: ImageError
    ) -> tuple[ImageRead, Pixels | None]:
        """Return what serves for an image that cannot be had: another tier, or nothing."""
        if self.failing.other_tiers:
            for tier in self._serving(part, read.tier, error):
                other = self.at_tier(part, tier).whole
                try:
                    found = pixels(self.source, other)
                except ImageError:
                    continue
                self.failing.ledger.note(read, error, f"tier {tier}")
                return other, found
        if not self.failing.fill:
            raise error
        self.failing.ledger.note(read, error, "filled")
        return read, None

    def _serving(self, part: P, tier: int, error: ImageError) -> Iterable[int]:
        """Return the tiers that may serve for one that cannot be had."""
        if is_bad_itself(error):
            return neighbours(tier, self.tier_count(part))
        # The service is away: what is at hand, and not coarser, may serve.
        finer = range(tier - 1, -1, -1)
        return (each for each in finer if None in self._held(self.at_tier(part, each).whole))


def places(key: tuple[Any, ...], shape: tuple[int, ...]) -> list[Indices]:
    """Return the positions that an outer index asks for along each axis."""
    return [
        np.atleast_1d(np.arange(length)[indexer])
        for indexer, length in zip(key, shape, strict=True)
    ]


def index_outer(
    key: indexing.ExplicitIndexer, shape: tuple[int, ...], outer: Callable[[tuple[Any, ...]], Any]
) -> Any:
    """Index by an explicit indexer of xarray, given a function that takes an outer one.

    Only vectorised indexers are taken apart by xarray: `outer` knows every other one, empty
    and negative slices included, on which xarray's own decomposition stumbles.
    """
    if isinstance(key, indexing.VectorizedIndexer):
        return indexing.explicit_indexing_adapter(key, shape, indexing.IndexingSupport.OUTER, outer)
    return outer(key.tuple)


def squeezed(out: npt.NDArray[Any], key: tuple[Any, ...], axes: int = 3) -> npt.NDArray[Any]:
    """Apply what is left of an outer index: the channel, and the axes that integers drop.

    Parameters
    ----------
    out
        Values along every axis.
    key
        The outer index.
    axes
        How many of its indexers are applied already.
    """
    for channel in key[axes:]:
        out = out[..., channel]
    return out[tuple(slice(None) if _keeps_axis(part) else 0 for part in key[:axes])]


def _keeps_axis(part: Any) -> bool:
    return isinstance(part, slice) or np.ndim(part) > 0


def _uses_little(needed: Window | None, read: ImageRead) -> bool:
    """Whether so little of a read is needed that others probably need the rest of it."""
    area = read.size[0] * read.size[1]
    return needed is not None and area >= _WORTH_KEEPING and needed.area <= area // _LITTLE


def _overlap(one: Window, other: Window) -> bool:
    return max(one.left, other.left) < min(one.right, other.right) and max(
        one.top, other.top
    ) < min(one.bottom, other.bottom)
