"""Search terms in the service's query language.

What the service finds is held against the terms once more: nobody has written down what it makes
of the wildcards of its own database (``%``, ``_``) in a text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from ..errors import APIError, RegistrationError
from ..model.info import DatasetSummary
from ..model.rows import records, texts
from ..model.terms import SearchTerms, fits, listed, near
from ..options import Options
from .rma import Query, Row, condition, fetch_page, fetch_rows

_Value = TypeVar("_Value")

INCLUDE: Final = "genes,products,specimen(donor(age))"

_VALUES_A_QUERY = 50
"""So that a URL stays short."""

_BARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Texts that need no quotes in a list of values."""


def search_service(
    base: str, terms: SearchTerms, options: Options | None = None
) -> list[DatasetSummary]:
    """Return what a service has, by ascending id.

    Raises
    ------
    ValueError
        If it has no such product; the message says which there are.
    APIError
        If it does not answer as it should.
    """
    if any(isinstance(each, str) for each in terms.products):
        products = fetch_rows(base, Query("Product"), options)
        terms = with_product_ids(terms, products)
    found = _found(base, terms, _gene_criteria(terms.genes), options)
    if len(terms.genes) > 1:
        # Lists are compared letter by letter, so what they missed may be spelled otherwise.
        missed = [
            gene
            for gene in terms.genes
            if _BARE.fullmatch(gene)
            and not any(fits(gene, one) for each in found.values() for one in each.genes)
        ]
        found |= _found(base, terms, [_gene(gene) for gene in missed], options)
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
            known = sorted({*texts_of(rows, "name")})
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


def texts_of(rows: Iterable[Row], field: str) -> list[str]:
    """Return the texts of a field over any number of rows."""
    return [text for row in rows for text in texts([row], field)]


def image_rows(base: str, dataset_ids: Sequence[int], options: Options | None = None) -> list[Row]:
    """Return the SectionImage rows of datasets, by ascending id within groups of datasets."""
    rows: list[Row] = []
    for some in _groups(dataset_ids):
        rows += fetch_rows(base, Query("SectionImage", (_among("data_set_id", some),)), options)
    return rows


def _found(
    base: str, terms: SearchTerms, of_genes: Sequence[str], options: Options | None
) -> dict[int, DatasetSummary]:
    found: dict[int, DatasetSummary] = {}
    for criteria in _criteria(terms, of_genes):
        for row in fetch_rows(base, Query("SectionDataSet", criteria, INCLUDE), options):
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
