"""Pixels as rows, and the structure of each, against plain look-ups."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import atldld
from atlases import labels
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset

PHANTOM = phantom_dataset(
    51, "sagittal", sections=5, tilt=8, brain=PhantomBrain(texture="smooth"), resolution=30
)
SHAPE = (67, 41, 58)


@pytest.fixture(scope="module")
def server():
    with AllenServer([PHANTOM]) as running:
        yield running


@pytest.fixture(scope="module")
def annotation():
    coords = {axis: 200.0 * np.arange(n) for axis, n in zip("pir", SHAPE, strict=True)}
    attrs = {"reference_space": 9, "midline_r": 5700.0, "atlas": "boxes"}
    return xr.DataArray(labels(200, "node", SHAPE), coords, ("p", "i", "r"), attrs=attrs)


@pytest.fixture
def opened(server):
    def opened(function=atldld.open_dataset, **options):
        options = {"resolution": 200, "masked": True, "source": server.url, **options}
        return function(51, **options)

    return opened


@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
@pytest.mark.parametrize("chunks", ["auto", None])
@pytest.mark.parametrize("space", [9, 10])
def test_the_structure_of_every_pixel(server, opened, annotation, chunks, space, mapping):
    data = opened(annotation=annotation, chunks=chunks, reference_space=space, mapping=mapping)
    found = data.structure_id
    assert found.dims == ("section", "y", "x")
    assert found.dtype == np.int64
    assert (found.chunks is None) == (chunks is None)
    expected = atldld.structures_at(data.atlas.pir(), annotation).compute()
    server.reset_log()
    np.testing.assert_array_equal(found, expected)
    part = found.isel(section=2, y=slice(30, 5, -2), x=[4, 9])
    np.testing.assert_array_equal(part, expected.isel(section=2, y=slice(30, 5, -2), x=[4, 9]))
    assert server.requests == []
    assert len(np.unique(expected)) > 4
    assert part.atlas.pir().p.shape == part.shape


def test_it_is_a_mask_and_a_key(opened, annotation):
    data = opened(annotation=annotation, reference_space=9)
    grey = data.image.mean("channel")
    inside = grey.where(data.structure_id > 0)
    table = atldld.structure_table(grey, annotation)
    means = grey.compute().groupby(data.structure_id.compute()).mean()
    for structure, row in table.iterrows():
        assert means.sel(structure_id=structure) == pytest.approx(row["mean"])
    assert int(inside.count()) == table["count"].sum()


def test_an_annotation_by_path(opened, annotation, monkeypatch):
    monkeypatch.setattr(atldld, "open_annotation", lambda path: {"here.nrrd": annotation}[path])
    by_path = opened(annotation="here.nrrd", reference_space=9).structure_id
    xr.testing.assert_identical(
        by_path, opened(annotation=annotation, reference_space=9).structure_id
    )


@pytest.mark.parametrize("wrong", [7, xr.DataArray([1, 2], dims="p")])
def test_what_is_no_annotation_is_refused_before_pixels(opened, wrong):
    with pytest.raises((TypeError, ValueError), match="annotation"):
        opened(annotation=wrong)


@pytest.mark.parametrize("chunks", ["auto", {"section": 2, "y": 15}, None])
def test_a_row_a_pixel(opened, annotation, chunks):
    array = opened(atldld.open_dataarray, chunks=chunks, reference_space=9)
    table = array.atlas.to_table(annotation=annotation)
    places = array.atlas.pir().compute()
    assert len(table) == 5 * 40 * 66
    assert list(table) == [
        *("section", "image_id", "y", "x", "p", "i", "r", "structure_id"),
        *("red", "green", "blue"),
    ]  # fmt: skip
    rows = table.set_index(["section", "y", "x"]).to_xarray().sel(section=array.section.values)
    for axis in "pir":
        np.testing.assert_array_equal(rows[axis], places[axis])
    np.testing.assert_array_equal(rows.structure_id, atldld.structures_at(places, annotation))
    np.testing.assert_array_equal(rows.image_id[:, 0, 0], array.image_id)
    for channel in ("red", "green", "blue"):
        np.testing.assert_array_equal(rows[channel], array.sel(channel=channel))


def test_rows_of_a_structure(opened, annotation):
    data = opened(annotation=annotation, reference_space=9, include_expression=True)
    whole = data.atlas.to_table()
    assert {"image_red", "expression_blue", "covered", "structure_id"} < set(whole)
    some = data.atlas.to_table(structure=[11, 21])
    expected = whole[whole.structure_id.isin([11, 21])]
    pd.testing.assert_frame_equal(
        some.sort_values(["section", "y", "x"], ignore_index=True),
        expected.sort_values(["section", "y", "x"], ignore_index=True)[list(some)],
    )
    table = atldld.structure_table(data.image.mean("channel"), annotation)
    grey = some[["image_red", "image_green", "image_blue"]].mean(axis=1)
    means = grey.groupby(some.structure_id).mean()
    np.testing.assert_allclose(means, table["mean"].loc[[11, 21]], rtol=1e-5)
    assert len(data.atlas.to_table(structure=5)) == 0
    with pytest.raises(ValueError, match="needs annotation="):
        data[["image"]].atlas.to_table(structure=11)


def test_rows_of_less_than_all(opened, server, annotation):
    array = opened(atldld.open_dataarray, reference_space=9)
    one = array.isel(section=2, y=slice(9, 3, -1)).mean("channel")
    table = one.atlas.to_table()
    assert list(table) == ["section", "image_id", "y", "x", "p", "i", "r", "image"]
    np.testing.assert_array_equal(table["image"], one.values.ravel())
    np.testing.assert_array_equal(table["r"], one.atlas.pir().r.values.ravel())
    pixel = array.isel(section=1, y=4, x=5).compute().atlas.to_table()
    assert len(pixel) == 1
    assert pixel.p[0] == array.x[5]
    assert len(array.isel(x=slice(0, 0)).atlas.to_table()) == 0
    image = atldld.open_image(int(array.image_id[1]), source=server.url)
    native = image[5:9, 7:11].atlas.to_table(annotation=annotation)
    np.testing.assert_array_equal(native.p, image[5:9, 7:11].atlas.pir().p.values.ravel())
    assert native.section.unique().tolist() == [int(array.section[1])]
    with pytest.raises(ValueError, match="select from them, or reduce them"):
        array.expand_dims("gene").atlas.to_table()


def test_rows_of_voxels(server, annotation):
    volume = atldld.open_volume(51, resolution=400, reference_space=9, source=server.url)
    table = volume.atlas.to_table(annotation=annotation)
    assert len(table) == volume.section_number.size
    assert {"p", "i", "r", "structure_id", "image_red", "section_number", "distance"} <= set(table)
    rows = table.set_index(["p", "i", "r"]).to_xarray()
    np.testing.assert_array_equal(rows.image_green, volume.image.sel(channel="green"))
    np.testing.assert_array_equal(
        rows.structure_id, atldld.structures_at(volume.atlas.pir(), annotation)
    )


@pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="pyarrow is not installed")
def test_parquet_part_by_part(opened, annotation, tmp_path, server):
    array = opened(atldld.open_dataarray, chunks={"section": 1, "y": 16}, reference_space=9)
    path = tmp_path / "pixels.parquet"
    server.reset_log()
    array.atlas.to_table(path, annotation=annotation, structure=[11, 12, 21, 22])
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    assert file.num_row_groups > 5
    assert file.schema_arrow.metadata[b"gene"] == array.attrs["gene"].encode()
    table = array.atlas.to_table(annotation=annotation, structure=[11, 12, 21, 22])
    pd.testing.assert_frame_equal(pd.read_parquet(path), table, check_like=False)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        array.atlas.to_table(path)
    array.isel(section=0).atlas.to_table(path, overwrite=True)
    assert len(pd.read_parquet(path)) == 40 * 66
    assert [each.name for each in tmp_path.iterdir()] == ["pixels.parquet"]
