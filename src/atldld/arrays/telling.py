"""What an array is, and what ``.atlas`` can do with it, in words for people."""

from __future__ import annotations

import inspect
from html import escape

import numpy as np
import xarray as xr

from ..model.space import AXES
from .internals import is_lazy

Lines = list[tuple[str, str]]


def in_text(obj: xr.DataArray | xr.Dataset, accessor: type) -> str:
    """Return what an object is and the methods of its accessor, as text."""
    width = max(len(name) for name, _ in _methods(accessor))
    facts = [f"    {name}: {text}" for name, text in facts_of(obj)]
    methods = [f"    .atlas.{name:<{width}}  {text}" for name, text in _methods(accessor)]
    return "\n".join([f"<.atlas of {_title(obj)}>", *facts, "Methods:", *methods])


def in_html(obj: xr.DataArray | xr.Dataset, accessor: type) -> str:
    """Return the same as HTML."""
    facts = _table([(escape(name), escape(text)) for name, text in facts_of(obj)])
    methods = _table(
        [(f"<code>.atlas.{name}</code>", escape(text)) for name, text in _methods(accessor)]
    )
    return (
        f"<div><strong>.atlas of {escape(_title(obj))}</strong>{facts}"
        f"<details><summary>methods</summary>{methods}</details></div>"
    )


def facts_of(obj: xr.DataArray | xr.Dataset) -> Lines:
    """Return what is true of an object, each with its name; nothing is computed.

    Attributes outlive arithmetic; places are told from the coordinates.
    """
    facts = []
    for dim in obj.dims:
        along = [axis for axis in AXES if axis in obj.coords and obj.coords[axis].dims == (dim,)]
        if along and obj.sizes[dim]:
            values = np.asarray(obj.coords[along[0]].values)
            count = "1 point" if len(values) == 1 else f"{len(values)} points"
            where = f"{along[0]} from {values.min():g} to {values.max():g} um"
            facts.append((str(dim), f"{count}, {where}"))
    facts += [
        (axis, f"{float(obj.coords[axis]):g} um")
        for axis in AXES
        if axis in obj.coords and obj.coords[axis].ndim == 0
    ]
    attributes = obj.attrs
    for name, label in (
        ("reference_space_name", "space"), ("hemisphere", "hemisphere of the tissue"),
        ("specimen", "specimen"), ("age", "age"), ("mapping", "mapping"), ("view", "view"),
        ("source", "source"), ("registration", "registration"),
    ):  # fmt: skip
        if attributes.get(name):
            facts.append((label, str(attributes[name])))
    facts.append(
        ("pixels", "read when computed; .atlas.plan() says which" if is_lazy(obj) else "in memory")
    )
    return facts


def _title(obj: xr.DataArray | xr.Dataset) -> str:
    attributes = obj.attrs
    if "dataset_id" not in attributes:
        return "an array that says nothing of a dataset"
    gene = f" ({attributes['gene']})" if attributes.get("gene") else ""
    space = " in CCFv3" if attributes.get("reference_space") == "CCFv3" else ""
    name = f"dataset {attributes['dataset_id']}{gene}, {attributes.get('plane', '')}"
    return f"{name.rstrip(', ')}{space}"


def _methods(accessor: type) -> Lines:
    """Return the public methods of a class, each with the first sentence about it."""
    found = []
    for name, member in vars(accessor).items():
        if not name.startswith("_") and inspect.isfunction(member):
            words = inspect.getdoc(member) or ""
            found.append((f"{name}()", " ".join(words.partition("\n\n")[0].split())))
    return found


def _table(rows: Lines) -> str:
    cells = "".join(
        f"<tr><td style='text-align:left'>{name}</td><td style='text-align:left'>{text}</td></tr>"
        for name, text in rows
    )
    return f"<table>{cells}</table>"
