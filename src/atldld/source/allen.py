"""The Allen API as a source: metadata by RMA, images by the image download service."""

from __future__ import annotations

import operator
import time
import warnings
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from ..errors import (
    APIError,
    AtldldWarning,
    DatasetNotFoundError,
    RegistrationError,
    plain,
)
from ..model.dataset import SectionDataset
from ..model.info import DatasetSummary
from ..model.read import VIEWS, ImageRead, Window
from ..model.terms import SearchTerms
from ..options import Options, current
from ..store.cache import Cache
from ..store.records import Record, dataset_name, image_name, section_of, service_name
from ..urls import base_url, without_credentials
from .catalogue import Catalogue, catalogue_of
from .http import UnfitBodyError, fetch, is_retryable
from .jpeg import jpeg_fault, size_limit
from .rma import (
    DatasetRows,
    Query,
    condition,
    fetch_page,
    fetch_rows,
    row_url,
    search_service,
)

_INCLUDE: Final = (
    "genes,products,specimen(donor(age)),treatments,alignment3d,equalization,"
    "section_images(alignment2d)"
)
"""All that a dataset is built from, in one row."""

_GREY_LEVELS: Final = "filter=colormap&filterVals=0,1,0,256,0"
"""The filter that turns the coloured heat map into grey levels; undocumented, but relied on."""

_SHRINKING: Final = "shrinking_windows"
_remembered: dict[tuple[str, str], str] = {}
"""What was found out about services, in case their cache cannot be written to."""

_VIEW_PARAMETERS: Final = {
    "image": (),
    "projection": ("view=projection",),
    "expression": ("view=expression",),
    "expression_mask": ("view=expression", _GREY_LEVELS),
}


@dataclass(frozen=True, slots=True, repr=False)
class AllenSource:
    """An Allen API.

    Small, immutable and picklable; connections and locks are those of the process that it
    works in. Images are kept in the cache of the options of the moment.

    Parameters
    ----------
    base
        Base URL of the API, such as ``"https://api.brain-map.org/api/v2"``. A URL that names
        only a host gets ``/api/v2``; a slash at the end makes no difference. A name and
        password in it are used, and never shown.
    tables
        Path or URL of a catalogue of this service, in place of the one in the cache.

    Raises
    ------
    ValueError
        If it is not the base URL of a service.

    Examples
    --------
    >>> AllenSource("http://me:secret@localhost:8000")
    AllenSource('http://localhost:8000/api/v2')
    """

    base: str
    tables: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", base_url(self.base))

    def __repr__(self) -> str:
        return f"AllenSource({self.name!r})"

    def __dask_tokenize__(self) -> Hashable:
        """Return what tells this source from others: its URL, without credentials."""
        return "atldld.AllenSource", self.name, *([] if self.tables is None else [self.tables])

    @property
    def name(self) -> str:
        """The base URL, without credentials."""
        return without_credentials(self.base)

    def dataset(self, dataset_id: int) -> SectionDataset:
        """Return the metadata of one dataset.

        None where a catalogue with section images is at hand, or where what was answered before
        is younger than the option ``metadata_max_age``, and enough; else one request, or two
        where the service does not nest the images in the dataset's row. Where the service is out
        of reach, its last answer is used, with an `AtldldWarning`.

        Raises
        ------
        DatasetNotFoundError
            If the service has no such dataset.
        APIError
            If it did not answer as it should.
        RegistrationError
            If the dataset has no usable place in reference space.
        """
        dataset_id = _whole(dataset_id, "dataset_id")
        listed = self._listed_rows(dataset_id)
        if listed is not None:
            return listed.dataset()
        kept = self._kept_rows(dataset_id)
        if kept is not None:
            # They may lack what the service has by now.
            with suppress(RegistrationError):
                return kept.dataset()
        return self._asked_rows(dataset_id).dataset()

    def rows(self, dataset_id: int) -> DatasetRows:
        """Return the rows that describe a dataset; raises what `dataset` raises."""
        dataset_id = _whole(dataset_id, "dataset_id")
        return (
            self._listed_rows(dataset_id)
            or self._kept_rows(dataset_id)
            or self._asked_rows(dataset_id)
        )

    def search(self, terms: SearchTerms) -> list[DatasetSummary]:
        """Return the datasets that meet some terms, by ascending id.

        Without a request where a catalogue is at hand that knows them all.

        Raises
        ------
        ValueError
            If the service has no such product; the message says which it has.
        APIError
            If it did not answer as it should.
        """
        listed = self.catalogue()
        if listed is not None and listed.covers(terms):
            return listed.search(terms)
        return search_service(self.base, terms)

    def catalogue(self) -> Catalogue | None:
        """Return the catalogue of this service that is at hand, or None.

        Raises
        ------
        BundleError
            If it is damaged and not the one in the cache.
        """
        return catalogue_of(self.base, self.tables)

    def url(self, read: ImageRead) -> str:
        """Return where the bytes of a read come from, without credentials."""
        return image_url(self.name, read)

    def image(self, read: ImageRead) -> bytes:
        """Return the JPEG of a read, from the cache, or fetched once and kept there.

        Whole, of the right size and checked against the record of its download; not yet
        decoded.

        Raises
        ------
        ImageError
            If it cannot be had.
        """
        return self.cache.obtain(
            image_name(read),
            fetch=lambda: self._fetch_image(read),
            fits=lambda content: jpeg_fault(content, read.size) is None,
            url=self.url(read),
            section=section_of(read),
        )

    def file(self, name: str, url: str, most: int, fault: Callable[[bytes], str | None]) -> bytes:
        """Return another file of the service, from the cache, or fetched once and kept there.

        Parameters
        ----------
        name
            What it is called in the cache.
        url
            Where it is; a name and password in it are not kept.
        most
            Bytes that it may have.
        fault
            Returns what is wrong with a content, in words, or None. What is kept is whole by its
            checksum: it is looked at before it is kept, and not again.

        Raises
        ------
        APIError
            If the service does not answer as it should; with `status` 404 if there is none.
        """

        def check(content: bytes, _: object) -> None:
            found = fault(content)
            if found is not None:
                raise UnfitBodyError(found)

        return self.cache.obtain(
            name,
            fetch=lambda: fetch(url, limit_bytes=most, check=check).content,
            fits=lambda _: True,
            url=without_credentials(url),
        )

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image, view and tier are cached; None is the whole."""
        return self.cache.held(read)

    def kept_bytes(self, read: ImageRead) -> int:
        """Return how many bytes the cache has of a read, without reading them; 0 for none."""
        return self.cache.files.size(image_name(read)) or 0

    def recall(self, key: str) -> str | None:
        """Return what was remembered about this service, here or by another process."""
        remembered = _remembered.get((self.name, key))
        if remembered is None:
            kept = self.cache.load(service_name(key))
            remembered = None if kept is None else kept.decode(errors="replace")
        return remembered

    def remember(self, key: str, text: str) -> None:
        """Remember something about this service, in this process and in the cache."""
        _remembered[self.name, key] = text
        self.cache.store(service_name(key), text.encode(), self.name)

    def discard(self, read: ImageRead) -> None:
        """Throw away what the cache holds of a read, because strict decoding failed."""
        self.cache.discard(image_name(read))

    @property
    def cache(self) -> Cache:
        """Where what it sent is kept, by the options of the moment."""
        return Cache.here(self.base)

    def _fetch_image(self, read: ImageRead) -> bytes:
        """Return the body of a read; where sizes of windows shrink with the tier, ask again.

        Nobody has documented whether a service counts the width and height of a window in
        pixels of the tier or of full resolution. The size of what comes back tells.
        """
        shrinking = self.recall(_SHRINKING) == "true"
        try:
            return self._fetch_body(read, shrinking)
        except _OtherSizesError:
            body = self._fetch_body(read, not shrinking)
            self.remember(_SHRINKING, "false" if shrinking else "true")
            return body

    def _fetch_body(self, read: ImageRead, shrinking: bool) -> bytes:
        def check(content: bytes, _: Any) -> None:
            fault = jpeg_fault(content, read.size)
            if fault is None:
                return
            if jpeg_fault(content, _other_size(read, shrinking)) is None:
                raise _OtherSizesError(fault)
            raise UnfitBodyError(fault)

        try:
            return fetch(
                image_url(self.base, read, shrinking=shrinking),
                limit_bytes=size_limit(_larger(read.size, _other_size(read, shrinking))),
                check=check,
            ).content
        except APIError as error:
            lacks = "the service does not have it: " if error.status == 404 else ""
            raise read.error(lacks + error.message, error.url) from error

    def _listed_rows(self, dataset_id: int) -> DatasetRows | None:
        """Return the rows of a dataset as the catalogue has them, if one is at hand."""
        listed = None if current().metadata_max_age == 0 else self.catalogue()
        if listed is not None and listed.has_images:
            with suppress(DatasetNotFoundError):
                return DatasetRows(*listed.rows(dataset_id), self.name)
        return None

    def _kept_rows(self, dataset_id: int) -> DatasetRows | None:
        """Return the rows of a dataset if they were kept, and are young enough to go by."""
        most = current().metadata_max_age
        described = self._described(dataset_id)
        if described is None:
            return None
        kept, record = described
        # What another version asked for may lack something.
        young = record.url == self._row_url(dataset_id) and 0 <= time.time() - record.time < most
        return kept if young else None

    def _described(self, dataset_id: int) -> tuple[DatasetRows, Record] | None:
        """Return what the cache holds of a dataset's rows, however old, and the record of it."""
        found = self.cache.load_recorded(dataset_name(dataset_id))
        with suppress(ValueError):
            if found is not None:
                return DatasetRows.from_json(found[0], self.name), found[1]
        return None

    def _asked_rows(self, dataset_id: int) -> DatasetRows:
        """Return the rows as the service has them, or if it is out of reach, those kept."""
        options = current()
        described = self._described(dataset_id)
        if described is not None:
            options = options.model_copy(update={"retries": min(options.retries, 1)})
        try:
            rows = self._fetched_rows(dataset_id, options)
        except APIError as error:
            if described is None or not _out_of_reach(error):
                raise
            kept, record = described
            day = time.strftime("%Y-%m-%d", time.gmtime(record.time))
            warnings.warn(
                f"dataset {dataset_id} is described by what {self.name} answered on {day}; now "
                f"it does not: {error.message}",
                AtldldWarning,
                stacklevel=3,
            )
            return kept
        if described is None or rows != described[0] or options.metadata_max_age > 0:
            # The same answer is of today now.
            name = dataset_name(dataset_id)
            self.cache.store(name, rows.to_json(), self._row_url(dataset_id))
        return rows

    def _fetched_rows(self, dataset_id: int, options: Options) -> DatasetRows:
        url = row_url(self.base, "SectionDataSet", dataset_id, _INCLUDE)
        missing = f"there is no section dataset {dataset_id} at {self.name}"
        try:
            rows = fetch_page(url, options).rows
        except APIError as error:
            if error.status == 404:
                raise DatasetNotFoundError(f"{missing} (HTTP status 404)") from error
            raise
        if not rows:
            raise DatasetNotFoundError(missing)
        row = rows[0]
        if row.get("id") != dataset_id:
            raise APIError(
                f"the service answered with dataset {plain(repr(row.get('id')))} instead of "
                f"{dataset_id}",
                url=without_credentials(url),
            )
        if row.get("section_images"):
            return DatasetRows(row, None, self.name)
        images = Query(
            "SectionImage", (condition("data_set_id", dataset_id),), include="alignment2d"
        )
        return DatasetRows(row, fetch_rows(self.base, images, options), self.name)

    def _row_url(self, dataset_id: int) -> str:
        return row_url(self.name, "SectionDataSet", dataset_id, _INCLUDE)


def _out_of_reach(error: APIError) -> bool:
    return error.status is None or is_retryable(error.status) or error.status == 200


class _OtherSizesError(Exception):
    """The service counts the size of a window in the other kind of pixels."""


def _other_size(read: ImageRead, shrinking: bool) -> tuple[int, int]:
    """Return the size that comes back where the size of a window means the other thing."""
    width, height = read.size
    if read.window is None or read.tier == 0:
        return width, height
    step = 2**read.tier
    return (width * step, height * step) if shrinking else (width // step, height // step)


def _larger(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return max(one[0], other[0]), max(one[1], other[1])


def image_url(base: str, read: ImageRead, *, shrinking: bool = False) -> str:
    """Return the URL of a read at the image download service.

    A window is asked for by its place on the slide in full-resolution pixels, a multiple of
    ``2**tier`` (there pixel k of a tier is centred on ``k * 2**tier``, and a section at x starts
    at tier pixel ``x // 2**tier``), and by its size in pixels of the tier, or if `shrinking` in
    pixels of full resolution.

    Raises
    ------
    ValueError, TypeError
        If the read names no image, view or tier that could be asked for.

    Examples
    --------
    >>> image_url("http://h/api/v2", ImageRead(7, "expression", 2, 100, 80))
    'http://h/api/v2/section_image_download/7?downsample=2&view=expression'
    """
    if read.view not in VIEWS:
        raise ValueError(f"the view is {read.view!r}; it must be one of {', '.join(VIEWS)}")
    image_id, tier = _whole(read.image_id, "image_id"), _whole(read.tier, "tier")
    parameters = [f"downsample={tier}", *_VIEW_PARAMETERS[read.view]]
    if read.window is not None:
        step = 2**tier
        left = (read.x // step + read.window.left) * step
        top = (read.y // step + read.window.top) * step
        unit = step if shrinking else 1
        parameters += [
            f"left={left:d}",
            f"top={top:d}",
            f"width={read.window.width * unit:d}",
            f"height={read.window.height * unit:d}",
            "downsample_dimensions=false",
        ]
    return f"{base}/section_image_download/{image_id}?{'&'.join(parameters)}"


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    number = operator.index(value)
    if number < 0:
        raise ValueError(f"{name} is {number}; it must not be negative")
    return number
