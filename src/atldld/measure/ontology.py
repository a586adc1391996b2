"""The tree of structures: who is part of whom."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import pandas as pd

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
            missing = value is None or value == "" or value != value  # NaN is not itself
            return None if missing or int(value) == number else int(value)
    path = row.get("structure_id_path")
    if path is None:
        if "children" in row:
            return None
        raise KeyError("parent")
    steps = path.strip("/").split("/") if isinstance(path, str) else list(path)
    return int(steps[-2]) if len(steps) > 1 else None
