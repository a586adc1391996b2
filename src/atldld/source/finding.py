"""Which dataset a section image belongs to."""

from __future__ import annotations

from collections import OrderedDict

from ..errors import APIError, ImageError
from ..model.dataset import SectionDataset
from ..model.terms import SearchTerms
from ..options import current
from .protocol import SearchableSource, Source

_MOST_KNOWN = 100_000


def dataset_of_image(source: Source, image_id: int) -> SectionDataset:
    """Return the dataset that a section image belongs to.

    One search more than `Source.dataset` needs; none where an image of the same dataset was
    asked for before. Where a service is out of reach, its cache is searched.

    Raises
    ------
    ImageError
        If the source has no such image.
    TypeError
        If the source cannot be searched.
    DatasetNotFoundError, APIError, RegistrationError, BundleError
        As the source does.
    """
    known = _known.get((source.name, image_id))
    record = source.dataset(_searched(source, image_id) if known is None else known)
    for image in (*record.images, *record.failed_images):
        _known[source.name, image.id] = record.id
    while len(_known) > _MOST_KNOWN:
        _known.popitem(last=False)
    return record


def _searched(source: Source, image_id: int) -> int:
    if not isinstance(source, SearchableSource):
        raise TypeError(
            f"the source {source.name} cannot be searched (it has no method search): say which "
            "dataset the image belongs to, dataset_id=..."
        )
    terms = SearchTerms(image_ids=(image_id,))
    try:
        found = source.search(terms)
    except APIError as error:
        kept = _cached(source)
        found = [] if kept is None else kept.search(terms)
        if not found:
            raise error
    if not found:
        raise ImageError(f"there is no such section image at {source.name}", image_id=image_id)
    return found[0].dataset_id


def _cached(source: Source) -> SearchableSource | None:
    """Return what the cache holds of a service, as a source that needs no network."""
    from ..store.cache import Cache
    from .allen import AllenSource
    from .stored import StoredSource

    if not isinstance(source, AllenSource):
        return None
    return StoredSource(Cache.of(current().cache_dir, source.base).files.location, None)


_known: OrderedDict[tuple[str, int], int] = OrderedDict()
"""Datasets of images, by the name of the source."""
