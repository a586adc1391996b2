"""All grids in one Zarr store: written shard by shard, resumed, grown, read back.

::

    <path>/zarr.json               what the store says of itself
    <path>/energy/c/<k>/0/0/0      a shard: some datasets, each a chunk of its own
    <path>/status/c/<k>            what became of each dataset of a shard; written after it
    <path>/dataset, gene, ...      labels
    <path>.locks/                  who writes which shard just now, on this machine
    <path>.writer                  in a bucket: which machine writes

A shard is written whole or not at all, and only then its status. So whatever ends a writer, the
next one begins with the first shard that has no status, and several writers share the work. Locks
reach as far as a machine; a bucket, which others could write to at once, has one machine at a time.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from dask.tokenize import tokenize

from ..errors import AtldldError, BundleError
from ..model.space import AXES
from ..options import current
from ..store.files import Location
from ..urls import without_secrets
from .grid_files import guarded

DIMS = ("dataset", *AXES)
SHARD = 64
"""Datasets of a shard: 41 MB of energy at float32."""

_LABELS = ("gene", "plane", "specimen", "resampled")
_LARGEST_HALF = float(np.finfo(np.float16).max)
_LOSS = {
    "float32": "none",
    "float16": "rounded to 11 bits: within 0.05 %, and within 3e-8 below 6e-5",
}


class Status(IntEnum):
    """What became of a dataset of a mirror."""

    PENDING = 0
    THERE = 1
    MISSING = 2
    """It has no grid: NaN."""
    FAILED = 3
    """Its grid could not be had: NaN, and tried again by the next writer."""


def write_mirror(
    grids: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    dtype: Literal["float32", "float16"] = "float32",
    shard: int = SHARD,
) -> pd.DataFrame:
    """Write grids to a Zarr store, or what is missing of them; return what failed.

    See `atldld.arrays.accessor.AtlasAccessor.to_zarr`.
    """
    source = _MirroredGrids.of(grids)
    if dtype not in _LOSS:
        raise ValueError(f"dtype is {dtype!r}; it must be 'float32' or 'float16'")
    if isinstance(shard, bool) or not isinstance(shard, int) or not 1 <= shard <= 4096:
        raise ValueError(f"shard is {shard!r}; it must be from 1 to 4096 datasets")
    mirror = _Mirror(os.fspath(path))
    with mirror.locked("store", wait=True):
        mirror.claim()
        mirror.prepare(source, dtype, shard)
    places = mirror.places(source.ids)
    failures: dict[int, str] = {}
    waiting = mirror.unfinished(places)
    for wait in (False, True):
        # Those that another writer has in hand come last; by then they are finished, or it died.
        left = []
        for number in waiting:
            with mirror.locked(f"shard-{number}", wait=wait) as held:
                if held:
                    failures |= mirror.write_shard(number, places, source)
                else:
                    left.append(number)
        waiting = left
    mirror.tidy()
    return pd.DataFrame({"dataset_id": list(failures), "reason": list(failures.values())}).astype(
        {"dataset_id": "int64", "reason": "str"}
    )


def open_mirror(path: str) -> xr.Dataset:
    """Open a mirror that `write_mirror` wrote, lazily, a shard a chunk.

    Raises
    ------
    BundleError
        If there is none, or it is not whole.
    """
    mirror = _Mirror(path)
    group = mirror.opened()
    if group is None:
        raise BundleError(f"there is no mirror of grids at {without_secrets(path)}")
    return mirror.dataset(group)


@dataclass(frozen=True, slots=True)
class _MirroredGrids:
    """Grids to be written, and their labels."""

    grids: xr.Dataset
    volumes: tuple[str, ...]
    ids: npt.NDArray[np.int64]

    @classmethod
    def of(cls, grids: Any) -> _MirroredGrids:
        if not isinstance(grids, xr.Dataset):
            raise TypeError(
                f"to_zarr mirrors the Dataset that open_grids returned, not {type(grids).__name__}"
            )
        volumes = tuple(str(name) for name, each in grids.items() if each.dims == DIMS)
        if not volumes or "dataset" not in grids.coords or "reference_space" not in grids.attrs:
            raise ValueError(
                "to_zarr mirrors volumes over (dataset, p, i, r) in one reference space, as "
                f"open_grids returns them; these are {dict(grids.sizes)}"
            )
        ids = grids["dataset"].to_numpy().astype(np.int64)
        if len(np.unique(ids)) != len(ids):
            raise ValueError("the grids hold a dataset twice")
        return cls(grids, volumes, ids)

    def values(
        self, places: Sequence[int]
    ) -> tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.uint8], dict[int, str]]:
        """Return the volumes of some datasets, what became of each, and why some failed."""
        part = self.grids[[*self.volumes, *(["found"] if "found" in self.grids else [])]]
        part = part.isel(dataset=list(places))
        try:
            # Threads that only wait for the service, which bounds them itself.
            computed = part.compute(num_workers=current().max_connections)
            return (*self._told(computed), {})
        except Exception as error:
            if len(places) == 1:
                number = int(self.ids[places[0]])
                if not isinstance(error, AtldldError | ValueError | OSError):
                    raise
                shape = tuple(self.grids.sizes[axis] for axis in AXES)
                nothing = np.full((1, *shape), np.nan, np.float32)
                values = dict.fromkeys(self.volumes, nothing)
                return values, np.array([Status.FAILED], np.uint8), {number: str(error)}
        # One of them failed: each by itself, so that the others are had.
        each = [self.values([place]) for place in places]
        joined = {name: np.concatenate([one[0][name] for one in each]) for name in self.volumes}
        reasons = {number: reason for one in each for number, reason in one[2].items()}
        return joined, np.concatenate([one[1] for one in each]), reasons

    def _told(
        self, computed: xr.Dataset
    ) -> tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.uint8]]:
        values = {name: computed[name].to_numpy() for name in self.volumes}
        there = np.ones(computed.sizes["dataset"], bool)
        if "found" in computed:
            there = computed["found"].to_numpy()
        return values, np.where(there, Status.THERE, Status.MISSING).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class _Mirror:
    """A Zarr store of grids."""

    where: str

    @property
    def folder(self) -> Path | None:
        """Its folder; None for a store that is not on this machine."""
        return Location.of(self.where).path

    @property
    def locks(self) -> Path:
        """The folder of the locks on this machine."""
        if self.folder is not None:
            return Path(f"{self.folder}.locks")
        name = sha256(self.where.encode()).hexdigest()[:16]
        return current().local_cache_dir / "mirrors" / name

    def claim(self) -> None:
        """Note in a bucket that this machine writes, unless another one does.

        Raises
        ------
        BundleError
            If another one does.
        """
        if self.folder is not None:
            return
        files, marker = self._marker()
        mine = platform.node().encode()
        try:
            files.pipe_file(marker, mine, mode="create")
        except FileExistsError:
            held = files.cat_file(marker)
            if held != mine:
                name = without_secrets(self.where)
                raise BundleError(
                    f"the machine {held.decode(errors='replace')!r} writes the mirror {name}, or "
                    "was stopped while it did; in a bucket, two machines would overwrite what each "
                    f"other wrote. If it does not write any more, remove {name}.writer"
                ) from None

    def _marker(self) -> tuple[Any, str]:
        import fsspec

        files, root = fsspec.core.url_to_fs(self.where)
        return files, f"{str(root).rstrip('/')}.writer"

    def opened(self, mode: Literal["r", "r+"] = "r") -> Any:
        """Return the Zarr group, or None where there is none."""
        import zarr

        try:
            with _quiet():
                return zarr.open_group(self.where, mode=mode, zarr_format=3)
        except (FileNotFoundError, KeyError):
            return None

    def prepare(self, source: _MirroredGrids, dtype: str, shard: int) -> None:
        """Make the store, or let it grow by the datasets that it does not have."""
        group = self.opened("r+")
        if group is None:
            group = self._made(source, dtype, shard)
        self._fits(group, source, dtype)
        known = group["dataset"][: group["status"].shape[0]]
        fresh = np.flatnonzero(~np.isin(source.ids, known))
        total = len(known) + len(fresh)
        if total == group["status"].shape[0]:
            return
        # The status comes last: what is longer before it is not there yet.
        for name in source.volumes:
            group[name].resize((total, *group[name].shape[1:]))
        with _quiet():
            for name in _LABELS:
                group[name].resize((total,))
                labels = source.grids[name].to_numpy() if name in source.grids.coords else None
                group[name][len(known) :] = (
                    labels[fresh] if labels is not None else group[name].fill_value
                )
        group["dataset"].resize((total,))
        group["dataset"][len(known) :] = source.ids[fresh]
        group["status"].resize((total,))

    def _made(self, source: _MirroredGrids, dtype: str, shard: int) -> Any:
        import zarr

        grids = source.grids
        with _quiet():
            group = zarr.open_group(self.where, mode="a", zarr_format=3)
        shape = tuple(grids.sizes[axis] for axis in AXES)
        for name in source.volumes:
            group.create_array(
                name,
                shape=(0, *shape),
                chunks=(1, *shape),
                shards=(shard, *shape),
                dtype=dtype,
                fill_value=float("nan"),
                dimension_names=DIMS,
                attributes=_plain(grids[name].attrs) | {"loss": _LOSS[dtype]},
            )
        for axis in AXES:
            made = group.create_array(
                axis,
                shape=grids[axis].shape,
                dtype="float64",
                dimension_names=(axis,),
                attributes=_plain(grids[axis].attrs),
            )
            made[:] = grids[axis].to_numpy()
        kinds: dict[str, Any] = {"gene": str, "plane": str, "specimen": str, "resampled": "bool"}
        with _quiet():
            for name, kind in {**kinds, "dataset": "int64", "status": "uint8"}.items():
                group.create_array(
                    name, shape=(0,), chunks=(shard,), dtype=kind, dimension_names=("dataset",)
                )
        group["status"].attrs["meaning"] = ", ".join(
            f"{each.value}: {each.name.lower()}" for each in Status
        )
        group.attrs.update(_plain(grids.attrs) | {"loss": _LOSS[dtype]})
        return group

    def _fits(self, group: Any, source: _MirroredGrids, dtype: str) -> None:
        """Refuse to mix grids of another kind into a store."""
        name = without_secrets(self.where)
        grids = source.grids
        space = group.attrs.get("reference_space")
        if space != grids.attrs["reference_space"]:
            raise ValueError(
                f"the mirror {name} lies in {space}, these grids in "
                f"{grids.attrs['reference_space']}"
            )
        for volume in source.volumes:
            if volume not in group or group[volume].dtype != np.dtype(dtype):
                raise ValueError(f"the mirror {name} holds no {volume} as {dtype}")
        held = {each for each in group if getattr(group[each], "ndim", 0) == len(DIMS)}
        if held != {*source.volumes}:
            raise ValueError(f"the mirror {name} holds {sorted(held)}, not {source.volumes}")
        for axis in AXES:
            if not np.array_equal(group[axis][:], grids[axis].to_numpy()):
                raise ValueError(f"the mirror {name} has other nodes along {axis}")

    def places(self, ids: npt.NDArray[np.int64]) -> dict[int, int]:
        """Return, for the place of each dataset in the store, its place among those given."""
        group = self.opened()
        held = group["dataset"][: group["status"].shape[0]].tolist()
        given = {number: place for place, number in enumerate(ids.tolist())}
        return {at: given[number] for at, number in enumerate(held) if number in given}

    def unfinished(self, places: dict[int, int]) -> list[int]:
        """Return the shards that hold a dataset of those that is not done."""
        group = self.opened()
        status = group["status"][:]
        size = group["status"].chunks[0]
        open_ones = np.isin(status, (Status.PENDING, Status.FAILED))
        return sorted({at // size for at in places if open_ones[at]})

    def write_shard(
        self, number: int, places: dict[int, int], source: _MirroredGrids
    ) -> dict[int, str]:
        """Write what is missing of a shard, and then what became of it; return what failed."""
        group = self.opened("r+")
        size = group["status"].chunks[0]
        here = slice(number * size, min((number + 1) * size, group["status"].shape[0]))
        status = group["status"][here]
        wanted = [
            k
            for k in range(len(status))
            if here.start + k in places and status[k] in (Status.PENDING, Status.FAILED)
        ]
        if not wanted:
            return {}
        values, became, reasons = source.values([places[here.start + k] for k in wanted])
        dtype = group[source.volumes[0]].dtype
        for k, each in enumerate(wanted):
            too_large = dtype == np.float16 and any(
                np.nanmax(np.abs(values[name][k]), initial=0.0) > _LARGEST_HALF
                for name in source.volumes
            )
            if too_large:
                became[k] = Status.FAILED
                owner = int(source.ids[places[here.start + each]])
                reasons[owner] = f"its values do not fit into float16 (above {_LARGEST_HALF:g})"
                for name in source.volumes:
                    values[name][k] = np.nan
        for name in source.volumes:
            # Read before, so that the shard is written in one piece with what it had.
            whole = group[name][here] if len(wanted) < len(status) else None
            if whole is None:
                whole = values[name].astype(dtype)
            else:
                whole[wanted] = values[name].astype(dtype)
            group[name][here] = whole
        status[wanted] = became
        group["status"][here] = status
        return reasons

    def dataset(self, group: Any) -> xr.Dataset:
        """Return the store as a lazy Dataset."""
        import dask.array as da

        name = without_secrets(self.where)
        try:
            with _quiet():
                count = group["status"].shape[0]
                size = group["status"].chunks[0]
                labels = {each: np.asarray(group[each][:count]) for each in _LABELS}
                ids, status = group["dataset"][:count], group["status"][:]
                axes = {axis: group[axis] for axis in AXES}
                coords: dict[str, Any] = {
                    "dataset": ("dataset", ids, {"long_name": "section dataset id"}),
                    **{
                        key: ("dataset", each if each.dtype == bool else np.array([*each], str))
                        for key, each in labels.items()
                    },
                    "status": ("dataset", status, dict(group["status"].attrs)),
                    **{axis: (axis, each[:], dict(each.attrs)) for axis, each in axes.items()},
                }
        except (KeyError, AttributeError, ValueError) as error:
            raise BundleError(f"{name} is not a mirror of grids that is whole: {error}") from error
        volumes = {each: array for each, array in group.arrays() if array.ndim == len(DIMS)}
        variables = {}
        for each, array in sorted(volumes.items()):
            if array.shape[0] < count or array.shape[1:] != tuple(
                each.shape[0] for each in axes.values()
            ):
                raise BundleError(f"{name}: {each} has another shape than its labels")
            whole = _ZarrVolume(self.where, each, (count, *array.shape[1:]))
            data = da.from_array(
                whole,
                chunks=(size, *array.shape[1:]),
                name=f"atldld-mirror-{tokenize(self.where, each, status)}",
                asarray=False,
                meta=np.empty((0, 0, 0, 0), np.float32),
            )
            variables[each] = (DIMS, data, dict(array.attrs))
        out = xr.Dataset(variables, coords, dict(group.attrs))
        return guarded(out, group.attrs["reference_space"])

    @contextmanager
    def locked(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold part of a store on this machine against other writers, if it is to be had."""
        from filelock import FileLock, Timeout

        self.locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.locks / f"{name}.lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def tidy(self) -> None:
        """Remove what writers left, if nobody is writing."""
        from filelock import FileLock, Timeout

        held = []
        try:
            for path in sorted(self.locks.glob("*.lock")):
                lock = FileLock(path)
                lock.acquire(timeout=0)
                held.append(lock)
            if self.folder is None:
                files, marker = self._marker()
                with suppress(FileNotFoundError):
                    files.rm_file(marker)
                return
            for path in self.folder.rglob("*.partial"):
                with suppress(OSError):
                    path.unlink()
        except Timeout:
            return
        finally:
            for lock in held:
                lock.release()


class _ZarrVolume:
    """A volume of a store, opened in the process that reads it."""

    dtype = np.dtype(np.float32)
    ndim = 4

    def __init__(self, where: str, name: str, shape: tuple[int, ...]) -> None:
        self.where, self.name, self.shape = where, name, shape

    def __getitem__(self, key: Any) -> npt.NDArray[np.float32]:
        import zarr

        array = zarr.open_array(self.where, path=self.name, mode="r", zarr_format=3)
        # Half floats are widened: a sum of them would overflow, and a mean be rounded.
        return np.asarray(array[key], dtype=np.float32)


def _plain(attrs: Any) -> dict[str, Any]:
    return {
        str(key): value.item() if isinstance(value, np.generic) else value
        for key, value in attrs.items()
        if isinstance(value, str | int | float | np.generic)
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Let texts be kept as Zarr keeps them, though its word for it is not final."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*(specification|Zarr V3|not recognized).*")
        yield
