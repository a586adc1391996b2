"""A dask.distributed cluster on this machine: ``python -m benchmarks.cluster JOB``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

import atldld

from .measure import Job, NotAvailableError, Run, answer


def open_mean(given: Mapping[str, Any], run: Run) -> None:
    """Open, and average over the sections on the workers, which are started and warmed."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise NotAvailableError("dask.distributed") from error

    with (
        LocalCluster(
            n_workers=given["workers"],
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(_mean, given["warming"])

        def workers_cpu() -> float:
            return float(sum(client.run(time.process_time).values()))

        _mean(given["warming"])
        with run.lap("open and compute", workers_cpu):
            mean = _mean(given["dataset"])
    run.counts |= {"values": float(mean.size), "mean": float(np.mean(mean))}


def _mean(dataset: int) -> Any:
    return atldld.open_dataarray(dataset).mean("section").compute().values


JOBS: dict[str, Job] = {"open_mean": open_mean}

if __name__ == "__main__":
    answer(JOBS)
