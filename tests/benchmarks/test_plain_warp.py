"""The warp of the package against the plain one that it is measured against, bit by bit."""

import numpy as np
import pytest
from benchmarks.plain_warp import plain_warp
from hypothesis import given, settings
from hypothesis import strategies as st

from atldld.model.read import Window
from atldld.sampling.reads import coverage
from atldld.sampling.warp import warp

SHAPE = (130, 190)


def compare(image, affine, scale, full, interpolation="linear", fill=255.0, largest=512, past=0.0):
    """Hold both against each other; `past` pixels of the image lie before where its affine says."""
    covered = coverage(affine * scale, full, np.arange(SHAPE[0]), np.arange(SHAPE[1]))
    onto = affine - [[0, 0, past], [0, 0, past]]
    height, width, *channels = image.shape
    out = np.empty((*SHAPE, *channels), dtype=np.float32 if np.isnan(fill) else np.uint8)
    warp(
        image, Window(0, 0, width, height), (width, height), onto, covered, np.arange(SHAPE[1]),
        ((0, SHAPE[0]), (0, SHAPE[1])), interpolation, fill, out, largest,
    )  # fmt: skip
    expected = plain_warp(
        image, onto, covered.first, covered.last, SHAPE, interpolation, fill, largest
    )
    np.testing.assert_array_equal(out, expected)


@settings(max_examples=150)
@given(
    st.sampled_from(["nearest", "linear", "linear", "cubic", "area", "area"]),
    st.sampled_from([255.0, np.nan]),
    st.sampled_from([(), (3,)]),
    st.tuples(st.integers(1, 330), st.integers(1, 330)),
    st.sampled_from([0.3, 1.0, 1.4, 1.9, 4.0, 9.0]),
    st.sampled_from([0.0, 0.02, -0.05, 0.7, np.pi / 2, 3.1]),
    st.tuples(st.integers(0, 4), st.integers(0, 15), st.integers(0, 15)),
    st.tuples(st.booleans(), st.floats(0, 1), st.floats(0, 1)),
    st.sampled_from([32, 512]),
)
def test_every_kind_of_warp_equals_the_plain_one(
    interpolation, fill, channels, sides, step, angle, cut_off, shift, largest
):
    """Four channels for three, borders that are passed over, rows left out: nothing shows."""
    height, width = sides
    image = noise(height, width, *channels)
    turn = step * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    affine = np.column_stack([turn, [width / 2, height / 2] - turn @ [90, 60]])
    rounded, *by = shift
    affine[:, 2] = np.round(affine[:, 2]) if rounded else affine[:, 2] + by
    tier, *rest = cut_off
    full = width * 2**tier + rest[0] % 2**tier, height * 2**tier + rest[1] % 2**tier
    compare(image, affine, 2.0**tier, full, interpolation, fill, largest)


@pytest.mark.parametrize("turned", [False, True])
def test_points_that_rounding_takes_past_the_first_pixels(turned):
    """A row or column of points lies a hair within the image: single precision loses the hair."""
    image = noise(90, 110, 3)
    for place in range(3, 120):
        if turned:
            affine = np.array([[0.61, 0.0, -3.3], [0.0, 1.37, 1e-9 - 1.37 * place]])
        else:
            affine = np.array([[1.37, 0.0, 1e-9 - 1.37 * place], [0.0, 0.61, -3.3]])
        compare(image, affine, 1, (110, 90))


@pytest.mark.parametrize("more", range(0, 16, 3))
def test_points_on_pixels_that_the_tier_cut_off(more):
    image = noise(41, 47, 3)
    affine = np.array([[0.31, 0.02, -4.0], [-0.03, 0.37, -2.0]])
    compare(image, affine, 16, (47 * 16 + more, 41 * 16 + more))
    # A section that begins within a pixel of its slide.
    begins = affine + np.array([[0, 0, more / 16], [0, 0, more / 16]])
    compare(image, begins, 16, (47 * 16 + 15, 41 * 16 + 15))
    # A service that floors where it begins.
    compare(image, affine, 16, (47 * 16, 41 * 16), past=more / 16)


def noise(height, width, *channels):
    return np.random.default_rng(width).integers(0, 256, (height, width, *channels), dtype=np.uint8)
