"""``python -m benchmarks.bending``: what the warp of a bent section costs, beside a straight one.

One coronal section of 10,000 x 7,600 pixels onto the grid of its space, in one thread, as tasks do
it: coverage, the window, and the warp. The image is at hand. Straight and bent take turns, and the
quickest of many counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from atldld.model.affine import grid_affine
from atldld.model.bend import Markers
from atldld.model.read import Window
from atldld.sampling.bent_grid import BentGrid, bend_warp
from atldld.sampling.reads import Interpolation, coverage, needed_window
from atldld.sampling.warp import warp
from atldld.source.published import lattice

SIZE = 10_000, 7_600
_SIDES = 8000, 11400
_TIMES = 40
_CASES: tuple[tuple[int, int, Interpolation], ...] = (
    (25, 4, "linear"), (25, 3, "linear"), (25, 3, "area"), (10, 3, "linear"), (10, 2, "area"),
)  # fmt: skip


def bends() -> dict[str, Any]:
    """Return markers, and an affine with a field as of the published registration."""
    found: dict[str, Any] = {}
    random = np.random.default_rng(1)
    picture = np.array([400, 300])
    scale = np.stack([np.array(SIZE) / picture, [-0.5, -0.5]])
    for count in (16, 60):
        here = random.uniform(0.1, 0.9, (count, 2)) * picture
        points = np.concatenate([here + random.normal(size=(count, 2)) * 6, here], axis=1)
        found[f"{count} markers"] = Markers(points, (400, 300), scale).load()
    row, column = np.mgrid[:320, :456]
    waves = [4 * np.sin(column / 30) * np.cos(row / 40), 5 * np.cos(column / 50 + row / 35)]
    affine = np.array([[1.01, 0.02, 3.0], [-0.01, 0.99, 2.0]])
    found["field"] = lattice(affine, np.stack(waves, axis=-1), SIZE, (1050, 798))
    return found


def measure(step: int, tier: int, interpolation: Interpolation) -> dict[str, float]:
    """Return processor seconds of a straight section, and of each bent one."""
    across, down = np.cos(0.03), np.sin(0.03)
    affine = np.array([[across, down], [-down, across]]) / 1.05 * step
    rows, columns = (np.arange(side // step) for side in _SIDES)
    middle = np.array([_SIDES[1], _SIDES[0]]) / 2 / step
    shift = np.array(SIZE) / 2 - affine @ middle
    affine = np.concatenate([affine, shift[:, None]], axis=1)
    bounds = (0, len(rows)), (0, len(columns))
    size = SIZE[0] >> tier, SIZE[1] >> tier
    image, whole = np.zeros((*size[::-1], 3), dtype=np.uint8), Window(0, 0, *size)
    to_tier, to_image = (
        grid_affine(each, 1.0, (0.0, 0.0), tier, (0, 0)) for each in (np.eye(2, 3), affine)
    )
    out = np.empty((len(rows), len(columns), 3), dtype=np.uint8)

    def straight() -> None:
        covered = coverage(affine, SIZE, rows, columns)
        needed_window(to_image, covered, size, interpolation)
        warp(image, whole, size, to_image, covered, columns, bounds, interpolation, 255, out)

    def bent(bend: Any) -> Callable[[], None]:
        def run() -> None:
            grid = BentGrid(bend, affine, SIZE, bounds)
            around = grid.around(rows, columns)
            grid.needed(around, to_tier, size, interpolation)
            bend_warp(
                image, whole, size, grid, to_tier, around, columns, interpolation, 255, out
            )  # fmt: skip

        return run

    calls = {"straight": straight, **{name: bent(each) for name, each in bends().items()}}
    best = dict.fromkeys(calls, np.inf)
    for _ in range(_TIMES):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            best[name] = min(best[name], time.process_time() - begin)
    return best


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    cv2.setNumThreads(1)
    print("| grid, um | tier | interpolation | straight, ms | 16 markers | 60 markers | field |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for step, tier, interpolation in _CASES:
        found = measure(step, tier, interpolation)
        base = found.pop("straight")
        times = " | ".join(f"{each * 1e3:.1f} ms, {each / base:.1f}x" for each in found.values())
        print(f"| {step} | {tier} | {interpolation} | {base * 1e3:.1f} | {times} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
