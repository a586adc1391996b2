"""Bundles as sources: a dataset packed into a folder, a zip file or an object store.

A bundle is opened by its manifest, whose SHA-256 is what tells one bundle from another.
Everything else is held against the manifest each time it is read.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Self

from ..errors import BundleError, DatasetNotFoundError, ImageError, plain
from ..model.dataset import SectionDataset
from ..model.info import DatasetSummary
from ..model.read import ImageRead, Window
from ..model.terms import SearchTerms
from .bundle_files import MOST_PIXELS
from .contents import Contents, Held, open_bundle
from .describing import DatasetRows
from .jpeg import jpeg_fault, size_limit
from .location import Location
from .manifest import Manifest
from .names import dataset_name, image_name
from .places import FileFaultError

_MOST_OPEN = 16


@dataclass(frozen=True, slots=True, repr=False)
class BundleSource:
    """A bundle: everything that opening its dataset needs, without a network.

    Small, immutable and picklable. What it reads it holds against the bundle's manifest; a file
    that is damaged is an error, never pixels.

    Parameters
    ----------
    location
        Where it is; see `at`.
    digest
        SHA-256 of the manifest, in hexadecimal.
    """

    location: Location
    digest: str

    @classmethod
    def at(cls, where: str | os.PathLike[str]) -> Self:
        """Open the bundle that a path or an fsspec URL names.

        Raises
        ------
        BundleError
            If there is no bundle, packing it did not finish, or it is refused.
        ValueError, TypeError
            If that cannot be the place of a bundle.
        """
        location = Location.of(where)
        contents = open_bundle(location)
        with _lock:
            _remember(location, contents)
        return cls(location, contents.digest)

    def __repr__(self) -> str:
        return f"BundleSource({self.name!r})"

    def __dask_tokenize__(self) -> Hashable:
        """Return what tells this bundle from others: the hash of its manifest."""
        return "atldld.BundleSource", self.digest

    @property
    def name(self) -> str:
        """Its path or URL, without credentials."""
        return self.location.name

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self._contents().manifest

    def dataset(self, dataset_id: int) -> SectionDataset:
        """Return the metadata of the dataset.

        Raises
        ------
        DatasetNotFoundError
            If the bundle holds another one; the message says which.
        BundleError
            If the metadata are missing or damaged.
        RegistrationError
            If the dataset has no usable place in reference space.
        """
        return self.rows(dataset_id).dataset()

    def rows(self, dataset_id: int) -> DatasetRows:
        """Return the rows that describe the dataset; raises what `dataset` raises."""
        contents = self._contents()
        there = contents.manifest.dataset_id
        if dataset_id != there:
            raise DatasetNotFoundError(
                f"there is no section dataset {dataset_id} in the bundle {self.name}; it holds "
                f"dataset {there}"
            )
        name = dataset_name(there)
        try:
            content = self._file(contents, name)
            rows = DatasetRows.from_json(content, contents.manifest.service)
        except (FileFaultError, ValueError) as error:
            raise BundleError(f"{self.name}: {name} is of no use: {error}") from error
        if rows.row.get("id") != there:
            raise BundleError(f"{self.name}: {name} describes another dataset than {there}")
        return rows

    def search(self, terms: SearchTerms) -> list[DatasetSummary]:
        """Return the dataset if it meets some terms; raises what `dataset` raises."""
        found = self.rows(self._contents().manifest.dataset_id).found(terms)
        return [] if found is None else [found]

    def image(self, read: ImageRead) -> bytes:
        """Return the JPEG of a read as it was packed, held against the manifest; not decoded.

        Raises
        ------
        ImageError
            If the bundle does not hold it (the message says what it holds), or it is damaged.
        """
        contents = self._contents()
        name = image_name(read)
        entry = contents.manifest.files.get(name)
        if entry is None:
            raise self._error(read, self._lacking(contents, read, name))
        if read.size[0] * read.size[1] > MOST_PIXELS or entry.size > size_limit(read.size):
            raise self._error(
                read,
                f"{name} is refused: {entry.size} bytes for {read.size[0]} x {read.size[1]} pixels",
            )
        try:
            content = self._file(contents, name)
        except FileFaultError as error:
            raise self._error(read, error.reason) from error
        fault = jpeg_fault(content, read.size)
        if fault is not None:
            raise self._error(read, fault)
        return content

    def discard(self, read: ImageRead) -> None:
        """Do nothing: a bundle is not changed by reading it."""

    def url(self, read: ImageRead) -> str:
        """Return where the bytes of a read come from, without credentials."""
        return f"{self.name}/{image_name(read)}"

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image, view and tier it holds; None is the whole."""
        tiers = self._contents().held.get((read.image_id, read.view), {})
        whole = Window(0, 0, read.width, read.height)
        windows = tiers.get(read.tier, frozenset())
        return frozenset(each for each in windows if each is None or whole.holds(each))

    def recall(self, key: str) -> str | None:
        """Return what was known about the service when the bundle was packed."""
        return self._contents().manifest.remembered.get(key)

    def remember(self, key: str, text: str) -> None:
        """Do nothing: a bundle is not changed by reading it."""

    def _contents(self) -> Contents:
        with _lock:
            contents = _opened.get((self.location, self.digest))
            if contents is not None:
                _opened.move_to_end((self.location, self.digest))
                return contents
        contents = open_bundle(self.location)
        if contents.digest != self.digest:
            raise BundleError(
                f"{self.name} is another bundle than when it was opened; open the dataset again"
            )
        with _lock:
            _remember(self.location, contents)
        return contents

    def _file(self, contents: Contents, name: str) -> bytes:
        """Return a file that the manifest lists, or say what is wrong and what to do.

        A bundle that was packed again meanwhile serves what it still holds: the manifest that
        counts is the one that it was opened with.
        """
        try:
            return contents.file(name)
        except FileFaultError as error:
            fault = error
        try:
            now = open_bundle(self.location)
            if now.digest != self.digest:
                contents = replace(contents, place=now.place)
                content = contents.file(name)
                with _lock:
                    _remember(self.location, contents)
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

    def _lacking(self, contents: Contents, read: ImageRead, name: str) -> str:
        """Return why a bundle cannot serve a read, and what to do."""
        reason = contents.manifest.failed.get(name)
        if reason is not None:
            return f"it could not be had when the bundle was packed: {plain(reason)}"
        tiers = contents.held.get((read.image_id, read.view), {})
        where = "" if read.window is None else f" in the window {read.window.box}"
        return (
            f"the bundle does not hold its {read.view} at tier {read.tier}{where}: it holds "
            f"{_listed(contents, read, tiers)}. To pack more into it: atldld.pack("
            f"{contents.manifest.dataset_id}, {self.name!r}, tiers=[{read.tier}], "
            f"views=[{read.view!r}], ...)"
        )

    def _error(self, read: ImageRead, reason: str) -> ImageError:
        return ImageError(
            reason,
            image_id=read.image_id,
            dataset_id=read.dataset_id,
            section_number=read.section_number,
            url=self.url(read),
            window=None if read.window is None else read.window.box,
        )


def _listed(contents: Contents, read: ImageRead, tiers: Held) -> str:
    """Return what a bundle holds of an image, or if nothing, of others, in words."""
    if not tiers:
        views = sorted({view for image_id, view in contents.held if image_id == read.image_id})
        if views:
            return f"only {' and '.join(views)} of it"
        count = len({image_id for image_id, _ in contents.held})
        return f"{count} images of dataset {contents.manifest.dataset_id}, not this one"
    parts = []
    for tier, windows in sorted(tiers.items()):
        boxes = sorted(window.box for window in windows if window is not None)
        if None in windows:
            parts.append(f"tier {tier} (tier={tier} opens it)")
        else:
            more = f" and {len(boxes) - 3} more" if len(boxes) > 3 else ""
            parts.append(f"of tier {tier} the windows {', '.join(map(str, boxes[:3]))}{more}")
    return "; ".join(parts)


_opened: OrderedDict[tuple[Location, str], Contents] = OrderedDict()
_lock = threading.Lock()


def _remember(location: Location, contents: Contents) -> None:
    _opened[location, contents.digest] = contents
    _opened.move_to_end((location, contents.digest))
    while len(_opened) > _MOST_OPEN:
        _opened.popitem(last=False)


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
