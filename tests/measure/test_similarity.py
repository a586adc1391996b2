"""How alike expression is: against numpy, lazily, and on a cluster."""

import numpy as np
import pytest
import xarray as xr

import atldld

SHAPE = (11, 7, 9)


@pytest.fixture(scope="module")
def energy():
    random = np.random.default_rng(0)
    values = random.gamma(1.0, 2.0, (9, *SHAPE)).astype(np.float32)
    values[random.random(values.shape) < 0.2] = np.nan
    values[3] = 2 * values[0] + 1
    values[4] = np.nan
    values[5] = 0.1  # the mean of which is not quite 0.1
    numbers = [70, 71, 72, 73, 74, 75, 76, 77, 78]
    coords = {"dataset": numbers, "gene": ("dataset", [f"G{number}" for number in numbers])}
    return xr.DataArray(values, coords, ("dataset", "p", "i", "r"))


def expected(energy, number):
    one = energy.sel(dataset=number).values.ravel().astype(float)
    for each in energy:
        other = each.values.ravel().astype(float)
        both = ~np.isnan(one) & ~np.isnan(other)
        with np.errstate(invalid="ignore"):
            enough = both.sum() >= 100 and np.ptp(other[both]) > 0
            yield np.corrcoef(one[both], other[both])[0, 1] if enough else np.nan


@pytest.mark.parametrize("chunks", [None, 1, 4])
def test_it_is_pearsons_over_common_voxels(energy, chunks):
    lazy = energy if chunks is None else energy.chunk(dataset=chunks, p=3)
    found = atldld.correlations(lazy, 72).set_index("dataset_id").loc[energy.dataset.values]
    np.testing.assert_allclose(found.correlation, [*expected(energy, 72)], rtol=1e-10)
    first = atldld.correlations(lazy, 70)
    assert first.gene.tolist()[:2] == ["G70", "G73"]
    assert first.correlation[:2].tolist() == pytest.approx([1, 1])
    assert first.voxels.iloc[-1] in (0, energy.sel(dataset=70).count().item())
    assert first.correlation.isna().sum() == 2


def test_what_cannot_be(energy):
    with pytest.raises(KeyError, match="no dataset 5"):
        atldld.correlations(energy, 5)
    with pytest.raises(ValueError, match="dataset, p, i and r"):
        atldld.correlations(energy[0], 70)
