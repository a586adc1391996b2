"""The same dataset in other chunks, together in one computation."""

import dask
import numpy as np
import pytest

import atldld
from atldld.testing import AllenServer, phantom_dataset


@pytest.fixture(scope="module")
def server():
    with AllenServer([phantom_dataset(1001)]) as running:
        yield running


def test_arrays_in_other_chunks_do_not_stand_for_each_other(server):
    """dask takes blocks of one name for one block."""
    coarse, fine = (
        atldld.open_dataarray(
            1001, resolution=200, chunks={"section": 4, "y": rows}, source=server.url
        )
        for rows in (20, 10)
    )
    assert not (coarse.mean(("y", "x")) - fine.mean(("y", "x"))).any()
    expected = coarse.compute().values
    low, high = dask.compute(coarse.isel(y=slice(20, 40)), fine.isel(y=slice(10, 20)))
    np.testing.assert_array_equal(low.values, expected[:, 20:40])
    np.testing.assert_array_equal(high.values, expected[:, 10:20])


def test_volumes_in_other_chunks_do_not_stand_for_each_other(server):
    coarse, fine = (
        atldld.open_volume(1001, resolution=400, chunks={"p": planes}, source=server.url).image
        for planes in (20, 10)
    )
    assert not (coarse.mean(("p", "r")) - fine.mean(("p", "r"))).any()
