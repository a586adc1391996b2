"""OME-Zarr images, checked by ome-zarr-models and opened again by ome-zarr-py and zarr."""

import numpy as np
import pytest
import xarray as xr
import zarr
from ome_zarr_models.v05.image import Image

import atldld
from atldld.errors import AtldldWarning
from atldld.export import to_ome_zarr
from atldld.testing import AllenServer

PLANES = ("coronal", "sagittal", "transverse")
ORIENTATION = {
    "p": "anterior-to-posterior",
    "i": "superior-to-inferior",
    "r": "left-to-right",
}


def levels(path):
    """Yield the scale, the translation and the values of each level, axes z, y, x last."""
    group = zarr.open_group(path, mode="r")
    image = Image.from_zarr(group)
    for dataset in image.attributes.ome.multiscales[0].datasets:
        scale, translation = dataset.coordinateTransformations
        yield np.array(scale.scale), np.array(translation.translation), group[dataset.path]


def metadata(path):
    return zarr.open_group(path, mode="r").attrs.asdict()


def blob(where, shape, step, start):
    """Return a volume that is bright around one place of reference space."""
    axes = [first + step * np.arange(size) for first, size in zip(start, shape, strict=True)]
    grids = np.meshgrid(*axes, indexing="ij")
    off = sum((grid - place) ** 2 for grid, place in zip(grids, where, strict=True))
    values = np.exp(-off / (2 * (5 * step) ** 2)).astype(np.float32)
    return xr.DataArray(values, dict(zip("pir", axes, strict=True)), ("p", "i", "r"))


def test_every_level_has_the_landmark_in_place(tmp_path):
    where = (2400.0, 1900.0, 13000.0)
    array = blob(where, (64, 48, 600), 50.0, (1000.0, 700.0, 200.0))
    to_ome_zarr(array, tmp_path / "v.zarr")
    found = list(levels(tmp_path / "v.zarr"))
    assert [level.shape for *_, level in found] == [(64, 48, 600), (32, 24, 300)]
    for scale, translation, level in found:
        values = level[:].astype(np.float64)
        centre = [
            (values * np.indices(values.shape)[axis]).sum() / values.sum() for axis in range(3)
        ]
        # Half a pixel of the finest level is 25 microns.
        np.testing.assert_allclose(translation + scale * centre, where, atol=0.5)


def test_a_volume_says_all_of_where_it_lies(tmp_path, volume):
    array = volume()
    to_ome_zarr(array.chunk(p=4), tmp_path / "v.ome.zarr")
    attributes = metadata(tmp_path / "v.ome.zarr")
    multiscale = attributes["ome"]["multiscales"][0]
    assert attributes["ome"]["version"] == "0.5"
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "z", "y", "x"]
    for axis, name in zip(multiscale["axes"][1:], "pir", strict=True):
        assert axis["type"] == "space"
        assert axis["unit"] == "micrometer"
        assert axis["orientation"] == {"type": "anatomical", "value": ORIENTATION[name]}
    scale, translation, level = next(levels(tmp_path / "v.ome.zarr"))
    assert scale.tolist() == [1, 100, 100, 100]
    assert translation.tolist() == [0, 1000, 600, 2000]
    np.testing.assert_array_equal(level[:], array.values.transpose(3, 0, 1, 2))
    channels = attributes["ome"]["omero"]["channels"]
    assert [(each["label"], each["color"]) for each in channels] == [
        ("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"),
    ]  # fmt: skip
    assert attributes["atldld"]["axes"] == {"z": "p", "y": "i", "x": "r"}
    assert attributes["atldld"]["citation"] == "someone"


def test_another_reader_opens_it(tmp_path, volume):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    array = volume(shape=(4, 600, 5), step=25.0)
    to_ome_zarr(array, tmp_path / "v.ome.zarr")
    location = parse_url(str(tmp_path / "v.ome.zarr"), mode="r")
    image = next(iter(Reader(location)()))
    assert [axis["name"] for axis in image.metadata["axes"]] == ["c", "z", "y", "x"]
    assert [level.shape for level in image.data] == [(3, 4, 600, 5), (3, 2, 300, 2)]
    np.testing.assert_array_equal(image.data[0].compute(), array.values.transpose(3, 0, 1, 2))


@pytest.mark.parametrize("plane", PLANES)
def test_a_stack_keeps_the_place_of_every_section(tmp_path, opened, plane):
    stack = opened(plane, resolution=20, region={"i": (0, 3000)} if plane == "sagittal" else None)
    along, rows, columns = {
        "coronal": "pir", "sagittal": "rip", "transverse": "ipr"
    }[plane]  # fmt: skip
    with pytest.warns(AtldldWarning, match=r"not evenly spaced: gaps run from"):
        stack.atlas.to_ome_zarr(tmp_path / "s.ome.zarr")
    attributes = metadata(tmp_path / "s.ome.zarr")
    kept = attributes["atldld"]
    assert kept["axes"] == {"z": along, "y": rows, "x": columns}
    assert kept["slice_coordinate"] == stack[along].values.tolist()
    assert kept["section_number"] == stack.section.values.tolist()
    assert kept["image_id"] == stack.image_id.values.tolist()
    for axis, name in zip(
        attributes["ome"]["multiscales"][0]["axes"][1:], (along, rows, columns), strict=True
    ):
        assert axis["orientation"]["value"] == ORIENTATION[name]
    (scale, translation, first), (half, moved, second), *_ = levels(tmp_path / "s.ome.zarr")
    assert scale[1] == half[1] == np.median(np.diff(stack[along].values))
    assert translation[1] == moved[1] == stack[along].values[0]
    # Sections are not averaged with one another; pixels of a section are.
    assert second.shape[1] == first.shape[1] == stack.sizes["section"]
    np.testing.assert_array_equal(half[2:], 2 * scale[2:])
    np.testing.assert_array_equal(moved[2:], translation[2:] + scale[2:] / 2)
    planes, places = np.array(kept["plane"]), stack.atlas.pir()
    for row, column in ((3, 9), (40, 70)):
        point = [translation[3] + 20 * column, translation[2] + 20 * row, 1.0]
        true = [places[axis][:, row, column].values for axis in "pir"]
        np.testing.assert_allclose((planes @ point).T, true, atol=1e-6)
    np.testing.assert_array_equal(first[:, 2], stack[2].values.transpose(2, 0, 1))
    down, across = second.shape[2:]
    whole = first[:, 2, : 2 * down, : 2 * across].astype(float)
    low = whole.reshape(3, down, 2, across, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(second[:, 2], low, atol=0.5)


def test_single_sections_and_images_too(tmp_path, opened, server, phantoms):
    section = opened().isel(section=1)
    section.atlas.to_ome_zarr(tmp_path / "s.zarr")
    scale, translation, level = next(levels(tmp_path / "s.zarr"))
    assert scale.tolist() == [1, 200, 200]
    np.testing.assert_array_equal(level[:], section.values.transpose(2, 0, 1))
    phantom = phantoms["sagittal"]
    image_id = phantom.image_ids[2]
    image = atldld.open_image(image_id, tier=1, source=server.url)
    image.atlas.to_ome_zarr(tmp_path / "i.zarr")
    kept = metadata(tmp_path / "i.zarr")
    plane = np.array(kept["atldld"]["plane"][0])
    scale, translation, level = next(levels(tmp_path / "i.zarr"))
    np.testing.assert_array_equal(level[:], image.values.transpose(2, 0, 1))
    row, column = 31, 55
    point = [
        *(translation + scale * [0, row, column])[:0:-1],
        1.0,
    ]
    true = phantom.pir(image_id, float(image.x[column]), float(image.y[row]))
    np.testing.assert_allclose(plane @ point, np.ravel(true), atol=1e-6)


def turned_over(row):
    """Turn the images of a dataset over, so that their columns run the other way."""
    for image in row["section_images"]:
        t, last = image["alignment2d"], image["width"] - 1
        t["tsv_04"] += t["tsv_00"] * last
        t["tsv_05"] += t["tsv_02"] * last
        t["tsv_00"], t["tsv_02"] = -t["tsv_00"], -t["tsv_02"]
        t["tvs_00"], t["tvs_01"] = -t["tvs_00"], -t["tvs_01"]
        t["tvs_04"] = last - t["tvs_04"]


@pytest.mark.parametrize("turned", [False, True])
def test_the_columns_of_an_image_say_which_way_they_run(tmp_path, phantoms, turned):
    phantom = phantoms["sagittal"].altered(turned_over) if turned else phantoms["sagittal"]
    image_id = phantom.image_ids[2]
    with AllenServer([phantom]) as server:
        image = atldld.open_image(image_id, tier=3, source=server.url)
        places = image.atlas.pir().compute()
        image.atlas.to_ome_zarr(tmp_path / "i.zarr")
    axes = metadata(tmp_path / "i.zarr")["ome"]["multiscales"][0]["axes"]
    backwards = bool(places.p[0, -1] > places.p[0, 0])
    assert axes[2]["orientation"]["value"] == (
        "anterior-to-posterior" if backwards else "posterior-to-anterior"
    )
    assert backwards is not turned


def test_labels_stay_labels(tmp_path):
    values = np.zeros((4, 4, 512), dtype=np.int32)
    values[..., 256:] = 9
    values[0, 0, 0] = 5
    axes = {axis: 25.0 * np.arange(size) for axis, size in zip("pir", values.shape, strict=True)}
    array = xr.DataArray(values, axes, ("p", "i", "r"))
    to_ome_zarr(array, tmp_path / "v.zarr")
    _, (*_, second) = levels(tmp_path / "v.zarr")
    assert set(np.unique(second[:])) == {0, 9}
    to_ome_zarr(array == 9, tmp_path / "b.zarr")
    assert next(levels(tmp_path / "b.zarr"))[2].dtype == np.uint8
    with pytest.raises(ValueError, match="labels have no colours"):
        to_ome_zarr(
            array.expand_dims(channel=3, axis=3).astype("u1"), tmp_path / "c.zarr", labels=True
        )


def test_descending_coordinates_are_turned(tmp_path, volume):
    array = volume()
    to_ome_zarr(array.isel(i=slice(None, None, -1)), tmp_path / "v.zarr")
    scale, translation, level = next(levels(tmp_path / "v.zarr"))
    assert translation[2] == 600
    assert scale[2] == 100
    np.testing.assert_array_equal(level[:], array.values.transpose(3, 0, 1, 2))


def test_unsorted_sections_are_refused(tmp_path, opened):
    stack = opened().isel(section=[2, 0, 1])
    with pytest.raises(ValueError, match="no ascending order"):
        stack.atlas.to_ome_zarr(tmp_path / "s.zarr")
