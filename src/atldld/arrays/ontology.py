"""Structures: their acronyms, names and colours, and who is part of whom."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..source import Source, source_from
from ..source.allen import AllenSource
from ..source.archives import ontology_rows

ONTOLOGY = "Allen mouse brain ontology (structure graph 1)"
"""What an annotation says whose labels are ids of it."""

_PARENTS = ("parent_structure_id", "parent_id", "parent")


@dataclass(frozen=True, slots=True)
class Tree:
    """Structures, each with its parent.

    Parameters
    ----------
    parents
        The parent of each structure, None for a root.
    acronyms, names
        As far as they are known.
    """

    parents: Mapping[int, int | None]
    acronyms: Mapping[int, str] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)

    def line(self, structure: int) -> list[int]:
        """Return a structure and all that it is part of, up to the root.

        Raises
        ------
        ValueError
            If it is part of itself.
        """
        line = [structure]
        while True:
            above = self.parents.get(line[-1])
            if above is None:
                return line
            if above in line:
                raise ValueError(f"structure {above} is part of itself in the tree")
            line.append(above)

    def with_parts(self, structures: Iterable[int]) -> list[int]:
        """Return structures and all that is part of one of them."""
        wanted = {int(each) for each in structures}
        return sorted(wanted | {each for each in self.parents if wanted & set(self.line(each))})

    def numbered(self, structure: Any) -> int:
        """Return the id of a structure that is named by id, acronym or name.

        Acronyms count as they are written; of names, case does not matter.

        Raises
        ------
        KeyError
            If there is none of that acronym or name; the message names those like it.
        TypeError
            If it is no name at all.
        """
        if isinstance(structure, int | np.integer) and not isinstance(structure, bool):
            return int(structure)
        if not isinstance(structure, str):
            raise TypeError(f"{structure!r} is not a structure: give its id, acronym or name")
        for known, wanted in ((self.acronyms, structure), (self._lower(), structure.lower())):
            found = [number for number, text in known.items() if text == wanted]
            if len(found) == 1:
                return found[0]
            if found:
                named = ", ".join(map(str, found))
                raise KeyError(f"{structure!r} is the name of structures {named}: give an id")
        raise KeyError(f"there is no structure {structure!r}{self._like(structure)}")

    def _lower(self) -> dict[int, str]:
        return {number: name.lower() for number, name in self.names.items()}

    def _like(self, text: str) -> str:
        shown = {name.lower(): name for name in (*self.acronyms.values(), *self.names.values())}
        near = difflib.get_close_matches(text.lower(), shown, n=4, cutoff=0.6)
        if near:
            return f"; there is {', '.join(repr(shown[each]) for each in near)}"
        return "" if self.names else ": the tree that was given has no names"


def structures(*, source: str | Source | None = None) -> pd.DataFrame:
    """Return Allen's ontology of the mouse brain: every structure, and what it is part of.

    It is fetched once and kept. Annotations of the 2011 space and of CCFv3 both use its ids.

    Parameters
    ----------
    source
        The service: None, that of ``set_options(api_url=...)``; or the base URL of one.

    Returns
    -------
    pandas.DataFrame
        A row a structure, in the order of the ontology: ``id``, ``acronym``, ``name``,
        ``parent`` (its id; missing for the root), ``path`` (ids from the root, such as
        ``/997/8/343/``) and ``colour`` (``#FF7080``). It serves as ``tree=`` of
        `structure_table`.

    Raises
    ------
    APIError
        If the service does not answer as it should.
    ValueError
        If the source is not a service.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer
    >>> with AllenServer() as server:
    ...     table = atldld.structures(source=server.url)
    >>> table[table.acronym == "TH"][["id", "name", "parent", "path", "colour"]]
         id      name  parent                  path   colour
    15  549  Thalamus    1129  /997/8/343/1129/549/  #FF7080
    """
    origin = source_from(source)
    if not isinstance(origin, AllenSource):
        raise ValueError(f"{origin.name} keeps no ontology; give the base URL of an API")
    rows = sorted(
        _nested_rows(ontology_rows(origin), None), key=lambda row: row.get("graph_order") or 0
    )
    tree = _of_rows(rows)
    ids = [int(row["id"]) for row in rows]
    colours = [str(row.get("color_hex_triplet") or "") for row in rows]
    return pd.DataFrame(
        {
            "id": ids,
            "acronym": [tree.acronyms.get(number, "") for number in ids],
            "name": [tree.names.get(number, "") for number in ids],
            "parent": pd.array([tree.parents[number] for number in ids], dtype="Int64"),
            "path": [f"/{'/'.join(map(str, reversed(tree.line(number))))}/" for number in ids],
            "colour": [f"#{colour.upper()}" if colour else "" for colour in colours],
        }
    )


def tree_of(annotation: xr.DataArray | None, tree: Any) -> Tree | None:
    """Return the tree that a user gave, or else that of an annotation, or None.

    Parameters
    ----------
    annotation
        Of those that `atldld.open_annotation` opened by name, it is Allen's ontology.
    tree
        As for `structure_table`; False for none.
    """
    if tree is False:
        return None
    if tree is not None:
        return read_tree(tree)
    if annotation is None or annotation.attrs.get("ontology") != ONTOLOGY:
        return None
    where = annotation.attrs.get("ontology_source")
    return read_tree(structures(source=where if isinstance(where, str) else None))


def structure_ids(wanted: Any, tree: Tree | None) -> list[int]:
    """Return the ids of one or several structures that are named by id, acronym or name.

    Without a tree, what acronyms and names mean is looked up in Allen's ontology.
    """
    asked = [wanted] if isinstance(wanted, str | int | np.integer) else list(wanted)
    named = any(isinstance(each, str) for each in asked)
    if tree is None:
        tree = read_tree(structures()) if named else Tree({})
    return [tree.numbered(each) for each in asked]


def read_tree(tree: Any) -> Tree:
    """Return a tree from what a user has.

    Parameters
    ----------
    tree
        A pandas frame with a column ``id`` (or ``structure_id``, or ids as the index) and one of
        ``parent_structure_id``, ``parent_id``, ``parent`` or ``structure_id_path``; Allen's JSON
        of a structure graph (nested ``children``, or rows), loaded or as a path; or a `Tree`.

    Examples
    --------
    >>> tree = read_tree([{"id": 997, "children": [{"id": 8, "children": []}]}])
    >>> tree.line(8)
    [8, 997]
    """
    if isinstance(tree, Tree):
        return tree
    if isinstance(tree, pd.DataFrame):
        return _of_rows(_frame_rows(tree))
    if isinstance(tree, str | PathLike):
        tree = json.loads(Path(fspath(tree)).read_text(encoding="utf-8"))
    if isinstance(tree, Mapping):
        tree = tree.get("msg", [tree])
    if isinstance(tree, Mapping):
        tree = [tree]
    if not isinstance(tree, Sequence) or not all(isinstance(row, Mapping) for row in tree):
        raise TypeError(
            f"tree is {type(tree).__name__}; it must be a pandas frame or Allen's JSON of a "
            "structure graph"
        )
    return _of_rows(_nested_rows(tree, None))


def _frame_rows(frame: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    key = next((name for name in ("id", "structure_id") if name in frame.columns), None)
    ids = frame.index if key is None else frame[key]
    for number, row in zip(ids, frame.to_dict("records"), strict=True):
        yield {str(name): value for name, value in row.items()} | {"id": number}


def _nested_rows(rows: Iterable[Mapping[str, Any]], above: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [(row, above) for row in rows]
    while waiting:
        row, parent = waiting.pop()
        yield row if parent is None else {**row, "parent_structure_id": parent}
        waiting += [(child, row.get("id")) for child in row.get("children") or []]


def _of_rows(rows: Iterable[Mapping[str, Any]]) -> Tree:
    parents: dict[int, int | None] = {}
    texts: dict[str, dict[int, str]] = {"acronym": {}, "name": {}}
    for row in rows:
        try:
            number = int(row["id"])
            parents[number] = _parent(row, number)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"a row of the tree has no usable id or parent ({error}): it needs 'id' and one "
                f"of {', '.join(_PARENTS)}, structure_id_path"
            ) from None
        for name, found in texts.items():
            if isinstance(row.get(name), str):
                found[number] = row[name]
    if not parents:
        raise ValueError("the tree holds no structures")
    return Tree(parents, texts["acronym"], texts["name"])


def _parent(row: Mapping[str, Any], number: int) -> int | None:
    for name in _PARENTS:
        if name in row:
            value = row[name]
            missing = value is None or bool(pd.isna(value)) or value == ""
            return None if missing or int(value) == number else int(value)
    path = row.get("structure_id_path")
    if path is None:
        if "children" in row:
            return None
        raise KeyError("parent")
    steps = path.strip("/").split("/") if isinstance(path, str) else list(path)
    return int(steps[-2]) if len(steps) > 1 else None
