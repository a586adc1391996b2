"""Answering queries of RMA from tables.

Criteria join: a row passes where some associated row passes. Includes nest; their filters join
and thin out what is nested. Answers come in the service's envelope [1]_.

References
----------
.. [1] "API response formats", https://brain-map.org/support/documentation/api-response-formats
"""

from __future__ import annotations

import fnmatch
import itertools
import random
import re
from collections.abc import Mapping
from typing import Any

from .doubts import Doubts
from .queries import Filter, Node, Query, QueryError
from .service_rows import Row
from .tables import Tables, UnknownModelError

_NULLS = ("null", "nil")


def answer(
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
    try:
        return _answer(query, tables, doubts, phantom_rows, scramble)
    except UnknownModelError as error:
        raise QueryError(str(error)) from error


def failure(message: str) -> dict[str, Any]:
    """Return the envelope of a query that failed."""
    return {
        "success": False,
        "id": 0,
        "start_row": 0,
        "num_rows": 0,
        "total_rows": 0,
        "msg": message,
    }


def _answer(
    query: Query, tables: Tables, doubts: Doubts, phantom_rows: int, scramble: int
) -> dict[str, Any]:
    quick = tables.quick(query)
    if quick is not None:
        available, made = quick
        start, count = _paging(query.options, doubts, available)
        page = list(itertools.islice(made, start, start + count))
    else:
        rows = [row for row in tables.rows(query.model) if _holds(query, row, tables)]
        rows = _ordered(rows, query, tables, doubts, scramble)
        available = len(rows)
        start, count = _paging(query.options, doubts, available)
        page = rows[start : start + count]
    total = available + phantom_rows
    chosen = [_told(query.model, row, query.include, tables) for row in page]
    return {
        "success": True,
        "id": 0,
        "start_row": start,
        "num_rows": len(page),
        "total_rows": total,
        "msg": [_columns(row, query) for row in chosen],
    }


def _holds(query: Query, row: Row, tables: Tables) -> bool:
    # Filters of an include join as well as those of the criteria.
    joins = query.criteria + tuple(node for node in query.include if _filters(node))
    return all(_passes(one, row, query.model, tables) for one in query.filters) and all(
        _joins(node, row, query.model, tables) for node in joins
    )


def _filters(node: Node) -> bool:
    return bool(node.filters) or any(_filters(inner) for inner in node.inner)


def _joins(node: Node, row: Row, model: str, tables: Tables) -> bool:
    other = tables.association(model, node.name).model
    return any(
        isinstance(found, dict)
        and all(_passes(one, found, other, tables) for one in node.filters)
        and all(_joins(inner, found, other, tables) for inner in node.inner)
        for found in tables.associated(model, row, node.name)
    )


def _passes(condition: Filter, row: Row, model: str, tables: Tables) -> bool:
    column = condition.column.rpartition(".")[2]
    if column not in row and column not in tables.columns(model):
        raise QueryError(f"Unknown column '{condition.column}' of {model}")
    value, wanted = row.get(column), condition.value
    operator = condition.operator
    if operator == "in":
        return any(_equal(value, one.strip().strip("'")) for one in wanted.split(","))
    if operator in ("eq", "is"):
        return _equal(value, wanted)
    if operator == "ne":
        return not _equal(value, wanted)
    if value is None:
        return False
    if operator in ("li", "il"):
        text, pattern = str(value), wanted
        if operator == "il":
            text, pattern = text.lower(), pattern.lower()
        literal = pattern.replace("[", "[[]").replace("?", "[?]")
        return fnmatch.fnmatchcase(text, literal)
    sides: tuple[Any, Any] = (value, wanted)
    number = _number(wanted)
    if isinstance(value, int | float) and number is not None:
        sides = (value, number)
    elif not isinstance(value, str):
        return False
    left, right = sides
    return bool(
        {"gt": left > right, "lt": left < right, "ge": left >= right, "le": left <= right}[operator]
    )


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


def _told(model: str, row: Row, include: tuple[Node, ...], tables: Tables) -> Row:
    told = tables.told(model, row)
    for node in include:
        if tables.is_odd(model, row, node.name):
            told[node.name] = row[node.name]
            continue
        other = tables.association(model, node.name).model
        found = tables.associated(model, row, node.name)
        if _filters(node):
            found = [
                one
                for one in found
                if isinstance(one, dict)
                and all(_passes(condition, one, other, tables) for condition in node.filters)
                and all(
                    _joins(inner, one, other, tables) for inner in node.inner if _filters(inner)
                )
            ]
        nested = [
            _told(other, one, node.inner, tables) if isinstance(one, dict) else one for one in found
        ]
        tables.nest(told, model, node.name, nested)
    return told


def _columns(row: Row, query: Query) -> Row:
    only = [name for name in query.options.get("only", "").split(",") if name]
    drop = [name for name in query.options.get("except", "").split(",") if name]
    included = {node.name for node in query.include}
    return {
        name: value
        for name, value in row.items()
        if name in included or ((not only or name in only) and name not in drop)
    }
