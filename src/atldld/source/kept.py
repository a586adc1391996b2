"""The cache's own folder of a service as a source: what was fetched, without a network."""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import AtldldWarning, BundleError, DatasetNotFoundError, ImageError
from ..model.dataset import SectionDataset
from ..model.info import DatasetSummary
from ..model.read import ImageRead, Window
from ..model.terms import SearchTerms
from .bundle_files import DATASET_BYTES
from .cache import Cache, Record, Section, section_of
from .describing import DatasetRows
from .jpeg import jpeg_fault, size_limit
from .manifest import MANIFEST
from .names import dataset_name, image_name, service_name
from .places import FileFaultError, FolderPlace

_RECORD_BYTES: Final = 2**16
_DATASET: Final = re.compile(r"datasets/([0-9]{1,19})\.json")


@dataclass(frozen=True, slots=True, repr=False)
class CacheSource:
    """The folder of one service in a cache: read, never written to, without a network.

    Parameters
    ----------
    folder
        Its path, absolute.
    """

    folder: Path

    def __repr__(self) -> str:
        return f"CacheSource({self.name!r})"

    def __dask_tokenize__(self) -> Hashable:
        """Return what tells this folder from others: its path."""
        return "atldld.CacheSource", self.name

    @property
    def name(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    def dataset(self, dataset_id: int) -> SectionDataset:
        """Return the metadata of one dataset.

        Raises
        ------
        DatasetNotFoundError
            If they are not in the cache; the message says which are.
        BundleError
            If they are damaged.
        RegistrationError
            If the dataset has no usable place in reference space.
        """
        return self.rows(dataset_id).dataset()

    def rows(self, dataset_id: int) -> DatasetRows:
        """Return the rows that describe a dataset; raises what `dataset` raises."""
        there = cached_datasets(self.folder)
        if dataset_id not in there:
            listed = ", ".join(map(str, there[:10])) + (" and others" if len(there) > 10 else "")
            raise DatasetNotFoundError(
                f"there is no section dataset {dataset_id} in the cache folder {self.name}; it "
                f"holds {listed or 'none'}"
            )
        name = dataset_name(dataset_id)
        try:
            record, content = self._kept(name, DATASET_BYTES)
            rows = DatasetRows.from_json(content, record.service)
        except (FileFaultError, ValueError) as error:
            raise BundleError(f"{self.name}: {name} is of no use: {error}") from error
        if rows.row.get("id") != dataset_id:
            raise BundleError(f"{self.name}: {name} describes another dataset")
        return rows

    def search(self, terms: SearchTerms) -> list[DatasetSummary]:
        """Return the cached datasets that meet some terms, by ascending id.

        Warns
        -----
        AtldldWarning
            If the metadata of a dataset are damaged; it is passed over.
        """
        summaries = []
        for dataset_id in cached_datasets(self.folder):
            try:
                found = self.rows(dataset_id).found(terms)
            except (BundleError, DatasetNotFoundError) as error:
                warnings.warn(f"passed over: {error}", AtldldWarning, stacklevel=2)
                continue
            if found is not None:
                summaries.append(found)
        return summaries

    def image(self, read: ImageRead) -> bytes:
        """Return the JPEG of a read, held against the record of its download; not decoded.

        Raises
        ------
        ImageError
            If it is not in the cache, or damaged.
        """
        try:
            _, content = self._kept(image_name(read), size_limit(read.size), section_of(read))
            fault = jpeg_fault(content, read.size)
        except FileFaultError as error:
            fault = f"it is not in the cache folder: {error.reason}"
        if fault is None:
            return content
        raise ImageError(
            fault,
            image_id=read.image_id,
            dataset_id=read.dataset_id,
            section_number=read.section_number,
            url=self.url(read),
            window=None if read.window is None else read.window.box,
        )

    def discard(self, read: ImageRead) -> None:
        """Do nothing: the folder is only read."""

    def url(self, read: ImageRead) -> str:
        """Return where the bytes of a read come from."""
        return f"{self.name}/{image_name(read)}"

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image, view and tier it holds; None is the whole."""
        return Cache(self.folder).held(read)

    def recall(self, key: str) -> str | None:
        """Return what was remembered about the service."""
        try:
            _, content = self._kept(service_name(key), _RECORD_BYTES)
        except FileFaultError:
            return None
        return content.decode(errors="replace")

    def remember(self, key: str, text: str) -> None:
        """Do nothing: the folder is only read."""

    def _kept(self, name: str, most: int, section: Section | None = None) -> tuple[Record, bytes]:
        """Return a file with its record, which it fits."""
        place = FolderPlace(self.folder)
        record = Record.from_json(place.read(f"{name}.json", _RECORD_BYTES))
        if record is None:
            raise FileFaultError("its record is damaged")
        if record.name != name:
            raise FileFaultError("its record is another file's: one was copied over the other")
        if record.section != section:
            raise FileFaultError("it is of another size, or cut from another place of the slide")
        content = place.read(name, most)
        if not record.fits(content):
            raise FileFaultError("its content is not what was fetched (size or SHA-256 differs)")
        return record, content


def cached_datasets(folder: Path) -> list[int]:
    """Return the ids of the datasets whose rows a cache folder holds; empty if it is none."""
    if (folder / MANIFEST).exists():
        return []
    found = []
    for path in (folder / "datasets").glob("*.json"):
        name = _DATASET.fullmatch(f"datasets/{path.name}")
        if name is not None and path.with_name(f"{path.name}.json").is_file():
            found.append(int(name[1]))
    return sorted(found)
