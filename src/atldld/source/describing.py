"""The rows that describe a dataset, as the service sent them, and who can give them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ..model.dataset import SectionDataset
from ..model.info import DatasetSummary
from ..model.rows import records
from ..model.terms import SearchTerms
from .allen import AllenSource
from .protocol import Source
from .rma import Row
from .search_allen import with_product_ids


@dataclass(frozen=True, slots=True, eq=False)
class DatasetRows:
    """What a dataset is built from.

    Parameters
    ----------
    row
        The SectionDataSet row.
    images
        The SectionImage rows, or None where `row` holds them.
    service
        Base URL of the service that sent them, without credentials; empty if not known.
    """

    row: Row
    images: list[Row] | None
    service: str

    @classmethod
    def from_json(cls, text: bytes, service: str) -> DatasetRows:
        """Return the rows that `to_json` wrote.

        Raises
        ------
        ValueError
            If the text is something else.
        """
        try:
            fields = json.loads(text.decode("utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            raise ValueError("it is not JSON") from None
        row = fields.get("row") if isinstance(fields, dict) else None
        images = fields.get("images") if isinstance(fields, dict) else None
        if not isinstance(row, Mapping) or not isinstance(images, list | None):
            raise ValueError("it does not describe a dataset")
        return cls(row, images, service)

    def to_json(self) -> bytes:
        """Return the rows as a text."""
        return json.dumps({"row": self.row, "images": self.images}).encode()

    def dataset(self) -> SectionDataset:
        """Build the dataset; see `SectionDataset.from_rows`."""
        return SectionDataset.from_rows(self.row, self.images)

    def found(self, terms: SearchTerms) -> DatasetSummary | None:
        """Return the dataset in a line if it meets some terms."""
        # The products of one dataset are not all there are: another name is none of its.
        products = records(self.row.get("products"))
        terms = with_product_ids(terms, products, strict=False)
        summary = DatasetSummary.from_row(self.row)
        images = records(self.row.get("section_images") if self.images is None else self.images)
        if terms.image_ids and not {row.get("id") for row in images} & {*terms.image_ids}:
            return None
        return summary if summary.meets(terms) else None


@runtime_checkable
class DescribingSource(Source, Protocol):
    """A source that can give the rows of a dataset as they came."""

    def rows(self, dataset_id: int) -> DatasetRows:
        """Return the rows of a dataset; raises what `Source.dataset` raises."""
        ...


def dataset_rows(source: Source, dataset_id: Any) -> DatasetRows:
    """Return the rows of a dataset from any source that has them.

    Raises
    ------
    TypeError
        If the source cannot give them.
    DatasetNotFoundError, APIError, BundleError
        As the source does.
    """
    if isinstance(source, AllenSource):
        asked = source._rows(dataset_id)
        return DatasetRows(asked.row, asked.images, source.name)
    if isinstance(source, DescribingSource):
        return source.rows(dataset_id)
    raise TypeError(
        f"the source {source.name} gives no rows of metadata (it has no method rows), and they "
        "belong in a bundle"
    )
