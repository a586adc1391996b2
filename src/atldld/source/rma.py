"""RMA, the query language of the service: its URLs, its envelope, its pages.

RMA ("RESTful model access") answers with an envelope ``{"success", "start_row", "num_rows",
"total_rows", "msg"}`` whose ``msg`` is a list of rows, or text where it failed [1]_.

References
----------
.. [1] "RESTful Model Access (RMA)", https://community.brain-map.org/t/2866
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from ..errors import APIError, AtldldWarning, plain
from ..options import Options
from ..urls import without_credentials
from .http import UnfitBodyError, fetch, said

Row = Mapping[str, Any]

ROWS_A_PAGE: Final = 2000
"""The most rows that Allen's own client asks for at once."""

_MOST_ROWS = 2_000_000
_LARGEST_ANSWER = 2**26
"""Bytes; an answer of ten thousand images has a quarter of it."""

_MOST_VALUES = 4_000_000
"""Values in an answer: in memory even an empty one takes twenty times its three bytes."""

_UNESCAPED = "$,():'*"


@dataclass(frozen=True, slots=True)
class Query:
    """Rows of one model, as the service's query language asks for them.

    Parameters
    ----------
    model
        Name of the model, such as ``"SectionImage"``.
    criteria
        Conditions that all hold, from `condition`, or associations with conditions.
    include
        Associations to be nested in each row, such as ``"alignment2d"``.
    order
        Field that the rows are ordered by; the service promises no order of its own, and
        pages without one can overlap.
    only
        Names of the columns wanted, with commas between; all if empty.
    """

    model: str
    criteria: tuple[str, ...] = ()
    include: str = ""
    order: str = "id"
    only: str = ""

    def url(self, base: str, start_row: int = 0, num_rows: int = ROWS_A_PAGE) -> str:
        """Return the URL of one page.

        Examples
        --------
        >>> Query("SectionImage", (condition("data_set_id", 5),)).url("http://h/api/v2")
        ... # doctest: +NORMALIZE_WHITESPACE
        "http://h/api/v2/data/query.json?criteria=model::SectionImage,rma::criteria,%5Bdata_set_id$eq5%5D,rma::options%5Bstart_row$eq0%5D%5Bnum_rows$eq2000%5D%5Border$eq'id'%5D"
        """
        stages = [f"model::{self.model}"]
        if self.criteria:
            stages.append("rma::criteria," + ",".join(self.criteria))
        if self.include:
            stages.append("rma::include," + self.include)
        only = f"[only$eq'{self.only}']" if self.only else ""
        stages.append(
            f"rma::options[start_row$eq{start_row}][num_rows$eq{num_rows}]"
            f"[order$eq'{self.order}']{only}"
        )
        return f"{base}/data/query.json?criteria={quote(','.join(stages), safe=_UNESCAPED)}"


def condition(field: str, value: int | str, operator: str = "eq") -> str:
    """Return one condition of a query.

    Raises
    ------
    ValueError
        If a text holds what would end it early: a quote or a bracket.

    Examples
    --------
    >>> condition("id", 5), condition("acronym", "Prox1"), condition("name", "*1", "il")
    ('[id$eq5]', "[acronym$eq'Prox1']", "[name$il'*1']")
    """
    if isinstance(value, bool):
        return f"[{field}${operator}{str(value).lower()}]"
    if isinstance(value, int):
        return f"[{field}${operator}{value}]"
    if not value.isprintable() or any(character in value for character in "'[]"):
        raise ValueError(f"{field} is {value!r}; it must not hold quotes, brackets or line ends")
    return f"[{field}${operator}'{value}']"


def row_url(base: str, model: str, row_id: int, include: str = "") -> str:
    """Return the URL of one row.

    Examples
    --------
    >>> row_url("http://h/api/v2", "SectionDataSet", 5, "genes,section_images(alignment2d)")
    'http://h/api/v2/data/SectionDataSet/5.json?include=genes,section_images(alignment2d)'
    """
    query = f"?include={quote(include, safe=_UNESCAPED)}" if include else ""
    return f"{base}/data/{model}/{row_id:d}.json{query}"


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one answer, and what the envelope says about them.

    Parameters
    ----------
    rows
        The rows; what is not a row, such as null, is left out.
    num_rows
        How many rows the service counts in this answer; those of a database join, which may
        be more than the rows here.
    total_rows
        How many it promises in all, or None.
    """

    rows: tuple[Row, ...]
    num_rows: int
    total_rows: int | None


def page_of(body: bytes, url: str) -> Page:
    """Return what an answer holds.

    Raises
    ------
    UnfitBodyError
        If it is not JSON.
    APIError
        If the service says that it failed, or the envelope is not one.
    """
    shown = without_credentials(url)
    if body.count(b",") + body.count(b"[") + body.count(b"{") > _MOST_VALUES:
        raise APIError(f"the answer holds more than {_MOST_VALUES} values", url=shown)
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):
        kind = "an HTML page" if b"<html" in body[:2000].lower() else "not JSON"
        words = said(body)
        raise UnfitBodyError(f"the answer is {kind}" + (f": {words!r}" if words else "")) from None
    if not isinstance(envelope, dict) or "msg" not in envelope:
        raise APIError("the answer is JSON, but not that of a query", url=shown)
    message = envelope["msg"]
    if envelope.get("success") not in (True, "true", None) or isinstance(message, str):
        text = plain(message) if isinstance(message, str) else "it does not say why"
        raise APIError(f"the service refused the query: {text}", url=shown, status=200)
    if isinstance(message, dict):
        message = [message]
    if not isinstance(message, list):
        raise APIError(f"the answer holds {plain(repr(message), 40)} instead of rows", url=shown)
    rows = tuple(row for row in message if isinstance(row, dict))
    total = envelope.get("total_rows")
    return Page(rows, _count(envelope.get("num_rows")) or len(message), _count(total))


def fetch_page(url: str, options: Options | None = None) -> Page:
    """Return the rows that one URL answers with.

    Raises
    ------
    APIError
        If it does not answer as it should.
    """
    pages: list[Page] = []
    fetch(
        url,
        limit_bytes=_LARGEST_ANSWER,
        check=lambda content, _: pages.append(page_of(content, url)),
        headers={"Accept": "application/json", "Accept-Encoding": "gzip"},
        options=options,
    )
    return pages[-1]


def fetch_rows(base: str, query: Query, options: Options | None = None) -> list[Row]:
    """Return all rows of a query, page by page.

    Ends at an empty page, at a page that brings nothing new, and where all promised rows have
    come.

    Warns
    -----
    AtldldWarning
        If fewer rows came than the service promised.

    Raises
    ------
    APIError
        If a page cannot be had, or there is no end to them.
    """
    rows: dict[Any, Row] = {}
    start = 0
    while True:
        url = query.url(base, start)
        page = fetch_page(url, options)
        fresh = {_identity(row): row for row in page.rows if _identity(row) not in rows}
        rows |= fresh
        if fresh:
            start += page.num_rows
        promised = page.total_rows
        if not fresh or (promised is not None and start >= promised):
            break
        if start > _MOST_ROWS:
            raise APIError(f"more than {_MOST_ROWS} rows", url=without_credentials(url))
    if promised is not None and start < promised:
        warnings.warn(
            f"the service promised {promised} rows of {query.model} and delivered {len(rows)} "
            f"({without_credentials(query.url(base))})",
            AtldldWarning,
            stacklevel=2,
        )
    return list(rows.values())


def _identity(row: Row) -> Any:
    key = row.get("id")
    return key if isinstance(key, int | str) else repr(row)


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return value
