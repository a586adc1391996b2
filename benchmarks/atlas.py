"""``python -m benchmarks.atlas``: the whole atlas at growing sizes, each step a fresh process.

Seconds, bytes, peak memory and requests of: the catalogue, its table of section images, opening
everything, coverage, and the mirror of all grids; then, on a mirror that is written straight, the
correlation of one dataset with all and the mean in every structure of all, on four workers of 1 GB
and in a plain loop. What is not measured at the full size is told by the slope. What is measured
replaces what the output file holds of the same step and size.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import out_of_core
from .machine import load, machine
from .process import ROOT

LATEST = ROOT / "benchmarks" / "atlas.json"
COUNTS = (100, 1_000, 10_000, 26_078)
GROWN = (1_000, 4_000, 10_000)
"""Sizes of the mirror that is written straight."""

_MOST = {"open_datatree": 1_000, "mirror": 1_000}
"""Datasets of a step at most; beyond, the slope tells. ``--whole`` lifts it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.atlas", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="*", default=list(COUNTS), metavar="N")
    parser.add_argument("--grown", type=int, nargs="*", default=list(GROWN), metavar="N")
    parser.add_argument("--only", action="append", choices=[*STEPS, *out_of_core.STEPS])
    parser.add_argument("--whole", action="store_true", help="every step at every size")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmarks" / "atlas")
    parser.add_argument("--output", type=Path, default=LATEST)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.step:
        print(json.dumps(_measured(asked.step, asked.url, asked.counts[0], asked.work)))
        return 0
    told: dict[str, Any] = {"machine": machine(), "rows": []}
    if asked.output.exists():
        told["rows"] = json.loads(asked.output.read_text(encoding="utf-8"))["rows"]
    for row in _rows(asked):
        print(json.dumps(row), flush=True)
        others = [each for each in told["rows"] if _key(each) != _key(row)]
        told["rows"] = sorted([*others, row], key=_key)
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(table(told))
    return 0


def _key(row: Mapping[str, Any]) -> tuple[int, int]:
    return [*STEPS, *out_of_core.STEPS].index(row["step"]), row["count"]


def _rows(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from atldld.testing import AllenServer, SyntheticAtlas

    for count in asked.counts:
        work = asked.work / str(count)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        atlas = SyntheticAtlas(count)
        with AllenServer.spawn(atlas, grids=atlas.grids) as server:
            for step in STEPS:
                # The others stand on the catalogue.
                wanted = not asked.only or step in (*asked.only, "catalogue", "images")
                if not wanted or (count > _MOST.get(step, count) and not asked.whole):
                    continue
                server.reset_log()
                row = _child(step, server.url, count, work)
                sent = server.requests
                row |= {"requests": len(sent), "received": sum(each.bytes_sent for each in sent)}
                yield row
        shutil.rmtree(work, ignore_errors=True)
    if asked.only and not {*asked.only} & {*out_of_core.STEPS}:
        return
    work = asked.work / "grown"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for count in asked.grown:
        for step in out_of_core.STEPS:
            if not asked.only or step in (*asked.only, "written straight"):
                yield _child(step, "", count, work)
    shutil.rmtree(work, ignore_errors=True)


def table(told: Mapping[str, Any]) -> str:
    """Return measurements as a table in Markdown, with what the slope says of the whole."""
    lines = [
        "| step | datasets | seconds | requests | MB received | MB on disk | peak MB | load | "
        "more |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for step in (*STEPS, *out_of_core.STEPS):
        rows = sorted((row for row in told["rows"] if row["step"] == step), key=_key)
        for row in rows:
            sent = f"{row['requests']:,}" if "requests" in row else ""
            received = f"{row['received'] / 1e6:.1f}" if "received" in row else ""
            disk = f"{row['disk'] / 1e6:.1f}" if row.get("disk") else ""
            lines.append(
                f"| {step} | {row['count']:,} | {row['seconds']:.2f} | {sent} | {received} | "
                f"{disk} | {row['peak'] / 1e6:.0f} | {row.get('load', '')} | "
                f"{row.get('more', '')} |"
            )
        if len(rows) > 1 and rows[-1]["count"] < 0.95 * COUNTS[-1]:
            one, two = rows[-2:]
            # Steps that begin slowly, on few datasets, would make it steeper or even negative.
            slope = max(two["seconds"] - one["seconds"], 0) / (two["count"] - one["count"])
            seconds = two["seconds"] + slope * (COUNTS[-1] - two["count"])
            lines.append(
                f"| {step} | {COUNTS[-1]:,} by the slope | {seconds:.0f} | | | | | | "
                f"{1e3 * slope:.1f} ms a dataset |"
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
    at_start = load()
    before = time.perf_counter()
    more = {**STEPS, **out_of_core.STEPS}[step](url, count, work)
    row = {
        "step": step,
        "count": more.pop("count", count),
        "seconds": more.pop("seconds", time.perf_counter() - before),
        "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "load": at_start,
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


def _random_images(url: str, count: int, work: Path) -> dict[str, Any]:
    """Write the images of made-up datasets, 25 each, whose numbers repeat nowhere."""
    import numpy as np
    import pyarrow as pa

    from atldld.source.catalogue_files import parquet_of
    from atldld.source.columns import WHOLE, image_schema

    random = np.random.default_rng(0)
    disk = 0
    for first in range(0, count, 150):
        owners = np.repeat(np.arange(first, min(first + 150, count)), 25)
        size = len(owners)
        columns = {
            "dataset_id": 70_000_000 + 40 * owners,
            "image_id": 100_000_000 + 25 * first + np.arange(size),
            "section_number": random.integers(0, 500, size),
            **{name: random.integers(0, 40_000, size) for name in WHOLE},
            "resolution": random.uniform(0.9, 1.1, size),
            "failed": random.random(size) < 0.02,
            "has_expression": random.random(size) < 0.9,
        }
        matrices = {
            name: pa.FixedSizeListArray.from_arrays(pa.array(random.standard_normal(6 * size)), 6)
            for name in ("tsv", "tvs")
        }
        table = pa.table(columns | matrices).select(image_schema().names).cast(image_schema())
        disk += len(parquet_of(table))
    return {"disk": disk, "more": f"{25 * count:,} section images"}


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


def _datatree(url: str, count: int, work: Path) -> dict[str, Any]:
    import warnings

    import atldld

    warnings.simplefilter("ignore", atldld.AtldldWarning)
    atlas, numbers = _chosen(url)
    atldld.open_datatree(numbers[:1], source=atlas)
    began = time.perf_counter()
    tree = atldld.open_datatree(numbers, source=atlas)
    seconds = time.perf_counter() - began
    assert len(tree.children) == len(numbers)
    return {"seconds": seconds, "count": len(numbers)}


def _chosen(url: str) -> tuple[Any, list[int]]:
    import atldld

    atlas = atldld.catalogue(url, images=True)
    good = atlas.datasets.query("not failed and tvr.notna()", engine="python")
    return atlas, good.dataset_id.tolist()


def _coverage(url: str, count: int, work: Path) -> dict[str, Any]:
    import atldld

    atlas, numbers = _chosen(url)
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
    atlas, numbers = _chosen(url)
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


STEPS = {
    "catalogue": _catalogue,
    "images": _images,
    "images, random numbers": _random_images,
    "open": _open,
    "open_datatree": _datatree,
    "coverage": _coverage,
    "mirror": _mirror,
}


if __name__ == "__main__":
    sys.exit(main())
