"""Allen's own grids: expression on 200 microns (or less of other ages), and connectivity."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from dask.tokenize import tokenize

from .. import options
from ..arrays import accessor as _accessor  # noqa: F401  # registers .atlas
from ..errors import APIError, AtldldWarning, DatasetNotFoundError
from ..model.info import DatasetSummary
from ..model.space import AXES, space_name
from ..source import Source
from ..source.allen import AllenSource
from ..source.archives import (
    CONNECTIVITY,
    RESOLUTIONS,
    VOLUMES,
    connectivity_volume,
    grid_archive,
    grid_url,
)
from ..source.catalogue import Catalogue
from ..source.search import summaries_of
from .grid_files import (
    GridForm,
    GridVolumes,
    Said,
    Single,
    Space,
    ccfv3_form,
    form_attributes,
    form_coordinates,
    guarded,
    images_grid,
    labelled,
    long_name,
    nrrd_volume,
    p56_form,
    zip_grid,
)
from .mirror import open_mirror
from .selection import dataset_id_of, labels_of, selected, service_of
from .voxel_files import parse_nrrd, read_metaimage

if TYPE_CHECKING:
    import dask.array as da

_MOST_NAMED = 8
_LARGEST_NRRD = 2**33
"""Bytes of a connectivity volume; one of 10 micron voxels has 4.8e9."""


def open_grid(
    path_or_id: str | PathLike[str] | int,
    *,
    reference_space: Literal["native", 9, 10] = "native",
    native_space: Literal[9, 10] | None = None,
    volumes: Sequence[str] = VOLUMES,
    resolution: Literal[10, 25, 50, 100] = 100,
    source: str | Source | Catalogue | None = None,
) -> xr.Dataset:
    r"""Open Allen's own grids of a dataset: of expression, or of the connectivity atlas.

    Parameters
    ----------
    path_or_id
        A MetaImage header (``energy.mhd`` with ``energy.raw`` beside it), a zip of the grid
        service, an NRRD volume of the connectivity atlas, or the id of a section dataset, whose
        files are fetched and kept in the cache.
    reference_space
        ``"native"``, or 9 or 10. Volumes of sagittal datasets lie in space 10, those of coronal
        ones in space 9. The flip ``11350 - r`` does not lead from node to node of this grid (it
        is 56.75 nodes long), so that the volume of the other space is interpolated linearly
        along r, three quarters of the nearest node and one of the next; a warning says so, and
        the attribute ``resampled``. It smooths by less than the registration is uncertain.
        Volumes of other ages and of the connectivity atlas lie in spaces of their own, and are
        opened there.
    native_space
        The space that a file lies in which does not say so: a header without the zip that it
        came in. Where this is left out, such a file is taken to lie in `reference_space`.
    volumes
        Which volumes to fetch, for an id: of ``"energy"``, ``"density"`` and ``"intensity"``; or,
        of a dataset of the connectivity atlas, of ``"projection_density"``,
        ``"projection_energy"``, ``"injection_fraction"``, ``"injection_density"``,
        ``"injection_energy"`` and ``"data_mask"``.
    resolution
        Microns of the voxels of connectivity volumes.
    source
        Where an id is fetched from: None, the service of ``set_options(api_url=...)``; the
        base URL of a service; or a `Source` that is one.

    Returns
    -------
    xarray.Dataset
        The volumes, as far as there are: float32, dims (p, i, r), NaN where there are no data (-1
        in the file). Expression of the adult mouse has 67 x 41 x 58 nodes at ``k * 200``
        microns, that of other ages as many nodes as its file says, from 0 as well. Connectivity
        lies in CCFv3, a voxel centred on ``(k + 0.5) * resolution``. Interpolated values are NaN
        where the nearest node has none; a missing further neighbour is left out of the mean.

    Raises
    ------
    ValueError
        If the file is not such a volume, or its space is not known.
    OSError
        If a file cannot be read.
    DatasetNotFoundError, APIError
        If the service has no volumes of the dataset, or does not answer as it should.
    ImportError
        If pynrrd is missing, for a connectivity volume.

    Notes
    -----
    Energy is density times intensity at the nodes of the native space. After interpolation it
    is not, exactly.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.full(67 * 41 * 58, 2, "<f4").tofile(folder / "energy.raw")
    >>> _ = (folder / "energy.mhd").write_text("NDims = 3\nDimSize = 67 41 58\nElementSpacing = "
    ...     "200 200 200\nElementType = MET_FLOAT\nElementDataFile = energy.raw\n")
    >>> grid = open_grid(folder / "energy.mhd", reference_space=10)
    >>> float(grid.energy.sel(p=6600, i=4000, r=3400))
    2.0
    """
    wanted = _wanted_space(reference_space)
    stated = None if native_space is None else _wanted_space(native_space)
    if isinstance(path_or_id, str | PathLike):
        grid, name = _from_path(fspath(path_or_id), wanted, stated)
    else:
        number = dataset_id_of(path_or_id)
        grids = _Grids(
            service_of(source), _checked(volumes, resolution), resolution, options.carry()
        )
        grid, name = grids.fetched(number, grids.volumes, stated), grids.url(number)
    native = grid.form.space
    if wanted in ("native", native):
        return labelled(grid, name)
    warnings.warn(
        f"the volume is interpolated linearly along r, to space {wanted}: 11350 - r does not "
        "lead from node to node of the 200 micron grid",
        AtldldWarning,
        stacklevel=2,
    )
    return labelled(grid.in_space(wanted), name, native)


def open_grids(
    selection: Iterable[int] | pd.DataFrame | Catalogue | str | PathLike[str],
    *,
    reference_space: Literal["native", 9, 10] | None = None,
    volumes: Sequence[str] = VOLUMES,
    resolution: Literal[10, 25, 50, 100] = 100,
    source: str | Source | Catalogue | None = None,
) -> xr.Dataset:
    """Open Allen's own grids of any number of datasets as one lazy array, a chunk a dataset.

    Parameters
    ----------
    selection
        Ids of section datasets, each once; a table of datasets (rows of ``catalogue().datasets``
        or of `search`), or a whole `Catalogue`; or the path or fsspec URL of a mirror that
        ``.atlas.to_zarr`` wrote.
    reference_space
        9 or 10: the space of all of them, by default 9. Volumes of the other space are
        interpolated along r, as `open_grid` says. Datasets of other ages, or of the connectivity
        atlas, lie in spaces of their own (``"native"``), and do not mix with others.
    volumes, resolution, source
        As for `open_grid`.

    Returns
    -------
    xarray.Dataset
        As from `open_grid`, each volume lazy, with a dimension ``dataset`` before p, i, r: the
        ids, in the order given. Coordinates on it: ``gene``, ``plane``, ``specimen``, and
        ``resampled``, whether it is interpolated. The lazy variable ``found`` says which
        datasets have a grid at all; the others are NaN. Of a mirror ``status`` tells more, see
        `atldld.arrays.accessor.AtlasAccessor.to_zarr`.

    Raises
    ------
    ValueError
        If the datasets do not lie in one space, or there is no such volume.
    DatasetNotFoundError, APIError
        If a dataset is not known; each names its dataset.

    Notes
    -----
    With a catalogue at hand nothing is asked at opening. Without one, the service is asked for
    50 datasets at a time which space they lie in.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, SyntheticAtlas
    >>> atlas = SyntheticAtlas(100)
    >>> with AllenServer(atlas, grids=atlas.grids) as server:
    ...     tables = atldld.catalogue(server.url)
    ...     coronal = tables.datasets.query("plane == 'coronal'")
    ...     grids = atldld.open_grids(coronal, source=server.url)
    ...     mean = grids.energy[:3].mean("dataset").compute()
    >>> grids.energy.dims, mean.sizes["p"]
    (('dataset', 'p', 'i', 'r'), 67)
    """
    if isinstance(selection, str | PathLike):
        return open_mirror(fspath(selection))
    wanted = None if reference_space is None else _wanted_space(reference_space)
    numbers, source = selected(selection, source)
    chosen = _checked(volumes, resolution)
    origin = service_of(source)
    known = summaries_of(origin, numbers)
    grids = _Grids(origin, chosen, resolution, options.carry())
    spaces = [_native(grids, number, known.get(number)) for number in numbers]
    form = _form(grids, numbers, spaces, wanted)
    other = np.array([space != form.space for space in spaces])
    if other.any():
        named = [number for number, flip in zip(numbers, other, strict=True) if flip]
        more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        warnings.warn(
            f"volumes of datasets {', '.join(map(str, named[:_MOST_NAMED]))}{more} are "
            f"interpolated linearly to space {form.space}: 11350 - r does not lead from node to "
            "node of the 200 micron grid",
            AtldldWarning,
            stacklevel=2,
        )
    return _stacked(grids, form, numbers, known, other)


@dataclass(frozen=True, slots=True)
class _Grids:
    """Where grids come from: what a task takes along.

    Parameters
    ----------
    source
        The service.
    volumes
        Which volumes; fetched together.
    resolution
        Microns of the voxels of connectivity volumes.
    carried
        The options of the opening.
    """

    source: AllenSource
    volumes: tuple[str, ...]
    resolution: int
    carried: options.Carried

    def url(self, dataset_id: int) -> str:
        """Return where the grids of a dataset come from."""
        return grid_url(self.source.name, dataset_id, self.volumes)

    def fetched(
        self, dataset_id: int, volumes: Collection[str], native: Space | None = None
    ) -> GridVolumes:
        """Return some of the volumes of a dataset, in their own space.

        Raises
        ------
        DatasetNotFoundError
            If there are none.
        APIError, ValueError
            If they cannot be had, or are not what they should be.
        """
        if self.volumes[0] in CONNECTIVITY:
            return self._connectivity(dataset_id, volumes)
        said = Said(native=native, record=lambda: self.source.dataset(dataset_id).reference_space)
        content = grid_archive(self.source, dataset_id, self.volumes)
        try:
            grid = zip_grid(content, self.url(dataset_id), said, volumes)
        except ValueError as error:
            raise ValueError(f"dataset {dataset_id}: {error}") from error
        if grid.dataset_id not in (None, dataset_id):
            raise APIError(
                f"the volumes sent for dataset {dataset_id} are of {grid.dataset_id}",
                url=self.url(dataset_id),
            )
        return GridVolumes(grid.form, grid.values, dataset_id)

    def _connectivity(self, dataset_id: int, volumes: Collection[str]) -> GridVolumes:
        values: dict[str, Single] = {}
        form = ccfv3_form(self.resolution)
        for volume in volumes:
            content = connectivity_volume(self.source, dataset_id, volume, self.resolution)
            name = f"{volume} of dataset {dataset_id}"
            grid = nrrd_volume(parse_nrrd(content, name, _LARGEST_NRRD), volume, name)
            if grid.form != form:
                raise ValueError(f"{name} has voxels of {grid.form.step:g} microns")
            values |= grid.values
        return GridVolumes(form, values, dataset_id)

    def chunk(self, dataset_ids: Any, volume: str, form: GridForm) -> Single:
        """Return a volume of some datasets, shape (n, p, i, r); NaN where there is none."""
        out = np.full((len(dataset_ids), *form.shape), np.nan, np.float32)
        for place, number in enumerate(dataset_ids.tolist()):
            with options.using(self.carried):
                try:
                    grid = self.fetched(number, [volume])
                except DatasetNotFoundError:
                    continue
                grid = grid.in_space(form.space)
            if grid.form != form:
                raise ValueError(
                    f"dataset {number}: its grid is {grid.form}, not {form} as that of the others"
                )
            if volume in grid.values:
                out[place] = grid.values[volume]
        return out

    def found(self, dataset_ids: Any) -> Any:
        """Return which of some datasets have a grid."""
        out = np.zeros(len(dataset_ids), bool)
        for place, number in enumerate(dataset_ids.tolist()):
            with options.using(self.carried):
                try:
                    out[place] = bool(self.fetched(number, self.volumes[:1]).values)
                except DatasetNotFoundError:
                    continue
        return out


def _stacked(
    grids: _Grids,
    form: GridForm,
    numbers: list[int],
    known: dict[int, DatasetSummary],
    other: Any,
) -> xr.Dataset:
    import dask.array as da

    ids: da.Array = da.from_array(np.array(numbers, np.int64), chunks=1)
    attrs = form_attributes(form, grids.source.name, None, None)
    if other.any():
        attrs["resampled"] = "linearly along r, where `resampled` says so"
    variables: dict[str, Any] = {}
    for volume in grids.volumes:
        data = da.map_blocks(
            partial(grids.chunk, volume=volume, form=form),
            ids,
            dtype=np.float32,
            new_axis=[1, 2, 3],
            chunks=(ids.chunks[0], *((count,) for count in form.shape)),
            meta=np.empty((0, 0, 0, 0), np.float32),
            name=f"atldld-{volume}-{tokenize(grids, volume, form, numbers)}",
        )
        variables[volume] = (("dataset", *AXES), data, {"long_name": long_name(volume), **attrs})
    found = da.map_blocks(
        grids.found,
        ids,
        dtype=bool,
        meta=np.empty(0, bool),
        name=f"atldld-found-{tokenize(grids, form, numbers)}",
    )
    variables["found"] = ("dataset", found, {"long_name": "whether there is a grid"})
    coords = {
        **labels_of(numbers, known, "dataset"),
        "resampled": ("dataset", other, {"long_name": "interpolated along r by the flip"}),
        **form_coordinates(form),
    }
    return guarded(xr.Dataset(variables, coords, attrs), form.space)


def _form(grids: _Grids, numbers: list[int], spaces: list[Space], wanted: Any) -> GridForm:
    """Return the one grid of all datasets, or say why there is none."""
    if grids.volumes[0] in CONNECTIVITY:
        if wanted not in (None, "native"):
            raise ValueError(
                f"reference_space is {wanted}; volumes of the connectivity atlas lie in CCFv3"
            )
        return ccfv3_form(grids.resolution)
    present = {*spaces}
    if present <= {9, 10}:
        if wanted == "native" and len(present) > 1:
            raise ValueError(
                "reference_space is 'native', but the datasets lie in spaces 9 and 10; volumes on "
                "one grid need one space"
            )
        return p56_form(int(spaces[0]) if wanted == "native" else wanted or 9)
    if len(present) > 1 or wanted not in (None, "native", *present):
        named = {space: numbers[spaces.index(space)] for space in present}
        listed = ", ".join(f"{number} in {space_name(space)}" for space, number in named.items())
        raise ValueError(f"the datasets lie in spaces that do not mix: {listed}, ...")
    for number in numbers:
        try:
            return grids.fetched(number, grids.volumes[:1]).form
        except DatasetNotFoundError:
            continue
    raise DatasetNotFoundError(f"there are no grid volumes of any of datasets {numbers[:8]}, ...")


def _native(grids: _Grids, number: int, known: DatasetSummary | None) -> Space:
    """Return the space that the volumes of a dataset lie in."""
    if grids.volumes[0] in CONNECTIVITY:
        return "CCFv3"
    if known is not None and known.reference_space is not None:
        return known.reference_space
    return grids.fetched(number, grids.volumes[:1]).form.space


def _checked(volumes: Any, resolution: Any) -> tuple[str, ...]:
    if isinstance(resolution, bool) or resolution not in RESOLUTIONS:
        raise ValueError(f"resolution is {resolution!r}; it must be one of {RESOLUTIONS}")
    for kind in (VOLUMES, CONNECTIVITY):
        if not isinstance(volumes, str) and len(volumes) > 0 and {*volumes} <= {*kind}:
            return tuple(volume for volume in kind if volume in volumes)
    raise ValueError(
        f"volumes are {volumes!r}; they must be some of {', '.join(VOLUMES)}, or some of "
        f"{', '.join(CONNECTIVITY)}"
    )


def _from_path(text: str, wanted: Any, stated: Any) -> tuple[GridVolumes, str]:
    path = Path(text)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    said = Said(wanted, stated)
    if suffixes[-1:] == [".nrrd"]:
        volume = next((each for each in CONNECTIVITY if each in path.name), path.stem)
        image = parse_nrrd(path.read_bytes(), path.name, _LARGEST_NRRD)
        return nrrd_volume(image, volume, path.name), str(path)
    if ".zip" in suffixes:
        return zip_grid(path.read_bytes(), str(path), said), str(path)
    image = read_metaimage(path)
    return images_grid({path.stem: image}, str(path), said.space(None, path.name)), str(path)


def _wanted_space(space: Any) -> Any:
    if isinstance(space, str):
        if space == "native":
            return space
    elif not isinstance(space, bool) and space in (9, 10):
        return int(space)
    raise ValueError(f"the reference space is {space!r}; it must be 'native', 9 or 10")
