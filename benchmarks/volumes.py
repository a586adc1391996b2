"""Jobs about volumes, each in a fresh process: ``python -m benchmarks.volumes JOB``."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import dask
import numpy as np
import numpy.typing as npt
import requests
import simplejpeg

import atldld
from atldld.model.affine import tier_origin
from atldld.model.grid import volume_grid
from atldld.model.sections import default_distance, stack_of, stack_z
from atldld.source import source_from

from .bare import planned
from .compiled import compiled_pass
from .measure import Job, NotAvailableError, Run, answer

STEP = 25.0
THREADS = 2


def volume_cold(given: Mapping[str, Any], run: Run) -> None:
    """Open a volume, fetch what it needs, and compute it, from an empty cache."""
    _ready(given)
    with _two_threads(), run.lap("volume"):
        volume = atldld.open_volume(given["dataset"], resolution=STEP)
        volume.image.atlas.prefetch()
        _keep(volume.image.compute(), run)


def volume_warm(given: Mapping[str, Any], run: Run) -> None:
    """Open a volume and compute it, from a cache that holds everything."""
    _ready(given)
    atldld.open_volume(given["dataset"], resolution=STEP).image.atlas.prefetch()
    with _two_threads(), run.lap("volume"):
        _keep(atldld.open_volume(given["dataset"], resolution=STEP).image.compute(), run)


def volume_to_zarr(given: Mapping[str, Any], run: Run) -> None:
    """Stream the volume to Zarr, on two threads."""
    _ready(given)
    volume = atldld.open_volume(given["dataset"], resolution=STEP)[["image"]]
    volume.image.atlas.prefetch()
    folder = Path(given["folder"])
    with _two_threads(), run.lap("write"):
        volume.drop_vars("reference_space").to_zarr(folder / "volume.zarr")
    run.counts["bytes"] = volume.image.nbytes


def bare_warm(given: Mapping[str, Any], run: Run) -> None:
    """Decode every section and warp it once, bodies in memory, on two threads."""
    urls, affines, shape = planned(given["url"], given["dataset"], given["tier"])
    with requests.Session() as session:
        bodies = [session.get(url).content for url in urls]
    out = np.empty((len(urls), *shape, 3), dtype=np.uint8)

    def section(place: int) -> None:
        pixels = simplejpeg.decode_jpeg(bodies[place], "RGB", strict=True)
        cv2.warpAffine(
            pixels,
            affines[place],
            shape[::-1],
            dst=out[place],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(255, 255, 255),
        )

    with ThreadPoolExecutor(THREADS) as pool:
        section(0)
        with run.lap("loop"):
            list(pool.map(section, range(len(urls))))
    run.counts["values"] = float(out.size)


def map_coordinates(given: Mapping[str, Any], run: Run) -> None:
    """Sample the same voxels with scipy, section by section, on two threads.

    For each section the voxels nearest to it, their pixels by the matrices, and
    ``scipy.ndimage.map_coordinates`` of order 1 for each channel; images are in memory.
    """
    try:
        from scipy import ndimage
    except ImportError as error:
        raise NotAvailableError("scipy") from error

    record = source_from(given["url"]).dataset(given["dataset"])
    stack, _ = stack_of(record)
    grid, tier = volume_grid(record, STEP), given["tier"]
    images = _decoded(given, stack.image_id)
    p, i, r = (axis.microns for axis in grid.axes)
    out = np.full((*grid.shape, 3), 255, dtype=np.uint8)
    reach, onto = default_distance(stack.z), stack.pixels_of_space()
    edges = np.concatenate([[-np.inf], (stack.z[1:] + stack.z[:-1]) / 2, [np.inf]])

    def plane(place: int) -> None:
        z = stack_z(stack.trv, p[place], i[:, None], r)
        for section in range(len(stack)):
            near = (z > edges[section]) & (z <= edges[section + 1])
            near &= np.abs(z - stack.z[section]) <= reach
            if not near.any():
                continue
            rows, columns = np.nonzero(near)
            point = np.stack(
                [np.full(len(rows), p[place]), i[rows], r[columns], np.ones(len(rows))]
            )
            x, y = onto[section] @ point
            size = stack.width[section] - 1, stack.height[section] - 1
            inside = (x >= 0) & (x <= size[0]) & (y >= 0) & (y <= size[1])
            origin = (
                tier_origin(int(stack.x[section]), tier),
                tier_origin(int(stack.y[section]), tier),
            )
            at = [(y[inside] - origin[1]) / 2**tier, (x[inside] - origin[0]) / 2**tier]
            for channel in range(3):
                out[place, rows[inside], columns[inside], channel] = ndimage.map_coordinates(
                    images[section][..., channel], at, order=1, mode="nearest"
                )

    with ThreadPoolExecutor(THREADS) as pool:
        plane(0)
        with run.lap("loop"):
            list(pool.map(plane, range(len(p))))
    _keep(out, run)


def compiled(given: Mapping[str, Any], run: Run) -> None:
    """Fill the same voxels in one compiled pass, from decoded images in memory, on one thread."""
    fill = compiled_pass()
    record = source_from(given["url"]).dataset(given["dataset"])
    stack, _ = stack_of(record)
    tier = given["tier"]
    images = np.stack(_decoded(given, stack.image_id))
    onto = stack.pixels_of_space()
    for section in range(len(stack)):
        onto[section, 0, 3] -= tier_origin(int(stack.x[section]), tier)
        onto[section, 1, 3] -= tier_origin(int(stack.y[section]), tier)
    onto /= 2.0**tier
    given_to = (images, onto, stack.trv[2], stack.z, default_distance(stack.z), STEP)
    fill(*given_to, np.zeros((2, 2, 2, 3), dtype=np.uint8))
    with run.lap("pass"):
        out = np.full((*volume_grid(record, STEP).shape, 3), 255, dtype=np.uint8)
        fill(*given_to, out)
    _keep(out, run)


def volume_linear(given: Mapping[str, Any], run: Run) -> None:
    """Compute the volume blended between sections, from a cache that holds everything."""
    _ready(given)
    atldld.open_volume(given["dataset"], resolution=STEP).image.atlas.prefetch()
    with _two_threads(), run.lap("volume"):
        volume = atldld.open_volume(given["dataset"], resolution=STEP, between="linear")
        _keep(volume.image.compute(), run)


def _decoded(given: Mapping[str, Any], image_ids: Any) -> list[npt.NDArray[np.uint8]]:
    """Return images of a tier, fetched past every cache."""
    url = f"{given['url']}/section_image_download/{{}}?downsample={given['tier']}"
    with requests.Session() as session:
        bodies = [session.get(url.format(number)).content for number in image_ids]
    return [simplejpeg.decode_jpeg(body, "RGB", strict=True) for body in bodies]


def _ready(given: Mapping[str, Any]) -> None:
    """Do once what a process does once."""
    volume = atldld.open_volume(given["warming"], resolution=200)
    volume.image.atlas.prefetch()
    volume.image.compute()


def _keep(values: npt.NDArray[np.uint8] | Any, run: Run) -> None:
    run.counts["values"] = float(np.size(values))
    run.counts["mean"] = float(np.mean(values))


def _two_threads() -> Any:
    return dask.config.set(scheduler="threads", num_workers=THREADS)


JOBS: dict[str, Job] = {
    job.__name__: job
    for job in (
        volume_cold,
        volume_warm,
        volume_linear,
        volume_to_zarr,
        bare_warm,
        map_coordinates,
        compiled,
    )
}

if __name__ == "__main__":
    answer(JOBS)
