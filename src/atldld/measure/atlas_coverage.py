"""Coverage of everything: which voxels of the brain each dataset shows, from matrices alone."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from dask.tokenize import tokenize

from .. import options
from ..arrays.lookup import annotation_from, space_of_annotation
from ..arrays.ontology import structure_ids, tree_of
from ..errors import AtldldWarning, DatasetNotFoundError, RegistrationError
from ..model.sections import LEAST_DISTANCE, Stack, stack_of, stack_z
from ..model.space import AXES, can_flip, extent
from ..process import PerProcess
from ..source import Source
from ..source.allen import AllenSource
from ..source.catalogue import Catalogue
from ..source.search import summaries_of
from .grid_files import GridForm, form_attributes, form_coordinates, guarded
from .selection import labels_of, selected, service_of

if TYPE_CHECKING:
    import dask.array as da

Bools = npt.NDArray[np.bool_]
_DATASETS_A_CHUNK = 32
_LEAST_SPACING = 25.0
_alone = PerProcess(threading.Lock)
"""Filters of warnings are those of the whole process: one thread at a time changes them."""


def open_coverage(
    selection: Iterable[int] | pd.DataFrame | Catalogue,
    *,
    spacing: float = 200.0,
    max_distance: float = LEAST_DISTANCE,
    reference_space: Literal[9, 10] = 9,
    source: str | Source | Catalogue | None = None,
) -> xr.Dataset:
    """Return which voxels each of any number of datasets covers, lazily, from matrices alone.

    Parameters
    ----------
    selection
        Ids of section datasets, each once; a table of datasets; or a whole `Catalogue`.
    spacing
        Microns between voxels, 25 or more; voxel k sits at ``k * spacing``.
    max_distance
        Microns of the image stack between a voxel and its nearest section at most.
    reference_space
        9 or 10: where r is counted.
    source
        As for `open_grids`. With a catalogue that has images, nothing is asked.

    Returns
    -------
    xarray.Dataset
        ``covered`` (dataset, p, i, r), bool: whether the section nearest to the voxel, of two
        equally near the lower number, lies within `max_distance`, and the voxel within its
        image; as `open_volume` with the same ``max_distance``. ``missed``: whether it lies
        between the first and the last section and within the image of the nearest one, but too
        far from it: the bands that absent section numbers leave, which are striped in Allen's
        own grids. Coordinates as from `open_grids`. A dataset without a registration covers
        nothing.

    Raises
    ------
    ValueError
        If an argument cannot be right, or a dataset lies in another space than 9 or 10.
    DatasetNotFoundError
        If a dataset is not known.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, SyntheticAtlas
    >>> with AllenServer(SyntheticAtlas(8)) as server:
    ...     atlas = atldld.catalogue(server.url, images=True)
    >>> coverage = atldld.open_coverage(atlas)
    >>> coverage.covered.sum("dataset").max().compute().item()
    8
    """
    numbers, source = selected(selection, source)
    if not (isinstance(spacing, int | float) and _LEAST_SPACING <= spacing <= 2000.0):
        raise ValueError(f"spacing is {spacing!r}; it must be from {_LEAST_SPACING:g} to 2000")
    if not (isinstance(max_distance, int | float) and 0 < max_distance < np.inf):
        raise ValueError(f"max_distance is {max_distance!r}; it must be a number above 0")
    if isinstance(reference_space, bool) or reference_space not in (9, 10):
        raise ValueError(f"reference_space is {reference_space!r}; it must be 9 or 10")
    origin = service_of(source)
    known = summaries_of(origin, numbers)
    missing = [number for number in numbers if number not in known]
    if missing:
        raise DatasetNotFoundError(f"there are no section datasets {missing[:8]} at {origin.name}")
    bounds = extent(9) or (0.0, 0.0, 0.0)
    p, i, r = (int(length // spacing) + 1 for length in bounds)
    form = GridForm(reference_space, (p, i, r), float(spacing))
    job = _Covering(origin, reference_space, float(max_distance), options.carry())
    return _stacked(job, form, numbers, known)


def covering(
    structure: int | str | Iterable[int | str],
    annotation: xr.DataArray | str,
    selection: Iterable[int] | pd.DataFrame | Catalogue | None = None,
    *,
    spacing: float | None = None,
    share: float = 0.9,
    tree: Any = None,
    max_distance: float = LEAST_DISTANCE,
    source: str | Source | Catalogue | None = None,
) -> pd.DataFrame:
    """Find the datasets whose sections cover a structure, at a spacing.

    Parameters
    ----------
    structure
        Id, acronym or name, or several; with all their parts.
    annotation
        Of Allen's 2011 space, as from `open_annotation`; or what that opens.
    selection
        The datasets to look at; None for all of the catalogue at hand.
    spacing
        Microns between neighbouring sections through the structure, at most, at the median.
    share
        Of the structure's voxels that must be covered, at least.
    tree
        Who is part of whom; see `structure_table`.
    max_distance
        As for `open_coverage`.
    source
        As for `open_grids`.

    Returns
    -------
    pandas.DataFrame
        A row a dataset, the best covered first: ``dataset_id``, ``gene``, ``plane``,
        ``specimen``, ``covered`` (share of the structure's voxels), ``sections`` (how many pass
        through them), ``spacing`` (microns, at the median; NaN for one section).

    Raises
    ------
    KeyError, ValueError
        If there is no such structure in the annotation, or an argument cannot be right.

    Examples
    --------
    >>> import atldld, numpy as np, xarray as xr
    >>> from atldld.testing import AllenServer, SyntheticAtlas
    >>> labels = np.zeros((67, 41, 58), int)
    >>> labels[30:34, 18:22, 26:30] = 549
    >>> annotation = xr.DataArray(labels, {
    ...     "p": 200.0 * np.arange(67), "i": 200.0 * np.arange(41), "r": 200.0 * np.arange(58),
    ... }, ("p", "i", "r"), attrs={"reference_space": 9})
    >>> with AllenServer(SyntheticAtlas(40)) as server:
    ...     atlas = atldld.catalogue(server.url, images=True)
    >>> found = atldld.covering(549, annotation, atlas, spacing=210)
    >>> found.plane.unique().tolist(), bool((found.covered >= 0.9).all())
    (['coronal'], True)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share!r}; it must be from 0 to 1")
    if spacing is not None and not spacing > 0:
        raise ValueError(f"spacing is {spacing!r}; it must be a number above 0")
    opened = annotation_from(annotation)
    space = space_of_annotation(opened)
    if space not in (9, 10):
        raise ValueError(f"the annotation lies in {space}; matrices lead to spaces 9 and 10")
    grown = tree_of(opened, tree)
    wanted = structure_ids(structure, grown)
    parts = wanted if grown is None else grown.with_parts(wanted)
    opened = opened.transpose(*AXES)
    inside = np.argwhere(np.isin(opened.to_numpy(), parts))
    if not len(inside):
        raise KeyError(f"structure {structure!r} is not in the annotation")
    points = np.stack(
        [opened[axis].to_numpy()[inside[:, k]] for k, axis in enumerate(AXES)]
    ).astype(np.float64)
    if selection is None:
        origin = service_of(source)
        selection = origin.catalogue()
        if selection is None:
            raise ValueError(
                f"no catalogue of {origin.name} is at hand: atldld.catalogue(images=True) fetches "
                "it; or say which datasets, selection="
            )
        source = origin if source is None else source
    numbers, source = selected(selection, source)
    origin = service_of(source)
    known = summaries_of(origin, numbers)
    job = _Covering(origin, int(space), float(max_distance), options.carry())
    ids: da.Array = _ids(numbers, _DATASETS_A_CHUNK)
    import dask.array as da

    told = da.map_blocks(
        partial(job.through, points=points),
        ids,
        dtype=np.float64,
        new_axis=1,
        chunks=(ids.chunks[0], (3,)),
        meta=np.empty((0, 0)),
    ).compute()
    labels = labels_of(numbers, known)
    table = pd.DataFrame(
        {
            "dataset_id": numbers,
            **{name: labels[name] for name in ("gene", "plane", "specimen")},
            "covered": told[:, 0],
            "sections": told[:, 1].astype(int),
            "spacing": told[:, 2],
        }
    )
    good = table["covered"] >= share
    if spacing is not None:
        good &= table["spacing"] <= spacing
    return table[good].sort_values(
        ["covered", "dataset_id"], ascending=[False, True], ignore_index=True
    )


@dataclass(frozen=True, slots=True)
class _Covering:
    """What a task takes along.

    Parameters
    ----------
    source
        Who describes the datasets.
    space
        9 or 10: where the points are counted.
    max_distance
        Microns of the stack.
    carried
        The options of the opening.
    """

    source: AllenSource
    space: int
    max_distance: float
    carried: options.Carried

    def stack(self, dataset_id: int) -> Stack | None:
        """Return the sections of a dataset; None where it has no registration."""
        with options.using(self.carried), _alone.value, warnings.catch_warnings():
            # What is set aside is no news where all of the atlas is looked at.
            warnings.simplefilter("ignore", AtldldWarning)
            try:
                record = self.source.dataset(dataset_id)
            except RegistrationError:
                return None
        native = record.reference_space
        flip = native != self.space
        if flip and not can_flip(native, self.space):
            raise ValueError(
                f"dataset {dataset_id} lies in space {native}, which nothing leads to from "
                f"{self.space}"
            )
        return stack_of(record, flip=flip)[0]

    def chunk(self, dataset_ids: Any, form: GridForm, what: Literal["covered", "missed"]) -> Bools:
        """Return where some datasets are covered, or missed: shape (n, p, i, r)."""
        p, i, r = (form.first + np.arange(count) * form.step for count in form.shape)
        out = np.zeros((len(dataset_ids), *form.shape), bool)
        for place, number in enumerate(dataset_ids.tolist()):
            stack = self.stack(number)
            if stack is not None:
                seen = seen_at(stack, p[:, None, None], i[:, None], r, self.max_distance)
                out[place] = seen.covered if what == "covered" else seen.missed
        return out

    def through(self, dataset_ids: Any, points: npt.NDArray[np.float64]) -> Any:
        """Return for some datasets share of points covered, sections there, and their spacing."""
        out = np.zeros((len(dataset_ids), 3))
        for place, number in enumerate(dataset_ids.tolist()):
            stack = self.stack(number)
            if stack is None:
                out[place] = 0, 0, np.nan
                continue
            p, i, r = points
            seen = seen_at(stack, p, i, r, self.max_distance)
            near = np.unique(seen.section[seen.covered])
            gaps = np.diff(stack.z[near])
            out[place] = (
                seen.covered.mean(), len(near), np.median(gaps) if len(gaps) else np.nan
            )  # fmt: skip
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the sections of a dataset show of some points.

    Parameters
    ----------
    covered, missed
        As `open_coverage` says; the shape of the points.
    section
        Row of the section that is nearest in depth.
    """

    covered: Bools
    missed: Bools
    section: npt.NDArray[np.intp]


def seen_at(
    stack: Stack, p: npt.ArrayLike, i: npt.ArrayLike, r: npt.ArrayLike, max_distance: float
) -> Seen:
    """Return what the sections of a stack show of points of the space that it is counted in.

    Parameters
    ----------
    stack
        The sections.
    p, i, r
        Microns; broadcast against each other.
    max_distance
        Microns of the stack.
    """
    z = stack_z(stack.trv, p, i, r)
    # Halfway between two sections belongs to the lower number.
    section = np.searchsorted((stack.z[1:] + stack.z[:-1]) / 2, z, side="left")
    near = np.abs(z - stack.z[section]) <= max_distance
    candidates = near | ((z > stack.z[0]) & (z < stack.z[-1]))
    shown = np.zeros(z.shape, bool)
    rows = section[candidates]
    at = [
        np.broadcast_to(np.asarray(axis, dtype=np.float64), z.shape)[candidates]
        for axis in (p, i, r)
    ]
    affine = stack.pixels_of_space()
    inside = np.ones(len(rows), bool)
    for row, side in ((0, stack.width), (1, stack.height)):
        across, down, along, shift = affine[rows, row].T
        pixel = across * at[0] + down * at[1] + along * at[2] + shift
        inside &= (pixel >= 0) & (pixel <= side[rows] - 1)
    shown[candidates] = inside
    return Seen(shown & near, shown & ~near, section)


def _stacked(
    job: _Covering, form: GridForm, numbers: list[int], known: dict[int, Any]
) -> xr.Dataset:
    import dask.array as da

    ids = _ids(numbers, _DATASETS_A_CHUNK)
    attrs = form_attributes(form, job.source.name, None, None)
    attrs["max_distance_microns"] = job.max_distance
    variables = {}
    words: dict[Literal["covered", "missed"], str] = {
        "covered": "covered by a section",
        "missed": "in a band without a section",
    }
    for what, name in words.items():
        data = da.map_blocks(
            partial(job.chunk, form=form, what=what),
            ids,
            dtype=bool,
            new_axis=[1, 2, 3],
            chunks=(ids.chunks[0], *((count,) for count in form.shape)),
            meta=np.empty((0, 0, 0, 0), bool),
            name=f"atldld-{what}-{tokenize(job, form, numbers)}",
        )
        variables[what] = (("dataset", *AXES), data, {"long_name": name, **attrs})
    coords = {**labels_of(numbers, known, "dataset"), **form_coordinates(form)}
    return guarded(xr.Dataset(variables, coords, attrs), form.space)


def _ids(numbers: list[int], chunk: int) -> da.Array:
    import dask.array as da

    ids: da.Array = da.from_array(np.array(numbers, np.int64), chunks=chunk)
    return ids
