"""Rows of the service as the typed columns of a catalogue, and back.

What a `SectionDataset` is built from survives the way there and back; the rest of a row is left
out. A value that its column cannot hold becomes a null, and is then missed by whoever needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from ..errors import library
from ..model import rows as rma
from ..model.rows import Row, finite_number

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_OF_A_KIND: Final = 16
"""Genes or products of one dataset."""

_LONGEST_TEXT: Final = 1000
_LARGEST_INTEGER: Final = 2**53
_CHANNELS: Final = ("red_channel", "green_channel", "blue_channel")
WHOLE: Final = ("width", "height", "x", "y", "image_width", "image_height", "tier_count")
"""Whole numbers of a section image."""


@cache
def dataset_schema() -> pa.Schema:
    """Return the columns of the table of datasets.

    Raises
    ------
    ImportError
        If pyarrow is missing; the message says what it is for.
    """
    pa = library("pyarrow", "a catalogue")
    text, whole, matrix = pa.string(), pa.int64(), pa.list_(pa.float64(), 12)
    gene = {"acronym": text, "name": text, "entrez_id": whole, "alias_tags": text}
    product = {"id": whole, "name": text, "abbreviation": text}
    return pa.schema(
        [
            pa.field("dataset_id", whole, nullable=False),
            ("failed", pa.bool_()),
            ("plane_of_section_id", whole),
            ("reference_space_id", whole),
            ("section_thickness", pa.float64()),
            ("fluorescent", pa.bool_()),
            ("genes", pa.list_(pa.struct(list(gene.items())))),
            ("products", pa.list_(pa.struct(list(product.items())))),
            ("specimen_id", whole),
            ("specimen", text),
            ("hemisphere", text),
            ("age", text),
            ("tvr", matrix),
            ("trv", matrix),
            ("sections", whole),
        ]
    )


@cache
def image_schema() -> pa.Schema:
    """Return the columns of the table of section images."""
    import pyarrow as pa

    whole, matrix = pa.int64(), pa.list_(pa.float64(), 6)
    return pa.schema(
        [
            pa.field("dataset_id", whole, nullable=False),
            pa.field("image_id", whole, nullable=False),
            ("section_number", whole),
            *((name, whole) for name in WHOLE),
            ("resolution", pa.float64()),
            ("failed", pa.bool_()),
            ("has_expression", pa.bool_()),
            ("tsv", matrix),
            ("tvs", matrix),
        ]
    )


def dataset_record(row: Row) -> dict[str, Any]:
    """Return the columns of a SectionDataSet row with all that is nested in it."""
    specimen = next(iter(rma.records(row.get("specimen"))), {})
    donor = next(iter(rma.records(specimen.get("donor"))), {})
    age = next(iter(rma.records(donor.get("age"))), {})
    bright = any(row.get(name) for name in _CHANNELS) or bool(rma.records(row.get("equalization")))
    return {
        "dataset_id": row["id"],
        "failed": rma.flag(row, "failed"),
        "plane_of_section_id": _whole(row.get("plane_of_section_id")),
        "reference_space_id": _whole(row.get("reference_space_id")),
        "section_thickness": finite_number(row.get("section_thickness")),
        "fluorescent": bright,
        "genes": [
            {
                "acronym": _text(gene.get("acronym")),
                "name": _text(gene.get("name")),
                "entrez_id": _whole(gene.get("entrez_id")),
                "alias_tags": _text(gene.get("alias_tags")),
            }
            for gene in rma.records(row.get("genes"))[:_MOST_OF_A_KIND]
        ],
        "products": [
            {
                "id": _whole(product.get("id")),
                "name": _text(product.get("name")),
                "abbreviation": _text(product.get("abbreviation")),
            }
            for product in rma.records(row.get("products"))[:_MOST_OF_A_KIND]
        ],
        "specimen_id": _whole(
            specimen.get("id") if row.get("specimen_id") is None else row["specimen_id"]
        ),
        "specimen": _text(specimen.get("name")),
        "hemisphere": _text(specimen.get("hemisphere")),
        "age": _text(age.get("name")) or _text(row.get("age")),
        "tvr": _entries(row.get("alignment3d"), "tvr"),
        "trv": _entries(row.get("alignment3d"), "trv"),
    }


def image_record(row: Row) -> dict[str, Any]:
    """Return the columns of a SectionImage row with its ``alignment2d``."""
    return {
        "dataset_id": row["data_set_id"],
        "image_id": row["id"],
        "section_number": _whole(row.get("section_number")),
        **{name: _whole(row.get(name)) for name in WHOLE},
        "resolution": finite_number(row.get("resolution")),
        "failed": rma.flag(row, "failed"),
        "has_expression": bool(row.get("expression_path")),
        "tsv": _entries(row.get("alignment2d"), "tsv"),
        "tvs": _entries(row.get("alignment2d"), "tvs"),
    }


def dataset_row(record: Mapping[str, Any]) -> Row:
    """Return a SectionDataSet row, as far as a record of the table of datasets tells it."""
    age = record["age"]
    return {
        "id": record["dataset_id"],
        "failed": record["failed"],
        "plane_of_section_id": record["plane_of_section_id"],
        "reference_space_id": record["reference_space_id"],
        "section_thickness": record["section_thickness"],
        "red_channel": "bright" if record["fluorescent"] else None,
        "genes": record["genes"] or [],
        "products": record["products"] or [],
        "specimen_id": record["specimen_id"],
        "specimen": {
            "id": record["specimen_id"],
            "name": record["specimen"],
            "hemisphere": record["hemisphere"],
            "donor": {"age": None if age is None else {"name": age}},
        },
        "alignment3d": _alignment(record, ("tvr", "trv")),
    }


def image_rows(table: pa.Table) -> list[Row]:
    """Return SectionImage rows, as far as the table of section images tells them."""
    columns = {
        "id": table["image_id"].to_pylist(),
        "data_set_id": table["dataset_id"].to_pylist(),
        **{name: table[name].to_pylist() for name in ("section_number", *WHOLE)},
        "resolution": table["resolution"].to_pylist(),
        "failed": table["failed"].to_pylist(),
        "expression_path": [
            "there is one" if there else None for there in table["has_expression"].to_pylist()
        ],
        "alignment2d": [
            _alignment({"tsv": tsv, "tvs": tvs}, ("tsv", "tvs"))
            for tsv, tvs in zip(_lists(table["tsv"]), _lists(table["tvs"]), strict=True)
        ],
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _lists(column: pa.ChunkedArray) -> list[list[float] | None]:
    """Return the entries of a matrix a row, None where there is none."""
    whole = column.combine_chunks()
    # Null matrices are left out of what is flat; a number that is null becomes NaN.
    entries = iter(whole.flatten().to_numpy(False).reshape(-1, whole.type.list_size).tolist())
    return [next(entries) if there else None for there in whole.is_valid().to_pylist()]


def is_id(value: Any) -> bool:
    """Whether a value can be the id of a row."""
    return type(value) is int and 0 <= value <= _LARGEST_INTEGER


def in_order(records: Iterable[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Return records by ascending keys, each once."""
    known = {tuple(record[key] for key in keys): record for record in records}
    return [known[key] for key in sorted(known)]


def _alignment(record: Mapping[str, Any], names: tuple[str, str]) -> Row | None:
    if all(record[name] is None for name in names):
        return None
    found: dict[str, Any] = {}
    for name in names:
        found.update(zip(rma.ENTRIES[name], record[name] or (), strict=False))
    return found


def _entries(alignment: Any, name: str) -> list[float] | None:
    """Return the numbered entries of a matrix in their order, or None if one is of no use."""
    if not isinstance(alignment, Mapping):
        return None
    entries = [finite_number(alignment.get(entry)) for entry in rma.ENTRIES[name]]
    return None if None in entries else entries  # type: ignore[return-value]  # none is None


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or abs(value) > _LARGEST_INTEGER:
        return None
    return value


def _text(value: Any) -> str | None:
    """Return a text that any file can hold, cut where it is no name any more."""
    if not isinstance(value, str) or not value:
        return None
    return value[:_LONGEST_TEXT].encode("utf-8", "replace").decode()
