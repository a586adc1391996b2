"""Images that cannot be had: raised, filled, or served from another tier, and always noted."""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import atldld
from atldld.arrays.planning import readers
from atldld.store.inventory import clear_cache
from atldld.testing import AllenServer, Fault, phantom_dataset
from usual import usual

PHANTOM = phantom_dataset(31, sections=6, resolution=12, tier_count=6, seed=1)


@pytest.fixture
def server():
    with AllenServer([PHANTOM]) as running, atldld.set_options(retries=0):
        yield running


def opened(server, function=atldld.open_dataarray, **options):
    options = {"resolution": 100, "chunks": {"section": 2}, **options}
    return function(31, source=server.url, **options)


def clear(server):
    """Forget what was downloaded and what was asked for."""
    clear_cache()
    server.reset_log()


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


@pytest.mark.parametrize(
    "scheduler", usual(["distributed", "threads", "synchronous", "processes"], 2)
)
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


@pytest.mark.parametrize(
    ("scheduler", "times"), usual([("synchronous", None), ("threads", 1), ("distributed", 1)], 2)
)
def test_what_is_filled_is_not_covered_in_the_same_computation(server, scheduler, times):
    data = opened(server, atldld.open_dataset, on_error="fill", tier=2, chunks="auto")
    good = data.image.where(data.covered).compute()
    bad = int(data.image_id[1])
    clear(server)
    server.add_fault(Fault("404", image_ids=(bad,), times=times))
    result, _ = compute(data.image.where(data.covered), scheduler)
    assert np.isnan(result.isel(section=1)).all()
    xr.testing.assert_identical(result.drop_isel(section=1), good.drop_isel(section=1))


@pytest.mark.parametrize("chunks", ["auto", None, {"section": 2, "channel": 1}])
def test_what_is_covered_does_not_depend_on_order(server, chunks):
    def fresh():
        return opened(server, atldld.open_dataset, on_error="fill", tier=2, chunks=chunks)

    bad = int(fresh().image_id[1])
    server.add_fault(Fault("404", image_ids=(bad,), times=1))
    data = fresh()
    with pytest.warns(atldld.AtldldWarning, match="is filled"):
        image = data.image.load()
    covered = data.covered.load()
    assert (image.isel(section=1) == 255).all()
    assert not covered.isel(section=1).any()
    assert covered.isel(section=2).any()
    # The fault is over: a new opening knows nothing of it, whichever is computed first.
    data = fresh()
    assert data.covered.load().isel(section=1).any()
    assert (data.image.load().isel(section=1) != 255).any()


def test_the_coverage_of_expression_is_that_of_both(server):
    bad = PHANTOM.image_ids[1]
    server.add_fault(Fault("404", image_ids=(bad,), views=("expression",)))
    data = opened(server, atldld.open_dataset, on_error="fill", tier=2, include_expression=True)
    with pytest.warns(atldld.AtldldWarning, match="is filled"):
        data = data.load()
    place = data.image_id.values.tolist().index(bad)
    assert not data.covered.isel(section=place).any()
    assert (data.image.isel(section=place) != 255).any()
    assert data.covered.drop_isel(section=place).any(["y", "x"]).all()


@pytest.mark.parametrize("view", ["image", "expression_mask"])
@pytest.mark.parametrize("chunks", ["auto", None])
def test_marks_change_no_pixel(server, view, chunks):
    kept = opened(server, atldld.open_dataset, view=view, chunks=chunks)
    filled = opened(server, atldld.open_dataset, view=view, chunks=chunks, on_error="fill")
    assert filled.sizes == kept.sizes
    part = {"section": [4, 1], "y": slice(10, 30), "x": [7, 3]}
    xr.testing.assert_identical(filled.isel(part).load(), kept.isel(part).load())
    xr.testing.assert_identical(
        filled.isel(section=0, y=5).load(), kept.isel(section=0, y=5).load()
    )
    xr.testing.assert_identical(filled.load(), kept.load())


def test_coverage_reads_images_only_where_they_may_be_filled(server):
    data = opened(server, atldld.open_dataset)
    assert data.covered.isel(section=0).atlas.plan().empty
    data = opened(server, atldld.open_dataset, on_error="fill", chunks="auto")
    plan = data.isel(section=0).atlas.plan()
    assert set(plan[plan["whole"]]["image_id"]) >= {int(data.image_id[0])}
    for name in ("image", "covered"):
        assert set(data[name].isel(section=0).atlas.plan()["image_id"]) == set(plan["image_id"])
    clear(server)
    data.isel(section=0).load()
    clear(server)
    data.isel(section=1).load()
    assert {each.image_id for each in server.image_requests} == {int(data.image_id[1])}


@pytest.mark.parametrize(
    ("scheduler", "between"),
    usual([("threads", "nearest"), ("threads", "linear"), ("distributed", "nearest")], 2),
)
def test_a_volume_shows_no_section_that_is_filled(server, scheduler, between):
    options = {"resolution": 200, "between": between, "source": server.url, "masked": True}
    good = atldld.open_volume(31, **options).compute()
    number = int(good.section_number.max())
    bad = next(
        image_id
        for image_id in PHANTOM.image_ids
        if PHANTOM.image(image_id)["section_number"] == number
    )
    clear(server)
    server.add_fault(Fault("404", image_ids=(bad,)))
    volume = atldld.open_volume(31, on_error="fill", tier=2, **options)
    result, _ = compute(volume, scheduler)
    shown = result.section_number >= 0
    assert not (result.section_number == number).any()
    assert shown.any()
    assert (shown == result.image.notnull().all("channel")).all()
    assert (shown == result.distance.notnull()).all()
    lost = good.section_number == number
    assert (shown == ((good.section_number >= 0) & ~lost)).all()


def test_a_volume_by_itself_says_what_it_shows(server):
    bad = PHANTOM.image_ids[1]
    number = PHANTOM.image(bad)["section_number"]
    server.add_fault(Fault("404", image_ids=(bad,)))
    for chunks in ("auto", None):
        volume = atldld.open_volume(
            31, resolution=200, on_error="fill", tier=2, source=server.url, chunks=chunks
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", atldld.AtldldWarning)
            assert not (volume.section_number.load() == number).any()


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


class TestNotes:
    """What is told afterwards: nobody else's word, bounded, and without a trace."""

    CODE = """
import sys, warnings, dask, atldld
warnings.simplefilter("ignore")
if __name__ == "__main__":
    dask.config.set(scheduler="processes", num_workers=2)
    array = atldld.open_dataarray(
        31, source=sys.argv[1], resolution=100, tier=2, on_error="fill", chunks={"section": 2}
    )
    array.compute()
    print(array.atlas.failures().image_id.tolist())
"""

    @pytest.mark.exhaustive
    def test_nothing_is_left_behind(self, server, tmp_path):
        bad = PHANTOM.image_ids[1]
        server.add_fault(Fault("404", image_ids=(bad,)))
        script = tmp_path / "script.py"
        script.write_text(self.CODE)
        folder = tmp_path / "tmp"
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, script, server.url],
            env={**os.environ, "TMPDIR": str(folder), "ATLDLD_RETRIES": "0"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == f"[{bad}]"
        assert not [path for path in folder.rglob("*") if "failures" in path.name]

    def test_a_clock_that_is_set_back_changes_nothing(self, server, monkeypatch):
        array = opened(server, on_error="fill", tier=2)
        bad = int(array.image_id[1])
        server.add_fault(Fault("404", image_ids=(bad,), times=1))
        with pytest.warns(atldld.AtldldWarning, match="is filled"):
            array.isel(section=1).compute()
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now - 1e6)
        array.isel(section=1).compute()
        assert array.atlas.failures().empty

    def test_what_fails_again_and_again_is_noted_once(self, server):
        array = opened(server, on_error="fill", tier=2)
        server.add_fault(Fault("404", image_ids=(int(array.image_id[1]),)))
        ledger = readers(array)[0].failing.ledger
        with pytest.warns(atldld.AtldldWarning, match="is filled"):
            array.isel(section=1).compute()
        file = Path(ledger.folder) / f"{ledger.name}.jsonl"
        assert file.stat().st_mode & 0o077 == 0
        assert file.parent.stat().st_mode & 0o077 == 0
        size = file.stat().st_size
        for _ in range(20):
            array.isel(section=1).compute()
        assert file.stat().st_size == size
        assert len(array.atlas.failures()) == 1

    def test_a_link_in_the_place_of_the_file_is_not_followed(self, server, tmp_path):
        array = opened(server, on_error="fill", tier=2)
        server.add_fault(Fault("404", image_ids=(int(array.image_id[1]),)))
        ledger = readers(array)[0].failing.ledger
        victim = tmp_path / "victim"
        victim.write_text("mine")
        (Path(ledger.folder) / f"{ledger.name}.jsonl").symlink_to(victim)
        with pytest.warns(atldld.AtldldWarning, match="is filled"):
            array.isel(section=1).compute()
        assert victim.read_text() == "mine"
        assert len(array.atlas.failures()) == 1
