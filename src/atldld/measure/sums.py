"""Sums by structure, block by block, each block read once; and as a pandas frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..arrays.lookup import Lookup
from ..arrays.ontology import Tree
from ..arrays.positions import SectionPoints

Array = npt.NDArray[np.float64]

_POINTS_AT_ONCE = 2**18
_PARTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True, eq=False)
class VolumePlaces:
    """Points of a volume: p, i, r along its three dimensions."""

    p: Array
    i: Array
    r: Array

    def part(self, key: tuple[slice, slice, slice]) -> VolumePlaces:
        """Return the places of a part."""
        return VolumePlaces(self.p[key[0]], self.i[key[1]], self.r[key[2]])

    def plane(self, number: int, rows: slice) -> tuple[Array, Array, Array]:
        """Return p, i, r of some rows of one plane."""
        return self.p[number : number + 1, None], self.i[rows, None], self.r[None, :]


Places = VolumePlaces | SectionPoints
"""Where the points of a block of three dimensions lie."""


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What is summed for each structure.

    Parameters
    ----------
    size
        Shape (sides, structures): points of the grid.
    count, weight, total
        Shape (others, sides, structures): values that count, the sum of their weights, and the
        sum of weight times value.
    """

    size: Array
    count: Array
    weight: Array
    total: Array


def sums_of_block(
    values: npt.NDArray[Any],
    weights: npt.NDArray[Any] | None,
    places: Places,
    lookup: Lookup,
    sides: int,
) -> Sums:
    """Return the sums of a block in memory.

    Parameters
    ----------
    values
        Shape (a, b, c, others...); NaN does not count.
    weights
        The same shape; 0 and NaN leave a value out. None for 1.
    places
        Where the points of the first three dimensions lie.
    lookup
        Which structure a place belongs to.
    sides
        1, or 2 to tell left from right.
    """
    planes, rows, columns = values.shape[:3]
    others = int(np.prod(values.shape[3:]))
    values = values.reshape(planes, rows, columns, others)
    if weights is not None:
        weights = weights.reshape(values.shape)
    bins = sides * len(lookup.ids)
    size = np.zeros(bins)
    count, weight, total = (np.zeros((others, bins)) for _ in range(3))
    step = max(_POINTS_AT_ONCE // max(columns, 1), 1)
    for plane in range(planes):
        for first in range(0, rows, step):
            some = slice(first, first + step)
            shape = values.shape[1:3] if step >= rows else (len(range(rows)[some]), columns)
            found, right = lookup.places(*places.plane(plane, some))
            labelled = np.broadcast_to(found != 0, shape)
            if not labelled.any():
                continue
            codes = np.broadcast_to(found, shape)[labelled].astype(np.intp)
            if sides == 2:
                codes += len(lookup.ids) * np.broadcast_to(right, shape)[labelled]
            size += np.bincount(codes, minlength=bins)
            taken = values[plane, some][labelled]
            w = None if weights is None else weights[plane, some][labelled]
            for other in range(others):
                _add(codes, taken[:, other], None if w is None else w[:, other], bins,
                     count[other], weight[other], total[other])  # fmt: skip
    shape_of = (others, sides, len(lookup.ids))
    return Sums(
        size.reshape(shape_of[1:]),
        count.reshape(shape_of),
        weight.reshape(shape_of),
        total.reshape(shape_of),
    )


def _add(
    codes: npt.NDArray[np.intp],
    values: npt.NDArray[Any],
    weights: npt.NDArray[Any] | None,
    bins: int,
    count: Array,
    weight: Array,
    total: Array,
) -> None:
    numbers = values.astype(np.float64)
    w = None if weights is None else weights.astype(np.float64)
    good = ~np.isnan(numbers)
    if w is not None:
        if (w < 0).any():
            raise ValueError("weights must not be negative")
        good &= w > 0
    if not good.all():
        codes, numbers, w = codes[good], numbers[good], None if w is None else w[good]
    counted = np.bincount(codes, minlength=bins)
    count += counted
    weight += counted if w is None else np.bincount(codes, w, minlength=bins)
    total += np.bincount(codes, numbers if w is None else w * numbers, minlength=bins)


def added(parts: Sequence[Sums]) -> Sums:
    """Return the sum of sums."""
    size = sum(part.size for part in parts)
    count, weight, total = (
        sum(getattr(part, name) for part in parts) for name in ("count", "weight", "total")
    )
    return Sums(np.asarray(size), np.asarray(count), np.asarray(weight), np.asarray(total))


def sums_of(data: Any, weights: Any, places: Places, lookup: Lookup, sides: int) -> Sums:
    """Return the sums of an array in memory or of dask, in one pass.

    Parameters
    ----------
    data
        Shape (a, b, c, others...), as for `sums_of_block`.
    weights
        None, or of the same shape; of dask where `data` is.
    places, lookup, sides
        As for `sums_of_block`.
    """
    if not hasattr(data, "__dask_graph__"):
        return sums_of_block(data, weights, places, lookup, sides)
    from dask.base import compute
    from dask.delayed import delayed

    # A column is some of what lies along the fourth dimension: it is summed by itself.
    data = data.rechunk(dict.fromkeys(range(4, data.ndim), -1))
    blocks = data.to_delayed()
    heavy = None if weights is None else weights.rechunk(data.chunks).to_delayed()
    # A name of its own spares hashing the annotation; one key carries it for all blocks.
    shared = delayed(lookup, name=f"atldld-lookup-{uuid4().hex}", traverse=False)
    of_block = delayed(sums_of_block, pure=False)
    edges = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in data.chunks[:3]]
    columns: dict[tuple[int, ...], list[Any]] = {}
    for place in np.ndindex(blocks.shape):
        key = tuple(slice(edges[n][place[n]], edges[n][place[n] + 1]) for n in range(3))
        mine = places.part((key[0], key[1], key[2]))
        held = delayed(mine, name=f"atldld-places-{uuid4().hex}", traverse=False)
        w = None if heavy is None else heavy[place]
        part = of_block(blocks[place], w, held, shared, sides)
        columns.setdefault(place[3:], []).append(part)
    add = delayed(added, pure=False)
    for column, parts in columns.items():
        while len(parts) > 1:
            parts = [
                add(parts[first : first + _PARTS_AT_ONCE])
                for first in range(0, len(parts), _PARTS_AT_ONCE)
            ]
        columns[column] = parts
    found: tuple[Sums, ...] = compute(*(parts[0] for parts in columns.values()))
    count, weight, total = (
        np.concatenate([getattr(each, name) for each in found])
        for name in ("count", "weight", "total")
    )
    return Sums(found[0].size, count, weight, total)


_SIDES = ("left", "right")


def frame_of(
    sums: Sums,
    lookup: Lookup,
    structures: Sequence[int] | None,
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
