"""Opening section datasets as lazy xarray objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Unpack

import numpy as np
import xarray as xr
from xarray.core import indexing

from ..model.affine import points_of
from ..model.dataset import SectionDataset
from ..model.geometry import clip_to_box
from ..model.grid import Grid, section_grid
from ..model.read import View
from ..model.registration import Registration
from ..model.sections import SectionTable
from ..model.space import AXES, Plane, space_name
from ..source import source_from
from . import accessor as _accessor  # noqa: F401  # registers .atlas
from .base import (
    AUTO_BYTES,
    Opening,
    channel_coordinate,
    chosen_tiers,
    chunks_given,
    failing_of,
    fill_of,
    frame,
    guarded,
    in_chunks,
    microns_of,
    piece,
    placing_of,
    record_of,
    sections_of,
    showing,
    warn_if_failed,
)
from .index import DIM, SectionIndex
from .lazy import MatrixArray, PixelArray, UnfilledArray, not_filled, without_marks
from .lookup import StructureArray, annotation_from, voxels_of
from .planes import Piece, SectionSampling
from .request import DatasetOptions, Region, SectionOptions, SectionRequest, checked_options, takes

_DIMS = (DIM, "y", "x", "channel")
_MOST_SECTIONS = 8
"""Of a chunk."""


@takes(SectionOptions)
def open_dataarray(dataset_id: int, **options: Unpack[SectionOptions]) -> xr.DataArray:
    """Open a section dataset as one lazy array in reference space.

    Only metadata are read. Images are downloaded and warped when their pixels are asked for.

    Parameters
    ----------
    dataset_id
        Id of the section dataset.
    **options
        As in `SectionOptions`.

    Returns
    -------
    xarray.DataArray
        uint8 (or float32), dims ``(section, y, x, channel)``, sections in ascending order of
        slice coordinate. Coronal: section along p, y along i, x along r. Sagittal: r, i, p.
        Transverse: i, p, r. Grid points sit at whole multiples of `resolution` from 0.
        Coordinates: ``section`` (number), ``y``, ``x``, ``p``, ``i``, ``r`` in microns, and
        on ``section`` also ``image_id``, ``tier`` and ``microns_per_pixel`` (of that tier).

    Raises
    ------
    ValueError, TypeError
        If an option cannot be used, before anything is read.
    DatasetNotFoundError
        If there is no such dataset.
    RegistrationError
        If the dataset has no usable place in reference space, or nothing to show, or if
        `registration` does not fit it.
    APIError
        If the service does not answer as it should.

    See Also
    --------
    open_dataset : The same with expression and coverage beside the image.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
    ...     sections = atldld.open_dataarray(1001, resolution=100, source=server.url)
    ...     section = sections.sel(r=3365, method="nearest").compute()
    >>> section.dims
    ('y', 'x', 'channel')
    >>> section.sizes["y"], section.sizes["x"]
    (80, 132)
    """
    opening = _open(dataset_id, checked_options(SectionOptions, "open_dataarray", options))
    return opening.dataset({"image": opening.pixels(opening.request.view)})["image"]


@takes(DatasetOptions)
def open_dataset(dataset_id: int, **options: Unpack[DatasetOptions]) -> xr.Dataset:
    """Open a section dataset as a lazy Dataset in reference space.

    Only metadata are read.

    Parameters
    ----------
    dataset_id
        Id of the section dataset.
    **options
        As in `DatasetOptions`.

    Returns
    -------
    xarray.Dataset
        ``image`` as from `open_dataarray`; ``expression`` if asked for; ``covered (section,
        y, x)``, bool, lazy: whether the point lies within ``[0, width - 1] x [0, height - 1]`` of
        the section's full-resolution pixels. It is computed from the matrices without any
        download; with ``on_error="fill"``, where what was filled is not covered, together with
        the pixels, from the same reading of each image. With `annotation`, ``structure_id
        (section, y, x)``, int64, lazy, without any download: the label of the voxel that is
        nearest to the pixel's exact place; 0 outside. Of spaces 9 and 10 r is flipped, exactly.

    Raises
    ------
    ValueError, TypeError, DatasetNotFoundError, RegistrationError, APIError
        As `open_dataarray`.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(dataset_id=1001)]) as server:
    ...     both = atldld.open_dataset(1001, include_expression=True, source=server.url)
    >>> list(both)
    ['image', 'expression', 'covered']
    """
    wanted = checked_options(DatasetOptions, "open_dataset", options)
    opening = _open(dataset_id, wanted)
    views: dict[str, View] = {"image": opening.request.view}
    if wanted["include_expression"]:
        views["expression"] = "expression"
    variables = opening.with_coverage(views)
    if wanted["annotation"] is not None:
        variables["structure_id"] = opening.structures(annotation_from(wanted["annotation"]))
    return opening.dataset(variables, has_expression=wanted["include_expression"])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Sections(Opening):
    """The sections of a dataset, and how they come onto a grid."""

    request: SectionRequest
    sampling: SectionSampling

    def pixels(self, view: View) -> xr.Variable:
        """Return one view of all sections as a lazy variable."""
        array = self._array(view)
        return self._lazy(array, _DIMS[: len(array.shape)], self._attributes_of(view))

    def with_coverage(self, views: dict[str, View]) -> dict[str, xr.Variable]:
        """Return views of all sections, and where these cover the grid, as lazy variables."""
        attrs = {"long_name": "covered by the section image"}
        if not self.failing.fill:
            found = {name: self.pixels(view) for name, view in views.items()}
            covered = MatrixArray(self.sampling, "covered")
            return {**found, "covered": self._lazy(covered, _DIMS[:3], attrs)}
        arrays = [self._array(view, marked=True) for view in views.values()]
        marked = [self._lazy(array, _DIMS, {}) for array in arrays]
        chunks = self.request.chunks if isinstance(self.request.chunks, Mapping) else {}
        found = {}
        for (name, view), variable in zip(views.items(), marked, strict=True):
            channels = replace(self.sampling, view=view).channels
            found[name] = without_marks(variable, channels, chunks.get("channel", -1))
            found[name].attrs = self._attributes_of(view)
        if self.request.chunks is None:
            return {**found, "covered": self._lazy(UnfilledArray(arrays), _DIMS[:3], attrs)}
        shown = not_filled(marked)
        shown.attrs = attrs
        return {**found, "covered": shown}

    def structures(self, annotation: xr.DataArray) -> xr.Variable:
        """Return the structure at every pixel as a lazy variable."""
        if self.space is None:
            raise ValueError(
                f"dataset {self.record.id} lies in {space_name(None)}, and the annotation "
                f"in {space_name(annotation.attrs.get('reference_space'))}: leave out annotation="
            )
        grid = self.sampling.grid
        voxels = voxels_of(annotation, self.space)
        array = StructureArray(self.sampling.sections, grid.y.microns, grid.x.microns, voxels)
        attrs = {"long_name": "structure"}
        for name in ("atlas", "ontology", "ontology_source"):
            if annotation.attrs.get(name):
                attrs[name] = str(annotation.attrs[name])
        return self._lazy(array, _DIMS[:3], attrs)

    def _array(self, view: View, *, marked: bool = False) -> PixelArray[Piece]:
        sampling = self.sampling
        if view != sampling.view:
            sampling = replace(sampling, view=view)
        fill = self._fill(view)
        return PixelArray(sampling, self.source, fill, self.carried, self.failing, marked=marked)

    def _attributes_of(self, view: View) -> dict[str, Any]:
        attrs = self.of_pixels(view, self._attributes())
        if not self.request.masked:
            attrs["value_where_not_covered"] = int(self._fill(view))
        return attrs

    def dataset(
        self, variables: dict[str, xr.Variable], *, has_expression: bool = False
    ) -> xr.Dataset:
        """Return variables with the coordinates of the sections."""
        coords = self._coordinates()
        if has_expression:
            flags = xr.Variable(
                DIM, self.sampling.sections.has_expression, {"long_name": "has an expression mask"}
            )
            coords = xr.Coordinates(
                {**coords.variables, "has_expression": flags}, indexes=dict(coords.xindexes)
            )
        return xr.Dataset(variables, coords=coords, attrs=self._attributes())

    def _fill(self, view: View) -> float:
        request = self.request
        return fill_of(self.record, view, masked=request.masked, given=request.fill_value)

    def _attributes(self) -> dict[str, Any]:
        return self.attributes(
            mapping=self.request.mapping,
            resolution=self.request.resolution,
            registration=self.request.registration,
        )

    def _lazy(
        self,
        array: PixelArray[Piece] | MatrixArray | UnfilledArray | StructureArray,
        dims: tuple[str, ...],
        attrs: dict[str, Any],
    ) -> xr.Variable:
        marked = isinstance(array, PixelArray) and array.marked
        sizes = chunk_sizes(
            "auto" if self.request.chunks is None else self.request.chunks,
            _DIMS,
            (*array.shape, *(1,) * (4 - len(array.shape))),
            array.dtype.itemsize,
            # A selection from marked pixels reads whole chunks.
            1 if marked or isinstance(array, UnfilledArray) else _MOST_SECTIONS,
        )
        if marked:
            sizes["channel"] = -1
        variable = xr.Variable(dims, indexing.LazilyIndexedArray(array), attrs)
        return in_chunks(variable, sizes, array, chunked=self.request.chunks is not None)

    def _coordinates(self) -> xr.Coordinates:
        table, grid, plane = self.sampling.sections, self.sampling.grid, self.record.plane
        where = frame(self.record, self.space)
        of_tier = table.microns_per_pixel * 2.0**self.sampling.tiers
        along = AXES[plane.section]
        of_sections = {
            DIM: xr.Variable(DIM, table.section_number, {"long_name": "section number"}),
            along: xr.Variable(DIM, table.slice_coordinate, microns_of(along)),
            "image_id": xr.Variable(DIM, table.image_id, {"long_name": "section image id"}),
            "tier": xr.Variable(DIM, self.sampling.tiers.astype(np.int64), {"long_name": "tier"}),
            "microns_per_pixel": xr.Variable(
                DIM,
                of_tier,
                {"long_name": "reference microns per pixel of the tier", "units": "µm"},
            ),
        }
        # What must agree before sections are matched by identity: the dataset, and what gives
        # them their slice coordinate.
        stack = f"dataset {self.record.id} ({where}"
        if self.request.detection_xy is not None:
            stack += f", detection_xy={self.request.detection_xy}"
        if isinstance(self.request.registration, Registration):
            stack += f", registration={self.request.registration.description}"
        index = SectionIndex(table.section_number, table.image_id, f"{stack})")
        shared = [_grid_coordinates(grid, plane)]
        if self.sampling.channels:
            shared.append(channel_coordinate())
        variables: dict[Any, xr.Variable] = {**of_sections}
        indexes: dict[Any, xr.Index] = {DIM: index}
        for each in shared:
            variables |= each.variables
            indexes |= each.xindexes
        places = [self.sampling.image_places]
        return guarded(variables, indexes, self.space, where, [self.failing.ledger], places)


@lru_cache(maxsize=16)
def _grid_coordinates(grid: Grid, plane: Plane) -> xr.Coordinates:
    """Return the coordinates of rows and columns, which all datasets on one grid share."""
    variables = {}
    for dim, name, axis in zip(("y", "x"), plane.axes[1:], (grid.y, grid.x), strict=True):
        microns = axis.microns
        microns.flags.writeable = False
        variables[dim] = xr.Variable(dim, microns, microns_of(name))
        variables[name] = xr.Variable(dim, microns, microns_of(name))
    return xr.Coordinates(variables)


def _open(dataset_id: Any, wanted: Mapping[str, Any]) -> _Sections:
    request = SectionRequest.of(dataset_id, wanted)
    source = source_from(wanted["source"])
    record = record_of(source, request.dataset_id)
    warn_if_failed(record, 3)
    placing = placing_of(request.registration, record)
    request = replace(request, registration=placing)
    space, table = sections_of(
        record,
        placing,
        request.reference_space,
        mapping=request.mapping,
        detection_xy=request.detection_xy,
    )
    # The spaces that registrations lead to have the extent of space 9, whatever the native one.
    spanned = record if placing is None else replace(record, reference_space=9)
    grid = section_grid(spanned, request.resolution)
    table = showing(table, record, request.view, 3)
    table, grid = _in_region(table, grid, record, request)
    sampling = SectionSampling(
        dataset_id=record.id,
        sections=table,
        grid=grid,
        tiers=chosen_tiers(
            source, record, table, request.tier, request.view, request.resolution, 3
        ),
        view=request.view,
        interpolation=request.interpolation,
    )
    carried, failing = failing_of(
        sampling, source, fill=request.on_error == "fill", other_tiers=request.tier == "auto"
    )
    return _Sections(
        record=record,
        source=source,
        space=space,
        fill_value=fill_of(record, request.view, masked=request.masked, given=request.fill_value),
        carried=carried,
        failing=failing,
        request=request,
        sampling=sampling,
    )


def _in_region(
    table: SectionTable, grid: Grid, record: SectionDataset, request: SectionRequest
) -> tuple[SectionTable, Grid]:
    """Return the part of the grid within a region, and the sections that pass through it there."""
    plane, region = record.plane, request.region
    part = grid.cut(region)
    if request.mapping == "parallel":
        part = _widened(part, table, grid, plane, region)
    axis = AXES[plane.section]
    if axis not in region:
        return table, part
    low, high = region[axis]
    # An affine takes its extremes at the corners.
    columns, rows = np.meshgrid(part.x.microns[[0, -1]], part.y.microns[[0, -1]])
    corners = points_of(table.points[:, None], columns.ravel(), rows.ravel())[plane.section]
    inside = (corners.max(axis=1) >= low) & (corners.min(axis=1) <= high)
    if not inside.any():
        raise ValueError(
            f"region {axis}=({low:g}, {high:g}) holds no section of dataset {record.id}; they lie "
            f"from {corners.min():.1f} to {corners.max():.1f} microns there"
        )
    return table.take(inside), part


def _widened(part: Grid, table: SectionTable, grid: Grid, plane: Plane, region: Region) -> Grid:
    """Return a part of a grid, and around it all points that show a place within a region.

    With ``"parallel"`` a point shows a pixel from elsewhere in the plane as well.
    """
    if not {AXES[plane.y], AXES[plane.x]} & set(region):
        return part
    low, high = (
        np.array([region.get(axis, (-np.inf, np.inf))[side] for axis in AXES]) for side in (0, 1)
    )
    (left, right), (top, bottom) = grid.x.microns[[0, -1]], grid.y.microns[[0, -1]]
    xy = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    own = np.column_stack([xy, np.ones(4)]) @ table.points.swapaxes(1, 2)
    found = [clip_to_box(np.column_stack([xy, places]), low, high)[:, :2] for places in own]
    x, y = np.concatenate(found).T
    if len(x) == 0:
        return part
    rows = grid.y.cut(min(y.min(), part.y.microns[0]), max(y.max(), part.y.microns[-1]))
    columns = grid.x.cut(min(x.min(), part.x.microns[0]), max(x.max(), part.x.microns[-1]))
    return Grid(grid.names, (rows, columns))


def chunk_sizes(
    chunks: Any,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    itemsize: int,
    most_sections: int = _MOST_SECTIONS,
) -> dict[str, Any]:
    """Return the chunk size of each dimension.

    Parameters
    ----------
    chunks
        ``"auto"`` (or an empty dict): as many whole sections as fit into 16 MiB, at most 8; a
        larger plane is split into pieces of at most 16 MiB. Else a dict as in xarray, where a
        dimension that is not named stays whole.
    dims, shape
        Names and lengths of the dimensions, ``section`` first, then ``y`` and ``x``.
    itemsize
        Bytes of one value.
    most_sections
        Sections a chunk, at most, if not given.

    Raises
    ------
    ValueError
        If the dict names a dimension that is not there.

    Examples
    --------
    >>> chunk_sizes("auto", ("section", "y", "x", "channel"), (60, 320, 456, 3), 1)
    {'section': 8, 'y': 320, 'x': 456, 'channel': 3}
    """
    if isinstance(chunks, Mapping) and chunks:
        return chunks_given(chunks, dims)
    point = itemsize * math.prod(shape[3:])
    rows, columns = shape[1], shape[2]
    plane = max(point * rows * columns, 1)
    if plane > AUTO_BYTES:
        rows, columns = piece(rows, columns, AUTO_BYTES // point)
    sections = min(max(AUTO_BYTES // plane, 1), most_sections, max(shape[0], 1))
    return dict(zip(dims, (sections, rows, columns, *shape[3:]), strict=True))
