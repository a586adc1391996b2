"""Volumes of real metadata and a real image, held against Allen's own grid."""

import warnings

import numpy as np
import pytest
import xarray as xr

import atldld
from atldld.testing import AllenServer, load_recorded

STEP = 200
FINE = 25


@pytest.fixture(scope="module")
def server(real):
    """Serve the recorded dataset."""
    with AllenServer([load_recorded(real / "69289763")]) as running:
        yield running


@pytest.fixture(scope="module")
def energy(real):
    """Return Allen's expression energy, NaN without data."""
    return atldld.open_grid(real / "69289763" / "energy.mhd", reference_space=10).energy


def overlap(server, energy, **shift):
    """Return intersection over union of what sections cover and of where Allen has energy."""
    like = energy.drop_vars("reference_space", errors="ignore").drop_attrs()
    like = like.assign_coords({axis: like[axis] + by for axis, by in shift.items()})
    volume = atldld.open_volume(69289763, like=like, max_distance=100, source=server.url)
    covered, truth = (volume.section_number >= 0).values, energy.notnull().values
    return (covered & truth).sum() / (covered | truth).sum()


def test_coverage_is_that_of_allens_own_grid(server, energy):
    assert overlap(server, energy) == pytest.approx(0.9753, abs=0.002)
    for axis in "pir":
        for shift in (-100, 100):
            assert overlap(server, energy, **{axis: shift}) < 0.9753
    assert server.image_requests == []


def test_space_of_the_grid_is_that_of_the_volume(server, energy):
    volume = atldld.open_volume(69289763, like=energy, source=server.url)
    xr.align(volume, energy, join="exact")
    assert volume.attrs["reference_space"] == 10


@pytest.fixture(scope="module")
def shares(server, energy):
    """Return the share of dark voxels of the one real image around each node that it is nearest to.

    The other sections have no image here: they are filled, and not shown.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", atldld.AtldldWarning)
        volume = atldld.open_volume(
            69289763,
            resolution=FINE,
            tier=2,
            region={"r": (3000, 3800)},
            on_error="fill",
            source=server.url,
        )
        image = volume.image.compute()
        number = volume.section_number.compute()
    assert set(np.unique(number)) <= {-1, 70}
    shown = number == 70
    dark = (image.mean("channel") < 130) & shown
    nearest = atldld.open_volume(69289763, like=energy, source=server.url).section_number
    out = xr.full_like(energy, np.nan)
    for p, i, r in np.argwhere((nearest == 70).values):
        cell = {
            axis: slice(at * STEP - STEP / 2, at * STEP + STEP / 2 - FINE)
            for axis, at in (("p", p), ("i", i), ("r", r))
        }
        here = shown.sel(cell).values
        if here.size == (STEP // FINE) ** 3 and here.mean() > 0.5:
            out[p, i, r] = dark.sel(cell).values.sum() / here.sum()
    return out


def correlation(shares, energy):
    both = np.isfinite(shares) & np.isfinite(energy)
    return np.corrcoef(shares[both], energy[both])[0, 1]


def test_dark_voxels_lie_where_the_energy_is_high(shares, energy):
    values, truth = shares.values, energy.values
    assert 1500 < np.isfinite(values).sum() < 2300
    in_place = correlation(values, truth)
    assert in_place == pytest.approx(0.73, abs=0.03)
    for by in (-1, 1):
        assert correlation(values, np.roll(truth, by, axis=2)) < in_place - 0.02
    for axis in (0, 1):
        assert abs(correlation(values, np.flip(truth, axis))) < 0.3
