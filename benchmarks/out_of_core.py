"""Computing on a mirror of all grids that does not fit into memory, and the plain loop beside it.

The mirror is written straight, without a service: the grids of a synthetic atlas, at float32. It
grows from one size to the next. The cluster has four workers of 1 GB.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

AXES = ("p", "i", "r")
_SHAPE = (67, 41, 58)
_LABELS = 700
"""Structures of the annotation; Allen's 200 micron grid has about as many."""


def written(url: str, count: int, work: Path) -> dict[str, Any]:
    """Write the mirror, or let it grow to a number of datasets."""
    from atldld.arrays import accessor  # noqa: F401  # registers .atlas
    from atldld.testing import SyntheticAtlas

    made = _made(SyntheticAtlas(count))
    began = time.perf_counter()
    failed = made.atlas.to_zarr(work / "synthetic")
    assert failed.empty
    return {"seconds": time.perf_counter() - began, "disk": _size(work), "more": ""}


def correlation(url: str, count: int, work: Path) -> dict[str, Any]:
    """Correlate one dataset with all, on the cluster; the nearest are the first rows."""
    import atldld

    number = int(atldld.open_grids(work / "synthetic").dataset[0])

    def job(energy: xr.DataArray) -> None:
        nearest = atldld.correlations(energy, number).head(20)
        assert nearest.dataset_id[0] == number
        assert len(nearest) == 20

    return _on_cluster(work, job)


def structures(url: str, count: int, work: Path) -> dict[str, Any]:
    """Take the mean in every structure of all datasets, on the cluster."""
    import atldld

    annotation = _annotation()

    def job(energy: xr.DataArray) -> None:
        table = atldld.structure_table(energy, annotation)
        assert len(table) % len(energy) == 0

    return _on_cluster(work, job)


def correlation_loop(url: str, count: int, work: Path) -> dict[str, Any]:
    """Correlate in a plain loop over the same chunks, on one thread."""
    from atldld.measure.similarity import correlated

    def each(values: Any, seed: Any) -> None:
        correlated(values, seed)

    return _loop(work, each)


def structures_loop(url: str, count: int, work: Path) -> dict[str, Any]:
    """Take the means in a plain loop over the same chunks, on one thread."""
    labels = _annotation().to_numpy().ravel()
    known = np.flatnonzero(labels)
    labels = labels[known]

    def each(values: Any, seed: Any) -> None:
        for volume in values.reshape(len(values), -1):
            ours = volume[known].astype(np.float64)
            there = ~np.isnan(ours)
            counts = np.bincount(labels[there], minlength=_LABELS + 1)
            sums = np.bincount(labels[there], ours[there], minlength=_LABELS + 1)
            sums / np.maximum(counts, 1)

    return _loop(work, each)


_KEEPING = {
    f"distributed.nanny.pre-spawn-environ.MALLOC_{name}_THRESHOLD_": size
    for name, size in (("TRIM", 2**26), ("MMAP", 2**24))
}
"""As docs/dask.md advises: workers that keep 64 MB of memory that was let go of."""


def _on_cluster(work: Path, job: Callable[[xr.DataArray], None]) -> dict[str, Any]:
    import dask
    from distributed import Client, LocalCluster

    import atldld

    path = work / "synthetic"
    with (
        dask.config.set(_KEEPING),
        LocalCluster(
            n_workers=4, threads_per_worker=1, memory_limit="1GB", dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        # What is loaded once, and the first read, are no part of it, as with the loop.
        client.run(_warmed, str(path))
        job(atldld.open_grids(path).energy[:64])
        read_before = sum(client.run(_bytes_read).values())
        cpu_before = sum(client.run(time.process_time).values()) + time.process_time()
        energy = atldld.open_grids(path).energy
        began = time.perf_counter()
        job(energy)
        seconds = time.perf_counter() - began
        cpu = sum(client.run(time.process_time).values()) + time.process_time() - cpu_before
        read = sum(client.run(_bytes_read).values()) - read_before
        peaks = client.run(_peak).values()
    size = _size(work)
    return {
        "seconds": seconds, "count": len(energy), "disk": size, "worker": max(peaks),
        "more": f"{read / size:.3f} of the mirror's bytes read, "
        f"{max(peaks) / 1e6:.0f} MB a worker at most, {cpu:.1f} s of processors",
    }  # fmt: skip


def _loop(work: Path, each: Callable[[Any, Any], None]) -> dict[str, Any]:
    import dask

    import atldld

    energy = atldld.open_grids(work / "synthetic").energy
    with dask.config.set(scheduler="synchronous"):
        seed = energy[0].values
        began, cpu = time.perf_counter(), time.process_time()
        for first in range(0, len(energy), energy.chunks[0][0]):
            each(energy[first : first + energy.chunks[0][0]].values, seed)
        seconds = time.perf_counter() - began
        cpu = time.process_time() - cpu
    return {
        "seconds": seconds, "count": len(energy),
        "more": f"one thread, {cpu:.1f} s of processors",
    }  # fmt: skip


def _warmed(path: str) -> float:
    import atldld

    grids = atldld.open_grids(path)
    import dask

    with dask.config.set(scheduler="synchronous"):
        return float(grids.energy[0, 30, 20, 20].values)


def _bytes_read() -> int:
    """Return the bytes that this process has read from files (Linux)."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    return 0


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _size(work: Path) -> int:
    """Return the bytes of the volumes of the mirror."""
    shards = (work / "synthetic" / "energy" / "c").rglob("*")
    return sum(path.stat().st_size for path in shards if path.is_file())


def _made(atlas: Any) -> xr.Dataset:
    """Return the energy of every dataset of a synthetic atlas, lazily, NaN where there is none."""
    import dask.array as da

    ids = np.array(atlas.dataset_ids)

    def volumes(numbers: Any) -> Any:
        out = np.full((len(numbers), *_SHAPE), np.nan, np.float32)
        for values, number in zip(out, numbers.tolist(), strict=True):
            grid = atlas.grid(number)
            if grid is not None:
                values[:] = np.where(grid < 0, np.nan, grid)
        return out

    energy = da.map_blocks(
        volumes, da.from_array(ids, chunks=1), dtype=np.float32, new_axis=[1, 2, 3],
        chunks=((1,) * len(ids), *((count,) for count in _SHAPE)),
        meta=np.empty((0, 0, 0, 0), np.float32), name=f"energy-{len(ids)}",
    )  # fmt: skip
    coords = {
        "dataset": ids,
        "gene": ("dataset", np.array([atlas.gene(place)["acronym"] for place in range(len(ids))])),
        **{axis: 200.0 * np.arange(count) for axis, count in zip(AXES, _SHAPE, strict=True)},
    }
    return xr.Dataset({"energy": (("dataset", *AXES), energy)}, coords, {"reference_space": 9})


def _annotation() -> xr.DataArray:
    """Return labels in blocks, so many as Allen's own, in a brain of the atlas's shape."""
    p, i, r = np.meshgrid(*(np.linspace(-1, 1, count) for count in _SHAPE), indexing="ij")
    places = [np.arange(count) // 5 for count in _SHAPE]
    labels = (places[0][:, None, None] * 117 + places[1][:, None] * 13 + places[2]) % _LABELS + 1
    labels = np.where((p / 0.9) ** 2 + (i / 0.85) ** 2 + (r / 0.9) ** 2 <= 1, labels, 0)
    coords = {axis: 200.0 * np.arange(count) for axis, count in zip(AXES, _SHAPE, strict=True)}
    return xr.DataArray(labels, coords, AXES, attrs={"reference_space": 9, "midline_r": 5700.0})


STEPS: dict[str, Callable[[str, int, Path], dict[str, Any]]] = {
    "written straight": written,
    "correlation": correlation,
    "correlation, plain loop": correlation_loop,
    "structures": structures,
    "structures, plain loop": structures_loop,
}
