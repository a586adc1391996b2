"""Where bytes and rows come from: what a source must do, and the source that a user named."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ..model.dataset import SectionDataset
    from ..model.info import DatasetSummary
    from ..model.read import ImageRead, Window
    from ..model.terms import SearchTerms
    from .catalogue import Catalogue
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


def source_from(source: str | os.PathLike[str] | Source | Catalogue | None = None) -> Source:
    """Return the source that a user named.

    Parameters
    ----------
    source
        None for the service that the options name (``api_url``); the base URL of an Allen
        API, such as ``"http://127.0.0.1:8000/api/v2"``, where a bare host gets ``/api/v2``
        and a slash at the end makes no difference; the path or fsspec URL of a bundle (http and
        https only for a zip file); the folder of one service in a cache; a bucket of slides
        (``"s3://allen-mouse-brain-atlas"``, or another path or URL of its layout); a
        `Catalogue`, for its service, described by its tables; or a `Source`, which is returned
        as it is.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If it is a text that cannot name a source.
    BundleError
        If there is nothing at a path or URL, or no bundle that may be opened.

    Examples
    --------
    >>> source_from("http://127.0.0.1:8000/").name
    'http://127.0.0.1:8000/api/v2'
    """
    if source is None:
        from ..options import current

        source = current().api_url
    if isinstance(source, str) and _is_service(source):
        from .allen import AllenSource

        return AllenSource(source.strip())
    if isinstance(source, str | os.PathLike):
        return _stored(source)
    if isinstance(source, Source) and not isinstance(source, type):
        return source
    from .catalogue import Catalogue

    if isinstance(source, Catalogue):
        from .allen import AllenSource

        return AllenSource(source.service, source.where)
    raise TypeError(
        f"source is {source!r}; it must be None, the base URL of an Allen API, the path or URL of "
        "a bundle, a Catalogue, or a Source"
    )


def _stored(where: str | os.PathLike[str]) -> Source:
    """Return the bundle, cache folder or bucket of slides at a path or URL."""
    from ..errors import BundleError
    from ..store.files import Location
    from .bucket import OPEN_BUCKET, bucket_at
    from .stored import StoredSource

    if str(where).rstrip("/") == OPEN_BUCKET:
        return bucket_at(where) or StoredSource.at(where)
    try:
        return StoredSource.at(where)
    except BundleError:
        found = None
        # A web server is asked for nothing beside a bundle; what is wrong with a place that
        # cannot be reached was said.
        if not Location.of(where).is_web:
            with suppress(BundleError):
                found = bucket_at(where)
        if found is None:
            raise
        return found


def _is_service(source: str) -> bool:
    url = source.strip().lower()
    return url.startswith(("http://", "https://")) and not url.partition("?")[0].endswith(".zip")
