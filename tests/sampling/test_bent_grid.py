"""Bent sections onto grids: against places in float64, and value by value however asked for."""

import cv2
import numpy as np
import pytest

from atldld.model.affine import grid_affine
from atldld.model.bend import Lattice, Markers
from atldld.model.read import Window
from atldld.sampling.bent_grid import BentGrid, bend_warp
from usual import usual


def markers(random, width, height):
    """Return triangles, from mild ones to such as are folded over and over."""
    count, by = int(random.integers(1, 30)), random.choice([3, 20, 80])
    here = random.uniform(0, 1, (count, 2)) * [400, 300]
    points = np.concatenate([here + random.normal(size=(count, 2)) * by, here], axis=1)
    scale = np.array([[width / 400, height / 300], [-0.5, -0.5]])
    return Markers(points, (400, 300), scale).load()


def field(random, width, height):
    """Return a lattice that holds the section, or ends within it; smooth or rough."""
    rows, columns = int(random.integers(5, 120)), int(random.integers(5, 150))
    steps = np.array([width / columns, height / rows])
    values = cv2.resize(
        random.normal(size=(6, 6, 2)), (columns, rows), interpolation=cv2.INTER_CUBIC
    )
    if random.random() < 0.3:
        values = random.normal(size=(rows, columns, 2))
    index = np.array([[1 / steps[0], 0.0, 0.2], [0.0, 1 / steps[1], -0.4]])
    index *= random.choice([0.9, 1.1])
    onto = np.array([[1.0, 0.05, 1.0], [-0.05, 0.97, -1.0]]) * steps[:, None]
    return Lattice((values * steps).astype(np.float32), index, onto)


class Case:
    """A section, how it is bent, and a grid on it, all at random."""

    def __init__(self, seed, interpolation):
        self.random = random = np.random.default_rng(seed)
        self.interpolation = interpolation
        width, height = (int(side) for side in random.integers(300, 3000, 2))
        tier, self.side = int(random.integers(0, 3)), (width, height)
        self.size = width >> tier, height >> tier
        bend = (markers if seed % 2 else field)(random, width, height)
        angle, step = random.uniform(-0.3, 0.3), random.choice([0.7, 2, 5, 17])
        affine = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * step
        if random.random() < 0.3:
            affine[:, 0] *= -1
        counts = [int(min(side / step * 1.3, 700)) for side in (height, width)]
        first = int(random.integers(-3, 3)) * 137
        middle = affine @ [counts[1] / 2 + first, counts[0] / 2 + first]
        affine = np.concatenate([affine, (np.array(self.side) / 2 - middle)[:, None]], axis=1)
        self.rows, self.columns = (np.arange(first, first + count) for count in counts)
        bounds = (first, first + counts[0]), (first, first + counts[1])
        small = random.integers(0, 256, (self.size[1] // 6, self.size[0] // 6, 3), dtype=np.uint8)
        self.image = cv2.resize(small, self.size)
        if random.random() < 0.2:
            self.image = np.ascontiguousarray(self.image[..., 0])
        offsets = tuple(int(each) for each in random.integers(0, 8, 2))
        self.tier = grid_affine(np.eye(2, 3), 1.0, (0.0, 0.0), tier, offsets)
        self.grid = BentGrid(bend, affine, self.side, bounds)

    def values(self, rows, columns, *, whole=False):
        """Return pixels, made of no more of the image than they are said to need."""
        out = np.zeros((len(rows), len(columns), *self.image.shape[2:]), dtype=np.uint8)
        around = self.grid.around(rows, columns)
        window = self.grid.needed(around, self.tier, self.size, self.interpolation)
        if window is None:
            out[...] = 7
            return out
        if whole:
            window = Window(0, 0, *self.size)
        part = self.image[window.top : window.bottom, window.left : window.right]
        bend_warp(
            part, window, self.size, self.grid, self.tier, around, columns, self.interpolation,
            7, out,
        )  # fmt: skip
        return out

    def places(self):
        """Return the bent full-resolution pixel of each grid point."""
        column, row = np.meshgrid(self.columns.astype(float), self.rows.astype(float))
        return self.grid.bend.to_bent(
            *(along * column + down * row + shift for along, down, shift in self.grid.affine)
        )


CASES = usual(
    [(seed, kind) for kind in ("linear", "area", "cubic", "nearest") for seed in range(6)],
    [
        (0, "linear"), (1, "linear"), (2, "linear"), (3, "linear"),
        (0, "area"), (5, "area"), (2, "cubic"), (3, "nearest"),
    ],
)  # fmt: skip


@pytest.mark.parametrize(("seed", "interpolation"), CASES)
def test_pixels_and_coverage_are_those_of_float64_and_of_any_window(seed, interpolation):
    case = Case(seed, interpolation)
    whole = case.values(case.rows, case.columns, whole=True)
    covered = case.grid.covered(case.rows, case.columns)
    x, y = case.places()
    width, height = case.side
    inward = np.minimum.reduce([x, y, width - 1 - x, height - 1 - y])
    sure = ~(np.abs(inward) < 1e-6)
    np.testing.assert_array_equal(covered[sure], (inward >= 0)[sure])
    assert (whole[~covered] == 7).all()
    if interpolation == "linear":
        x, y = (
            (np.nan_to_num(each) * row[axis] + row[2]).astype(np.float32)
            for axis, (each, row) in enumerate(zip((x, y), case.tier, strict=True))
        )
        there = cv2.remap(case.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        assert np.abs(there.astype(int) - whole)[covered].max(initial=0) <= 1
    for _ in range(20):
        cuts = []
        for numbers in (case.rows, case.columns):
            start, count = case.random.integers(0, len(numbers)), case.random.integers(1, 60)
            cut = np.arange(start, min(start + count, len(numbers)))
            cuts.append(cut if case.random.random() < 0.7 else case.random.permutation(cut))
        at = np.ix_(*cuts)
        rows, columns = case.rows[cuts[0]], case.columns[cuts[1]]
        np.testing.assert_array_equal(case.values(rows, columns), whole[at])
        np.testing.assert_array_equal(case.grid.covered(rows, columns), covered[at])
