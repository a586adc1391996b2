"""Jobs of scale: many sections, and more pixels than memory; ``python -m benchmarks.scale JOB``."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import cv2
import dask
import numpy as np
import numpy.typing as npt
import simplejpeg
from dask.base import optimize

import atldld
from atldld.model.affine import grid_affine
from atldld.model.sections import tabulate

from .measure import Job, Run, answer
from .sources import DATASET, FreeSource, PiecesSource, RowsSource, many_rows

THREADS = 2
_COARSE = 400.0
"""Microns between the grid points of arrays that are many rather than large."""

WHITE = (255, 255, 255)


def open_many(given: Mapping[str, Any], run: Run) -> None:
    """Open a dataset of many sections; its metadata are in memory, as they come from RMA."""
    atldld.open_dataarray(DATASET, source=RowsSource(10))
    source = RowsSource(given["sections"])
    many_rows(given["sections"])
    with run.lap("open"):
        array = atldld.open_dataarray(DATASET, source=source)
    run.counts["sections"] = array.sizes["section"]


def measure_graph(given: Mapping[str, Any], run: Run) -> None:
    """Weigh the graph of an array with one section a chunk, and count the tasks of one."""
    source = RowsSource(given["sections"])
    array = atldld.open_dataarray(DATASET, chunks={"section": 1}, source=source)
    run.counts["bytes"] = len(cloudpickle.dumps(array.data.dask))
    run.counts["sections"] = array.sizes["section"]
    one = array.isel(section=given["sections"] // 2).data
    run.counts["tasks"] = len(dict(optimize(one)[0].__dask_graph__()))


def cost_of_sections(given: Mapping[str, Any], run: Run) -> None:
    """Take every step with a number of sections: none may cost more a section than with fewer."""
    few, source = RowsSource(10), RowsSource(given["sections"])
    many_rows(given["sections"])
    for warming in (few, source):
        array = atldld.open_dataarray(DATASET, source=warming, resolution=_COARSE)
    array.isel(section=slice(0, 10)).compute()
    atldld.open_volume(DATASET, source=few, resolution=_COARSE)
    # What was made before is not gone through by the collector again and again.
    gc.collect()
    gc.freeze()
    with run.lap("open"):
        array = atldld.open_dataarray(DATASET, source=source, resolution=_COARSE)
    with run.lap("graph"):
        run.counts["tasks"] = float(len(dict(array.data.__dask_graph__())))
    with run.lap("plan"):
        run.counts["reads"] = float(len(array.atlas.plan()))
    with run.lap("places"):
        array.atlas.pir()
    with _two_threads(), run.lap("compute"):
        array.compute()
    with run.lap("volume"):
        atldld.open_volume(DATASET, source=source, resolution=_COARSE)


def mean_of_pieces(given: Mapping[str, Any], run: Run) -> None:
    """Average all pixels of an array that is larger than memory, on two threads."""
    array = _pieces(given, given["sections"])
    with _two_threads():
        array.isel(section=0, y=slice(0, 64), x=slice(0, 64)).mean().compute()
        with run.lap("mean"):
            mean = array.mean().compute()
    run.counts |= {"mean": float(mean), "bytes": array.nbytes}


def write_pieces(given: Mapping[str, Any], run: Run) -> None:
    """Stream an array to Zarr, on two threads."""
    array = _pieces(given, given["sections"])
    folder = Path(given["folder"])
    with _two_threads():
        first = array.isel(section=[0], y=slice(0, 64), x=slice(0, 64))
        first.to_dataset(name="image").to_zarr(folder / "first.zarr")
        with run.lap("write"):
            array.to_dataset(name="image").to_zarr(folder / "all.zarr")
    run.counts["bytes"] = array.nbytes


def loop_over_pieces(given: Mapping[str, Any], run: Run) -> None:
    """Average the same pieces in a plain loop on two threads: decode, warp, mean."""
    array = _pieces(given, given["sections"])
    source = PiecesSource(given["sections"])
    affines = _affines(source, given["microns"])
    spans = [_spans(sizes) for sizes in array.chunks[:3]]
    pieces = [
        (section, rows, columns)
        for sections, rows, columns in itertools.product(*spans)
        for section in range(*sections)
    ]

    def total(piece: tuple[int, tuple[int, int], tuple[int, int]]) -> float:
        section, (top, bottom), (left, right) = piece
        onto = affines[section].copy()
        onto[:, 2] += onto[:, :2] @ (left, top)
        pixels = simplejpeg.decode_jpeg(source.body, "RGB", strict=True)
        warped = cv2.warpAffine(
            pixels,
            onto,
            (right - left, bottom - top),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=WHITE,
        )
        return float(warped.sum(dtype=np.float64))

    with ThreadPoolExecutor(THREADS) as pool:
        total(pieces[0])
        with run.lap("loop"):
            mean = sum(pool.map(total, pieces)) / array.size
    run.counts |= {"mean": mean, "bytes": array.nbytes, "pieces": len(pieces)}


def _pieces(given: Mapping[str, Any], sections: int) -> Any:
    return atldld.open_dataarray(
        DATASET, resolution=given["microns"], source=PiecesSource(sections)
    )


def _affines(source: FreeSource, step: float) -> list[npt.NDArray[np.float64]]:
    table = tabulate(source.dataset(DATASET))
    return [grid_affine(affine, step, (0.0, 0.0), 0, (0, 0)) for affine in table.affine]


def _spans(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return where each chunk of an axis begins and ends."""
    ends = list(itertools.accumulate(sizes, initial=0))
    return list(itertools.pairwise(ends))


def _two_threads() -> Any:
    return dask.config.set(scheduler="threads", num_workers=THREADS)


JOBS: dict[str, Job] = {
    job.__name__: job
    for job in (
        open_many,
        measure_graph,
        cost_of_sections,
        mean_of_pieces,
        write_pieces,
        loop_over_pieces,
    )
}

if __name__ == "__main__":
    answer(JOBS)
