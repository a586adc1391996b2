"""Opening any number of section datasets as volumes on one grid."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.tokenize import tokenize
from xarray.core import indexing

from .. import __version__
from .. import options as settings
from ..errors import DatasetNotFoundError
from ..model.checks import listed
from ..model.grid import Grid, grid_over
from ..model.info import DatasetSummary
from ..model.registration import Registration
from ..model.space import AXES, CORONAL, PLANES, extent, space_name
from ..model.terms import chosen_ids
from ..reading.failures import Failing, Ledger
from ..reading.reader import LazyArray, Reader, places
from ..source import Source, source_from
from ..source.published import CITATION as PUBLISHED
from ..source.search import summaries_of
from .base import ACCURACY, CITATION, fill_of, voxel_frame
from .lazy import MatrixArray, PixelArray, What, channels_of
from .nodes import Like, Nodes
from .request import VolumeOptions, VolumeRequest, checked_options, takes
from .volume_opening import in_space, volume_sampling
from .volumes import VolumeSampling

if TYPE_CHECKING:
    import pandas as pd

_DATASET = "dataset"
_GAP = 200.0
"""Microns between two sections, to cut chunks by: that of most datasets."""

_KEPT = 16
"""Datasets whose matrices a process keeps at hand between chunks."""


@takes(VolumeOptions)
def open_volumes(
    dataset_ids: Sequence[int] | npt.NDArray[np.integer[Any]] | pd.Series[int] | pd.DataFrame,
    **options: Unpack[VolumeOptions],
) -> xr.Dataset:
    """Open many section datasets as volumes on one grid, in one lazy Dataset.

    It holds no more of a dataset than its id: the matrices of one are looked up when one of its
    chunks is computed. Opening asks for what the datasets are called, a hundred at a time, and
    nothing at all where a `catalogue` of the service is at hand.

    Parameters
    ----------
    dataset_ids
        Ids of section datasets, each once: a list, an array, or a table with the column
        ``dataset_id``, as `search` and a catalogue give.
    **options
        As in `VolumeOptions`, the same for all.

    Returns
    -------
    xarray.Dataset
        ``image (dataset, p, i, r, channel)``; ``section_number`` and ``distance`` (and
        ``mirrored``) over ``dataset, p, i, r``, as `open_volume` gives each. ``coverage (p, i,
        r)``, int32: how many of the datasets show something there, from matrices alone; those
        behind a mean over ``dataset``. Along ``dataset``,
        its id, and ``gene``, ``plane`` and ``specimen``.

    Raises
    ------
    ValueError, TypeError
        If an option cannot be used, the datasets lie in several spaces and none is chosen, or in
        one whose extent is not known and there is no `like`.
    DatasetNotFoundError
        If the source does not have one of them.
    APIError
        If the service does not answer as it should.

    See Also
    --------
    open_volume : One dataset.
    open_datatree : Several datasets, each on its own sections.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> brains = [phantom_dataset(7, gene="Prox1"), phantom_dataset(8, "sagittal", gene="Calb1")]
    >>> with AllenServer(brains) as server:
    ...     brains = atldld.open_volumes(
    ...         [7, 8], resolution=200, masked=True, reference_space=9, source=server.url
    ...     )
    ...     mean = brains.image.mean("dataset").sel(p=6600).compute()
    >>> brains.gene.values.tolist(), dict(brains.section_number.sizes)
    (['Prox1', 'Calb1'], {'dataset': 2, 'p': 66, 'i': 40, 'r': 57})
    >>> mean.dims
    ('i', 'r', 'channel')
    """
    ids = np.array(chosen_ids("dataset_ids", dataset_ids), dtype=np.int64)
    wanted = checked_options(VolumeOptions, "open_volumes", options)
    request = VolumeRequest.of(int(ids[0]), wanted)
    like = Like.of(wanted["like"], request.resolution)
    if request.on_error == "fill" and request.chunks is None:
        raise ValueError("on_error='fill' of many volumes needs dask: leave out chunks=None")
    source = source_from(wanted["source"])
    known = summaries_of(source, ids.tolist())
    missing = [str(each) for each in ids.tolist() if each not in known]
    if missing:
        raise DatasetNotFoundError(f"{source.name} has no section dataset {listed(missing, 10)}")
    found = [known[each] for each in ids.tolist()]
    native: dict[int | None, int] = {}
    for each in found:
        native.setdefault(each.reference_space, each.dataset_id)
    request, space = in_space(request, like, native)
    bounds = extent(space)
    if like is not None:
        grid = like.grid
    elif bounds is None:
        raise ValueError(f"the extent of {space_name(space)} is not known: give like=")
    else:
        grid = grid_over(bounds, request.resolution, request.region)
    token = tokenize(ids, repr((request, grid)), source)
    many = Many(ids, request, grid, source, settings.carry(), token)
    plane = PLANES.get(found[0].plane, CORONAL)
    channels = channels_of(request.view)
    nodes = Nodes(grid, request, like, plane.axes[0], _GAP, channels)

    def array_of(what: Literal["image"] | What) -> ManyArray:
        if what != "image":
            return ManyArray(many, what)
        return ManyArray(many, what, channels, marked=request.on_error == "fill")

    attrs = _attributes(many, space)
    pixel_attrs = {**attrs, "view": request.view, "long_name": request.view.replace("_", " ")}
    coordinates = nodes.coordinates(space, voxel_frame(space_name(space)), many.ledger)
    dataset = nodes.dataset(array_of, coordinates, attrs, pixel_attrs, (_DATASET,))
    dataset["coverage"] = _coverage(nodes, many, dataset)
    return dataset.assign_coords(_labels(ids, found))


@dataclass(frozen=True, slots=True, eq=False)
class Many:
    """Datasets, and how each of them fills one grid: no more of each than its id.

    Parameters
    ----------
    ids
        Shape (n,), int64.
    request
        What is asked for, of each.
    grid
        The nodes.
    source
        Where they come from.
    carried
        The options of the opening, for the process that computes.
    token
        What tells these volumes from others.
    """

    ids: npt.NDArray[np.int64]
    request: VolumeRequest
    grid: Grid
    source: Source
    carried: settings.Carried
    token: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Many) and self.token == other.token

    def __hash__(self) -> int:
        return hash(self.token)

    @property
    def ledger(self) -> Ledger:
        """Where failures of all of them are noted."""
        return Ledger(f"{self.token}-{self.carried.process}")

    def volume(self, place: int, what: Literal["image"] | What, *, marked: bool) -> Any:
        """Return the array of one dataset, over p, i, r and perhaps channels."""
        sampling, fill = _sampling(self, int(self.ids[place]))
        if what != "image":
            return MatrixArray(sampling, what)
        failing = Failing(self.request.on_error == "fill", self.request.tier == "auto", self.ledger)
        return PixelArray(sampling, self.source, fill, self.carried, failing, marked=marked)


class ManyArray(LazyArray):
    """Volumes of many datasets, one after the other, each found when it is indexed.

    Parameters
    ----------
    many
        The datasets.
    what
        ``"image"``, or what is known from matrices alone.
    channels
        Length of the channel dimension of pixels, or nothing.
    marked
        Whether the last axis has marks, of what was not filled, behind the channels.

    Notes
    -----
    Shape (datasets, p, i, r[, channels]).
    """

    def __init__(
        self,
        many: Many,
        what: Literal["image"] | What,
        channels: tuple[int, ...] = (),
        *,
        marked: bool = False,
    ) -> None:
        self.many = many
        self.what = what
        self.marked = marked
        if marked:
            channels = (sum(channels) + 1 if channels else 2,)
        self.shape = (len(many.ids), *many.grid.shape, *channels)
        number = np.float32 if many.request.masked else np.uint8
        dtypes = {"section_number": np.int32, "distance": np.float64, "mirrored": np.bool_}
        self.dtype = np.dtype(dtypes.get(what, number))

    def readers(self, key: tuple[Any, ...]) -> Iterator[tuple[Reader[Any], tuple[Any, ...]]]:
        """Yield the readers that an outer index needs, each with the index into it."""
        if self.what == "image":
            for place in places(key[:1], self.shape[:1])[0].tolist():
                yield self.many.volume(place, self.what, marked=self.marked), key[1:]

    def _outer(self, key: tuple[Any, ...]) -> Any:
        (which,) = places(key[:1], self.shape[:1])
        inner = indexing.OuterIndexer(key[1:])
        lengths = [
            len(np.arange(length)[part])
            for length, part in zip(self.shape[1:], key[1:], strict=True)
            if isinstance(part, slice) or np.ndim(part)
        ]
        out = np.empty((len(which), *lengths), dtype=self.dtype)
        if out.size:
            for place, number in enumerate(which.tolist()):
                out[place] = self.many.volume(number, self.what, marked=self.marked)[inner]
        return out if isinstance(key[0], slice) or np.ndim(key[0]) else out[0]

    def __dask_tokenize__(self) -> Hashable:
        return type(self).__name__, self.what, self.many.token, self.marked


class CoverageArray(LazyArray):
    """How many of many datasets show a section, counted one after the other.

    Parameters
    ----------
    many
        The datasets.

    Notes
    -----
    Shape (p, i, r), int32. Nothing is downloaded but matrices, and one dataset is held at a time.
    """

    def __init__(self, many: Many) -> None:
        self.many = many
        self.shape = many.grid.shape
        self.dtype = np.dtype(np.int32)

    def _outer(self, key: tuple[Any, ...]) -> Any:
        inner = indexing.OuterIndexer(key)
        total: Any = 0
        for place in range(len(self.many.ids)):
            number = self.many.volume(place, "section_number", marked=False)[inner]
            total = total + (number >= 0)
        return np.asarray(total, dtype=self.dtype)

    def __dask_tokenize__(self) -> Hashable:
        return type(self).__name__, self.many.token


def _coverage(nodes: Nodes, many: Many, dataset: xr.Dataset) -> xr.Variable:
    """Return how many of the datasets show something, as a lazy variable."""
    named = {"long_name": "datasets that show something here"}
    if many.request.on_error == "fill":
        # What could not be had is known once it was tried.
        found = (dataset["section_number"].variable >= 0).sum(_DATASET).astype(np.int32)
        found.attrs = named
        return found
    chunks = nodes.request.chunks
    if isinstance(chunks, Mapping) and _DATASET in chunks:
        chunks = {dim: size for dim, size in chunks.items() if dim != _DATASET} or {"p": -1}
    alone = replace(nodes, request=replace(nodes.request, chunks=chunks))
    variable = alone.lazy(CoverageArray(many), named)
    bare = {axis: nodes.axis(axis) for axis in AXES}
    return nodes.within_region(xr.Dataset({"coverage": variable}, bare))["coverage"].variable


@lru_cache(maxsize=_KEPT)
def _sampling(many: Many, dataset_id: int) -> tuple[VolumeSampling[Any], float]:
    """Return how a dataset fills the grid, and what stands where it shows nothing."""
    with settings.using(many.carried):
        record = many.source.dataset(dataset_id)
    sampling = volume_sampling(many.source, record, many.request, many.grid, warned=None)
    return sampling, fill_of(record, many.request.view, masked=many.request.masked)


def _labels(
    ids: npt.NDArray[np.int64], found: list[DatasetSummary]
) -> dict[str, xr.Variable | tuple[str, Any, dict[str, str]]]:
    # As objects, texts are kept by Zarr as text of any length, which its format specifies.
    texts = {
        "gene": [", ".join(each.genes) for each in found],
        "plane": [each.plane for each in found],
        "specimen": [each.specimen for each in found],
    }
    return {
        _DATASET: (_DATASET, ids, {"long_name": "section dataset id"}),
        **{name: (_DATASET, np.array(each, dtype=object), {}) for name, each in texts.items()},
    }


def _attributes(many: Many, space: int | Literal["CCFv3"] | None) -> dict[str, Any]:
    attrs: dict[str, Any] = {
        "reference_space": -1 if space is None else space,
        "reference_space_name": space_name(space),
        "resolution_microns": many.grid.step,
        "registration": ACCURACY if space in (9, 10) else "",
        "between": many.request.between,
        "source": many.source.name,
        "atldld_version": __version__,
        "citation": CITATION.format(id="(see the coordinate dataset)"),
    }
    if many.request.max_distance is not None:
        attrs["max_distance_microns"] = many.request.max_distance
    registration = many.request.registration
    if isinstance(registration, Registration):
        attrs["registration"] = f"a user's: {registration.description}"
    elif registration is not None:
        attrs["registration"] = f"{registration.name}, to {space_name(space)}"
        attrs["citation"] = f"{attrs['citation']} Registration: {PUBLISHED}."
    return attrs
