"""``engine="atldld"``: what xarray opens is what we open, as lazily."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr
from xarray.backends import list_engines

import atldld
from atldld import MixError
from atldld.testing import AllenServer, phantom_dataset

# xarray warns of chunks that are no multiples of the preferred ones; sections are read one by one.
pytestmark = pytest.mark.filterwarnings("ignore:The specified chunks separate:UserWarning")


@pytest.fixture
def engine(server):
    """Return a function that opens a dataset by id through xarray at 200 microns."""

    def engine(dataset_id, chunks="{}", **options):
        options = {"resolution": 200, "source": server.url, **options}
        chunks = {} if chunks == "{}" else chunks
        return xr.open_dataset(f"allen://{dataset_id}", engine="atldld", chunks=chunks, **options)

    return engine


def test_xarray_finds_the_engine():
    assert "allen://" in list_engines()["atldld"].description


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("allen://69289763", True),
        ("ALLEN://1/", True),
        ("allen://", False),
        ("allen://x", False),
        ("allen://1/../2", False),
        ("http://allen/1", False),
        ("1001", False),
        (1001, False),
    ],
)
def test_only_urls_of_datasets_are_ours(url, ours):
    assert list_engines()["atldld"].guess_can_open(url) is ours


@pytest.mark.parametrize("name", ["coronal", "sagittal", "transverse"])
def test_it_opens_what_open_dataset_opens(engine, opened, phantoms, name):
    options = {"include_expression": True, "masked": True, "on_error": "fill"}
    expected = opened(name, atldld.open_dataset, **options)
    found = engine(phantoms[name].id, **options)
    assert found.attrs == expected.attrs
    assert {key: type(index) for key, index in found.xindexes.items()} == {
        key: type(index) for key, index in expected.xindexes.items()
    }
    assert found.chunksizes == expected.chunksizes
    for key in expected.variables:
        assert found[key].attrs == expected[key].attrs
    xr.testing.assert_identical(found.compute(), expected.compute())


def test_coordinates_stay_in_memory(engine):
    for chunks in ("{}", {"section": 1}, None):
        found = engine(101, chunks=chunks)
        assert not any(found[name].chunks for name in found.coords)


def test_chunks_are_those_asked_for(engine):
    assert engine(101, chunks={"section": 2}).image.chunksizes["section"] == (2, 2, 2)
    assert engine(101, chunks={}).image.chunksizes["section"] == (6,)
    assert engine(101, chunks=None).image.chunks is None


@pytest.mark.parametrize("chunks", ["{}", {"section": 1}, None])
def test_pixels_wait_until_they_are_asked_for(engine, server, chunks):
    server.reset_log()
    found = engine(101, chunks=chunks)
    assert len(server.requests) == 1
    part = found.image.sel(p=slice(5000, 8000)).isel(y=slice(10, 20))
    repr(found), found._repr_html_(), repr(part)
    wanted = set(part.image_id.values.tolist())
    assert 0 < len(wanted) < 6
    planned = part.atlas.plan()
    assert set(planned["image_id"]) == wanted
    assert not server.image_requests
    part.compute()
    assert {request.image_id for request in server.image_requests} == wanted


def test_variables_can_be_left_out(engine):
    assert list(engine(101, drop_variables="covered")) == ["image"]
    assert "tier" not in engine(101, drop_variables=["covered", "tier", "no such"]).coords


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"resolutoin": 25}, r"'resolutoin' is no option .*; did you mean 'resolution'\?"),
        ({"mask_and_scale": True}, "'mask_and_scale' is no option"),
        ({"group": "x"}, "The options are 'include_expression', 'annotation'"),
    ],
)
def test_unknown_options_are_refused_by_name(engine, server, option, said):
    server.reset_log()
    with pytest.raises(TypeError, match=said):
        engine(101, **option)
    assert not server.requests


def test_wrong_options_are_refused_as_ours_are(engine, server):
    with pytest.raises(ValueError, match="view is 'picture'"):
        engine(101, view="picture")
    with pytest.raises(ValueError, match="must be like 'allen://69289763'"):
        xr.open_dataset("69289763", engine="atldld")
    with pytest.raises(atldld.DatasetNotFoundError):
        engine(999)


def test_two_services_are_not_taken_for_one_another():
    one, other = (phantom_dataset(1001, sections=3, seed=seed, resolution=64) for seed in (1, 2))
    opened = []
    for dataset in (one, other):
        with (
            AllenServer([dataset]) as server,
            atldld.set_options(api_url=server.url),
        ):
            opened.append(
                xr.open_dataset("allen://1001", engine="atldld", chunks={}, resolution=400).image
            )
            opened[-1].compute()
    first, second = (each.variable for each in opened)
    assert first.data.name != second.data.name
    both = xr.Variable.concat([first, second], "service").compute()
    assert (both.values[0] != both.values[1]).any()


def test_many_datasets_stack_along_a_dimension_of_their_own(server, opened):
    planes = xr.open_mfdataset(
        ["allen://101", "allen://104"],
        engine="atldld",
        resolution=200,
        source=server.url,
        preprocess=lambda one: one.atlas.at(p=6600).expand_dims(dataset=[one.attrs["dataset_id"]]),
        combine="nested",
        concat_dim="dataset",
        coords="different",
        compat="equals",
        join="exact",
        combine_attrs="drop_conflicts",
    )
    assert planes.dataset.values.tolist() == [101, 104]
    assert planes.image.dims == ("dataset", "y", "x", "channel")
    assert "dataset_id" not in planes.attrs
    assert planes.attrs["plane"] == "coronal"
    assert planes.image_id.dims == ("dataset",)
    for name, dataset_id in (("coronal", 101), ("other coronal", 104)):
        np.testing.assert_array_equal(
            planes.image.sel(dataset=dataset_id), opened(name).atlas.at(p=6600)
        )


@pytest.mark.parametrize("dim", ["section", "dataset"])
def test_sections_of_two_datasets_do_not_stack(server, dim):
    with pytest.raises(MixError, match="cannot be combined along 'section'"):
        xr.open_mfdataset(
            ["allen://101", "allen://104"],
            engine="atldld",
            resolution=200,
            source=server.url,
            combine="nested",
            concat_dim=dim,
        )


def test_planes_of_two_kinds_do_not_stack(server):
    with pytest.raises(MixError):
        xr.open_mfdataset(
            ["allen://101", "allen://102"],
            engine="atldld",
            resolution=200,
            source=server.url,
            preprocess=lambda one: one.isel(section=2),
            combine="nested",
            concat_dim="dataset",
        )


@pytest.mark.parametrize("chunks", ["{}", None])
def test_it_pickles(engine, chunks):
    found = engine(101, chunks=chunks)
    again = pickle.loads(pickle.dumps(found))
    xr.testing.assert_identical(
        again.isel(section=[1]).compute(), found.isel(section=[1]).compute()
    )


def test_a_bundle_through_the_engine(engine, server, tmp_path):
    atldld.pack(101, tmp_path / "bundle", resolution=200, source=server.url)
    server.reset_log()
    found = engine(101, source=str(tmp_path / "bundle")).image.isel(section=1).compute()
    assert found.any()
    assert not server.requests
