"""Jobs of the peer, atldld 0.3.4, in its own environment and a fresh process.

Run by the peer's interpreter, where ``atldld`` is the peer; of this repository only the clock is
used. The peer is driven through its documented interface. It knows one address of the service;
requests for that address are led to the server of this measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import numpy as np

from .measure import Job, Run, answer

REAL = ("https://api.brain-map.org/api/v2", "http://api.brain-map.org/api/v2")


def download_and_warp(given: Mapping[str, Any], run: Run) -> None:
    """Run its DatasetDownloader, and warp each image with its displacement field."""
    with _led_to(given["url"]):
        _warped(given["warming"], {})
        _measure(given, run)


def warm_download_and_warp(given: Mapping[str, Any], run: Run) -> None:
    """Do the same from a cache that holds everything."""
    with _led_to(given["url"]):
        _warped(given["dataset"], given["options"])
        _measure(given, run)


def _measure(given: Mapping[str, Any], run: Run) -> None:
    with run.lap("run"):
        out = _warped(given["dataset"], given["options"])
    run.counts["values"] = float(out.size)
    run.counts["mean"] = float(out.mean())


def _warped(dataset: int, options: Mapping[str, Any]) -> Any:
    from atldld.sync import DatasetDownloader

    downloader = DatasetDownloader(dataset, **options)
    downloader.fetch_metadata()
    return np.stack([field.warp(image) for _, _, image, _, field in downloader.run()])


def _led_to(served: str) -> AbstractContextManager[Any]:
    import requests

    asked = requests.Session.request

    def request(self: Any, method: str, url: str, **options: Any) -> Any:
        for real in REAL:
            url = url.replace(real, served)
        return asked(self, method, url, **options)

    return mock.patch.object(requests.Session, "request", request)


JOBS: dict[str, Job] = {job.__name__: job for job in (download_and_warp, warm_download_and_warp)}

if __name__ == "__main__":
    answer(JOBS)
