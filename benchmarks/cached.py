"""Jobs on a cache that holds everything: ``python -m benchmarks.cached JOB``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import dask
import numpy as np
import simplejpeg

import atldld
from atldld.arrays.planning import readers
from atldld.source import source_from

from .measure import Job, NotAvailableError, Run, answer

_WINDOW = 64


def prefetch_again(given: Mapping[str, Any], run: Run) -> None:
    """Prefetch what is there."""
    for _ in range(2):
        atldld.open_dataarray(given["dataset"]).atlas.prefetch()
    array = atldld.open_dataarray(given["dataset"])
    with run.lap("prefetch"):
        table = array.atlas.prefetch()
    run.counts["sections"] = float(len(table))


def compute_on_cores(given: Mapping[str, Any], run: Run) -> None:
    """Compute some sections on a number of cores, with as many of dask's threads."""
    options = {} if given["tier"] is None else {"tier": given["tier"], "chunks": {"section": 1}}
    array = atldld.open_dataarray(given["dataset"], **options)
    array = array.isel(section=slice(0, given["sections"]))
    array.atlas.prefetch()
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[: given["cores"]]
        if len(cores) < given["cores"]:
            raise NotAvailableError(f"{given['cores']} cores")
        # Of every thread that is there, OpenCV's as well.
        for thread in Path("/proc/self/task").iterdir():
            # One that has ended meanwhile needs none.
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)
    with dask.config.set(scheduler="threads", num_workers=given["cores"]):
        array.isel(section=slice(0, 1)).compute()
        with run.lap("compute"):
            values = array.compute()
    run.counts["values"] = float(values.size)
    run.counts["mean"] = float(values.mean())


def small_windows(given: Mapping[str, Any], run: Run) -> None:
    """Read many small windows, in any order, of a few whole images; then cut them bare."""
    source = source_from(None)
    record = source.dataset(given["dataset"])
    numbers = [image.id for image in record.images][: given["sections"]]
    arrays = [atldld.open_image(number, chunks=None) for number in numbers]
    bodies = []
    for array in arrays:
        (reader,) = readers(array)
        bodies.append(source.image(reader.whole))
    rng = np.random.default_rng(0)
    places = [
        (number, int(rng.integers(array.sizes["y"] - _WINDOW)),
         int(rng.integers(array.sizes["x"] - _WINDOW)))
        for number in rng.integers(len(arrays), size=given["windows"]).tolist()
        for array in (arrays[number],)
    ]  # fmt: skip
    with run.lap("windows"):
        ours = [
            arrays[number][top : top + _WINDOW, left : left + _WINDOW].values
            for number, top, left in places
        ]
    with run.lap("bare"):
        images = [simplejpeg.decode_jpeg(body, "RGB", strict=True) for body in bodies]
        theirs = [
            images[number][top : top + _WINDOW, left : left + _WINDOW].copy()
            for number, top, left in places
        ]
    assert all(map(np.array_equal, ours, theirs))


def full_resolution(given: Mapping[str, Any], run: Run) -> None:
    """Read one section at 1 micron; then decode it and warp it once, bare."""
    array = atldld.open_dataarray(given["dataset"], resolution=given["microns"], tier=0)
    array = array.isel(section=[array.sizes["section"] // 2])
    array.atlas.prefetch()
    (reader,) = readers(array)
    place = int(np.flatnonzero(reader.sampling.sections.image_id == int(array.image_id[0]))[0])
    whole = reader.sampling.sections.whole_image(given["dataset"], place, 0, "image")
    body = source_from(None).image(whole)
    (piece,) = reader.pieces(
        ([place], slice(0, array.sizes["y"]), slice(0, array.sizes["x"]), slice(None))
    )
    atldld.open_dataarray(given["warming"]).compute()  # what a process does once
    with run.lap("section"):
        values = array.compute()
    with run.lap("bare"):
        pixels = simplejpeg.decode_jpeg(body, "RGB", strict=True)
        bare = cv2.warpAffine(
            pixels,
            piece.affine,
            (array.sizes["x"], array.sizes["y"]),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(255, 255, 255),
        )
    run.counts["values"] = float(values.size)
    run.counts["apart"] = abs(
        float(values.values[0, ::7, ::7].mean()) - float(bare[::7, ::7].mean())
    )


JOBS: dict[str, Job] = {
    job.__name__: job for job in (prefetch_again, compute_on_cores, small_windows, full_resolution)
}

if __name__ == "__main__":
    answer(JOBS)
