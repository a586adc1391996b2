"""The same dataset in other chunks, together in one computation."""

import cv2
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


@pytest.mark.parametrize("volume", [False, True], ids=["sections", "volume"])
def test_tasks_do_not_divide_calls_of_opencv_and_leave_its_threads_as_they_were(
    server, monkeypatch, volume
):
    opening = atldld.open_volume if volume else atldld.open_dataarray
    seen = []
    warp_affine = cv2.warpAffine

    def watched(*given, **more):
        seen.append(cv2.getNumThreads())
        return warp_affine(*given, **more)

    monkeypatch.setattr(cv2, "warpAffine", watched)
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        chunked = opening(1001, resolution=200, source=server.url)
        with dask.config.set(scheduler="threads", num_workers=2):
            ours = chunked.compute()
        assert set(seen) == {1}
        assert cv2.getNumThreads() == 3
        seen.clear()
        whole = opening(1001, resolution=200, chunks=None, source=server.url).load()
        assert set(seen) == {3}
        assert ours.identical(whole)
    finally:
        cv2.setNumThreads(before)
