"""Images that cannot be had: raised, filled, or served from another tier, and always noted."""

import warnings

import dask
import numpy as np
import pytest

import atldld
from atldld.testing import AllenServer, Fault, phantom_dataset

PHANTOM = phantom_dataset(31, sections=6, resolution=12, tier_count=6, seed=1)


@pytest.fixture
def server():
    with AllenServer([PHANTOM]) as running, atldld.set_options(retries=0):
        yield running


def opened(server, function=atldld.open_dataarray, **options):
    options = {"resolution": 100, "chunks": {"section": 2}, **options}
    return function(31, source=server.url, **options)


def compute(array, scheduler):
    if scheduler == "distributed":
        distributed = pytest.importorskip("distributed")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
            ) as cluster,
            distributed.Client(cluster),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", atldld.AtldldWarning)
            return array.compute(), array.atlas.failures()
    with (
        dask.config.set(scheduler=scheduler, num_workers=2),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", atldld.AtldldWarning)
        return array.compute(), array.atlas.failures()


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes", "distributed"])
def test_a_failed_section_is_filled_and_listed_on_every_scheduler(server, scheduler):
    array = opened(server, on_error="fill", tier=2, masked=True)
    good = array.isel(section=3).compute()
    bad = int(array.image_id[1])
    server.add_fault(Fault("404", image_ids=(bad,)))
    result, failures = compute(array, scheduler)
    assert np.isnan(result.isel(section=1)).all()
    np.testing.assert_array_equal(result.isel(section=3), good)
    assert result.isel(section=[0, 2, 3, 4, 5]).notnull().any(["y", "x", "channel"]).all()
    (row,) = failures.to_dict("records")
    assert row["image_id"] == bad
    assert row["dataset_id"] == 31
    assert row["section_number"] == int(array.section[1])
    assert row["tier"] == 2
    assert row["outcome"] == "filled"
    assert str(bad) in row["url"]
    assert "404" in row["reason"]


def test_the_result_knows_its_failures_after_reductions(server):
    array = opened(server, on_error="fill", tier=2, masked=True)
    bad = int(array.image_id[1])
    server.add_fault(Fault("404", image_ids=(bad,)))
    result, _ = compute(array.mean("section"), "threads")
    assert result.atlas.failures()["image_id"].tolist() == [bad]
    with pytest.raises(ValueError, match="does not say which arrays"):
        array.p.drop_vars("reference_space").atlas.failures()


def test_one_warning_a_section(server):
    array = opened(server, on_error="fill", tier=1, resolution=40, chunks={"section": 1, "y": 60})
    bad = int(array.image_id[2])
    server.add_fault(Fault("404", image_ids=(bad,)))
    with pytest.warns(atldld.AtldldWarning) as caught:
        array.isel(section=[1, 2]).compute()
    assert len(caught) == 1
    assert f"section {int(array.section[2])} of dataset 31 is filled" in str(caught[0].message)
    assert str(bad) in str(caught[0].message)


def test_what_was_filled_is_not_covered(server):
    data = opened(server, atldld.open_dataset, on_error="fill", tier=2)
    bad = int(data.image_id[1])
    assert data.covered.isel(section=1).any()
    server.add_fault(Fault("404", image_ids=(bad,)))
    with pytest.warns(atldld.AtldldWarning, match="is filled"):
        image = data.image.compute()
    covered = data.covered.compute()
    assert not covered.isel(section=1).any()
    assert (image.isel(section=1) == 255).all()
    assert covered.isel(section=2).any()


def test_an_image_that_comes_after_all_is_no_failure(server):
    array = opened(server, on_error="fill", tier=2)
    bad = int(array.image_id[1])
    server.add_fault(Fault("404", image_ids=(bad,), times=1))
    with pytest.warns(atldld.AtldldWarning, match="is filled"):
        array.isel(section=1).compute()
    assert len(array.atlas.failures()) == 1
    assert (array.isel(section=1).compute() != 255).any()
    assert array.atlas.failures().empty


@pytest.mark.parametrize("kind", ["404", "html", "damaged", "wrong-size", "wrong-format", "500"])
@pytest.mark.parametrize("on_error", ["raise", "fill"])
def test_another_tier_serves_where_one_is_bad(server, kind, on_error):
    array = opened(server, on_error=on_error)
    tier, bad = int(array.tier[1]), int(array.image_id[1])
    assert tier > 0
    expected = opened(server, tier=tier - 1).isel(section=1).compute()
    server.add_fault(Fault(kind, image_ids=(bad,), tiers=(tier,)))
    with pytest.warns(atldld.AtldldWarning, match=f"is served from tier {tier - 1}"):
        section = array.isel(section=1).compute()
    np.testing.assert_array_equal(section, expected)
    (row,) = array.atlas.failures().to_dict("records")
    assert row["outcome"] == f"tier {tier - 1}"
    assert (row["image_id"], row["tier"]) == (bad, tier)


def test_the_coarser_tier_serves_where_the_finer_is_bad_too(server):
    array = opened(server)
    tier, bad = int(array.tier[1]), int(array.image_id[1])
    server.add_fault(Fault("404", image_ids=(bad,), tiers=(tier, tier - 1)))
    with pytest.warns(atldld.AtldldWarning, match=f"is served from tier {tier + 1}"):
        array.isel(section=1).compute()


def test_a_tier_that_was_asked_for_is_not_replaced(server):
    array = opened(server, tier=2)
    bad = int(array.image_id[1])
    server.add_fault(Fault("404", image_ids=(bad,), tiers=(2,)))
    with pytest.raises(atldld.ImageError) as caught:
        array.isel(section=1).compute()
    assert caught.value.image_id == bad


def test_no_other_tier_is_tried_where_the_service_is_away(server):
    array = opened(server)
    bad = int(array.image_id[1])
    server.add_fault(Fault("503", image_ids=(bad,)))
    server.reset_log()
    with pytest.raises(atldld.ImageError, match="503"):
        array.isel(section=1).compute()
    assert len({each.tier for each in server.image_requests}) <= 1


def test_the_rest_is_left_when_an_error_is_raised(server):
    array = opened(server, tier=2, chunks=None)
    server.add_fault(Fault("404", image_ids=(int(array.image_id[0]),)))
    with pytest.raises(atldld.ImageError):
        array.load()
    # What is under way then may still arrive; nothing blocks, and the array can be read again.
    server.clear_faults()
    assert array.load().sizes["section"] == 6
