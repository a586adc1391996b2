"""Jobs about the warp alone, each in a fresh process: ``python -m benchmarks.warps JOB``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from atldld.model.read import Window
from atldld.sampling.reads import coverage
from atldld.sampling.warp import warp

from .measure import Job, Run, answer
from .plain_warp import plain_warp

_SHAPE = (320, 456)
_SIZE = (625, 475)
_TIMES = 5
_SCALE = 16.0


def own(given: Mapping[str, Any], run: Run) -> None:
    """Put colour images onto the grid of 25 um with the package's own warp."""
    images, affines = _made(given)
    rows, columns = np.arange(_SHAPE[0]), np.arange(_SHAPE[1])
    bounds = (0, _SHAPE[0]), (0, _SHAPE[1])
    full = int(_SIZE[0] * _SCALE), int(_SIZE[1] * _SCALE)
    out = np.empty((len(affines), *_SHAPE, 3), dtype=np.uint8)

    def section(place: int) -> None:
        affine = affines[place]
        covered = coverage(affine * _SCALE, full, rows, columns)
        image = images[place % len(images)]
        warp(
            image, Window(0, 0, *_SIZE), _SIZE, affine, covered, columns, bounds,
            given["interpolation"], 255, out[place],
        )  # fmt: skip

    _measured(section, out, run)


def plain(given: Mapping[str, Any], run: Run) -> None:
    """Do the same as it is said: three channels, every point asked."""
    images, affines = _made(given)
    rows, columns = np.arange(_SHAPE[0]), np.arange(_SHAPE[1])
    full = int(_SIZE[0] * _SCALE), int(_SIZE[1] * _SCALE)
    out = np.empty((len(affines), *_SHAPE, 3), dtype=np.uint8)

    def section(place: int) -> None:
        affine = affines[place]
        covered = coverage(affine * _SCALE, full, rows, columns)
        out[place] = plain_warp(
            images[place % len(images)], affine, covered.first, covered.last, _SHAPE,
            given["interpolation"], 255,
        )  # fmt: skip

    _measured(section, out, run)


def _measured(section: Any, out: npt.NDArray[np.uint8], run: Run) -> None:
    cv2.setNumThreads(1)
    section(0)
    with run.lap("warp"):
        for _ in range(_TIMES):
            for place in range(len(out)):
                section(place)
    # Both sides make the same pixels: the sums can be seen to agree.
    run.counts |= {"values": float(out.size), "sum": float(out.sum(dtype=np.int64))}


def _made(
    given: Mapping[str, Any],
) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.float64]]]:
    """Return a few images, and affines of sections that lie askew on the grid, off its edges."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, _SIZE[1], _SIZE[0], 3), dtype=np.uint8)
    affines = []
    for _ in range(64):
        angle, step = random.uniform(-0.06, 0.06), given["pixels"]
        turn = step * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        middle = np.array([_SHAPE[1] / 2, _SHAPE[0] / 2]) + random.uniform(-8, 8, 2)
        affines.append(np.column_stack([turn, np.array(_SIZE) / 2 - turn @ middle]))
    return images, affines


JOBS: dict[str, Job] = {job.__name__: job for job in (own, plain)}

if __name__ == "__main__":
    answer(JOBS)
