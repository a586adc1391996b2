"""The same result on every scheduler, and with options carried to workers."""

import pickle

import dask
import numpy as np
import pytest

import atldld

pytestmark = pytest.mark.exhaustive


@pytest.fixture
def expected(opened):
    """Return the values of a masked phantom, read without dask."""
    return opened(chunks=None, masked=True).values


def test_pickled_arrays_are_the_same(opened, expected):
    for chunks in (None, "auto"):
        again = pickle.loads(pickle.dumps(opened(chunks=chunks, masked=True)))
        np.testing.assert_array_equal(again.values, expected)
        assert again.sel(section=int(again.section[1])).image_id == again.image_id[1]
        with pytest.raises(ValueError, match="cannot be combined"):
            again + opened("other coronal", masked=True)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_local_schedulers(opened, expected, scheduler):
    array = opened(chunks={"section": 2}, masked=True)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        np.testing.assert_array_equal(array.values, expected)


def test_two_processes_of_dask_distributed(opened, expected):
    distributed = pytest.importorskip("distributed")
    array = opened(chunks={"section": 1}, masked=True)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster),
    ):
        np.testing.assert_array_equal(array.compute().values, expected)
        reduced = array.mean("section").compute()
    count = (~np.isnan(expected)).sum(axis=0)
    mean = np.nansum(expected, axis=0) / np.where(count, count, np.nan)
    np.testing.assert_allclose(reduced.values, mean, rtol=1e-5)


def test_options_of_the_opening_travel_to_workers(opened, tmp_path):
    folder = tmp_path / "cache of the opening"
    with atldld.set_options(cache_dir=folder):
        array = opened(chunks={"section": 2})
    # Here the options of the moment hold ...
    array.isel(section=0).compute()
    assert not list(folder.rglob("*.jpg"))
    # ... and elsewhere those of the opening, where the environment does not say otherwise.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ATLDLD_CACHE_DIR")
        with dask.config.set(scheduler="processes", num_workers=1):
            array.isel(section=0).compute()
    assert list(folder.rglob("*.jpg"))


def test_errors_keep_their_fields_on_their_way_from_a_process(opened, server):
    from atldld.testing import Fault

    array = opened(chunks={"section": 2})
    image_id = int(array.image_id[0])
    server.add_fault(Fault("404", image_ids=(image_id,)))
    try:
        for scheduler in ("threads", "processes"):
            with (
                dask.config.set(scheduler=scheduler, num_workers=1),
                pytest.raises(atldld.ImageError) as caught,
            ):
                array.isel(section=[0]).compute()
            assert caught.value.image_id == image_id
            assert caught.value.dataset_id == 101
            assert caught.value.section_number == int(array.section[0])
            assert str(image_id) in caught.value.url
    finally:
        server.clear_faults()


def test_a_damaged_image_is_fetched_once_more_then_an_error(opened, server):
    from atldld.testing import Fault

    array = opened(chunks=None, tier=1)
    for section, times in ((1, 1), (2, None)):
        image_id = int(array.image_id[section])
        server.add_fault(Fault("damaged", image_ids=(image_id,), times=times))
        server.reset_log()
        if times == 1:
            array.isel(section=section).load()
        else:
            with pytest.raises(atldld.ImageError, match=f"image {image_id}"):
                array.isel(section=section).load()
        assert [each.image_id for each in server.image_requests] == [image_id] * 2
        server.clear_faults()
