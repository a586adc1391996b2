"""The atlas as tables: fetched once in pages, kept as Parquet, read without a request.

::

    <folder of the service in the cache>/catalogue/
        manifest.json               what is there, and the SHA-256 of each file; written last
        building.json               what is under way, if anything
        <build>/datasets.parquet    a row a dataset, by ascending id
        <build>/images-0000.parquet a row a section image, of some neighbouring datasets
        <build>/page-0000.parquet   a page of datasets, until the table is whole

A file is written whole elsewhere and moved into place, so that whatever ends a build, the next one
goes on behind the last page that was written.
"""

from __future__ import annotations

import bisect
import os
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import AtldldWarning, BundleError, DatasetNotFoundError
from ..model.info import DatasetSummary, datasets_table
from ..model.rows import Row
from ..model.terms import SearchTerms
from ..options import current
from ..store.files import cache_location
from ..store.inventory import CacheReport, Damage, cache_place, service_stores
from ..store.records import service_folder
from ..urls import base_url, without_secrets
from . import columns
from .catalogue_build import Build
from .catalogue_files import (
    MANIFEST,
    MOST_DATASETS,
    MOST_IMAGES_A_BLOCK,
    CatalogueFolder,
    CatalogueManifest,
    block_name,
    dumped,
    table_of,
)
from .rma import Query, fetch_rows, with_product_ids

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_FOLDER: Final = "catalogue"
_BLOCKS_IN_MEMORY: Final = 8
_CATALOGUES_IN_MEMORY: Final = 4


def catalogue(
    source: str | os.PathLike[str] | Any = None,
    *,
    images: bool = False,
    refresh: bool = False,
    products: int | str | Sequence[int | str] | None = None,
) -> Catalogue:
    """Return the atlas as tables, fetched once and kept.

    Parameters
    ----------
    source
        None, the service of ``set_options(api_url=...)``; the base URL of a service; the path or
        fsspec URL of a copy, as `Catalogue.export` writes it; or a source that is a service.
    images
        Whether the table of section images is wanted, too. With it, opening a dataset of this
        service, or planning, asks nothing any more.
    refresh
        Whether to fetch it again although it is kept.
    products
        Ids or names of Allen's products; a dataset of one of them is taken. None takes every
        section dataset of the service. What is kept may hold more.

    Returns
    -------
    Catalogue
        Tables, by ``.datasets`` and ``.images``; it can be given as ``source=`` wherever a
        dataset is opened.

    Raises
    ------
    ValueError, TypeError
        If that cannot be a source.
    APIError
        If the service does not answer as it should. What has come is kept: the next call goes
        on behind it.
    BundleError
        If the copy is damaged, or not a catalogue.
    ImportError
        If pyarrow is missing.

    Warns
    -----
    AtldldWarning
        If the service promised more datasets than it sent.

    Notes
    -----
    Pages of at most 2,000 rows are asked for, one after another, each for the ids above those
    that have come, until a page is empty. Images are asked for by blocks of 150 datasets. The
    whole atlas of 26,078 datasets is about 540 requests.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, SyntheticAtlas
    >>> with AllenServer(SyntheticAtlas(5)) as server:
    ...     atlas = atldld.catalogue(server.url, images=True)
    >>> atlas.datasets[["dataset_id", "gene", "plane", "sections"]]
       dataset_id  gene     plane  sections
    0    70000000  Syn0  sagittal        20
    1    70000040  Syn0   coronal        57
    2    70000080  Syn1  sagittal        19
    3    70000120  Syn2  sagittal        20
    4    70000160  Syn3  sagittal        19
    """
    base = _service_of(source)
    if base is None:
        found = Catalogue.at(source)
        if images and not found.has_images:
            raise BundleError(f"the catalogue {found.name} holds no section images")
        return found
    wanted = _product_ids(base, products)
    folder = _cached_folder(base)
    kept = folder.manifest()
    if kept is not None and not refresh and _holds(kept, images, wanted):
        return Catalogue(folder.where, kept.build)
    with folder.locked():
        again = folder.manifest()
        if again is not None and again != kept and _holds(again, images, wanted):
            return Catalogue(folder.where, again.build)  # Another process has just built it.
        if again is not None and not refresh and _holds(again, False, wanted):
            table = _datasets(Catalogue(folder.where, again.build))
            build = Build(folder, base).run(again, table, images, wanted)
        else:
            build = Build(folder, base).run(None, None, images, wanted)
        return Catalogue(folder.where, build)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The atlas as tables, as it was on one day. See `catalogue`.

    Small and picklable: it holds where the tables are, which are read when they are asked for.

    Parameters
    ----------
    where
        Path or fsspec URL of its folder.
    build
        Which one of those that were made there.
    """

    where: str
    build: str

    @classmethod
    def at(cls, where: str | os.PathLike[str]) -> Catalogue:
        """Return the catalogue at a path or fsspec URL.

        Raises
        ------
        BundleError
            If there is none, or it is damaged.
        """
        if not isinstance(where, str | os.PathLike):
            raise TypeError(
                f"source is {where!r}; it must be the base URL of an Allen API, or the path or "
                "URL of a copy of a catalogue"
            )
        folder = CatalogueFolder.of(where)
        manifest = folder.manifest()
        if manifest is None:
            raise BundleError(f"there is no catalogue at {folder.location.name}")
        return cls(folder.where, manifest.build)

    def __repr__(self) -> str:
        manifest = self._manifest
        what = f"{manifest.datasets.rows} datasets"
        if self.image_count is not None:
            what += f", {self.image_count} section images"
        return f"<Catalogue of {self.service}, {self.date[:10]}: {what}>"

    def __len__(self) -> int:
        return self._manifest.datasets.rows

    def __dask_tokenize__(self) -> Hashable:
        return "atldld.Catalogue", self.name, self.build

    @property
    def name(self) -> str:
        """Where it is, without secrets."""
        return without_secrets(self.where)

    @property
    def service(self) -> str:
        """Base URL of the service that it tells of, without credentials."""
        return self._manifest.service

    @property
    def date(self) -> str:
        """When it was begun, as ``2026-11-24T21:00:00Z``."""
        return self._manifest.date

    @property
    def products(self) -> tuple[int, ...] | None:
        """Ids of the products that it was limited to, or None."""
        return self._manifest.products

    @property
    def has_images(self) -> bool:
        """Whether it holds the table of section images."""
        return self._manifest.images

    @property
    def image_count(self) -> int | None:
        """How many section images it holds, or None where they were not fetched."""
        blocks = self._manifest.blocks
        return None if blocks is None else sum(block.rows for block in blocks)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        manifest = self._manifest
        return manifest.datasets.size + sum(block.size for block in manifest.blocks or ())

    @property
    def datasets(self) -> pd.DataFrame:
        """A row a dataset, by ascending id.

        What `search` tells of each; ``aliases`` (of all genes, with blanks between); ``sections``,
        how many section images there are; ``tvr`` and ``trv``, arrays of shape (3, 4), or None.
        """
        import pandas as pd

        table = _datasets(self)
        frame = datasets_table(self.summaries())
        aliases = pd.Series([" ".join(each.aliases) for each in self.summaries()], dtype="str")
        frame.insert(list(frame).index("plane"), "aliases", aliases)
        frame["sections"] = pd.array(table["sections"].to_pylist(), "Int64")
        for name in ("tvr", "trv"):
            frame[name] = pd.Series(
                [_matrix_3d(entries) for entries in table[name].to_pylist()], dtype=object
            )
        return frame

    @property
    def images(self) -> pd.DataFrame:
        """A row a section image, by ascending ids of dataset and image.

        ``dataset_id``, ``image_id``, ``section_number``; ``width``, ``height``, ``x``, ``y`` (the
        section on its slide) and ``image_width``, ``image_height`` (the slide), full-resolution
        pixels; ``tier_count``; ``resolution`` (microns per pixel); ``failed``;
        ``has_expression``; ``tsv`` and ``tvs``, the six entries of each matrix, or None.

        Raises
        ------
        BundleError
            If it was fetched without images.
        """
        import pandas as pd

        self._needs_images()
        parts = [
            _block(self, place).to_pandas(integer_object_nulls=False)
            for place in range(len(self._manifest.blocks or ()))
        ]
        if not parts:
            parts = [columns.image_schema().empty_table().to_pandas()]
        frame: pd.DataFrame = pd.concat(parts, ignore_index=True)
        may_lack = dict.fromkeys(("section_number", *columns.WHOLE), "Int64")
        typed: pd.DataFrame = frame.astype(may_lack)
        return typed

    def summaries(self) -> Sequence[DatasetSummary]:
        """Return every dataset in a line, by ascending id."""
        return _summaries(self)

    def rows(self, dataset_id: int) -> tuple[Row, list[Row]]:
        """Return the row of a dataset, and those of its section images.

        Raises
        ------
        DatasetNotFoundError
            If it is not in the catalogue.
        BundleError
            If the catalogue is damaged, or holds no section images.
        """
        self._needs_images()
        table = _datasets(self)
        ids = table["dataset_id"].to_numpy()
        place = int(np.searchsorted(ids, dataset_id))
        if place == len(ids) or ids[place] != dataset_id:
            raise DatasetNotFoundError(
                f"there is no section dataset {dataset_id} in the catalogue {self.name}"
            )
        row = table.slice(place, 1).to_pylist()[0]
        blocks = self._manifest.blocks or ()
        block = bisect.bisect_right([each.first for each in blocks], dataset_id) - 1
        if block < 0:
            return columns.dataset_row(row), []
        images = _block(self, block)
        owners = images["dataset_id"].to_numpy()
        first, last = np.searchsorted(owners, [dataset_id, dataset_id + 1])
        found = images.slice(int(first), int(last - first))
        return columns.dataset_row(row), columns.image_rows(found)

    def search(self, terms: SearchTerms) -> list[DatasetSummary]:
        """Return the datasets that meet some terms, by ascending id.

        Raises
        ------
        ValueError
            If no dataset here is of such a product.
        """
        if any(isinstance(each, str) for each in terms.products):
            table = _datasets(self)["products"].combine_chunks().flatten().to_pylist()
            known = {each["id"]: each for each in table}
            terms = with_product_ids(terms, known.values())
        owners = None
        if terms.image_ids:
            owners = _datasets_of(self, terms.image_ids)
        return [
            each
            for each in self.summaries()
            if (owners is None or each.dataset_id in owners) and each.meets(terms)
        ]

    def covers(self, terms: SearchTerms) -> bool:
        """Whether what some terms look for would all be in here."""
        if terms.image_ids and not self.has_images:
            return False
        products = self.products
        return products is None or (bool(terms.products) and {*terms.products} <= {*products})

    def export(self, target: str | os.PathLike[str]) -> Catalogue:
        """Copy it to a folder or fsspec URL, and return the copy.

        Raises
        ------
        FileExistsError
            If there is another catalogue already.
        BundleError
            If this one is damaged.
        """
        manifest = self._manifest
        folder = CatalogueFolder.of(target)
        there = folder.manifest()
        if there is not None and there.build != self.build:
            raise FileExistsError(f"there is another catalogue at {folder.location.name}")
        source = CatalogueFolder.of(self.where)
        named = [("datasets.parquet", manifest.datasets)]
        if manifest.images:
            named += [(block_name(k), each) for k, each in enumerate(manifest.blocks or ())]
        for name, file in named:
            folder.write(f"{self.build}/{name}", source.sound(f"{self.build}/{name}", file))
        folder.write(MANIFEST, dumped(manifest))
        return Catalogue(folder.where, self.build)

    @property
    def _manifest(self) -> CatalogueManifest:
        manifest = CatalogueFolder.of(self.where).manifest()
        if manifest is None or manifest.build != self.build:
            raise BundleError(
                f"the catalogue {self.name} was replaced or removed since it was opened"
            )
        return manifest

    def _needs_images(self) -> None:
        if not self.has_images:
            raise BundleError(
                f"the catalogue {self.name} holds no section images: catalogue(images=True) or "
                "`atldld catalogue build --images` fetches them"
            )


def catalogue_of(base: str, tables: str | None = None) -> Catalogue | None:
    """Return the catalogue of a service that is at hand, or None.

    Parameters
    ----------
    base
        Base URL of the service.
    tables
        Where to look instead of the cache; then there must be one.

    Warns
    -----
    AtldldWarning
        If the one in the cache is damaged; it is then not used.
    """
    if tables is not None:
        return Catalogue.at(tables)
    folder = _cached_folder(base)
    try:
        manifest = folder.manifest()
        if manifest is not None and find_spec("pyarrow") is None:
            return None
    except BundleError as error:
        warnings.warn(f"not used: {error}", AtldldWarning, stacklevel=3)
        return None
    return None if manifest is None else Catalogue(folder.where, manifest.build)


def verify_catalogues(
    cache_dir: str | os.PathLike[str] | None = None, *, remove: bool = False
) -> CacheReport:
    """Hold the tables of every catalogue in the cache against its manifest.

    Parameters
    ----------
    cache_dir
        The folder of the cache; by default that of the options.
    remove
        Whether to throw the manifest of a damaged one away, so that it is fetched again.
    """
    files = size = 0
    damaged: list[Damage] = []
    for store in service_stores(cache_place(cache_dir)):
        folder = CatalogueFolder(store.location.below(_FOLDER))
        sound, total, faults = folder.checked()
        files += sound
        size += total
        for name, reason in faults.items():
            damaged.append(Damage(folder.location.below(name).name, reason))
        if faults and remove:
            folder.files.remove(MANIFEST)
    return CacheReport(files, size, tuple(damaged))


def _cached_folder(base: str) -> CatalogueFolder:
    return CatalogueFolder(
        cache_location(current().cache_dir).below(service_folder(base)).below(_FOLDER)
    )


def _service_of(source: Any) -> str | None:
    """Return the base URL of the service that a user named, or None for a path."""
    if source is None:
        source = current().api_url
    base = getattr(source, "base", None)
    if isinstance(base, str):
        return base
    if isinstance(source, str) and source.strip().lower().startswith(("http://", "https://")):
        return base_url(source.strip())
    return None


def _product_ids(base: str, products: Any) -> tuple[int, ...] | None:
    terms = SearchTerms.checked(product=products)
    if any(isinstance(each, str) for each in terms.products):
        terms = with_product_ids(terms, fetch_rows(base, Query("Product")))
    return tuple(sorted({int(each) for each in terms.products})) or None


def _holds(kept: CatalogueManifest, images: bool, products: tuple[int, ...] | None) -> bool:
    every = kept.products is None or (products is not None and {*products} <= {*kept.products})
    return every and (kept.images or not images)


@lru_cache(maxsize=_CATALOGUES_IN_MEMORY)
def _datasets(catalogue: Catalogue) -> pa.Table:
    name = f"the catalogue {catalogue.name}"
    content = CatalogueFolder.of(catalogue.where).sound(
        f"{catalogue.build}/datasets.parquet", catalogue._manifest.datasets
    )
    table = table_of(content, columns.dataset_schema(), name, MOST_DATASETS)
    if (np.diff(table["dataset_id"].to_numpy()) <= 0).any():
        raise BundleError(f"{name} is not in order")
    return table


@lru_cache(maxsize=_CATALOGUES_IN_MEMORY)
def _summaries(catalogue: Catalogue) -> Sequence[DatasetSummary]:
    table = _datasets(catalogue).drop_columns(["tvr", "trv"])
    nothing = {"tvr": None, "trv": None}
    return [
        DatasetSummary.from_row(columns.dataset_row({**record, **nothing}))
        for batch in table.to_batches(2000)
        for record in batch.to_pylist()
    ]


@lru_cache(maxsize=_BLOCKS_IN_MEMORY)
def _block(catalogue: Catalogue, place: int) -> pa.Table:
    name = f"{block_name(place)} of the catalogue {catalogue.name}"
    content = CatalogueFolder.of(catalogue.where).sound(
        f"{catalogue.build}/{block_name(place)}", (catalogue._manifest.blocks or ())[place]
    )
    table = table_of(content, columns.image_schema(), name, MOST_IMAGES_A_BLOCK)
    if (np.diff(table["dataset_id"].to_numpy()) < 0).any():
        raise BundleError(f"{name} is not in order")
    return table


@lru_cache(maxsize=_CATALOGUES_IN_MEMORY)
def _owners(catalogue: Catalogue) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the ids of all section images, ascending, and the dataset of each."""
    ids, datasets = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for place in range(len(catalogue._manifest.blocks or ())):
        table = _block(catalogue, place)
        ids.append(table["image_id"].to_numpy())
        datasets.append(table["dataset_id"].to_numpy())
    images = np.concatenate(ids)
    order = np.argsort(images, kind="stable")
    return images[order], np.concatenate(datasets)[order]


def _datasets_of(catalogue: Catalogue, image_ids: Sequence[int]) -> set[int]:
    """Return the datasets that some images belong to."""
    images, datasets = _owners(catalogue)
    return {int(each) for each in datasets[np.isin(images, image_ids)]}


def _matrix_3d(entries: list[float] | None) -> npt.NDArray[np.float64] | None:
    if entries is None:
        return None
    out = np.empty((3, 4))
    out[:, :3] = np.reshape(entries[:9], (3, 3))
    out[:, 3] = entries[9:]
    return out
