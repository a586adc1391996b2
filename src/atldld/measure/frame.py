"""Sums by structure as a pandas frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .lookup import Lookup
from .sums import Sums
from .tree import Tree

_SIDES = ("left", "right")


def frame_of(
    sums: Sums,
    lookup: Lookup,
    structures: Iterable[int] | None,
    tree: Tree | None,
    levels: list[tuple[str, list[Any]]],
    by_hemisphere: bool,
    weighted: bool,
) -> pd.DataFrame:
    """Return sums as the frame of `structure_table`.

    Parameters
    ----------
    sums, lookup
        What was summed, and for which structures.
    structures
        The rows wanted, or None for those that a point lies in.
    tree
        Who is part of whom, or None.
    levels
        Names and labels of the other dimensions of the values.
    by_hemisphere
        Whether the sums tell the sides apart.
    weighted
        Whether the values had weights.
    """
    ids, into = _rows(lookup, sums, structures, tree)
    size, count, weight, total = (
        part @ into.T for part in (sums.size, sums.count, sums.weight, sums.total)
    )
    sides = [("hemisphere", list(_SIDES))] if by_hemisphere else []
    above = [*levels, *sides]
    index: pd.Index[Any] = pd.Index(ids, name="structure_id")
    if above:
        index = pd.MultiIndex.from_product(
            [*(labels for _, labels in above), ids],
            names=[*(name for name, _ in above), "structure_id"],
        )
    shape = total.shape
    columns: dict[str, Any] = {
        "size": np.broadcast_to(size, shape).ravel().astype(np.int64),
        "count": count.ravel().astype(np.int64),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["covered"] = columns["count"] / np.where(columns["size"], columns["size"], np.nan)
        columns["mean"] = np.where(weight.ravel() > 0, total.ravel() / weight.ravel(), np.nan)
    columns["sum"] = total.ravel()
    if weighted:
        columns["weight"] = weight.ravel()
    table = pd.DataFrame(columns, index=index)
    if above and ids:
        table = table.reorder_levels(["structure_id", *(name for name, _ in (*sides, *levels))])
        # Each structure's rows together, structures in their order.
        table = table.iloc[np.arange(len(table)).reshape(-1, len(ids)).T.ravel()]
    if tree is not None:
        numbers = table.index.get_level_values("structure_id")
        table.insert(0, "acronym", [tree.acronyms.get(int(n), "") for n in numbers])
        table.insert(1, "name", [tree.names.get(int(n), "") for n in numbers])
    return table


def _rows(
    lookup: Lookup, sums: Sums, structures: Iterable[int] | None, tree: Tree | None
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Return the ids of the rows, and which labels each of them counts (rows, labels)."""
    labels = [int(each) for each in lookup.ids]
    lines = {label: [label] if tree is None else tree.line(label) for label in labels if label != 0}
    if structures is None:
        present = sums.size.sum(axis=0) > 0
        wanted = sorted(
            {
                each
                for place, label in enumerate(labels)
                if label != 0 and present[place]
                for each in lines[label]
            }
        )
    else:
        wanted = [int(each) for each in structures]
        if len(set(wanted)) != len(wanted):
            raise ValueError("structures names one of them twice")
    places = {each: place for place, each in enumerate(wanted)}
    into = np.zeros((len(wanted), len(labels)))
    for place, label in enumerate(labels):
        for each in lines.get(label, ()):
            if each in places:
                into[places[each], place] = 1.0
    return wanted, into
