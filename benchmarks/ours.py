"""Jobs of this package, each in a fresh process: ``python -m benchmarks.ours JOB``.

Every job first opens and computes two small sections: what a process does once (imports,
threads, the first connection) is no part of what is measured, on any side. Service and cache
folder are named by the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import atldld

from .measure import Job, NotAvailableError, Run, answer


def open_prefetch_compute(given: Mapping[str, Any], run: Run) -> None:
    """Open, fetch everything concurrently, compute."""
    _ready(given, "prefetch")
    with run.lap("open"):
        array = atldld.open_dataarray(given["dataset"])
    with run.lap("prefetch"):
        array.atlas.prefetch()
    with run.lap("compute"):
        _keep(array.compute(), run)


def open_compute(given: Mapping[str, Any], run: Run) -> None:
    """Open and compute."""
    _ready(given)
    with run.lap("open"):
        array = atldld.open_dataarray(given["dataset"])
    with run.lap("compute"):
        _keep(array.compute(), run)


def open_mean(given: Mapping[str, Any], run: Run) -> None:
    """Open, and average over the sections."""
    _ready(given)
    with run.lap("open"):
        array = atldld.open_dataarray(given["dataset"])
    with run.lap("compute"):
        _keep(array.mean("section").compute(), run)


def warm_tier(given: Mapping[str, Any], run: Run) -> None:
    """Open at a given tier without dask, and load, from a cache that holds everything."""
    _ready(given)
    atldld.open_dataarray(given["dataset"], tier=given["tier"], chunks=None).load()
    with run.lap("open"):
        array = atldld.open_dataarray(given["dataset"], tier=given["tier"], chunks=None)
    with run.lap("load"):
        _keep(array.load(), run)


def warm_defaults(given: Mapping[str, Any], run: Run) -> None:
    """Open, prefetch and compute with all defaults, from a cache that holds everything."""
    _ready(given, "prefetch")
    for _ in range(2):
        array = atldld.open_dataarray(given["dataset"])
        array.atlas.prefetch()
        array.compute()
    with run.lap("open"):
        array = atldld.open_dataarray(given["dataset"])
    with run.lap("prefetch"):
        array.atlas.prefetch()
    with run.lap("compute"):
        _keep(array.compute(), run)


def open_again(given: Mapping[str, Any], run: Run) -> None:
    """Open a dataset that was opened before, several times."""
    for _ in range(2):
        atldld.open_dataarray(given["dataset"])
    for number in range(given["times"]):
        with run.lap(f"open {number}"):
            atldld.open_dataarray(given["dataset"])


def download_and_warp(given: Mapping[str, Any], run: Run) -> None:
    """Run a DatasetDownloader, and warp each image with its displacement field."""
    try:
        from atldld.sync import DatasetDownloader
    except ImportError as error:
        raise NotAvailableError("atldld.sync.DatasetDownloader") from error

    _ready(given)
    for _, _, image, _, field in _fetched(DatasetDownloader(given["warming"])):
        field.warp(image)
    with run.lap("run"):
        downloader = _fetched(DatasetDownloader(given["dataset"], downsample_img=given["tier"]))
        warped = [field.warp(image) for _, _, image, _, field in downloader]
    _keep(np.stack(warped), run)


def _fetched(downloader: Any) -> Any:
    downloader.fetch_metadata()
    return downloader.run()


def square_by_region(given: Mapping[str, Any], run: Run) -> None:
    """Read a square of one section at 1 micron, cut out with ``region=``."""
    _ready(given)
    (i, r), side = given["corner"], given["side"]
    with run.lap("read"):
        array = atldld.open_dataarray(
            given["dataset"], resolution=1.0, region={"i": (i, i + side), "r": (r, r + side)}
        )
        _keep(array.sel(section=given["section"]).compute(), run)


def square_of_lazy_array(given: Mapping[str, Any], run: Run) -> None:
    """Read a square of one section at 1 micron, selected from the array without dask."""
    _ready(given)
    array = atldld.open_dataarray(given["dataset"], resolution=1.0, chunks=None)
    with run.lap("read"):
        _keep(_square(array, given).load(), run)


def square_of_dask_array(given: Mapping[str, Any], run: Run) -> None:
    """Read a square of one section at 1 micron, selected from the array as it is by default."""
    _ready(given)
    array = atldld.open_dataarray(given["dataset"], resolution=1.0)
    with run.lap("read"):
        _keep(_square(array, given).compute(), run)


def _square(array: Any, given: Mapping[str, Any]) -> Any:
    (i, r), side = given["corner"], given["side"]
    return array.sel(section=given["section"], i=slice(i, i + side), r=slice(r, r + side))


def _ready(given: Mapping[str, Any], *methods: str) -> None:
    """Do once what a process does once, and see that all is there."""
    array = atldld.open_dataarray(given["warming"])
    array.compute()
    array.mean("section").compute()
    # A first window, so that what is asked of a service once has been asked.
    place = {"i": (3500, 4000), "r": (5500, 6000)}
    atldld.open_dataarray(given["warming"], resolution=6.0, region=place).compute()
    for method in methods:
        if not hasattr(array.atlas, method):
            raise NotAvailableError(f"array.atlas.{method}")


def _keep(values: Any, run: Run) -> None:
    """Note what came out, so that sides that should agree can be seen to."""
    run.counts["values"] = float(np.size(values))
    run.counts["mean"] = float(np.mean(values))


JOBS: dict[str, Job] = {
    job.__name__: job
    for job in (
        open_prefetch_compute,
        open_compute,
        open_mean,
        warm_tier,
        warm_defaults,
        open_again,
        download_and_warp,
        square_by_region,
        square_of_lazy_array,
        square_of_dask_array,
    )
}

if __name__ == "__main__":
    answer(JOBS)
