"""Many datasets as volumes on one grid: one graph, and no more of each than its id."""

import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import atldld
from atldld.testing import AllenServer, Fault, PhantomBrain, SyntheticAtlas, phantom_dataset

BRAIN = PhantomBrain(texture="smooth")
IDS = (61, 62, 63)
PHANTOMS = [
    phantom_dataset(61, sections=5, brain=BRAIN, resolution=40, seed=1, gene="One"),
    phantom_dataset(62, "sagittal", sections=4, brain=BRAIN, resolution=40, seed=2, gene="Two"),
    phantom_dataset(63, sections=6, tilt=8, brain=BRAIN, resolution=40, seed=3, gene="Three"),
]
OPTIONS = {"resolution": 400, "reference_space": 9}


@pytest.fixture(scope="module")
def server():
    with AllenServer(PHANTOMS) as running:
        yield running


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": None, "masked": True},
        {"between": "linear", "region": {"p": (4000, 9000), "i": (2000, 5000)}},
        {"view": "expression_mask", "mirror": True, "chunks": {"dataset": 2, "p": 10}},
        {"on_error": "fill", "masked": True},
    ],
)
def test_each_is_what_it_is_alone(server, options):
    options = {**OPTIONS, **options, "source": server.url}
    many = atldld.open_volumes(IDS, **options)
    assert many.image.dims[:4] == ("dataset", "p", "i", "r")
    assert many.dataset.values.tolist() == list(IDS)
    assert many.gene.values.tolist() == ["One", "Two", "Three"]
    assert many.plane.values.tolist() == ["coronal", "sagittal", "coronal"]
    assert set(many.coords) >= {"specimen", "p", "i", "r", "reference_space"}
    if options.get("chunks"):
        alone = {**options, "chunks": {"p": 10}}
        assert many.image.chunks[0] == (2, 1)
    else:
        alone = options
    computed = many.compute()
    shown = (computed.section_number >= 0).sum("dataset")
    assert computed.coverage.dtype == np.int32
    np.testing.assert_array_equal(computed.coverage, shown)
    assert len(np.unique(shown)) > 1
    for number in IDS:
        volume = atldld.open_volume(number, **alone)
        one = computed.sel(dataset=number)
        assert set(one.data_vars) == {*volume.data_vars, "coverage"}
        for name in volume.data_vars:
            assert one[name].dtype == volume[name].dtype
            np.testing.assert_array_equal(one[name], volume[name])
        xr.align(one.drop_vars(["dataset", "gene", "plane", "specimen"]), volume, join="exact")


def test_a_mean_over_replicates_and_what_it_reads(server):
    many = atldld.open_volumes(IDS, masked=True, **OPTIONS, source=server.url)
    plane = many.image.sel(p=6400)
    plan = plane.mean("dataset").atlas.plan()
    assert set(plan.dataset_id) == set(IDS)
    one = plane.sel(dataset=62).atlas.plan()
    assert set(one.dataset_id) == {62}
    table = plane.atlas.prefetch()
    assert (table.error == "").all()
    server.reset_log()
    mean = plane.mean("dataset").compute()
    assert server.image_requests == []
    each = [
        atldld.open_volume(n, masked=True, **OPTIONS, source=server.url).image.sel(p=6400)
        for n in IDS
    ]
    np.testing.assert_allclose(mean, xr.concat(each, "n").mean("n"), rtol=1e-6)


@pytest.mark.parametrize("chunks", ["auto", None])
def test_any_index(server, chunks):
    many = atldld.open_volumes(IDS, chunks=chunks, **OPTIONS, source=server.url)
    whole = many.compute()
    for index in (
        {"dataset": 1},
        {"dataset": [2, 0], "p": slice(20, 3, -2), "channel": 1},
        {"dataset": slice(0, 0)},
        {"r": 5, "i": [3, 1]},
        {"dataset": xr.DataArray([0, 2], dims="n"), "p": xr.DataArray([4, 5], dims="n")},
    ):
        some = {dim: part for dim, part in index.items() if dim != "channel"}
        np.testing.assert_array_equal(many.image.isel(index), whole.image.isel(index))
        np.testing.assert_array_equal(many.distance.isel(some), whole.distance.isel(some))
    again = pickle.loads(pickle.dumps(many.isel(dataset=[1])))
    xr.testing.assert_identical(again.compute(), whole.isel(dataset=[1]))


def test_nodes_of_another_array(server):
    first = atldld.open_volume(61, resolution=500, source=server.url)
    some = first.isel(p=[9, 12, 3], i=4)
    many = atldld.open_volumes(IDS, like=some, source=server.url)
    assert int(many.reference_space) == 9
    assert many.image.sizes == {"dataset": 3, "p": 3, "r": some.sizes["r"], "channel": 3}
    alone = atldld.open_volume(61, like=some, source=server.url)
    np.testing.assert_array_equal(many.image.sel(dataset=61), alone.image)
    xr.align(many.isel(dataset=0, drop=True), some, join="exact")


def test_failures_are_filled_and_told(server):
    bad = PHANTOMS[0].image_ids[2]
    server.add_fault(Fault("404", image_ids=(bad,)))
    try:
        options = {**OPTIONS, "on_error": "fill", "tier": 1, "masked": True, "source": server.url}
        many = atldld.open_volumes(IDS, **options)
        with pytest.warns(atldld.AtldldWarning):
            computed = many.compute()
        number = PHANTOMS[0].image(bad)["section_number"]
        assert number not in computed.section_number.sel(dataset=61)
        assert many.atlas.failures().image_id.tolist() == [bad]
    finally:
        server.clear_faults()


def test_datasets_are_named_by_an_id_or_a_table_of_them_too(server):
    found = pd.DataFrame({"gene": ["One", "Three"], "dataset_id": [IDS[0], IDS[2]]})
    options = {**OPTIONS, "source": server.url}
    for ids, expected in [
        (found, [IDS[0], IDS[2]]),
        (IDS[1], [IDS[1]]),
        (np.int64(IDS[1]), [IDS[1]]),
    ]:
        assert atldld.open_volumes(ids, **options).dataset.values.tolist() == expected
        assert atldld.open_coverage(ids, source=server.url).dataset.values.tolist() == expected
    assert len(atldld.open_datatree(found, resolution=500, source=server.url).children) == 2


@pytest.mark.parametrize(
    ("ids", "options", "error", "message"),
    [
        ([61, 62], {}, ValueError, r"spaces 9 \(dataset 61\) and 10 \(dataset 62\): choose one"),
        ([61, 61], {}, ValueError, "'61' more than once"),
        ([], {}, ValueError, "empty"),
        ([61, 5, 7], {}, atldld.DatasetNotFoundError, "has no section dataset '5', '7'"),
        ("Prox1", {}, TypeError, "dataset_id"),
        (pd.DataFrame({"gene": ["Prox1"]}), {}, ValueError, "needs dataset_id"),
        ([61], {"chunks": None, "on_error": "fill"}, ValueError, "leave out chunks=None"),
        ([61], {"between": "cubic"}, ValueError, "between"),
        ([61], {"resolution": 0}, ValueError, "resolution"),
        ([61], {"region": {"p": (20000, 30000)}}, ValueError, "holds no"),
    ],
)
def test_what_cannot_be_opened(server, ids, options, error, message):
    with pytest.raises(error, match=message):
        atldld.open_volumes(ids, source=server.url, **options)


def test_with_a_catalogue_nothing_is_asked_and_little_is_held():
    pytest.importorskip("pyarrow")
    with AllenServer(SyntheticAtlas(400)) as server:
        atlas = atldld.catalogue(server.url, images=True)
        ids = atlas.datasets.dataset_id.to_numpy()
        server.reset_log()
        sizes = []
        for count in (100, 400):
            many = atldld.open_volumes(
                ids[:count], resolution=200, reference_space=9, source=server.url
            )
            assert many.sizes["dataset"] == count
            graph = many.image.__dask_graph__()
            sizes.append(len(pickle.dumps(graph)))
        assert (sizes[1] - sizes[0]) / 300 < 200
        assert len(many.image.sel(dataset=ids[7]).atlas.plan()) > 5
        assert server.requests == []
