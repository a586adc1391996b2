"""Allen's own 200 micron volumes: expression energy, density and intensity."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..errors import APIError, AtldldError, AtldldWarning
from ..model.space import AXES, FLIP_R, can_flip, space_name
from ..options import current
from ..source import source_from
from ..source.allen import AllenSource
from ..source.grid import VOLUMES, grid_archive, grid_url
from ..source.protocol import Source
from .grid_files import STEP, labelled_grid, space_of_grid, zip_grid
from .guard import guarded
from .metaimage import read_metaimage


def open_grid(
    path_or_id: str | PathLike[str] | int,
    *,
    reference_space: Literal["native", 9, 10] = "native",
    native_space: Literal[9, 10] | None = None,
    volumes: Sequence[str] = VOLUMES,
    source: str | Source | None = None,
) -> xr.Dataset:
    r"""Open Allen's own 200 micron volumes of a dataset.

    Parameters
    ----------
    path_or_id
        A MetaImage header (``energy.mhd`` with ``energy.raw`` beside it), a zip of the grid
        service, or the id of a section dataset, whose zip is fetched and kept in the cache.
    reference_space
        ``"native"``, or 9 or 10. Volumes of sagittal datasets lie in space 10, those of coronal
        ones in space 9. The flip ``11350 - r`` does not lead from node to node of this grid (it
        is 56.75 nodes long), so that the volume of the other space is interpolated linearly
        along r, three quarters of the nearest node and one of the next; a warning says so, and
        the attribute ``resampled``. It smooths by less than the registration is uncertain.
    native_space
        The space that a file lies in which does not say so: a header without the zip that it
        came in. Where this is left out, such a file is taken to lie in `reference_space`.
    volumes
        Which volumes to fetch, for an id.
    source
        Where an id is fetched from: None, the service of ``set_options(api_url=...)``; the
        base URL of a service; or a `Source` that is one.

    Returns
    -------
    xarray.Dataset
        ``energy``, ``density`` and ``intensity``, as far as there are: float32, dims (p, i, r)
        of 67 x 41 x 58 nodes at ``k * 200`` microns, NaN where there are no data (-1 in the
        file). Interpolated values are NaN where the nearest node has none; a missing further
        neighbour is left out of the mean.

    Raises
    ------
    ValueError
        If the file is not such a volume (CCFv3 connectivity grids are another thing), or its
        space is not known.
    OSError
        If a file cannot be read.
    DatasetNotFoundError, APIError
        If the service has no volumes of the dataset, or does not answer as it should.

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
    grid = _read(path_or_id, wanted, stated, volumes, source)
    if wanted not in ("native", grid.attrs["reference_space"]):
        grid = _flipped(grid, wanted)
        warnings.warn(
            f"the volume is interpolated linearly along r, to space {wanted}: 11350 - r does not "
            "lead from node to node of the 200 micron grid",
            AtldldWarning,
            stacklevel=2,
        )
    return grid


def open_grids(
    ids: Iterable[int],
    *,
    reference_space: Literal[9, 10] = 9,
    volumes: Sequence[str] = VOLUMES,
    source: str | Source | None = None,
) -> xr.Dataset:
    """Open Allen's own 200 micron volumes of several datasets, on one grid in one space.

    Parameters
    ----------
    ids
        Ids of section datasets, each once.
    reference_space
        9 or 10: the space of all of them. Volumes of the other space are interpolated along r,
        as `open_grid` says.
    volumes, source
        As for `open_grid`.

    Returns
    -------
    xarray.Dataset
        As from `open_grid`, with a dimension ``dataset`` before p, i, r: the ids, in the order
        given. The coordinate ``resampled`` (dataset) says which were interpolated. A volume
        takes 0.6 MB in memory.

    Raises
    ------
    ValueError, DatasetNotFoundError, APIError
        As from `open_grid`; each names its dataset.
    """
    wanted = _wanted_space(reference_space)
    if wanted == "native":
        raise ValueError("reference_space is 'native'; volumes on one grid need one space: 9 or 10")
    numbers = [_dataset_id(each) for each in ids]
    if not numbers or len(set(numbers)) != len(numbers):
        raise ValueError(f"ids are {numbers}; they must be one or more, each once")
    # Requests are bounded elsewhere; these threads only wait for them.
    with ThreadPoolExecutor(min(len(numbers), current().max_connections)) as pool:
        grids = list(pool.map(lambda number: _read(number, wanted, None, volumes, source), numbers))
    other = [grid.attrs["reference_space"] != wanted for grid in grids]
    if any(other):
        named = ", ".join(str(number) for number, flip in zip(numbers, other, strict=True) if flip)
        warnings.warn(
            f"volumes of datasets {named} are interpolated linearly to space {wanted}: 11350 - r "
            "does not lead from node to node of the 200 micron grid",
            AtldldWarning,
            stacklevel=2,
        )
    grids = [
        _flipped(grid, wanted) if flip else grid for grid, flip in zip(grids, other, strict=True)
    ]
    joined = xr.concat(
        grids, xr.Variable("dataset", numbers), join="exact", combine_attrs="drop_conflicts"
    )
    joined["dataset"].attrs["long_name"] = "section dataset id"
    return joined.assign_coords(
        resampled=("dataset", np.array(other), {"long_name": "interpolated along r by the flip"})
    )


def _read(
    path_or_id: Any, wanted: Any, stated: Any, volumes: Sequence[str], source: Any
) -> xr.Dataset:
    if not isinstance(path_or_id, str | PathLike):
        return _from_service(_dataset_id(path_or_id), wanted, stated, volumes, source)
    path = Path(fspath(path_or_id))
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if ".nrrd" in suffixes or ".nii" in suffixes:
        raise ValueError(
            f"{path.name} is not a 200 micron expression volume: the grids of the connectivity "
            "atlas (NRRD, 10 to 100 microns) lie in CCFv3, another space, and are not opened here"
        )
    if ".zip" in suffixes:
        return zip_grid(path.read_bytes(), str(path), wanted, stated)
    image = read_metaimage(path)
    space = space_of_grid(None, wanted, stated, path.name)
    return labelled_grid({path.stem: image}, str(path), space, {})


def _from_service(
    dataset_id: int, wanted: Any, stated: Any, volumes: Sequence[str], source: Any
) -> xr.Dataset:
    unknown = [volume for volume in volumes if volume not in VOLUMES]
    if unknown or isinstance(volumes, str) or not volumes:
        raise ValueError(f"volumes are {volumes!r}; they must be some of {', '.join(VOLUMES)}")
    origin = source_from(source)
    if not isinstance(origin, AllenSource):
        raise ValueError(f"{origin.name} keeps no grid volumes; give the base URL of an Allen API")
    where = grid_url(origin.name, dataset_id, volumes)
    try:
        content = grid_archive(origin, dataset_id, volumes)
        grid = zip_grid(content, where, wanted, stated, lambda: origin.dataset(dataset_id))
    except ValueError as error:
        raise ValueError(f"dataset {dataset_id}: {error}") from error
    found = grid.attrs.get("dataset_id", dataset_id)
    if found != dataset_id:
        raise APIError(f"the volumes sent for dataset {dataset_id} are of {found}", url=where)
    grid.attrs["dataset_id"] = dataset_id
    return grid


def _flipped(grid: xr.Dataset, space: int) -> xr.Dataset:
    """Return a volume in the other one of spaces 9 and 10, on the same nodes."""
    native = int(grid.attrs["reference_space"])
    if not can_flip(native, space):
        raise AtldldError(f"nothing leads from space {native} to space {space}")
    attrs = {
        "reference_space": space,
        "reference_space_name": space_name(space),
        "resampled": f"linearly along r, from space {native} by r -> {FLIP_R:g} - r",
    }
    moved = {}
    for name, variable in grid.data_vars.items():
        values = flip_nodes(variable.values, STEP)
        moved[name] = (AXES, values, {**variable.attrs, **attrs})
    return guarded(grid.assign(moved).assign_attrs(attrs), space)


def flip_nodes(values: npt.NDArray[np.float32], step: float) -> npt.NDArray[np.float32]:
    """Return a volume as the other one of spaces 9 and 10 sees it, on the same nodes.

    Parameters
    ----------
    values
        Shape (p, i, r), nodes k * step; NaN where there are no data.
    step
        Microns between nodes along r.

    Returns
    -------
    values
        The same shape: at node m the value at ``11350 - m * step``, linear between the two
        nodes around it. A node without data is left out of the mean where it is the further
        one; where it is the nearer one, there is no value.

    Examples
    --------
    >>> volume = np.arange(58, dtype=np.float32).reshape(1, 1, 58)
    >>> flip_nodes(volume, 200.0)[0, 0, :3]
    array([56.75, 55.75, 54.75], dtype=float32)
    """
    count = values.shape[-1]
    place = (FLIP_R - np.arange(count) * step) / step
    below = np.floor(place).astype(int)
    total = np.zeros(values.shape, dtype=np.float64)
    weight = np.zeros(values.shape, dtype=np.float64)
    for node, share in ((below, below + 1 - place), (below + 1, place - below)):
        there = (node >= 0) & (node < count)
        taken = values[..., np.clip(node, 0, count - 1)]
        good = np.where(there, share, 0.0) * ~np.isnan(taken)
        total += np.where(good > 0, taken, 0.0) * good
        weight += good
    out = np.full(values.shape, np.nan, dtype=np.float32)
    enough = weight >= 0.5
    out[enough] = (total[enough] / weight[enough]).astype(np.float32)
    return out


def _wanted_space(space: Any) -> Any:
    if isinstance(space, str):
        if space == "native":
            return space
    elif not isinstance(space, bool) and space in (9, 10):
        return int(space)
    raise ValueError(f"the reference space is {space!r}; it must be 'native', 9 or 10")


def _dataset_id(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{value!r} is neither the id of a dataset nor a path")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{value!r} is neither the id of a dataset nor a path") from None
    if number < 0:
        raise ValueError(f"the dataset id is {number}; it must not be negative")
    return number
