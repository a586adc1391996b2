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
import hashlib
import io
import os
import re
import secrets
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import APIError, AtldldWarning, BundleError, DatasetNotFoundError
from ..forking import PerProcess
from ..model.info import DatasetSummary
from ..model.rows import Row
from ..model.terms import SearchTerms
from ..options import current
from ..store.cache import cache_location
from ..store.files import FileFaultError, Files
from ..store.location import Location
from ..store.names import service_folder
from ..urls import base_url, without_credentials, without_secrets
from . import columns
from .rma import ROWS_A_PAGE, Query, condition, fetch_page, fetch_rows
from .search_allen import with_product_ids

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MANIFEST: Final = "manifest.json"
_BUILDING: Final = "building.json"
_FOLDER: Final = "catalogue"
_FORMAT: Final = 1

DATASETS_A_BLOCK: Final = 150
"""Datasets whose images one file holds: their ids make a URL of 1.6 kB, and 2 pages of rows."""

_INCLUDE: Final = "genes,products,specimen(donor(age)),alignment3d,equalization"
_MOST_DATASETS: Final = 1_000_000
_MOST_IMAGES_A_BLOCK: Final = 1_000_000
_LARGEST_MANIFEST: Final = 2**23
_LARGEST_FILE: Final = 2**28
_LARGEST_TABLE: Final = 2**30
"""Bytes of a Parquet file, and of the table that it says it holds."""

_BUILD: Final = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")
_STALE_SECONDS: Final = 30 * 86_400
"""A build that was begun longer ago than this is begun anew."""

_BLOCKS_IN_MEMORY: Final = 8
_Found = TypeVar("_Found")
_Count = Field(ge=0, le=2**40)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = _Count
    size: int = Field(ge=0, le=_LARGEST_FILE)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Block(_File):
    first: int = _Count
    """The lowest id of a dataset whose images it holds."""


class _State(BaseModel):
    """What a build was asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1]
    build: str = Field(pattern=r"^[0-9]{8}T[0-9]{6}-[0-9a-f]{8}$")
    service: str = Field(max_length=2000)
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    products: tuple[int, ...] | None = Field(default=None, max_length=1000)
    promised: int | None = Field(default=None, ge=0)
    pages: int | None = Field(default=None, ge=0, le=_MOST_DATASETS)
    """How many pages there were, once all have come."""


class _Manifest(_State):
    datasets: _File
    blocks: tuple[_Block, ...] | None = Field(default=None, max_length=_MOST_DATASETS)
    images: bool = False


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
        usable = again is not None and not refresh and _holds(again, False, wanted)
        return _Build(folder, base).run(again if usable else None, images, wanted)


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
        folder = _Folder.of(where)
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

        ``dataset_id``; ``gene`` and ``gene_name`` (all, with commas between), ``entrez_id`` (of
        the first), ``aliases`` (of all, with blanks between); ``plane``; ``reference_space``;
        ``product`` (all, with commas between); ``age``; ``specimen`` and ``specimen_id``;
        ``section_thickness`` (microns); ``failed``; ``sections``, how many section images there
        are; ``tvr`` and ``trv``, arrays of shape (3, 4), or None.
        """
        import pandas as pd

        table = _tables.value.datasets(self)
        records = [
            (
                each.dataset_id,
                ", ".join(each.genes),
                ", ".join(each.gene_names),
                next(iter(each.entrez_ids), None),
                " ".join(each.aliases),
                each.plane,
                each.reference_space,
                ", ".join(each.products),
                each.age,
                each.specimen,
                each.specimen_id,
                each.section_thickness,
                each.failed,
            )
            for each in self.summaries()
        ]
        names = {
            "dataset_id": "int64", "gene": "str", "gene_name": "str", "entrez_id": "Int64",
            "aliases": "str", "plane": "str", "reference_space": "Int64", "product": "str",
            "age": "str", "specimen": "str", "specimen_id": "Int64",
            "section_thickness": "float64", "failed": "bool",
        }  # fmt: skip
        frame = pd.DataFrame(records, columns=list(names)).astype(names)
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
            _tables.value.block(self, place).to_pandas(integer_object_nulls=False)
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
        return _tables.value.summaries(self)

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
        ids = _tables.value.ids(self)
        place = int(np.searchsorted(ids, dataset_id))
        if place == len(ids) or ids[place] != dataset_id:
            raise DatasetNotFoundError(
                f"there is no section dataset {dataset_id} in the catalogue {self.name}"
            )
        row = _tables.value.datasets(self).slice(place, 1).to_pylist()[0]
        blocks = self._manifest.blocks or ()
        block = bisect.bisect_right([each.first for each in blocks], dataset_id) - 1
        if block < 0:
            return columns.dataset_row(row), []
        images = _tables.value.block(self, block)
        owners = images["dataset_id"].to_numpy()
        first, last = np.searchsorted(owners, [dataset_id, dataset_id + 1])
        found = images.slice(int(first), int(last - first)).to_pylist()
        return columns.dataset_row(row), [columns.image_row(each) for each in found]

    def search(self, terms: SearchTerms) -> list[DatasetSummary]:
        """Return the datasets that meet some terms, by ascending id.

        Raises
        ------
        ValueError
            If no dataset here is of such a product.
        """
        if any(isinstance(each, str) for each in terms.products):
            table = _tables.value.datasets(self)["products"].combine_chunks().flatten().to_pylist()
            known = {each["id"]: each for each in table}
            terms = with_product_ids(terms, known.values())
        owners = None
        if terms.image_ids:
            owners = _tables.value.owners(self, terms.image_ids)
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
        folder = _Folder.of(target)
        there = folder.manifest()
        if there is not None and there.build != self.build:
            raise FileExistsError(f"there is another catalogue at {folder.location.name}")
        source = _Folder.of(self.where)
        named = [("datasets.parquet", manifest.datasets)]
        if manifest.images:
            named += [(_block_name(k), each) for k, each in enumerate(manifest.blocks or ())]
        for name, file in named:
            folder.write(f"{self.build}/{name}", source.sound(f"{self.build}/{name}", file))
        folder.write(MANIFEST, _dumped(manifest))
        return Catalogue(folder.where, self.build)

    @property
    def _manifest(self) -> _Manifest:
        manifest = _Folder.of(self.where).manifest()
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


def _cached_folder(base: str) -> _Folder:
    return _Folder(cache_location(current().cache_dir).below(service_folder(base)).below(_FOLDER))


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


def _holds(kept: _Manifest, images: bool, products: tuple[int, ...] | None) -> bool:
    every = kept.products is None or (products is not None and {*products} <= {*kept.products})
    return every and (kept.images or not images)


@dataclass(frozen=True, slots=True)
class _Build:
    """Fetching what is not there yet."""

    folder: _Folder
    base: str

    def run(
        self, kept: _Manifest | None, images: bool, products: tuple[int, ...] | None
    ) -> Catalogue:
        state = self._state(kept, products)
        table = (
            self._datasets(state)
            if kept is None
            else _tables.value.datasets(Catalogue(self.folder.where, kept.build))
        )
        state = self.folder.state() or state
        ids = table["dataset_id"].to_pylist()
        blocks = [
            self._block(state.build, place, ids[first : first + DATASETS_A_BLOCK], images)
            for place, first in enumerate(range(0, len(ids), DATASETS_A_BLOCK))
        ]
        counted = table
        if kept is None:
            counted = self._counted(table, state.build, len(blocks), images)
        content = _parquet(counted)
        self.folder.write(f"{state.build}/datasets.parquet", content)
        manifest = _Manifest(
            **state.model_dump(),
            datasets=_file(content, len(ids)),
            blocks=tuple(blocks) if images else None,
            images=images,
        )
        self.folder.write(MANIFEST, _dumped(manifest))
        self.folder.tidy(state.build, images)
        return Catalogue(self.folder.where, state.build)

    def _state(self, kept: _Manifest | None, products: tuple[int, ...] | None) -> _State:
        if kept is not None:
            fields = {name: getattr(kept, name) for name in _State.model_fields}
            return _State(**fields)
        state = self.folder.state()
        if state is not None and state.products == products and _age(state) < _STALE_SECONDS:
            return state
        now = time.gmtime()
        state = _State(
            format=_FORMAT,
            build=f"{time.strftime('%Y%m%dT%H%M%S', now)}-{secrets.token_hex(4)}",
            service=without_credentials(self.base),
            date=time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
            products=products,
        )
        self.folder.write(_BUILDING, _dumped(state))
        return state

    def _datasets(self, state: _State) -> pa.Table:
        """Return the table of datasets, without numbers of sections, fetched page by page."""
        import pyarrow as pa

        tables: list[pa.Table] = []
        last = -1
        count = 0
        while state.pages is None or len(tables) < state.pages:
            name = f"{state.build}/page-{len(tables):04d}.parquet"
            table = self.folder.kept(name, columns.dataset_schema())
            if table is None:
                rows, promised = self._page(
                    Query("SectionDataSet", _criteria(state.products, last), _INCLUDE), last
                )
                if not tables:
                    state = _changed(state, promised=promised)
                if not rows:
                    state = _changed(state, pages=len(tables))
                    self.folder.write(_BUILDING, _dumped(state))
                    break
                records = [columns.dataset_record(row) for row in rows]
                table = pa.Table.from_pylist(records, columns.dataset_schema())
                if not tables:
                    self.folder.write(_BUILDING, _dumped(state))
                self.folder.write(name, _parquet(table))
            tables.append(table)
            last = table["dataset_id"][-1].as_py()
            count += len(table)
            if count > _MOST_DATASETS:
                raise APIError(f"more than {_MOST_DATASETS} datasets", url=state.service)
        if state.promised is not None and state.promised > count:
            warnings.warn(
                f"the service promised {state.promised} section datasets and delivered {count} "
                f"({state.service})",
                AtldldWarning,
                stacklevel=4,
            )
        return pa.concat_tables([columns.dataset_schema().empty_table(), *tables])

    def _block(self, build: str, place: int, ids: list[int], images: bool) -> _Block:
        """Fetch what is not yet there of the images of some datasets."""
        name = f"{build}/{_block_name(place) if images else _count_name(place)}"
        schema = columns.image_schema() if images else _count_schema()
        content = self.folder.parquet(name, schema)
        if content is None:
            content = _parquet(self._images(ids) if images else self._counts(ids))
            self.folder.write(name, content)
        rows = _opened(content, schema, name, _MOST_IMAGES_A_BLOCK).metadata.num_rows
        return _Block(first=ids[0], **_file(content, rows).model_dump())

    def _images(self, ids: list[int]) -> pa.Table:
        import pyarrow as pa

        owners = {*ids}
        records = [
            columns.image_record(row)
            for row in self._image_rows(ids, "alignment2d")
            if row.get("data_set_id") in owners
        ]
        records = columns.in_order(records, "dataset_id", "image_id")
        return pa.Table.from_pylist(records, columns.image_schema())

    def _counts(self, ids: list[int]) -> pa.Table:
        import pyarrow as pa

        counts = dict.fromkeys(ids, 0)
        for row in self._image_rows(ids, only="id,data_set_id"):
            if row.get("data_set_id") in counts:
                counts[row["data_set_id"]] += 1
        return pa.table(
            {"dataset_id": list(counts), "sections": list(counts.values())},
            schema=_count_schema(),
        )

    def _image_rows(self, ids: list[int], include: str = "", only: str = "") -> Iterator[Row]:
        last, count = -1, 0
        of_datasets = f"[data_set_id$in{','.join(map(str, ids))}]"
        while True:
            query = Query(
                "SectionImage", (of_datasets, condition("id", last, "gt")), include, only=only
            )
            rows, _ = self._page(query, last)
            if not rows:
                return
            yield from rows
            last = rows[-1]["id"]
            count += len(rows)
            if count > _MOST_IMAGES_A_BLOCK:
                raise APIError(
                    f"more than {_MOST_IMAGES_A_BLOCK} images of {len(ids)} datasets",
                    url=without_credentials(self.base),
                )

    def _page(self, query: Query, last: int) -> tuple[list[Row], int | None]:
        """Return the rows of a page, all above an id, and how many the service says there are."""
        url = query.url(self.base, 0, ROWS_A_PAGE)
        page = fetch_page(url)
        rows = [row for row in page.rows if columns.is_id(row.get("id"))]
        ids = [row["id"] for row in rows]
        if page.rows and (not rows or ids != sorted({*ids}) or ids[0] <= last):
            raise APIError(
                f"the service did not answer with rows of {query.model} above id {last} in "
                "ascending order",
                url=without_credentials(url),
            )
        return rows, page.total_rows

    def _counted(self, table: pa.Table, build: str, blocks: int, images: bool) -> pa.Table:
        """Return the table of datasets with the number of section images of each."""
        import pyarrow as pa

        counts: dict[int, int] = {}
        for place in range(blocks):
            name = f"{build}/{_block_name(place) if images else _count_name(place)}"
            found = self.folder.kept(name, columns.image_schema() if images else _count_schema())
            if found is None:
                raise BundleError(f"{name} of {self.folder.where} was removed just now")
            owners = found["dataset_id"].to_numpy()
            if images:
                ids, numbers = np.unique(owners, return_counts=True)
            else:
                ids, numbers = owners, found["sections"].to_numpy()
            counts.update(zip(ids.tolist(), numbers.tolist(), strict=True))
        sections = [counts.get(number, 0) for number in table["dataset_id"].to_pylist()]
        place = table.schema.get_field_index("sections")
        return table.set_column(place, "sections", pa.array(sections, pa.int64()))


def _changed(state: _State, **changes: Any) -> _State:
    """Return a state with other fields, checked."""
    return _State(**{**state.model_dump(), **changes})


def _criteria(products: tuple[int, ...] | None, last: int) -> tuple[str, ...]:
    above = condition("id", last, "gt")
    if products is None:
        return (above,)
    chosen = ",".join(map(str, products))
    return above, f"products[id${'eq' if len(products) == 1 else 'in'}{chosen}]"


def _age(state: _State) -> float:
    import calendar

    return time.time() - calendar.timegm(time.strptime(state.date, "%Y-%m-%dT%H:%M:%SZ"))


def _block_name(place: int) -> str:
    return f"images-{place:04d}.parquet"


def _count_name(place: int) -> str:
    return f"counts-{place:04d}.parquet"


def _count_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("dataset_id", pa.int64()), ("sections", pa.int64())])


def _parquet(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table.combine_chunks(), buffer, compression="zstd")
    return buffer.getvalue()


def _file(content: bytes, rows: int) -> _File:
    return _File(rows=rows, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _dumped(model: BaseModel) -> bytes:
    return model.model_dump_json(indent=1).encode()


def _opened(content: bytes, schema: pa.Schema, name: str, most_rows: int) -> Any:
    """Return a Parquet file whose columns and sizes are as they should be.

    Raises
    ------
    BundleError
        If they are not; before anything is unpacked.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(content), thrift_string_size_limit=2**22)
        same = file.schema_arrow.remove_metadata().equals(schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BundleError(f"{name} is damaged: {error}") from error
    meta = file.metadata
    groups = [meta.row_group(k).total_byte_size for k in range(min(meta.num_row_groups, 1000))]
    if not same or not 0 <= meta.num_rows <= most_rows or meta.num_row_groups > 1000:
        raise BundleError(f"{name} does not hold the columns or rows of a catalogue")
    if sum(groups) > _LARGEST_TABLE:
        raise BundleError(f"{name} says that it holds {sum(groups)} bytes, more than it may")
    return file


def _table(content: bytes, schema: pa.Schema, name: str, most_rows: int) -> pa.Table:
    import pyarrow as pa

    file = _opened(content, schema, name, most_rows)
    try:
        return file.read(use_threads=False).combine_chunks()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BundleError(f"{name} is damaged: {error}") from error


@dataclass(frozen=True, slots=True)
class _Folder:
    """The folder of a catalogue, wherever fsspec finds it."""

    location: Location

    @classmethod
    def of(cls, where: str | os.PathLike[str]) -> _Folder:
        return cls(Location.of(where))

    @property
    def where(self) -> str:
        """Its path or URL."""
        return self.location.text

    @property
    def files(self) -> Files:
        return Files(self.location)

    def read(self, name: str, most: int = _LARGEST_FILE) -> bytes | None:
        """Return the content of a file, or None where there is none.

        Raises
        ------
        BundleError
            If it cannot be read, or is larger than it may be.
        """
        try:
            return self.files.read(name, most)
        except FileFaultError as error:
            if error.missing:
                return None
            raise BundleError(f"{name} of {self.location.name}: {error.reason}") from error

    def sound(self, name: str, file: _File) -> bytes:
        """Return the content of a file that is as the manifest says."""
        content = self.read(name)
        if (
            content is None
            or len(content) != file.size
            or hashlib.sha256(content).hexdigest() != file.sha256
        ):
            raise BundleError(f"{name} of the catalogue {self.location.name} is missing or damaged")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        try:
            self.files.write(name, content)
        except FileFaultError as error:
            raise BundleError(
                f"{name} cannot be written to {self.location.name}: {error.reason}"
            ) from error

    def kept(self, name: str, schema: pa.Schema) -> pa.Table | None:
        """Return a table that an earlier build left, or None."""
        content = self.parquet(name, schema)
        return None if content is None else _table(content, schema, name, _MOST_DATASETS)

    def parquet(self, name: str, schema: pa.Schema) -> bytes | None:
        """Return the bytes of a sound table that an earlier build left, or None."""
        try:
            content = self.read(name)
            if content is not None:
                _table(content, schema, name, _MOST_DATASETS)
        except BundleError:
            return None
        return content

    def manifest(self) -> _Manifest | None:
        """Return the manifest, or None where there is none.

        Raises
        ------
        BundleError
            If it is damaged.
        """
        return _tables.value.manifest(self)

    def state(self) -> _State | None:
        """Return what is under way, or None."""
        try:
            content = self.read(_BUILDING, _LARGEST_MANIFEST)
            return None if content is None else _State.model_validate_json(content)
        except (BundleError, ValidationError):
            return None

    def locked(self) -> AbstractContextManager[Any]:
        """Hold the folder against other builds on this machine, for the time of the block."""
        path = self.location.path
        if path is None:
            return nullcontext()
        from filelock import FileLock

        path.mkdir(parents=True, exist_ok=True)
        return FileLock(path / ".lock")

    def tidy(self, build: str, images: bool) -> None:
        """Remove what a finished build does not need."""
        for name in list(self.files.names()):
            folder, _, file = name.rpartition("/")
            spare = file.startswith("page-") or (images and file.startswith("counts-"))
            if name == _BUILDING or (_BUILD.fullmatch(folder) and (folder != build or spare)):
                self.files.remove(name)


class _Shelf:
    """Tables that were read in this process, so that a second look costs nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._manifests: dict[str, tuple[Any, _Manifest | None]] = {}
        self._held: OrderedDict[Hashable, Any] = OrderedDict()

    def manifest(self, folder: _Folder) -> _Manifest | None:
        stamp: Any = None
        path = folder.location.path
        if path is not None:
            try:
                told = (path / MANIFEST).stat()
                stamp = told.st_mtime_ns, told.st_size, told.st_ino
            except OSError:
                return None
        known = self._manifests.get(folder.where)
        if known is not None and stamp is not None and known[0] == stamp:
            return known[1]
        if known is not None and stamp is None and time.monotonic() < known[0]:
            return known[1]
        content = folder.read(MANIFEST, _LARGEST_MANIFEST)
        manifest = None
        if content is not None:
            try:
                manifest = _Manifest.model_validate_json(content)
            except ValidationError as error:
                raise BundleError(
                    f"{MANIFEST} of {folder.location.name} is not that of a catalogue "
                    f"that this version reads: {error.errors()[0]['msg']}"
                ) from error
        # Elsewhere nobody tells whether it was replaced; a minute is short enough.
        self._manifests[folder.where] = (stamp or time.monotonic() + 60.0, manifest)
        return manifest

    def datasets(self, catalogue: Catalogue) -> pa.Table:
        def read() -> pa.Table:
            content = _Folder.of(catalogue.where).sound(
                f"{catalogue.build}/datasets.parquet", catalogue._manifest.datasets
            )
            name = f"the catalogue {catalogue.name}"
            table = _table(content, columns.dataset_schema(), name, _MOST_DATASETS)
            if (np.diff(table["dataset_id"].to_numpy()) <= 0).any():
                raise BundleError(f"{name} is not in order")
            return table

        return self._once((catalogue, "datasets"), read)

    def ids(self, catalogue: Catalogue) -> npt.NDArray[np.int64]:
        return self._once(
            (catalogue, "ids"), lambda: self.datasets(catalogue)["dataset_id"].to_numpy()
        )

    def summaries(self, catalogue: Catalogue) -> Sequence[DatasetSummary]:
        def read() -> Sequence[DatasetSummary]:
            table = self.datasets(catalogue).drop_columns(["tvr", "trv"])
            nothing = {"tvr": None, "trv": None}
            return [
                DatasetSummary.from_row(columns.dataset_row({**record, **nothing}))
                for batch in table.to_batches(2000)
                for record in batch.to_pylist()
            ]

        return self._once((catalogue, "summaries"), read)

    def block(self, catalogue: Catalogue, place: int) -> pa.Table:
        def read() -> pa.Table:
            file = (catalogue._manifest.blocks or ())[place]
            content = _Folder.of(catalogue.where).sound(
                f"{catalogue.build}/{_block_name(place)}", file
            )
            name = f"{_block_name(place)} of the catalogue {catalogue.name}"
            table = _table(content, columns.image_schema(), name, _MOST_IMAGES_A_BLOCK)
            if (np.diff(table["dataset_id"].to_numpy()) < 0).any():
                raise BundleError(f"{name} is not in order")
            return table

        return self._once((catalogue, "block", place), read)

    def owners(self, catalogue: Catalogue, image_ids: Iterable[int]) -> set[int]:
        """Return the datasets that some images belong to."""

        def read() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
            tables = [
                self.block(catalogue, place).select(["image_id", "dataset_id"])
                for place in range(len(catalogue._manifest.blocks or ()))
            ]
            images = np.concatenate([table["image_id"].to_numpy() for table in tables] or [[]])
            owners = np.concatenate([table["dataset_id"].to_numpy() for table in tables] or [[]])
            order = np.argsort(images, kind="stable")
            return images[order].astype(np.int64), owners[order].astype(np.int64)

        images, owners = self._once((catalogue, "owners"), read)
        wanted = np.fromiter(image_ids, np.int64)
        places = np.searchsorted(images, wanted)
        return {
            int(owners[place])
            for place, number in zip(places, wanted, strict=True)
            if place < len(images) and images[place] == number
        }

    def _once(self, key: Hashable, read: Callable[[], _Found]) -> _Found:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]  # type: ignore[no-any-return]  # what was read by its key
        found = read()
        with self._lock:
            self._held[key] = found
            blocks = [each for each in self._held if isinstance(each, tuple) and len(each) == 3]
            for each in blocks[:-_BLOCKS_IN_MEMORY]:
                del self._held[each]
        return found


_tables = PerProcess(_Shelf)


def _matrix_3d(entries: list[float] | None) -> npt.NDArray[np.float64] | None:
    if entries is None:
        return None
    out = np.empty((3, 4))
    out[:, :3] = np.reshape(entries[:9], (3, 3))
    out[:, 3] = entries[9:]
    return out
