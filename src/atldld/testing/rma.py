"""RMA: reading queries, and answering them from tables.

RMA ("RESTful model access") is the query language of the service [1]_. Understood here are
its three forms of URL, criteria with filters and nested associations, includes with nesting
and filters, and the options ``num_rows``, ``start_row``, ``order``, ``only``, ``except`` and
``count``. Pipes and tabular results are not.

References
----------
.. [1] "RESTful Model Access (RMA)", https://community.brain-map.org/t/2866
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .doubts import Doubts
from .rows import Row
from .tables import Tables, UnknownModelError

_OPERATORS = ("eq", "ne", "li", "il", "gt", "lt", "ge", "le", "in", "is")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*(?:::[A-Za-z0-9_]+)*")
_FILTER = re.compile(r"\[\s*([A-Za-z_][A-Za-z0-9_.]*)\s*\$([a-z]{2})(.*)", re.DOTALL)
_NULLS = ("null", "nil")


class QueryError(Exception):
    """A query that cannot be understood or answered."""


@dataclass(frozen=True, slots=True)
class Filter:
    """``[field$op value]``; the value is text, or a list of texts for ``in``."""

    column: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Node:
    """An association with its filters, and what is nested in its parentheses."""

    name: str
    filters: tuple[Filter, ...] = ()
    inner: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A query, whichever URL it came by."""

    model: str
    filters: tuple[Filter, ...] = ()
    criteria: tuple[Node, ...] = ()
    include: tuple[Node, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Read a comma list of associations with filters and parentheses.

    Filters without a name before them become a node whose name is empty.

    Raises
    ------
    QueryError
        If the text cannot be read.

    Examples
    --------
    >>> (images,) = parse_nodes("section_images[failed$eqfalse](alignment2d)")
    >>> images.name, images.filters[0].operator, images.inner[0].name
    ('section_images', 'eq', 'alignment2d')
    """
    nodes, rest = _nodes(text.strip())
    if rest:
        raise QueryError(f"Unexpected token at {rest[:40]!r}")
    return nodes


def parse_stages(text: str) -> Query:
    """Read ``model::X,rma::criteria,...,rma::include,...,rma::options[...]``."""
    model: str | None = None
    stage = "model"
    filters: list[Filter] = []
    criteria: list[Node] = []
    include: list[Node] = []
    options: dict[str, str] = {}
    for node in parse_nodes(text):
        if node.name.startswith("model::"):
            if model is not None:
                raise QueryError("Only one model stage can be answered")
            model, stage = node.name.removeprefix("model::"), "criteria"
            filters += node.filters
        elif node.name in ("rma::criteria", "rma::include"):
            stage = node.name.removeprefix("rma::")
            filters += node.filters
        elif node.name == "rma::options":
            stage = "options"
            options |= {option.column: option.value for option in node.filters}
        elif "::" in node.name:
            raise QueryError(f"Unknown stage {node.name!r}")
        elif stage == "criteria":
            if node.name:
                criteria.append(node)
            else:
                filters += node.filters
        elif stage == "include":
            include.append(node)
        else:
            raise QueryError(f"Unexpected {node.name!r} in stage {stage}")
    if model is None:
        raise QueryError("There is no model stage")
    return Query(model, tuple(filters), tuple(criteria), tuple(include), options)


def parse_request(model: str | None, parameters: Mapping[str, str]) -> Query:
    """Read ``data/query.json?...`` (`model` None) or ``data/<model>/query.json?...``."""
    criteria = parameters.get("criteria", parameters.get("q", ""))
    named = "model::" in criteria
    if named or model is None:
        query = parse_stages(criteria)
        if model is not None and query.model != model:
            raise QueryError(f"The criteria are of {query.model}, not of {model}")
    else:
        nodes = parse_nodes(criteria)
        own = tuple(one for node in nodes if not node.name for one in node.filters)
        query = Query(model, own, tuple(node for node in nodes if node.name))
    include = query.include + parse_nodes(parameters.get("include", ""))
    given = {
        name: parameters[name].strip("'")
        for name in ("num_rows", "start_row", "order", "only", "except", "count", "tabular")
        if name in parameters
    }
    return replace(query, include=include, options={**query.options, **given})


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
    try:
        rows = [row for row in tables.rows(query.model) if _holds(query, row, tables)]
    except UnknownModelError as error:
        raise QueryError(str(error)) from error
    if query.options.get("tabular"):
        raise QueryError("Tabular results are not supported by this stand-in")
    rows = _ordered(rows, query, tables, doubts, scramble)
    start, count = _paging(query.options, doubts, len(rows))
    total = len(rows) + phantom_rows
    page = rows[start : start + count]
    chosen = [_told(query.model, row, query.include, tables) for row in page]
    return {
        "success": True,
        "id": 0,
        "start_row": start,
        "num_rows": len(page),
        "total_rows": total,
        "msg": [_columns(row, query) for row in chosen],
    }


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


def _nodes(text: str) -> tuple[tuple[Node, ...], str]:
    nodes: list[Node] = []
    while text and not text.startswith(")"):
        name = _NAME.match(text)
        text = text[name.end() :] if name else text
        filters = []
        while text.startswith("["):
            one, text = _filter(text)
            filters.append(one)
        inner: tuple[Node, ...] = ()
        if text.startswith("("):
            inner, text = _nodes(text[1:])
            if not text.startswith(")"):
                raise QueryError("A parenthesis is not closed")
            text = text[1:]
        if name is None and not filters:
            raise QueryError(f"Unexpected token at {text[:40]!r}")
        nodes.append(Node(name.group() if name else "", tuple(filters), inner))
        text = text.lstrip()
        if text.startswith(","):
            text = text[1:].lstrip()
            if not text:
                raise QueryError("The query ends with a comma")
        elif text and not text.startswith(")"):
            raise QueryError(f"Unexpected token at {text[:40]!r}")
    return tuple(nodes), text


def _filter(text: str) -> tuple[Filter, str]:
    found = _FILTER.match(text)
    if found is None:
        raise QueryError(f"Unexpected token at {text[:40]!r}")
    column, operator, rest = found.groups()
    if operator not in _OPERATORS:
        raise QueryError(f"Unknown operator ${operator}")
    if rest.startswith("'") and operator != "in":
        end = rest.find("']")
        if end < 0:
            raise QueryError(f"A quote is not closed at {text[:40]!r}")
        return Filter(column, operator, rest[1:end]), rest[end + 2 :]
    end = rest.find("]")
    if end < 0:
        raise QueryError(f"A bracket is not closed at {text[:40]!r}")
    return Filter(column, operator, rest[:end].strip()), rest[end + 1 :]


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
            turn = scramble % len(rows)
            return rows[turn:][::-1] + rows[:turn][::-1]
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
