"""The bare loop: eight connections, decode, one affine warp a section, and nothing else.

No check of what arrives beyond strict decoding, no cache, no array: what any package that
downloads and registers these images must do at least. The matrices are computed before the
clock starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import requests
import simplejpeg

from atldld.model.affine import grid_affine
from atldld.model.grid import section_grid
from atldld.model.sections import tabulate
from atldld.source import source_from

from .measure import Job, Run, answer

CONNECTIONS = 8


def fetch_decode_warp(given: Mapping[str, Any], run: Run) -> None:
    """Fetch every section of a dataset at one tier, decode it, warp it."""
    _everything(given["url"], given["warming"], 0)
    urls, affines, shape = planned(given["url"], given["dataset"], given["tier"])
    with run.lap("loop"):
        out = _loop(urls, affines, shape)
    run.counts["values"] = float(out.size)
    run.counts["mean"] = float(out.mean())


def _everything(url: str, dataset: int, tier: int) -> None:
    _loop(*planned(url, dataset, tier))


def planned(
    url: str, dataset: int, tier: int
) -> tuple[list[str], list[npt.NDArray[np.float64]], tuple[int, int]]:
    """Return the URL and the affine of each section, and the shape of the grid."""
    record = source_from(url).dataset(dataset)
    table, grid = tabulate(record), section_grid(record, 25.0)
    urls, affines = [], []
    for section in range(len(table)):
        offset = int(table.x[section]), int(table.y[section])
        affines.append(grid_affine(table.affine[section], grid.step, (0.0, 0.0), tier, offset))
        number = table.image_id[section]
        urls.append(f"{url}/section_image_download/{number}?downsample={tier}")
    return urls, affines, grid.shape


def _loop(
    urls: list[str], affines: list[npt.NDArray[np.float64]], shape: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    out = np.empty((len(urls), *shape, 3), dtype=np.uint8)
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS))

    def section(place: int) -> None:
        body = session.get(urls[place]).content
        pixels = simplejpeg.decode_jpeg(body, "RGB", strict=True)
        cv2.warpAffine(
            pixels,
            affines[place],
            shape[::-1],
            dst=out[place],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(255, 255, 255),
        )

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(section, range(len(urls))))
    session.close()
    return out


JOBS: dict[str, Job] = {"fetch_decode_warp": fetch_decode_warp}

if __name__ == "__main__":
    answer(JOBS)
