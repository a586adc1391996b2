"""Opening a section dataset as a lazy volume in reference space."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Unpack

import xarray as xr

from ..errors import AtldldWarning
from ..model.dataset import SectionDataset
from ..model.grid import Grid, grid_over, volume_grid
from ..model.registration import Registration
from ..model.sections import Stack, default_distance, stack_of
from ..model.space import AXES, can_flip, extent, space_name
from ..source import Source, source_from
from . import accessor as _accessor  # noqa: F401  # registers .atlas
from .base import (
    Opening,
    Space,
    chosen_tiers,
    failing_of,
    fill_of,
    placing_of,
    record_of,
    sections_of,
    showing,
    target_space,
    volume_frame,
    warn_if_failed,
)
from .lazy import MatrixArray, PixelArray, What
from .nodes import Like, Nodes
from .registered_volumes import RegisteredSampling
from .request import VolumeOptions, VolumeRequest, checked_options, takes
from .volumes import MIDLINE, StackSampling, VolumeSampling


@takes(VolumeOptions)
def open_volume(dataset_id: int, **options: Unpack[VolumeOptions]) -> xr.Dataset:
    """Open a section dataset as a lazy volume in reference space.

    Only metadata are read. Every voxel is exact in three dimensions: its section, and its pixel
    there, follow from the dataset's matrices, however the sections are tilted. A voxel shows the
    section nearest to it in z of the image stack (the lower number on a tie), where that section
    covers it and is at most `max_distance` away; else it shows nothing.

    Parameters
    ----------
    dataset_id
        Id of the section dataset.
    **options
        As in `VolumeOptions`.

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
    wanted = checked_options(VolumeOptions, "open_volume", options)
    request = VolumeRequest.of(dataset_id, wanted)
    like = Like.of(wanted["like"], request.resolution)
    source = source_from(wanted["source"])
    record = record_of(source, request.dataset_id)
    warn_if_failed(record, 2)
    request = replace(request, registration=placing_of(request.registration, record))
    request, space = in_space(request, like, {record.reference_space: record.id})
    if like is not None:
        grid = like.grid
    elif extent(space) is None:
        grid = volume_grid(record, request.resolution, request.region)
    else:
        grid = grid_over(extent(space) or (), request.resolution, request.region)
    sampling = volume_sampling(source, record, request, grid, warned=2)
    carried, failing = failing_of(
        sampling, source, fill=request.on_error == "fill", other_tiers=request.tier == "auto"
    )
    opening = Opening(
        record=record,
        source=source,
        space=space,
        fill_value=fill_of(record, request.view, masked=request.masked),
        carried=carried,
        failing=failing,
    )

    def array_of(what: Literal["image"] | What) -> Any:
        if what != "image":
            return MatrixArray(sampling, what)
        return PixelArray(
            sampling, source, opening.fill_value, carried, failing, marked=failing.fill
        )

    attrs = _attributes(opening, sampling, request.registration)
    pixel_attrs = opening.of_pixels(request.view, attrs)
    if not request.masked:
        pixel_attrs["value_where_not_covered"] = int(opening.fill_value)
    slicing = AXES[record.plane.section]
    nodes = Nodes(grid, request, like, slicing, sampling.gap, sampling.channels)
    coordinates = nodes.coordinates(space, volume_frame(record, space), failing.ledger)
    return nodes.dataset(array_of, coordinates, attrs, pixel_attrs)


def _attributes(
    opening: Opening, sampling: VolumeSampling[Any], registration: Any
) -> dict[str, Any]:
    attrs = opening.attributes(mapping="", resolution=sampling.grid.step, registration=registration)
    del attrs["mapping"]
    attrs["between"] = sampling.between
    attrs["max_distance_microns"] = sampling.max_distance
    if sampling.mirrored:
        attrs["mirrored_about_r_microns"] = MIDLINE
    return attrs


def in_space(
    request: VolumeRequest, like: Like | None, native: Mapping[int | None, int]
) -> tuple[VolumeRequest, Space]:
    """Return the request and the one space that volumes are opened in, or say why there is none.

    Parameters
    ----------
    request
        What is asked for.
    like
        What the nodes are taken from: the space is that which it lies in, if it says so.
    native
        The reference spaces that the datasets lie in, each with the id of one of them.
    """
    registration, asked = request.registration, request.reference_space
    given = None if like is None else like.space
    if registration is not None:
        leads: Space = "CCFv3"
        if isinstance(registration, Registration):
            leads = registration.reference_space
        if asked not in ("native", leads):
            raise ValueError(
                f"the registration leads to {space_name(leads)}, not to reference_space={asked}: "
                "leave that out"
            )
        if given not in (None, leads):
            raise ValueError(
                f"like lies in {given}, and the registration leads to {space_name(leads)}: give an "
                "array in that space"
            )
        return request, leads
    if isinstance(given, str):
        raise ValueError(
            f"like lies in {given}, and there is no way there from the spaces of section datasets: "
            "give an array in reference space 9 or 10, or a registration that leads there"
        )
    space = given if asked == "native" else int(asked)
    if given is not None and space != given:
        raise ValueError(
            f"like lies in {space_name(given)} (reference space {given}), but "
            f"reference_space={asked} is asked for: leave that out, or open like in that space"
        )
    if space is None:
        if len(native) > 1:
            lying = " and ".join(f"{each} (dataset {number})" for each, number in native.items())
            raise ValueError(
                f"these datasets lie in the reference spaces {lying}: choose one for all, "
                "reference_space=9 or 10"
            )
        (space,) = native
    for each, number in native.items():
        if each != space and not can_flip(each, space):
            raise ValueError(
                f"dataset {number} lies in reference space {each}, and there is no way from there "
                f"to {space}: only 9 and 10 can be turned into each other"
            )
    if request.mirror and extent(space) is None:
        raise ValueError(
            f"there is nothing to mirror about in {space_name(space)}, whose midline is not known: "
            "leave out mirror=True"
        )
    return replace(request, reference_space=space if space in (9, 10) else "native"), space


def volume_sampling(
    source: Source,
    record: SectionDataset,
    request: VolumeRequest,
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
    request
        What is asked for.
    grid
        The nodes.
    warned
        Stack level of warnings about what is left out, counted from the caller; None for none.
    """
    level = None if warned is None else warned + 1
    # Columns of both kinds are the same as far as they are asked here.
    kind: Any
    sections: Any
    if request.registration is None:
        kind, (sections, left_out) = StackSampling, _stack(record, request)
        along = sections.z
        if left_out and level is not None:
            warnings.warn(
                f"dataset {record.id}: several images have one section number; the volume shows "
                f"the one of the lowest id and leaves out {', '.join(map(str, left_out))}",
                AtldldWarning,
                stacklevel=level,
            )
    elif request.mirror:
        raise ValueError(
            "mirror=True is for Allen's own placing: leave it out, or leave out registration="
        )
    else:
        kind = RegisteredSampling
        registration = placing_of(request.registration, record)
        _, sections = sections_of(record, registration, request.reference_space)
        along = sections.slice_coordinate
    reach = request.max_distance
    if reach is None:
        reach = default_distance(along)
    sections = showing(sections, record, request.view, level)
    sampling: VolumeSampling[Any] = kind(
        dataset_id=record.id,
        plane=record.plane,
        sections=sections,
        grid=grid,
        tiers=chosen_tiers(source, record, sections, request.tier, request.view, grid.step, level),
        view=request.view,
        interpolation=request.interpolation,
        between=request.between,
        max_distance=reach,
        mirrored=request.mirror,
    )
    return sampling


def _stack(record: SectionDataset, request: VolumeRequest) -> tuple[Stack, tuple[int, ...]]:
    _, flip = target_space(record, request.reference_space)
    return stack_of(record, flip=flip)
