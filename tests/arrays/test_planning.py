"""The plan equals the requests that a server then sees, whatever was done to the array."""

import dask
import numpy as np
import pytest
import xarray as xr

import atldld
from atldld.testing import AllenServer, Fault, phantom_dataset
from usual import usual

LARGE = {"resolution": 4, "tier_count": 8, "sections": 4}
PHANTOMS = [
    phantom_dataset(21, plane="coronal", seed=1, **LARGE),
    phantom_dataset(22, plane="sagittal", seed=2, slides=True, **LARGE),
]

CHAINS = {
    "all": lambda a: a,
    "sections": lambda a: a.isel(section=[2, 0]),
    "chained": lambda a: a.isel(section=slice(1, None)).isel(section=1, y=slice(20, 60)),
    "in the plane": lambda a: a.isel(y=slice(50, 90), x=slice(30, 200)),
    "arithmetic": lambda a: (a.isel(section=[0, 1]).astype("float32") - 7) * 2,
    "between sections": lambda a: a.isel(section=1) - a.isel(section=3),
    "reduction": lambda a: a.isel(section=slice(0, 3)).mean(["y", "x"]),
    "scalar": lambda a: a.isel(section=slice(0, 2)).max(),
    "rolling": lambda a: a.isel(section=slice(0, 3)).rolling(section=2).mean(),
    "where": lambda a: a.where(a > 100).isel(section=2),
    "concat": lambda a: xr.concat([a.isel(section=[0]), a.isel(section=[3])], "section"),
    "rechunked": lambda a: a.isel(section=2).chunk({"y": 37}) if a.chunks else a.isel(section=2),
    "repeated": lambda a: a.isel(section=[1, 1, 1]),
    "backwards": lambda a: a.isel(section=slice(None, 1, -1), y=slice(60, 10, -7)),
    "stacked": lambda a: a.isel(section=0).stack(point=("y", "x")),
    "nowhere": lambda a: a.isel(y=slice(0, 2), x=slice(0, 2)),
}


@pytest.fixture(scope="module")
def server():
    with AllenServer(PHANTOMS) as running:
        yield running


IMAGES = {image: phantom.image(image) for phantom in PHANTOMS for image in phantom.image_ids}


def asked(server):
    """Return what a server was asked for, by the section's own tier pixels."""
    return sorted(
        (
            each.image_id,
            each.view,
            each.tier,
            each.left // 2**each.tier - IMAGES[each.image_id]["x"] // 2**each.tier,
            each.top // 2**each.tier - IMAGES[each.image_id]["y"] // 2**each.tier,
            each.width,
            each.height,
        )
        for each in server.image_requests
    )


def planned(table):
    columns = ["image_id", "view", "tier", "left", "top", "width", "height"]
    rows = table[~table["cached"]][columns].itertuples(index=False, name=None)
    return sorted(tuple(row) for row in rows)


def lies_within(one, other):
    (left, top, width, height), (from_left, from_top, across, down) = one[3:], other[3:]
    return one[:3] == other[:3] and (
        from_left <= left
        and from_top <= top
        and left + width <= from_left + across
        and top + height <= from_top + down
    )


@pytest.mark.parametrize(
    "chunks", usual([{"section": 1, "y": 100}, "auto", {"section": -1}, None], 2)
)
@pytest.mark.parametrize("dataset_id", usual([22, 21]))
@pytest.mark.parametrize("chain", CHAINS)
def test_the_plan_is_what_the_server_then_sees(server, chain, dataset_id, chunks):
    options = {"resolution": 30, "tier": 1, "chunks": chunks, "source": server.url}
    array = atldld.open_dataarray(dataset_id, **options)
    if chunks is None and chain in (
        "arithmetic",
        "between sections",
        "reduction",
        "scalar",
        "rolling",
        "where",
        "concat",
        "stacked",
    ):
        pytest.skip("such a step loads an array without dask")
    server.reset_log()
    result = CHAINS[chain](array)
    plan = result.atlas.plan()
    assert server.requests == []
    result.compute()
    # A window that lies within another planned one is asked for as well if it comes first.
    assert set(planned(plan)) <= set(asked(server))
    assert len(asked(server)) == len(set(asked(server)))
    for extra in set(asked(server)) - set(planned(plan)):
        assert any(lies_within(extra, other) for other in planned(plan))
    if not (chunks and dict(chunks if chunks != "auto" else {}).get("y")):
        assert asked(server) == planned(plan)


@pytest.mark.parametrize("dataset_id", usual([22, 21]))
@pytest.mark.parametrize("chain", usual(CHAINS, ["all", "chained", "concat", "nowhere"]))
def test_prefetching_asks_for_what_is_planned_and_computing_for_nothing_more(chain, dataset_id):
    with AllenServer(PHANTOMS) as server:
        options = {"resolution": 30, "tier": 1, "chunks": {"section": 2, "y": 90}}
        array = atldld.open_dataarray(dataset_id, **options, source=server.url)
        result = CHAINS[chain](array)
        plan = result.atlas.plan()
        server.reset_log()
        result.atlas.prefetch()
        assert asked(server) == planned(plan)
        result.compute()
        assert asked(server) == planned(plan)


def test_datasets_plan_both_views(server):
    both = atldld.open_dataset(
        21, resolution=100, tier=2, include_expression=True, source=server.url
    )
    plan = both.isel(section=slice(1, 3)).atlas.plan()
    assert sorted(plan["view"]) == ["expression"] * 2 + ["image"] * 2
    assert both.covered.to_dataset().atlas.plan().empty


def test_prefetched_arrays_compute_without_a_network(server):
    with AllenServer(PHANTOMS) as brief:
        array = atldld.open_dataarray(22, resolution=40, tier=0, source=brief.url)
        part = (array.isel(section=slice(1, 4), y=slice(30, 120), x=slice(50, 200)) * 2).max("y")
        table = part.atlas.prefetch()
        assert (table["error"] == "").all()
        assert (table["bytes"] > 0).all()
        sent = sum(each.bytes_sent for each in brief.image_requests)
        assert table["bytes"].sum() <= sent
    computed = part.compute()
    assert part.atlas.plan()["cached"].all()
    fresh = atldld.open_dataarray(22, resolution=40, tier=0, source=server.url)
    fresh = fresh.isel(section=slice(1, 4), y=slice(30, 120), x=slice(50, 200))
    np.testing.assert_array_equal(computed, (fresh * 2).max("y"))


def test_what_is_at_hand_is_neither_asked_for_nor_read(tmp_path):
    """Its bytes are checked when they are used: damage is noticed there, and mended."""
    with AllenServer(PHANTOMS) as own, atldld.set_options(cache_dir=tmp_path):
        array = atldld.open_dataarray(21, resolution=100, source=own.url)
        right = array.compute()
        first = array.atlas.prefetch()
        for path in tmp_path.rglob("*.jpg"):
            path.write_bytes(bytes(path.stat().st_size))
        own.reset_log()
        again = array.atlas.prefetch()
        assert own.image_requests == []
        assert again.equals(first)
        assert (again["bytes"] > 0).all()
        np.testing.assert_array_equal(array.compute(), right)
        assert len(own.image_requests) == array.sizes["section"]


def test_a_failure_does_not_stop_the_rest(server):
    with AllenServer(PHANTOMS) as own:
        array = atldld.open_dataarray(21, resolution=100, source=own.url)
        bad = int(array.image_id[1])
        own.add_fault(Fault("404", image_ids=(bad,)))
        table = array.atlas.prefetch().set_index("image_id")
        assert str(bad) in table.loc[bad, "error"]
        assert table.loc[bad, "bytes"] == 0
        assert (table.drop(bad)["bytes"] > 0).all()
        assert (table.drop(bad)["error"] == "").all()


def test_what_holds_no_reader_says_so(server):
    array = atldld.open_dataarray(21, resolution=200, source=server.url)
    for nothing in (array.compute(), array.p * 2, array.compute().to_dataset(name="v")):
        with pytest.raises(ValueError, match="reads no section images"):
            nothing.atlas.plan()
        with pytest.raises(ValueError, match="reads no section images"):
            nothing.atlas.prefetch()


def test_prefetch_shows_progress_where_asked(server, capsys):
    array = atldld.open_dataarray(21, resolution=150, source=server.url)
    array.atlas.prefetch()
    assert capsys.readouterr().err == ""
    with atldld.set_options(progress=True):
        array.atlas.prefetch()
    assert "Fetching images" in capsys.readouterr().err


def test_planning_a_thousand_sections_reads_nothing_and_culls():
    phantom = phantom_dataset(7, sections=1000, resolution=200, section_thickness=5)
    with AllenServer([phantom]) as own:
        array = atldld.open_dataarray(7, chunks={"section": 1}, source=own.url)
        own.reset_log()
        assert len(array.isel(section=slice(3, 990, 100)).mean("section").atlas.plan()) == 10
        assert own.requests == []
    with dask.config.set({"optimization.fuse.active": False}):
        assert len(array.isel(section=5).atlas.plan()) == 1
