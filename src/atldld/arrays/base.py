"""What the openings of sections, of an image and of volumes have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from dask.tokenize import tokenize

from .. import options
from ..model.dataset import SectionDataset
from ..model.read import View
from ..model.space import AXES
from ..reading.failures import Failing, Ledger
from ..source.protocol import Source
from .describe import attributes, ground
from .index import GUARD, GuardIndex, SectionPlaces

_GRID = (("y",), ("x",), *((axis,) for axis in AXES))


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


def failing_of(*token: Any, fill: bool, other_tiers: bool) -> tuple[options.Carried, Failing]:
    """Return the options of this moment, and what to do about images that cannot be had.

    Parameters
    ----------
    *token
        What tells the arrays of this opening from others: its failures are noted by that.
    fill, other_tiers
        As for `Failing`.
    """
    carried = options.carry()
    return carried, Failing(fill, other_tiers, Ledger(f"{tokenize(*token)}-{carried.process}"))


def fill_of(
    record: SectionDataset, view: View, *, masked: bool = False, given: int | None = None
) -> float:
    """Return what a pixel is that shows nothing: NaN, what was asked for, or the ground."""
    if masked:
        return float("nan")
    return float(ground(record, view) if given is None else given)


def guarded(
    coordinates: xr.Coordinates,
    space: int | Literal["CCFv3"] | None,
    frame: str,
    ledger: Ledger,
    places: Sequence[SectionPlaces] = (),
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
    ledger
        Where failures of the array are noted.
    places
        Where its sections lie.
    """
    # As an object, text is kept by Zarr as text of any length, which its format specifies.
    value: Any = np.array(space, dtype=object) if isinstance(space, str) else space
    said = {"long_name": "reference space", "frame": frame}
    guard = xr.Variable((), -1 if value is None else value, said)
    index = GuardIndex(GUARD, frame, (ledger.name,), tuple(places))
    # Before rows and columns, so that it is asked before those of two planes are found to differ.
    known = dict(coordinates.variables)
    plain = {name: known.pop(name) for name in list(known) if known[name].dims not in _GRID}
    return xr.Coordinates(
        {**plain, GUARD: guard, **known}, indexes={GUARD: index, **coordinates.xindexes}
    )
