"""Opening a section dataset as a lazy volume in reference space."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from xarray.core import indexing

from ..errors import AtldldWarning
from ..model.dataset import SectionDataset
from ..model.grid import Grid, grid_over, volume_grid
from ..model.read import View
from ..model.sections import default_distance, stack_of
from ..model.space import AXES, P56_EXTENT, extent, space_name
from ..reading.failures import Ledger
from ..sampling.reads import choose_tiers
from ..source import source_from
from ..source.protocol import Source
from . import accessor as _accessor  # noqa: F401  # registers .atlas
from .base import Opening, failing_of, fill_of, guarded
from .chunks import in_chunks, volume_chunk_sizes
from .describe import (
    channel_coordinate,
    microns_of,
    showing,
    volume_frame,
    warn_if_failed,
)
from .lazy import NOTHING, MatrixArray, PixelArray, UnfilledArray, What, not_filled, without_marks
from .registered_volumes import RegisteredSampling
from .registering import placing_of, registered
from .request import (
    Like,
    OpeningOptions,
    VolumeOptions,
    record_of,
    serving,
    space_wanted,
    target_space,
    warn_of_tiers,
)
from .volumes import MIDLINE, Between, StackSampling, VolumeSampling

_DIMS = (*AXES, "channel")
_LONG_NAMES: dict[What, dict[str, Any]] = {
    "section_number": {"long_name": "number of the section shown", "none": -1},
    "distance": {"long_name": "distance from the section shown", "units": "µm"},
    "mirrored": {"long_name": "mirrored from the other hemisphere"},
}


def open_volume(
    dataset_id: int,
    *,
    resolution: float = 25,
    like: xr.DataArray | xr.Dataset | None = None,
    max_distance: float | None = None,
    between: Between = "nearest",
    mirror: bool = False,
    interpolation: Literal["auto", "nearest", "linear", "cubic", "area"] = "auto",
    masked: bool = False,
    region: Mapping[str, tuple[float, float]] | None = None,
    chunks: Literal["auto"] | Mapping[str, Any] | None = "auto",
    reference_space: Literal["native", 9, 10] = "native",
    registration: Any = None,
    view: View = "image",
    tier: int | Literal["auto"] = "auto",
    on_error: Literal["raise", "fill"] = "raise",
    source: str | Source | None = None,
) -> xr.Dataset:
    """Open a section dataset as a lazy volume in reference space.

    Only metadata are read. Every voxel is exact in three dimensions: its section, and its pixel
    there, follow from the dataset's matrices, however the sections are tilted. A voxel shows the
    section nearest to it in z of the image stack (the lower number on a tie), where that section
    covers it and is at most `max_distance` away; else it shows nothing.

    Parameters
    ----------
    dataset_id
        Id of the section dataset.
    resolution
        Microns between voxels along p, i and r; voxel k is centred on ``k * resolution``, with
        ``floor(extent / resolution)`` voxels an axis.
    like
        An array with coordinates p, i and r, in microns: the volume has its nodes instead, to the
        last bit, so that ``xr.align(volume, like, join="exact")`` holds. They must lie on an
        evenly spaced lattice along each axis, or be picked from one. Where `like` says which
        reference space it lies in, so does the volume. ``tier="auto"`` then goes by the smallest
        of its steps.
    max_distance
        Microns of the image stack. By default the larger of 100 and half the median gap between
        neighbouring sections of the whole dataset.
    between
        ``"nearest"``: the pixel of the nearest section. ``"linear"``: a voxel that shows a section
        takes a share of the other one that it lies between as well, by distance in z, where that
        one covers it too.
    mirror
        Whether a voxel that shows no section takes what its mirror image about the midline of the
        atlas shows (r = 5675 microns in spaces 9 and 10). Sagittal datasets hold one hemisphere.
        The variable ``mirrored`` marks such voxels: they are a guess, not data.
    interpolation
        As for `open_dataarray`, within a section.
    masked
        Whether to give float32 with NaN where no section is shown.
    region
        ``{"p": (lo, hi), "i": ..., "r": ...}`` in microns, ends included; cuts the volume.
    chunks
        ``"auto"``: slabs along the slicing axis, of at most 16 MiB (4 MiB with
        ``between="linear"``). A dict as in xarray. None: no dask.
    reference_space
        ``"native"``, or 9 or 10: r of the other space is ``11350 - r``. Voxels are sampled where
        they are in that space; nothing is resampled.
    registration
        Another registration in the place of Allen's, as for `open_dataarray`. Sections that are
        placed one by one are not parallel: a voxel shows the section nearest to it along the
        slicing axis, and `max_distance` and ``distance`` are microns along that axis.
    view, tier, on_error, source
        As for `open_dataarray`.

    Returns
    -------
    xarray.Dataset
        ``image (p, i, r, channel)``, uint8 or float32 (no ``channel`` for
        ``view="expression_mask"``); ``section_number (p, i, r)``, int32, -1 for none;
        ``distance (p, i, r)``, float64: the voxel's z minus section number times thickness, in
        microns of the image stack, NaN for none; with `mirror`, ``mirrored (p, i, r)``, bool.
        The last three need no download.

    Raises
    ------
    ValueError, TypeError
        If an option cannot be used, before anything is read.
    DatasetNotFoundError, RegistrationError, APIError
        As `open_dataarray`.

    See Also
    --------
    open_dataarray : The sections, each in its own plane.

    Notes
    -----
    Reading a box takes, beside the box itself, one decoded image at a time and a few planes;
    ``between="linear"`` takes six times the box in addition.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(dataset_id=1001, tilt=10)]) as server:
    ...     volume = atldld.open_volume(1001, resolution=200, source=server.url)
    ...     plane = volume.image.sel(r=5600).compute()
    >>> volume.sizes["p"], volume.sizes["i"], volume.sizes["r"]
    (66, 40, 57)
    >>> plane.dims
    ('p', 'i', 'channel')
    """
    request = OpeningOptions.checked(
        dataset_id=dataset_id,
        resolution=resolution,
        tier=tier,
        view=view,
        region=region,
        interpolation=interpolation,
        masked=masked,
        chunks=chunks,
        reference_space=reference_space,
        registration=registration,
        on_error=on_error,
    )
    wanted = VolumeOptions.checked(
        like, request.resolution, max_distance=max_distance, between=between, mirror=mirror
    )
    origin = source_from(source)
    record = record_of(origin, request.dataset_id)
    warn_if_failed(record, 2)
    return _Volume.of(request, wanted, origin, record).dataset()


def volume_sampling(
    source: Source,
    record: SectionDataset,
    request: OpeningOptions,
    wanted: VolumeOptions,
    grid: Grid,
    *,
    warned: int | None,
) -> VolumeSampling[Any]:
    """Return how a dataset fills the nodes of a grid.

    Parameters
    ----------
    source
        Where images come from; where it has only some tiers, those serve.
    record
        The dataset.
    request, wanted
        What is asked for.
    grid
        The nodes.
    warned
        Stack level of warnings about what is left out, counted from the caller; None for none.
    """
    level = None if warned is None else warned + 1
    if request.registration is not None:
        return _registered_sampling(source, record, request, wanted, grid, level)
    _, flip = target_space(record, request.reference_space)
    stack, left_out = stack_of(record, flip=flip)
    if left_out and level is not None:
        warnings.warn(
            f"dataset {record.id}: several images have one section number; the volume shows "
            f"the one of the lowest id and leaves out {', '.join(map(str, left_out))}",
            AtldldWarning,
            stacklevel=level,
        )
    reach = wanted.max_distance
    if reach is None:
        reach = default_distance(stack.z)
    stack = showing(stack, record, request.view, level)
    tiers = choose_tiers(request.tier, stack.microns_per_pixel, stack.tier_count, grid.step)
    if level is not None:
        warn_of_tiers(record, request.tier, tiers, level)
    tiers = serving(source, request, stack.image_id, tiers)
    return StackSampling(
        dataset_id=record.id,
        plane=record.plane,
        sections=stack,
        grid=grid,
        tiers=tiers,
        view=request.view,
        interpolation=request.interpolation,
        between=wanted.between,
        max_distance=reach,
        mirrored=wanted.mirror,
    )


def _registered_sampling(
    source: Source,
    record: SectionDataset,
    request: OpeningOptions,
    wanted: VolumeOptions,
    grid: Grid,
    level: int | None,
) -> RegisteredSampling:
    """Return how a dataset fills the nodes of a grid where a registration places its sections."""
    if wanted.mirror:
        raise ValueError(
            "mirror=True is for Allen's own placing: leave it out, or leave out registration="
        )
    assert request.registration is not None
    registration = placing_of(request.registration, record)
    table = registered(record, registration, reference_space=request.reference_space)
    reach = wanted.max_distance
    if reach is None:
        reach = default_distance(table.slice_coordinate)
    table = showing(table, record, request.view, level)
    tiers = choose_tiers(request.tier, table.microns_per_pixel, table.tier_count, grid.step)
    if level is not None:
        warn_of_tiers(record, request.tier, tiers, level)
    tiers = serving(source, request, table.image_id, tiers)
    return RegisteredSampling(
        dataset_id=record.id,
        plane=record.plane,
        sections=table,
        grid=grid,
        tiers=tiers,
        view=request.view,
        interpolation=request.interpolation,
        between=wanted.between,
        max_distance=reach,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """The nodes that volumes are opened on, and how their arrays are cut.

    Parameters
    ----------
    grid
        Evenly spaced nodes.
    request
        What is asked for.
    like
        What the nodes were taken from, if anything.
    slicing
        The axis along which chunks are slabs.
    gap
        Microns along it between two sections.
    channels
        Length of the channel dimension, or nothing.
    blended
        Whether voxels are blended from two sections.
    """

    grid: Grid
    request: OpeningOptions
    like: Like | None
    slicing: str
    gap: float
    channels: tuple[int, ...]
    blended: bool

    def lazy(self, array: Any, attrs: dict[str, Any], leading: tuple[str, ...] = ()) -> xr.Variable:
        """Return an array over the grid as a lazy variable over the nodes.

        Parameters
        ----------
        array
            Over `leading`, p, i, r and perhaps channels.
        attrs
            Its attributes.
        leading
            Dimensions before p, i and r, which chunks hold one of.
        """
        picked = {} if self.like is None else self.like.picked
        dims = (*leading, *_DIMS)[: len(array.shape)]
        variable = xr.Variable(dims, indexing.LazilyIndexedArray(array), attrs)
        shape = tuple(
            np.size(picked[axis]) if axis in picked else count
            for axis, count in zip(AXES, self.grid.shape, strict=True)
        )
        picks = {
            axis: numbers
            for axis, numbers in picked.items()
            if not np.array_equal(numbers, np.arange(variable.sizes[axis]))
        }
        variable = variable.isel(picks)
        chunks = self.request.chunks
        lead = dict.fromkeys(leading, 1)
        if isinstance(chunks, Mapping) and chunks:
            lead |= {dim: chunks[dim] for dim in leading if dim in chunks}
            chunks = {dim: size for dim, size in chunks.items() if dim not in leading} or {"p": -1}
        sizes = volume_chunk_sizes(
            "auto" if chunks is None else chunks,
            _DIMS,
            (*shape, *(self.channels or (1,))),
            4 if self.request.masked else 1,
            self.slicing,
            self.gap / self.grid.axes[AXES.index(self.slicing)].step,
            blended=self.blended,
        )
        if getattr(array, "marked", False):
            sizes["channel"] = -1
        chunked = self.request.chunks is not None
        return in_chunks(variable, {**lead, **sizes}, array, picks, chunked=chunked)

    def coordinates(
        self, space: int | Literal["CCFv3"] | None, frame: str, ledger: Ledger
    ) -> xr.Coordinates:
        """Return the coordinates of volumes on the nodes, in a space."""
        plain: dict[str, xr.Variable] = {}
        for axis, nodes in zip(AXES, self.grid.axes, strict=True):
            if self.like is None:
                plain[axis] = xr.Variable(axis, nodes.microns, microns_of(axis))
            else:
                given = self.like.coords[axis]
                plain[axis] = xr.Variable(given.dims, given.values, microns_of(axis))
        if self.channels:
            plain["channel"] = channel_coordinate()
        return guarded(xr.Coordinates(plain), space, frame, ledger)

    def cut(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return what lies within the region, of volumes on the nodes of another array."""
        if self.like is None or not self.request.region:
            return dataset
        return _cut(dataset, self.request.region)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Volume(Opening):
    """A dataset, and how it fills a volume."""

    request: OpeningOptions
    sampling: VolumeSampling[Any]
    nodes: Nodes

    @classmethod
    def of(
        cls, request: OpeningOptions, wanted: VolumeOptions, source: Source, record: SectionDataset
    ) -> _Volume:
        registration = None
        if request.registration is not None:
            registration = placing_of(request.registration, record)
            request = replace(request, registration=registration)
        request = replace(request, reference_space=space_wanted(request, wanted.like, record))
        space: int | Literal["CCFv3"] | None
        if registration is None:
            space, _ = target_space(record, request.reference_space)
            check_midline(wanted.mirror, space)
        else:
            space = registration.reference_space
        if wanted.like is not None:
            grid = wanted.like.grid
        elif registration is None:
            grid = volume_grid(record, request.resolution, request.region)
        else:
            grid = grid_over(P56_EXTENT, request.resolution, request.region)
        sampling = volume_sampling(source, record, request, wanted, grid, warned=3)
        nodes = Nodes(
            grid,
            request,
            wanted.like,
            AXES[record.plane.section],
            sampling.gap,
            sampling.channels,
            wanted.between == "linear",
        )
        carried, failing = failing_of(
            sampling, source, fill=request.fill_failed, other_tiers=request.tier == "auto"
        )
        return cls(
            record=record,
            source=source,
            space=space,
            fill_value=fill_of(record, request.view, masked=request.masked),
            carried=carried,
            failing=failing,
            request=request,
            sampling=sampling,
            nodes=nodes,
        )

    def dataset(self) -> xr.Dataset:
        """Return the volume with its coordinates."""
        array = PixelArray(
            self.sampling,
            self.source,
            self.fill_value,
            self.carried,
            self.failing,
            marked=self.failing.fill,
        )
        attrs = self.of_pixels(self.request.view, self._attributes())
        if not self.request.masked:
            attrs["value_where_not_covered"] = int(array.fill_value)
        shown: dict[What, Any] = {
            name: MatrixArray(self.sampling, name) for name in shown_names(self.sampling.mirrored)
        }
        variables = volume_variables(self.nodes, array, shown, attrs)
        frame = volume_frame(self.record, self.space)
        coordinates = self.nodes.coordinates(self.space, frame, self.failing.ledger)
        return self.nodes.cut(xr.Dataset(variables, coordinates, self._attributes()))

    def _attributes(self) -> dict[str, Any]:
        attrs = self.attributes(
            mapping="",
            resolution=self.sampling.grid.step,
            registration=self.request.registration,
        )
        del attrs["mapping"]
        attrs["between"] = self.sampling.between
        attrs["max_distance_microns"] = self.sampling.max_distance
        if self.sampling.mirrored:
            attrs["mirrored_about_r_microns"] = MIDLINE
        return attrs


def check_midline(mirror: bool, space: int | None) -> None:
    """Refuse to mirror in a space whose midline is not known."""
    if mirror and extent(space) is None:
        raise ValueError(
            f"there is nothing to mirror about in {space_name(space)}, whose midline is not known: "
            "leave out mirror=True"
        )


def shown_names(mirrored: bool) -> list[What]:
    """Return what volumes hold besides their pixels."""
    return (
        ["section_number", "distance", "mirrored"] if mirrored else ["section_number", "distance"]
    )


def volume_variables(
    nodes: Nodes,
    image: Any,
    shown: Mapping[What, Any],
    attrs: dict[str, Any],
    leading: tuple[str, ...] = (),
) -> dict[str, xr.Variable]:
    """Return the lazy variables of volumes.

    Parameters
    ----------
    nodes
        The nodes.
    image
        An array of pixels; if it is marked, what was filled shows no section.
    shown
        Arrays from matrices alone.
    attrs
        Of the pixels.
    leading
        As in `Nodes.lazy`.
    """
    variables = {"image": nodes.lazy(image, attrs, leading)}
    marked = variables["image"]
    chunks = nodes.request.chunks if isinstance(nodes.request.chunks, Mapping) else {}
    if image.marked:
        variables["image"] = without_marks(marked, nodes.channels, chunks.get("channel", -1))
    for what, array in shown.items():
        named = dict(_LONG_NAMES[what])
        if not image.marked:
            variables[what] = nodes.lazy(array, named, leading)
        elif nodes.request.chunks is None:
            variables[what] = nodes.lazy(
                UnfilledArray([image], array, NOTHING[what]), named, leading
            )
        else:
            lazy = nodes.lazy(array, named, leading)
            variables[what] = lazy.where(not_filled([marked]), NOTHING[what])
            variables[what].attrs = named
    return variables


def _cut(dataset: xr.Dataset, region: dict[str, tuple[float, float]]) -> xr.Dataset:
    """Return the nodes of `like` within a region."""
    for axis, (low, high) in region.items():
        values = np.atleast_1d(dataset[axis].values)
        inside = (values >= low) & (values <= high)
        if not inside.any():
            raise ValueError(
                f"region {axis}=({low:g}, {high:g}) holds no node of like; they lie from "
                f"{values.min():g} to {values.max():g} microns"
            )
        if axis in dataset.dims and not inside.all():
            dataset = dataset.isel({axis: np.flatnonzero(inside)})
    return dataset
