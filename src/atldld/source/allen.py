"""The Allen API as a source: metadata by RMA, images by the image download service."""

from __future__ import annotations

import json
import operator
import time
import warnings
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import (
    APIError,
    AtldldWarning,
    DatasetNotFoundError,
    ImageError,
    RegistrationError,
    plain,
)
from ..model.dataset import SectionDataset
from ..model.info import DatasetSummary
from ..model.read import VIEWS, ImageRead, Window
from ..model.terms import SearchTerms
from ..options import Options, current
from ..store.cache import Cache
from ..store.manifest import section_of
from ..store.names import dataset_name, image_name, service_name
from ..urls import base_url, without_credentials
from .catalogue import Catalogue, catalogue_of
from .http import UnfitBodyError, fetch, worth_retrying
from .jpeg import jpeg_fault, size_limit
from .rma import Query, Row, condition, fetch_page, fetch_rows, row_url
from .search_allen import search_service
from .single_flight import single_flight

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
        rows = self._rows(dataset_id)
        if rows.unasked:
            try:
                return SectionDataset.from_rows(rows.row, rows.images)
            except RegistrationError:
                rows = self._rows(dataset_id, ask=True)
        return SectionDataset.from_rows(rows.row, rows.images)

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
        options = current()
        cache = self._cache(options)
        name = image_name(read)
        return single_flight(
            (cache.place, read),
            lambda: cache.obtain(
                name,
                fetch=lambda: self._fetch_image(read, options),
                fits=lambda content: jpeg_fault(content, read.size) is None,
                url=self.url(read),
                patience=options.timeout * (options.retries + 1),
                section=section_of(read),
            ),
        )

    def cached(self, read: ImageRead) -> bool:
        """Whether a read seems to be in the cache, by the record and size of its file."""
        return self._cache(current()).holds(image_name(read), section_of(read))

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image, view and tier are cached; None is the whole."""
        return self._cache(current()).held(read)

    def kept_bytes(self, read: ImageRead) -> int:
        """Return how many bytes the cache has of a read, without reading them; 0 for none."""
        return self._cache(current()).files.size(image_name(read)) or 0

    def recall(self, key: str) -> str | None:
        """Return what was remembered about this service, here or by another process."""
        remembered = _remembered.get((self.name, key))
        if remembered is None:
            kept = self._cache(current()).load(service_name(key))
            remembered = None if kept is None else kept.decode(errors="replace")
        return remembered

    def remember(self, key: str, text: str) -> None:
        """Remember something about this service, in this process and in the cache."""
        _remembered[self.name, key] = text
        self._cache(current()).store(service_name(key), text.encode(), self.name)

    def discard(self, read: ImageRead) -> None:
        """Throw away what the cache holds of a read, because strict decoding failed."""
        self._cache(current()).discard(image_name(read))

    def _cache(self, options: Options) -> Cache:
        return Cache.of(options.cache_dir, self.base, options.cache_limit)

    def _fetch_image(self, read: ImageRead, options: Options) -> bytes:
        """Return the body of a read; where sizes of windows shrink with the tier, ask again.

        Nobody has documented whether a service counts the width and height of a window in
        pixels of the tier or of full resolution. The size of what comes back tells.
        """
        shrinking = self.recall(_SHRINKING) == "true"
        try:
            return self._fetch_body(read, options, shrinking)
        except _OtherSizesError:
            body = self._fetch_body(read, options, not shrinking)
            self.remember(_SHRINKING, "false" if shrinking else "true")
            return body

    def _fetch_body(self, read: ImageRead, options: Options, shrinking: bool) -> bytes:
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
                options=options,
            ).content
        except APIError as error:
            window = read.window
            lacks = "the service does not have it: " if error.status == 404 else ""
            raise ImageError(
                lacks + error.message,
                image_id=read.image_id,
                dataset_id=read.dataset_id,
                section_number=read.section_number,
                url=error.url,
                window=None if window is None else window.box,
            ) from error

    def _rows(self, dataset_id: int, ask: bool = False) -> _DatasetRows:
        """Return the rows of a dataset, or if the service is out of reach, those kept of it.

        With `ask`, or where the options say so, the service is asked whatever is at hand.
        """
        options = current()
        ask = ask or options.metadata_max_age == 0
        listed = None if ask else self.catalogue()
        if listed is not None and listed.has_images:
            with suppress(DatasetNotFoundError):
                return _DatasetRows(*listed.rows(dataset_id))
        url = row_url(self.name, "SectionDataSet", dataset_id, _INCLUDE)
        cache, name = self._cache(options), dataset_name(dataset_id)
        record = cache.record(name)
        kept = None if record is None else _DatasetRows.from_json(cache.load(name))
        if kept is not None and record is not None and not ask:
            # What another version asked for may lack something.
            age = time.time() - record.time
            if record.url == url and 0 <= age < options.metadata_max_age:
                return kept
        if kept is not None:
            options = options.model_copy(update={"retries": min(options.retries, 1)})
        try:
            rows = self._asked_rows(dataset_id, options)
        except APIError as error:
            if kept is None or record is None or not _out_of_reach(error):
                raise
            day = time.strftime("%Y-%m-%d", time.gmtime(record.time))
            warnings.warn(
                f"dataset {dataset_id} is described by what {self.name} answered on {day}; now "
                f"it does not: {error.message}",
                AtldldWarning,
                stacklevel=3,
            )
            return kept
        if rows != kept or options.metadata_max_age > 0:
            # The same answer is of today now.
            cache.store(name, rows.to_json(), url)
        return rows

    def _asked_rows(self, dataset_id: int, options: Options) -> _DatasetRows:
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
            return _DatasetRows(row, None)
        images = Query(
            "SectionImage", (condition("data_set_id", dataset_id),), include="alignment2d"
        )
        return _DatasetRows(row, fetch_rows(self.base, images, options))


@dataclass(frozen=True, slots=True)
class _DatasetRows:
    """The row of a dataset, and those of its images where it does not hold them."""

    row: Row
    images: list[Row] | None
    unasked: bool = field(default=False, compare=False)

    @classmethod
    def from_json(cls, text: bytes | None) -> _DatasetRows | None:
        try:
            fields = json.loads(text or b"")
            return cls(fields["row"], fields["images"], unasked=True)
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def to_json(self) -> bytes:
        return json.dumps({"row": self.row, "images": self.images}).encode()


def _out_of_reach(error: APIError) -> bool:
    return error.status is None or worth_retrying(error.status) or error.status == 200


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
