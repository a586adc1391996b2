"""What a source of section data must do."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

from ..model.dataset import SectionDataset
from ..model.info import DatasetSummary
from ..model.read import ImageRead, Window
from ..model.terms import SearchTerms

if TYPE_CHECKING:
    from .rma import DatasetRows


@runtime_checkable
class Source(Protocol):
    """Where metadata and images come from.

    A source is small, immutable and picklable: it travels in tasks. Whatever it needs at
    work (connections, locks) it finds in the process that it works in. All methods may be
    called from several threads at once.
    """

    @property
    def name(self) -> str:
        """What to call the source in attributes and messages; holds no secrets."""
        ...

    def dataset(self, dataset_id: int) -> SectionDataset:
        """Return the metadata of one dataset.

        Raises
        ------
        DatasetNotFoundError
            If the source has no such dataset.
        APIError
            If the source did not answer as it should.
        RegistrationError
            If the dataset has no usable place in reference space.
        """
        ...

    def image(self, read: ImageRead) -> bytes:
        """Return the JPEG of a read, checked in format, size and end, but not yet decoded.

        Raises
        ------
        ImageError
            If it cannot be had.
        """
        ...

    def discard(self, read: ImageRead) -> None:
        """Forget what is kept of a read, because strict decoding failed."""
        ...

    def url(self, read: ImageRead) -> str:
        """Return where the bytes of a read come from, for messages and plans."""
        ...

    def __dask_tokenize__(self) -> Hashable:
        """Return what tells this source from others, the same in every process."""
        ...


@runtime_checkable
class KeepingSource(Source, Protocol):
    """A source that keeps what it fetched, and what was found out about it."""

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image, view and tier are at hand; None is the whole."""
        ...

    def recall(self, key: str) -> str | None:
        """Return what was remembered about this source, perhaps in another process."""
        ...

    def remember(self, key: str, text: str) -> None:
        """Remember something about this source, if there is where to."""
        ...


@runtime_checkable
class SearchableSource(Source, Protocol):
    """A source that can say which datasets it has."""

    def search(self, terms: SearchTerms) -> list[DatasetSummary]:
        """Return the datasets that meet some terms, by ascending id.

        Raises
        ------
        ValueError
            If a product is named that there is none of.
        APIError
            If the source did not answer as it should.
        """
        ...


@runtime_checkable
class DescribingSource(Source, Protocol):
    """A source that can give the rows of a dataset as they came."""

    def rows(self, dataset_id: int) -> DatasetRows:
        """Return the rows of a dataset; raises what `Source.dataset` raises."""
        ...


def tiers_at_hand(source: Source, image_id: int, view: str) -> Collection[int] | None:
    """Return the tiers of an image that a source has, or None where it may have all.

    A source that has only some, such as a bundle, has a method ``tiers`` that says which.
    """
    tiers = getattr(source, "tiers", None)
    return None if tiers is None else tiers(image_id, view)


def image_ending(source: Source) -> str:
    """Return how files of a source's images end: ``"jpg"``, or ``"png"`` of lossless ones.

    A source of other images than JPEG has an attribute of this name.
    """
    return str(getattr(source, "image_ending", "jpg"))


def keeps(source: Source) -> TypeGuard[KeepingSource]:
    """Whether a source keeps what it fetched; asked once of each type, because that is slow."""
    kind = type(source)
    if kind not in _keeping:
        _keeping[kind] = isinstance(source, KeepingSource)
    return _keeping[kind]


_keeping: dict[type, bool] = {}
