"""Computing on a mirror of all grids: each chunk is read once, and no more than one is held."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fsspec import register_implementation
from fsspec.implementations.local import LocalFileSystem

import atldld
from atldld.arrays import accessor  # noqa: F401

SHAPE = (12, 7, 9)
COUNT, SHARD = 11, 4


class CountedFileSystem(LocalFileSystem):
    """Local files, and what was read of them."""

    protocol = "counted"
    reads: list[tuple[str, int | None, int | None]] = []  # noqa: RUF012

    def cat_file(self, path, start=None, end=None, **options):
        self.reads.append((str(path), start, end))
        return super().cat_file(path, start=start, end=end, **options)


register_implementation("counted", CountedFileSystem, clobber=True)


def nodes(**attrs):
    coords = {axis: np.arange(count) * 200.0 for axis, count in zip("pir", SHAPE, strict=True)}
    return coords, {"reference_space": 9, **attrs}


@pytest.fixture(scope="module")
def energy():
    random = np.random.default_rng(0)
    values = random.gamma(1.0, 2.0, (COUNT, *SHAPE)).astype(np.float32)
    values[random.random(values.shape) < 0.2] = np.nan
    values[3] = np.nan
    coords, attrs = nodes()
    coords |= {
        "dataset": 70 + np.arange(COUNT),
        "gene": ("dataset", [f"G{k}" for k in range(COUNT)]),
    }
    return xr.DataArray(values, coords, ("dataset", *"pir"), name="energy", attrs=attrs)


@pytest.fixture(scope="module")
def annotation():
    random = np.random.default_rng(1)
    coords, attrs = nodes(midline_r=800.0, atlas="made up")
    return xr.DataArray(random.integers(0, 5, SHAPE), coords, [*"pir"], attrs=attrs)


@pytest.fixture
def mirror(energy, tmp_path):
    energy.to_dataset().assign_attrs(energy.attrs).atlas.to_zarr(tmp_path / "mirror", shard=SHARD)
    CountedFileSystem.reads.clear()
    return atldld.open_grids(f"counted://{tmp_path / 'mirror'}").energy


def shard_reads():
    """Return, for each shard of energy, the ranges that were read of it."""
    found = {}
    for path, start, end in CountedFileSystem.reads:
        if "/energy/c/" in path:
            found.setdefault(path, []).append((start, end))
    return found


def assert_read_once():
    reads = shard_reads()
    assert len(reads) == 3
    for ranges in reads.values():
        assert len(ranges) == len({*ranges})
    whole = [ranges for ranges in reads.values() if ranges == [(None, None)]]
    assert len(whole) == 2  # The last shard is not full: its index comes first, then each chunk.


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_correlating_reads_each_chunk_once(mirror, energy, scheduler):
    import dask

    with dask.config.set(scheduler=scheduler):
        found = atldld.correlations(mirror, 75)
    assert_read_once()
    pd.testing.assert_frame_equal(found, atldld.correlations(energy, 75))


def test_of_something_computed_too(mirror, energy):
    found = atldld.correlations(np.log1p(mirror), 75)
    assert_read_once()
    pd.testing.assert_frame_equal(found, atldld.correlations(np.log1p(energy), 75))


@pytest.mark.parametrize("by_hemisphere", [False, True])
def test_means_of_structures_read_each_chunk_once(mirror, energy, annotation, by_hemisphere):
    found = atldld.structure_table(mirror, annotation, by_hemisphere=by_hemisphere)
    assert_read_once()
    expected = atldld.structure_table(energy, annotation, by_hemisphere=by_hemisphere)
    pd.testing.assert_frame_equal(found, expected)
    inside = energy.sel(dataset=75).values[annotation.values == 2]
    if not by_hemisphere:
        assert found.loc[(2, 75), "mean"] == pytest.approx(np.nanmean(inside))


def test_a_chunk_of_datasets_at_a_time_is_summed(mirror, annotation):
    from dask.callbacks import Callback

    largest = []

    class Sizes(Callback):
        def _posttask(self, key, result, dsk, state, worker_id):
            if isinstance(result, np.ndarray):
                largest.append(result.nbytes)

    with Sizes():
        atldld.structure_table(mirror, annotation)
    assert max(largest) == SHARD * np.prod(SHAPE) * 4
