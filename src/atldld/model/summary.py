"""A section dataset in a line: what a search finds, whether it can be opened or not."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Self

from . import rows as rma
from .rows import Row
from .terms import SearchTerms, fits, plane_name


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What the service says about a dataset in its own row; nothing is required but an id.

    Parameters
    ----------
    dataset_id
        Id of the section dataset.
    genes, gene_names, entrez_ids
        Acronyms, names and Entrez ids of the genes probed.
    plane
        Of the names that can be searched for; empty where the service gives none.
    products, product_ids
        Allen's products that it belongs to.
    specimen, specimen_id
        Name and id, or empty and None.
    age
        Such as ``"P56"``, or empty.
    reference_space
        Id of the reference space, or None.
    section_thickness
        Microns, or NaN.
    failed
        Whether it failed quality control.
    """

    dataset_id: int
    genes: tuple[str, ...] = ()
    gene_names: tuple[str, ...] = ()
    entrez_ids: tuple[int, ...] = ()
    plane: str = ""
    products: tuple[str, ...] = ()
    product_ids: tuple[int, ...] = ()
    specimen: str = ""
    specimen_id: int | None = None
    age: str = ""
    reference_space: int | None = None
    section_thickness: float = math.nan
    failed: bool = False

    @classmethod
    def from_row(cls, row: Row) -> Self:
        """Build from a SectionDataSet row with ``genes``, ``products`` and ``specimen`` nested.

        Raises
        ------
        RegistrationError
            If it has no usable id.
        """
        owner = f"dataset {rma.shown(row.get('id'))}"
        genes, products = rma.records(row.get("genes")), rma.records(row.get("products"))
        specimen = next(iter(rma.records(row.get("specimen"))), {})
        donor = next(iter(rma.records(specimen.get("donor"))), {})
        ages = (*rma.texts(rma.records(donor.get("age")), "name"), *rma.texts([row], "age"))
        thickness = rma.optional_positive(row, "section_thickness")
        return cls(
            dataset_id=rma.integer(row, "id", owner, least=0),
            genes=rma.texts(genes, "acronym"),
            gene_names=rma.texts(genes, "name"),
            entrez_ids=_numbers(genes, "entrez_id"),
            plane=plane_name(_number(row.get("plane_of_section_id"))),
            products=rma.texts(products, "name"),
            product_ids=_numbers(products, "id"),
            specimen=next(iter(rma.texts([specimen], "name")), ""),
            specimen_id=_number(row.get("specimen_id"))
            if row.get("specimen_id") is not None
            else _number(specimen.get("id")),
            age=next(iter(ages), ""),
            reference_space=_number(row.get("reference_space_id")),
            section_thickness=math.nan if thickness is None else thickness,
            failed=rma.flag(row, "failed"),
        )

    def meets(self, terms: SearchTerms) -> bool:
        """Whether the dataset is what was looked for; products by id, images not looked at."""
        return (
            (not terms.genes or any(fits(one, two) for one in terms.genes for two in self.genes))
            and (not terms.planes or self.plane in terms.planes)
            and (not terms.specimens or any(self._is_of(each) for each in terms.specimens))
            and (not terms.products or any(each in self.product_ids for each in terms.products))
            and (not terms.dataset_ids or self.dataset_id in terms.dataset_ids)
            and (terms.failed is None or self.failed == terms.failed)
        )

    def _is_of(self, specimen: int | str) -> bool:
        if isinstance(specimen, int):
            return self.specimen_id == specimen
        return fits(specimen, self.specimen)

    @property
    def title(self) -> str:
        """Genes and id in a few words."""
        return f"dataset {self.dataset_id}" + (f" ({', '.join(self.genes)})" if self.genes else "")

    def plain(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold."""
        values = {}
        for field in fields(DatasetSummary):
            value = getattr(self, field.name)
            value = list(value) if isinstance(value, tuple) else value
            values[field.name] = None if value != value else value
        return values


def _number(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        return None
    return value


def _numbers(rows: list[Row], field: str) -> tuple[int, ...]:
    found = (_number(row.get(field)) for row in rows)
    return tuple(number for number in found if number is not None)
