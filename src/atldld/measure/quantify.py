"""Allen's measures of expression, from the pixels of the sections themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..arrays.base import (
    attributes,
    failing_of,
    guarded,
    microns_of,
    placing_of,
    showing,
    volume_frame,
    warn_if_failed,
)
from ..arrays.image import ImageOpening, image_sections
from ..arrays.index import GUARD
from ..arrays.request import (
    LARGEST_TIER,
    Region,
    checked_id,
    checked_region,
    checked_space,
    registration_from,
)
from ..model.checks import checked_choice, positive, whole_number
from ..model.dataset import SectionDataset, SectionImage
from ..model.grid import Axis, footprint
from ..model.read import VIEWS, View
from ..model.registration import Registration
from ..model.sections import SectionTable
from ..model.space import AXES, extent, space_name
from ..source import Source, source_from
from .cells import Block, Cells, Ends, Function, dense_sums, overlap, sums_of_pixels
from .measures import MEASURES, SUMS, with_measures

THRESHOLD = 32
"""Grey level of Allen's mask from which on a pixel expresses."""


def quantify(
    dataset_id: int | Iterable[int],
    *,
    resolution: float = 200,
    threshold: float = THRESHOLD,
    function: Function | None = None,
    measures: Sequence[str] | None = None,
    tier: int = 0,
    view: View | None = None,
    sections: Iterable[int] | None = None,
    region: Mapping[str, tuple[float, float]] | None = None,
    reference_space: Literal["native", 9, 10] = "native",
    registration: Any = None,
    chunks: Literal["auto"] | Mapping[str, int] = "auto",
    on_error: Literal["raise", "fill"] = "raise",
    source: str | Source | None = None,
) -> xr.Dataset:
    """Measure expression over the cells of a volume, by the exact place of every pixel.

    Nothing is resampled: each pixel of each section counts in the cell that its own p, i, r lie
    in. Images are read by windows, in parallel, each window once for one ``compute()``.

    Parameters
    ----------
    dataset_id
        Id of the section dataset; or several, each once, to measure over the same cells.
    resolution
        Microns along a side of a cell. Cells are centred on the nodes of Allen's own volumes:
        cell k holds what lies within ``[(k - 0.5) * resolution, (k + 0.5) * resolution)``, from
        k = 0 to the cell that the far end of the space lies in, so that 200 gives the 67 x 41 x
        58 nodes of `open_grid`.
    threshold
        Least grey level of a pixel that expresses, in Allen's expression mask (0 to 255). What
        does not express is 0 in the mask; JPEG noise makes a few levels of it.
    function
        Instead of Allen's mask: a function of pixels (uint8, shape (height, width, 3), any part
        of an image) to one value for each, shape (height, width). Truth values: it expresses
        where True, with intensity 1. Numbers: it expresses where above 0, and the number is its
        intensity. It must treat every pixel by itself, and pickle where the computation is
        spread over processes.
    measures
        Of ``"density"``, ``"intensity"`` and ``"energy"``; None for all that the tier allows.
    tier
        0, full resolution; or a coarser one, for energy only. A coarser tier mixes expressing
        pixels with others, so that how many are above a threshold means another thing. Energy,
        a mean, changes little: what is lost are pixels at borders that fall below the threshold
        (``threshold=0`` loses none, and counts the noise).
    view
        What `function` gets: ``"image"`` by default, or ``"projection"``, ``"expression"`` or
        ``"expression_mask"`` (then of shape (height, width)).
    sections
        Section numbers to measure; None for all. A section without a mask is left out, with
        a warning.
    region
        ``{"p": (low, high), "i": ..., "r": ...}`` in microns, ends included: only pixels whose
        own p, i, r lie in this box count. Cells that the box cuts hold the pixels of their part
        of it, as ``n_pixels`` says; ends halfway between two nodes cut none.
    registration
        Another registration in the place of Allen's, as for `atldld.open_dataarray`: each pixel
        counts where it lies by that, through the bend of a section that has one; what it does not
        place is left out, with a warning.
    reference_space
        ``"native"``, or 9 or 10: r of the other space is ``11350 - r``, of every pixel.
    chunks
        ``"auto"``: slabs about 1600 microns thick along the slicing axis. A dict as in xarray.
    on_error
        What to do about pixels that cannot be had. ``"raise"``: an `ImageError`. ``"fill"``:
        they count nowhere, not as pixels either, with a warning; ``.atlas.failures()`` tells.
    source
        Where data come from, as for `open_dataarray`.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (p, i, r): ``n_pixels``, all image pixels in the cell (int64);
        ``n_expressing``, those that express; ``sum_intensity``, the sum of their grey levels
        (float64); and from these ``density = n_expressing / n_pixels`` (NaN in cells without
        pixels), ``intensity = sum_intensity / n_expressing`` (NaN where nothing expresses) and
        ``energy = sum_intensity / n_pixels``, so that energy is density times intensity. At a
        coarser tier ``n_pixels`` (of that tier), ``sum_intensity`` and ``energy``. Compute all
        of it at once: ``quantify(...).compute()``; each variable by itself would read again.

        Of several ids, with a leading dimension ``dataset``; along it the ids, and ``gene``,
        ``plane`` and ``specimen``.

        ``.atlas.plan()`` and ``.atlas.prefetch()`` work on it, and selecting some slabs reads
        only the images that they need.

    Raises
    ------
    ValueError, TypeError
        If an option cannot be used; among them density and intensity at a coarser tier. If
        several datasets lie in different spaces and no `reference_space` is chosen.
    RegistrationError
        If the dataset has no usable place, or no section has a mask.
    DatasetNotFoundError, APIError
        As `open_dataarray`.

    See Also
    --------
    open_grid : Allen's own measures, on the same nodes.

    Notes
    -----
    Measures of larger parts are ratios of sums, never means of ratios: `aggregate` and
    `structure_measures` see to that. The definitions are those of Lein et al.
    (2007) and of Allen's white paper on informatics data processing.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> brain = phantom_dataset(dataset_id=1001, sections=4, resolution=40)
    >>> with AllenServer([brain]) as server:
    ...     found = atldld.quantify(1001, resolution=400, source=server.url).compute()
    >>> dict(found.sizes)
    {'p': 34, 'i': 21, 'r': 30}
    >>> whole = atldld.aggregate(found, dim=["p", "i", "r"])
    >>> bool(whole.energy == found.sum_intensity.sum() / found.n_pixels.sum())
    True
    """
    several = isinstance(dataset_id, Iterable) and not isinstance(dataset_id, str)
    given = dataset_id if several else [dataset_id]
    ids = [checked_id("dataset_id", each) for each in given]  # type: ignore[union-attr]  # above
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"dataset_id is {ids}; it must name at least one dataset, each once")
    tier = whole_number("tier", tier, 0, LARGEST_TIER)
    asked = QuantifyRequest(
        resolution=positive("resolution", resolution),
        threshold=_checked_threshold(threshold, function),
        function=function,
        measures=_chosen_measures(measures, tier),
        tier=tier,
        view=_checked_view(view, function),
        sections=_checked_sections(sections),
        region=checked_region(region),
        space=checked_space(reference_space),
        chunks=_checked_chunks(chunks),
        fill=checked_choice("on_error", on_error, ("raise", "fill")) == "fill",
    )
    placing = None if registration is None else registration_from(registration)
    origin = source_from(source)
    found = []
    for each in ids:
        record = origin.dataset(each)
        warn_if_failed(record, 2)
        own = None if placing is None else placing_of(placing, record)
        found.append(Quantifying(asked, origin, record, own))
    sums = _side_by_side(found) if several else found[0].dataset()
    return with_measures(sums, asked.measures)


def _side_by_side(found: Sequence[Quantifying]) -> xr.Dataset:
    """Return the sums of several datasets along a dimension of their own."""
    spaces = {each.space for each in found}
    if len(spaces) > 1:
        named = ", ".join(f"{each.record.id} in {space_name(each.space)}" for each in found)
        raise ValueError(f"these datasets lie in several spaces ({named}): pass reference_space=9")
    labels = xr.Variable("dataset", [each.record.id for each in found])
    sums = xr.concat(
        [each.dataset().drop_vars(GUARD) for each in found],
        labels.to_index(),
        data_vars="all",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="drop_conflicts",
    )
    records = [each.record for each in found]
    texts = {
        "gene": [", ".join(record.genes) for record in records],
        "plane": [record.plane.name for record in records],
        "specimen": [record.specimen or "" for record in records],
    }
    for name in ("dataset_id", *texts):
        sums.attrs.pop(name, None)
    sums["dataset"].attrs["long_name"] = "section dataset id"
    return sums.assign_coords(found[0].coordinates(found[1:])).assign_coords(
        {name: ("dataset", np.array(values, dtype=object)) for name, values in texts.items()}
    )


@dataclass(frozen=True, slots=True)
class QuantifyRequest:
    """The options of `atldld.quantify`, checked; it says what they mean."""

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


def _checked_sections(sections: Any) -> frozenset[int] | None:
    if sections is None:
        return None
    return frozenset(whole_number("a section number", each, -(2**53), 2**53) for each in sections)


def _chosen_measures(measures: Any, tier: int) -> tuple[str, ...]:
    if measures is None:
        return MEASURES if tier == 0 else ("energy",)
    if isinstance(measures, str):
        measures = [measures]
    wanted = tuple(checked_choice("measures", each, MEASURES) for each in measures)
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
    wanted: View = checked_choice("view", view, VIEWS)
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


_SLAB_MICRONS = 1600.0
_MOST_CELLS = 2**21
_ROUNDING = 1e-3
"""Microns."""

_WHOLE_IMAGE = 8 * 10**6
"""Pixels up to which an image is read as one block."""


class Quantifying:
    """Builds the lazy sums of one dataset."""

    def __init__(
        self,
        asked: QuantifyRequest,
        source: Source,
        record: SectionDataset,
        registration: Registration | None = None,
    ) -> None:
        self.asked = asked
        self.source = source
        self.record = record
        self.registration = registration
        self.space, table = image_sections(record, registration, asked.space)
        if asked.sections is not None:
            table = table.take(_rows_of(asked.sections, table, record))
        self.table = showing(table, record, asked.view, 3, "measure the images with function=")
        shown = {*self.table.image_id.tolist()}
        self.images = [image for image in record.images if image.id in shown]
        self.cells = _cells(record, asked, extent(self.space))
        self.carried, self.failing = failing_of(
            record.id, repr(asked), repr(registration), source, fill=asked.fill, other_tiers=False
        )

    def dataset(self) -> xr.Dataset:
        """Return the sums, lazily."""
        sums = xr.Dataset(
            {name: xr.Variable(AXES, data) for name, data in self._sums().items()},
            coords=self.coordinates(),
            attrs=self._attributes(),
        )
        return sums.drop_vars("n_expressing") if self.asked.tier else sums

    def _sums(self) -> dict[str, Any]:
        import dask.array as da
        from dask.delayed import delayed

        parts = list(self._parts())
        edges = self._edges()
        shape = tuple(len(each) - 1 for each in edges)
        grids = {name: np.empty(shape, dtype=object) for name in SUMS}
        summed = delayed(dense_sums, pure=False)
        for place in np.ndindex(*shape):
            p, i, r = (
                (int(each[at]), int(each[at + 1])) for each, at in zip(edges, place, strict=True)
            )
            ends = (p, i, r)
            found = summed([part for touched, part in parts if overlap(touched, ends)], ends)
            size = tuple(past - low for low, past in ends)
            for number, name in enumerate(SUMS):
                dtype = np.float64 if name == "sum_intensity" else np.int64
                grids[name][place] = da.from_delayed(found[number], size, dtype)
        return {name: da.block(grid.tolist()) for name, grid in grids.items()}

    def _parts(self) -> Iterable[tuple[Ends, Any]]:
        """Yield the sums of every block of every image, with the cells that it may touch."""
        from dask.delayed import delayed

        summed = delayed(sums_of_pixels, pure=False)
        half = self.cells.step / 2
        # A pixel on the border is read whichever way the arithmetic of windows rounds.
        region = {
            name: (
                max(float(axis.microns[0]) - half, low - _ROUNDING),
                min(float(axis.microns[-1]) + half, high + _ROUNDING),
            )
            for name, axis, (low, high) in zip(
                AXES, self.cells.axes, self.cells.bounds, strict=True
            )
        }
        for image in self.images:
            opening = self._opening(image)
            try:
                window = opening.window(region)
            except ValueError:
                continue  # nothing of it lies in the volume
            chunks: Any = "auto" if window.area > _WHOLE_IMAGE else {"y": -1, "x": -1}
            data = opening.variable(
                window, chunks, self.table.take(self.table.image_id == image.id)
            ).data
            step, (x, y) = 2**self.asked.tier, opening.origin
            tops = np.concatenate([[0], np.cumsum(data.chunks[0])]) + window.top
            lefts = np.concatenate([[0], np.cumsum(data.chunks[1])]) + window.left
            blocks = data.to_delayed(optimize_graph=False)
            for row, column in np.ndindex(*blocks.shape[:2]):
                block = Block(
                    opening.affine,
                    x + step * float(lefts[column]),
                    y + step * float(tops[row]),
                    step,
                    int(data.chunks[1][column]),
                    int(data.chunks[0][row]),
                    opening.bend,
                )
                touched = block.ends(self.cells.step, self.cells.ends)
                if all(low < past for low, past in touched):
                    pixels = blocks[(row, column, *(0,) * (blocks.ndim - 2))]
                    yield (
                        touched,
                        summed(
                            pixels,
                            block,
                            self.cells.ends,
                            self.cells.step,
                            self.asked.threshold,
                            self.asked.function,
                            self.cells.bounds,
                        ),
                    )

    def _opening(self, image: SectionImage) -> ImageOpening:
        return ImageOpening(
            record=self.record,
            source=self.source,
            space=self.space,
            fill_value=math.nan if self.asked.fill else 0.0,
            carried=self.carried,
            failing=self.failing,
            image=image,
            tier=self.asked.tier,
            view=self.asked.view,
            table=self.table,
            registration=self.registration,
        )

    def _edges(self) -> list[Any]:
        """Return the numbers of cells that chunks begin with, and one past the last."""
        along = AXES[self.record.plane.section]
        wanted = self.asked.chunks
        if wanted is None:
            thick = max(round(_SLAB_MICRONS / self.cells.step), 1)
            side = max(math.isqrt(_MOST_CELLS // thick), 1)
            wanted = {axis: thick if axis == along else side for axis in AXES}
        edges = []
        for name, axis in zip(AXES, self.cells.axes, strict=True):
            size = wanted.get(name, -1)
            first, past = axis.first, axis.first + axis.count
            edges.append(np.append(np.arange(first, past, size if size > 0 else axis.count), past))
        return edges

    def coordinates(self, others: Sequence[Quantifying] = ()) -> xr.Coordinates:
        """Return the nodes, and what keeps sums of this and others apart from other spaces."""
        nodes = xr.Coordinates(
            {
                name: xr.Variable(name, axis.microns, microns_of(name))
                for name, axis in zip(AXES, self.cells.axes, strict=True)
            }
        )
        ledgers = [each.failing.ledger for each in (self, *others)]
        frame = volume_frame(self.record, self.space)
        return guarded(nodes.variables, nodes.xindexes, self.space, frame, ledgers)

    def _attributes(self) -> dict[str, Any]:
        asked = self.asked
        attrs = attributes(
            self.record,
            reference_space=self.space,
            mapping="exact: each pixel by its own p, i, r",
            resolution=asked.resolution,
            source=self.source.name,
            registration=self.registration,
        )
        said: dict[str, Any] = (
            {"threshold": asked.threshold}
            if asked.function is None
            else {"function": getattr(asked.function, "__name__", type(asked.function).__name__)}
        )
        if asked.region:
            said["region"] = "; ".join(
                f"{axis} {low:g} to {high:g} microns" for axis, (low, high) in asked.region.items()
            )
        return {**attrs, "view": asked.view, "tier": asked.tier, **said}


def _cells(
    record: SectionDataset, asked: QuantifyRequest, bounds: tuple[float, float, float] | None
) -> Cells:
    step = asked.resolution
    low, high = (np.zeros(3), np.array(bounds)) if bounds is not None else footprint(record)
    axes, within = [], []
    for name, least, most in zip(AXES, low, high, strict=True):
        # Up to the cell that the far end lies in, by the rule that pixels go by.
        axis = Axis.spanning(float(least), float(most) + 1.5 * step, step)
        ends = asked.region.get(name, (-math.inf, math.inf))
        axes.append(_touched(axis, ends, name))
        within.append(ends)
    return Cells((axes[0], axes[1], axes[2]), (within[0], within[1], within[2]))


def _touched(axis: Axis, ends: tuple[float, float], name: str) -> Axis:
    """Return the cells that something between two ends may lie in."""
    near, far = (axis.first - 0.5) * axis.step, (axis.first + axis.count - 0.5) * axis.step
    if ends[1] < near or ends[0] >= far:
        raise ValueError(
            f"region {name}=({ends[0]:g}, {ends[1]:g}) holds no cell; they reach from {near:g} to "
            f"{far:g} microns"
        )
    first, last = (
        min(
            max(math.floor(min(max(end, near), far) / axis.step + 0.5), axis.first),
            axis.first + axis.count - 1,
        )
        for end in ends
    )
    return replace(axis, first=first, count=last - first + 1)


def _rows_of(
    sections: frozenset[int], table: SectionTable, record: SectionDataset
) -> npt.NDArray[np.bool_]:
    """Return which rows of a table are of sections that a user names by number."""
    missing = sections - {image.section_number for image in record.images}
    if missing:
        named = ", ".join(map(str, sorted(missing)))
        raise ValueError(f"dataset {record.id} has no sections {named}")
    return np.isin(table.section_number, [*sections])
