"""A store as a source: a bundle (folder, zip file, bucket), or the folder of a service in a cache.

A bundle is known by its manifest, whose SHA-256 is what tells one from another; a folder of a
cache by its path, and each file in it by its record. Everything is held against these each time
that it is read. Nothing is written.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from ..errors import (
    APIError,
    AtldldWarning,
    BundleError,
    DatasetNotFoundError,
    ImageError,
    plain,
)
from ..forking import PerProcess
from ..model.dataset import SectionDataset
from ..model.info import DatasetSummary
from ..model.read import ImageRead, Window
from ..model.terms import SearchTerms
from ..store.cache import Cache
from ..store.files import FileFaultError, Files, Location, ReadableFiles
from ..store.inventory import service_stores
from ..store.manifest import (
    MANIFEST_BYTES,
    Checked,
    Manifest,
    Record,
    read_checked,
    read_record,
    section_of,
)
from ..store.names import (
    MANIFEST,
    MOST_PIXELS,
    KeptImage,
    dataset_name,
    dataset_of_name,
    image_name,
    lies_within,
    service_name,
)
from ..store.zipped import ZipFiles
from .describing import DatasetRows
from .http import Body, fetch
from .jpeg import jpeg_fault, size_limit

_MOST_OPEN = 16


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A bundle that was opened in this process: its manifest, and where its files are read.

    Parameters
    ----------
    manifest
        What it says about itself.
    digest
        SHA-256 of the manifest's text, in hexadecimal.
    files
        Where its files are read.
    held
        Which windows it holds, by image id and view, then by tier; None is the whole image.
    """

    manifest: Manifest
    digest: str
    files: ReadableFiles
    held: Mapping[tuple[int, str], Mapping[int, set[Window | None]]]

    def read(self, name: str) -> bytes:
        """Return the content of a listed file, held against the manifest, or a fault."""
        return read_checked(self.files, name, self.manifest.files[name])


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
            bundle = _bundle(files, location)
        except FileFaultError as error:
            if error.missing and isinstance(files, Files) and _cached_datasets(files):
                return cls(location, None)
            raise _no_bundle(location, error) from error
        _remember(location, bundle)
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
        bundle = self._bundle()
        if bundle is None:
            raise BundleError(f"{self.name} is the folder of a cache; it has no manifest")
        return bundle.manifest

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
        bundle = self._bundle()
        there = self._datasets(bundle)
        if dataset_id not in there:
            listed = ", ".join(map(str, there[:10])) + (" and others" if len(there) > 10 else "")
            what = "cache folder" if bundle is None else "bundle"
            raise DatasetNotFoundError(
                f"there is no section dataset {dataset_id} in the {what} {self.name}; it holds "
                f"dataset {listed or 'none'}"
            )
        name = dataset_name(dataset_id)
        try:
            if bundle is None:
                record, content = self._cached(name)
                rows = DatasetRows.from_json(content, record.service)
            else:
                rows = DatasetRows.from_json(self._packed(bundle, name), bundle.manifest.service)
        except (FileFaultError, ValueError) as error:
            raise BundleError(f"{self.name}: {name} is of no use: {error}") from error
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
        bundle = self._bundle()
        summaries = []
        for dataset_id in self._datasets(bundle):
            try:
                found = self.rows(dataset_id).found(terms)
            except (BundleError, DatasetNotFoundError) as error:
                if bundle is not None:
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
        bundle, name = self._bundle(), image_name(read)
        try:
            if bundle is None:
                content = self._cached(name, read)[1]
            elif name not in bundle.manifest.files:
                raise FileFaultError(self._lacking(bundle, read, name))
            else:
                refuse_foreign(bundle.manifest.files[name], read)
                content = self._packed(bundle, name)
            fault = jpeg_fault(content, read.size)
            if fault is not None:
                raise FileFaultError(fault)
        except FileFaultError as error:
            raise ImageError(
                error.reason,
                image_id=read.image_id,
                dataset_id=read.dataset_id,
                section_number=read.section_number,
                url=self.url(read),
                window=None if read.window is None else read.window.box,
            ) from error
        return content

    def discard(self, read: ImageRead) -> None:
        """Do nothing: a store is not changed by reading it."""

    def url(self, read: ImageRead) -> str:
        """Return where the bytes of a read come from, without credentials."""
        return f"{self.name}/{image_name(read)}"

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image, view and tier it holds; None is the whole."""
        bundle = self._bundle()
        if bundle is None:
            return Cache(Files(self.location), None).held(read)
        windows = bundle.held.get((read.image_id, read.view), {}).get(read.tier, ())
        return frozenset(each for each in windows if each is None or lies_within(each, read))

    def tiers(self, image_id: int, view: str) -> frozenset[int]:
        """Return the tiers of which it holds an image in a view, or parts of it."""
        bundle = self._bundle()
        if bundle is not None:
            return frozenset(bundle.held.get((image_id, view), ()))
        listed = Files(self.location).listed(f"images/{image_id:d}")
        images = (KeptImage.of_name(each.name) for each in listed)
        return frozenset(each.tier for each in images if each is not None and each.view == view)

    def recall(self, key: str) -> str | None:
        """Return what was known about the service when the files were kept."""
        bundle = self._bundle()
        if bundle is not None:
            return bundle.manifest.remembered.get(key)
        try:
            return self._cached(service_name(key))[1].decode(errors="replace")
        except FileFaultError:
            return None

    def remember(self, key: str, text: str) -> None:
        """Do nothing: a store is not changed by reading it."""

    def _bundle(self) -> Bundle | None:
        """Return the opened bundle, or None where this is the folder of a cache."""
        if self.digest is None:
            return None
        bundle = _opened.value.get((self.location, self.digest))
        if bundle is None:
            bundle = open_bundle(self.location)
            if bundle.digest != self.digest:
                raise BundleError(
                    f"{self.name} is another bundle than when it was opened; open the dataset again"
                )
            _remember(self.location, bundle)
        return bundle

    def _datasets(self, bundle: Bundle | None) -> list[int]:
        if bundle is not None:
            return [bundle.manifest.dataset_id]
        return _cached_datasets(Files(self.location))

    def _cached(self, name: str, read: ImageRead | None = None) -> tuple[Record, bytes]:
        """Return a file of a cache's folder with its record, which it fits."""
        files = Files(self.location)
        try:
            record = read_record(files, name)
        except FileFaultError as error:
            if files.size(name) is None:
                raise FileFaultError(f"{name} is not in the cache folder {self.name}") from error
            raise
        if read is not None:
            refuse_foreign(record, read)
        return record, read_checked(files, name, record)

    def _packed(self, bundle: Bundle, name: str) -> bytes:
        """Return a file that the manifest lists, or say what is wrong and what to do.

        A bundle that was packed again meanwhile serves what it still holds: the manifest that
        counts is the one that it was opened with.
        """
        try:
            return bundle.read(name)
        except FileFaultError as error:
            fault = error
        try:
            now = open_bundle(self.location)
            if now.digest != self.digest:
                bundle = replace(bundle, files=now.files)
                content = bundle.read(name)
                _remember(self.location, bundle)
                return content
        except (BundleError, FileFaultError) as error:
            raise FileFaultError(
                f"{name} was there when the bundle was opened, and is not any more: {error}"
            ) from error
        state = "missing from" if fault.missing else "damaged in"
        raise FileFaultError(
            f"{name} is {state} the bundle: {fault.reason}. atldld.verify_bundle tells what else "
            "is, and atldld.pack to the same place mends it"
        ) from fault

    def _lacking(self, bundle: Bundle, read: ImageRead, name: str) -> str:
        """Return why a bundle cannot serve a read, and what to do."""
        reason = bundle.manifest.failed.get(name)
        if reason is not None:
            return f"it could not be had when the bundle was packed: {plain(reason)}"
        where = "" if read.window is None else f" in the window {read.window.box}"
        return (
            f"the bundle does not hold its {read.view} at tier {read.tier}{where}: it holds "
            f"{_listed(bundle, read)}. To pack more into it: atldld.pack("
            f"{bundle.manifest.dataset_id}, {self.name!r}, tiers=[{read.tier}], "
            f"views=[{read.view!r}], ...)"
        )


def open_bundle(location: Location) -> Bundle:
    """Read the manifest of a bundle.

    Raises
    ------
    BundleError
        If there is no bundle, packing it did not finish, or it is refused.
    """
    try:
        return _bundle(files_at(location), location)
    except FileFaultError as error:
        raise _no_bundle(location, error) from error


def files_at(location: Location) -> ReadableFiles:
    """Return where the files of a store are read.

    Raises
    ------
    BundleError
        If there is nothing, or nothing that may be read.
    """
    path, name = location.path, location.name
    try:
        if location.is_web:
            if not location.says_zip:
                raise BundleError(f"{name}: on a web server a bundle is a zip file")
            size = _web(location, 0, 1).whole_bytes
            if size is None:
                raise BundleError(f"{name}: its server does not say how large it is")
            return ZipFiles(lambda start, stop: _web(location, start, stop).content, size, name)
        if location.says_zip if path is None else path.is_file():
            return ZipFiles(location.read, location.size(), name)
        if path is None or path.is_dir():
            return Files(location)
    except FileFaultError as error:
        if not error.missing:
            raise BundleError(f"{name}: {error.reason}") from error
    except OSError as error:
        raise BundleError(f"{name} cannot be read: {error.strerror}") from error
    raise BundleError(
        f"there is nothing at {name}. A source is the path or fsspec URL of a bundle, or "
        "the base URL of a service (http:// or https://)"
    )


def _web(location: Location, start: int, stop: int) -> Body:
    """Return a part of a file on a web server."""
    try:
        return fetch(location.text, limit_bytes=stop - start, byte_range=(start, stop))
    except APIError as error:
        # Raised outside of the handler: an address may hold a signature.
        fault = FileFaultError(error.message, missing=error.status == 404)
    raise fault


def _bundle(files: ReadableFiles, location: Location) -> Bundle:
    text = files.read(MANIFEST, MANIFEST_BYTES)
    try:
        manifest = Manifest.from_json(text)
    except ValueError as error:
        raise BundleError(f"{location.name}: its manifest is refused: {error}") from error
    held: dict[tuple[int, str], dict[int, set[Window | None]]] = {}
    for name in manifest.files:
        image = KeptImage.of_name(name)
        if image is not None:
            tiers = held.setdefault((image.image_id, image.view), {})
            tiers.setdefault(image.tier, set()).add(image.window)
    return Bundle(manifest, hashlib.sha256(text).hexdigest(), files, held)


def refuse_foreign(what: Checked, read: ImageRead) -> None:
    """Raise a `FileFaultError` if a kept file is of another section than a read, or a giant."""
    pixels = read.size[0] * read.size[1]
    if pixels > MOST_PIXELS or what.size > size_limit(read.size):
        raise FileFaultError(f"it is refused: {what.size} bytes for {pixels} pixels")
    if what.section != section_of(read):
        raise FileFaultError("it is of another size, or cut from another place of the slide")


def _cached_datasets(files: Files) -> list[int]:
    """Return the ids of the datasets whose rows a folder of a cache holds, ascending."""
    try:
        names = {each.name for each in files.listed("datasets") if each.plain}
    except FileFaultError as error:
        if error.missing:
            return []
        raise BundleError(f"{files.location.name} cannot be read: {error.reason}") from error
    found = (dataset_of_name(name) for name in names if f"{name}.json" in names)
    return sorted(each for each in found if each is not None)


def _no_bundle(location: Location, fault: FileFaultError) -> BundleError:
    """Return the error of a place whose manifest cannot be read."""
    if not fault.missing:
        return BundleError(f"{location.name}: its manifest: {fault.reason}")
    if location.path is not None:
        services = [each for each in service_stores(location) if _cached_datasets(each)]
        if services:
            return BundleError(
                f"{location.name} holds the caches of {len(services)} services; name the folder "
                f"of one, such as {services[0].location.name}"
            )
    return BundleError(
        f"{location.name} has no {MANIFEST}: packing it did not finish, or it is no bundle. "
        "atldld.pack to the same place goes on where it stopped"
    )


def _listed(bundle: Bundle, read: ImageRead) -> str:
    """Return what a bundle holds of an image, or if nothing, of others, in words."""
    tiers = bundle.held.get((read.image_id, read.view), {})
    if not tiers:
        views = sorted({view for image_id, view in bundle.held if image_id == read.image_id})
        if views:
            return f"only {' and '.join(views)} of it"
        count = len({image_id for image_id, _ in bundle.held})
        return f"{count} images of dataset {bundle.manifest.dataset_id}, not this one"
    parts = []
    for tier, windows in sorted(tiers.items()):
        boxes = sorted(window.box for window in windows if window is not None)
        if None in windows:
            parts.append(f"tier {tier} (tier={tier} opens it)")
        else:
            more = f" and {len(boxes) - 3} more" if len(boxes) > 3 else ""
            parts.append(f"of tier {tier} the windows {', '.join(map(str, boxes[:3]))}{more}")
    return "; ".join(parts)


def _remember(location: Location, bundle: Bundle) -> None:
    opened = _opened.value
    opened[location, bundle.digest] = bundle
    for oldest in list(opened)[:-_MOST_OPEN]:
        opened.pop(oldest, None)


_opened: PerProcess[dict[tuple[Location, str], Bundle]] = PerProcess(dict)
"""The bundles that were opened last. Archives have locks, which a parent's thread may have held."""
