"""The phantom tells axes, signs and small shifts apart, and looks like a brain."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from atldld.testing import PhantomBrain

RANDOM = np.random.default_rng(5)
POINTS = RANDOM.uniform([400, 400, 400], [12800, 7600, 11000], (4000, 3)).T
SMOOTH = PhantomBrain("smooth")


def median_change(brain: PhantomBrain, moved: np.ndarray) -> float:
    """Median over points of the largest change in any channel."""
    return float(np.median(np.abs(brain.colour(*moved) - brain.colour(*POINTS)).max(axis=-1)))


def test_smooth_maps_space_to_colour_injectively_nearly_everywhere() -> None:
    step = 1.0
    columns = []
    for axis in range(3):
        ahead, behind = POINTS.copy(), POINTS.copy()
        ahead[axis] += step
        behind[axis] -= step
        columns.append((SMOOTH.colour(*ahead) - SMOOTH.colour(*behind)) / (2 * step))
    singular = np.linalg.svd(np.stack(columns, axis=-1), compute_uv=False)
    # Grey levels per micron along the direction in which the colour changes least.
    assert np.mean(singular[:, -1] > 2e-3) > 0.9
    assert np.median(singular[:, -1]) > 0.01


@pytest.mark.parametrize("order", list(permutations(range(3)))[1:])
def test_smooth_tells_transposed_axes(order: tuple[int, ...]) -> None:
    assert median_change(SMOOTH, POINTS[list(order)]) > 30


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_smooth_tells_each_sign_and_a_shift_of_half_a_coarse_pixel(axis: int) -> None:
    mirrored = POINTS.copy()
    mirrored[axis] = (13200, 8000, 11350)[axis] - mirrored[axis]
    assert median_change(SMOOTH, mirrored) > 30
    for shift in (-128.0, 128.0):
        shifted = POINTS.copy()
        shifted[axis] += shift
        assert median_change(SMOOTH, shifted) > 3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_smooth_is_linear_over_a_coarse_pixel(axis: int) -> None:
    ahead = POINTS.copy()
    ahead[axis] += 256.0
    middle = (POINTS + ahead) / 2
    between = (SMOOTH.colour(*POINTS) + SMOOTH.colour(*ahead)) / 2
    assert np.abs(between - SMOOTH.colour(*middle)).max() < 2.0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_fine_repeats_after_its_period_and_not_before(axis: int) -> None:
    brain = PhantomBrain("fine", fine_period=320.0)
    for share, change in ((1.0, 0.0), (0.5, 100.0), (0.25, 60.0)):
        shifted = POINTS.copy()
        shifted[axis] += share * 320.0
        assert median_change(brain, shifted) == pytest.approx(change, abs=15 if share < 1 else 1e-6)


def test_fine_shows_both_axes_of_every_plane_in_the_mean_of_its_channels() -> None:
    brain = PhantomBrain("fine", fine_period=400.0)
    for plane in ("coronal", "sagittal", "transverse"):
        grey = brain.plane(plane, at=4000.0, step=25.0).mean(axis=-1)[:304, :304]
        power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
        along, down = power[0, 19], power[19, 0]
        assert min(along, down) > 100 * np.median(power)
        assert 0.2 < along / down < 5


def test_tissue_is_soft_edged_on_light_glass() -> None:
    brain = PhantomBrain()
    picture = brain.plane("coronal", at=7400.0, step=10.0).astype(int)
    for corner in (picture[0, 0], picture[0, -1], picture[-1, 0], picture[-1, -1]):
        assert corner.min() > 230
    tissue = picture.min(axis=-1) < 200
    assert 0.25 < tissue.mean() < 0.75
    steps = np.maximum(
        np.abs(np.diff(picture, axis=0)).max(axis=-1)[:, 1:],
        np.abs(np.diff(picture, axis=1)).max(axis=-1)[1:],
    )
    assert np.percentile(steps, 99.5) < 16


def test_tissue_halves_differ() -> None:
    brain = PhantomBrain()
    inside = brain.colour(*POINTS).min(axis=-1) < 200
    mirrored = POINTS.copy()
    mirrored[2] = 11350 - mirrored[2]
    change = np.abs(brain.colour(*mirrored) - brain.colour(*POINTS)).max(axis=-1)
    assert np.median(change[inside]) > 10
    # Not in hue alone: the outline itself is another one.
    other = brain.colour(*mirrored).min(axis=-1) < 200
    assert np.mean(inside & other) / np.mean(inside | other) < 0.94


def test_tissue_has_dark_bands_that_express() -> None:
    brain = PhantomBrain()
    stained = brain.plane("coronal", at=7900.0).mean(axis=-1)
    level = brain.plane("coronal", at=7900.0, expression=True)
    tissue = stained < 200
    assert level[~tissue].max() < 100
    assert level.max() > 200
    assert stained[level > 150].mean() < stained[tissue].mean() - 30


def test_planes_have_the_axes_of_the_arrays() -> None:
    smooth = PhantomBrain("smooth")
    expected = {
        "coronal": (smooth.colour(5000.0, 2000.0, 3000.0), (20, 30), (80, 114)),
        "sagittal": (smooth.colour(3000.0, 2000.0, 5000.0), (20, 30), (80, 132)),
        "transverse": (smooth.colour(2000.0, 5000.0, 3000.0), (20, 30), (132, 114)),
    }
    for plane, (colour, place, shape) in expected.items():
        picture = smooth.plane(plane, at=5000.0, step=100.0)
        assert picture.shape == (*shape, 3)
        assert picture[place].tolist() == np.rint(colour).tolist()
    assert smooth.plane("coronal", at=0.0, step=300.0).shape == (26, 38, 3)


def test_colours_broadcast_and_do_not_depend_on_their_neighbours() -> None:
    i, r = np.arange(0.0, 8000.0, 20.0)[:, None], np.arange(0.0, 11400.0, 20.0)[None, :]
    for texture in ("tissue", "smooth", "fine"):
        brain = PhantomBrain(texture)
        whole = brain.colour(6000.0, i, r)
        assert whole.shape == (400, 570, 3)
        assert whole.dtype == np.float64
        assert whole.min() >= 0
        assert whole.max() <= 255
        assert np.array_equal(whole[123, 321], brain.colour(6000.0, 2460.0, 6420.0))
        assert brain.expression(6000.0, i, r).shape == (400, 570)


def test_bad_arguments_say_what_would_be_right() -> None:
    with pytest.raises(ValueError, match="tissue, smooth, fine"):
        PhantomBrain("rough")
    with pytest.raises(ValueError, match="above 0 microns"):
        PhantomBrain("fine", fine_period=0.0)
    with pytest.raises(ValueError, match="coronal, sagittal, transverse"):
        PhantomBrain().plane("oblique", at=0.0)
