"""Allen's published values per structure, as rows of the service."""

from __future__ import annotations

from collections.abc import Sequence

from .allen import AllenSource
from .rma import Query, Row, fetch_rows

_DATASETS_A_QUERY = 50


def unionize_rows(source: AllenSource, dataset_ids: Sequence[int]) -> list[Row]:
    """Return the StructureUnionize rows of datasets, each with its ``structure`` nested.

    Parameters
    ----------
    source
        The service.
    dataset_ids
        Ids of section datasets; a query names at most 50, so that its URL stays short.

    Raises
    ------
    APIError
        If the service does not answer as it should.
    """
    rows: list[Row] = []
    for first in range(0, len(dataset_ids), _DATASETS_A_QUERY):
        some = ",".join(f"{each:d}" for each in dataset_ids[first : first + _DATASETS_A_QUERY])
        criteria = (f"[section_data_set_id$in{some}]",)
        rows += fetch_rows(source.base, Query("StructureUnionize", criteria, include="structure"))
    return rows
