"""A store as a source: a bundle (folder, zip file, bucket), or the folder of a service in a cache.

A bundle is known by its manifest, whose SHA-256 is what tells one from another; a folder of a
cache by its path, and each file in it by its record. Everything is held against these each time
that it is read. Nothing is written.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Self

from ..errors import AtldldWarning, BundleError, DatasetNotFoundError
from ..model.dataset import SectionDataset
from ..model.info import DatasetSummary
from ..model.read import ImageRead, Window
from ..model.terms import SearchTerms
from ..process import PerProcess
from ..store.cache import Cache
from ..store.files import FileFaultError, Files, Location
from ..store.records import (
    KeptImage,
    dataset_name,
    dataset_of_name,
    image_name,
    read_checked,
    read_record,
    service_name,
)
from .bundle import Bundle, Manifest, files_at, kept_datasets, no_bundle, refuse_foreign
from .jpeg import jpeg_fault
from .rma import DatasetRows

_MOST_OPEN = 16


@dataclass(frozen=True, slots=True)
class _CacheFolder:
    """The folder of a service in a cache, of which nothing has to be opened. As a `Bundle`."""

    files: Files

    kind = "cache folder"

    def names(self, folder: str) -> Sequence[str]:
        if folder == "datasets":
            return [dataset_name(each) for each in kept_datasets(self.files)]
        return [each.name for each in self.files.listed(folder)]

    def service(self, name: str) -> str:
        return read_record(self.files, name).service

    def recall(self, key: str) -> str | None:
        try:
            return self.read(service_name(key)).decode(errors="replace")
        except FileFaultError:
            return None

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        return Cache(self.files, None).held(read)

    def read(self, name: str, read: ImageRead | None = None) -> bytes:
        try:
            record = read_record(self.files, name)
        except FileFaultError as error:
            if self.files.size(name) is None:
                where = f"the cache folder {self.files.location.name}"
                raise FileFaultError(f"{name} is not in {where}") from error
            raise
        if read is not None:
            refuse_foreign(record, read)
        return read_checked(self.files, name, record)


@dataclass(frozen=True, slots=True, repr=False)
class StoredSource:
    """Datasets that were kept: everything that opening them needs, without a network.

    Small, immutable and picklable. A file that is damaged is an error, never pixels.

    Parameters
    ----------
    location
        Where the store is; see `at`.
    digest
        Of a bundle, the SHA-256 of its manifest, in hexadecimal; None for a cache's folder.
    """

    location: Location
    digest: str | None

    @classmethod
    def at(cls, where: str | os.PathLike[str]) -> Self:
        """Open what a path or an fsspec URL names.

        Raises
        ------
        BundleError
            If there is no bundle, nor the folder of a service in a cache, packing did not
            finish, or it is refused.
        ValueError, TypeError
            If that cannot be the place of a store.
        """
        location = Location.of(where)
        files = files_at(location)
        try:
            bundle = Bundle.of(files, location)
        except FileFaultError as error:
            if error.missing and isinstance(files, Files) and kept_datasets(files):
                return cls(location, None)
            raise no_bundle(location, error) from error
        _remember(bundle)
        return cls(location, bundle.digest)

    def __repr__(self) -> str:
        return f"StoredSource({self.name!r})"

    def __dask_tokenize__(self) -> Hashable:
        """Return what tells this store from others: the hash of its manifest, or its path."""
        return "atldld.StoredSource", self.digest or self.name

    @property
    def name(self) -> str:
        """Its path or URL, without credentials."""
        return self.location.name

    @property
    def manifest(self) -> Manifest:
        """What a bundle says about itself."""
        store = self._store
        if isinstance(store, Bundle):
            return store.manifest
        raise BundleError(f"{self.name} is the folder of a cache; it has no manifest")

    def dataset(self, dataset_id: int) -> SectionDataset:
        """Return the metadata of a dataset.

        Raises
        ------
        DatasetNotFoundError
            If the store does not hold it; the message says what it holds.
        BundleError
            If the metadata are missing or damaged.
        RegistrationError
            If the dataset has no usable place in reference space.
        """
        return self.rows(dataset_id).dataset()

    def rows(self, dataset_id: int) -> DatasetRows:
        """Return the rows that describe a dataset; raises what `dataset` raises."""
        store, name = self._store, dataset_name(dataset_id)
        try:
            rows = DatasetRows.from_json(store.read(name), store.service(name))
        except (FileFaultError, ValueError) as error:
            there = self._datasets()
            if dataset_id in there:
                raise BundleError(f"{self.name}: {name} is of no use: {error}") from error
            listed = ", ".join(map(str, there[:10])) + (" and others" if len(there) > 10 else "")
            raise DatasetNotFoundError(
                f"there is no section dataset {dataset_id} in the {store.kind} {self.name}; it "
                f"holds dataset {listed or 'none'}"
            ) from None
        if rows.row.get("id") != dataset_id:
            raise BundleError(f"{self.name}: {name} describes another dataset than {dataset_id}")
        return rows

    def search(self, terms: SearchTerms) -> list[DatasetSummary]:
        """Return the datasets that meet some terms, by ascending id.

        Warns
        -----
        AtldldWarning
            If the metadata of one dataset of several are damaged; it is passed over.
        """
        summaries, there = [], self._datasets()
        for dataset_id in there:
            try:
                found = self.rows(dataset_id).found(terms)
            except (BundleError, DatasetNotFoundError) as error:
                if len(there) == 1:
                    raise
                warnings.warn(f"passed over: {error}", AtldldWarning, stacklevel=2)
                continue
            if found is not None:
                summaries.append(found)
        return summaries

    def image(self, read: ImageRead) -> bytes:
        """Return the JPEG of a read as it came, held against what is known of it; not decoded.

        Raises
        ------
        ImageError
            If the store does not hold it (the message says what it holds), or it is damaged.
        """
        try:
            content = self._store.read(image_name(read), read)
            fault = jpeg_fault(content, read.size)
            if fault is not None:
                raise FileFaultError(fault)
        except FileFaultError as error:
            raise read.error(error.reason, self.url(read)) from error
        return content

    def discard(self, read: ImageRead) -> None:
        """Do nothing: a store is not changed by reading it."""

    def url(self, read: ImageRead) -> str:
        """Return where the bytes of a read come from, without credentials."""
        return f"{self.name}/{image_name(read)}"

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image, view and tier it holds; None is the whole."""
        return self._store.held(read)

    def tiers(self, image_id: int, view: str) -> frozenset[int]:
        """Return the tiers of which it holds an image in a view, or parts of it."""
        images = map(KeptImage.of_name, self._store.names(f"images/{image_id:d}"))
        return frozenset(each.tier for each in images if each is not None and each.view == view)

    def recall(self, key: str) -> str | None:
        """Return what was known about the service when the files were kept."""
        return self._store.recall(key)

    def remember(self, key: str, text: str) -> None:
        """Do nothing: a store is not changed by reading it."""

    @property
    def _store(self) -> Bundle | _CacheFolder:
        """The bundle, opened if need be, or the folder of a cache."""
        if self.digest is None:
            return _CacheFolder(Files(self.location))
        bundle = _opened.value.get((self.location, self.digest))
        if bundle is None:
            bundle = Bundle.at(self.location)
            if bundle.digest != self.digest:
                raise BundleError(
                    f"{self.name} is another bundle than when it was opened; open the dataset again"
                )
            _remember(bundle)
        return bundle

    def _datasets(self) -> list[int]:
        found = map(dataset_of_name, self._store.names("datasets"))
        return [each for each in found if each is not None]


def _remember(bundle: Bundle) -> None:
    opened = _opened.value
    opened[bundle.location, bundle.digest] = bundle
    for oldest in list(opened)[:-_MOST_OPEN]:
        opened.pop(oldest, None)


_opened: PerProcess[dict[tuple[Location, str], Bundle]] = PerProcess(dict)
"""The bundles that were opened last. Archives have locks, which a parent's thread may have held."""
