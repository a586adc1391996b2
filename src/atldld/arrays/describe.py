"""What opened arrays say of themselves: attributes, coordinates, and in words for people."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
import xarray as xr

from .. import __version__, options
from ..model.dataset import SectionDataset
from ..model.read import View
from ..model.registration import Registration
from ..model.space import AXES, space_name
from ..reading.failures import Failing, Ledger
from ..source import Source
from ..source.published import PublishedRegistration
from .index import GUARD, GuardIndex, ImagePlaces
from .internals import is_lazy
from .lazy import CHANNELS

Lines = list[tuple[str, str]]

_GRID = (("y",), ("x",), *((axis,) for axis in AXES))

CITATION = (
    "Allen Institute for Brain Science, Allen Mouse Brain Atlas, section dataset {id}, "
    "https://mouse.brain-map.org/experiment/show/{id}; Lein, E.S. et al. (2007) Genome-wide "
    "atlas of gene expression in the adult mouse brain, Nature 445: 168-176. Use is subject to "
    "https://alleninstitute.org/terms-of-use and "
    "https://alleninstitute.org/citation-policy."
)

_AXIS_NAMES = {"p": "posterior", "i": "inferior", "r": "right"}

VOLUMES = "volumes in"
"""How the frame of a volume begins."""

ACCURACY = "affine, to Allen's 2011 P56 space (not CCFv3): good to 200 to 400 microns of anatomy"


def frame(dataset: SectionDataset, reference_space: int | Literal["CCFv3"] | None) -> str:
    """Return plane and space of an array, as text that tells what may be combined."""
    where = space_name(reference_space)
    if reference_space is None:
        where = f"{where} of dataset {dataset.id}"
    return f"{dataset.plane.name} sections in {where}"


def volume_frame(dataset: SectionDataset, reference_space: int | Literal["CCFv3"] | None) -> str:
    """Return the space of a volume, as text that tells what may be combined."""
    where = space_name(reference_space)
    if reference_space is None:
        where = f"{where} of dataset {dataset.id}"
    return voxel_frame(where)


def voxel_frame(where: str) -> str:
    """Return what volumes in a space say, which may be combined with one another."""
    return f"{VOLUMES} {where}"


def microns_of(axis: str) -> dict[str, str]:
    """Return the attributes of a coordinate p, i or r."""
    return {"long_name": f"{axis} ({_AXIS_NAMES[axis]})", "units": "µm"}


def channel_coordinate() -> xr.Variable:
    """Return the coordinate of the channels, of text that survives Zarr."""
    return xr.Variable("channel", np.array(CHANNELS, dtype=object), {"long_name": "colour channel"})


def attributes(
    dataset: SectionDataset,
    *,
    reference_space: int | Literal["CCFv3"] | None,
    mapping: str,
    resolution: float,
    source: str,
    registration: Registration | PublishedRegistration | None = None,
) -> dict[str, Any]:
    """Return the attributes that an array of a dataset carries.

    Returns
    -------
    attributes
        Text and numbers only, so that they survive Zarr and netCDF.
    """
    along = abs(dataset.trv[2][dataset.plane.section])
    found: dict[str, Any] = {
        "dataset_id": dataset.id,
        "gene": ", ".join(dataset.genes),
        "plane": dataset.plane.name,
        "reference_space": -1 if reference_space is None else reference_space,
        "reference_space_name": space_name(reference_space),
        "native_reference_space": -1
        if dataset.reference_space is None
        else dataset.reference_space,
        "hemisphere": dataset.hemisphere,
        "specimen": dataset.specimen or "",
        "age": dataset.age or "",
        "products": ", ".join(dataset.products),
        "resolution_microns": resolution,
        "section_thickness_microns": dataset.section_thickness,
        "reference_microns_per_stack_micron": 1.0 / along,
        "mapping": mapping,
        "registration": ACCURACY if reference_space in (9, 10) else "",
        "source": source,
        "atldld_version": __version__,
        "citation": CITATION.format(id=dataset.id),
    }
    if isinstance(registration, Registration):
        # How far apart the sections are, is no longer told by Allen's matrix.
        del found["reference_microns_per_stack_micron"]
        found["registration"] = (
            registration.description
            if registration.citation
            else f"a user's: {registration.description}"
        )
        if registration.citation:
            found["citation"] = f"{found['citation']} Registration: {registration.citation}."
    return found


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Opening:
    """A dataset, where it comes from, and what holds for all that is opened of it.

    Parameters
    ----------
    record
        The dataset.
    source
        Where its pixels come from.
    space
        The reference space that it is opened in; None where it has none that is known.
    fill_value
        What a pixel is that shows nothing; NaN makes arrays float32.
    carried
        The options of this moment, for the process that computes.
    failing
        What to do about an image that cannot be had.
    """

    record: SectionDataset
    source: Source
    space: int | Literal["CCFv3"] | None
    fill_value: float
    carried: options.Carried
    failing: Failing

    def attributes(
        self, *, mapping: str, resolution: float, registration: Any = None
    ) -> dict[str, Any]:
        """Return what an array says of its dataset and of how it was opened."""
        return attributes(
            self.record,
            reference_space=self.space,
            mapping=mapping,
            resolution=resolution,
            source=self.source.name,
            registration=registration,
        )

    def of_pixels(self, view: View, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return attributes with what is true of the pixels of a view."""
        name = " ".join([*self.record.genes, view.replace("_", " ")])
        return {**attrs, "view": view, "long_name": name}


def guarded(
    coordinates: xr.Coordinates,
    space: int | Literal["CCFv3"] | None,
    frame: str,
    ledgers: Sequence[Ledger],
    places: Sequence[ImagePlaces] = (),
) -> xr.Coordinates:
    """Return coordinates with the one that keeps planes and spaces apart.

    Parameters
    ----------
    coordinates
        Of the array, with their indexes.
    space
        The reference space.
    frame
        Plane and space, as text: only arrays that agree in it can be combined.
    ledgers
        Where failures of the array are noted.
    places
        Where its sections lie.
    """
    # As an object, text is kept by Zarr as text of any length, which its format specifies.
    value: Any = np.array(space, dtype=object) if isinstance(space, str) else space
    said = {"long_name": "reference space", "frame": frame}
    guard = xr.Variable((), -1 if value is None else value, said)
    index = GuardIndex(GUARD, frame, tuple(each.name for each in ledgers), tuple(places))
    # Before rows and columns, so that it is asked before those of two planes are found to differ.
    known = dict(coordinates.variables)
    plain = {name: known.pop(name) for name in list(known) if known[name].dims not in _GRID}
    return xr.Coordinates(
        {**plain, GUARD: guard, **known}, indexes={GUARD: index, **coordinates.xindexes}
    )


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
