"""The tables behind a server, and answers to queries from them.

Criteria join: a row passes where some associated row passes. Includes nest; their filters join
and thin out what is nested. Answers come in the service's envelope [1]_.

References
----------
.. [1] "API response formats", https://brain-map.org/support/documentation/api-response-formats
"""

from __future__ import annotations

import fnmatch
import itertools
import operator
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .atlas import SyntheticAtlas
from .doubts import Doubts
from .oracle import FLIP
from .queries import Filter, Node, Query, QueryError
from .served import Served
from .service_rows import Row


class Association(NamedTuple):
    """How a model's row leads to others.

    Parameters
    ----------
    model
        The model of the others.
    many
        Whether there can be several.
    key
        The column that names the other by its id, where the row does not hold it nested.
    """

    model: str
    many: bool
    key: str | None = None


ASSOCIATIONS: dict[str, dict[str, Association]] = {
    "SectionDataSet": {
        "alignment3d": Association("Alignment3d", False),
        "equalization": Association("Equalization", False),
        "genes": Association("Gene", True),
        "plane_of_section": Association("PlaneOfSection", False, "plane_of_section_id"),
        "probes": Association("Probe", True),
        "products": Association("Product", True),
        "reference_space": Association("ReferenceSpace", False, "reference_space_id"),
        "section_images": Association("SectionImage", True),
        "specimen": Association("Specimen", False),
        "structure_unionizes": Association("StructureUnionize", True),
        "sub_images": Association("SectionImage", True),
        "treatments": Association("Treatment", True),
        "well_known_files": Association("WellKnownFile", True),
    },
    "SectionImage": {
        "alignment2d": Association("Alignment2d", False),
        "alternate_images": Association("AlternateImage", True),
        "associates": Association("SectionImage", True),
        "data_set": Association("SectionDataSet", False, "data_set_id"),
        "graphic_objects": Association("GraphicObject", True),
        "section_data_set": Association("SectionDataSet", False, "data_set_id"),
        "treatments": Association("Treatment", True),
    },
    "StructureUnionize": {
        "section_data_set": Association("SectionDataSet", False, "section_data_set_id"),
        "structure": Association("Structure", False, "structure_id"),
    },
    "Specimen": {"donor": Association("Donor", False)},
    "Donor": {
        "age": Association("Age", False, "age_id"),
        "organism": Association("Organism", False, "organism_id"),
    },
    "Gene": {"organism": Association("Organism", False, "organism_id")},
    "Probe": {"gene": Association("Gene", False)},
}
"""What can be joined and nested, for each model; all other models have none."""

_PLANES = {
    1: "coronal", 2: "sagittal", 4: "variable", 5: "n/a", 6: "transverse",
    7: "Lateral to Medial", 8: "Medial to Lateral", 9: "Ventral to Dorsal",
    10: "Dorsal to Ventral", 11: "Coronal (Caudal to Rostral)",
    531107579: "Coronal (Rostral to Caudal)", 1082279372: "Tangential",
}  # fmt: skip

_FIXED: dict[str, list[Row]] = {
    "PlaneOfSection": [{"id": number, "name": name} for number, name in _PLANES.items()],
    "ReferenceSpace": [
        {
            "age_id": 15,
            "anatomy": "Brain",
            "id": number,
            "name": name,
            "organism_id": 2,
            "storage_directory": None,
        }
        for number, name in ((9, "P56 Brain"), (10, "P56 Brain, L/R Flipped"))
    ],
    "ReferenceToReferenceTransform": [
        {
            "from_reference_space_id": start,
            "id": number,
            "to_reference_space_id": end,
            **{
                f"t_{place:02d}": value
                for place, value in enumerate((1, 0, 0, 0, 1, 0, 0, 0, -1, 0, 0, FLIP))
            },
        }
        for number, (start, end) in enumerate(((9, 10), (10, 9)), start=1)
    ],
    "Organism": [{"id": 2, "name": "Mus musculus", "ncbitaxonomyid": 10090, "tags": None}],
}


_NULLS = ("null", "nil")
_COMPARE = {
    "gt": operator.gt, "lt": operator.lt, "ge": operator.ge, "le": operator.le,
}  # fmt: skip


class Tables:
    """The rows of every model, gathered from the datasets served.

    Parameters
    ----------
    sources
        What is served.
    missing
        How a missing alignment is told: ``"null"`` or ``"absent"``.
    """

    def __init__(self, sources: Iterable[Served], missing: str) -> None:
        self._missing = missing
        self._columns: dict[str, set[str]] = {}
        self._rows: dict[str, dict[Any, Row]] = {
            model: {row["id"]: row for row in rows} for model, rows in _FIXED.items()
        }
        joined = {one.model for known in ASSOCIATIONS.values() for one in known.values()}
        for model in {*ASSOCIATIONS, *joined}:
            self._rows.setdefault(model, {})
        self._atlases: list[SyntheticAtlas] = []
        for source in sources:
            if isinstance(source, SyntheticAtlas):
                self._atlases.append(source)
            for row in source.rows:
                self._gather("SectionDataSet", row)

    def quick(self, query: Query) -> tuple[int, Iterator[Row]] | None:
        """Return how many rows meet a query, and those rows, where a made-up atlas knows it.

        None where rows must be looked at one by one, or stand elsewhere, too.
        """
        if len(self._atlases) != 1 or self._rows.get(query.model):
            return None
        return self._atlases[0].select(query)

    def rows(self, model: str) -> list[Row]:
        """Return all rows of a model, in the order they were served in."""
        if model not in self._rows:
            raise QueryError(f"uninitialized constant {model}")
        made = (row for atlas in self._atlases for row in atlas.all_rows(model, images=True))
        return [*self._rows[model].values(), *made]

    def columns(self, model: str) -> set[str]:
        """Return the names of the columns that any row of a model has."""
        if model not in self._columns:
            nested = ASSOCIATIONS.get(model, {})
            first = (next(iter(atlas.all_rows(model)), {}) for atlas in self._atlases)
            self._columns[model] = {
                name
                for row in (*self._rows[model].values(), *first)
                for name in row
                if name not in nested
            }
        return self._columns[model]

    def association(self, model: str, name: str) -> Association:
        """Return what an association of a model leads to."""
        known = ASSOCIATIONS.get(model, {})
        if name not in known:
            raise QueryError(
                f"Association named '{name}' was not found on {model}; perhaps you misspelled it?"
            )
        return known[name]

    def associated(self, model: str, row: Row, name: str) -> list[Any]:
        """Return the rows that a row leads to; of several also the nulls among them."""
        association = self.association(model, name)
        held = row.get("section_images" if name == "sub_images" else name)
        if isinstance(held, list):
            return held if association.many else held[:1]
        if held is not None:
            return [held]
        if association.key is not None and row.get(association.key) is not None:
            found = self._rows[association.model].get(row[association.key])
            return [] if found is None else [found]
        return []

    def told(self, model: str, row: Row, include: Iterable[Node]) -> Row:
        """Return the columns of a row, with what an include nests in it."""
        nested = ASSOCIATIONS.get(model, {})
        told = {name: value for name, value in row.items() if name not in nested}
        for node in include:
            association = self.association(model, node.name)
            held = row.get(node.name)
            fits = isinstance(held, list) if association.many else isinstance(held, dict | None)
            if node.name in row and not fits:
                # Made by hand, to see what a client does; it is served as it is.
                told[node.name] = held
                continue
            rows = self.associated(model, row, node.name)
            if _filters(node):
                joins = [inner for inner in node.inner if _filters(inner)]
                rows = [
                    one for one in rows if _fits(one, association.model, node.filters, joins, self)
                ]
            rows = [
                self.told(association.model, one, node.inner) if isinstance(one, dict) else one
                for one in rows
            ]
            if association.many:
                told[node.name] = rows
            elif rows:
                told[node.name] = rows[0]
            elif self._missing == "null" or not node.name.startswith("alignment"):
                told[node.name] = None
        return told

    def _gather(self, model: str, row: Mapping[str, Any]) -> None:
        key = row.get("id")
        if not isinstance(key, int | str):
            key = row.get("acronym", id(row))
        # Datasets can share a gene or a product; what is served first under an id stays.
        shelf = self._rows.setdefault(model, {})
        shelf.setdefault(key if isinstance(key, int | str) else id(row), dict(row))
        for name, association in ASSOCIATIONS.get(model, {}).items():
            held = row.get(name)
            for other in held if isinstance(held, list) else [held]:
                if isinstance(other, Mapping):
                    self._gather(association.model, other)


def answer_query(
    query: Query, tables: Tables, doubts: Doubts, *, phantom_rows: int = 0, scramble: int = 0
) -> dict[str, Any]:
    """Answer a query with an envelope.

    Parameters
    ----------
    phantom_rows
        How many rows more are promised than there are; pages past the end are empty.
    scramble
        Any number: rows without an order come in an order that depends on it (see `Doubts`).

    Raises
    ------
    QueryError
        If it cannot be answered.
    """
    if query.options.get("tabular"):
        raise QueryError("Tabular results are not supported by this stand-in")
    quick = tables.quick(query)
    if quick is not None:
        available, made = quick
        start, count = _paging(query.options, doubts, available)
        page = list(itertools.islice(made, start, start + count))
    else:
        # Filters of an include join as well as those of the criteria.
        joins = [*query.criteria, *(node for node in query.include if _filters(node))]
        rows = [
            row
            for row in tables.rows(query.model)
            if _fits(row, query.model, query.filters, joins, tables)
        ]
        rows = _ordered(rows, query, tables, doubts, scramble)
        available = len(rows)
        start, count = _paging(query.options, doubts, available)
        page = rows[start : start + count]
    told = (tables.told(query.model, row, query.include) for row in page)
    return {
        "success": True,
        "id": 0,
        "start_row": start,
        "num_rows": len(page),
        "total_rows": available + phantom_rows,
        "msg": [_columns(row, query) for row in told],
    }


def _filters(node: Node) -> bool:
    return bool(node.filters) or any(_filters(inner) for inner in node.inner)


def _fits(
    row: Any, model: str, filters: Iterable[Filter], joins: Iterable[Node], tables: Tables
) -> bool:
    """Whether a row passes filters, and of each join some row that it leads to."""
    return (
        isinstance(row, dict)
        and all(_passes(one, row, model, tables) for one in filters)
        and all(
            any(
                _fits(found, association.model, node.filters, node.inner, tables)
                for found in tables.associated(model, row, node.name)
            )
            for node in joins
            for association in (tables.association(model, node.name),)
        )
    )


def _passes(condition: Filter, row: Row, model: str, tables: Tables) -> bool:
    column = condition.column.rpartition(".")[2]
    if column not in row and column not in tables.columns(model):
        raise QueryError(f"Unknown column '{condition.column}' of {model}")
    value, wanted = row.get(column), condition.value
    asked = condition.operator
    if asked == "in":
        return any(_equal(value, one.strip().strip("'")) for one in wanted.split(","))
    if asked in ("eq", "is"):
        return _equal(value, wanted)
    if asked == "ne":
        return not _equal(value, wanted)
    if value is None:
        return False
    if asked in ("li", "il"):
        text, pattern = str(value), wanted.replace("[", "[[]").replace("?", "[?]")
        if asked == "il":
            text, pattern = text.lower(), pattern.lower()
        return fnmatch.fnmatchcase(text, pattern)
    number = _number(wanted)
    if isinstance(value, int | float) and number is not None:
        return bool(_COMPARE[asked](value, number))
    return isinstance(value, str) and bool(_COMPARE[asked](value, wanted))


def _equal(value: Any, wanted: str) -> bool:
    if value is None:
        return wanted in _NULLS
    if isinstance(value, bool):
        return wanted.lower() in (("true", "t", "1") if value else ("false", "f", "0"))
    if isinstance(value, int | float):
        return _number(wanted) == value
    return bool(value == wanted)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _ordered(
    rows: list[Row], query: Query, tables: Tables, doubts: Doubts, scramble: int
) -> list[Row]:
    orders = [part.strip() for part in query.options.get("order", "").split(",") if part.strip()]
    if not orders:
        if doubts.row_order == "scrambled" and len(rows) > 1:
            return random.Random(scramble).sample(rows, len(rows))
        return rows
    for part in reversed(orders):
        # A plus sign reaches us as a blank where it was not percent-encoded.
        name, _, direction = re.sub(r"[+\s$]+", " ", part).partition(" ")
        column = name.rpartition(".")[2]
        if column not in tables.columns(query.model) and rows:
            raise QueryError(f"Unknown column '{name}' in the order of {query.model}")
        rows = sorted(
            rows,
            key=lambda row: _sortable(row.get(column)),
            reverse=direction == "desc",
        )
    return rows


def _sortable(value: Any) -> tuple[int, float, str]:
    if value is None:
        return (2, 0.0, "")
    if isinstance(value, int | float):
        return (0, float(value), "")
    return (1, 0.0, str(value))


def _paging(options: Mapping[str, str], doubts: Doubts, available: int) -> tuple[int, int]:
    start = _count(options, "start_row", 0)
    if options.get("num_rows") == "all":
        count = available if doubts.all_rows == "uncapped" else min(available, doubts.max_rows)
    else:
        count = min(_count(options, "num_rows", doubts.default_rows), doubts.max_rows)
    return start, count


def _count(options: Mapping[str, str], name: str, default: int) -> int:
    text = options.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise QueryError(f"{name} is {text!r}, not a number")
    return int(text)


def _columns(row: Row, query: Query) -> Row:
    only = [name for name in query.options.get("only", "").split(",") if name]
    drop = [name for name in query.options.get("except", "").split(",") if name]
    included = {node.name for node in query.include}
    return {
        name: value
        for name, value in row.items()
        if name in included or ((not only or name in only) and name not in drop)
    }
