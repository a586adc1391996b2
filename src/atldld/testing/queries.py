"""Reading queries of RMA, the query language of the service.

RMA ("RESTful model access") has three forms of URL [1]_. Understood here are criteria with
filters and nested associations, includes with nesting and filters, and the options
``num_rows``, ``start_row``, ``order``, ``only``, ``except`` and ``count``. Pipes are not.

References
----------
.. [1] "RESTful Model Access (RMA)", https://community.brain-map.org/t/2866
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

_OPERATORS = ("eq", "ne", "li", "il", "gt", "lt", "ge", "le", "in", "is")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*(?:::[A-Za-z0-9_]+)*")
_FILTER = re.compile(r"\[\s*([A-Za-z_][A-Za-z0-9_.]*)\s*\$([a-z]{2})(.*)", re.DOTALL)
_DEEPEST = 30


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
    nodes, rest = _nodes(text.strip(), 0)
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


def _nodes(text: str, depth: int) -> tuple[tuple[Node, ...], str]:
    if depth > _DEEPEST:
        raise QueryError(f"Parentheses are nested more than {_DEEPEST} deep")
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
            inner, text = _nodes(text[1:], depth + 1)
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
