"""Fetching a catalogue from its service: pages of datasets, then blocks of their images."""

from __future__ import annotations

import calendar
import secrets
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..errors import APIError, AtldldWarning
from ..model.rows import Row
from ..urls import without_credentials
from . import columns
from .catalogue_files import (
    BUILDING,
    FORMAT,
    MANIFEST,
    MOST_DATASETS,
    MOST_IMAGES_A_BLOCK,
    BuildState,
    CatalogueFolder,
    CatalogueManifest,
    TableBlock,
    block_name,
    count_name,
    count_schema,
    dumped,
    file_of,
    parquet_of,
)
from .rma import Page, Query, condition, fetch_page

if TYPE_CHECKING:
    import pyarrow as pa

DATASETS_A_BLOCK: Final = 150
"""Datasets whose images one file holds: their ids make a URL of 1.6 kB, and 2 pages of rows."""

_INCLUDE: Final = "genes,products,specimen(donor(age)),alignment3d,equalization"
_STALE_SECONDS: Final = 30 * 86_400
"""A build that was begun longer ago than this is begun anew."""


@dataclass(frozen=True, slots=True)
class Build:
    """Fetching what is not there yet."""

    folder: CatalogueFolder
    base: str

    def run(
        self,
        kept: CatalogueManifest | None,
        table: pa.Table | None,
        images: bool,
        products: tuple[int, ...] | None,
    ) -> str:
        """Fetch what is not there yet, and return the name of the build that is then whole.

        Parameters
        ----------
        kept, table
            A whole build and its table of datasets, that images are to be added to; or None.
        images, products
            What is wanted.
        """
        import pyarrow as pa

        state = self._state(kept, products)
        if table is None:
            datasets = self._datasets(state)
            # With what the pages told of it.
            state = self.folder.state() or state
        else:
            datasets = table
        ids = datasets["dataset_id"].to_pylist()
        blocks = []
        counts: dict[int, int] = {}
        for place, first in enumerate(range(0, len(ids), DATASETS_A_BLOCK)):
            some = ids[first : first + DATASETS_A_BLOCK]
            block, found = self._block(state.build, place, some, images)
            blocks.append(block)
            counts |= found
        if table is None:
            sections = pa.array([counts.get(number, 0) for number in ids], pa.int64())
            column = datasets.schema.get_field_index("sections")
            datasets = datasets.set_column(column, "sections", sections)
        content = parquet_of(datasets)
        self.folder.write(f"{state.build}/datasets.parquet", content)
        manifest = CatalogueManifest(
            **state.model_dump(),
            datasets=file_of(content, len(ids)),
            blocks=tuple(blocks) if images else None,
            images=images,
        )
        self.folder.write(MANIFEST, dumped(manifest))
        self.folder.tidy(state.build, images)
        return state.build

    def _state(
        self, kept: CatalogueManifest | None, products: tuple[int, ...] | None
    ) -> BuildState:
        if kept is not None:
            fields = {name: getattr(kept, name) for name in BuildState.model_fields}
            return BuildState(**fields)
        state = self.folder.state()
        if state is not None and state.products == products and _age(state) < _STALE_SECONDS:
            return state
        now = time.gmtime()
        state = BuildState(
            format=FORMAT,
            build=f"{time.strftime('%Y%m%dT%H%M%S', now)}-{secrets.token_hex(4)}",
            service=without_credentials(self.base),
            date=time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
            products=products,
        )
        self.folder.write(BUILDING, dumped(state))
        return state

    def _datasets(self, state: BuildState) -> pa.Table:
        """Return the table of datasets, without numbers of sections, fetched page by page."""
        import pyarrow as pa

        tables: list[pa.Table] = []
        last = -1
        count = 0
        while state.pages is None or len(tables) < state.pages:
            name = f"{state.build}/page-{len(tables):04d}.parquet"
            found = self.folder.kept(name, columns.dataset_schema())
            if found is not None:
                table = found[1]
            else:
                query = Query("SectionDataSet", _criteria(state.products), _INCLUDE)
                rows, promised = self._page(query, last, count)
                if not tables:
                    state = _changed(state, promised=promised)
                if not rows:
                    state = _changed(state, pages=len(tables))
                    self.folder.write(BUILDING, dumped(state))
                    break
                records = [columns.dataset_record(row) for row in rows]
                table = pa.Table.from_pylist(records, columns.dataset_schema())
                if not tables:
                    self.folder.write(BUILDING, dumped(state))
                self.folder.write(name, parquet_of(table))
            tables.append(table)
            last = table["dataset_id"][-1].as_py()
            count += len(table)
            if count > MOST_DATASETS:
                raise APIError(f"more than {MOST_DATASETS} datasets", url=state.service)
        if state.promised is not None and state.promised > count:
            warnings.warn(
                f"the service promised {state.promised} section datasets and delivered {count} "
                f"({state.service})",
                AtldldWarning,
                stacklevel=4,
            )
        return pa.concat_tables([columns.dataset_schema().empty_table(), *tables])

    def _block(
        self, build: str, place: int, ids: list[int], images: bool
    ) -> tuple[TableBlock, dict[int, int]]:
        """Fetch what is not yet there of the images of some datasets; return how many each has."""
        name = f"{build}/{block_name(place) if images else count_name(place)}"
        schema = columns.image_schema() if images else count_schema()
        found = self.folder.kept(name, schema)
        if found is None:
            table = self._images(ids) if images else self._counts(ids)
            content = parquet_of(table)
            self.folder.write(name, content)
        else:
            content, table = found
        owners = table["dataset_id"].to_numpy()
        if images:
            owners, counts = np.unique(owners, return_counts=True)
        else:
            counts = table["sections"].to_numpy()
        block = TableBlock(first=ids[0], **file_of(content, table.num_rows).model_dump())
        return block, dict(zip(owners.tolist(), counts.tolist(), strict=True))

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
            schema=count_schema(),
        )

    def _image_rows(self, ids: list[int], include: str = "", only: str = "") -> Iterator[Row]:
        last, count = -1, 0
        of_datasets = f"[data_set_id$in{','.join(map(str, ids))}]"
        query = Query("SectionImage", (of_datasets,), include, only=only)
        while True:
            rows, _ = self._page(query, last, count)
            if not rows:
                return
            yield from rows
            last = rows[-1]["id"]
            count += len(rows)
            if count > MOST_IMAGES_A_BLOCK:
                raise APIError(
                    f"more than {MOST_IMAGES_A_BLOCK} images of {len(ids)} datasets",
                    url=without_credentials(self.base),
                )

    def _page(self, query: Query, last: int, count: int) -> tuple[list[Row], int | None]:
        """Return the rows of the next page, and how many the service says there are.

        Parameters
        ----------
        query
            What is asked for.
        last
            The highest id so far, -1 before the first page.
        count
            How many rows have come.
        """
        page = self._above(query, last) if count else fetch_page(query.url(self.base))
        if page is None:
            page = self._from(query, last, count)
        rows = [row for row in page.rows if columns.is_id(row.get("id"))]
        ids = [row["id"] for row in rows]
        if page.rows and (not rows or ids != sorted({*ids}) or ids[0] <= last):
            raise APIError(
                f"the service did not answer with rows of {query.model} above id {last} in "
                "ascending order",
                url=without_credentials(query.url(self.base)),
            )
        # Of those with an id above the last there are fewer.
        return rows, None if count else page.total_rows

    def _above(self, query: Query, last: int) -> Page | None:
        """Return the page of rows with a higher id; None from a service that cannot tell.

        Row numbers count rows of a join, and move where a row is added meanwhile; ids do not.
        """
        criteria = (*query.criteria, condition("id", last, "gt"))
        try:
            page = fetch_page(replace(query, criteria=criteria).url(self.base))
        except APIError as error:
            if error.status is None or error.status >= 500 or error.status in (408, 429):
                raise
            return None
        known = [row["id"] for row in page.rows if columns.is_id(row.get("id"))]
        return None if known and min(known) <= last else page

    def _from(self, query: Query, last: int, start_row: int) -> Page:
        """Return the rows with a higher id of the first page, from a row on, that has some."""
        seen: tuple[Row, ...] = ()
        while True:
            page = fetch_page(query.url(self.base, start_row))
            new = tuple(row for row in page.rows if _number(row) > last)
            if new or page.rows == seen:
                return replace(page, rows=new or page.rows)
            seen = page.rows
            start_row += page.num_rows


def _changed(state: BuildState, **changes: Any) -> BuildState:
    """Return a state with other fields, checked."""
    return BuildState(**{**state.model_dump(), **changes})


def _criteria(products: tuple[int, ...] | None) -> tuple[str, ...]:
    if products is None:
        return ()
    chosen = ",".join(map(str, products))
    return (f"products[id${'eq' if len(products) == 1 else 'in'}{chosen}]",)


def _number(row: Row) -> int:
    """Return the id of a row, or a lower number than any."""
    found: Any = row.get("id")
    return found if columns.is_id(found) else -1


def _age(state: BuildState) -> float:
    return time.time() - calendar.timegm(time.strptime(state.date, "%Y-%m-%dT%H:%M:%SZ"))
