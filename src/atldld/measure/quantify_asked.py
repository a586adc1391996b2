"""What a user asks of `quantify`: checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..arrays.request import (
    Region,
    checked_region,
    checked_space,
    one_of,
    positive,
    whole_number,
)
from ..model.read import VIEWS, View
from ..model.space import AXES
from .quantify_cells import Function

MEASURES = ("density", "intensity", "energy")
THRESHOLD = 32


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `atldld.quantify`, checked; it says what they mean."""

    dataset_id: int
    resolution: float
    threshold: float
    function: Function | None
    measures: tuple[str, ...]
    tier: int
    view: View
    sections: frozenset[int] | None
    region: Region
    space: int | Literal["native"]
    chunks: Mapping[str, int] | None
    fill: bool

    @classmethod
    def checked(
        cls,
        dataset_id: Any,
        *,
        resolution: Any,
        threshold: Any,
        function: Any,
        measures: Any,
        tier: Any,
        view: Any,
        sections: Any,
        region: Any,
        reference_space: Any,
        chunks: Any,
        on_error: Any,
    ) -> Asked:
        """Return the options in their own types, or say which of them is wrong."""
        wanted_tier = whole_number("tier", tier, 0, 30)
        return cls(
            dataset_id=whole_number("dataset_id", dataset_id, 0, 2**63 - 1),
            resolution=positive("resolution", resolution),
            threshold=_checked_threshold(threshold, function),
            function=function,
            measures=_chosen_measures(measures, wanted_tier),
            tier=wanted_tier,
            view=_checked_view(view, function),
            sections=_checked_sections(sections),
            region=checked_region(region),
            space=checked_space(reference_space),
            chunks=_checked_chunks(chunks),
            fill=one_of("on_error", on_error, ("raise", "fill")) == "fill",
        )


def _checked_sections(sections: Any) -> frozenset[int] | None:
    if sections is None:
        return None
    return frozenset(whole_number("a section number", each, -(2**53), 2**53) for each in sections)


def _chosen_measures(measures: Any, tier: int) -> tuple[str, ...]:
    if measures is None:
        return MEASURES if tier == 0 else ("energy",)
    if isinstance(measures, str):
        measures = [measures]
    wanted = tuple(one_of("measures", each, MEASURES) for each in measures)
    refused = [each for each in wanted if each != "energy"]
    if tier and refused:
        raise ValueError(
            f"{' and '.join(refused)} cannot be measured at tier {tier}: its pixels mix those of "
            "full resolution that express with those that do not, so that how many are above a "
            "threshold means another thing at every tier. Use tier=0 (windows keep it in "
            "bounds), or measures=['energy'], a mean, which a coarser tier keeps"
        )
    return wanted


def _checked_threshold(threshold: Any, function: Any) -> float:
    if function is not None:
        if not callable(function):
            raise TypeError(f"function is {function!r}; it must be a function of pixels")
        if threshold != THRESHOLD:
            raise ValueError("threshold is for Allen's grey masks: a function decides by itself")
    if isinstance(threshold, bool | str) or not isinstance(threshold, int | float | np.number):
        raise TypeError(f"threshold is {threshold!r}; it must be a grey level, 0 to 255")
    if not 0 <= threshold <= 255:
        raise ValueError(f"threshold is {threshold!r}; it must be a grey level, 0 to 255")
    return float(threshold)


def _checked_view(view: Any, function: Any) -> View:
    if view is None:
        return "expression_mask" if function is None else "image"
    wanted: View = one_of("view", view, VIEWS)
    if function is None and wanted != "expression_mask":
        raise ValueError(
            f"view={wanted!r} needs a function of its pixels; without one, the grey levels of "
            "the expression mask are measured"
        )
    return wanted


def _checked_chunks(chunks: Any) -> Mapping[str, int] | None:
    if isinstance(chunks, str) and chunks == "auto":
        return None
    if not isinstance(chunks, Mapping) or set(chunks) - set(AXES):
        raise ValueError(f"chunks is {chunks!r}; it must be 'auto' or a dict of p, i and r")
    return {str(axis): whole_number(f"chunks {axis}", each, -1, 2**31) for axis, each in
            chunks.items()}  # fmt: skip
