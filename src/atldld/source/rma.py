"""RMA, the query language of the service: its URLs, its envelope, its pages, its search.

RMA ("RESTful model access") answers with an envelope ``{"success", "start_row", "num_rows",
"total_rows", "msg"}`` whose ``msg`` is a list of rows, or text where it failed [1]_.

What a search finds is held against its terms once more: nobody has written down what the service
makes of the wildcards of its own database (``%``, ``_``) in a text.

References
----------
.. [1] "RESTful Model Access (RMA)", https://community.brain-map.org/t/2866
"""

from __future__ import annotations

import itertools
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar
from urllib.parse import quote

from ..errors import APIError, AtldldWarning, RegistrationError, plain
from ..model.checks import listed, near
from ..model.dataset import SectionDataset
from ..model.info import DatasetSummary
from ..model.rows import Row, records, texts
from ..model.terms import SearchTerms, fits
from ..options import Options
from ..urls import without_credentials
from .http import UnfitBodyError, error_text, fetch

_Value = TypeVar("_Value")

ROWS_A_PAGE: Final = 2000
"""The most rows that Allen's own client asks for at once."""

_MOST_ROWS = 2_000_000
_LARGEST_ANSWER = 2**26
"""Bytes; an answer of ten thousand images has a quarter of it."""

_MOST_VALUES = 4_000_000
"""Values in an answer: in memory even an empty one takes twenty times its three bytes."""

_UNESCAPED = "$,():'*"

_SUMMARY: Final = "genes,products,specimen(donor(age))"
"""What a line about a dataset is made from."""

_VALUES_A_QUERY = 50
"""So that a URL stays short."""

_BARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Texts that need no quotes in a list of values."""


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
        words = error_text(body)
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


@dataclass(frozen=True, slots=True)
class DatasetRows:
    """What a dataset is built from, as the service sent it.

    Parameters
    ----------
    row
        The SectionDataSet row.
    images
        The SectionImage rows, or None where `row` holds them.
    service
        Base URL of the service that sent them, without credentials.
    """

    row: Row
    images: list[Row] | None
    service: str = field(compare=False)

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


def search_service(base: str, terms: SearchTerms) -> list[DatasetSummary]:
    """Return what a service has, by ascending id.

    Raises
    ------
    ValueError
        If it has no such product; the message says which there are.
    APIError
        If it does not answer as it should.
    """
    if any(isinstance(each, str) for each in terms.products):
        products = fetch_rows(base, Query("Product"))
        terms = with_product_ids(terms, products)
    found = _found(base, terms, _gene_criteria(terms.genes))
    if len(terms.genes) > 1:
        # Lists are compared letter by letter, so what they missed may be spelled otherwise.
        missed = [
            gene
            for gene in terms.genes
            if _BARE.fullmatch(gene)
            and not any(fits(gene, one) for each in found.values() for one in each.genes)
        ]
        found |= _found(base, terms, [_gene(gene) for gene in missed])
    return [found[number] for number in sorted(found)]


def with_product_ids(
    terms: SearchTerms, products: Iterable[Row], *, strict: bool = True
) -> SearchTerms:
    """Return terms whose products are ids: those of rows with that name or abbreviation.

    Parameters
    ----------
    terms
        The terms.
    products
        Product rows.
    strict
        Whether these are all there are, so that another name must be wrong.

    Raises
    ------
    ValueError
        If a name fits none of them (and `strict`).
    """
    rows = records(products)
    ids: list[int] = []
    for wanted in terms.products:
        if isinstance(wanted, int):
            ids.append(wanted)
            continue
        chosen = [
            row["id"]
            for row in rows
            if isinstance(row.get("id"), int)
            and any(
                fits(wanted, one) for one in (*texts([row], "name"), *texts([row], "abbreviation"))
            )
        ]
        if not chosen and strict:
            known = sorted({name for row in rows for name in texts([row], "name")})
            raise ValueError(
                f"product is {wanted!r}; {near(wanted, known)}The service has {listed(known)}"
            )
        ids += chosen or [-1]
    return replace(terms, products=tuple(ids))


def genes_like(base: str, wanted: str) -> dict[str, tuple[str, ...]]:
    """Return the other names of genes, by acronym, of those that a text could mean.

    Those that begin with the same two letters, or begin and end with the same, and those that
    have the text among their other names. Nothing where the service does not say: this only
    helps.
    """
    starts = condition("acronym", f"{wanted[:2]}*", "il")
    ends = condition("acronym", f"{wanted[0]}*{wanted[-1]}", "il")
    questions = [starts, ends, condition("alias_tags", f"*{wanted}*", "il")]
    genes: dict[str, tuple[str, ...]] = {}
    for question in questions:
        try:
            rows = fetch_page(Query("Gene", (question,)).url(base)).rows
        except APIError:
            continue
        for row in rows:
            for acronym in texts([row], "acronym"):
                tags = row.get("alias_tags")
                genes[acronym] = tuple(tags.split()) if isinstance(tags, str) else ()
    return genes


def unionize_rows(base: str, dataset_ids: Sequence[int]) -> list[Row]:
    """Return the StructureUnionize rows of datasets, each with its ``structure`` nested.

    They are Allen's published values per structure. A query names at most 50 datasets, so that
    its URL stays short.

    Raises
    ------
    APIError
        If the service does not answer as it should.
    """
    rows: list[Row] = []
    for some in _groups(dataset_ids):
        among = _among("section_data_set_id", some)
        rows += fetch_rows(base, Query("StructureUnionize", (among,), include="structure"))
    return rows


def _found(base: str, terms: SearchTerms, of_genes: Sequence[str]) -> dict[int, DatasetSummary]:
    found: dict[int, DatasetSummary] = {}
    for criteria in _criteria(terms, of_genes):
        for row in fetch_rows(base, Query("SectionDataSet", criteria, _SUMMARY)):
            try:
                summary = DatasetSummary.from_row(row)
            except RegistrationError:
                continue  # Without an id there is nothing to tell of, or to open.
            if summary.meets(terms):
                found[summary.dataset_id] = summary
    return found


def _criteria(terms: SearchTerms, of_genes: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the criteria of each query; a dataset is looked for if it meets one of them."""
    everywhere = [] if terms.failed is None else [condition("failed", terms.failed)]
    if terms.planes:
        everywhere.append(_among("plane_of_section_id", terms.plane_ids))
    if terms.products:
        everywhere.append("products" + _among("id", [int(each) for each in terms.products]))
    numbers = [each for each in terms.specimens if isinstance(each, int)]
    of_specimens = [_among("specimen_id", some) for some in _groups(numbers)]
    of_specimens += [
        "specimen" + condition("name", each, "il")
        for each in terms.specimens
        if isinstance(each, str)
    ]
    choices: list[Sequence[str]] = [
        choice
        for choice, wanted in (
            (of_genes, terms.genes),
            (of_specimens, terms.specimens),
            ([_among("id", some) for some in _groups(terms.dataset_ids)], terms.dataset_ids),
            (
                ["section_images" + _among("id", some) for some in _groups(terms.image_ids)],
                terms.image_ids,
            ),
        )
        if wanted
    ]
    for chosen in itertools.product(*choices):
        yield (*everywhere, *chosen)


def _gene_criteria(genes: Sequence[str]) -> list[str]:
    if len(genes) == 1:
        return [_gene(genes[0])]
    bare = [gene for gene in genes if _BARE.fullmatch(gene)]
    others = [gene for gene in genes if not _BARE.fullmatch(gene)]
    return [
        *(f"genes[acronym$in{','.join(some)}]" for some in _groups(bare)),
        *(_gene(gene) for gene in others),
    ]


def _gene(acronym: str) -> str:
    return "genes" + condition("acronym", acronym, "il")


def _among(field: str, values: Sequence[int]) -> str:
    """Return the condition that a field is one of some numbers.

    Examples
    --------
    >>> _among("id", [5]), _among("id", [5, 7])
    ('[id$eq5]', '[id$in5,7]')
    """
    if len(values) == 1:
        return condition(field, values[0])
    return f"[{field}$in{','.join(f'{value:d}' for value in values)}]"


def _groups(values: Sequence[_Value]) -> list[Sequence[_Value]]:
    return [
        values[first : first + _VALUES_A_QUERY] for first in range(0, len(values), _VALUES_A_QUERY)
    ]
