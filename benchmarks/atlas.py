"""``python -m benchmarks.atlas``: the whole atlas at growing sizes, each step a fresh process.

Seconds, bytes, peak memory and requests of: the catalogue, its table of section images, opening
everything, coverage, the mirror of all grids, and the correlation of one dataset with all on four
workers of 1 GB. What would not fit here is measured on fewer datasets, and the slope is told.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .machine import load, machine
from .process import ROOT

LATEST = ROOT / "benchmarks" / "atlas.json"
COUNTS = (100, 1_000, 10_000, 26_078)
STEPS = ("catalogue", "images", "open", "coverage", "mirror", "correlation", "loop")
_MOST = {"coverage": 1_000, "mirror": 1_000, "correlation": 1_000, "loop": 1_000}
"""Datasets of a step at most; beyond, the slope tells."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.atlas", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmarks" / "atlas")
    parser.add_argument("--output", type=Path, default=LATEST)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.step:
        print(json.dumps(_measured(asked.step, asked.url, asked.counts[0], asked.work)))
        return 0
    from atldld.testing import AllenServer, SyntheticAtlas

    rows = []
    facts = machine()
    for count in asked.counts:
        work = asked.work / str(count)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        atlas = SyntheticAtlas(count)
        with AllenServer.spawn(atlas, grids=atlas.grids) as server:
            for step in STEPS:
                if count > _MOST.get(step, count) and any(row["step"] == step for row in rows):
                    continue
                server.reset_log()
                row = _child(step, server.url, count, work)
                sent = server.requests
                row |= {"requests": len(sent), "received": sum(each.bytes_sent for each in sent)}
                rows.append(row)
                print(json.dumps(row), flush=True)
        shutil.rmtree(work, ignore_errors=True)
    facts["load at the end"] = load()
    told = {"machine": facts, "rows": rows}
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(table(told))
    return 0


def table(told: Mapping[str, Any]) -> str:
    """Return measurements as a table in Markdown."""
    lines = [
        "| step | datasets | seconds | requests | MB received | MB on disk | peak MB | more |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in sorted(told["rows"], key=lambda row: (STEPS.index(row["step"]), row["count"])):
        disk = f"{row['disk'] / 1e6:.1f}" if row.get("disk") else ""
        lines.append(
            f"| {row['step']} | {row['count']:,} | {row['seconds']:.2f} | {row['requests']:,} | "
            f"{row['received'] / 1e6:.1f} | {disk} | {row['peak'] / 1e6:.0f} | "
            f"{row.get('more', '')} |"
        )
    return "\n".join(lines)


def _child(step: str, url: str, count: int, work: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.atlas", "--step", step, "--url", url, "--counts",
         str(count), "--work", str(work)],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "ATLDLD_CACHE_DIR": str(work / "cache")},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(step: str, url: str, count: int, work: Path) -> dict[str, Any]:
    before = time.perf_counter()
    more = globals()[f"_{step}"](url, count, work)
    row = {
        "step": step,
        "count": more.pop("count", min(count, _MOST.get(step, count))),
        "seconds": more.pop("seconds", time.perf_counter() - before),
        "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    return row | more


def _catalogue(url: str, count: int, work: Path) -> dict[str, Any]:
    import atldld

    found = atldld.catalogue(url)
    assert len(found) == count
    return {"disk": found.size}


def _images(url: str, count: int, work: Path) -> dict[str, Any]:
    import atldld

    found = atldld.catalogue(url, images=True)
    return {"disk": found.size, "more": f"{found.image_count:,} section images"}


def _open(url: str, count: int, work: Path) -> dict[str, Any]:
    import pickle
    import warnings

    import atldld

    warnings.simplefilter("ignore", atldld.AtldldWarning)
    atlas = atldld.catalogue(url, images=True)
    # Imports are no part of it.
    atldld.open_volumes([atlas.datasets.dataset_id[0]], resolution=1000, source=atlas)
    atldld.open_grids([atlas.datasets.dataset_id[0]], source=atlas)
    began = time.perf_counter()
    grids = atldld.open_grids(atlas)
    grids_seconds = time.perf_counter() - began
    size = len(pickle.dumps(grids.energy.data.dask))
    began = time.perf_counter()
    volumes = atldld.open_volumes(
        atlas.datasets.dataset_id, resolution=200, reference_space=9, source=atlas
    )
    assert volumes.sizes["dataset"] == count
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "more": f"open_grids {grids_seconds:.2f} s, {size / count:.0f} bytes of graph a dataset",
    }


def _chosen(url: str, count: int, step: str) -> tuple[Any, list[int]]:
    import atldld

    atlas = atldld.catalogue(url, images=True)
    coronal = atlas.datasets.query("not failed").dataset_id.tolist()
    return atlas, coronal[: _MOST[step]]


def _coverage(url: str, count: int, work: Path) -> dict[str, Any]:
    import atldld

    atlas, numbers = _chosen(url, count, "coverage")
    began = time.perf_counter()
    atldld.open_coverage(numbers, source=atlas).covered.sum("dataset").compute()
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds, "count": len(numbers),
        "more": f"{1e3 * seconds / len(numbers):.0f} ms a dataset",
    }  # fmt: skip


def _mirror(url: str, count: int, work: Path) -> dict[str, Any]:
    import warnings

    import atldld

    warnings.simplefilter("ignore", atldld.AtldldWarning)
    atlas, numbers = _chosen(url, count, "mirror")
    began = time.perf_counter()
    grids = atldld.open_grids(numbers, volumes=["energy"], source=atlas)
    failed = grids.atlas.to_zarr(work / "mirror")
    seconds = time.perf_counter() - began
    assert failed.empty
    disk = sum(path.stat().st_size for path in (work / "mirror").rglob("*") if path.is_file())
    return {
        "seconds": seconds, "count": len(numbers), "disk": disk,
        "more": f"{1e3 * seconds / len(numbers):.0f} ms a dataset",
    }  # fmt: skip


def _correlation(url: str, count: int, work: Path) -> dict[str, Any]:
    import dask
    from distributed import Client, LocalCluster

    import atldld
    from atldld.measure.similarity import correlations

    grids = atldld.open_grids(work / "mirror")
    number = int(grids.dataset[0])
    with (
        dask.config.set({"distributed.worker.memory.terminate": 1.0}),
        LocalCluster(
            n_workers=4, threads_per_worker=1, memory_limit="1GB", dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(lambda: __import__("atldld.measure.similarity"))
        began = time.perf_counter()
        found = correlations(grids.energy, number)
        seconds = time.perf_counter() - began
        peaks = client.run(
            lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ).values()
    assert found.dataset_id[0] == number
    return {
        "seconds": seconds, "count": len(found),
        "more": f"{max(peaks) / 1e6:.0f} MB a worker at most, "
        f"{1e3 * seconds / len(found):.1f} ms a dataset",
    }  # fmt: skip


def _loop(url: str, count: int, work: Path) -> dict[str, Any]:
    """Do the same in a plain loop over the same chunks, on one thread."""
    import dask
    import numpy as np

    import atldld
    from atldld.measure.similarity import correlated

    grids = atldld.open_grids(work / "mirror")
    seed = grids.energy[0].values.astype(np.float64).ravel()
    size = grids.energy.chunks[0][0]
    began = time.perf_counter()
    with dask.config.set(scheduler="synchronous"):
        for first in range(0, grids.sizes["dataset"], size):
            correlated(grids.energy[first : first + size].values, seed)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "count": grids.sizes["dataset"], "more": "one thread"}


if __name__ == "__main__":
    sys.exit(main())
